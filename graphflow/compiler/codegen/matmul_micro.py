"""Micro-kernels of the matrix-product core: one register tile of C from a strip of A and a panel of B."""

from __future__ import annotations

import llvmlite.ir as ll

from graphflow.compiler.codegen.matmul_blocking import Blocking
from graphflow.compiler.codegen.matmul_ir import I64, POINTER, Body, Scalar, const, internal, zeros

#: Parameters of a micro-kernel: depth; A, its row and k strides; B and its k stride; C and its row stride;
#: what to add to the sums (C itself, to go on with it; 0: nothing) and its row stride; and how many lanes of
#: the last vector exist in C and B.
PARAMETERS = (I64, POINTER, I64, I64, POINTER, I64, POINTER, I64, POINTER, I64, I64)

#: How many k ahead of their use lines of A and B are asked for. A panel of B comes from the second-level
#: cache; A matters where its k are scattered.
A_AHEAD = 8
B_AHEAD = 16


def define_all(module: ll.Module, scalar: Scalar, blocking: Blocking) -> dict[tuple[int, int], ll.Function]:
    """Defines the micro-kernel of every tile height and width, so that edges compute no absent rows."""
    return {
        (rows, vectors): _define(module, scalar, blocking, rows, vectors)
        for rows in range(1, blocking.rows + 1)
        for vectors in range(1, blocking.vectors + 1)
    }


def _define(module: ll.Module, scalar: Scalar, blocking: Blocking, rows: int, vectors: int) -> ll.Function:
    function = internal(module, f"micro_{rows}x{vectors}", PARAMETERS)
    b = Body(function, scalar)
    depth, a, a_row, a_k, panel, b_k, c, c_row, addend, addend_row, last = function.args
    lanes = blocking.lanes
    mask = b.mask(last, lanes)
    lines = [b.opaque(b.at(a, b.mul(a_row, const(r)))) for r in range(rows)]
    columns = [const(v * lanes) for v in range(vectors)]
    targets = [b.at(c, b.mul(c_row, const(r))) for r in range(rows)]
    adds = b.not_(b.is_null(addend))
    sources = [b.at(addend, b.mul(addend_row, const(r))) for r in range(rows)]
    with b.if_then(adds):  # so that nobody waits for it in the end
        for source in sources:
            for column in columns:
                b.prefetch(b.at(source, column))

    def step(k: ll.Value, b_now: ll.Value, sums: list[ll.Value]) -> list[ll.Value]:
        """One k: an outer product added to the tile."""
        of = scalar.vector(lanes)
        right = [b.get(b.at(b_now, column), of) for column in columns[:-1]]
        edge = b.at(b_now, columns[-1])
        right.append(b.masked_load(edge, mask) if blocking.masks else b.get(edge, of))
        result = []
        for r in range(rows):
            left = b.splat(b.get(b.at(lines[r], k)), lanes)
            result += [b.multiply_add(left, right[v], sums[r * vectors + v]) for v in range(vectors)]
        return result

    a_ahead = b.mul(a_k, const(A_AHEAD))
    b_ahead = b.mul(b_k, const(B_AHEAD))
    start = [const(0), panel] + [zeros(scalar.vector(lanes))] * (rows * vectors)
    with b.loop(const(0), depth, const(1), start, rolled=True) as turn:
        k, b_now, *sums = turn.values
        b.prefetch(b.at(lines[0], b.add(k, a_ahead)))
        for column in columns:
            b.prefetch(b.at(b_now, b.add(b_ahead, column)))
        sums = step(k, b_now, sums)
        turn.values = [b.add(k, a_k), b.at(b_now, b_k), *sums]
    store(b, blocking, vectors, (targets, sources), turn.values[2:], (adds, mask, last))
    b.ret_void()
    return function


def store(
    b: Body,
    blocking: Blocking,
    vectors: int,
    rows: tuple[list[ll.Value], list[ll.Value]],
    sums: list[ll.Value],
    edge: tuple[ll.Value, ll.Value, ll.Value],
) -> None:
    """Writes the tile to C's rows, adding what is in other rows if asked.

    Memory right of the last column is left alone.
    """
    adds, mask, last = edge
    lanes = blocking.lanes
    of = b.scalar.vector(lanes)

    def write(add: bool, masked: bool) -> None:
        for r, (row, source) in enumerate(zip(*rows, strict=True)):
            for v in range(vectors):
                where, other = b.at(row, const(v * lanes)), b.at(source, const(v * lanes))
                value = sums[r * vectors + v]
                partial = masked and v == vectors - 1
                if add:
                    value = b.fadd(b.masked_load(other, mask) if partial else b.get(other, of), value)
                if partial:
                    b.masked_store(value, where, mask)
                else:
                    b.put(value, where)

    def choose(masked: bool) -> None:
        with b.if_else(adds) as (then, otherwise):
            with then:
                write(True, masked)
            with otherwise:
                write(False, masked)

    if blocking.masks:
        choose(True)
        return
    with b.if_else(b.icmp_signed("<", last, const(lanes))) as (then, otherwise):
        with then:
            choose(True)
        with otherwise:
            choose(False)
