"""Ops that only move elements. Views map indices and cost nothing by themselves; ``pad`` and ``cat`` write.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphflow.compiler.batching import aligned, along_dim
from graphflow.compiler.indexing import Index, Shape, numel, reshape_index
from graphflow.compiler.ir import (
    BadSample,
    Node,
    Op,
    Sample,
    TensorType,
    broadcast_shapes,
    equal_size,
    format_shape,
    register,
)
from graphflow.compiler.ops.family import require_same
from graphflow.dims import Dim
from graphflow.dtypes import float32
from graphflow.errors import DTypeError, ShapeError

Size = int | Dim


@dataclass(frozen=True)
class View:
    """``index(out_index, in_shape, out_shape, **attrs)`` is the operand's index, or None
    where that takes division.
    """

    index: Callable[..., list[Index] | None]


def _values(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape)


# ---------------------------------------------------------------------------------------------- reshape


def _infer_reshape(x: TensorType, shape: Shape) -> TensorType:
    if numel(x.shape) != numel(shape):
        try:
            equal_size(numel(x.shape), numel(shape))
        except ShapeError:
            raise ShapeError(
                f"can't reshape {format_shape(x.shape)} to {format_shape(shape)}: "
                f"{numel(x.shape)} elements against {numel(shape)}"
            ) from None
    return TensorType(x.dtype, shape)


reshape: Op = register(Op(
    "reshape", "reshape", _infer_reshape,
    lambda x, shape: np.reshape(x, shape),
    lambda g, out, x, shape: (reshape(g, shape=x.shape),),
    lambda rng: [
        Sample((_values(rng, *a),), {"shape": b})
        for a, b in [((3, 4), (12,)), ((12,), (3, 4)), ((2, 3, 4), (6, 4)), ((2, 1, 3), (2, 3)), ((), (1, 1)),
                     ((0, 4), (0, 2, 2)),
                     ((2, 6), (4, 3))]
    ],
    lambda rng: [BadSample((np.ones((2, 3)),), {"shape": (4,)}, ShapeError, "6 elements against 4")],
    View(lambda index, source, target, shape: reshape_index(index, source, target)), 1,
    batch=lambda out, size, batched, x, shape: reshape(x, shape=(size, *shape)),
))  # fmt: skip


# ---------------------------------------------------------------------------------------------- permute


def _infer_permute(x: TensorType, dims: tuple[int, ...]) -> TensorType:
    if sorted(dims) != list(range(x.ndim)):
        raise ShapeError(f"{dims} is not an order of the dimensions of {format_shape(x.shape)}")
    return TensorType(x.dtype, tuple(x.shape[d] for d in dims))


def _permute_index(
    index: Sequence[Index], source: Shape, target: Shape, dims: tuple[int, ...]
) -> list[Index]:
    return [index[dims.index(d)] for d in range(len(dims))]


permute: Op = register(Op(
    "permute", "view", _infer_permute,
    lambda x, dims: np.transpose(x, dims),
    lambda g, out, x, dims: (permute(g, dims=tuple(int(i) for i in np.argsort(dims))),),
    lambda rng: [
        Sample((_values(rng, *s),), {"dims": d})
        for s, d in [((3, 4), (1, 0)), ((2, 3, 4), (2, 0, 1)), ((5,), (0,)), ((0, 2), (1, 0))]
    ],
    lambda rng: [BadSample((np.ones((2, 3)),), {"dims": (0, 0)}, ShapeError, "not an order")],
    View(_permute_index), 1,
    batch=lambda out, size, batched, x, dims: permute(x, dims=(0, *(d + 1 for d in dims))),
))  # fmt: skip


# ---------------------------------------------------------------------------------------------- expand


def _infer_expand(x: TensorType, shape: Shape) -> TensorType:
    complaint = ShapeError(f"{format_shape(x.shape)} doesn't expand to {format_shape(shape)}")
    try:
        for size, wanted in zip(reversed(x.shape), reversed(shape), strict=False):
            if isinstance(wanted, int) and wanted == 1:
                equal_size(size, 1)  # a symbol may be 1, and is pinned to it
    except ShapeError:
        raise complaint from None
    if broadcast_shapes(x.shape, shape) != tuple(shape):
        raise complaint
    return TensorType(x.dtype, shape)


def _expand_index(index: Sequence[Index], source: Shape, target: Shape, shape: Shape) -> list[Index]:
    shift = len(target) - len(source)
    return [
        Index() if source[d] == 1 and target[d + shift] != 1 else index[d + shift] for d in range(len(source))
    ]


def _numpy_expand(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    same = x[(*(None,) * (len(shape) - x.ndim), ...)]
    return same if same.shape == tuple(shape) else np.broadcast_to(x, shape)


expand: Op = register(Op(
    "expand", "view", _infer_expand,
    _numpy_expand,
    lambda g, out, x, shape: (g,),  # autodiff sums what was broadcast, here as everywhere
    lambda rng: [
        Sample((_values(rng, *a),), {"shape": b})
        for a, b in [((4,), (3, 4)), ((3, 1), (3, 4)), ((), (2, 3)), ((1,), (0,))]
    ],
    lambda rng: [BadSample((np.ones((2, 3)),), {"shape": (4, 3)}, ShapeError, "don't broadcast")],
    View(_expand_index), 1,
    batch=lambda out, size, batched, x, shape: expand(aligned(x, len(shape)), shape=(size, *shape)),
))  # fmt: skip


# ---------------------------------------------------------------------------------------------- slice and pad


def _infer_slice(x: TensorType, starts: Shape, steps: tuple[int, ...], sizes: Shape) -> TensorType:
    if not len(starts) == len(steps) == len(sizes) == x.ndim:
        raise ShapeError(f"needs a start, step and size for each of the {x.ndim} dimensions")
    for size, start, step, count in zip(x.shape, starts, steps, sizes, strict=True):
        if step == 0:
            raise ShapeError("a slice's step can't be 0")
        if all(isinstance(v, int) for v in (size, start, count)) and count:
            last = start + (count - 1) * step
            if not (0 <= start < size and 0 <= last < size):  # type: ignore[operator]
                raise ShapeError(f"elements {start}..{last} are outside a dimension of size {size}")
    return TensorType(x.dtype, sizes)


def _numpy_slice(
    x: np.ndarray, starts: tuple[int, ...], steps: tuple[int, ...], sizes: tuple[int, ...]
) -> Any:
    _check_bounds(x.shape, starts, steps, sizes)
    return x[_positions(starts, steps, sizes)]


def _check_bounds(shape: Shape, starts: Shape, steps: tuple[int, ...], sizes: Shape) -> None:
    """The type rule's check, for bounds that were symbolic there."""
    _infer_slice(TensorType(float32, shape), starts, steps, sizes)
    if any(size < 0 for size in sizes):  # type: ignore[operator]
        raise ShapeError(f"a slice can't have the sizes {format_shape(sizes)}")


