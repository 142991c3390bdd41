"""The command ``graphflow`` up to its first line of work: Ctrl-C while it loads ends it without a traceback.

This is a module of its own because importing anything of the package imports NumPy and Numba first.
"""

from __future__ import annotations

import importlib
import os
import signal
from types import FrameType


def main() -> int:
    """Loads the command and runs it; gives its exit code."""
    outer = signal.getsignal(signal.SIGINT)
    if outer is signal.default_int_handler:  # whoever had it ignored goes on ignoring it
        signal.signal(signal.SIGINT, _leave)
    command = importlib.import_module("graphflow.cli")
    signal.signal(signal.SIGINT, outer)
    code: int = command.main()
    return code


def _leave(number: int, frame: FrameType | None) -> None:
    """Ends the process at once: nothing has begun, and half of the modules are there."""
    os.write(2, b"graphflow: interrupted\n")
    os._exit(128 + number)
