"""Connectionist temporal classification."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphflow import functions as ops
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.registry import asked_by, error
from graphflow.nn.functional.pad import pad
from graphflow.nn.functional.precision import widened
from graphflow.nn.functional.reduction import check
from graphflow.tensor import Tensor

__all__ = ["ctc_loss"]

Lengths = Tensor | Sequence[int] | int


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Lengths,
    target_lengths: Lengths,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the log-probability of `targets`, summed over all ways to spread them over time; Graves et al.,
    ICML 2006.

    `log_probs` (T, N, C) are log-probabilities of the classes at each time, `targets` (N, S) or one after the
    other (sum of lengths,), both lengths (N,) tensors or tuples. Without a batch they are (T, C), (S,) and
    numbers. `blank` is the class that stands for no label. ``"mean"`` divides each loss by its target's
    length (at least 1) and averages. A target that doesn't fit into its input has the loss inf, or with
    `zero_infinity` 0 and no gradient.

    As ``torch.nn.functional.ctc_loss``; the gradient is the derivative also with respect to `log_probs` that
    don't come from ``log_softmax``, for which PyTorch adds their exponentials.
    """
    check(reduction)
    batched = log_probs.ndim == 3
    if not batched:
        if log_probs.ndim != 2:
            raise _error(ShapeError, f"log_probs is (T, N, C) or (T, C), got {tuple(log_probs.shape)}")
        log_probs = log_probs.unsqueeze(1)
        targets = targets if targets.ndim == 2 else targets.unsqueeze(0)
    if not log_probs.is_floating_point():
        raise _error(DTypeError, f"log_probs has to be floating point, got {log_probs.dtype}")
    steps, count, classes = log_probs.shape
    if not 0 <= blank < classes:
        raise _error(ValueError, f"blank must be in label range, 0 … {classes - 1}, got {blank}")
    times = _lengths("input_lengths", input_lengths, count, steps)
    sizes = _lengths("target_lengths", target_lengths, count, None)
    labels = _padded(targets, sizes, count)
    likelihood = _forward(widened(log_probs), labels, times, sizes, blank)
    loss: Tensor = -likelihood
    if zero_infinity:
        loss = ops.where(loss == math.inf, 0.0, loss)
    loss = loss.to(log_probs.dtype)
    if reduction == "sum":
        loss = loss.sum()
    elif reduction == "mean":
        loss = (loss / sizes.clamp(min=1).to(loss.dtype)).mean()
    elif not batched:
        loss = loss.squeeze(0)
    return loss


def _error(kind: type[Exception], message: str) -> Exception:
    return error(kind, "ctc_loss", message)


def _lengths(name: str, lengths: Lengths, count: Any, limit: Any) -> Tensor:
    """Lengths as an int64 tensor (N,)."""
    held = lengths if isinstance(lengths, Tensor) else ops.tensor(lengths)
    if held.numel() == 0 and not isinstance(lengths, Tensor):
        held = held.long()
    if held.dtype.kind != "int":
        raise _error(DTypeError, f"{name} must be integral, got {held.dtype}")
    flat: Tensor = held.reshape(-1).long()
    if isinstance(count, int) and isinstance(flat.shape[0], int) and flat.shape[0] != count:
        raise _error(ShapeError, f"{name} must be of size batch_size, {count}, got {flat.shape[0]}")
    if not flat.is_traced:
        for value in flat.tolist():
            if value < 0:
                raise _error(ValueError, f"{name} must be non-negative, got {value}")
            if limit is not None and isinstance(limit, int) and value > limit:
                raise _error(
                    ValueError, f"Expected {name} to have value at most {limit}, but got value {value}"
                )
    return flat


def _padded(targets: Tensor, sizes: Tensor, count: Any) -> Tensor:
    """Targets as int64 (N, S)."""
    if targets.dtype.kind != "int":
        raise _error(DTypeError, f"targets have to be integers, got {targets.dtype}; convert with .long()")
    labels: Tensor = targets.long()
    longest = None if sizes.is_traced else max(sizes.tolist(), default=0)
    if targets.ndim == 2:
        width = targets.shape[1]
        if longest is not None and isinstance(width, int) and longest > width:
            raise _error(
                ShapeError,
                f"Expected targets to have size at least {longest} at dimension 1, but got {width}",
            )
        if isinstance(count, int) and isinstance(targets.shape[0], int) and targets.shape[0] != count:
            raise _error(ShapeError, f"targets must be ({count}, S), got {tuple(targets.shape)}")
        return labels
    if targets.ndim != 1:
        raise _error(ShapeError, f"targets is (N, S) or (sum of lengths,), got {tuple(targets.shape)}")
    total = int(targets.shape[0])
    if longest is not None and sum(sizes.tolist()) > total:
        raise _error(
            ShapeError, f"target_lengths say {sum(sizes.tolist())} labels in all, but targets has {total}"
        )
    width = total if longest is None else longest
    if not total:
        return ops.zeros(count, 0, dtype=labels.dtype)
    place = (sizes.cumsum(0) - sizes).unsqueeze(1) + ops.arange(width)
    padded: Tensor = labels.take(place.clamp(max=total - 1))
    return padded


def _forward(log_probs: Tensor, labels: Tensor, times: Tensor, sizes: Tensor, blank: int) -> Tensor:
    """The targets' log-likelihoods (N,): the forward recursion over labels with blanks between them."""
    steps, _, classes = log_probs.shape
    states = 2 * int(labels.shape[1]) + 1
    place = ops.arange(states)
    inside = (place < 2 * sizes.unsqueeze(1) + 1) & (place % 2 == 1)
    spread = labels.repeat_interleave(2, 1) if labels.shape[1] else labels
    path = ops.where(inside, pad(spread, (0, 1)), blank)
    with asked_by("ctc_loss", from_zero=True):
        path = ops.where(path < 0, path - classes, path)  # no label counts from the end
        emitted = log_probs.gather(2, path.unsqueeze(0).expand(steps, -1, -1))
    # From a label the next one is reached without a blank, unless they are the same.
    skips = (path != blank) & (path != pad(path, (2, 0), value=blank)[:, :states])
    begin = ops.where(place == 0, 0.0, -math.inf).to(log_probs.dtype).expand(path.shape)
    runs = ops.arange(steps).unsqueeze(1) < times

    def advance(held: Tensor, at: tuple[Tensor, Tensor]) -> tuple[Tensor, None]:
        here, runs = at
        one, two = (pad(held, (n, 0), value=-math.inf)[:, :states] for n in (1, 2))
        moved = _log_sum(held, one, ops.where(skips, two, -math.inf)) + here
        return ops.where(runs.unsqueeze(1), moved, held), None

    last, _ = ops.scan(advance, begin, (emitted, runs))
    end = (2 * sizes).unsqueeze(1)
    before = last.gather(1, (end - 1).clamp(min=0))
    nothing = ops.full_like(before, -math.inf)
    ends = _log_sum(last.gather(1, end), ops.where(end > 0, before, -math.inf), nothing)
    likelihood: Tensor = ends.squeeze(1)
    return likelihood


def _log_sum(*terms: Tensor) -> Tensor:
    """log of the sum of exponentials, -inf for none; its gradient has no NaN where terms are -inf."""
    a, b, c = terms
    highest = ops.maximum(ops.maximum(a, b), c).detach()
    dead = highest == -math.inf
    base = ops.where(dead, 0.0, highest)
    total = (a - base).exp() + (b - base).exp() + (c - base).exp()
    sums: Tensor = ops.where(dead, 1.0, total).log() + highest
    return sums
