"""Values that lie in the memory of others: parts of concatenations, and runs of elements cut out.

What is computed only to be concatenated is written to its place there, and what follows the first dimension
is a run of the whole's memory, whoever reads it. A slice that is such a run isn't copied for those who read
by position: loops, branches, scatters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from graphflow.compiler.access import is_view, resolve, strip_reshapes
from graphflow.compiler.codegen.scalar import Inside
from graphflow.compiler.indexing import flat_index, numel
from graphflow.compiler.ir import Node, Size, users
from graphflow.compiler.passes.unit import Fused, Unit

_STRIDED = frozenset(["map", "contract"])  # kinds of units whose results may have any strides


@dataclass
class Embedded:
    """Which stored values need no memory of their own, those that lie in others of them first.

    ``parts`` are the parts of concatenations; ``runs`` has of these and of slices the value that holds them,
    and their first element there. ``cuts`` are those slices: nothing has to run for them.
    """

    parts: dict[Node, tuple[Inside, ...]] = field(default_factory=dict)
    runs: dict[Node, tuple[Node, Size]] = field(default_factory=dict)
    cuts: set[Node] = field(default_factory=set)

    def holders(self) -> set[Node]:
        """The values that others lie in."""
        return {place.whole for places in self.parts.values() for place in places} | {
            whole for whole, _ in self.runs.values()
        }


def embed(fused: Fused, placed: Container[Node]) -> Embedded:
    """What needs no memory of its own, leaving out what is `placed` already.

    A state's new value isn't made of parts: their kernels would run before the state's last readers.
    """
    found = Embedded()
    updated = {strip_reshapes(root) for _, root in fused.graph.updates}
    readers: Mapping[Node, list[Node]] = {}
    for unit in fused.units:
        node = unit.nodes[0]
        if unit.kind == "cat" and node not in updated:
            readers = readers or users(fused.graph.nodes())
            _embed_parts(node, fused, readers, placed, found)
        elif unit.kind == "map" and len(unit.nodes) == 1 and node not in placed and is_view(node):
            run = _run(unit, fused)
            if run is not None:
                found.runs[node] = run
                found.cuts.add(node)
    return found


def _embed_parts(
    whole: Node, fused: Fused, readers: Mapping[Node, list[Node]], placed: Container[Node], found: Embedded
) -> None:
    start: Size = 0
    dim = whole.attrs["dim"]
    times = Counter(map(strip_reshapes, whole.inputs))
    for operand in whole.inputs:
        part = strip_reshapes(operand)
        place = Inside(whole, dim, start)
        start = start + operand.shape[dim]
        if part not in fused.unit_of or part not in fused.stored or part in placed:
            continue
        if part in found.runs or times[part] > 1:
            continue
        if place.is_run and part not in found.parts:
            found.parts[part] = (place,)
            found.runs[part] = whole, place.start * numel(whole.shape[dim + 1 :])
        elif not place.is_run and part is operand and _is_only_part(part, readers[part], fused):
            found.parts[part] = (*found.parts.get(part, ()), place)


def _is_only_part(part: Node, readers: list[Node], fused: Fused) -> bool:
    """Whether nobody reads the part but concatenations, as one part each, and the kernel that computes it.

    Only elementwise kernels write a value to several places. What is copied into a state at the end is read.
    """
    home = fused.unit_of[part]
    others = [reader for reader in readers if fused.unit_of.get(reader) is not home]
    updated = {strip_reshapes(root) for _, root in fused.graph.updates}
    if part in updated or home.kind not in _STRIDED or (home.kind != "map" and len(others) > 1):
        return False
    return len(set(others)) == len(others) and all(
        reader.op.kind == "cat"
        and reader not in updated
        and not Inside(reader, reader.attrs["dim"], 0).is_run
        for reader in others
    )


def _run(unit: Unit, fused: Fused) -> tuple[Node, Size] | None:
    """Where the elements of a view stand in a row in memory that this run of the program fills."""
    node = unit.nodes[0]
    place = unit.placement[node]
    access = resolve(node, place, fused.stored - {node})
    if access.base not in fused.unit_of or access.base not in fused.stored:
        return None
    start = access.address + flat_index(place, node.shape) * -1
    return None if start.terms else (access.base, start.offset)


__all__ = ["Embedded", "embed"]
