"""Reading and adding at computed positions. An index counts from the end when negative,
and is checked when used.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.compiler.batching import all_batched, along_dim, moved
from graphflow.compiler.indexing import Shape
from graphflow.compiler.ir import (
    BadSample,
    Node,
    Op,
    Sample,
    TensorType,
    equal_size,
    format_shape,
    register,
)
from graphflow.compiler.location import Asked, current_asked
from graphflow.compiler.ops import elementwise as el
from graphflow.compiler.ops.family import Elementwise
from graphflow.compiler.ops.movement import expand, reshape
from graphflow.dims import Dim, product
from graphflow.dtypes import DType, int64
from graphflow.errors import DTypeError, ShapeError

Size = int | Dim


def _require_index(dtype: DType) -> None:
    if dtype is not int64:
        raise DTypeError(f"the index has to be int64, got {dtype}; convert with .long()")


def _require_dim(dim: int, ndim: int) -> None:
    if not 0 <= dim < ndim:
        raise ShapeError(f"dimension {dim} is out of range for {ndim} dimensions")


def iota_along(size: Size, dim: int, ndim: int) -> Node:
    """0 … size-1 along `dim` of `ndim` dimensions, size 1 in the others."""
    return reshape(iota(size=size), shape=tuple(size if d == dim else 1 for d in range(ndim)))


def _infer_iota(size: Size) -> TensorType:
    return TensorType(int64, (size,))


iota: Op = register(Op(
    "iota", "generator", _infer_iota,
    lambda size: np.arange(size, dtype=np.int64),
    None,
    lambda rng: [Sample((), {"size": n}, gradient=False) for n in (0, 1, 5)],
    None, None, 0,
    "0, 1, … size-1.",
))  # fmt: skip


# ------------------------------------------------------------------------------------------- checked indices


def _infer_checked(index: TensorType, size: Size) -> TensorType:
    _require_index(index.dtype)
    return index


def _check(index: np.ndarray, size: int) -> None:
    if index.size and (index.min() < -size or index.max() >= size):
        bad = index[(index < -size) | (index >= size)].flat[0]
        asked = current_asked() or Asked("", False)
        raise IndexError(asked.told(int(bad), size))


def _numpy_checked(index: np.ndarray, size: int) -> Any:
    _check(index, size)
    return np.where(index < 0, index + size, index)


checked_index: Op = register(Op(
    "checked_index", "elementwise", _infer_checked, _numpy_checked,
    lambda g, out, index, size: (None,),
    lambda rng: [
        Sample((rng.integers(-n, n, s),), {"size": n}, gradient=False)
        for s, n in [((3, 4), 5), ((0, 2), 3), ((0,), 0), ((), 1)]
    ],
    lambda rng: [BadSample((np.ones(3),), {"size": 4}, DTypeError, "has to be int64")],
    Elementwise({"int": ""}, 3),  # written by kernels as a gather's index is
    arity=1,
    doc="""The same positions in a dimension of this size, counted from the front. For an index that only
    becomes part of a comparison or of arithmetic, where nothing else would find out that it is bad.""",
))  # fmt: skip


# ----------------------------------------------------------------------------------------- gather along a dim


def _infer_gather(x: TensorType, index: TensorType, dim: int) -> TensorType:
    _require_index(index.dtype)
    _require_dim(dim, x.ndim)
    if index.ndim != x.ndim:
        raise ShapeError(
            f"the index {format_shape(index.shape)} needs as many dimensions as {format_shape(x.shape)}"
        )
    shape = [
        index.shape[d] if d == dim else equal_size(x.shape[d], index.shape[d]) for d in range(x.ndim)
    ]
    return TensorType(x.dtype, tuple(shape))


def _numpy_gather(x: np.ndarray, index: np.ndarray, dim: int) -> Any:
    _check(index, x.shape[dim])
    return np.take_along_axis(x, index, dim)


def _gather_vjp(g: Node, out: Node, x: Node, index: Node, dim: int) -> tuple[Node, None]:
    size = x.shape[dim]
    # one element a row, as cross-entropy has: a comparison fuses, a scatter doesn't
    if index.shape[dim] == 1:
        place = checked_index(index, size=size)
        return el.where(el.eq(iota_along(size, dim, len(x.shape)), place), g, 0.0), None
    return scatter_add(g, index, dim=dim, size=size), None


gather: Op = register(Op(
    "gather", "gather", _infer_gather, _numpy_gather, _gather_vjp,
    lambda rng: [
        Sample((rng.standard_normal(s), rng.integers(-s[d], s[d], i)), {"dim": d})
        for s, i, d in [((3, 4), (3, 1), 1), ((3, 4), (3, 6), 1), ((5, 2), (3, 2), 0), ((4,), (7,), 0),
                        ((3, 4), (3, 0), 1)]
    ],
    lambda rng: [
        BadSample((np.ones((2, 3)), np.zeros((2, 1))), {"dim": 1}, DTypeError, "has to be int64"),
        BadSample((np.ones((2, 3)), np.zeros(2, int)), {"dim": 1}, ShapeError, "as many dimensions"),
        BadSample((np.ones((2, 3)), np.zeros((3, 1), int)), {"dim": 1}, ShapeError, "differ"),
    ],
    arity=2,
    doc="out[i, j] = x[i, index[i, j]] for dim 1, and so on.",
    batch=along_dim,
))  # fmt: skip


def _infer_scatter_add(src: TensorType, index: TensorType, dim: int, size: Size) -> TensorType:
    _require_index(index.dtype)
    _require_dim(dim, src.ndim)
    if src.ndim != index.ndim:
        raise ShapeError(
            f"the index {format_shape(index.shape)} needs as many dimensions as {format_shape(src.shape)}"
        )
    shape = [equal_size(a, b) for a, b in zip(src.shape, index.shape, strict=True)]
    return TensorType(src.dtype, tuple(size if d == dim else s for d, s in enumerate(shape)))


def _numpy_scatter_add(src: np.ndarray, index: np.ndarray, dim: int, size: int) -> Any:
    _check(index, size)
    shape = (*src.shape[:dim], size, *src.shape[dim + 1 :])
    result = np.zeros(shape, src.dtype)
    where: list[np.ndarray] = list(np.indices(src.shape, sparse=True))
    where[dim] = index
    np.add.at(result, tuple(where), src)
    return result


scatter_add: Op = register(Op(
    "scatter_add", "scatter", _infer_scatter_add, _numpy_scatter_add,
    lambda g, out, src, index, dim, size: (gather(g, index, dim=dim), None),
    lambda rng: [
        Sample((rng.standard_normal(s), rng.integers(-n, n, s)), {"dim": d, "size": n})
        for s, d, n in [((3, 4), 1, 5), ((6, 2), 0, 3), ((7,), 0, 2), ((0, 3), 0, 2)]
    ],
    lambda rng: [
        BadSample((np.ones((2, 3)), np.zeros((2, 2), int)), {"dim": 1, "size": 4}, ShapeError, "differ"),
        BadSample((np.ones(2), np.zeros(2)), {"dim": 0, "size": 4}, DTypeError, "has to be int64"),
    ],
    arity=2,
    doc="Zeros with out[i, index[i, j]] += src[i, j] for dim 1, and so on.",
    batch=along_dim,
))  # fmt: skip


# ------------------------------------------------------------------------------------------ take whole slices


def _infer_take(x: TensorType, index: TensorType, dim: int) -> TensorType:
    _require_index(index.dtype)
    _require_dim(dim, x.ndim)
    return TensorType(x.dtype, (*x.shape[:dim], *index.shape, *x.shape[dim + 1 :]))


def _numpy_take(x: np.ndarray, index: np.ndarray, dim: int) -> Any:
    _check(index, x.shape[dim])
    return np.take(x, index, axis=dim)


def _along(index: Node, dim: int, shape: Shape) -> Node:
    """A batch of indices as one index along `dim` of a batch of tensors with `shape` elsewhere."""
    size, *rest = index.shape
    count = product(rest)
    flat = reshape(index, shape=(size, *(1,) * dim, count, *(1,) * (len(shape) - dim - 1)))
    return expand(flat, shape=(size, *shape[:dim], count, *shape[dim + 1 :]))


def _batch_take(out: Node, size: Size, batched: tuple[bool, bool], x: Node, index: Node, dim: int) -> Node:
    if not batched[1]:
        return take(x, index, dim=dim + 1)
    if not batched[0]:
        return moved(take(x, index, dim=dim), dim, 0)
    taken = gather(x, _along(index, dim, x.shape[1:]), dim=dim + 1)
    return reshape(taken, shape=(size, *out.shape))


take: Op = register(Op(
    "take", "gather", _infer_take, _numpy_take,
    lambda g, out, x, index, dim: (put_add(g, index, dim=dim, size=x.shape[dim]), None),
    lambda rng: [
        Sample((rng.standard_normal(s), rng.integers(-s[d], s[d], i)), {"dim": d})
        for s, i, d in [((5, 3), (4,), 0), ((5, 3), (2, 6), 0), ((2, 4, 3), (3,), 1), ((4,), (), 0),
                        ((4, 2), (0,), 0)]
    ],
    lambda rng: [
        BadSample((np.ones((2, 3)), np.zeros(2)), {"dim": 0}, DTypeError, "has to be int64"),
        BadSample((np.ones(3), np.zeros(2, int)), {"dim": 1}, ShapeError, "out of range"),
    ],
    arity=2,
    doc="x's slices along dim at the positions in index (NumPy's take): rows of an embedding table.",
    batch=_batch_take,
))  # fmt: skip


def _infer_put_add(src: TensorType, index: TensorType, dim: int, size: Size) -> TensorType:
    _require_index(index.dtype)
    _require_dim(dim, max(src.ndim - index.ndim + 1, 1))
    middle = src.shape[dim : dim + index.ndim]
    if len(middle) != index.ndim:
        raise ShapeError(
            f"{format_shape(src.shape)} has no room for the index {format_shape(index.shape)} at {dim}"
        )
    for a, b in zip(middle, index.shape, strict=True):
        equal_size(a, b)
    shape: Shape = (*src.shape[:dim], size, *src.shape[dim + index.ndim :])
    return TensorType(src.dtype, shape)


def _numpy_put_add(src: np.ndarray, index: np.ndarray, dim: int, size: int) -> Any:
    _check(index, size)
    result = np.zeros((*src.shape[:dim], size, *src.shape[dim + index.ndim :]), src.dtype)
    np.add.at(result, (slice(None),) * dim + (index,), src)  # type: ignore[arg-type]  # NumPy's stub knows no slices
    return result


def _batch_put_add(
    out: Node, count: Size, batched: tuple[bool, bool], src: Node, index: Node, dim: int, size: Size
) -> Node:
    if not batched[1]:
        return put_add(src, index, dim=dim + 1, size=size)
    src, index = all_batched(count, batched, (src, index))
    behind = dim + len(index.shape)  # src's dimensions for the index are one from here on
    flat = reshape(src, shape=(*src.shape[: dim + 1], product(index.shape[1:]), *src.shape[behind:]))
    return scatter_add(flat, _along(index, dim, out.shape), dim=dim + 1, size=size)


put_add: Op = register(Op(
    "put_add", "scatter", _infer_put_add, _numpy_put_add,
    lambda g, out, src, index, dim, size: (take(g, index, dim=dim), None),
    lambda rng: [
        Sample((rng.standard_normal(s), rng.integers(-n, n, i)), {"dim": d, "size": n})
        for s, i, d, n in [((4, 3), (4,), 0, 5), ((2, 6, 3), (2, 6), 0, 4), ((2, 3, 3), (3,), 1, 2),
                           ((0, 2), (0,), 0, 3)]
    ],
    lambda rng: [BadSample((np.ones((2, 3)), np.zeros(3, int)), {"dim": 0, "size": 4}, ShapeError, "differ")],
    arity=2,
    doc="Zeros of size `size` along dim with src's slices added at the positions in index.",
    batch=_batch_put_add,
))  # fmt: skip
