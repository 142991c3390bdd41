"""Covariances, histograms, slopes, statistics without NaN, and small relatives of functions elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphflow import return_types
from graphflow.compiler.ir import OPS
from graphflow.dtypes import get_default_dtype, int64
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.arrange import cat, narrow, unbind
from graphflow.functions.choose import clamp, where
from graphflow.functions.common import (
    Dims,
    at_least,
    cast,
    dims_arg,
    expanded,
    in_dtype,
    is_one,
    pinned,
    require_float,
    reshaped,
    scalar,
    tensor_arg,
)
from graphflow.functions.elementwise import div, sub
from graphflow.functions.index import nonzero
from graphflow.functions.linalg import matmul
from graphflow.functions.logic import isnan, logical_not
from graphflow.functions.norms import norm
from graphflow.functions.order import searchsorted
from graphflow.functions.output import same_shape
from graphflow.functions.reduce import sum_
from graphflow.functions.registry import error, public
from graphflow.functions.shape import flatten, permuted
from graphflow.sizes import unwrap
from graphflow.tensor import Tensor, apply

__all__ = ["argwhere", "corrcoef", "cov", "dist", "gradient", "histogram", "histogramdd", "nanmean", "nansum"]


@public()
def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over `dim` of the elements that aren't NaN."""
    t = tensor_arg(input, "nansum")
    return sum_(where(isnan(t), scalar(0, t.dtype), t), dim, keepdim, dtype=dtype)


@public()
def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean over `dim` of the elements that aren't NaN; NaN where all are."""
    t = require_float(tensor_arg(input, "nanmean"), "nanmean")
    present = logical_not(isnan(t))
    return div(nansum(t, dim, keepdim, dtype=dtype), sum_(present, dim, keepdim).to(dtype or t.dtype))


@public()
def argwhere(input: Tensor) -> Tensor:
    """Positions of the elements that aren't 0, int64[n, ndim]; see `nonzero`."""
    return nonzero(tensor_arg(input, "argwhere"))  # type: ignore[no-any-return]


@public()
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of ``input - other``."""
    return norm(sub(tensor_arg(input, "dist"), tensor_arg(other, "dist", "other")), p)


# ---------------------------------------------------------------------------------------------- covariances


def _weights(name: str, argument: str, value: Any, count: Any, floating: bool) -> Tensor | None:
    if value is None:
        return None
    w = tensor_arg(value, name, argument)
    if w.ndim > 1 or (w.dtype.kind == "float") is not floating:
        kind = "floating point numbers" if floating else "integers"
        raise error(DTypeError, name, f"{argument} is a vector of {kind}, got {w.type_}")
    if not same_shape(w.type_.shape, (count,)):
        raise error(ShapeError, name, f"{argument} needs a weight for each of the {count} observations")
    return w


@public()
def cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None, aweights: Tensor | None = None
) -> Tensor:
    """The covariances of variables in rows (a vector is one variable) over observations in columns: (n, n).

    `fweights` says how often each observation counts (integers), `aweights` how much. The sum is divided by
    the number of observations less `correction`.
    """
    t = tensor_arg(input, "cov")
    if t.ndim > 2 or t.dtype.kind == "bool":
        raise error(ShapeError, "cov", f"expects numbers in at most 2 dimensions, got {t.type_}")
    x = t if t.dtype.kind == "float" else cast(t, get_default_dtype())
    x = x if x.ndim == 2 else reshaped(x, (1, x.type_.shape[0] if x.ndim else 1))
    count = x.type_.shape[1]
    often = _weights("cov", "fweights", fweights, count, False)
    much = _weights("cov", "aweights", aweights, count, True)
    weight = None if often is None else cast(often, x.dtype)
    if much is not None:
        weight = cast(much, x.dtype) if weight is None else weight * cast(much, x.dtype)
    if weight is None:
        total = in_dtype(x.shape[1], x.dtype)
        mean = sum_(x, 1, True) / total
        freedom = total - correction
    else:
        total = sum_(weight)
        mean = sum_(x * weight, 1, True) / total
        lost = total if much is None else sum_(weight * cast(much, x.dtype))
        freedom = total - correction * lost / total
    apart = x - mean
    product = matmul(apart if weight is None else apart * weight, apart.t())
    found: Tensor = product / apply(OPS["maximum"], freedom, scalar(0, x.dtype))
    return reshaped(found, ()) if is_one(x.type_.shape[0], "the covariance of one variable") else found


@public()
def corrcoef(input: Tensor) -> Tensor:
    """The correlation coefficients of variables in rows over observations in columns, within [-1, 1]."""
    found = cov(tensor_arg(input, "corrcoef"))
    if not found.ndim:
        return div(found, found)
    deviation = found.diagonal().sqrt()
    return clamp(found / reshaped(deviation, (deviation.type_.shape[0], 1)) / deviation, -1.0, 1.0)


# ---------------------------------------------------------------------------------------------- histograms


def _edges(name: str, values: Tensor, bins: Any, limits: tuple[float, float] | None) -> Tensor:
    """The bins' borders in one dimension, of given ones or evenly spaced."""
    if isinstance(bins, Tensor):
        if bins.ndim != 1 or bins.dtype is not values.dtype:
            raise error(ShapeError, name, f"bins are a vector of {values.dtype}, got {bins.type_}")
        return bins.detach()
    count = pinned(unwrap(bins), "the number of bins")
    if count < 1:
        raise error(ShapeError, name, f"needs at least one bin, got {bins}")
    if limits is not None:
        low, high = (scalar(v, values.dtype) for v in limits)
    elif not at_least(values.type_.shape[0], 1):
        low, high = scalar(0, values.dtype), scalar(1, values.dtype)
    else:
        low, high = (reshaped(apply(OPS[op], values, dims=(0,)), ()) for op in ("min", "max"))
    same = apply(OPS["eq"], low, high)
    half = scalar(0.5, values.dtype)
    low, high = where(same, low - half, low), where(same, high + half, high)
    part = cast(apply(OPS["iota"], size=count + 1), values.dtype) / count
    inner = low + (high - low) * part
    return where(part == 1, high, inner)


