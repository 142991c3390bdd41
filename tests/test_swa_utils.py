"""Averages of weights against the means they stand for."""

from __future__ import annotations

import math
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn, optim
from graphflow.optim import swa_utils


def network() -> nn.Module:
    gf.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).double()


def wander(model: nn.Module, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with gf.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(gf.tensor(rng.random(tuple(tensor.shape)) + 0.5))


def course(steps: int) -> list[list[np.ndarray]]:
    model, seen = network(), []
    for i in range(steps):
        wander(model, i)
        seen.append([p.detach().numpy().copy() for p in model.parameters()])
    return seen


def decayed(values: list[np.ndarray], decay: float = 0.9) -> np.ndarray:
    mean = values[0]
    for value in values[1:]:
        mean = decay * mean + (1 - decay) * value
    return mean


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize(
    ("options", "mean"),
    [
        ({}, lambda values: np.mean(values, 0)),
        ({"avg_fn": swa_utils.get_swa_avg_fn()}, lambda values: np.mean(values, 0)),
        ({"multi_avg_fn": swa_utils.get_swa_multi_avg_fn()}, lambda values: np.mean(values, 0)),
        ({"avg_fn": swa_utils.get_ema_avg_fn(0.9)}, decayed),
        ({"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.9)}, decayed),
    ],
)
def test_weights_are_averaged(options: dict[str, Any], mean: Any, compiled: bool) -> None:
    model = network()
    averaged = swa_utils.AveragedModel(model, **options)

    def update() -> None:
        averaged.update_parameters(model)

    run = gf.compile(update) if compiled else update
    for i in range(5):
        wander(model, i)
        run()
    assert averaged.n_averaged.item() == 5
    for place, p in enumerate(averaged.module.parameters()):
        np.testing.assert_allclose(p.detach().numpy(), mean([s[place] for s in course(5)]), rtol=1e-12)
    for held, buffer in zip(averaged.module.buffers(), model.buffers(), strict=True):
        assert held.tolist() == buffer.tolist() and held is not buffer
    if compiled:
        assert len(run.variants) == 1


def test_buffers_are_averaged_on_demand_and_the_state_is_saved() -> None:
    model = network()
    averaged = swa_utils.AveragedModel(model, use_buffers=True)
    seen = []
    for i in range(3):
        wander(model, i)
        seen.append([b.numpy().copy() for b in model.buffers()])
        averaged.update_parameters(model)
    for place, b in enumerate(averaged.module.buffers()):
        if b.is_floating_point():
            np.testing.assert_allclose(b.numpy(), np.mean([s[place] for s in seen], 0), rtol=1e-12)
    saved = averaged.state_dict()
    assert "n_averaged" in saved and "module.0.weight" in saved
    other = swa_utils.AveragedModel(network(), use_buffers=True)
    other.load_state_dict(saved)
    x = gf.tensor([[1.0, 2.0]], dtype=gf.float64)
    assert other.eval()(x).tolist() == averaged.eval()(x).tolist()


def test_running_statistics_are_those_of_one_pass() -> None:
    model = network()
    wander(model, 3)
    batches = [gf.tensor(np.random.default_rng(i).standard_normal((4, 2))) for i in range(3)]
    model.eval()
    swa_utils.update_bn(((b, None) for b in batches), model)
    assert not model.training and model[1].momentum == 0.1
    hidden = [model[0](b).detach().numpy() for b in batches]
    np.testing.assert_allclose(model[1].running_mean.numpy(), np.mean([h.mean(0) for h in hidden], 0))
    np.testing.assert_allclose(model[1].running_var.numpy(), np.mean([h.var(0, ddof=1) for h in hidden], 0))
    swa_utils.update_bn(batches, nn.Linear(2, 2))


@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_rates_go_to_the_one_for_averaging_and_stay(strategy: str) -> None:
    p = gf.ones(1, requires_grad=True)
    q = gf.ones(1, requires_grad=True)
    optimizer = optim.SGD([{"params": [p]}, {"params": [q], "lr": 0.5}], lr=0.1)
    scheduler = swa_utils.SWALR(optimizer, [0.05, 0.2], anneal_epochs=4, anneal_strategy=strategy)
    for epoch in range(8):
        passed = min(1.0, epoch / 4)
        share = passed if strategy == "linear" else (1 - math.cos(math.pi * passed)) / 2
        wanted = [0.05 * share + 0.1 * (1 - share), 0.2 * share + 0.5 * (1 - share)]
        assert scheduler.get_last_lr() == pytest.approx(wanted)
        optimizer.step()
        scheduler.step()


def test_what_does_not_fit_is_told() -> None:
    model, average = network(), swa_utils.get_swa_avg_fn()
    with pytest.raises(ValueError, match="Only one of avg_fn and multi_avg_fn"):
        swa_utils.AveragedModel(model, avg_fn=average, multi_avg_fn=swa_utils.get_swa_multi_avg_fn())
    with pytest.raises(ValueError, match="Invalid decay value 2"):
        swa_utils.get_ema_avg_fn(2)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="one of 'cos' or 'linear'"):
        swa_utils.SWALR(optimizer, 0.1, anneal_strategy="exp")
    with pytest.raises(ValueError, match="anneal_epochs must be equal or greater than 0"):
        swa_utils.SWALR(optimizer, 0.1, anneal_epochs=-1)


def test_schedulers_of_schedulers_of_schedulers() -> None:
    lr = optim.lr_scheduler
    optimizer = optim.SGD([gf.ones(1, requires_grad=True)], lr=1.0)
    inner = lr.ChainedScheduler(
        [lr.ConstantLR(optimizer, 0.1, total_iters=3), lr.ExponentialLR(optimizer, 0.5)]
    )
    scheduler = lr.SequentialLR(optimizer, [inner, lr.StepLR(optimizer, 2, gamma=0.1)], milestones=[6])
    rates = []
    for _ in range(9):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.1, 0.05, 0.025, 0.125, 0.0625, 0.03125, 1.0, 1.0, 0.1])
