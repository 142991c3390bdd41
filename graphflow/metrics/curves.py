"""Metrics over all thresholds of a binary classifier's score: ROC, its area, average precision.

Targets are 0 and 1 (or bool), (N,); scores any floats, (N,), higher for class 1. All are exact: equal scores
are one threshold. Definitions are scikit-learn's. The two areas are graph functions; a curve's length depends
on values, so `roc_curve` and `precision_recall_curve` work outside of `compile` only.
"""

from __future__ import annotations

from math import inf, nan

from graphflow import functions as ops
from graphflow.dtypes import bool_, float32, float64, int64
from graphflow.errors import DTypeError, ShapeError, TraceError
from graphflow.tensor import Tensor


def roc_auc(preds: Tensor, target: Tensor) -> Tensor:
    """Area under the ROC curve: how likely a 1 scores above a 0, equal scores counting half. 0-d float32.

    NaN unless there are both, or where a score is NaN. By ranks (J. A. Hanley, B. J. McNeil: The meaning and
    use of the area under a receiver operating characteristic curve. 1982), in time N log N.
    """
    wins = _check("roc_auc", preds, target)
    ordered, _ = preds.sort()
    # equal scores share the mean of their ranks
    below = ops.searchsorted(ordered, preds) + ops.searchsorted(ordered, preds, right=True)
    rank = (below + 1).to(float64) / 2
    ones = wins.sum().to(float64)
    zeros = (1 - wins).sum().to(float64)
    above = (rank * wins.to(float64)).sum() - ones * (ones + 1) / 2
    result: Tensor = ops.where(preds.isnan().any(), nan, above / (ones * zeros)).to(float32)
    return result


def average_precision(preds: Tensor, target: Tensor) -> Tensor:
    """Area under the precision-recall curve as a sum of steps: the precision at each 1's score, averaged over
    the ones. 0-d float32; NaN without ones, or where a score is NaN.
    """
    wins = _check("average_precision", preds, target)
    ordered, order = preds.sort()
    below = ops.searchsorted(ordered, preds)
    sums = wins[order].cumsum(0)
    ones = wins.sum()
    # how many ones score lower: the running sum before the first place with this score
    missed = ops.where(below > 0, sums[(below - 1).clamp(min=0)], 0)
    precision = (ones - missed).to(float64) / (preds.shape[0] - below).to(float64)
    area = (precision * wins.to(float64)).sum() / ones.to(float64)
    result: Tensor = ops.where(preds.isnan().any(), nan, area).to(float32)
    return result


def roc_curve(preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """False-positive rates, true-positive rates and the thresholds they belong to, (K,) float64 each.

    A sample counts as 1 if its score is at least the threshold. Thresholds go down from infinity through all
    different scores. A rate without anything to be divided by is NaN. TraceError inside `compile`.
    """
    thresholds, hits, misses = _counts("roc_curve", preds, target)
    start = ops.zeros(1, dtype=int64)
    hits, misses = ops.cat([start, hits]), ops.cat([start, misses])
    thresholds = ops.cat([ops.full((1,), inf, dtype=float64), thresholds])
    return misses / misses[-1].to(float64), hits / hits[-1].to(float64), thresholds


def precision_recall_curve(preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Precisions and recalls, (K + 1,) float64 each, and the thresholds they belong to, (K,), going up.

    The last point, without a threshold, is precision 1 at recall 0. Without ones recalls are NaN. TraceError
    inside `compile`.
    """
    thresholds, hits, misses = _counts("precision_recall_curve", preds, target)
    precision = (hits / (hits + misses).to(float64)).flip(0)
    recall = (hits / hits[-1].to(float64)).flip(0)
    one, zero = ops.ones(1, dtype=float64), ops.zeros(1, dtype=float64)
    return ops.cat([precision, one]), ops.cat([recall, zero]), thresholds.flip(0)


def _counts(name: str, preds: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """All different scores, going down, and how many ones and zeros score at least as high."""
    wins = _check(name, preds, target)
    if preds.is_traced or target.is_traced:
        raise TraceError(
            f"{name}: the length of a curve depends on the scores, which a compiled function doesn't know; "
            "return them and call this outside, or use roc_auc or average_precision"
        )
    if preds.isnan().any():
        raise ValueError(f"{name}: a score is NaN")
    if not len(preds):
        raise ValueError(f"{name}: there are no samples")
    ordered, order = preds.sort(descending=True)
    wins = wins[order]
    ends = ops.cat([ordered[1:] != ordered[:-1], ops.ones(1, dtype=bool_)])
    return ordered[ends].to(float64), wins.cumsum(0)[ends], (1 - wins).cumsum(0)[ends]


def _check(name: str, preds: Tensor, target: Tensor) -> Tensor:
    """The target as int64, 1 for what counts as one."""
    for what, tensor in (("preds", preds), ("target", target)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: {what} is a tensor, got {type(tensor).__name__}")
    if not preds.is_floating_point() or target.is_floating_point():
        raise DTypeError(
            f"{name}: preds are float scores and target integers or bool, "
            f"got {preds.dtype} and {target.dtype}"
        )
    if preds.ndim != 1 or tuple(preds.shape) != tuple(target.shape):
        raise ShapeError(
            f"{name}: preds and target are (N,), got {tuple(preds.shape)} and {tuple(target.shape)}"
        )
    if not target.is_traced and target.dtype is not bool_ and not ((target == 0) | (target == 1)).all():
        raise ValueError(f"{name}: the target holds something other than 0 and 1")
    result: Tensor = (target != 0).to(int64)
    return result
