"""The optimizers beside SGD and Adam against NumPy formulas in float64, over 100 steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import optim

STEPS = 100
START = np.linspace(-1, 1, 6).reshape(2, 3)
GRADS = np.random.default_rng(0).standard_normal((STEPS, 2, 3))


def descents(p: np.ndarray, o: dict[str, Any]) -> Iterator[tuple[int, np.ndarray, float]]:
    """(step, direction, learning rate), with maximize and weight decay applied; the rate halves midway."""
    for t, grad in enumerate(GRADS, 1):
        lr = o["lr"] * (0.5 if t > 50 else 1)
        g = -grad if o.get("maximize") else grad
        if o.get("decoupled_weight_decay"):
            p *= 1 - lr * o["weight_decay"]
        else:
            g = g + o.get("weight_decay", 0) * p
        yield t, g, lr


def adafactor(p: np.ndarray, o: dict[str, Any]) -> None:
    low, high = o.get("eps", (np.finfo(float).eps, 1e-3))
    rows, columns = np.zeros((2, 1)), np.zeros((1, 3))
    for t, grad in enumerate(GRADS, 1):
        g, lr = (-grad if o.get("maximize") else grad), o["lr"] * (0.5 if t > 50 else 1)
        share = t ** o.get("beta2_decay", -0.8)
        size = max(high, np.sqrt((p**2).mean())) * min(lr, t**-0.5)
        p *= 1 - lr * o.get("weight_decay", 0)
        rows += share * ((g**2).mean(1, keepdims=True) - rows)
        columns += share * ((g**2).mean(0, keepdims=True) - columns)
        step = g / np.sqrt(np.maximum(rows @ columns / max(rows.mean(), low), low**2))
        p -= size * step / max(1.0, np.sqrt((step**2).mean()) / o.get("d", 1.0))


def muon(p: np.ndarray, o: dict[str, Any]) -> None:
    a, b, c = o.get("ns_coefficients", (3.4445, -4.7750, 2.0315))
    momentum, buffer = o.get("momentum", 0.95), np.zeros_like(p)
    for t, g in enumerate(GRADS, 1):
        lr = o["lr"] * (0.5 if t > 50 else 1)
        buffer = momentum * buffer + (1 - momentum) * g
        along = momentum * buffer + (1 - momentum) * g if o.get("nesterov", True) else buffer
        # The iteration is the polynomial a s + b s³ + c s⁵ of the singular values.
        u, s, v = np.linalg.svd(along, full_matrices=False)
        s = s / np.sqrt((along**2).sum())
        for _ in range(o.get("ns_steps", 5)):
            s = a * s + b * s**3 + c * s**5
        rate = lr * (0.2 * np.sqrt(3) if o.get("adjust_lr_fn") else 1.0)
        p *= 1 - lr * o.get("weight_decay", 0.1)
        p -= rate * (u * s) @ v


def adagrad(p: np.ndarray, o: dict[str, Any]) -> None:
    total = np.full_like(p, o.get("initial_accumulator_value", 0))
    for t, g, lr in descents(p, o):
        total += g * g
        p -= lr / (1 + (t - 1) * o.get("lr_decay", 0)) * g / (np.sqrt(total) + o.get("eps", 1e-10))


def rmsprop(p: np.ndarray, o: dict[str, Any]) -> None:
    alpha = o.get("alpha", 0.99)
    square, mean, buffer = (np.zeros_like(p) for _ in range(3))
    for _, g, lr in descents(p, o):
        square = alpha * square + (1 - alpha) * g * g
        mean = alpha * mean + (1 - alpha) * g
        spread = square - mean**2 if o.get("centered") else square
        buffer = o.get("momentum", 0) * buffer + g / (np.sqrt(spread) + o.get("eps", 1e-8))
        p -= lr * buffer


def adadelta(p: np.ndarray, o: dict[str, Any]) -> None:
    rho, eps = o.get("rho", 0.9), o.get("eps", 1e-6)
    v, u = np.zeros_like(p), np.zeros_like(p)
    for _, g, lr in descents(p, o):
        v = rho * v + (1 - rho) * g * g
        d = np.sqrt((u + eps) / (v + eps)) * g
        u = rho * u + (1 - rho) * d * d
        p -= lr * d


def adamax(p: np.ndarray, o: dict[str, Any]) -> None:
    b1, b2 = o.get("betas", (0.9, 0.999))
    m, u = np.zeros_like(p), np.zeros_like(p)
    for t, g, lr in descents(p, o):
        m = b1 * m + (1 - b1) * g
        u = np.maximum(b2 * u, np.abs(g) + 1e-8)
        p -= lr / (1 - b1**t) * m / u


def nadam(p: np.ndarray, o: dict[str, Any]) -> None:
    (b1, b2), pace = o.get("betas", (0.9, 0.999)), o.get("momentum_decay", 4e-3)
    m, v, product = np.zeros_like(p), np.zeros_like(p), 1.0
    for t, g, lr in descents(p, o):
        mu, after = (b1 * (1 - 0.5 * 0.96 ** (n * pace)) for n in (t, t + 1))
        product *= mu
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        step = (1 - mu) * g / (1 - product) + after * m / (1 - product * after)
        p -= lr * step / (np.sqrt(v / (1 - b2**t)) + 1e-8)


def radam(p: np.ndarray, o: dict[str, Any]) -> None:
    b1, b2 = o.get("betas", (0.9, 0.999))
    m, v, longest = np.zeros_like(p), np.zeros_like(p), 2 / (1 - b2) - 1
    for t, g, lr in descents(p, o):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        length = longest - 2 * t * b2**t / (1 - b2**t)
        step = m / (1 - b1**t)
        if length > 5:
            top = (length - 4) * (length - 2) * longest
            rectification = np.sqrt(top / ((longest - 4) * (longest - 2) * length))
            step = step * rectification * np.sqrt(1 - b2**t) / (np.sqrt(v) + 1e-8)
        p -= lr * step


def asgd(p: np.ndarray, o: dict[str, Any]) -> None:
    lambd, eta = o.get("lambd", 1e-4), o["lr"]
    for t, g, lr in descents(p, o):
        p *= 1 - lambd * eta
        p -= eta * g
        eta = lr / (1 + lambd * lr * t) ** o.get("alpha", 0.75)


def rprop(p: np.ndarray, o: dict[str, Any]) -> None:
    (shrink, grow), (low, high) = o.get("etas", (0.5, 1.2)), o.get("step_sizes", (1e-6, 50))
    size, before = np.full_like(p, o["lr"]), np.zeros_like(p)
    for _, g, _ in descents(p, o):
        agreement = np.sign(g * before)
        size = np.clip(size * np.choose(agreement.astype(int) + 1, [shrink, 1.0, grow]), low, high)
        before = np.where(agreement < 0, 0, g)
        p -= np.sign(before) * size


Formula = Callable[[np.ndarray, dict[str, Any]], None]
CASES: list[tuple[type[optim.Optimizer], Formula, dict[str, Any]]] = [
    (optim.Adagrad, adagrad, {"lr": 0.01}),
    (
        optim.Adagrad,
        adagrad,
        {
            "lr": 0.1,
            "lr_decay": 0.01,
            "weight_decay": 0.1,
            "initial_accumulator_value": 0.3,
            "eps": 1e-3,
            "maximize": True,
        },
    ),
    (optim.RMSprop, rmsprop, {"lr": 0.01}),
    (optim.RMSprop, rmsprop, {"lr": 0.01, "momentum": 0.9, "maximize": True, "eps": 1e-2}),
    (optim.RMSprop, rmsprop, {"lr": 0.01, "alpha": 0.9, "centered": True, "weight_decay": 0.1}),
    (optim.Adadelta, adadelta, {"lr": 1.0}),
    (optim.Adadelta, adadelta, {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1, "maximize": True}),
    (optim.Adamax, adamax, {"lr": 0.02}),
    (optim.Adamax, adamax, {"lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.1, "maximize": True}),
    (optim.NAdam, nadam, {"lr": 0.02}),
    (optim.NAdam, nadam, {"lr": 0.02, "weight_decay": 0.1, "momentum_decay": 0.01, "maximize": True}),
    (optim.NAdam, nadam, {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    (optim.RAdam, radam, {"lr": 0.02}),
    (optim.RAdam, radam, {"lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.1}),
    (optim.RAdam, radam, {"lr": 0.02, "weight_decay": 0.1, "decoupled_weight_decay": True, "maximize": True}),
    (optim.ASGD, asgd, {"lr": 0.1, "lambd": 0.1, "alpha": 0.5, "weight_decay": 0.1}),
    (optim.ASGD, asgd, {"lr": 0.1, "maximize": True}),
    (optim.Rprop, rprop, {"lr": 0.01}),
    (optim.Adafactor, adafactor, {"lr": 0.01}),
    (optim.Adafactor, adafactor, {"lr": 0.5, "weight_decay": 0.1, "d": 1.5, "maximize": True}),
    (optim.Adafactor, adafactor, {"lr": 0.1, "beta2_decay": -0.5, "eps": (0.1, 1.0)}),
    (optim.Muon, muon, {"lr": 0.02}),
    (optim.Muon, muon, {"lr": 0.02, "nesterov": False, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3}),
    (optim.Muon, muon, {"lr": 0.02, "weight_decay": 0.0, "momentum": 0.5, "ns_coefficients": (2, -1.5, 0.5)}),
    (optim.Rprop, rprop, {"lr": 0.1, "etas": (0.4, 1.5), "step_sizes": (0.05, 0.2), "maximize": True}),
]


@pytest.mark.parametrize(("kind", "formula", "options"), CASES)
def test_an_optimizer_is_its_formula_eagerly_and_compiled(
    kind: Callable[..., optim.Optimizer], formula: Formula, options: dict[str, Any]
) -> None:
    wanted = START.copy()
    formula(wanted, options)
    for compiling in (False, True):
        p = gf.tensor(START, requires_grad=True)
        optimizer = kind([p], **options)

        def step(grad: gf.Tensor, p: gf.Tensor = p, optimizer: optim.Optimizer = optimizer) -> None:
            optimizer.zero_grad()
            (p * grad).sum().backward()
            optimizer.step()

        run = gf.compile(step) if compiling else step
        for t, grad in enumerate(GRADS):
            if t == 50:
                optimizer.param_groups[0]["lr"] *= 0.5
            run(gf.tensor(grad))
        np.testing.assert_allclose(p.detach().numpy(), wanted, rtol=1e-9, atol=1e-11)
        if compiling:
            assert len(run.variants) == 1


@pytest.mark.parametrize(("kind", "formula", "options"), CASES)
def test_a_loaded_optimizer_goes_on_bit_for_bit(
    kind: Callable[..., optim.Optimizer], formula: Formula, options: dict[str, Any]
) -> None:
    def go_on(p: gf.Tensor, optimizer: optim.Optimizer, grads: np.ndarray) -> None:
        for grad in grads:
            p.grad = gf.tensor(grad)
            optimizer.step()

    p = gf.tensor(START, requires_grad=True)
    optimizer = kind([p], **options)
    go_on(p, optimizer, GRADS[:10])
    twin = p.detach().clone().requires_grad_()
    other = kind([twin], lr=9.0)
    other.param_groups[0].update(
        {name: options[name] for name in options if name in ("centered", "momentum")}
    )
    saved = optimizer.state_dict()
    saved["state"] = {n: {k: v.clone() for k, v in e.items()} for n, e in saved["state"].items()}
    other.load_state_dict(saved)
    go_on(p, optimizer, GRADS[10:20])
    go_on(twin, other, GRADS[10:20])
    assert np.array_equal(p.detach().numpy(), twin.detach().numpy())
    optimizer.load_state_dict(kind([twin], **options).state_dict())
    fresh = kind([twin], **options)
    p.data.copy_(twin.detach())
    go_on(p, optimizer, GRADS[:3])
    go_on(twin, fresh, GRADS[:3])
    assert np.array_equal(p.detach().numpy(), twin.detach().numpy())


def test_asgd_keeps_the_average_of_what_comes_after_its_start() -> None:
    p = gf.tensor([1.0], dtype=gf.float64, requires_grad=True)
    optimizer = optim.ASGD([p], lr=0.1, lambd=0.0, t0=2)
    values = []
    for grad in GRADS[:10, 0, :1]:
        p.grad = gf.tensor(grad)
        optimizer.step()
        values.append(p.item())
    assert optimizer.state[p]["ax"].item() == pytest.approx(average(values))


def average(values: list[float], t0: int = 2) -> float:
    """PyTorch's recurrence: the weight of step t is 1 / max(1, t - 1 - t0)."""
    ax = 0.0
    for t, value in enumerate(values, 1):
        ax += (value - ax) / max(1, t - 1 - t0)
    return ax


