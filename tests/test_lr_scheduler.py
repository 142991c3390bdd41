"""Learning rate schedulers against closed formulas, combined, saved, and over compiled steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import graphflow as gf
import pytest
from graphflow import optim
from graphflow.errors import TraceError
from graphflow.optim import lr_scheduler as S

BASES = (0.1, 0.2)
EPOCHS = 40


def optimizer(kind: str = "SGD") -> optim.Optimizer:
    groups = [{"params": [gf.ones(1, requires_grad=True)], "lr": lr} for lr in BASES]
    return optim.SGD(groups, momentum=0.9) if kind == "SGD" else optim.AdamW(groups)


def rates(o: optim.Optimizer) -> list[float]:
    return [group["lr"] for group in o.param_groups]


def walk(o: optim.Optimizer, scheduler: S.LRScheduler, epochs: int = EPOCHS) -> list[list[float]]:
    """The rates of every epoch."""
    seen = []
    for _ in range(epochs):
        seen.append(rates(o))
        assert scheduler.get_last_lr() == rates(o)
        o.step()
        scheduler.step()
    return seen


def cosine(passed: float, low: float, high: float) -> float:
    return low + (high - low) * (1 + math.cos(math.pi * passed)) / 2


def triangle(e: int, up: int, down: int) -> float:
    place = e % (up + down)
    return place / up if place <= up else 1 - (place - up) / down


def restarted(e: int, base: float) -> float:
    start, length = 0, 4
    while e >= start + length:
        start, length = start + length, 2 * length
    return cosine((e - start) / length, 0.001, base)


def one_cycle(e: int, top: float) -> float:
    peak, end, start = 0.3 * 41 - 1, 40, top / 25
    if e <= peak:
        return cosine(1 - e / peak, start, top)
    return cosine((e - peak) / (end - peak), start / 1e4, top)


Make = Callable[[optim.Optimizer], S.LRScheduler]
CASES: dict[str, tuple[Make, Callable[[int, float], float]]] = {
    "lambda": (lambda o: S.LambdaLR(o, lambda e: 0.95**e), lambda e, b: b * 0.95**e),
    "multiplicative": (
        lambda o: S.MultiplicativeLR(o, lambda e: e / (e + 1)),
        lambda e, b: b / (e + 1),
    ),
    "step": (lambda o: S.StepLR(o, 7, 0.3), lambda e, b: b * 0.3 ** (e // 7)),
    "multi_step": (
        lambda o: S.MultiStepLR(o, [3, 10, 10, 20], 0.5),
        lambda e, b: b * 0.5 ** sum(e >= m for m in (3, 10, 10, 20)),
    ),
    "constant": (lambda o: S.ConstantLR(o, 0.4, 9), lambda e, b: b * (0.4 if e < 9 else 1)),
    "linear": (
        lambda o: S.LinearLR(o, 0.2, 0.7, 12),
        lambda e, b: b * (0.2 + 0.5 * min(e, 12) / 12),
    ),
    "exponential": (lambda o: S.ExponentialLR(o, 0.9), lambda e, b: b * 0.9**e),
    "polynomial": (
        lambda o: S.PolynomialLR(o, 11, 1.7),
        lambda e, b: b * (1 - min(e, 11) / 11) ** 1.7,
    ),
    "cosine": (lambda o: S.CosineAnnealingLR(o, 13, 0.003), lambda e, b: cosine(e / 13, 0.003, b)),
    "restarts": (lambda o: S.CosineAnnealingWarmRestarts(o, 4, 2, 0.001), restarted),
    "one_cycle": (
        lambda o: S.OneCycleLR(o, [5 * b for b in BASES], total_steps=41),
        lambda e, b: one_cycle(e, 5 * b),
    ),
    "cyclic": (
        lambda o: S.CyclicLR(o, list(BASES), [3 * b for b in BASES], 5, 7),
        lambda e, b: b + 2 * b * triangle(e, 5, 7),
    ),
    "cyclic_halved": (
        lambda o: S.CyclicLR(o, list(BASES), [3 * b for b in BASES], 5, mode="triangular2"),
        lambda e, b: b + 2 * b * triangle(e, 5, 5) / 2 ** (e // 10),
    ),
    "cyclic_falling": (
        lambda o: S.CyclicLR(o, list(BASES), [3 * b for b in BASES], 3, mode="exp_range", gamma=0.97),
        lambda e, b: b + 2 * b * triangle(e, 3, 3) * 0.97**e,
    ),
    "warm_up_then_cosine": (
        lambda o: S.SequentialLR(o, [S.LinearLR(o, 0.1, 1.0, 5), S.CosineAnnealingLR(o, 35)], [5]),
        lambda e, b: b * (0.1 + 0.9 * e / 5) if e < 5 else cosine((e - 5) / 35, 0, b),
    ),
    "chained": (
        lambda o: S.ChainedScheduler([S.ConstantLR(o, 0.1, 4), S.ExponentialLR(o, 0.9)]),
        lambda e, b: b * (0.1 if e < 4 else 1) * 0.9**e,
    ),
}


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
@pytest.mark.parametrize("name", CASES)
def test_rates_follow_the_formula(name: str, kind: str) -> None:
    make, formula = CASES[name]
    o = optimizer(kind)
    for e, found in enumerate(walk(o, make(o))):
        assert found == pytest.approx([formula(e, base) for base in BASES], rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_scheduler_goes_on(name: str) -> None:
    make, _ = CASES[name]
    wanted_of = optimizer()
    wanted = walk(wanted_of, make(wanted_of))
    first = optimizer()
    scheduler = make(first)
    walk(first, scheduler, 17)
    second = optimizer()
    other = make(second)
    second.load_state_dict(first.state_dict())
    other.load_state_dict(scheduler.state_dict())
    assert walk(second, other, EPOCHS - 17) == wanted[17:]


def test_momentum_goes_the_other_way() -> None:
    o = optimizer()
    scheduler = S.CyclicLR(o, 0.1, 0.3, 5, base_momentum=0.5, max_momentum=0.9)
    for e in range(12):
        found = [group["momentum"] for group in o.param_groups]
        assert found == pytest.approx([0.9 - 0.4 * triangle(e, 5, 5)] * 2)
        o.step()
        scheduler.step()
    o = optimizer("AdamW")
    scheduler = S.OneCycleLR(o, 1.0, epochs=4, steps_per_epoch=5, anneal_strategy="linear", three_phase=True)
    assert scheduler.total_steps == 20
    rising, falling = 0.3 * 20 - 1, 2 * 0.3 * 20 - 2
    for e in range(20):
        peak = e / rising if e <= rising else max(0.0, (falling - e) / (falling - rising))
        assert o.param_groups[0]["betas"] == pytest.approx((0.95 - 0.1 * peak, 0.999))
        o.step()
        scheduler.step()
    with pytest.raises(ValueError, match="Tried to step 21 times"):
        scheduler.step()


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_the_rate_falls_on_a_plateau(mode: str, threshold_mode: str) -> None:
    o = optimizer()
    scheduler = S.ReduceLROnPlateau(
        o, mode, 0.5, patience=2, threshold=0.1, threshold_mode=threshold_mode, cooldown=1, min_lr=[0, 0.15]
    )
    sign = 1 if mode == "min" else -1
    seen = []
    #          best  ------- bad ------  rest  ---- bad -----  better
    for metric in (2.0, 1.95, 1.95, 1.95, 1.95, 1.95, 1.95, 1.95, 1.0, 1.0):
        o.step()
        scheduler.step(gf.tensor(metric if sign == 1 else (4 - metric)))
        seen.append(rates(o)[0])
    assert seen == [0.1] * 3 + [0.05] * 4 + [0.025] * 3
    assert rates(o)[1] == 0.15 and scheduler.get_last_lr() == rates(o)
    other = S.ReduceLROnPlateau(optimizer(), mode)
    other.load_state_dict(scheduler.state_dict())
    assert (other.best, other.num_bad_epochs) == (scheduler.best, 1)


def test_changing_rates_compile_nothing_anew() -> None:
    p = gf.tensor([1.0], dtype=gf.float64, requires_grad=True)
    o = optim.SGD([p], lr=1.0)

    @gf.compile
    def step() -> None:
        o.zero_grad()
        p.sum().backward()
        o.step()

    step()
    scheduler = S.OneCycleLR(o, 2.0, total_steps=20, cycle_momentum=False)
    wanted = p.item()
    for _ in range(20):
        wanted -= o.param_groups[0]["lr"]
        step()
        assert p.item() == pytest.approx(wanted)
        scheduler.step()
    assert len(step.variants) == 1


def test_a_step_inside_a_compiled_function_is_refused() -> None:
    o = optimizer()
    scheduler = S.ExponentialLR(o, 0.9)
    with pytest.raises(TraceError, match=r"call scheduler\.step\(\) outside"):
        gf.compile(scheduler.step)()


def test_steps_in_the_wrong_order_are_warned_of() -> None:
    scheduler = S.ExponentialLR(optimizer(), 0.9)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()


def test_schedulers_go_on_from_an_epoch() -> None:
    o = optimizer()
    with pytest.raises(KeyError, match="'initial_lr' is not specified in param_groups"):
        S.StepLR(o, 7, 0.3, last_epoch=8)
    first = S.StepLR(o, 7, 0.3)
    walk(o, first, 9)
    again = S.StepLR(o, 7, 0.3, last_epoch=8)
    assert again.last_epoch == 9 and rates(o) == pytest.approx([b * 0.3 for b in BASES])
    cosine_again = S.CosineAnnealingWarmRestarts(o, 4)
    cosine_again.step(5.5)
    assert rates(o) == pytest.approx([cosine(1.5 / 4, 0, b) for b in BASES])


class Halving:
    """A callable with state."""

    def __init__(self) -> None:
        self.power = 1

    def __call__(self, epoch: int) -> float:
        return 0.5 ** (epoch * self.power)


def test_callable_objects_are_saved_by_their_attributes() -> None:
    o = optimizer()
    scheduler = S.LambdaLR(o, [Halving(), lambda e: 1.0])
    scheduler.lr_lambdas[0].power = 2
    saved = scheduler.state_dict()
    assert saved["lr_lambdas"] == [{"power": 2}, None]
    other = S.LambdaLR(optimizer(), [Halving(), lambda e: 1.0])
    other.load_state_dict(saved)
    assert other.lr_lambdas[0].power == 2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: S.StepLR(3, 1), TypeError, "int is not an Optimizer"),
        (lambda o: S.ReduceLROnPlateau(3), TypeError, "int is not an Optimizer"),
        (lambda o: S.LambdaLR(o, [abs]), ValueError, "Expected 2 lr_lambdas, but got 1"),
        (lambda o: S.ConstantLR(o, 2.0), ValueError, "between 0 and 1"),
        (lambda o: S.LinearLR(o, 0.0), ValueError, "Starting multiplicative factor"),
        (lambda o: S.LinearLR(o, 0.5, 2.0), ValueError, "Ending multiplicative factor"),
        (lambda o: S.CosineAnnealingWarmRestarts(o, 0), ValueError, "positive integer T_0"),
        (lambda o: S.CosineAnnealingWarmRestarts(o, 1, 0), ValueError, "T_mult >= 1"),
        (lambda o: S.CosineAnnealingWarmRestarts(o, 1).step(-1), ValueError, "non-negative epoch"),
        (lambda o: S.OneCycleLR(o, 1.0), ValueError, "You must define either total_steps"),
        (lambda o: S.OneCycleLR(o, 1.0, total_steps=0), ValueError, "positive integer total_steps"),
        (lambda o: S.OneCycleLR(o, 1.0, 9, pct_start=2.0), ValueError, "between 0 and 1 pct_start"),
        (lambda o: S.OneCycleLR(o, 1.0, 9, anneal_strategy="x"), ValueError, "one of 'cos' or 'linear'"),
        (lambda o: S.OneCycleLR(o, [1.0], 9), ValueError, "expected 2 values for max_lr, got 1"),
        (lambda o: S.CyclicLR(o, 0.1, 0.2, mode="x"), ValueError, "mode is invalid"),
        (lambda o: S.ReduceLROnPlateau(o, factor=1.0), ValueError, "Factor should be < 1.0"),
        (lambda o: S.ReduceLROnPlateau(o, mode="x"), ValueError, "mode x is unknown"),
        (lambda o: S.ReduceLROnPlateau(o, threshold_mode="x"), ValueError, "threshold mode x is unknown"),
        (lambda o: S.SequentialLR(o, [], []), ValueError, "at least one scheduler"),
        (lambda o: S.SequentialLR(o, [S.StepLR(o, 1)], [1]), ValueError, "one more than the number"),
        (lambda o: S.ChainedScheduler([]), ValueError, "at least one scheduler"),
        (
            lambda o: S.ChainedScheduler([S.StepLR(o, 1), S.StepLR(optimizer(), 1)]),
            ValueError,
            "the scheduler at index 1 belongs to another one",
        ),
        (lambda o: S.ChainedScheduler([S.ReduceLROnPlateau(o)]), ValueError, "needs a metric"),
        (lambda o: S.LRScheduler(o), NotImplementedError, "has no get_lr"),
    ],
)
def test_bad_arguments_are_told(make: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(optimizer())


def test_momentum_needs_an_optimizer_that_has_it() -> None:
    o = optim.Adagrad([gf.ones(1, requires_grad=True)])
    for make in (lambda: S.OneCycleLR(o, 1.0, 9), lambda: S.CyclicLR(o, 0.1, 1.0)):
        with pytest.raises(ValueError, match="must support momentum or beta1"):
            make()
