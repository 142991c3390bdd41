"""Convolutions and their transposes against direct loops, in float64, eagerly and compiled."""

from __future__ import annotations

from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.nn import functional as F
from scipy import signal

from conv_formulas import convolution, numeric_gradients, transposed

RNG = np.random.default_rng(5)

# (dimensions, input, weight, stride, padding, dilation, groups)
CASES = [
    (1, (2, 3, 9), (4, 3, 3), 1, 0, 1, 1),
    (1, (2, 4, 9), (6, 2, 2), 2, 1, 2, 2),
    (2, (2, 3, 6, 5), (4, 3, 3, 2), (2, 1), (1, 0), (1, 2), 1),
    (2, (2, 4, 5, 5), (2, 2, 3, 3), 1, "same", 1, 2),
    (2, (2, 3, 5, 6), (6, 1, 2, 3), (1, 2), 1, 1, 3),
    (2, (1, 2, 4, 4), (3, 2, 1, 1), 1, "valid", 1, 1),
    (2, (2, 3, 4, 5), (2, 3, 2, 2), 1, "same", 1, 1),
    (3, (2, 2, 4, 3, 4), (2, 2, 2, 2, 3), (2, 1, 1), (0, 1, 1), 1, 1),
]
# (dimensions, input, weight, stride, padding, output_padding, dilation, groups)
TRANSPOSED = [
    (1, (2, 3, 4), (3, 2, 3), 2, 1, 1, 1, 1),
    (1, (2, 4, 3), (4, 1, 2), 3, 0, 2, 2, 2),
    (2, (2, 2, 3, 4), (2, 3, 3, 2), (2, 1), (1, 0), (1, 0), (1, 2), 1),
    (2, (1, 4, 3, 3), (4, 2, 2, 2), 1, 1, 1, 2, 2),
    (3, (1, 2, 2, 3, 2), (2, 2, 2, 1, 2), (1, 2, 2), 0, 0, 1, 1),
]


def spread(value: Any, n: int) -> tuple[int, ...]:
    return (value,) * n if isinstance(value, int) else value


