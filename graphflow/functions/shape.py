"""Functions that rearrange elements. Outside ``compile`` most results are views of their operand's memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.compiler.ir import OPS, Shape, broadcast_shapes, format_shape
from graphflow.compiler.trace import current_trace
from graphflow.dims import product
from graphflow.errors import ShapeError
from graphflow.functions.common import (
    Dims,
    Extent,
    broadcast,
    copied,
    dim_arg,
    dims_arg,
    expanded,
    infer_size,
    is_one,
    reshaped,
    scalar,
    shape_args,
    tensor_arg,
    without,
)
from graphflow.functions.registry import error, public, spread
from graphflow.tensor import Tensor, apply

__all__ = [
    "broadcast_tensors", "broadcast_to", "flatten", "moveaxis", "movedim", "permute", "ravel", "reshape",
    "squeeze", "swapaxes", "swapdims", "tile", "transpose", "tril", "triu", "unflatten", "unsqueeze",
]  # fmt: skip

# ---------------------------------------------------------------------------------------------- reshaping


@public(backward="ViewBackward0")
def reshape(input: Tensor, *sizes: Any, shape: Any = None) -> Tensor:
    """The same elements, row-major, in another shape; one size may be -1. A view where memory allows it."""
    t = tensor_arg(input, "reshape")
    wanted = shape_args(spread("reshape", sizes, shape, "shape"), "reshape")
    return reshaped(t, infer_size(wanted, t.type_.shape, "reshape"))


@public(function=False)
def view(self: Tensor, *sizes: Any, size: Any = None) -> Tensor:
    """The same memory in another shape; one size may be -1."""
    target = infer_size(shape_args(spread("view", sizes, size, "size"), "view"), self.type_.shape, "view")
    result = reshaped(self, target)
    tracing = current_trace() is not None
    if not tracing and result._storage is not self._storage and product(target) != 0:
        raise error(
            ShapeError, "view",
            f"{format_shape(target)} is not a view of {format_shape(self.type_.shape)} with these strides; "
            "use .reshape(...) instead",
        )  # fmt: skip
    if tracing and result._alias is not None:  # what isn't one is an error outside a trace
        outer = self._alias
        result._alias.certain = outer is None or outer.certain
        result._alias.row_major = outer is not None and outer.row_major
    return result


@public(function=False, backward="ViewBackward0")
def view_as(self: Tensor, other: Tensor) -> Tensor:
    """The same memory in other's shape."""
    return view(self, tensor_arg(other, "view_as", "other").type_.shape)


@public(function=False, backward="ViewBackward0")
def reshape_as(self: Tensor, other: Tensor) -> Tensor:
    """The same elements in other's shape."""
    return reshaped(self, tensor_arg(other, "reshape_as", "other").type_.shape)


@public(backward="ViewBackward0")
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions `start_dim` to `end_dim`, both included, merged into one."""
    t = tensor_arg(input, "flatten")
    first, last = dim_arg(start_dim, t.ndim, "flatten"), dim_arg(end_dim, t.ndim, "flatten")
    if first > last:
        raise error(ShapeError, "flatten", f"start_dim {start_dim} comes after end_dim {end_dim}")
    shape = t.type_.shape
    target = (*shape[:first], product(shape[first : last + 1]), *shape[last + 1 :])
    return t if target == shape else reshaped(t, target)


@public(backward="ViewBackward0")
def ravel(input: Tensor) -> Tensor:
    """All elements in one dimension."""
    return flatten(input)


@public(backward="ViewBackward0")
def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dimension split into several; one of `sizes` may be -1."""
    t = tensor_arg(input, "unflatten")
    axis = dim_arg(dim, t.ndim, "unflatten")
    shape = t.type_.shape
    parts = infer_size(shape_args((tuple(sizes),), "unflatten"), (shape[axis],), "unflatten")
    return reshaped(t, (*shape[:axis], *parts, *shape[axis + 1 :]))


@public()
def squeeze(input: Tensor, dim: Dims = None) -> Tensor:
    """Without dimensions of size 1: all of them, or those among `dim`.

    In a graph traced for any sizes, without a call, dimensions of symbolic size stay.
    """
    t = tensor_arg(input, "squeeze")
    shape = t.type_.shape
    dims = () if isinstance(dim, (list, tuple)) and not dim else dims_arg(dim, t.ndim, "squeeze")
    return reshaped(t, without(shape, [d for d in dims if is_one(shape[d], "squeeze()")]))


