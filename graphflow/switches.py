"""Global switches of PyTorch that have one position here, for programs that set them."""

from __future__ import annotations

from typing import Any

from graphflow.functions.create import on_cpu
from graphflow.runtime.device import CPU, Device


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Nothing: the same call always gives the same bits."""


def are_deterministic_algorithms_enabled() -> bool:
    """Whether the same call always gives the same bits: yes."""
    return True


def set_float32_matmul_precision(precision: str) -> None:
    """Nothing: products of float32 matrices are always computed in float32. ValueError for other names."""
    if precision not in ("highest", "high", "medium"):
        raise ValueError(f"precision is 'highest', 'high' or 'medium', not {precision!r}")


def get_float32_matmul_precision() -> str:
    """``"highest"``."""
    return "highest"


def set_default_device(device: Any) -> None:
    """Where new tensors are put; DeviceError for what isn't the CPU."""
    if device is not None:
        on_cpu(device)


def get_default_device() -> Device:
    """Where new tensors are put: the CPU."""
    return CPU


__all__ = [
    "are_deterministic_algorithms_enabled", "get_default_device", "get_float32_matmul_precision",
    "set_default_device", "set_float32_matmul_precision", "use_deterministic_algorithms",
]  # fmt: skip
