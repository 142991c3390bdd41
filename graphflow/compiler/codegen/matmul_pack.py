"""Built-in packing of the matrix-product core: strided memory into panels.

A panel holds `rows` rows of an operand (rows of A, columns of B) over a run of k, interleaved: element (r, k)
lies at ``panel[k * width + r]``.
"""

from __future__ import annotations

import llvmlite.ir as ll

from graphflow.compiler.codegen.matmul_blocking import Blocking
from graphflow.compiler.codegen.matmul_ir import I64, POINTER, Body, Scalar, const, internal

#: Parameters of a built-in packer: source, its row and k strides, rows, depth, panel.
PARAMETERS = (POINTER, I64, I64, I64, I64, POINTER)

#: How many k ahead of the copying its memory is asked for.
COPY_AHEAD = 16


def define_narrow(module: ll.Module, scalar: Scalar, blocking: Blocking) -> ll.Function:
    """The packer of A: up to a unit's rows, as strips `blocking.rows` high, one behind the other.

    Where rows are neighbours a whole unit is read at once, because it takes full cache lines. Rows that
    aren't there are left alone or 0, nothing reads them.
    """
    function = internal(module, "pack_a", PARAMETERS)
    b = Body(function, scalar)
    source, row, k_stride, rows, depth, panel = function.args
    height = blocking.rows
    size = b.mul(depth, const(height))
    unit = b.icmp_signed("==", row, const(1))
    with b.if_else(b.and_(unit, b.icmp_signed("==", rows, const(blocking.unit_rows)))) as (whole, parts):
        with whole, b.loop(const(0), depth, const(1), [source, panel]) as turn:
            line, target = turn.values
            for first in range(0, blocking.unit_rows, height):
                values = b.get(b.at(line, const(first)), scalar.vector(height))
                b.put(values, b.at(target, b.mul(size, const(first // height))))
            turn.values = [b.at(line, k_stride), b.at(target, const(height))]
        with parts, b.loop(const(0), rows, const(height)) as strip:
            there = b.min(b.sub(rows, strip.index), const(height))
            origin = b.at(source, b.mul(strip.index, row))
            target = b.at(panel, b.mul(strip.index, depth))
            usable = unit if blocking.masks else b.and_(unit, b.icmp_signed("==", there, const(height)))
            mask = b.mask(there, height)
            with b.if_else(usable) as (then, otherwise):
                with then, b.loop(const(0), depth, const(1)) as turn:
                    here = b.at(origin, b.mul(turn.index, k_stride))
                    values = (
                        b.masked_load(here, mask) if blocking.masks else b.get(here, scalar.vector(height))
                    )
                    b.put(values, b.at(target, b.mul(turn.index, const(height))))
                with otherwise:
                    _scalar(b, (origin, row, k_stride, there), (const(0), depth), target, const(height))
    b.ret_void()
    return function


def define_wide(module: ll.Module, scalar: Scalar, blocking: Blocking) -> ll.Function:
    """The packer of B: panels a multiple of the vector length wide, the last parameter giving the width.

    Beyond the operand's last row a panel repeats that row or holds zeros: lanes don't mix, and what these
    compute is never stored.
    """
    function = internal(module, "pack_b", (*PARAMETERS, I64))
    b = Body(function, scalar)
    source, row, k_stride, rows, depth, panel, width = function.args
    lanes = blocking.lanes
    with b.if_else(b.icmp_signed("==", row, const(1))) as (then, otherwise):
        with then:
            vectors = b.sdiv(width if blocking.masks else rows, const(lanes))
            for count in range(1, blocking.vectors + 1):
                with b.if_then(b.icmp_signed("==", vectors, const(count))):
                    _copy(b, (source, k_stride, rows), depth, (panel, width), (count, blocking))
            done = b.mul(vectors, const(lanes))
            with b.if_then(b.icmp_signed("<", done, rows)):
                part = (b.at(source, done), row, k_stride, b.sub(rows, done))
                _clear(b, depth, b.at(panel, done), width, lanes)
                _scalar(b, part, (const(0), depth), b.at(panel, done), width)
        with otherwise, b.loop(const(0), rows, const(lanes)) as group:
            there = b.min(b.sub(rows, group.index), const(lanes))
            part = (b.at(source, b.mul(group.index, row)), row, k_stride, there)
            target = b.at(panel, group.index)
            unit_k = b.icmp_signed("==", k_stride, const(1))
            enough = b.icmp_signed(">=", depth, const(lanes))
            with b.if_else(b.and_(unit_k, enough)) as (turned, general):
                with turned:
                    _transpose(b, part, depth, target, width, lanes)
                with general:
                    _clear(b, depth, target, width, lanes)
                    _scalar(b, part, (const(0), depth), target, width)
    b.ret_void()
    return function


def _copy(
    b: Body,
    part: tuple[ll.Value, ll.Value, ll.Value],
    depth: ll.Value,
    panel: tuple[ll.Value, ll.Value],
    shape: tuple[int, Blocking],
) -> None:
    """Rows that are neighbours: `shape[0]` vectors for each k, the last one masked where it can be."""
    source, k_stride, rows = part
    count, blocking = shape
    lanes = blocking.lanes
    columns = [const(v * lanes) for v in range(count)]
    mask = b.mask(b.sub(rows, columns[-1]), lanes)
    with b.loop(const(0), depth, const(1), [source, panel[0]]) as turn:
        line, target = turn.values
        ahead = b.at(line, b.mul(k_stride, const(COPY_AHEAD)))
        for column in columns:
            b.prefetch(b.at(ahead, column))
        for column in columns:
            masked = blocking.masks and column is columns[-1]
            where = b.at(line, column)
            values = b.masked_load(where, mask) if masked else b.get(where, b.scalar.vector(lanes))
            b.put(values, b.at(target, column))
        turn.values = [b.at(line, k_stride), b.at(target, panel[1])]


def _clear(b: Body, depth: ll.Value, panel: ll.Value, width: ll.Value, lanes: int) -> None:
    zero = ll.Constant(b.scalar.vector(lanes), [0.0] * lanes)
    with b.loop(const(0), depth, const(1)) as turn:
        b.put(zero, b.at(panel, b.mul(turn.index, width)))


def _scalar(
    b: Body,
    part: tuple[ll.Value, ll.Value, ll.Value, ll.Value],
    depths: tuple[ll.Value, ll.Value],
    panel: ll.Value,
    width: ll.Value,
) -> None:
    """Element by element, for any strides."""
    source, row, k_stride, rows = part
    with b.loop(*depths, const(1)) as outer:
        line = b.at(source, b.mul(outer.index, k_stride))
        target = b.at(panel, b.mul(outer.index, width))
        with b.loop(const(0), rows, const(1)) as inner:
            b.put(b.get(b.at(line, b.mul(inner.index, row))), b.at(target, inner.index))


def _transpose(
    b: Body,
    part: tuple[ll.Value, ll.Value, ll.Value, ll.Value],
    depth: ll.Value,
    panel: ll.Value,
    width: ll.Value,
    lanes: int,
) -> None:
    """Rows contiguous along k: squares of lanes x lanes turned in registers.

    The last square overlaps the one before it, so that a depth of at least `lanes` needs no remainder.
    """
    source, row, _, rows = part
    final = b.sub(rows, const(1))
    lines = [b.at(source, b.mul(b.min(const(r), final), row)) for r in range(lanes)]
    with b.loop(const(0), depth, const(lanes)) as turn:
        k = b.min(turn.index, b.sub(depth, const(lanes)))
        square = _turned(b, [b.at(line, k) for line in lines], lanes)
        for j, values in enumerate(square):
            b.put(values, b.at(panel, b.mul(b.add(k, const(j)), width)))


def turned(b: Body, lines: list[ll.Value], lanes: int) -> list[ll.Value]:
    """The columns of the square of as many lanes whose rows start at `lines`.

    Every row is loaded as one vector: rows often lie a power of two apart, and then other rows' cache lines
    take the place of this one's before its next piece would be loaded. Small squares are turned within each
    sixteen bytes, and then sixteen bytes are put into place as a whole.
    """
    piece = 16 // b.scalar.size
    groups = []
    for i in range(0, lanes, piece):
        rows = [b.get(line, b.scalar.vector(lanes)) for line in lines[i : i + piece]]
        groups.append(_small_squares(b, rows, lanes))
    columns = [_turned_pieces(b, list(vectors)) for vectors in zip(*groups, strict=True)]
    return [column for piece_columns in zip(*columns, strict=True) for column in piece_columns]


def _turned_pieces(b: Body, vectors: list[ll.Value]) -> list[ll.Value]:
    """Vectors of as many pieces of sixteen bytes as there are vectors: vector q of piece q of each."""
    count = len(vectors)
    if count == 1:
        return vectors
    size = 16 // b.scalar.size

    def picked(x: ll.Value, y: ll.Value, pieces: range) -> ll.Value:
        """Half of a vector's pieces from x, the same from y."""
        lanes = [piece * size + lane for piece in pieces for lane in range(size)]
        return b.shuffle(x, y, [*lanes, *(count * size + lane for lane in lanes)])

    if count == 2:
        return [picked(vectors[0], vectors[1], range(q, q + 1)) for q in (0, 1)]
    halves = [[picked(vectors[i], vectors[i + 1], range(q, q + 2)) for i in (0, 2)] for q in (0, 2)]
    return [picked(x, y, range(odd, 4, 2)) for x, y in halves for odd in (0, 1)]


def _turned(b: Body, lines: list[ll.Value], lanes: int) -> list[ll.Value]:
    """The columns of the square whose rows start at `lines`.

    Sixteen-byte pieces are put into place while loading, which costs no shuffle; what is left is to turn
    small squares within each sixteen bytes.
    """
    piece = 16 // b.scalar.size
    of = b.scalar.vector(piece)
    columns: list[ll.Value] = []
    for q in range(lanes // piece):
        gathered = []
        for i in range(piece):
            pieces = [b.get(b.at(lines[g * piece + i], const(q * piece)), of) for g in range(lanes // piece)]
            gathered.append(_concatenated(b, pieces))
        columns += _small_squares(b, gathered, lanes)
    return columns


def _concatenated(b: Body, parts: list[ll.Value]) -> ll.Value:
    while len(parts) > 1:
        count = parts[0].type.count
        parts = [b.shuffle(x, y, range(2 * count)) for x, y in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _small_squares(b: Body, rows: list[ll.Value], lanes: int) -> list[ll.Value]:
    """Turns the 4x4 (or 2x2) square in every sixteen bytes of the vectors `rows`."""
    size = len(rows)

    def interleave(x: ll.Value, y: ll.Value, run: int, high: int) -> ll.Value:
        """Runs of `run` lanes alternately from the low (or high) half of each square row of x and y."""
        picked: list[int] = []
        for base in range(0, lanes, size):
            for start in range(base + high * size // 2, base + (high + 1) * size // 2, run):
                for origin in (0, lanes):
                    picked += range(origin + start, origin + start + run)
        return b.shuffle(x, y, picked)

    if size == 2:
        return [interleave(rows[0], rows[1], 1, 0), interleave(rows[0], rows[1], 1, 1)]
    low = [interleave(rows[i], rows[i + 1], 1, 0) for i in (0, 2)]
    high = [interleave(rows[i], rows[i + 1], 1, 1) for i in (0, 2)]
    return [interleave(x, y, 2, half) for x, y in (low, high) for half in (0, 1)]
