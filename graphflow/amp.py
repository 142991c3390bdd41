"""Mixed precision after ``torch.amp``: `autocast`, and `GradScaler` for gradients that float16 can't hold."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from graphflow.dtypes import DType, as_dtype, bfloat16, float16
from graphflow.modes import MODE
from graphflow.runtime.device import Device, as_device, cuda_is_available
from graphflow.scaler import GradScaler


def _device_type(device_type: Any) -> str:
    if not isinstance(device_type, str):
        raise ValueError(f"autocast: expected `device_type` of type `str`, got: `{type(device_type)}`")
    return as_device(device_type).type


class autocast:
    """Matrix products, convolutions and attention inside run in `dtype` (bfloat16 unless given, or float16),
    losses in float32; see `functions.precision`. A context manager and a decorator, at once or compiled.

    float64 is left alone. For "cuda", and for other dtypes, it warns and changes nothing, as in PyTorch on a
    machine without.
    """

    def __init__(
        self, device_type: str, dtype: Any = None, enabled: bool = True, cache_enabled: bool | None = None
    ):
        self.device = _device_type(device_type)
        self.fast_dtype: DType = get_autocast_dtype(self.device) if dtype is None else as_dtype(dtype)
        self._enabled = bool(enabled)
        if self._enabled and self.device != "cpu" and not cuda_is_available():
            warnings.warn(
                f"User provided device_type of {self.device!r}, but CUDA is not available. Disabling",
                UserWarning,
                stacklevel=2,
            )
            self._enabled = False
        elif self._enabled and self.fast_dtype not in (bfloat16, float16):
            warnings.warn(
                f"In CPU autocast, but the target dtype is not supported. Disabling autocast: it is bfloat16 "
                f"or float16, not {self.fast_dtype}",
                UserWarning,
                stacklevel=2,
            )
            self._enabled = False
        self._outer: list[DType | None] = []

    def __enter__(self) -> autocast:
        self._outer.append(MODE.autocast)
        if self.device == "cpu" or self._enabled:
            MODE.autocast = self.fast_dtype if self._enabled else None
        return self

    def __exit__(self, *exc: object) -> None:
        MODE.autocast = self._outer.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Decorates a function."""

        @functools.wraps(function)
        def decorated(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return decorated


_DTYPES = {"cpu": bfloat16, "cuda": float16}


def get_autocast_dtype(device_type: str) -> DType:
    """What `autocast` computes in unless told: bfloat16 on the CPU."""
    return _DTYPES[_device_type(device_type)]


def set_autocast_dtype(device_type: str, dtype: Any) -> None:
    """Sets what `autocast` computes in unless told."""
    _DTYPES[_device_type(device_type)] = as_dtype(dtype)


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether this is inside an `autocast` for the device."""
    return MODE.autocast is not None and _device_type(device_type) == "cpu"


def set_autocast_enabled(device_type: str, enabled: bool) -> None:
    """Turns autocasting on or off from here on; `autocast` is the better way."""
    if _device_type(device_type) == "cpu":
        MODE.autocast = _DTYPES["cpu"] if enabled else None


def is_autocast_cpu_enabled() -> bool:
    """``is_autocast_enabled("cpu")``."""
    return is_autocast_enabled("cpu")


def get_autocast_cpu_dtype() -> DType:
    """``get_autocast_dtype("cpu")``."""
    return get_autocast_dtype("cpu")


def is_autocast_available(device_type: str) -> bool:
    """Whether `autocast` has an effect for the device: for the CPU."""
    return Device(device_type).type == "cpu"


__all__ = [
    "GradScaler", "autocast", "get_autocast_cpu_dtype", "get_autocast_dtype", "is_autocast_available",
    "is_autocast_cpu_enabled", "is_autocast_enabled", "set_autocast_dtype", "set_autocast_enabled",
]  # fmt: skip
