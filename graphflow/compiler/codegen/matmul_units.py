"""The outermost loop of the matrix-product core: units of work, and whether to compute the transpose of C."""

from __future__ import annotations

import itertools

import llvmlite.ir as ll

from graphflow.compiler.codegen.matmul_arguments import MAX_BATCH_DIMS, Word
from graphflow.compiler.codegen.matmul_blocking import Blocking
from graphflow.compiler.codegen.matmul_ir import I64, POINTER, VOID, Body, Scalar, const

#: ``void kernel(int64* args, int64 lo, int64 hi, uint8* scratch)``
KERNEL = ll.FunctionType(VOID, [POINTER, I64, I64, POINTER])

#: Up to so many columns are computed as rows of the transposed product.
FEW_COLUMNS = 4


def define_units(
    module: ll.Module,
    name: str,
    scalar: Scalar,
    blocking: Blocking,
    block: ll.Function,
    streams: bool = False,
) -> None:
    """Defines the exported kernel `name`, which takes its units to `block`.

    `streams` says that the block lets B stream by where it has few rows; then it gets more columns at once.
    """
    function = ll.Function(module, KERNEL, name=name)
    function.attributes.add("nounwind")
    b = Body(function, scalar)
    given, low, high, scratch = function.args
    turned, args = _turned(b, given)
    unit_rows, unit_columns = (
        b.select(turned, const(x), const(y))
        for x, y in itertools.permutations((blocking.unit_columns, blocking.unit_rows))
    )
    m, n = word_of(b, args, Word.M), word_of(b, args, Word.N)
    in_m = b.ceil_div(m, unit_rows)
    in_n = b.ceil_div(n, unit_columns)
    width = b.select(turned, unit_columns, b.mul(dealt(b, blocking, n), const(blocking.lanes)))
    per_batch = b.mul(in_m, in_n)
    together: ll.Value = const(blocking.columns)
    if streams:
        together = b.select(streamed_by(b, blocking, args), const(blocking.stream_columns), together)
    most = b.udiv(together, unit_columns)
    with b.loop(low, high, const(1)) as unit:
        batch = b.udiv(unit.index, per_batch)
        within = b.urem(unit.index, per_batch)
        column, row = b.udiv(within, in_m), b.urem(within, in_m)
        left = b.sub(high, unit.index)
        whole = b.and_(b.icmp_signed("==", row, const(0)), b.icmp_signed(">=", left, in_m))
        fitting = b.min(b.udiv(left, in_m), b.min(most, b.sub(in_n, column)))
        columns = b.select(whole, fitting, const(1))
        rows = b.select(whole, in_m, b.min(b.sub(in_m, row), left))
        m0 = b.mul(row, unit_rows)
        n0 = b.mul(column, width)
        m1 = b.min(m, b.add(m0, b.mul(rows, unit_rows)))
        n1 = b.min(n, b.add(n0, b.mul(columns, width)))
        b.call(block, [args, batch, m0, m1, n0, n1, b.zext(turned, I64), scratch])
        unit.step = b.mul(rows, columns)
    b.ret_void()


#: Words that change places when both operands do.
TURNED = {
    Word.A: Word.B,
    Word.M: Word.N,
    Word.A_ROW: Word.B_COLUMN,
    Word.A_DEPTH: Word.B_DEPTH,
    Word.C_ROW: Word.C_COLUMN,
    Word.ADDEND_ROW: Word.ADDEND_COLUMN,
}


