"""Images, signals and volumes in other sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphflow import functions as ops
from graphflow.dtypes import DType, float32, float64
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.common import expanded, pinned, reshaped, tensor_arg
from graphflow.functions.registry import error
from graphflow.functions.window import steps
from graphflow.nn.functional.adaptive import adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_avg_pool3d
from graphflow.nn.functional.spatial import Ints, ints, sizes_text
from graphflow.tensor import Tensor

__all__ = ["interpolate", "upsample", "upsample_bilinear", "upsample_nearest"]

_RANKS = {"linear": 3, "bilinear": 4, "bicubic": 4, "trilinear": 5}
_MODES = ("nearest", "nearest-exact", "area", *_RANKS)
_AREA = {3: adaptive_avg_pool1d, 4: adaptive_avg_pool2d, 5: adaptive_avg_pool3d}

Factors = float | Sequence[float] | None
Scales = tuple[float | None, ...]


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """(N, C, L), (N, C, H, W) or (N, C, D, H, W) resized to `size`, or by `scale_factor`.

    Modes: ``"nearest"``, ``"nearest-exact"``, ``"area"``, ``"linear"`` (3-d), ``"bilinear"`` and
    ``"bicubic"`` (4-d), ``"trilinear"`` (5-d). With `align_corners` the corners' centres stay in place. With
    `antialias` (bilinear and bicubic) smaller images take all elements into account, as Pillow does it.
    ValueError for arguments that don't go together, NotImplementedError for other ranks.
    As ``torch.nn.functional.interpolate``.
    """
    name = "interpolate"
    t = tensor_arg(input, name)
    _check(name, t, mode, align_corners, antialias)
    n = t.ndim - 2
    sizes = tuple(pinned(s, "the size that interpolate starts from") for s in t.type_.shape[2:])
    target, scales = _target(name, n, sizes, size, scale_factor, recompute_scale_factor)
    if 0 in sizes or 0 in target:
        raise error(
            ShapeError, name,
            f"input and output sizes should be greater than 0, but got input (H, W: "
            f"{sizes_text(sizes)}) output "
            f"{sizes_text(target)}",
        )  # fmt: skip
    if mode == "area":
        return _AREA[t.ndim](t, target)
    result = t
    for axis, (old, new, scale) in enumerate(zip(sizes, target, scales, strict=True), 2):
        if antialias:
            ratio = _ratio(old, new, scale, bool(align_corners))
            result = _smooth(result, axis, old, new, ratio, mode == "bicubic")
        elif mode in ("nearest", "nearest-exact"):
            result = _nearest(result, axis, old, new, scale, mode == "nearest-exact")
        elif mode == "bicubic":
            result = _cubic(result, axis, old, new, scale, bool(align_corners))
        elif old != new or (scale is not None and scale != 1):
            result = _linear(result, axis, old, new, scale, bool(align_corners))
    resized: Tensor = result.contiguous() if result is not t else result.clone()
    return resized


def _check(name: str, t: Tensor, mode: str, align_corners: bool | None, antialias: bool) -> None:
    if mode not in _MODES:
        raise error(NotImplementedError, name, f"unknown mode {mode!r}; there are {', '.join(_MODES)}")
    if t.ndim not in (3, 4, 5) or _RANKS.get(mode, t.ndim) != t.ndim:
        raise error(
            NotImplementedError, name,
            "input Error: Only 3D, 4D and 5D input Tensors supported (got "
            f"{t.ndim}D) for the modes: nearest | linear | bilinear | bicubic | trilinear | area | "
            f"nearest-exact "
            f"(got {mode})",
        )  # fmt: skip
    if align_corners is not None and mode not in _RANKS:
        raise error(
            ValueError, name,
            "align_corners option can only be set with the interpolating modes: linear | bilinear | "
            "bicubic | "
            "trilinear",
        )  # fmt: skip
    if antialias and mode not in ("bilinear", "bicubic"):
        raise error(
            ValueError, name,
            "Anti-alias option is restricted to bilinear and bicubic modes and requires a 4-D tensor as "
            "input",
        )  # fmt: skip
    if t.dtype.kind != "float":
        raise error(DTypeError, name, f"needs a floating point input, got {t.type_}; convert with .float()")


def _target(
    name: str, n: int, sizes: Ints, size: Any, scale_factor: Any, recompute_scale_factor: bool | None
) -> tuple[Ints, Scales]:
    """The result's size, and the scales where they, not the sizes, say where elements lie."""
    if (size is None) == (scale_factor is None):
        which = "only one of" if size is not None else "either"
        raise error(ValueError, name, f"{which} size or scale_factor should be defined")
    if size is not None:
        if recompute_scale_factor:
            raise error(ValueError, name, "recompute_scale_factor is not meaningful with an explicit size.")
        given = tuple(size) if isinstance(size, (tuple, list)) else (size,) * n
        if len(given) != n:
            raise error(ValueError, name, f"size takes one number or {n}, got {size!r}")
        return ints(given, n, name, "size"), (None,) * n
    factors = tuple(scale_factor) if isinstance(scale_factor, (tuple, list)) else (scale_factor,) * n
    if len(factors) != n:
        raise error(ValueError, name, f"scale_factor takes one number or {n}, got {scale_factor!r}")
    target = tuple(math.floor(float(s) * f) for s, f in zip(sizes, factors, strict=True))
    return target, (None,) * n if recompute_scale_factor else tuple(map(float, factors))


