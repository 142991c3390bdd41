"""Affine functions."""

from __future__ import annotations

from graphflow.tensor import Tensor


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``: (..., in) by (out, in) to (..., out); a 1-d weight (in,) gives (...)."""
    shape = input.shape
    # All leading dimensions go through one product: its gradient is then one product too, and no sum of many.
    rows = input.reshape((-1, shape[-1])) if len(shape) > 2 and weight.ndim == 2 else input
    result: Tensor = rows @ (weight.t() if weight.ndim == 2 else weight)
    if bias is not None:
        result = result + bias
    if rows is not input:
        result = result.reshape((*shape[:-1], weight.shape[0]))
    return result
