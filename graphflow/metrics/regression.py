"""Metrics of regression. Graph functions, of floats of any shape; all elements count alike."""

from __future__ import annotations

from graphflow.dtypes import float64
from graphflow.errors import DTypeError, ShapeError
from graphflow.tensor import Tensor


def mean_squared_error(preds: Tensor, target: Tensor) -> Tensor:
    """Mean of the squared differences, 0-d, in the operands' dtype; NaN for no elements."""
    _check("mean_squared_error", preds, target)
    result: Tensor = ((preds - target) ** 2).mean()
    return result


def mean_absolute_error(preds: Tensor, target: Tensor) -> Tensor:
    """Mean of the absolute differences, 0-d, in the operands' dtype; NaN for no elements."""
    _check("mean_absolute_error", preds, target)
    result: Tensor = (preds - target).abs().mean()
    return result


def r2_score(preds: Tensor, target: Tensor) -> Tensor:
    """Coefficient of determination: 1 minus the squared error by the target's variance, 0-d.

    1 is perfect, 0 is as good as always predicting the target's mean. A constant target gives -inf, or NaN
    when it was predicted exactly.
    """
    _check("r2_score", preds, target)
    wide, truth = preds.to(float64), target.to(float64)
    squares = ((truth - truth.mean()) ** 2).sum()
    result: Tensor = (1 - ((wide - truth) ** 2).sum() / squares).to(preds.dtype)
    return result


def _check(name: str, preds: Tensor, target: Tensor) -> None:
    for what, tensor in (("preds", preds), ("target", target)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: {what} is a tensor, got {type(tensor).__name__}")
        if not tensor.is_floating_point():
            raise DTypeError(f"{name}: {what} are floats, got {tensor.dtype} {tuple(tensor.shape)}")
    if tuple(preds.shape) != tuple(target.shape):
        raise ShapeError(
            f"{name}: preds and target have the same shape, got {tuple(preds.shape)} "
            f"and {tuple(target.shape)}"
        )
