"""Comparisons, logic on bools and bits, and tests of floating point values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphflow import dtypes
from graphflow.compiler.ir import OPS
from graphflow.dtypes import float64
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.common import Operand, cast, copied, logical, promoted, scalar, tensor_arg
from graphflow.functions.elementwise import abs_, add, mul, sub
from graphflow.functions.registry import error, public
from graphflow.tensor import Tensor, apply

__all__ = [
    "bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "eq", "ge", "greater", "greater_equal", "gt", "isclose", "isfinite", "isinf", "isnan",
    "isneginf", "isposinf", "isreal", "le", "left_shift", "less", "less_equal", "logical_and",
    "logical_not", "logical_or", "logical_xor", "lt", "nan_to_num", "ne", "not_equal", "right_shift",
]  # fmt: skip

Binary = Callable[[Any, Any], Tensor]
Unary = Callable[[Any], Tensor]


def _comparison(name: str, doc: str, aliases: tuple[str, ...] = ()) -> Binary:
    primitive = OPS[name]

    def function(input: Operand, other: Operand) -> Tensor:
        return apply(primitive, *promoted(name, input, other))

    function.__doc__ = doc
    function.__module__ = __name__
    return public(name, aliases=aliases)(function)


eq = _comparison("eq", "Whether elements are equal, as bools.")
ne = _comparison("ne", "Whether elements differ, as bools.", ("not_equal",))
lt = _comparison("lt", "``input < other``, as bools.", ("less",))
le = _comparison("le", "``input <= other``, as bools.", ("less_equal",))
gt = _comparison("gt", "``input > other``, as bools.", ("greater",))
ge = _comparison("ge", "``input >= other``, as bools.", ("greater_equal",))


def _bitwise(name: str, doc: str) -> Binary:
    primitive = OPS[name]

    def function(input: Operand, other: Operand) -> Tensor:
        a, b = promoted(name, input, other)
        if a.dtype.kind == "float":
            raise error(
                DTypeError, name, f"takes bools and integers, got {a.dtype}; compare first, e.g. x > 0"
            )
        return apply(primitive, a, b)

    function.__doc__ = doc
    function.__module__ = __name__
    return public(name, aliases=(f"bitwise_{name}",) if name.endswith("shift") else ())(function)


bitwise_and = _bitwise("bitwise_and", "``input & other`` on integers; logical and on bools.")
bitwise_or = _bitwise("bitwise_or", "``input | other`` on integers; logical or on bools.")
bitwise_xor = _bitwise("bitwise_xor", "``input ^ other`` on integers; logical xor on bools.")
bitwise_left_shift = _bitwise("left_shift", "``input << other`` on integers.")
bitwise_right_shift = _bitwise("right_shift", "``input >> other`` on integers, keeping the sign.")


@public()
def bitwise_not(input: Tensor) -> Tensor:
    """``~input`` on integers; logical not on bools."""
    t = tensor_arg(input, "bitwise_not")
    if t.dtype.kind == "float":
        raise error(DTypeError, "bitwise_not", f"takes bools and integers, got {t.dtype}")
    return apply(OPS["bitwise_not"], t)


@public()
def logical_not(input: Tensor) -> Tensor:
    """Whether elements are zero."""
    return apply(OPS["bitwise_not"], logical(tensor_arg(input, "logical_not")))


def _logical(name: str, primitive: str, doc: str) -> Binary:
    op = OPS[primitive]

    def function(input: Operand, other: Operand) -> Tensor:
        a, b = promoted(name, input, other)
        return apply(op, logical(a), logical(b))

    function.__doc__ = doc
    function.__module__ = __name__
    return public(name)(function)


logical_and = _logical("logical_and", "bitwise_and", "Whether both elements are not zero.")
logical_or = _logical("logical_or", "bitwise_or", "Whether an element is not zero.")
logical_xor = _logical("logical_xor", "bitwise_xor", "Whether exactly one element is not zero.")


def _float_test(name: str, doc: str, of_integers: bool) -> Unary:
    primitive = OPS[name]

    def function(input: Tensor) -> Tensor:
        t = tensor_arg(input, name)
        if t.dtype.kind == "float":
            return apply(primitive, t)
        return apply(OPS["eq" if of_integers else "ne"], t, t)

    function.__doc__ = doc
    function.__module__ = __name__
    return public(name)(function)


isnan = _float_test("isnan", "Whether elements are NaN.", False)
isinf = _float_test("isinf", "Whether elements are infinite.", False)
isfinite = _float_test("isfinite", "Whether elements are neither infinite nor NaN.", True)


def _infinite(name: str, input: Any, value: float) -> Tensor:
    t = tensor_arg(input, name)
    if t.dtype.kind == "float":
        return apply(OPS["eq"], t, scalar(value, t.dtype))
    return apply(OPS["ne"], t, t)


@public()
def isposinf(input: Tensor) -> Tensor:
    """Whether elements are inf."""
    return _infinite("isposinf", input, math.inf)


@public()
def isneginf(input: Tensor) -> Tensor:
    """Whether elements are -inf."""
    return _infinite("isneginf", input, -math.inf)


@public()
def isreal(input: Tensor) -> Tensor:
    """Whether elements have no imaginary part: all."""
    t = tensor_arg(input, "isreal")
    same = apply(OPS["eq"], t, t)
    return apply(OPS["bitwise_or"], same, apply(OPS["bitwise_not"], same))


@public()
def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Tensor:
    """Whether ``|input - other| <= atol + rtol * |other|``, as bools; infinities are close to themselves."""
    for argument, tolerance in (("rtol", rtol), ("atol", atol)):
        if not tolerance >= 0:
            raise error(
                ShapeError, "isclose", f"{argument} must be greater than or equal to zero, got {tolerance}"
            )
    a, b = promoted("isclose", input, other)
    same = apply(OPS["eq"], a, b)
    if a.dtype.kind != "float":
        a, b = cast(a, float64), cast(b, float64)
    allowed = add(mul(abs_(b), rtol), atol)
    near = logical_and(isfinite(b), le(abs_(sub(a, b)), allowed))
    found = logical_or(same, near)
    return logical_or(found, logical_and(isnan(a), isnan(b))) if equal_nan else found


@public()
def nan_to_num(
    input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Tensor:
    """NaN and infinities replaced by numbers; by default infinities become the dtype's largest
    finite values.
    """
    t = tensor_arg(input, "nan_to_num")
    if t.dtype.kind != "float":
        return copied(t)
    largest = dtypes.finfo(t.dtype).max
    high = scalar(largest if posinf is None else posinf, t.dtype)
    low = scalar(-largest if neginf is None else neginf, t.dtype)
    found = apply(OPS["where"], apply(OPS["isnan"], t), scalar(nan, t.dtype), t)
    found = apply(OPS["where"], apply(OPS["eq"], t, scalar(math.inf, t.dtype)), high, found)
    return apply(OPS["where"], apply(OPS["eq"], t, scalar(-math.inf, t.dtype)), low, found)


# other names for the same
greater = gt
greater_equal = ge
left_shift = bitwise_left_shift
less = lt
less_equal = le
not_equal = ne
right_shift = bitwise_right_shift
