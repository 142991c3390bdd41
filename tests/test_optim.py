"""Optimizers against NumPy formulas in float64, and their state as users and checkpoints see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn, optim

STEPS = 100


def gradients(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((STEPS, *shape))


def run(
    make: Callable[..., optim.Optimizer], start: np.ndarray, grads: np.ndarray, dtype: Any = gf.float64
) -> np.ndarray:
    """The parameter after one step per gradient."""
    p = gf.tensor(start, dtype=dtype, requires_grad=True)
    optimizer = make([p])
    for g in grads:
        p.grad = gf.tensor(g, dtype=dtype)
        optimizer.step()
    return p.detach().numpy()


# ---------------------------------------------------------------------------------------------- the formulas


def sgd(p, grads, lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False):  # type: ignore[no-untyped-def]
    p, held = p.copy(), None
    for grad in grads:
        g = (-grad if maximize else grad) + weight_decay * p
        if momentum:
            held = g if held is None else momentum * held + (1 - dampening) * g
            g = g + momentum * held if nesterov else held
        p = p - lr * g
    return p


def adam(
    p,
    grads,
    lr=1e-3,
    betas=(0.9, 0.999),
    eps=1e-8,
    weight_decay=0.0,
    amsgrad=False,
    maximize=False,
    decoupled=False,
):  # type: ignore[no-untyped-def]
    p = p.copy()
    m, v, largest = (np.zeros_like(p) for _ in range(3))
    for t, grad in enumerate(grads, 1):
        g = -grad if maximize else grad
        if decoupled:
            p = p * (1 - lr * weight_decay)
        else:
            g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        largest = np.maximum(largest, v)
        root = np.sqrt((largest if amsgrad else v) / (1 - betas[1] ** t))
        p = p - lr * (m / (1 - betas[0] ** t)) / (root + eps)
    return p


SGD_OPTIONS: list[dict[str, Any]] = [
    {"lr": 0.1},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.3},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    {"lr": 0.1, "weight_decay": 0.1, "maximize": True},
]
ADAM_OPTIONS: list[dict[str, Any]] = [
    {},
    {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3},
    {"lr": 0.01, "weight_decay": 0.1},
    {"lr": 0.01, "amsgrad": True},
    {"lr": 0.01, "maximize": True, "weight_decay": 0.05, "amsgrad": True},
]


@pytest.mark.parametrize("options", SGD_OPTIONS)
def test_sgd_is_its_formula(options: dict[str, Any]) -> None:
    start, grads = np.linspace(-1, 1, 6).reshape(2, 3), gradients((2, 3))
    found = run(lambda ps: optim.SGD(ps, **options), start, grads)
    np.testing.assert_allclose(found, sgd(start, grads, **options), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("options", ADAM_OPTIONS)
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_and_adamw_are_their_formula(options: dict[str, Any], decoupled: bool) -> None:
    start, grads = np.linspace(-1, 1, 6).reshape(2, 3), gradients((2, 3))
    make = optim.AdamW if decoupled else optim.Adam
    given = {"weight_decay": 0.01, **options} if decoupled else options
    found = run(lambda ps: make(ps, **options), start, grads)
    np.testing.assert_allclose(
        found, adam(start, grads, decoupled=decoupled, **given), rtol=1e-10, atol=1e-12
    )


def test_float32_parameters_follow_the_float64_course() -> None:
    start, grads = np.linspace(-1, 1, 6), gradients((6,))
    found = run(lambda ps: optim.AdamW(ps, lr=0.01), start, grads, gf.float32)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, adam(start, grads, 0.01, weight_decay=0.01, decoupled=True), atol=2e-6)


# ---------------------------------------------------------------------------------------------- options


def test_rates_read_and_write_as_floats() -> None:
    p = gf.ones(2, requires_grad=True)
    optimizer = optim.Adam([p], lr=0.1)
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.1 and type(group["lr"]) is float
    assert group["betas"] == (0.9, 0.999)
    held = group.tensor("lr")
    group["lr"] *= 0.1
    assert group["lr"] == 0.1 * 0.1
    group["betas"] = (0.5, 0.6)
    assert group["betas"] == (0.5, 0.6)
    group["lr"] = gf.tensor(0.25, dtype=gf.float64)
    assert group["lr"] == 0.25
    assert group.tensor("lr") is held and held.dtype is gf.float64
    assert dict(group)["eps"] == 1e-8
    assert "lr" in group and "nothing" not in group
    assert len(list(group)) == len(group) == 12
    group["tag"] = "mine"
    assert group["tag"] == "mine"
    del group["tag"]
    with pytest.raises(KeyError):
        del group["lr"]
    with pytest.raises(ValueError, match="betas takes 2 numbers, got 3"):
        group["betas"] = (0.1, 0.2, 0.3)
    assert "'lr': 0.25" in repr(group)


def test_a_changed_rate_counts_from_the_next_step() -> None:
    start, grads = np.linspace(-1, 1, 6), gradients((6,))
    p = gf.tensor(start, requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
    for i, g in enumerate(grads):
        if i == 50:
            optimizer.param_groups[0]["lr"] = 0.01
            optimizer.param_groups[0]["weight_decay"] = 0.1
        p.grad = gf.tensor(g)
        optimizer.step()
    expected, held = start.copy(), np.zeros(6)
    for i, g in enumerate(grads):
        held = 0.9 * held + g + (0.1 * expected if i >= 50 else 0)
        expected = expected - (0.01 if i >= 50 else 0.1) * held
    np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-10)


def test_momentum_may_start_late() -> None:
    start, grads = np.ones(3), gradients((3,))
    p = gf.tensor(start, requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1)
    for i, g in enumerate(grads):
        if i == 10:
            optimizer.param_groups[0]["momentum"] = 0.9
            optimizer.param_groups[0]["dampening"] = 0.5
        p.grad = gf.tensor(g)
        optimizer.step()
    middle = sgd(start, grads[:10], 0.1)
    np.testing.assert_allclose(p.detach().numpy(), sgd(middle, grads[10:], 0.1, 0.9, 0.5), rtol=1e-10)


def test_groups_have_options_of_their_own() -> None:
    a, b = gf.ones(2, requires_grad=True), gf.ones(3, requires_grad=True)
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    c = gf.ones(1, requires_grad=True)
    optimizer.add_param_group({"params": [c], "momentum": 0.9})
    a.grad, b.grad, c.grad = gf.ones(2), gf.ones(3), gf.ones(1)
    optimizer.step()
    assert (a[0].item(), b[0].item(), c[0].item()) == pytest.approx((0.9, 0.5, 0.9))
    assert [g["momentum"] for g in optimizer.param_groups] == [0.0, 0.0, 0.9]


def test_named_parameters_are_accepted() -> None:
    layer = nn.Linear(2, 2)
    optimizer = optim.SGD(layer.named_parameters())
    assert optimizer.param_groups[0]["params"][0] is layer.weight


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda p: optim.SGD([]), ValueError, "empty parameter list"),
        (lambda p: optim.SGD(p), TypeError, "should be an iterable of Tensors"),
        (lambda p: optim.SGD([3]), TypeError, "can only optimize Tensors"),
        (lambda p: optim.SGD([p * 2]), ValueError, "can't optimize a non-leaf Tensor"),
        (lambda p: optim.SGD([p, p]), ValueError, "more than once"),
        (lambda p: optim.SGD([{"params": {p}}]), TypeError, "ordered collections"),
        (lambda p: optim.SGD([p], lr=-1), ValueError, "Invalid learning rate: -1"),
        (lambda p: optim.SGD([p], momentum=-1), ValueError, "Invalid momentum value: -1"),
        (lambda p: optim.SGD([p], weight_decay=-1), ValueError, "Invalid weight_decay value: -1"),
        (lambda p: optim.SGD([p], nesterov=True), ValueError, "Nesterov momentum requires"),
        (lambda p: optim.Adam([p], eps=-1), ValueError, "Invalid epsilon value: -1"),
        (lambda p: optim.Adam([p], betas=(1.0, 0.9)), ValueError, "beta parameter at index 0: 1.0"),
        (lambda p: optim.AdamW([p], betas=(0.9, 1.0)), ValueError, "beta parameter at index 1: 1.0"),
        (lambda p: optim.RMSprop([p], alpha=-1), ValueError, "Invalid alpha value: -1"),
        (lambda p: optim.Adagrad([p], lr_decay=-1), ValueError, "Invalid lr_decay value: -1"),
        (lambda p: optim.Adadelta([p], rho=2), ValueError, "Invalid rho value: 2"),
        (lambda p: optim.NAdam([p], momentum_decay=-1), ValueError, "Invalid momentum_decay value: -1"),
        (lambda p: optim.Rprop([p], etas=(2, 3)), ValueError, "Invalid eta values: 2, 3"),
        (lambda p: optim.Adam([p], differentiable=True), ValueError, "differentiable=True isn't supported"),
        (lambda p: optim.Adam([p], quick=True), TypeError, "unexpected keyword argument 'quick'"),
        (lambda p: optim.SGD([p]).add_param_group([p]), TypeError, "param_group must be a dict"),
        (lambda p: optim.Optimizer([p], {}).step(), NotImplementedError, "has no _update"),
    ],
)
def test_bad_arguments_are_told(make, error, message) -> None:  # type: ignore[no-untyped-def]
    p = gf.ones(2, requires_grad=True)
    p.grad = gf.ones(2)
    with pytest.raises(error, match=message):
        make(p)


def test_printing_lists_the_groups() -> None:
    optimizer = optim.SGD([gf.ones(1, requires_grad=True)], lr=0.1)
    assert repr(optimizer) == (
        "SGD (\nParameter Group 0\n    dampening: 0.0\n    differentiable: False\n    foreach: None\n"
        "    fused: None\n    lr: 0.1\n    maximize: False\n    momentum: 0.0\n    nesterov: False\n"
        "    weight_decay: 0.0\n)"
    )


# -------------------------------------------------------------------------------- gradients and closures


def test_zero_grad_forgets_or_zeroes() -> None:
    p = gf.ones(2, requires_grad=True)
    optimizer = optim.SGD([p])
    p.grad = gf.ones(2)
    optimizer.zero_grad(set_to_none=False)
    assert p.grad.tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert p.grad is None


def test_a_parameter_without_gradient_stays_and_keeps_its_own_count() -> None:
    a, b = gf.ones(2, dtype=gf.float64, requires_grad=True), gf.ones(2, dtype=gf.float64, requires_grad=True)
    optimizer = optim.Adam([a, b], lr=0.1)
    grads = gradients((2,))
    used: dict[str, list[np.ndarray]] = {"a": [], "b": []}
    for i, g in enumerate(grads[:30]):
        optimizer.zero_grad()
        if i % 3 != 1:
            a.grad = gf.tensor(g)
            used["a"].append(g)
        if i > 3 and i % 2:
            b.grad = gf.tensor(2 * g)
            used["b"].append(2 * g)
        optimizer.step()
    for p, name in ((a, "a"), (b, "b")):
        np.testing.assert_allclose(p.detach().numpy(), adam(np.ones(2), used[name], 0.1), rtol=1e-10)
        assert optimizer.state[p]["step"].item() == len(used[name])


def test_parameters_that_step_together_share_a_counter_until_they_do_not() -> None:
    ps = [gf.ones(1, requires_grad=True) for _ in range(3)]
    optimizer = optim.Adam(ps)
    for p in ps:
        p.grad = gf.ones(1)
    optimizer.step()
    assert len({id(optimizer.state[p]["step"]) for p in ps}) == 1
    ps[1].grad = None
    optimizer.step()
    assert optimizer.state[ps[0]]["step"] is optimizer.state[ps[2]]["step"]
    assert [optimizer.state[p]["step"].item() for p in ps] == [2.0, 1.0, 2.0]


def test_a_closure_is_run_with_gradients_on() -> None:
    p = gf.tensor([3.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1)

    def closure() -> gf.Tensor:
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    with gf.no_grad():
        assert optimizer.step(closure).item() == 9.0
    assert p.item() == pytest.approx(2.4)


# ---------------------------------------------------------------------------------------------- state


def trained(options: dict[str, Any], steps: int) -> tuple[gf.Tensor, gf.Tensor, optim.Optimizer]:
    a, b = gf.ones(2, 2, requires_grad=True), gf.ones(3, requires_grad=True)
    optimizer = optim.Adam([a, b], **options)
    go_on(a, b, optimizer, range(steps))
    return a, b, optimizer


def go_on(a: gf.Tensor, b: gf.Tensor, optimizer: optim.Optimizer, steps: range) -> None:
    for i in steps:
        a.grad, b.grad = gf.full((2, 2), float(i % 5)), gf.full((3,), float(i % 3))
        optimizer.step()


def test_a_loaded_optimizer_goes_on_bit_for_bit() -> None:
    a, b, optimizer = trained({"lr": 0.1, "amsgrad": True}, 10)
    saved = optimizer.state_dict()
    assert sorted(saved["state"]) == [0, 1]
    assert sorted(saved["state"][0]) == ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step"]
    assert saved["param_groups"][0]["params"] == [0, 1]
    assert saved["param_groups"][0]["lr"] == 0.1
    copies = {n: {k: v.clone() for k, v in entries.items()} for n, entries in saved["state"].items()}
    saved = {"state": copies, "param_groups": saved["param_groups"]}
    a2, b2 = (t.detach().clone().requires_grad_() for t in (a, b))
    other = optim.Adam([a2, b2], lr=7.0, amsgrad=True)
    other.load_state_dict(saved)
    assert other.param_groups[0]["lr"] == 0.1
    go_on(a, b, optimizer, range(10, 20))
    go_on(a2, b2, other, range(10, 20))
    assert np.array_equal(a.detach().numpy(), a2.detach().numpy())
    assert np.array_equal(b.detach().numpy(), b2.detach().numpy())


def test_loading_keeps_state_tensors_and_resets_what_is_not_in_the_file() -> None:
    a, _, optimizer = trained({}, 5)
    moment, counter = optimizer.state[a]["exp_avg"], optimizer.state[a]["step"]
    fresh = optim.Adam([gf.ones(2, 2, requires_grad=True), gf.ones(3, requires_grad=True)])
    optimizer.load_state_dict(fresh.state_dict())
    assert optimizer.state[a]["exp_avg"] is moment and moment.abs().max().item() == 0
    assert optimizer.state[a]["step"] is counter and counter.item() == 0


def test_counters_of_different_value_are_told_apart_when_loading() -> None:
    _, _, optimizer = trained({}, 5)
    saved = optimizer.state_dict()
    saved["state"][1]["step"] = gf.tensor(2.0)
    optimizer.load_state_dict(saved)
    first, second = (optimizer.state[p]["step"] for p in optimizer.param_groups[0]["params"])
    assert (first.item(), second.item()) == (5.0, 2.0)


def test_a_state_that_does_not_fit_is_refused() -> None:
    _, _, optimizer = trained({}, 2)
    saved = optimizer.state_dict()
    with pytest.raises(ValueError, match="different number of parameter groups"):
        optimizer.load_state_dict({**saved, "param_groups": saved["param_groups"] * 2})
    with pytest.raises(ValueError, match="doesn't match the size"):
        optimizer.load_state_dict({**saved, "param_groups": [{"params": [0]}]})
    saved["state"][0]["exp_avg"] = gf.zeros(7)
    with pytest.raises(ValueError, match=r"'exp_avg' has shape \(7,\), its parameter \(2, 2\)"):
        optimizer.load_state_dict(saved)
