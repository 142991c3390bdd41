"""Metrics of classifiers, all from one thing: how many samples of each class were taken for which.

These are graph functions: they work on tensors, eagerly and inside `compile`. Predictions are class numbers,
(N,) integers; or scores, of which the highest wins, (N, C) floats; or, with two classes, one score for class
1, (N,) floats, compared with `threshold`. Targets are class numbers, (N,) integers. Definitions are
scikit-learn's.
"""

from __future__ import annotations

from graphflow import functions as ops
from graphflow.dtypes import bool_, float32, float64, int64
from graphflow.errors import DTypeError, IndexRangeError, ShapeError
from graphflow.functions.registry import asked_by
from graphflow.tensor import Tensor

AVERAGES = ("binary", "micro", "macro", "weighted", None)


def accuracy(preds: Tensor, target: Tensor, top_k: int = 1, threshold: float = 0.5) -> Tensor:
    """Share of samples whose class is predicted, or, with scores (N, C), among the `top_k` highest: 0-d
    float32.

    Of equal scores the one of the lower class is higher. NaN for no samples. ShapeError, DTypeError for
    operands that don't fit; ValueError unless ``1 <= top_k <= C``.
    """
    result: Tensor = hits(preds, target, top_k, threshold).to(float64).mean().to(float32)
    return result


def hits(preds: Tensor, target: Tensor, top_k: int = 1, threshold: float = 0.5) -> Tensor:
    """Which samples count as right, (N,) bool; arguments as for `accuracy`."""
    _check("accuracy", preds, target)
    if top_k == 1:
        return ops.eq(labels(preds, threshold), target)
    if preds.ndim != 2 or not 1 <= top_k <= preds.shape[1]:
        raise ValueError(
            f"accuracy: top_k={top_k} takes scores (N, C) with C >= top_k, got {tuple(preds.shape)}"
        )
    known = target >= 0
    own = ops.take_along_dim(preds, ops.where(known, target, 0).reshape(-1, 1).to(int64), 1)
    earlier = ops.arange(preds.shape[1]).reshape(1, -1) < target.reshape(-1, 1)
    ahead = (preds > own) | ((preds == own) & earlier)
    result: Tensor = (ahead.sum(1) < top_k) & known
    return result


def labels(preds: Tensor, threshold: float = 0.5) -> Tensor:
    """Class numbers, (N,) integers, of predictions in any of their forms."""
    chosen = preds
    if preds.ndim == 2:
        chosen = preds.argmax(1)
    elif preds.is_floating_point():
        chosen = (preds > threshold).to(int64)
    elif preds.dtype is bool_:
        chosen = preds.to(int64)
    return chosen