def test_arguments_that_choose_an_implementation_are_accepted() -> None:
    p = gf.ones(1, requires_grad=True)
    for kind in (optim.Adam, optim.AdamW):
        kind([p], foreach=True, fused=None, capturable=True, differentiable=False)


def _sgd(p: np.ndarray, o: dict[str, Any]) -> None:
    held = None
    for _, g, lr in descents(p, o):
        held = g if held is None else o["momentum"] * held + (1 - o["dampening"]) * g
        p -= lr * held


def _adam(p: np.ndarray, o: dict[str, Any]) -> None:
    first, second, largest = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)
    for t, g, lr in descents(p, o):
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        largest = np.maximum(largest, second)
        size = np.sqrt((largest if o["amsgrad"] else second) / (1 - 0.999**t)) + 1e-8
        p -= lr / (1 - 0.9**t) * first / size


@pytest.mark.parametrize("wrap", [lambda f: f, gf.compile])
@pytest.mark.parametrize(
    ("kind", "formula", "common", "groups"),
    [
        (optim.SGD, _sgd, {"momentum": 0.9, "dampening": 0.5, "maximize": False}, [
            {"maximize": True}, {"dampening": 0.0, "lr": 0.03}, {"momentum": 0.5, "weight_decay": 0.1}]),
        (optim.Adam, _adam, {"amsgrad": True, "maximize": False}, [
            {"maximize": True}, {"amsgrad": False, "lr": 0.03}, {"weight_decay": 0.1, "maximize": True}]),
    ],
)  # fmt: skip
def test_groups_mix_maximize_amsgrad_and_dampening(
    wrap: Any, kind: Any, formula: Any, common: dict[str, Any], groups: list[dict[str, Any]]
) -> None:
    parameters = [gf.nn.Parameter(gf.tensor(START)) for _ in groups]
    given = [{"params": [p], **g} for p, g in zip(parameters, groups, strict=True)]
    optimizer = kind(given, lr=0.1, **common)

    @wrap
    def step(grad: gf.Tensor) -> None:
        optimizer.zero_grad()
        for p in parameters:
            (p * grad).sum().backward()
        optimizer.step()

    for t, grad in enumerate(GRADS, 1):
        if t == 51:
            for group in optimizer.param_groups:
                group["lr"] *= 0.5
        step(gf.tensor(grad))
    for p, group in zip(parameters, groups, strict=True):
        wanted = START.copy()
        formula(wanted, {"lr": 0.1, **common, **group})
        np.testing.assert_allclose(p.detach().numpy(), wanted, rtol=1e-10, atol=1e-12)


