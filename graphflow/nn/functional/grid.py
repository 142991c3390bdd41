"""Sampling images and volumes at any places."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from typing import Any

from graphflow import functions as ops
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.common import pinned, tensor_arg
from graphflow.functions.registry import error, user_level
from graphflow.functions.window import steps
from graphflow.nn.functional.resize import cubic_weights
from graphflow.nn.functional.spatial import in_single, sizes_text
from graphflow.tensor import Tensor

__all__ = ["affine_grid", "grid_sample"]

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")
_CHANGED = (
    "Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. Please "
    "specify align_corners=True if the old behavior is desired. See the documentation of grid_sample for "
    "details."
)


def grid_sample(
    input: Tensor,
    grid: Tensor,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:
    """The elements of (N, C, H, W) at `grid` (N, H_out, W_out, 2): (N, C, H_out, W_out); or those of (N, C,
    D, H, W) at (N, D_out, H_out, W_out, 3).

    The grid holds (x, y) or (x, y, z), from -1 to 1: the centres of the first and last elements with
    `align_corners`, their outer edges without. `mode` is ``"bilinear"`` (also in volumes), ``"nearest"`` or
    ``"bicubic"`` (images only); `padding_mode` says what lies outside: ``"zeros"``, ``"border"`` or
    ``"reflection"``. As ``torch.nn.functional.grid_sample``.
    """
    name = "grid_sample"
    t, places = tensor_arg(input, name), tensor_arg(grid, name, "grid")
    _check(name, t, places, mode, padding_mode)
    if align_corners is None:
        warnings.warn(_CHANGED, UserWarning, stacklevel=user_level())
        align_corners = False
    sizes = [pinned(s, "the size of what grid_sample reads") for s in t.type_.shape[2:]]
    if 0 in sizes:
        raise error(
            ShapeError, name,
            f"expected input to have non-empty spatial dimensions, but got {sizes_text(t.type_.shape)}",
        )  # fmt: skip
    places = in_single(places)
    n = len(sizes)
    # One coordinate for each dimension of the input, in its order: (N, 1, places).
    axes = [
        _unnormalized(places[..., n - 1 - axis].flatten(1).unsqueeze(1), size, align_corners)
        for axis, size in enumerate(sizes)
    ]
    source = _Source(in_single(t).flatten(2), sizes, padding_mode, align_corners)
    if mode == "nearest":
        result = source.at([ops.round(source.inside(x, axis)) for axis, x in enumerate(axes)], None)
    elif mode == "bilinear":
        result = _linear(source, [source.inside(x, axis) for axis, x in enumerate(axes)])
    else:
        result = _cubic(source, axes)
    sampled: Tensor = result.reshape(*t.shape[:2], *places.shape[1:-1]).to(t.dtype)
    return sampled


def _check(name: str, t: Tensor, grid: Tensor, mode: str, padding_mode: str) -> None:
    if mode not in _MODES:
        expected = "'bilinear', 'nearest' or 'bicubic'"
        raise error(ValueError, name, f"expected mode to be {expected}, but got: {mode!r}")
    if padding_mode not in _PADDINGS:
        expected = "'zeros', 'border', or 'reflection'"
        raise error(ValueError, name, f"expected padding_mode to be {expected}, but got: {padding_mode!r}")
    a, b = sizes_text(t.type_.shape), sizes_text(grid.type_.shape)
    if t.dtype.kind != "float" or t.dtype is not grid.dtype:
        raise error(
            DTypeError, name,
            f"expected input and grid to have same floating point dtype, but input has {t.dtype} and grid "
            f"has {grid.dtype}",
        )  # fmt: skip
    if t.ndim not in (4, 5) or grid.ndim != t.ndim:
        raise error(
            ShapeError, name,
            f"expected 4D or 5D input and grid with same number of dimensions, but got input with sizes {a} "
            f"and grid with sizes {b}",
        )  # fmt: skip
    first, second = t.type_.shape[0], grid.type_.shape[0]
    if isinstance(first, int) and isinstance(second, int) and first != second:
        raise error(
            ShapeError, name,
            f"expected grid and input to have same batch size, but got input with sizes {a} and grid with "
            f"sizes {b}",
        )  # fmt: skip
    if grid.type_.shape[-1] != t.ndim - 2:
        raise error(
            ShapeError, name,
            f"expected grid to have size {t.ndim - 2} in last dimension, but got grid with sizes {b}",
        )  # fmt: skip
    if mode == "bicubic" and t.ndim == 5:
        raise error(ShapeError, name, "bicubic interpolation only supports 4D input")


def _unnormalized(x: Tensor, size: int, align_corners: bool) -> Tensor:
    """From -1 ... 1 to indices."""
    if align_corners:
        return (x + 1.0) / 2.0 * (size - 1)
    return ((x + 1.0) * size - 1.0) / 2.0


class _Source:
    """Elements (N, C, places), and what stands beside them."""

    def __init__(self, elements: Tensor, sizes: Sequence[int], padding_mode: str, align_corners: bool):
        self.elements = elements
        self.sizes = sizes
        self.padding_mode = padding_mode
        self.align_corners = align_corners

    def inside(self, x: Tensor, axis: int) -> Tensor:
        """A coordinate where padding puts it. At the border itself it has no slope, as in PyTorch."""
        last = self.sizes[axis] - 1
        if self.padding_mode == "zeros":
            return x
        if self.padding_mode == "reflection":
            low, span = (0.0, float(last)) if self.align_corners else (-0.5, last + 1.0)
            if not span:
                return x * 0.0
            far = (x - low).abs()
            turns = ops.floor(far / span).detach()
            rest = far - turns * span
            x = ops.where(ops.remainder(turns, 2.0) == 0, rest + low, span - rest + low)
        return ops.where(x <= 0, 0.0, ops.where(x >= last, float(last), x))

    def at(self, indices: Sequence[Tensor], weight: Tensor | None) -> Tensor:
        """The elements at whole numbers, times a weight; 0 for what lies outside."""
        there: Any = True
        place: Any = 0
        for size, index in zip(self.sizes, indices, strict=True):
            index = index.detach()
            there = (index >= 0) & (index <= size - 1) & there
            place = place * size + index.clamp(min=0, max=size - 1).nan_to_num().long()
        share = ops.where(there, 1.0 if weight is None else weight, 0.0).to(self.elements.dtype)
        shape = (*self.elements.shape[:2], place.shape[-1])
        result: Tensor = self.elements.gather(2, place.expand(*shape)) * share
        return result


def _linear(source: _Source, axes: Sequence[Tensor]) -> Tensor:
    low = [ops.floor(x).detach() for x in axes]
    shares = [x - first for x, first in zip(axes, low, strict=True)]
    total: Any = 0
    for corner in itertools.product((0, 1), repeat=len(axes)):
        weight: Any = 1
        for side, share in zip(corner, shares, strict=True):
            weight = (share if side else 1.0 - share) * weight
        total = source.at([first + side for first, side in zip(low, corner, strict=True)], weight) + total
    return total  # type: ignore[no-any-return]


def _cubic(source: _Source, axes: Sequence[Tensor]) -> Tensor:
    low = [ops.floor(x).detach() for x in axes]
    weights = [cubic_weights(x - first) for x, first in zip(axes, low, strict=True)]
    total: Any = 0
    for taps in itertools.product(range(4), repeat=2):
        weight = weights[0][taps[0]] * weights[1][taps[1]]
        near = [
            source.inside(first + (tap - 1), axis)
            for axis, (first, tap) in enumerate(zip(low, taps, strict=True))
        ]
        total = source.at(near, weight) + total
    return total  # type: ignore[no-any-return]


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The places that `grid_sample` needs for affine maps `theta` (N, 2, 3), with `size` (N, C, H, W): (N, H,
    W, 2); or (N, 3, 4) with (N, C, D, H, W): (N, D, H, W, 3).

    ValueError for other shapes. As ``torch.nn.functional.affine_grid``.
    """
    name = "affine_grid"
    maps = tensor_arg(theta, name, "theta")
    if maps.dtype.kind != "float":
        raise error(DTypeError, name, f"expected theta to have floating point type, but got {maps.dtype}")
    if len(size) not in (4, 5):
        raise error(
            NotImplementedError, name,
            "only supports 4D and 5D sizes, for 2D and 3D affine transforms, respectively. Got size "
            f"{tuple(size)}.",
        )  # fmt: skip
    n = len(size) - 2
    if maps.ndim != 3 or tuple(maps.shape[1:]) != (n, n + 1):
        raise error(
            ShapeError, name,
            f"expected a batch of {n}D affine matrices of shape Nx{n}x{n + 1} for size {tuple(size)}. Got "
            f"{sizes_text(maps.type_.shape)}.",
        )  # fmt: skip
    if maps.shape[0] != size[0]:
        raise error(ShapeError, name, f"expected {size[0]} matrices, got {sizes_text(maps.type_.shape)}")
    if align_corners is None:
        warnings.warn(_CHANGED, UserWarning, stacklevel=user_level())
        align_corners = False
    inner = [pinned(s, "the size of affine_grid") for s in (_extent(s) for s in size[2:])]
    if min(inner) <= 0:
        raise error(ValueError, name, f"expected non-zero, positive output size. Got {tuple(size)}")
    total: Any = maps[:, :, -1].reshape(-1, *(1,) * n, n)
    for axis, count in enumerate(inner):
        if count == 1:
            places = steps(1, 0, 1).to(maps.dtype) * 0
        else:
            places = steps(count, 0, 1).to(maps.dtype) * (2.0 / (count - 1)) - 1.0
            places = places if align_corners else places * ((count - 1) / count)
        column = maps[:, :, n - 1 - axis].reshape(-1, *(1,) * n, n)
        total = places.reshape(count, *(1,) * (n - axis)) * column + total
    return total  # type: ignore[no-any-return]


def _extent(size: Any) -> Any:
    return getattr(size, "size", size)
