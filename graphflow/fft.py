"""What ``torch.fft`` has that needs no complex numbers, which graphflow hasn't: frequencies and shifts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow import absent
from graphflow.dtypes import as_dtype, float64, get_default_dtype
from graphflow.functions.arrange import roll
from graphflow.functions.common import cast, dims_arg, pinned, tensor_arg
from graphflow.functions.create import arange, finished
from graphflow.functions.registry import error, public
from graphflow.sizes import unwrap
from graphflow.tensor import Tensor


def _frequencies(
    name: str, n: Any, d: float, dtype: Any, device: Any, requires_grad: bool, whole: bool
) -> Tensor:
    count = pinned(unwrap(n), "the number of samples")
    if count <= 0:
        raise error(ValueError, name, f"n has to be positive, got {n}")
    wanted = get_default_dtype() if dtype is None else as_dtype(dtype)
    places = arange(count if whole else count // 2 + 1, dtype=float64)
    if whole:
        places = places - (places > (count - 1) // 2).double() * count
    return finished(cast(places / (count * float(d)), wanted), device, requires_grad)


@public("fft.fftfreq", function=False, method=False)
def fftfreq(
    n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The frequencies of a discrete Fourier transform of `n` samples `d` apart, the negative ones last."""
    return _frequencies("fft.fftfreq", n, d, dtype, device, requires_grad, True)


@public("fft.rfftfreq", function=False, method=False)
def rfftfreq(
    n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """The frequencies, none negative, of a Fourier transform of `n` real samples `d` apart."""
    return _frequencies("fft.rfftfreq", n, d, dtype, device, requires_grad, False)


def _shifted(name: str, input: Any, dim: Any, sign: int) -> Tensor:
    t = tensor_arg(input, name)
    dims = dims_arg(dim, t.ndim, name)
    sizes = [pinned(t.type_.shape[d], "a shift by half") for d in dims]
    return (
        roll(t, [sign * size // 2 if sign > 0 else -(size // 2) for size in sizes], list(dims)) if dims else t
    )


@public("fft.fftshift", function=False, method=False)
def fftshift(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Frequency 0 moved from the front to the middle of `dim` (all by default)."""
    return _shifted("fft.fftshift", input, dim, 1)


@public("fft.ifftshift", function=False, method=False)
def ifftshift(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Frequency 0 moved from the middle to the front of `dim` (all by default)."""
    return _shifted("fft.ifftshift", input, dim, -1)


__all__ = ["fftfreq", "fftshift", "ifftshift", "rfftfreq"]


def __getattr__(name: str) -> Any:
    raise AttributeError(absent.message("graphflow.fft", name, __all__, {}))
