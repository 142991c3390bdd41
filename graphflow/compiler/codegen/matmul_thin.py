"""Kernels of the matrix-product core for few rows of A, which read B once, where it lies, and copy nothing.

With few rows every element of B is used once or a few times, so the product is as fast as B comes from
memory. A register tile's way through B, a few columns of every row and then the next columns, is the worst
there is for that: it touches another page at every k. These kernels go through B in long runs instead. Sums
have the order of every other kernel.
"""

from __future__ import annotations

from collections.abc import Callable

import llvmlite.ir as ll

from graphflow.compiler.codegen import matmul_pack
from graphflow.compiler.codegen.matmul_blocking import Blocking
from graphflow.compiler.codegen.matmul_ir import I64, POINTER, Body, Scalar, const, internal, zeros

#: Parameters of a streaming kernel: depth; A, its row and k strides; B and its k stride; C and its row
#: stride; whether to add to what C holds (else to overwrite it); columns; memory for as many sums.
STREAM = (I64, POINTER, I64, I64, POINTER, I64, POINTER, I64, I64, I64, POINTER)

#: Parameters of a turning kernel: the same, but B's stride is that of its columns; and the number of rows.
#: The memory is for `near_elements`.
TURN = (*STREAM, I64)

#: Most vectors of columns that a turning kernel computes together: sums of one wait for each other.
TURNED_VECTORS = 2

#: How many times `lanes` k are read of some columns before others have their turn.
VISIT = 2


Vectors = Callable[[ll.Value, ll.Value | None], None]


def define_streams(module: ll.Module, scalar: Scalar, blocking: Blocking) -> dict[int, ll.Function]:
    """By number of rows: the product with B whose columns are neighbours, several rows of it at a time.

    Sums wait in memory while the next rows of B are added, which the nearest cache has room for.
    """
    return {
        rows: _stream(module, scalar, blocking, rows, together)
        for rows, together in enumerate(blocking.stream, start=1)
    }


def _stream(module: ll.Module, scalar: Scalar, blocking: Blocking, rows: int, together: int) -> ll.Function:
    function = internal(module, f"stream_{rows}", STREAM)
    b = Body(function, scalar)
    depth, a, a_row, a_k, right, b_k, c, c_row, accumulate, columns, other = function.args
    lanes = blocking.lanes
    of = scalar.vector(lanes)
    whole = b.mul(b.udiv(columns, const(lanes)), const(lanes))
    rest = b.sub(columns, whole)
    mask = b.mask(rest, lanes)
    add = b.icmp_signed("!=", accumulate, const(0))
    sums, sums_row = (
        b.select(add, other, c),
        b.select(add, b.mul(b.ceil_div(columns, const(lanes)), const(lanes)), c_row),
    )

    def every_vector(step: Vectors) -> None:
        """One vector of columns after the other; the last one is masked where it isn't complete."""
        with b.loop(const(0), whole, const(lanes)) as turn:
            step(turn.index, None)
        if blocking.masks:  # else columns are complete
            with b.if_then(b.icmp_signed(">", rest, const(0))):
                step(whole, mask)

    def load(pointer: ll.Value, part: ll.Value | None) -> ll.Value:
        return b.get(pointer, of) if part is None else b.masked_load(pointer, part)

    def store(value: ll.Value, pointer: ll.Value, part: ll.Value | None) -> None:
        if part is None:
            b.put(value, pointer)
        else:
            b.masked_store(value, pointer, part)

    def clear(column: ll.Value, part: ll.Value | None) -> None:
        for r in range(rows):
            store(zeros(of), b.at(b.at(sums, b.mul(sums_row, const(r))), column), part)

    def added(k: ll.Value, count: int) -> None:
        """Adds `count` rows of B."""
        lefts = [
            [
                b.splat(b.get(b.at(b.at(a, b.mul(a_row, const(r))), b.mul(b.add(k, const(j)), a_k))), lanes)
                for j in range(count)
            ]
            for r in range(rows)
        ]
        lines = [b.at(right, b.mul(b.add(k, const(j)), b_k)) for j in range(count)]
        targets = [b.at(sums, b.mul(sums_row, const(r))) for r in range(rows)]

        def step(column: ll.Value, part: ll.Value | None) -> None:
            places = [b.at(target, column) for target in targets]
            values = [load(place, part) for place in places]
            for j, line in enumerate(lines):
                line_values = load(b.at(line, column), part)
                values = [b.multiply_add(lefts[r][j], line_values, values[r]) for r in range(rows)]
            for value, place in zip(values, places, strict=True):
                store(value, place, part)

        every_vector(step)

    def moved(column: ll.Value, part: ll.Value | None) -> None:
        for r in range(rows):
            place = b.at(b.at(c, b.mul(c_row, const(r))), column)
            value = load(b.at(b.at(sums, b.mul(sums_row, const(r))), column), part)
            store(b.fadd(load(place, part), value), place, part)

    every_vector(clear)
    most = b.mul(b.udiv(depth, const(together)), const(together))
    with b.loop(const(0), most, const(together)) as turn:
        added(turn.index, together)
    with b.loop(most, depth, const(1)) as turn:
        added(turn.index, 1)
    with b.if_then(add):
        every_vector(moved)
    b.ret_void()
    return function


def define_turns(module: ll.Module, scalar: Scalar, blocking: Blocking) -> dict[int, ll.Function]:
    """By most rows: the product with some columns of B, each of which runs along k, turned in registers.

    The order of additions forbids to sum along k in vectors, so squares of B are turned, but go to no memory.
    """
    return {rows: _turn(module, scalar, blocking, rows) for rows in blocking.turn}


