"""Functions on elements made of others, in forms that don't overflow; distances and membership."""

from __future__ import annotations

import math
from typing import Any

from graphflow import return_types
from graphflow.compiler.ir import OPS
from graphflow.dims import product
from graphflow.dtypes import bool_, float64, int32, int64, uint8
from graphflow.errors import ShapeError
from graphflow.functions.arrange import flip
from graphflow.functions.common import (
    Operand,
    as_float,
    cast,
    dim_arg,
    expanded,
    of_size,
    promoted,
    require_float,
    reshaped,
    scalar,
    tensor_arg,
)
from graphflow.functions.elementwise import pow_
from graphflow.functions.logic import logical_not
from graphflow.functions.norms import norm
from graphflow.functions.registry import error, public
from graphflow.functions.shape import flatten
from graphflow.sizes import unwrap
from graphflow.tensor import Tensor, apply

__all__ = [
    "cdist", "copysign", "float_power", "frexp", "heaviside", "hypot", "isin", "ldexp", "logaddexp",
    "logaddexp2", "renorm", "signbit", "sinc", "vander", "xlogy",
]  # fmt: skip


def _number(value: float, like: Tensor) -> Tensor:
    return scalar(value, like.dtype)


@public()
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """``log(exp(input) + exp(other))``, in a form that doesn't overflow."""
    return _log_of_sum("logaddexp", input, other, 1.0)


@public()
def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """``log2(2**input + 2**other)``, in a form that doesn't overflow."""
    return _log_of_sum("logaddexp2", input, other, math.log(2))


def _log_of_sum(name: str, input: Any, other: Any, base: float) -> Tensor:
    a, b = promoted(name, input, other, floating=True)
    high = apply(OPS["maximum"], a, b)
    same = apply(OPS["bitwise_and"], apply(OPS["eq"], a, b), apply(OPS["isinf"], high))
    gap = apply(OPS["abs"], apply(OPS["sub"], a, apply(OPS["where"], same, _number(0, a), b)))
    rest = apply(OPS["log1p"], apply(OPS["exp"], apply(OPS["mul"], gap, _number(-base, a))))
    found = apply(OPS["add"], high, apply(OPS["div"], rest, _number(base, a)))
    return apply(OPS["where"], same, high, found)


@public()
def hypot(input: Tensor, other: Tensor) -> Tensor:
    """``sqrt(input**2 + other**2)``, in a form that doesn't overflow."""
    a, b = promoted("hypot", input, other)
    require_float(a, "hypot")
    size = apply(OPS["maximum"], apply(OPS["abs"], a.detach()), apply(OPS["abs"], b.detach()))
    usual = apply(OPS["bitwise_and"], apply(OPS["isfinite"], size), apply(OPS["gt"], size, _number(0, size)))
    scale = apply(OPS["where"], usual, size, _number(1, size))
    x, y = apply(OPS["div"], a, scale), apply(OPS["div"], b, scale)
    root = apply(OPS["sqrt"], apply(OPS["add"], apply(OPS["mul"], x, x), apply(OPS["mul"], y, y)))
    return apply(OPS["mul"], root, scale)


@public()
def xlogy(input: Operand, other: Operand) -> Tensor:
    """``input * log(other)``, 0 where `input` is 0 (and `other` no NaN)."""
    x, y = promoted("xlogy", input, other, floating=True)
    nothing = apply(
        OPS["bitwise_and"], apply(OPS["eq"], x, _number(0, x)), apply(OPS["le"], y, _number(0, y))
    )
    return apply(OPS["mul"], x, apply(OPS["log"], apply(OPS["where"], nothing, _number(1, y), y)))