def _check(name: str, preds: Tensor, target: Tensor) -> None:
    for what, tensor in (("preds", preds), ("target", target)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: {what} is a tensor, got {type(tensor).__name__}")
    if target.is_floating_point():
        raise DTypeError(f"{name}: target holds class numbers, got {target.dtype} {tuple(target.shape)}")
    if preds.ndim == 2 and not preds.is_floating_point():
        raise DTypeError(f"{name}: preds of shape (N, C) are scores, got {preds.dtype} {tuple(preds.shape)}")
    if target.ndim != 1 or preds.ndim not in (1, 2) or preds.shape[0] != target.shape[0]:
        raise ShapeError(
            f"{name}: preds are (N,) or (N, C) and target (N,), got {tuple(preds.shape)} "
            f"and {tuple(target.shape)}"
        )
    if preds.ndim == 2 and preds.shape[1] == 1:
        raise ShapeError(
            f"{name}: preds {tuple(preds.shape)} hold one score a sample, of which the highest is always the "
            "first; with two classes pass preds.squeeze(1)"
        )


def confusion_matrix(
    preds: Tensor, target: Tensor, num_classes: int | None = None, threshold: float = 0.5
) -> Tensor:
    """(C, C) int64: in row i and column j, how many samples of class i were taken for class j.

    C is `num_classes`, or the number of scores, or 2 for float scores (N,). ValueError if it has to be given
    and isn't; IndexError for class numbers outside of it.
    """
    _check("confusion_matrix", preds, target)
    count = _classes(preds, num_classes)
    predicted = labels(preds, threshold)
    for what, tensor in (("preds", predicted), ("target", target)):
        _check_range(what, tensor, count)
    row, column = target.to(int64), predicted.to(int64)
    cell = _class_number(row, count) * count + _class_number(column, count)
    ones = ops.ones_like(cell)
    result: Tensor = ops.zeros(count * count, dtype=int64).index_add(0, cell, ones).reshape(count, count)
    return result


def _class_number(values: Tensor, count: int) -> Tensor:
    """The class numbers; one that doesn't exist must not fall into another cell, and is an IndexError."""
    with asked_by("confusion_matrix", from_zero=True):
        known: Tensor = ops.arange(count).index_select(0, ops.where(values < 0, values - count, values))
    return known


def _classes(preds: Tensor, num_classes: int | None) -> int:
    scores = int(preds.shape[1]) if preds.ndim == 2 else 2 if preds.is_floating_point() else None
    if scores is None and num_classes is None:
        if preds.dtype is bool_:
            return 2
        raise ValueError(
            "confusion_matrix: preds are class numbers, so num_classes= has to say how many there are"
        )
    if scores is not None and num_classes not in (None, scores):
        raise ValueError(
            f"confusion_matrix: num_classes={num_classes}, but preds has scores of {scores} classes"
        )
    return int(scores or num_classes or 0)


def _check_range(what: str, values: Tensor, count: int) -> None:
    if values.is_traced or not len(values):
        return  # in a graph, _class_number checks
    low, high = int(values.min().item()), int(values.max().item())
    if low < 0 or high >= count:
        raise IndexRangeError(
            f"confusion_matrix: {what} has class {low if low < 0 else high}, classes are 0 to {count - 1}"
        )


def precision(
    preds: Tensor,
    target: Tensor,
    average: str | None = "binary",
    num_classes: int | None = None,
    threshold: float = 0.5,
    zero_division: float = 0.0,
) -> Tensor:
    """Of the samples taken for a class, the share that belongs to it: float32, 0-d, or (C,) for
    ``average=None``.

    `average` is "binary" (class 1 of two), "micro" (all samples alike), "macro" (the mean over classes that
    occur), "weighted" (that mean, weighted by how often they occur) or None (each class). Where nothing is to
    be divided by, the value is `zero_division`.
    """
    matrix = confusion_matrix(preds, target, _two(average, preds, num_classes), threshold)
    return score("precision", matrix, average, zero_division)


def recall(
    preds: Tensor,
    target: Tensor,
    average: str | None = "binary",
    num_classes: int | None = None,
    threshold: float = 0.5,
    zero_division: float = 0.0,
) -> Tensor:
    """Of the samples of a class, the share that was taken for it. Otherwise as `precision`."""
    matrix = confusion_matrix(preds, target, _two(average, preds, num_classes), threshold)
    return score("recall", matrix, average, zero_division)


def f1_score(
    preds: Tensor,
    target: Tensor,
    average: str | None = "binary",
    num_classes: int | None = None,
    threshold: float = 0.5,
    zero_division: float = 0.0,
) -> Tensor:
    """Harmonic mean of precision and recall. Otherwise as `precision`."""
    matrix = confusion_matrix(preds, target, _two(average, preds, num_classes), threshold)
    return score("f1_score", matrix, average, zero_division)


def _two(average: str | None, preds: Tensor, num_classes: int | None) -> int | None:
    """The number of classes, where the average says it."""
    return 2 if num_classes is None and average == "binary" and preds.ndim == 1 else num_classes


def score(name: str, matrix: Tensor, average: str | None, zero_division: float) -> Tensor:
    """Precision, recall or F1 from a confusion matrix, (C, C) int64."""
    if average not in AVERAGES:
        raise ValueError(f"{name}: average is one of {', '.join(map(repr, AVERAGES))}, got {average!r}")
    count = matrix.shape[0]
    if average == "binary" and count != 2:
        raise ValueError(
            f"{name}: average='binary' is for two classes, there are {count}; choose another average"
        )
    right = (matrix * ops.eye(count, dtype=int64)).sum(1)
    predicted, actual = matrix.sum(0), matrix.sum(1)
    if average == "micro":
        right, predicted, actual = right.sum(), predicted.sum(), actual.sum()
    top, bottom = {
        "precision": (right, predicted),
        "recall": (right, actual),
        "f1_score": (2 * right, predicted + actual),
    }[name]
    none = bottom == 0
    values = ops.where(none, float(zero_division), top.to(float64) / ops.where(none, 1, bottom).to(float64))
    if average == "binary":
        values = values[1]
    elif average == "macro":
        # classes that neither occur nor are predicted have no score
        seen = ((predicted + actual) > 0).to(float64)
        values = (values * seen).sum() / seen.sum()
    elif average == "weighted":
        share = actual.to(float64)
        values = (values * share).sum() / share.sum()
    result: Tensor = values.to(float32)
    return result
