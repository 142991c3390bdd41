"""Activations against NumPy formulas, at their edges, and as modules."""

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
X = RNG.standard_normal((6, 4)) * 3


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def elu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x > 0, x, alpha * np.expm1(x))


ACTIVATIONS: dict[str, tuple[nn.Module, Callable[..., Any]]] = {
    "relu6": (nn.ReLU6(), lambda x: np.clip(x, 0, 6)),
    "hardtanh": (nn.Hardtanh(-2, 0.5), lambda x: np.clip(x, -2, 0.5)),
    "threshold": (nn.Threshold(0.1, 20), lambda x: np.where(x > 0.1, x, 20)),
    "elu": (nn.ELU(0.3), lambda x: elu(x, 0.3)),
    "selu": (nn.SELU(), lambda x: 1.0507009873554805 * elu(x, 1.6732632423543772)),
    "celu": (nn.CELU(2.0), lambda x: np.where(x > 0, x, 2 * np.expm1(x / 2))),
    "leaky_relu": (nn.LeakyReLU(0.2), lambda x: np.where(x > 0, x, 0.2 * x)),
    "rrelu": (nn.RReLU(0.1, 0.3).eval(), lambda x: np.where(x > 0, x, 0.2 * x)),
    "softplus": (nn.Softplus(2.0, 5.0), lambda x: np.where(2 * x > 5, x, np.log(1 + np.exp(2 * x)) / 2)),
    "log_sigmoid": (nn.LogSigmoid(), lambda x: np.log(sigmoid(x))),
    "softsign": (nn.Softsign(), lambda x: x / (1 + np.abs(x))),
    "softshrink": (nn.Softshrink(0.7), lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.7, 0)),
    "hardshrink": (nn.Hardshrink(0.7), lambda x: np.where(np.abs(x) > 0.7, x, 0)),
    "tanhshrink": (nn.Tanhshrink(), lambda x: x - np.tanh(x)),
    "hardsigmoid": (nn.Hardsigmoid(), lambda x: np.clip(x / 6 + 0.5, 0, 1)),
    "hardswish": (nn.Hardswish(), lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "silu": (nn.SiLU(), lambda x: x * sigmoid(x)),
    "mish": (nn.Mish(), lambda x: x * np.tanh(np.log(1 + np.exp(x)))),
    "gelu_tanh": (
        nn.GELU("tanh"),
        lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    ),
    "softmin": (nn.Softmin(1), lambda x: np.exp(-x) / np.exp(-x).sum(1, keepdims=True)),
    "glu": (nn.GLU(), lambda x: x[:, :2] * sigmoid(x[:, 2:])),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_and_its_gradient_are_the_formula(name: str) -> None:
    module, formula = ACTIVATIONS[name]
    check(module, formula, X, sizes=(4,))


def test_prelu_trains_one_slope_or_one_for_each_channel() -> None:
    check(F.prelu, lambda x, w: np.where(x > 0, x, w * x), X, np.array([0.3]), trained=(0, 1))
    x, w = RNG.standard_normal((2, 3, 2)), np.array([0.1, 0.2, -0.3])
    check(F.prelu, lambda x, w: np.where(x > 0, x, w[:, None] * x), x, w, trained=(0, 1))
    layer = nn.PReLU(3, 0.5)
    assert layer.weight.tolist() == [0.5] * 3
    layer.weight.data.fill_(2.0)
    layer.reset_parameters()
    assert layer.weight.tolist() == [0.5] * 3
    with pytest.raises(ValueError, match="parameter numbers = 3 and channel size = 4"):
        layer(gf.ones(2, 4))
    with pytest.raises(ValueError, match="scalar or 1D"):
        F.prelu(gf.ones(2), gf.ones(1, 1))


@pytest.mark.parametrize("name", ["elu", "selu", "celu", "softplus", "hardswish", "mish", "log_sigmoid"])
def test_far_inputs_have_finite_gradients(name: str) -> None:
    x = gf.tensor([-1000.0, -30.0, 0.0, 30.0, 1000.0], requires_grad=True)
    ACTIVATIONS[name][0](x).sum().backward()
    assert bool(x.grad.isfinite().all())


@pytest.mark.parametrize("name", sorted(ACTIVATIONS.keys() - {"softmin", "glu"}))
def test_nan_stays_nan(name: str) -> None:
    assert math.isnan(ACTIVATIONS[name][0](gf.tensor([math.nan])).item())


@pytest.mark.parametrize("name", ["relu6", "hardtanh", "hardsigmoid"])
def test_limited_activations_have_no_slope_at_nan_and_beyond(name: str) -> None:
    def slope(x: gf.Tensor) -> gf.Tensor:
        return gf.grad(lambda x: getattr(F, name)(x).sum())(x)

    x = gf.tensor([math.nan, -math.inf, math.inf, 10.0, 0.5])
    for function in (slope, gf.compile(slope)):
        found = function(x).tolist()
        assert found[:4] == [0.0] * 4 and found[4] > 0


def test_hardswish_of_minus_infinity_is_not_a_number_and_has_no_slope() -> None:
    x = gf.tensor([-math.inf, -7.0], requires_grad=True)
    out = F.hardswish(x)
    out.sum().backward()
    assert math.isnan(out[0].item()) and math.copysign(1.0, out[1].item()) == -1.0
    assert x.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "make",
    [nn.ReLU6, nn.ELU, nn.SELU, nn.CELU, nn.LeakyReLU, nn.Hardtanh, nn.SiLU, nn.Mish, nn.Hardswish],
)  # fmt: skip
def test_inplace_modules_change_their_operand(make: Callable[..., nn.Module]) -> None:
    x = gf.tensor(X)
    wanted = make()(x)
    assert make(inplace=True)(x) is x
    assert x.tolist() == wanted.tolist()


