"""Losses that ask for a margin."""

from __future__ import annotations

from collections.abc import Callable

from graphflow import functions as ops
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.registry import asked_by, error
from graphflow.nn.functional.distance import pairwise_distance
from graphflow.nn.functional.reduction import chosen, differ, reduced, sizes_differ
from graphflow.tensor import Tensor

__all__ = [
    "cosine_embedding_loss", "hinge_embedding_loss", "margin_ranking_loss", "multi_margin_loss",
    "multilabel_margin_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss",
]  # fmt: skip

_EPSILON = 1e-12  # added to squared lengths, as PyTorch does


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """`input` where the target is 1, max(0, margin - input) where it is -1; reduced."""
    reduction = chosen(size_average, reduce, reduction)
    apart = ops.where(target != 1, (margin - input).clamp(min=0), 0.0)
    return reduced(apart + ops.where(target != -1, input, 0.0), reduction)


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, -target (input1 - input2) + margin), for target 1 where input1 should rank higher, else -1."""
    reduction = chosen(size_average, reduce, reduction)
    if not input1.ndim == input2.ndim == target.ndim:
        raise error(
            ShapeError,
            "margin_ranking_loss",
            "All input tensors should have same dimension but got sizes: input1: "
            f"{tuple(input1.shape)}, input2: {tuple(input2.shape)}, target: {tuple(target.shape)}",
        )
    return reduced((-target * (input1 - input2) + margin).clamp(min=0), reduction)


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos where the target is 1, max(0, cos - margin) where it is -1, for the cosine of two vectors.

    Inputs are (N, D) with a target (N,), or (D,) with a 0-d target.
    """
    reduction = chosen(size_average, reduce, reduction)
    if target.ndim not in (0, 1) or not input1.ndim == input2.ndim == target.ndim + 1:
        raise error(
            ShapeError,
            "cosine_embedding_loss",
            f"{target.ndim}D target tensor expects {target.ndim + 1}D input tensors, and at most 1D targets "
            f"are supported, but found inputs with sizes {tuple(input1.shape)} and "
            f"{tuple(input2.shape)}",
        )
    lengths = ((input1 * input1).sum(-1) + _EPSILON) * ((input2 * input2).sum(-1) + _EPSILON)
    cosine = (input1 * input2).sum(-1) / lengths.sqrt()
    near = ops.where(target == 1, 1.0 - cosine, 0.0)
    return reduced(near + ops.where(target == -1, (cosine - margin).clamp(min=0), 0.0), reduction)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin) with `pairwise_distance`.

    With `swap` the negative's distance is the smaller of those to anchor and positive; Balntas et al., BMVC
    2016.
    """
    reduction = chosen(size_average, reduce, reduction)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return pairwise_distance(a, b, p, eps)

    return triplet_margin_with_distance_loss(
        anchor,
        positive,
        negative,
        distance_function=distance,
        margin=margin,
        swap=swap,
        reduction=reduction,
    )


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_loss` with any distance; `pairwise_distance` for None. ValueError unless margin > 0."""
    reduction = chosen(None, None, reduction)
    if margin <= 0:
        raise error(
            ValueError, "triplet_margin_with_distance_loss", f"margin must be greater than 0, got {margin}"
        )
    if not anchor.ndim == positive.ndim == negative.ndim:
        raise error(
            ShapeError,
            "triplet_margin_with_distance_loss",
            "The anchor, positive, and negative tensors are expected to have the same number of dimensions, "
            f"but got: anchor {anchor.ndim}D, positive {positive.ndim}D and negative {negative.ndim}D inputs",
        )
    distance = pairwise_distance if distance_function is None else distance_function
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = ops.minimum(far, distance(positive, negative))
    return reduced((margin + near - far).clamp(min=0), reduction)


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The mean over classes of weight[y] max(0, margin - x[y] + x[i])^p, the right class y left out.

    `input` is (N, C) or (C,), `target` (N,) or 0-d class indices, `weight` (C,), `p` 1 or 2.
    """
    reduction = chosen(size_average, reduce, reduction)
    if p not in (1, 2):
        raise error(ValueError, "multi_margin_loss", "only p == 1 and p == 2 supported")
    if weight is not None and weight.ndim != 1:
        raise error(
            ValueError, "multi_margin_loss", f"weight must be one-dimensional, got {weight.ndim} dimensions"
        )
    if input.ndim == 0:
        input = input.reshape(1)
    if input.ndim == 1 and tuple(target.shape) == (1,):
        target = target.reshape(())
    index = _classes(input, target, "multi_margin_loss").unsqueeze(-1)
    with asked_by("multi_margin_loss", from_zero=True):
        right = input.gather(-1, _counted(index, input.shape[-1]))
    others = ops.arange(input.shape[-1]) != index
    loss = ops.where(others, ops.relu(margin - right + input), 0.0)
    if p == 2:
        loss = loss * loss
    if weight is not None:
        loss = loss * weight.gather(0, index.flatten()).reshape(index.shape)
    return reduced(loss.sum(-1) / input.shape[-1], reduction)


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The sum over right classes y and wrong classes i of max(0, 1 - x[y] + x[i]), divided by C.

    `input` is (N, C) or (C,); `target`, of its shape, lists the right classes up to the first -1.
    """
    reduction = chosen(size_average, reduce, reduction)
    if input.ndim == target.ndim == 0:
        input, target = input.reshape(1), target.reshape(1)
    if input.ndim not in (1, 2) or differ(input, target):
        raise error(
            ShapeError,
            "multilabel_margin_loss",
            "expected input and target of one shape (N, C) or (C,), got "
            f"{tuple(input.shape)} and {tuple(target.shape)}",
        )
    if target.dtype.kind != "int":
        raise error(
            DTypeError,
            "multilabel_margin_loss",
            f"class indices have to be integers, got {target.dtype}; convert with .long()",
        )
    classes = input.shape[-1]
    order = ops.arange(classes)
    ended = ((target < 0).unsqueeze(-2) & (order <= order.unsqueeze(-1))).any(-1)
    index = ops.where(ended, 0, target.long())
    listed = (index.unsqueeze(-1) == order) & ~ended.unsqueeze(-1)  # (..., place in the list, class)
    with asked_by("multilabel_margin_loss"):
        right = input.gather(-1, index).unsqueeze(-1)
    pairs = ~ended.unsqueeze(-1) & ~listed.any(-2, keepdim=True)
    terms = ops.where(pairs, ops.relu(1.0 - right + input.unsqueeze(-2)), 0.0)
    return reduced(terms.sum((-2, -1)) / classes, reduction)


def _classes(input: Tensor, target: Tensor, name: str) -> Tensor:
    """Class indices as int64, one for each row of `input`."""
    if target.dtype.kind != "int":
        raise error(
            DTypeError, name, f"class indices have to be integers, got {target.dtype}; convert with .long()"
        )
    fits = input.ndim in (1, 2) and target.ndim == input.ndim - 1
    if not fits or any(map(sizes_differ, input.shape[:-1], target.shape)):
        raise error(
            ShapeError,
            name,
            "expected an input (N, C) with a target (N,), or (C,) with a 0-d one, got "
            f"{tuple(input.shape)} and {tuple(target.shape)}",
        )
    indices: Tensor = target.long()
    return indices


def _counted(index: Tensor, classes: int) -> Tensor:
    """Indices that can't count from the end: negative ones are out of range."""
    return ops.where(index < 0, index - classes, index)
