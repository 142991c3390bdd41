"""Functions on corresponding elements, with broadcasting and PyTorch's type promotion."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphflow.compiler.ir import OPS
from graphflow.dtypes import bool_, int64
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.common import (
    Operand,
    applied,
    as_float,
    cast,
    copied,
    in_dtype,
    operand,
    promoted,
    require_float,
    result_dtype,
    rounded_once,
    scalar,
    tensor_arg,
)
from graphflow.functions.registry import error, public
from graphflow.tensor import Tensor, apply

__all__ = [
    "absolute", "acos", "acosh", "add", "addcdiv", "addcmul", "arccos", "arccosh", "arcsin", "arcsinh",
    "arctan", "arctan2", "arctanh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "cos", "cosh",
    "deg2rad", "div", "divide", "erf", "erfc", "exp", "exp2", "expm1", "fix", "floor", "floor_divide",
    "fmod", "frac", "lerp", "log", "log1p", "log2", "log10", "mul", "multiply", "neg", "negative",
    "positive", "rad2deg", "reciprocal", "relu", "remainder", "rsqrt", "rsub", "sgn", "sigmoid", "sign",
    "sin", "sinh", "sqrt", "square", "sub", "subtract", "tan", "tanh", "true_divide", "trunc",
]  # fmt: skip

Binary = Callable[[Any, Any], Tensor]
Unary = Callable[[Any], Tensor]


# ---------------------------------------------------------------------------------------------- arithmetic


def _scaled(name: str, other: Tensor, alpha: Any) -> Tensor:
    if isinstance(alpha, (int, float)) and not isinstance(alpha, bool) and alpha == 1:
        return other
    if isinstance(alpha, float) and other.dtype.kind != "float":
        raise error(
            DTypeError, name, "for integral input tensors, argument alpha must not be a floating point number"
        )
    return apply(OPS["mul"], other, in_dtype(operand(alpha, name, "alpha"), other.dtype))


@public()
def add(input: Operand, other: Operand, *, alpha: Operand = 1) -> Tensor:
    """``input + alpha * other``; on bools, logical or."""
    return _sum_of("add", "add", input, other, alpha)


def _sum_of(name: str, op: str, input: Operand, other: Operand, alpha: Operand) -> Tensor:
    """``input ± alpha * other``, rounded once."""
    if isinstance(alpha, (int, float)) and not isinstance(alpha, bool) and alpha == 1:
        return applied(op, name, input, other)
    return _weighted_sum(*promoted(name, input, other), name=name, op=op, alpha=alpha)


@rounded_once
def _weighted_sum(a: Tensor, b: Tensor, *, name: str, op: str, alpha: Operand) -> Tensor:
    return apply(OPS[op], a, _scaled(name, b, alpha))


def _refuse_bools(name: str, *values: Any) -> None:
    if any(isinstance(v, bool) or (isinstance(v, Tensor) and v.dtype is bool_) for v in values):
        raise error(
            DTypeError,
            name,
            "subtraction with a bool tensor has no meaning; use ~ or ^, or convert it with .int()",
        )


@public(aliases=("subtract",))
def sub(input: Operand, other: Operand, *, alpha: Operand = 1) -> Tensor:
    """``input - alpha * other``; DTypeError on bools."""
    _refuse_bools("sub", input, other)
    return _sum_of("sub", "sub", input, other, alpha)


@public(backward=lambda input, other, **_: f"RsubBackward{0 if isinstance(other, Tensor) else 1}")
def rsub(input: Operand, other: Operand, *, alpha: Operand = 1) -> Tensor:
    """``other - alpha * input``."""
    _refuse_bools("rsub", input, other)
    return _sum_of("rsub", "sub", other, input, alpha)


@public(aliases=("multiply",))
def mul(input: Operand, other: Operand) -> Tensor:
    """``input * other``; on bools, logical and."""
    return applied("mul", "mul", input, other)


@public(aliases=("divide",))
def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """``input / other``, floating point also for integers; `rounding_mode` "trunc" or "floor" rounds the
    quotient.
    """
    if rounding_mode is None:
        return applied("div", "div", input, other, floating=True)
    if rounding_mode == "floor":
        return floor_divide(input, other)
    if rounding_mode != "trunc":
        raise error(ShapeError, "div", f"rounding_mode is None, 'trunc' or 'floor', not {rounding_mode!r}")
    a, b = promoted("div", input, other)
    if a.dtype.kind == "float":
        return _truncated_quotient(a, b)
    return _int_trunc_divide(*_countable("div", a, b))


@rounded_once
def _truncated_quotient(a: Tensor, b: Tensor) -> Tensor:
    return apply(OPS["trunc"], apply(OPS["div"], a, b))


def _int_trunc_divide(a: Tensor, b: Tensor) -> Tensor:
    """Integer quotient rounded towards zero."""
    quotient = apply(OPS["floor_divide"], a, b)
    apart = _floors_below(a, b, apply(OPS["remainder"], a, b))
    return apply(OPS["add"], quotient, cast(apart, quotient.dtype))


def _floors_below(a: Tensor, b: Tensor, rest: Tensor) -> Tensor:
    """Where the integer quotient a / b, of remainder `rest`, is rounded down below zero.

    Tells by signs: the smallest integer has no magnitude to go by.
    """
    zero = scalar(0, a.dtype)
    differ = apply(OPS["ne"], apply(OPS["lt"], a, zero), apply(OPS["lt"], b, zero))
    return apply(OPS["bitwise_and"], apply(OPS["ne"], rest, zero), differ)


def _countable(name: str, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The operands, which mustn't be bools."""
    if tensors[0].dtype is bool_:
        raise error(DTypeError, name, "has no meaning for two bools; convert one with .int()")
    return tensors


