"""L-BFGS against the dense BFGS update it stands for; its line search against what it promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import optim
from graphflow.optim.line_search import ARMIJO, CURVATURE

START = np.array([-1.2, 1.0, 0.3])


def rosenbrock(x: Any) -> Any:
    return ((1 - x[:-1]) ** 2 + 100 * (x[1:] - x[:-1] ** 2) ** 2).sum()


def slope(x: np.ndarray) -> np.ndarray:
    g = np.zeros_like(x)
    g[:-1] = -2 * (1 - x[:-1]) - 400 * x[:-1] * (x[1:] - x[:-1] ** 2)
    g[1:] += 200 * (x[1:] - x[:-1] ** 2)
    return g


def dense(x: np.ndarray, lr: float, iterations: int, history: int) -> np.ndarray:
    """Steps of `lr` along -H g, where H is BFGS's inverse Hessian of the last pairs, made from scratch."""
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    g, scale = slope(x), 1.0
    for i in range(iterations):
        inverse = scale * np.eye(x.size)
        for s, y in pairs:
            left = np.eye(x.size) - np.outer(s, y) / (s @ y)
            inverse = left @ inverse @ left.T + np.outer(s, s) / (s @ y)
        step = -inverse @ g * lr * (min(1.0, 1.0 / np.abs(g).sum()) if i == 0 else 1.0)
        x = x + step
        before, g = g, slope(x)
        y = g - before
        if y @ step > 1e-10:
            pairs = [*pairs, (step, y)][-history:]
            scale = (y @ step) / (y @ y)
    return x


def closure_of(p: gf.Tensor, optimizer: optim.Optimizer) -> Callable[[], gf.Tensor]:
    def closure() -> gf.Tensor:
        optimizer.zero_grad()
        loss: gf.Tensor = rosenbrock(p)
        loss.backward()
        return loss

    return closure


@pytest.mark.parametrize("history", [2, 100])
@pytest.mark.parametrize("iterations", [1, 4, 12])
def test_iterations_are_those_of_dense_bfgs(iterations: int, history: int) -> None:
    p = gf.tensor(START, requires_grad=True)
    optimizer = optim.LBFGS([p], lr=0.3, max_iter=iterations, max_eval=100, history_size=history)
    loss = optimizer.step(closure_of(p, optimizer))
    assert loss.item() == pytest.approx(float(rosenbrock(START)))
    np.testing.assert_allclose(p.detach().numpy(), dense(START, 0.3, iterations, history), rtol=1e-7)


def test_several_steps_are_one_longer_step_and_so_is_a_loaded_one() -> None:
    expected = dense(START, 0.3, 9, 100)
    p = gf.tensor(START, requires_grad=True)
    optimizer = optim.LBFGS([p], lr=0.3, max_iter=3, max_eval=100)
    for _ in range(2):
        optimizer.step(closure_of(p, optimizer))
    other = optim.LBFGS([p], lr=7.0, max_iter=3)
    other.load_state_dict(optimizer.state_dict())
    other.step(closure_of(p, other))
    np.testing.assert_allclose(p.detach().numpy(), expected, rtol=1e-7)
    assert other.state[p]["n_iter"] == 9


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_strong_wolfe_finds_the_minimum_and_keeps_its_promise(compiled: bool) -> None:
    p = gf.tensor(START, requires_grad=True)
    optimizer = optim.LBFGS(
        [p], max_iter=1, max_eval=25, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )
    plain = closure_of(p, optimizer)
    closure = gf.compile(plain) if compiled else plain
    for _ in range(60):
        before = p.detach().numpy().copy()
        optimizer.step(closure)
        after = p.detach().numpy().copy()
        promised = slope(before) @ (after - before)
        if abs(promised) < 1e-14:
            break
        assert rosenbrock(after) <= rosenbrock(before) + ARMIJO * promised
        assert abs(slope(after) @ (after - before)) <= -CURVATURE * promised * (1 + 1e-9)
    np.testing.assert_allclose(p.detach().numpy(), np.ones(3), atol=1e-6)


def test_several_parameters_and_one_without_gradient() -> None:
    a, b, c = (gf.tensor(v, dtype=gf.float64, requires_grad=True) for v in ([[1.0, 2.0]], 3.0, [4.0]))
    optimizer = optim.LBFGS([a, b, c], line_search_fn="strong_wolfe")

    def closure() -> gf.Tensor:
        optimizer.zero_grad()
        loss = ((a - 2) ** 2).sum() + (b + 1) ** 4
        loss.backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    np.testing.assert_allclose(a.detach().numpy(), [[2.0, 2.0]], atol=1e-4)
    assert b.item() == pytest.approx(-1.0, abs=0.02) and c.item() == 4.0


def test_a_loss_that_is_flat_or_no_number_ends_the_step() -> None:
    p = gf.tensor(START, requires_grad=True)
    for factor in (0.0, float("nan")):
        optimizer = optim.LBFGS([p], line_search_fn="strong_wolfe")

        def closure(factor: float = factor, optimizer: optim.Optimizer = optimizer) -> gf.Tensor:
            optimizer.zero_grad()
            loss = (p * factor).sum()
            loss.backward()
            return loss

        optimizer.step(closure)


def test_what_does_not_fit_is_told() -> None:
    p, q = gf.ones(2, requires_grad=True), gf.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="doesn't support per-parameter options"):
        optim.LBFGS([{"params": [p]}, {"params": [q]}])
    with pytest.raises(ValueError, match="only 'strong_wolfe' is supported"):
        optim.LBFGS([p], line_search_fn="armijo")
    optimizer = optim.LBFGS([p])
    with pytest.raises(TypeError, match="needs a closure"):
        optimizer.step()
    closure = closure_of(p, optimizer)
    with pytest.raises(gf.errors.TraceError, match=r"call step\(closure\) outside, and compile the closure"):
        gf.compile(lambda: optimizer.step(closure))()
