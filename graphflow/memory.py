"""What handles share behind their backs: memory with versions, saved values, and a trace's gradients and
leaves.
"""

from __future__ import annotations

import itertools
import threading
import types
import weakref
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

import numpy as np

from graphflow.compiler.ir import Node
from graphflow.compiler.trace import Trace, current_trace
from graphflow.runtime.locks import ForkLock

if TYPE_CHECKING:
    from graphflow.tensor import Tensor


class Storage:
    """Memory that handles share, with a version that every in-place change advances. `born` tells which of
    two is older; ``doubtful``, in a trace, is the error for reading what may have been changed.
    """

    __slots__ = ("__weakref__", "_views", "born", "doubtful", "version")
    count = itertools.count()

    def __init__(self) -> None:
        self.version = 0
        self.born = next(Storage.count)
        self.doubtful: str | None = None
        self._views: weakref.WeakSet[Tensor] | None = None

    def add_view(self, view: Tensor) -> None:
        """Notes a handle that takes its history from its owner's."""
        if self._views is None:
            self._views = weakref.WeakSet()
        self._views.add(view)

    def views(self) -> list[Tensor]:
        """The handles noted that are still alive."""
        return list(self._views or ())


class _Region(threading.local):
    saved: set[int] | None = None


_REGION = _Region()


class Saved:
    """The concrete value of an eager node, for backward to use if nobody has overwritten it meanwhile.

    `users` counts the operations whose gradients may need it: the one that made it and those that took it.
    """

    __slots__ = ("array", "leaf", "storage", "users", "version")

    def __init__(self, array: np.ndarray, storage: Storage, leaf: weakref.ref[Tensor] | None = None):
        self.leaf, self.users = leaf, 0
        self.put(array, storage)

    def put(self, array: np.ndarray, storage: Storage) -> None:
        """Says where the value is from now on."""
        self.array, self.storage, self.version = array, storage, storage.version
        if _REGION.saved is not None:
            _REGION.saved.add(id(self))


SAVED: weakref.WeakKeyDictionary[Node, Saved] = weakref.WeakKeyDictionary()
_USING: weakref.WeakSet[Node] = weakref.WeakSet()  # operations counted among the users of values
_RELEASED: weakref.WeakSet[Node] = weakref.WeakSet()  # operations whose gradient needs values that are gone
_KEPT: weakref.WeakSet[Node] = weakref.WeakSet()  # values that follow from the program alone
_RECOMPUTED: weakref.WeakSet[Node] = weakref.WeakSet()  # operations that are done again for their value


# Held from taking operands' histories until they have one more user, so that no other thread's backward lets
# go of them in between, and while users are counted.
RECORDING = ForkLock(reentrant=True)

# The handles whose ``.grad`` backward fills although they aren't leaves, by what they hold.
RETAINED: weakref.WeakKeyDictionary[Node, weakref.ref[Tensor]] = weakref.WeakKeyDictionary()


def retains_still(handle: Tensor, before: Node | None, now: Node) -> None:
    """After a change in place: a handle that keeps its gradient keeps that of what it holds now."""
    kept = RETAINED.get(before) if before is not None and RETAINED else None
    if kept is not None and kept() is handle and before is not None:
        del RETAINED[before]
        RETAINED[now] = kept


def save(node: Node, array: np.ndarray, storage: Storage) -> None:
    """Keeps the value of an operation just recorded, and those it was made from, until `release`."""
    with RECORDING:
        saved = SAVED.get(node)
        if saved is None:
            SAVED[node] = Saved(array, storage)
        else:
            saved.put(array, storage)
        waiting = [node]
        while waiting:
            user = waiting.pop()
            if user in _USING or not user.inputs:
                continue
            _USING.add(user)
            for used in (user, *user.inputs):
                value = SAVED.get(used)
                if value is not None:
                    value.users += 1
                elif used is not user:
                    waiting.append(used)


