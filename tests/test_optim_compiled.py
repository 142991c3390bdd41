"""Optimizers inside compiled functions: the eager step, whatever changes between the calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn, optim

OPTIMIZERS: list[Callable[..., optim.Optimizer]] = [
    lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, dampening=0.2, weight_decay=0.01),
    lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
    lambda ps: optim.Adam(ps, lr=0.05, amsgrad=True, weight_decay=0.01),
    lambda ps: optim.AdamW(ps, lr=0.05),
    lambda ps: optim.Adagrad(ps, lr=0.1, lr_decay=0.01),
    lambda ps: optim.RMSprop(ps, lr=0.01, momentum=0.8, centered=True, weight_decay=0.01),
    lambda ps: optim.Adadelta(ps, weight_decay=0.01),
    lambda ps: optim.Adamax(ps, lr=0.05),
    lambda ps: optim.NAdam(ps, lr=0.05, weight_decay=0.01, decoupled_weight_decay=True),
    lambda ps: optim.RAdam(ps, lr=0.05),
    lambda ps: optim.ASGD(ps, lr=0.1, t0=4),
    lambda ps: optim.Rprop(ps),
]


def regression(
    make: Callable[..., optim.Optimizer],
) -> tuple[nn.Module, optim.Optimizer, Callable[..., gf.Tensor]]:
    gf.manual_seed(4)
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    optimizer = make(model.parameters())

    def step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return model, optimizer, step


def batch(size: int, seed: int) -> tuple[gf.Tensor, gf.Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((size, 3))
    return gf.tensor(x), gf.tensor(np.sin(x.sum(1, keepdims=True)))


def same(one: nn.Module, two: nn.Module) -> None:
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_a_compiled_step_is_the_eager_step_whatever_the_rates_and_batch_sizes(make) -> None:  # type: ignore[no-untyped-def]
    model, optimizer, step = regression(make)
    twin, other, plain = regression(make)
    compiled = gf.compile(step)
    for i in range(12):
        for o in (optimizer, other):
            o.param_groups[0]["lr"] *= 0.9
            if i == 5 and o.param_groups[0].get("weight_decay"):
                o.param_groups[0]["weight_decay"] = 0.05
            if i == 7 and o.param_groups[0].get("momentum"):
                o.param_groups[0]["momentum"] = 0.5
        x, y = batch(1 + i % 5, i)
        assert compiled(x, y).item() == pytest.approx(plain(x, y).item(), rel=1e-9)
    same(model, twin)
    assert len(compiled.variants) == 1


def test_switching_momentum_on_is_a_new_variant_and_right() -> None:
    model, optimizer, step = regression(lambda ps: optim.SGD(ps, lr=0.1))
    twin, other, plain = regression(lambda ps: optim.SGD(ps, lr=0.1))
    compiled = gf.compile(step)
    for i in range(6):
        if i == 3:
            optimizer.param_groups[0]["momentum"] = other.param_groups[0]["momentum"] = 0.9
        x, y = batch(4, i)
        compiled(x, y)
        plain(x, y)
    same(model, twin)
    assert len(compiled.variants) == 2


def test_no_weight_decay_costs_nothing_and_switching_it_on_is_one_new_variant() -> None:
    model, optimizer, step = regression(OPTIMIZERS[7])
    twin, other, plain = regression(OPTIMIZERS[7])
    compiled = gf.compile(step)
    texts = []
    for i, decay in enumerate((0.0, 0.1, 0.2, 0.0)):
        optimizer.param_groups[0]["weight_decay"] = other.param_groups[0]["weight_decay"] = decay
        compiled(*batch(4, i))
        plain(*batch(4, i))
        texts.append(str(compiled.explain().graph))
    same(model, twin)
    assert len(compiled.variants) == 2
    assert "weight_decay" not in texts[0] and "weight_decay" in texts[1]


def test_a_compiled_step_goes_on_from_a_loaded_state() -> None:
    model, optimizer, step = regression(OPTIMIZERS[2])
    compiled = gf.compile(step)
    for i in range(3):
        compiled(*batch(4, i))
    weights = {name: t.clone() for name, t in model.state_dict().items()}
    saved = optimizer.state_dict()
    saved["state"] = {n: {k: v.clone() for k, v in e.items()} for n, e in saved["state"].items()}
    first = [compiled(*batch(4, i)).item() for i in range(3, 6)]
    model.load_state_dict(weights)
    optimizer.load_state_dict(saved)
    assert [compiled(*batch(4, i)).item() for i in range(3, 6)] == first
    optimizer.load_state_dict(
        OPTIMIZERS[2](nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1)).parameters()).state_dict()
    )
    assert optimizer.state[model[0].weight]["step"].item() == 0
    assert len(compiled.variants) == 1


def test_compiled_steps_over_changing_parts_of_the_parameters_keep_each_count() -> None:
    def make() -> tuple[list[gf.Tensor], optim.Optimizer, Callable[..., None]]:
        ps = [gf.ones(2, dtype=gf.float64, requires_grad=True) for _ in range(2)]
        optimizer = optim.Adam(ps, lr=0.1)

        def step(g: gf.Tensor, both: bool) -> None:
            optimizer.zero_grad()
            ((ps[0] * g).sum() + (ps[1] * g * g).sum() if both else (ps[0] * g).sum()).backward()
            optimizer.step()

        return ps, optimizer, step

    ps, optimizer, step = make()
    twins, other, plain = make()
    compiled = gf.compile(step)
    for i in range(8):
        g = gf.tensor([0.5 + i, 1.0])
        compiled(g, i in (0, 1, 4, 6))
        plain(g, i in (0, 1, 4, 6))
    for p, twin in zip(ps, twins, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), twin.detach().numpy(), rtol=1e-10)
        assert optimizer.state[p]["step"].item() == other.state[twin]["step"].item()


def test_inside_a_compiled_function_rates_are_part_of_the_step() -> None:
    p = gf.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=1.0)

    @gf.compile
    def step() -> gf.Tensor:
        p.grad = gf.ones(1)
        optimizer.step()
        optimizer.param_groups[0]["lr"] *= 0.5
        return optimizer.param_groups[0]["lr"] * 1.0

    assert [step().item() for _ in range(3)] == [0.5, 0.25, 0.125]
    assert optimizer.param_groups[0]["lr"] == 0.125
    assert p.item() == 1 - 1.75


def test_users_own_optimizers_trace_too() -> None:
    class Plain(optim.Optimizer):
        def __init__(self, params: Any, lr: float):
            super().__init__(params, {"lr": lr})

        def _update(self, group: Any, params: Any) -> None:
            for p, g in params:
                p.sub_(group["lr"] * g)

    p = gf.tensor([1.0], requires_grad=True)
    optimizer = Plain([p], lr=0.5)

    @gf.compile
    def step() -> None:
        p.grad = gf.ones(1)
        optimizer.step()

    step()
    optimizer.param_groups[0]["lr"] = 0.25
    step()
    assert p.item() == 0.25
    assert len(step.variants) == 1


@pytest.mark.parametrize("kind", [optim.Adam, optim.RMSprop, optim.Adagrad])
def test_parameters_that_are_frozen_for_some_steps_and_then_thawed(kind: Any) -> None:
    found = []
    for life in (lambda f: f, gf.compile):
        first, second = (gf.full((1,), v, dtype=gf.float64, requires_grad=True) for v in (1.0, 2.0))
        optimizer = kind([first, second], lr=0.1)

        @life
        def step(x: Any, optimizer: Any = optimizer, first: Any = first, second: Any = second) -> Any:
            loss = ((first * x) ** 2 + (second * x) ** 3).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        losses = []
        for number in range(9):
            first.requires_grad = not 3 <= number < 6
            losses.append(step(gf.ones(1, dtype=gf.float64)).item())
        steps = [float(state["step"]) for state in optimizer.state_dict()["state"].values()]
        found.append((losses, steps))
    (eager, counted), (compiled, counted_too) = found
    np.testing.assert_allclose(compiled, eager, rtol=1e-12)
    assert counted == counted_too == [6.0, 9.0]
