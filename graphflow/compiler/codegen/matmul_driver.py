"""The loops over a block of C in the matrix-product core: cache blocks, packing, tiles and epilogues."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import llvmlite.ir as ll

from graphflow.compiler.codegen.matmul_arguments import Word
from graphflow.compiler.codegen.matmul_blocking import Blocking
from graphflow.compiler.codegen.matmul_ir import I64, POINTER, VOID, Body, Scalar, const, internal, nothing
from graphflow.compiler.codegen.matmul_thin import TURNED_VECTORS, near_elements
from graphflow.compiler.codegen.matmul_units import (
    address_of,
    b_in_place,
    dealt,
    define_units,
    is_kept,
    streamed_by,
    word_of,
)

#: ``void pack(int64* args, int64 batch, int64 row0, int64 rows, int64 k0, int64 depth, T* panel, int64
#: width)``
PACK = ll.FunctionType(VOID, [POINTER, I64, I64, I64, I64, I64, POINTER, I64]).as_pointer()
#: ``void epilogue(int64* args, int64 batch, int64 m0, int64 m1, int64 n0, int64 n1, T* tile, int64 ld)``
EPILOGUE = ll.FunctionType(VOID, [POINTER, I64, I64, I64, I64, I64, POINTER, I64]).as_pointer()

#: More vectors of columns than there can be.
ALL = 1 << 48

#: Up to this depth scattered strips of A stay in the nearest cache as they are.
SHALLOW = 128


@dataclass(frozen=True)
class Parts:
    """What the outer loops call."""

    micro: dict[tuple[int, int], ll.Function]
    pack_a: ll.Function
    pack_b: ll.Function
    stream: dict[int, ll.Function] = field(default_factory=dict)
    turn: dict[int, ll.Function] = field(default_factory=dict)


def define(module: ll.Module, name: str, scalar: Scalar, blocking: Blocking, parts: Parts) -> None:
    """Defines the exported kernel `name`."""
    block = _define_block(module, scalar, blocking, parts)
    define_units(module, name, scalar, blocking, block, streams=True)


@dataclass
class Block:
    """Everything known while one block of C is computed."""

    b: Body
    blocking: Blocking
    parts: Parts
    args: ll.Value
    batch: ll.Value
    m0: ll.Value
    m1: ll.Value
    n0: ll.Value
    n1: ll.Value
    a: ll.Value
    right: ll.Value
    c: ll.Value
    turned: ll.Value  # whether this is the transpose of what was asked for
    in_place: ll.Value  # whether B is read where it lies
    kept: ll.Value  # whether B is packed already
    group: ll.Value  # vectors of columns that are dealt to panels together

    def word(self, word: int) -> ll.Value:
        """A word of the argument block."""
        return word_of(self.b, self.args, word)

    def address(self, word: int, of: ll.Type = POINTER) -> ll.Value:
        """A word of the argument block that is an address."""
        return address_of(self.b, self.args, word, of)

    def vectors(self) -> ll.Value:
        """Vectors that the columns fill."""
        b = self.b
        return b.ceil_div(b.sub(self.n1, self.n0), const(self.blocking.lanes))


def _define_block(module: ll.Module, scalar: Scalar, blocking: Blocking, parts: Parts) -> ll.Function:
    """Defines the function that computes rows [m0, m1) and columns [n0, n1) of one batch item of C."""
    function = internal(module, "block", [POINTER, *[I64] * 6, POINTER])
    b = Body(function, scalar)
    args, batch, m0, m1, n0, n1, turned, scratch = function.args
    a, right, c = batch_item(b, args, batch)
    in_place = b_in_place(b, blocking, args, b.sub(m1, m0), b.sub(n1, n0))
    turned = b.icmp_signed("!=", turned, const(0))
    kept = is_kept(b, args)
    # What was packed before had to be dealt to panels without knowing which columns a block takes together.
    group = b.select(kept, dealt(b, blocking, word_of(b, args, Word.N)), const(ALL))
    block = Block(b, blocking, parts, args, batch, m0, m1, n0, n1, a, right, c, turned, in_place, kept, group)
    _compute(block, scratch)
    b.ret_void()
    return function


def batch_item(b: Body, args: ll.Value, batch: ll.Value) -> list[ll.Value]:
    """Addresses of A, B and C of batch item `batch`, the last batch dimension running fastest."""
    dims = word_of(b, args, Word.BATCH_DIMS)
    with b.loop(const(0), dims, const(1), [batch, const(0), const(0), const(0)]) as turn:
        rest, *offsets = turn.values
        dimension = b.sub(b.sub(dims, const(1)), turn.index)
        first = b.add(b.mul(dimension, const(4)), const(Word.BATCH))
        words = [b.get(b.at(args, b.add(first, const(j)), I64), I64) for j in range(4)]
        index = b.urem(rest, words[0])
        offsets = [b.add(o, b.mul(index, stride)) for o, stride in zip(offsets, words[1:], strict=True)]
        turn.values = [b.udiv(rest, words[0]), *offsets]
    return [b.at(address_of(b, args, word), offset) for word, offset in enumerate(turn.values[1:])]


def _compute(s: Block, scratch: ll.Value) -> None:
    b, blocking = s.b, s.blocking
    k = s.word(Word.K)
    blocks = b.max(const(1), b.ceil_div(k, const(blocking.depth)))
    deepest = b.ceil_div(k, blocks)
    padded = b.mul(s.vectors(), const(blocking.lanes))
    one = b.icmp_signed("==", blocks, const(1))

    epilogue = s.address(Word.EPILOGUE, EPILOGUE)
    unit_c = b.icmp_signed("==", s.word(Word.C_COLUMN), const(1))
    streamed, turning = streamed_by(b, blocking, s.args), _b_turning(s)
    thin = b.or_(streamed, turning)
    given = s.address(Word.ADDEND)
    along = b.icmp_signed("==", s.word(Word.ADDEND_COLUMN), const(1))
    added = b.or_(b.is_null(given), b.and_(b.and_(along, one), b.not_(thin)))  # by the micro-kernels
    straight = b.and_(b.and_(b.is_null(epilogue), unit_c), added)
    addend = b.select(straight, given, nothing())
    elements = b.select(one, const(blocking.small_tile), const(blocking.large_tile))
    fitting = b.max(const(1), b.udiv(elements, b.mul(padded, const(blocking.rows))))
    chunk = b.select(straight, b.sub(s.m1, s.m0), b.mul(fitting, const(blocking.rows)))
    in_place = s.in_place
    copied = _a_copied(s, deepest)
    height = b.sub(s.m1, s.m0)
    few = b.icmp_signed("<=", height, const(blocking.panelwise_rows))
    once = b.or_(b.icmp_signed("<=", height, chunk), b.not_(one))  # a panel isn't wanted for other rows
    panelwise = b.and_(b.and_(few, once), b.not_(in_place))
    # where A is copied: if the strips of all rows and one panel take less than those of a unit and all panels
    tall = b.mul(b.ceil_div(height, const(blocking.rows)), const(blocking.rows))
    unit, panel = b.min(tall, const(blocking.unit_rows)), b.min(padded, const(blocking.panel))
    less = b.icmp_signed("<", b.add(tall, panel), b.add(unit, padded))
    panelwise = b.and_(panelwise, b.or_(b.not_(copied), b.and_(less, b.not_(s.kept))))

    # what `matmul_scratch` counts; strips are read element by element and needn't be aligned
    panels = scratch
    sums = b.select(b.and_(streamed, b.not_(one)), b.mul(height, padded), const(0))
    packed = b.mul(deepest, b.select(panelwise, panel, padded))
    packed = b.select(turning, const(near_elements(blocking)), packed)
    packed = b.select(s.kept, const(0), packed)
    tile = b.at(panels, b.select(in_place, sums, packed))
    rows_kept = b.min(chunk, height)
    strips = b.at(tile, b.select(straight, const(0), b.mul(rows_kept, padded)))

    with b.loop(s.m0, s.m1, chunk) as rows:
        first = rows.index
        stop = b.min(b.add(first, chunk), s.m1)
        into_c = b.at(b.at(s.c, b.mul(first, s.word(Word.C_ROW))), s.n0)
        target = b.select(straight, into_c, tile)
        target_row = b.select(straight, s.word(Word.C_ROW), padded)
        with b.loop(const(0), blocks, const(1)) as turn:
            k0 = b.mul(turn.index, deepest)
            run = Run(first, stop, k0, b.min(deepest, b.sub(k, k0)), deepest, target, target_row, addend)
            with b.if_else(thin) as (few_rows, many_rows):
                with few_rows:
                    _rows_only(s, run, (strips, panels), copied, streamed)
                with many_rows, b.if_else(panelwise) as (then, otherwise):
                    with then:
                        _panels_first(s, run, strips, panels, copied)
                    with otherwise:
                        fresh = b.or_(b.icmp_signed("==", first, s.m0), b.not_(one))
                        with b.if_then(b.and_(fresh, b.not_(b.or_(in_place, s.kept)))):
                            _pack_panels(s, run, panels)
                        _strips_first(s, run, strips, panels, copied)
        with b.if_then(b.not_(straight)):
            finish(s, epilogue, first, stop, tile, padded)


@dataclass
class Run:
    """One run of k over some rows of a block: rows, run, depth of panels, and where the sums go."""

    first: ll.Value
    stop: ll.Value
    k0: ll.Value
    depth: ll.Value
    deepest: ll.Value
    target: ll.Value
    target_row: ll.Value
    addend: ll.Value  # what is added to a sum when it is complete, or 0


def _b_turning(s: Block) -> ll.Value:
    """Whether B runs along k, and too few rows of A come by to pay for its copy."""
    b = s.b
    plain = b.and_(b.is_null(s.address(Word.PACK_B)), b.not_(s.kept))
    along_k = b.icmp_signed("==", s.word(Word.B_DEPTH), const(1))
    few = b.icmp_signed("<=", s.word(Word.M), const(s.blocking.turn[-1]))
    deep = b.icmp_signed(">=", s.word(Word.K), const(s.blocking.lanes))
    return b.and_(b.and_(b.and_(plain, along_k), b.and_(few, deep)), b.not_(s.in_place))


Bounds = tuple[ll.Value, ll.Value, ll.Value]


@contextmanager
def each_panel(s: Block) -> Iterator[Bounds]:
    """A loop over the panels of a block's columns, a group's dealt evenly: first column (relative to n0),
    vectors, and columns that exist.
    """
    b, blocking = s.b, s.blocking
    lanes, all_vectors = const(blocking.lanes), s.vectors()
    with b.loop(const(0), all_vectors, s.group) as group:
        here = b.min(s.group, b.sub(all_vectors, group.index))
        count = b.ceil_div(here, const(blocking.vectors))
        least = b.udiv(here, count)
        wider = b.sub(here, b.mul(least, count))
        with b.loop(const(0), count, const(1)) as turn:
            index = turn.index
            vectors = b.add(least, b.zext(b.icmp_signed("<", index, wider), I64))
            first = b.add(group.index, b.add(b.mul(index, least), b.min(index, wider)))
            start = b.mul(first, lanes)
            yield start, vectors, b.min(b.mul(vectors, lanes), b.sub(b.sub(s.n1, s.n0), start))


def kept_at(s: Block, run: Run, start: ll.Value, width: ll.Value) -> ll.Value:
    """Where the run's part of the panel that begins at column `start` lies in what was packed before."""
    b = s.b
    panel = b.at(s.right, b.mul(b.add(s.n0, start), s.word(Word.K)))
    return b.at(panel, b.mul(run.k0, width))


