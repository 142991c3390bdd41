"""Row kernels: several passes over one row while it sits in the first-level cache.

Softmax, log-softmax, layer normalisation, cross-entropy and their gradients are of this kind: reductions over
the last axes, and elementwise work that waits for them. Totals over all rows, such as the gradients of the
weight and the bias, are taken from the same passes.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from graphflow.compiler.access import is_total, normalize, reduction_index
from graphflow.compiler.codegen.kernel import Loops, Parameters
from graphflow.compiler.codegen.loops import (
    Loop,
    Plan,
    Writer,
    bind,
    combine,
    finish,
    indent,
    merged,
    nest,
    row_grain,
    sums_floats,
    unravel,
)
from graphflow.compiler.codegen.row_kept import Kept, folds_row, is_full
from graphflow.compiler.codegen.row_totals import Totals
from graphflow.compiler.codegen.scalar import INNER, ROW, Scalars, Value, literal
from graphflow.compiler.indexing import Index
from graphflow.compiler.ir import Node
from graphflow.dims import product

CHUNK = 4096  # elements summed in one run before partial sums meet: bounds the rounding error of long rows


def phases(plan: Plan, stored: Container[Node]) -> dict[Node, int]:
    """For every node, the number of reductions in a row on the way to it: the pass after which it's known.

    A total over rows counts with its operand: that pass takes it.
    """
    level: dict[Node, int] = {}
    mine = set(plan.nodes)

    def of(node: Node) -> int:
        stack = [node]
        while stack:
            current = stack[-1]
            if current in level:
                stack.pop()
                continue
            missing = [i for i in current.inputs if i not in level]
            if current.op.kind in ("input", "const") or (current not in mine and current in stored):
                level[current] = 0
            elif missing:
                stack.extend(missing)
                continue
            else:
                deepest = max((level[i] for i in current.inputs), default=0)
                level[current] = deepest + (current in mine and folds_row(plan, current))
            stack.pop()
        return level[node]

    for node in plan.nodes:
        of(node)
    return {n: level[n] for n in plan.nodes}


@dataclass
class Accumulator:
    """A reduction in progress: its running value, that of a chunk, and the running index of an argmax."""

    node: Node
    variable: str
    partial: str | None
    place: str | None


def emit_row(writer: Writer, addresses: Sequence[Index], name: str) -> list[Loops]:
    """As many passes over a row as reductions wait for each other; threads share the rows."""
    plan, scalars, parameters = writer.plan, writer.scalars, writer.parameters
    kept = [a for a in range(len(plan.axes)) if a not in plan.reduced]
    outer = merged(kept, plan.axes, addresses, "x")
    inner = merged(plan.reduced, plan.axes, addresses, "j")
    bind(scalars, outer, ROW)
    bind(scalars, inner, INNER)
    level = phases(plan, writer.memory.stored)
    last = max((level[n] for n in plan.nodes), default=0)
    width = product(plan.axes[a] for a in plan.reduced)
    extent = product(loop.size for loop in outer)
    kept_values = Kept(writer, inner, level)
    totals = Totals(writer, [n for n in plan.nodes if _is_total(plan, n)], extent, width)
    stored = [n for n in plan.outputs if n not in totals.nodes]
    row = store_rows(writer, [n for n in stored if level[n] == 0])
    for phase in range(last + 1):
        stores = [n for n in stored if level[n] == phase and is_full(plan, n)]
        folds = [n for n in plan.nodes if folds_row(plan, n) and level[n] == phase + 1]
        adds = [n for n in totals.nodes if level[n] == phase]
        if stores or folds or adds:
            row += _pass(writer, inner, stores, folds, totals, adds, kept_values, phase)
        row += store_rows(writer, [n for n in stored if level[n] == phase + 1])
    row = [*unravel(outer, "r", parameters), *row]
    full = product(plan.axes)
    if not totals.nodes:
        lines = ["for r in range(lo, hi):", *indent(row)]
        return [finish(writer, name, lines, extent, row_grain(width), full, kept_values.bytes)]
    kernel = finish(writer, name, totals.by_chunks(row), totals.chunks, 1, full, kept_values.bytes)
    return [kernel, *totals.joined(name)]


def _is_total(plan: Plan, node: Node) -> bool:
    return is_total(node, plan.placement[node], plan.reduced)


def store_rows(writer: Writer, nodes: Sequence[Node]) -> list[str]:
    """Writes the row's own results among `nodes`."""
    lines: list[str] = []
    for node in nodes:
        if not is_full(writer.plan, node):
            statement = writer.store(node, writer.element(node), ROW)
            lines += [*writer.scalars.scopes[ROW].lines, statement]
            writer.scalars.scopes[ROW].lines.clear()
    return lines


