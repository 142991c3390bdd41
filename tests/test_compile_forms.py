"""``compile`` as PyTorch programs call it: its arguments there, Modules, ``Module.compile``, ``compiler``."""

from __future__ import annotations

import copy
from typing import Any

import graphflow as gf
import graphflow._dynamo
import numpy as np
import pytest
from graphflow import nn
from graphflow.errors import TraceError

X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)


def test_pytorchs_arguments_are_taken_and_checked() -> None:
    @gf.compile(mode="max-autotune", fullgraph=True, dynamic=False)
    def twice(x: Any) -> Any:
        return x * 2

    assert gf.equal(twice(gf.tensor(X)), gf.tensor(2 * X))
    assert gf.compile(model=lambda x: x + 1, backend="inductor", options={})(gf.tensor(1.0)).item() == 2.0

    def plain(x: Any) -> Any:
        return x

    assert gf.compile(plain, disable=True) is plain
    assert gf.compile(disable=True)(plain) is plain
    with pytest.raises(ValueError, match="mode is one of"):
        gf.compile(plain, mode="fastest")
    with pytest.raises(ValueError, match="not both"):
        gf.compile(plain, mode="default", options={})
    with pytest.raises(ValueError, match="backend is one of"):
        gf.compile(plain, backend="llvm")
    with pytest.raises(TypeError, match="another one"):
        gf.compile(plain, backend=lambda graph, inputs: graph)
    for wrong in ({"fullgraph": 1}, {"dynamic": "yes"}, {"options": [1]}, {"disable": None}):
        with pytest.raises(TypeError, match=next(iter(wrong))):
            gf.compile(plain, **wrong)


def network() -> nn.Sequential:
    gf.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 1))


def test_a_compiled_module_is_a_part_of_others() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = gf.compile(network())
            self.last = nn.Linear(1, 1)

        def forward(self, x: Any) -> Any:
            return self.last(self.inner(x))

    outer = Outer().eval()
    assert not outer.inner.training
    names = ["inner.0.weight", "inner.0.bias", "inner.2.weight", "inner.2.bias", "last.weight", "last.bias"]
    assert [name for name, _ in outer.named_parameters()] == names
    assert list(outer.state_dict()) == names
    x = gf.tensor(X)
    before = outer(x)
    with gf.no_grad():
        outer.inner._orig_mod[0].bias.add_(1.0)
    assert not gf.allclose(outer(x), before)
    whole = gf.compile(outer)
    np.testing.assert_allclose(whole(x).detach().numpy(), outer(x).detach().numpy(), rtol=1e-6)
    outer(x).sum().backward()
    assert all(p.grad is not None for p in outer.parameters())
    twin = copy.deepcopy(outer)
    with gf.no_grad():
        twin.inner._orig_mod[0].bias.zero_()
    assert not gf.allclose(outer(x), twin(x))
    assert len(nn.Sequential(gf.compile(network()), nn.ReLU())) == 2


def test_a_compiled_module_answers_for_the_module() -> None:
    net = network()
    compiled = gf.compile(net)
    assert isinstance(compiled, nn.Module)
    assert isinstance(compiled, gf.CompiledFunction)
    assert not isinstance(gf.compile(lambda x: x), nn.Module)
    assert compiled.eval() is compiled
    assert compiled._orig_mod is net
    assert not net.training
    compiled(gf.tensor(X))
    compiled.extra = nn.Linear(1, 1)
    assert "extra.weight" in net.state_dict()
    compiled.train()
    assert net.training


def test_a_module_compiles_itself() -> None:
    net = network().eval()
    x = gf.tensor(X)
    expected = net(x)
    net.compile(mode="default")
    np.testing.assert_allclose(net(x).detach().numpy(), expected.detach().numpy(), rtol=1e-6)
    assert list(net.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    twin = copy.deepcopy(net)
    with gf.no_grad():
        net[0].weight.zero_()
        net[0].bias.zero_()
    assert np.ptp(net(x).detach().numpy()) == 0
    np.testing.assert_allclose(twin(x).detach().numpy(), expected.detach().numpy(), rtol=1e-6)
    net.train()
    assert gf.compile(net)(x).shape == (4, 1)


def test_the_compilers_own_names() -> None:
    assert not gf.compiler.is_compiling()
    assert gf.compile(lambda x: x + gf.compiler.is_compiling())(gf.tensor(1.0)).item() == 2.0

    @gf.compiler.disable(reason="it prints")
    def listed(x: Any) -> Any:
        return x.tolist()

    assert listed(gf.ones(1)) == [1.0]
    with pytest.raises(TraceError, match=r"listed is not to be compiled \(it prints\)"):
        gf.compile(lambda x: listed(x))(gf.ones(1))
    assert gf.compiler.allow_in_graph(listed) is listed
    gf.compiler.reset()
    gf.compiler.cudagraph_mark_step_begin()
    assert "inductor" in gf.compiler.list_backends()
    graphflow._dynamo.config.suppress_errors = False
    graphflow._dynamo.reset()
