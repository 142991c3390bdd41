"""Pooling: one number for each window of a signal, an image or a volume."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graphflow import functions as ops
from graphflow.dtypes import float32
from graphflow.errors import ShapeError
from graphflow.functions.common import at_least, pinned
from graphflow.functions.registry import error, titled
from graphflow.functions.window import filled, peak_of, position_of_peak, steps, window_count, windows
from graphflow.nn.functional.spatial import Extent, Ints, batched, in_single, ints, same_dtype, sizes_text
from graphflow.tensor import Tensor

__all__ = [
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "lp_pool1d", "lp_pool2d", "lp_pool3d", "max_pool1d",
    "max_pool1d_with_indices", "max_pool2d", "max_pool2d_with_indices", "max_pool3d",
    "max_pool3d_with_indices",
]  # fmt: skip

Numbers = int | Sequence[int]


@dataclass(frozen=True)
class _Grid:
    """Where windows lie: their shape, how far apart they and their elements are, the border, their number."""

    kernel: Ints
    strides: Ints
    paddings: Ints
    dilations: Ints
    counts: tuple[Extent, ...]
    pads: tuple[tuple[int, int], ...]


def _grid(
    name: str, n: int, sizes: Sequence[Extent], kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: bool,
) -> _Grid:  # fmt: skip
    kernel = ints(kernel_size, n, name, "kernel_size", 1)
    strides = kernel if stride is None or stride == [] else ints(stride, n, name, "stride", 1)
    paddings, dilations = ints(padding, n, name, "padding"), ints(dilation, n, name, "dilation", 1)
    counts: list[Extent] = []
    pads: list[tuple[int, int]] = []
    for size, k, s, p, d in zip(sizes, kernel, strides, paddings, dilations, strict=True):
        reach = d * (k - 1) + 1
        if p > k // 2:
            raise error(
                ShapeError, name, f"pad should be at most half of kernel size, but got {p} for a size of {k}"
            )  # fmt: skip
        count = window_count(size + 2 * p, k, s, d)
        after = p
        if ceil_mode:
            # One more window where elements are left over, if it starts before the border behind them.
            length = pinned(size, f"ceil_mode of {name}")
            places = -(-(length + 2 * p - reach) // s) + 1
            if (places - 1) * s >= length + p:
                places -= 1
            count, after = places, (places - 1) * s + reach - length - p
        if not at_least(count, 1):
            raise error(
                ShapeError, name,
                f"given input size {sizes_text(sizes)}, kernel_size {kernel}, padding {paddings} and "
                f"dilation "
                f"{dilations}, the output size is too small",
            )  # fmt: skip
        counts.append(count)
        pads.append((p, after))
    return _Grid(kernel, strides, paddings, dilations, tuple(counts), tuple(pads))


def _windows(t: Tensor, grid: _Grid, value: float) -> Tensor:
    """(N, C, places, ..., taps, ...) of an input with `value` around it."""
    n = len(grid.kernel)
    return windows(
        filled(t, ((0, 0), (0, 0), *grid.pads), value),
        range(2, n + 2),
        grid.kernel,
        grid.strides,
        grid.dilations,
    )


# ---------------------------------------------------------------------------------------------- maxima


def _max_pool(
    name: str, n: int, input: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: bool, return_indices: bool,
) -> Any:  # fmt: skip
    t, had_batch = batched(input, n, name)
    grid = _grid(name, n, t.type_.shape[2:], kernel_size, stride, padding, dilation, ceil_mode)
    lowest = -math.inf if t.dtype.kind == "float" else _lowest(t)
    found = _windows(t, grid, lowest)
    taps = tuple(range(n + 2, 2 * n + 2))
    values = peak_of(found, taps)
    if not return_indices:
        return values if had_batch else values.squeeze(0)
    places = _flat_positions(position_of_peak(found, taps), grid, t.type_.shape[2:])
    return (values, places) if had_batch else (values.squeeze(0), places.squeeze(0))


def _lowest(t: Tensor) -> int:
    return 0 if t.dtype.name in ("bool", "uint8") else -(1 << (8 * t.dtype.itemsize - 1))


def _flat_positions(winner: Tensor, grid: _Grid, sizes: Sequence[Extent]) -> Tensor:
    """Positions in the input's plane, counted row-major, of winners counted row-major in their windows."""
    n = len(grid.kernel)
    lengths = [pinned(size, "the positions of maxima") for size in sizes]
    total: Any = 0
    rest = winner
    for axis in reversed(range(n)):
        tap = rest % grid.kernel[axis]
        rest = ops.floor_divide(rest, grid.kernel[axis])
        start = steps(grid.counts[axis], axis + 2, n + 2) * grid.strides[axis] - grid.paddings[axis]
        place = start + tap * grid.dilations[axis]
        if grid.paddings[axis]:
            # A window of nothing but -inf has its first element in the border: take the first one inside.
            d = grid.dilations[axis]
            place = ops.where(place < 0, start + ops.floor_divide(d - 1 - start, d) * d, place)
        total = place * math.prod(lengths[axis + 1 :]) + total
    return total  # type: ignore[no-any-return]


