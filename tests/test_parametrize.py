"""Parameters that are functions of others: general ones, weight and spectral normalisation."""

from __future__ import annotations

import copy
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn, optim
from graphflow.nn.utils import (
    parametrizations,
    parametrize,
    remove_spectral_norm,
    remove_weight_norm,
    spectral_norm,
    weight_norm,
)

RNG = np.random.default_rng(0)


class Symmetric(nn.Module):
    def forward(self, x: gf.Tensor) -> gf.Tensor:
        return x.triu() + x.triu(1).T

    def right_inverse(self, a: gf.Tensor) -> gf.Tensor:
        return a.triu()


class Exp(nn.Module):
    def forward(self, x: gf.Tensor) -> gf.Tensor:
        return x.exp()


class Shorter(nn.Module):
    def forward(self, x: gf.Tensor) -> gf.Tensor:
        return x[1:]


def test_a_parameter_becomes_a_function_of_itself() -> None:
    layer = nn.Linear(3, 3)
    original = layer.weight
    before = original.detach().numpy().copy()
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    assert layer.parametrizations.weight.original is original
    assert [name for name, _ in layer.named_parameters()] == ["bias", "parametrizations.weight.original"]
    upper = np.triu(before)
    np.testing.assert_array_equal(layer.weight.detach().numpy(), upper + np.triu(before, 1).T)
    assert isinstance(layer, nn.Linear)
    assert (type(layer).__name__, parametrize.type_before_parametrizations(layer)) == (
        "ParametrizedLinear",
        nn.Linear,
    )
    assert (parametrize.is_parametrized(layer), parametrize.is_parametrized(layer, "bias")) == (True, False)

    value = RNG.standard_normal((3, 3)).astype("f")
    layer.weight = gf.tensor(value + value.T)
    np.testing.assert_allclose(layer.weight.detach().numpy(), value + value.T)
    layer.weight.sum().backward()
    assert original.grad.tolist() == [[1, 2, 2], [0, 1, 2], [0, 0, 1]]
    twin = copy.deepcopy(layer)
    with gf.no_grad():
        twin.parametrizations.weight.original.fill_(0)
    assert layer.weight.any()
    assert not twin.weight.any()

    parametrize.register_parametrization(layer, "weight", Exp())
    np.testing.assert_allclose(layer.weight.detach().numpy(), np.exp(value + value.T), rtol=1e-6)
    with parametrize.cached():
        assert layer.weight is layer.weight
    assert layer.weight is not layer.weight
    with pytest.raises(RuntimeError, match="Exp does not implement right_inverse"):
        layer.weight = gf.ones(3, 3)

    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear
    assert layer.weight is original
    np.testing.assert_allclose(original.detach().numpy(), np.exp(value + value.T), rtol=1e-6)
    assert not hasattr(layer, "parametrizations")


def test_what_does_not_go() -> None:
    layer = nn.Linear(2, 2)
    calls: list[tuple[type[Exception], str, Any]] = [
        (
            ValueError,
            "with name 'nothing'",
            lambda: parametrize.register_parametrization(layer, "nothing", Exp()),
        ),
        (
            ValueError,
            "change the shape",
            lambda: parametrize.register_parametrization(layer, "bias", Shorter()),
        ),
        (
            TypeError,
            "expected modules, got int",
            lambda: parametrize.register_parametrization(layer, "bias", 3),
        ),
        (
            ValueError,
            "not have a parametrization",
            lambda: parametrize.remove_parametrizations(layer, "bias"),
        ),
        (ValueError, "no parameter or buffer", lambda: parametrizations.spectral_norm(layer, "nothing")),
        (ValueError, "to be positive", lambda: parametrizations.spectral_norm(layer, n_power_iterations=0)),
        (IndexError, "out of range", lambda: parametrizations.spectral_norm(layer, dim=2)),
        (IndexError, "dim=2 isn't", lambda: parametrizations.weight_norm(layer, dim=2)),
        (ValueError, "no parameter 'nothing'", lambda: weight_norm(layer, "nothing")),
        (ValueError, "no parameter 'nothing'", lambda: spectral_norm(layer, "nothing")),
        (ValueError, "to be positive", lambda: spectral_norm(layer, n_power_iterations=-1)),
        (ValueError, "weight_norm of 'weight' not found", lambda: remove_weight_norm(layer)),
        (ValueError, "spectral_norm of 'weight' not found", lambda: remove_spectral_norm(layer)),
    ]
    for kind, message, call in calls:
        with pytest.raises(kind, match=message):
            call()
    assert type(layer) is nn.Linear
    normed = parametrizations.weight_norm(layer)
    with pytest.raises(ValueError, match="leave_parametrized=False"):
        parametrize.remove_parametrizations(normed, "weight", leave_parametrized=False)
    parametrize.register_parametrization(layer, "bias", Shorter(), unsafe=True)
    assert layer.bias.shape == (1,)


