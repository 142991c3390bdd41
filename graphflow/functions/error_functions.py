"""Bessel functions, the error function's inverse and relatives, and the normal distribution."""

from __future__ import annotations

import math
from typing import Any

from graphflow.compiler.ir import OPS
from graphflow.dtypes import float64
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.common import Operand, as_float, cast, promoted, scalar
from graphflow.functions.gamma import lgamma, polygamma
from graphflow.functions.registry import error, public
from graphflow.tensor import Tensor, apply

__all__ = ["erfinv", "i0", "mvlgamma"]


@public()
def i0(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind of order 0."""
    return apply(OPS["i0"], as_float(input, "i0"))


@public()
def erfinv(input: Tensor) -> Tensor:
    """The inverse of `erf`: infinite at -1 and 1, NaN beyond."""
    return apply(OPS["erfinv"], as_float(input, "erfinv"))


def i0e(input: Tensor) -> Tensor:
    """``exp(-|x|) * i0(x)``, which doesn't overflow."""
    return apply(OPS["i0e"], as_float(input, "i0e"))


def i1(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind of order 1."""
    return apply(OPS["i1"], as_float(input, "i1"))


def i1e(input: Tensor) -> Tensor:
    """``exp(-|x|) * i1(x)``, which doesn't overflow."""
    return apply(OPS["i1e"], as_float(input, "i1e"))


def erfcx(input: Tensor) -> Tensor:
    """``exp(x**2) * erfc(x)``, which doesn't underflow."""
    return apply(OPS["erfcx"], as_float(input, "erfcx"))


def ndtr(input: Tensor) -> Tensor:
    """The standard normal distribution function, exact in both tails."""
    given = as_float(input, "ndtr")
    x = cast(given, float64)  # the tails magnify roundings
    return cast(0.5 * apply(OPS["erfc"], x * -math.sqrt(0.5)), given.dtype)


def ndtri(input: Tensor) -> Tensor:
    """The inverse of `ndtr`: -inf at 0, inf at 1, NaN outside."""
    return apply(OPS["ndtri"], as_float(input, "ndtri"))


def log_ndtr(input: Tensor) -> Tensor:
    """The logarithm of `ndtr`, in a form that doesn't underflow."""
    given = as_float(input, "log_ndtr")
    x = cast(given, float64)
    low = apply(OPS["lt"], x, scalar(-1, x.dtype))
    one = scalar(1, x.dtype)
    left, right = apply(OPS["where"], low, x, -one), apply(OPS["where"], low, one, x)
    far = apply(OPS["log"], apply(OPS["erfcx"], left * -math.sqrt(0.5)) * 0.5) - left * left * 0.5
    near = apply(OPS["log1p"], apply(OPS["erfc"], right * math.sqrt(0.5)) * -0.5)
    return cast(apply(OPS["where"], low, far, near), given.dtype)


def entr(input: Tensor) -> Tensor:
    """``-x * log(x)``: 0 at 0, -inf for negative elements."""
    x = as_float(input, "entr")
    zero = scalar(0, x.dtype)
    positive = apply(OPS["gt"], x, zero)
    inside = apply(OPS["where"], positive, x, scalar(1, x.dtype))
    value = -(inside * apply(OPS["log"], inside))
    outside = apply(OPS["where"], apply(OPS["lt"], x, zero), scalar(-math.inf, x.dtype), x)
    return apply(OPS["where"], positive, value, outside)  # NaN stays, as does 0


def xlog1py(input: Operand, other: Operand) -> Tensor:
    """``input * log1p(other)``, 0 where `input` is 0 (and `other` no NaN)."""
    x, y = promoted("xlog1py", input, other, floating=True)
    nothing = apply(
        OPS["bitwise_and"], apply(OPS["eq"], x, scalar(0, x.dtype)), apply(OPS["le"], y, scalar(-1, y.dtype))
    )
    return apply(OPS["mul"], x, apply(OPS["log1p"], apply(OPS["where"], nothing, scalar(0, y.dtype), y)))


def zeta(input: Operand, other: Operand) -> Tensor:
    """Hurwitz's zeta function: the sum of ``(other + k)**-input`` over k = 0, 1, ...; `input` is a number.

    NaN for `input` below 1 and for negative `other`. The gradient is that by `other`.
    """
    if isinstance(input, Tensor):
        raise error(DTypeError, "zeta", "the exponent has to be a number, not a tensor; loop over its values")
    if not isinstance(input, (int, float)) or isinstance(input, bool):
        raise error(DTypeError, "zeta", f"the exponent has to be a number, not {type(input).__name__}")
    (q,) = promoted("zeta", other, floating=True)
    return apply(OPS["zeta"], q, s=float(input))


@public("mvlgamma")
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension `p`, for elements above (p - 1) / 2."""
    if not isinstance(p, int) or isinstance(p, bool) or p < 1:
        raise error(ShapeError, "mvlgamma", f"p is a whole number from 1 on, got {p!r}")
    x = as_float(input, "mvlgamma")
    total: Tensor = scalar(p * (p - 1) / 4 * math.log(math.pi), x.dtype) + lgamma(x)
    for j in range(1, p):
        total = total + lgamma(x - j / 2)
    return total


@public("polygamma", function=False)
def polygamma_of(self: Tensor, n: int) -> Tensor:
    """The n-th derivative of `digamma` at the elements."""
    return polygamma(n, self)


_HERE: tuple[Any, ...] = (i0e, i1, i1e, erfcx, ndtr, ndtri, log_ndtr, entr, xlog1py, zeta)
(i0e, i1, i1e, erfcx, ndtr, ndtri, log_ndtr, entr, xlog1py, zeta) = (
    public(f"special.{f.__name__}", function=False, method=False)(f) for f in _HERE
)
