"""The logarithm of the gamma function, its derivative, and the Hurwitz zeta function.

The formulas are read by NumPy and by the writer of kernel functions: operands have Python's operators,
`m` has the functions.

Near 1 and 2 log-gamma is its Taylor series, whose coefficients are zeta(k) - 1 (Abramowitz and Stegun
6.1.33); elsewhere arguments are moved up to where Stirling's and Euler's asymptotic series hold (6.1.40,
6.3.18), and negative ones are reflected. All is computed in float64, whatever the operands' format is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Protocol

import numpy as np


class Functions(Protocol):
    """What the formulas need besides operators."""

    def select(self, condition: Any, x: Any, y: Any) -> Any:
        """x where the condition holds, else y."""

    def abs(self, x: Any) -> Any:
        """|x|."""

    def round(self, x: Any) -> Any:
        """The nearest whole number."""

    def log(self, x: Any) -> Any:
        """Natural logarithm."""

    def log1p(self, x: Any) -> Any:
        """log(1 + x)."""

    def exp(self, x: Any) -> Any:
        """e to the power of x."""

    def sqrt(self, x: Any) -> Any:
        """Square root."""

    def sin(self, x: Any) -> Any:
        """Sine."""

    def cos(self, x: Any) -> Any:
        """Cosine."""

    def pow(self, x: Any, y: Any) -> Any:
        """x to the power of y."""

    def equal(self, x: Any, y: Any) -> Any:
        """Whether the two are the same number."""


SHIFT = 10  # arguments are at least this large where an asymptotic series is used
TERMS = 12


def _bernoulli(count: int) -> list[Fraction]:
    """B_2, B_4, ... by their recurrence."""
    found = [Fraction(1)]
    for n in range(1, 2 * count + 1):
        found.append(-sum((math.comb(n + 1, k) * found[k] for k in range(n)), Fraction(0)) / (n + 1))
    return found[2::2]


BERNOULLI = _bernoulli(TERMS)


def _zeta_less_one(s: int) -> float:
    """zeta(s) - 1 by Euler's and Maclaurin's sum, correctly rounded or next to it."""
    n = 12
    head = [float(k) ** -s for k in range(2, n)]
    tail = [n ** (1.0 - s) / (s - 1), 0.5 * float(n) ** -s]
    rising = float(s)
    for j, b in enumerate(BERNOULLI, 1):
        tail.append(float(b) / math.factorial(2 * j) * rising * float(n) ** (1 - s - 2 * j))
        rising *= (s + 2 * j - 1) * (s + 2 * j)
    return math.fsum((*head, *tail))


EULER = 0.57721566490153286
NEAR_TWO = (0.0, 1 - EULER, *((-1) ** k * _zeta_less_one(k) / k for k in range(2, 28)))
STIRLING = [float(b / (2 * j * (2 * j - 1))) for j, b in enumerate(BERNOULLI[:8], 1)]
DIGAMMA = [float(b / (2 * j)) for j, b in enumerate(BERNOULLI[:9], 1)]


class _InNumPy:
    """The functions for arrays."""

    select, abs, round, log, log1p = np.where, np.abs, np.round, np.log, np.log1p
    exp, sqrt, sin, cos, pow, equal = np.exp, np.sqrt, np.sin, np.cos, np.power, np.equal


def reference(formula: Callable[..., Any]) -> Callable[..., Any]:
    """A formula as a function of arrays of one dtype, computed in float64."""

    def function(*arrays: np.ndarray) -> Any:
        with np.errstate(all="ignore"):
            return formula(_InNumPy, *(a.astype(np.float64) for a in arrays)).astype(arrays[0].dtype)

    return function


def _horner(x: Any, coefficients: Sequence[float]) -> Any:
    total = x * 0.0 + coefficients[-1]
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


def lgamma(m: Functions, x: Any) -> Any:
    """log |gamma(x)|; infinite at 0, -1, -2, ... and at both infinities."""
    size = m.abs(x)
    y = m.select(x < 0.0, size + 1.0, x)  # reflected: 1 - x
    # about 1 and 2
    small, middle = y < 0.5, y < 1.5
    z = m.select(small, y, m.select(middle, y - 1.0, y - 2.0))
    z = m.select(y > 2.5, z * 0.0, z)
    near = _horner(z, NEAR_TWO)
    near = m.select(middle, near - m.log1p(z), near)
    near = m.select(small, near - m.log(y), near)
    # beyond
    product = y
    for k in range(1, 7):
        product = product * (y + float(k))
    moved = y < 8.0
    w = m.select(moved, y + 7.0, y)
    inverse = 1.0 / w
    series = inverse * _horner(inverse * inverse, STIRLING)
    far = (w - 0.5) * (m.log(w) - 1.0) + (series + (0.5 * math.log(2 * math.pi) - 0.5))
    far = m.select(moved, far - m.log(m.select(moved, product, 1.0 + y * 0.0)), far)
    value = m.select(y > 2.5, far, near)
    value = m.select(m.equal(y, math.inf), y, value)
    sine = m.abs(m.sin((size - m.round(size)) * math.pi))
    reflected = (math.log(math.pi) - m.log(sine)) - value
    reflected = m.select(m.equal(size, math.inf), size, reflected)
    # 1 - x loses the digits of a tiny x
    tiny = m.select(size < 1e-17, -m.log(size), reflected)
    return m.select(x < 0.0, tiny, value)


def digamma(m: Functions, x: Any) -> Any:
    """The derivative of log gamma: NaN at -1, -2, ..., an infinity of the other sign at 0."""
    size = m.abs(x)
    y = m.select(x < 0.0, size + 1.0, x)
    moved = y < float(SHIFT)
    total = y * 0.0
    for k in reversed(range(SHIFT)):
        total = total + 1.0 / m.select(moved, y + float(k) if k else y, y * 0.0 + 1.0)
    w = m.select(moved, y + float(SHIFT), y)
    inverse = 1.0 / w
    square = inverse * inverse
    far = m.log(w) - 0.5 * inverse - square * _horner(square, DIGAMMA)
    value = m.select(moved, far - total, far)
    value = m.select(m.equal(y, math.inf), y, value)
    angle = (size - m.round(size)) * math.pi
    whole = m.equal(m.round(size), size)
    cotangent = m.cos(angle) / m.select(whole, angle * 0.0 + 1.0, m.sin(angle))
    reflected = value + cotangent * math.pi  # the angle has the other sign
    reflected = m.select(whole, x * math.nan, reflected)
    return m.select(x < 0.0, reflected, value)


def zeta(m: Functions, q: Any, s: Any) -> Any:
    """The sum of (q + k)^-s over k = 0, 1, ...; infinite at q = 0 or s = 1, NaN for less."""
    total = q * 0.0
    for k in reversed(range(SHIFT)):
        total = total + m.pow(q + float(k), -s)
    w = q + float(SHIFT)
    power = m.pow(w, -s)
    inverse = 1.0 / w
    tail = w * power / (s - 1.0) + 0.5 * power
    rising = s * inverse
    for j, b in enumerate(BERNOULLI, 1):
        tail = tail + power * rising * float(b / math.factorial(2 * j))
        rising = rising * ((s + float(2 * j - 1)) * inverse) * ((s + float(2 * j)) * inverse)
    value = m.select(m.equal(q, math.inf), inverse, tail + total)
    value = m.select((q < 0.0) | (s < 1.0), q * math.nan, value)
    return m.select(m.equal(s, 1.0), s * math.inf, value)
