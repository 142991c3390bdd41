"""Trigonometric functions and their inverses, rounding, and remainders, without branches.

Arguments of sin, cos and tan are reduced after M. Payne and R. Hanek, "Radian reduction for trigonometric
functions" (1983), at every magnitude: the bits of 2/pi that matter for the argument's exponent are read from
a table of some hundred bytes, so a loop over small and huge angles alike stays in vector lanes.
"""

from __future__ import annotations

import functools
import math

from graphflow.compiler.codegen import vecmath_tables as tables
from graphflow.compiler.codegen.vecmath_text import F32, F64, Code, Value, split

_TWO_OVER_PI_BITS = 1296  # beyond 2^1024's last window
_HALF_PI = split(tables.PI / 2, 53, 53)
_HALF_PI_32 = split(tables.PI / 2, 24, 24)


@functools.cache
def _two_over_pi() -> int:
    """floor(2/pi 2^1294): the first bits of 2/pi, behind two zero bits. By Machin's formula for pi."""
    one = 1 << (_TWO_OVER_PI_BITS + 64)

    def arc_cotangent(n: int) -> int:
        term = one // n
        total, k, square = term, 1, n * n
        while term:
            term //= square
            k += 2
            total += -term // k if k & 2 else term // k
        return total

    pi = 4 * (4 * arc_cotangent(5) - arc_cotangent(239))
    return ((2 * one) << (_TWO_OVER_PI_BITS - 2)) // pi


@functools.cache
def _bits_table() -> str:
    size = _TWO_OVER_PI_BITS // 8
    data = _two_over_pi().to_bytes(size, "little")
    text = "".join(f"\\{byte:02X}" for byte in data)
    return f'@gf.two_over_pi = internal constant [{size} x i8] c"{text}", align 64'


def _window(c: Code, start: Value, at: int, width: int) -> Value:
    """`width` (up to 56) bits of 2/pi from bit `start` + `at` on, as a float64; `at` is whole bytes."""
    assert at % 8 == 0 and width <= 56
    last = _TWO_OVER_PI_BITS // 8 - 8 - at // 8
    word = c.table_word("gf.two_over_pi", _bits_table(), last - (start.shifted(3)))
    return (word << (start & 7)).shifted(64 - width).to("double")


def _spread(c: Code, x: Value, kept: int) -> tuple[Value, Value]:
    """(m, k), float64 and i64: x = m 2^k, where m is below 2^`kept` and k = 0 if x itself is."""
    form = x.format
    raw = (x.bits().shifted(form.mantissa) & (2 * form.bias + 1)).to("i64")
    k = raw - (form.bias + kept - 1)
    k = c.select(k > 0, k, 0)
    return x.to("double") * c.power_of_two(-1 * k), k


def _whole(c: Code, x: Value) -> tuple[Value, Value]:
    """x rounded to an integer, as a float64 and as an i64 (of any value where x isn't finite)."""
    shifted = x + F64.magic
    return shifted - F64.magic, shifted.bits()


def _reduce_single(c: Code, x: Value) -> tuple[Value, Value]:
    """(r, q): x = q pi/2 + r up to multiples of 2 pi, |r| <= pi/4 a float64, for a float32 x."""
    m, k = _spread(c, x, 24)
    high = m * (_window(c, k, 0, 24) * 2.0**-22)  # exact
    low = m * (_window(c, k, 24, 56) * 2.0**-78)
    n, q = _whole(c, high + low)
    return ((high - n) + low) * _HALF_PI[0], q


def _reduce_double(c: Code, x: Value) -> tuple[Value, Value, Value]:
    """(r, its rounding error, q) as above, for a float64 x."""
    m, k = _spread(c, x, 53)
    products = [c.two_product(m, _window(c, k, 48 * at, 48) * 2.0 ** (-46 - 48 * at)) for at in range(4)]
    first = products[0][0]
    first = first - c.intrinsic("roundeven", first * 0.25) * 4.0  # whole turns don't count; this is exact
    total, rest = c.two_sum(first, products[0][1])
    total, lost = c.two_sum(total, products[1][0])
    rest, crumb = c.two_sum(rest, lost)
    for term in (products[1][1], products[2][0]):
        rest, lost = c.two_sum(rest, term)
        crumb = crumb + lost
    crumb = crumb + (products[2][1] + products[3][0])
    n, q = _whole(c, total)
    turn, rest_of_turn = c.two_sum(total - n, rest)
    turn, rest_of_turn = c.quick_two_sum(turn, rest_of_turn + crumb)
    r, error = c.two_product(turn, _HALF_PI[0])
    return r, error + c.mad(turn, _HALF_PI[1], rest_of_turn * _HALF_PI[0]), q


