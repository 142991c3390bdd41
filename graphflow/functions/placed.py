"""A tensor with one part of it replaced, as a new tensor."""

from __future__ import annotations

import math
from typing import Any

from graphflow.compiler.ir import format_shape
from graphflow.dims import product
from graphflow.dtypes import bool_
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.assignment import written
from graphflow.functions.common import (
    Operand,
    dim_arg,
    expanded,
    is_index,
    operand,
    pinned,
    reshaped,
    tensor_arg,
)
from graphflow.functions.diagonal import diagonal_slice
from graphflow.functions.index import index_arg
from graphflow.functions.output import same_shape
from graphflow.functions.registry import error, public
from graphflow.functions.scatter import scatter_reduce
from graphflow.functions.shape import permuted
from graphflow.functions.subscript import getitem
from graphflow.tensor import Tensor

__all__ = ["diagonal_scatter", "index_reduce", "select_scatter", "slice_scatter"]


def _replaced(name: str, t: Tensor, key: tuple[Any, ...], src: Any) -> Tensor:
    """`t` with ``t[key] = src`` done, where `src` has to have exactly the part's shape."""
    part, source = getitem(t, key), tensor_arg(src, name, "src")
    if not same_shape(part.type_.shape, source.type_.shape):
        raise error(
            ShapeError, name,
            "expected src to have a size equal to the slice of self: "
            f"src is {format_shape(source.type_.shape)}, the slice {format_shape(part.type_.shape)}",
        )  # fmt: skip
    return written(t, key, source)


@public()
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """`input` with ``input.select(dim, index)`` replaced by `src`, which has that shape."""
    t = tensor_arg(input, "select_scatter")
    if not t.ndim:
        raise error(ShapeError, "select_scatter", f"needs at least one dimension, got {t.type_}")
    if not is_index(index):
        raise error(DTypeError, "select_scatter", f"index has to be an integer, not {type(index).__name__}")
    axis = dim_arg(dim, t.ndim, "select_scatter")
    return _replaced("select_scatter", t, (*(slice(None),) * axis, index), src)


@public()
def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    """`input` with the elements from `start` to before `end` along `dim`, every `step`-th, replaced by
    `src`.
    """
    t = tensor_arg(input, "slice_scatter")
    if not t.ndim:
        raise error(ShapeError, "slice_scatter", f"needs at least one dimension, got {t.type_}")
    axis = dim_arg(dim, t.ndim, "slice_scatter")
    if not is_index(step) or int(step) < 1:
        raise error(ShapeError, "slice_scatter", f"step has to be a positive integer, got {step}")
    return _replaced("slice_scatter", t, (*(slice(None),) * axis, slice(start, end, step)), src)


@public()
def diagonal_scatter(input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """`input` with ``input.diagonal(offset, dim1, dim2)`` replaced by `src`, which has that shape."""
    t = tensor_arg(input, "diagonal_scatter")
    a, b = dim_arg(dim1, t.ndim, "diagonal_scatter"), dim_arg(dim2, t.ndim, "diagonal_scatter")
    if t.ndim < 2 or a == b:
        raise error(ShapeError, "diagonal_scatter", f"needs two different dimensions of {t.type_}")
    order = [*(d for d in range(t.ndim) if d not in (a, b)), a, b]
    moved = permuted(t, order)
    *batch, m, n = moved.type_.shape
    flat = reshaped(moved, (*batch, m * n))
    changed = _replaced("diagonal_scatter", flat, (..., diagonal_slice(m, n, offset)), src)
    return permuted(reshaped(changed, (*batch, m, n)), [order.index(d) for d in range(t.ndim)])


@public(function=False)
def put(self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """This tensor, seen as a vector, with the elements at `index` replaced by those of `source`, of
    which there are as many; with `accumulate`, all of them are added.
    """
    t, positions = tensor_arg(self, "put"), index_arg(index, "put")
    src = tensor_arg(source, "put", "source")
    if src.dtype is not t.dtype:
        raise error(DTypeError, "put", f"self and source need one dtype, got {t.dtype} and {src.dtype}")
    count = product(positions.type_.shape)
    if not same_shape((count,), (product(src.type_.shape),)):
        raise error(
            ShapeError, "put",
            f"source has to have as many elements as index, got {src.type_} and {positions.type_}",
        )  # fmt: skip
    flat = reshaped(t, (product(t.type_.shape),))
    changed = written(flat, (reshaped(positions, (count,)),), reshaped(src, (count,)), bool(accumulate))
    return reshaped(changed, t.type_.shape)


@public()
def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """`input` with the slices of `source` combined into those at the positions in the 1-d `index` along
    `dim` by 'prod', 'mean', 'amax' or 'amin', together with what is there if `include_self`.
    """
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise error(ShapeError, "index_reduce", f"reduce is prod, mean, amax or amin, not {reduce!r}")
    t, positions = tensor_arg(input, "index_reduce"), index_arg(index, "index_reduce")
    src = tensor_arg(source, "index_reduce", "source")
    axis = dim_arg(dim, t.ndim, "index_reduce")
    if positions.ndim > 1:
        raise error(ShapeError, "index_reduce", f"the index has to be a vector, got {positions.type_}")
    if not t.ndim:
        one = [reshaped(v, (1,)) for v in (t, positions, src)]
        return reshaped(index_reduce(one[0], 0, one[1], one[2], reduce, include_self=include_self), ())
    count = product(positions.type_.shape)
    wanted = (*t.type_.shape[:axis], count, *t.type_.shape[axis + 1 :])
    if not same_shape(src.type_.shape, wanted):
        raise error(
            ShapeError, "index_reduce",
            f"source has to have the shape {format_shape(wanted)}, got {src.type_}",
        )  # fmt: skip
    if t.dtype is bool_:
        raise error(DTypeError, "index_reduce", f"needs numbers, got {t.type_}")
    places = reshaped(positions, (*(1,) * axis, count, *(1,) * (t.ndim - axis - 1)))
    return scatter_reduce(t, axis, expanded(places, wanted), src, reduce, include_self=include_self)


def diagonal_filled(t: Tensor, fill_value: Operand, wrap: bool) -> Tensor:
    """`t` with its main diagonal set to one value; with `wrap`, that of a tall matrix begins again below."""
    filler = operand(fill_value, "fill_diagonal_", "fill_value")
    if isinstance(filler, Tensor) and filler.ndim:
        raise error(ShapeError, "fill_diagonal_", f"takes a number or a 0-d tensor, got {filler.type_}")
    if t.ndim < 2:
        raise error(ShapeError, "fill_diagonal_", f"needs at least two dimensions, got {t.type_}")
    shape = tuple(pinned(s, "a diagonal") for s in t.type_.shape)
    if t.ndim > 2 and len(set(shape)) > 1:
        raise error(
            ShapeError,
            "fill_diagonal_",
            f"all dimensions have to be of equal length, got {format_shape(shape)}",
        )
    step = 1 + sum(math.prod(shape[d:]) for d in range(1, t.ndim))
    count = min(shape)
    if wrap and t.ndim == 2 and shape[0] > shape[1]:
        count = -(-math.prod(shape) // step)
    part = slice(0, (count - 1) * step + 1 if count else 0, step)
    return reshaped(written(reshaped(t, (math.prod(shape),)), part, filler), shape)
