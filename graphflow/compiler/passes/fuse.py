"""Fusion: which nodes share a kernel, and which values reach memory.

Every computing node goes into a *unit*, one kernel over one domain of axes. A node joins the unit of an
operand when its elements stand at the same place of the domain (its *placement*), so that the operand's value
is in a register when it is needed. Reductions over the last axes turn a unit into rows: several passes over
one row while it sits in the first-level cache. A matrix product takes elementwise successors as its epilogue.
Cheap values whose operands are in memory anyway are computed again wherever they are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphflow.compiler.access import (
    Access,
    is_total,
    is_view,
    picks_elements,
    reads,
    splits,
    strip_reshapes,
)
from graphflow.compiler.indexing import ZERO, Shape, numel
from graphflow.compiler.ir import Graph, Node, toposort, users
from graphflow.compiler.passes.dependencies import Dependencies
from graphflow.compiler.passes.pressure import arrays_read, asked_for
from graphflow.compiler.passes.rematerialize import rematerialize
from graphflow.compiler.passes.separate import separate
from graphflow.compiler.passes.split import update_nodes
from graphflow.compiler.passes.unit import Fused, Placement, Unit, axis, common_domain, kind_of, takes_totals
from graphflow.compiler.spread import spread

MAX_NODES = 64  # a larger kernel compiles slower than two, and spills registers
CHEAP = 3  # instructions it may cost to compute a value again rather than to store and load it
CHEAP_ONCE = 16  # the same for a value of one element, which a kernel computes before its loops
MAX_REPEATED = 16  # values of a row that may be computed once more for the one element that a gather picks
JOINABLE = frozenset(["map", "row", "column", "fold", "contract"])
MAX_SIBLINGS = 8  # units that are tried for sharing an operand's loads


def fuse(graph: Graph, join: bool = True) -> Fused:
    """Partitions the graph's computing nodes into units; without `join` every one is a unit of its own."""
    return _Fuser(separate(graph), join).run()


