"""Measure the errors of the kernels' mathematical functions and write docs/vecmath.md.

    python tools/ulp.py [--points N] [--out docs/vecmath.md]

An error is counted in units in the last place (ULP) of the exact result's format; a correctly rounded result
has at most 0.5. float32 results are compared with NumPy's float64 functions, float64 results with NumPy's
long double (a 64-bit significand on x86; where it has none, float64 isn't measured). Functions that are made
of these are compared with mpmath's, which the `test` extra installs.
"""

from __future__ import annotations

import argparse
import ctypes
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.compiler.codegen import llvm, vecmath
from graphflow.compiler.codegen.function import Function
from graphflow.compiler.codegen.numba_front import compile_function

Array = NDArray[Any]
REAL: Any = np.longdouble
HAS_LONG_DOUBLE = np.finfo(np.longdouble).nmant >= 63


def kernel(name: str, code: str, operands: int) -> Callable[..., Array]:
    """A function over arrays that applies ``<name>_<code>`` elementwise in compiled code."""
    inputs = [f"x{at}" for at in range(operands)]
    call = ", ".join(f"{x}[i]" for x in inputs)
    function = Function(
        name=f"measure_{name}",
        params=(*((x, f"{code}*") for x in inputs), ("y", f"{code}*")),
        body=f"for i in range(lo, hi):\n    y[i] = {name}_{code}({call})",
    )
    symbol, object_code = compile_function(function)
    loaded = llvm.Loaded(object_code)
    words = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
    entry = ctypes.CFUNCTYPE(None, *words)(loaded.address(symbol))

    def run(*arrays: Array, keep: llvm.Loaded = loaded) -> Array:
        out = np.empty_like(arrays[0])
        block = np.array([a.ctypes.data for a in (*arrays, out)], np.int64)
        entry(block.ctypes.data, 0, out.size, None)
        return out

    return run


# -- references -------------------------------------------------------------------------------------


def _exp_of_minus_square(x: Array) -> Any:
    high = np.ldexp(np.rint(np.ldexp(x, 16)), -16)  # its square is exact
    return np.exp(-high * high) * np.exp(-(x - high) * (x + high))


def _erf_series(x: Array) -> Any:
    """erf by its series of positive terms, for 0 <= x <= 3.2 (Abramowitz and Stegun 7.1.6)."""
    term = np.array(x)
    total = np.array(x)
    for n in range(1, 90):
        term = term * (2 * x * x) / (2 * n + 1)
        total = total + term
    return total * _exp_of_minus_square(x) * 2 / np.sqrt(REAL(2) * np.arccos(REAL(0)))


def _erfc_fraction(x: Array) -> Any:
    """erfc by its continued fraction, for x >= 2 (Abramowitz and Stegun 7.1.14), from the inside out."""
    inner = np.array(x)
    for n in range(160, 0, -1):
        inner = x + REAL(n) / 2 / inner
    return _exp_of_minus_square(x) / inner / np.sqrt(REAL(2) * np.arccos(REAL(0)))


def erf(x: Array) -> Any:
    """The error function in long double."""
    size = np.minimum(np.abs(x), REAL(8))
    near, far = _erf_series(np.minimum(size, REAL(3))), 1 - _erfc_fraction(np.maximum(size, REAL(2)))
    return np.copysign(np.where(size < 2.5, near, far), x)


def erfc(x: Array) -> Any:
    """The complementary error function in long double."""
    size = np.minimum(np.abs(x), REAL(110))
    near, far = 1 - _erf_series(np.minimum(size, REAL(3))), _erfc_fraction(np.maximum(size, REAL(2)))
    positive = np.where(size < 2, near, far)
    return np.where(x < 0, 2 - positive, positive)


def _sigmoid(x: Array) -> Any:
    return np.where(
        x < 0, np.exp(np.minimum(x, 0)) / (1 + np.exp(np.minimum(x, 0))), 1 / (1 + np.exp(-np.abs(x)))
    )