@public()
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new dimension of size 1 at position `dim`."""
    t = tensor_arg(input, "unsqueeze")
    axis = dim_arg(dim, t.ndim + 1, "unsqueeze")
    shape = t.type_.shape
    return reshaped(t, (*shape[:axis], 1, *shape[axis:]))


# ---------------------------------------------------------------------------------------- order of dimensions


def permuted(t: Tensor, dims: Sequence[int]) -> Tensor:
    """`t` with its dimensions in another order; a view."""
    return apply(OPS["permute"], t, dims=tuple(dims))


@public()
def permute(input: Tensor, *axes: Any, dims: Any = None) -> Tensor:
    """Dimensions in the order `dims`, given one by one or as one sequence."""
    t = tensor_arg(input, "permute")
    given = spread("permute", axes, dims, "dims")
    order = given[0] if len(given) == 1 and isinstance(given[0], (list, tuple)) else given
    found = tuple(dim_arg(d, t.ndim, "permute") for d in order)
    if sorted(found) != list(range(t.ndim)):
        raise error(
            ShapeError, "permute", f"{tuple(order)} is not an order of the {t.ndim} dimensions of {t.type_}"
        )
    return permuted(t, found)


@public(aliases=("swapdims",))
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Dimensions `dim0` and `dim1` exchanged."""
    t = tensor_arg(input, "transpose")
    a, b = dim_arg(dim0, t.ndim, "transpose"), dim_arg(dim1, t.ndim, "transpose")
    order = list(range(t.ndim))
    if t.ndim:
        order[a], order[b] = b, a
    return permuted(t, order)


@public(backward="TransposeBackward0")
def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """NumPy's name for `transpose`."""
    return transpose(input, axis0, axis1)


@public(name="t")
def t_(input: Tensor) -> Tensor:
    """The transpose of a matrix; tensors of fewer dimensions as they are."""
    x = tensor_arg(input, "t")
    if x.ndim > 2:
        raise error(
            ShapeError,
            "t",
            f"expects a tensor with at most 2 dimensions, got {x.type_}; use .mT or .transpose()",
        )
    return permuted(x, tuple(reversed(range(x.ndim))))


@public(name="T", function=False, backward="PermuteBackward0")
def _reversed_dims(self: Tensor) -> Tensor:
    """All dimensions reversed."""
    return permuted(self, tuple(reversed(range(self.ndim))))


@public(name="mT", function=False, backward="TransposeBackward0")
def _matrix_transpose(self: Tensor) -> Tensor:
    """The last two dimensions exchanged."""
    if self.ndim < 2:
        raise error(ShapeError, "mT", f"needs at least 2 dimensions, got {self.type_}")
    return transpose(self, -2, -1)


Tensor.T = property(_reversed_dims)  # type: ignore[attr-defined]
Tensor.mT = property(_matrix_transpose)  # type: ignore[attr-defined]


@public(aliases=("moveaxis",), backward="PermuteBackward0")
def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """Dimensions `source` moved to the positions `destination`; the others keep their order."""
    t = tensor_arg(input, "movedim")
    if not t.ndim:
        t = reshaped(t, (1,))
        return reshaped(movedim(t, source, destination), ())
    origin = [
        dim_arg(d, t.ndim, "movedim") for d in (source if isinstance(source, (list, tuple)) else [source])
    ]
    goal = [
        dim_arg(d, t.ndim, "movedim")
        for d in (destination if isinstance(destination, (list, tuple)) else [destination])
    ]
    if len(origin) != len(goal) or len(set(origin)) != len(origin) or len(set(goal)) != len(goal):
        raise error(ShapeError, "movedim", f"can't move dimensions {source} to {destination}")
    order = [-1] * t.ndim
    for s, d in zip(origin, goal, strict=True):
        order[d] = s
    rest = iter(d for d in range(t.ndim) if d not in origin)
    return permuted(t, [next(rest) if d < 0 else d for d in order])


# ---------------------------------------------------------------------------------------------- broadcasting


