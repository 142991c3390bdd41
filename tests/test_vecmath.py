"""The kernels' mathematical functions against NumPy: errors over random values, and every special value."""

from __future__ import annotations

import importlib.util
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphflow.compiler.codegen import llvm, vecmath, vecmath_scalars
from graphflow.compiler.codegen.function import Function
from graphflow.compiler.codegen.numba_front import compile_function, lower

_spec = importlib.util.spec_from_file_location("ulp", Path(__file__).parents[1] / "tools" / "ulp.py")
assert _spec is not None and _spec.loader is not None
ulp = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(ulp)

DTYPES = {"f32": np.float32, "f64": np.float64}
LIMITS = {"erfc": 4.0, "tan": 3.0}  # float64; the others, and all in float32, stay within 2
NAMES = sorted((*vecmath.UNARY, *vecmath.BINARY))


def edges(dtype: Any) -> Any:
    info = np.finfo(dtype)
    sizes = [0.0, info.smallest_subnormal, 37 * info.smallest_subnormal, info.tiny, info.eps, 1e-3, 0.25, 0.5]
    sizes += [0.75, 1.0, 1.0 + info.eps, 1.5, 2.0, 2.5, 3.0, np.pi / 2, np.pi, 10.0, 88.5, 1e4, 2.0**24, 1e30]
    sizes += [info.max, np.inf, np.nan]
    found = np.array(sizes, dtype)
    return np.concatenate([found, -found])


@pytest.mark.parametrize("code", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_error_is_small(name: str, code: str) -> None:
    if code == "f64" and not ulp.HAS_LONG_DOUBLE:
        pytest.skip("no wider format to compare with")
    error, where = ulp.measure(name, DTYPES[code], 20_000, seed=5)
    assert error <= (2.0 if code == "f32" else LIMITS.get(name, 2.0)), where


@pytest.mark.parametrize("code", DTYPES)
@pytest.mark.parametrize("name", NAMES)
def test_special_values(name: str, code: str) -> None:
    if code == "f64" and not ulp.HAS_LONG_DOUBLE:
        pytest.skip("no wider format to compare with")
    x = edges(DTYPES[code])
    operands = [x]
    if name in vecmath.BINARY:
        operands = [np.repeat(x, x.size), np.tile(x, x.size)]
    got = ulp.kernel(name, code, len(operands))(*operands)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        exact = ulp.REFERENCES[name](*(v.astype(ulp.REAL) for v in operands))
        errors = ulp.ulps(got, exact)
    bad = np.flatnonzero(errors > LIMITS.get(name, 2.0))
    assert bad.size == 0, [(*(v[i] for v in operands), got[i], exact[i]) for i in bad[:5]]
    zeros = (exact == 0) & (got == 0)
    assert np.array_equal(np.signbit(got[zeros]), np.signbit(exact[zeros])) or name in ("sign", "erfc")


@pytest.mark.parametrize("code", DTYPES)
@pytest.mark.parametrize(
    "name", ["floor", "ceil", "trunc", "round", "sqrt", "abs", "isnan", "isinf", "isfinite"]
)
def test_exact_functions(name: str, code: str) -> None:
    x = np.concatenate([edges(DTYPES[code]), np.arange(-4, 4, 0.25, DTYPES[code])])
    with np.errstate(all="ignore"):
        want = getattr(np, name)(x).astype(x.dtype)
    assert np.array_equal(ulp.kernel(name, code, 1)(x), want, equal_nan=True)


@pytest.mark.parametrize("code", DTYPES)
@pytest.mark.parametrize("name", ["maximum", "minimum", "copysign"])
def test_exact_pairs(name: str, code: str) -> None:
    x = edges(DTYPES[code])
    a, b = np.repeat(x, x.size), np.tile(x, x.size)
    got = ulp.kernel(name, code, 2)(a, b)
    assert np.array_equal(got, getattr(np, name)(a, b), equal_nan=True)


@pytest.mark.parametrize("code", DTYPES)
def test_fma_rounds_once(code: str) -> None:
    dtype = DTYPES[code]
    x = np.full(40, 1 + np.finfo(dtype).eps, dtype)
    got = ulp.kernel("fma", code, 3)(x, x, -x * x)
    one, eps = Fraction(1), Fraction(float(np.finfo(dtype).eps))
    exact = (one + eps) ** 2 - Fraction(float(x[0] * x[0]))
    assert Fraction(float(got[0])) == exact == eps**2


def test_huge_angles() -> None:
    # the float64 number nearest to a multiple of pi/2, and the like for float32 (Kahan; Muller)
    hard = np.array([6381956970095103.0 * 2.0**797, 2.0**1000, 1e22, 1e300] * 4)
    with np.errstate(all="ignore"):
        for name in ("sin", "cos", "tan"):
            exact = getattr(np, name)(hard.astype(np.longdouble))
            assert ulp.ulps(ulp.kernel(name, "f64", 1)(hard), exact).max() < 3
    single = np.array([16367173.0 * 2.0**72, 2.0**127, 3e38, 1e10] * 8, np.float32)
    for name in ("sin", "cos", "tan"):
        exact = getattr(np, name)(single.astype(np.longdouble))
        assert ulp.ulps(ulp.kernel(name, "f32", 1)(single), exact).max() < 2


@pytest.mark.parametrize("code", DTYPES)
@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("fmod", "mod")])
def test_loops_vectorise_without_calls(name: str, code: str) -> None:
    inputs = ["x0", "x1"][: 2 if name in vecmath.BINARY else 1]
    call = ", ".join(f"{x}[i]" for x in inputs)
    function = Function(
        f"k_{name}",
        (*((x, code + "*") for x in inputs), ("y", code + "*")),
        body=f"for i in range(lo, hi):\n    y[i] = {name}_{code}({call})",
    )
    assert not llvm.undefined_symbols(compile_function(function)[1])
    text = llvm.optimised_ir([lower(function)])
    lanes = llvm.host().lanes(8)  # float32 that goes through float64 has its lanes
    kinds = (f"<{lanes} x double>",) if code == "f64" else (f"<{lanes} x double>", f"<{2 * lanes} x float>")
    assert any(kind in text for kind in kinds)


def test_only_what_is_called_is_linked() -> None:
    function = Function("k", (("x", "f32*"),), body="for i in range(lo, hi):\n    x[i] = exp_f32(x[i])")
    text = lower(function)
    assert "@gf.exp.f32(" in text
    assert text.count("define internal") == 2  # the body and exp
    for flag in ("reassoc", "nnan", "ninf", "fast"):
        assert f" {flag} " not in text


def test_every_listed_function_is_there() -> None:
    for code in DTYPES:
        for name in (*NAMES, "floor", "acc_add", "acc_max", "acc_min", "fma", "stack", "ptr", "bits"):
            assert f"{name}_{code}" in vecmath_scalars.FUNCTIONS