def _pack_panels(s: Block, run: Run, panels: ll.Value) -> None:
    """Packs the whole block of B."""
    b = s.b
    with each_panel(s) as bounds:
        pack_panel(s, run, bounds, b.at(panels, b.mul(bounds[0], run.deepest)))


def pack_panel(s: Block, run: Run, bounds: Bounds, panel: ll.Value) -> None:
    """Packs columns of B as `each_panel` tells them."""
    b = s.b
    custom = s.address(Word.PACK_B, PACK)
    start, vectors, there = bounds
    width = b.mul(vectors, const(s.blocking.lanes))
    column = b.add(s.n0, start)
    with b.if_else(b.is_null(custom)) as (then, otherwise):
        with then:
            k_stride, n_stride = s.word(Word.B_DEPTH), s.word(Word.B_COLUMN)
            source = b.at(b.at(s.right, b.mul(run.k0, k_stride)), b.mul(column, n_stride))
            b.call(s.parts.pack_b, [source, n_stride, k_stride, there, run.depth, panel, width])
        with otherwise:
            own = s.address(Word.PACK_B_ARGS)
            b.call(custom, [own, s.batch, column, there, run.k0, run.depth, panel, width])


def _pack_strips(s: Block, run: Run, row: ll.Value, stop: ll.Value, strips: ll.Value) -> None:
    """Packs the strips of a unit's rows, one behind the other. What a function packs has rows that run along
    k, so that it can copy what runs along k in memory.
    """
    b = s.b
    custom = s.address(Word.PACK_A, PACK)
    with b.if_else(b.is_null(custom)) as (then, otherwise):
        with then:
            here, a_row, a_k = _strip_in_place(s, run, row)
            b.call(s.parts.pack_a, [here, a_row, a_k, b.sub(stop, row), run.depth, strips])
        with otherwise:
            own = s.address(Word.PACK_A_ARGS)
            b.call(custom, [own, s.batch, row, b.sub(stop, row), run.k0, run.depth, strips, run.depth])


