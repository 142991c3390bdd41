"""``special``'s functions against SciPy, in both float formats, at once and compiled; their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
import scipy.special as sp
from graphflow import special
from graphflow.errors import DTypeError

WIDE = np.concatenate([np.linspace(-30, 30, 121), [1e-30, 1e-8, 7.9999, 8.0, 8.0001, 700.0, np.nan]])
UNIT = np.concatenate([np.linspace(-1, 1, 81), [1e-300, 1e-9, 0.85, 0.8501, 1 - 1e-12, 1.5, np.nan]])
CASES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], np.ndarray]] = {
    "i0": (special.i0, sp.i0, WIDE), "i0e": (special.i0e, sp.i0e, WIDE), "i1": (special.i1, sp.i1, WIDE),
    "i1e": (special.i1e, sp.i1e, WIDE), "erfcx": (special.erfcx, sp.erfcx, WIDE[WIDE < 600]),
    "erfinv": (special.erfinv, sp.erfinv, UNIT), "ndtri": (special.ndtri, sp.ndtri, (UNIT + 1) / 2),
    "ndtri near 0": (special.ndtri, sp.ndtri, np.logspace(-300, -1, 60)),
    "ndtr": (special.ndtr, sp.ndtr, WIDE), "log_ndtr": (special.log_ndtr, sp.log_ndtr, WIDE),
    "entr": (special.entr, sp.entr, WIDE), "expit": (special.expit, sp.expit, WIDE),
    "logit": (special.logit, sp.logit, np.linspace(0, 1, 41)),
    "psi": (special.psi, sp.psi, np.linspace(0.1, 9, 30)),
    "gammaln": (special.gammaln, sp.gammaln, np.linspace(0.1, 9, 30)),
    "zeta": (lambda x: special.zeta(2.5, x), lambda x: sp.zeta(2.5, x), np.linspace(0.1, 9, 30)),
    "multigammaln": (
        lambda x: special.multigammaln(x, 3), np.vectorize(lambda v: sp.multigammaln(v, 3)),
        np.linspace(1.1, 9, 30),
    ),
    "xlog1py": (lambda x: special.xlog1py(x, 0.5), lambda x: sp.xlog1py(x, 0.5), WIDE),
    "sinc": (special.sinc, np.sinc, np.linspace(-0.9, 0.9, 40)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("compiled", [False, True])
def test_they_agree_with_scipy(name: str, compiled: bool) -> None:
    function, reference, points = CASES[name]
    run = gf.compile(function) if compiled else function
    for dtype, tolerance in ((np.float64, 1e-12), (np.float32, 2e-6)):
        x = points.astype(dtype)
        if name == "ndtri near 0":
            x = x[x > 1e-30]
        with np.errstate(all="ignore"):
            want = np.asarray(reference(x.astype(np.float64))).astype(dtype)
        got = run(gf.tensor(x)).numpy()
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=1e-300 if dtype is np.float64 else 1e-38)


def test_their_limits() -> None:
    x = gf.tensor([0.0, np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(special.i0(x).numpy(), [1, np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(special.i1(x).numpy(), [0, np.inf, -np.inf, np.nan])
    np.testing.assert_array_equal(special.i0e(x).numpy(), [1, 0, 0, np.nan])
    np.testing.assert_array_equal(special.erfcx(x[1:]).numpy(), [0, np.inf, np.nan])
    np.testing.assert_array_equal(gf.erfinv(gf.tensor([-1.0, 1.0, 2.0])).numpy(), [-np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(
        special.ndtri(gf.tensor([0.0, 1.0, -1.0])).numpy(), [-np.inf, np.inf, np.nan]
    )
    np.testing.assert_array_equal(special.entr(gf.tensor([0.0, -1.0, np.inf])).numpy(), [0, -np.inf, -np.inf])


DERIVATIVES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], np.ndarray]] = {
    "i0": (special.i0, sp.i1, np.linspace(-9, 9, 21)),
    "i1": (special.i1, lambda x: sp.ivp(1, x), np.linspace(-9, 9, 21)),
    "ndtr": (special.ndtr, lambda x: np.exp(-x * x / 2) / np.sqrt(2 * np.pi), np.linspace(-9, 9, 21)),
    "log_ndtr": (
        special.log_ndtr, lambda x: np.sqrt(2 / np.pi) / sp.erfcx(-x / np.sqrt(2)), np.linspace(-40, 9, 30)
    ),
    "erfinv": (
        special.erfinv, lambda x: np.sqrt(np.pi) / 2 * np.exp(sp.erfinv(x) ** 2), np.linspace(-0.99, 0.99, 21)
    ),
    "entr": (special.entr, lambda x: -np.log(x) - 1, np.linspace(0.1, 9, 21)),
    "zeta": (lambda x: special.zeta(2.0, x), lambda x: -2 * sp.zeta(3.0, x), np.linspace(0.1, 9, 21)),
}  # fmt: skip


@pytest.mark.parametrize("name", DERIVATIVES)
def test_their_derivatives(name: str) -> None:
    function, derivative, points = DERIVATIVES[name]
    x = gf.tensor(points, requires_grad=True)
    function(x).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), derivative(points), rtol=1e-10, atol=1e-13)


def test_what_they_refuse() -> None:
    with pytest.raises(DTypeError, match="number"):
        special.zeta(gf.ones(2), gf.ones(2))
    with pytest.raises(ValueError, match="p is"):
        special.multigammaln(gf.ones(2), 0)
    x = gf.tensor([0.5, 0.25])
    assert gf.equal(x.polygamma(1), gf.polygamma(1, x))
    assert gf.equal(x.clone().erfinv_(), gf.erfinv(x))
    assert gf.equal(x.clone().polygamma_(2), x.polygamma(2))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("compiled", [False, True])
def test_mantissas_and_exponents(dtype: Any, compiled: bool) -> None:
    tiny = np.finfo(dtype).smallest_subnormal
    x = np.array([
        0, -0.0, 1, -1, 0.5, 3, np.nextafter(dtype(1), dtype(0)), np.nextafter(dtype(8), dtype(9)), 1e-30,
        np.finfo(dtype).max, np.finfo(dtype).tiny, -tiny * 5, np.inf, -np.inf, np.nan,
    ], dtype)  # fmt: skip
    run = gf.compile(gf.frexp) if compiled else gf.frexp
    mantissa, exponent = run(gf.tensor(x))
    want, power = np.frexp(x)
    np.testing.assert_array_equal(mantissa.numpy(), want)
    np.testing.assert_array_equal(exponent.numpy()[:-3], power[:-3])
    assert exponent.dtype is gf.int32
