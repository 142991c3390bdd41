"""Losses against NumPy formulas in float64, their options, edges and mistakes; eager and compiled."""

from __future__ import annotations

import math
import re
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.nn import functional as F

RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def check(result: gf.Tensor, expected: object, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=tolerance, atol=tolerance)


def log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    top = x.max(axis, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(axis, keepdims=True))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_loss(reduction: str) -> None:
    a, b = draw(3, 4), draw(3, 4)
    expected = {"mean": np.mean, "sum": np.sum, "none": lambda v: v}[reduction]((a - b) ** 2)
    check(nn.MSELoss(reduction=reduction)(gf.tensor(a), gf.tensor(b)), expected)


def test_mse_loss_with_weights_and_its_warning() -> None:
    a, b, w = draw(3, 4), draw(3, 4), RNG.uniform(size=(3, 4))
    expected = ((a - b) ** 2 * w).sum() / w.sum()
    check(F.mse_loss(gf.tensor(a), gf.tensor(b), weight=gf.tensor(w)), expected)
    with pytest.warns(UserWarning, match="different to the input size"):
        F.mse_loss(gf.ones(3), gf.ones(3, 1))
    with pytest.warns(UserWarning, match="use reduction='sum'"):
        check(nn.MSELoss(size_average=False)(gf.ones(3), gf.zeros(3)), 3.0)
    with pytest.raises(ValueError, match="x is not a valid value for reduction"):
        F.mse_loss(gf.ones(3), gf.ones(3), reduction="x")


def expected_cross_entropy(x, t, w, ignore, smoothing, reduction):  # type: ignore[no-untyped-def]
    """PyTorch's definition, sample by sample."""
    classes = x.shape[1]
    logs = np.moveaxis(log_softmax(x, 1), 1, -1).reshape(-1, classes)
    losses, weights = [], []
    for row, target in zip(logs, t.reshape(-1), strict=True):
        if target == ignore:
            losses.append(0.0)
            weights.append(0.0)
            continue
        smooth = -(row * w).sum() / classes
        losses.append((1 - smoothing) * -row[target] * w[target] + smoothing * smooth)
        weights.append(w[target])
    if reduction == "none":
        return np.array(losses).reshape(t.shape)
    return sum(losses) / (sum(weights) if reduction == "mean" else 1)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("extra", [(), (2,), (2, 3)])
def test_cross_entropy_with_class_indices(reduction, smoothing, weighted, extra) -> None:  # type: ignore[no-untyped-def]
    x = draw(5, 4, *extra) * 3
    t = RNG.integers(0, 4, (5, *extra))
    t.reshape(-1)[[0, 3]] = (-100, 2)
    w = RNG.uniform(0.5, 2, 4) if weighted else np.ones(4)
    loss = nn.CrossEntropyLoss(
        weight=gf.tensor(w) if weighted else None, reduction=reduction, label_smoothing=smoothing
    )
    check(loss(gf.tensor(x), gf.tensor(t)), expected_cross_entropy(x, t, w, -100, smoothing, reduction))
    other = nn.CrossEntropyLoss(
        weight=gf.tensor(w) if weighted else None,
        reduction=reduction,
        ignore_index=2,
        label_smoothing=smoothing,
    )
    t[t == -100] = 1
    check(other(gf.tensor(x), gf.tensor(t)), expected_cross_entropy(x, t, w, 2, smoothing, reduction))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_with_probabilities(reduction: str, smoothing: float) -> None:
    x, w = draw(5, 4, 2), RNG.uniform(0.5, 2, 4)
    p = RNG.dirichlet(np.ones(4), (5, 2)).transpose(0, 2, 1)
    mixed = p * (1 - smoothing) + smoothing / 4
    losses = -(log_softmax(x, 1) * mixed * w[:, None]).sum(1)
    expected = {"mean": np.mean, "sum": np.sum, "none": lambda v: v}[reduction](losses)
    result = F.cross_entropy(
        gf.tensor(x), gf.tensor(p), gf.tensor(w), reduction=reduction, label_smoothing=smoothing
    )
    check(result, expected)


def test_cross_entropy_of_one_sample_and_of_none() -> None:
    x = draw(4)
    check(F.cross_entropy(gf.tensor(x), gf.tensor(2)), -log_softmax(x, 0)[2])
    assert math.isnan(F.cross_entropy(gf.zeros(2, 3), gf.tensor([-100, -100])).item())
    assert math.isnan(F.cross_entropy(gf.zeros(0, 3), gf.zeros(0, dtype=gf.int64)).item())
    check(F.cross_entropy(gf.zeros(2, 3), gf.tensor([-100, -100]), reduction="sum"), 0.0)


