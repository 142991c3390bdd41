"""The scalar language of kernel bodies: its types and operators, as LLVM instructions.

Each `Operation` has a typing rule and an emitter and knows nothing of the front end that reads the text.
Arithmetic keeps the operands' type: two int32 give an int32 that wraps, an integer literal takes the other
operand's type, an integer meeting a float becomes that float type, and the wider type wins within a kind.
Signed and unsigned operands don't mix unless the signed one is wider. Float arithmetic is IEEE without any
liberty: a product and a sum aren't contracted either, so that a value has the same bits in whichever kernel
it is computed. ``x == max(x)`` finds its winner though both sides were computed from x's operands in loops of
their own.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite.ir as ll

from graphflow.compiler.codegen import vecmath_half


@dataclass(frozen=True)
class Scalar:
    """A number type. `kind` is f(loat), i(nteger, signed), u(nsigned), b(ool) or h(alf).

    Halves (float16, bfloat16) are bit patterns that only convert to float32 and back.
    """

    code: str
    kind: str
    bits: int

    @property
    def value(self) -> ll.Type:
        """The LLVM type of a value in a register (a half's bits are an integer)."""
        if self.kind == "f":
            return ll.FloatType() if self.bits == 32 else ll.DoubleType()
        return ll.IntType(1 if self.kind == "b" else self.bits)

    @property
    def storage(self) -> ll.Type:
        """The LLVM type of a value in memory (a bool takes a byte there)."""
        return ll.IntType(8) if self.kind == "b" else self.value


@dataclass(frozen=True)
class Pointer:
    """The address of elements of type `element`."""

    element: Scalar

    @property
    def code(self) -> str:
        """The type's name in a parameter list."""
        return self.element.code + "*"

    @property
    def value(self) -> ll.Type:
        """The LLVM type of a value in a register."""
        return ll.PointerType(self.element.storage)


@dataclass(frozen=True)
class Literal:
    """An integer written in the text; it has no width of its own."""

    number: int
    code: str = "an integer literal"

    @property
    def value(self) -> ll.Type:
        """The LLVM type of a value in a register."""
        return ll.IntType(64)


@dataclass(frozen=True)
class Range:
    """What `range(...)` makes: start, stop and step, each an i64."""

    code: str = "range"


Type = Scalar | Pointer | Literal | Range

SCALARS: dict[str, Scalar] = {
    s.code: s
    for s in (
        Scalar("b8", "b", 8),
        *(Scalar(f"{k}{bits}", k, bits) for k in "iu" for bits in (8, 16, 32, 64)),
        Scalar("f16", "h", 16),
        Scalar("bf16", "h", 16),
        Scalar("f32", "f", 32),
        Scalar("f64", "f", 64),
    )
}
BOOL, I64, F32, F64 = SCALARS["b8"], SCALARS["i64"], SCALARS["f32"], SCALARS["f64"]
FLOATS = (F32, F64)
INTS = tuple(s for s in SCALARS.values() if s.kind in "iu")

Emit = Callable[[ll.IRBuilder, tuple[Any, ...], list[ll.Value]], ll.Value]
Resolve = Callable[[tuple[Type, ...]], Type | None]


@dataclass(frozen=True, eq=False)
class Operation:
    """Something a body can do: `resolve` gives the result's type (None: not for these operands)."""

    name: str
    resolve: Resolve
    emit: Emit


OPERATORS: dict[Any, Operation] = {}  # by the function of Python's `operator` module (or bool)
FUNCTIONS: dict[str, Operation] = {}  # by the name used in bodies


def parse(code: str) -> Scalar | Pointer:
    """The type that a parameter list calls `code`, e.g. ``"f32*"`` or ``"i64"``; KeyError if there's none."""
    return Pointer(SCALARS[code[:-1]]) if code.endswith("*") else SCALARS[code]


def promote(a: Type, b: Type) -> Scalar | None:
    """The type in which two numbers meet, or None if they don't."""
    if isinstance(a, Literal) and isinstance(b, Literal):
        return I64
    if isinstance(a, Literal):
        a, b = b, a
    if not isinstance(a, Scalar):
        return None
    if isinstance(b, Literal):
        return I64 if a.kind == "b" else a
    if not isinstance(b, Scalar):
        return None
    if a == b:
        return a
    if "h" in (a.kind, b.kind):
        return None
    rank = {"b": 0, "u": 1, "i": 1, "f": 2}
    if rank[a.kind] != rank[b.kind]:
        return a if rank[a.kind] > rank[b.kind] else b
    if a.kind == b.kind:
        return a if a.bits > b.bits else b
    signed, unsigned = (a, b) if a.kind == "i" else (b, a)
    return signed if signed.bits > unsigned.bits else None


def intrinsic(b: ll.IRBuilder, name: str, result: ll.Type, args: list[ll.Value], **flags: Any) -> ll.Value:
    """Call an LLVM intrinsic by its full name."""
    kind = ll.FunctionType(result, [a.type for a in args])
    module = b.module
    function = module.globals.get(name) or ll.Function(module, kind, name)
    return b.call(function, args, **flags)


def _float_to_int(b: ll.IRBuilder, value: ll.Value, source: Scalar, to: Scalar) -> ll.Value:
    sign = "u" if to.kind == "u" else "s"
    return intrinsic(b, f"llvm.fpto{sign}i.sat.i{to.bits}.{source.code}", to.value, [value])


def _resized(b: ll.IRBuilder, value: ll.Value, source: Scalar, to: Scalar) -> ll.Value:
    """A float of the other size. The sign goes by itself: where a comparison chooses between what it
    compares, converted, and something else, LLVM makes a maximum of it, which takes -0.0 for 0.0.
    """
    bits = b.bitcast(value, ll.IntType(source.bits))
    word = ll.IntType(to.bits)
    if source.bits > to.bits:
        changed = b.fptrunc(value, to.value)
        sign = b.trunc(b.lshr(bits, ll.Constant(bits.type, source.bits - to.bits)), word)
    else:
        changed = b.fpext(value, to.value)
        sign = b.shl(b.zext(bits, word), ll.Constant(word, to.bits - source.bits))
    signed = b.bitcast(sign, to.value)
    return intrinsic(b, f"llvm.copysign.{to.code}", to.value, [changed, signed])


def convert(b: ll.IRBuilder, value: ll.Value, source: Type, to: Scalar) -> ll.Value:
    """`value` as a `to`. Floats become integers by truncation, out of range by saturation, NaN by 0."""
    if isinstance(source, Literal):
        number = source.number
        if to.kind == "h":
            return convert(b, ll.Constant(F32.value, float(number)), F32, to)
        if to.kind == "f":
            return ll.Constant(to.value, float(number))
        return ll.Constant(to.value, number != 0 if to.kind == "b" else number)
    assert isinstance(source, Scalar)
    if source == to:
        return value
    if source.kind == "h":
        return convert(b, vecmath_half.widened(b, value, source.code), F32, to)
    if to.kind == "h":
        return vecmath_half.narrowed(b, convert(b, value, source, F32), to.code)
    if to.kind == "b":
        zero = ll.Constant(source.value, 0)
        return b.fcmp_unordered("!=", value, zero) if source.kind == "f" else b.icmp_signed("!=", value, zero)
    if source.kind == "f":
        if to.kind == "f":
            return _resized(b, value, source, to)
        return _float_to_int(b, value, source, to)
    unsigned = source.kind in "bu"
    if to.kind == "f":
        return b.uitofp(value, to.value) if unsigned else b.sitofp(value, to.value)
    if source.kind != "b" and source.bits == to.bits:
        return value
    if source.kind != "b" and source.bits > to.bits:
        return b.trunc(value, to.value)
    return b.zext(value, to.value) if unsigned else b.sext(value, to.value)


def _operator(*keys: Any) -> Callable[[tuple[Resolve, Emit]], None]:
    def add(rule: tuple[Resolve, Emit]) -> None:
        for key in keys:
            OPERATORS[key] = Operation(key.__name__, *rule)

    return add


def _fixed(result: Type, *params: Scalar) -> Resolve:
    """A rule for operands that convert to the given types: numbers, as many as `params`."""

    def resolve(args: tuple[Type, ...]) -> Type | None:
        fits = len(args) == len(params) and all(isinstance(a, Scalar | Literal) for a in args)
        return result if fits else None

    return resolve


def _converted(emit: Callable[..., ll.Value], *params: Scalar) -> Emit:
    return lambda b, types, values: emit(
        b, *(convert(b, v, t, p) for v, t, p in zip(values, types, params, strict=True))
    )


def define(name: str, result: Scalar, params: tuple[Scalar, ...], emit: Callable[..., ll.Value]) -> None:
    """Make a function of bodies with fixed parameter types; ``emit(builder, *values)`` writes its code."""
    FUNCTIONS[name] = Operation(name, _fixed(result, *params), _converted(emit, *params))


def _meet(kinds: str) -> Resolve:
    def resolve(args: tuple[Type, ...]) -> Type | None:
        met = promote(args[0], args[1]) if len(args) == 2 else None
        return met if met is not None and met.kind in kinds else None

    return resolve


def both(b: ll.IRBuilder, types: tuple[Any, ...], values: list[ll.Value]) -> tuple[Scalar, list[ll.Value]]:
    """The type in which two operands meet, and both converted to it."""
    met = promote(types[0], types[1])
    assert met is not None
    return met, [convert(b, v, t, met) for v, t in zip(values, types, strict=True)]


def _arithmetic(name: str) -> tuple[Resolve, Emit]:
    def resolve(args: tuple[Type, ...]) -> Type | None:
        if name in ("add", "sub") and isinstance(args[0], Pointer) and isinstance(args[1], Scalar | Literal):
            whole = isinstance(args[1], Literal) or args[1].kind in "iu"
            return args[0] if whole else None
        return _meet("iuf")(args)

    def emit(b: ll.IRBuilder, types: tuple[Any, ...], values: list[ll.Value]) -> ll.Value:
        if isinstance(types[0], Pointer):
            index = convert(b, values[1], types[1], I64)
            return b.gep(values[0], [b.neg(index) if name == "sub" else index], inbounds=True)
        met, (x, y) = both(b, types, values)
        if met.kind == "f":
            return getattr(b, "f" + name)(x, y)
        return getattr(b, name)(x, y)

    return resolve, emit


for _name in ("add", "sub", "mul"):
    _operator(getattr(operator, _name), getattr(operator, "i" + _name))(_arithmetic(_name))


def _true_divide(b: ll.IRBuilder, types: tuple[Any, ...], values: list[ll.Value]) -> ll.Value:
    met = promote(types[0], types[1])
    at = met if met is not None and met.kind == "f" else F64
    x, y = (convert(b, v, t, at) for v, t in zip(values, types, strict=True))
    return b.fdiv(x, y)


def _true_divide_type(args: tuple[Type, ...]) -> Type | None:
    met = promote(args[0], args[1])
    return None if met is None else met if met.kind == "f" else F64


_operator(operator.truediv, operator.itruediv)((_true_divide_type, _true_divide))


def _divide_parts(b: ll.IRBuilder, at: Scalar, x: ll.Value, y: ll.Value) -> tuple[ll.Value, ...]:
    """Quotient and remainder rounded down, and whether `y` is zero; nothing traps."""
    zero, one = ll.Constant(at.value, 0), ll.Constant(at.value, 1)
    by_zero = b.icmp_signed("==", y, zero)
    if at.kind == "u":
        safe = b.select(by_zero, one, y)
        return b.udiv(x, safe), b.urem(x, safe), by_zero
    minus = b.icmp_signed("==", y, ll.Constant(at.value, -1))  # the one quotient that overflows is by -1
    safe = b.select(b.or_(by_zero, minus), one, y)
    quotient, rest = b.sdiv(x, safe), b.srem(x, safe)
    down = b.and_(b.icmp_signed("!=", rest, zero), b.icmp_signed("<", b.xor(rest, safe), zero))
    quotient = b.select(down, b.sub(quotient, one), quotient)
    rest = b.select(down, b.add(rest, safe), rest)
    return b.select(minus, b.sub(zero, x), quotient), rest, by_zero


def floor_divide(at: Scalar) -> Callable[..., ll.Value]:
    """Emits the quotient rounded down; 0 for a divisor of 0."""

    def emit(b: ll.IRBuilder, x: ll.Value, y: ll.Value) -> ll.Value:
        quotient, _, by_zero = _divide_parts(b, at, x, y)
        return b.select(by_zero, ll.Constant(at.value, 0), quotient)

    return emit


def modulo(at: Scalar) -> Callable[..., ll.Value]:
    """Emits the remainder with the divisor's sign; 0 for a divisor of 0."""

    def emit(b: ll.IRBuilder, x: ll.Value, y: ll.Value) -> ll.Value:
        _, rest, by_zero = _divide_parts(b, at, x, y)
        return b.select(by_zero, ll.Constant(at.value, 0), rest)

    return emit


def _at_met(make: Callable[[Scalar], Callable[..., ll.Value]]) -> Emit:
    def emit(b: ll.IRBuilder, types: tuple[Any, ...], values: list[ll.Value]) -> ll.Value:
        met, pair = both(b, types, values)
        return make(met)(b, *pair)

    return emit


_operator(operator.floordiv, operator.ifloordiv)((_meet("iu"), _at_met(floor_divide)))
_operator(operator.mod, operator.imod)((_meet("iu"), _at_met(modulo)))


def _bitwise(name: str) -> Emit:
    return lambda b, types, values: getattr(b, name)(*both(b, types, values)[1])


for _key, _inplace, _name in (
    (operator.and_, operator.iand, "and_"),
    (operator.or_, operator.ior, "or_"),
    (operator.xor, operator.ixor, "xor"),
):
    _operator(_key, _inplace)((_meet("iub"), _bitwise(_name)))


def _shift_type(args: tuple[Type, ...]) -> Type | None:
    value, by = args
    whole = isinstance(by, Literal) or (isinstance(by, Scalar) and by.kind in "iu")
    value = I64 if isinstance(value, Literal) else value
    return value if whole and isinstance(value, Scalar) and value.kind in "iu" else None


def _shift(left: bool) -> Emit:
    """Shifts; a count of the width or more gives 0 (or the sign, shifting right), as in NumPy."""

    def emit(b: ll.IRBuilder, types: tuple[Any, ...], values: list[ll.Value]) -> ll.Value:
        at = I64 if isinstance(types[0], Literal) else types[0]
        x, by = convert(b, values[0], types[0], at), convert(b, values[1], types[1], at)
        zero, last = ll.Constant(at.value, 0), ll.Constant(at.value, at.bits - 1)
        beyond = b.icmp_unsigned(">", by, last)
        by = b.select(beyond, last, by)
        if not left and at.kind == "i":
            return b.ashr(x, by)
        return b.select(beyond, zero, b.shl(x, by) if left else b.lshr(x, by))

    return emit


_operator(operator.lshift, operator.ilshift)((_shift_type, _shift(left=True)))
_operator(operator.rshift, operator.irshift)((_shift_type, _shift(left=False)))


def _compare(sign: str) -> tuple[Resolve, Emit]:
    def resolve(args: tuple[Type, ...]) -> Type | None:
        met = promote(args[0], args[1])
        return None if met is None or met.kind == "h" else BOOL

    def emit(b: ll.IRBuilder, types: tuple[Any, ...], values: list[ll.Value]) -> ll.Value:
        met, (x, y) = both(b, types, values)
        if met.kind == "f":
            return (b.fcmp_unordered if sign == "!=" else b.fcmp_ordered)(sign, x, y)
        return (b.icmp_signed if met.kind == "i" else b.icmp_unsigned)(sign, x, y)

    return resolve, emit


for _key, _name in (
    (operator.eq, "=="),
    (operator.ne, "!="),
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
):
    _operator(_key)(_compare(_name))


def _one(kinds: str) -> Resolve:
    def resolve(args: tuple[Type, ...]) -> Type | None:
        at = I64 if isinstance(args[0], Literal) else args[0]
        return at if len(args) == 1 and isinstance(at, Scalar) and at.kind in kinds else None

    return resolve


def _negate(b: ll.IRBuilder, types: tuple[Any, ...], values: list[ll.Value]) -> ll.Value:
    at = I64 if isinstance(types[0], Literal) else types[0]
    x = convert(b, values[0], types[0], at)
    return b.fneg(x) if at.kind == "f" else b.neg(x)


def _truth(b: ll.IRBuilder, types: tuple[Any, ...], values: list[ll.Value]) -> ll.Value:
    return convert(b, values[0], types[0], BOOL)


def _is_number(args: tuple[Type, ...]) -> Type | None:
    return BOOL if len(args) == 1 and isinstance(args[0], Scalar | Literal) else None


_operator(operator.neg)((_one("iuf"), _negate))
_operator(operator.pos)((_one("iuf"), lambda b, types, values: values[0]))
_operator(operator.invert)((_one("iub"), lambda b, types, values: b.not_(values[0])))
_operator(operator.not_)((_is_number, lambda b, types, values: b.not_(_truth(b, types, values))))
_operator(bool)((_is_number, _truth))


def _is_index(index: Type) -> bool:
    return isinstance(index, Literal) or (isinstance(index, Scalar) and index.kind in "iu")


def _element(args: tuple[Type, ...]) -> Type | None:
    pointer, index = args
    return pointer.element if isinstance(pointer, Pointer) and _is_index(index) else None


def _load(b: ll.IRBuilder, types: tuple[Any, ...], values: list[ll.Value]) -> ll.Value:
    element = types[0].element
    value = b.load(b.gep(values[0], [convert(b, values[1], types[1], I64)], inbounds=True))
    return b.icmp_signed("!=", value, ll.Constant(value.type, 0)) if element.kind == "b" else value


def _store_type(args: tuple[Type, ...]) -> Type | None:
    pointer, index, value = args
    fits = isinstance(pointer, Pointer) and _is_index(index) and isinstance(value, Scalar | Literal)
    return value if fits else None


def _store(b: ll.IRBuilder, types: tuple[Any, ...], values: list[ll.Value]) -> ll.Value:
    element = types[0].element
    value = convert(b, values[2], types[2], element)
    if element.kind == "b":
        value = b.zext(value, element.storage)
    return b.store(value, b.gep(values[0], [convert(b, values[1], types[1], I64)], inbounds=True))


_operator(operator.getitem)((_element, _load))
_operator(operator.setitem)((_store_type, _store))
