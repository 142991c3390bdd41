"""Column kernels: reductions over axes that others follow, such as a bias's gradient over the batch."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.compiler.access import reduction_index
from graphflow.compiler.codegen.kernel import Loops, Parameters, suffix
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
from graphflow.compiler.codegen.scalar import INNER, ROW, literal
from graphflow.compiler.indexing import Index, flat_index
from graphflow.compiler.ir import Node
from graphflow.dims import ceil_div, product

COLUMNS = 128  # columns that one share of the work owns
RUN = 256  # rows summed before partial sums meet: bounds the rounding error of long columns


def emit_column(writer: Writer, addresses: Sequence[Index], name: str) -> Loops:
    """One total for each column of a block, while the rows go by; threads share the blocks."""
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
    folds = [n for n in plan.nodes if n.op.kind == "reduction"]
    stores = [n for n in plan.outputs if n not in folds]
    width = parameters.size(column.size)
    blocks = parameters.size(ceil_div(column.size, COLUMNS))
    body: list[str] = []
    names = [(n, scalars.fresh("s"), scalars.fresh("q") if sums_floats(n) else None) for n in folds]
    for node, total, partial in names:
        value = scalars.value(node.inputs[0], reduction_index(node, plan.placement[node], plan.reduced))
        target = partial or total
        body.append(f"{target}[j - c0] = {combine(node, f'{target}[j - c0]', value.text)}")
    values = [(n, writer.element(n)) for n in stores]
    body = [*scalars.scopes[INNER].lines, *body, *(writer.store(n, v, INNER) for n, v in values)]
    step = [*scalars.scopes[ROW].lines, "for j in range(c0, c1):", *indent(body)]
    lines, after = [], []
    for node, total, partial in names:
        dtype = node.dtype
        lines.append(f"{total} = stack_{suffix(dtype)}({COLUMNS})")
        initial = literal(node.op.lowering.init(dtype), dtype)
        lines += [f"for j in range(0, {COLUMNS}):", f"    {total}[j] = {initial}"]
        if partial:
            lines.append(f"{partial} = stack_{suffix(dtype)}({COLUMNS})")
        address = scalars.index_text(flat_index(plan.placement[node], node.shape))
        pointer = parameters.pointer(node, dtype, write=True)
        after += ["for j in range(c0, c1):", f"    {pointer}[{address.text}] = {total}[j - c0]"]
    lines += _walk(along, step, names, parameters)
    rows = [
        f"u = floordiv_i64(r, {blocks})",
        f"c0 = (r - u * {blocks}) * {COLUMNS}",
        f"c1 = minimum_i64(c0 + {COLUMNS}, {width})",
        *unravel(outer, "u", parameters),
        *lines,
        *after,
    ]
    extent = product(loop.size for loop in outer) * ceil_div(column.size, COLUMNS)
    return finish(writer, name, ["for r in range(lo, hi):", *indent(rows)], extent, 1, product(plan.axes))


def _walk(
    along: list[Loop], step: list[str], names: list[tuple[Node, str, str | None]], parameters: Parameters
) -> list[str]:
    """The loops along the reduced axes; float sums are gathered over runs of rows before they meet the total.
    """
    partials = [(total, partial, n) for n, total, partial in names if partial]
    if not partials:
        return nest(along, step, parameters)
    run = along[-1]
    size = parameters.size(run.size)
    clear, flush = [], []
    for total, partial, node in partials:
        clear += ["for j in range(0, c1 - c0):", f"    {partial}[j] = {literal(0, node.dtype)}"]
        flush += ["for j in range(0, c1 - c0):", f"    {total}[j] = {total}[j] + {partial}[j]"]
    inside = [
        *clear,
        f"for {run.variable} in range(kb, minimum_i64(kb + {RUN}, {size})):",
        *indent(step),
        *flush,
    ]
    return nest(along[:-1], [f"for kb in range(0, {size}, {RUN}):", *indent(inside)], parameters)
