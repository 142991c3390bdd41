"""Fusion: which nodes share a kernel, and which values reach memory.

Every computing node goes into a *unit*, one kernel over one domain of axes. A node joins the unit of an operand when
its elements stand at the same place of the domain (its *placement*), so that the operand's value is in a register when
it is needed. Reductions over the last axes turn a unit into rows: several passes over one row while it sits in the
first-level cache. A matrix product takes elementwise successors as its epilogue. Cheap values whose operands are in
memory anyway are computed again wherever they are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graphflow.compiler.access import Access, broadcast_index, is_view, resolve, splits, strip_reshapes
from graphflow.compiler.indexing import ZERO, Index, Shape
from graphflow.compiler.ir import OPS, Graph, Node, Size, at, toposort, users
from graphflow.errors import CompileError

MAX_NODES = 64  # a larger kernel compiles slower than two, and spills registers
CHEAP = 3  # instructions it may cost to compute a value again rather than to store and load it


@dataclass(eq=False)
class Unit:
    """One kernel to be: its nodes in order, the axes of its domain, and where each node stands in it.

    ``kind``: ``map``; ``row`` (``reduced`` are the last axes); ``column`` (``reduced`` is a run before the last kept
    axes); ``contract`` (the first node is the matrix product, the rest its epilogue); ``scatter``; ``cat``.
    """

    number: int
    kind: str
    axes: tuple[Size, ...]
    nodes: list[Node] = field(default_factory=list)
    placement: dict[Node, tuple[Index, ...]] = field(default_factory=dict)
    reduced: tuple[int, ...] = ()
    outputs: list[Node] = field(default_factory=list)

    @property
    def kept(self) -> tuple[int, ...]:
        """Axes that aren't reduced."""
        return tuple(a for a in range(len(self.axes)) if a not in self.reduced)


@dataclass(frozen=True)
class Fused:
    """The units in an order that respects dependencies, what is stored, and the graph they compute."""

    graph: Graph
    units: tuple[Unit, ...]
    stored: frozenset[Node]
    unit_of: dict[Node, Unit]


def axis(number: int) -> Index:
    """The variable of a unit's axis."""
    return Index.of(f"a{number}")


def fuse(graph: Graph, join: bool = True) -> Fused:
    """Partitions the graph's computing nodes into units; without `join` every one is a unit of its own.

    CompileError for control flow, which has no kernels.
    """
    for node in toposort(graph.roots):
        if node.op.kind == "control":
            where = f"\n  at {node.loc.describe()}" if node.loc else ""
            raise CompileError(
                f"{node.op.name} can't be compiled yet; call the function without compile, which evaluates it{where}"
            )
    return _Fuser(separate_roots(graph), join).run()


def separate_roots(graph: Graph) -> Graph:
    """The graph with a storage of its own for every root: no two share one, none is an input or a constant."""
    taken: set[Node] = set()
    roots = []
    for number, root in enumerate(graph.roots):
        base = strip_reshapes(root)
        if base in taken or base.op.kind in ("input", "const"):
            with at(root.loc):
                base = root = OPS["alias"](root, uid=-1 - number)
        taken.add(base)
        roots.append(root)
    return graph.with_roots(roots)


