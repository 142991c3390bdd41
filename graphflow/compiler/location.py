"""Where in the user's code something was asked for."""

from __future__ import annotations

import functools
import linecache
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import NamedTuple

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_COMMAND = _PACKAGE + "cli.py"
_LIBRARY = sysconfig.get_paths()["stdlib"] + os.sep


class Asked(NamedTuple):
    """The public function behind an operation that looks something up, and how its indices count.

    With `from_zero` negative indices don't count from the end: they reach the operation less the size. With
    `counted` an index is a number of elements, with the size added, that should have been the size less one.
    """

    name: str
    from_zero: bool
    counted: bool = False

    def told(self, index: int, size: int) -> str:
        """What is wrong with an index that the operation refused, as the user gave it."""
        if self.counted:
            return f"shape mismatch: the mask selects {index - size} elements, the value has {size - 1}"
        given = index + size if self.from_zero and index < 0 else index
        return f"index {given} is out of range for a dimension of size {size}"


_LOCAL = threading.local()


def current_asked() -> Asked | None:
    """What `asked_by` says of the operations that are made now."""
    return getattr(_LOCAL, "asked", None)


@contextmanager
def asked_by(name: str, from_zero: bool = False) -> Iterator[None]:
    """Errors about indices in operations made inside name this public function."""
    with asked_as(current_asked() or Asked(name, from_zero)):
        yield


@contextmanager
def asked_as(asked: Asked) -> Iterator[None]:
    """Errors about indices in operations made inside are told like this."""
    outer = current_asked()
    _LOCAL.asked = asked
    try:
        yield
    finally:
        _LOCAL.asked = outer


@dataclass(frozen=True)
class Loc:
    """A line of the user's program."""

    file: str
    line: int
    function: str
    asked: Asked | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)}:{self.line}"

    def describe(self) -> str:
        """File, line, function and, where it can be read, the line itself."""
        text = linecache.getline(self.file, self.line).strip()
        place = f"{self.file}:{self.line} in {self.function}"
        return f"{place}: {text}" if text else place


@functools.cache
def is_users(file: str) -> bool:
    """Whether a file is neither graphflow's nor Python's own: ``copy.deepcopy`` is nobody's line."""
    own = file.startswith((_PACKAGE, "<frozen "))
    return not own and (not file.startswith(_LIBRARY) or "site-packages" in file)


def user_loc() -> Loc | None:
    """The innermost line of the user's code; what started the command ``graphflow`` isn't that."""
    frames = user_frames(sys._getframe())
    return None if frames is None else at_frame(frames[0])


def where_called() -> str:
    """The user's line for the end of a message, or nothing."""
    loc = user_loc()
    return f"\n  at {loc.describe()}" if loc else ""


def user_frames(inner: FrameType) -> tuple[FrameType, FrameType] | None:
    """From `inner` outwards: the innermost frame of the user's code, and the frame that it called."""
    frame = inner.f_back
    while frame is not None:
        file = frame.f_code.co_filename
        if file == _COMMAND:
            return None
        if is_users(file):
            return frame, inner
        inner, frame = frame, frame.f_back
    return None


def user_level() -> int:
    """The ``stacklevel`` with which the caller's ``warnings.warn`` names the user's innermost line."""
    level, frame = 1, sys._getframe(1)
    while not is_users(frame.f_code.co_filename):
        if frame.f_back is None:
            return 1
        level, frame = level + 1, frame.f_back
    return level


def at_frame(frame: FrameType) -> Loc:
    """The line that a frame is at."""
    return Loc(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, current_asked())


def raised_at(traceback: TracebackType | None) -> Loc | None:
    """The innermost of the user's lines that an exception came through."""
    found = None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if is_users(code.co_filename):
            found = Loc(code.co_filename, traceback.tb_lineno, code.co_name)
        traceback = traceback.tb_next
    return found