def trained(make: Any) -> nn.Module:
    """A layer after three steps, checked to be the same after three compiled ones."""
    layers = []
    xs = RNG.standard_normal((3, 4, 3))
    for wrap in (lambda f: f, gf.compile):
        gf.manual_seed(0)
        layer = make(nn.Linear(3, 2).double())
        optimizer = optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)

        def step(x: gf.Tensor, layer: Any = layer, optimizer: Any = optimizer) -> gf.Tensor:
            optimizer.zero_grad()
            loss: gf.Tensor = layer(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = wrap(step)
        for x in xs:
            run(gf.tensor(x))
        layers.append(layer)
    eager, quick = layers
    assert len(eager.state_dict()) == len(quick.state_dict())
    for name, value in eager.state_dict().items():
        np.testing.assert_allclose(quick.state_dict()[name].numpy(), value.numpy(), 1e-9, err_msg=name)
    return eager


@pytest.mark.parametrize(("dim", "axes"), [(0, (1,)), (1, (0,)), (None, (0, 1)), (-1, (0, 1))])
@pytest.mark.parametrize(
    ("make", "names"),
    [
        (
            parametrizations.weight_norm,
            ["parametrizations.weight.original0", "parametrizations.weight.original1"],
        ),
        (weight_norm, ["weight_g", "weight_v"]),
    ],
)
def test_weight_norm(make: Any, names: list[str], dim: int | None, axes: tuple[int, ...]) -> None:
    plain = nn.Linear(3, 2)
    value = plain.weight.detach().numpy().copy()
    made = make(plain, dim=dim)
    np.testing.assert_allclose(made.weight.detach().numpy(), value, rtol=1e-6)
    assert [name for name, _ in made.named_parameters()] == ["bias", *names]
    layer: Any = trained(lambda layer: make(layer, dim=dim))
    g, v = (layer.state_dict()[name].numpy() for name in names)
    norms = np.sqrt((v**2).sum(axes, keepdims=len(axes) == 1))
    assert g.shape == norms.shape
    np.testing.assert_allclose(layer.weight.detach().numpy(), g / norms * v, rtol=1e-12)
    if make is weight_norm:
        before = layer.weight.detach().numpy()
        assert type(remove_weight_norm(layer)) is nn.Linear
        np.testing.assert_array_equal(layer.weight.detach().numpy(), before)


@pytest.mark.parametrize("make", [parametrizations.spectral_norm, spectral_norm])
def test_spectral_norm(make: Any) -> None:
    layer: Any = trained(make)
    state = {name.split(".")[-1].removeprefix("weight"): v.numpy() for name, v in layer.state_dict().items()}
    weight = state.get("original", state.get("_orig"))
    u, v = state["_u"], state["_v"]
    assert weight is not None
    layer.eval()
    np.testing.assert_allclose(layer.weight.detach().numpy(), weight / (u @ weight @ v), rtol=1e-12)
    np.testing.assert_allclose([u @ u, v @ v], 1)
    layer.train()
    for _ in range(200):
        layer(gf.ones(1, 3).double())
    largest = np.linalg.svd(layer.eval().weight.detach().numpy())[1][0]
    assert largest == pytest.approx(1)
    if make is spectral_norm:
        before = layer.weight.detach().numpy()
        assert type(remove_spectral_norm(layer)) is nn.Linear
        np.testing.assert_array_equal(layer.weight.detach().numpy(), before)


def test_spectral_norm_of_other_layers() -> None:
    for layer, rows in ((nn.Conv2d(2, 3, 2), 3), (nn.ConvTranspose2d(2, 3, 2), 3), (nn.Embedding(5, 2), 5)):
        normed = parametrizations.spectral_norm(layer, n_power_iterations=300)
        normed.train()
        weight = normed.weight.detach()
        matrix = weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight
        largest = np.linalg.svd(matrix.reshape(rows, -1).numpy())[1][0]
        assert largest == pytest.approx(1, rel=1e-4)
    flat = parametrizations.spectral_norm(nn.Linear(2, 3), "bias")
    assert flat.bias.norm().item() == pytest.approx(1)
