"""Sorting along a dimension, and everything found by it. NaN counts as larger than every number."""

from __future__ import annotations

import math
from typing import Any

from graphflow import return_types
from graphflow.compiler.ir import OPS
from graphflow.dims import product
from graphflow.dtypes import bool_, int32, int64, uint8
from graphflow.errors import DTypeError, IndexRangeError, ShapeError
from graphflow.functions.arrange import sliced
from graphflow.functions.common import (
    at_least,
    cast,
    copied,
    dim_arg,
    expanded,
    in_dtype,
    of_size,
    operand,
    pinned,
    promoted,
    require_float,
    reshaped,
    scalar,
    tensor_arg,
    without,
)
from graphflow.functions.cumulative import from_last, to_last
from graphflow.functions.registry import error, public
from graphflow.functions.shape import flatten
from graphflow.sizes import unwrap
from graphflow.tensor import Tensor, apply

__all__ = [
    "argsort", "bucketize", "histc", "kthvalue", "median", "mode", "msort", "nanmedian", "nanquantile",
    "quantile", "searchsorted", "sort", "topk",
]  # fmt: skip

Pair = tuple[Tensor, Tensor]


def _places(t: Tensor, axis: int, descending: bool) -> Tensor:
    rows = to_last(cast(t, uint8) if t.dtype is bool_ else t, axis)
    return from_last(apply(OPS["argsort"], rows, descending=descending), axis)


def _zeros_like(t: Tensor) -> Tensor:
    return apply(OPS["mul"], cast(t, int64), scalar(0, int64))


def _sorted(name: str, t: Tensor, dim: int, descending: bool) -> return_types.sort:
    axis = dim_arg(dim, t.ndim, name)
    if not t.ndim:
        return return_types.sort(copied(t), _zeros_like(t))
    places = _places(t, axis, bool(descending))
    return return_types.sort(apply(OPS["gather"], t, places, dim=axis), places)


@public()
def sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = True) -> return_types.sort:
    """``(values, indices)`` with the elements in order along `dim`; NaN counts as the largest.

    Equal elements always keep their order, so `stable` changes nothing.
    """
    return _sorted("sort", tensor_arg(input, "sort"), dim, descending)


@public()
def argsort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = True) -> Tensor:
    """The positions that `sort` gives."""
    return _sorted("argsort", tensor_arg(input, "argsort").detach(), dim, descending).indices


@public()
def msort(input: Tensor) -> Tensor:
    """Elements in order along the first dimension."""
    return _sorted("msort", tensor_arg(input, "msort"), 0, False).values


