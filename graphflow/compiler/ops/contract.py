"""Contractions: the matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.compiler.batching import aligned
from graphflow.compiler.ir import (
    BadSample,
    Node,
    Op,
    Sample,
    Size,
    TensorType,
    broadcast_shapes,
    equal_size,
    format_shape,
    register,
)
from graphflow.compiler.ops.family import FLOAT, require_kind, require_same
from graphflow.compiler.ops.movement import permute, reshape
from graphflow.dims import product
from graphflow.dtypes import HALVES
from graphflow.errors import DTypeError, ShapeError


def _infer_matmul(a: TensorType, b: TensorType) -> TensorType:
    dtype = require_same((a, b))
    require_kind(dtype, FLOAT)
    if a.ndim < 2 or b.ndim < 2:
        raise ShapeError("needs operands of at least two dimensions")
    try:
        equal_size(a.shape[-1], b.shape[-2])
    except ShapeError:
        raise ShapeError(
            f"inner sizes differ: {format_shape(a.shape)} @ {format_shape(b.shape)} needs "
            f"{a.shape[-1]} == {b.shape[-2]}; "
            "transpose one operand (.mT) if its sizes are the other way round"
        ) from None
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return TensorType(dtype, (*batch, a.shape[-2], b.shape[-1]))


def transpose(x: Node) -> Node:
    """`x` with its last two dimensions exchanged."""
    n = len(x.shape)
    return permute(x, dims=(*range(n - 2), n - 1, n - 2))


def _numpy_matmul(a: np.ndarray, b: np.ndarray) -> Any:
    with np.errstate(all="ignore"):
        return np.matmul(a, b)


def _samples(rng: np.random.Generator) -> list[Sample]:
    shapes = [
        ((3, 4), (4, 5)),
        ((2, 3, 4), (4, 5)),
        ((2, 1, 3, 4), (5, 4, 2)),
        ((1, 4), (4, 1)),
        ((0, 4), (4, 3)),
        ((3, 0), (0, 2)),
    ]
    found = [
        Sample((rng.standard_normal(a).astype(t), rng.standard_normal(b).astype(t)), gradient=t == "float64")
        for t in ("float32", "float64")
        for a, b in shapes
    ]
    for half in HALVES:
        pair = (rng.standard_normal(s).astype(half.numpy) for s in shapes[1])
        found.append(Sample(tuple(pair), gradient=False))
    return found


def _batch_matmul(out: Node, size: Size, batched: tuple[bool, bool], a: Node, b: Node) -> Node:
    """The batch is one of the products' batch dimensions, or, where only one operand has it and the other is
    one matrix, rows of one larger product.
    """
    if not batched[1] and len(b.shape) == 2:
        rows = matmul(reshape(a, shape=(product(a.shape[:-1]), a.shape[-1])), b)
        return reshape(rows, shape=(*a.shape[:-1], b.shape[-1]))
    if not batched[0] and len(a.shape) == 2 and len(b.shape) == 3 and b.shape[2] == 1:
        rows = matmul(reshape(b, shape=b.shape[:2]), transpose(a))  # a matrix times vectors
        return reshape(rows, shape=(*rows.shape, 1))
    ndim = len(out.shape)
    return matmul(aligned(a, ndim) if batched[0] else a, aligned(b, ndim) if batched[1] else b)


matmul: Op = register(Op(
    "matmul", "contract", _infer_matmul, _numpy_matmul,
    lambda g, out, a, b: (matmul(g, transpose(b)), matmul(transpose(a), g)),
    _samples,
    lambda rng: [
        BadSample((np.ones((2, 3)), np.ones((2, 3))), {}, ShapeError, "inner sizes differ"),
        BadSample((np.ones((2, 3)), np.ones(3)), {}, ShapeError, "at least two dimensions"),
        BadSample((np.ones((2, 3)), np.ones((3, 2), np.float32)), {}, DTypeError, "different dtypes"),
        BadSample((np.ones((2, 3), int), np.ones((3, 2), int)), {}, DTypeError, "needs a dtype of kind"),
    ],
    arity=2,
    batch=_batch_matmul,
))  # fmt: skip
