"""vmap: a batch is what a loop over its elements gives, in any nesting with gradients, eager and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import GradientError, TraceError

from lives import both

RNG = np.random.default_rng(4)
X, W = RNG.standard_normal((5, 4)), RNG.standard_normal((4, 3))


def layer(w: Any, x: Any) -> Any:
    return gf.tanh(x @ w).pow(2).sum()


def close(actual: Any, expected: Any) -> None:
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


def test_dimensions_in_and_out() -> None:
    def outer(x: Any, w: Any) -> Any:
        return gf.vmap(gf.vmap(lambda a, b: a * b, (0, None)), (None, 1), 1)(x, w)

    vector, matrix = X[0], W
    expected = np.stack([vector[:, None] * matrix[:, j] for j in range(3)], 1)
    close(both(outer, vector, matrix), [expected])
    close(
        both(
            lambda x: gf.vmap(lambda a: (a.sum(), {"twice": a * 2}), 1, (0, {"twice": -1}))(x)[1]["twice"], X
        ),
        [2 * X],
    )
    close(both(lambda x: gf.vmap(lambda a: a - a.mean(), -1, 1)(x), X), [X - X.mean(0)])


def test_arguments_are_trees_and_may_be_shared() -> None:
    tree = {"w": gf.tensor(W), "b": (gf.tensor(X),)}
    got = gf.vmap(lambda t, k: t["b"][0] @ t["w"] * k, ({"w": None, "b": (0,)}, None))(tree, 2.0)
    np.testing.assert_allclose(got.numpy(), X @ W * 2)
    got = gf.vmap(lambda x, scale: x * scale)(gf.tensor(X), scale=gf.tensor(3.0))
    np.testing.assert_allclose(got.numpy(), X * 3)


def test_one_product_serves_the_batch() -> None:
    graph = gf.trace(
        lambda x, w: gf.vmap(lambda a: w.T @ a)(x), gf.TensorSpec(["n", 4]), gf.TensorSpec([4, 3])
    )
    (product,) = [n for n in graph.nodes() if n.op.name == "matmul"]
    assert len(product.shape) == 2


def test_gradients_of_every_sample() -> None:
    def per_sample(w: Any, x: Any) -> Any:
        return gf.vmap(gf.grad(layer), (None, 0))(w, x)

    y = np.tanh(X @ W)
    expected = np.einsum("ni,nj->nij", X, 2 * y * (1 - y * y))
    close(both(per_sample, W, X), [expected])
    compiled = gf.compile(per_sample)
    for n in (5, 2, 3):
        np.testing.assert_allclose(compiled(gf.tensor(W), gf.tensor(X[:n])).numpy(), expected[:n])
    assert len(compiled.variants) == 1


def test_nesting_in_any_order() -> None:
    rows = [X[i] for i in range(5)]

    def loop(f: Callable[[Any], Any]) -> np.ndarray:
        return np.stack([f(gf.tensor(r)).numpy() for r in rows])

    def f(a: Any) -> Any:
        return (a.sin() * a.sum()).sum()

    close(both(lambda x: gf.vmap(gf.hessian(f))(x), X), [loop(gf.hessian(f))])
    close(both(lambda x: gf.grad(lambda y: gf.vmap(f)(y).pow(2).sum())(x), X),
          [loop(gf.grad(lambda a: f(a) ** 2))])  # fmt: skip
    close(both(lambda x: gf.grad(lambda y: gf.vmap(gf.grad(f))(y).pow(2).sum())(x), X),
          [loop(gf.grad(lambda a: gf.grad(f)(a).pow(2).sum()))])  # fmt: skip
    close(
        both(
            lambda x: gf.vmap(lambda a: gf.vmap(lambda b: gf.grad(lambda c: (c * c * b).sum())(a))(a))(x), X
        ),
        [np.stack([np.stack([2 * r * b for b in r]) for r in rows])],
    )


def test_gradients_reach_what_is_outside() -> None:
    w = gf.tensor(W, requires_grad=True)
    scaled, x = w * 2, gf.tensor(X)
    gf.vmap(lambda a: layer(scaled, a))(x).sum().backward()
    assert w.grad is not None
    first = w.grad.numpy().copy()
    y = np.tanh(X @ W * 2)
    np.testing.assert_allclose(first, 2 * X.T @ (2 * y * (1 - y * y)))
    frozen = w.detach()
    (both_uses,) = gf.autograd.grad(gf.vmap(lambda a: (w * frozen).sum() * a)(gf.ones(2).double()).sum(), w)
    np.testing.assert_allclose(both_uses.numpy(), 2 * W)
    with gf.no_grad():
        assert not gf.vmap(lambda a: layer(w, a))(x).requires_grad
        assert gf.vmap(gf.grad(lambda a: layer(w, a)))(x).shape == (5, 4)


def test_loops_and_branches() -> None:
    def choose(x: Any) -> Any:
        return gf.vmap(lambda a: gf.where(a.sum() > 0, a.exp(), a[gf.argmax(a)] * a))(x)

    expected = np.stack([np.exp(r) if r.sum() > 0 else r[r.argmax()] * r for r in X])
    close(both(choose, X), [expected])


def test_indexing_by_element() -> None:
    index = np.array([2, 0, -1, 3, 1])
    expected = X[np.arange(5), index]
    close(both(lambda x, i: gf.vmap(lambda a, k: a[k])(x, i), X, index), [expected])
    close(both(lambda x, i: gf.grad(lambda y: gf.vmap(lambda a, k: a[k] ** 2)(y, i).sum())(x), X, index),
          [np.where(np.arange(4) == index[:, None] % 4, 2 * X, 0)])  # fmt: skip
    with pytest.raises(IndexError, match="out of range"):
        gf.vmap(lambda a, k: gf.take(a, k))(gf.tensor(X), gf.tensor([0, 1, 4, 0, 0]))


def test_random_numbers() -> None:
    ones = gf.ones(400)

    def noisy(a: Any) -> Any:
        return gf.rand(3) + gf.nn.functional.dropout(a, 0.5).sum() * 0

    with pytest.raises(TraceError, match="randomness error mode"):
        gf.vmap(noisy)(ones)
    for wrap in (lambda f: f, gf.compile):
        same = wrap(lambda x: gf.vmap(noisy, randomness="same")(x))(ones)
        assert (same == same[0]).all()
        gf.manual_seed(3)
        different = wrap(lambda x: gf.vmap(noisy, randomness="different")(x))(ones)
        again = gf.rand(1)
        assert len(np.unique(different.numpy())) > 1100 and abs(different.numpy().mean() - 0.5) < 0.05
        gf.manual_seed(3)
        np.testing.assert_array_equal(gf.rand(400, 3).numpy(), different.numpy())
        gf.rand(400)
        np.testing.assert_array_equal(gf.rand(1).numpy(), again.numpy())
    nested = gf.vmap(lambda a: gf.vmap(lambda b: gf.rand(()), randomness="different")(a), randomness="same")
    drawn = nested(gf.ones(3, 4))
    assert drawn.shape == (3, 4) and (drawn[0] == drawn[1]).all() and drawn[0, 0] != drawn[0, 1]


def test_in_place() -> None:
    def shift(a: Any) -> Any:
        a.add_(1.0)
        a[0] = 7.0
        return a * 2

    x = gf.tensor(X)
    got = gf.vmap(shift)(x)
    expected = X + 1
    expected[:, 0] = 7
    np.testing.assert_allclose(x.numpy(), expected)
    np.testing.assert_allclose(got.numpy(), 2 * expected)
    total = gf.zeros(())
    with pytest.raises(GradientError, match="differs from element to element"):
        gf.vmap(lambda a: total.add_(a.sum()))(gf.tensor(X))
    assert total.item() == 0
    gf.vmap(lambda a: total.add_(1.0) * a)(gf.tensor(X))
    assert total.item() == 1
    kept: list[Any] = []
    with pytest.raises(TraceError, match="stored outside"):
        gf.compile(lambda x: (gf.vmap(lambda a: kept.append(a) or a)(x), kept[-1])[1])(x)


def test_chunks() -> None:
    whole = gf.vmap(lambda a: a.softmax(0))(gf.tensor(X)).numpy()
    for size in (1, 2, 5, 9):
        np.testing.assert_allclose(
            gf.vmap(lambda a: a.softmax(0), chunk_size=size)(gf.tensor(X)).numpy(), whole
        )
    assert gf.vmap(lambda a: a * 2, chunk_size=2)(gf.ones(0, 3)).shape == (0, 3)
    with pytest.raises(ValueError, match="chunk_size"):
        gf.vmap(lambda a: a, chunk_size=0)


def test_compiled_functions_and_modules_inside() -> None:
    model = gf.nn.Sequential(gf.nn.Linear(4, 6), gf.nn.Tanh(), gf.nn.Linear(6, 2))
    x = gf.tensor(X, dtype=gf.float32)
    np.testing.assert_allclose(gf.vmap(model)(x).detach().numpy(), model(x).detach().numpy(), rtol=1e-5)
    inner = gf.compile(lambda a: (a * a).sum())
    np.testing.assert_allclose(gf.vmap(inner)(x).numpy(), (X * X).sum(1), rtol=1e-5)
    _, pull = gf.vjp(inner, gf.tensor(X[0]))
    np.testing.assert_allclose(gf.vmap(pull)(gf.tensor([1.0, 2.0], dtype=gf.float64))[0].numpy(),
                               np.stack([2 * X[0], 4 * X[0]]))  # fmt: skip


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: gf.vmap(gf.sin, in_dims=2)(x), "expected in_dim to satisfy"),
        (lambda x: gf.vmap(gf.sin, in_dims=(0, 0))(x), "not compatible with the structure of inputs"),
        (lambda x: gf.vmap(gf.sin, in_dims=None)(x), "expected in_dims to be int"),
        (lambda x: gf.vmap(gf.sin, in_dims=(None,))(x), "at least one input"),
        (lambda x: gf.vmap(gf.mul)(x, 2.0), "can't be vmapped over"),
        (lambda x: gf.vmap(gf.mul)(x, x.T), "same size in the mapped dimension"),
        (lambda x: gf.vmap(gf.sin, out_dims=None)(x), "out_dim is None"),
        (lambda x: gf.vmap(gf.sin, out_dims=(0, 0))(x), "structure of outputs"),
        (lambda x: gf.vmap(gf.sin, out_dims=4)(x), "out of range"),
        (lambda x: gf.vmap(gf.sin, randomness="none")(x), "randomness has to be"),
        (lambda x: gf.vmap(lambda a: 3.0)(x), "must only return tensors"),
        (lambda x: gf.vmap(lambda a: a.sum().item())(x), "needs the numbers"),
        (lambda x: gf.vmap(lambda: 1)(), "got no inputs"),
    ],
)
def test_errors_say_what_is_wrong(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises((ValueError, IndexError, TypeError, TraceError), match=message):
        call(gf.tensor(X))


def test_loops_inside_and_outside() -> None:
    def steps(a: Any) -> Any:
        return gf.scan(lambda c, x: (c * x.sin() + a.sum(), c * 2), a[0], a)[1]

    def branch(a: Any) -> Any:
        return gf.cond(a.sum() > 0, lambda q: q.sin(), lambda q: q * a.sum(), a)

    def halve(a: Any) -> Any:
        return gf.while_loop(lambda x: x.abs().sum() > 0.1, lambda x: x * 0.5, a)

    x = gf.tensor(X)
    for f in (steps, branch, halve, gf.grad(lambda a: steps(a).sum())):
        expected = gf.stack([f(row) for row in x]).numpy()
        for call in (gf.vmap(f), gf.compile(gf.vmap(f))):
            np.testing.assert_allclose(call(x).numpy(), expected)
    rows = gf.compile(lambda x: gf.scan(lambda c, r: (c, gf.vmap(gf.grad(gf.sin))(r)), x[0], x)[1])(x)
    np.testing.assert_allclose(rows.numpy(), np.cos(X))


def test_random_numbers_in_loops() -> None:
    def noisy(a: Any) -> Any:
        return gf.scan(lambda c, y: (c, y * 0 + gf.rand(())), a[0], a)[1]

    for wrap in (lambda f: f, gf.compile):
        gf.manual_seed(2)
        same = wrap(lambda x: gf.vmap(noisy, randomness="same")(x))(gf.tensor(X))
        following = gf.rand(1)
        gf.manual_seed(2)
        np.testing.assert_allclose(same[3].numpy(), gf.rand(4).numpy())
        assert (same == same[0]).all() and following.item() == gf.rand(1).item()
        with pytest.raises(TraceError, match="randomness error mode"):
            wrap(lambda x: gf.vmap(noisy)(x))(gf.tensor(X))


def test_different_random_numbers_in_loops() -> None:
    """Every round draws for the whole batch in one piece; an element gets its own part of that."""

    def walk(x: Any) -> Any:
        return gf.fori_loop(0, 3, lambda i, c: c * gf.rand(2), x)

    def walks(x: Any) -> Any:
        return gf.vmap(walk, randomness="different")(x)

    compiled = gf.compile(walks)
    for count in (1, 5, 3):
        x = gf.ones(count, 2)
        gf.manual_seed(5)
        expected = gf.rand(count, 2) * gf.rand(count, 2) * gf.rand(count, 2)
        following = gf.rand(1).item()
        for run in (walks, compiled):
            held = x.clone().requires_grad_()
            gf.manual_seed(5)
            found = run(held)
            assert (found == expected).all() and gf.rand(1).item() == following
            found.sum().backward()
            np.testing.assert_allclose(held.grad, expected, rtol=1e-6)
    assert len(compiled.variants) == 1

    def some(x: Any) -> Any:
        successes = gf.binomial(gf.full((50,), 9.0), gf.full((50,), 0.5))
        return gf.nn.functional.dropout(x, 0.25) + gf.poisson(gf.full((50,), 3.0)) + successes

    def counts(x: Any) -> Any:
        once = gf.scan(lambda c, _: (c, some(c)), x, None, length=2)[1]
        return once, gf.vmap(lambda a: gf.cond(a[0] > 4, lambda: some(a), lambda: a), randomness="same")(once)

    batch = gf.ones(4, 50)
    results = []
    for wrap in (lambda f: f, gf.compile):
        gf.manual_seed(6)
        found = wrap(lambda x: gf.vmap(counts, randomness="different")(x))(batch)
        results.append([*found, gf.get_rng_state()])
        assert len(np.unique(found[0].numpy().reshape(8, 50), axis=0)) == 8
    assert all((a == b).all() for a, b in zip(*results, strict=True))


def test_the_stream_goes_on_after_loops_that_end_at_different_times() -> None:
    def until(x: Any) -> Any:
        last = gf.while_loop(lambda c: c < 3, lambda c: c + gf.rand(()), x)
        either = gf.cond(x > 1, lambda: x + gf.rand(2).sum(), lambda: x * 1)
        return last, either, gf.rand(())

    starts = np.array([2.5, -1, 3, 0.5, 1.5], np.float32)
    rounds, total = 0, starts.copy()
    gf.manual_seed(7)
    while (total < 3).any():
        total = np.where(total < 3, total + gf.rand(5).numpy(), total)
        rounds += 1
    either = np.where(starts > 1, starts + gf.rand(5, 2).sum(1).numpy(), starts)
    expected = [total, either, gf.rand(5).numpy()]
    for wrap in (lambda f: f, gf.compile):
        gf.manual_seed(7)
        found = wrap(lambda x: gf.vmap(until, randomness="different")(x))(gf.tensor(starts))
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a.numpy(), b)
        assert gf.get_rng_state().tolist() == [7, 5 * rounds + 10 + 5]
        gf.manual_seed(7)
        same = wrap(lambda x: gf.vmap(until, randomness="same")(x))(gf.tensor(starts))[2]
        assert (same == same[0]).all()
