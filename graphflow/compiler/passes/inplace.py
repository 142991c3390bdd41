"""Values written over what they are made of, where nobody wants the old value any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

from graphflow.compiler.access import is_total, reads
from graphflow.compiler.codegen.loops import Plan
from graphflow.compiler.codegen.row_kept import folds_row, is_full
from graphflow.compiler.codegen.rows import phases
from graphflow.compiler.indexing import flat_index, numel
from graphflow.compiler.ir import Node
from graphflow.compiler.passes.order import typical_bytes
from graphflow.compiler.passes.unit import Fused, Unit
from graphflow.dims import product

LEAST = 1 << 14  # bytes that pay for what may have to wait for the last reader of the old value


def overwritten(
    fused: Fused, order: Sequence[Unit], sources: Mapping[Unit, Set[Node]], free: Set[Node]
) -> dict[Node, Node]:
    """For every value that can be written over another one: that one, which may itself be over another.

    Both are of `free`, stored values with memory of their own; `sources` are what each unit reads of memory.
    """
    position = {unit: number for number, unit in enumerate(order)}
    touching: dict[Node, list[Unit]] = {node: [] for node in free}  # the units that write or read a value
    for unit in order:
        for node in {*unit.outputs, *sources[unit]} & free:
            touching[node].append(unit)
    found: dict[Node, Node] = {}
    taken: set[Node] = set()
    for unit in order:
        for target in unit.outputs:
            if target not in free or unit.kind == "fold" or typical_bytes(target) < LEAST:
                continue
            dying = [n for n in sources[unit] & free - taken if touching[n][-1] is unit]
            dying.sort(key=lambda n: (position[fused.unit_of[n]], fused.unit_of[n].outputs.index(n)))
            for source in dying:
                if source.dtype != target.dtype or numel(source.shape) != numel(target.shape):
                    continue
                if all(_reads_at_once(u, source) for u in touching[source][:-1]) and reads_in_place(
                    fused, unit, source, target
                ):
                    found[target] = source
                    taken.add(source)
                    break
    return found


def _reads_at_once(unit: Unit, node: Node) -> bool:
    """Whether a unit that reads the value is done with it when its place in the order is over: the second
    kernel of a reduction runs later, and may read what has the shape of the totals.
    """
    if unit.kind not in ("row", "column", "fold") or node in unit.outputs:
        return True
    return numel(node.shape) == product(unit.axes)


def reads_in_place(fused: Fused, unit: Unit, source: Node, target: Node) -> bool:
    """Whether the unit reads `source` only at the element of `target` that it writes, and before it does."""
    if unit.kind not in ("map", "contract", "row", "fold"):
        return False
    if is_total(target, unit.placement[target], unit.reduced):
        return False  # it is cleared before the first row is read, and grows while others are
    here = flat_index(unit.placement[target], target.shape)
    readers: set[Node] = set()
    for node in unit.nodes:
        for access in reads(node, unit.placement[node], fused.stored, fused.unit_of, unit.reduced):
            if access.base is source:
                if access.address != here:
                    return False
                readers.add(node)
            elif access.base in readers:
                if access.index != unit.placement[access.base]:
                    return False  # computed again at another place, out of what the source has there
                readers.add(node)
    return unit.kind != "row" or _is_written_after(fused, unit, readers, target)


def _is_written_after(fused: Fused, unit: Unit, readers: Set[Node], target: Node) -> bool:
    """Whether a row kernel writes the target when all other of its results that the `readers` are, or make,
    have been computed.

    Every pass over a row may read the operands again; the row's own values are written one by one between
    them.
    """
    plan = Plan(unit.kind, unit.axes, unit.reduced, tuple(unit.nodes), unit.placement, tuple(unit.outputs))
    level = phases(plan, fused.stored)

    def time(node: Node) -> int:
        """An even number between passes, an odd one in a pass."""
        if node.op.kind == "reduction":
            return 2 * (level[node] - folds_row(plan, node)) + 1
        return 2 * level[node] + is_full(plan, node)

    written = time(target)
    results = [n for n in readers if n is not target and (n in unit.outputs or n.op.kind == "reduction")]
    return all(time(n) < written or (time(n) == written and is_full(plan, target)) for n in results)