def _strip_in_place(s: Block, run: Run, row: ll.Value) -> tuple[ll.Value, ll.Value, ll.Value]:
    """Address, row stride and k stride of a strip of A in A itself."""
    b = s.b
    a_row, a_k = s.word(Word.A_ROW), s.word(Word.A_DEPTH)
    return b.at(b.at(s.a, b.mul(row, a_row)), b.mul(run.k0, a_k)), a_row, a_k


def _strip(
    s: Block, run: Run, row: ll.Value, packed: ll.Value, copied: ll.Value
) -> tuple[ll.Value, ll.Value, ll.Value]:
    """Address, row stride and k stride of a strip of A: in A itself, or where it was packed."""
    b = s.b
    foreign = b.not_(b.is_null(s.address(Word.PACK_A)))
    steps = ((run.depth, const(1)), (const(1), const(s.blocking.rows)))
    there = (packed, *(b.select(foreign, x, y) for x, y in zip(*steps, strict=True)))
    address, row_step, k_step = (
        b.select(copied, x, y) for x, y in zip(there, _strip_in_place(s, run, row), strict=True)
    )
    return address, row_step, k_step


def _rows_only(
    s: Block, run: Run, memory: tuple[ll.Value, ll.Value], copied: ll.Value, streamed: ll.Value
) -> None:
    """Few rows with a B that is read where it lies, and once. `memory`: for strips, and for the kernels."""
    b = s.b
    strips, near = memory
    with b.if_then(copied):
        _pack_strips(s, run, run.first, run.stop, strips)
    left = _strip(s, run, run.first, strips, copied)
    rows = b.sub(run.stop, run.first)
    again = b.zext(b.icmp_signed(">", run.k0, const(0)), I64)
    columns = b.sub(s.n1, s.n0)
    b_k, b_column = s.word(Word.B_DEPTH), s.word(Word.B_COLUMN)
    right = b.at(b.at(s.right, b.mul(run.k0, b_k)), b.mul(s.n0, b_column))
    with b.if_else(streamed) as (stream, turn):
        with stream:
            values = [run.depth, *left, right, b_k, run.target, run.target_row, again, columns, near]
            for count, function in s.parts.stream.items():
                with b.if_then(b.icmp_signed("==", rows, const(count))):
                    b.call(function, values)
        with turn, b.loop(const(0), columns, const(s.blocking.lanes * TURNED_VECTORS)) as group:
            first = group.index
            there = b.min(b.sub(columns, first), group.step)
            source, target = b.at(right, b.mul(first, b_column)), b.at(run.target, first)
            values = [run.depth, *left, source, b_column, target, run.target_row, again, there, near, rows]
            fewer = 0
            for count, function in s.parts.turn.items():
                fits = b.and_(b.icmp_signed("<=", rows, const(count)), b.icmp_signed(">", rows, const(fewer)))
                with b.if_then(fits):
                    b.call(function, values)
                fewer = count


