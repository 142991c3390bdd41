"""Distributions out of random words, in arithmetic that has the same bits everywhere.

Sums, products, quotients, square roots and comparisons have the same bits in NumPy and in kernels; logarithms
and sines of libraries don't, so the two that are needed are series in the former. A seed then gives the same
numbers eagerly, compiled, and on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphflow.compiler.ir import OPS
from graphflow.dtypes import DType, float32, float64, int64
from graphflow.functions.common import cast, scalar
from graphflow.tensor import Tensor, apply


def add(a: Tensor, b: Tensor | float) -> Tensor:
    """``a + b``; a number takes the tensor's dtype."""
    return apply(OPS["add"], a, b if isinstance(b, Tensor) else scalar(b, a.dtype))


def mul(a: Tensor, b: Tensor | float) -> Tensor:
    """``a * b``."""
    return apply(OPS["mul"], a, b if isinstance(b, Tensor) else scalar(b, a.dtype))


def minus(a: Tensor | float, b: Tensor) -> Tensor:
    """``a - b``."""
    return apply(OPS["sub"], a if isinstance(a, Tensor) else scalar(a, b.dtype), b)


def div(a: Tensor | float, b: Tensor) -> Tensor:
    """``a / b``."""
    return apply(OPS["div"], a if isinstance(a, Tensor) else scalar(a, b.dtype), b)


def shifted(word: Tensor, bits: int) -> Tensor:
    """`word` without its last `bits` bits."""
    return apply(OPS["right_shift"], word, scalar(bits, int64))


def joined(high: Tensor, bits: int, low: Tensor) -> Tensor:
    """The word of `high` followed by `low`, which has `bits` bits."""
    return add(mul(high, 1 << bits), low)


def words_for(dtype: DType) -> int:
    """How many words a uniform or exponential number of `dtype` takes."""
    return 2 if dtype is float64 else 1


def _wide(words: Sequence[Tensor]) -> Tensor:
    """53 bits of two words."""
    return joined(shifted(words[0], 5), 26, shifted(words[1], 6))


def fraction(words: Sequence[Tensor], dtype: DType) -> Tensor:
    """Uniform in [0, 1), as many bits as the dtype has: of one word, for float64 of two."""
    if dtype is float64:
        return mul(cast(_wide(words), dtype), 2.0**-53)
    bits = {"float16": 11, "bfloat16": 8}.get(dtype.name, 24)
    whole = cast(shifted(words[0], 32 - bits), float32)
    return cast(mul(whole, 2.0**-bits), dtype)


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    """The polynomial with the given coefficients, constant first, by Horner's rule."""
    total = add(mul(x, coefficients[-1]), coefficients[-2])
    for coefficient in reversed(coefficients[:-2]):
        total = add(mul(total, x), coefficient)
    return total


def logarithm(x: Tensor) -> Tensor:
    """The natural logarithm of float64 numbers from 2**-255 to 2**255; of others something finite."""
    k = scalar(0.0, float64)
    for step in (128, 64, 32, 16, 8, 4, 2, 1):  # x is brought to [1, 2)
        large = apply(OPS["ge"], x, scalar(2.0**step, float64))
        small = apply(OPS["lt"], x, scalar(2.0 ** (1 - step), float64))
        x = apply(OPS["where"], large, mul(x, 2.0**-step), apply(OPS["where"], small, mul(x, 2.0**step), x))
        up, down, none = (scalar(v, float64) for v in (float(step), -float(step), 0.0))
        k = add(k, apply(OPS["where"], large, up, apply(OPS["where"], small, down, none)))
    high = apply(OPS["gt"], x, scalar(math.sqrt(2), float64))
    x = apply(OPS["where"], high, mul(x, 0.5), x)
    k = apply(OPS["where"], high, add(k, 1.0), k)
    s = div(add(x, -1.0), add(x, 1.0))
    series = _polynomial(mul(s, s), [2.0 / (2 * n + 1) for n in range(11)])
    return add(mul(k, math.log(2)), mul(s, series))


