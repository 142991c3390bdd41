"""Numbers in a row: powers, windows for signals, and PyTorch's ``range``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphflow.compiler.ir import OPS
from graphflow.dtypes import float64, get_default_dtype
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.common import Number, as_dtype, cast, of_array, pinned, scalar
from graphflow.functions.create import arange, filled, finished, linspace
from graphflow.functions.elementwise import cos, pow_
from graphflow.functions.error_functions import i0
from graphflow.functions.registry import error, public
from graphflow.sizes import unwrap
from graphflow.tensor import Tensor, apply

__all__ = [
    "bartlett_window", "blackman_window", "frombuffer", "hamming_window", "hann_window", "kaiser_window",
    "logspace", "scalar_tensor",
]  # fmt: skip


@public(method=False)
def logspace(
    start: float, end: float, steps: int, base: float = 10.0, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """`steps` powers of `base`, from ``base**start`` to ``base**end``, exponents evenly spaced."""
    wanted = get_default_dtype() if dtype is None else as_dtype(dtype)
    if wanted.kind == "int":
        start, end = int(start), int(end)
    made = cast(pow_(base, linspace(start, end, steps, dtype=float64, device=device)), wanted)
    return made.requires_grad_() if requires_grad else made


@public(name="range", method=False)
def range_(
    start: float = 0, end: float | None = None, step: float = 1, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """``start, start + step, ...`` up to and with `end`, in the default dtype: PyTorch's older `arange`."""
    if end is None:
        start, end = 0, start
    if step == 0 or (end - start) * step < 0:
        raise error(ShapeError, "range", f"end {end} can't be reached from {start} in steps of {step}")
    count = math.floor((end - start) / step) + 1
    places = cast(apply(OPS["iota"], size=count), float64)
    made = apply(
        OPS["add"], apply(OPS["mul"], places, scalar(float(step), float64)), scalar(float(start), float64)
    )
    return finished(
        cast(made, as_dtype(dtype) if dtype is not None else get_default_dtype()), device, requires_grad
    )


@public(method=False)
def scalar_tensor(s: Number, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A 0-d tensor of a number, in the default dtype."""
    wanted = get_default_dtype() if dtype is None else as_dtype(dtype)
    return finished(filled((), s, wanted), device, requires_grad)


@public(method=False)
def frombuffer(
    buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Tensor:
    """A vector on the memory of a Python buffer (bytes, bytearray, array): `count` elements of `dtype` from
    byte `offset` on, all that there are for -1.
    """
    wanted = as_dtype(dtype)
    try:
        size = memoryview(buffer).nbytes
    except TypeError:
        raise error(DTypeError, "frombuffer", f"needs a buffer, not {type(buffer).__name__}") from None
    room = size - offset
    if room <= 0 or offset < 0 or (count < 0 and room % wanted.itemsize) or count * wanted.itemsize > room:
        raise error(
            ShapeError, "frombuffer",
            f"{size} bytes from {offset} on hold no {'' if count < 0 else f'{count} '}elements of {wanted}",
        )  # fmt: skip
    made = of_array(np.frombuffer(buffer, wanted.numpy, count, offset))
    return made.requires_grad_() if requires_grad else made


# ---------------------------------------------------------------------------------------------- windows


def _window(
    name: str, formula: Callable[[Tensor, int], Tensor], length: Any, periodic: bool, dtype: Any, device: Any,
    requires_grad: bool,
) -> Tensor:  # fmt: skip
    """A window of `length`; a periodic one is that of one element more without its last."""
    wanted = get_default_dtype() if dtype is None else as_dtype(dtype)
    if wanted.kind != "float":
        raise error(DTypeError, name, f"expects a floating point dtype, got {wanted}")
    size = pinned(unwrap(length), "a window's length")
    if size < 0:
        raise error(ShapeError, name, f"window_length can't be negative, got {size}")
    if size <= 1:
        return finished(filled((size,), 1, wanted), device, requires_grad)
    places = arange(size, dtype=float64)
    return finished(cast(formula(places, size if periodic else size - 1), wanted), device, requires_grad)


def _cosines(*weights: float) -> Callable[[Tensor, int], Tensor]:
    def formula(places: Tensor, span: int) -> Tensor:
        total: Tensor = places * 0.0
        for k, weight in enumerate(weights):
            total = total + weight * cos(places * (2 * math.pi * k / span))
        return total

    return formula


@public(method=False)
def hann_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Hann's window: ``sin(pi n / (N - 1))**2``, with N one larger if `periodic`."""
    formula = _cosines(0.5, -0.5)
    return _window("hann_window", formula, window_length, periodic, dtype, device, requires_grad)


@public(method=False)
def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *, dtype: Any = None,
    device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Hamming's window: ``alpha - beta * cos(2 pi n / (N - 1))``, with N one larger if `periodic`."""
    formula = _cosines(float(alpha), -float(beta))
    return _window("hamming_window", formula, window_length, periodic, dtype, device, requires_grad)


@public(method=False)
def blackman_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Blackman's window of three cosines, with N one larger if `periodic`."""
    formula = _cosines(0.42, -0.5, 0.08)
    return _window("blackman_window", formula, window_length, periodic, dtype, device, requires_grad)


@public(method=False)
def bartlett_window(
    window_length: int, periodic: bool = True, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Bartlett's window, a triangle, with N one larger if `periodic`."""

    def formula(places: Tensor, span: int) -> Tensor:
        made: Tensor = 1.0 - (places * (2.0 / span) - 1.0).abs()
        return made

    return _window("bartlett_window", formula, window_length, periodic, dtype, device, requires_grad)


@public(method=False)
def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """Kaiser's window: ``i0(beta * sqrt(1 - (2 n / (N - 1) - 1)**2)) / i0(beta)``, with N one larger if
    `periodic`.
    """

    def formula(places: Tensor, span: int) -> Tensor:
        side = places * (2.0 / span) - 1.0
        width = (1.0 - side * side).clamp(min=0.0).sqrt()
        made: Tensor = i0(width * float(beta)) / i0(scalar(float(beta), float64))
        return made

    return _window("kaiser_window", formula, window_length, periodic, dtype, device, requires_grad)
