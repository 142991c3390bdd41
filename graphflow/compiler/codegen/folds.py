"""Fold kernels: reductions of a whole array in chunks that threads share, and what is made of the totals.

Two kernels each. The first folds every chunk by itself and stores the elements that are wanted; the second
folds the chunks' results in order and computes what depends on them. So the result doesn't depend on the
number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graphflow.compiler.access import normalize, reduction_index
from graphflow.compiler.codegen.kernel import Loops
from graphflow.compiler.codegen.loops import Writer, bind, combine, finish, indent, merged
from graphflow.compiler.codegen.row_kept import is_full
from graphflow.compiler.codegen.rows import CHUNK, Accumulator, fold, start, store_rows
from graphflow.compiler.codegen.scalar import INNER, ROW, Value
from graphflow.compiler.indexing import Index
from graphflow.dims import ceil_div
from graphflow.dtypes import int64


def emit_fold(writer: Writer, addresses: Sequence[Index], name: str) -> list[Loops]:
    """The kernel over chunks, and the one that makes the totals of what it left."""
    (loop,) = merged(writer.plan.reduced, writer.plan.axes, addresses, "j")
    size, chunks = loop.size, ceil_div(loop.size, CHUNK)
    scalars, plan = writer.scalars, writer.plan
    bind(scalars, [loop], INNER)
    accumulators, body = [], []
    for node in plan.nodes:
        if node.op.kind == "reduction":
            place = scalars.fresh("k") if node.op.lowering.arg else None
            accumulators.append(Accumulator(node, scalars.fresh("s"), None, place))
            index = reduction_index(node, plan.placement[node], plan.reduced)
            body += fold(accumulators[-1], scalars.value(node.inputs[0], index), [loop], writer.parameters)
    values = [(n, writer.element(n)) for n in plan.outputs if is_full(plan, n)]
    stores = [writer.store(n, v, INNER) for n, v in values]
    lines = [
        "for r in range(lo, hi):",
        *indent(scalars.scopes[ROW].lines),
        *indent([line for a in accumulators for line in start(a)]),
        f"    stop = minimum_i64(r * {CHUNK} + {CHUNK}, {writer.parameters.size(size)})",
        f"    for {loop.variable} in range(r * {CHUNK}, stop):",
        *indent([*scalars.scopes[INNER].lines, *body, *stores], 2),
    ]
    for a in accumulators:
        lines += [f"    {pointer}[r] = {variable}" for pointer, variable in _left(writer, a, write=True)]
    by_chunk = finish(writer, name, lines, chunks, 1, size)
    writer.reset()
    return [by_chunk, _totals(writer, accumulators, f"{name}_total")]


def _left(writer: Writer, a: Accumulator, write: bool = False) -> list[tuple[str, str]]:
    """Pointers to what chunks leave of a reduction, each with the variable that it is left from."""
    chunks = ceil_div(writer.plan.axes[writer.plan.reduced[0]], CHUNK)
    dtype = a.node.inputs[0].dtype
    temporary = writer.memory.temporary
    found = [(temporary((a.node, "values"), dtype, (chunks,)), dtype, a.variable)]
    if a.place:
        found.append((temporary((a.node, "places"), int64, (chunks,)), int64, a.place))
    return [
        (writer.parameters.temporary(buffer, type_, write), variable) for buffer, type_, variable in found
    ]


def _totals(writer: Writer, accumulators: Sequence[Accumulator], name: str) -> Loops:
    plan, scalars = writer.plan, writer.scalars
    chunks = ceil_div(plan.axes[plan.reduced[0]], CHUNK)
    before = [line for a in accumulators for line in start(a)]
    before.append(f"for c in range(0, {writer.parameters.size(chunks)}):")
    for a in accumulators:
        pointers = [pointer for pointer, _ in _left(writer, a)]
        combined = combine(a.node, a.variable, f"{pointers[0]}[c]")
        if a.place:
            before += [
                f"    if ({a.place} < 0) or ({combined}):",
                f"        {a.variable} = {pointers[0]}[c]",
                f"        {a.place} = {pointers[1]}[c]",
            ]
        else:
            before.append(f"    {a.variable} = {combined}")
        key = (a.node, normalize(plan.placement[a.node], a.node.shape))
        scalars.given[key] = Value(a.place or a.variable, ROW)
    after = store_rows(writer, plan.outputs)
    kernel = finish(writer, name, ["for r in range(lo, hi):", *indent([*before, *after])], 1, 1, 1)
    return replace(kernel, bytes=chunks * 8 * len(accumulators), flops=chunks * len(accumulators))
