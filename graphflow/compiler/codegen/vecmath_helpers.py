"""The helper functions of kernel bodies: casts, selection, reductions, integer division, bits, stack arrays.

They are typed and emitted as `vecmath_scalars` does it, and called by the names given here, where ``T`` is a
type's code (``f32``, ``i64``, ...):

- ``T(x)`` converts; ``bits_u32(x) bits_f32(x)`` (and 64) reinterpret; ``ptr_T(p)`` reinterprets an address;
- ``select(c, a, b)`` without a branch; ``offset(p, i)``, the same as ``p + i``;
- ``stack_T(n)``: the address of n elements (n a literal) of uninitialised, 64-byte aligned stack;
- ``acc_add_T acc_mul_T acc_max_T acc_min_T``: the operations of reductions; floats may be reassociated;
- ``maximum_T minimum_T``, NaN if either is; ``fma_T(a, b, c)``;
- ``floordiv_T mod_T`` for integers, rounding down, 0 for a divisor of 0; ``abs_T gcd_T``;
- ``mullo_T mulhi_T`` for unsigned integers; ``pow_i64``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ll

from graphflow.compiler.codegen.vecmath_scalars import (
    BOOL,
    FLOATS,
    FUNCTIONS,
    I64,
    INTS,
    OPERATORS,
    SCALARS,
    Emit,
    Literal,
    Operation,
    Pointer,
    Resolve,
    Scalar,
    Type,
    both,
    define,
    floor_divide,
    intrinsic,
    modulo,
    promote,
)


def _function(name: str, resolve: Resolve, emit: Emit) -> None:
    FUNCTIONS[name] = Operation(name, resolve, emit)


def _select_type(args: tuple[Type, ...]) -> Type | None:
    if len(args) != 3 or args[0] != BOOL:
        return None
    return args[1] if args[1] == args[2] and isinstance(args[1], Pointer) else promote(args[1], args[2])


def _select(b: ll.IRBuilder, types: tuple[Any, ...], values: list[ll.Value]) -> ll.Value:
    pair = values[1:] if isinstance(types[1], Pointer) else both(b, types[1:], values[1:])[1]
    return b.select(values[0], *pair)


_function("select", _select_type, _select)
_function("offset", *(lambda rule: (rule.resolve, rule.emit))(OPERATORS[operator.add]))


def _entry_alloca(b: ll.IRBuilder, element: Scalar, count: int) -> ll.Value:
    with b.goto_entry_block():
        made = b.alloca(ll.ArrayType(element.storage, count))
        made.align = 64
        zero = ll.Constant(ll.IntType(32), 0)
        return b.gep(made, [zero, zero], inbounds=True)


def _is_count(given: Type) -> bool:
    return isinstance(given, Literal) and given.number > 0


def _define_cast(to: Scalar) -> None:
    define(to.code, to, (to,), lambda b, x: x)
    pointer = Pointer(to)
    _function(
        f"ptr_{to.code}",
        lambda args: pointer if len(args) == 1 and isinstance(args[0], Pointer) else None,
        lambda b, types, values: b.bitcast(values[0], pointer.value),
    )
    _function(
        f"stack_{to.code}",
        lambda args: pointer if len(args) == 1 and _is_count(args[0]) else None,
        lambda b, types, values: _entry_alloca(b, to, types[0].number),
    )


def _flagged(name: str) -> Callable[..., ll.Value]:
    """A float operation that may be reordered with its like: what lets a reduction run in vector lanes."""
    return lambda b, x, y: getattr(b, name)(x, y, flags=("reassoc", "contract"))


def _extreme(name: str, at: Scalar, *flags: str) -> Callable[..., ll.Value]:
    """IEEE 754-2019 maximum or minimum: NaN if either operand is."""
    return lambda b, x, y: intrinsic(b, f"llvm.{name}.{at.code}", at.value, [x, y], fastmath=flags)


def _define_float(at: Scalar) -> None:
    code, pair = at.code, (at, at)
    define(f"acc_add_{code}", at, pair, _flagged("fadd"))
    define(f"acc_mul_{code}", at, pair, _flagged("fmul"))
    for short, name in (("max", "maximum"), ("min", "minimum")):
        define(f"acc_{short}_{code}", at, pair, _extreme(name, at, "nsz"))
        define(f"{name}_{code}", at, pair, _extreme(name, at, "nsz"))
    define(f"fma_{code}", at, (at,) * 3, lambda b, *v: intrinsic(b, f"llvm.fma.{code}", at.value, list(v)))
    as_int = SCALARS[f"u{at.bits}"]
    define(f"bits_{code}", at, (as_int,), lambda b, x: b.bitcast(x, at.value))
    define(f"bits_{as_int.code}", as_int, (at,), lambda b, x: b.bitcast(x, as_int.value))


def _smaller_or_larger(at: Scalar, sign: str) -> Callable[..., ll.Value]:
    name = ("u" if at.kind == "u" else "s") + ("max" if sign == ">" else "min")
    return lambda b, x, y: intrinsic(b, f"llvm.{name}.i{at.bits}", at.value, [x, y])


def _high_product(at: Scalar) -> Callable[..., ll.Value]:
    wide = ll.IntType(2 * at.bits)

    def emit(b: ll.IRBuilder, x: ll.Value, y: ll.Value) -> ll.Value:
        product = b.mul(b.zext(x, wide), b.zext(y, wide))
        return b.trunc(b.lshr(product, ll.Constant(wide, at.bits)), at.value)

    return emit


def _gcd(at: Scalar) -> Callable[..., ll.Value]:
    """Emits Euclid's loop on the operands' sizes."""

    def emit(b: ll.IRBuilder, x: ll.Value, y: ll.Value) -> ll.Value:
        zero, before = ll.Constant(at.value, 0), b.block
        if at.kind == "i":
            x, y = (b.select(b.icmp_signed("<", v, zero), b.neg(v), v) for v in (x, y))
        head, body, done = (b.append_basic_block(f"gcd.{part}") for part in ("head", "body", "done"))
        b.branch(head)
        b.position_at_end(head)
        larger, smaller = b.phi(at.value), b.phi(at.value)
        b.cbranch(b.icmp_unsigned("!=", smaller, zero), body, done)
        b.position_at_end(body)
        rest = b.urem(larger, smaller)
        b.branch(head)
        for phi, first, later in ((larger, x, smaller), (smaller, y, rest)):
            phi.add_incoming(first, before)
            phi.add_incoming(later, body)
        b.position_at_end(done)
        return larger

    return emit


def _define_int(at: Scalar) -> None:
    code, pair = at.code, (at, at)
    define(f"floordiv_{code}", at, pair, floor_divide(at))
    define(f"mod_{code}", at, pair, modulo(at))
    define(f"gcd_{code}", at, pair, _gcd(at))
    define(f"acc_add_{code}", at, pair, lambda b, x, y: b.add(x, y))
    define(f"acc_mul_{code}", at, pair, lambda b, x, y: b.mul(x, y))
    for short, name, sign in (("max", "maximum", ">"), ("min", "minimum", "<")):
        for spelled in (f"acc_{short}_{code}", f"{name}_{code}"):
            define(spelled, at, pair, _smaller_or_larger(at, sign))
    if at.kind == "i":
        wraps = ll.Constant(ll.IntType(1), 0)
        name = f"llvm.abs.i{at.bits}"
        define(f"abs_{code}", at, (at,), lambda b, x: intrinsic(b, name, at.value, [x, wraps]))
    else:
        define(f"mullo_{code}", at, pair, lambda b, x, y: b.mul(x, y))
        define(f"mulhi_{code}", at, pair, _high_product(at))


def _integer_power(b: ll.IRBuilder, x: ll.Value, y: ll.Value) -> ll.Value:
    """`x` to the `y`, wrapping, by squaring; a negative `y` gives 0 but for the bases 1 and -1."""
    word, bit = ll.IntType(64), ll.IntType(1)
    zero, one = ll.Constant(word, 0), ll.Constant(word, 1)
    before = b.block
    loop, leave = b.append_basic_block("pow"), b.append_basic_block("pow_end")
    b.branch(loop)
    b.position_at_end(loop)
    rest, base, power = b.phi(word), b.phi(word), b.phi(word)
    multiplied = b.select(b.trunc(rest, bit), b.mul(power, base), power)
    halved = b.lshr(rest, one)
    for phi, start, step in ((rest, y, halved), (base, x, b.mul(base, base)), (power, one, multiplied)):
        phi.add_incoming(start, before)
        phi.add_incoming(step, loop)
    b.cbranch(b.icmp_signed("!=", halved, zero), loop, leave)
    b.position_at_end(leave)
    is_one = b.icmp_signed("==", x, one)
    is_minus = b.icmp_signed("==", x, ll.Constant(word, -1))
    sign = b.select(b.trunc(y, bit), x, one)
    inverse = b.select(b.or_(is_one, is_minus), sign, zero)
    return b.select(b.icmp_signed("<", y, zero), inverse, multiplied)


define("pow_i64", I64, (I64, I64), _integer_power)
for _scalar in SCALARS.values():
    _define_cast(_scalar)
for _scalar in FLOATS:
    _define_float(_scalar)
for _scalar in INTS:
    _define_int(_scalar)
