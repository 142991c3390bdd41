"""Metrics against scikit-learn and formulas, eager and compiled, whole and in ragged batches."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import metrics as M
from graphflow.errors import TraceError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as S

RNG = np.random.default_rng(0)
RAGGED = [0, 1, 5, 5, 30, 41, 60]  # where batches of 60 samples end


def sample(classes: int, size: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, the classes they choose, and the truth."""
    scores = RNG.random((size, classes)).round(1)
    truth = np.where(RNG.random(size) < 0.5, scores.argmax(1), RNG.integers(0, classes, size))
    return scores, scores.argmax(1), truth


def both(function: Callable[..., Any], *given: np.ndarray, **options: Any) -> np.ndarray:
    """The result, after seeing that it's the same compiled, with another batch size before."""
    tensors = [gf.tensor(a) for a in given]
    eager = function(*tensors, **options)
    step = gf.compile(lambda *t: function(*t, **options))
    step(*(t[: len(t) // 2] for t in tensors))
    np.testing.assert_allclose(step(*tensors).numpy(), eager.numpy(), rtol=1e-14)
    return eager.numpy()


def batches(metric: Any, *given: np.ndarray) -> np.ndarray:
    """The metric's value after updates with ragged batches."""
    for start, end in itertools.pairwise(RAGGED):
        metric.update(*(gf.tensor(a[start:end]) for a in given))
    result: np.ndarray = metric.compute().numpy()
    return result


# ----------------------------------------------------------------------------------------------
# classification


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("form", ["scores", "labels"])
def test_accuracy_and_confusion(classes: int, form: str) -> None:
    scores, chosen, truth = sample(classes)
    preds = scores if form == "scores" else chosen
    expected = S.accuracy_score(truth, chosen)
    np.testing.assert_allclose(both(M.accuracy, preds, truth), expected, rtol=1e-6)
    np.testing.assert_allclose(batches(M.Accuracy(), preds, truth), expected, rtol=1e-6)
    matrix = S.confusion_matrix(truth, chosen, labels=range(classes))
    np.testing.assert_array_equal(both(M.confusion_matrix, preds, truth, num_classes=classes), matrix)
    np.testing.assert_array_equal(batches(M.ConfusionMatrix(classes), preds, truth), matrix)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_top_k(k: int) -> None:
    scores, _, truth = sample(5)
    scores += RNG.random(scores.shape) * 0.01  # no ties: how they are broken is a convention
    expected = S.top_k_accuracy_score(truth, scores, k=k, labels=range(5)) if k < 5 else 1.0
    np.testing.assert_allclose(both(M.accuracy, scores, truth, top_k=k), expected, rtol=1e-6)


def test_top_k_prefers_the_lower_class_of_equals() -> None:
    scores = gf.tensor([[1.0, 1.0, 1.0]] * 3)
    truth = gf.tensor([0, 1, 2])
    assert [M.accuracy(scores, truth, top_k=k).item() for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


SCORES: list[tuple[Callable[..., Any], Any, Callable[..., Any]]] = [
    (M.precision, M.Precision, S.precision_score),
    (M.recall, M.Recall, S.recall_score),
    (M.f1_score, M.F1Score, S.f1_score),
]


@pytest.mark.parametrize(("ours", "kind", "theirs"), SCORES)
@pytest.mark.parametrize("average", ["micro", "macro", "weighted", None])
def test_scores_of_many_classes(ours: Any, kind: Any, theirs: Any, average: str | None) -> None:
    scores, chosen, truth = sample(4)
    expected = theirs(truth, chosen, average=average, labels=range(4), zero_division=0)
    np.testing.assert_allclose(both(ours, scores, truth, average=average), expected, rtol=1e-6)
    np.testing.assert_allclose(batches(kind(4, average), scores, truth), expected, rtol=1e-6)


@pytest.mark.parametrize(("ours", "kind", "theirs"), SCORES)
def test_scores_of_two_classes(ours: Any, kind: Any, theirs: Any) -> None:
    probability, truth = RNG.random(60), RNG.integers(0, 2, 60)
    for threshold in (0.5, 0.8):
        expected = theirs(truth, probability > threshold)
        np.testing.assert_allclose(both(ours, probability, truth, threshold=threshold), expected, rtol=1e-6)
        np.testing.assert_allclose(
            batches(kind(threshold=threshold), probability, truth), expected, rtol=1e-6
        )
    np.testing.assert_allclose(
        both(ours, probability > 0.5, truth == 1), theirs(truth, probability > 0.5), rtol=1e-6
    )


@pytest.mark.parametrize(("ours", "kind", "theirs"), SCORES)
def test_classes_that_do_not_occur(ours: Any, kind: Any, theirs: Any) -> None:
    chosen, truth = np.array([0, 0, 2]), np.array([0, 1, 0])
    for zero in (0.0, 1.0):
        np.testing.assert_allclose(
            both(ours, chosen, truth, average=None, num_classes=4, zero_division=zero),
            theirs(truth, chosen, average=None, labels=range(4), zero_division=zero),
            rtol=1e-6,
        )
        np.testing.assert_allclose(
            both(ours, chosen, truth, average="macro", num_classes=4, zero_division=zero),
            theirs(truth, chosen, average="macro", zero_division=zero),
            rtol=1e-6,
        )


def test_without_samples() -> None:
    nothing, none = gf.zeros(0, 3), gf.zeros(0, dtype=gf.int64)
    assert M.accuracy(nothing, none).isnan()
    assert M.Accuracy().compute().isnan()
    assert M.confusion_matrix(nothing, none).sum().item() == 0
    assert M.roc_auc(gf.zeros(0), none).isnan()


# ---------------------------------------------------------------------------------------------- curves

scores_and_truth = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.float64, n, elements=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, -3.0, np.inf])),
        arrays(np.int64, n, elements=st.integers(0, 1)),
    )
)


