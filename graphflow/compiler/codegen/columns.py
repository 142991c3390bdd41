"""Column kernels: reductions over axes that others follow, such as a bias's gradient over the batch.

Threads share blocks of columns, and chunks of many rows. A second kernel adds up what chunks leave; it has
nothing to do where one chunk holds all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphflow.compiler.access import reduction_index
from graphflow.compiler.codegen.kernel import Loops, Parameters, Size, suffix
from graphflow.compiler.codegen.loops import (
    Loop,
    Writer,
    bind,
    combine,
    finish,
    indent,
    merged,
    nest,
    sums_floats,
    unravel,
)
from graphflow.compiler.codegen.scalar import INNER, ROW, Scalars, literal
from graphflow.compiler.indexing import Index, flat_index, numel
from graphflow.compiler.ir import Node
from graphflow.dims import ceil_div, product

COLUMNS = 128  # columns that one share of the work owns
RUN = 256  # rows summed before partial sums meet: bounds the rounding error of long columns
ROWS = 4 * RUN  # rows that one share of the work owns
MANY = 2**40  # more than there are chunks


@dataclass(frozen=True)
class _Total:
    """A reduction in progress: arrays on the stack for a block's totals and, for float sums, a run's."""

    node: Node
    total: str
    run: str | None


def emit_column(writer: Writer, addresses: Sequence[Index], name: str) -> list[Loops]:
    """One total for each column of a block, while the rows of a chunk go by."""
    plan, scalars, parameters = writer.plan, writer.scalars, writer.parameters
    first, last = plan.reduced[0], plan.reduced[-1]
    before = merged(range(first), plan.axes, addresses, "x")
    along = merged(plan.reduced, plan.axes, addresses, "k")
    across = merged(range(last + 1, len(plan.axes)), plan.axes, addresses, "c")
    middle = [Loop(f"m{i}", loop.size, loop.axes) for i, loop in enumerate(across[:-1])]
    column = Loop("j", across[-1].size, across[-1].axes)
    outer = [*before, *middle]
    bind(scalars, [*outer, *along], ROW)
    bind(scalars, [column], INNER)
    totals = [
        _Total(n, scalars.fresh("s"), scalars.fresh("q") if sums_floats(n) else None)
        for n in plan.nodes
        if n.op.kind == "reduction"
    ]
    body: list[str] = []
    for t in totals:
        value = scalars.value(t.node.inputs[0], reduction_index(t.node, plan.placement[t.node], plan.reduced))
        target = f"{t.run or t.total}[j - c0]"
        body.append(f"{target} = {combine(t.node, target, value.text)}")
    values = [(n, writer.element(n)) for n in plan.outputs if n.op.kind != "reduction"]
    body = [*scalars.scopes[INNER].lines, *body, *(writer.store(n, v, INNER) for n, v in values)]
    step = [*scalars.scopes[ROW].lines, "for j in range(c0, c1):", *indent(body)]
    rows = along[0].size
    chunks = rows // ROWS + 1  # one even where there are no rows: somebody has to write zeros
    in_chunks = not isinstance(rows, int) or rows > ROWS
    lines = [*_clear(totals), *_walk(along, step, totals, parameters, in_chunks)]
    for t in totals:
        lines += _flush(writer, t, chunks if in_chunks else 1)
    split = _split(outer, column, chunks if in_chunks else 1, parameters)
    blocks = product(loop.size for loop in outer) * ceil_div(column.size, COLUMNS)
    extent = blocks * chunks if in_chunks else blocks
    text = ["for r in range(lo, hi):", *indent([*split, *lines])]
    kernel = finish(writer, name, text, extent, 1, product(plan.axes))
    return [kernel, join(writer, [t.node for t in totals], chunks, name)] if in_chunks else [kernel]


def _split(outer: Sequence[Loop], column: Loop, chunks: Size, parameters: Parameters) -> list[str]:
    """Statements that tell from a share's number which columns it owns (c0 to c1), and which chunk."""
    width, rest = parameters.size(column.size), "r"
    lines = []
    if chunks != 1:
        count = parameters.size(chunks)
        lines += [f"u = floordiv_i64(r, {count})", f"chunk = r - u * {count}"]
        rest = "u"
    if isinstance(column.size, int) and column.size <= COLUMNS:
        return [*lines, "c0 = 0", f"c1 = {width}", *unravel(outer, rest, parameters)]
    blocks = parameters.size(ceil_div(column.size, COLUMNS))
    lines += [
        f"v = floordiv_i64({rest}, {blocks})",
        f"c0 = ({rest} - v * {blocks}) * {COLUMNS}",
        f"c1 = minimum_i64(c0 + {COLUMNS}, {width})",
    ]
    return [*lines, *unravel(outer, "v", parameters)]