def test_adafactor_of_vectors_and_of_stacks_of_matrices() -> None:
    vector = gf.tensor([1.0, -2.0], dtype=gf.float64, requires_grad=True)
    stack = gf.tensor(np.stack([START, START]), requires_grad=True)
    optimizer = optim.Adafactor([vector, stack])
    vector.grad, stack.grad = gf.tensor([1.0, 3.0], dtype=gf.float64), gf.tensor(GRADS[:2])
    optimizer.step()
    # The first step is along the sign, as the second moment is the square, scaled by the parameter's rms.
    np.testing.assert_allclose(vector.detach().numpy(), np.array([1, -2]) - 0.01 * 2.5**0.5, rtol=1e-9)
    assert {k: tuple(v.shape) for k, v in optimizer.state[stack].items()} == {
        "step": (),
        "row_var": (2, 2, 1),
        "col_var": (2, 1, 3),
    }


def test_muon_takes_matrices_only_and_tall_ones_too() -> None:
    with pytest.raises(ValueError, match="Muon only supports 2D parameters"):
        optim.Muon([gf.ones(3, requires_grad=True)])
    with pytest.raises(ValueError, match="Adjust learning rate function loud is not supported"):
        optim.Muon([gf.ones(3, 3, requires_grad=True)], adjust_lr_fn="loud")
    wide, tall = (gf.tensor(x, requires_grad=True) for x in (START, START.T.copy()))
    one = optim.Muon([wide], lr=0.1, weight_decay=0.0)
    other = optim.Muon([tall], lr=0.1 / np.sqrt(1.5), weight_decay=0.0)
    wide.grad, tall.grad = gf.tensor(GRADS[0]), gf.tensor(GRADS[0].T.copy())
    one.step()
    other.step()
    np.testing.assert_allclose(wide.detach().numpy(), tall.detach().numpy().T, rtol=1e-12)


