"""Locks that a forked child finds free, whatever the parent's threads were doing at that moment."""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType


class ForkLock:
    """A mutual exclusion lock. In a child of ``fork`` it starts free: its holder doesn't exist there.

    A `reentrant` one lets the thread that has it in again.
    """

    __slots__ = ("__weakref__", "_lock", "_make", "acquire", "release")

    def __init__(self, reentrant: bool = False) -> None:
        self._make = threading.RLock if reentrant else threading.Lock
        self._renew()
        _all.add(self)

    def _renew(self) -> None:
        self._lock = self._make()
        # bound methods as attributes spare the fast path a Python call
        self.acquire = self._lock.acquire
        self.release = self._lock.release

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


_all: weakref.WeakSet[ForkLock] = weakref.WeakSet()


def _renew_all() -> None:
    for lock in list(_all):
        lock._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
