"""Writing at computed positions, and functions made of others, beside NumPy; at once and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest

RNG = np.random.default_rng(9)
X, INDEX, SOURCE = RNG.standard_normal((3, 4)), RNG.integers(0, 4, (3, 5)), RNG.standard_normal((3, 5))


def _reference(reduce: str, include_self: bool) -> np.ndarray:
    combine = {"sum": np.add, "prod": np.multiply, "mean": np.add, "amax": np.maximum, "amin": np.minimum}[
        reduce
    ]
    result, count = X.copy(), np.full(X.shape, int(include_self))
    for i, j in np.ndindex(INDEX.shape):
        at = (i, INDEX[i, j])
        result[at] = combine(result[at], SOURCE[i, j]) if count[at] else SOURCE[i, j]
        count[at] += 1
    return result / np.maximum(count, 1) if reduce == "mean" else result


def _slope(function: Callable[..., Any], arrays: list[np.ndarray], number: int) -> np.ndarray:
    found = np.zeros(arrays[number].shape)
    for at in np.ndindex(found.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = [a.copy() for a in arrays]
            moved[number][at] += step
            ends.append(float(function(*map(gf.tensor, moved))))
        found[at] = (ends[0] - ends[1]) / 2e-6
    return found


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
def test_scatter_reduce(reduce: str, include_self: bool) -> None:
    def function(x: Any, source: Any) -> Any:
        return gf.scatter_reduce(x, 1, gf.tensor(INDEX), source, reduce, include_self=include_self)

    expected = _reference(reduce, include_self)
    for run in (function, gf.compile(function)):
        np.testing.assert_allclose(run(gf.tensor(X), gf.tensor(SOURCE)).numpy(), expected, rtol=1e-12)

    def loss(x: Any, source: Any) -> Any:
        return (function(x, source) ** 2).sum()

    found = gf.compile(gf.grad(loss, (0, 1)))(gf.tensor(X), gf.tensor(SOURCE))
    for n in (0, 1):
        np.testing.assert_allclose(found[n].numpy(), _slope(loss, [X, SOURCE], n), rtol=1e-5, atol=1e-7)


def test_scatter_takes_the_last_write() -> None:
    expected = X.copy()
    for i, j in np.ndindex(2, 5):
        expected[i, INDEX[i, j]] = SOURCE[i, j]
    operands = [gf.tensor(a) for a in (X, INDEX[:2], SOURCE)]

    def function(x: Any, index: Any, source: Any) -> Any:
        return x.scatter(1, index, source)

    for run in (function, gf.compile(function)):
        np.testing.assert_array_equal(run(*operands).numpy(), expected)
    with pytest.raises(IndexError, match="out of range"):
        gf.compile(lambda x, i: x.scatter(1, i, 1.0))(operands[0], gf.tensor([[4]]))


def test_whole_slices_and_masks() -> None:
    t, index = gf.tensor(X), gf.tensor([2, 0])
    copied, filled = X.copy(), X.copy()
    copied[[2, 0]], filled[[2, 0]] = SOURCE[:2, :4], 7
    np.testing.assert_array_equal(t.index_copy(0, index, gf.tensor(SOURCE[:2, :4])).numpy(), copied)
    np.testing.assert_array_equal(t.index_fill(0, index, 7.0).numpy(), filled)
    mask = X > 0
    expected = X.copy()
    expected[mask] = SOURCE.reshape(-1)[: mask.sum()]
    operands = [gf.tensor(a) for a in (X, mask, SOURCE)]
    for run in (gf.masked_scatter, gf.compile(lambda *args: gf.masked_scatter(*args))):
        np.testing.assert_array_equal(run(*operands).numpy(), expected)
    with pytest.raises(ValueError, match="more places"):
        gf.masked_scatter(t, gf.tensor(X == X), gf.tensor([1.0], dtype=gf.float64))


EDGES = np.array([0.0, 1, -2, np.inf, -np.inf, 3, 0, 1e300])
OTHERS = np.array([0.0, 1, 5, np.inf, -np.inf, -0.0, -1, 1e300])


@pytest.mark.parametrize("name", ["logaddexp", "logaddexp2", "hypot", "copysign", "heaviside"])
def test_two_operands(name: str) -> None:
    function = getattr(gf, name)
    for run in (function, gf.compile(lambda *args: function(*args))):
        found = run(gf.tensor(EDGES), gf.tensor(OTHERS)).numpy()
        np.testing.assert_allclose(found, getattr(np, name)(EDGES, OTHERS), rtol=1e-13)


@pytest.mark.parametrize("name", ["logaddexp", "hypot", "xlogy"])
def test_gradients_of_two_operands(name: str) -> None:
    a, b = RNG.standard_normal((2, 4)), np.abs(RNG.standard_normal(4)) + 0.1

    def loss(x: Any, y: Any) -> Any:
        return getattr(gf, name)(x, y).sin().sum()

    for n, found in enumerate(gf.grad(loss, (0, 1))(gf.tensor(a), gf.tensor(b))):
        np.testing.assert_allclose(found.numpy(), _slope(loss, [a, b], n), atol=1e-7)


def test_sinc_and_its_derivatives_at_zero() -> None:
    x = np.array([0.0, 1e-9, 0.009, 0.01, 0.5, -3])
    np.testing.assert_allclose(gf.sinc(gf.tensor(x)).numpy(), np.sinc(x), rtol=1e-14, atol=1e-16)
    second = gf.hessian(lambda t: gf.sinc(t).sum())(gf.zeros(1, dtype=gf.float64))
    np.testing.assert_allclose(second.item(), -(np.pi**2) / 3, rtol=1e-12)


def test_distances_and_membership() -> None:
    a, b = RNG.standard_normal((2, 3, 4)), RNG.standard_normal((2, 5, 4))
    for p in (1.0, 2.0, 3.0, np.inf):
        expected = np.linalg.norm(a[:, :, None] - b[:, None], p, axis=-1)
        np.testing.assert_allclose(gf.cdist(gf.tensor(a), gf.tensor(b), p).numpy(), expected, rtol=1e-12)
    for run in (gf.isin, gf.compile(lambda *args: gf.isin(*args))):
        found = run(gf.tensor(INDEX), gf.tensor([1, 3]))
        np.testing.assert_array_equal(found.numpy(), np.isin(INDEX, [1, 3]))
    np.testing.assert_array_equal(gf.signbit(gf.tensor(OTHERS)).numpy(), np.signbit(OTHERS))
    short = gf.tensor(a[0]).renorm(2, 0, 0.5)
    np.testing.assert_allclose(np.linalg.norm(short.numpy(), axis=1), 0.5, rtol=1e-5)
