"""Row kernels whose rows are a few elements: the windows of a pooling, the taps of a depthwise convolution.

A loop over four elements leaves a vector nearly empty. Here the row is written out element by element, and
the last of the other axes is the vectorised loop: many rows side by side.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence, Set

from graphflow.compiler.access import is_total, normalize, reads, reduction_index
from graphflow.compiler.codegen.kernel import Loops
from graphflow.compiler.codegen.loops import (
    Plan,
    Writer,
    bind,
    combine,
    divided,
    finish,
    indent,
    merged,
    nest,
    row_grain,
    unravel,
)
from graphflow.compiler.codegen.row_kept import is_full
from graphflow.compiler.codegen.scalar import INNER, ROW, Value, literal
from graphflow.compiler.indexing import Index, flat_index
from graphflow.compiler.ir import Node
from graphflow.dims import product

LONGEST = 16  # elements of a row that is written out
NEAR = 4  # elements between what neighbouring rows load
MOST = 160  # values that may be written out in all
Place = Mapping[str, Index]


def is_short(plan: Plan, stored: Set[Node]) -> bool:
    """Whether the rows are few known elements, and rows lie side by side in memory so that loads and stores
    of many of them are vectors.
    """
    length = product(plan.axes[a] for a in plan.reduced)
    kept = [a for a, s in enumerate(plan.axes) if a not in plan.reduced and s != 1]
    if not isinstance(length, int) or not kept:
        return False
    if not 0 < length <= LONGEST or length * len(plan.nodes) > MOST:
        return False
    if any(is_total(node, plan.placement[node], plan.reduced) for node in plan.nodes):
        return False
    addresses = [flat_index(plan.placement[node], node.shape) for node in plan.outputs]
    in_memory = stored | set(plan.nodes)
    for node in plan.nodes:
        found = reads(node, plan.placement[node], stored, in_memory, plan.reduced)
        addresses += [access.address for access in found if access.base not in plan.nodes]
    steps = [address.terms.get(f"a{kept[-1]}", 0) for address in addresses]
    return all(isinstance(step, int) and abs(step) <= NEAR for step in steps)


def emit_short(writer: Writer, addresses: Sequence[Index], name: str) -> list[Loops]:
    """Threads share the outer of the kept axes; the last ones are the innermost loop."""
    plan, scalars, parameters = writer.plan, writer.scalars, writer.parameters
    kept = [a for a in range(len(plan.axes)) if a not in plan.reduced]
    outer, inner = divided(merged(kept, plan.axes, addresses, "x"))
    bind(scalars, outer, ROW)
    bind(scalars, inner, INNER)
    sizes = [range(plan.axes[a]) for a in plan.reduced]  # type: ignore[arg-type]
    places: list[Place] = [
        {f"a{a}": Index(None, i) for a, i in zip(plan.reduced, point, strict=True)}
        for point in itertools.product(*sizes)
    ]
    for node in plan.nodes:
        if node.op.kind == "reduction":
            key = (node, normalize(plan.placement[node], node.shape))
            scalars.given[key] = _folded(writer, node, places)
    stores = []
    for node in plan.outputs:
        for place in places if is_full(plan, node) else places[:1]:
            stores.append(_store(writer, node, place))
    body = [*scalars.scopes[INNER].lines, *stores]
    rows = [*unravel(outer, "r", parameters), *scalars.scopes[ROW].lines, *nest(inner, body, parameters)]
    extent = product(loop.size for loop in outer)
    grain = row_grain(product(loop.size for loop in inner) * len(places))
    return [
        finish(writer, name, ["for r in range(lo, hi):", *indent(rows)], extent, grain, product(plan.axes))
    ]


def _folded(writer: Writer, node: Node, places: Sequence[Place]) -> Value:
    """A reduction over the row, element after element; an argmax counts them."""
    plan, scalars = writer.plan, writer.scalars
    source, dtype = node.inputs[0], node.inputs[0].dtype
    index = reduction_index(node, plan.placement[node], plan.reduced)
    values = [scalars.value(source, [i.substitute(place) for i in index]) for place in places]
    level = max(v.level for v in values)
    if not node.op.lowering.arg:
        total = Value(literal(node.op.lowering.init(dtype), dtype), level)
        for value in values:
            total = scalars.let(combine(node, total.text, value.text), level)
        return total
    best, where = values[0], Value("i64(0)", level)
    for number, value in enumerate(values[1:], 1):
        better = scalars.let(combine(node, best.text, value.text), level)
        where = scalars.let(f"select({better.text}, i64({number}), {where.text})", level)
        best = scalars.let(f"select({better.text}, {value.text}, {best.text})", level)
    return where


def _store(writer: Writer, node: Node, place: Place) -> str:
    plan, scalars = writer.plan, writer.scalars
    index = [i.substitute(place) for i in plan.placement[node]]
    value = scalars.value(node, index)
    address = scalars.index_text(flat_index(index, node.shape))
    pointer = writer.parameters.pointer(node, node.dtype, write=True)
    return f"{pointer}[{address.text}] = {value.text}"