def _strips_first(s: Block, run: Run, strips: ll.Value, panels: ll.Value, copied: ll.Value) -> None:
    """Strip by strip of A, each with every panel of B, all of which are ready.

    Strips are packed a unit at a time, see `matmul_pack.define_narrow`.
    """
    b, blocking = s.b, s.blocking
    b_depth = s.word(Word.B_DEPTH)
    origin = b.at(b.at(s.right, b.mul(run.k0, b_depth)), s.n0)
    with b.loop(run.first, run.stop, const(blocking.unit_rows)) as unit:
        stop = b.min(run.stop, b.add(unit.index, const(blocking.unit_rows)))
        with b.if_then(copied):
            _pack_strips(s, run, unit.index, stop, strips)
        with b.loop(unit.index, stop, const(blocking.rows)) as turn:
            row = turn.index
            there = b.min(b.sub(stop, row), const(blocking.rows))
            left = _strip(s, run, row, b.at(strips, b.mul(b.sub(row, unit.index), run.depth)), copied)
            with each_panel(s) as bounds:
                width = b.mul(bounds[1], const(blocking.lanes))
                packed = b.at(panels, b.mul(bounds[0], run.deepest))
                packed = b.select(s.kept, kept_at(s, run, bounds[0], width), packed)
                right = b.select(s.in_place, b.at(origin, bounds[0]), packed)
                _tile(s, run, (row, there), bounds, (*left, right, b.select(s.in_place, b_depth, width)))