@public()
def true_divide(input: Operand, other: Operand) -> Tensor:
    """``input / other``."""
    return div(input, other)


@public()
def floor_divide(input: Operand, other: Operand) -> Tensor:
    """``input / other`` rounded down, in the operands' dtype. Division of integers by zero gives 0."""
    if result_dtype(operand(input, "floor_divide", "input"), operand(other, "floor_divide")) is bool_:
        raise error(DTypeError, "floor_divide", "has no meaning for two bools; convert one with .int()")
    return applied("floor_divide", "floor_divide", input, other)


def _by_operand(name: str) -> Callable[..., str]:
    """PyTorch numbers the overload for a tensor operand 1."""
    return lambda input, other, **_: f"{name}Backward{1 if isinstance(other, Tensor) else 0}"


@public(backward=_by_operand("Remainder"))
def remainder(input: Operand, other: Operand) -> Tensor:
    """Python's ``%``: the remainder has the divisor's sign, also where it is zero, as in NumPy."""
    return apply(OPS["remainder"], *_countable("remainder", *promoted("remainder", input, other)))


@public(backward=_by_operand("Fmod"))
def fmod(input: Operand, other: Operand) -> Tensor:
    """C's ``fmod``: the remainder has the dividend's sign."""
    a, b = _countable("fmod", *promoted("fmod", input, other))
    if not a.dtype.is_floating_point:
        rest = apply(OPS["remainder"], a, b)
        return apply(OPS["where"], _floors_below(a, b, rest), apply(OPS["sub"], rest, b), rest)
    return _fmod(a, b)


@rounded_once
def _fmod(a: Tensor, b: Tensor) -> Tensor:
    # |a| mod |b| is exact, where a - trunc(a / b) * b would lose digits.
    rest = apply(OPS["remainder"], apply(OPS["abs"], a), apply(OPS["abs"], b))
    zero = scalar(0, a.dtype)
    signed = apply(OPS["where"], apply(OPS["lt"], a, zero), apply(OPS["neg"], rest), rest)
    zeros = apply(OPS["bitwise_and"], apply(OPS["eq"], a, zero), apply(OPS["eq"], rest, zero))
    return apply(OPS["where"], zeros, a, signed)  # -0 stays -0


def _pow_backward(input: Any, exponent: Any) -> str:
    if not isinstance(input, Tensor):
        return "PowBackward2"
    return f"PowBackward{1 if isinstance(exponent, Tensor) else 0}"


@public(name="pow", backward=_pow_backward)
def pow_(input: Operand, exponent: Operand) -> Tensor:
    """``input ** exponent``. Integers to negative integer powers give 0 (but for the bases 1 and -1)."""
    a, b = operand(input, "pow", "input"), operand(exponent, "pow", "exponent")
    dtype = result_dtype(a, b)
    if dtype is bool_:
        raise error(DTypeError, "pow", "has no meaning for two bools; convert one with .int()")
    if isinstance(a, Tensor) and not isinstance(b, Tensor):
        simple = _POWERS.get(float(b)) if isinstance(b, (int, float)) else None
        if simple is not None and (dtype.kind == "float" or float(b) in (0, 1, 2, 3)):
            return simple(cast(a, dtype))
        if isinstance(b, int) and b < 0 and dtype.kind == "int":
            raise error(
                DTypeError, "pow", "integers to negative integer powers are not allowed; use a float tensor"
            )
    return apply(OPS["pow"], in_dtype(a, dtype), in_dtype(b, dtype))


def _square(x: Tensor) -> Tensor:
    return apply(OPS["mul"], x, x)


