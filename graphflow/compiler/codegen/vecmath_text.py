"""A small builder for the LLVM IR text of scalar functions.

A `Value` is a name with a type and Python's operators; every operator writes one instruction. Floats get no
fast-math flags whatever, so what is written is what is computed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Format:
    """A binary floating-point format and its integer twin."""

    code: str  # f32 or f64
    llvm: str
    int_llvm: str
    mantissa: int  # stored bits
    bias: int

    @property
    def bits(self) -> int:
        """Width in bits."""
        return 32 if self.code == "f32" else 64

    @property
    def magic(self) -> float:
        """Adding this rounds to an integer, which then stands in the sum's low bits."""
        return 1.5 * 2.0**self.mantissa

    def raw(self, value: float) -> int:
        """The bits of `value` as a signed integer."""
        layout = ("<f", "<i") if self.code == "f32" else ("<d", "<q")
        return int(struct.unpack(layout[1], struct.pack(layout[0], value))[0])

    def constant(self, value: float) -> str:
        """`value`, rounded to the format, as LLVM writes it."""
        if self.code == "f32" and abs(value) < 3.5e38:
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        return "0x" + struct.pack(">d", value).hex().upper()


F32 = Format("f32", "float", "i32", 23, 127)
F64 = Format("f64", "double", "i64", 52, 1023)
FORMATS = {"float": F32, "double": F64}


def split(exact: Fraction, *bits: int) -> tuple[float, ...]:
    """`exact` as a sum of floats, each of at most the given number of significant bits."""
    parts = []
    for count in bits:
        if exact == 0:
            parts.append(0.0)
            continue
        size = abs(exact)
        exponent = size.numerator.bit_length() - size.denominator.bit_length()
        step = Fraction(2) ** (exponent - count + (0 if size < Fraction(2) ** exponent else 1))
        part = round(exact / step) * step
        parts.append(float(part))
        exact -= part
    return tuple(parts)


class Value:
    """A number of the function being written."""

    def __init__(self, code: Code, name: str, kind: str) -> None:
        self.code, self.name, self.kind = code, name, kind

    @property
    def format(self) -> Format:
        """The format of a float value."""
        return FORMATS[self.kind]

    def like(self, other: Value | float) -> Value:
        """`other` as an operand beside this value: numbers become constants of its type."""
        if isinstance(other, Value):
            assert other.kind == self.kind, (other.kind, self.kind)
            return other
        text = self.format.constant(float(other)) if self.kind in FORMATS else str(int(other))
        return Value(self.code, text, self.kind)

    def _binary(self, name: str, other: Value | float, swap: bool = False) -> Value:
        a, b = self, self.like(other)
        if swap:
            a, b = b, a
        return self.code.instruction(f"{name} {self.kind} {a.name}, {b.name}", self.kind)

    def _arithmetic(self, name: str, other: Value | float, swap: bool = False) -> Value:
        return self._binary("f" + name if self.kind in FORMATS else name, other, swap)

    def __add__(self, other: Value | float) -> Value:
        return self._arithmetic("add", other)

    __radd__ = __add__

    def __sub__(self, other: Value | float) -> Value:
        return self._arithmetic("sub", other)

    def __rsub__(self, other: float) -> Value:
        return self._arithmetic("sub", other, swap=True)

    def __mul__(self, other: Value | float) -> Value:
        return self._arithmetic("mul", other)

    __rmul__ = __mul__

    def __truediv__(self, other: Value | float) -> Value:
        return self._binary("fdiv", other)

    def __rtruediv__(self, other: float) -> Value:
        return self._binary("fdiv", other, swap=True)

    def __neg__(self) -> Value:
        return self.code.instruction(f"fneg {self.kind} {self.name}", self.kind)

    def __and__(self, other: Value | int) -> Value:
        return self._binary("and", other)

    def __or__(self, other: Value | int) -> Value:
        return self._binary("or", other)

    def __xor__(self, other: Value | int) -> Value:
        return self._binary("xor", other)

    def __lshift__(self, by: Value | int) -> Value:
        return self._binary("shl", by)

    def __rshift__(self, by: Value | int) -> Value:
        """Arithmetic: the sign fills in."""
        return self._binary("ashr", by)

    def shifted(self, by: Value | int) -> Value:
        """Logical shift right."""
        return self._binary("lshr", by)

    def _compare(self, float_name: str, int_name: str, other: Value | float) -> Value:
        name = f"fcmp {float_name}" if self.kind in FORMATS else f"icmp {int_name}"
        return self.code.instruction(f"{name} {self.kind} {self.name}, {self.like(other).name}", "i1")

    def __lt__(self, other: Value | float) -> Value:
        return self._compare("olt", "slt", other)

    def __le__(self, other: Value | float) -> Value:
        return self._compare("ole", "sle", other)

    def __gt__(self, other: Value | float) -> Value:
        return self._compare("ogt", "sgt", other)

    def __ge__(self, other: Value | float) -> Value:
        return self._compare("oge", "sge", other)

    def equals(self, other: Value | float) -> Value:
        """Whether the two are equal; false if either is NaN."""
        return self._compare("oeq", "eq", other)

    def is_nan(self) -> Value:
        """Whether a float is NaN."""
        return self._compare("uno", "", self)

    def to(self, kind: str) -> Value:
        """The value converted: between floats, between integers (sign kept), or integer to float."""
        if self.kind == kind:
            return self
        size = {"i1": 1, "i32": 32, "i64": 64, "float": 32, "double": 64}
        if self.kind in FORMATS:
            name = "fptrunc" if size[self.kind] > size[kind] else "fpext"
        elif kind in FORMATS:
            name = "sitofp"
        else:
            name = "trunc" if size[self.kind] > size[kind] else "sext"
        return self.code.instruction(f"{name} {self.kind} {self.name} to {kind}", kind)

    def bits(self) -> Value:
        """A float's bits as an integer."""
        kind = self.format.int_llvm
        return self.code.instruction(f"bitcast {self.kind} {self.name} to {kind}", kind)

    def as_float(self) -> Value:
        """An integer's bits as the float of its width."""
        kind = "float" if self.kind == "i32" else "double"
        return self.code.instruction(f"bitcast {self.kind} {self.name} to {kind}", kind)


