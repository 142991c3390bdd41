"""Layers whose sizes follow from the first batch, and buffers given as such."""

from __future__ import annotations

import copy
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn, optim
from graphflow.errors import TraceError

SIZES = {1: (6,), 2: (5, 6), 3: (4, 5, 6)}
LAYERS: list[tuple[str, int, tuple[Any, ...], dict[str, Any]]] = [("Linear", 0, (3,), {"bias": False})]
for rank in (1, 2, 3):
    LAYERS += [
        (f"Conv{rank}d", rank, (4, 2), {"groups": 2, "padding": 1}),
        (f"ConvTranspose{rank}d", rank, (4, 2), {"stride": 2, "output_padding": 1}),
        (f"BatchNorm{rank}d", rank, (), {"bias": False}),
        (f"InstanceNorm{rank}d", rank, (), {"track_running_stats": True, "affine": True}),
    ]


@pytest.mark.parametrize(("name", "rank", "args", "options"), LAYERS, ids=[c[0] for c in LAYERS])
def test_a_lazy_layer_becomes_the_layer(name: str, rank: int, args: Any, options: Any) -> None:
    lazy = getattr(nn, f"Lazy{name}")(*args, **options, dtype=gf.float64)
    kind = getattr(nn, name)
    plain = kind(6, *args, **options, dtype=gf.float64)
    assert isinstance(lazy, kind)
    assert list(lazy.state_dict()) == list(plain.state_dict())
    assert repr(lazy.weight) == "<UninitializedParameter>"
    loaded, other = copy.deepcopy(lazy), copy.deepcopy(lazy)
    other.load_state_dict(lazy.state_dict())
    x = gf.tensor(np.random.default_rng(0).standard_normal((2, 6, *SIZES[rank]) if rank else (2, 6)))
    assert lazy(x).shape == plain(x).shape
    assert type(lazy) is kind
    assert repr(lazy) == repr(plain)
    assert type(lazy.weight) is nn.Parameter
    assert lazy.weight.dtype is gf.float64
    loaded.load_state_dict(lazy.state_dict())
    np.testing.assert_array_equal(loaded.eval()(x).detach().numpy(), lazy.eval()(x).detach().numpy())
    assert repr(loaded) == repr(lazy)
    assert other.has_uninitialized_params()


def test_a_lazy_network_trains_and_compiles() -> None:
    model = nn.Sequential(
        nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
    ).double()
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    x = gf.rand(3, 2, 6, 6, dtype=gf.float64)
    with pytest.raises(TraceError, match="call the model once on a batch before compiling"):
        gf.compile(model)(x)
    first = model(x).square().sum()
    first.backward()
    optimizer.step()
    assert model[4].in_features == 64
    assert model(x).square().sum().item() < first.item()
    np.testing.assert_allclose(gf.compile(model)(x).detach().numpy(), model(x).detach().numpy(), 1e-9)


def test_what_has_no_size_yet_says_so() -> None:
    layer = nn.LazyLinear(3)
    uses: list[Any] = [
        lambda: layer.weight.shape, lambda: layer.weight + 1, lambda: layer.weight.sum(),
        lambda: layer.weight[0], lambda: nn.init.zeros_(layer.weight),
    ]  # fmt: skip
    for use in uses:
        with pytest.raises(ValueError, match="Call the module on a batch first"):
            use()
    with pytest.raises(RuntimeError, match="weight is uninitialized in the checkpoint"):
        nn.Linear(2, 3).load_state_dict(layer.state_dict())
    with pytest.raises(
        RuntimeError, match=r"Expected 3D \(unbatched\) or 4D \(batched\) input to LazyConv2d"
    ):
        nn.LazyConv2d(4, 3)(gf.ones(2, 2))
    with pytest.raises(ValueError, match="in_channels=3 must be divisible by groups=2"):
        nn.LazyConv1d(4, 3, groups=2)(gf.ones(3, 8))
    with pytest.raises(ValueError, match="expected 4D input"):
        nn.LazyBatchNorm2d()(gf.ones(2, 2))
    with pytest.raises(TypeError, match="expected a Tensor, got str"):
        layer("x")


def test_a_module_of_ones_own() -> None:
    class Scale(nn.lazy.LazyModuleMixin):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.UninitializedParameter()
            self.shift = nn.UninitializedBuffer()

        def initialize_parameters(self, input: gf.Tensor) -> None:  # type: ignore[override]
            self.factor.materialize(input.shape[-1:])
            self.shift.materialize(input.shape[-1:])
            nn.init.ones_(self.factor)
            nn.init.zeros_(self.shift)

        def forward(self, input: gf.Tensor) -> gf.Tensor:
            return input * self.factor + self.shift

    scale = Scale()
    assert scale.has_uninitialized_params()
    assert scale(gf.ones(2, 3)).tolist() == [[1.0] * 3] * 2
    assert (type(scale.factor), type(scale.shift)) == (nn.Parameter, gf.Tensor)


def test_buffers_given_as_buffers() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept = nn.Buffer(gf.ones(2))
            self.passing = nn.Buffer(gf.zeros(2), persistent=False)

    module = Counts()
    assert [name for name, _ in module.named_buffers()] == ["kept", "passing"]
    assert list(module.state_dict()) == ["kept"]
    module.kept = gf.zeros(3)
    assert module.kept.shape == (3,)
    with pytest.raises(TypeError, match="a Buffer is made from a Tensor, got int"):
        nn.Buffer(3)  # type: ignore[arg-type]