class _Fuser:
    def __init__(self, graph: Graph, join: bool):
        self.graph = graph
        self.join = join
        self.order = [n for n in toposort(graph.roots) if n.op.kind not in ("input", "const")]
        self.users = users(self.order)
        self.positions = {n: i for i, n in enumerate(self.order)}
        self.stored: set[Node] = set()
        self.inline: set[Node] = set()
        self.unit_of: dict[Node, Unit] = {}
        self.units: Dependencies[Unit] = Dependencies()
        self.started = 0
        self.single: list[Unit] = []  # map units of one element, the latest at the end
        self.update_nodes = update_nodes(graph)

    def run(self) -> Fused:
        self._choose_stored()
        self._choose_inline()
        for node in self.order:
            if node not in self.inline:
                self._add(node)
        if self.join:
            self._settle()
            rematerialize(self.graph, self.units, self._sorted(), self.unit_of, self.stored)
            self._share_rows()  # some read the same array only since they compute the rest again
        self._choose_outputs()
        units = tuple(unit for unit in self._sorted() if unit.nodes)
        return Fused(self.graph, units, frozenset(self.stored), self.unit_of)

    # -------------------------------------------------------------------------------------- what needs memory

    def _choose_stored(self) -> None:
        """Values that some consumer reads by address: roots, operands of products, sources of gathers."""
        for root in self.graph.roots:
            self._store(strip_reshapes(root))
        through = self._looked_through() if self.join else set()
        for node in self.order:
            kind = node.op.kind
            if kind == "contract":
                for operand in node.inputs:
                    places = spread(operand)
                    if places and places.is_merged and through.issuperset(places.reshapes):
                        self._store(places.base)
                    else:
                        self._store_behind(operand)
            elif kind in ("cat", "tiled"):
                for operand in node.inputs:
                    self._store_behind(operand)
            elif kind == "project":
                self._store(node)
            elif kind in ("scatter", "control", "routine"):  # read by flat position: a view has to be copied
                for operand in node.inputs:
                    self._store(strip_reshapes(operand))
            if node.op.name == "reshape" and splits(node) and node not in through:
                self._store(strip_reshapes(node))

    def _looked_through(self) -> set[Node]:
        """Reshapes that merge dimensions only for products, which gather such operands as they pack them."""
        found: set[Node] = set()
        for node in self.order:
            for operand in node.inputs if node.op.kind == "contract" else ():
                places = spread(operand)
                if places and places.is_merged and places.base.op.kind != "const":
                    found.update(places.reshapes)
        roots = {base for root in self.graph.roots for base in (root, strip_reshapes(root))}
        return {reshape for reshape in found if self._only_products_read(reshape, roots)}

    def _only_products_read(self, node: Node, roots: set[Node]) -> bool:
        """Whether every reader of a view, through other views, is a product that can pack it."""
        stack = [node]
        while stack:
            view = stack.pop()
            if view in roots:
                return False
            for reader in self.users[view]:
                if is_view(reader):
                    stack.append(reader)
                elif reader.op.kind != "contract" or not ((places := spread(view)) and places.is_merged):
                    return False
        return True

    def _store(self, node: Node) -> None:
        if node.op.kind not in ("input", "const"):
            self.stored.add(node)

    def _store_behind(self, node: Node) -> None:
        """Stores what a view is a view of; a view of a constant is stored itself."""
        base = node
        while is_view(base) and base not in self.stored:
            base = strip_reshapes(base) if base.op.name == "reshape" and splits(base) else base.inputs[0]
        self._store(node if base.op.kind == "const" else base)

    def _choose_inline(self) -> None:
        """Views, and cheap values over memory that is there anyway."""
        costs: dict[Node, int] = {}
        for node in self.order:
            if node in self.stored:
                continue
            if is_view(node) or node.op.name == "iota":
                if not (self.join and picks_elements(node)):
                    self.inline.add(node)
            elif self.join and node.op.kind == "elementwise" and self._may_repeat(node):
                cost = node.op.lowering.cost
                for operand in node.inputs:
                    base = self._base(operand)
                    if base.op.kind in ("input", "const") or base in self.stored or base.op.name == "iota":
                        continue
                    cost += costs.get(base, CHEAP_ONCE + 1)
                if cost <= (CHEAP_ONCE if _is_single(node) else CHEAP):
                    costs[node] = cost
                    self.inline.add(node)

    def _may_repeat(self, node: Node) -> bool:
        """Values worth computing again: used by several kernels, masks, and single numbers."""
        return len(self.users[node]) > 1 or node.dtype.kind == "bool" or _is_single(node)

    def _base(self, node: Node) -> Node:
        while is_view(node) and node not in self.stored:
            node = node.inputs[0]
        return node

    # -------------------------------------------------------------------------------------- what is at hand

    def _needed(self, node: Node) -> list[Unit]:
        """Units whose values the node reads, through views and values computed again, the best to join first.

        That is one with the most axes, so that what goes with each row of a row kernel is done there; then
        the one that waits for most already, because a unit that the node joins waits for all that the node
        needs.
        """
        found: dict[Unit, None] = {}
        stack, seen = list(node.inputs), set()
        while stack:
            current = stack.pop()
            if current in seen:
                continue
            seen.add(current)
            unit = self.unit_of.get(current)
            if unit is not None:
                found[unit] = None
            elif current.op.kind not in ("input", "const"):
                stack.extend(current.inputs)
        return sorted(found, key=lambda u: (-len(u.wide), -self.units.weight(u), -u.number))

    def _agrees(
        self, nodes: Iterable[Node], kind: str, reduced: Sequence[int], placement: Mapping[Node, Placement]
    ) -> bool:
        """Whether the nodes, in a unit with all that `placement` holds, find what they read in place."""
        for node in nodes:
            for access in reads(node, placement[node], self.stored, self.unit_of, reduced):
                if access.base not in placement:
                    continue
                if node.op.kind == "contract":
                    return False  # a product reads its operands whole, before its epilogue starts
                is_single = node.op.kind != "reduction" and not any(i.terms for i in placement[node])
                if self._at_hand(access, kind, reduced, placement, is_single):
                    continue
                if kind in ("column", "fold") or not picks_elements(node):
                    return False
                if not self._repeats(access, reduced, placement):
                    return False
        return True

    def _at_hand(
        self,
        access: Access,
        kind: str,
        reduced: Sequence[int],
        placement: Mapping[Node, Placement],
        is_single: bool = False,
    ) -> bool:
        if access.flat is not None or placement[access.base] != access.index:
            return False
        if is_total(access.base, access.index, reduced):
            return False
        # A column is complete when all rows were seen; so is what a fold makes of its totals.
        if kind == "column":
            return access.base.op.kind != "reduction"
        return kind != "fold" or is_single or any(i.terms for i in access.index)

    def _repeats(
        self, access: Access, reduced: Sequence[int], placement: Mapping[Node, Placement]
    ) -> bool:
        """Whether the unit can compute a value of its own again at another place.

        So the log-probability of a label is taken inside the row kernel that makes the log-probabilities.
        """
        stack, budget = [access], MAX_REPEATED
        while stack:
            found = stack.pop()
            if found.base not in placement or self._at_hand(found, "row", reduced, placement):
                continue
            budget -= 1
            if found.flat is not None or found.base.op.kind != "elementwise" or budget < 0:
                return False
            stack.extend(reads(found.base, found.index, self.stored, self.unit_of))
        return True

    def _stand_between(self, unit: Unit, needed: Iterable[Unit]) -> bool:
        """Whether something that needs the unit has to run before what needs all of `needed`."""
        return any(other is not unit and self.units.needs(other, unit) for other in needed)

    # -------------------------------------------------------------------------------------- joining

    def _add(self, node: Node) -> None:
        needed = self._needed(node)
        kind = node.op.kind
        if kind in ("control", "routine", "tiled"):
            self._put(node, self._new_unit(kind, ()), (), needed)
        elif kind == "project":
            self._put(node, self.unit_of[node.inputs[0]], (), [])
        elif kind in ("contract", "scatter", "cat"):
            self._start(node, kind, node.shape, needed)
        elif kind == "reduction":
            self._add_reduction(node, needed)
        elif is_view(node) and node not in self.stored:
            self._add_pick(node, needed)
        elif not self.join or not self._join_any(node, needed):
            self._start(node, "map", node.shape, needed)

    def _add_pick(self, node: Node, needed: list[Unit]) -> None:
        """One element of each row: stored by the kernel that has the rows, if one does, instead of them."""
        base = self._base(node)
        is_there = base.op.kind in ("input", "const") or base in self.stored
        if is_there or not self._join_any(node, needed):
            self.inline.add(node)
        else:
            self.stored.add(node)

    def _join_any(self, node: Node, needed: list[Unit]) -> bool:
        for unit in [*needed, *self._siblings(node, needed)]:
            placement = self._fits(node, unit, needed)
            if placement is not None:
                self._put(node, unit, placement, needed)
                for other in needed:
                    if other is not unit:
                        self._merge(unit, other)
                return True
        return False

    def _new_unit(self, kind: str, axes: Shape) -> Unit:
        unit = Unit(self.started, kind, tuple(axes))
        self.started += 1
        self.units.add(unit)
        return unit

    def _start(self, node: Node, kind: str, axes: Shape, needed: list[Unit]) -> None:
        unit = self._new_unit(kind, axes)
        self._put(node, unit, tuple(ZERO if s == 1 else axis(i) for i, s in enumerate(node.shape)), needed)
        if kind == "map" and not unit.wide:
            self.single = [*self.single[-3:], unit]

    def _put(self, node: Node, unit: Unit, placement: Placement, needed: list[Unit]) -> None:
        unit.nodes.append(node)
        unit.placement[node] = placement
        self.unit_of[node] = unit
        self.units.need(unit, needed)

    def _siblings(self, node: Node, needed: list[Unit]) -> list[Unit]:
        """Units that read one of the node's whole operands from memory already."""
        wide = [s for s in node.shape if s != 1]
        if node.op.kind == "reduction":
            wide = [s for s in node.inputs[0].shape if s != 1]
        if not wide:
            return [u for u in self.single if u not in needed and u.kind == "map"]
        found: dict[Unit, None] = {}
        for base in {self._base(i): None for i in node.inputs}:
            if [s for s in base.shape if s != 1] != wide:
                continue  # sharing a scalar is no reason to share a kernel
            for reader in self.users.get(base, ())[:MAX_SIBLINGS]:
                unit = self.unit_of.get(reader)
                if unit is None or unit in needed or unit.kind == "contract":
                    continue
                if len(unit.wide) > len(wide):
                    continue  # nor is one element of each row: what reads the node would wait for the rows
                if self.units.covers(needed, unit):  # or the node would wait for what it doesn't need
                    found[unit] = None
        return list(found)[:MAX_SIBLINGS]

    def _placement(self, shape: Shape, unit: Unit) -> Placement | None:
        """Where a value of `shape` stands in the unit's domain: everywhere, or (in rows) on the kept axes."""
        wide = [s for s in shape if s != 1]
        choices = [unit.wide]
        if unit.kind in ("row", "fold"):
            choices.append([a for a in unit.wide if a not in unit.reduced])
        for choice in choices:
            if [unit.axes[a] for a in choice] == wide:
                variables = iter(choice)
                return tuple(ZERO if s == 1 else axis(next(variables)) for s in shape)
        return None

    def _fits(self, node: Node, unit: Unit, needed: list[Unit]) -> Placement | None:
        """The node's placement if it can join the unit, else None."""
        if unit.kind not in JOINABLE or len(unit.nodes) >= MAX_NODES:
            return None
        if unit.kind == "contract" and (node.op.kind != "elementwise" or node in self.update_nodes):
            return None
        placement = self._placement(node.shape, unit)
        if placement is None or self._stand_between(unit, needed):
            return None
        together = {**unit.placement, node: placement}
        return placement if self._agrees([node], unit.kind, unit.reduced, together) else None

    def _merge(self, unit: Unit, other: Unit) -> bool:
        """Takes `other` into `unit` where they fit and nothing has to run between them; whether it did."""
        kinds = {unit.kind, other.kind}
        domain = common_domain(unit, other)
        if not kinds <= JOINABLE or domain is None or len(unit.nodes) + len(other.nodes) > MAX_NODES:
            return False
        moved = self._moved(other, unit)
        if moved is None:
            return False
        if "contract" in kinds and not self._is_epilogue(unit, other):
            return False
        if self.units.apart(unit, other):
            return False
        kind, reduced = domain
        placement = {**unit.placement, **moved}
        if not self._agrees(placement, kind, reduced, placement):
            return False
        nodes = sorted(placement, key=self.positions.__getitem__)
        unit.nodes = sorted(
            nodes, key=lambda n: n.op.kind != "contract"
        )  # the product first, else as they were
        unit.kind, unit.reduced, unit.placement = kind, reduced, placement
        for node in other.nodes:
            self.unit_of[node] = unit
        self.units.merge(unit, other)
        return True

    def _settle(self) -> None:
        """Merges what couldn't be when it was added: a unit had another domain then, or needed less."""
        for unit in self._sorted():
            merged = unit in self.units.direct
            while merged:
                others = sorted(self.units.direct[unit], key=lambda u: u.number)
                merged = any(self._merge(unit, other) for other in others)
        self._share_rows()

    def _share_rows(self) -> None:
        """Merges units that read rows of the same array."""
        readers: dict[Node, dict[Unit, None]] = {}
        for unit in self._sorted():
            for base in arrays_read(unit, self.unit_of) if unit.reduced else ():
                if numel(base.shape) == numel(unit.axes):
                    readers.setdefault(base, {})[unit] = None
        for units in readers.values():
            first, *rest = units
            for other in rest:
                if {first, other} <= self.units.direct.keys() and self.units.covers([first], other):
                    self._merge(first, other)

    def _moved(self, unit: Unit, into: Unit) -> dict[Node, Placement] | None:
        """Where the nodes of a unit stand in another one's domain; None where the domains don't match."""
        if unit.axes == into.axes:
            return unit.placement if unit.wide else None
        if unit.kind != "map" or into.kind != "row" or not unit.wide:
            return None
        kept = [a for a in into.wide if a not in into.reduced]
        if [unit.axes[a] for a in unit.wide] != [into.axes[a] for a in kept]:
            return None
        new = {f"a{old}": axis(a) for old, a in zip(unit.wide, kept, strict=True)}
        return {n: tuple(i.substitute(new) for i in place) for n, place in unit.placement.items()}

    def _is_epilogue(self, unit: Unit, other: Unit) -> bool:
        """Whether one of the units is a product, and the other may run behind it, tile by tile."""
        if {unit.kind, other.kind} != {"contract", "map"}:
            return False
        rest = [n for n in (*unit.nodes, *other.nodes) if n.op.kind != "contract"]
        return all(n.op.kind == "elementwise" and n not in self.update_nodes for n in rest)

    # -------------------------------------------------------------------------------------- reductions

    def _add_reduction(self, node: Node, needed: list[Unit]) -> None:
        source = node.inputs[0]
        dims = tuple(d for d in node.attrs["dims"] if source.shape[d] != 1)
        if self.join:
            rows = [
                u for u in self._siblings(node, needed) if u.reduced
            ]  # a map of its own business stays a map
            for unit in [*needed, *rows]:
                if self._join_reduction(node, dims, unit, needed):
                    return
        self._start_reduction(node, dims, needed)

    def _join_reduction(self, node: Node, dims: tuple[int, ...], unit: Unit, needed: list[Unit]) -> bool:
        source = node.inputs[0]
        if unit.kind not in JOINABLE - {"contract"} or len(unit.nodes) >= MAX_NODES or not dims:
            return False
        wide = unit.wide
        if [unit.axes[a] for a in wide] != [s for s in source.shape if s != 1] or self._stand_between(
            unit, needed
        ):
            return False
        variables = iter(wide)
        axes = [None if s == 1 else next(variables) for s in source.shape]
        reduced = tuple(a for d in dims if (a := axes[d]) is not None)
        kind = kind_of(reduced, unit.axes, node)
        if kind == "column" and unit.kind == "row" and takes_totals(unit.axes, unit.reduced, reduced):
            kind, reduced = "row", unit.reduced
        if kind is None or (unit.reduced and (unit.reduced != reduced or unit.kind != kind)):
            return False
        if kind == "column" and self._is_narrow(unit):
            return False
        placement = tuple(ZERO if a is None or d in dims else axis(a) for d, a in enumerate(axes))
        together = {**unit.placement, node: placement}
        if not self._agrees([*unit.nodes, node] if kind != unit.kind else [node], kind, reduced, together):
            return False
        unit.kind, unit.reduced = kind, reduced
        self._put(node, unit, placement, needed)
        return True

    def _is_narrow(self, unit: Unit) -> bool:
        """A map kernel whose values are stored anyway loses its parallel rows to a few columns."""
        width = unit.axes[-1]
        return isinstance(width, int) and width < 16

    def _start_reduction(self, node: Node, dims: tuple[int, ...], needed: list[Unit]) -> None:
        shape = node.inputs[0].shape
        wide = [d for d, s in enumerate(shape) if s != 1]
        kind = kind_of(dims, shape, node)
        order = (
            wide if kind else [*(d for d in wide if d not in dims), *dims]
        )  # scattered dimensions become rows
        unit = self._new_unit(kind or "row", tuple(shape[d] for d in order))
        unit.reduced = tuple(order.index(d) for d in dims)
        placement = tuple(ZERO if d in dims or s == 1 else axis(order.index(d)) for d, s in enumerate(shape))
        self._put(node, unit, placement, needed)

    # -------------------------------------------------------------------------------------- results

    def _choose_outputs(self) -> None:
        """A unit stores what roots, addresses or other units need."""
        for unit in self.units.direct:
            self.stored |= asked_for(unit, self.unit_of)[0]
            if unit.kind == "column":  # its totals have no other place, though only a barrier may await one
                self.stored.update(n for n in unit.nodes if n.op.kind == "reduction")
        for unit in self.units.direct:
            unit.outputs = [n for n in unit.nodes if n in self.stored]

    def _sorted(self) -> list[Unit]:
        """Units by dependency, otherwise in the program's order."""
        last = {u: max((self.positions[n] for n in u.nodes), default=-u.number) for u in self.units.direct}
        return self.units.sorted(lambda unit: (last[unit],))


def _is_single(node: Node) -> bool:
    return all(size == 1 for size in node.shape)
