"""``autocast`` and ``GradScaler``: what runs in which dtype, at once and compiled, and steps left out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import graphflow as gf
import graphflow.nn.functional as F
import numpy as np
import pytest
from graphflow import nn

RNG = np.random.default_rng(3)
HALVES = {"bfloat16": gf.bfloat16, "float16": gf.float16}


def floats(*shape: int) -> gf.Tensor:
    return gf.tensor(RNG.normal(size=shape).astype(np.float32))


SQUARE, VECTOR = floats(4, 4), floats(4)
LOWERED: dict[str, Callable[[Any], Any]] = {
    "matmul": lambda x: x @ x, "mm": lambda x: gf.mm(x, x), "bmm": lambda x: gf.bmm(x[None], x[None]),
    "addmm": lambda x: gf.addmm(x, x, x), "einsum": lambda x: gf.einsum("ij,jk->ik", x, x),
    "linear": lambda x: F.linear(x, x, x[0]), "conv1d": lambda x: F.conv1d(x[None], x[None]),
    "conv2d": lambda x: F.conv2d(x[None, None], x[None, None, :2, :2]),
    "conv_transpose1d": lambda x: F.conv_transpose1d(x[None], x[:, :, None]),
    "attention": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None]),
    "prelu": lambda x: F.prelu(x, x[0, :1]), "then others": lambda x: (x @ x).exp().softmax(-1),
    "layer_norm": lambda x: F.layer_norm(x @ x, (4,), x[0], x[0]),
}  # fmt: skip
NOT_LOWERED: dict[str, Callable[[Any], Any]] = {
    "mv": lambda x: gf.mv(x, x[0]), "dot": lambda x: gf.dot(x[0], x[0]),
    "outer": lambda x: gf.outer(x[0], x[0]),
    "add": lambda x: x @ x + x, "cat": lambda x: gf.cat([x @ x, x]), "prod": lambda x: (x @ x).prod(),
    "mse_loss": lambda x: F.mse_loss(x @ x, x),
    "cross_entropy": lambda x: F.cross_entropy(x @ x, x.argmax(1)),
    "embedding": lambda x: F.embedding(gf.tensor([1]), x),
}  # fmt: skip


@pytest.mark.parametrize("name", [*LOWERED, *NOT_LOWERED])
@pytest.mark.parametrize("compiled", [False, True])
def test_what_runs_in_which_dtype(name: str, compiled: bool) -> None:
    function = LOWERED.get(name) or NOT_LOWERED[name]

    def cast(x: Any) -> Any:
        with gf.autocast("cpu"):
            return function(x)

    result = (gf.compile(cast) if compiled else cast)(SQUARE)
    assert result.dtype is (gf.bfloat16 if name in LOWERED else gf.float32)
    np.testing.assert_allclose(result.float().numpy(), function(SQUARE).numpy(), rtol=0.1, atol=0.1)
    assert function(SQUARE).dtype is gf.float32
    assert cast(SQUARE.double()).dtype is gf.float64


@pytest.mark.parametrize("dtype", HALVES)
def test_products_are_those_of_rounded_operands(dtype: str) -> None:
    half = HALVES[dtype]
    exact = SQUARE.to(half).double() @ SQUARE.to(half).double()
    with gf.autocast("cpu", dtype=half):
        assert gf.equal(SQUARE @ SQUARE, exact.float().to(half))


def network() -> nn.Sequential:
    gf.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 6), nn.LayerNorm(6),
        nn.Linear(6, 3),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", HALVES)
def test_training_steps_are_near_those_in_float32(dtype: str) -> None:
    x, y = floats(5, 1, 6, 6), gf.tensor([0, 1, 2, 1, 0])

    def gradients(enabled: bool, compiled: bool) -> list[np.ndarray]:
        net = network()

        def step(x: Any, y: Any) -> Any:
            with gf.amp.autocast("cpu", dtype=HALVES[dtype], enabled=enabled):
                loss = F.cross_entropy(net(x), y)
            assert loss.dtype is gf.float32
            loss.backward()
            return loss

        (gf.compile(step) if compiled else step)(x, y)
        assert all(p.dtype is p.grad.dtype is gf.float32 for p in net.parameters())
        return [p.grad.numpy() for p in net.parameters()]

    plain = gradients(False, False)
    for compiled in (False, True):
        for rounded, exact in zip(gradients(True, compiled), plain, strict=True):
            assert np.abs(rounded - exact).max() < 0.1 * max(np.abs(exact).max(), 0.1)


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_recurrent_layers_stay_in_float32(kind: Any) -> None:
    layer, linear = kind(3, 2), nn.Linear(3, 3)
    with gf.autocast("cpu"):
        output, _ = layer(linear(floats(4, 2, 3)))
    assert output.dtype is gf.float32


def test_a_compiled_function_has_a_variant_for_either() -> None:
    function = gf.compile(lambda x: x @ x)
    assert function(SQUARE).dtype is gf.float32
    with gf.autocast("cpu"):
        assert function(SQUARE).dtype is gf.bfloat16
        with gf.autocast("cpu", enabled=False):
            assert function(SQUARE).dtype is gf.float32
        with gf.autocast("cpu", dtype=gf.float16):
            assert function(SQUARE).dtype is gf.float16
    assert len(function.variants) == 3
    assert "autocast is on now" in str(function.variants[1])


def test_its_state_can_be_asked_and_set() -> None:
    assert not gf.is_autocast_enabled("cpu")
    with gf.autocast("cpu"):
        assert gf.is_autocast_enabled("cpu")
        assert gf.is_autocast_cpu_enabled()
        assert not gf.is_autocast_enabled()
    assert gf.get_autocast_dtype("cpu") is gf.bfloat16
    assert gf.get_autocast_cpu_dtype() is gf.bfloat16
    assert gf.amp.is_autocast_available("cpu")

    @gf.autocast("cpu")
    def product(x: Any) -> Any:
        return x @ x

    assert product(SQUARE).dtype is gf.bfloat16
    gf.set_autocast_enabled("cpu", True)
    try:
        assert (SQUARE @ SQUARE).dtype is gf.bfloat16
    finally:
        gf.set_autocast_enabled("cpu", False)
    with pytest.raises(ValueError, match="device_type"):
        gf.autocast(gf.device("cpu"))  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="Disabling"), gf.autocast("cpu", dtype=gf.float32):
        assert (SQUARE @ SQUARE).dtype is gf.float32


@pytest.mark.skipif(gf.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_those_for_one_warn_and_do_nothing() -> None:
    with pytest.warns(UserWarning, match="not available"), gf.autocast("cuda"):
        assert (SQUARE @ SQUARE).dtype is gf.float32
    with pytest.warns(UserWarning, match="not available"):
        scaler = gf.amp.GradScaler()
    assert not scaler.is_enabled()
    assert scaler.get_scale() == 1.0
    assert scaler.state_dict() == {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.amp.GradScaler(enabled=False)
        with gf.cuda.amp.autocast(enabled=False):
            assert not gf.is_autocast_enabled()
        assert not gf.cuda.amp.GradScaler(enabled=False).is_enabled()


@pytest.mark.parametrize("compiled", [False, True])
def test_steps_with_infinite_gradients_are_left_out(compiled: bool) -> None:
    weight = nn.Parameter(gf.tensor([1.0, 2.0]))
    optimizer = gf.optim.SGD([weight], lr=0.5, momentum=0.9)
    scaler = gf.amp.GradScaler("cpu", init_scale=8.0, growth_interval=2)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (weight * x).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        return loss

    run = gf.compile(step) if compiled else step
    scales, values = [], []
    for x in ([1.0, 1.0], [1.0, np.inf], [1.0, 1.0], [1.0, 1.0], [np.nan, 1.0]):
        run(gf.tensor(x))
        scales.append(scaler.get_scale())
        values.append(weight.tolist())
    assert scales == [8.0, 4.0, 4.0, 8.0, 4.0]
    np.testing.assert_allclose(
        values, [[0.5, 1.5], [0.5, 1.5], [-0.45, 0.55], [-1.805, -0.805], [-1.805, -0.805]], rtol=1e-5
    )


def test_scaling_by_hand_and_its_mistakes() -> None:
    weight = nn.Parameter(gf.tensor([1.0]))
    optimizer = gf.optim.SGD([weight], lr=1.0)
    scaler = gf.amp.GradScaler("cpu")
    with pytest.raises(RuntimeError, match="scale"):
        scaler.step(optimizer)
    one, two = scaler.scale([weight.sum(), weight.sum() * 2])
    assert (one.item(), two.item()) == (65536.0, 131072.0)
    one.backward()
    scaler.unscale_(optimizer)
    assert weight.grad.tolist() == [1.0]
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    assert weight.tolist() == [0.0]
    with pytest.raises(RuntimeError, match="already been called"):
        scaler.step(optimizer)
    scaler.update(4.0)
    saved = scaler.state_dict()
    assert saved["scale"] == 4.0
    other = gf.amp.GradScaler("cpu")
    other.load_state_dict(saved)
    assert other.get_scale() == 4.0
    assert other.state_dict() == saved
    with pytest.raises(ValueError, match="growth_factor"):
        gf.amp.GradScaler("cpu", growth_factor=1.0)