def _sine_series(c: Code, r: Value, low: Value | None, coefficients: tuple[float, ...]) -> Value:
    z = r * r
    cube = (z * r) * c.polynomial(z, coefficients)
    if low is None:
        return r + cube
    return r + (cube + c.mad(z * -0.5, low, low))


def _cosine_series(c: Code, r: Value, low: Value | None, coefficients: tuple[float, ...]) -> Value:
    z = r * r
    tail = (z * z) * c.polynomial(z, coefficients)
    half = z * 0.5
    head, lost = c.quick_two_sum(half.like(1.0), -half)
    if low is not None:
        lost = lost - r * low
    return head + (lost + tail)


def _sine_and_cosine(c: Code, x: Value) -> tuple[Value, Value, Value]:
    """(sin r, cos r, q) for the reduced argument."""
    if x.format is F32:
        wide, q = _reduce_single(c, x)
        r = wide.to("float")
        return _sine_series(c, r, None, tables.SIN_F32), _cosine_series(c, r, None, tables.COS_F32), q
    r, low, q = _reduce_double(c, x)
    return _sine_series(c, r, low, tables.SIN_F64), _cosine_series(c, r, low, tables.COS_F64), q


def _by_quadrant(c: Code, sine: Value, cosine: Value, q: Value) -> Value:
    odd = (q & 1).equals(1)
    size = c.select(odd, cosine, sine)
    sign = (q & 2) << 62
    if size.format is F32:
        sign = sign.shifted(32).to("i32")
    return (size.bits() ^ sign).as_float()


def sin(c: Code, x: Value) -> Value:
    """The sine of x radians."""
    sine, cosine, q = _sine_and_cosine(c, x)
    tiny = 2.0**-13 if x.format is F32 else 2.0**-27
    return c.select(c.abs(x) < tiny, x, _by_quadrant(c, sine, cosine, q))


def cos(c: Code, x: Value) -> Value:
    """The cosine of x radians."""
    sine, cosine, q = _sine_and_cosine(c, x)
    return _by_quadrant(c, sine, cosine, q + 1)


def tan(c: Code, x: Value) -> Value:
    """The tangent of x radians; float32 goes through float64."""
    if x.format is F32:
        r, q = _reduce_single(c, x)
        sine, cosine = _sine_series(c, r, None, tables.SIN_MID), _cosine_series(c, r, None, tables.COS_MID)
    else:
        sine, cosine, q = _sine_and_cosine(c, x)
    odd = (q & 1).equals(1)
    result = c.select(odd, -cosine, sine) / c.select(odd, sine, cosine)
    tiny = 2.0**-13 if x.format is F32 else 2.0**-27
    return c.select(c.abs(x) < tiny, x, result.to(x.kind))


# -- inverse functions ------------------------------------------------------------------------------


def _arc_tangent_series(c: Code, t: Value) -> Value:
    z = t * t
    return (z * t) * c.polynomial(z, tables.ATAN_F32 if t.format is F32 else tables.ATAN_F64)


def _half_pi(x: Value) -> tuple[float, ...]:
    return _HALF_PI_32 if x.format is F32 else _HALF_PI


def atan(c: Code, x: Value) -> Value:
    """The arc tangent: pi/2 - atan(1/x) beyond 1."""
    size = c.abs(x)
    beyond = size > 1.0
    t = c.select(beyond, 1.0 / size, size)
    cube = _arc_tangent_series(c, t)
    high, low = _half_pi(x)
    result = c.select(beyond, high - (t + (cube - low)), t + cube)
    return c.copysign(result, x)


