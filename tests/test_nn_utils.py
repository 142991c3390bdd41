"""Gradient clipping, parameters as one vector, and the rest of nn.init."""

from __future__ import annotations

import math

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn, optim
from graphflow.nn import init
from graphflow.nn.utils import (
    clip_grad_norm_,
    clip_grad_value_,
    get_total_norm,
    parameters_to_vector,
    vector_to_parameters,
)

RNG = np.random.default_rng(0)
GRADS = [RNG.standard_normal(shape) * 3 for shape in ((2, 3), (4,), ())]


def parameters() -> list[gf.Tensor]:
    ps = [gf.zeros(g.shape, dtype=gf.float64, requires_grad=True) for g in GRADS]
    for p, g in zip(ps, GRADS, strict=True):
        p.grad = gf.tensor(g.copy())
    return [*ps, gf.zeros(1, requires_grad=True)]


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.5, math.inf])
@pytest.mark.parametrize("limit", [0.5, 1e3])
def test_norms_are_clipped_over_all_parameters(norm_type: float, limit: float) -> None:
    everything = np.concatenate([g.ravel() for g in GRADS])
    total = np.linalg.norm(everything, norm_type)
    ps = parameters()
    assert clip_grad_norm_(iter(ps), limit, norm_type).item() == pytest.approx(total)
    share = min(1.0, limit / (total + 1e-6))
    for p, g in zip(ps[:3], GRADS, strict=True):
        np.testing.assert_allclose(p.grad.numpy(), g * share, rtol=1e-12)


def test_norms_that_are_not_finite() -> None:
    p = gf.zeros(2, requires_grad=True)
    p.grad = gf.tensor([math.inf, 1.0])
    with pytest.raises(RuntimeError, match="is non-finite, so it cannot be clipped"):
        clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    with pytest.raises(gf.errors.TraceError, match="looks at the norm's value"):
        gf.compile(lambda g: get_total_norm([g], error_if_nonfinite=True))(gf.ones(3))
    assert clip_grad_norm_(p, 1.0).item() == math.inf
    assert get_total_norm([]).item() == clip_grad_norm_([gf.zeros(1)], 1.0).item() == 0.0


def test_values_are_clipped() -> None:
    ps = parameters()
    clip_grad_value_(ps, 0.7)
    for p, g in zip(ps[:3], GRADS, strict=True):
        assert p.grad.tolist() == np.clip(g, -0.7, 0.7).tolist()


def test_clipping_inside_a_compiled_step_is_the_eager_one() -> None:
    def made() -> tuple[nn.Module, object]:
        gf.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        optimizer = optim.SGD(model.parameters(), lr=0.5)

        def step(x: gf.Tensor) -> gf.Tensor:
            optimizer.zero_grad()
            (model(x) * 5).square().mean().backward()
            total = clip_grad_norm_(model.parameters(), 0.3)
            clip_grad_value_(model.parameters(), 0.1)
            optimizer.step()
            return total

        return model, step

    (one, plain), (two, quick) = made(), made()
    compiled = gf.compile(quick)
    for size in (2, 5, 3):
        x = gf.tensor(RNG.standard_normal((size, 3)))
        assert compiled(x).item() == pytest.approx(plain(x).item(), rel=1e-9)  # type: ignore[operator]
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-9)
    assert len(compiled.variants) == 1


def test_parameters_as_a_vector_and_back() -> None:
    model = nn.Linear(2, 3)
    weight = model.weight
    vector = parameters_to_vector(model.parameters())
    assert vector.tolist() == [*model.weight.flatten().tolist(), *model.bias.tolist()]
    assert vector.requires_grad
    vector_to_parameters(gf.arange(9).float(), model.parameters())
    assert model.weight is weight and weight.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert model.bias.tolist() == [6, 7, 8]
    with pytest.raises(ValueError, match="have 9 elements, the vector 8"):
        vector_to_parameters(gf.ones(8), model.parameters())
    with pytest.raises(TypeError, match="expected Tensor"):
        vector_to_parameters([1.0], model.parameters())


# ---------------------------------------------------------------------------------------------- init


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"), [(0, 1, -2, 2), (1, 2, 0, 1.5), (0, 1, 3, 9), (0, 1, -20, -4)]
)
def test_truncated_normal_draws(mean: float, std: float, a: float, b: float) -> None:
    gf.manual_seed(0)
    drawn = init.trunc_normal_(gf.empty(40_000, dtype=gf.float64), mean, std, a, b).numpy()
    assert drawn.min() >= a and drawn.max() <= b
    grid = np.linspace(a, b, 200_001)
    density = np.exp(-0.5 * ((grid - mean) / std) ** 2)
    expected = (grid * density).sum() / density.sum()
    spread = math.sqrt(((grid - expected) ** 2 * density).sum() / density.sum())
    assert abs(drawn.mean() - expected) < 5 * spread / 200
    assert abs(drawn.std() / spread - 1) < 0.03
    with pytest.raises(ValueError, match="expected a < b"):
        init.trunc_normal_(gf.empty(1), a=1.0, b=1.0)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (3, 2, 2)])
def test_orthogonal_matrices(shape: tuple[int, ...]) -> None:
    matrix = init.orthogonal_(gf.empty(shape, dtype=gf.float64), gain=2.0).numpy().reshape(shape[0], -1)
    rows, columns = matrix.shape
    product = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    np.testing.assert_allclose(product, 4 * np.eye(min(rows, columns)), atol=1e-12)
    with pytest.raises(ValueError, match="2 or more dimensions"):
        init.orthogonal_(gf.empty(3))
    assert tuple(init.orthogonal_(gf.empty(0, 3)).shape) == (0, 3)


@pytest.mark.parametrize("groups", [1, 2])
def test_dirac_hands_channels_through(groups: int) -> None:
    weight = init.dirac_(gf.empty(4, 3, 3, 5), groups).numpy()
    wanted = np.zeros((4, 3, 3, 5))
    for o in range(4):
        if o % (4 // groups) < 3:
            wanted[o, o % (4 // groups), 1, 2] = 1
    assert (weight == wanted).all()
    with pytest.raises(ValueError, match="3, 4, or 5 dimensions"):
        init.dirac_(gf.empty(2, 2))
    with pytest.raises(ValueError, match="divisible by groups"):
        init.dirac_(gf.empty(3, 2, 1), 2)


def test_sparse_columns() -> None:
    gf.manual_seed(0)
    weight = init.sparse_(gf.empty(100, 50), 0.25, std=0.1).numpy()
    assert ((weight == 0).sum(0) == 25).all() and abs(weight[weight != 0].std() - 0.1) < 0.01
    with pytest.raises(ValueError, match="2 dimensions"):
        init.sparse_(gf.empty(3), 0.1)


def test_half_precision_modules() -> None:
    model = nn.Linear(2, 2)
    assert model.half().weight.dtype is gf.float16
    assert model.bfloat16().weight.dtype is gf.bfloat16
    assert model.double().weight.dtype is gf.float64


@pytest.mark.parametrize(
    "name", ["uniform", "normal", "eye", "xavier_uniform", "kaiming_normal", "orthogonal"]
)
def test_older_names_warn_and_do_the_same(name: str) -> None:
    gf.manual_seed(0)
    wanted = getattr(init, f"{name}_")(gf.empty(3, 4)).tolist()
    gf.manual_seed(0)
    with pytest.warns(
        FutureWarning, match=f"`nn.init.{name}` is now deprecated in favor of `nn.init.{name}_`"
    ):
        assert getattr(init, name)(gf.empty(3, 4)).tolist() == wanted
