"""Joining tensors, taking them apart, and moving their elements along a dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.compiler.ir import OPS
from graphflow.dims import Dim, product
from graphflow.errors import IndexRangeError, ShapeError
from graphflow.functions.arguments import misfit
from graphflow.functions.common import (
    Extent,
    at_least,
    axis_arg,
    copied,
    dim_arg,
    is_index,
    pinned,
    promoted,
    reshaped,
    shape_args,
    tensor_arg,
    without,
)
from graphflow.functions.output import same_shape
from graphflow.functions.registry import error, public, spread
from graphflow.functions.shape import flatten, unsqueeze
from graphflow.sizes import SymbolicSize, unwrap
from graphflow.tensor import Tensor, apply

__all__ = [
    "cat", "chunk", "concat", "concatenate", "flip", "hstack", "narrow", "roll", "select", "split",
    "stack", "unbind", "vstack",
]  # fmt: skip

# -------------------------------------------------------------------------------------- joining and splitting


@public(method=False, aliases=("concat", "concatenate"))
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along an existing dimension; their other sizes have to agree."""
    found = promoted_all("cat", tensors)
    # An empty 1-d tensor joins with anything, as in PyTorch.
    rank = max(t.ndim for t in found)
    found = [t for t in found if t.ndim == rank or t.ndim != 1 or at_least(t.type_.shape[0], 1)]
    if any(t.ndim == 0 for t in found):
        raise error(ShapeError, "cat", "0-d tensors can't be joined; use stack()")
    return apply(OPS["cat"], *found, dim=dim_arg(dim, found[0].ndim, "cat"))