def _pass(
    writer: Writer,
    inner: list[Loop],
    stores: list[Node],
    folds: list[Node],
    totals: Totals,
    adds: list[Node],
    kept: Kept,
    phase: int,
) -> list[str]:
    """One pass over the row: folds into reductions, adds to totals, stores what is known by now."""
    scalars, parameters = writer.scalars, writer.parameters
    scalars.begin(INNER)
    kept.offer(phase)
    in_chunks = bool(inner) and not (isinstance(inner[-1].size, int) and inner[-1].size <= CHUNK)
    accumulators, body = [], []
    for node in folds:
        source = node.inputs[0]
        value = scalars.value(source, reduction_index(node, writer.plan.placement[node], writer.plan.reduced))
        accumulator = Accumulator(
            node,
            scalars.fresh("s"),
            scalars.fresh("s") if in_chunks and sums_floats(node) else None,
            scalars.fresh("k") if node.op.lowering.arg else None,
        )
        accumulators.append(accumulator)
        body += fold(accumulator, value, inner, parameters)
    for node in adds:
        body.append(totals.add(node))
    values = [(n, writer.element(n)) for n in stores]
    keeps = kept.statements(phase)
    body = [*scalars.scopes[INNER].lines, *body, *keeps, *(writer.store(n, v, INNER) for n, v in values)]
    before = list(scalars.scopes[ROW].lines)
    scalars.scopes[ROW].lines.clear()
    for accumulator in accumulators:
        before += start(accumulator)
    if any(a.partial for a in accumulators):
        loop = _chunked(inner, body, accumulators, scalars, parameters)
    else:
        loop = nest(inner, body, parameters)
    for accumulator in accumulators:
        result = accumulator.place or accumulator.variable
        key = (accumulator.node, normalize(writer.plan.placement[accumulator.node], accumulator.node.shape))
        scalars.given[key] = Value(result, ROW)
    return [*before, *loop]


def start(accumulator: Accumulator) -> list[str]:
    """The statements that give a running value its neutral element."""
    node = accumulator.node
    dtype = node.inputs[0].dtype
    lines = [f"{accumulator.variable} = {literal(node.op.lowering.init(dtype), dtype)}"]
    if accumulator.place:
        lines.append(f"{accumulator.place} = i64(-1)")
    return lines


def fold(accumulator: Accumulator, value: Value, inner: Sequence[Loop], parameters: Parameters) -> list[str]:
    """The statements that fold one more element in; `inner` are the loops that count an argmax's position."""
    node = accumulator.node
    target = accumulator.partial or accumulator.variable
    combined = combine(node, target, value.text)
    if not accumulator.place:
        return [f"{target} = {combined}"]
    position = "i64(0)"
    for loop in inner:
        position = f"({position}) * {parameters.size(loop.size)} + {loop.variable}"
    return [
        f"if ({accumulator.place} < 0) or ({combined}):",
        f"    {accumulator.variable} = {value.text}",
        f"    {accumulator.place} = {position}",
    ]


def _chunked(
    inner: list[Loop], body: list[str], sums: list[Accumulator], scalars: Scalars, parameters: Parameters
) -> list[str]:
    """The pass in chunks of the last axis; float sums of a chunk meet the total once."""
    loop = inner[-1]
    size = parameters.size(loop.size)
    start, end = scalars.fresh("start"), scalars.fresh("stop")
    inside = [f"{end} = minimum_i64({start} + {CHUNK}, {size})"]
    after = []
    for a in sums:
        if a.partial:
            inside.append(f"{a.partial} = {literal(0, a.node.dtype)}")
            after.append(f"{a.variable} = {a.variable} + {a.partial}")
    inside += [f"for {loop.variable} in range({start}, {end}):", *indent(body), *after]
    chunk = [f"for {start} in range(0, {size}, {CHUNK}):", *indent(inside)]
    return nest(inner[:-1], chunk, parameters)
