"""In what order units run: after what they need, and so that little memory is in use at a time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Set
from math import prod

from graphflow.compiler.ir import Node
from graphflow.compiler.passes.dependencies import Dependencies
from graphflow.compiler.passes.unit import Unit
from graphflow.dims import Dim, evaluate

TYPICAL = 64  # what a symbol is taken for when bytes are compared


def ordered(
    needs: Dependencies[Unit],
    late: Set[Unit],
    reads: Mapping[Unit, Set[Node]],
    is_temporary: Callable[[Node], bool],
) -> list[Unit]:
    """All units of `reads`, which has them in the program's order; those in `late` when nothing else can run.

    Of what can run, a unit that lets go of more temporary memory than it takes comes first: a weight's
    gradient right after the values that it alone still needs, not after all other layers.
    """
    return _Order(needs, late, reads, is_temporary).run()


class _Order:
    def __init__(
        self,
        needs: Dependencies[Unit],
        late: Set[Unit],
        reads: Mapping[Unit, Set[Node]],
        is_temporary: Callable[[Node], bool],
    ):
        self.late, self.reads = late, reads
        self.position = {unit: number for number, unit in enumerate(reads)}
        self.waiting = {unit: len(sources) for unit, sources in needs.direct.items()}
        self.followers: dict[Unit, list[Unit]] = {unit: [] for unit in self.waiting}
        for unit, sources in needs.direct.items():
            for source in sources:
                self.followers[source].append(unit)
        self.readers: dict[Node, set[Unit]] = {}
        for unit, nodes in reads.items():
            for node in nodes:
                if is_temporary(node):
                    self.readers.setdefault(node, set()).add(unit)
        self.gain = {unit: -sum(typical_bytes(n) for n in unit.outputs if is_temporary(n)) for unit in reads}
        self.ready: list[tuple[bool, int, Unit]] = []
        self.freeing: set[Unit] = set()  # ready, and to run now

    def run(self) -> list[Unit]:
        done: dict[Unit, None] = {}
        for node in self.readers:
            self._note_last_reader(node)
        for unit, count in self.waiting.items():
            if not count:
                self._add(unit)
        while self.ready:
            if self.freeing:
                chosen = min(self.freeing, key=lambda u: (-self.gain[u], self.position[u]))
                self.freeing.remove(chosen)
            else:
                chosen = heapq.heappop(self.ready)[2]
            if chosen in done:
                continue
            done[chosen] = None
            for node in self.reads[chosen] & self.readers.keys():
                self.readers[node].discard(chosen)
                self._note_last_reader(node)
            for unit in self.followers[chosen]:
                self.waiting[unit] -= 1
                if not self.waiting[unit]:
                    self._add(unit)
        if len(done) != len(self.waiting):
            raise AssertionError("units depend on each other in a circle")
        return list(done)

    def _add(self, unit: Unit) -> None:
        heapq.heappush(self.ready, (unit in self.late, self.position[unit], unit))
        self._consider(unit)

    def _consider(self, unit: Unit) -> None:
        if not self.waiting[unit] and self.gain[unit] > 0 and unit not in self.late:
            self.freeing.add(unit)

    def _note_last_reader(self, node: Node) -> None:
        if len(self.readers[node]) == 1:
            (unit,) = self.readers[node]
            self.gain[unit] += typical_bytes(node)
            self._consider(unit)


def typical_bytes(node: Node) -> int:
    """Bytes of a value, where every symbol is `TYPICAL`."""
    return prod(s if isinstance(s, int) else _typical(s) for s in node.shape) * node.dtype.itemsize


def _typical(size: Dim) -> int:
    return max(evaluate(size, dict.fromkeys(size.symbols(), TYPICAL)), 0)
