"""Which of the values that kernels hand to each other are stored, and which are computed again where they are
read.

What a gradient needs of the forward computation is often several values that follow from each other by cheap
arithmetic: a number, its half, its multiple. One of them is enough. The values to store are a minimum cut of
the graph of cheap computations, by bytes, between what can't be computed again cheaply and what kernels ask
for: the formulation of Checkmate (Jain et al., 2020) without its times, solved as in PyTorch's min-cut
partitioner. Elementwise arithmetic gives the same bits in every kernel, so results don't change.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence, Set

from graphflow.compiler.access import is_view
from graphflow.compiler.indexing import numel
from graphflow.compiler.ir import Graph, Node, toposort
from graphflow.compiler.passes.dependencies import Dependencies
from graphflow.compiler.passes.order import typical_bytes
from graphflow.compiler.passes.pressure import Pressure, asked_for
from graphflow.compiler.passes.unit import Unit
from graphflow.dims import product

CHEAP_STEP = 4  # instructions of one op that may be computed again anywhere
CHEAP_WHOLE = 8  # instructions that all of a value may take
DEAR_STEP = 16  # the same where every element is computed once more: an exp costs what a store and a load do
DEAR_WHOLE = 28
MOST_READ = 2  # arrays that may be read to compute a value: sums of sums of sums would read ever more
_TRIALS = 8  # of storing something after all, where most memory is in use
_OBSERVED = ("alias", "detach", "once", "checked_index")  # what they do isn't in their value
_ONE_PASS = frozenset(["map", "column", "contract"])  # kinds of units that ask for an element once
_ENOUGH = 1 << 62


def rematerialize(
    graph: Graph,
    units: Dependencies[Unit],
    program: Sequence[Unit],
    unit_of: dict[Node, Unit],
    addressed: Set[Node],
) -> None:
    """Takes values that every kernel that asks for them computes again out of `unit_of`, and out of their
    unit if they serve nothing else there; a unit without nodes is left to be removed. Values in `addressed`
    are in memory anyway. `program` are the units in the program's order.
    """
    again = _relieved(_Chooser(graph, units, unit_of, addressed), Pressure(graph, units, program, unit_of))
    repeated: set[Node] = set()
    for unit in units.direct:
        repeated |= asked_for(unit, unit_of, again)[1]
    changed = {unit_of.pop(node) for node in repeated}
    for unit in units.direct:
        if unit in changed:
            _drop_unused(unit, repeated)


def _relieved(chooser: _Chooser, pressure: Pressure) -> set[Node]:
    """The choice, without values for which something larger would be kept just when most memory is in use: a
    mask is stored after all where the array that it follows from isn't needed any more.
    """
    again = chooser.run()
    if not again:
        return again
    peak, kept = pressure.peak(again), set[Node]()
    for _ in range(_TRIALS):
        if not peak.reliefs:
            break
        more = kept | peak.reliefs[0]
        other = chooser.run(more)
        then = pressure.peak(other)
        if then.bytes >= peak.bytes:
            break
        again, peak, kept = other, then, more
    return again


def _drop_unused(unit: Unit, nodes: Set[Node]) -> None:
    """Takes those of `nodes` out of the unit that no other node of it needs."""
    own = set(unit.nodes)
    stack, needed = [n for n in unit.nodes if n not in nodes], set[Node]()
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack.extend(i for i in node.inputs if i.op.kind not in ("input", "const"))
    unit.nodes = [n for n in unit.nodes if n in needed]
    for node in own - needed:
        del unit.placement[node]


class _Chooser:
    def __init__(
        self, graph: Graph, units: Dependencies[Unit], unit_of: dict[Node, Unit], addressed: Set[Node]
    ):
        self.units, self.unit_of = units, unit_of
        self.addressed = addressed
        self.kept = set(addressed)
        self.dear: set[Node] = set()  # not to be computed again, though they could be
        self.readers: dict[Node, list[Unit]] = {}
        self.writers: dict[Node, Unit] = {}  # of states
        for number, root in graph.updates:
            base = self._base(root)
            if base in unit_of:
                self.writers[graph.states[number]] = unit_of[base]

        for unit in units.direct:
            for node in asked_for(unit, unit_of)[0]:
                self.readers.setdefault(node, []).append(unit)
        self.order = [n for n in toposort(graph.roots) if n in self.readers]

    def run(self, stored: Set[Node] = frozenset()) -> set[Node]:
        """The values to be computed again, none of those in `stored`."""
        self.kept, self.dear = {*self.addressed, *stored}, set[Node]()
        while True:
            again = self._cut()
            if not self._refuse(again):
                return again

    def _refuse(self, again: set[Node]) -> bool:
        """Takes what isn't worth it out of `again`, for the next cut, too; whether there was anything.

        Sources come first: a value that follows from one that is stored by then may be worth it after all.
        """
        refused = False
        for node in self.order:
            while node in again and not self._is_worth_it(node, again):
                refused = True
                dear = {n for n in self._parts(node, again) if n in again and _cost(n) > CHEAP_STEP}
                self.dear |= dear
                again -= dear
                if not dear:
                    self.kept.add(node)
                    again.discard(node)
        return refused

    def _base(self, node: Node) -> Node:
        while is_view(node) and node not in self.kept:
            node = node.inputs[0]
        return node

    def _operands(self, node: Node) -> Iterable[Node]:
        """What has to be there to compute the node again, but for what is there anyway."""
        for operand in node.inputs:
            base = self._base(operand)
            if base in self.unit_of and base not in self.kept:
                yield base

    def _is_cheap(self, node: Node) -> bool:
        if node.op.kind != "elementwise" or node.op.name in _OBSERVED:
            return False
        return node not in self.kept and node not in self.dear and _cost(node) <= DEAR_STEP

    def _cut(self) -> set[Node]:
        """The cheap values that aren't stored where as few bytes as possible are."""
        numbers: dict[Node, int] = {}
        stack = [n for n in self.readers if self._is_cheap(n)]
        while stack:
            node = stack.pop()
            if node not in numbers:
                numbers[node] = len(numbers)
                if self._is_cheap(node):
                    stack.extend(self._operands(node))
        flow = _Flow(2 * len(numbers) + 2)
        source, sink = 2 * len(numbers), 2 * len(numbers) + 1
        for node, number in numbers.items():
            flow.edge(2 * number, 2 * number + 1, typical_bytes(node))
            if node in self.readers:
                flow.edge(2 * number + 1, sink, _ENOUGH)
            if not self._is_cheap(node):
                flow.edge(source, 2 * number, _ENOUGH)
                continue
            for operand in self._operands(node):
                flow.edge(2 * numbers[operand] + 1, 2 * number, _ENOUGH)
        flow.saturate(source, sink)
        behind = flow.reaching(sink)
        stored = {node for node, n in numbers.items() if 2 * n not in behind and 2 * n + 1 in behind}
        return {node for node in numbers if node not in stored and self._is_cheap(node)}

    def _parts(self, node: Node, again: Set[Node]) -> set[Node]:
        """The values that are computed if the node is, and the states and arguments read."""
        stack, seen = [node], set[Node]()
        while stack:
            current = stack.pop()
            if current in seen or (current in self.unit_of and current not in again):
                continue
            seen.add(current)
            stack.extend(current.inputs)
        return seen

    def _reads_much(self, node: Node, parts: Set[Node]) -> bool:
        read = {n for n in parts if n.op.kind == "input"}
        read.update(operand for n in parts for operand in n.inputs if operand not in parts)
        sizes = [typical_bytes(n) for n in read]
        return sum(sizes) > MOST_READ * max([typical_bytes(node), *sizes])

    def _is_worth_it(self, node: Node, again: Set[Node]) -> bool:
        """Whether all that computing the node takes is cheap, little is read for it, and no reader would have
        to wait for a state's old value that was overwritten.
        """
        parts, readers = self._parts(node, again), self.readers[node]
        if self._reads_much(node, parts):
            return False
        cost = sum(map(_cost, parts))
        if cost > CHEAP_WHOLE:
            once = all(u.kind in _ONE_PASS and product(u.axes) == numel(node.shape) for u in readers)
            wide = all(_cost(n) <= CHEAP_STEP or numel(n.shape) == numel(node.shape) for n in parts)
            if not once or not wide or cost * len(readers) > DEAR_WHOLE:
                return False
        writers = {self.writers[s] for s in parts & self.writers.keys()}
        return not any(u is w or self.units.needs(u, w) for u in readers for w in writers)


