"""How much of what kernels hand to each other is alive at one time, by what they compute again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import accumulate

from graphflow.compiler.access import strip_reshapes
from graphflow.compiler.ir import Graph, Node, TensorType
from graphflow.compiler.passes.dependencies import Dependencies
from graphflow.compiler.passes.order import ordered, typical_bytes
from graphflow.compiler.passes.unit import Unit

_WORTH = 32  # relief at the peak that is less than one part in so many isn't looked for


@dataclass(frozen=True)
class Peak:
    """The most bytes alive at one time, and what could be let go of then: for values that are only kept to
    compute others again, the largest first, those others.
    """

    bytes: int
    reliefs: tuple[set[Node], ...]


class Pressure:
    """Measures choices for the units of a graph, which are given in the program's order."""

    def __init__(
        self, graph: Graph, units: Dependencies[Unit], program: Sequence[Unit], unit_of: Mapping[Node, Unit]
    ):
        self.units, self.unit_of = units, unit_of
        roots = [strip_reshapes(root) for root in graph.roots]
        self.elsewhere = set(roots)  # outputs and states: no temporary memory
        updated = [strip_reshapes(root) for _, root in graph.updates]
        self.late = {unit_of[root] for root in updated if root in unit_of}
        self.asked = {unit: asked_for(unit, unit_of)[0] for unit in program}

    def peak(self, again: Set[Node]) -> Peak:
        """The peak if the values in `again` are computed by every kernel that asks for them."""
        sources = {node: self._sources(node, again) for node in again}
        reads = {
            unit: (asked - again).union(*(sources[n] for n in asked & again))
            for unit, asked in self.asked.items()
        }
        stored = set[Node]().union(*reads.values()) - self.elsewhere
        for unit in self.asked:
            unit.outputs = [n for n in unit.nodes if n in stored]
        order = ordered(self.units, self.late, reads, stored.__contains__)
        position = {unit: number for number, unit in enumerate(order)}
        last: dict[Node, int] = {}
        wanted: dict[Node, int] = {}  # until when for itself
        for number, unit in enumerate(order):
            last.update(dict.fromkeys(reads[unit], number))
            wanted.update(dict.fromkeys(self.asked[unit] - again, number))
        changes = [0] * (len(order) + 1)
        for node in stored:
            changes[position[self.unit_of[node]]] += typical_bytes(node)
            changes[last[node] + 1] -= typical_bytes(node)
        alive = list(accumulate(changes))
        most = max(alive)
        time = alive.index(most)
        reliefs = []
        for node in sorted(stored, key=lambda n: (-typical_bytes(n), position[self.unit_of[n]])):
            if typical_bytes(node) * _WORTH < most:
                break
            if position[self.unit_of[node]] < time <= last[node] and wanted.get(node, -1) < time:
                users = self._users(node, time, order, again, sources)
                if sum(map(typical_bytes, users)) < typical_bytes(node):
                    reliefs.append(users)
        return Peak(most, tuple(reliefs))

    def _sources(self, node: Node, again: Set[Node]) -> set[Node]:
        """The values of other kernels that a value is computed from again."""
        found, stack, seen = set[Node](), list(node.inputs), set[Node]()
        while stack:
            current = stack.pop()
            if current in seen:
                continue
            seen.add(current)
            if current in self.unit_of and current not in again:
                found.add(current)
            else:
                stack.extend(current.inputs)
        return found

    def _users(
        self,
        source: Node,
        time: int,
        order: Sequence[Unit],
        again: Set[Node],
        sources: Mapping[Node, Set[Node]],
    ) -> set[Node]:
        """The values that units from a time on compute again, out of `source` among others."""
        late = [node for unit in order[time:] for node in self.asked[unit] & again]
        return {node for node in late if source in sources[node]}


def asked_for(
    unit: Unit, unit_of: Mapping[Node, Unit], again: Set[Node] = frozenset()
) -> tuple[set[Node], set[Node]]:
    """The values that the unit gets from other ones, and those of other units in `again` that it computes."""
    asked, repeated = set[Node](), set[Node]()
    stack, seen = [i for n in unit.nodes for i in n.inputs], set(unit.nodes)
    while stack:
        node = stack.pop()
        if node in seen or node.op.kind in ("input", "const"):
            continue
        seen.add(node)
        if node in unit_of:
            if node not in again:
                asked.add(node)
                continue
            repeated.add(node)
        stack.extend(node.inputs)
    return asked, repeated


def arrays_read(unit: Unit, unit_of: Mapping[Node, Unit]) -> list[Node]:
    """The arrays in memory that the unit reads, also for what it computes again."""
    found: list[Node] = []
    stack, seen = [i for n in reversed(unit.nodes) for i in reversed(n.inputs)], set(unit.nodes)
    while stack:
        node = stack.pop()
        if node in seen or not isinstance(node.type, TensorType):
            continue
        seen.add(node)
        if node in unit_of or not node.inputs:
            found.append(node)
        else:
            stack.extend(reversed(node.inputs))
    return found


__all__ = ["Peak", "Pressure", "arrays_read", "asked_for"]
