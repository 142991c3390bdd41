"""A matrix-product core that reads operands where they lie, by addresses of rows and columns.

The windows of an image overlap: packed, every element is written and read again as often as windows have
it. Here a register tile has an address for each row of A and each vector of columns of B, and a table with
what to add to them for each k. It is called like the plain core, with the same argument block, and adds in
the same order. Where C's neighbours lie along its rows (their stride is 1, that of columns isn't) finished
tiles are turned; an epilogue gets them so, columns for rows. And a function of A, and of B where B's column
stride is 1, doesn't pack, it locates:

``void locate(int64* args, int64 batch, int64 row0, int64 rows, int64 k0, int64 depth, T* table, int64 step)``
    Writes 64-bit words: the addresses of every `step`-th of `rows` rows of A (columns of B) at k = 0 to
    ``table[0]``, ``table[1]``, ...; and how many bytes lie between k = 0 and each of `depth` k to
    ``table[0]``, ``table[2]``, .... Either `rows` or `depth` is 0.

(M. Dukhan, "The indirect convolution algorithm", 2019, does this with one operand.)
"""

from __future__ import annotations

from dataclasses import dataclass

import llvmlite.ir as ll

from graphflow.compiler.codegen import matmul_driver, matmul_micro, matmul_units
from graphflow.compiler.codegen.matmul_arguments import Word
from graphflow.compiler.codegen.matmul_blocking import Blocking
from graphflow.compiler.codegen.matmul_driver import EPILOGUE, PACK
from graphflow.compiler.codegen.matmul_ir import (
    I8,
    I64,
    POINTER,
    Body,
    Scalar,
    const,
    internal,
    nothing,
    zeros,
)

#: Most rows of a block whose addresses are known at a time.
ROWS = 1024

#: Parameters of a micro-kernel: depth; addresses of rows; of vectors of columns; steps along k of both; C and
#: its row stride; whether to add to what C holds; how many lanes of the last vector exist in C.
PARAMETERS = (I64, POINTER, POINTER, POINTER, POINTER, I64, I64, I64)


def define(module: ll.Module, name: str, scalar: Scalar, blocking: Blocking, pack_b: ll.Function) -> None:
    """Defines the exported kernel `name`."""
    micro = {
        (rows, vectors): _define_micro(module, scalar, blocking, rows, vectors)
        for rows in range(1, blocking.rows + 1)
        for vectors in range(1, blocking.vectors + 1)
    }
    block = _define_block(module, scalar, blocking, matmul_driver.Parts(micro, pack_b, pack_b))
    matmul_units.define_units(module, name, scalar, blocking, block)


def _define_micro(
    module: ll.Module, scalar: Scalar, blocking: Blocking, rows: int, vectors: int
) -> ll.Function:
    function = internal(module, f"micro_{rows}x{vectors}", PARAMETERS)
    b = Body(function, scalar)
    depth, row_addresses, column_addresses, steps, c, c_row, accumulate, last = function.args
    lanes = blocking.lanes
    of = scalar.vector(lanes)
    left = [b.get(b.at(row_addresses, const(r), I64), POINTER) for r in range(rows)]
    right = [b.get(b.at(column_addresses, const(v), I64), POINTER) for v in range(vectors)]
    targets = [b.at(c, b.mul(c_row, const(r))) for r in range(rows)]
    for target in targets:
        for v in range(vectors):
            b.prefetch(b.at(target, const(v * lanes)), write=True)
    with b.loop(const(0), depth, const(1), [zeros(of)] * (rows * vectors), True) as turn:
        both = b.at(steps, b.mul(turn.index, const(2)), I64)
        a_step, b_step = b.get(both, I64), b.get(b.at(both, const(1), I64), I64)
        # No prefetcher of a processor's own foresees the next panel, which is behind this one in many places.
        behind = b.at(b.at(right[-1], b_step, I8), const(lanes))
        for v in range(vectors):
            b.prefetch(b.at(behind, const(v * lanes)))
        values = [b.get(b.at(start, b_step, I8), of) for start in right]
        sums = []
        for r in range(rows):
            factor = b.splat(b.get(b.at(left[r], a_step, I8)), lanes)
            sums += [b.multiply_add(factor, values[v], turn.values[r * vectors + v]) for v in range(vectors)]
        turn.values = sums
    mask = b.mask(last, lanes)
    adds = b.icmp_signed("!=", accumulate, const(0))
    matmul_micro.store(b, blocking, vectors, (targets, targets), turn.values, (adds, mask, last))
    b.ret_void()
    return function


@dataclass
class _Tables:
    """Memory for addresses and steps."""

    rows: ll.Value
    columns: ll.Value
    steps: ll.Value


