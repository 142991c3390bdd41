"""Exponentials, logarithms, hyperbolic functions, powers and the error function, without branches.

Each maker takes the `Code` being written and its arguments and returns the result. Reductions are the usual
ones (W. J. Cody and W. Waite, "Software Manual for the Elementary Functions", 1980), done with fused
multiply-adds; special values follow C99 Annex F, which NumPy follows too.
"""

from __future__ import annotations

import math
from fractions import Fraction

from graphflow.compiler.codegen import vecmath_tables as tables
from graphflow.compiler.codegen.vecmath_text import F32, F64, Code, Value, split

_LN2_32 = split(tables.LN2, 15, 24)
_LN2_64 = split(tables.LN2, 32, 53)


def _is_single(x: Value) -> bool:
    return x.format is F32


# -- exponentials -----------------------------------------------------------------------------------


def exp_parts(c: Code, x: Value) -> tuple[Value, Value]:
    """(e^r - 1, n) with x = n ln 2 + r, |r| <= ln(2)/2; n is an integer of x's width."""
    r, tail, n = _exp_pieces(c, x, precise=False)
    return r + tail, n


def _exp_pieces(c: Code, x: Value, precise: bool = True) -> tuple[Value, Value, Value]:
    """(r, e^r - 1 - r, n) as above. `precise` has the second part make up for the rounding of r."""
    single = _is_single(x)
    high, low = _LN2_32 if single else _LN2_64
    magic = x.format.magic
    shifted = c.mad(x, float(tables.LOG2_E), magic)
    n = shifted - magic
    rough = c.mad(n, -high, x)  # exact
    r = c.mad(n, -low, rough)
    tail = (r * r) * c.polynomial(r, tables.EXP_F32 if single else tables.EXP_F64)
    if precise:
        tail = tail + c.mad(n, -low, rough - r)
    return r, tail, shifted.bits() - x.format.raw(magic)


def _quotient(c: Code, a: Value, b: Value, b_rest: Value) -> Value:
    """a / (b + b_rest), nearly correctly rounded, for b_rest far below b."""
    inverse = 1.0 / b
    rough = a * inverse
    return c.mad(c.mad(-rough, b_rest, c.mad(-rough, b, a)), inverse, rough)


def scale(c: Code, x: Value, n: Value) -> Value:
    """x 2^n, where 2^n itself may be out of range: in two steps, so that it is rounded once."""
    half = n >> 1
    return (x * c.power_of_two(half)) * c.power_of_two(n - half)


def exp(c: Code, x: Value) -> Value:
    """e^x."""
    low, high = (-104.0, 89.0) if _is_single(x) else (-746.0, 710.0)
    less_one, n = exp_parts(c, c.at_most(c.at_least(x, low), high))
    return scale(c, less_one + 1.0, n)


def exp2(c: Code, x: Value) -> Value:
    """2^x."""
    single = _is_single(x)
    low, high = (-151.0, 129.0) if single else (-1076.0, 1025.0)
    x = c.at_most(c.at_least(x, low), high)
    shifted = x + x.format.magic
    r = x - (shifted - x.format.magic)
    p = c.mad(r, c.polynomial(r, tables.EXP2_F32 if single else tables.EXP2_F64), 1.0)
    return scale(c, p, shifted.bits() - x.format.raw(x.format.magic))


def expm1(c: Code, x: Value) -> Value:
    """e^x - 1, accurate near 0."""
    low, high, tiny = (-18.0, 89.0, 2.0**-26) if _is_single(x) else (-38.0, 710.0, 2.0**-55)
    r, tail, n = _exp_pieces(c, c.at_most(c.at_least(x, low), high))
    half = c.power_of_two(n - 1)  # half the scale: 2^n itself overflows before the result does
    result = c.mad(tail, half, c.mad(r, half, half - 0.5)) * 2.0
    return c.select(c.abs(x) < tiny, x, result)


def sigmoid(c: Code, x: Value) -> Value:
    """1 / (1 + e^-x), with its tail of small values on the left kept."""
    size = c.at_most(c.abs(x), 104.0 if _is_single(x) else 746.0)
    r, tail, n = _exp_pieces(c, -size)
    e = scale(c, (r + tail) + 1.0, n)
    below, rest = c.quick_two_sum(e.like(1.0), e)
    return _quotient(c, c.select(x < 0.0, e, 1.0), below, rest)


def tanh(c: Code, x: Value) -> Value:
    """tanh x = t / (t + 2), t = e^2x - 1."""
    t = expm1(c, c.at_most(c.abs(x) * 2.0, 20.0 if _is_single(x) else 40.0))
    below = t + 2.0
    return c.copysign(_quotient(c, t, below, t - (below - 2.0)), x)


