"""Reading, adding and counting at computed positions: take, gather, scatter_add and their relatives."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.compiler.ir import OPS, broadcast_shapes
from graphflow.compiler.trace import current_trace
from graphflow.dims import product
from graphflow.dtypes import bool_, int64
from graphflow.errors import DTypeError, ShapeError, TraceError
from graphflow.functions.assignment import written
from graphflow.functions.common import (
    Operand,
    cast,
    dim_arg,
    expanded,
    in_dtype,
    of_size,
    operand,
    pinned,
    reshaped,
    scalar,
    tensor_arg,
)
from graphflow.functions.registry import asked_by, error, public
from graphflow.functions.shape import flatten
from graphflow.functions.subscript import parse, read
from graphflow.sizes import unwrap
from graphflow.tensor import Tensor, apply

__all__ = [
    "gather", "index_add", "index_put", "index_select", "masked_select", "nonzero", "one_hot",
    "scatter_add", "take", "take_along_dim",
]  # fmt: skip


@public()
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Positions of the elements that aren't 0, int64[n, ndim], or with `as_tuple` one vector a dimension.

    Not while tracing, where n would have to be known.
    """
    t = tensor_arg(input, "nonzero")
    if t.is_traced or current_trace() is not None:
        raise error(
            TraceError, "nonzero", "how many elements are nonzero depends on values; use gf.where or sums"
        )
    positions = np.atleast_1d(t.detach().numpy()).nonzero()
    if as_tuple:
        return tuple(Tensor.holding(p) for p in positions)
    return Tensor.holding(np.stack(positions, 1)[:, : t.ndim])


@public()
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where `mask` (bool, broadcast with input) holds, as a vector. Not while tracing."""
    t, m = tensor_arg(input, "masked_select"), tensor_arg(mask, "masked_select", "mask")
    if m.dtype is not bool_:
        raise error(DTypeError, "masked_select", f"the mask has to be a bool tensor, got {m.type_}")
    shape = broadcast_shapes(t.type_.shape, m.type_.shape)
    wide, chosen = (reshaped(expanded(v, shape), shape or (1,)) for v in (t, m))
    return read(wide, parse(chosen, wide.type_.shape))


def index_arg(index: Any, name: str) -> Tensor:
    """An index tensor as int64."""
    t = tensor_arg(index, name, "index")
    if t.dtype.kind != "int":
        raise error(
            DTypeError, name, f"the index has to be an integer tensor, got {t.type_}; convert with .long()"
        )
    return cast(t, int64)


@public()
def take(input: Tensor, index: Tensor) -> Tensor:
    """Elements of the flattened tensor at the positions `index`, in its shape."""
    return apply(OPS["take"], flatten(tensor_arg(input, "take")), index_arg(index, "take"), dim=0)


@public()
def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """Slices along `dim` at the positions in the 1-d `index`."""
    t, positions = tensor_arg(input, "index_select"), index_arg(index, "index_select")
    if positions.ndim > 1:
        raise error(ShapeError, "index_select", f"the index has to be a vector, got {positions.type_}")
    axis = dim_arg(dim, t.ndim, "index_select")
    if not t.ndim:
        return reshaped(index_select(reshaped(t, (1,)), 0, positions), ())
    with asked_by("index_select"):
        return apply(OPS["take"], t, positions if positions.ndim else reshaped(positions, (1,)), dim=axis)


def lifted(t: Tensor) -> Tensor:
    """A tensor with a dimension: a 0-d one counts as a vector of one element, as in PyTorch."""
    return t if t.ndim else reshaped(t, (1,))


def trimmed(t: Tensor, index: Tensor, dim: int, name: str) -> Tensor:
    """`t` cut to index's sizes in the dimensions other than `dim`, as PyTorch's gather reads it."""
    if t.ndim != index.ndim:
        raise error(
            ShapeError,
            name,
            f"index and input need the same number of dimensions, got {index.type_} and {t.type_}",
        )
    sizes = []
    for d, (size, wanted) in enumerate(zip(t.type_.shape, index.type_.shape, strict=True)):
        if d != dim and size != wanted:
            size, wanted = pinned(size, f"the index of {name}"), pinned(wanted, f"the index of {name}")
        if d == dim or size == wanted:
            sizes.append(size)
        elif isinstance(wanted, int) and isinstance(size, int) and wanted < size:
            sizes.append(wanted)
        else:
            raise error(
                ShapeError, name, f"index {index.type_} is larger than input {t.type_} in dimension {d}"
            )
    if tuple(sizes) == t.type_.shape:
        return t
    return apply(OPS["slice"], t, starts=(0,) * t.ndim, steps=(1,) * t.ndim, sizes=tuple(sizes))


@public()
def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """``out[i][j] = input[i][index[i][j]]`` for dim 1, and so on. `sparse_grad` has no effect: the gradient
    adds up only what was read.
    """
    t, positions = tensor_arg(input, "gather"), index_arg(index, "gather")
    axis = dim_arg(dim, t.ndim, "gather")
    with asked_by("gather"):
        if product(positions.type_.shape) == 0:  # of any number of dimensions, as in PyTorch
            return apply(OPS["take"], flatten(t), positions, dim=0)
        shape, row = positions.type_.shape, lifted(positions)
        found = apply(OPS["gather"], trimmed(lifted(t), row, axis, "gather"), row, dim=axis)
        return found if shape else reshaped(found, ())


@public()
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` with broadcasting; without `dim`, on the flattened tensors."""
    t, index = tensor_arg(input, "take_along_dim"), index_arg(indices, "take_along_dim")
    if dim is None:
        with asked_by("take_along_dim"):
            return apply(OPS["gather"], flatten(t), flatten(index), dim=0)
    axis = dim_arg(dim, t.ndim, "take_along_dim")
    if t.ndim != index.ndim:
        raise error(
            ShapeError,
            "take_along_dim",
            f"operands need the same number of dimensions, got {t.type_} and {index.type_}",
        )
    common = broadcast_shapes(
        *(tuple(1 if d == axis else s for d, s in enumerate(o.type_.shape)) for o in (t, index))
    )
    wide, narrow = (
        tuple(o.type_.shape[d] if d == axis else s for d, s in enumerate(common)) for o in (t, index)
    )
    with asked_by("take_along_dim"):
        return apply(OPS["gather"], expanded(t, wide), expanded(index, narrow), dim=axis)


