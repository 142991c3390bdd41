"""Losses of predicted numbers."""

from __future__ import annotations

import math
import warnings
from typing import Any

from graphflow import functions as ops
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.registry import error, titled, user_level
from graphflow.nn.functional.reduction import (
    as_number,
    chosen,
    differ,
    reduced,
    sizes_differ,
    warn_of_broadcasting,
)
from graphflow.nn.functional.smooth import x_log_x
from graphflow.tensor import Tensor, no_grad

__all__ = [
    "gaussian_nll_loss", "huber_loss", "kl_div", "l1_loss", "mse_loss", "poisson_nll_loss",
    "smooth_l1_loss",
]  # fmt: skip


@titled("MseLossBackward0")
def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(input - target)² with broadcasting, times `weight`, reduced; warns when the shapes differ.

    With `weight`, the mean divides by the weights' sum.
    """
    reduction = chosen(size_average, reduce, reduction)
    warn_of_broadcasting(input, target)
    difference = input - as_number(target, input)
    return _weighted("mse_loss", difference * difference, weight, reduction)


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|input - target| with broadcasting, times `weight`, reduced; warns when the shapes differ.

    With `weight`, the mean divides by the weights' sum. The gradient where both are equal is 0.
    """
    reduction = chosen(size_average, reduce, reduction)
    warn_of_broadcasting(input, target)
    return _weighted("l1_loss", (input - as_number(target, input)).abs(), weight, reduction)


@titled("SmoothL1LossBackward0")
def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """0.5 d² / beta for d = |input - target| below `beta`, else d - 0.5 beta; reduced.

    Girshick, ICCV 2015. ``beta=0`` is `l1_loss`; ValueError below.
    """
    reduction = chosen(size_average, reduce, reduction)
    warn_of_broadcasting(input, target)
    if beta < 0:
        raise error(
            ValueError,
            "smooth_l1_loss",
            f"does not support negative values for beta, got {beta}",
        )
    distance = (input - as_number(target, input)).abs()
    if beta == 0:
        return reduced(distance, reduction)
    near = distance * distance * (0.5 / beta)
    return reduced(ops.where(distance < beta, near, distance - 0.5 * beta), reduction)


@titled("HuberLossBackward0")
def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """0.5 d² for d = |input - target| up to `delta`, else delta (d - 0.5 delta); times `weight`, reduced.

    Huber, Ann. Math. Statist. 35, 1964. ValueError unless delta > 0.
    """
    reduction = chosen(None, None, reduction)
    warn_of_broadcasting(input, target)
    if delta <= 0:
        raise error(
            ValueError,
            "huber_loss",
            f"does not support non-positive values for delta, got {delta}",
        )
    distance = (input - as_number(target, input)).abs()
    loss = ops.where(distance <= delta, 0.5 * distance * distance, delta * (distance - 0.5 * delta))
    if input.is_floating_point():
        loss = loss.to(input.dtype)
    _check_weight("huber_loss", loss, weight)
    return reduced(loss if weight is None else loss * weight, reduction)


def _check_weight(name: str, loss: Tensor, weight: Tensor | None) -> None:
    if weight is not None and differ(weight, loss):
        raise error(
            ShapeError,
            name,
            f"Weights and input must have the same size, got {tuple(weight.shape)} and {tuple(loss.shape)}",
        )


def _weighted(name: str, loss: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    if weight is None:
        return reduced(loss, reduction)
    _check_weight(name, loss, weight)
    weighted = loss * weight
    if reduction == "mean":
        mean: Tensor = weighted.sum() / weight.sum()
        return mean
    return reduced(weighted, reduction)


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log-likelihood of counts `target` under Poisson rates exp(input), or `input` without
    `log_input`.

    Without `full` the term of the target alone is left out; with it Stirling's formula stands for it, for
    targets above 1. `eps` keeps the logarithm of a rate finite.
    """
    reduction = chosen(size_average, reduce, reduction)
    loss = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        counted = target > 1
        count = ops.where(counted, target, 1.0)
        stirling = count * count.log() - count + 0.5 * (2 * math.pi * count).log()
        loss = loss + ops.where(counted, stirling, 0.0)
    return reduced(loss, reduction)


def _differing(a: Tensor, b: Tensor) -> list[Any]:
    """The sizes of `a` that are known to differ from those of `b`."""
    return [m for m, n in zip(a.shape, b.shape, strict=True) if sizes_differ(m, n)]


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """0.5 (log(var) + (input - target)² / var), with `var` at least `eps`; `full` adds 0.5 log(2π).

    `var` has the input's shape, the input's without its last dimension or with size 1 at one of them, or is a
    number.
    Holding it at `eps` isn't part of the gradient. ValueError for negative numbers in it (where they can be
    seen: not in a compiled function) and other shapes.
    """
    reduction = chosen(None, None, reduction)
    variance = ops.full_like(input, var) if isinstance(var, (int, float)) else var
    if variance.ndim == input.ndim - 1 and tuple(variance.shape) == tuple(input.shape[:-1]):
        variance = variance.unsqueeze(-1)
    elif variance.ndim != input.ndim or _differing(variance, input) not in ([], [1]):
        raise error(
            ShapeError,
            "gaussian_nll_loss",
            f"var is of incorrect size: it has shape {tuple(variance.shape)}, the input {tuple(input.shape)}",
        )
    with no_grad():
        if not variance.is_traced and bool((variance < 0).any()):
            raise error(ValueError, "gaussian_nll_loss", "var has negative entry/entries")
        held = variance.clamp(min=eps) - variance
    variance = variance + held
    difference = input - target
    loss = 0.5 * (variance.log() + difference * difference / variance)
    if full:
        loss = loss + 0.5 * math.log(2 * math.pi)
    return reduced(loss, reduction)


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """target (log(target) - input) for log-probabilities `input`; with `log_target` the target is
    logarithms, too.

    ``reduction="batchmean"`` divides the sum by the first size, which is the divergence's definition;
    ``"mean"`` by the number of elements, with a warning. Both are floating point (DTypeError).
    """
    if reduction != "batchmean" or size_average is not None or reduce is not None:
        reduction = chosen(size_average, reduce, reduction)
    if reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size. "
            "'batchmean' divides only by the batch size, and aligns with the KL div math definition.",
            UserWarning,
            stacklevel=user_level(),
        )
    if not (input.is_floating_point() and target.is_floating_point()):
        raise error(
            DTypeError, "kl_div", f"integral inputs have no logarithms, got {input.dtype} and {target.dtype}"
        )
    loss = target.exp() * (target - input) if log_target else x_log_x(target) - target * input
    if reduction == "batchmean":
        total: Tensor = loss.sum()
        return total / input.shape[0] if input.ndim else total
    return reduced(loss, reduction)
