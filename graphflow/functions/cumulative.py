"""Running totals along a dimension, differences and integrals by the trapezoidal rule."""

from __future__ import annotations

from typing import Any

from graphflow import return_types
from graphflow.compiler.ir import OPS, equal_size
from graphflow.dtypes import bool_, int64, uint8
from graphflow.errors import ShapeError
from graphflow.functions.arrange import cat, sliced
from graphflow.functions.common import (
    as_dtype,
    at_least,
    cast,
    copied,
    dim_arg,
    in_dtype,
    operand,
    promoted,
    require_float,
    reshaped,
    scalar,
    tensor_arg,
)
from graphflow.functions.logic import ne
from graphflow.functions.reduce import reduced
from graphflow.functions.registry import error, public
from graphflow.functions.shape import permuted
from graphflow.tensor import Tensor, apply

__all__ = [
    "cummax", "cummin", "cumprod", "cumsum", "cumulative_trapezoid", "diff", "logcumsumexp", "trapezoid",
    "trapz",
]  # fmt: skip


def to_last(t: Tensor, axis: int) -> Tensor:
    """`t` with one dimension moved behind the others."""
    if axis == t.ndim - 1:
        return t
    return permuted(t, [*(d for d in range(t.ndim) if d != axis), axis])


def from_last(t: Tensor, axis: int) -> Tensor:
    """Undoes `to_last`."""
    if axis == t.ndim - 1:
        return t
    order = list(range(t.ndim - 1))
    order.insert(axis, t.ndim - 1)
    return permuted(t, order)


def _summable(input: Any, name: str, dtype: Any) -> Tensor:
    t = tensor_arg(input, name)
    return cast(t, as_dtype(dtype) if dtype is not None else t.dtype if t.dtype.kind == "float" else int64)


@public()
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Sums of the elements up to each one along `dim`; integers and bools add up as int64."""
    t = _summable(input, "cumsum", dtype)
    axis = dim_arg(dim, t.ndim, "cumsum")
    if not t.ndim:
        return copied(t)
    return from_last(apply(OPS["cumsum"], to_last(t, axis), reverse=False), axis)


@public()
def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Products of the elements up to each one along `dim`; integers and bools multiply as int64.

    Derivatives are exact at zeros, too.
    """
    t = _summable(input, "cumprod", dtype)
    axis = dim_arg(dim, t.ndim, "cumprod")
    if not t.ndim:
        return copied(t)
    row = to_last(t, axis)
    first = apply(OPS["eq"], apply(OPS["iota"], size=row.type_.shape[-1]), scalar(0, int64))
    # adding -0 changes nothing, not even a zero's sign
    starts = apply(OPS["where"], first, row, scalar(-0.0 if t.dtype.kind == "float" else 0, t.dtype))
    return from_last(apply(OPS["recurrence"], row, starts, reverse=False), axis)


def _running(name: str, input: Any, dim: int) -> tuple[Tensor, Tensor]:
    t = tensor_arg(input, name)
    axis = dim_arg(dim, t.ndim, name)
    if not t.ndim:
        return copied(t), cast(ne(t, t), int64)
    places = apply(OPS[f"{name}_places"], to_last(cast(t, uint8) if t.dtype is bool_ else t, axis))
    indices = from_last(places, axis)
    return apply(OPS["gather"], t, indices, dim=axis), indices


@public()
def cummax(input: Tensor, dim: int) -> return_types.cummax:
    """``(values, indices)`` of the largest element so far along `dim`, the last of equal ones; a NaN
    stays.
    """
    return return_types.cummax(*_running("cummax", input, dim))


@public()
def cummin(input: Tensor, dim: int) -> return_types.cummin:
    """``(values, indices)`` of the smallest element so far along `dim`, the last of equal ones; a NaN
    stays.
    """
    return return_types.cummin(*_running("cummin", input, dim))


@public()
def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """``log(cumsum(exp(input), dim))`` in a form that doesn't overflow."""
    t = require_float(tensor_arg(input, "logcumsumexp"), "logcumsumexp")
    axis = dim_arg(dim, t.ndim, "logcumsumexp")
    if not t.ndim:
        return copied(t)
    return from_last(apply(OPS["logcumsumexp"], to_last(t, axis)), axis)


# ---------------------------------------------------------------------------------------------- differences


def _neighbours(t: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """All elements but the first along a dimension, and all but the last."""
    if not t.ndim:
        raise error(ShapeError, "diff", f"expects at least a 1-dimensional tensor, got {t.type_}")
    size = t.type_.shape[axis]
    left = size - 1 if at_least(size, 1) else 0
    start = 1 if at_least(size, 1) else 0
    return sliced(t, axis, start, left), sliced(t, axis, 0, left)


@public()
def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Differences of neighbours along `dim`, `n` times over; of bools, whether neighbours differ.

    `prepend` and `append` are joined to the ends first.
    """
    t = tensor_arg(input, "diff")
    if not t.ndim:
        raise error(ShapeError, "diff", "expects a tensor of at least one dimension")
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise error(ShapeError, "diff", f"n has to be an integer that isn't negative, got {n!r}")
    axis = dim_arg(dim, t.ndim, "diff")
    ends = [e if e is None else tensor_arg(e, "diff", "prepend/append") for e in (prepend, append)]
    if n and any(e is not None for e in ends):
        t = cat([part for part in (ends[0], t, ends[1]) if part is not None], axis)
    for _ in range(n):
        after, before = _neighbours(t, axis)
        t = apply(OPS["ne" if t.dtype is bool_ else "sub"], after, before)
    return t if n else copied(t)


@public(aliases=("trapz",))
def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integral of `y` along `dim` by the trapezoidal rule, at points `x` or `dx` (default 1) apart."""
    t, width = _trapezoids("trapezoid", y, x, dx, dim)
    return reduced("sum", t, (width,), False)


@public()
def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The running integral of `y` along `dim` by the trapezoidal rule; one element shorter than `y`."""
    t, axis = _trapezoids("cumulative_trapezoid", y, x, dx, dim)
    return cumsum(t, axis)


def _trapezoids(name: str, y: Any, x: Any, dx: Any, dim: int) -> tuple[Tensor, int]:
    """The areas between neighbouring points, and the dimension they lie along."""
    if x is not None and dx is not None:
        raise error(ShapeError, name, "takes x or dx=, not both")
    (t,) = promoted(name, tensor_arg(y, name, "y"), floating=True)
    if not t.ndim:
        raise error(ShapeError, name, "expects a tensor of at least one dimension")
    axis = dim_arg(dim, t.ndim, name)
    after, before = _neighbours(t, axis)
    total = apply(OPS["add"], after, before)
    if x is None:
        factor = in_dtype(operand(1 if dx is None else dx, name, "dx"), t.dtype)
        width = apply(OPS["mul"], factor, scalar(0.5, t.dtype))
        return apply(OPS["mul"], total, width), axis
    total, points = promoted(name, total, tensor_arg(x, name, "x"), floating=True)
    if points.ndim == 1:
        equal_size(points.type_.shape[0], t.type_.shape[axis])
        points = reshaped(points, tuple(points.type_.shape[0] if d == axis else 1 for d in range(t.ndim)))
    later, earlier = _neighbours(points, axis - t.ndim + points.ndim)
    width = apply(OPS["mul"], apply(OPS["sub"], later, earlier), scalar(0.5, total.dtype))
    return apply(OPS["mul"], total, width), axis


# other names for the same
trapz = trapezoid