def atan2(c: Code, y: Value, x: Value) -> Value:
    """The angle of the point (x, y), with the signs of zeros and infinities of C99."""
    high, low = _half_pi(x)
    above, across = c.abs(y), c.abs(x)
    steep = above > across
    less, more = c.select(steep, across, above), c.select(steep, above, across)
    same = less.equals(more)  # 0/0 and Inf/Inf among them
    # keep the divisor away from the ends, where a reciprocal would over- or underflow
    t = c.select(same, c.select(less.equals(0.0), less, 1.0), less / more)
    cube = _arc_tangent_series(c, t)
    left = x.bits() < 0
    # angle = (0, pi/2 or pi) +- (t + cube)
    plain = t + cube
    from_top = high - (t + (cube - low))
    top_left = high + (t + (cube + low))
    from_left = (2.0 * high) - (t + (cube - 2.0 * low))
    result = c.select(steep, c.select(left, top_left, from_top), c.select(left, from_left, plain))
    result = c.select((x + y).is_nan(), c.select(x.is_nan(), x, c.select(y.is_nan(), y, result)), result)
    return c.copysign(result, y)


def _arc_sine_parts(c: Code, x: Value) -> tuple[Value, Value, Value]:
    """(far, t, asin(t) - t), where t = |x|, or sqrt((1-|x|)/2) if |x| > 1/2 (far)."""
    size = c.abs(x)
    far = size > 0.5
    z = c.select(far, c.mad(size, -0.5, 0.5), size * size)
    t = c.select(far, c.intrinsic("sqrt", z), size)
    return far, t, (z * t) * c.polynomial(z, tables.ASIN_F32 if x.format is F32 else tables.ASIN_F64)


def asin(c: Code, x: Value) -> Value:
    """The arc sine; NaN outside [-1, 1]."""
    far, t, cube = _arc_sine_parts(c, x)
    high, low = _half_pi(x)
    head, lost = c.quick_two_sum(t.like(high), t * -2.0)
    result = c.select(far, head - (2.0 * cube - (lost + low)), t + cube)
    return c.copysign(result, x)


def acos(c: Code, x: Value) -> Value:
    """The arc cosine; NaN outside [-1, 1]."""
    far, t, cube = _arc_sine_parts(c, x)
    high, low = _half_pi(x)
    left = x < 0.0
    signed_t, signed_cube = c.copysign(t, x), c.copysign(cube, x)
    near = high - (signed_t + (signed_cube - low))
    twice = 2.0 * (t + cube)
    beyond = c.select(left, (2.0 * high) - (twice - 2.0 * low), twice)
    return c.select(far, beyond, near)


# -- remainders and signs ---------------------------------------------------------------------------


def fmod(c: Code, x: Value, y: Value) -> Value:
    """The remainder of x / y with the sign of x, exact.

    float32 takes at most six quotients of 51 bits in float64; float64 calls libm's function.
    """
    if x.format is F64:
        return c.instruction(f"frem double {x.name}, {y.name}", "double")
    size, divisor = c.abs(x.to("double")), c.abs(y.to("double"))
    inverse = 1.0 / divisor
    rest = size
    for _ in range(6):
        quotient = c.intrinsic("trunc", rest * inverse)
        rest = c.fma(-quotient, divisor, rest)
    rest = c.select(rest < 0.0, rest + divisor, rest)
    rest = c.select(rest >= divisor, rest - divisor, rest)
    endless = c.instruction(f"and i1 {divisor.equals(math.inf).name}, {(size < math.inf).name}", "i1")
    return c.copysign(c.select(endless, size, rest).to("float"), x)


def mod(c: Code, x: Value, y: Value) -> Value:
    """The remainder of x / y with the sign of y, as Python's % and numpy.mod."""
    rest = fmod(c, x, y)
    differ = (rest.bits() ^ y.bits()) < 0
    nonzero = c.instruction(f"fcmp one {rest.kind} {rest.name}, {rest.like(0.0).name}", "i1")
    wrong = c.instruction(f"and i1 {differ.name}, {nonzero.name}", "i1")
    divides = c.select(rest.is_nan(), rest, c.copysign(rest, y))
    return c.select(nonzero, c.select(wrong, rest + y, rest), divides)


def sign(c: Code, x: Value) -> Value:
    """-1, 0 (also for -0) or 1; NaN for NaN."""
    return c.select(x > 0.0, 1.0, c.select(x < 0.0, -1.0, c.select(x.equals(0.0), 0.0, x)))


def rsqrt(c: Code, x: Value) -> Value:
    """1 / sqrt(x)."""
    return 1.0 / c.intrinsic("sqrt", x)
