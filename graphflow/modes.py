"""Whether operations are recorded for gradients, and whether they run at once while a function is traced."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graphflow.compiler.trace import tracing


class _Mode(threading.local):
    grad_enabled = True


MODE = _Mode()


class _GradMode:
    """Context manager and decorator that sets whether operations are recorded."""

    def __init__(self, enabled: bool):
        self._enabled = enabled
        self._outer: list[bool] = []

    def __enter__(self) -> None:
        self._outer.append(MODE.grad_enabled)
        MODE.grad_enabled = self._enabled

    def __exit__(self, *exc: object) -> None:
        MODE.grad_enabled = self._outer.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        enabled = self._enabled

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with _GradMode(enabled):
                return function(*args, **kwargs)

        return wrapped


class no_grad(_GradMode):
    """Operations inside are not recorded for gradients. ``with no_grad():`` or ``@no_grad()``."""

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(_GradMode):
    """Operations inside are recorded, also within ``no_grad``."""

    def __init__(self) -> None:
        super().__init__(True)


class set_grad_enabled(_GradMode):
    """``no_grad`` or ``enable_grad`` by a flag."""


def is_grad_enabled() -> bool:
    """Whether operations are recorded now."""
    return MODE.grad_enabled


@contextmanager
def concrete() -> Iterator[None]:
    """Operations inside run now, on numbers, even while a function is being traced.

    For values that have to exist between calls, such as an optimizer's moments made at its first step.
    """
    with tracing(None):
        yield