class Code:
    """One function being written."""

    def __init__(self, name: str, params: Sequence[str], result: str) -> None:
        self.name, self.result = name, result
        self.lines: list[str] = []
        self.calls: dict[str, str] = {}  # callee: its declaration
        self.data: dict[str, str] = {}  # constant tables: their definitions
        self.args = [Value(self, f"%a{at}", kind) for at, kind in enumerate(params)]
        self._count = 0

    def instruction(self, text: str, kind: str) -> Value:
        """Write one instruction and give its result."""
        self._count += 1
        name = f"%v{self._count}"
        self.lines.append(f"  {name} = {text}")
        return Value(self, name, kind)

    def call(self, callee: str, result: str, *args: Value) -> Value:
        """Call a function by its full name."""
        kinds = ", ".join(a.kind for a in args)
        self.calls[callee] = f"declare {result} @{callee}({kinds})"
        text = ", ".join(f"{a.kind} {a.name}" for a in args)
        return self.instruction(f"call {result} @{callee}({text})", result)

    def intrinsic(self, name: str, *args: Value) -> Value:
        """An LLVM intrinsic over one float type, by its short name."""
        return self.call(f"llvm.{name}.{args[0].format.code}", args[0].kind, *args)

    def fma(self, a: Value | float, b: Value | float, c: Value | float) -> Value:
        """a*b + c, rounded once."""
        shape = next(v for v in (a, b, c) if isinstance(v, Value))
        return self.intrinsic("fma", shape.like(a), shape.like(b), shape.like(c))

    def mad(self, a: Value | float, b: Value | float, c: Value | float) -> Value:
        """a*b + c, rounded once where the processor can do that quickly, else twice."""
        shape = next(v for v in (a, b, c) if isinstance(v, Value))
        return self.intrinsic("fmuladd", shape.like(a), shape.like(b), shape.like(c))

    def select(self, condition: Value, a: Value | float, b: Value | float) -> Value:
        """`a` where the condition holds, else `b`."""
        shape = a if isinstance(a, Value) else b
        assert isinstance(shape, Value)
        x, y = shape.like(a), shape.like(b)
        return self.instruction(
            f"select i1 {condition.name}, {x.kind} {x.name}, {y.kind} {y.name}", shape.kind
        )

    def abs(self, x: Value) -> Value:
        """|x|."""
        return self.intrinsic("fabs", x)

    def copysign(self, size: Value, sign: Value) -> Value:
        """`size` with the sign of `sign`."""
        return self.intrinsic("copysign", size, sign)

    def at_most(self, x: Value, limit: float) -> Value:
        """`limit` where x is above it; NaN stays."""
        return self.select(x > limit, limit, x)

    def at_least(self, x: Value, limit: float) -> Value:
        """`limit` where x is below it; NaN stays."""
        return self.select(x < limit, limit, x)

    def polynomial(self, x: Value, coefficients: Sequence[float]) -> Value:
        """The polynomial with these coefficients, lowest first, by Horner's rule."""
        total: Value = x.like(coefficients[-1])
        for c in reversed(coefficients[:-1]):
            total = self.mad(total, x, c)
        return total

    def two_sum(self, a: Value, b: Value) -> tuple[Value, Value]:
        """a + b and its rounding error (Knuth)."""
        total = a + b
        part = total - a
        return total, (a - (total - part)) + (b - part)

    def quick_two_sum(self, a: Value, b: Value) -> tuple[Value, Value]:
        """a + b and its rounding error, for |a| >= |b| (Dekker)."""
        total = a + b
        return total, b - (total - a)

    def two_product(self, a: Value, b: Value | float) -> tuple[Value, Value]:
        """a * b and its rounding error."""
        product = a * b
        return product, self.fma(a, b, -product)

    def power_of_two(self, exponent: Value) -> Value:
        """2**exponent for an integer exponent in the range of normal numbers."""
        form = F32 if exponent.kind == "i32" else F64
        return ((exponent + form.bias) << form.mantissa).as_float()

    def table_word(self, name: str, definition: str, offset: Value) -> Value:
        """The 64-bit word at a byte offset of a constant table."""
        self.data[name] = definition
        place = f"getelementptr inbounds i8, ptr @{name}, i64 {offset.to('i64').name}"
        address = self.instruction(place, "ptr")
        return self.instruction(f"load i64, ptr {address.name}, align 1", "i64")

    def text(self, result: Value) -> str:
        """The whole definition, returning `result`."""
        params = ", ".join(f"{a.kind} {a.name}" for a in self.args)
        return "\n".join(
            (
                f"define internal {self.result} @{self.name}({params}) alwaysinline nounwind willreturn {{",
                *self.lines,
                f"  ret {self.result} {result.name}",
                "}",
            )
        )


Maker = Callable[..., Value]
