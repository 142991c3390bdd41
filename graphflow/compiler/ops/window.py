"""Sliding windows: what convolution, pooling and unfolding are made of.

``slide`` reads position ``o * stride + k * dilation`` of a dimension as element (o, k) of a window; with the
operand expanded along k these are the windows of an array, without a copy. ``unslide`` is its transpose: it
puts windows back where they came from, one layer for each k, so that a sum over k is the overlapping sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphflow.compiler.indexing import Index, Shape
from graphflow.compiler.ir import BadSample, Node, Op, Sample, TensorType, equal_size, register
from graphflow.compiler.ops.movement import View
from graphflow.dims import Dim
from graphflow.errors import ShapeError

Size = int | Dim
Ints = tuple[int, ...]


def window_count(size: Size, taps: Size, stride: int, dilation: int) -> Size:
    """How many windows of `taps` elements fit into `size` elements; 0 or less when none does."""
    return (size - dilation * (taps - 1) - 1) // stride + 1


def _check(ndim: int, dims: Ints, taps: Ints, strides: Ints, dilations: Ints) -> None:
    if not len(dims) == len(taps) == len(strides) == len(dilations):
        raise ShapeError("needs a stride, a dilation and a dimension of taps for each dimension")
    both = (*dims, *taps)
    if len(set(both)) != len(both) or any(not 0 <= d < ndim for d in both):
        raise ShapeError(f"{dims} and {taps} aren't different dimensions of {ndim}")
    if any(s < 1 for s in (*strides, *dilations)):
        raise ShapeError(f"strides {strides} and dilations {dilations} have to be positive")


def _infer_slide(x: TensorType, dims: Ints, taps: Ints, strides: Ints, dilations: Ints) -> TensorType:
    _check(x.ndim, dims, taps, strides, dilations)
    shape = list(x.shape)
    for d, k, stride, dilation in zip(dims, taps, strides, dilations, strict=True):
        count = window_count(x.shape[d], x.shape[k], stride, dilation)
        if isinstance(count, int) and (count < 1 or x.shape[k] == 0):
            raise ShapeError(
                f"no window of {x.shape[k]} elements {dilation} apart fits into {x.shape[d]} elements"
            )
        shape[d] = count
    return TensorType(x.dtype, tuple(shape))


def _numpy_slide(x: np.ndarray, dims: Ints, taps: Ints, strides: Ints, dilations: Ints) -> Any:
    shape, steps = list(x.shape), list(x.strides)
    for d, k, stride, dilation in zip(dims, taps, strides, dilations, strict=True):
        shape[d] = window_count(x.shape[d], x.shape[k], stride, dilation)
        if shape[d] < 1:
            raise ShapeError(
                f"no window of {x.shape[k]} elements {dilation} apart fits into {x.shape[d]} elements"
            )
        steps[d] = stride * x.strides[d]
        steps[k] = x.strides[k] + dilation * x.strides[d]
    return as_strided(x, shape, steps, writeable=x.flags.writeable)


def _slide_index(
    index: Sequence[Index],
    source: Shape,
    target: Shape,
    dims: Ints,
    taps: Ints,
    strides: Ints,
    dilations: Ints,
) -> list[Index]:
    found = list(index)
    for d, k, stride, dilation in zip(dims, taps, strides, dilations, strict=True):
        found[d] = index[d] * stride + index[k] * dilation
    return found


def _slide_vjp(
    g: Node, out: Node, x: Node, dims: Ints, taps: Ints, strides: Ints, dilations: Ints
) -> tuple[Node]:
    sizes = tuple(x.shape[d] for d in dims)
    return (unslide(g, dims=dims, taps=taps, strides=strides, dilations=dilations, sizes=sizes),)


def _attrs(dims: Ints, taps: Ints, strides: Ints, dilations: Ints) -> dict[str, Any]:
    return {"dims": dims, "taps": taps, "strides": strides, "dilations": dilations}


def _behind_batch(dims: Ints) -> Ints:
    return tuple(d + 1 for d in dims)


def _batch_slide(
    out: Node,
    size: Size,
    batched: tuple[bool, ...],
    x: Node,
    dims: Ints,
    taps: Ints,
    strides: Ints,
    dilations: Ints,
) -> Node:
    return slide(
        x, dims=_behind_batch(dims), taps=_behind_batch(taps), strides=strides, dilations=dilations
    )


slide: Op = register(Op(
    "slide", "view", _infer_slide, _numpy_slide, _slide_vjp,
    lambda rng: [
        Sample((rng.standard_normal(s),), _attrs(d, k, a, b))
        for s, d, k, a, b in [((7, 3), (0,), (1,), (1,), (1,)), ((2, 9, 3), (1,), (2,), (2,), (2,)),
                              ((3, 2, 8, 7), (2, 3), (0, 1), (3, 1), (1, 2)),
                              ((2, 3, 3), (1,), (2,), (1,), (1,)),
                              ((0, 5, 2), (1,), (2,), (2,), (1,)), ((4, 1), (0,), (1,), (2,), (1,))]
    ],
    lambda rng: [
        BadSample((np.ones((2, 3)),), _attrs((0,), (1,), (1,), (1,)), ShapeError, "no window of 3 elements"),
        BadSample((np.ones((4, 3)),), _attrs((0,), (0,), (1,), (1,)), ShapeError, "aren't different"),
        BadSample((np.ones((4, 3)),), _attrs((0,), (1,), (0,), (1,)), ShapeError, "have to be positive"),
        BadSample((np.ones((4, 3)),), _attrs((0,), (1,), (1, 1), (1,)), ShapeError, "needs a stride"),
    ],
    View(_slide_index), 1,
    "out[o, k] = x[o * stride + k * dilation, k] for dims (0,) and taps (1,), and so on.",
    batch=_batch_slide,
))  # fmt: skip


def _infer_unslide(
    x: TensorType, dims: Ints, taps: Ints, strides: Ints, dilations: Ints, sizes: tuple[Size, ...]
) -> TensorType:
    _check(x.ndim, dims, taps, strides, dilations)
    if len(sizes) != len(dims):
        raise ShapeError(f"needs {len(dims)} sizes, got {len(sizes)}")
    shape = list(x.shape)
    for d, size in zip(dims, sizes, strict=True):
        shape[d] = size
    windows = _infer_slide(TensorType(x.dtype, tuple(shape)), dims, taps, strides, dilations)
    for d in dims:
        equal_size(windows.shape[d], x.shape[d])
    return TensorType(x.dtype, tuple(shape))


def _numpy_unslide(
    x: np.ndarray, dims: Ints, taps: Ints, strides: Ints, dilations: Ints, sizes: Ints
) -> np.ndarray:
    shape = list(x.shape)
    for d, size in zip(dims, sizes, strict=True):
        shape[d] = size
    result = np.zeros(shape, x.dtype)
    windows = _numpy_slide(result, dims, taps, strides, dilations)
    # No two elements of these windows are the same one: each tap has a layer of its own.
    as_strided(result, windows.shape, windows.strides)[...] = x
    return result


def _unslide_vjp(
    g: Node,
    out: Node,
    x: Node,
    dims: Ints,
    taps: Ints,
    strides: Ints,
    dilations: Ints,
    sizes: tuple[Size, ...],
) -> tuple[Node]:
    return (slide(g, dims=dims, taps=taps, strides=strides, dilations=dilations),)


def _batch_unslide(
    out: Node,
    size: Size,
    batched: tuple[bool, ...],
    x: Node,
    dims: Ints,
    taps: Ints,
    strides: Ints,
    dilations: Ints,
    sizes: tuple[Size, ...],
) -> Node:
    return unslide(
        x, dims=_behind_batch(dims), taps=_behind_batch(taps), strides=strides, dilations=dilations,
        sizes=sizes,
    )  # fmt: skip


unslide: Op = register(Op(
    "unslide", "unslide", _infer_unslide, _numpy_unslide, _unslide_vjp,
    lambda rng: [
        Sample((rng.standard_normal(s),), {**_attrs(d, k, a, b), "sizes": n})
        for s, d, k, a, b, n in [((5, 3), (0,), (1,), (1,), (1,), (7,)),
                                 ((2, 3, 3), (1,), (2,), (2,), (2,), (9,)),
                                 ((3, 2, 2, 5), (2, 3), (0, 1), (3, 1), (1, 2), (8, 7)),
                                 ((0, 2, 2), (1,), (2,), (2,), (1,), (5,)),
                                 ((2, 1), (0,), (1,), (2,), (1,), (4,))]
    ],
    lambda rng: [
        BadSample((np.ones((3, 3)),), {**_attrs((0,), (1,), (1,), (1,)), "sizes": sizes}, ShapeError, text)
        for sizes, text in [((9,), "differ"), ((), "needs 1 sizes"), ((2,), "no window")]
    ],
    None, 1,
    "Zeros with out[o * stride + k * dilation, k] = x[o, k] for dims (0,) and taps (1,), and so on.",
    batch=_batch_unslide,
))  # fmt: skip