REFERENCES: dict[str, Callable[..., Array]] = {
    **{name: getattr(np, name) for name in ("exp", "exp2", "expm1", "log", "log1p", "log2", "log10")},
    **{
        name: getattr(np, name)
        for name in ("tanh", "sinh", "cosh", "sin", "cos", "tan", "sign", "fmod", "mod")
    },
    **{
        name: getattr(np, "arc" + name[1:])
        for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2")
    },
    "pow": np.power,
    "sigmoid": _sigmoid,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "erf": erf,
    "erfc": erfc,
}

# Where each function does its interesting work; all have samples over every magnitude too.
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("exp", "expm1", "sinh", "cosh", "sigmoid"), (-100.0, 100.0)),
    "exp2": (-150.0, 130.0),
    **dict.fromkeys(("asin", "acos", "atanh"), (-1.0, 1.0)),
    **dict.fromkeys(("log", "log2", "log10", "rsqrt"), (0.0, 4.0)),
    "log1p": (-1.0, 3.0),
    "acosh": (1.0, 10.0),
    "erfc": (-3.0, 10.0),
    "pow": (0.0, 30.0),
}
WIDE_IN_F64 = {"exp": 740.0, "expm1": 700.0, "sinh": 711.0, "cosh": 711.0, "exp2": 1075.0, "erfc": 27.0}


def samples(name: str, dtype: Any, points: int, seed: int = 0) -> tuple[Array, ...]:
    """Test points: a third in the function's range, a third within [-8, 8], a third of random bits."""
    made = np.random.default_rng(seed)
    low, high = RANGES.get(name, (-20.0, 20.0))
    if dtype is np.float64 and name in WIDE_IN_F64:
        low, high = -WIDE_IN_F64[name], WIDE_IN_F64[name]
    whole = np.int32 if dtype is np.float32 else np.int64
    third = points // 3

    def column() -> Array:
        info = np.iinfo(whole)
        bits = made.integers(info.min, info.max, points - 2 * third, dtype=whole).view(dtype)
        parts = (made.uniform(low, high, third), made.uniform(-8, 8, third), bits)
        return np.concatenate([part.astype(dtype) for part in parts])

    if name not in vecmath.BINARY:
        return (column(),)
    x, y = column(), column()
    if name == "pow":  # mostly positive bases, and results within range
        x[: 2 * third] = np.abs(x[: 2 * third])
    return x, y


def ulps(got: Array, exact: Array) -> Array:
    """Errors of `got` in units in the last place of its format; NaN and Inf must be where they belong."""
    rounded = exact.astype(got.dtype)
    unit = np.spacing(np.minimum(np.abs(rounded), np.finfo(got.dtype).max)).astype(exact.dtype)
    errors = np.abs(got.astype(exact.dtype) - exact) / unit
    special = ~np.isfinite(rounded) | ~np.isfinite(got)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    beyond = np.isinf(got) & np.isfinite(exact) & (np.abs(exact) >= np.finfo(got.dtype).max)
    return np.where(special, np.where(same | beyond, 0, np.inf), errors)


def measure(name: str, dtype: Any, points: int, seed: int = 0) -> tuple[float, Sequence[Any]]:
    """The largest error of a function in ULP, and the operands it occurs at."""
    code = "f32" if dtype is np.float32 else "f64"
    operands = samples(name, dtype, points, seed)
    got = kernel(name, code, len(operands))(*operands)
    wide = np.float64 if dtype is np.float32 and name not in ("erf", "erfc") else REAL
    with np.errstate(all="ignore"):
        exact = REFERENCES[name](*(x.astype(wide) for x in operands))
        errors = ulps(got, np.asarray(exact))
    worst = int(np.argmax(errors))
    return float(errors[worst]), [x[worst] for x in operands]


def nanoseconds(name: str, dtype: Any) -> float:
    """Time per element in a loop over 32768 elements between 1.01 and 1.99 (arc functions: 0.01 to 0.99)."""
    base = 0.0 if name in ("asin", "acos", "atanh") else 1.0
    operands = 2 if name in vecmath.BINARY else 1
    x = (np.random.default_rng(0).uniform(0.01, 0.99, 32768) + base).astype(dtype)
    run = kernel(name, "f32" if dtype is np.float32 else "f64", operands)
    best = min(_timed(run, [x] * operands) for _ in range(7))
    return best / x.size * 1e9