def _panels_first(s: Block, run: Run, strips: ll.Value, panel: ll.Value, copied: ll.Value) -> None:
    """Panel by panel of B, each packed when its turn comes and used for all rows at once.

    Where there are few rows, a panel isn't wanted again, so that one panel's memory is enough and stays near.
    """
    b, blocking = s.b, s.blocking
    with b.if_then(copied), b.loop(run.first, run.stop, const(blocking.unit_rows)) as unit:
        stop = b.min(run.stop, b.add(unit.index, const(blocking.unit_rows)))
        here = b.at(strips, b.mul(b.sub(unit.index, run.first), run.depth))
        _pack_strips(s, run, unit.index, stop, here)
    with each_panel(s) as bounds:
        width = b.mul(bounds[1], const(blocking.lanes))
        with b.if_then(b.not_(s.kept)):
            pack_panel(s, run, bounds, panel)
        right = b.select(s.kept, kept_at(s, run, bounds[0], width), panel)
        with b.loop(run.first, run.stop, const(blocking.rows)) as inner:
            row = inner.index
            there = b.min(b.sub(run.stop, row), const(blocking.rows))
            left = _strip(s, run, row, b.at(strips, b.mul(b.sub(row, run.first), run.depth)), copied)
            _tile(s, run, (row, there), bounds, (*left, right, width))