def test_sparse_adam_names_adam() -> None:
    p = gf.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="Invalid learning rate: 0"):
        optim.SparseAdam([p], lr=0)
    optimizer = optim.SparseAdam([p])
    p.grad = gf.ones(2)
    with pytest.raises(RuntimeError, match="does not support dense gradients, please consider Adam instead"):
        optimizer.step()


@pytest.mark.parametrize("kind", [optim.Rprop, optim.Adafactor])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_gradient_that_is_no_number_spoils_its_element_at_most(kind: Any, compiled: bool) -> None:
    p, twin = (gf.tensor([1.0, 2.0, 3.0], dtype=gf.float64, requires_grad=True) for _ in range(2))
    optimizer, other = kind([p]), kind([twin])

    def step(g: gf.Tensor) -> None:
        optimizer.zero_grad()
        (p * g).sum().backward()
        optimizer.step()

    (gf.compile(step) if compiled else step)(gf.tensor([1.0, np.nan, -1.0], dtype=gf.float64))
    twin.grad = gf.tensor([1.0, 1.0, -1.0], dtype=gf.float64)
    other.step()
    np.testing.assert_allclose(p.detach().numpy()[[0, 2]], twin.detach().numpy()[[0, 2]])
    assert p[1].item() == 2.0 or np.isnan(p[1].item())


