"""Pooling to a given size, whatever the input's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphflow import functions as ops
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.common import pinned
from graphflow.functions.registry import error
from graphflow.functions.window import peak_of, position_of_peak, steps, windows
from graphflow.nn.functional.spatial import Ints, batched, in_single, same_dtype, sizes_text
from graphflow.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool1d",
    "adaptive_max_pool1d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d", "adaptive_max_pool3d_with_indices",
]  # fmt: skip

Target = int | None | Sequence[int | None]


def _target(name: str, n: int, output_size: Any, sizes: Ints) -> Ints:
    given = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * n
    if len(given) != n:
        raise error(ShapeError, name, f"output_size takes {n} numbers, got {output_size!r}")
    for value in given:
        if value is not None and (isinstance(value, bool) or not hasattr(value, "__index__")):
            raise error(DTypeError, name, f"output_size takes integers and None, got {output_size!r}")
        if value is not None and value.__index__() < 0:
            raise error(ShapeError, name, f"output_size can't be negative, got {output_size!r}")
    return tuple(size if v is None else v.__index__() for v, size in zip(given, sizes, strict=True))


def _prepared(name: str, n: int, input: Any, output_size: Any) -> tuple[Tensor, bool, Ints, Ints]:
    """The input with a batch, whether it had one, its sizes and those it is to have."""
    t, had_batch = batched(input, n, name)
    sizes = tuple(pinned(size, f"the size of {name}'s input") for size in t.type_.shape[2:])
    if 0 in sizes:
        raise error(
            ShapeError, name,
            f"expected input to have non-zero size for non-batch dimensions, got {sizes_text(t.type_.shape)}",
        )  # fmt: skip
    return t, had_batch, sizes, _target(name, n, output_size, sizes)


def _regular(sizes: Ints, target: Ints) -> bool:
    return all(out and size % out == 0 for size, out in zip(sizes, target, strict=True))


def _starts(size: int, out: int, axis: int, ndim: int) -> Tensor:
    """Where the windows along an axis begin: floor(i size / out)."""
    return ops.floor_divide(steps(out, axis, ndim) * size, out)


def _ends(size: int, out: int, axis: int, ndim: int) -> Tensor:
    """Where the windows along an axis end: ceil((i + 1) size / out)."""
    return ops.floor_divide((steps(out, axis, ndim) + 1) * size + (out - 1), out)


def _widest(size: int, out: int) -> int:
    return max((-(-((i + 1) * size) // out) - i * size // out for i in range(out)), default=1)


def _gathered(t: Tensor, axis: int, size: int, out: int) -> tuple[Tensor, Tensor]:
    """`t` with windows along an axis: their number in its place, their elements behind it.

    Windows narrower than others repeat their last element; the mask (out, widest) tells which ones count.
    """
    taps = steps(_widest(size, out), 1, 2)
    place = _starts(size, out, 0, 2) + taps
    end = _ends(size, out, 0, 2)
    shape = (*t.type_.shape[:axis], out, _widest(size, out), *t.type_.shape[axis + 1 :])
    flat = ops.minimum(place, end - 1).reshape(-1)
    return t.index_select(axis, flat).reshape(shape), place < end


def _adaptive_avg(name: str, n: int, input: Any, output_size: Any) -> Tensor:
    given, had_batch, sizes, target = _prepared(name, n, input, output_size)
    same_dtype(name, given)
    t = in_single(given)
    if _regular(sizes, target):
        kernel = tuple(size // out for size, out in zip(sizes, target, strict=True))
        found = windows(t, range(2, n + 2), kernel, kernel, (1,) * n)
        result = found.sum(tuple(range(n + 2, 2 * n + 2))) / math.prod(kernel)
    else:
        result = t
        for axis, (size, out) in enumerate(zip(sizes, target, strict=True), 2):
            if size == out:
                continue
            found, counts = _gathered(result, axis, size, out)
            mask = counts.reshape(*counts.shape, *(1,) * (n + 1 - axis))
            width = (_ends(size, out, axis, n + 2) - _starts(size, out, axis, n + 2)).to(t.dtype)
            result = ops.where(mask, found, 0.0).sum(axis + 1) / width
    result = result.to(given.dtype).contiguous()
    pooled: Tensor = result if had_batch else result.squeeze(0)
    return pooled


def _adaptive_max(name: str, n: int, input: Any, output_size: Any, return_indices: bool) -> Any:
    t, had_batch, sizes, target = _prepared(name, n, input, output_size)
    found = t
    for axis, (size, out) in enumerate(zip(sizes, target, strict=True)):
        found, _ = _gathered(found, 2 + 2 * axis, size, out)
    order = (*range(2, 2 * n + 2, 2), *range(3, 2 * n + 2, 2))
    found = found.permute(0, 1, *order)
    dims = tuple(range(n + 2, 2 * n + 2))
    values = peak_of(found, dims)
    if not return_indices:
        return values if had_batch else values.squeeze(0)
    rest = position_of_peak(found, dims)
    places: Any = 0
    for axis in reversed(range(n)):
        size, out = sizes[axis], target[axis]
        widest = _widest(size, out)
        place = _starts(size, out, axis + 2, n + 2) + rest % widest
        rest = ops.floor_divide(rest, widest)
        places = place * math.prod(sizes[axis + 1 :]) + places
    return (values, places) if had_batch else (values.squeeze(0), places.squeeze(0))


def adaptive_avg_pool1d(input: Tensor, output_size: Target) -> Tensor:
    """Means over `output_size` windows of (N, C, L) or (C, L). See `adaptive_avg_pool2d`."""
    return _adaptive_avg("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Target) -> Tensor:
    """Means of (N, C, H, W) or (C, H, W) over as many windows as `output_size` says (one number, or two).

    Window i of `out` covers ``floor(i size / out)`` to ``ceil((i + 1) size / out)``; None keeps a size. As
    ``torch.nn.functional.adaptive_avg_pool2d``.
    """
    return _adaptive_avg("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Target) -> Tensor:
    """Means over windows of (N, C, D, H, W) or (C, D, H, W). See `adaptive_avg_pool2d`."""
    return _adaptive_avg("adaptive_avg_pool3d", 3, input, output_size)


def adaptive_max_pool1d(input: Tensor, output_size: Target, return_indices: bool = False) -> Any:
    """Maxima over `output_size` windows of (N, C, L) or (C, L). See `adaptive_max_pool2d`."""
    return _adaptive_max("adaptive_max_pool1d", 1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Target, return_indices: bool = False) -> Any:
    """Maxima of (N, C, H, W) or (C, H, W) over the windows of `adaptive_avg_pool2d`.

    With `return_indices` also their positions, int64, counted row-major in each channel.
    """
    return _adaptive_max("adaptive_max_pool2d", 2, input, output_size, return_indices)


def adaptive_max_pool1d_with_indices(
    input: Tensor, output_size: Target, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool1d` with `return_indices`."""
    return _adaptive_max("adaptive_max_pool1d", 1, input, output_size, True)  # type: ignore[no-any-return]


def adaptive_max_pool2d_with_indices(
    input: Tensor, output_size: Target, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool2d` with `return_indices`."""
    return _adaptive_max("adaptive_max_pool2d", 2, input, output_size, True)  # type: ignore[no-any-return]


def adaptive_max_pool3d_with_indices(
    input: Tensor, output_size: Target, return_indices: bool = False
) -> tuple[Tensor, Tensor]:
    """`adaptive_max_pool3d` with `return_indices`."""
    return _adaptive_max("adaptive_max_pool3d", 3, input, output_size, True)  # type: ignore[no-any-return]


def adaptive_max_pool3d(input: Tensor, output_size: Target, return_indices: bool = False) -> Any:
    """Maxima over windows of (N, C, D, H, W) or (C, D, H, W). See `adaptive_max_pool2d`."""
    return _adaptive_max("adaptive_max_pool3d", 3, input, output_size, return_indices)
