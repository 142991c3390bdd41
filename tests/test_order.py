"""Cumulative functions, sorting and searching beside NumPy; gradients beside finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import TraceError

RNG = np.random.default_rng(11)
X = RNG.standard_normal((4, 6))
ZEROS = np.array([[0.0, 2, 3, -1, 4, 5], [2, 0, 3, 0, 1, 2], [1, 2, 3, 4, 5, 6], [0, 0, 0, 1, 2, 3]])
NANS = np.where(RNG.random((4, 6)) < 0.2, np.nan, X)


def both(function: Callable[[Any], Any], x: np.ndarray) -> list[Any]:
    """The function's results at once and compiled."""
    return [function(gf.tensor(x)), gf.compile(function)(gf.tensor(x))]


def slope(function: Callable[[Any], Any], x: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """Central differences of a function to a number."""
    found = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        ends = []
        for step in (eps, -eps):
            moved = x.copy()
            moved[at] += step
            ends.append(float(function(gf.tensor(moved))))
        found[at] = (ends[0] - ends[1]) / (2 * eps)
    return found


VALUES: dict[str, tuple[Callable[[Any], Any], Callable[[np.ndarray], Any]]] = {
    "cumsum": (lambda t: t.cumsum(0), lambda x: np.cumsum(x, 0)),
    "cumprod": (lambda t: t.cumprod(-1), lambda x: np.cumprod(x, -1)),
    "cummax": (lambda t: t.cummax(1).values, lambda x: np.maximum.accumulate(x, 1)),
    "cummin": (lambda t: t.cummin(0)[0], lambda x: np.minimum.accumulate(x, 0)),
    "logcumsumexp": (lambda t: gf.logcumsumexp(t, 1), lambda x: np.logaddexp.accumulate(x, 1)),
    "diff": (lambda t: t.diff(2, 0), lambda x: np.diff(x, 2, 0)),
    "trapezoid": (lambda t: gf.trapezoid(t, dx=0.5), lambda x: np.trapezoid(x, dx=0.5)),
    "sort": (lambda t: t.sort(0, descending=True).values, lambda x: -np.sort(-x, 0)),
    "argsort": (lambda t: t.argsort(), lambda x: np.argsort(x, -1, kind="stable")),
    "topk": (lambda t: t.topk(2, 1).values, lambda x: -np.sort(-x, 1)[:, :2]),
    "kthvalue": (lambda t: t.kthvalue(2, 0)[0], lambda x: np.sort(x, 0)[1]),
    "median": (lambda t: t.median(1).values, lambda x: np.sort(x, 1)[:, 2]),
    "quantile": (lambda t: t.quantile(0.3, 1), lambda x: np.quantile(x, 0.3, axis=1)),
    "histc": (lambda t: t.histc(4, -1, 1), lambda x: np.histogram(x, 4, (-1, 1))[0]),
}


@pytest.mark.parametrize("name", VALUES)
def test_values(name: str) -> None:
    function, reference = VALUES[name]
    for x in (X, ZEROS):
        for found in both(function, x):
            np.testing.assert_allclose(found.numpy(), reference(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(VALUES.keys() - {"argsort", "histc"}))
def test_gradients(name: str) -> None:
    function, _ = VALUES[name]

    def loss(t: Any) -> Any:
        y = function(t)
        return (y * y * 0.3 + y).sum()

    expected = slope(loss, X)
    t = gf.tensor(X, requires_grad=True)
    loss(t).backward()
    np.testing.assert_allclose(t.grad.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(gf.compile(gf.grad(loss))(gf.tensor(X)).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "function", [lambda t: t.prod(), lambda t: t.cumprod(0).sum()], ids=["prod", "cumprod"]
)
def test_products_have_exact_derivatives_at_zeros(function: Callable[[Any], Any]) -> None:
    for x in (np.array([2.0, 0, 3]), np.array([0.0, 0, 3]), np.array([0.0, 0, 0]), np.array([1.0, 2, 3])):
        gradient = gf.grad(function)(gf.tensor(x))
        np.testing.assert_allclose(gradient.numpy(), slope(function, x), atol=1e-8)
        second = gf.compile(gf.hessian(function))(gf.tensor(x)).numpy()
        for i in range(3):
            row = slope(lambda t, i=i: gf.grad(function)(t)[i], x)
            np.testing.assert_allclose(second[i], row, atol=1e-8)


def test_one_compiled_sort_serves_every_size() -> None:
    fn = gf.compile(lambda t: (t.sort(0).values, t.cumsum(0), t.median(0).values, t.quantile(0.5, 0)))
    for size in (5, 1, 40, 8):
        x = RNG.standard_normal((size, 3))
        values, sums, middle, quantile = fn(gf.tensor(x))
        np.testing.assert_array_equal(values.numpy(), np.sort(x, 0))
        np.testing.assert_allclose(sums.numpy(), np.cumsum(x, 0), rtol=1e-12)
        np.testing.assert_array_equal(middle.numpy(), np.sort(x, 0)[(size - 1) // 2])
        np.testing.assert_allclose(quantile.numpy(), np.quantile(x, 0.5, axis=0), rtol=1e-12)
    assert len(fn.explain().variants) == 1


def test_nans_come_last() -> None:
    for found in both(lambda t: t.sort().values, NANS):
        np.testing.assert_array_equal(found.numpy(), np.sort(NANS))
    for found in both(lambda t: t.sort(descending=True).values, NANS):
        np.testing.assert_array_equal(found.numpy(), np.sort(NANS)[:, ::-1])
    for found in both(lambda t: t.median(1).values, NANS):
        lower = np.sort(NANS, 1)[:, 2]
        np.testing.assert_array_equal(found.numpy(), np.where(np.isnan(NANS).any(1), np.nan, lower))
    for found in both(lambda t: t.nanquantile(0.4, 1), NANS):
        np.testing.assert_allclose(found.numpy(), np.nanquantile(NANS, 0.4, axis=1), rtol=1e-12)


def test_equal_elements_keep_their_order() -> None:
    x = RNG.integers(0, 4, (3, 100))
    for dtype in (np.int64, np.uint8, np.bool_, np.float32):
        for found in both(lambda t: t.argsort(stable=True), x.astype(dtype)):
            np.testing.assert_array_equal(found.numpy(), np.argsort(x.astype(dtype), kind="stable"))


def test_searching() -> None:
    row, values = np.sort(RNG.standard_normal(9)), RNG.standard_normal((3, 4))
    for side in ("left", "right"):
        function = gf.compile(lambda r, v, side=side: gf.searchsorted(r, v, side=side))
        found = function(gf.tensor(row), gf.tensor(values))
        np.testing.assert_array_equal(found.numpy(), np.searchsorted(row, values, side))
    found = gf.bucketize(gf.tensor(values), gf.tensor(row), right=True)
    np.testing.assert_array_equal(found.numpy(), np.digitize(values, row))


def test_mode_and_counts() -> None:
    x = np.array([[3, 1, 1, 2, 2], [5, 5, 0, 0, 0]])
    for values, indices in both(lambda t: t.mode(1), x):
        assert values.tolist() == [1, 0]
        np.testing.assert_array_equal(x[[0, 1], indices.numpy()], values.numpy())
    values, inverse, counts = gf.tensor(x).unique(return_inverse=True, return_counts=True)
    assert values.tolist() == [0, 1, 2, 3, 5]
    np.testing.assert_array_equal(values.numpy()[inverse.numpy()], x)
    assert counts.tolist() == [3, 2, 2, 1, 2]
    assert gf.tensor(x[1]).unique_consecutive(return_counts=True)[1].tolist() == [2, 3]
    assert gf.tensor(x[0]).bincount(minlength=6).tolist() == [0, 2, 2, 1, 0, 0]
    weights = gf.tensor([1.0, 2, 3, 4, 5], requires_grad=True)
    gf.tensor(x[1]).bincount(weights)[0].backward()
    assert weights.grad.tolist() == [0, 0, 1, 1, 1]


@pytest.mark.parametrize("name", ["unique", "unique_consecutive", "bincount", "nonzero"])
def test_sizes_that_depend_on_values_are_refused_while_tracing(name: str) -> None:
    with pytest.raises(TraceError, match=f"{name}: .*depends on values"):
        gf.compile(lambda t: getattr(t, name)())(gf.tensor([1, 2, 2]))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda t: t.topk(9, 1), IndexError, "k=9 is out of range"),
        (lambda t: t.kthvalue(0), IndexError, "k=0 is out of range"),
        (lambda t: t.sort(2), IndexError, "Dimension out of range"),
        (lambda t: t.quantile(1.5), ValueError, "within"),
        (lambda t: t.quantile(0.5, interpolation="best"), ValueError, "interpolation"),
        (lambda t: t.long().quantile(0.5), TypeError, "floating point"),
        (lambda t: t.diff(-1), ValueError, "negative"),
        (lambda t: t.histc(0), ValueError, "bins > 0"),
        (lambda t: gf.searchsorted(t, t[0]), ValueError, "all dimensions but the last"),
        (lambda t: t.bincount(), TypeError, "integers"),
        (lambda t: t[:, :0].median(1), IndexError, "no elements"),
    ],
)  # fmt: skip
def test_bad_arguments(call: Callable[[Any], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(gf.tensor(X))
