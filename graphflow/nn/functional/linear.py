"""Affine functions."""

from __future__ import annotations

import math

from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.precision import autocasting
from graphflow.functions.registry import error, titled
from graphflow.nn.functional.reduction import sizes_differ
from graphflow.tensor import Tensor

__all__ = ["bilinear", "linear"]


def _title(bias: Tensor | None, input: Tensor, weight: Tensor) -> str:
    if input.ndim != 2:
        return "ViewBackward0"
    return "MmBackward0" if bias is None else "AddmmBackward0"


def _in_order(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor | None, ...]:
    return bias, input, weight


@titled(_title, _in_order)
@autocasting
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``: (..., in) by (out, in) to (..., out); a 1-d weight (in,) gives (...)."""
    if not 1 <= weight.ndim <= 2:
        raise error(ShapeError, "linear", f"weight is (out, in) or (in,), got {tuple(weight.shape)}")
    shape = input.shape
    if shape and sizes_differ(shape[-1], weight.shape[-1]):
        rest = shape[1:]
        flat = len(rest) > 1 and all(isinstance(s, int) for s in rest) and math.prod(rest) == weight.shape[-1]
        raise error(
            ShapeError,
            "linear",
            f"input of shape {tuple(shape)} has {shape[-1]} features in its last dimension, weight of shape "
            f"{tuple(weight.shape)} takes {weight.shape[-1]}"
            + ("; input.flatten(1) has them" if flat else ""),
        )
    if input.dtype != weight.dtype:
        raise error(
            DTypeError,
            "linear",
            f"input of {input.dtype} and weight of {weight.dtype} have to be of the same dtype; convert the "
            f"input with .to({weight.dtype}) or the module with .to({input.dtype})",
        )
    # All leading dimensions go through one product: its gradient is then one product too, and no sum of many.
    rows = input.flatten(0, -2) if len(shape) > 2 and weight.ndim == 2 else input
    result: Tensor = rows @ (weight.t() if weight.ndim == 2 else weight)
    if bias is not None:
        result = result + bias
    if rows is not input:
        result = result.reshape((*shape[:-1], weight.shape[0]))
    return result


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x1 @ weight[o] @ x2 + bias[o]`` for each output o: (..., in1) and (..., in2) to (..., out).

    `weight` is (out, in1, in2), `bias` (out,).
    """
    if weight.ndim != 3 or not input1.ndim or not input2.ndim:
        raise error(
            ShapeError,
            "bilinear",
            "needs inputs (..., in1) and (..., in2) and a weight (out, in1, in2), got "
            f"{tuple(input1.shape)}, {tuple(input2.shape)} and {tuple(weight.shape)}",
        )
    outputs, size1, size2 = weight.shape
    lead = input1.shape[:-1]
    if input1.ndim != input2.ndim or any(map(sizes_differ, lead, input2.shape[:-1])):
        raise error(
            ShapeError,
            "bilinear",
            "input dimensions do not match: got input1 of shape "
            f"{tuple(input1.shape)} and input2 of shape {tuple(input2.shape)}",
        )
    if sizes_differ(input1.shape[-1], size1) or sizes_differ(input2.shape[-1], size2):
        raise error(
            ShapeError,
            "bilinear",
            f"inputs of shape {tuple(input1.shape)} and {tuple(input2.shape)} don't fit a weight "
            f"of shape {tuple(weight.shape)}: (out, in1, in2)",
        )
    first, second = input1.reshape((-1, size1)), input2.reshape((-1, size2))
    partial = (first @ weight.permute(1, 0, 2).reshape((size1, outputs * size2))).reshape(
        (-1, outputs, size2)
    )
    result: Tensor = (partial * second.unsqueeze(1)).sum(-1)
    if bias is not None:
        result = result + bias
    result = result.reshape((*lead, outputs))
    return result
