"""The gamma function's logarithm and derivatives, common divisors, and neighbouring numbers."""

from __future__ import annotations

import math

import numpy as np

from graphflow.compiler.ir import OPS
from graphflow.errors import DTypeError
from graphflow.functions.common import Operand, as_float, promoted, scalar
from graphflow.functions.registry import error, public
from graphflow.tensor import Tensor, apply

__all__ = ["digamma", "gcd", "lcm", "lgamma", "nextafter", "polygamma"]


@public()
def lgamma(input: Tensor) -> Tensor:
    """``log |gamma(input)|``; infinite at 0 and the negative whole numbers."""
    return apply(OPS["lgamma"], as_float(input, "lgamma"))


@public()
def digamma(input: Tensor) -> Tensor:
    """The derivative of `lgamma`; NaN at the negative whole numbers, an infinity of the other sign at 0."""
    return apply(OPS["digamma"], as_float(input, "digamma"))


def _cotangent_derivative(n: int) -> list[float]:
    """The n-th derivative of cot(pi x) as a polynomial in cot(pi x), lowest coefficient first."""
    found = np.polynomial.Polynomial([0.0, 1.0])
    for _ in range(n):
        found = found.deriv() * np.polynomial.Polynomial([-math.pi, 0.0, -math.pi])
    return [float(c) for c in found.coef]


@public(method=False)
def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of `digamma` at the elements, n = 0, 1, ...; ValueError for negative n."""
    if not isinstance(n, int) or isinstance(n, bool):
        raise error(TypeError, "polygamma", f"n is a whole number, got {type(n).__name__}")
    if n < 0:
        raise error(ValueError, "polygamma", f"n has to be 0 or more, got {n}")
    x = as_float(input, "polygamma")
    if n == 0:
        return apply(OPS["digamma"], x)
    negative = apply(OPS["lt"], x, scalar(0, x.dtype))
    size: Tensor = apply(OPS["where"], negative, 1 - x, x)
    far = apply(OPS["zeta"], size, s=float(n + 1)) * float(math.factorial(n))
    # digamma(1 - x) - digamma(x) = pi cot(pi x), n times differentiated
    part = (x - apply(OPS["round"], x)) * math.pi
    angle = apply(OPS["where"], negative, part, scalar(math.pi / 4, x.dtype))
    cotangent = apply(OPS["cos"], angle) / apply(OPS["sin"], angle)
    total = 0.0 * cotangent
    for c in reversed(_cotangent_derivative(n)):
        total = total * cotangent + c
    other = -far - math.pi * total
    return apply(OPS["where"], negative, other, far if n % 2 else -far)


def _whole(name: str, input: Operand, other: Operand) -> tuple[Tensor, Tensor]:
    x, y = promoted(name, input, other)
    if x.dtype.kind != "int":
        raise error(DTypeError, name, f"needs integers, got {x.dtype}")
    return x, y


@public()
def gcd(input: Tensor, other: Tensor) -> Tensor:
    """The greatest common divisor of integers, not negative; that of 0 and 0 is 0."""
    return apply(OPS["gcd"], *_whole("gcd", input, other))


@public()
def lcm(input: Tensor, other: Tensor) -> Tensor:
    """The least common multiple of integers, not negative; 0 if one of them is 0."""
    x, y = _whole("lcm", input, other)
    return apply(OPS["abs"], apply(OPS["floor_divide"], x, apply(OPS["gcd"], x, y)) * y)


@public()
def nextafter(input: Tensor, other: Tensor) -> Tensor:
    """The next floating-point number after `input` in the direction of `other`."""
    return apply(OPS["nextafter"], *promoted("nextafter", input, other, floating=True))
