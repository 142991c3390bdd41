"""Dropout for self-normalising networks, which keeps mean and variance."""

from __future__ import annotations

import math

from graphflow import functions as ops
from graphflow.functions.registry import error
from graphflow.nn.functional.activation import written
from graphflow.random import rand
from graphflow.tensor import Tensor

__all__ = ["alpha_dropout", "feature_alpha_dropout"]

_SATURATION = -1.7580993408473766  # what SELU tends to for large negative inputs


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """While `training`, sets each element with probability `p` to SELU's saturation, then scales and shifts
    all so that mean 0 and variance 1 stay; Klambauer et al., NeurIPS 2017. ValueError unless 0 <= p <= 1.
    """
    return _dropped(input, p, training, inplace, tuple(input.shape))


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """`alpha_dropout` of whole channels, dimension 1 of (N, C, ...)."""
    return _dropped(input, p, training, inplace, (*input.shape[:2], *(1,) * (input.ndim - 2)))


def _dropped(input: Tensor, p: float, training: bool, inplace: bool, draws: tuple[int, ...]) -> Tensor:
    if not 0 <= p <= 1:
        raise error(
            ValueError, "alpha_dropout", f"dropout probability has to be between 0 and 1, but got {p}"
        )
    if not training or p == 0:
        return input
    if p == 1:
        return written(input, input * 0.0, inplace)
    scale = 1.0 / math.sqrt((1.0 - p) * (1.0 + p * _SATURATION**2))
    kept = rand(draws) >= p
    shift = -scale * p * _SATURATION
    return written(input, ops.where(kept, input, _SATURATION) * scale + shift, inplace)
