"""Batch, instance and local response normalisation against NumPy formulas, eagerly and compiled."""

from __future__ import annotations

from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.nn import functional as F

from conv_formulas import numeric_gradients

RNG = np.random.default_rng(3)


def channels(vector: np.ndarray, rank: int) -> np.ndarray:
    return vector.reshape(-1, *(1,) * (rank - 2))


def normalised(x: np.ndarray, dims: tuple[int, ...], eps: float) -> np.ndarray:
    return (x - x.mean(dims, keepdims=True)) / np.sqrt(x.var(dims, keepdims=True) + eps)


def close(got: gf.Tensor, wanted: Any, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2)], ids=str)
@pytest.mark.parametrize("compiled", [False, True])
def test_batch_norm_trains_by_the_batch_and_evaluates_by_running_statistics(
    shape: tuple[int, ...], compiled: bool
) -> None:
    rank = len(shape)
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[rank]
    layer = kind(3, eps=1e-3, momentum=0.3, dtype=gf.float64)
    weight, bias = RNG.standard_normal(3), RNG.standard_normal(3)
    layer.load_state_dict({"weight": weight, "bias": bias}, strict=False)
    call = gf.compile(lambda x: layer(x)) if compiled else layer
    dims = (0, *range(2, rank))
    mean, var = np.zeros(3), np.ones(3)
    for batch in (shape[0], 7, 2):
        x = RNG.standard_normal((batch, *shape[1:])) * 2 + 1
        close(call(gf.tensor(x)), normalised(x, dims, 1e-3) * channels(weight, rank) + channels(bias, rank))
        mean = 0.7 * mean + 0.3 * x.mean(dims)
        var = 0.7 * var + 0.3 * x.var(dims, ddof=1)
        close(layer.running_mean, mean)
        close(layer.running_var, var)
    assert layer.num_batches_tracked.item() == 3
    layer.eval()
    wanted = (x - channels(mean, rank)) / np.sqrt(channels(var, rank) + 1e-3)
    close(call(gf.tensor(x)), wanted * channels(weight, rank) + channels(bias, rank))
    close(layer.running_mean, mean)
    assert layer.num_batches_tracked.item() == 3


def test_no_momentum_is_the_plain_average() -> None:
    layer = nn.BatchNorm1d(2, momentum=None, affine=False, dtype=gf.float64)
    step = gf.compile(lambda x: layer(x))
    batches = [RNG.standard_normal((n, 2)) for n in (3, 5, 4, 3)]
    for x in batches:
        step(gf.tensor(x))
    close(layer.running_mean, np.mean([x.mean(0) for x in batches], 0))
    close(layer.running_var, np.mean([x.var(0, ddof=1) for x in batches], 0))
    layer.reset_running_stats()
    assert (layer.running_mean.tolist(), layer.num_batches_tracked.item()) == ([0, 0], 0)


