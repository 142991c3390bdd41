"""Where in the user's code something was asked for."""

from __future__ import annotations

import functools
import linecache
import os
import sys
import sysconfig
from dataclasses import dataclass
from types import TracebackType

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_COMMAND = _PACKAGE + "cli.py"
_LIBRARY = sysconfig.get_paths()["stdlib"] + os.sep


@dataclass(frozen=True)
class Loc:
    """A line of the user's program."""

    file: str
    line: int
    function: str

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
    """The innermost frame of the user's code; what started the command ``graphflow`` isn't that."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        if code.co_filename == _COMMAND:
            return None
        if is_users(code.co_filename):
            return Loc(code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def raised_at(traceback: TracebackType | None) -> Loc | None:
    """The innermost of the user's lines that an exception came through."""
    found = None
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if is_users(code.co_filename):
            found = Loc(code.co_filename, traceback.tb_lineno, code.co_name)
        traceback = traceback.tb_next
    return found
