"""Losses of numbers, of yes-or-no answers and with margins, against NumPy formulas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.nn import functional as F

from compositions import check

RNG = np.random.default_rng(0)
BATCH, CLASSES = 5, 4
SHAPE = (BATCH, CLASSES)
REDUCE: dict[str, Callable[..., Any]] = {"none": lambda v: v, "mean": np.mean, "sum": np.sum}


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def share(*shape: int) -> np.ndarray:
    return RNG.uniform(0.05, 0.95, shape)


def signs(*shape: int) -> np.ndarray:
    return RNG.choice([-1.0, 1.0], shape)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def entropy(p: np.ndarray, t: np.ndarray) -> np.ndarray:
    return -(t * np.log(p) + (1 - t) * np.log(1 - p))


def smooth_l1(x: np.ndarray, y: np.ndarray, beta: float) -> np.ndarray:
    d = np.abs(x - y)
    return np.where(d < beta, d**2 / (2 * beta), d - beta / 2)


def gaussian(x: np.ndarray, y: np.ndarray, var: np.ndarray) -> np.ndarray:
    return 0.5 * (np.log(var) + (x - y) ** 2 / var)


def stirling(n: np.ndarray) -> np.ndarray:
    m = np.maximum(n, 2)
    return np.where(n > 1, m * np.log(m) - m + 0.5 * np.log(2 * np.pi * m), 0.0)


# Name of the case: (module, formula without reduction, arguments, which of them get gradients).
Case = tuple[Callable[[str], nn.Module], Callable[..., Any], list[np.ndarray], tuple[int, ...]]
POSITIVE_WEIGHT = RNG.uniform(0.5, 2, CLASSES)
COUNTS = RNG.poisson(2.0, SHAPE).astype(float)
CASES: dict[str, Case] = {
    "l1": (lambda r: nn.L1Loss(reduction=r), lambda x, y: abs(x - y), [draw(*SHAPE), draw(*SHAPE)], (0, 1)),
    "smooth_l1": (
        lambda r: nn.SmoothL1Loss(reduction=r, beta=0.7),
        lambda x, y: smooth_l1(x, y, 0.7),
        [draw(*SHAPE), draw(*SHAPE)],
        (0, 1),
    ),
    "huber": (
        lambda r: nn.HuberLoss(reduction=r, delta=0.7),
        lambda x, y: 0.7 * smooth_l1(x, y, 0.7),
        [draw(*SHAPE), draw(*SHAPE)],
        (0, 1),
    ),
    "poisson": (
        lambda r: nn.PoissonNLLLoss(reduction=r),
        lambda x, n: np.exp(x) - n * x,
        [draw(*SHAPE), COUNTS],
        (0,),
    ),
    "poisson_full": (
        lambda r: nn.PoissonNLLLoss(log_input=False, full=True, reduction=r),
        lambda x, n: x - n * np.log(x + 1e-8) + stirling(n),
        [share(*SHAPE), COUNTS],
        (0,),
    ),
    "gaussian": (
        lambda r: nn.GaussianNLLLoss(reduction=r),
        gaussian,
        [draw(*SHAPE), draw(*SHAPE), share(*SHAPE)],
        (0, 1, 2),
    ),
    "gaussian_of_rows": (
        lambda r: nn.GaussianNLLLoss(full=True, reduction=r),
        lambda x, y, v: gaussian(x, y, v[:, None]) + 0.5 * np.log(2 * np.pi),
        [draw(*SHAPE), draw(*SHAPE), share(BATCH)],
        (0, 2),
    ),
    "gaussian_of_columns": (
        lambda r: nn.GaussianNLLLoss(reduction=r),
        lambda x, y, v: gaussian(x, y, v) + 0 * x,
        [*np.random.default_rng(1).standard_normal((2, *SHAPE)), np.linspace(0.3, 2, CLASSES)[None]],
        (0, 2),
    ),
    "kl_div": (
        lambda r: nn.KLDivLoss(reduction=r),
        lambda x, t: t * (np.log(t) - x),
        [np.log(share(*SHAPE)), share(*SHAPE)],
        (0, 1),
    ),
    "kl_div_of_logs": (
        lambda r: nn.KLDivLoss(reduction=r, log_target=True),
        lambda x, t: np.exp(t) * (t - x),
        [draw(*SHAPE), draw(*SHAPE)],
        (0, 1),
    ),
    "bce": (lambda r: nn.BCELoss(reduction=r), entropy, [share(*SHAPE), share(*SHAPE)], (0, 1)),
    "bce_with_logits": (
        lambda r: nn.BCEWithLogitsLoss(reduction=r, pos_weight=gf.tensor(POSITIVE_WEIGHT)),
        lambda x, t: -(t * POSITIVE_WEIGHT * np.log(sigmoid(x)) + (1 - t) * np.log(1 - sigmoid(x))),
        [draw(*SHAPE), share(*SHAPE)],
        (0, 1),
    ),
    "soft_margin": (
        lambda r: nn.SoftMarginLoss(reduction=r),
        lambda x, t: np.log(1 + np.exp(-t * x)),
        [draw(*SHAPE), signs(*SHAPE)],
        (0,),
    ),
    "multilabel_soft_margin": (
        lambda r: nn.MultiLabelSoftMarginLoss(gf.tensor(POSITIVE_WEIGHT), reduction=r),
        lambda x, t: (POSITIVE_WEIGHT * entropy(sigmoid(x), t)).mean(-1),
        [draw(*SHAPE), RNG.integers(0, 2, SHAPE).astype(float)],
        (0,),
    ),
    "hinge_embedding": (
        lambda r: nn.HingeEmbeddingLoss(0.6, reduction=r),
        lambda x, t: np.where(t == 1, x, np.maximum(0, 0.6 - x)),
        [draw(*SHAPE), signs(*SHAPE)],
        (0,),
    ),
    "margin_ranking": (
        lambda r: nn.MarginRankingLoss(0.3, reduction=r),
        lambda a, b, t: np.maximum(0, -t * (a - b) + 0.3),
        [draw(BATCH), draw(BATCH), signs(BATCH)],
        (0, 1),
    ),
    "cosine_embedding": (
        lambda r: nn.CosineEmbeddingLoss(0.1, reduction=r),
        lambda a, b, t: np.where(t == 1, 1 - cosine(a, b), np.maximum(0, cosine(a, b) - 0.1)),
        [draw(*SHAPE), draw(*SHAPE), signs(BATCH)],
        (0, 1),
    ),
    "triplet_margin": (
        lambda r: nn.TripletMarginLoss(1.2, swap=True, reduction=r),
        lambda a, p, n: np.maximum(
            0, distance(a, p) - np.minimum(distance(a, n), distance(p, n)) + 1.2
        ),
        [draw(*SHAPE), draw(*SHAPE), draw(*SHAPE)],
        (0, 1, 2),
    ),
    "multi_margin": (
        lambda r: nn.MultiMarginLoss(2, 0.8, gf.tensor(POSITIVE_WEIGHT), reduction=r),
        lambda x, y: np.stack([multi_margin(row, int(k)) for row, k in zip(x, y, strict=True)]),
        [draw(*SHAPE), RNG.integers(0, CLASSES, BATCH)],
        (0,),
    ),
    "multilabel_margin": (
        lambda r: nn.MultiLabelMarginLoss(reduction=r),
        lambda x, y: np.stack([multilabel_margin(row, ys) for row, ys in zip(x, y, strict=True)]),
        [draw(*SHAPE), np.array([[1, 3, -1, 0], [0, -1, 2, 3], [-1, 1, 1, 1], [3, 2, 1, 0], [2, 0, 3, -1]])],
        (0,),
    ),
}  # fmt: skip


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.sqrt((a * a).sum(-1) * (b * b).sum(-1))


def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.linalg.norm(a - b + 1e-6, axis=-1)


def multi_margin(x: np.ndarray, y: int) -> float:
    others = [POSITIVE_WEIGHT[y] * max(0, 0.8 - x[y] + x[i]) ** 2 for i in range(CLASSES) if i != y]
    return sum(others) / CLASSES


def multilabel_margin(x: np.ndarray, listed: np.ndarray) -> float:
    right = [int(y) for y in listed[: list(listed).index(-1) if -1 in listed else None]]
    return sum(max(0, 1 - x[y] + x[i]) for y in right for i in range(CLASSES) if i not in right) / CLASSES


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("name", CASES)
def test_a_loss_and_its_gradients_are_the_formula(name: str) -> None:
    module, formula, arrays, trained = CASES[name]
    check(module("none"), formula, *arrays, trained=trained, sizes=(3,))
    for reduction in ("mean", "sum"):
        found = module(reduction)(*map(gf.tensor, arrays)).item()
        assert found == pytest.approx(REDUCE[reduction](formula(*arrays)), rel=1e-10)


def test_batchmean_divides_by_the_batch() -> None:
    x, t = np.log(share(*SHAPE)), share(*SHAPE)
    found = F.kl_div(gf.tensor(x), gf.tensor(t), reduction="batchmean").item()
    assert found == pytest.approx((t * (np.log(t) - x)).sum() / BATCH)
    assert F.kl_div(gf.tensor([-1.0, -1.0]), gf.tensor([0.0, 1.0]), reduction="sum").item() == 1.0


def test_weights_of_elements() -> None:
    x, y, w = draw(*SHAPE), share(*SHAPE), share(*SHAPE)
    given = gf.tensor(x), gf.tensor(y)
    absolute = (np.abs(x - y) * w).sum() / w.sum()
    assert F.l1_loss(*given, weight=gf.tensor(w)).item() == pytest.approx(absolute)
    huber = (smooth_l1(x, y, 1.0) * w).mean()
    assert F.huber_loss(*given, weight=gf.tensor(w)).item() == pytest.approx(huber)
    logits = (entropy(sigmoid(x), y) * w).mean()
    assert F.binary_cross_entropy_with_logits(*given, weight=gf.tensor(w)).item() == pytest.approx(logits)
    p = gf.tensor(sigmoid(x))
    assert F.binary_cross_entropy(p, given[1], gf.tensor(w)).item() == pytest.approx(logits)
    assert F.smooth_l1_loss(*given, beta=0).item() == pytest.approx(np.abs(x - y).mean())


def test_certain_answers_have_bounded_losses_and_slopes() -> None:
    p = gf.tensor([0.0, 0.0, 1.0, 1.0, 1e-13], dtype=gf.float64, requires_grad=True)
    t = gf.tensor([0.0, 1.0, 0.0, 1.0, 1.0], dtype=gf.float64)
    loss = F.binary_cross_entropy(p, t, reduction="none")
    np.testing.assert_allclose(loss.tolist(), [0.0, 100.0, 100.0, 0.0, -math.log(1e-13)])
    loss.sum().backward()
    np.testing.assert_allclose(p.grad.numpy(), [1.0, -1e12, 1e12, -1.0, -1e12])


def test_certain_answers_in_16_bits_have_losses_and_slopes_that_are_no_nan() -> None:
    p = gf.tensor([0.0, 0.0, 1.0, 1.0, 0.5], dtype=gf.float16, requires_grad=True)
    loss = F.binary_cross_entropy(p, gf.tensor([0.0, 1.0, 0.0, 1.0, 1.0], dtype=gf.float16), reduction="none")
    assert loss.tolist()[:4] == [0.0, 100.0, 100.0, 0.0] and loss.dtype is gf.float16
    loss.sum().backward()
    assert p.grad.tolist() == [1.0, -math.inf, math.inf, -1.0, -2.0]


@pytest.mark.parametrize("dtype", [gf.float32, gf.float64])
def test_far_logits_neither_overflow_nor_lose_their_slope(dtype: gf.dtype) -> None:
    x = gf.tensor([-1e4, -50.0, 0.0, 50.0, 1e4, math.inf], dtype=dtype, requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, gf.zeros_like(x), reduction="none")
    wanted = [0.0, math.exp(-50), math.log(2), 50.0, 1e4]
    np.testing.assert_allclose(loss.tolist()[:5], wanted, rtol=1e-6)
    loss[:5].sum().backward()
    np.testing.assert_allclose(x.grad.tolist()[:5], [0.0, math.exp(-50), 0.5, 1.0, 1.0], rtol=1e-6)
    soft = F.soft_margin_loss(x.detach(), -gf.ones_like(x), reduction="none")
    np.testing.assert_allclose(soft.tolist()[:5], wanted, rtol=1e-6)


def test_the_second_derivative_of_a_logistic_loss_at_zero_is_a_quarter() -> None:
    x = gf.zeros(1, dtype=gf.float64, requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(x, gf.ones(1, dtype=gf.float64)).sum()
    (slope,) = gf.autograd.grad(loss, x, create_graph=True)
    assert gf.autograd.grad(slope.sum(), x)[0].item() == pytest.approx(0.25)


def test_a_held_variance_keeps_its_gradient() -> None:
    var = gf.tensor([0.0], dtype=gf.float64, requires_grad=True)
    x = gf.ones(1, dtype=gf.float64)
    F.gaussian_nll_loss(x, x, var, eps=0.5).backward()
    assert var.grad.item() == pytest.approx(1.0)
    assert F.gaussian_nll_loss(x, x, 2.0).item() == pytest.approx(0.5 * math.log(2))


def test_triplets_with_a_distance_of_ones_own() -> None:
    def manhattan(a: gf.Tensor, b: gf.Tensor) -> gf.Tensor:
        return (a - b).abs().sum(-1)

    a, p, n = (gf.tensor(draw(3, 2)) for _ in range(3))
    loss = nn.TripletMarginWithDistanceLoss(distance_function=manhattan, margin=2.0, reduction="none")
    wanted = (2.0 + manhattan(a, p) - manhattan(a, n)).clamp(min=0)  # summed in this order
    assert loss(a, p, n).tolist() == wanted.tolist()
    plain = nn.TripletMarginWithDistanceLoss()(a, p, n).item()
    assert plain == nn.TripletMarginLoss()(a, p, n).item()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: F.smooth_l1_loss(x, x, beta=-1.0), ValueError, "negative values for beta"),
        (lambda x: F.huber_loss(x, x, delta=0.0), ValueError, "non-positive values for delta"),
        (lambda x: F.binary_cross_entropy(x, x[:1]), ValueError, "Please ensure they have the same size"),
        (lambda x: F.binary_cross_entropy(x + 2, x), ValueError, "should be between 0 and 1"),
        (lambda x: F.binary_cross_entropy_with_logits(x, x[:1]), ValueError, "must be the same as input"),
        (lambda x: F.gaussian_nll_loss(x, x, x[:, :2]), ValueError, "var is of incorrect size"),
        (lambda x: F.gaussian_nll_loss(x, x, x - 2), ValueError, "negative entry/entries"),
        (lambda x: F.margin_ranking_loss(x, x, x[0]), ValueError, "should have same dimension"),
        (lambda x: F.cosine_embedding_loss(x, x, x), ValueError, "2D target tensor"),
        (lambda x: F.triplet_margin_loss(x, x, x, margin=0), ValueError, "margin must be greater than 0"),
        (lambda x: F.triplet_margin_loss(x, x, x[0]), ValueError, "same number of dimensions"),
        (lambda x: nn.TripletMarginLoss(0.0), ValueError, "expected margin to be greater than 0"),
        (lambda x: nn.MultiMarginLoss(p=3), ValueError, "only p == 1 and p == 2 supported"),
        (lambda x: F.multi_margin_loss(x, x), TypeError, "class indices have to be integers"),
        (lambda x: F.multi_margin_loss(x, gf.tensor([0])), ValueError, "expected an input"),
        (lambda x: F.multi_margin_loss(x, gf.tensor([0, -1])), IndexError, "out of"),
        (lambda x: F.multilabel_margin_loss(x, x), TypeError, "class indices have to be integers"),
        (lambda x: F.multilabel_margin_loss(x, gf.tensor([0])), ValueError, "one shape"),
        (lambda x: F.l1_loss(x, x, reduction="batchmean"), ValueError, "not a valid value for reduction"),
    ],
)
def test_losses_say_what_does_not_fit(call, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        call(gf.full((2, 3), 0.5))


def test_errors_name_the_function_and_the_users_line() -> None:
    with pytest.raises(ValueError, match=r"^huber_loss: does not support(.|\n)*test_losses\.py:\d+"):
        F.huber_loss(gf.ones(2), gf.ones(2), delta=-1.0)


def test_kl_div_warns_of_its_mean_and_refuses_integers() -> None:
    x, t = gf.log(gf.tensor([[0.5, 0.5]])), gf.tensor([[0.25, 0.75]])
    with pytest.warns(UserWarning, match="'batchmean' divides only by the batch size"):
        F.kl_div(x, t)
    with pytest.raises(TypeError, match="integral inputs have no logarithms"):
        F.kl_div(x, gf.tensor([[0, 1]]), reduction="sum")


def test_targets_may_be_booleans_and_losses_have_the_inputs_dtype() -> None:
    x, t = gf.tensor([0.5, -0.5]), gf.tensor([True, False])
    assert (
        F.mse_loss(x, t).item() == F.smooth_l1_loss(x, t).item() * 2 == F.huber_loss(x, t).item() * 2 == 0.25
    )
    assert F.soft_margin_loss(x, t).item() == pytest.approx((np.log1p(np.exp(-0.5)) + np.log(2)) / 2)
    for loss in (F.huber_loss, F.soft_margin_loss):
        assert loss(x, gf.ones(2, dtype=gf.float64)).dtype is gf.float32


def test_multi_margins_of_one_sample() -> None:
    x = gf.tensor([0.1, 0.2, 0.4])
    assert F.multi_margin_loss(x, gf.tensor([2])).item() == F.multi_margin_loss(x, gf.tensor(2)).item()
    assert F.multi_margin_loss(gf.tensor(0.5), gf.tensor(0)).item() == 0.0
    assert F.multilabel_margin_loss(gf.tensor(0.5), gf.tensor(0)).item() == 0.0


@pytest.mark.parametrize("extra", [(), (2,), (2, 2)])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_linear_cross_entropy_is_the_layer_and_its_loss(extra: tuple[int, ...], compiled: bool) -> None:
    x, w, b = draw(5, 4), draw(3, *extra, 4), draw(3, *extra)
    t = np.random.default_rng(1).integers(0, 3, (5, *extra))
    t[0] = -100
    logits = np.moveaxis(np.tensordot(x, w, (-1, -1)) + b, 1, -1)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    picked = np.take_along_axis(logs, np.maximum(t, 0)[..., None], -1)[..., 0]
    layer = nn.LinearCrossEntropyLoss(4, 3, out_features=extra, bias=True, dtype=gf.float64)
    layer.linear.weight.data.copy_(gf.tensor(w.reshape(-1, 4)))
    layer.linear.bias.data.copy_(gf.tensor(b.reshape(-1)))
    run = gf.compile(layer) if compiled else layer
    assert run(gf.tensor(x), gf.tensor(t)).item() == pytest.approx(-picked[t >= 0].mean())
    p = gf.softmax(gf.tensor(draw(5, 3, *extra)), 1)
    expected = F.cross_entropy(gf.tensor(np.moveaxis(logits, -1, 1).copy()), p).item()
    assert run(gf.tensor(x), p).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x, w: F.linear_cross_entropy(x, w, gf.tensor([0, 1]), options=3), "there is one here"),
        (
            lambda x, w: F.linear_cross_entropy(x, w[:, :2], gf.tensor([0, 1])),
            r"linear_weight is \(C, ..., in\)",
        ),
        (lambda x, w: F.linear_cross_entropy(x, w, gf.ones(2, 3), ignore_index=1), "ignore_index cannot be"),
        (
            lambda x, w: F.linear_cross_entropy(x, w, gf.tensor([0, 1]), linear_bias=gf.ones(2)),
            "linear_bias has",
        ),
        (lambda x, w: F.mse_loss(x, x, weight=gf.ones(4)), "Weights and input must have the same size"),
        (lambda x, w: F.binary_cross_entropy(x, x * 2), "all elements of target should be between 0 and 1"),
        (
            lambda x, w: F.binary_cross_entropy(x * math.nan, x),
            "all elements of input should be between 0 and 1",
        ),
    ],
)
def test_more_that_does_not_fit_is_told(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(gf.ones(2, 4), gf.ones(3, 4))