def promoted_all(name: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    """A non-empty sequence of tensors in their common dtype."""
    if isinstance(tensors, Tensor):
        tensors = unbind(tensors)
    found = [tensor_arg(t, name, "tensors") for t in tensors]
    if not found:
        raise error(ShapeError, name, "expects at least one tensor")
    return promoted(name, *found)


@public(method=False)
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new dimension."""
    found = promoted_all("stack", tensors)
    first = found[0].type_.shape
    for other in found[1:]:
        if not same_shape(other.type_.shape, first):
            raise error(
                ShapeError, "stack", f"expects tensors of equal size, got {found[0].type_} and {other.type_}"
            )
    axis = dim_arg(dim, len(first) + 1, "stack")
    return apply(OPS["cat"], *(unsqueeze(t, axis) for t in found), dim=axis)


@public(method=False)
def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined along the second dimension, 1-d ones along the first."""
    found = [t if t.ndim else reshaped(t, (1,)) for t in promoted_all("hstack", tensors)]
    return cat(found, 0 if found[0].ndim == 1 else 1)


@public(method=False)
def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined along the first dimension, 1-d ones as rows."""
    found = promoted_all("vstack", tensors)
    return cat([t if t.ndim >= 2 else reshaped(t, (1, product(t.type_.shape))) for t in found], 0)


@public(backward="SliceBackward0")
def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` elements along `dim` from `start` on; a view."""
    t = tensor_arg(input, "narrow")
    axis = axis_arg(dim, t, "narrow")
    for argument, value in (("start", start), ("length", length)):
        if not isinstance(value, SymbolicSize) and not is_index(value):
            raise misfit("narrow", argument, int, value)
    size, first, count = t.type_.shape[axis], unwrap(start), unwrap(length)
    if not at_least(first, 0):
        first = size + first
    if not (at_least(first, 0) and at_least(count, 0) and at_least(size, first + count)):
        raise error(
            IndexRangeError,
            "narrow",
            f"elements {first}..{first + count} are outside dimension {dim} of size {size}",
        )
    return sliced(t, axis, first, count)


def sliced(t: Tensor, axis: int, start: Extent, size: Extent, step: int = 1) -> Tensor:
    """`size` elements along one dimension; a view."""
    shape = t.type_.shape
    return apply(
        OPS["slice"], t,
        starts=tuple(start if d == axis else 0 for d in range(len(shape))),
        steps=tuple(step if d == axis else 1 for d in range(len(shape))),
        sizes=tuple(size if d == axis else s for d, s in enumerate(shape)),
    )  # fmt: skip


@public()
def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The slice at position `index` of `dim`, without that dimension; a view."""
    t = tensor_arg(input, "select")
    if not t.ndim:
        raise error(IndexRangeError, "select", "can't be applied to a 0-d tensor")
    axis = dim_arg(dim, t.ndim, "select")
    size = t.type_.shape[axis]
    at = unwrap(index)
    start = at if at_least(at, 0) else size + at
    if not (at_least(start, 0) and at_least(size, start + 1)):
        raise error(
            IndexRangeError, "select", f"index {at} is out of bounds for dimension {axis} with size {size}"
        )
    return reshaped(sliced(t, axis, start, 1), without(t.type_.shape, [axis]))


@public()
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """All slices along `dim`."""
    t = tensor_arg(input, "unbind")
    axis = dim_arg(dim, t.ndim, "unbind")
    if not t.ndim:
        raise error(IndexRangeError, "unbind", "can't take a 0-d tensor apart")
    return tuple(select(t, axis, i) for i in range(int(t.shape[axis])))


@public()
def split(tensor: Tensor, split_size_or_sections: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of a size (the last may be smaller), or of the given sizes, along `dim`; views."""
    t = tensor_arg(tensor, "split", "tensor")
    axis = axis_arg(dim, t, "split")
    if isinstance(split_size_or_sections, (list, tuple)):
        sizes = list(shape_args((tuple(split_size_or_sections),), "split"))
        excess = pinned(sum_extents(sizes) - t.type_.shape[axis], "splitting a dimension")
        if excess != 0:
            raise error(ShapeError, "split", f"sizes {sizes} don't add up to dimension {dim} of {t.type_}")
    else:
        whole, step = int(t.shape[axis]), int(split_size_or_sections)  # type: ignore[arg-type]
        if step < 0 or (step == 0 and whole):
            raise error(ShapeError, "split", f"split_size has to be positive, got {step}")
        sizes = [min(step, whole - at) for at in range(0, whole, max(step, 1))] or [0]
    pieces = []
    start: Extent = 0
    for size in sizes:
        pieces.append(sliced(t, axis, start, size))
        start = start + size
    return tuple(pieces)


def sum_extents(sizes: Sequence[Extent]) -> Extent:
    """The sum of sizes, symbolic or not."""
    total: Extent = 0
    for size in sizes:
        total = total + size
    return total


@public(backward="SplitBackward0")
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` pieces of equal size (the last may be smaller) along `dim`; views."""
    t = tensor_arg(input, "chunk")
    axis = axis_arg(dim, t, "chunk")
    if chunks < 1:
        raise error(ShapeError, "chunk", f"the number of chunks has to be positive, got {chunks}")
    size = t.type_.shape[axis]
    if size == 0:  # as many as asked for, all empty
        return split(t, (0,) * chunks, axis)
    exact = size // chunks if isinstance(size, int) or (size % chunks) == 0 else None
    if exact is not None and isinstance(size, Dim):
        return split(t, (exact,) * chunks, axis)  # type: ignore[arg-type]
    return split(t, max(-(-int(t.shape[axis]) // chunks), 1), axis)


# ------------------------------------------------------------------------------------------ order of elements


@public()
def flip(input: Tensor, *axes: Any, dims: Any = None) -> Tensor:
    """Elements in reverse order along `dims`, given one by one or as one sequence."""
    t = tensor_arg(input, "flip")
    along = spread("flip", axes, dims, "dims")
    wanted = along[0] if len(along) == 1 and isinstance(along[0], (list, tuple)) else along
    reversed_ = [dim_arg(d, t.ndim, "flip") for d in wanted]
    if len(set(reversed_)) != len(reversed_):
        raise error(IndexRangeError, "flip", f"dimension appears twice in {tuple(wanted)}")
    shape = t.type_.shape
    if not t.ndim:
        return copied(t)
    view = apply(
        OPS["slice"], t,
        starts=tuple(s - 1 if d in reversed_ and s != 0 else 0 for d, s in enumerate(shape)),
        steps=tuple(-1 if d in reversed_ else 1 for d in range(t.ndim)),
        sizes=shape,
    )  # fmt: skip
    return copied(view)


@public()
def roll(input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None) -> Tensor:
    """Elements moved `shifts` places along `dims`, those pushed out coming back in at the other end."""
    t = tensor_arg(input, "roll")
    if dims is None:
        return reshaped(roll(flatten(t), shifts, 0), t.type_.shape)
    steps = shifts if isinstance(shifts, (list, tuple)) else [shifts]
    axes = dims if isinstance(dims, (list, tuple)) else [dims]
    if len(steps) != len(axes):
        raise error(ShapeError, "roll", f"shifts and dims have different lengths: {shifts} and {dims}")
    for step, dim in zip(steps, axes, strict=True):
        if not t.ndim:
            raise error(IndexRangeError, "roll", f"dimension {dim} of a 0-d tensor doesn't exist")
        axis = dim_arg(dim, t.ndim, "roll")
        size = int(t.shape[axis])
        if size and step % size:
            cut = size - step % size
            t = apply(OPS["cat"], sliced(t, axis, cut, size - cut), sliced(t, axis, 0, cut), dim=axis)
    return copied(t) if t is input else t


# other names for the same
concat = concatenate = cat
