"""Helpers over llvmlite's IRBuilder for the matrix-product core: counted loops, pointers, masked vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import llvmlite.ir as ll

I1 = ll.IntType(1)
I8 = ll.IntType(8)
I64 = ll.IntType(64)
VOID = ll.VoidType()
POINTER = ll.PointerType()


def const(value: int) -> ll.Constant:
    """`value` as a 64-bit integer."""
    return ll.Constant(I64, value)


@dataclass(frozen=True)
class Scalar:
    """The element type that a core works on: its LLVM type, its name in symbols and its size in bytes."""

    type: ll.Type
    name: str
    size: int

    def vector(self, lanes: int) -> ll.VectorType:
        """The vector of `lanes` elements."""
        return ll.VectorType(self.type, lanes)


SCALARS = {
    "float32": Scalar(ll.FloatType(), "f32", 4),
    "float64": Scalar(ll.DoubleType(), "f64", 8),
}


class Body(ll.IRBuilder):  # type: ignore[misc]
    """An IRBuilder at the start of a new function's body, with the few statements the core is written in."""

    def __init__(self, function: ll.Function, scalar: Scalar):
        """Starts the body of `function`, whose elements are of type `scalar`."""
        super().__init__(function.append_basic_block("entry"))
        self.scalar = scalar

    @contextmanager
    def loop(
        self,
        start: ll.Value,
        stop: ll.Value,
        step: ll.Value,
        carried: Sequence[ll.Value] = (),
        rolled: bool = False,
    ) -> Iterator[Loop]:
        """``for index in range(start, stop, step)``; `carried` values become `Loop.values`, see there.

        A `rolled` loop is never unrolled: where the carried values fill the registers, two turns at once
        don't fit.
        """
        before = self.block
        head = self.append_basic_block("head")
        body = self.append_basic_block("body")
        after = self.append_basic_block("after")
        self.branch(head)
        self.position_at_end(head)
        index = self.phi(start.type)
        index.add_incoming(start, before)
        phis = [self.phi(value.type) for value in carried]
        for phi, value in zip(phis, carried, strict=True):
            phi.add_incoming(value, before)
        self.cbranch(self.icmp_signed("<", index, stop), body, after)
        self.position_at_end(body)
        state = Loop(index, list(phis), step)
        yield state
        following = self.add(index, state.step, flags=("nsw",))
        index.add_incoming(following, self.block)
        for phi, value in zip(phis, state.values, strict=True):
            phi.add_incoming(value, self.block)
        back = self.branch(head)
        if rolled:
            back.set_metadata("llvm.loop", self._never_unrolled())
        self.position_at_end(after)
        state.values = list(phis)

    def _never_unrolled(self) -> ll.MDValue:
        """The module's note to LLVM; a loop's notes have to begin with themselves."""
        wish = self.module.add_metadata([ll.MetaDataString(self.module, "llvm.loop.unroll.disable")])
        notes = self.module.add_metadata([wish])
        if notes.operands[0] is wish:
            notes.operands = (notes, wish)
        return notes

    def at(self, pointer: ll.Value, index: ll.Value, of: ll.Type | None = None) -> ll.Value:
        """The address of the item at `index` behind `pointer`: an element, or of type `of`."""
        return self.gep(pointer, [index], source_etype=of or self.scalar.type)

    def get(self, pointer: ll.Value, of: ll.Type | None = None) -> ll.Value:
        """Loads one value of type `of` (default: an element), aligned to an element only."""
        of = of or self.scalar.type
        return self.load(pointer, typ=of, align=8 if of == I64 or of.is_pointer else self.scalar.size)

    def put(self, value: ll.Value, pointer: ll.Value) -> None:
        """Stores one value, aligned to an element only."""
        self.store(value, pointer, align=self.scalar.size)

    def min(self, a: ll.Value, b: ll.Value) -> ll.Value:
        """The smaller of two signed integers."""
        return self.select(self.icmp_signed("<", a, b), a, b)

    def max(self, a: ll.Value, b: ll.Value) -> ll.Value:
        """The larger of two signed integers."""
        return self.select(self.icmp_signed(">", a, b), a, b)

    def ceil_div(self, a: ll.Value, b: ll.Value) -> ll.Value:
        """``ceil(a / b)`` of a non-negative and a positive integer."""
        return self.udiv(self.sub(self.add(a, b), const(1)), b)

    def is_null(self, pointer: ll.Value) -> ll.Value:
        """Whether an address is 0."""
        return self.icmp_unsigned("==", self.ptrtoint(pointer, I64), const(0))

    def splat(self, value: ll.Value, lanes: int) -> ll.Value:
        """A vector whose lanes are all `value`."""
        undefined = ll.Constant(ll.VectorType(value.type, lanes), ll.Undefined)
        first = self.insert_element(undefined, value, ll.Constant(ll.IntType(32), 0))
        return self.shuffle(first, undefined, [0] * lanes)

    def shuffle(self, a: ll.Value, b: ll.Value, lanes: Sequence[int]) -> ll.Value:
        """The vector of the given lanes of the concatenation of `a` and `b`."""
        mask = ll.Constant(ll.VectorType(ll.IntType(32), len(lanes)), list(lanes))
        return self.shuffle_vector(a, b, mask)

    def mask(self, valid: ll.Value, lanes: int) -> ll.Value:
        """The mask whose first `valid` of `lanes` lanes are on."""
        iota = ll.Constant(ll.VectorType(I64, lanes), list(range(lanes)))
        return self.icmp_unsigned("<", iota, self.splat(valid, lanes))

    def masked_load(self, pointer: ll.Value, mask: ll.Value) -> ll.Value:
        """A vector of elements; lanes that `mask` leaves out are 0 and their memory isn't touched."""
        vector = self.scalar.vector(mask.type.count)
        name = f"llvm.masked.load.v{vector.count}{self.scalar.name}.p0"
        function = self.declare(name, vector, [POINTER, ll.IntType(32), mask.type, vector])
        align = ll.Constant(ll.IntType(32), self.scalar.size)
        return self.call(function, [pointer, align, mask, zeros(vector)])

    def masked_store(self, value: ll.Value, pointer: ll.Value, mask: ll.Value) -> None:
        """Stores the lanes of `value` that `mask` names; other memory isn't touched."""
        name = f"llvm.masked.store.v{value.type.count}{self.scalar.name}.p0"
        function = self.declare(name, VOID, [value.type, POINTER, ll.IntType(32), mask.type])
        align = ll.Constant(ll.IntType(32), self.scalar.size)
        self.call(function, [value, pointer, align, mask])

    def multiply_add(self, a: ll.Value, b: ll.Value, c: ll.Value) -> ll.Value:
        """``a * b + c``, rounded once where the processor has such an instruction."""
        of = a.type
        name = f"llvm.fmuladd.v{of.count}{self.scalar.name}"
        return self.call(self.declare(name, of, [of, of, of]), [a, b, c])

    def opaque(self, pointer: ll.Value) -> ll.Value:
        """The same address, of which LLVM doesn't know how it was made.

        LLVM makes addresses in a loop out of each other where it sees how, and then each waits for another.
        """
        function = self.declare("llvm.launder.invariant.group.p0", POINTER, [POINTER])
        return self.call(function, [pointer])

    def prefetch(self, pointer: ll.Value, nearness: int = 3, write: bool = False) -> None:
        """Asks for the cache line at `pointer`, to read or to `write`, into the nearest cache (3) or the next
        (2).

        Never faults.
        """
        word = ll.IntType(32)
        function = self.declare("llvm.prefetch.p0", VOID, [POINTER, word, word, word])
        self.call(function, [pointer, *(ll.Constant(word, int(n)) for n in (write, nearness, 1))])

    def declare(self, name: str, result: ll.Type, parameters: Sequence[ll.Type]) -> ll.Function:
        """The declaration of an intrinsic in the module under construction, made at its first use."""
        if name in self.module.globals:
            return self.module.globals[name]
        return ll.Function(self.module, ll.FunctionType(result, parameters), name=name)


@dataclass
class Loop:
    """One turn of a loop: its index, and the carried values.

    Within the body `values` holds them as they were at the turn's start; what it is set to is handed to the
    next turn. After the loop it holds the final ones. `step` may be set too.
    """

    index: ll.Value
    values: list[ll.Value]
    step: ll.Value


def zeros(vector: ll.VectorType) -> ll.Constant:
    """The vector of zeros."""
    return ll.Constant(vector, [0.0] * vector.count)


def nothing() -> ll.Value:
    """The address 0."""
    return ll.Constant(POINTER, None)


def internal(module: ll.Module, name: str, parameters: Sequence[ll.Type]) -> ll.Function:
    """A new function without result, seen only within its module and kept out of line."""
    function = ll.Function(module, ll.FunctionType(VOID, parameters), name=name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    function.attributes.add("nounwind")
    return function
