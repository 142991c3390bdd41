"""Sliding windows, their overlapping sum, and borders: what convolution and pooling are composed of."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.compiler.ir import OPS
from graphflow.compiler.ops.convolve import Geometry
from graphflow.compiler.ops.window import window_count
from graphflow.dtypes import bool_
from graphflow.errors import ShapeError
from graphflow.functions.arrange import sliced
from graphflow.functions.common import (
    Extent,
    Number,
    at_least,
    dim_arg,
    expanded,
    reshaped,
    scalar,
    tensor_arg,
)
from graphflow.functions.reduce import reduced
from graphflow.functions.registry import error, public
from graphflow.tensor import Tensor, apply

Pads = Sequence[tuple[int, int]]  # before and after, dimension by dimension


def windows(
    t: Tensor,
    dims: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    at: int | None = None,
) -> Tensor:
    """All windows over `dims`: their number in these dimensions, their elements in new ones, which come
    before dimension `at` (at the end for None). A view.
    """
    shape = t.type_.shape
    place = t.ndim if at is None else at
    if _are_tiles(t, dims, kernel, strides, dilations):
        return _tiles(t, dims, kernel, place)
    room = (*shape[:place], *(1 for _ in kernel), *shape[place:])
    wide = (*shape[:place], *kernel, *shape[place:])
    return apply(
        OPS["slide"],
        expanded(reshaped(t, room), wide),
        dims=tuple(d if d < place else d + len(kernel) for d in dims),
        taps=tuple(range(place, place + len(kernel))),
        strides=tuple(strides),
        dilations=tuple(dilations),
    )


def _are_tiles(
    t: Tensor, dims: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> bool:
    """Whether the windows cut everything up without overlap, so that a reshape makes them."""
    return all(
        size == step and (dilation == 1 or size == 1) and isinstance(t.type_.shape[d], int)
        for d, size, step, dilation in zip(dims, kernel, strides, dilations, strict=True)
    )


def _tiles(t: Tensor, dims: Sequence[int], kernel: Sequence[int], place: int) -> Tensor:
    taps = dict(zip(dims, kernel, strict=True))
    sizes = [size // taps.get(d, 1) * taps.get(d, 1) for d, size in enumerate(t.type_.shape)]
    t = cropped(t, [(0, whole - size) for whole, size in zip(sizes, t.type_.shape, strict=True)])
    split: list[Extent] = []
    counts, inside = [], []
    for d, size in enumerate(sizes):
        counts.append(len(split))
        split.append(size // taps.get(d, 1))
        if d in taps:
            inside.append(len(split))
            split.append(taps[d])
    order = (*counts[:place], *inside, *counts[place:])
    return apply(OPS["permute"], reshaped(t, tuple(split)), dims=order)


def overlap_add(
    t: Tensor,
    dims: Sequence[int],
    taps: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    sizes: Sequence[Extent],
) -> Tensor:
    """The transpose of `windows`: dimensions `taps` of `t` are added up at the places in `dims` they stand
    for, which get the given `sizes`.
    """
    apart = apply(
        OPS["unslide"], t,
        dims=tuple(dims), taps=tuple(taps), strides=tuple(strides), dilations=tuple(dilations),
        sizes=tuple(sizes),
    )  # fmt: skip
    return reduced("sum", apart, tuple(sorted(taps)), False)


def convolved(images: Tensor, kernels: Tensor, geometry: Geometry) -> Tensor:
    """Sums of products of (N, groups, C, ...) and windows (groups, O, C, ...): (N, groups, O, *counts).

    The images' elements are taken `spreads` apart, with `lows` and `highs` zeros around; windows begin
    `strides` apart and have elements `dilations` apart. One number of each for every spatial dimension.
    """
    return apply(OPS["convolve"], images, kernels, **geometry.attrs)


def peak_of(t: Tensor, dims: Sequence[int]) -> Tensor:
    """The maximum over `dims`, whose gradient goes to the first of equal ones."""
    return reduced("peak", t, tuple(dims), False)


def position_of_peak(t: Tensor, dims: Sequence[int]) -> Tensor:
    """The first maximum's position, counted row-major over `dims`; int64."""
    return reduced("argmax", t, tuple(dims), False)


def steps(size: Extent, axis: int, ndim: int) -> Tensor:
    """0 … size-1 along one of `ndim` dimensions; int64."""
    return reshaped(apply(OPS["iota"], size=size), tuple(size if d == axis else 1 for d in range(ndim)))


