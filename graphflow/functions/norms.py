"""Norms of vectors and matrices, and the condition number that is made of them."""

from __future__ import annotations

import math
from typing import Any

from graphflow.compiler.ir import OPS
from graphflow.errors import ShapeError
from graphflow.functions.common import (
    Dims,
    as_dtype,
    cast,
    dim_arg,
    dims_arg,
    require_float,
    reshaped,
    rounded_once,
    scalar,
    tensor_arg,
)
from graphflow.functions.decompose import inverse, matrices, svdvals
from graphflow.functions.reduce import reduced, require_elements, safe_root
from graphflow.functions.registry import error, public
from graphflow.functions.shape import permuted
from graphflow.tensor import Tensor, apply

__all__ = ["norm"]


@public(backward="LinalgVectorNormBackward0")
def norm(
    input: Tensor,
    p: float | str | None = "fro",
    dim: Dims = None,
    keepdim: bool = False,
    *,
    dtype: Any = None,
) -> Tensor:
    """The p-norm of the elements over `dim`: ``sum(|x|**p)**(1/p)``, also for p = 0, inf and -inf; with 'nuc'
    the sum of the singular values of a matrix, or of those in two dimensions.

    The gradient at a zero vector is 0, and so is, for p < 1, that of an element that is 0.
    """
    t = tensor_arg(input, "norm")
    t = require_float(t if dtype is None else cast(t, as_dtype(dtype)), "norm")
    if p == "nuc":
        if dim is None and t.ndim != 2:
            raise error(ShapeError, "norm", f"with p='nuc' and no dim, expects a matrix, got {t.type_}")
        return matrix_norm(t, "nuc", (0, 1) if dim is None else dim, keepdim)
    order = 2.0 if p in ("fro", None) else p
    if isinstance(order, bool) or not isinstance(order, (int, float)):
        raise error(ShapeError, "norm", f"p is a number, 'fro' or 'nuc', not {p!r}")
    return _norm(t, float(order), dims_arg(dim, t.ndim, "norm"), keepdim)


@rounded_once
def _norm(t: Tensor, order: float, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    if order == 2:
        squares = reduced("sum", apply(OPS["mul"], t, t), dims, keepdim)
        return safe_root(squares, lambda x: apply(OPS["sqrt"], x))
    if order < 0 or math.isinf(order):
        require_elements("norm", t, dims)
    zero, one = scalar(0, t.dtype), scalar(1, t.dtype)
    if order == 0:  # a count, whose slope is 0 everywhere like that of `sign`
        counted = apply(OPS["where"], apply(OPS["ne"], t, zero), one, apply(OPS["sign"], t))
        return reduced("sum", counted, dims, keepdim)
    size = apply(OPS["abs"], t)
    if math.isinf(order):
        return reduced("max" if order > 0 else "min", size, dims, keepdim)
    if order == 1:
        return reduced("sum", size, dims, keepdim)
    exponent = scalar(order, t.dtype)
    if order < 1:  # the slope of |x|**p at 0 is infinite, and 0 by PyTorch's rule
        is_zero = apply(OPS["eq"], t, zero)
        inside = apply(OPS["where"], is_zero, one, size)
        at_zero = scalar(0.0 if order > 0 else math.inf, t.dtype)
        powers = apply(OPS["where"], is_zero, at_zero, apply(OPS["pow"], inside, exponent))
    else:
        powers = apply(OPS["pow"], size, exponent)
    inverse_order = scalar(1.0 / order, t.dtype)
    total = reduced("sum", powers, dims, keepdim)
    return safe_root(total, lambda x: apply(OPS["pow"], x, inverse_order))


@public(name="linalg.vector_norm", function=False, method=False, backward="LinalgVectorNormBackward0")
def vector_norm(
    x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The `ord`-norm of the elements over `dim`, by default of all."""
    return norm(x, float(ord), dim, keepdim, dtype=dtype)


@public(name="linalg.matrix_norm", function=False, method=False)
def matrix_norm(
    A: Tensor, ord: float | str = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The norm of matrices in two dimensions: 'fro', 'nuc', 1, -1, 2, -2, inf or -inf."""
    name = "linalg.matrix_norm"
    t = matrices(A if dtype is None else cast(tensor_arg(A, name), as_dtype(dtype)), name)
    if not isinstance(dim, (tuple, list)) or len(dim) != 2:
        raise error(ShapeError, name, f"dim has to be two dimensions, got {dim!r}")
    row, column = (dim_arg(d, t.ndim, name) for d in dim)
    if row == column:
        raise error(ShapeError, name, f"dim has to be two different dimensions, got {dim!r}")
    if ord == "fro":
        return norm(t, 2.0, (row, column), keepdim)
    kept = tuple(1 if d in (row, column) else s for d, s in enumerate(t.type_.shape))
    t = permuted(t, [*(d for d in range(t.ndim) if d not in (row, column)), row, column])
    if ord in (1, -1, math.inf, -math.inf):
        sums = reduced("sum", apply(OPS["abs"], t), (t.ndim - (2 if abs(ord) == 1 else 1),), False)
        found = _furthest(name, sums, ord > 0)
    elif ord == "nuc":
        s = svdvals(t)
        found = reduced("sum", s, (s.ndim - 1,), False)
    elif ord in (2, -2):
        found = _furthest(name, svdvals(t), ord > 0)
    else:
        raise error(ShapeError, name, f"ord is 'fro', 'nuc', 1, -1, 2, -2, inf or -inf, not {ord!r}")
    return reshaped(found, kept) if keepdim else found


def _furthest(name: str, values: Tensor, largest: bool) -> Tensor:
    """The largest or smallest of the numbers, none negative, along the last dimension; the largest of none
    is 0.
    """
    last = (values.ndim - 1,)
    if largest and values.type_.shape[-1] == 0:
        return reduced("sum", values, last, False)
    require_elements(name, values, last)
    return reduced("max" if largest else "min", values, last, False)


@public(name="linalg.norm", function=False, method=False, backward="LinalgVectorNormBackward0")
def norm_(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """A `vector_norm` or, over two dimensions or of a matrix with `ord`, a `matrix_norm`; the 2-norm of all
    elements by default.
    """
    t = tensor_arg(A, "linalg.norm")
    pair = dim if isinstance(dim, (tuple, list)) else None
    if ord is not None and dim is None and t.ndim not in (1, 2):
        raise error(ShapeError, "linalg.norm", f"with ord, expects a vector or a matrix, got {t.type_}")
    is_matrix = (pair is not None and len(pair) == 2) or (dim is None and t.ndim == 2)
    if is_matrix and ord is not None:
        return matrix_norm(t, ord, (0, 1) if dim is None else dim, keepdim, dtype=dtype)
    return vector_norm(t, 2 if ord is None else ord, dim, keepdim, dtype=dtype)


@public(name="linalg.cond", function=False, method=False)
def cond(A: Tensor, p: float | str | None = None) -> Tensor:
    """The condition number: the norm times the inverse's norm, by default the ratio of the extreme singular
    values.
    """
    a = matrices(A, "linalg.cond", square=p not in (None, 2, -2))
    if p in (None, 2, -2):
        s = svdvals(a)
        high, low = (reduced(op, s, (s.ndim - 1,), False) for op in ("max", "min"))
        return apply(OPS["div"], *((low, high) if p == -2 else (high, low)))
    return apply(OPS["mul"], matrix_norm(a, p), matrix_norm(inverse(a), p))