def exponential(words: Sequence[Tensor], dtype: DType) -> Tensor:
    """Exponential with mean 1, always positive: the negative logarithm of a uniform number in (0, 1].

    With the number as m / 2**k, m in (1/2, 1], that is k log(2) - log(m), and log(m) = 2 artanh((m-1)/(m+1)).
    """
    if dtype.is_half:
        return cast(exponential(words, float32), dtype)
    whole, bits, terms = (words[0], 32, 8) if dtype is float32 else (_wide(words), 53, 17)
    m = cast(add(whole, 1), dtype)
    k = None
    for step in (32, 16, 8, 4, 2, 1):
        if step >= bits:
            continue
        # m is brought to [1, 2), and k counts how many bits that took
        large = apply(OPS["ge"], m, scalar(2.0**step, dtype))
        m = apply(OPS["where"], large, mul(m, 2.0**-step), m)
        found = apply(OPS["where"], large, scalar(float(step), dtype), scalar(0.0, dtype))
        k = found if k is None else add(k, found)
    assert k is not None
    m = mul(m, 0.5)
    zeros = apply(OPS["sub"], scalar(float(bits - 1), dtype), k)
    s = apply(OPS["div"], apply(OPS["sub"], scalar(1.0, dtype), m), add(m, 1.0))
    series = _polynomial(mul(s, s), [2.0 / (2 * n + 1) for n in range(terms)])
    total = add(mul(zeros, math.log(2)), mul(s, series))
    return apply(OPS["maximum"], total, scalar(2.0 ** -(bits + 1), dtype))


def _sine_of_quarter(q: Tensor) -> Tensor:
    """sin(pi/2 q) for q in [0, 1]."""
    terms = 7 if q.dtype is float32 else 12
    series = [(-1) ** n * (math.pi / 2) ** (2 * n + 1) / math.factorial(2 * n + 1) for n in range(terms)]
    return mul(q, _polynomial(mul(q, q), series))


def _sign_and_quarter(words: Sequence[Tensor], dtype: DType) -> tuple[Tensor, Tensor]:
    """A random bit (the first word's top bit), and a uniform number in (0, 1] of the others."""
    top = apply(OPS["lt"], words[0], scalar(1 << 31, int64))
    low = apply(OPS["bitwise_and"], words[0], scalar((1 << 31) - 1, int64))
    if dtype is float32:
        whole, bits = shifted(low, 7), 24
    else:
        whole, bits = joined(shifted(low, 5), 26, shifted(words[1], 6)), 52
    return top, mul(cast(add(whole, 1), dtype), 2.0**-bits)


def _signed(positive: Tensor, size: Tensor) -> Tensor:
    return apply(OPS["where"], positive, size, apply(OPS["neg"], size))


def normal(words: Sequence[Tensor], dtype: DType) -> Tensor:
    """Standard normal by the transform of Box and Muller (1958), one value a counter of twice `words_for`."""
    if dtype.is_half:
        return cast(normal(words, float32), dtype)
    half = words_for(dtype)
    radius = apply(OPS["sqrt"], mul(exponential(words[:half], dtype), 2.0))
    positive, quarter = _sign_and_quarter(words[half:], dtype)
    return _signed(positive, mul(radius, _sine_of_quarter(quarter)))


def cauchy(words: Sequence[Tensor], dtype: DType) -> Tensor:
    """Standard Cauchy: the tangent of a uniform angle, of as many words as `words_for`."""
    if dtype.is_half:
        return cast(cauchy(words, float32), dtype)
    positive, quarter = _sign_and_quarter(words, dtype)
    # 1 - quarter can be 0; half a step keeps away from that, and the angle's middle where it was
    half_step = 2.0**-25 if dtype is float32 else 2.0**-53
    quarter = apply(OPS["sub"], quarter, scalar(half_step, dtype))
    other = apply(OPS["sub"], scalar(1.0, dtype), quarter)
    return _signed(positive, apply(OPS["div"], _sine_of_quarter(quarter), _sine_of_quarter(other)))