def _define_block(
    module: ll.Module, scalar: Scalar, blocking: Blocking, parts: matmul_driver.Parts
) -> ll.Function:
    """Defines the function that computes rows [m0, m1) and columns [n0, n1) of one batch item of C."""
    function = internal(module, "block", [POINTER, *[I64] * 6, POINTER])
    b = Body(function, scalar)
    args, batch, m0, m1, n0, n1, _turned, scratch = function.args
    a, right, c = matmul_driver.batch_item(b, args, batch)
    no = ll.Constant(ll.IntType(1), 0)
    kept, group = matmul_units.is_kept(b, args), const(matmul_driver.ALL)
    block = matmul_driver.Block(
        b, blocking, parts, args, batch, m0, m1, n0, n1, a, right, c, no, no, kept, group
    )
    _compute(block, scratch)
    b.ret_void()
    return function


def _compute(s: matmul_driver.Block, scratch: ll.Value) -> None:
    b, blocking = s.b, s.blocking
    k = s.word(Word.K)
    blocks = b.max(const(1), b.ceil_div(k, const(blocking.depth)))
    deepest = b.ceil_div(k, blocks)
    padded = b.mul(s.vectors(), const(blocking.lanes))
    in_place = b.icmp_signed("==", s.word(Word.B_COLUMN), const(1))
    in_place = b.and_(in_place, b.not_(b.is_null(s.address(Word.PACK_B))))

    epilogue = s.address(Word.EPILOGUE, EPILOGUE)
    unit_row, unit_column = (b.icmp_signed("==", s.word(w), const(1)) for w in (Word.C_ROW, Word.C_COLUMN))
    straight = b.and_(b.is_null(epilogue), unit_column)
    turned = b.and_(unit_row, b.not_(unit_column))
    one = b.icmp_signed("==", blocks, const(1))
    elements = b.select(b.and_(turned, one), const(blocking.small_tile), const(blocking.large_tile))
    fitting = b.max(const(1), b.udiv(elements, b.mul(padded, const(blocking.rows))))
    there = b.ceil_div(s.word(Word.M), const(blocking.rows))
    strips = b.min(fitting, b.min(there, const(ROWS // blocking.rows)))
    chunk = b.mul(strips, const(blocking.rows))
    width = b.mul(b.ceil_div(chunk, const(blocking.lanes)), const(blocking.lanes))
    panels = scratch
    tile = b.at(panels, b.select(b.or_(in_place, s.kept), const(0), b.mul(deepest, padded)))
    size = b.select(straight, const(0), b.mul(width, padded))
    other = b.at(tile, size)
    columns_table = b.at(other, b.select(turned, size, const(0)))
    steps_table = b.at(columns_table, const(blocking.columns), I64)
    tables = _Tables(b.at(steps_table, b.mul(deepest, const(2)), I64), columns_table, steps_table)

    with b.loop(s.m0, s.m1, chunk) as rows:
        first, stop = rows.index, b.min(b.add(rows.index, chunk), s.m1)
        target = b.select(straight, b.at(b.at(s.c, b.mul(first, s.word(Word.C_ROW))), s.n0), tile)
        target_row = b.select(straight, s.word(Word.C_ROW), padded)
        _locate_rows(s, first, b.sub(stop, first), tables)
        with b.loop(const(0), blocks, const(1)) as turn:
            k0 = b.mul(turn.index, deepest)
            depth = b.min(deepest, b.sub(k, k0))
            run = matmul_driver.Run(first, stop, k0, depth, deepest, target, target_row, nothing())
            with b.if_then(b.or_(b.icmp_signed("==", first, s.m0), b.not_(one))):
                _steps_of_a(s, run, tables)
                with b.if_else(in_place) as (then, otherwise):
                    with then:
                        _locate_columns(s, run, tables)
                    with otherwise:
                        _pack_columns(s, run, tables, panels)
            _tiles(s, run, tables)
        with b.if_then(b.not_(straight)), b.if_else(turned) as (then, otherwise):
            with then:
                _finish_turned(s, epilogue, (first, stop), (tile, padded), (other, width))
            with otherwise:
                matmul_driver.finish(s, epilogue, first, stop, tile, padded)


def _finish_turned(
    s: matmul_driver.Block,
    epilogue: ll.Value,
    rows: tuple[ll.Value, ll.Value],
    tile: tuple[ll.Value, ll.Value],
    other: tuple[ll.Value, ll.Value],
) -> None:
    """Turns a finished tile, whose rows are C's neighbours, and hands it to the epilogue or stores it."""
    b, (first, stop) = s.b, rows
    count, columns = b.sub(stop, first), b.sub(s.n1, s.n0)
    b.call(s.parts.pack_b, [tile[0], tile[1], const(1), count, columns, *other])
    with b.if_else(b.is_null(epilogue)) as (then, otherwise):
        with then, b.loop(s.n0, s.n1, const(1)) as outer:
            line = b.at(other[0], b.mul(b.sub(outer.index, s.n0), other[1]))
            target = b.at(b.at(s.c, b.mul(outer.index, s.word(Word.C_COLUMN))), first)
            with b.loop(const(0), count, const(1)) as inner:
                b.put(b.get(b.at(line, inner.index)), b.at(target, inner.index))
        with otherwise:
            own = s.address(Word.EPILOGUE_ARGS)
            b.call(epilogue, [own, s.batch, s.n0, s.n1, first, stop, *other])


def _locate_rows(s: matmul_driver.Block, first: ll.Value, count: ll.Value, tables: _Tables) -> None:
    """Addresses of rows of A at k = 0."""
    b = s.b
    locate = s.address(Word.PACK_A, PACK)
    with b.if_else(b.is_null(locate)) as (then, otherwise):
        with then, b.loop(const(0), count, const(1)) as turn:
            row = b.at(s.a, b.mul(b.add(first, turn.index), s.word(Word.A_ROW)))
            b.store(row, b.at(tables.rows, turn.index, I64), align=8)
        with otherwise:
            own = s.address(Word.PACK_A_ARGS)
            b.call(locate, [own, s.batch, first, count, const(0), const(0), tables.rows, const(1)])


def _steps_of_a(s: matmul_driver.Block, run: matmul_driver.Run, tables: _Tables) -> None:
    b = s.b
    locate = s.address(Word.PACK_A, PACK)
    with b.if_else(b.is_null(locate)) as (then, otherwise):
        with then:
            size = b.mul(s.word(Word.A_DEPTH), const(b.scalar.size))
            _even_steps(b, b.mul(run.k0, size), size, run.depth, tables.steps)
        with otherwise:
            own = s.address(Word.PACK_A_ARGS)
            b.call(locate, [own, s.batch, const(0), const(0), run.k0, run.depth, tables.steps, const(1)])


def _even_steps(b: Body, first: ll.Value, size: ll.Value, depth: ll.Value, steps: ll.Value) -> None:
    with b.loop(const(0), depth, const(1), [first]) as turn:
        here = turn.values[0]
        b.store(here, b.at(steps, b.mul(turn.index, const(2)), I64), align=8)
        turn.values = [b.add(here, size)]


def _locate_columns(s: matmul_driver.Block, run: matmul_driver.Run, tables: _Tables) -> None:
    """Addresses of vectors of columns of B at k = 0, and steps along k."""
    b = s.b
    own, locate = s.address(Word.PACK_B_ARGS), s.address(Word.PACK_B, PACK)
    lanes, steps = const(s.blocking.lanes), b.at(tables.steps, const(1), I64)
    count = b.sub(s.n1, s.n0)
    b.call(locate, [own, s.batch, s.n0, count, const(0), const(0), tables.columns, lanes])
    b.call(locate, [own, s.batch, const(0), const(0), run.k0, run.depth, steps, lanes])


def _pack_columns(s: matmul_driver.Block, run: matmul_driver.Run, tables: _Tables, panels: ll.Value) -> None:
    """Panels of B one vector wide, so that their steps along k are all the same; unless they are there."""
    b, lanes = s.b, const(s.blocking.lanes)
    with b.loop(const(0), s.vectors(), const(1)) as turn:
        start = b.mul(turn.index, lanes)
        panel = b.at(panels, b.mul(start, run.deepest))
        panel = b.select(s.kept, matmul_driver.kept_at(s, run, start, lanes), panel)
        b.store(panel, b.at(tables.columns, turn.index, I64), align=8)
        with b.if_then(b.not_(s.kept)):
            there = b.min(lanes, b.sub(b.sub(s.n1, s.n0), start))
            matmul_driver.pack_panel(s, run, (start, const(1), there), panel)
    size = const(s.blocking.lanes * b.scalar.size)
    _even_steps(b, const(0), size, run.depth, b.at(tables.steps, const(1), I64))


def _tiles(s: matmul_driver.Block, run: matmul_driver.Run, tables: _Tables) -> None:
    """Every register tile of a run's rows, panel by panel of B, whose lines stay in the nearest cache."""
    b, blocking = s.b, s.blocking
    again = b.zext(b.icmp_signed(">", run.k0, const(0)), I64)
    with matmul_driver.each_panel(s) as (start, vectors, columns):
        last = b.sub(columns, b.mul(b.sub(vectors, const(1)), const(blocking.lanes)))
        right = b.at(tables.columns, b.udiv(start, const(blocking.lanes)), I64)
        with b.loop(const(0), b.sub(run.stop, run.first), const(blocking.rows)) as inner:
            row = inner.index
            there = b.min(b.sub(b.sub(run.stop, run.first), row), const(blocking.rows))
            left = b.at(tables.rows, row, I64)
            target = b.at(b.at(run.target, b.mul(row, run.target_row)), start)
            values = [run.depth, left, right, tables.steps, target, run.target_row, again, last]
            matmul_driver.choose(s, there, vectors, values)