# Exponents that a multiplication or root computes faster and at least as exactly.
_POWERS: dict[float, Unary] = {
    # One everywhere, NaN included, and still a function of x, whose gradient is 0.
    0.0: lambda x: apply(
        OPS["where"],
        apply(OPS["bitwise_or"], apply(OPS["eq"], x, x), apply(OPS["ne"], x, x)),
        scalar(1, x.dtype),
        x,
    ),
    1.0: copied,
    0.5: lambda x: apply(OPS["sqrt"], x),
    -0.5: lambda x: apply(OPS["rsqrt"], x),
    2.0: _square,
    3.0: lambda x: apply(OPS["mul"], _square(x), x),
    -1.0: lambda x: apply(OPS["div"], scalar(1, x.dtype), x),
    -2.0: lambda x: apply(OPS["div"], scalar(1, x.dtype), _square(x)),
}


@public(aliases=("negative",))
def neg(input: Tensor) -> Tensor:
    """``-input``; DTypeError on bools."""
    t = tensor_arg(input, "neg")
    if t.dtype is bool_:
        raise error(DTypeError, "neg", "negation of a bool tensor has no meaning; use ~ or logical_not()")
    return apply(OPS["neg"], t)


@public()
def positive(input: Tensor) -> Tensor:
    """`input` itself."""
    return tensor_arg(input, "positive")


@public(name="abs", aliases=("absolute",))
def abs_(input: Tensor) -> Tensor:
    """Absolute value; the gradient at 0 is 0."""
    t = tensor_arg(input, "abs")
    if t.dtype is bool_:
        raise error(DTypeError, "abs", "the absolute value of a bool tensor has no meaning")
    return copied(t) if t.dtype.name == "uint8" else apply(OPS["abs"], t)


@public(aliases=("sgn",))
def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1 in the input's dtype; NaN stays NaN, as in NumPy, where PyTorch gives 0."""
    t = tensor_arg(input, "sign")
    return copied(t) if t.dtype is bool_ else apply(OPS["sign"], t)


@public(backward="PowBackward0")
def square(input: Tensor) -> Tensor:
    """``input * input``."""
    t = tensor_arg(input, "square")
    return _square(cast(t, int64) if t.dtype is bool_ else t)


@public()
def reciprocal(input: Tensor) -> Tensor:
    """``1 / input``, floating point also for integers."""
    t = as_float(input, "reciprocal")
    return apply(OPS["div"], scalar(1, t.dtype), t)


@public(backward=lambda input, end, weight: f"LerpBackward{1 if isinstance(weight, Tensor) else 0}")
def lerp(input: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """``input + weight * (end - input)``, exact at weight 0 and 1."""
    a = require_float(tensor_arg(input, "lerp"), "lerp")
    b = require_float(tensor_arg(end, "lerp", "end"), "lerp")
    return _lerp(a, b, operand(weight, "lerp", "weight"))


@rounded_once
def _lerp(a: Tensor, b: Tensor, weight: Operand) -> Tensor:
    w = in_dtype(weight, a.dtype)
    step = apply(OPS["sub"], b, a)
    low = apply(OPS["add"], a, apply(OPS["mul"], w, step))
    high = apply(OPS["sub"], b, apply(OPS["mul"], step, apply(OPS["sub"], scalar(1, a.dtype), w)))
    if isinstance(weight, (int, float)):
        return low if abs(weight) < 0.5 else high
    return apply(OPS["where"], apply(OPS["lt"], apply(OPS["abs"], w), scalar(0.5, a.dtype)), low, high)


@public()
def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Operand = 1) -> Tensor:
    """``input + value * tensor1 * tensor2``."""
    return _added("mul", *promoted("addcmul", input, tensor1, tensor2), name="addcmul", value=value)


@rounded_once
def _added(op: str, a: Tensor, b: Tensor, c: Tensor, *, name: str, value: Operand) -> Tensor:
    return apply(OPS["add"], a, apply(OPS[op], _scaled(name, b, value), c))


@public()
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Operand = 1) -> Tensor:
    """``input + value * tensor1 / tensor2``; DTypeError on integers."""
    a, b, c = promoted("addcdiv", input, tensor1, tensor2)
    require_float(a, "addcdiv")
    return _added("div", a, b, c, name="addcdiv", value=value)


# -------------------------------------------------------------------------------------------- float functions


def _float_unary(name: str, doc: str, *, aliases: tuple[str, ...] = (), backward: str | None = None) -> Unary:
    """A function of one floating point operand; integers and bools are converted first."""
    primitive = OPS[name]

    def function(input: Tensor) -> Tensor:
        return apply(primitive, as_float(input, name))

    function.__doc__ = doc
    function.__module__ = __name__
    return public(name, aliases=aliases, backward=backward)(function)