@given(scores_and_truth)
def test_areas_and_curves_are_scikit_learns(given_: tuple[np.ndarray, np.ndarray]) -> None:
    scores, truth = given_
    finite = np.where(
        np.isinf(scores), 10.0, scores
    )  # scikit-learn takes no infinities; order is all that counts
    preds, target = gf.tensor(scores), gf.tensor(truth)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if len(set(truth.tolist())) == 2:
            np.testing.assert_allclose(
                M.roc_auc(preds, target).item(), S.roc_auc_score(truth, finite), rtol=1e-6
            )
        else:
            assert M.roc_auc(preds, target).isnan()
        if truth.any():
            np.testing.assert_allclose(
                M.average_precision(preds, target).item(), S.average_precision_score(truth, finite), rtol=1e-6
            )
            ours = M.precision_recall_curve(gf.tensor(finite), target)
            for a, b in zip(ours, S.precision_recall_curve(truth, finite), strict=True):
                np.testing.assert_allclose(a.numpy(), b)
        ours = M.roc_curve(gf.tensor(finite), target)
        for a, b in zip(ours, S.roc_curve(truth, finite, drop_intermediate=False), strict=True):
            np.testing.assert_allclose(a.numpy(), b)


def test_areas_compiled_and_in_batches() -> None:
    scores, truth = RNG.random(60).round(1), RNG.integers(0, 2, 60)
    np.testing.assert_allclose(both(M.roc_auc, scores, truth), S.roc_auc_score(truth, scores), rtol=1e-6)
    np.testing.assert_allclose(batches(M.ROCAUC(), scores, truth), S.roc_auc_score(truth, scores), rtol=1e-6)
    expected = S.average_precision_score(truth, scores)
    np.testing.assert_allclose(both(M.average_precision, scores, truth), expected, rtol=1e-6)
    np.testing.assert_allclose(batches(M.AveragePrecision(), scores, truth), expected, rtol=1e-6)


# ---------------------------------------------------------------------------------------------- regression


def test_regression() -> None:
    truth = RNG.standard_normal(60) + 1e6
    preds = truth + RNG.standard_normal(60)
    for ours, kind, theirs in (
        (M.mean_squared_error, M.MeanSquaredError, S.mean_squared_error),
        (M.mean_absolute_error, M.MeanAbsoluteError, S.mean_absolute_error),
        (M.r2_score, M.R2Score, S.r2_score),
    ):
        expected = theirs(truth, preds)
        np.testing.assert_allclose(both(ours, preds, truth), expected, rtol=1e-6)
        np.testing.assert_allclose(batches(kind(), preds, truth), expected, rtol=1e-6)


def test_the_mean_of_losses_by_samples() -> None:
    mean = M.Mean()
    mean(gf.tensor(2.0), 3)
    mean.update(gf.tensor(4.0), 1)
    assert mean.compute().item() == 2.5
    mean.reset()
    mean.update(gf.tensor([1.0, 2.0, 6.0]))
    assert mean.compute().item() == 3


# ---------------------------------------------------------------------------------------------- objects


def test_a_metric_inside_a_compiled_step() -> None:
    accuracy, matrix = M.Accuracy(), M.ConfusionMatrix(3)

    @gf.compile
    def step(scores: gf.Tensor, truth: gf.Tensor) -> None:
        accuracy.update(scores, truth)
        matrix.update(scores, truth)

    scores, chosen, truth = sample(3)
    for start, end in ((0, 32), (32, 49), (49, 60)):
        step(gf.tensor(scores[start:end]), gf.tensor(truth[start:end]))
    assert len(step.variants) == 1
    assert accuracy.compute().item() == pytest.approx(S.accuracy_score(truth, chosen))
    np.testing.assert_array_equal(
        matrix.compute().numpy(), S.confusion_matrix(truth, chosen, labels=range(3))
    )