def _along(t: Tensor, axis: int, vector: Tensor) -> Tensor:
    """A vector as it broadcasts along an axis of `t`."""
    result: Tensor = vector.reshape(-1, *(1,) * (t.ndim - axis - 1))
    return result


def _nearest(t: Tensor, axis: int, old: int, new: int, scale: float | None, exact: bool) -> Tensor:
    if old == new and scale in (None, 1.0):
        return t
    if new % old == 0 and scale in (None, new / old):
        # Copies side by side: no positions to look up, and the gradient is a plain sum.
        shape = t.type_.shape
        wide = expanded(t.unsqueeze(axis + 1), (*shape[: axis + 1], new // old, *shape[axis + 1 :]))
        return reshaped(wide, (*shape[:axis], new, *shape[axis + 1 :]))
    step = 1.0 / scale if scale is not None else old / new
    place = ops.floor((steps(new, 0, 1).to(float32) + (0.5 if exact else 0.0)) * step)
    result: Tensor = t.index_select(axis, place.long().clamp(max=old - 1))
    return result


def _ratio(old: int, new: int, scale: float | None, align_corners: bool) -> float:
    """How far apart new elements are among the old ones."""
    if align_corners:
        return (old - 1) / (new - 1) if new > 1 else 0.0
    return 1.0 / scale if scale is not None else old / new


def _source(old: int, new: int, scale: float | None, align_corners: bool, dtype: DType) -> Tensor:
    """Where the new elements lie among the old ones."""
    place: Tensor = steps(new, 0, 1).to(dtype)
    ratio = _ratio(old, new, scale, align_corners)
    return place * ratio if align_corners else (place + 0.5) * ratio - 0.5


def _linear(t: Tensor, axis: int, old: int, new: int, scale: float | None, align_corners: bool) -> Tensor:
    dtype = t.dtype if t.dtype is float64 else float32
    place = _source(old, new, scale, align_corners, dtype).clamp(min=0.0)
    low = place.long().clamp(max=old - 1)
    share = _along(t, axis, (place - low.to(dtype)).to(t.dtype))
    high = (low + 1).clamp(max=old - 1)
    result: Tensor = t.index_select(axis, low) * (1.0 - share) + t.index_select(axis, high) * share
    return result


def _near(x: Tensor, a: float) -> Tensor:
    return ((a + 2) * x - (a + 3)) * x * x + 1


def _far(x: Tensor, a: float) -> Tensor:
    return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a


def cubic_weights(share: Tensor, a: float = -0.75) -> tuple[Tensor, ...]:
    """What the elements at -1, 0, 1 and 2 count at a place between 0 and 1: Keys' convolution (IEEE Trans.
    ASSP 29, 1981).
    """
    return _far(share + 1, a), _near(share, a), _near(1 - share, a), _far(2 - share, a)


def _smooth(t: Tensor, axis: int, old: int, new: int, scale: float, cubic: bool) -> Tensor:
    """Means over as many elements as become one, weighted by a triangle or a cubic (a = -0.5, as Pillow)."""
    dtype = t.dtype if t.dtype is float64 else float32
    reach = 2.0 if cubic else 1.0
    support, shrink = (reach * scale, 1.0 / scale) if scale >= 1 else (reach, 1.0)
    centers = (steps(new, 0, 1).to(dtype).unsqueeze(1) + 0.5) * scale
    places = steps(old, 0, 1).to(dtype)
    first = ops.floor(centers - support + 0.5).clamp(min=0.0)
    last = ops.floor(centers + support + 0.5).clamp(max=float(old))
    x = ((places - centers + 0.5) * shrink).abs()
    if cubic:
        weights = ops.where(x < 1, _near(x, -0.5), ops.where(x < 2, _far(x, -0.5), 0.0))
    else:
        weights = (1.0 - x).clamp(min=0.0)
    weights = ops.where((places >= first) & (places < last), weights, 0.0)
    total = weights.sum(1, keepdim=True)
    weights = weights / ops.where(total == 0, 1.0, total)
    result: Tensor = ops.movedim(ops.movedim(t, axis, -1).to(dtype) @ weights.t(), -1, axis).to(t.dtype)
    return result


def _cubic(t: Tensor, axis: int, old: int, new: int, scale: float | None, align_corners: bool) -> Tensor:
    """By the four elements around each place."""
    dtype = t.dtype if t.dtype is float64 else float32
    place = _source(old, new, scale, align_corners, dtype)
    first = ops.floor(place)
    low = first.long()
    result: Any = 0
    for tap, weight in enumerate(cubic_weights(place - first)):
        found = t.index_select(axis, (low + (tap - 1)).clamp(min=0, max=old - 1))
        result = found * _along(t, axis, weight.to(t.dtype)) + result
    return result  # type: ignore[no-any-return]


def upsample(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
) -> Tensor:
    """`interpolate` under its older name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> Tensor:
    """`interpolate` with mode ``"nearest"``, under its older name."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
) -> Tensor:
    """`interpolate` with mode ``"bilinear"`` and `align_corners`, under its older name."""
    return interpolate(input, size, scale_factor, "bilinear", align_corners=True)
