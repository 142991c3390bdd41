"""The gamma function's relatives against SciPy, in both float formats, eager and compiled."""

from __future__ import annotations

from typing import Any

import graphflow as gf
import numpy as np
import pytest
import scipy.special
from graphflow.errors import DTypeError

POINTS = np.concatenate(
    [np.linspace(-9.7, 9.7, 98), [1e-30, 1e-8, 1.0, 1.4616, 2.0, 25.5, 1e6, 1e30, np.nan]]
)


def close(got: Any, want: np.ndarray, dtype: Any) -> None:
    tolerance = {np.float64: 5e-13, np.float32: 1e-6}[dtype]
    np.testing.assert_allclose(got.numpy(), want.astype(dtype), rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("compiled", [False, True])
def test_gamma_functions_agree_with_scipy(compiled: bool, dtype: Any) -> None:
    x = POINTS.astype(dtype)
    wide = x.astype(np.float64)
    for function, want in [
        (gf.lgamma, scipy.special.gammaln(wide)),
        (gf.digamma, scipy.special.digamma(wide)),
        (lambda x: gf.polygamma(0, x), scipy.special.digamma(wide)),
    ]:
        got = (gf.compile(function) if compiled else function)(gf.tensor(x))
        close(got, want, dtype)
    positive = x[(x > 0) & (x > 1e-3) | np.isnan(x)]
    for n in (1, 2, 5):
        run = gf.compile(lambda x, n=n: gf.polygamma(n, x)) if compiled else lambda x, n=n: gf.polygamma(n, x)
        want = scipy.special.polygamma(n, positive.astype(np.float64))
        close(run(gf.tensor(positive)), want, dtype)


def test_edges() -> None:
    x = gf.tensor([0.0, -0.0, -1.0, np.inf, -np.inf], dtype=gf.float64)
    for run in (lambda f: f(x), lambda f: gf.compile(f)(x)):
        assert run(gf.lgamma).tolist() == [np.inf] * 5
        got = run(gf.digamma).numpy()
        np.testing.assert_array_equal(got[:4], [-np.inf, np.inf, np.nan, np.inf])


def test_derivatives_are_the_next_ones() -> None:
    x = gf.tensor([-2.3, -0.4, 0.3, 1.7, 12.0], dtype=gf.float64)
    pairs = [
        (gf.lgamma, gf.digamma),
        (gf.digamma, lambda x: gf.polygamma(1, x)),
        (lambda x: gf.polygamma(1, x), lambda x: gf.polygamma(2, x)),
        (lambda x: gf.polygamma(2, x), lambda x: gf.polygamma(3, x)),
    ]
    for function, derivative in pairs:
        found = gf.compile(gf.grad(lambda x, f=function: f(x).sum()))(x)
        np.testing.assert_allclose(found.numpy(), derivative(x).numpy(), rtol=1e-10)
        step = 1e-5
        slope = (function(x + step) - function(x - step)) / (2 * step)
        np.testing.assert_allclose(found.numpy(), slope.numpy(), rtol=1e-5)
    with pytest.raises(ValueError, match="n has to be 0 or more"):
        gf.polygamma(-1, x)


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_divisors(dtype: Any) -> None:
    made = np.random.default_rng(0)
    a, b = (made.integers(0, 100, (50, 4)).astype(dtype) for _ in range(2))
    a[0], b[1] = 0, 0
    a[2], b[2] = 0, 0
    if dtype is not np.uint8:
        a[5:9] *= -1
    else:
        a, b = a % 16, b % 16
    for function, want in ((gf.gcd, np.gcd(a, b)), (gf.lcm, np.lcm(a, b))):
        for run in (function, gf.compile(function)):
            np.testing.assert_array_equal(run(gf.tensor(a), gf.tensor(b)).numpy(), want)
    with pytest.raises(DTypeError, match="gcd: needs integers"):
        gf.gcd(gf.ones(2), gf.ones(2))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_neighbours(dtype: Any) -> None:
    ends = np.finfo(dtype)
    values = np.array([0.0, 1.0, ends.tiny, ends.smallest_subnormal, ends.max, np.inf, np.nan])
    values = values.astype(dtype)
    values = np.concatenate([values, -values])
    x, y = (v.ravel() for v in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        want = np.nextafter(x, y)
    for run in (gf.nextafter, gf.compile(gf.nextafter)):
        got = run(gf.tensor(x), gf.tensor(y)).numpy()
        np.testing.assert_array_equal(got, want)
