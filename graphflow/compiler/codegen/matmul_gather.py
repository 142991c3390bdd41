"""Packers made for one product: operands whose rows, columns or batch run over several dimensions of memory.

So a convolution reads its windows out of the image itself, and a product reads the heads of an attention in
the order they were computed in; the array that a reshape would stand for is never written. An axis is a
list of parts, the last running fastest. Whichever axis has neighbours in memory is cut into runs of them, and
runs are copied as vectors: to where neighbours lie in a panel, or turned by the built-in packer.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import llvmlite.ir as ll

from graphflow.compiler.codegen import llvm, matmul_pack
from graphflow.compiler.codegen.matmul_blocking import Blocking, blocking
from graphflow.compiler.codegen.matmul_ir import I64, POINTER, SCALARS, VOID, Body, Scalar, const
from graphflow.dims import Dim
from graphflow.dtypes import DType
from graphflow.runtime.program import Arg, BufferArg, SizeArg

Size = int | Dim
Axis = Sequence[tuple[Size, Size]]  # (size, stride in elements) of each part

#: Offsets along an axis that are looked up; a longer axis, or one of unknown size, is divided into its parts.
LONGEST_TABLE = 8192
#: Vectors of a run that are copied without a loop.
UNROLLED = 4


@dataclass(frozen=True)
class Packer:
    """A packer's symbol, its LLVM IR, and the words of its argument block."""

    symbol: str
    text: str
    args: tuple[Arg, ...]


def packer(
    dtype: DType, side: str, buffer: BufferArg, batch: Axis, rows: Axis, depth: Axis,
    target: llvm.Target | None = None,
) -> Packer:  # fmt: skip
    """The packer of operand "a" or "b" (`side`) of a product of float32 or float64, see ``codegen.matmul``.

    `rows` is the axis of A's rows or B's columns, `depth` the one that is summed over.
    """
    return _made("pack", dtype, side, buffer, (batch, rows, depth), target)


def locator(
    dtype: DType, side: str, buffer: BufferArg, batch: Axis, rows: Axis, depth: Axis,
    target: llvm.Target | None = None,
) -> Packer:  # fmt: skip
    """What tells the addresses of an operand instead of packing it, see ``codegen.matmul_indirect``."""
    return _made("locate", dtype, side, buffer, (batch, rows, depth), target)


def _made(
    what: str, dtype: DType, side: str, buffer: BufferArg, axes: tuple[Axis, Axis, Axis],
    target: llvm.Target | None,
) -> Packer:  # fmt: skip
    target = target or llvm.host()
    scalar = SCALARS[dtype.name]
    parts = tuple([tuple(axis) for axis in axes])
    text, words = _written(what, scalar, blocking(scalar.size, target), side, parts)
    digest = hashlib.sha256(f"{target.description}\n{text}".encode()).hexdigest()[:16]
    symbol = f"gf_{what}_{side}_{scalar.name}_{digest}"
    return Packer(symbol, text.replace(_NAME, symbol), (buffer, *map(SizeArg, words)))


@functools.lru_cache(256)  # layers of a network share their packers
def _written(
    what: str, scalar: Scalar, plan: Blocking, side: str, axes: tuple[tuple[tuple[Size, Size], ...], ...]
) -> tuple[str, tuple[Dim, ...]]:
    """The function's text under a placeholder's name, and what it finds in its argument block."""
    batch, rows, depth = axes
    writer = _Writer(scalar, plan, side, rows, depth, batch)
    text = writer.packer() if what == "pack" else writer.locator()
    return text, tuple(writer.words)


_NAME = "gf_pack_digest"
_SIGNATURE = ll.FunctionType(VOID, [POINTER, I64, I64, I64, I64, I64, POINTER, I64])