@public()
def topk(
    input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> return_types.topk:
    """``(values, indices)`` of the `k` largest (or smallest) elements along `dim`, always in order."""
    t = tensor_arg(input, "topk")
    axis = dim_arg(dim, t.ndim, "topk")
    row = t if t.ndim else reshaped(t, (1,))
    count = unwrap(k)
    if not (at_least(count, 0) and at_least(row.type_.shape[axis], count)):
        raise error(IndexRangeError, "topk", f"k={k} is out of range for dimension {dim} of {t.type_}")
    places = sliced(_places(row, axis, bool(largest)), axis, 0, count)
    values = apply(OPS["gather"], row, places, dim=axis)
    if not t.ndim and count == 1:
        return return_types.topk(reshaped(values, ()), reshaped(places, ()))
    return return_types.topk(values, places)


def _dropped(t: Tensor, axis: int, keepdim: bool) -> Tensor:
    return t if keepdim else reshaped(t, without(t.type_.shape, [axis]))


def _require_elements(name: str, t: Tensor, axis: int) -> None:
    if t.ndim and not at_least(t.type_.shape[axis], 1):
        raise error(IndexRangeError, name, f"dimension {axis} of {t.type_} has no elements")


def _picked(t: Tensor, place: Tensor, axis: int, keepdim: bool) -> Pair:
    values = apply(OPS["gather"], t, place, dim=axis)
    return (_dropped(values, axis, keepdim), _dropped(place, axis, keepdim))


@public()
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> return_types.kthvalue:
    """``(values, indices)`` of the `k`-th smallest element along `dim`, counted from 1."""
    t = tensor_arg(input, "kthvalue")
    axis = dim_arg(dim, t.ndim, "kthvalue")
    count = unwrap(k)
    size = t.type_.shape[axis] if t.ndim else 1
    if not (at_least(count, 1) and at_least(size, count)):
        raise error(IndexRangeError, "kthvalue", f"k={k} is out of range for dimension {dim} of {t.type_}")
    if not t.ndim:
        return return_types.kthvalue(copied(t), _zeros_like(t))
    place = sliced(_places(t, axis, False), axis, count - 1, 1)
    return return_types.kthvalue(*_picked(t, place, axis, keepdim))


def _counted_nans(t: Tensor, axis: int) -> Tensor:
    return apply(OPS["sum"], cast(apply(OPS["ne"], t, t), int64), dims=(axis,))


def _shared_among_equals(flat: Tensor, found: Tensor) -> Tensor:
    """An element of a vector, whose gradient all elements equal to it share."""
    value = found.detach()
    equal = apply(OPS["where"], apply(OPS["eq"], flat, value), flat, scalar(-math.inf, flat.dtype))
    shared = reshaped(apply(OPS["max"], equal, dims=(0,)), ())  # its gradient is divided
    return apply(OPS["where"], apply(OPS["ne"], value, value), found, shared)


def _median(name: str, input: Any, dim: int | None, keepdim: bool, skip: bool) -> Tensor | Pair:
    t = tensor_arg(input, name)
    if t.dtype is bool_:
        raise error(DTypeError, name, "does not support bool input; convert with .int()")
    if dim is None:
        if not at_least(product(t.type_.shape), 1):
            return scalar(math.nan if t.dtype.kind == "float" else 0, t.dtype)
        flat = flatten(t)
        found = _median(name, flat, 0, False, skip)[0]
        return _shared_among_equals(flat, found) if t.requires_grad else found
    axis = dim_arg(dim, t.ndim, name)
    if not t.ndim:
        return copied(t), _zeros_like(t)
    _require_elements(name, t, axis)
    places = _places(t, axis, False)
    size = t.type_.shape[axis]
    rank = of_size((size - 1) // 2, int64)
    if t.dtype.kind == "float":
        nans = _counted_nans(t, axis)
        last = apply(OPS["sub"], of_size(size, int64), scalar(1, int64))
        if skip:
            left = apply(OPS["sub"], last, nans)
            half = apply(OPS["floor_divide"], left, scalar(2, int64))
            rank = apply(OPS["maximum"], half, scalar(0, int64))
        else:  # a NaN anywhere is the median; the first of them stands behind all numbers
            first = apply(OPS["sub"], of_size(size, int64), nans)
            rank = apply(OPS["where"], apply(OPS["gt"], nans, scalar(0, int64)), first, rank)
    shape = tuple(1 if d == axis else s for d, s in enumerate(t.type_.shape))
    place = apply(OPS["gather"], places, expanded(rank, shape), dim=axis)
    return _picked(t, place, axis, keepdim)


@public()
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor | return_types.median:
    """The median, the lower of two in the middle; with `dim`, ``(values, indices)``. NaN where there
    is one.
    """
    found = _median("median", input, dim, keepdim, False)
    return found if isinstance(found, Tensor) else return_types.median(*found)


@public()
def nanmedian(
    input: Tensor, dim: int | None = None, keepdim: bool = False
) -> Tensor | return_types.nanmedian:
    """The `median` of the elements that aren't NaN."""
    found = _median("nanmedian", input, dim, keepdim, True)
    return found if isinstance(found, Tensor) else return_types.nanmedian(*found)


@public()
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> return_types.mode:
    """``(values, indices)`` of the most frequent element along `dim`, the smallest of equally frequent
    ones.
    """
    t = tensor_arg(input, "mode")
    axis = dim_arg(dim, t.ndim, "mode")
    if not t.ndim:
        return return_types.mode(copied(t), _zeros_like(t))
    _require_elements("mode", t, axis)
    rows = to_last(t, axis)
    place = apply(OPS["mode_place"], rows, to_last(_places(t, axis, False), axis))
    return return_types.mode(*_picked(t, from_last(place, axis), axis, keepdim))


# ---------------------------------------------------------------------------------------------- quantiles

_INTERPOLATIONS = ("linear", "lower", "higher", "nearest", "midpoint")


def _quantile(
    name: str, input: Any, q: Any, dim: int | None, keepdim: bool, interpolation: str, skip: bool
) -> Tensor:
    t = require_float(tensor_arg(input, name), name)
    if interpolation not in _INTERPOLATIONS:
        raise error(ShapeError, name, f"interpolation is one of {_INTERPOLATIONS}, not {interpolation!r}")
    if isinstance(q, (int, float)) and not 0 <= q <= 1:
        raise error(ShapeError, name, f"q has to be within [0, 1], got {q}")
    at = in_dtype(operand(q, name, "q"), t.dtype)
    if at.ndim > 1:
        raise error(ShapeError, name, f"q has to be a number or a vector, got {at.type_}")
    if not at.is_traced and not t.is_traced and not _in_unit(at):
        raise error(ShapeError, name, f"q has to be within [0, 1], got {at.tolist()}")
    rank = t.ndim
    if dim is None:
        t, axis = flatten(t), 0
    else:
        axis = dim_arg(dim, t.ndim, name)
        t = t if t.ndim else reshaped(t, (1,))
    _require_elements(name, t, axis)
    rows = to_last(t, axis)
    batch = rows.type_.shape[:-1]
    ordered = apply(OPS["gather"], rows, apply(OPS["argsort"], rows, descending=False), dim=rows.ndim - 1)
    count = at.type_.shape[0] if at.ndim else 1
    nans = _counted_nans(rows, rows.ndim - 1)
    numbers = (
        apply(OPS["sub"], of_size(rows.type_.shape[-1], int64), nans)
        if skip
        else of_size(rows.type_.shape[-1], int64)
    )
    last = apply(OPS["maximum"], apply(OPS["sub"], numbers, scalar(1, int64)), scalar(0, int64))
    place = apply(OPS["mul"], reshaped(at, (count,)), cast(last, t.dtype))
    place = expanded(place, (*batch, count))
    found = _interpolated(ordered, place, interpolation)
    if not skip:
        found = apply(
            OPS["where"], apply(OPS["gt"], nans, scalar(0, int64)), scalar(math.nan, t.dtype), found
        )
    found = _first(found)  # the quantiles lead
    if keepdim:
        kept = (
            (1,) * rank if dim is None else tuple(1 if d == axis else s for d, s in enumerate(t.type_.shape))
        )
        found = reshaped(found, (count, *kept[:rank]))
    return found if at.ndim else reshaped(found, found.type_.shape[1:])


def _first(t: Tensor) -> Tensor:
    return apply(OPS["permute"], t, dims=(t.ndim - 1, *range(t.ndim - 1)))


def _interpolated(ordered: Tensor, place: Tensor, interpolation: str) -> Tensor:
    dim = ordered.ndim - 1
    if interpolation == "nearest":
        return apply(OPS["gather"], ordered, cast(apply(OPS["round"], place), int64), dim=dim)
    low, high = (apply(OPS[name], place) for name in ("floor", "ceil"))
    below, above = (apply(OPS["gather"], ordered, cast(p, int64), dim=dim) for p in (low, high))
    if interpolation in ("lower", "higher"):
        return below if interpolation == "lower" else above
    weight = scalar(0.5, place.dtype) if interpolation == "midpoint" else apply(OPS["sub"], place, low)
    if interpolation == "midpoint":
        weight = apply(OPS["where"], apply(OPS["eq"], low, high), scalar(0, place.dtype), weight)
    step = apply(OPS["mul"], apply(OPS["sub"], above, below), weight)
    # infinite neighbours have no difference
    return apply(OPS["where"], apply(OPS["eq"], above, below), below, apply(OPS["add"], below, step))


def _in_unit(t: Tensor) -> bool:
    values = t.detach().numpy()
    return not ((values < 0) | (values > 1)).any()


@public()
def quantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """The quantiles `q` (a number or a vector, whose dimension leads in the result) along `dim`, or of all
    elements; NaN where there is one.
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


@public()
def nanquantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Tensor:
    """The `quantile` of the elements that aren't NaN."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)


# ---------------------------------------------------------------------------------------------- searching


def _side(name: str, right: bool, side: str | None) -> bool:
    if side is None:
        return bool(right)
    if side not in ("left", "right") or (right and side == "left"):
        raise error(ShapeError, name, f"side is 'left' or 'right' and agrees with right=, got {side!r}")
    return side == "right"


@public(method=False)
def searchsorted(
    sorted_sequence: Tensor, values: Any, *, out_int32: bool = False, right: bool = False,
    side: str | None = None, sorter: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Where `values` would be inserted into rows in order, before equal elements or (`right`) behind them.

    A 1-d `sorted_sequence` serves values of any shape; otherwise both agree in all dimensions but the last.
    """
    row = tensor_arg(sorted_sequence, "searchsorted", "sorted_sequence")
    given = operand(values, "searchsorted", "values")
    wanted = given if isinstance(given, Tensor) else scalar(given, row.dtype)
    after = _side("searchsorted", right, side)
    if not row.ndim:
        raise error(ShapeError, "searchsorted", "the sorted sequence needs at least one dimension")
    if sorter is not None:
        row = apply(
            OPS["gather"], row, cast(tensor_arg(sorter, "searchsorted", "sorter"), int64), dim=row.ndim - 1
        )
    row, wanted = promoted("searchsorted", row, wanted)
    if row.dtype is bool_:
        row, wanted = cast(row, uint8), cast(wanted, uint8)
    shape = wanted.type_.shape
    if row.ndim == 1:
        wanted = reshaped(wanted, (product(shape),))
    elif row.ndim != wanted.ndim:
        raise error(
            ShapeError, "searchsorted",
            f"values {wanted.type_} have to agree with {row.type_} in all dimensions but the last",
        )  # fmt: skip
    found = reshaped(apply(OPS["searchsorted"], row.detach(), wanted.detach(), right=after), shape)
    return cast(found, int32) if out_int32 else found


@public(method=False)
def bucketize(input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False) -> Tensor:
    """The number of the bucket between the 1-d `boundaries`, in order, that every element lies in."""
    edges = tensor_arg(boundaries, "bucketize", "boundaries")
    if edges.ndim != 1:
        raise error(ShapeError, "bucketize", f"boundaries have to be a vector, got {edges.type_}")
    return searchsorted(edges, input, out_int32=out_int32, right=right)


# ---------------------------------------------------------------------------------------------- counting


@public()
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements lie in each of `bins` equal parts of [min, max], by default the elements' own range.

    Elements outside, and NaN, aren't counted.
    """
    t = require_float(tensor_arg(input, "histc"), "histc").detach()
    count = pinned(unwrap(bins), "the number of bins")
    if count < 1 or max < min:
        raise error(ShapeError, "histc", f"needs bins > 0 and min <= max, got {bins}, {min} and {max}")
    values = flatten(t)
    low, high = scalar(float(min), t.dtype), scalar(float(max), t.dtype)
    if min == max and at_least(values.type_.shape[0], 1):
        low, high = (reshaped(apply(OPS[op], values, dims=(0,)), ()) for op in ("min", "max"))
    same = apply(OPS["eq"], low, high)
    one = scalar(1, t.dtype)
    low = apply(OPS["where"], same, apply(OPS["sub"], low, one), low)
    high = apply(OPS["where"], same, apply(OPS["add"], high, one), high)
    inside = apply(OPS["bitwise_and"], apply(OPS["ge"], values, low), apply(OPS["le"], values, high))
    width = apply(OPS["sub"], high, low)
    scaled = apply(OPS["mul"], apply(OPS["sub"], values, low), scalar(count, t.dtype))
    place = cast(apply(OPS["floor"], apply(OPS["div"], scaled, width)), int64)
    place = apply(OPS["minimum"], apply(OPS["maximum"], place, scalar(0, int64)), scalar(count - 1, int64))
    return apply(OPS["put_add"], cast(inside, t.dtype), place, dim=0, size=count)
