"""Activations made of pieces: where the input lies decides which formula holds.

What isn't differentiable has PyTorch's derivative there. Pieces that grow without bound are only computed
where they are taken, because zero times infinity isn't zero in a gradient.
"""

from __future__ import annotations

from graphflow import functions as ops
from graphflow.errors import ShapeError
from graphflow.functions.registry import error
from graphflow.nn.functional.activation import written
from graphflow.nn.functional.smooth import log1p_exp, log_sigmoid
from graphflow.random import rand
from graphflow.tensor import Tensor

__all__ = [
    "celu", "elu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid",
    "mish", "prelu", "relu6", "rrelu", "selu", "silu", "softplus", "softshrink", "softsign", "tanhshrink",
    "threshold",
]  # fmt: skip

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > `threshold`, else `value`."""
    return written(input, ops.where(input <= threshold, value, input), inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x limited to [min_val, max_val], with gradient 0 at the limits. ValueError unless they are in order."""
    if min_val > max_val:
        raise error(ValueError, "hardtanh", "min_val cannot be greater than max_val")
    return written(input, _limited(input, min_val, max_val), inplace)


def _limited(input: Tensor, low: float, high: float) -> Tensor:
    if input.dtype.kind == "int":  # of integers, integers, as in PyTorch
        low, high = int(low), int(high)
    # NaN stays, without a slope.
    return ops.where((input > low) & (input < high), input, input.detach().clamp(low, high))


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """x limited to [0, 6]; Krizhevsky, 2010."""
    return hardtanh(input, 0.0, 6.0, inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where positive, else `negative_slope` * x."""
    return written(input, ops.where(input > 0, input, input * negative_slope), inplace)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where positive, else `weight` * x; He et al., ICCV 2015.

    `weight` has one element, or one for each channel, the input's dimension 1. ShapeError otherwise.
    """
    count = weight.numel()
    if weight.ndim > 1:
        raise error(
            ShapeError,
            "prelu",
            f"Expected `weight` to be a scalar or 1D tensor, but got: ndim = {weight.ndim}",
        )
    if count != 1:
        channels = input.shape[1] if input.ndim > 1 else 1
        if channels != count:
            raise error(
                ShapeError,
                "prelu",
                "Mismatch of parameter numbers and input channel size. Found parameter numbers = "
                f"{count} and channel size = {channels}",
            )
        weight = weight.reshape((count, *(1,) * (input.ndim - 2)))
    else:
        weight = weight.reshape(())
    return ops.where(input > 0, input, input * weight)


def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """x where positive, else x times a slope: while `training` uniform in [lower, upper], else their mean.

    Xu et al., arXiv:1505.00853. ValueError for limits in wrong order.
    """
    if lower > upper:
        raise error(
            ValueError,
            "rrelu",
            f"Lower bound should be less than or equal to the upper bound, got {lower}, {upper}",
        )
    slope: Tensor | float = (lower + upper) / 2
    if training:
        slope = rand(input.shape, dtype=input.dtype) * (upper - lower) + lower
    return written(input, ops.where(input > 0, input, input * slope), inplace)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, else `alpha` (exp(x) - 1); Clevert et al., ICLR 2016."""
    return written(input, _elu(input, alpha, 1.0), inplace)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, else `alpha` (exp(x / alpha) - 1); Barron, arXiv:1704.07483."""
    if alpha == 0:
        raise ZeroDivisionError("alpha cannot be 0 for CELU")
    return written(input, _elu(input, alpha, 1.0 / alpha), inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """`elu` with alpha 1.673… times 1.0507…, which keep mean 0 and variance 1; Klambauer et al., NeurIPS
    2017.
    """
    return written(input, _elu(input, _SELU_ALPHA, 1.0) * _SELU_SCALE, inplace)


def _elu(input: Tensor, alpha: float, rate: float) -> Tensor:
    positive = input > 0
    lower = ops.where(positive, 0.0, input)
    return ops.where(positive, input, alpha * (lower * rate).expm1())


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """0 within [-lambd, lambd], else x."""
    return ops.where((input >= -lambd) & (input <= lambd), 0.0, input)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """0 within [-lambd, lambd], else x moved by `lambd` towards 0. ValueError for a negative `lambd`."""
    if lambd < 0:
        raise error(
            ValueError, "softshrink", f"lambda must be greater or equal to 0, but found to be {lambd}"
        )
    # The product keeps NaN where it is.
    return ops.where(input > lambd, input - lambd, ops.where(input < -lambd, input + lambd, input * 0.0))


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """x / 6 + 1/2 limited to [0, 1]."""
    return written(input, _limited(input + 3.0, 0.0, 6.0) * (1.0 / 6.0), inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * hardsigmoid(x)``; Howard et al., ICCV 2019."""
    inner = ops.where((input > -3) & (input < 3), input, 0.0)
    middle = inner * (inner + 3.0) * (1.0 / 6.0)
    # The product is NaN for -inf, as in PyTorch.
    low = ops.where(input <= -3, input, 0.0) * 0.0
    return written(input, ops.where(input <= -3, low, ops.where(input < 3, middle, input)), inplace)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta, and x itself where beta x > `threshold`."""
    scaled = input * beta
    return ops.where(scaled > threshold, input, log1p_exp(scaled) / beta)


def logsigmoid(input: Tensor) -> Tensor:
    """log(1 / (1 + exp(-x))), without overflow."""
    return log_sigmoid(input)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    result: Tensor = input / (1.0 + input.abs())
    return result


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    result: Tensor = input - input.tanh()
    return result


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x / (1 + exp(-x)), also called swish; Hendrycks & Gimpel, arXiv:1606.08415."""
    return written(input, input * input.sigmoid(), inplace)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x tanh(log(1 + exp(x))); Misra, BMVC 2020."""
    return written(input, input * log1p_exp(input).tanh(), inplace)