# ---------------------------------------------------------------------------------------------- borders


def cropped(t: Tensor, pads: Sequence[tuple[Extent, Extent]]) -> Tensor:
    """`t` without as many elements as the negative ones among `pads` say; a view."""
    if all(at_least(low, 0) and at_least(high, 0) for low, high in pads):
        return t
    starts = tuple(0 if at_least(low, 0) else -low for low, _ in pads)
    sizes = tuple(
        size - start + (0 if at_least(high, 0) else high)
        for size, start, (_, high) in zip(t.type_.shape, starts, pads, strict=True)
    )
    return apply(OPS["slice"], t, starts=starts, steps=(1,) * t.ndim, sizes=sizes)


def filled(t: Tensor, pads: Pads, value: Number) -> Tensor:
    """`t` with `value` around it; negative pads crop."""
    t = cropped(t, pads)
    room = tuple((max(low, 0), max(high, 0)) for low, high in pads)
    if all(pair == (0, 0) for pair in room):
        return t
    shape = tuple(low + size + high for size, (low, high) in zip(t.type_.shape, room, strict=True))
    starts, steps = tuple(low for low, _ in room), (1,) * t.ndim
    zeros = apply(OPS["pad"], t, shape=shape, starts=starts, steps=steps)
    if value == 0:
        return zeros
    everywhere = expanded(scalar(True, bool_), t.type_.shape)
    inside = apply(OPS["pad"], everywhere, shape=shape, starts=starts, steps=steps)
    return apply(OPS["where"], inside, zeros, scalar(value, t.dtype))


def reflected(t: Tensor, axis: int, low: int, high: int) -> Tensor:
    """Along one dimension with its elements mirrored at both ends, which aren't repeated."""
    size = t.type_.shape[axis]
    parts = [t]
    if low > 0:
        parts.insert(0, sliced(t, axis, low, low, -1))
    if high > 0:
        parts.append(sliced(t, axis, size - 2, high, -1))
    return apply(OPS["cat"], *parts, dim=axis) if len(parts) > 1 else t


def replicated(t: Tensor, axis: int, low: int, high: int) -> Tensor:
    """Along one dimension with its first and last elements repeated."""

    def edge(place: Extent, count: int) -> Tensor:
        wide = tuple(count if d == axis else s for d, s in enumerate(t.type_.shape))
        return expanded(sliced(t, axis, place, 1), wide)

    parts = [t]
    if low > 0:
        parts.insert(0, edge(0, low))
    if high > 0:
        parts.append(edge(t.type_.shape[axis] - 1, high))
    return apply(OPS["cat"], *parts, dim=axis) if len(parts) > 1 else t


def wrapped(t: Tensor, axis: int, low: int, high: int) -> Tensor:
    """Along one dimension going round: before the first element comes the last."""
    size = t.type_.shape[axis]
    parts = [t]
    if low > 0:
        parts.insert(0, sliced(t, axis, size - low, low))
    if high > 0:
        parts.append(sliced(t, axis, 0, high))
    return apply(OPS["cat"], *parts, dim=axis) if len(parts) > 1 else t


# ---------------------------------------------------------------------------------------------- Tensor.unfold


@public(function=False)
def unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """All slices of `size` elements along `dimension`, `step` apart: their number stands in its place, their
    elements in a new last dimension. A view that can't be written to.

    ShapeError when `size` is larger than the dimension or `step` isn't positive.
    """
    t = tensor_arg(self, "unfold", "self")
    axis = dim_arg(dimension, t.ndim, "unfold")
    if step < 1:
        raise error(ShapeError, "unfold", f"step is {step} but must be > 0")
    if not t.ndim and size == 1:  # PyTorch's: its one window is a vector, without a number of windows
        return reshaped(t, (1,))
    t = t if t.ndim else reshaped(t, (1,))
    extent = t.type_.shape[axis]
    if size < 1 or not at_least(extent, size):
        raise error(
            ShapeError, "unfold",
            f"size has to be between 1 and {extent}, the size of dimension {dimension}, but is {size}",
        )  # fmt: skip
    return windows(t, (axis,), (size,), (step,), (1,))


__all__ = [
    "Geometry", "convolved", "cropped", "filled", "overlap_add", "peak_of", "position_of_peak",
    "reflected", "replicated", "steps", "unfold", "window_count", "windows", "wrapped",
]  # fmt: skip