def _positions(starts: tuple[int, ...], steps: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[slice, ...]:
    found = []
    for start, step, count in zip(starts, steps, sizes, strict=True):
        stop = start + count * step
        found.append(slice(start, None if stop < 0 else stop, step) if count else slice(0, 0))
    return tuple(found)


def _slice_index(
    index: Sequence[Index], source: Shape, target: Shape, starts: Shape, steps: tuple[int, ...], sizes: Shape
) -> list[Index]:
    return [i * step + start for i, start, step in zip(index, starts, steps, strict=True)]


slice_: Op = register(Op(
    "slice", "view", _infer_slice, _numpy_slice,
    lambda g, out, x, starts, steps, sizes: (pad(g, shape=x.shape, starts=starts, steps=steps),),
    lambda rng: [
        Sample((_values(rng, *s),), {"starts": a, "steps": b, "sizes": c})
        for s, a, b, c in [((5, 6), (1, 0), (1, 2), (3, 3)), ((5,), (4,), (-1,), (5,)),
                           ((6, 4), (5, 3), (-2, -1), (3, 2)), ((4, 3), (0, 0), (1, 1), (0, 3))]
    ],
    lambda rng: [BadSample((np.ones(4),), {"starts": (2,), "steps": (1,), "sizes": (3,)}, ShapeError,
                           "outside")],
    View(_slice_index), 1,
    batch=lambda out, size, batched, x, starts, steps, sizes: slice_(
        x, starts=(0, *starts), steps=(1, *steps), sizes=(size, *sizes)
    ),
))  # fmt: skip


def _infer_pad(x: TensorType, shape: Shape, starts: Shape, steps: tuple[int, ...]) -> TensorType:
    _infer_slice(TensorType(x.dtype, shape), starts, steps, x.shape)
    return TensorType(x.dtype, shape)


def _numpy_pad(x: np.ndarray, shape: tuple[int, ...], starts: tuple[int, ...], steps: tuple[int, ...]) -> Any:
    _check_bounds(shape, starts, steps, x.shape)
    result = np.zeros(shape, x.dtype)
    result[_positions(starts, steps, x.shape)] = x
    return result


pad: Op = register(Op(
    "pad", "pad", _infer_pad, _numpy_pad,
    lambda g, out, x, shape, starts, steps: (slice_(g, starts=starts, steps=steps, sizes=x.shape),),
    lambda rng: [
        Sample((_values(rng, *s),), {"shape": o, "starts": a, "steps": b})
        for s, o, a, b in [((3, 3), (5, 6), (1, 0), (1, 2)), ((5,), (5,), (4,), (-1,)),
                           ((2,), (7,), (1,), (3,)), ((0, 3), (4, 3), (0, 0), (1, 1))]
    ],
    lambda rng: [BadSample((np.ones(3),), {"shape": (4,), "starts": (2,), "steps": (1,)}, ShapeError,
                           "outside")],
    None, 1,
    "The operand written into zeros at the places a slice with these starts and steps would read.",
    lambda out, size, batched, x, shape, starts, steps: pad(
        x, shape=(size, *shape), starts=(0, *starts), steps=(1, *steps)
    ),
))  # fmt: skip


# ---------------------------------------------------------------------------------------------- cat


def _infer_cat(*types: TensorType, dim: int) -> TensorType:
    if not types:
        raise ShapeError("needs at least one tensor")
    dtype = require_same(types)
    first = types[0]
    if not 0 <= dim < first.ndim:
        raise ShapeError(f"dimension {dim} is out of range for {first.ndim} dimensions")
    shape = list(first.shape)
    for other in types[1:]:
        if other.ndim != first.ndim:
            raise ShapeError(
                f"{format_shape(first.shape)} and {format_shape(other.shape)} have different ranks"
            )
        for d in range(first.ndim):
            if d != dim:
                shape[d] = equal_size(shape[d], other.shape[d])
        shape[dim] = shape[dim] + other.shape[dim]
    return TensorType(dtype, tuple(shape))


def _cat_vjp(g: Node, out: Node, *parts: Node, dim: int) -> list[Node]:
    grads: list[Node] = []
    start: Size = 0
    for part in parts:
        starts = tuple(start if d == dim else 0 for d in range(len(part.shape)))
        grads.append(slice_(g, starts=starts, steps=(1,) * len(starts), sizes=part.shape))
        start = start + part.shape[dim]
    return grads


cat: Op = register(Op(
    "cat", "cat", _infer_cat,
    lambda *parts, dim: np.concatenate(parts, axis=dim),
    _cat_vjp,
    lambda rng: [
        Sample((_values(rng, 2, 3), _values(rng, 4, 3)), {"dim": 0}),
        Sample((_values(rng, 2, 3), _values(rng, 2, 0), _values(rng, 2, 2)), {"dim": 1}),
        Sample((_values(rng, 3),), {"dim": 0}),
    ],
    lambda rng: [
        BadSample((np.ones((2, 3)), np.ones((2, 4))), {"dim": 0}, ShapeError, "differ"),
        BadSample((np.ones(2), np.ones(2, np.float32)), {"dim": 0}, DTypeError, "different dtypes"),
    ],
    batch=along_dim,
))  # fmt: skip


def squeeze_dims(x: Node, dims: tuple[int, ...]) -> Node:
    """`x` without the given dimensions of size 1."""
    return reshape(x, shape=tuple(s for d, s in enumerate(x.shape) if d not in dims))
