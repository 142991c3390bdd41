"""What fusion makes: units, each one kernel to be, and where their nodes stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graphflow.compiler.codegen.short_rows import LONGEST
from graphflow.compiler.indexing import Index, Shape
from graphflow.compiler.ir import Graph, Node, Size
from graphflow.dims import product

Placement = tuple[Index, ...]


@dataclass(eq=False)
class Unit:
    """One kernel to be: its nodes in order, the axes of its domain, and where each node stands in it.

    ``kind``: ``map``; ``row`` (``reduced`` are the last axes; reductions that stand on those are totals over
    all rows); ``column`` (``reduced`` is a run before the last kept axes); ``fold`` (the only axis is
    reduced, once); ``contract`` (the first node is the matrix product, the rest its epilogue); ``scatter``;
    ``cat``; ``routine`` (an op over whole rows or matrices, then those of its results that are used);
    ``tiled`` (the same of an op over tiles); ``control`` (a loop or branch, then those of its results that
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


SHORT = 4096  # elements that one thread may reduce alone, and go over several times
FEWEST_ROWS = 16  # rows whose totals are taken while the rows go by: fewer don't make chunks for threads


def axis(number: int) -> Index:
    """The variable of a unit's axis."""
    return Index.of(f"a{number}")


def kind_of(reduced: Sequence[int], axes: Shape, node: Node) -> str | None:
    """The kind of kernel that reduces these axes; None where the axes have to change places first."""
    wide = [a for a, size in enumerate(axes) if size != 1]
    kept = [a for a in wide if a not in reduced]
    if not kept and len(reduced) == 1:
        size = axes[reduced[0]]
        return "row" if isinstance(size, int) and size <= SHORT else "fold"
    if not kept or not reduced or max(kept) < min(reduced):
        return "row"
    start = wide.index(min(reduced))
    together = list(reduced) == wide[start : start + len(reduced)]
    return "column" if together and not node.op.lowering.arg else None


def takes_totals(axes: Shape, row: Sequence[int], over: Sequence[int]) -> bool:
    """Whether a row kernel over these axes can also total its values over the axes `over`: all its rows.

    Rows of a few elements lie across vectors, where they have no loop of their own.
    """
    if not row or tuple(over) != tuple(range(min(row))) or any(axes[a] == 1 for a in over):
        return False
    width, rows = product(axes[a] for a in row), product(axes[a] for a in over)
    is_long = not isinstance(width, int) or width > LONGEST
    return is_long and (not isinstance(rows, int) or rows >= FEWEST_ROWS)


def common_domain(unit: Unit, other: Unit) -> tuple[str, tuple[int, ...]] | None:
    """The kind and the reduced axes of the two units as one, if their kinds and axes allow it."""
    if {unit.kind, other.kind} == {"row", "column"}:
        row, column = (unit, other) if unit.kind == "row" else (other, unit)
        fits = row.axes == column.axes and takes_totals(row.axes, row.reduced, column.reduced)
        return ("row", row.reduced) if fits else None
    if len({unit.kind, other.kind} - {"map"}) > 1:
        return None
    if unit.reduced and other.reduced and unit.reduced != other.reduced:
        return None
    return (unit if unit.kind != "map" else other).kind, unit.reduced or other.reduced