@public(function=False)
def expand(self: Tensor, *sizes: Any, size: Any = None) -> Tensor:
    """Dimensions of size 1 repeated, without memory, to `sizes`; -1 keeps a size, new dimensions come in
    front.
    """
    shape = shape_args(spread("expand", sizes, size, "size"), "expand")
    source = self.type_.shape
    if len(shape) < len(source):
        raise error(
            ShapeError, "expand", f"{format_shape(shape)} has fewer dimensions than {format_shape(source)}"
        )
    shift = len(shape) - len(source)
    target: list[Extent] = []
    for d, wanted in enumerate(shape):
        if isinstance(wanted, int) and wanted == -1:
            if d < shift:
                raise error(
                    ShapeError, "expand", f"a new dimension needs a size, not -1, in {format_shape(shape)}"
                )
            wanted = source[d - shift]
        target.append(wanted)
    return _new_view(self, tuple(target))


def _new_view(t: Tensor, shape: Shape) -> Tensor:
    """`t` expanded; a handle of its own even if that changes nothing."""
    return reshaped(t, shape) if t.type_.shape == shape else apply(OPS["expand"], t, shape=shape)


@public(function=False, backward="ExpandBackward0")
def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """Expanded to other's shape."""
    return _new_view(self, tensor_arg(other, "expand_as", "other").type_.shape)


@public(backward="ExpandBackward0")
def broadcast_to(input: Tensor, shape: Sequence[int]) -> Tensor:
    """Expanded to `shape`."""
    return expand(tensor_arg(input, "broadcast_to"), *shape)


@public(method=False, backward="ExpandBackward0")
def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All tensors expanded to their common shape; those of that shape themselves."""
    found = [tensor_arg(t, "broadcast_tensors", "tensors") for t in tensors]
    shape = broadcast(*found)
    return tuple(expanded(t, shape) for t in found)


@public(function=False)
def repeat(self: Tensor, *sizes: Any, repeats: Any = None) -> Tensor:
    """The tensor tiled `sizes` times along its dimensions; new dimensions come in front."""
    counts = shape_args(spread("repeat", sizes, repeats, "repeats"), "repeat")
    if len(counts) < self.ndim:
        raise error(
            ShapeError,
            "repeat",
            f"needs a count for each of the {self.ndim} dimensions, got {format_shape(counts)}",
        )
    if any(isinstance(count, int) and count < 0 for count in counts):
        raise error(ShapeError, "repeat", f"counts can't be negative, got {format_shape(counts)}")
    shape = (1,) * (len(counts) - self.ndim) + self.type_.shape
    single: list[Extent] = []
    paired: list[Extent] = []
    for count, size in zip(counts, shape, strict=True):
        single += [1, size]
        paired += [count, size]
    tiled = apply(OPS["expand"], reshaped(self, tuple(single)), shape=tuple(paired))
    return copied(reshaped(tiled, tuple(c * s for c, s in zip(counts, shape, strict=True))))


@public()
def tile(input: Tensor, *counts: Any, dims: Any = None) -> Tensor:
    """NumPy's ``tile``: like `repeat`, with counts filled up by ones in front."""
    t = tensor_arg(input, "tile")
    counts = shape_args(spread("tile", counts, dims, "dims"), "tile")
    return repeat(t, *((1,) * (t.ndim - len(counts)) + counts))


# ---------------------------------------------------------------------------------------------- triangles


def _triangle(name: str, input: Tensor, diagonal: int, upper: bool) -> Tensor:
    t = tensor_arg(input, name)
    if t.ndim < 2:
        raise error(ShapeError, name, f"needs at least 2 dimensions, got {t.type_}")
    rows, columns = t.type_.shape[-2:]
    row = reshaped(apply(OPS["iota"], size=rows), (rows, 1))
    limit = apply(OPS["add"], row, scalar(diagonal, row.dtype))
    keep = apply(OPS["ge" if upper else "le"], apply(OPS["iota"], size=columns), limit)
    return apply(OPS["where"], keep, t, scalar(0, t.dtype))


@public()
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of (a batch of) matrices up to `diagonal`, zeros above."""
    return _triangle("tril", input, diagonal, False)


@public()
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of (a batch of) matrices from `diagonal` on, zeros below."""
    return _triangle("triu", input, diagonal, True)


@public(method=False, name="broadcast_shapes")
def broadcast_shapes_(*shapes: Any) -> tuple[Any, ...]:
    """The shape that shapes broadcast to."""
    return tuple(broadcast_shapes(*(shape_args((s,), "broadcast_shapes") for s in shapes)))


# other names for the same
moveaxis = movedim
swapdims = transpose
