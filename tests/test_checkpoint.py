"""Checkpoints: the same numbers with less memory, eager and compiled."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.utils.checkpoint import checkpoint, checkpoint_sequential

RNG = np.random.default_rng(6)
DEPTH, WIDTH = 5, 128


def block(x: Any, w: Any, v: Any) -> Any:
    return gf.tanh(gf.tanh(x @ w) @ v)


def arrays(rows: int) -> list[Any]:
    shapes = [(16, WIDTH), (WIDTH, 16)] * DEPTH
    return [gf.tensor(RNG.standard_normal(s) * 0.2) for s in ((rows, 16), *shapes)]


def gradients(apply: Callable[..., Any]) -> Callable[..., Any]:
    def loss(x: Any, *weights: Any) -> Any:
        for i in range(DEPTH):
            x = apply(block, x, weights[2 * i], weights[2 * i + 1])
        return (x * x).sum()

    return gf.value_and_grad(loss, argnums=tuple(range(2 * DEPTH + 1)))


def plain(f: Callable[..., Any], *args: Any) -> Any:
    return f(*args)


def test_numbers_are_the_same_and_memory_is_less() -> None:
    compiled = {name: gf.compile(gradients(f)) for name, f in (("plain", plain), ("kept", checkpoint))}
    for rows in (64, 7):
        args = arrays(rows)
        value, expected = gradients(plain)(*args)
        for f in (gradients(checkpoint), *compiled.values()):
            other, grads = f(*args)
            np.testing.assert_allclose(other.numpy(), value.numpy())
            for a, b in zip(grads, expected, strict=True):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-9, atol=1e-12)
    assert len(compiled["kept"].variants) == 1
    used = {
        name: dict((v["batch"], size) for v, size in f.explain().memory.arenas)
        for name, f in compiled.items()
    }
    assert used["kept"][64] < used["plain"][64] / 2


def test_eager_memory_is_less_at_the_end_of_the_forward() -> None:
    def held(apply: Callable[..., Any]) -> tuple[int, int]:
        args = [a.requires_grad_() for a in arrays(2000)]
        tracemalloc.start()
        x = args[0]
        for i in range(DEPTH):
            x = apply(block, x, args[2 * i + 1], args[2 * i + 2])
        kept = tracemalloc.get_traced_memory()[0]
        (x * x).sum().backward()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert args[1].grad is not None
        return kept, peak

    (kept, peak), (all_kept, all_peak) = held(checkpoint), held(plain)
    assert kept < all_kept / 4 and peak < all_peak * 0.7


def test_dropout_draws_the_same_again() -> None:
    model = gf.nn.Sequential(gf.nn.Linear(8, 8), gf.nn.Dropout(0.5), gf.nn.Tanh())

    def step(apply: Callable[..., Any]) -> Callable[[Any], Any]:
        def run(x: Any) -> Any:
            return gf.value_and_grad(lambda a: apply(model, a).pow(2).sum())(x)

        return run

    x = gf.tensor(RNG.standard_normal((40, 8)), dtype=gf.float32)
    results = []
    for f in (step(plain), step(checkpoint), gf.compile(step(plain)), gf.compile(step(checkpoint))):
        gf.manual_seed(8)
        value, gradient = f(x)
        results.append((value.item(), gradient.detach().numpy(), gf.rand(1).item()))
    for value, gradient, after in results[1:]:
        assert value == pytest.approx(results[0][0], rel=1e-5) and after == results[0][2]
        np.testing.assert_allclose(gradient, results[0][1], rtol=1e-4, atol=1e-6)


def test_bits_are_drawn_again_instead_of_stored() -> None:
    def loss(x: Any) -> Any:
        return gf.checkpoint(lambda a: gf.nn.functional.dropout(a, 0.5).sin(), x).sum()

    graph = gf.trace(gf.value_and_grad(loss), gf.TensorSpec(["n", 4]))
    (call,) = [n for n in graph.nodes() if n.op.name == "checkpoint"]
    assert [str(n.type) for n in call.inputs] == ["float32[n, 4]", "int64[2]"]


def test_modules_states_and_arguments_in_place() -> None:
    weight = gf.tensor(RNG.standard_normal((4, 4)), requires_grad=True)
    count = gf.zeros((), dtype=gf.float64)

    def layer(x: Any, *, scale: float, parts: Any) -> Any:
        count.add_(x.detach().sum())
        return {"y": gf.sin(x @ weight) * scale + parts[0], "note": "text"}

    def run(x: Any, p: Any) -> Any:
        found = gf.checkpoint(layer, x, scale=2.0, parts=[p])
        assert found["note"] == "text"
        return found["y"].sum()

    x, p = RNG.standard_normal((3, 4)), RNG.standard_normal((3, 4))
    expected = 2 * x.T @ np.cos(x @ weight.detach().numpy())
    for f in (run, gf.compile(run)):
        weight.grad = None
        count.zero_()
        f(gf.tensor(x), gf.tensor(p)).backward()
        assert weight.grad is not None
        np.testing.assert_allclose(weight.grad.numpy(), expected)
        assert count.item() == pytest.approx(x.sum())

    def shift(x: Any) -> Any:
        return gf.grad(lambda a: gf.checkpoint(lambda b: (b.mul_(2), b * b)[1], a * 1).sum())(x)

    for f in (shift, gf.compile(shift)):
        np.testing.assert_allclose(f(gf.tensor(x)).numpy(), 8 * x)


def test_higher_derivatives_nesting_and_batches() -> None:
    def f(x: Any) -> Any:
        return gf.checkpoint(lambda a: gf.checkpoint(gf.sin, a * a) * a, x).sum()

    x = gf.tensor(RNG.standard_normal(4))
    y = x.numpy()
    second = np.diag(6 * y * np.cos(y * y) - 4 * y**3 * np.sin(y * y))
    for wrap in (plain, lambda g, *a: gf.compile(g)(*a)):
        np.testing.assert_allclose(wrap(gf.hessian(f), x).numpy(), second, rtol=1e-9, atol=1e-12)
        rows = wrap(gf.vmap(gf.grad(f)), gf.stack([x, x * 2]))
        np.testing.assert_allclose(rows[0].numpy(), np.sin(y * y) + 2 * y * y * np.cos(y * y))
    with gf.no_grad():
        assert not f(x).requires_grad


def test_sequential() -> None:
    chain = [gf.nn.Linear(6, 6) for _ in range(5)]
    x = gf.tensor(RNG.standard_normal((3, 6)), dtype=gf.float32)
    expected = x
    for layer in chain:
        expected = layer(expected)
    for segments in (1, 2, 5):
        found = checkpoint_sequential(chain, segments, x, use_reentrant=False)
        np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), rtol=1e-6)
        found.sum().backward()
    with pytest.raises((ValueError, TypeError), match="can't make 6 segments"):
        checkpoint_sequential(chain, 6, x)
    with pytest.raises(TypeError, match="first argument is a function"):
        gf.checkpoint(x, x)
