"""log(1 + exp(x)) and its kin, which activations and losses share: no overflow, no lost digits, every
derivative right.
"""

from __future__ import annotations

from graphflow import functions as ops
from graphflow.tensor import Tensor


def log1p_exp(x: Tensor) -> Tensor:
    """``log(1 + exp(x))``."""
    return log1p_exp_of_both(x)[0]


def log_sigmoid(x: Tensor) -> Tensor:
    """``log(1 / (1 + exp(-x)))``."""
    return -log1p_exp_of_both(x)[1]


def log1p_exp_of_both(x: Tensor) -> tuple[Tensor, Tensor]:
    """``log(1 + exp(x))`` and ``log(1 + exp(-x))``, which share all that costs."""
    negative = x < 0
    # The sign is a constant to differentiation, so that at 0, too, all derivatives are those of the function,
    # which they wouldn't be through abs(x).
    rest = (x * ops.where(negative, ops.ones_like(x), -1.0)).exp().log1p()
    return ops.where(negative, 0.0, x) + rest, ops.where(negative, -x, 0.0) + rest


def x_log_x(x: Tensor) -> Tensor:
    """``x log(x)``, 0 at 0."""
    zero = x == 0
    return ops.where(zero, 0.0, x * ops.where(zero, 1.0, x).log())