def _timed(run: Callable[..., Array], operands: list[Array]) -> float:
    start = time.perf_counter()
    for _ in range(4):
        run(*operands)
    return (time.perf_counter() - start) / 4


# -- functions made of these ---------------------------------------------------------------------------

MADE_POINTS = 2000


def _gelu(x: Any) -> Any:
    return x * mpmath.erfc(-x / mpmath.sqrt(2)) / 2


# What people call, its exact value, and where it is measured, which leaves out the neighbourhoods of zeros
# elsewhere than at 0: there an error is no longer a matter of the last place.
MADE: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], tuple[float, float]]] = {
    "lgamma": (gf.lgamma, lambda x: mpmath.log(abs(mpmath.gamma(x))), (2.5, 100.0)),
    "lgamma, below its zeros": (gf.lgamma, lambda x: mpmath.log(abs(mpmath.gamma(x))), (1e-3, 0.9)),
    "lgamma, between its zeros": (gf.lgamma, lambda x: mpmath.log(abs(mpmath.gamma(x))), (1.0, 2.0)),
    "digamma": (gf.digamma, mpmath.digamma, (1.6, 100.0)),
    "polygamma, n = 1": (lambda x: gf.polygamma(1, x), lambda x: mpmath.polygamma(1, x), (0.01, 100.0)),
    "polygamma, n = 4": (lambda x: gf.polygamma(4, x), lambda x: mpmath.polygamma(4, x), (0.01, 100.0)),
    "sinc": (gf.sinc, mpmath.sincpi, (-0.9, 0.9)),
    "logit": (gf.logit, lambda x: mpmath.log(x / (1 - x)), (0.0001, 0.45)),
    "logaddexp, with 0": (
        lambda x: gf.logaddexp(x, gf.zeros_like(x)), lambda x: mpmath.log1p(mpmath.exp(x)), (-50.0, 50.0)
    ),
    "hypot, with 1": (
        lambda x: gf.hypot(x, gf.ones_like(x)), lambda x: mpmath.sqrt(x * x + 1), (-100.0, 100.0)
    ),
    "xlogy, with itself": (lambda x: gf.xlogy(x, x), lambda x: x * mpmath.log(x), (1.1, 100.0)),
    "softplus": (F.softplus, lambda x: mpmath.log1p(mpmath.exp(x)), (-80.0, 19.0)),
    "logsigmoid": (F.logsigmoid, lambda x: -mpmath.log1p(mpmath.exp(-x)), (-80.0, 80.0)),
    "gelu": (F.gelu, _gelu, (-2.0, 10.0)),
    "silu": (F.silu, lambda x: x / (1 + mpmath.exp(-x)), (-80.0, 80.0)),
    "mish": (F.mish, lambda x: x * mpmath.tanh(mpmath.log1p(mpmath.exp(x))), (-15.0, 15.0)),
    "elu": (F.elu, lambda x: x if x > 0 else mpmath.expm1(x), (-80.0, 10.0)),
}  # fmt: skip


def measure_made(name: str, dtype: Any) -> tuple[float, float]:
    """The largest error of a function made of others, in ULP, and the operand it occurs at."""
    function, exact, (low, high) = MADE[name]
    x = np.random.default_rng(0).uniform(low, high, MADE_POINTS).astype(dtype)
    got = gf.compile(function)(gf.tensor(x)).numpy()
    assert got.dtype == dtype
    with mpmath.workdps(40):
        wanted = [exact(mpmath.mpf(float(v))) for v in x]
        unit = np.spacing(np.abs(np.array([float(w) for w in wanted])).astype(dtype))
        errors = [
            float(abs(mpmath.mpf(float(g)) - w) / mpmath.mpf(float(u)))
            for g, w, u in zip(got, wanted, unit, strict=True)
        ]
    worst = int(np.argmax(errors))
    return errors[worst], float(x[worst])


