"""Modules as functions of their parameters: gradients of each sample, ensembles, compiled."""

from __future__ import annotations

from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.func import functional_call, grad, stack_module_state, vmap

RNG = np.random.default_rng(8)


def batch(*shape: int) -> Any:
    return gf.tensor(RNG.standard_normal(shape), dtype=gf.float32)


def net() -> Any:
    return gf.nn.Sequential(gf.nn.Linear(3, 4), gf.nn.Tanh(), gf.nn.Linear(4, 2))


def test_gradients_of_every_sample() -> None:
    model, x = net(), batch(5, 3)
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(p: Any, row: Any) -> Any:
        return functional_call(model, p, (row,)).pow(2).sum()

    def per_sample(x: Any) -> Any:
        return vmap(grad(loss), (None, 0))(parameters, x)

    compiled = gf.compile(per_sample)
    for count in (5, 2, 5):
        for found in (per_sample(x[:count]), compiled(x[:count])):
            for i in range(count):
                model.zero_grad()
                model(x[i]).pow(2).sum().backward()
                for name, p in model.named_parameters():
                    np.testing.assert_allclose(found[name][i].numpy(), p.grad.numpy(), rtol=1e-4, atol=1e-6)
    assert len(compiled.variants) == 1


def test_convolutions_for_every_sample() -> None:
    model = gf.nn.Sequential(gf.nn.Conv2d(1, 2, 3), gf.nn.ReLU(), gf.nn.MaxPool2d(2), gf.nn.Flatten(0))
    x = batch(3, 1, 6, 6)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    found = vmap(grad(lambda p, a: functional_call(model, p, a).pow(2).sum()), (None, 0))(parameters, x)
    for i in range(3):
        model.zero_grad()
        model(x[i]).pow(2).sum().backward()
        for name, p in model.named_parameters():
            np.testing.assert_allclose(found[name][i].numpy(), p.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_an_ensemble_is_one_batch() -> None:
    models, x = [net() for _ in range(4)], batch(6, 3)
    parameters, buffers = stack_module_state(models)
    assert buffers == {} and parameters["0.weight"].shape == (4, 4, 3) and parameters["0.weight"].is_leaf

    def run(p: Any, x: Any) -> Any:
        return vmap(lambda one, x: functional_call(models[0], (one, {}), (x,)), (0, None))(p, x)

    expected = np.stack([m(x).detach().numpy() for m in models])
    for call in (run, gf.compile(run)):
        np.testing.assert_allclose(call(parameters, x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    run(parameters, x).sum().backward()
    assert parameters["2.bias"].grad is not None and (parameters["2.bias"].grad == 6).all()


def test_batch_norms_without_running_statistics() -> None:
    model = gf.nn.Sequential(gf.nn.Linear(3, 4), gf.nn.BatchNorm1d(4), gf.nn.Sequential(gf.nn.BatchNorm1d(4)))
    batches = batch(2, 5, 3)
    with pytest.raises(RuntimeError, match="running_mean"):
        vmap(model)(batches)
    assert gf.func.replace_all_batch_norm_modules_(model) is model and not dict(model.named_buffers())
    for found, rows in zip(vmap(model)(batches), batches, strict=True):
        np.testing.assert_allclose(found.detach().numpy(), model(rows).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_the_module_stays_as_it_was() -> None:
    model, x = gf.nn.BatchNorm1d(3), batch(8, 3)
    before = dict(model.named_parameters())
    statistics = {"running_mean": gf.zeros(3), "running_var": gf.ones(3)}
    functional_call(model, ({"weight": gf.ones(3) * 2}, statistics), (x,))
    assert all(p is before[name] for name, p in model.named_parameters())
    assert statistics["running_mean"].any() and not model.running_mean.any()
    with pytest.raises(ValueError, match="several dictionaries"):
        functional_call(model, ({"weight": gf.ones(3)}, {"weight": gf.ones(3)}), (x,))
    with pytest.raises(RuntimeError, match="called 'wieght'"):
        functional_call(model, {"wieght": gf.ones(3)}, (x,))
    with pytest.raises(RuntimeError, match="'bias' is missing"):
        functional_call(model, {"weight": gf.ones(3)}, (x,), strict=True)


def test_tied_weights() -> None:
    class Tied(gf.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = gf.nn.Linear(2, 2, bias=False)
            self.b = gf.nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x: Any) -> Any:
            return self.b(self.a(x))

    model, x = Tied(), gf.ones(1, 2)
    assert functional_call(model, {"a.weight": gf.eye(2) * 2}, (x,)).tolist() == [[4, 4]]
    untied = functional_call(
        model, {"a.weight": gf.eye(2), "b.weight": gf.eye(2) * 3}, (x,), tie_weights=False
    )
    assert untied.tolist() == [[3, 3]]
    with pytest.raises(ValueError, match="is tied"):
        functional_call(model, {"a.weight": gf.eye(2), "b.weight": gf.eye(2) * 3}, (x,))
