"""Tensors with a part replaced, and diagonals as views, beside NumPy doing the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest

RNG = np.random.default_rng(5)
X = RNG.standard_normal((4, 5))


def _changed(change: Callable[[np.ndarray], None], x: np.ndarray = X) -> np.ndarray:
    copy = x.copy()
    change(copy)
    return copy


def _diagonal(a: np.ndarray, offset: int) -> np.ndarray:
    """A diagonal that can be written."""
    row, column = max(-offset, 0), max(offset, 0)
    count = min(a.shape[0] - row, a.shape[1] - column)
    strides = (a.strides[0] + a.strides[1],)
    return np.lib.stride_tricks.as_strided(a[row:, column:], (count,), strides)


CASES: dict[str, tuple[Callable[..., Any], list[np.ndarray], Callable[..., Any]]] = {
    "select_scatter": (
        lambda x, s: gf.select_scatter(x, s, 1, -2), [X, X[:, 0]],
        lambda x, s: _changed(lambda a: a.__setitem__((slice(None), -2), s), x),
    ),
    "slice_scatter": (
        lambda x, s: x.slice_scatter(s, 1, 1, None, 2), [X, X[:, :2] * 3],
        lambda x, s: _changed(lambda a: a.__setitem__((slice(None), slice(1, None, 2)), s), x),
    ),
    "diagonal_scatter": (
        lambda x, s: gf.diagonal_scatter(x, s, 1), [X, X[0, :4] * 2],
        lambda x, s: _changed(lambda a: _diagonal(a, 1).__setitem__(slice(None), s), x),
    ),
    "put": (
        lambda x, s: x.put(gf.tensor([3, -1, 0]), s), [X, X[0, :3]],
        lambda x, s: _changed(lambda a: np.put(a, [3, 19, 0], s), x),
    ),
    "put, accumulated": (
        lambda x, s: x.put(gf.tensor([3, -1, 3]), s, accumulate=True), [X, X[0, :3]],
        lambda x, s: _changed(lambda a: np.add.at(a.reshape(-1), [3, 19, 3], s), x),
    ),
    "index_reduce, amax": (
        lambda x, s: gf.index_reduce(x, 0, gf.tensor([2, 0, 2]), s, "amax"), [X, X[:3] + 0.1],
        lambda x, s: _changed(lambda a: np.maximum.at(a, [2, 0, 2], s), x),
    ),
    "index_reduce, prod": (
        lambda x, s: gf.index_reduce(x, 0, gf.tensor([2, 0, 2]), s, "prod"), [X, X[:3] + 0.1],
        lambda x, s: _changed(lambda a: np.multiply.at(a, [2, 0, 2], s), x),
    ),
    "index_reduce, mean of what comes": (
        lambda x, s: gf.index_reduce(x, 0, gf.tensor([2, 0, 2]), s, "mean", include_self=False),
        [X, X[:3] + 0.1],
        lambda x, s: np.stack([s[1], x[1], (s[0] + s[2]) / 2, x[3]]),
    ),
    "writing a diagonal": (
        lambda x, s: _assigned(x.t().clone().t(), s), [X, X[0, :4]],
        lambda x, s: _changed(lambda a: _diagonal(a, 1).__setitem__(slice(None), s), x),
    ),
}  # fmt: skip


def _assigned(x: gf.Tensor, s: gf.Tensor) -> gf.Tensor:
    x.diagonal(1).copy_(s)
    return x


@pytest.mark.parametrize("name", CASES)
def test_parts_replaced(name: str) -> None:
    function, arrays, wanted = CASES[name]
    expected = wanted(*arrays)
    weight = RNG.standard_normal(expected.shape)
    tensors = [gf.tensor(a, requires_grad=True) for a in arrays]
    made = function(*tensors)
    np.testing.assert_allclose(made.detach().numpy(), expected, rtol=1e-12)
    (made * gf.tensor(weight)).sum().backward()
    run = gf.compile(gf.grad(lambda *t: (function(*t) * gf.tensor(weight)).sum(), argnums=(0, 1)))
    compiled = run(*map(gf.tensor, arrays))
    for number, (array, tensor, found) in enumerate(zip(arrays, tensors, compiled, strict=True)):
        step = RNG.standard_normal(array.shape) * 1e-6
        moved = [[a + sign * step if n == number else a for n, a in enumerate(arrays)] for sign in (1, -1)]
        slope = ((wanted(*moved[0]) - wanted(*moved[1])) * weight).sum() / 2
        np.testing.assert_allclose((tensor.grad.numpy() * step).sum(), slope, rtol=1e-4, atol=1e-12)
        np.testing.assert_allclose(found.numpy(), tensor.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (7, 2), (3, 3, 3)])
@pytest.mark.parametrize("wrap", [False, True])
def test_fill_diagonal(shape: tuple[int, ...], wrap: bool) -> None:
    expected = np.zeros(shape)
    np.fill_diagonal(expected, 2.5, wrap)

    def fill(x: gf.Tensor) -> gf.Tensor:
        return x.fill_diagonal_(2.5, wrap=wrap)

    for run in (fill, gf.compile(fill)):
        x = gf.zeros(*shape, dtype=gf.float64)
        run(x)
        np.testing.assert_array_equal(x.numpy(), expected)


def test_diagonals_share_memory_whatever_the_strides() -> None:
    x = gf.arange(24.0).reshape(2, 3, 4)
    x.diagonal(1, 2, 0).zero_()
    expected = np.arange(24.0).reshape(2, 3, 4)
    expected[1, :, 0] = 0.0
    np.testing.assert_array_equal(x.numpy(), expected)


def test_parts_that_dont_fit() -> None:
    x = gf.zeros(4, 5)
    with pytest.raises(ValueError, match="size equal to the slice"):
        gf.select_scatter(x, gf.zeros(1), 0, 1)
    with pytest.raises(IndexError, match="out of bounds"):
        gf.select_scatter(x, gf.zeros(5), 0, 4)
    with pytest.raises(ValueError, match="step has to be a positive"):
        gf.slice_scatter(x, gf.zeros(4, 5), step=0)
    with pytest.raises(ValueError, match="two different dimensions"):
        gf.diagonal_scatter(x, gf.zeros(4), 0, 1, 1)
    with pytest.raises(ValueError, match="as many elements as index"):
        x.put(gf.tensor([1, 2]), gf.zeros(3))
    with pytest.raises(TypeError, match="one dtype"):
        x.put(gf.tensor([1]), gf.tensor([1]))
    with pytest.raises(ValueError, match="reduce is prod"):
        gf.index_reduce(x, 0, gf.tensor([1]), gf.zeros(1, 5), "sum")
    with pytest.raises(ValueError, match="source has to have the shape"):
        gf.index_reduce(x, 0, gf.tensor([1]), gf.zeros(5), "amax")
    with pytest.raises(ValueError, match="equal length"):
        gf.zeros(2, 3, 4).fill_diagonal_(1)