def _limits(name: str, given: Any, dims: int) -> list[tuple[float, float] | None]:
    if given is None:
        return [None] * dims
    if not isinstance(given, (tuple, list)) or len(given) != 2 * dims:
        raise error(
            ShapeError, name, f"range has {2 * dims} numbers, the ends of each dimension; got {given!r}"
        )
    pairs = [(float(given[2 * d]), float(given[2 * d + 1])) for d in range(dims)]
    if any(not math.isfinite(v) for pair in pairs for v in pair) or any(a > b for a, b in pairs):
        raise error(ShapeError, name, f"range goes from finite numbers to larger ones, got {given!r}")
    return list(pairs)


def _counted(
    name: str, points: Tensor, edges: Sequence[Tensor], weight: Any, density: bool
) -> tuple[Tensor, list[Tensor]]:
    """How much weight lies in each cell; `points` are (n, dimensions)."""
    flat: Tensor = apply(OPS["mul"], scalar(0, int64), scalar(0, int64))
    inside: Tensor | None = None
    sizes = []
    for column, border in zip(unbind(points, 1), edges, strict=True):
        cells = pinned(border.type_.shape[0], "the number of bins") - 1
        if cells < 1:
            raise error(ShapeError, name, "needs at least one bin")
        last = reshaped(narrow(border, 0, cells, 1), ())
        place = searchsorted(border, column, right=True) - 1
        place = where(column == last, cells - 1, place)
        fits = (place >= 0) & (place < cells)
        inside = fits if inside is None else inside & fits
        flat = flat * cells + clamp(place, 0, cells - 1)
        sizes.append(cells)
    assert inside is not None
    heft = cast(inside, points.dtype)
    if weight is not None:
        w = tensor_arg(weight, name, "weight")
        if not same_shape(w.type_.shape, points.type_.shape[:1]) or w.dtype is not points.dtype:
            raise error(ShapeError, name, f"needs a weight of {points.dtype} for each element, got {w.type_}")
        heft = where(inside, w, scalar(0, w.dtype))
    found = reshaped(apply(OPS["put_add"], heft, flat, dim=0, size=math.prod(sizes)), tuple(sizes))
    if density:
        found = found / sum_(found)
        for d, border in enumerate(edges):
            width = narrow(border, 0, 1, sizes[d]) - narrow(border, 0, 0, sizes[d])
            found = found / reshaped(width, (sizes[d], *(1,) * (len(sizes) - d - 1)))
    return found, list(edges)