@public()
def sinc(input: Tensor) -> Tensor:
    """``sin(pi x) / (pi x)``, 1 at 0; all derivatives are right there, too."""
    t = apply(OPS["mul"], as_float(input, "sinc"), _number(math.pi, as_float(input, "sinc")))
    near = apply(OPS["lt"], apply(OPS["abs"], t), _number(0.03, t))
    away = apply(OPS["where"], near, _number(1, t), t)
    square = apply(OPS["where"], near, apply(OPS["mul"], t, t), _number(0, t))
    series = _number(1, t)
    for divisor in (72.0, 42.0, 20.0, 6.0):
        series = apply(
            OPS["sub"],
            _number(1, t),
            apply(OPS["mul"], apply(OPS["div"], square, _number(divisor, t)), series),
        )
    return apply(OPS["where"], near, series, apply(OPS["div"], apply(OPS["sin"], away), away))


@public()
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 where `input` is negative, 1 where it is positive, `values` where it is 0."""
    x, v = promoted("heaviside", input, values)
    step = cast(apply(OPS["gt"], x, _number(0, x)), x.dtype)
    return apply(OPS["where"], apply(OPS["eq"], x, _number(0, x)), v, step)


@public()
def signbit(input: Tensor) -> Tensor:
    """Whether elements are negative, -0 included, as bools."""
    t = tensor_arg(input, "signbit")
    if t.dtype.kind != "float":
        whole = cast(t, uint8) if t.dtype is bool_ else t
        return apply(OPS["lt"], whole, _number(0, whole))
    zero = apply(OPS["eq"], t, _number(0, t))
    low = apply(OPS["lt"], apply(OPS["div"], _number(1, t), t), _number(0, t))
    return apply(OPS["where"], zero, low, apply(OPS["lt"], t, _number(0, t)))


@public()
def copysign(input: Tensor, other: Operand) -> Tensor:
    """The magnitude of `input` with the sign of `other`."""
    a, b = promoted("copysign", input, other, floating=True)
    size = apply(OPS["abs"], a)
    return apply(OPS["where"], signbit(b), apply(OPS["neg"], size), size)


@public()
def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """``input * 2**other``."""
    x, power = promoted("ldexp", input, other, floating=True)
    return apply(OPS["mul"], x, apply(OPS["exp2"], power))


@public()
def frexp(input: Tensor) -> return_types.frexp:
    """``(mantissa, exponent)``: ``input = mantissa * 2**exponent`` with int32 exponents and mantissas from
    1/2 to 1; 0, NaN and the infinities have the exponent 0.
    """
    t = require_float(tensor_arg(input, "frexp"), "frexp")
    x = cast(t.detach(), float64) if t.dtype is not float64 else t.detach()
    usual = apply(OPS["bitwise_and"], apply(OPS["isfinite"], x), apply(OPS["ne"], x, _number(0, x)))
    size = apply(OPS["where"], usual, apply(OPS["abs"], x), _number(0.5, x))
    tiny = apply(OPS["lt"], size, _number(2.0**-1000, x))
    size = apply(OPS["where"], tiny, size * 2.0**60, size)
    power = apply(OPS["floor"], apply(OPS["log2"], size)) + 1
    rest = _scaled_by(size, -power)
    # the logarithm may have been rounded across a power of 2
    power = power + cast(apply(OPS["ge"], rest, _number(1, x)), float64)
    power = power - cast(apply(OPS["lt"], rest, _number(0.5, x)), float64)
    power = power - apply(OPS["where"], tiny, _number(60, x), _number(0, x))
    exponent = apply(OPS["where"], usual, power, _number(0, x))
    wide = cast(t, float64) if t.dtype is not float64 else t
    return return_types.frexp(cast(_scaled_by(wide, -exponent), t.dtype), cast(exponent, int32))


def _scaled_by(x: Tensor, power: Tensor) -> Tensor:
    """``x * 2**power`` for float64 in steps that neither overflow nor lose bits on the way."""
    part = apply(OPS["trunc"], power * 0.25)
    step = apply(OPS["exp2"], part)
    return x * step * step * step * apply(OPS["exp2"], power - 3 * part)


@public()
def float_power(input: Operand, exponent: Operand) -> Tensor:
    """`pow` in float64."""
    base, power = promoted("float_power", input, exponent, floating=True)
    return pow_(cast(base, float64), cast(power, float64))


# ---------------------------------------------------------------------------------------------- distances


@public(method=False)
def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """The p-norm distances between all pairs of rows of (batches of) two matrices; 0 has gradient 0."""
    a, b = promoted("cdist", tensor_arg(x1, "cdist", "x1"), tensor_arg(x2, "cdist", "x2"))
    require_float(a, "cdist")
    if a.ndim < 2 or b.ndim < 2:
        raise error(ShapeError, "cdist", f"needs matrices, got {a.type_} and {b.type_}")
    left, right = a.type_.shape, b.type_.shape
    rows = reshaped(a, (*left[:-1], 1, left[-1]))
    columns = reshaped(b, (*right[:-2], 1, *right[-2:]))
    return norm(apply(OPS["sub"], rows, columns), float(p), -1)


@public()
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Slices along `dim` scaled down so that no p-norm is larger than `maxnorm`."""
    t = require_float(tensor_arg(input, "renorm"), "renorm")
    if t.ndim < 2:
        raise error(ShapeError, "renorm", f"needs at least 2 dimensions, got {t.type_}")
    axis = dim_arg(dim, t.ndim, "renorm")
    size = norm(t, float(p), tuple(d for d in range(t.ndim) if d != axis), True)
    factor = apply(OPS["div"], _number(maxnorm, t), apply(OPS["add"], size, _number(1e-7, t)))
    large = apply(OPS["gt"], size, _number(maxnorm, t))
    return apply(OPS["mul"], t, apply(OPS["where"], large, factor, _number(1, t)))