def made_rows() -> list[str]:
    """The second table's rows."""
    rows = []
    for name in sorted(MADE):
        low, high = MADE[name][2]
        found = [measure_made(name, dtype) for dtype in (np.float32, np.float64)]
        print(f"{name:26s}", ", ".join(f"{error:8.3f} ULP at {where!r}" for error, where in found))
        cells = [f"[{low:g}, {high:g}]", *(f"{error:.2f}" for error, _ in found)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


HEAD = """# Errors of the kernels' mathematical functions

Kernels don't call libm: exponentials, logarithms, trigonometric functions and their relatives are branch-free
polynomials of graphflow's own (`graphflow/compiler/codegen/vecmath*.py`), inlined into the loop that uses
them and computed at the processor's full vector width.

The table gives the largest error found over {points:,} points per function: a third in the range where the
function does its work, a third in [-8, 8], a third of random bit patterns (every magnitude, subnormal
numbers, infinities, NaN). 0.5 is a correctly rounded result. The reference is NumPy's float64 for float32 and
x87 long double for float64. Times are for one core of {machine}, per element,
operands in the second-level cache.

Where a processor has no fused multiply-add (x86 before 2013), sigmoid and tanh reach 2.2 in float32, 2.3 in
float64, and functions that need a product's rounding error call the C library's `fma`, slowly.

`python tools/ulp.py` makes this file.

| function | float32 ULP | ns | float64 ULP | ns |
|---|---|---|---|---|
"""

MIDDLE = """
What is made of these functions adds up their errors and those of the operations between them. The largest
error over {points:,} points of a range, compiled, against mpmath:

| function | range | float32 ULP | float64 ULP |
|---|---|---|---|
"""

TAIL = """
What isn't in the tables is exact: `floor ceil trunc round` (half to even) `sqrt abs copysign isnan isinf
isfinite maximum minimum` are single instructions or close to it, and `fmod` and `mod` are exact remainders up
to the last rounding that `mod` needs to change the sign.

- **Special values** follow C99 Annex F, and so NumPy. Results below the smallest normal number are rounded to
  subnormal ones, not flushed to zero. `maximum` and `minimum` give NaN if either operand is NaN, and
  of equal operands, such as 0 and -0, the first.
- **sin, cos, tan** are right for every finite argument: the bits of 2/pi that the argument's exponent calls
  for are read from a table (Payne and Hanek), without a branch.
- **Through float64**: float32 `tan pow erfc asinh acosh atanh fmod` compute in float64 and round once, and
  `sin` and `cos` reduce their argument there.
- **float64 fmod and mod** call libm's `fmod`, which is exact; they are the only calls in the set.
- **No reassociation**: these functions are written instruction by instruction, without fast-math flags.
- A processor without fused multiply-add gets twice-rounded polynomials (somewhat larger errors) and calls
  libm's `fma` where exactness hangs on it.
- The coefficients are minimax fits made for graphflow with Remez's exchange algorithm in 220-bit arithmetic;
  `vecmath_tables.py` says what each approximates and how well.
"""


def main() -> None:
    """Measure everything and write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--points", type=int, default=3_000_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "vecmath.md")
    parser.add_argument("names", nargs="*", help="only these functions, printed and not written")
    parser.add_argument("--made", action="store_true", help="only the table of what is made of them, anew")
    options = parser.parse_args()
    if options.made:
        old = options.out.read_text()
        start = old.index(MIDDLE.partition("{")[0])
        options.out.write_text(old[:start] + _lower_half())
        return
    rows = []
    for name in options.names or sorted((*vecmath.UNARY, *vecmath.BINARY)):
        cells = []
        for dtype in (np.float32, np.float64):
            if dtype is np.float64 and not HAS_LONG_DOUBLE:
                cells.append("not measured")
            else:
                error, where = measure(name, dtype, options.points)
                cells.append(f"{error:.2f}")
                print(f"{name:8s} {np.dtype(dtype).name} {error:8.3f} ULP at {', '.join(map(repr, where))}")
            cells.append(f"{nanoseconds(name, dtype):.2f}")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    if not options.names:
        machine = f"a processor with {llvm.host().vector_bits}-bit vectors ({platform.machine()})"
        text = HEAD.format(points=options.points, machine=machine) + "\n".join(rows) + "\n"
        options.out.write_text(text + _lower_half())


def _lower_half() -> str:
    return MIDDLE.format(points=MADE_POINTS) + "\n".join(made_rows()) + "\n" + TAIL


if __name__ == "__main__":
    main()