def _half_exp(c: Code, size: Value) -> Value:
    """e^size / 2 for size >= 0, overflowing only where that does."""
    high = 90.0 if _is_single(size) else 711.0
    less_one, n = exp_parts(c, c.at_most(size, high))
    return scale(c, less_one + 1.0, n - 1)


def cosh(c: Code, x: Value) -> Value:
    """cosh x = h + 1/(4h), h = e^|x| / 2."""
    h = _half_exp(c, c.abs(x))
    return h + 0.25 / h


def sinh(c: Code, x: Value) -> Value:
    """sinh x: a polynomial up to 1, then h - 1/(4h), h = e^|x| / 2."""
    size = c.abs(x)
    h = _half_exp(c, size)
    near = c.at_most(size, 1.0)
    z = near * near
    near = c.mad(near * z, c.polynomial(z, tables.SINH_F32 if _is_single(x) else tables.SINH_F64), near)
    return c.copysign(c.select(size < 1.0, near, h - 0.25 / h), x)


# -- logarithms -------------------------------------------------------------------------------------


def log_parts(c: Code, x: Value) -> tuple[Value, Value]:
    """(f, e) with x = 2^e (1 + f), sqrt(1/2) <= 1 + f < sqrt(2), for finite x > 0; e is a float."""
    form = x.format
    small = x < 2.0 ** (1 - form.bias)
    steps = form.mantissa + 2
    bits = c.select(small, x * 2.0**steps, x).bits()
    exponent = (bits - form.raw(math.sqrt(0.5))) >> form.mantissa
    f = (bits - (exponent << form.mantissa)).as_float() - 1.0
    return f, exponent.to(x.kind) - c.select(small, x.like(steps), 0.0)


def _log_ends(c: Code, x: Value, result: Value) -> Value:
    """`result` for finite x > 0; -Inf, Inf or NaN elsewhere."""
    ends = c.select(x.equals(0.0), x.like(-math.inf), c.select(x.equals(math.inf), x, math.nan))
    proper = c.instruction(f"and i1 {(x > 0.0).name}, {(x < math.inf).name}", "i1")
    return c.select(proper, result, ends)


def _log_single(c: Code, f: Value, e: Value, unit: Fraction, of_two: Fraction) -> Value:
    """log_b(2^e (1+f)) for a base with unit = log_b(e), of_two = log_b(2)."""
    unit_high, unit_low = split(unit, 24, 24)
    two_high, two_low = split(of_two, 14, 24)
    tail = (f * f) * c.polynomial(f, [p * float(unit) for p in tables.LOG_F32])
    if unit_low:
        tail = c.mad(f, unit_low, tail)
    if two_low:
        tail = c.mad(e, two_low, tail)
    head = f + tail if unit == 1 else c.mad(f, unit_high, tail)
    return c.mad(e, two_high, head)


def _log_series(c: Code, f: Value) -> tuple[Value, Value]:
    """(h, t) with ln(1+f) = f - (h - t), h = f^2/2 (S. Moshier's and fdlibm's arrangement)."""
    s = f / (f + 2.0)
    z = s * s
    h = f * f * 0.5
    return h, s * (h + z * c.polynomial(z, tables.LOG_F64))


def _log_double(c: Code, f: Value, e: Value, unit: Fraction, of_two: Fraction) -> Value:
    h, t = _log_series(c, f)
    if unit == 1:
        high, low = _LN2_64
        return c.mad(e, high, f - (h - c.mad(e, low, t)))
    head, rest = c.quick_two_sum(f, -h)
    rest = rest + t
    unit_high, unit_low = split(unit, 53, 53)
    two_high, two_low = split(of_two, 40, 53)
    product, error = c.two_product(head, unit_high)
    error = error + c.mad(rest, unit_high, head * unit_low)
    if two_low:
        error = c.mad(e, two_low, error)
    total, lost = c.two_sum(e * two_high, product)
    return total + (lost + error)


def _log(c: Code, x: Value, unit: Fraction, of_two: Fraction) -> Value:
    f, e = log_parts(c, x)
    finish = _log_single if _is_single(x) else _log_double
    return _log_ends(c, x, finish(c, f, e, unit, of_two))


def log(c: Code, x: Value) -> Value:
    """The natural logarithm."""
    return _log(c, x, Fraction(1), tables.LN2)


def log2(c: Code, x: Value) -> Value:
    """The logarithm to base 2."""
    return _log(c, x, tables.LOG2_E, Fraction(1))


def log10(c: Code, x: Value) -> Value:
    """The logarithm to base 10."""
    return _log(c, x, tables.LOG10_E, tables.LOG10_2)