def release(node: Node, needs_values: bool) -> None:
    """Lets go of the values that only this operation's gradient may need; one that does can't run again."""
    with RECORDING:
        if needs_values:
            _RELEASED.add(node)
        if node not in _USING:
            return
        _USING.remove(node)
        if node in _RECOMPUTED:
            return  # its operands may be needed for computing its value once more
        for used in (node, *node.inputs):
            value = SAVED.get(used)
            if value is not None:
                value.users -= 1
                if value.users <= 0 and value.leaf is None and used not in _KEPT:
                    del SAVED[used]


def keep(node: Node) -> None:
    """Says that a value follows from the program alone: it stays for as many backwards as there are."""
    _KEPT.add(node)


def is_kept(node: Node) -> bool:
    """Whether `release` leaves the node's value."""
    return node in _KEPT


def recompute(node: Node) -> None:
    """Lets an operation's value go; whoever needs it computes it again from its operands."""
    _RECOMPUTED.add(node)
    del SAVED[node]


def is_released(node: Node) -> bool:
    """Whether the values that an operation's backward needs are gone."""
    return node in _RELEASED


class Region:
    """Tells which values were saved since it was entered."""

    def __enter__(self) -> Region:
        self._outer, _REGION.saved = _REGION.saved, set()
        return self

    def __exit__(self, *exc: object) -> None:
        self._saved = _REGION.saved or set()
        if self._outer is not None:
            self._outer |= self._saved
        _REGION.saved = self._outer

    def has(self, node: Node) -> bool:
        """Whether the node's value was saved in here, and by an operation that can be done again."""
        saved = SAVED.get(node)
        return (
            saved is not None
            and id(saved) in self._saved
            and bool(node.inputs)
            and node.op.name not in ("project", "alias")
        )


# Advanced by everything that compiled variants depend on and that changes rarely: flags, a replaced array,
# module attributes. A variant whose checks passed in this epoch needn't repeat them.
EPOCH = types.CellType(0)


def advance_epoch() -> None:
    """Tells compiled functions to look again at the Python values they depend on."""
    EPOCH.cell_contents += 1


def epoch() -> int:
    """The number of changes so far; see `advance_epoch`."""
    return EPOCH.cell_contents  # type: ignore[no-any-return]


def depends_on(owner: object, read: Callable[[], Hashable]) -> None:
    """While tracing: notes that the function took plain Python values from `owner`; they are compared at
    every call.

    Whoever changes such a value calls `advance_epoch`.
    """
    trace = current_trace()
    if trace is not None:
        trace.depends_on(owner, read)


def made_of_numbers(tensor: Tensor) -> None:
    """While tracing: notes a tensor that the function makes of numbers, anew at every call."""
    trace = current_trace()
    if trace is not None:
        trace.root.born[id(tensor)] = tensor


class GradTable:
    """The ``.grad`` of handles as a trace sees them: what was read at the start, and what they hold now."""

    def __init__(self) -> None:
        self.initial: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.current: dict[int, tuple[Tensor, Tensor | None]] = {}

    def get(self, tensor: Tensor) -> Tensor | None:
        """The gradient at this point of the trace."""
        if id(tensor) not in self.current:
            self.initial[id(tensor)] = self.current[id(tensor)] = (tensor, tensor._grad)
        return self.current[id(tensor)][1]

    def set(self, tensor: Tensor, grad: Tensor | None) -> None:
        """Replaces the gradient from here on."""
        self.current[id(tensor)] = (tensor, grad)


def grad_table(trace: Trace) -> GradTable:
    """The gradients of a trace's handles."""
    root = trace.root
    if root.grads is None:
        root.grads = GradTable()
    return root.grads  # type: ignore[no-any-return]


def leaves_of(trace: Trace) -> dict[Node, Tensor]:
    """The handle that each node of a trace is the value of, for those that want a gradient."""
    return trace.root.leaves