@pytest.mark.parametrize(
    "make", [lambda: M.Accuracy(), lambda: M.F1Score(3, "macro"), lambda: M.R2Score(), lambda: M.ROCAUC()]
)
def test_states_are_saved_and_loaded(make: Callable[[], Any]) -> None:
    def data() -> tuple[gf.Tensor, gf.Tensor]:
        if isinstance(make(), M.R2Score):
            return gf.randn(9), gf.randn(9)
        if isinstance(make(), M.ROCAUC):
            return gf.rand(9), gf.arange(9) % 2
        return gf.rand(9, 3), gf.arange(9) % 3

    gf.manual_seed(0)
    first = make()
    first.update(*data())
    second = make()
    second.load_state_dict(first.state_dict())
    more = data()
    first.update(*more)
    second.update(*more)
    assert first.compute().item() == second.compute().item()
    first.reset()
    first.update(*more)
    alone = make()
    alone.update(*more)
    assert first.compute().item() == alone.compute().item()
    with pytest.raises(ValueError, match="its state has"):
        second.load_state_dict({"x": gf.ones(1)})


X, Y = gf.rand(4, 3), gf.tensor([0, 1, 2, 0])
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: M.accuracy([1], Y), TypeError, "preds is a tensor, got list"),
    (lambda: M.accuracy(X, Y.float()), TypeError, "class numbers"),
    (lambda: M.accuracy(Y.reshape(2, 2), Y), TypeError, "are scores"),
    (lambda: M.accuracy(X, Y[:3]), ValueError, r"got \(4, 3\) and \(3,\)"),
    (lambda: M.accuracy(X, Y, top_k=4), ValueError, "C >= top_k"),
    (lambda: M.accuracy(Y, Y, top_k=2), ValueError, "takes scores"),
    (lambda: M.precision(X, Y), ValueError, "for two classes, there are 3"),
    (lambda: M.precision(X, Y, average="mean"), ValueError, "average is one of"),
    (lambda: M.Recall(3), ValueError, "for two classes"),
    (lambda: M.confusion_matrix(Y, Y), ValueError, "num_classes="),
    (lambda: M.confusion_matrix(X, Y, num_classes=4), ValueError, "scores of 3 classes"),
    (lambda: M.confusion_matrix(Y, Y, num_classes=2), IndexError, "target has class 2|preds has class 2"),
    (lambda: M.confusion_matrix(Y, Y - 1, num_classes=3), IndexError, "target has class -1"),
    (lambda: M.ConfusionMatrix(1), ValueError, "at least 2"),
    (lambda: M.roc_auc(X[:, 0], Y), ValueError, "other than 0 and 1"),
    (lambda: M.roc_auc(X, Y), ValueError, r"are \(N,\)"),
    (lambda: M.roc_auc(Y, Y), TypeError, "float scores"),
    (lambda: M.roc_curve(X[:, 0] * gf.nan, Y > 0), ValueError, "NaN"),
    (lambda: M.roc_curve(gf.zeros(0), gf.zeros(0, dtype=gf.bool)), ValueError, "no samples"),
    (lambda: M.r2_score(Y, Y), TypeError, "floats"),
    (lambda: M.mean_squared_error(X, X[:2]), ValueError, "the same shape"),
    (lambda: M.Metric().compute(), NotImplementedError, "has to define compute"),
    (lambda: gf.compile(M.roc_curve)(X[:, 0], Y > 0), TraceError, "outside"),
    (lambda: gf.compile(M.ROCAUC().update)(X[:, 0], Y > 0), TraceError, "outside"),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_class_that_does_not_exist_is_noticed_in_a_graph_too() -> None:
    step = gf.compile(lambda p, t: M.confusion_matrix(p, t, num_classes=3))
    with pytest.raises(IndexError):
        step(gf.tensor([0, 3]), gf.tensor([0, 0]))
    assert M.roc_auc(gf.tensor([0.5, gf.nan]), gf.tensor([0, 1])).isnan()


def test_class_numbers_of_two_classes_need_no_count() -> None:
    preds, target = gf.tensor([0, 1, 0, 1, 1]), gf.tensor([0, 1, 1, 0, 1])
    for ours, theirs in ((M.precision, "precision"), (M.recall, "recall"), (M.f1_score, "f1")):
        wanted = getattr(S, f"{theirs}_score")(target.numpy(), preds.numpy())
        assert ours(preds, target).item() == pytest.approx(wanted)
    with pytest.raises(IndexError, match="class 2, classes are 0 to 1"):
        M.f1_score(gf.tensor([2, 0]), gf.tensor([1, 0]))


def test_one_score_in_a_column_is_no_score_of_each_class() -> None:
    with pytest.raises(gf.errors.ShapeError, match=r"preds\.squeeze\(1\)"):
        M.accuracy(gf.tensor([[0.2], [0.9]]), gf.tensor([0, 1]))


def test_a_target_that_is_no_class_is_no_hit() -> None:
    scores, target = gf.tensor([[0.1, 0.2, 0.3]] * 3), gf.tensor([-1, 2, 0])
    assert M.accuracy(scores, target, top_k=2).item() == pytest.approx(1 / 3)
    assert gf.compile(lambda s, t: M.accuracy(s, t, top_k=2))(scores, target).item() == pytest.approx(1 / 3)