def test_gradients_and_second_gradients() -> None:
    arrays = [RNG.standard_normal(s) for s in ((3, 2, 2), (2,), (2,))]
    g = RNG.standard_normal((3, 2, 2))

    def formula(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        return normalised(x, (0, 2), 0.1) * w[:, None] + b[:, None]

    def loss(x: gf.Tensor, w: gf.Tensor, b: gf.Tensor) -> gf.Tensor:
        return (F.batch_norm(x, None, None, w, b, training=True, eps=0.1) * gf.tensor(g)).sum()

    slope = gf.grad(loss, argnums=(0, 1, 2))
    tensors = [gf.tensor(a) for a in arrays]
    for function in (slope, gf.compile(slope)):
        for ours, wanted in zip(function(*tensors), numeric_gradients(formula, arrays, g), strict=True):
            close(ours, wanted, 1e-6)
    h = RNG.standard_normal((3, 2, 2))

    def first(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return slope(gf.tensor(x), gf.tensor(w), tensors[2])[0].numpy()

    def along(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
        return (gf.grad(loss)(x, w, tensors[2]) * gf.tensor(h)).sum()

    found = gf.grad(along, argnums=(0, 1))(*tensors[:2])
    for ours, wanted in zip(found, numeric_gradients(first, arrays[:2], h), strict=True):
        close(ours, wanted, 1e-5)


def test_one_variant_trains_on_all_batch_sizes() -> None:
    layer, twin = (nn.BatchNorm2d(3, dtype=gf.float64) for _ in range(2))

    def step(layer: nn.BatchNorm2d, x: gf.Tensor) -> tuple[gf.Tensor, ...]:
        layer.zero_grad()
        loss = (layer(x) ** 3).sum()
        loss.backward()
        return loss, layer.weight.grad, layer.bias.grad

    compiled = gf.compile(lambda x: step(layer, x))
    for batch in (4, 2, 9, 1):
        x = gf.tensor(RNG.standard_normal((batch, 3, 2, 3)))
        for ours, wanted in zip(compiled(x), step(twin, x), strict=True):
            close(ours, wanted.detach().numpy())
        for ours, wanted in zip(layer.buffers(), twin.buffers(), strict=True):
            close(ours, wanted.detach().numpy())
    assert len(compiled.variants) == 1
    before = layer.running_mean.numpy().copy()
    assert tuple(layer(gf.zeros((0, 3, 2, 3), dtype=gf.float64)).shape) == (0, 3, 2, 3)
    close(layer.running_mean, before)


def test_without_running_statistics_evaluation_uses_the_batch() -> None:
    layer = nn.BatchNorm1d(3, affine=False, track_running_stats=False, dtype=gf.float64).eval()
    x = RNG.standard_normal((4, 3))
    close(layer(gf.tensor(x)), normalised(x, (0,), 1e-5))
    assert layer.state_dict() == {}


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2)], ids=str)
def test_instance_norm(shape: tuple[int, ...]) -> None:
    rank = len(shape)
    kind = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}[rank]
    layer = kind(3, affine=True, track_running_stats=True, dtype=gf.float64)
    x = RNG.standard_normal(shape)
    dims = tuple(range(2, rank))
    close(layer(gf.tensor(x)), normalised(x, dims, 1e-5))
    close(gf.compile(layer)(gf.tensor(x)), normalised(x, dims, 1e-5))
    mean = x.mean(dims).mean(0) * (1 - 0.9**2)
    var = 0.9**2 + x.var(dims, ddof=1).mean(0) * (1 - 0.9**2)
    close(layer.running_mean, mean)
    close(layer.running_var, var)
    layer.eval()
    close(layer(gf.tensor(x[0])), (x[0] - channels(mean, rank)) / np.sqrt(channels(var, rank) + 1e-5))
    plain = kind(3, dtype=gf.float64).eval()
    close(plain(gf.tensor(x)), normalised(x, dims, 1e-5))


@pytest.mark.parametrize("dtype", [gf.float16, gf.bfloat16], ids=str)
def test_half_precision_sums_in_single(dtype: Any) -> None:
    x = gf.tensor(RNG.standard_normal((70, 2, 32, 32)) + 30).to(dtype)  # sums and counts beyond float16
    known = x.double().numpy()
    wanted = normalised(known, (0, 2, 3), 1e-5)
    layer = nn.BatchNorm2d(2)
    for function in (layer, gf.compile(layer)):
        result = function(x)
        assert result.dtype is dtype
        close(result.double(), wanted, 3e-2 if dtype is gf.bfloat16 else 4e-3)
    close(layer.running_mean.double(), known.mean((0, 2, 3)) * 0.19, 1e-4)
    assert layer.to(dtype)(x).dtype is dtype
    assert layer.eval()(x).dtype is dtype
    pooled = nn.functional.adaptive_avg_pool2d(x * 1000 if dtype is gf.bfloat16 else x * 70, 1)
    scale = 1000 if dtype is gf.bfloat16 else 70
    np.testing.assert_allclose(pooled.double().numpy()[..., 0, 0], known.mean((2, 3)) * scale, rtol=1e-2)