@public()
def histogram(
    input: Tensor,
    bins: int | Tensor = 100,
    *,
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> return_types.histogram:
    """``(hist, bin_edges)``: how many elements, or how much of their `weight`, lie in each of the bins; with
    `density`, divided by the total and the bins' widths.

    `bins` is a number of equal ones over `range` (by default the elements' own), or a vector of borders in
    order. Elements outside, and NaN, aren't counted.
    """
    t = require_float(tensor_arg(input, "histogram"), "histogram").detach()
    values = flatten(t) if t.ndim else reshaped(t, (1,))
    edges = _edges("histogram", values, bins, _limits("histogram", range, 1)[0])
    heavy = weight
    if isinstance(weight, Tensor):
        if not same_shape(weight.type_.shape, t.type_.shape):
            raise error(ShapeError, "histogram", f"weight needs the shape of {t.type_}, got {weight.type_}")
        heavy = flatten(weight) if weight.ndim else reshaped(weight, (1,))
    points = reshaped(values, (values.type_.shape[0], 1))
    found, (border,) = _counted("histogram", points, [edges], heavy, density)
    return return_types.histogram(found, border)


@public()
def histogramdd(
    input: Tensor,
    bins: int | Sequence[int] | Sequence[Tensor],
    range: Sequence[float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> return_types.histogramdd:
    """``(hist, bin_edges)`` of points, (..., dimensions): `histogram` in several dimensions. `bins` has a
    number or a vector of borders for each, or is one number for all.
    """
    t = require_float(tensor_arg(input, "histogramdd"), "histogramdd").detach()
    if t.ndim < 2:
        raise error(ShapeError, "histogramdd", f"expects points in rows, got {t.type_}")
    dims = pinned(t.type_.shape[-1], "the number of dimensions")
    points = flatten(t, 0, -2)
    each = list(bins) if isinstance(bins, (tuple, list)) else [bins] * dims
    if len(each) != dims or not dims:
        raise error(ShapeError, "histogramdd", f"needs bins for each of {dims} dimensions, got {len(each)}")
    limits = _limits("histogramdd", range, dims)
    columns = zip(unbind(points, 1), each, limits, strict=True)
    edges = [_edges("histogramdd", *column) for column in columns]
    heavy = flatten(weight) if isinstance(weight, Tensor) else weight
    found, borders = _counted("histogramdd", points, edges, heavy, density)
    return return_types.histogramdd(found, tuple(borders))


# ---------------------------------------------------------------------------------------------- slopes


def _slope(t: Tensor, axis: int, spacing: Any, edge_order: int) -> Tensor:
    """Central differences within, one-sided ones at both ends (NumPy's ``gradient``)."""
    x = permuted(t, [*(d for d in range(t.ndim) if d != axis), axis])
    size = pinned(x.type_.shape[-1], "a gradient")
    if size < edge_order + 1:
        raise error(
            ShapeError, "gradient", f"needs at least {edge_order + 1} elements along a dimension, got {size}"
        )
    if isinstance(spacing, Tensor):
        if spacing.type_.shape != (size,):
            raise error(ShapeError, "gradient", f"spacing needs {size} coordinates, got {spacing.type_}")
        steps = narrow(spacing, 0, 1, size - 1) - narrow(spacing, 0, 0, size - 1)
        steps = cast(steps, x.dtype)
    else:
        steps = expanded(in_dtype(spacing, x.dtype), (size - 1,))

    def at(place: int) -> Tensor:
        return narrow(x, -1, place, 1)

    def step(place: int) -> Tensor:
        return narrow(steps, 0, place, 1)

    if edge_order == 1:
        first, last = (at(1) - at(0)) / step(0), (at(size - 1) - at(size - 2)) / step(size - 2)
    else:
        a, b = step(0), step(1)
        first = (
            at(0) * (-(2 * a + b) / (a * (a + b))) + at(1) * ((a + b) / (a * b)) - at(2) * (a / (b * (a + b)))
        )
        a, b = step(size - 3), step(size - 2)
        last = (
            at(size - 3) * (b / (a * (a + b))) - at(size - 2) * ((a + b) / (a * b))
            + at(size - 1) * ((2 * b + a) / (b * (a + b)))
        )  # fmt: skip
    parts = [first, last]
    if size > 2:
        a, b = narrow(steps, 0, 0, size - 2), narrow(steps, 0, 1, size - 2)
        low, here, high = (narrow(x, -1, d, size - 2) for d in (0, 1, 2))
        if isinstance(spacing, Tensor):
            within = low * (-b / (a * (a + b))) + here * ((b - a) / (a * b)) + high * (a / (b * (a + b)))
        else:
            within = (high - low) / (a + b)
        parts = [first, within, last]
    joined = cat(parts, -1)
    order = list(range(t.ndim - 1))
    order.insert(axis, t.ndim - 1)
    return permuted(joined, order)


@public(method=False)
def gradient(
    input: Tensor,
    *,
    spacing: float | Tensor | Sequence[float] | Sequence[Tensor] = 1,
    dim: int | Sequence[int] | None = None,
    edge_order: int = 1,
) -> tuple[Tensor, ...]:
    """Estimates of the derivatives along each of `dim` (by default all): NumPy's ``gradient``, of second
    order within and of order `edge_order` at the ends.

    `spacing` is the distance of neighbours: one number, a number for each dimension, or vectors of
    coordinates.
    """
    t = tensor_arg(input, "gradient")
    x = t if t.dtype.kind == "float" else cast(t, get_default_dtype())
    if edge_order not in (1, 2):
        raise error(ShapeError, "gradient", f"edge_order is 1 or 2, not {edge_order!r}")
    given = [dim] if isinstance(dim, int) else dim
    dims = dims_arg(None if given is None else tuple(given), t.ndim, "gradient")
    order = dims if given is None else tuple(d % t.ndim for d in given)
    each = list(spacing) if isinstance(spacing, (tuple, list)) else None
    if each is not None and len(each) != len(order):
        raise error(ShapeError, "gradient", f"needs a spacing for each of {len(order)} dimensions")
    if isinstance(spacing, Tensor) and spacing.ndim and len(order) != 1:
        raise error(ShapeError, "gradient", "spacing is one number, or a list with one for each dimension")
    wide: list[Any] = [spacing] * len(order) if each is None else each
    return tuple(_slope(x, d, s, edge_order) for d, s in zip(order, wide, strict=True))
