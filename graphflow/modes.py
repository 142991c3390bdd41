"""Whether operations are recorded for gradients, and whether they run at once while a function is traced."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from graphflow.compiler.trace import tracing
from graphflow.dtypes import DType


class _Mode(threading.local):
    grad_enabled = True
    inference = False
    autocast: DType | None = None  # what `autocast` lowers matrix products to; None outside
    anomalies = False


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
            with self._same(enabled):
                return function(*args, **kwargs)

        return wrapped

    @staticmethod
    def _same(enabled: bool) -> _GradMode:
        return _GradMode(enabled)


class _Plain(_GradMode):
    """A mode that decorates with and without parentheses."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        return super().__new__(cls) if function is None else cls()(function)


class no_grad(_Plain):
    """Operations inside are not recorded for gradients: ``with no_grad():``, ``@no_grad()``, ``@no_grad``."""

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(_Plain):
    """Operations inside are recorded, also within ``no_grad``."""

    def __init__(self) -> None:
        super().__init__(True)


class set_grad_enabled(_GradMode):
    """``no_grad`` or ``enable_grad`` by a flag: from the call on, or inside a ``with`` block or function."""

    def __init__(self, mode: bool):
        super().__init__(bool(mode))
        self._before = MODE.grad_enabled
        MODE.grad_enabled = bool(mode)

    def __enter__(self) -> None:
        self._outer.append(self._before)
        MODE.grad_enabled = self._enabled

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorates a function, and has no effect outside of it."""
        MODE.grad_enabled = self._before
        return super().__call__(function)


class inference_mode(_GradMode):
    """``no_grad`` under the name that says that no gradient will ever be wanted; with False, the opposite.

    As a decorator with and without parentheses. Tensors made inside are ordinary ones here.
    """

    def __new__(cls, mode: Any = True) -> Any:
        """A mode, or a decorated function."""
        return cls()(mode) if callable(mode) else super().__new__(cls)

    def __init__(self, mode: bool = True):
        super().__init__(not mode)
        self._inference: list[bool] = []

    @staticmethod
    def _same(enabled: bool) -> _GradMode:
        mode: _GradMode = inference_mode(not enabled)
        return mode

    def __enter__(self) -> None:
        super().__enter__()
        self._inference.append(MODE.inference)
        MODE.inference = not self._enabled

    def __exit__(self, *exc: object) -> None:
        MODE.inference = self._inference.pop()
        super().__exit__(*exc)


def is_inference_mode_enabled() -> bool:
    """Whether this is inside ``inference_mode``."""
    return MODE.inference


class set_detect_anomaly:
    """Lets gradients outside of compiled functions be searched for NaN: an error names the first operation
    that gives one, and the line. For compiled functions, use ``compile(check_nan=True)``.

    `check_nan` False turns only the search off. Takes effect at the call; a ``with`` block ends it.
    """

    def __init__(self, mode: bool, check_nan: bool = True):
        self._before = MODE.anomalies
        MODE.anomalies = bool(mode and check_nan)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        MODE.anomalies = self._before


class detect_anomaly(set_detect_anomaly):
    """``set_detect_anomaly(True)`` for a ``with`` block."""

    def __init__(self, check_nan: bool = True):
        super().__init__(True, check_nan)


def is_anomaly_enabled() -> bool:
    """Whether gradients are searched for NaN."""
    return MODE.anomalies


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