def _log1p_finite(c: Code, x: Value, extra: Value | None = None) -> Value:
    """ln(1 + x) for finite x > -1, plus extra ln 2."""
    form = x.format
    f_of_sum, e = log_parts(c, x + 1.0)
    low = -60.0 if form is F64 else -30.0
    whole = c.at_least(c.at_most(e, -low), low)
    # 2^-e (1 + x) - 1 with one rounding; where e is large, 1 + x lost nothing that counts
    shrink = c.power_of_two(((-whole) + form.magic).bits() - form.raw(form.magic))
    f = c.select(e > -low - 1.0, f_of_sum, c.fma(x, shrink, shrink - 1.0))
    if extra is not None:
        e = e + extra
    finish = _log_single if _is_single(x) else _log_double
    return finish(c, f, e, Fraction(1), tables.LN2)


def log1p(c: Code, x: Value) -> Value:
    """ln(1 + x), accurate near 0."""
    result = _log_ends(c, x + 1.0, _log1p_finite(c, x))
    tiny = 2.0**-25 if _is_single(x) else 2.0**-54
    return c.select(c.abs(x) < tiny, x, result)


def asinh(c: Code, x: Value) -> Value:
    """asinh x = sign(x) ln(1 + a + a^2 / (1 + sqrt(1 + a^2))), a = |x|; float32 goes through float64."""
    wide = x.to("double")
    a = c.abs(wide)
    large = a > 2.0**28
    t = c.select(large, 1.0, a)
    square = t * t
    grown = t + square / (c.intrinsic("sqrt", square + 1.0) + 1.0)
    result = _log1p_finite(c, c.select(large, a - 1.0, grown), c.select(large, a.like(1.0), 0.0))
    result = c.select(a < math.inf, result, a)
    return c.copysign(c.select(a < 2.0**-28, a, result), wide).to(x.kind)


def acosh(c: Code, x: Value) -> Value:
    """acosh x = ln(1 + t + sqrt(2t + t^2)), t = x - 1; float32 goes through float64."""
    wide = x.to("double")
    large = wide > 2.0**28
    t = c.select(large, 1.0, wide - 1.0)
    grown = t + c.intrinsic("sqrt", c.fma(t, t, t * 2.0))
    result = _log1p_finite(c, c.select(large, wide - 1.0, grown), c.select(large, wide.like(1.0), 0.0))
    ends = c.select(wide.equals(math.inf), wide, math.nan)
    proper = c.instruction(f"and i1 {(wide >= 1.0).name}, {(wide < math.inf).name}", "i1")
    return c.select(proper, result, ends).to(x.kind)


def atanh(c: Code, x: Value) -> Value:
    """atanh x = ln(1 + 2a / (1 - a)) / 2, a = |x|; float32 goes through float64."""
    wide = x.to("double")
    a = c.abs(wide)
    inside = c.select(a < 1.0, a, 0.5)
    result = _log1p_finite(c, (inside + inside) / (1.0 - inside)) * 0.5
    ends = c.select(a.equals(1.0), a.like(math.inf), math.nan)
    result = c.select(a < 1.0, result, ends)
    return c.copysign(c.select(a < 2.0**-28, a, result), wide).to(x.kind)


# -- powers -----------------------------------------------------------------------------------------


def _pow_single(c: Code, size: Value, y: Value) -> Value:
    """size^y for size >= 0 as 2^(y log2 size), in float64."""
    x, y = size.to("double"), y.to("double")
    f, e = log_parts(c, x)
    s = f / (f + 2.0)
    z = s * s
    natural = s * c.mad(z, c.polynomial(z, tables.LOG_MID), 2.0)
    power = y * _log_ends(c, x, c.mad(natural, float(tables.LOG2_E), e))
    power = c.at_most(c.at_least(power, -160.0), 130.0)
    shifted = power + F64.magic
    r = power - (shifted - F64.magic)
    p = c.mad(r, c.polynomial(r, tables.EXP2_MID), 1.0)
    return (p * c.power_of_two(shifted.bits() - F64.raw(F64.magic))).to(size.kind)