def _clear(totals: Sequence[_Total]) -> list[str]:
    lines = []
    for t in totals:
        dtype = t.node.dtype
        initial = literal(t.node.op.lowering.init(dtype), dtype)
        lines += [f"{t.total} = stack_{suffix(dtype)}({COLUMNS})", f"for j in range(0, {COLUMNS}):"]
        lines.append(f"    {t.total}[j] = {initial}")
        if t.run:
            lines.append(f"{t.run} = stack_{suffix(dtype)}({COLUMNS})")
    return lines


def _walk(
    along: list[Loop], step: list[str], totals: Sequence[_Total], parameters: Parameters, in_chunks: bool
) -> list[str]:
    """The loops along the reduced axes, the outermost for one chunk only.

    Float sums are gathered over runs of rows before they meet the total.
    """
    clear, flush = [], []
    for t in totals:
        if t.run:
            clear += ["for j in range(0, c1 - c0):", f"    {t.run}[j] = {literal(0, t.node.dtype)}"]
            flush += ["for j in range(0, c1 - c0):", f"    {t.total}[j] = {t.total}[j] + {t.run}[j]"]
    size = parameters.size(along[0].size)
    first, last = ("chunk * " + str(ROWS), "last") if in_chunks else ("0", size)
    lines = [f"last = minimum_i64(chunk * {ROWS} + {ROWS}, {size})"] if in_chunks else []
    inside = [
        *clear,
        f"for {along[0].variable} in range(run, minimum_i64(run + {RUN}, {last})):",
        *indent(nest(along[1:], step, parameters)),
        *flush,
    ]
    return [*lines, f"for run in range({first}, {last}, {RUN}):", *indent(inside)]


def _flush(writer: Writer, t: _Total, chunks: Size) -> list[str]:
    """Statements that store a block's totals: in their place, or with what other chunks leave."""
    node, scalars, parameters = t.node, writer.scalars, writer.parameters
    address = scalars.index_text(flat_index(writer.plan.placement[node], node.shape)).text
    target = parameters.pointer(node, node.dtype, write=True)
    lines = []
    if chunks != 1:
        left = parameters.temporary(left_by_chunks(writer, node, chunks), node.dtype, write=True)
        place = scalars.fresh("d")
        lines.append(f"{place} = select({parameters.size(chunks)} == 1, {target}, {left})")
        target, address = place, f"chunk * {parameters.size(numel(node.shape))} + {address}"
    return [*lines, "for j in range(c0, c1):", f"    {target}[{address}] = {t.total}[j - c0]"]


def left_by_chunks(writer: Writer, node: Node, chunks: Size) -> int:
    """The buffer for what every chunk leaves of a reduction."""
    return writer.memory.temporary((node, "chunks"), node.dtype, (chunks, *node.shape))


def join(writer: Writer, nodes: Sequence[Node], chunks: Size, name: str) -> Loops:
    """The kernel that adds up what chunks left, in order. Its range is empty where there is one chunk."""
    parameters = Parameters(writer.memory.buffer_of)
    scalars = Scalars(parameters, (), (), writer.memory.status)
    count = numel(nodes[0].shape)
    size = parameters.size(count)
    lines = []
    for node in nodes:
        dtype = node.dtype
        left = parameters.temporary(left_by_chunks(writer, node, chunks), dtype)
        target = parameters.pointer(node, dtype, write=True)
        total, run = scalars.fresh("s"), scalars.fresh("q")
        initial = literal(node.op.lowering.init(dtype), dtype)
        lines += [
            f"{total} = stack_{suffix(dtype)}({COLUMNS})",
            f"{run} = stack_{suffix(dtype)}({COLUMNS})",
            f"for c0 in range(lo, hi, {COLUMNS}):",
            f"    width = minimum_i64({COLUMNS}, hi - c0)",
            "    for j in range(0, width):",
            f"        {total}[j] = {initial}",
            f"    for first in range(0, {parameters.size(chunks)}, {RUN}):",
            "        for j in range(0, width):",
            f"            {run}[j] = {initial}",
            f"        for chunk in range(first, minimum_i64(first + {RUN}, {parameters.size(chunks)})):",
            "            for j in range(0, width):",
            f"                {run}[j] = {combine(node, f'{run}[j]', f'{left}[chunk * {size} + c0 + j]')}",
            "        for j in range(0, width):",
            f"            {total}[j] = {combine(node, f'{total}[j]', f'{run}[j]')}",
            "    for j in range(0, width):",
            f"        {target}[c0 + j] = {total}[j]",
        ]
    return Loops(
        parameters.function(f"{name}_total", "\n".join(lines)),
        tuple(parameters.args),
        count * ceil_div(chunks - 1, MANY),
        256,
        bytes=count * chunks * sum(n.dtype.itemsize for n in nodes),
        flops=count * chunks * len(nodes),
        reads=tuple(parameters.reads),
        writes=tuple(parameters.writes),
    )