def test_local_response_norm() -> None:
    x = RNG.standard_normal((2, 5, 3, 2))
    padded = np.pad(x**2, [(0, 0), (1, 1), (0, 0), (0, 0)])
    near = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    wanted = x / (2 + 0.5 * near / 3) ** 0.6
    close(nn.LocalResponseNorm(3, 0.5, 0.6, 2.0)(gf.tensor(x)), wanted)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: nn.BatchNorm1d(3)(gf.ones(1, 3)), ValueError, "more than 1 value per channel .* 1, 3"),
        (lambda: gf.compile(nn.BatchNorm1d(3))(gf.ones(1, 3)), ValueError, "more than 1 value per channel"),
        (lambda: nn.BatchNorm1d(3)(gf.ones(3)), ValueError, "expected 2D or 3D input .got 1D"),
        (lambda: nn.BatchNorm2d(3)(gf.ones(2, 3)), ValueError, "expected 4D input .got 2D"),
        (lambda: nn.BatchNorm1d(3)(gf.ones(2, 4)), ValueError, "should contain 4 elements"),
        (lambda: nn.BatchNorm1d(3)(gf.ones(2, 3).double()), TypeError, "should be the same"),
        (lambda: F.batch_norm(gf.ones(2, 3), None, None), ValueError, "to be defined when not training"),
        (lambda: nn.InstanceNorm1d(3)(gf.ones(2, 3, 1)), ValueError, "more than 1 spatial element"),
        (lambda: nn.InstanceNorm1d(3, affine=True)(gf.ones(2, 4, 5)), ValueError, "to match num_features"),
        (lambda: F.local_response_norm(gf.ones(2, 3), 2), ValueError, "expected 3D or higher"),
    ],
)
def test_mistakes_are_told(act, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        act()


def test_layers_print_as_pytorchs() -> None:
    assert repr(nn.BatchNorm2d(4, momentum=None)) == (
        "BatchNorm2d(4, eps=1e-05, momentum=None, affine=True, bias=True, track_running_stats=True)"
    )
    names = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert list(nn.BatchNorm2d(4).state_dict()) == names
    with pytest.warns(UserWarning, match="has 2 channels"):
        nn.InstanceNorm1d(3)(gf.ones(1, 2, 4))


class Centred(nn.Module):
    """Running statistics as PyTorch programs often keep them: the buffer assigned anew."""

    mean: gf.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", gf.zeros(2))
        self.scale = nn.Parameter(gf.ones(2))

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        return (x - self.mean) * self.scale


def test_a_buffer_assigned_anew_outlives_the_compiled_call() -> None:
    eager, compiled = Centred(), Centred()
    buffer = compiled.mean
    run = gf.compile(compiled)
    for n in (3, 5, 3):
        x = gf.randn(n, 2)
        expected, found = eager(x), run(x)
        expected.sum().backward()
        found.sum().backward()
        np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=1e-6)
        np.testing.assert_allclose(compiled.mean.numpy(), eager.mean.numpy(), rtol=1e-6)
    assert compiled.scale.grad is not None and eager.scale.grad is not None
    np.testing.assert_allclose(compiled.scale.grad.numpy(), eager.scale.grad.numpy(), rtol=1e-5)
    assert compiled.mean is buffer and list(compiled.state_dict()) == ["scale", "mean"]


def test_a_buffer_takes_no_value_that_carries_a_gradient_or_is_of_another_shape() -> None:
    layer = Centred()

    @gf.compile
    def spoilt(x: gf.Tensor) -> gf.Tensor:
        layer.mean = x * layer.scale
        return x

    spoilt(gf.ones(2))
    with pytest.raises(gf.errors.TraceError, match="copy_"):
        layer(gf.ones(3, 2))
