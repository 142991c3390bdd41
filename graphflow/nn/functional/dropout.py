"""Dropping elements at random."""

from __future__ import annotations

from graphflow import functions as ops
from graphflow.random import rand
from graphflow.tensor import Tensor


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """While `training`, zeros each element with probability `p` and divides the others by 1-p.

    Srivastava et al., JMLR 2014, in the inverted form: nothing is scaled in evaluation. The draw comes from
    graphflow's generator (``manual_seed``). ValueError unless 0 <= p <= 1.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0:
        return input
    result: Tensor
    if p == 1:
        result = input * 0.0
    else:
        kept = rand(input.shape) >= p
        result = ops.where(kept, input * (1.0 / (1.0 - p)), 0.0)
    if inplace:
        result = input.copy_(result)
    return result
