"""What fusion makes: units, each one kernel to be, and where their nodes stand."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphflow.compiler.indexing import Index
from graphflow.compiler.ir import Graph, Node, Size

Placement = tuple[Index, ...]


@dataclass(eq=False)
class Unit:
    """One kernel to be: its nodes in order, the axes of its domain, and where each node stands in it.

    ``kind``: ``map``; ``row`` (``reduced`` are the last axes); ``column`` (``reduced`` is a run before the
    last kept axes); ``fold`` (the only axis is reduced, once); ``contract`` (the first node is the matrix
    product, the rest its epilogue); ``scatter``; ``cat``; ``routine`` (an op over whole rows or matrices,
    then those of its results that are used); ``control`` (a loop or branch, then those of its results that
    are used; it has no domain and becomes many kernels).
    """

    number: int
    kind: str
    axes: tuple[Size, ...]
    nodes: list[Node] = field(default_factory=list)
    placement: dict[Node, Placement] = field(default_factory=dict)
    reduced: tuple[int, ...] = ()
    outputs: list[Node] = field(default_factory=list)

    @property
    def wide(self) -> list[int]:
        """Axes of more than one element."""
        return [a for a, size in enumerate(self.axes) if size != 1]


@dataclass(frozen=True)
class Fused:
    """The units in an order that respects dependencies, what is stored, and the graph they compute.

    ``unit_of`` has the unit that a value comes from; what every kernel computes for itself comes from none.
    """

    graph: Graph
    units: tuple[Unit, ...]
    stored: frozenset[Node]
    unit_of: dict[Node, Unit]


def axis(number: int) -> Index:
    """The variable of a unit's axis."""
    return Index.of(f"a{number}")