@pytest.mark.parametrize("name", ["relu", "elu", "celu", "selu", "leaky_relu", "hardtanh", "rrelu"])
def test_functions_with_an_underscore_work_in_place(name: str) -> None:
    x = gf.tensor(X)
    wanted = getattr(F, name)(x)
    assert getattr(F, f"{name}_")(x) is x
    assert x.tolist() == wanted.tolist()
    assert F.threshold_(x, 0.0, 1.0) is x


def test_rrelu_draws_slopes_within_its_limits() -> None:
    gf.manual_seed(0)
    x = -gf.ones(1000)
    slopes = -nn.RReLU(0.2, 0.4)(x)
    assert 0.2 <= slopes.min().item() < 0.21 and 0.39 < slopes.max().item() <= 0.4
    assert nn.RReLU()(gf.ones(3)).tolist() == [1.0] * 3


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    gf.manual_seed(0)
    layer = nn.AlphaDropout(0.3)
    x = gf.randn(100_000)
    y = layer(x)
    assert abs(y.mean().item()) < 0.02 and abs(y.std().item() - 1) < 0.02
    a = 1 / math.sqrt(0.7 * (1 + 0.3 * 1.7580993408473766**2))
    dropped = -a * 1.7580993408473766 * 0.7
    assert abs((y - dropped).abs().lt(1e-5).float().mean().item() - 0.3) < 0.01
    assert layer.eval()(x) is x
    channels = F.feature_alpha_dropout(gf.ones(50, 20, 3), 0.5, training=True)
    values = channels.numpy()
    assert (values == values[:, :, :1]).all() and len(np.unique(values)) == 2
    assert F.alpha_dropout(gf.ones(3), 1.0, training=True).tolist() == [0.0] * 3


def test_gumbel_softmax_draws_from_the_logits_distribution() -> None:
    gf.manual_seed(0)
    p = np.array([0.2, 0.3, 0.5])
    logits = gf.tensor(np.tile(np.log(p), (20_000, 1)), requires_grad=True)
    hard = F.gumbel_softmax(logits, tau=0.5, hard=True)
    np.testing.assert_allclose(hard.mean(0).detach().numpy(), p, atol=0.02)
    assert np.unique(hard.detach().numpy().round(12)).tolist() == [0.0, 1.0]
    (hard * gf.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert logits.grad.abs().max().item() > 0
    soft = F.gumbel_softmax(logits.detach(), dim=0)
    np.testing.assert_allclose(soft.sum(0).numpy(), 1.0)


def test_softmax2d_is_over_channels() -> None:
    x = RNG.standard_normal((2, 3, 2, 2))
    power = np.exp(x)
    found = nn.Softmax2d()(gf.tensor(x)).numpy()
    np.testing.assert_allclose(found, power / power.sum(1, keepdims=True))
    with pytest.raises(ValueError, match="expected input to be 3D or 4D"):
        nn.Softmax2d()(gf.ones(2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: nn.Hardtanh(1.0, 1.0), ValueError, "max_val must be larger than min_val"),
        (lambda x: F.hardtanh(x, 1.0, 0.0), ValueError, "min_val cannot be greater"),
        (lambda x: F.softshrink(x, -1.0), ValueError, "lambda must be greater or equal to 0"),
        (lambda x: F.rrelu(x, 0.5, 0.1), ValueError, "Lower bound should be less"),
        (lambda x: F.celu(x, 0.0), ZeroDivisionError, "alpha cannot be 0"),
        (lambda x: F.glu(x, 0), ValueError, "Halving dimension must be even, but dimension 0 is size 3"),
        (lambda x: F.alpha_dropout(x, 2.0, True), ValueError, "between 0 and 1"),
    ],
)
def test_activations_say_what_does_not_fit(call, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        call(gf.ones(3, 2))


@pytest.mark.parametrize(
    ("module", "printed"),
    [
        (nn.ReLU6(), "ReLU6()"),
        (nn.ReLU6(inplace=True), "ReLU6(inplace=True)"),
        (nn.Hardtanh(-1.0, 2.0), "Hardtanh(min_val=-1.0, max_val=2.0)"),
        (nn.Threshold(0.1, 20), "Threshold(threshold=0.1, value=20)"),
        (nn.LeakyReLU(0.1, True), "LeakyReLU(negative_slope=0.1, inplace=True)"),
        (nn.PReLU(3), "PReLU(num_parameters=3)"),
        (nn.RReLU(), "RReLU(lower=0.125, upper=0.3333333333333333)"),
        (nn.Softplus(), "Softplus(beta=1.0, threshold=20.0)"),
        (nn.Hardshrink(0.3), "Hardshrink(0.3)"),
        (nn.GLU(0), "GLU(dim=0)"),
        (nn.SiLU(inplace=True), "SiLU(inplace=True)"),
        (nn.Hardswish(inplace=True), "Hardswish()"),
        (nn.AlphaDropout(0.2), "AlphaDropout(p=0.2, inplace=False)"),
    ],
)
def test_activations_print_as_in_pytorch(module: nn.Module, printed: str) -> None:
    assert repr(module) == printed


def test_in_place_keeps_the_dtype() -> None:
    whole = gf.tensor([-4, 2])
    for change in (F.leaky_relu_, F.elu_, lambda x: F.leaky_relu(x, inplace=True), nn.SiLU(inplace=True)):
        with pytest.raises(gf.errors.DTypeError, match="float32 can't be put into the int64 tensor"):
            change(whole)
    assert whole.tolist() == [-4, 2]
    assert F.relu_(whole) is whole and whole.tolist() == [0, 2]