exp = _float_unary("exp", "e to the power of the elements.")
exp2 = _float_unary("exp2", "2 to the power of the elements.")
expm1 = _float_unary("expm1", "``exp(input) - 1`` without losing digits near 0.")
log = _float_unary("log", "Natural logarithm; -inf at 0, NaN below.")
log1p = _float_unary("log1p", "``log(1 + input)`` without losing digits near 0.", backward="Log1PBackward0")
log2 = _float_unary("log2", "Logarithm to base 2.")
log10 = _float_unary("log10", "Logarithm to base 10.")
sqrt = _float_unary("sqrt", "Square root; NaN for negative elements.")
rsqrt = _float_unary("rsqrt", "``1 / sqrt(input)``.")
sin = _float_unary("sin", "Sine of an angle in radians.")
cos = _float_unary("cos", "Cosine of an angle in radians.")
tan = _float_unary("tan", "Tangent of an angle in radians.")
asin = _float_unary("asin", "Inverse sine, in radians.", aliases=("arcsin",))
acos = _float_unary("acos", "Inverse cosine, in radians.", aliases=("arccos",))
atan = _float_unary("atan", "Inverse tangent, in radians.", aliases=("arctan",))
sinh = _float_unary("sinh", "Hyperbolic sine.")
cosh = _float_unary("cosh", "Hyperbolic cosine.")
tanh = _float_unary("tanh", "Hyperbolic tangent.")
asinh = _float_unary("asinh", "Inverse hyperbolic sine.", aliases=("arcsinh",))
acosh = _float_unary("acosh", "Inverse hyperbolic cosine.", aliases=("arccosh",))
atanh = _float_unary("atanh", "Inverse hyperbolic tangent.", aliases=("arctanh",))
sigmoid = _float_unary("sigmoid", "``1 / (1 + exp(-input))``.")
erf = _float_unary("erf", "The error function.")
erfc = _float_unary("erfc", "``1 - erf(input)`` without losing digits for large elements.")


@public(aliases=("arctan2",))
def atan2(input: Tensor, other: Tensor) -> Tensor:
    """The angle of the point (other, input), in radians, in the right quadrant."""
    return apply(OPS["atan2"], *promoted("atan2", input, other, floating=True))


@public()
def relu(input: Tensor) -> Tensor:
    """``max(input, 0)``; NaN and -0 stay as they are, and the gradient at 0 is 0."""
    t = tensor_arg(input, "relu")
    if t.dtype is bool_:
        raise error(DTypeError, "relu", "boolean inputs are not supported")
    return apply(OPS["relu"], t)


def _rounding(name: str, doc: str, aliases: tuple[str, ...] = ()) -> Unary:
    primitive = OPS[name]

    def function(input: Tensor) -> Tensor:
        t = tensor_arg(input, name)
        if t.dtype is bool_:
            raise error(DTypeError, name, "a bool tensor can't be rounded")
        return apply(primitive, t) if t.dtype.kind == "float" else copied(t)

    function.__doc__ = doc
    function.__module__ = __name__
    return public(name, aliases=aliases)(function)


floor = _rounding("floor", "The largest integer not above each element; integers stay as they are.")
ceil = _rounding("ceil", "The smallest integer not below each element; integers stay as they are.")
trunc = _rounding("trunc", "The integer part of each element; integers stay as they are.", aliases=("fix",))


@public(name="round")
def round_(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest integer, halves to the even one; with `decimals`, the nearest multiple of
    ``10**-decimals``.
    """
    t = tensor_arg(input, "round")
    if t.dtype is bool_:
        raise error(DTypeError, "round", "a bool tensor can't be rounded")
    if t.dtype.kind != "float":
        return copied(t)
    if decimals == 0:
        return apply(OPS["round"], t)
    factor = scalar(10.0 ** abs(decimals), t.dtype)
    there, back = (OPS["mul"], OPS["div"]) if decimals > 0 else (OPS["div"], OPS["mul"])
    return apply(back, apply(OPS["round"], apply(there, t, factor)), factor)


@public()
def frac(input: Tensor) -> Tensor:
    """``input - trunc(input)``."""
    t = require_float(tensor_arg(input, "frac"), "frac")
    return apply(OPS["sub"], t, apply(OPS["trunc"], t))


@public(backward="Deg2RadBackward0")
def deg2rad(input: Tensor) -> Tensor:
    """Degrees to radians."""
    t = as_float(input, "deg2rad")
    return apply(OPS["mul"], t, scalar(math.pi / 180, t.dtype))


@public(backward="Rad2DegBackward0")
def rad2deg(input: Tensor) -> Tensor:
    """Radians to degrees."""
    t = as_float(input, "rad2deg")
    return apply(OPS["mul"], t, scalar(180 / math.pi, t.dtype))


# other names for the same
absolute = abs_
arccos = acos
arccosh = acosh
arcsin = asin
arcsinh = asinh
arctan = atan
arctan2 = atan2
arctanh = atanh
divide = div
fix = trunc
multiply = mul
negative = neg
sgn = sign
subtract = sub
