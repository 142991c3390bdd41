"""Losses of yes-or-no answers."""

from __future__ import annotations

from graphflow import functions as ops
from graphflow.errors import ShapeError
from graphflow.functions.registry import error, titled
from graphflow.nn.functional.precision import widened
from graphflow.nn.functional.reduction import as_number, chosen, differ, reduced
from graphflow.nn.functional.smooth import log1p_exp, log1p_exp_of_both
from graphflow.tensor import Tensor, no_grad

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "multilabel_soft_margin_loss",
    "soft_margin_loss",
]  # fmt: skip

# Where a probability comes closer to 0 than this, the logarithm's slope stays; and its lowest value.
_NEAREST = 1e-12
_LOWEST = -100.0


@titled("BinaryCrossEntropyBackward0")
def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-(target log(input) + (1 - target) log(1 - input)), times `weight`, reduced; shapes have to be equal.

    Logarithms don't go below -100, as in PyTorch, and their slopes not above 1e12. ValueError for
    probabilities and targets outside [0, 1] (where they can be seen: not in compiled functions).
    """
    reduction = chosen(size_average, reduce, reduction)
    if differ(input, target):
        raise error(
            ShapeError,
            "binary_cross_entropy",
            f"Using a target size ({tuple(target.shape)}) that is different to the input size "
            f"({tuple(input.shape)}) is deprecated. Please ensure they have the same size.",
        )
    with no_grad():
        for name, tensor in (("input", input), ("target", target)):
            if not tensor.is_traced and not bool(((tensor >= 0) & (tensor <= 1)).all()):
                raise error(
                    ValueError, "binary_cross_entropy", f"all elements of {name} should be between 0 and 1"
                )
    p = widened(input)
    yes, no = _bounded_log(p, p), _bounded_log(1.0 - p, p, complement=True)
    loss = -(target * yes + (1.0 - target) * no).to(input.dtype)
    return reduced(loss if weight is None else loss * weight, reduction)


def _bounded_log(chance: Tensor, p: Tensor, complement: bool = False) -> Tensor:
    """log(chance), not below -100 and not steeper than 1e12. `chance` is p or with `complement` 1-p."""
    inside = chance > _NEAREST
    safe = ops.where(inside, p, 0.5)
    logs = (-safe).log1p() if complement else safe.log()
    held = chance.detach()
    edge = held.log().clamp(min=_LOWEST) + (chance - held) * (1.0 / _NEAREST)
    return ops.where(inside, logs, edge)


@titled("BinaryCrossEntropyWithLogitsBackward0")
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """`binary_cross_entropy` of sigmoid(input), without overflow; shapes have to be equal.

    `weight` scales elements, `pos_weight` the target's part, log(sigmoid(input)); both broadcast.
    """
    reduction = chosen(size_average, reduce, reduction)
    if differ(input, target):
        raise error(
            ShapeError,
            "binary_cross_entropy_with_logits",
            f"Target size ({tuple(target.shape)}) must be the same as input size ({tuple(input.shape)})",
        )
    loss = _of_logits(input, target, pos_weight)
    return reduced(loss if weight is None else loss * weight, reduction)


def _of_logits(input: Tensor, target: Tensor, pos_weight: Tensor | None) -> Tensor:
    no, yes = log1p_exp_of_both(input)
    share = target if pos_weight is None else target * pos_weight
    return (1.0 - target) * no + share * yes


def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """log(1 + exp(-target * input)) for targets 1 and -1, reduced."""
    reduction = chosen(size_average, reduce, reduction)
    loss = log1p_exp(-as_number(target, input) * input)
    if input.is_floating_point():
        loss = loss.to(input.dtype)
    if differ(loss, input):
        raise error(
            ShapeError,
            "soft_margin_loss",
            f"a target of shape {tuple(target.shape)} doesn't fit an input of shape {tuple(input.shape)}",
        )
    return reduced(loss, reduction)


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`binary_cross_entropy_with_logits`, times `weight` (C,), averaged over the classes, the last dimension.

    `reduction` is over what remains: (N, C) gives (N,) with ``"none"``.
    """
    reduction = chosen(size_average, reduce, reduction)
    if not input.ndim or differ(input, target):
        raise error(
            ShapeError,
            "multilabel_soft_margin_loss",
            f"input and target are (N, C) or (C,), got {tuple(input.shape)} and {tuple(target.shape)}",
        )
    loss = _of_logits(input, target, None)
    if weight is not None:
        loss = loss * weight
    return reduced(loss.sum(-1) / input.shape[-1], reduction)