def test_cross_entropy_gradient_is_softmax_less_one_hot() -> None:
    x, t = draw(6, 3), np.array([0, 2, 1, -100, 1, 0])
    leaf = gf.tensor(x, requires_grad=True)
    F.cross_entropy(leaf, gf.tensor(t)).backward()
    kept = (t != -100)[:, None]
    check(leaf.grad, (np.exp(log_softmax(x, 1)) - np.eye(3)[np.where(t < 0, 0, t)]) * kept / kept.sum())


def test_ignored_targets_hide_infinities() -> None:
    x = gf.tensor([[-math.inf, 0.0], [0.0, 0.0]], dtype=gf.float64)
    check(F.cross_entropy(x, gf.tensor([-100, 0])), math.log(2))


def test_nll_loss_is_minus_the_picked_entry() -> None:
    x, t = draw(5, 3), np.array([0, 1, 2, 1, 0])
    check(nn.NLLLoss()(gf.tensor(x), gf.tensor(t)), -x[np.arange(5), t].mean())
    check(F.nll_loss(gf.tensor(x), gf.tensor(t), reduction="none"), -x[np.arange(5), t])


@pytest.mark.parametrize("bad", [-1, 3])
def test_classes_out_of_range_are_an_error(bad: int) -> None:
    with pytest.raises(IndexError, match="outside the classes 0 … 2"):
        F.cross_entropy(gf.zeros(2, 3), gf.tensor([0, bad]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, t: F.cross_entropy(x, t[:1]), ValueError, "expected a target of shape"),
        (lambda x, t: F.cross_entropy(x, t.float()), TypeError, "class indices have to be integers"),
        (lambda x, t: F.cross_entropy(x, x.long()), TypeError, "has to be floating point"),
        (lambda x, t: F.cross_entropy(x, t, weight=gf.ones(3)), ValueError, "either for all 4 classes"),
        (lambda x, t: F.cross_entropy(x, t, label_smoothing=2.0), ValueError, "between 0.0 and 1.0"),
        (lambda x, t: F.cross_entropy(x, x, ignore_index=1), ValueError, "not supported for floating"),
        (lambda x, t: F.cross_entropy(x, t, reduction="x"), ValueError, "not a valid value for reduction"),
        (lambda x, t: F.cross_entropy(gf.tensor(1.0), t), ValueError, "class dimension"),
    ],
)
def test_losses_say_what_does_not_fit(call, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        call(gf.zeros(3, 4), gf.tensor([0, 1, 2]))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    ("call", "operands"),
    [
        (lambda x, t: F.cross_entropy(x, t.float()), r"float32\[N, 4\], float32\[N\]"),
        (lambda x, t: F.nll_loss(x, t.unsqueeze(1)), r"float32\[N, 4\], int64\[N, 1\]"),
        (lambda x, t: F.cross_entropy(x, x.long()), r"float32\[N, 4\], int64\[N, 4\]"),
        (lambda x, t: F.nll_loss(x, t, weight=gf.ones(3)), r"float32\[N, 4\], float32\[3\]"),
        (lambda x, t: F.cross_entropy(x.sum(), t), r"float32\[\], int64\[N\]"),
    ],
)
def test_losses_name_themselves_operands_and_line(call: Any, operands: str, compiled: bool) -> None:
    batch = "batch" if compiled else "3"
    function = gf.compile(call) if compiled else call
    with pytest.raises((TypeError, ValueError)) as raised:
        function(gf.zeros(3, 4), gf.tensor([0, 1, 2]))
    message = str(raised.value)
    assert message.startswith(("cross_entropy: ", "nll_loss: "))
    where = r"\n  at .*test_loss\.py:\d+ in <lambda>"
    assert re.search(rf"\n  operands: {operands.replace('N', batch)}{where}", message)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_compiled_cross_entropy_and_its_gradient_are_the_eager_ones(smoothing: float) -> None:
    x, t = draw(7, 5), RNG.integers(0, 5, 7)
    t[2] = -100
    weight = gf.tensor(RNG.uniform(0.5, 2, 5))

    def both(x: gf.Tensor, t: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
        loss = F.cross_entropy(x, t, weight, label_smoothing=smoothing)
        return loss, gf.autograd.grad(loss, x)[0]

    compiled = gf.compile(both)
    for n in (7, 4):
        loss, gradient = both(gf.tensor(x[:n], requires_grad=True), gf.tensor(t[:n]))
        found, slope = compiled(gf.tensor(x[:n], requires_grad=True), gf.tensor(t[:n]))
        check(found, loss.item(), 1e-9)
        check(slope, gradient.numpy(), 1e-9)
    assert len(compiled.variants) == 1
    with pytest.raises(IndexError):
        compiled(gf.tensor(x[:3], requires_grad=True), gf.tensor([0, -1, 2]))