def _pow_double(c: Code, size: Value, y: Value) -> Value:
    """size^y for size >= 0 as e^(y ln size), the logarithm carried to some 66 bits in two parts."""
    f, e = log_parts(c, size)
    # s = f / (2 + f) in two parts
    below = f + 2.0
    below_rest = f - (below - 2.0)
    s = f / below
    s_rest = (c.fma(-s, below, f) - s * below_rest) / below
    z, z_rest = c.two_product(s, s)
    z_rest = c.fma(s + s, s_rest, z_rest)
    # q = 2/3 + z (2/5 + ...) in two parts; ln(1+f) = 2s + s z q
    third = split(Fraction(2, 3), 53, 53)
    tail = z * c.polynomial(z, tables.LOG_POW)
    q, q_rest = c.quick_two_sum(tail.like(third[0]), tail)
    q_rest = q_rest + third[1]
    zq, zq_rest = c.two_product(z, q)
    zq_rest = zq_rest + c.mad(z, q_rest, z_rest * q)
    w, w_rest = c.quick_two_sum(zq.like(2.0), zq)
    w_rest = w_rest + zq_rest
    natural, natural_rest = c.two_product(s, w)
    natural_rest = natural_rest + c.mad(s, w_rest, s_rest * w)
    two_high, two_low = split(tables.LN2, 40, 53)
    total, lost = c.two_sum(e * two_high, natural)
    lost = lost + (c.mad(e, two_low, natural_rest))
    log_high, log_low = c.quick_two_sum(total, lost)
    proper = c.instruction(f"and i1 {(size > 0.0).name}, {(size < math.inf).name}", "i1")
    log_high = c.select(proper, log_high, _log_ends(c, size, log_high))
    log_low = c.select(proper, log_low, 0.0)
    power = y * log_high
    bounded = c.at_most(c.at_least(power, -746.0), 710.0)
    inside = bounded.equals(power)
    power_rest = c.select(inside, c.fma(y, log_high, -power) + y * log_low, 0.0)
    less_one, n = exp_parts(c, bounded)
    grown = less_one + 1.0
    return scale(c, c.fma(grown, power_rest, grown), n)


def pow(c: Code, x: Value, y: Value) -> Value:
    """x^y with C99's special cases: x^0 = 1^y = 1, NaN for a negative x and a y that isn't whole."""
    size = c.abs(x)
    result = (_pow_single if _is_single(x) else _pow_double)(c, size, y)
    result = c.select(size.equals(1.0), 1.0, result)
    half = y * 0.5
    whole = c.intrinsic("trunc", y).equals(y)
    even = c.intrinsic("trunc", half).equals(half)
    odd = c.instruction(f"select i1 {even.name}, i1 false, i1 {whole.name}", "i1")
    negative = x.bits() < 0
    flip = c.instruction(f"and i1 {odd.name}, {negative.name}", "i1")
    result = c.select(flip, -result, result)
    fraction = c.instruction(f"xor i1 {whole.name}, true", "i1")
    below = c.instruction(f"and i1 {(x < 0.0).name}, {(x > -math.inf).name}", "i1")
    undefined = c.instruction(f"and i1 {below.name}, {fraction.name}", "i1")
    result = c.select(undefined, math.nan, result)
    result = c.select(x.is_nan(), x, c.select(y.is_nan(), y, result))
    return c.select(x.equals(1.0), 1.0, c.select(y.equals(0.0), 1.0, result))


# -- the error function -----------------------------------------------------------------------------


def _erfc_positive(c: Code, x: Value, coefficients: tuple[float, ...]) -> Value:
    """erfc x for x >= 0 in float64: e^-x^2 times a polynomial in (x-4)/(x+4), over 1 + 2x."""
    x = c.at_most(x, 28.0)
    inverse = 1.0 / (x + 4.0)
    q = (x - 4.0) * inverse
    q = c.mad(c.mad(q, -x, c.mad(q + 1.0, -4.0, x)), inverse, q)  # what rounding took from the quotient
    factor = c.polynomial(q, coefficients) / c.mad(x, 2.0, 1.0)
    square, rest = c.two_product(x, x)
    less_one, n = exp_parts(c, -square)
    grown = (less_one + 1.0) * factor
    return scale(c, c.fma(grown, -rest, grown), n)


def erfc(c: Code, x: Value) -> Value:
    """1 - erf x, with its small values on the right kept; float32 goes through float64."""
    wide = x.to("double")
    size = c.abs(wide)
    if _is_single(x):
        positive = _erfc_positive(c, size, tables.ERFCX_MID)
    else:
        near = 1.0 - _erf_near(c, size, tables.ERF_F64)
        positive = c.select(size < 0.5, near, _erfc_positive(c, size, tables.ERFCX_F64))
    return c.select(wide < 0.0, 2.0 - positive, positive).to(x.kind)


def _erf_near(c: Code, size: Value, coefficients: tuple[float, ...]) -> Value:
    z = c.at_most(size, 1.0)
    return c.mad(size, c.polynomial(z * z, coefficients), size)


def erf(c: Code, x: Value) -> Value:
    """The error function, 2/sqrt(pi) times the integral of e^-t^2 from 0 to x."""
    single = _is_single(x)
    size = c.abs(x)
    near = _erf_near(c, size, tables.ERF_F32 if single else tables.ERF_F64)
    if single:
        t = c.at_most(size, 4.0)
        less_one, n = exp_parts(c, c.polynomial(t, tables.ERF_TAIL_F32))
        far = 1.0 - (less_one + 1.0) * c.power_of_two(n)
        result = c.select(size < 0.92, near, far)
    else:
        result = c.select(size < 1.0, near, 1.0 - _erfc_positive(c, c.at_most(size, 7.0), tables.ERFCX_F64))
    return c.copysign(result, x)