def max_pool1d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maxima over windows of (N, C, L) or (C, L). See `max_pool2d`."""
    return _max_pool(
        "max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


@titled("MaxPool2DWithIndicesBackward0")
def max_pool2d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maxima over windows of (N, C, H, W) or (C, H, W), `stride` (by default the window's size) apart.

    The border of `padding` counts as -inf. With `ceil_mode` what is left over gets a window of its own. The
    gradient goes to the first of equal maxima; NaN counts as the largest number. With `return_indices` also
    their positions, int64, counted row-major in each channel. As ``torch.nn.functional.max_pool2d``.
    """
    return _max_pool(
        "max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


def max_pool3d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maxima over windows of (N, C, D, H, W) or (C, D, H, W). See `max_pool2d`."""
    return _max_pool(
        "max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices
    )


def max_pool1d_with_indices(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """`max_pool1d` and the positions of the maxima."""
    return max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode, True)  # type: ignore[no-any-return]


def max_pool2d_with_indices(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """`max_pool2d` and the positions of the maxima."""
    return max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, True)  # type: ignore[no-any-return]


def max_pool3d_with_indices(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> tuple[Tensor, Tensor]:
    """`max_pool3d` and the positions of the maxima."""
    return max_pool3d(input, kernel_size, stride, padding, dilation, ceil_mode, True)  # type: ignore[no-any-return]


# ---------------------------------------------------------------------------------------------- averages


def _avg_pool(
    name: str, n: int, input: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None,
) -> Tensor:  # fmt: skip
    t, had_batch = batched(input, n, name)
    same_dtype(name, t)
    if divisor_override == 0:
        raise error(ValueError, name, "divisor must be not zero")
    grid = _grid(name, n, t.type_.shape[2:], kernel_size, stride, padding, 1, ceil_mode)
    total = _windows(in_single(t), grid, 0).sum(tuple(range(n + 2, 2 * n + 2)))
    if divisor_override is not None:
        result = total / divisor_override
    else:
        result = total
        for axis in range(n):
            result = result / _divisor(grid, axis, t.type_.shape[axis + 2], count_include_pad, t)
    result = result.to(t.dtype).contiguous()
    return result if had_batch else result.squeeze(0)  # type: ignore[no-any-return]


def _divisor(grid: _Grid, axis: int, size: Extent, count_include_pad: bool, t: Tensor) -> Any:
    """How many elements a window has along an axis: a number, or one for each place."""
    n = len(grid.kernel)
    k, s, (p, after) = grid.kernel[axis], grid.strides[axis], grid.pads[axis]
    if after <= p and (count_include_pad or (p == 0 and after <= 0)):
        return k
    length = pinned(size, "the borders of pooling")
    first = steps(grid.counts[axis], axis + 2, n + 2) * s - p
    end = (first + k).clamp(max=length + (p if count_include_pad else 0))
    if not count_include_pad:
        first = first.clamp(min=0)
    return (end - first).to(t.dtype if t.dtype.itemsize > 2 else float32)


def avg_pool1d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Means over windows of (N, C, L) or (C, L). See `avg_pool2d`."""
    return _avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


@titled("AvgPool2DBackward0")
def avg_pool2d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Means over windows of (N, C, H, W) or (C, H, W), `stride` (by default the window's size) apart.

    The zeros of `padding` count unless `count_include_pad` is False; `divisor_override` divides the sums
    instead of their number of elements. As ``torch.nn.functional.avg_pool2d``.
    """
    return _avg_pool(
        "avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool3d(
    input: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Means over windows of (N, C, D, H, W) or (C, D, H, W). See `avg_pool2d`."""
    return _avg_pool(
        "avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


# ---------------------------------------------------------------------------------------------- power means


def _lp_pool(
    n: int, input: Tensor, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool
) -> Tensor:
    name = f"lp_pool{n}d"
    if norm_type == 0:
        raise error(ValueError, name, "norm_type can't be 0")
    if isinstance(norm_type, (int, float)) and math.isinf(norm_type):
        sign = math.copysign(1.0, norm_type)
        peak = _max_pool(name, n, input.abs() * sign, kernel_size, stride, 0, 1, ceil_mode, False)
        return peak * sign  # type: ignore[no-any-return]
    kernel = ints(kernel_size, n, name, "kernel_size", 1)
    mean = _avg_pool(name, n, input**norm_type, kernel, stride, 0, ceil_mode, True, None)
    # PyTorch's own formula, so that signs come out alike.
    result: Tensor = (ops.sign(mean) * ops.relu(mean.abs()) * math.prod(kernel)) ** (1.0 / norm_type)
    return result


def lp_pool1d(
    input: Tensor,
    norm_type: float,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """``(sum x^p)^(1/p)`` over windows of (N, C, L) or (C, L); for p = inf the largest ``|x|``."""
    return _lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Tensor,
    norm_type: float,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """``(sum x^p)^(1/p)`` over windows of (N, C, H, W) or (C, H, W). See `lp_pool1d`."""
    return _lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Tensor,
    norm_type: float,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """``(sum x^p)^(1/p)`` over windows of (N, C, D, H, W) or (C, D, H, W). See `lp_pool1d`."""
    return _lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)
