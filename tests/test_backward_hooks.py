"""Functions that run when a gradient goes back through a module."""

from __future__ import annotations

from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.errors import TraceError

RNG = np.random.default_rng(0)


def numbers(grads: Any) -> list[Any]:
    return [None if g is None else g.detach().numpy() for g in grads]


def test_a_hook_sees_gradients_of_inputs_and_outputs_of_this_call_only() -> None:
    layer = nn.Linear(3, 2).double()
    seen: list[Any] = []
    handle = layer.register_full_backward_hook(lambda *told: seen.append(told))
    x = gf.tensor(RNG.standard_normal((4, 3)), requires_grad=True)
    h = x * 1
    weights = RNG.standard_normal((4, 2))
    (layer(h) * gf.tensor(weights)).sum().backward(retain_graph=True)
    assert len(seen) == 1
    assert seen[0][0] is layer
    through = weights @ layer.weight.detach().numpy()
    np.testing.assert_allclose(numbers(seen[0][1])[0], through)
    np.testing.assert_allclose(numbers(seen[0][2])[0], weights)
    x.grad = None
    ((layer(h) * gf.tensor(weights)).sum() + h.square().sum()).backward()
    np.testing.assert_allclose(numbers(seen[1][1])[0], through)
    np.testing.assert_allclose(x.grad.numpy(), through + 2 * x.detach().numpy())
    layer(gf.ones(1, 3).double()).sum().backward()
    assert seen[2][1] == (None,)
    handle.remove()
    layer(h).sum().backward()
    assert len(seen) == 3


def test_hooks_may_change_gradients() -> None:
    layer = nn.Linear(2, 2, bias=False)
    layer.register_full_backward_pre_hook(lambda module, grads: (grads[0] * 2,))
    layer.register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * 10,))
    x = gf.ones(1, 2, requires_grad=True)
    layer(x * 1).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 20 * layer.weight.detach().numpy().sum(0, keepdims=True))
    assert layer.weight.grad.tolist() == [[2, 2], [2, 2]]


def test_modules_of_several_tensors() -> None:
    class Both(nn.Module):
        def forward(self, a: gf.Tensor, b: gf.Tensor, factor: int) -> tuple[gf.Tensor, gf.Tensor]:
            return a * b * factor, a + b

    module, seen = Both(), []
    module.register_full_backward_hook(lambda module, i, o: seen.append((numbers(i), numbers(o))))
    a, b = (gf.tensor(RNG.standard_normal(3), requires_grad=True) for _ in range(2))
    product, total = module(a * 1, b.detach(), 5)
    (product.sum() + 2 * total.sum()).backward()
    (inputs, outputs) = seen[0]
    np.testing.assert_allclose(inputs[0], 5 * b.detach().numpy() + 2)
    assert inputs[1] is None
    assert [g.tolist() for g in outputs] == [[1, 1, 1], [2, 2, 2]]
    np.testing.assert_allclose(a.grad.numpy(), inputs[0])


def test_what_hooks_can_not_do() -> None:
    layer = nn.Linear(2, 2)
    layer.register_full_backward_hook(lambda module, inputs, outputs: (None, None))
    x = gf.ones(1, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="invalid number of grad_input, got 2, but expected 1"):
        layer(x * 1).sum().backward()
    with pytest.raises(TraceError, match="backward hooks of modules are Python"):
        gf.compile(layer)(gf.ones(1, 2))
    with gf.no_grad():
        assert layer(gf.ones(1, 2)).shape == (1, 2)


def test_submodules_are_set_by_path() -> None:
    model = nn.Sequential(nn.Sequential(nn.ReLU()), nn.ReLU())
    model.set_submodule("0.0", nn.Tanh(), strict=True)
    model.set_submodule("0.1", nn.Tanh())
    assert [type(m) for m in model[0]] == [nn.Tanh, nn.Tanh]
    for path, module, kind in [
        ("", nn.ReLU(), ValueError), ("0", 3, ValueError), ("7.0", nn.ReLU(), AttributeError),
    ]:  # fmt: skip
        with pytest.raises(kind):
            model.set_submodule(path, module)  # type: ignore[arg-type]
    with pytest.raises(AttributeError, match="no attribute `5`"):
        model.set_submodule("5", nn.ReLU(), strict=True)
    shared = nn.ReLU()
    twice = nn.Sequential(shared, shared)
    assert (len(list(twice.modules())), len(list(twice.modules(remove_duplicate=False)))) == (2, 3)
