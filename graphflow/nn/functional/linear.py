"""Affine functions."""

from __future__ import annotations

from graphflow.tensor import Tensor


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``: (..., in) by (out, in) to (..., out); a 1-d weight (in,) gives (...)."""
    shape = input.shape
    # Rows of all leading dimensions go through one product: its gradient is then one product too, and no sum
    # of many.
    rows = input.reshape((-1, shape[-1])) if len(shape) > 2 and weight.ndim == 2 else input
    result = rows @ (weight.t() if weight.ndim == 2 else weight)
    if bias is not None:
        result = result + bias
    return result if rows is input else result.reshape((*shape[:-1], weight.shape[0]))