@public(method=False)
def isin(elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False) -> Tensor:
    """Whether each of `elements` is among `test_elements`, as bools."""
    x, wanted = promoted("isin", elements, test_elements)
    if x.dtype is bool_:
        x, wanted = cast(x, uint8), cast(wanted, uint8)
    row = flatten(wanted) if wanted.ndim else reshaped(wanted, (1,))
    shape, size = x.type_.shape, row.type_.shape[0]
    if size == 0:
        found = expanded(scalar(False, bool_), shape)
        return logical_not(found) if invert else apply(OPS["cast"], found, dtype=bool_)
    ordered = apply(OPS["take"], row, apply(OPS["argsort"], row, descending=False), dim=0)
    values = reshaped(x, (product(shape),))
    place = apply(OPS["searchsorted"], ordered.detach(), values.detach(), right=False)
    last = of_size(size - 1, int64)
    near = apply(OPS["take"], ordered, apply(OPS["minimum"], place, last), dim=0)
    found = reshaped(apply(OPS["eq"], near, values), shape)
    return logical_not(found) if invert else found


def _powers(name: str, x: Tensor, count: Any) -> Tensor:
    t = tensor_arg(x, name, "x")
    size = t.type_.shape[-1] if count is None else unwrap(count)
    if isinstance(size, int) and size < 0:
        raise error(ValueError, name, f"N has to be 0 or more, got {size}")
    base = reshaped(t, (*t.type_.shape, 1))
    return pow_(base, cast(apply(OPS["iota"], size=size), t.dtype))


@public(method=False)
def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Vandermonde's matrix of a vector: its powers N-1 to 0 in columns, or 0 to N-1 if `increasing`."""
    t = tensor_arg(x, "vander", "x")
    if t.ndim != 1:
        raise error(ShapeError, "vander", f"x has to be a vector, got {t.type_}")
    made = _powers("vander", t, N)
    return made if increasing else flip(made, (1,))


@public("linalg_vander", function=False, method=False)
def linalg_vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """Powers 0 to N-1 of the elements of x (..., n), in a new last dimension; N is n unless given."""
    t = tensor_arg(x, "vander", "x")
    if not t.ndim:
        raise error(ShapeError, "vander", "x has to have a dimension, got 0-d")
    return _powers("vander", t, N)