def expected(x: np.ndarray, w: np.ndarray, case: tuple[Any, ...]) -> np.ndarray:
    n, _, _, stride, padding, dilation, groups = case
    dilations = spread(dilation, n)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(w.shape[2:], dilations, strict=True)]
        pads = [(t // 2, t - t // 2) for t in totals]
    else:
        pads = [(p, p) for p in spread(0 if padding == "valid" else padding, n)]
    return convolution(x, w, spread(stride, n), pads, dilations, groups)


def close(got: gf.Tensor, wanted: np.ndarray, tolerance: float = 1e-11) -> None:
    assert tuple(got.shape) == wanted.shape
    np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_convolutions_are_sums_over_windows(case: tuple[Any, ...]) -> None:
    n, x_shape, w_shape, stride, padding, dilation, groups = case
    x, w = RNG.standard_normal(x_shape), RNG.standard_normal(w_shape)
    b = RNG.standard_normal(w_shape[0])
    function = getattr(F, f"conv{n}d")
    wanted = expected(x, w, case) + b.reshape(-1, *(1,) * n)
    t, weight, bias = (gf.tensor(a, requires_grad=True) for a in (x, w, b))
    result = function(t, weight, bias, stride, padding, dilation, groups)
    close(result, wanted)
    assert result.is_contiguous()
    close(function(t[0], weight, bias, stride, padding, dilation, groups), wanted[0])
    # The map is bilinear: its gradients are its transposes.
    g = RNG.standard_normal(wanted.shape)
    result.backward(gf.tensor(g))
    dx, dw = RNG.standard_normal(x_shape), RNG.standard_normal(w_shape)
    np.testing.assert_allclose(np.sum(t.grad.numpy() * dx), np.sum(g * expected(dx, w, case)), rtol=1e-10)
    pulled = np.sum(g * expected(x, dw, case))
    np.testing.assert_allclose(np.sum(weight.grad.numpy() * dw), pulled, rtol=1e-10)
    close(bias.grad, g.sum((0, *range(2, n + 2))))


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_transposed_convolutions_add_up_kernels(case: tuple[Any, ...]) -> None:
    n, x_shape, w_shape, stride, padding, extra, dilation, groups = case
    x, w = RNG.standard_normal(x_shape), RNG.standard_normal(w_shape)
    b = RNG.standard_normal(w_shape[1] * groups)
    settings = [spread(v, n) for v in (stride, padding, extra, dilation)]
    wanted = transposed(x, w, *settings, groups) + b.reshape(-1, *(1,) * n)
    function = getattr(F, f"conv_transpose{n}d")
    t, weight, bias = (gf.tensor(a, requires_grad=True) for a in (x, w, b))
    result = function(t, weight, bias, stride, padding, extra, groups, dilation)
    close(result, wanted)
    close(function(t[0], weight, bias, stride, padding, extra, groups, dilation), wanted[0])
    g = RNG.standard_normal(wanted.shape)
    result.backward(gf.tensor(g))
    dx, dw = RNG.standard_normal(x_shape), RNG.standard_normal(w_shape)
    pulled = np.sum(g * transposed(dx, w, *settings, groups))
    np.testing.assert_allclose(np.sum(t.grad.numpy() * dx), pulled, rtol=1e-10)
    pulled = np.sum(g * transposed(x, dw, *settings, groups))
    np.testing.assert_allclose(np.sum(weight.grad.numpy() * dw), pulled, rtol=1e-10)
    close(bias.grad, g.sum((0, *range(2, n + 2))))


def test_a_plain_convolution_is_scipys() -> None:
    x, w = RNG.standard_normal((7, 8)), RNG.standard_normal((3, 2))
    result = F.conv2d(gf.tensor(x[None, None]), gf.tensor(w[None, None]))
    close(result[0, 0], signal.correlate2d(x, w, "valid"))
    back = F.conv_transpose2d(gf.tensor(x[None]), gf.tensor(w[None, None]))
    close(back[0], signal.convolve2d(x, w, "full"))


@pytest.mark.parametrize(
    ("function", "w_shape", "options"),
    [
        (F.conv2d, (4, 3, 3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
        (F.conv2d, (3, 1, 2, 2), {"groups": 3, "padding": 1}),
        (F.conv_transpose2d, (3, 2, 3, 2), {"stride": 2, "padding": 1, "output_padding": (1, 0)}),
    ],
    ids=["dense", "depthwise", "transposed"],
)
def test_one_compiled_variant_serves_all_batch_sizes(function, w_shape, options) -> None:  # type: ignore[no-untyped-def]
    weight = gf.tensor(RNG.standard_normal(w_shape), requires_grad=True)
    bias = gf.tensor(RNG.standard_normal(w_shape[1] if "output_padding" in options else w_shape[0]))

    def step(x: gf.Tensor) -> tuple[gf.Tensor, ...]:
        def loss(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
            return (gf.tanh(function(x, w, bias, **options)) ** 2).sum()

        def slope(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
            return (gf.grad(loss, argnums=0)(x, w) ** 2).sum()

        return loss(x, weight), gf.grad(loss, argnums=1)(x, weight), gf.grad(slope, argnums=1)(x, weight)

    compiled = gf.compile(step)
    for batch in (2, 5, 1, 0):
        x = gf.tensor(RNG.standard_normal((batch, 3, 5, 6)))
        for ours, wanted in zip(compiled(x), step(x), strict=True):
            close(ours, wanted.detach().numpy(), 1e-9)
    assert len(compiled.variants) == 1


def test_second_derivatives() -> None:
    x, w, g = RNG.standard_normal((1, 2, 4)), RNG.standard_normal((2, 2, 2)), RNG.standard_normal((2, 2, 2))

    def slope(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        def loss(w: gf.Tensor) -> gf.Tensor:
            return (F.conv1d(gf.tensor(x), w, padding=1, stride=2) ** 3).sum()

        return gf.grad(loss)(gf.tensor(w)).numpy()

    def objective(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
        def loss(w: gf.Tensor) -> gf.Tensor:
            return (F.conv1d(x, w, padding=1, stride=2) ** 3).sum()

        return (gf.grad(loss)(w) * gf.tensor(g)).sum()

    wanted = numeric_gradients(slope, [x, w], g)
    found = gf.grad(objective, argnums=(0, 1))(gf.tensor(x), gf.tensor(w))
    for ours, theirs in zip(found, wanted, strict=True):
        close(ours, theirs, 1e-5)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda x, w: F.conv2d(x[0, 0], w), ValueError, "expected 3D .* or 4D"),
        (lambda x, w: F.conv2d(x, w[0]), ValueError, "expected a 4D weight"),
        (lambda x, w: F.conv2d(x, w, groups=2), ValueError, "to have 6 channels, but got 3"),
        (lambda x, w: F.conv2d(x, w, groups=3), ValueError, "divisible by 3 at dimension 0"),
        (lambda x, w: F.conv2d(x, w, groups=0), ValueError, "groups must be greater than zero"),
        (lambda x, w: F.conv2d(x, w, gf.ones(3)), ValueError, "bias to be 1-dimensional with 4 elements"),
        (lambda x, w: F.conv2d(x, w.double()), TypeError, "should be the same"),
        (lambda x, w: F.conv2d(x.long(), w.long()), TypeError, "needs a floating point input"),
        (lambda x, w: F.conv2d(x, w, dilation=5), ValueError, "can't be greater than actual input size"),
        (lambda x, w: F.conv2d(x, w, stride=0), ValueError, "stride must be greater than zero"),
        (lambda x, w: F.conv2d(x, w, stride=(1, 1, 1)), ValueError, "stride takes 1 or 2 integers"),
        (lambda x, w: F.conv2d(x, w, padding=-1), ValueError, "padding must be non-negative"),
        (lambda x, w: F.conv2d(x, w, padding=1.5), TypeError, "padding takes integers"),
        (lambda x, w: F.conv2d(x, w, padding="full"), ValueError, "invalid padding string"),
        (lambda x, w: F.conv2d(x, w, 2, padding="same"), TypeError, "must be a Tensor"),
        (lambda x, w: F.conv2d(x, w, stride=2, padding="same"), ValueError, "strided convolutions"),
        (lambda x, w: F.conv_transpose2d(x, w), ValueError, "to have 4 channels"),
        (lambda x, w: F.conv_transpose2d(x, w[:3], output_padding=1), ValueError, "must be smaller than"),
        (lambda x, w: F.conv_transpose2d(x, w[:3], padding=4), ValueError, "is too small"),
        (lambda x, w: nn.Conv2d(3, 4, 3, groups=2), ValueError, "in_channels=3 must be divisible"),
        (lambda x, w: nn.Conv2d(4, 3, 3, groups=2), ValueError, "out_channels=3 must be divisible"),
        (lambda x, w: nn.Conv2d(4, 3, 3, padding_mode="mirror"), ValueError, "padding_mode must be one of"),
        (lambda x, w: nn.ConvTranspose2d(4, 3, 3, padding_mode="reflect"), ValueError, 'Only "zeros"'),
        (lambda x, w: nn.ConvTranspose2d(3, 3, 3)(x, (9, 9)), ValueError, "requested an output size"),
    ],
)
def test_mistakes_are_told(act, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        act(gf.ones(2, 3, 5, 5), gf.ones(4, 3, 2, 2))


# ---------------------------------------------------------------------------------------------- layers


def test_layers_have_pytorchs_parameters_start_and_text() -> None:
    gf.manual_seed(1)
    layer = nn.Conv2d(8, 16, (3, 5), stride=2, padding=1, dilation=(1, 2), groups=4, padding_mode="reflect")
    assert {n: tuple(p.shape) for n, p in layer.named_parameters()} == {
        "weight": (16, 2, 3, 5),
        "bias": (16,),
    }
    bound = 1 / np.sqrt(2 * 3 * 5)
    values = layer.weight.detach().numpy()
    assert np.abs(values).max() <= bound
    assert np.abs(values).max() > 0.9 * bound
    assert np.abs(layer.bias.detach().numpy()).max() <= bound
    assert repr(layer) == (
        "Conv2d(8, 16, kernel_size=(3, 5), stride=(2, 2), padding=(1, 1), dilation=(1, 2), groups=4, "
        "padding_mode=reflect)"
    )
    assert repr(nn.Conv1d(1, 2, 3, padding="same", bias=False)) == (
        "Conv1d(1, 2, kernel_size=(3,), stride=(1,), padding=same, bias=False)"
    )
    back = nn.ConvTranspose2d(4, 6, 3, stride=2, output_padding=1, groups=2)
    assert tuple(back.weight.shape) == (4, 3, 3, 3)
    assert repr(back) == (
        "ConvTranspose2d(4, 6, kernel_size=(3, 3), stride=(2, 2), output_padding=(1, 1), groups=2)"
    )


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [(2, 1), "same"])
def test_padding_modes(mode: str, padding: Any) -> None:
    layer = nn.Conv2d(2, 3, (4, 3), padding=padding, padding_mode=mode, dtype=gf.float64)
    x = RNG.standard_normal((2, 2, 5, 4))
    pads = [(1, 2), (1, 1)] if padding == "same" else [(2, 2), (1, 1)]
    numpy_mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    bordered = np.pad(x, [(0, 0), (0, 0), *pads], mode=numpy_mode)  # type: ignore[call-overload]
    wanted = convolution(bordered, layer.weight.detach().numpy(), (1, 1), [(0, 0)] * 2, (1, 1))
    wanted = wanted + layer.bias.detach().numpy()[:, None, None]
    close(layer(gf.tensor(x)), wanted)
    close(gf.compile(layer)(gf.tensor(x)), wanted)


def test_output_size_picks_among_the_possible_sizes() -> None:
    layer = nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1)
    x = gf.ones(1, 2, 4, 5)
    assert tuple(layer(x).shape) == (1, 3, 7, 9)
    assert tuple(layer(x, output_size=(8, 9)).shape) == (1, 3, 8, 9)
    assert tuple(layer(x, output_size=(1, 3, 8, 10)).shape) == (1, 3, 8, 10)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: F.conv1d(x, w, padding=1, stride=2),
        lambda x, w: F.conv1d(x, w, dilation=2),
        lambda x, w: F.conv_transpose1d(x, w.transpose(0, 1), stride=2, padding=1),
        lambda x, w: F.max_pool1d(x, 2),
        lambda x, w: F.avg_pool1d(x, 3, 2, 1),
        lambda x, w: F.pad(x, (2, 1), "reflect"),
        lambda x, w: F.pad(x, (2, 1), "circular"),
    ],
    ids=["conv", "dilated", "transposed", "max pool", "average pool", "reflect", "circular"],
)
def test_lengths_may_be_symbolic_too(function) -> None:  # type: ignore[no-untyped-def]
    w = gf.tensor(RNG.standard_normal((2, 1, 3)))

    def step(x: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
        def result(x: gf.Tensor) -> gf.Tensor:
            return function(x[None, None], w)

        return result(x), gf.grad(lambda a: (result(a) ** 2).sum())(x)

    compiled = gf.compile(step)
    for length in (9, 6, 11, 5):
        x = gf.tensor(RNG.standard_normal(length))
        for ours, wanted in zip(compiled(x), step(x), strict=True):
            close(ours, wanted.numpy())
    assert len(compiled.variants) == 1


@pytest.mark.parametrize(
    "options",
    [{"stride": 3, "dilation": 2}, {"stride": 2, "padding": 1, "groups": 2}],
    ids=str,
)
def test_second_derivatives_of_strides_over_symbolic_lengths(options: dict[str, int]) -> None:
    w = gf.tensor(RNG.standard_normal((2, 2 // options.get("groups", 1), 3)), requires_grad=True)

    def step(x: gf.Tensor, w: gf.Tensor) -> tuple[gf.Tensor, ...]:
        y = F.conv1d(x.permute(2, 1, 0), w, **options)
        first = gf.autograd.grad((y * y).sum(), [x, w], create_graph=True)
        return (*first, *gf.autograd.grad((first[0] * x).sum() + (first[1] * w).sum(), [x, w]))

    compiled = gf.compile(step)
    for length in (9, 7, 6, 11):
        x = gf.tensor(RNG.standard_normal((length, 2, 2)), requires_grad=True)
        for ours, wanted in zip(compiled(x, w), step(x, w), strict=True):
            close(ours, wanted.detach().numpy())
    assert len(compiled.variants) == 1


def test_under_vmap() -> None:
    x, w = RNG.standard_normal((3, 2, 5, 6)), RNG.standard_normal((4, 2, 3, 2))
    single = gf.vmap(lambda image: F.max_pool2d(F.conv2d(image, gf.tensor(w), padding=1), 2))
    close(single(gf.tensor(x)), F.max_pool2d(F.conv2d(gf.tensor(x), gf.tensor(w), padding=1), 2).numpy())
