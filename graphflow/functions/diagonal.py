"""Diagonals: read, put into matrices, and the positions of triangles."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.compiler.ir import OPS
from graphflow.dtypes import int64
from graphflow.errors import ShapeError
from graphflow.functions.common import (
    Extent,
    as_dtype,
    cast,
    copied,
    dim_arg,
    new_shape_args,
    of_array,
    pinned,
    reshaped,
    tensor_arg,
)
from graphflow.functions.reduce import reduced
from graphflow.functions.registry import error, public
from graphflow.functions.shape import flatten, permuted
from graphflow.tensor import Tensor, apply

__all__ = ["diag", "diag_embed", "diagflat", "diagonal", "tril_indices", "triu_indices"]


@public()
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The elements where the positions in `dim1` and `dim2` differ by `offset`, as the last dimension; a
    view.
    """
    t = tensor_arg(input, "diagonal")
    a, b = dim_arg(dim1, t.ndim, "diagonal"), dim_arg(dim2, t.ndim, "diagonal")
    if t.ndim < 2 or a == b:
        raise error(ShapeError, "diagonal", f"needs two different dimensions of {t.type_}")
    t = permuted(t, [*(d for d in range(t.ndim) if d not in (a, b)), a, b])
    m, n = (pinned(s, "a diagonal") for s in t.type_.shape[-2:])
    row, column = max(-offset, 0), max(offset, 0)
    count = max(min(m - row, n - column), 0)
    batch, lead = t.type_.shape[:-2], (0,) * (t.ndim - 2)
    if not count:
        row = column = 0
    square = apply(
        OPS["slice"], t, starts=(*lead, row, column), steps=(1,) * t.ndim, sizes=(*batch, count, count)
    )
    if not count:
        return reshaped(square, (*batch, 0))
    # The windows of one element each that begin at 0 and are moved by one from column to column.
    windows = apply(
        OPS["slide"], square, dims=(t.ndim - 2,), taps=(t.ndim - 1,), strides=(1,), dilations=(1,)
    )
    return reshaped(windows, (*batch, count))


def diagonal_slice(m: Extent, n: Extent, offset: int) -> slice:
    """Where the diagonal of an (m, n) matrix stands among its elements in a row."""
    m, n = pinned(m, "a diagonal"), pinned(n, "a diagonal")
    row, column = max(-offset, 0), max(offset, 0)
    count = max(min(m - row, n - column), 0)
    start = row * n + column
    return slice(start, start + (count - 1) * (n + 1) + 1, n + 1) if count else slice(0, 0)


@public()
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices, zero but for a diagonal that the last dimension of `input` becomes."""
    t = tensor_arg(input, "diag_embed")
    if not t.ndim:
        raise error(ShapeError, "diag_embed", "needs at least one dimension")
    count = pinned(t.type_.shape[-1], "a diagonal")
    n = count + abs(offset)
    batch = t.type_.shape[:-1]
    start = max(-offset, 0) * n + max(offset, 0) if count else 0
    lead = (0,) * len(batch)
    flat = apply(
        OPS["pad"], t, shape=(*batch, n * n), starts=(*lead, start), steps=(*(1,) * len(batch), n + 1)
    )
    result = reshaped(flat, (*batch, n, n))
    a, b = (dim_arg(d, result.ndim, "diag_embed") for d in (dim1, dim2))
    if a == b:
        raise error(ShapeError, "diag_embed", f"needs two different dimensions, got {dim1} and {dim2}")
    rest = iter(range(result.ndim - 2))
    last = result.ndim
    return permuted(result, [last - 2 if d == a else last - 1 if d == b else next(rest) for d in range(last)])


@public()
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, in memory of its own, or the matrix with a vector as its diagonal."""
    t = tensor_arg(input, "diag")
    if t.ndim not in (1, 2):
        raise error(ShapeError, "diag", f"expects a vector or a matrix, got {t.type_}")
    return diag_embed(t, diagonal) if t.ndim == 1 else copied(_diagonal_of(t, diagonal))


_diagonal_of = diagonal


@public()
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """The matrix with all elements as its diagonal."""
    return diag_embed(flatten(tensor_arg(input, "diagflat")), offset)


@public(function=False)  # graphflow.trace makes graphs
def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal."""
    t = tensor_arg(input, "trace")
    if t.ndim != 2:
        raise error(ShapeError, "trace", f"expects a matrix, got {t.type_}")
    return reduced("sum", cast(diagonal(t), t.dtype if t.dtype.kind == "float" else int64), (0,), False)


@public(method=False)
def tril_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """The positions of a lower triangle, row by row: int64[2, n]."""
    rows, columns = (pinned(v, "tril_indices") for v in new_shape_args((row, col), "tril_indices"))
    return _triangle(np.tril_indices(rows, int(offset), columns), dtype)


@public(method=False)
def triu_indices(row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None) -> Tensor:
    """The positions of an upper triangle, row by row: int64[2, n]."""
    rows, columns = (pinned(v, "triu_indices") for v in new_shape_args((row, col), "triu_indices"))
    return _triangle(np.triu_indices(rows, int(offset), columns), dtype)


def _triangle(positions: Any, dtype: Any) -> Tensor:
    return of_array(np.stack(positions).astype(np.int64 if dtype is None else as_dtype(dtype).numpy))
