"""Standard output that its reader may close."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO


class Output:
    """A text stream that goes on as if written to nowhere when its reader has gone, as ``| head`` does.

    `notice` is then told on standard error, once.
    """

    def __init__(self, stream: TextIO, notice: str):
        self._stream, self._notice = stream, notice

    def write(self, text: str) -> int:
        """Writes the text, or drops it."""
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._let_go()
            return len(text)

    def flush(self) -> None:
        """Hands what was written to the reader, if there still is one."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._let_go()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _let_go(self) -> None:
        _to_nowhere(self._stream)
        if self._notice:
            complain(self._notice)
            self._notice = ""


def complain(text: str) -> None:
    """A line on standard error, if anybody reads that."""
    try:
        print(f"graphflow: {text}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        _to_nowhere(sys.stderr)


def _to_nowhere(stream: TextIO) -> None:
    """Whatever the stream writes from here on, what it holds back among it, goes to the null device."""
    with contextlib.closing(os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")) as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def standard_output(notice: str = "") -> Any:
    """``sys.stdout`` as an `Output`; a file for rich's Console."""
    return Output(sys.stdout, notice)
