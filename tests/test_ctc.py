"""Connectionist temporal classification against the sum over all ways to write the labels down in time."""

from __future__ import annotations

import itertools
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn

F = nn.functional


def collapsed(path: tuple[int, ...], blank: int) -> list[int]:
    """What a path says: repetitions count once, blanks not at all."""
    return [c for c, _ in itertools.groupby(path) if c != blank]


def enumerated(log_probs: np.ndarray, labels: list[int], blank: int) -> float:
    """The loss of one sample (T, C)."""
    steps, classes = log_probs.shape
    paths = itertools.product(range(classes), repeat=steps)
    told = [
        sum(log_probs[t, c] for t, c in enumerate(path)) for path in paths if collapsed(path, blank) == labels
    ]
    return float(-np.logaddexp.reduce(told)) if told else float("inf")


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def logits(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


# Labels, times and blank: repeated labels, an empty target, one that needs every step, one that doesn't fit.
LABELS = [[1, 1], [2], [], [1, 2, 1, 2], [2, 2, 2]]
TIMES = [4, 3, 4, 4, 4]


def expected(x: np.ndarray, labels: list[list[int]], times: list[int], blank: int) -> np.ndarray:
    return np.array(
        [enumerated(x[:t, n], y, blank) for n, (y, t) in enumerate(zip(labels, times, strict=True))]
    )


def laid_out(labels: list[list[int]], padded: bool) -> gf.Tensor:
    if not padded:
        return gf.tensor([c for y in labels for c in y])
    width = max(map(len, labels))
    return gf.tensor([y + [-7] * (width - len(y)) for y in labels])


@pytest.mark.parametrize("padded", [False, True], ids=["concatenated", "padded"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("blank", [0, 2])
def test_the_loss_is_the_sum_over_all_paths(blank: int, compiled: bool, padded: bool) -> None:
    labels = [[(c + blank) % 3 for c in y] for y in LABELS]
    x = log_softmax(logits(4, 5, 3))
    want = expected(x, labels, TIMES, blank)
    assert np.isinf(want).tolist() == [False, False, False, False, True]
    targets, sizes = laid_out(labels, padded), gf.tensor([len(y) for y in labels])

    def losses(x: gf.Tensor, targets: gf.Tensor, times: gf.Tensor, sizes: gf.Tensor) -> Any:
        def loss(reduction: str, zero: bool) -> gf.Tensor:
            return nn.CTCLoss(blank, reduction, zero)(x, targets, times, sizes)

        return loss("none", False), loss("none", True), loss("sum", True), loss("mean", True)

    run = gf.compile(losses) if compiled else losses
    raw, zeroed, total, mean = (t.numpy() for t in run(gf.tensor(x), targets, gf.tensor(TIMES), sizes))
    np.testing.assert_allclose(raw, want, rtol=1e-12)
    want[4] = 0
    np.testing.assert_allclose(zeroed, want, rtol=1e-12)
    np.testing.assert_allclose(total, want.sum(), rtol=1e-12)
    np.testing.assert_allclose(mean, (want / [2, 1, 1, 4, 3]).mean(), rtol=1e-12)


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_the_gradient_is_the_sums_and_zero_where_nothing_fits(compiled: bool) -> None:
    start, sizes = logits(4, 5, 3), [len(y) for y in LABELS]
    targets = laid_out(LABELS, True)

    def gradient(x: gf.Tensor) -> gf.Tensor:
        loss = F.ctc_loss(x.log_softmax(-1), targets, TIMES, sizes, reduction="sum", zero_infinity=True)
        return gf.autograd.grad(loss, [x])[0]

    x = gf.tensor(start, requires_grad=True)
    got = (gf.compile(gradient) if compiled else gradient)(x).numpy()
    step = 1e-5
    for place in itertools.product(range(4), range(4), range(3)):
        sides = []
        for sign in (1, -1):
            moved = start.copy()
            moved[place] += sign * step
            n = place[1]
            sides.append(enumerated(log_softmax(moved)[: TIMES[n], n], LABELS[n], 0))
        assert got[place] == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8)
    assert not got[:, 4].any() and not got[3, 1].any()


def test_gradients_agree_with_finite_differences_to_second_order() -> None:
    def loss(x: gf.Tensor) -> gf.Tensor:
        return F.ctc_loss(x.log_softmax(-1), gf.tensor([[1, 2]]), (3,), (2,))

    x = gf.tensor(logits(3, 1, 3), requires_grad=True)
    assert gf.autograd.gradcheck(loss, (x,))
    assert gf.autograd.gradgradcheck(loss, (x,))


def test_one_sample_needs_no_batch() -> None:
    x = log_softmax(logits(4, 3))
    for times, sizes in ((4, 2), ((4,), (2,)), (gf.tensor(4), gf.tensor(2))):
        loss = F.ctc_loss(gf.tensor(x), gf.tensor([1, 2]), times, sizes, reduction="none")
        assert loss.shape == () and loss.item() == pytest.approx(enumerated(x, [1, 2], 0))


def test_no_time_and_no_labels() -> None:
    x = gf.tensor(log_softmax(logits(3, 2, 3)))
    got = F.ctc_loss(x, gf.tensor([[1], [1]]), (0, 0), (0, 1), reduction="none")
    assert got.tolist() == [0.0, float("inf")]
    got = F.ctc_loss(x, gf.zeros(0, dtype=gf.int64), (3, 2), (0, 0), reduction="none")
    blanks = x.numpy()[:, :, 0]
    np.testing.assert_allclose(got.numpy(), [-blanks[:, 0].sum(), -blanks[:2, 1].sum()])


def test_long_inputs_neither_overflow_nor_underflow() -> None:
    x = gf.tensor(logits(400, 2, 5) * 20, dtype=gf.float32, requires_grad=True)
    loss = F.ctc_loss(x.log_softmax(-1), gf.tensor([[1, 2, 3], [4, 4, 4]]), (400, 300), (3, 3))
    loss.backward()
    assert np.isfinite(loss.item())
    assert x.grad is not None and np.isfinite(x.grad.numpy()).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"blank": 3}, ValueError, "blank must be in label range"),
        ({"input_lengths": (4,)}, ValueError, "input_lengths must be of size batch_size, 2, got 1"),
        ({"target_lengths": (1, 1, 1)}, ValueError, "target_lengths must be of size batch_size, 2, got 3"),
        (
            {"input_lengths": (5, 4)},
            ValueError,
            "Expected input_lengths to have value at most 4, but got value 5",
        ),
        ({"input_lengths": (-1, 4)}, ValueError, "input_lengths must be non-negative, got -1"),
        ({"target_lengths": (3, 1)}, ValueError, "targets to have size at least 3 at dimension 1, but got 2"),
        ({"targets": gf.tensor([1, 2])}, ValueError, "say 3 labels in all, but targets has 2"),
        ({"targets": gf.tensor([[1, 3], [1, 1]])}, IndexError, "ctc_loss: .*out of range"),
        ({"targets": gf.tensor([[1, -1], [1, 1]])}, IndexError, "ctc_loss: .*out of range"),
        ({"targets": gf.ones(2, 2)}, TypeError, "targets have to be integers, got float32"),
        ({"input_lengths": (4.0, 4.0)}, TypeError, "input_lengths must be integral"),
        ({"log_probs": gf.zeros(2, 3, 4, 5)}, ValueError, r"log_probs is \(T, N, C\) or \(T, C\)"),
        ({"log_probs": gf.zeros(4, 2, 3, dtype=gf.int64)}, TypeError, "log_probs has to be floating point"),
        ({"reduction": "all"}, ValueError, "all is not a valid value for reduction"),
    ],
)
def test_what_does_not_fit_is_told(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {
        "log_probs": gf.zeros(4, 2, 3),
        "targets": gf.tensor([[1, 2], [1, 0]]),
        "input_lengths": (4, 4),
        "target_lengths": (2, 1),
    }
    with pytest.raises(error, match=message):
        F.ctc_loss(**{**given, **change})