def test_a_state_as_pytorch_lays_it_out_is_loaded() -> None:
    p = gf.tensor([1.0, 2.0], dtype=gf.float64, requires_grad=True)
    q = gf.tensor([3.0], dtype=gf.float64, requires_grad=True)
    optimizer = optim.SGD([{"params": [p]}, {"params": [q], "lr": 0.5}], momentum=0.9)
    first = {"lr": 0.1, "momentum": 0.9, "dampening": 0, "weight_decay": 0, "nesterov": False}
    rest = {"maximize": False, "foreach": None, "differentiable": False, "fused": None}
    groups = [{**first, **rest, "params": [0]}, {**first, **rest, "lr": 0.2, "params": [1]}]
    buffer = gf.tensor([1.0, -1.0], dtype=gf.float64)
    optimizer.load_state_dict(
        {"state": {0: {"momentum_buffer": buffer}, 1: {"momentum_buffer": None}}, "param_groups": groups}
    )
    p.grad, q.grad = gf.ones(2, dtype=gf.float64), gf.ones(1, dtype=gf.float64)
    optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), [1 - 0.1 * 1.9, 2 - 0.1 * 0.1])
    assert q.item() == pytest.approx(2.8)
    adam = optim.Adam([p])
    state = {"step": gf.tensor(3.0), "exp_avg": gf.ones(2), "exp_avg_sq": gf.ones(2)}
    adam.load_state_dict({"state": {0: state}, "param_groups": adam.state_dict()["param_groups"]})
    assert adam.state[p]["step"].item() == 3.0 and adam.state[p]["exp_avg"].dtype is gf.float64