def _tile(
    s: Block,
    run: Run,
    rows: tuple[ll.Value, ll.Value],
    bounds: Bounds,
    operands: tuple[ll.Value, ...],
) -> None:
    """One register tile: its rows (first, count), the panel's bounds, both operands and their strides."""
    b = s.b
    start, vectors, columns = bounds
    last = b.sub(columns, b.mul(b.sub(vectors, const(1)), const(s.blocking.lanes)))
    target = b.at(b.at(run.target, b.mul(b.sub(rows[0], run.first), run.target_row)), start)
    row = s.word(Word.ADDEND_ROW)
    other = b.at(b.at(run.addend, b.mul(rows[0], row)), b.add(s.n0, start))
    again = b.icmp_signed(">", run.k0, const(0))
    addend = b.select(again, target, b.select(b.is_null(run.addend), nothing(), other))
    addend_row = b.select(again, run.target_row, row)
    choose(s, rows[1], vectors, [run.depth, *operands, target, run.target_row, addend, addend_row, last])


def _a_copied(s: Block, deepest: ll.Value) -> ll.Value:
    """Whether strips of A are packed before use: by a function, or because their k are scattered over many
    cache lines and several panels of B come by."""
    b = s.b
    foreign = b.not_(b.is_null(s.address(Word.PACK_A)))
    scattered = b.icmp_signed("!=", s.word(Word.A_DEPTH), const(1))
    deep = b.icmp_signed(">", deepest, const(SHALLOW))
    several = b.icmp_signed(">", s.vectors(), const(s.blocking.vectors))
    return b.or_(foreign, b.and_(scattered, b.and_(deep, several)))


def choose(s: Block, rows: ll.Value, vectors: ll.Value, values: list[ll.Value]) -> None:
    """Calls the micro-kernel of a tile of that many rows and vectors."""
    b, stride = s.b, s.blocking.vectors + 1
    after = b.append_basic_block("tile_done")
    key = b.add(b.mul(rows, const(stride)), vectors)
    switch = b.switch(key, after)
    for (height, width), function in s.parts.micro.items():
        with b.goto_block(b.append_basic_block(f"tile_{height}x{width}")):
            b.call(function, values)
            switch.add_case(const(height * stride + width), b.block)
            b.branch(after)
    b.position_at_end(after)


def finish(
    s: Block, epilogue: ll.Value, first: ll.Value, stop: ll.Value, tile: ll.Value, padded: ll.Value
) -> None:
    """Hands a finished tile to the epilogue, or stores it into C, with what is to be added."""
    b = s.b
    given = s.address(Word.ADDEND)
    alone = b.is_null(given)
    added_row, added_column = s.word(Word.ADDEND_ROW), s.word(Word.ADDEND_COLUMN)
    with b.if_else(b.is_null(epilogue)) as (then, otherwise):
        with then:
            row_stride, column_stride = s.word(Word.C_ROW), s.word(Word.C_COLUMN)
            with b.loop(first, stop, const(1)) as outer:
                line = b.at(tile, b.mul(b.sub(outer.index, first), padded))
                target = b.at(s.c, b.mul(outer.index, row_stride))
                other = b.at(given, b.mul(outer.index, added_row))
                with b.if_else(alone) as (plain, added):
                    with plain, b.loop(s.n0, s.n1, const(1)) as inner:
                        value = b.get(b.at(line, b.sub(inner.index, s.n0)))
                        b.put(value, b.at(target, b.mul(inner.index, column_stride)))
                    with added, b.loop(s.n0, s.n1, const(1)) as inner:
                        value = b.get(b.at(line, b.sub(inner.index, s.n0)))
                        value = b.fadd(b.get(b.at(other, b.mul(inner.index, added_column))), value)
                        b.put(value, b.at(target, b.mul(inner.index, column_stride)))
        with otherwise:
            own = s.address(Word.EPILOGUE_ARGS)
            upright, turned = (
                (first, stop, s.n0, s.n1, tile, padded),
                (s.n0, s.n1, first, stop, tile, const(1)),
            )
            place = [b.select(s.turned, x, y) for x, y in zip(turned, upright, strict=True)]
            b.call(epilogue, [own, s.batch, *place])
