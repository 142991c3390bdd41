"""Loops, branches, derivatives, batches, checkpoints and custom functions inside each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest

Map = Callable[[gf.Tensor], gf.Tensor]  # from three numbers to three
RNG = np.random.default_rng(4)
ROWS = gf.tensor(RNG.standard_normal((4, 3)) * 0.3)
V = gf.tensor(RNG.standard_normal(3))


def in_scan(f: Map) -> Map:
    def run(x: gf.Tensor) -> gf.Tensor:
        def body(c: gf.Tensor, e: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
            new = 0.5 * f(c) + e
            return new, new * c

        last, steps = gf.scan(body, x, ROWS, reverse=True)
        return last + 0.2 * steps.sum(0)

    return run


def in_fori(f: Map) -> Map:
    return lambda x: gf.fori_loop(0, 3, lambda i, c: 0.5 * f(c) + 0.1 * x * i, x)


def in_while(f: Map) -> Map:
    return lambda x: gf.while_loop(lambda c: (c * c).sum() > 0.3, lambda c: 0.45 * f(c), x, max_steps=4)


def in_cond(f: Map) -> Map:
    def run(x: gf.Tensor) -> gf.Tensor:
        y = x.sin()
        return gf.cond(x[0] > 0, lambda: f(x) + y, lambda: f(y) * 0.7)

    return run


def in_grad(f: Map) -> Map:
    return gf.grad(lambda x: (f(x) * V).sum())


def in_vjp(f: Map) -> Map:
    def run(x: gf.Tensor) -> gf.Tensor:
        y, pull = gf.vjp(f, x)
        return pull(V)[0] + 0.1 * y

    return run


def in_jvp(f: Map) -> Map:
    return lambda x: gf.jvp(f, (x,), (x.sin(),))[1]


def in_jacobian(f: Map) -> Map:
    return lambda x: gf.jacrev(f)(x) @ V + gf.jacfwd(f)(x) @ x


def in_vmap(f: Map) -> Map:
    return lambda x: gf.vmap(f, 1, 1)((x + ROWS[:2]).t()).sum(1)


def in_checkpoint(f: Map) -> Map:
    return lambda x: gf.checkpoint(f, x)


def in_custom(f: Map) -> Map:
    """The gradient by another way than the function's own."""
    return gf.custom_function(lambda x: (f(x), x), lambda x, g: gf.grad(lambda z: (f(z) * g).sum())(x))


def smooth(x: gf.Tensor) -> gf.Tensor:
    return x.sin() * x


NESTINGS: list[tuple[Callable[[Map], Map], ...]] = [
    (in_scan, in_jvp),
    (in_scan, in_cond, in_vjp),
    (in_while, in_jvp),
    (in_fori, in_grad),
    (in_cond, in_jacobian),
    (in_vmap, in_scan, in_cond),
    (in_vmap, in_while, in_grad),
    (in_grad, in_scan, in_checkpoint),
    (in_jvp, in_scan, in_custom),
    (in_jacobian, in_vmap, in_custom),
    (in_grad, in_grad, in_custom),
    (in_checkpoint, in_scan, in_jvp),
    (in_custom, in_fori, in_vmap),
    (in_jacobian, in_checkpoint, in_cond),
]


@pytest.mark.parametrize("nesting", NESTINGS, ids=lambda n: "-".join(f.__name__[3:] for f in n))
def test_values_and_gradients(nesting: tuple[Callable[[Map], Map], ...]) -> None:
    f: Map = smooth
    for wrap in reversed(nesting):
        f = wrap(f)
    x = gf.tensor([0.4, -0.3, 0.7], dtype=gf.float64)
    slope = gf.grad(lambda y: (f(y) * V).sum())
    compiled = gf.compile(lambda y: (f(y), slope(y), gf.vmap(slope)(gf.stack([y, y * 0.9]))))
    value, gradient, rows = compiled(x)
    np.testing.assert_allclose(value.numpy(), f(x).numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gradient.numpy(), slope(x).numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(rows[0].numpy(), gradient.numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(rows[1].numpy(), slope(x * 0.9).numpy(), rtol=1e-10, atol=1e-12)
    for i in range(3):
        step = gf.zeros(3, dtype=gf.float64)
        step[i] = 1e-5
        numeric = ((f(x + step) - f(x - step)) * V).sum().item() / 2e-5
        assert gradient[i].item() == pytest.approx(numeric, rel=1e-6, abs=1e-8)


def test_a_value_made_inside_becomes_a_leaf_where_it_is_told_to() -> None:
    w = gf.randn(2, 2, requires_grad=True)

    def penalty(x: gf.Tensor) -> Any:
        between = (x * 0.5).requires_grad_()
        assert between.is_leaf
        (slope,) = gf.autograd.grad(((between @ w) ** 2).sum(), between, create_graph=True)
        ((slope.norm(dim=1) - 1) ** 2).mean().backward()
        return between.grad, w.grad.clone()

    def attack(x: gf.Tensor) -> Any:
        attacked = x.detach().requires_grad_()
        (attacked @ w).pow(3).sum().backward()
        return x + 0.1 * attacked.grad.sign(), w.grad.clone()

    def steps(x: gf.Tensor) -> Any:
        at = (x[0] * 2).requires_grad_()
        (at**3).sum().backward()
        with gf.no_grad():
            at -= 0.1 * at.grad
        at.grad = None
        (at**2).sum().backward()
        return at.grad, at.detach()

    def through_a_loop(x: gf.Tensor) -> Any:
        factor = (x[0] * 1.0).requires_grad_()
        last, _ = gf.scan(lambda carry, e: (carry * factor, carry), gf.ones(2), x)
        last.sum().backward()
        return factor.grad, last.detach()

    x = gf.randn(3, 2)
    for function in (penalty, attack, steps, through_a_loop):
        w.grad = None
        expected = function(x)
        w.grad = None
        for found, wanted in zip(gf.compile(function)(x), expected, strict=True):
            assert np.allclose(found.detach().numpy(), wanted.detach().numpy(), atol=1e-5)


def test_derivatives_by_a_detached_value_go_through_loops() -> None:
    def slope(x: gf.Tensor) -> Any:
        def last(factor: gf.Tensor) -> gf.Tensor:
            return gf.scan(lambda carry, e: (carry * factor, carry), gf.ones(2), x)[0].sum()

        return gf.func.grad(last)(x[0].detach())

    x = gf.randn(3, 2)
    assert np.allclose(slope(x).numpy(), gf.compile(slope)(x).numpy())
    assert np.allclose(slope(x).numpy(), 3 * x[0].numpy() ** 2, rtol=1e-5)