def near_elements(blocking: Blocking) -> int:
    """How many elements of memory a turning kernel needs."""
    rows, lanes = blocking.turn[-1], blocking.lanes
    return rows * TURNED_VECTORS * lanes + 2 * lanes * lanes


def _turn(module: ll.Module, scalar: Scalar, blocking: Blocking, rows: int) -> ll.Function:
    function = internal(module, f"turn_{rows}", TURN)
    b = Body(function, scalar)
    depth, a, a_row, a_k, source, n_stride, c, c_row, accumulate, columns, near, there = function.args
    lanes = blocking.lanes
    of = scalar.vector(lanes)
    last = b.sub(there, const(1))
    lefts = [b.at(a, b.mul(a_row, b.min(const(r), last))) for r in range(rows)]
    square, sums = near, b.at(near, const(2 * lanes * lanes))
    width = const(TURNED_VECTORS * lanes)
    lines = [b.at(sums, b.mul(width, const(r))) for r in range(rows)]

    def turned(k: ll.Value, column: ll.Value) -> list[ll.Value]:
        """The vectors of `lanes` k, for `lanes` columns of B, of which those that aren't there are 0."""
        origin = b.at(b.at(source, b.mul(column, n_stride)), k)
        left = b.sub(columns, column)
        part = b.icmp_signed("<", left, const(lanes))
        with b.if_then(part), b.loop(const(0), left, const(1)) as row:
            b.put(
                b.get(b.at(origin, b.mul(row.index, n_stride)), of),
                b.at(square, b.mul(row.index, const(lanes))),
            )
        base, step = b.select(part, square, origin), b.select(part, const(lanes), n_stride)
        return matmul_pack.turned(b, [b.at(base, b.mul(step, const(i))) for i in range(lanes)], lanes)

    def added(k: ll.Value, values: ll.Value, totals: list[ll.Value]) -> list[ll.Value]:
        place = b.mul(k, a_k)
        return [
            b.multiply_add(b.splat(b.get(b.at(left, place)), lanes), values, total)
            for left, total in zip(lefts, totals, strict=True)
        ]

    for line in lines:
        for v in range(TURNED_VECTORS):
            b.put(zeros(of), b.at(line, const(v * lanes)))
    with b.if_then(b.icmp_signed("!=", b.urem(columns, const(lanes)), const(0))):
        for i in range(lanes):  # what is left in memory may be denormal numbers, which are slow
            b.put(zeros(of), b.at(square, const(i * lanes)))

    def few(first: ll.Value, start: ll.Value, stop: ll.Value) -> None:
        """Adds some of the `lanes` k from `first` on."""
        kept = b.at(square, const(lanes * lanes))
        with b.if_then(b.icmp_signed("<", start, stop)), b.loop(const(0), columns, const(lanes)) as group:
            for j, values in enumerate(turned(first, group.index)):
                b.put(values, b.at(kept, const(j * lanes)))
            places = [b.at(line, group.index) for line in lines]
            with b.loop(start, stop, const(1), [b.get(place, of) for place in places]) as turn:
                values = b.get(b.at(kept, b.mul(b.sub(turn.index, first), const(lanes))), of)
                turn.values = added(turn.index, values, turn.values)
            for place, total in zip(places, turn.values, strict=True):
                b.put(total, place)

    # Vectors that lie across two cache lines would ask for every line twice.
    before = b.and_(b.sub(const(0), b.ptrtoint(source, I64)), const(lanes * scalar.size - 1))
    head = b.udiv(before, const(scalar.size))
    steps = b.udiv(b.sub(depth, head), const(lanes))
    whole = b.add(head, b.mul(steps, const(lanes)))
    few(const(0), const(0), head)
    visit = const(VISIT * lanes)
    with b.loop(head, whole, visit) as run, b.loop(const(0), columns, const(lanes)) as group:
        places = [b.at(line, group.index) for line in lines]
        stop = b.min(whole, b.add(run.index, visit))
        with b.loop(run.index, stop, const(lanes), [b.get(place, of) for place in places]) as turn:
            totals = turn.values
            for j, values in enumerate(turned(turn.index, group.index)):
                totals = added(b.add(turn.index, const(j)), values, totals)
            turn.values = totals
        for place, total in zip(places, turn.values, strict=True):
            b.put(total, place)
    few(b.sub(depth, const(lanes)), whole, depth)
    _put_rows(b, blocking, lines, (c, c_row), (accumulate, columns, there))
    b.ret_void()
    return function


def _put_rows(
    b: Body,
    blocking: Blocking,
    lines: list[ll.Value],
    target: tuple[ll.Value, ll.Value],
    extent: tuple[ll.Value, ll.Value, ll.Value],
) -> None:
    """Writes or adds the rows that are there to C, leaving memory right of its last column alone."""
    accumulate, columns, there = extent
    lanes = blocking.lanes
    add = b.icmp_signed("!=", accumulate, const(0))
    with b.loop(const(0), columns, const(lanes)) as group:
        mask = b.mask(b.sub(columns, group.index), lanes)
        for r, line in enumerate(lines):
            with b.if_then(b.icmp_signed("<", const(r), there)):
                value = b.get(b.at(line, group.index), b.scalar.vector(lanes))
                place = b.at(b.at(target[0], b.mul(target[1], const(r))), group.index)
                held = b.masked_load(place, b.and_(mask, b.splat(add, lanes)))
                b.masked_store(b.select(add, b.fadd(held, value), value), place, mask)
