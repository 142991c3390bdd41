"""Losses over classes, of which one is right."""

from __future__ import annotations

from typing import Any

from graphflow import functions as ops
from graphflow.errors import DTypeError, IndexRangeError, ShapeError
from graphflow.functions.registry import asked_by, error, titled
from graphflow.nn.functional.activation import log_softmax
from graphflow.nn.functional.reduction import chosen, differ, reduced, sizes_differ
from graphflow.tensor import Tensor

__all__ = ["cross_entropy", "linear_cross_entropy", "nll_loss"]


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log-probability that `input` (C,), (N, C) or (N, C, ...) gives to the class indices in
    `target`.

    Targets equal to `ignore_index` give 0 and don't count in the mean, which divides by the sum of the
    targets' weights. An index outside [0, C) is an IndexError.
    """
    reduction = chosen(size_average, reduce, reduction)
    return _indexed("nll_loss", input, target, weight, ignore_index, reduction, 0.0)


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy of logits `input` (C,), (N, C) or (N, C, ...) against classes or class probabilities.

    A target with the input's shape and a floating-point dtype holds probabilities; otherwise it holds class
    indices and has the input's shape without C, see `nll_loss`. `weight` is (C,). `label_smoothing` in [0, 1]
    mixes the target with the uniform distribution. Meaning, defaults and reductions are those of
    ``torch.nn.functional.cross_entropy``.
    """
    reduction = chosen(size_average, reduce, reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    dim = _class_dim("cross_entropy", input, target)
    log_probabilities = log_softmax(input, dim)
    if target.ndim != input.ndim:
        return _indexed(
            "cross_entropy", log_probabilities, target, weight, ignore_index, reduction, label_smoothing
        )
    if not target.dtype.is_floating_point:
        raise _misfit(
            DTypeError,
            "cross_entropy",
            "a target of the input's shape holds class probabilities and has to be floating point, got "
            f"{target.dtype}; class indices have the input's shape without the class dimension",
            input,
            target,
        )
    if differ(input, target):
        raise _misfit(
            ShapeError, "cross_entropy", "class probabilities need the input's shape", input, target
        )
    if ignore_index >= 0:
        raise ValueError("ignore_index is not supported for floating point target")
    classes = input.shape[dim]
    if label_smoothing > 0:
        target = target * (1.0 - label_smoothing) + label_smoothing / classes
    terms = log_probabilities * target
    if weight is not None:
        terms = terms * _per_class("cross_entropy", weight, input, dim)
    loss = -terms.sum(dim)
    # The mean is over samples, not over elements.
    return reduced(loss, reduction)


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Tensor:
    """`cross_entropy` of ``linear(input, linear_weight, linear_bias)``.

    `input` is (N, in) or (in,), `linear_weight` (C, in), or (C, d1, ..., in) for targets (N, d1, ...), and
    `linear_bias` has its shape without the last size. `ignore_index` is -100 for None, and has to be None for
    class probabilities. As ``torch.nn.functional.linear_cross_entropy``; compiled functions choose how to
    compute it by themselves, so that `options` is always None (ValueError).
    """
    name = "linear_cross_entropy"
    if options is not None:
        raise ValueError(
            f"{name}: options choose among implementations, of which there is one here; pass None"
        )
    if input.ndim not in (1, 2):
        raise _misfit(ShapeError, name, f"expected input with dimensionality 1 or 2, got {input.ndim}", input)
    if linear_weight.ndim < 2 or sizes_differ(input.shape[-1], linear_weight.shape[-1]):
        message = "linear_weight is (C, ..., in) for an input (..., in)"
        raise _misfit(ShapeError, name, message, input, linear_weight)
    if linear_bias is not None and tuple(linear_bias.shape) != tuple(linear_weight.shape[:-1]):
        message = "linear_bias has the shape of linear_weight without its last size"
        raise _misfit(ShapeError, name, message, linear_weight, linear_bias)
    if linear_weight.ndim > 2 and input.ndim == 1:
        raise _misfit(
            ShapeError, name, "a weight (C, d1, ..., in) needs an input (N, in)", input, linear_weight
        )
    features = linear_weight.shape[-1]
    logits = input @ linear_weight.reshape(-1, features).T
    logits = logits.reshape(*input.shape[:-1], *linear_weight.shape[:-1])
    if linear_bias is not None:
        logits = logits + linear_bias
    if ignore_index is not None and target.ndim == logits.ndim:
        raise error(ValueError, name, "ignore_index cannot be specified when target contains probabilities")
    return cross_entropy(
        logits,
        target,
        weight,
        ignore_index=-100 if ignore_index is None else ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )


def _misfit(kind: type[Exception], name: str, message: str, *operands: Tensor) -> Exception:
    """An exception to raise, with the operands' dtypes and shapes and the user's line."""
    return error(kind, name, f"{message}\n  operands: {', '.join(str(t.type_) for t in operands)}")


def _class_dim(name: str, input: Tensor, target: Tensor) -> int:
    if input.ndim == 0:
        message = "class scores need a class dimension: (C,), (N, C) or (N, C, ...), got a 0-d tensor"
        raise _misfit(ShapeError, name, message, input, target)
    return 0 if input.ndim == 1 else 1


def _per_class(name: str, weight: Tensor, input: Tensor, dim: int) -> Tensor:
    """Class weights shaped so that they broadcast against `input`."""
    classes = input.shape[dim]
    if weight.ndim != 1 or weight.shape[0] != classes:
        raise _misfit(
            ShapeError,
            name,
            f"weight tensor should be defined either for all {classes} classes or no classes but got weight "
            f"tensor of shape: {list(weight.shape)}",
            input,
            weight,
        )
    return ops.reshape(weight, (-1, *(1,) * (input.ndim - dim - 1)))


@titled("NllLossBackward0", lambda name, input, *_, **__: (input,))
def _indexed(
    name: str,
    log_probabilities: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    reduction: str,
    label_smoothing: float,
) -> Tensor:
    """The loss for class indices. The class dimension stays, with size 1, to the end: rows then fuse."""
    dim = _class_dim(name, log_probabilities, target)
    classes = log_probabilities.shape[dim]
    index = _checked_target(name, log_probabilities, target, dim).unsqueeze(dim)
    counts = index != ignore_index
    # An ignored row may hold any number, so it looks at class 0; other negative indices must not count from
    # the end.
    safe = ops.where(counts, ops.where(index < 0, index - classes, index), 0)
    try:
        with asked_by(name, from_zero=True):
            picked = log_probabilities.gather(dim, safe)
    except IndexError:
        message = f"a target is outside the classes 0 … {classes - 1} and isn't ignore_index={ignore_index}"
        raise error(IndexRangeError, name, message) from None
    loss: Tensor = -ops.where(counts, picked, 0.0)
    share = counts.to(log_probabilities.dtype)
    if weight is not None:
        scale = _per_class(name, weight, log_probabilities, dim)
        own = weight.gather(0, safe.flatten()).reshape(safe.shape)
        loss, share = loss * own, share * own
    if label_smoothing > 0:
        terms = log_probabilities if weight is None else log_probabilities * scale
        uniform = ops.where(counts, -terms.sum(dim, keepdim=True), 0.0)
        loss = loss * (1.0 - label_smoothing) + uniform * (label_smoothing / classes)
    if reduction == "none":
        loss = loss.squeeze(dim)
    elif reduction == "mean":
        loss = loss.sum() / share.sum()
    else:
        loss = loss.sum()
    return loss


def _checked_target(name: str, input: Tensor, target: Tensor, dim: int) -> Tensor:
    """Class indices as int64, after their dtype and shape were compared with the scores'."""
    if target.dtype.kind != "int":
        message = f"class indices have to be integers, got {target.dtype}; convert with .long()"
        raise _misfit(DTypeError, name, message, input, target)
    expected = (*input.shape[:dim], *input.shape[dim + 1 :])
    if len(expected) != target.ndim or any(map(sizes_differ, expected, target.shape)):
        message = f"expected a target of shape {expected} for scores of shape {tuple(input.shape)}, got "
        raise _misfit(ShapeError, name, f"{message}{tuple(target.shape)}", input, target)
    indices: Tensor = target.long()
    return indices