def elementwise_operands(node: Node, index: tuple[Index, ...]) -> Iterator[tuple[Node, tuple[Index, ...]]]:
    """Operands of a node that are read at one element for each of its own, with that element's index."""
    kind = node.op.kind
    if kind == "elementwise":
        for operand in node.inputs:
            yield operand, broadcast_index(index, operand.shape)
    elif is_view(node):
        yield node, index
    elif node.op.name == "gather":
        yield node.inputs[1], index
    elif node.op.name == "take":
        dim, count = node.attrs["dim"], len(node.inputs[1].shape)
        yield node.inputs[1], index[dim : dim + count]


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
        self.units: list[Unit] = []
        self.ancestors: dict[int, int] = {}  # unit number -> bits of the units it needs, directly or not
        self.masks: dict[int, int] = {}  # unit number -> its own bit and those of the units merged into it
        self.updated = {graph.states[i] for i, _ in graph.updates}

    def run(self) -> Fused:
        self._choose_stored()
        self._choose_inline()
        for node in self.order:
            if node not in self.inline:
                self._add(node)
        self._choose_outputs()
        return Fused(self.graph, tuple(self._sorted()), frozenset(self.stored), self.unit_of)

    # -------------------------------------------------------------------------------------- what needs memory

    def _choose_stored(self) -> None:
        """Values that some consumer reads by address: roots, operands of products, sources of gathers."""
        for root in self.graph.roots:
            self._store(strip_reshapes(root))
        for node in self.order:
            kind = node.op.kind
            if kind in ("contract", "cat"):
                for operand in node.inputs:
                    self._store_behind(operand)
            elif kind == "scatter":  # read by flat position: a view has to be copied
                for operand in node.inputs:
                    self._store(strip_reshapes(operand))
            if node.op.name == "reshape" and splits(node):
                self._store(strip_reshapes(node))

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
        """Cheap values over memory that is there anyway."""
        costs: dict[Node, int] = {}
        for node in self.order:
            if node in self.stored:
                continue
            if is_view(node) or node.op.name == "iota":
                self.inline.add(node)
            elif self.join and node.op.kind == "elementwise" and len(self.users[node]) > 1:
                cost = node.op.lowering.cost
                for operand in node.inputs:
                    base = self._base(operand)
                    if base.op.kind in ("input", "const") or base in self.stored or base.op.name == "iota":
                        continue
                    cost += costs.get(base, CHEAP + 1)
                if cost <= CHEAP:
                    costs[node] = cost
                    self.inline.add(node)

    def _base(self, node: Node) -> Node:
        while is_view(node) and node not in self.stored:
            node = node.inputs[0]
        return node

    # -------------------------------------------------------------------------------------- dependencies

    def _needs(self, node: Node) -> list[Unit]:
        """Units whose stored values the node reads, through views and inlined nodes."""
        found: list[Unit] = []
        stack, seen = list(node.inputs), set()
        while stack:
            current = stack.pop()
            if current in seen:
                continue
            seen.add(current)
            unit = self.unit_of.get(current)
            if unit is not None:
                if unit not in found:
                    found.append(unit)
            elif current.op.kind not in ("input", "const"):
                stack.extend(current.inputs)
        return found

    def _bits(self, needed: list[Unit], but: Unit | None = None) -> int:
        bits = 0
        for unit in needed:
            if unit is not but:
                bits |= self.ancestors[unit.number] | self.masks[unit.number]
        return bits

    def _depend(self, unit: Unit, bits: int) -> None:
        """Lets `unit`, and all that need it, need `bits` too."""
        if bits & ~self.ancestors[unit.number] == 0:
            return
        self.ancestors[unit.number] |= bits
        mine, all_bits = self.masks[unit.number], self.ancestors[unit.number]
        for other in self.units:
            if self.ancestors[other.number] & mine:
                self.ancestors[other.number] |= all_bits

    # -------------------------------------------------------------------------------------- joining

    def _add(self, node: Node) -> None:
        needed = self._needs(node)
        kind = node.op.kind
        if kind in ("contract", "scatter", "cat"):
            self._start(node, kind, node.shape, needed)
            return
        if kind == "reduction":
            self._add_reduction(node, needed)
            return
        candidates = sorted(needed, key=lambda u: -u.number) + self._siblings(node, needed)
        for unit in candidates if self.join else ():
            placement = self._fits(node, unit, needed)
            if placement is None:
                continue
            self._join(node, unit, placement, needed)
            for other in needed:
                if other is not unit:
                    self._merge(unit, other)
            return
        self._start(node, "map", node.shape, needed)

    def _start(self, node: Node, kind: str, axes: Shape, needed: list[Unit]) -> Unit:
        unit = Unit(max(self.masks, default=-1) + 1, kind, tuple(axes))
        self.units.append(unit)
        self.masks[unit.number] = 1 << unit.number
        self.ancestors[unit.number] = 0
        self._join(node, unit, tuple(ZERO if s == 1 else axis(i) for i, s in enumerate(node.shape)), needed)
        return unit

    def _join(self, node: Node, unit: Unit, placement: tuple[Index, ...], needed: list[Unit]) -> None:
        unit.nodes.append(node)
        unit.placement[node] = placement
        self.unit_of[node] = unit
        self._depend(unit, self._bits(needed, unit))

    def _siblings(self, node: Node, needed: list[Unit]) -> list[Unit]:
        """Units over the same domain that read one of the node's operands from memory already."""
        wide = [s for s in node.shape if s != 1]
        if not wide:
            return [u for u in self.units if u.kind == "map" and all(s == 1 for s in u.axes) and u not in needed][-4:]
        found = []
        bases = {self._base(i) for i in node.inputs}
        for base in bases:
            for reader in self.users.get(base, ()):
                unit = self.unit_of.get(reader)
                if unit is not None and unit not in needed and unit not in found and unit.kind != "contract":
                    found.append(unit)
        return found[:8]

    def _placement(self, shape: Shape, unit: Unit) -> tuple[Index, ...] | None:
        """Where a value of `shape` stands in the unit's domain: everywhere, or (in rows) on the kept axes."""
        wide = [s for s in shape if s != 1]
        choices = [tuple(range(len(unit.axes)))]
        if unit.kind == "row":
            choices.append(unit.kept)
        for choice in choices:
            real = [a for a in choice if unit.axes[a] != 1]
            if [unit.axes[a] for a in real] == wide:
                variables = iter(real)
                return tuple(ZERO if s == 1 else axis(next(variables)) for s in shape)
        return None

    def _fits(self, node: Node, unit: Unit, needed: list[Unit]) -> tuple[Index, ...] | None:
        """The node's placement if it can join the unit, else None."""
        if unit.kind not in ("map", "row", "column", "contract") or len(unit.nodes) >= MAX_NODES:
            return None
        if self._bits(needed, unit) & self.masks[unit.number]:
            return None  # something between the unit and the node would have to run in between
        if unit.kind == "contract" and (node.op.kind != "elementwise" or self._updates_state(node)):
            return None
        placement = self._placement(node.shape, unit)
        if placement is None or not self._operands_fit(node, placement, unit):
            return None
        return placement

    def _updates_state(self, node: Node) -> bool:
        """Whether the node is part of a state's update; those run together, not behind one product."""
        return any(
            self._base(i) in self.updated and self._base(i).shape == node.shape and node.shape != () for i in node.inputs
        )

    def _operands_fit(self, node: Node, placement: tuple[Index, ...], unit: Unit) -> bool:
        """Whether every operand that the unit computes is at hand where the node needs it."""
        if node.op.kind == "pad" or node.op.name == "random_bits":
            return not any(self.unit_of.get(self._base(i)) is unit for i in node.inputs)
        stack = list(elementwise_operands(node, placement))
        if node.op.kind == "gather" and not self._gathers_from(node, placement, unit):
            return False
        while stack:
            operand, index = stack.pop()
            if operand is node:  # a stored view: look at what it shows
                source = operand.inputs[0]
                mapped = None
                if not (operand.op.name == "reshape" and splits(operand)):
                    mapped = operand.op.lowering.index(index, source.shape, operand.shape, **operand.attrs)
                if mapped is None:
                    if self.unit_of.get(strip_reshapes(operand)) is unit:
                        return False
                    continue
                access = resolve(source, mapped, self.stored)
            else:
                access = resolve(operand, index, self.stored)
            if not self._at_hand(access, unit):
                return False
            if access.base in self.inline and not is_view(access.base):
                stack.extend(elementwise_operands(access.base, access.index))
        return True

    def _gathers_from(self, node: Node, placement: tuple[Index, ...], unit: Unit) -> bool:
        """Whether the source of a gather is in memory, or can be computed again at the gathered place.

        So the log-probability of a label is taken inside the row kernel that makes the log-probabilities.
        """
        source, dim = node.inputs[0], node.attrs["dim"]
        if self.unit_of.get(self._base(source)) is not unit:
            return True
        if node.op.name != "gather" or node.shape[dim] != 1:
            return False
        place = Index.of("gathered")
        index = tuple(place if d == dim else i for d, i in enumerate(placement))
        stack, budget = [(source, index)], 16
        while stack:
            operand, at_index = stack.pop()
            access = resolve(operand, at_index, self.stored)
            if self.unit_of.get(access.base) is unit and (access.flat is not None or unit.placement[access.base] != access.index):
                budget -= 1
                if access.flat is not None or access.base.op.kind != "elementwise" or budget < 0:
                    return False
                stack.extend(elementwise_operands(access.base, access.index))
            elif access.base in self.inline:
                stack.extend(elementwise_operands(access.base, access.index))
        return True

    def _at_hand(self, access: Access, unit: Unit) -> bool:
        if self.unit_of.get(access.base) is not unit:
            return True
        if access.flat is not None:
            return False
        return unit.placement[access.base] == access.index

    def _merge(self, unit: Unit, other: Unit) -> None:
        """Takes `other` into `unit` where domains agree and nothing has to run between them."""
        kinds = {unit.kind, other.kind}
        if not kinds <= {"map", "row", "column", "contract"} or len(unit.nodes) + len(other.nodes) > MAX_NODES:
            return
        if [s for s in unit.axes if s != 1] != [s for s in other.axes if s != 1] or not any(s != 1 for s in unit.axes):
            return
        if unit.axes != other.axes or (unit.reduced and other.reduced and unit.reduced != other.reduced):
            return
        if "contract" in kinds and (kinds != {"contract", "map"} or any(self._updates_state(n) for n in other.nodes)):
            return
        if "contract" in kinds and any(n.op.kind != "elementwise" for u in (unit, other) if u.kind == "map" for n in u.nodes):
            return
        if "column" in kinds and "row" in kinds:
            return
        a, b = self.masks[unit.number], self.masks[other.number]
        for between in self.units:
            if between is unit or between is other:
                continue
            mask, above = self.masks[between.number], self.ancestors[between.number]
            if (above & a and self.ancestors[other.number] & mask) or (above & b and self.ancestors[unit.number] & mask):
                return
        for node in other.nodes:
            for reader in self.users[node]:
                if self.unit_of.get(reader) is unit and not self._operands_fit_after(reader, unit, other):
                    return
        first = unit.kind if unit.kind != "map" else other.kind
        product = unit if unit.kind == "contract" else other
        unit.nodes = sorted([*unit.nodes, *other.nodes], key=self.positions.__getitem__)
        if first == "contract":
            head = product.nodes[0]
            unit.nodes.sort(key=lambda n: n is not head)
        unit.kind, unit.reduced = first, unit.reduced or other.reduced
        unit.placement.update(other.placement)
        for node in other.nodes:
            self.unit_of[node] = unit
        self.masks[unit.number] |= b
        merged = (self.ancestors[unit.number] | self.ancestors[other.number]) & ~self.masks[unit.number]
        self.ancestors[unit.number] = merged
        self.units.remove(other)
        for third in self.units:
            if third is not unit and self.ancestors[third.number] & self.masks[unit.number]:
                self.ancestors[third.number] |= merged | self.masks[unit.number]

    def _operands_fit_after(self, reader: Node, unit: Unit, other: Unit) -> bool:
        """Whether a node of `unit` that reads from `other` finds the value at its place once they are one."""
        if reader.op.kind == "reduction":
            return False
        for operand, index in elementwise_operands(reader, unit.placement[reader]):
            if operand is reader:
                return False
            access = resolve(operand, index, self.stored)
            if self.unit_of.get(access.base) is other and (
                access.flat is not None or other.placement[access.base] != access.index
            ):
                return False
        return True

    # -------------------------------------------------------------------------------------- reductions

    def _add_reduction(self, node: Node, needed: list[Unit]) -> None:
        source = node.inputs[0]
        dims = tuple(d for d in node.attrs["dims"] if source.shape[d] != 1)
        rows = [u for u in self._siblings(node, needed) if u.reduced]  # a map of its own business stays a map
        for unit in [*sorted(needed, key=lambda u: -u.number), *rows] if self.join else ():
            if self._join_reduction(node, dims, unit, needed):
                return
        self._start_reduction(node, dims, needed)

    def _join_reduction(self, node: Node, dims: tuple[int, ...], unit: Unit, needed: list[Unit]) -> bool:
        source = node.inputs[0]
        if unit.kind not in ("map", "row", "column") or len(unit.nodes) >= MAX_NODES:
            return False
        if self._bits(needed, unit) & self.masks[unit.number]:
            return False
        real = [a for a in range(len(unit.axes)) if unit.axes[a] != 1]
        if [unit.axes[a] for a in real] != [s for s in source.shape if s != 1]:
            return False
        variables = iter(real)
        index = tuple(ZERO if s == 1 else axis(next(variables)) for s in source.shape)
        reduced = tuple(int(next(iter(index[d].terms))[1:]) for d in dims)
        last = [a for a in real if a not in reduced]
        kind = "row" if not last or not reduced or max(last) < min(reduced) else "column"
        if unit.reduced and (unit.reduced != reduced or unit.kind != kind):
            return False
        if kind == "column" and (node.op.lowering.arg or list(reduced) != _run(reduced, real)):
            return False
        if kind == "column" and self._is_narrow(unit, reduced):
            return False
        access = resolve(source, index, self.stored)
        stack = [access]
        while stack:
            found = stack.pop()
            if not self._at_hand(found, unit):
                return False
            if found.base in self.inline and not is_view(found.base):
                stack.extend(resolve(o, i, self.stored) for o, i in elementwise_operands(found.base, found.index))
        unit.kind, unit.reduced = kind, reduced
        placement = tuple(ZERO if d in node.attrs["dims"] else i for d, i in enumerate(index))
        self._join(node, unit, placement, needed)
        return True

    def _is_narrow(self, unit: Unit, reduced: tuple[int, ...]) -> bool:
        """A map kernel whose values are stored anyway loses its parallel rows to a few columns."""
        width = unit.axes[-1]
        return isinstance(width, int) and width < 16

    def _start_reduction(self, node: Node, dims: tuple[int, ...], needed: list[Unit]) -> None:
        source = node.inputs[0]
        real = [d for d, s in enumerate(source.shape) if s != 1]
        kept = [d for d in real if d not in dims]
        trailing = not kept or not dims or max(kept) < min(dims)
        order = real
        kind = "row"
        if not trailing:
            if node.op.lowering.arg or list(dims) != _run(dims, real):
                order = [*kept, *dims]
            else:
                kind = "column"
        unit = Unit(max(self.masks, default=-1) + 1, kind, tuple(source.shape[d] for d in order))
        self.units.append(unit)
        self.masks[unit.number] = 1 << unit.number
        self.ancestors[unit.number] = 0
        unit.reduced = tuple(order.index(d) for d in dims)
        index = {d: axis(order.index(d)) for d in order}
        placement = tuple(ZERO if d in node.attrs["dims"] or d not in index else index[d] for d in range(len(source.shape)))
        self._join(node, unit, placement, needed)

    # -------------------------------------------------------------------------------------- results

    def _choose_outputs(self) -> None:
        """A unit stores what roots, addresses or other units need."""
        wanted = set(self.stored)
        for unit in self.units:
            for node in unit.nodes:
                stack, seen = list(node.inputs), set()
                while stack:
                    current = stack.pop()
                    if current in seen or current.op.kind in ("input", "const"):
                        continue
                    seen.add(current)
                    home = self.unit_of.get(current)
                    if home is None:
                        stack.extend(current.inputs)
                    elif home is not unit:
                        wanted.add(current)
        self.stored = wanted
        for unit in self.units:
            unit.outputs = [n for n in unit.nodes if n in wanted]

    def _sorted(self) -> list[Unit]:
        """Units by dependency, otherwise in the program's order."""
        first = {u: max(self.positions[n] for n in u.nodes) for u in self.units}
        waiting = sorted(self.units, key=first.__getitem__)
        done_bits, result = 0, []
        every = 0
        for unit in self.units:
            every |= self.masks[unit.number]
        while waiting:
            for unit in waiting:
                if self.ancestors[unit.number] & every & ~done_bits & ~self.masks[unit.number] == 0:
                    break
            else:
                raise AssertionError("units depend on each other in a circle")
            waiting.remove(unit)
            done_bits |= self.masks[unit.number]
            result.append(unit)
        return result


def _run(reduced: tuple[int, ...], real: list[int]) -> list[int]:
    """The run of real axes from the first reduced one, as long as there are reduced ones."""
    start = real.index(min(reduced))
    return real[start : start + len(reduced)]