@public()
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """`input` with ``out[i][index[i][j]] += src[i][j]`` for dim 1, and so on."""
    t, positions = tensor_arg(input, "scatter_add"), index_arg(index, "scatter_add")
    source = tensor_arg(src, "scatter_add", "src")
    if source.dtype is not t.dtype:
        raise error(
            DTypeError, "scatter_add", f"input and src need one dtype, got {t.dtype} and {source.dtype}"
        )
    axis = dim_arg(dim, t.ndim, "scatter_add")
    shape = t.type_.shape
    t, positions, source = lifted(t), lifted(positions), lifted(source)
    if positions.type_.shape != source.type_.shape:
        source = trimmed(source, positions, -1, "scatter_add")
    size = t.type_.shape[axis]
    added = apply(OPS["scatter_add"], source, positions, dim=axis, size=size)
    if added.type_.shape != t.type_.shape:
        added = apply(OPS["pad"], added, shape=t.type_.shape, starts=(0,) * t.ndim, steps=(1,) * t.ndim)
    found = apply(OPS["add"], t, added)
    return found if shape else reshaped(found, ())


@public()
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Operand = 1) -> Tensor:
    """`input` with the slices of `source` added at the positions in the 1-d `index` along `dim`."""
    t, positions = tensor_arg(input, "index_add"), index_arg(index, "index_add")
    src = tensor_arg(source, "index_add", "source")
    axis = dim_arg(dim, t.ndim, "index_add")
    if positions.ndim > 1:
        raise error(ShapeError, "index_add", f"index has to be a vector, got {positions.type_}")
    if not t.ndim:
        row = src if src.ndim else reshaped(src, (1,))
        return reshaped(index_add(reshaped(t, (1,)), 0, positions, row, alpha=alpha), ())
    rows, count = src.type_.shape[axis] if src.ndim else 1, product(positions.type_.shape)
    if src.ndim != t.ndim or (isinstance(rows, int) and isinstance(count, int) and rows != count):
        raise error(
            ShapeError, "index_add",
            f"dimension {dim} of source needs the size of the index {positions.type_}, got {src.type_}",
        )  # fmt: skip
    if alpha != 1:
        src = apply(OPS["mul"], src, in_dtype(operand(alpha, "index_add", "alpha"), src.dtype))
    added = apply(OPS["put_add"], src, positions, dim=axis, size=t.type_.shape[axis])
    return apply(OPS["add"], t, added)


def _index_key(name: str, indices: Any) -> tuple[Any, ...]:
    if not isinstance(indices, (tuple, list)):
        raise error(
            DTypeError, name, f"indices has to be a tuple of index tensors, not {type(indices).__name__}"
        )
    return tuple(slice(None) if i is None else i for i in indices)


@public()
def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """`input` with ``out[indices] = values``; with `accumulate`, values of one place are all added to it."""
    t = tensor_arg(input, "index_put")
    source = tensor_arg(values, "index_put", "values")
    if source.dtype is not t.dtype:
        raise error(
            DTypeError, "index_put", f"input and values need one dtype, got {t.dtype} and {source.dtype}"
        )
    return written(t, _index_key("index_put", indices), source, bool(accumulate))


@public()
def one_hot(input: Tensor, num_classes: int = -1) -> Tensor:
    """int64 rows with a single 1 at each element's class, in a new last dimension of size `num_classes`."""
    t = index_arg(input, "one_hot")
    if num_classes == -1:
        if t.is_traced or current_trace() is not None:
            raise error(
                TraceError, "one_hot", "the number of classes depends on values here; pass num_classes="
            )
        num_classes = int(apply(OPS["max"], flatten(t), dims=(0,)).item()) + 1
    size = unwrap(num_classes)
    # A class doesn't count from the end: a negative one is moved to where it is out of range.
    before = apply(OPS["sub"], t, of_size(size, int64))
    index = apply(OPS["where"], apply(OPS["lt"], t, scalar(0, int64)), before, t)
    with asked_by("one_hot", from_zero=True):
        place = apply(OPS["checked_index"], index, size=size)
    return cast(apply(OPS["eq"], reshaped(place, (*t.type_.shape, 1)), apply(OPS["iota"], size=size)), int64)