def _cost(node: Node) -> int:
    """Instructions for an element."""
    cost: int = node.op.lowering.cost if node.op.kind == "elementwise" else 0
    return cost


class _Flow:
    """The greatest flow from one vertex to another (Edmonds and Karp)."""

    def __init__(self, count: int):
        self.left: list[dict[int, int]] = [{} for _ in range(count)]  # what an edge can still take

    def edge(self, start: int, end: int, capacity: int) -> None:
        """Another edge; those between the same vertices are one."""
        self.left[start][end] = self.left[start].get(end, 0) + capacity
        self.left[end].setdefault(start, 0)

    def saturate(self, source: int, sink: int) -> None:
        """Lets flow what can."""
        while path := self._path(source, sink):
            amount = min(self.left[a][b] for a, b in path)
            for a, b in path:
                self.left[a][b] -= amount
                self.left[b][a] += amount

    def _path(self, source: int, sink: int) -> list[tuple[int, int]]:
        """A shortest path with room on every edge, from its end."""
        before = {source: source}
        queue = deque([source])
        while queue and sink not in before:
            vertex = queue.popleft()
            for end, room in self.left[vertex].items():
                if room and end not in before:
                    before[end] = vertex
                    queue.append(end)
        path = []
        vertex = sink
        while vertex != source and vertex in before:
            path.append((before[vertex], vertex))
            vertex = before[vertex]
        return path

    def reaching(self, sink: int) -> set[int]:
        """The vertices from which more could flow to the sink if it came to them."""
        found, stack = {sink}, [sink]
        while stack:
            vertex = stack.pop()
            for start in self.left[vertex]:
                if start not in found and self.left[start][vertex]:
                    found.add(start)
                    stack.append(start)
        return found