def _turned(b: Body, args: ll.Value) -> tuple[ll.Value, ll.Value]:
    """Whether to compute the transpose of C from those of B and A, and the argument block that says so.

    That is done where C's neighbours lie along m, so that vectors of them can be stored; and where there are
    a few columns only, so that vectors of them would be mostly empty.
    """
    copy = b.alloca(I64, size=const(Word.BATCH + 4 * MAX_BATCH_DIMS))
    upright = b.icmp_signed("==", word_of(b, args, Word.C_COLUMN), const(1))
    along_m = b.icmp_signed("==", word_of(b, args, Word.C_ROW), const(1))
    m, n = word_of(b, args, Word.M), word_of(b, args, Word.N)
    few = const(FEW_COLUMNS)
    few_rows = b.and_(b.icmp_signed("<=", m, few), b.icmp_signed("<", m, n))
    few_columns = b.and_(b.icmp_signed("<=", n, few), b.icmp_signed("<", n, m))
    stored = b.and_(b.and_(along_m, b.not_(upright)), b.not_(few_rows))
    pack_a, pack_b, kept, epilogue = (
        word_of(b, args, word) for word in (Word.PACK_A, Word.PACK_B, Word.KEPT, Word.EPILOGUE)
    )
    plain = b.icmp_signed("==", b.or_(b.or_(pack_a, pack_b), kept), const(0))
    no_epilogue = b.icmp_signed("==", epilogue, const(0))
    # a tile of one column is one of one row, if its rows are said to be one element long
    possible = b.or_(no_epilogue, b.icmp_signed("==", n, const(1)))
    turn = b.and_(b.and_(plain, possible), b.or_(few_columns, b.and_(stored, no_epilogue)))

    def move(source: ll.Value, target: ll.Value) -> None:
        b.store(b.get(b.at(args, source, I64), I64), b.at(copy, target, I64), align=8)

    with b.if_then(turn):
        other = {**TURNED, **{y: x for x, y in TURNED.items()}}
        for word in range(Word.BATCH):
            move(const(word), const(other.get(Word(word), word)))
        with b.loop(const(0), word_of(b, args, Word.BATCH_DIMS), const(1)) as dimension:
            first = b.add(b.mul(dimension.index, const(4)), const(Word.BATCH))
            for word, place in enumerate((0, 2, 1, 3)):
                move(b.add(first, const(word)), b.add(first, const(place)))
    return turn, b.select(turn, copy, args)


def dealt(b: Body, blocking: Blocking, n: ll.Value) -> ll.Value:
    """Vectors of columns in a unit: dealt evenly, so that none is left with the rest of a small matrix."""
    units = b.ceil_div(n, const(blocking.unit_columns))
    return b.ceil_div(b.ceil_div(n, const(blocking.lanes)), b.max(units, const(1)))


def is_kept(b: Body, args: ll.Value) -> ll.Value:
    """Whether B is packed already."""
    return b.icmp_signed("!=", word_of(b, args, Word.KEPT), const(0))


def word_of(b: Body, args: ll.Value, word: int) -> ll.Value:
    """A word of an argument block."""
    return b.get(b.at(args, const(word), I64), I64)


def address_of(b: Body, args: ll.Value, word: int, of: ll.Type = POINTER) -> ll.Value:
    """A word of an argument block that is an address."""
    return b.get(b.at(args, const(word), I64), of)


def b_in_place(b: Body, blocking: Blocking, args: ll.Value, rows: ll.Value, columns: ll.Value) -> ll.Value:
    """Whether B is read where it lies: its columns are neighbours, complete vectors or loads can be masked,
    and too few rows of A come by to pay for a copy."""
    plain = b.and_(b.is_null(address_of(b, args, Word.PACK_B)), b.not_(is_kept(b, args)))
    unit = b.icmp_signed("==", word_of(b, args, Word.B_COLUMN), const(1))
    few = b.icmp_signed("<=", rows, const(blocking.rows * 2))
    result = b.and_(b.and_(plain, unit), few)
    if not blocking.masks:
        complete = b.icmp_signed("==", b.urem(columns, const(blocking.lanes)), const(0))
        result = b.and_(result, complete)
    return result


def streamed_by(b: Body, blocking: Blocking, args: ll.Value) -> ll.Value:
    """Whether a product has so few rows that B, which lies in rows, streams by once."""
    few = b.icmp_signed("<=", word_of(b, args, Word.M), const(len(blocking.stream)))
    columns = word_of(b, args, Word.N)
    return b.and_(few, b_in_place(b, blocking, args, const(1), columns))