@dataclass
class _Writer:
    scalar: Scalar
    blocking: Blocking
    side: str
    rows: Axis
    depth: Axis
    batch: Axis
    words: list[Dim] = field(default_factory=list)

    def _begin(self, module: ll.Module) -> list[ll.Value]:
        """Begins the function: its parameters, and the address of the batch item's first element."""
        function = ll.Function(module, _SIGNATURE, name=_NAME)
        function.attributes.add("nounwind")
        b = self.b = Body(function, self.scalar)
        self.given, batch, *others = function.args
        return [*others, b.at(b.get(self.given, POINTER), self._offset(self.batch, batch))]

    def locator(self) -> str:
        """The IR of a module whose function writes addresses and steps."""
        module = ll.Module(name="locate", context=ll.Context())
        row0, rows, k0, depth, table, step, source = self._begin(module)
        b = self.b
        with b.loop(const(0), rows, step, [const(0)]) as turn:
            place = b.at(source, self._offset(self.rows, b.add(row0, turn.index)))
            b.store(place, b.at(table, turn.values[0], I64), align=8)
            turn.values = [b.add(turn.values[0], const(1))]
        axis = _Extent("depth", self.depth, k0, depth, const(2))

        def put(number: ll.Value, offset: ll.Value) -> None:
            where = b.at(table, b.mul(number, axis.step), I64)
            b.store(b.mul(offset, const(self.scalar.size)), where, align=8)

        if self._known(self.depth):
            lookup = self._lookup(axis.name, self.depth)
            with b.loop(const(0), depth, const(1)) as turn:
                put(turn.index, lookup(b.add(k0, turn.index)))
        else:
            stride = self._value(self.depth[-1][1]) if self.depth else const(0)
            with self._segments(axis) as (offset, first, length), b.loop(const(0), length, const(1)) as turn:
                put(b.add(first, turn.index), b.add(offset, b.mul(turn.index, stride)))
        b.ret_void()
        return str(module)

    def packer(self) -> str:
        """The IR of a module whose function packs."""
        module = ll.Module(name="pack", context=ll.Context())
        turning = self.side == "b" and _runs(self.depth) and not _runs(self.rows) and len(self.rows) <= 1
        turn = matmul_pack.define_wide(module, self.scalar, self.blocking) if turning else None
        row0, rows, k0, depth, panel, width, source = self._begin(module)
        b = self.b
        row_step, k_step = (width, const(1)) if self.side == "a" else (const(1), width)
        row_axis = _Extent("rows", self.rows, row0, rows, row_step)
        k_axis = _Extent("depth", self.depth, k0, depth, k_step)
        if turn is not None:
            self._turned(turn, source, row_axis, k_axis, panel, width)
        else:
            along_k = _runs(self.depth) if _runs(self.depth) != _runs(self.rows) else self.side == "a"
            fast, slow = (k_axis, row_axis) if along_k else (row_axis, k_axis)
            self._copied(source, fast, slow, panel, straight=along_k == (self.side == "a"))
            if self.side == "b":
                self._clear(panel, rows, width, depth)
        b.ret_void()
        return str(module)

    # ---------------------------------------------------------------------------------------- sizes, offsets

    def _value(self, size: Size) -> ll.Value:
        if isinstance(size, int):
            return const(size)
        if size not in self.words:
            self.words.append(size)
        return self.b.get(self.b.at(self.given, const(1 + self.words.index(size)), I64), I64)

    def _offset(self, axis: Axis, position: ll.Value) -> ll.Value:
        """How far the element at a flat position of an axis lies from the first one."""
        b, total, rest = self.b, const(0), position
        for number, (size, stride) in enumerate(reversed(axis)):
            index = rest
            if number < len(axis) - 1:
                extent = self._value(size)
                rest = b.udiv(rest, extent)
                index = b.sub(index, b.mul(rest, extent))
            total = b.add(total, b.mul(index, self._value(stride)))
        return total

    def _known(self, axis: Axis) -> list[tuple[int, int]]:
        """The parts of an axis that can have a table, else nothing."""
        known = [(size, stride) for size, stride in axis if isinstance(size, int) and isinstance(stride, int)]
        short = len(known) == len(axis) > 1 and math.prod(s for s, _ in known) <= LONGEST_TABLE
        return known if short else []

    def _lookup(self, name: str, axis: Axis) -> Callable[[ll.Value], ll.Value]:
        """As `_offset`, from a table where there can be one."""
        known = self._known(axis)
        if not known:
            return lambda position: self._offset(axis, position)
        offsets = [0]
        for size, stride in known:
            offsets = [o + i * stride for o in offsets for i in range(size)]
        of = ll.ArrayType(I64, len(offsets))
        table = ll.GlobalVariable(self.b.module, of, name=f"offsets_{name}")
        table.initializer, table.global_constant, table.linkage = ll.Constant(of, offsets), True, "internal"
        return lambda position: self.b.get(self.b.at(table, position, I64), I64)

    @contextmanager
    def _segments(self, axis: _Extent) -> Iterator[tuple[ll.Value, ll.Value, ll.Value]]:
        """Runs of an axis: how far each is from the first element in memory, where it begins in the extent,
        and its length.
        """
        b = self.b
        if len(axis.parts) <= 1:
            stride = self._value(axis.parts[-1][1]) if axis.parts else const(0)
            yield b.mul(axis.first, stride), const(0), axis.count
            return
        length = self._value(axis.parts[-1][0])
        stop = b.add(axis.first, axis.count)
        with b.loop(axis.first, stop, const(1)) as turn:
            number = b.udiv(turn.index, length)
            start = b.mul(number, length)
            turn.step = b.sub(b.min(stop, b.add(start, length)), turn.index)
            inside = b.mul(b.sub(turn.index, start), self._value(axis.parts[-1][1]))
            offset = b.add(self._offset(axis.parts[:-1], number), inside)
            yield offset, b.sub(turn.index, axis.first), turn.step

    # ---------------------------------------------------------------------------------------- copying

    def _copied(
        self, source: ll.Value, fast: _Extent, slow: _Extent, panel: ll.Value, straight: bool
    ) -> None:
        """Run by run of the fast axis, each for every place of the slow one; `straight` where neighbours in
        memory become neighbours in the panel.
        """
        b = self.b
        slow_offset = self._lookup(slow.name, slow.parts)
        stride = self._value(fast.parts[-1][1]) if fast.parts else const(1)
        with self._segments(fast) as (offset, place, length):
            run = b.at(source, offset)
            target = b.at(panel, b.mul(place, fast.step))

            def each(copy: Callable[[ll.Value, ll.Value], None]) -> None:
                with b.loop(const(0), slow.count, const(1)) as turn:
                    here = b.at(run, slow_offset(b.add(slow.first, turn.index)))
                    copy(here, b.at(target, b.mul(turn.index, slow.step)))

            if straight and _runs(fast.parts):
                self._vectors(length, each)
            else:
                each(lambda here, there: self._elements(here, stride, there, fast.step, length))

    def _elements(
        self, source: ll.Value, stride: ll.Value, target: ll.Value, step: ll.Value, count: ll.Value
    ) -> None:
        b = self.b
        with b.loop(const(0), count, const(1)) as turn:
            value = b.get(b.at(source, b.mul(turn.index, stride)))
            b.put(value, b.at(target, b.mul(turn.index, step)))

    def _vectors(
        self, length: ll.Value, each: Callable[[Callable[[ll.Value, ll.Value], None]], None]
    ) -> None:
        """Copies runs of `length` neighbours: up to `UNROLLED` vectors by code of their own."""
        b, lanes = self.b, self.blocking.lanes
        of = self.scalar.vector(lanes)
        vectors = b.ceil_div(length, const(lanes))
        short = b.icmp_signed("<", length, const(lanes))
        after = b.append_basic_block("copied")

        def exactly(count: int) -> None:
            """The last of `count` vectors masked, or lying over the one before it."""
            last = b.sub(length, const((count - 1) * lanes))

            def copy(source: ll.Value, target: ll.Value) -> None:
                for v in range(count):
                    final = v == count - 1
                    if final and self.blocking.masks:
                        mask = b.mask(last, lanes)
                        value = b.masked_load(b.at(source, const(v * lanes)), mask)
                        b.masked_store(value, b.at(target, const(v * lanes)), mask)
                    else:
                        where = b.sub(length, const(lanes)) if final else const(v * lanes)
                        b.put(b.get(b.at(source, where), of), b.at(target, where))

            each(copy)

        def any_number(source: ll.Value, target: ll.Value) -> None:
            final = b.sub(length, const(lanes))
            with b.loop(const(0), length, const(lanes)) as turn:
                where = b.min(turn.index, final)
                b.put(b.get(b.at(source, where), of), b.at(target, where))

        if not self.blocking.masks:
            with b.if_then(short):
                each(lambda s, t: self._elements(s, const(1), t, const(1), length))
                b.branch(after)
        for count in range(1, UNROLLED + 1):
            with b.if_then(b.icmp_signed("==", vectors, const(count))):
                exactly(count)
                b.branch(after)
        each(any_number)
        b.branch(after)
        b.position_at_end(after)

    def _clear(self, panel: ll.Value, rows: ll.Value, width: ll.Value, depth: ll.Value) -> None:
        """Zeros where a panel of B is wider than the columns that exist."""
        b = self.b
        with b.if_then(b.icmp_signed("<", rows, width)), b.loop(const(0), depth, const(1)) as outer:
            line = b.at(panel, b.mul(outer.index, width))
            with b.loop(rows, width, const(1)) as inner:
                b.put(ll.Constant(self.scalar.type, 0.0), b.at(line, inner.index))

    def _turned(
        self, turn: ll.Function, source: ll.Value, rows: _Extent, depth: _Extent, panel: ll.Value,
        width: ll.Value,
    ) -> None:  # fmt: skip
        """B's neighbours along the depth: every run of it is turned into the panel by the built-in packer."""
        b = self.b
        stride = self._value(rows.parts[0][1]) if rows.parts else const(0)
        source = b.at(source, b.mul(rows.first, stride))
        with self._segments(depth) as (offset, place, length):
            target = b.at(panel, b.mul(place, width))
            b.call(turn, [b.at(source, offset), stride, const(1), rows.count, length, target, width])


@dataclass(frozen=True)
class _Extent:
    """What is to be packed along an axis: first place, number of places, and the panel's step from one to the
    next.
    """

    name: str
    parts: Axis
    first: ll.Value
    count: ll.Value
    step: ll.Value


def _runs(axis: Axis) -> bool:
    """Whether neighbours on the axis are neighbours in memory."""
    return bool(axis) and axis[-1][1] == 1
