"""Python loops inside compiled functions: every round becomes part of the graph."""

from __future__ import annotations

import sys
import warnings
from types import CodeType, FrameType

from graphflow.compiler.location import Loc, at_frame, user_frames
from graphflow.errors import UnrollWarning

MANY = 200  # copies of one source line in a graph

# So that Python's default filter shows a line's warning once.
_REGISTRY: dict[str | tuple[str, type[Warning], int], int] = {}


class Rounds:
    """Counts how often each call in the user's code is traced.

    A call that asks for many operations, such as that of a model, counts once: it has one frame.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[CodeType, int], int] = {}
        self._last: FrameType | None = None

    def user_loc(self) -> Loc | None:
        """The innermost of the user's lines, counted."""
        frames = user_frames(sys._getframe(1))
        if frames is None:
            return None
        frame, called = frames
        loc = at_frame(frame)
        if called is not self._last:
            self._last = called
            self._count((frame.f_code, frame.f_lasti), loc)
        return loc

    def end(self) -> None:
        """Lets go of the last frame, with whatever its callers have in their variables."""
        self._last = None

    def _count(self, call: tuple[CodeType, int], loc: Loc) -> None:
        count = self._counts[call] = self._counts.get(call, 0) + 1
        if count == MANY + 1:
            message = (
                f"{loc.describe()}: this line has been traced {MANY} times; a Python loop in a "
                "compiled function is unrolled, and every round compiled by itself. gf.scan or gf.fori_loop "
                "compile it once for any number of rounds"
            )
            warnings.warn_explicit(message, UnrollWarning, loc.file, loc.line, registry=_REGISTRY)
