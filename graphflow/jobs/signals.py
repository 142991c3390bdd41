"""Ctrl-C and SIGTERM as a wish to stop that the training loop grants between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopWish:
    """Context manager: inside, the first signal is noted in ``signal``; the second has its usual effect."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._outer: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopWish:
        if threading.current_thread() is threading.main_thread():  # Python takes signals nowhere else
            for number in _SIGNALS:
                self._outer[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._outer.items():
            signal.signal(number, handler)
        self._outer = {}


class Stopped(Exception):
    """A run that ended early because of a signal; its message says where it can go on."""

    def __init__(self, number: signal.Signals, message: str):
        super().__init__(message)
        self.exit_code = 128 + int(number)
