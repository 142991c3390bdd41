"""From units to a command buffer: where every value lives, in what order kernels run, and where they must
wait.

A state's new value is written straight into its memory where every reader of the old value can run before;
otherwise it is built elsewhere and copied at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphflow.compiler.access import strip_reshapes
from graphflow.compiler.codegen.emit import Emitted, emit
from graphflow.compiler.codegen.kernel import Loops, kernel_name
from graphflow.compiler.codegen.loops import Plan
from graphflow.compiler.codegen.scalar import Memory, Status
from graphflow.compiler.indexing import Index, Shape, Size
from graphflow.compiler.ir import OPS, Graph, Node
from graphflow.compiler.passes.control import Region, Shared, Step, lower
from graphflow.compiler.passes.dependencies import Dependencies
from graphflow.compiler.passes.embed import Embedded, embed
from graphflow.compiler.passes.fuse import fuse
from graphflow.compiler.passes.inplace import overwritten, reads_in_place
from graphflow.compiler.passes.order import ordered
from graphflow.compiler.passes.prepack import prepack
from graphflow.compiler.passes.unit import Fused, Unit
from graphflow.dtypes import DType, int64
from graphflow.runtime.program import Buffer

Call = tuple[Emitted | Region, tuple[Node, ...], str]  # what to run, the nodes it computes, and its name


@dataclass(frozen=True)
class Layout:
    """The command order with buffers: everything but machine code."""

    graph: Graph
    steps: tuple[Step, ...]
    buffers: tuple[Buffer, ...]
    inputs: tuple[int, ...]
    states: tuple[int, ...]
    outputs: tuple[int, ...]
    checks: tuple[
        Node, ...
    ]  # nodes whose indices are checked; the status state holds the number of the one that failed
    places: Mapping[Node, int]  # the buffer of every value that is stored, updates that are copied apart


def lay_out(fused: Fused, join: bool = True) -> Layout:
    """Orders the units, gives every stored value a buffer, and writes the kernels."""
    return _Planner(fused, Shared(join)).run()


def lay_out_body(graph: Graph, shared: Shared, inputs: Sequence[int], outputs: Sequence[int]) -> list[Step]:
    """The steps of a sub-graph whose inputs and outputs are in buffers that are there already."""
    planner = _Planner(fuse(graph, shared.join), shared)
    return planner.run_body(inputs, outputs)


@dataclass
class _Planner:
    fused: Fused
    shared: Shared
    buffer_of: dict[Node, int] = field(default_factory=dict)
    needs: Dependencies[Unit] = field(default_factory=Dependencies)
    temporaries: dict[object, int] = field(default_factory=dict)
    embedded: Embedded = field(default_factory=Embedded)
    in_body: bool = False

    def run(self) -> Layout:
        graph = self.fused.graph
        inputs = [self._buffer("input", n, n.attrs["name"]) for n in graph.args]
        states = [self._buffer("state", n, n.attrs["name"]) for n in graph.states]
        for node, buffer in zip(graph.inputs, [*inputs, *states], strict=True):
            self.buffer_of[node] = buffer
        outputs = []
        for number, root in enumerate(graph.outputs):
            outputs.append(self._buffer("output", root, f"out{number}"))
            self.buffer_of[strip_reshapes(root)] = outputs[-1]
        steps = self._steps(states)
        if self.shared.join:
            steps = prepack(steps, self.shared)
        status = self.shared.status
        if status.nodes:
            states.append(status.buffer)
        elif status.buffer >= 0:  # what would have looked at an index isn't computed after all
            self.buffers[status.buffer] = replace(self.buffers[status.buffer], role="temp")
        return Layout(
            graph,
            tuple(steps),
            tuple(self._with_lifetimes(steps)),
            tuple(inputs),
            tuple(states),
            tuple(outputs),
            tuple(self.shared.status.nodes),
            self.shared.places,
        )

    def run_body(self, inputs: Sequence[int], outputs: Sequence[int]) -> list[Step]:
        """As `run`, for a sub-graph."""
        graph = self.fused.graph
        self.in_body = True
        self.buffer_of.update(zip(graph.inputs, inputs, strict=True))
        self.buffer_of.update(zip(map(strip_reshapes, graph.outputs), outputs, strict=True))
        return self._steps(inputs[len(graph.args) :])

    def _steps(self, states: Sequence[int]) -> list[Step]:
        self._find_needs()
        copies = self._place_updates(states)
        for unit in self.fused.units:
            if unit.kind == "control":
                self._place_carries(unit)
        if self.shared.join:
            self.embedded = embed(self.fused, self.buffer_of)
        order, sources = self._ordered()
        elsewhere = self.buffer_of.keys() | self.embedded.parts.keys() | self.embedded.runs.keys()
        own = {node for unit in order for node in unit.outputs} - elsewhere
        over: dict[Node, Node] = {}
        if self.shared.join:
            over = overwritten(self.fused, order, sources, own - self.embedded.holders())
        for unit in order:
            for node in unit.outputs:
                if node in over:
                    self.buffer_of[node] = self.buffer_of[over[node]]
                elif node in own:
                    self.buffer_of[node] = self._buffer("temp", node, node.op.name)
        for node in self.embedded.runs:
            self._place_run(node)
        status = self.shared.status
        if status.buffer < 0 and any(_checks(node) for node in self.fused.graph.nodes()):
            status.buffer = self.shared.new_buffer(Buffer("state", int64, (2,), "status"))
        steps = self._emit(order, copies, status)
        self.shared.add_places(self.buffer_of)
        return steps

    def _place_carries(self, unit: Unit) -> None:
        """A loop's last carries are where its first ones were."""
        loop = unit.nodes[0]
        last = {node.attrs["index"]: node for node in unit.nodes[1:]}
        for number in range(loop.attrs.get("carries", 0)):
            first = strip_reshapes(loop.inputs[number])
            result = last.get(number, first)
            if result not in self.buffer_of:
                self.buffer_of[result] = self._buffer("temp", result, loop.op.name)
            self.buffer_of[first] = self.buffer_of[result]

    def _place_run(self, node: Node) -> None:
        """A value's place in the memory of another, which may be in that of yet another."""
        whole: Node = node
        start: Size = 0
        while whole in self.embedded.runs:
            whole, offset = self.embedded.runs[whole]
            start = start + offset
        self.buffer_of[node] = self.shared.run(self.buffer_of[whole], node.type, node.op.name, start)

    @property
    def buffers(self) -> list[Buffer]:
        """All buffers of the program."""
        return self.shared.buffers

    def _buffer(self, role: str, node: Node, name: str) -> int:
        self.buffers.append(Buffer(role, node.dtype, node.shape, name))  # type: ignore[arg-type]
        return len(self.buffers) - 1

    def _temporary(self, key: object, dtype: DType, shape: Shape) -> int:
        number = self.temporaries.setdefault(key, len(self.buffers))
        # A kernel is written twice, and knows its axes only the second time.
        self.buffers[number:] = [Buffer("temp", dtype, shape, "partial"), *self.buffers[number + 1 :]]
        return number

    # -------------------------------------------------------------------------------------- order

    def _reads(self, unit: Unit) -> set[Node]:
        """Inputs and other units' nodes that the unit reads."""
        found: set[Node] = set()
        stack, seen = [i for n in unit.nodes for i in n.inputs], set(unit.nodes)
        while stack:
            node = stack.pop()
            if node in seen or node.op.kind == "const":
                continue
            seen.add(node)
            if node.op.kind == "input" or node in self.fused.unit_of:
                found.add(node)
            else:
                stack.extend(node.inputs)
        return found

    def _find_needs(self) -> None:
        self.readers: dict[Node, list[Unit]] = {}
        for unit in self.fused.units:
            self.needs.add(unit)
        for unit in self.fused.units:
            sources = []
            for node in self._reads(unit):
                if node.op.kind == "input":
                    self.readers.setdefault(node, []).append(unit)
                else:
                    sources.append(self.fused.unit_of[node])
            self.needs.need(unit, sources)

    def _place_updates(self, states: Sequence[int]) -> list[tuple[Node, int]]:
        """Lets new values be written into their states where that is safe; gives what has
        to be copied at the end.
        """
        copies = []
        self.writers: set[Unit] = set()
        ending = [] if self.in_body else [u for u in self.fused.units if self._may_end_run(u)]
        for number, root in self.fused.graph.updates:
            base, state = strip_reshapes(root), self.fused.graph.states[number]
            unit = self.fused.unit_of[base]
            readers = self.readers.get(state, [])
            others = [u for u in readers if u is not unit]
            late = any(self.needs.needs(u, unit) for u in others)
            # A state keeps its value when the run ends there or later.
            early = unit in ending or any(self.needs.needs(u, unit) for u in ending)
            inside = unit.kind == "control"
            in_place = unit not in readers or reads_in_place(self.fused, unit, state, base)
            if late or early or inside or not in_place:
                copies.append((base, states[number]))
            else:
                self.buffer_of[base] = states[number]
                self.needs.need(unit, others)
                self.writers.add(unit)
        return copies

    def _may_end_run(self, unit: Unit) -> bool:
        """Whether a run may end in the unit: at a bad index, also of a value that is computed again there, or
        by Ctrl-C in a loop.
        """
        stack, seen = list(unit.nodes), set[Node]()
        while stack:
            node = stack.pop()
            if _checks(node) or _loops(node):
                return True
            seen.add(node)
            stack += [i for i in node.inputs if i not in seen and i not in self.fused.unit_of]
        return False

    def _ordered(self) -> tuple[list[Unit], dict[Unit, set[Node]]]:
        """Units in dependency order, those that write states as late as possible (so next to each other), and
        the stored values that each reads.
        """
        found = {unit: self._reads(unit) & self.fused.stored for unit in self.fused.units}
        return ordered(self.needs, self.writers, found, self._is_temporary), found

    def _is_temporary(self, node: Node) -> bool:
        if node in self.embedded.parts:
            node = self.embedded.parts[node][0].whole
        elif node in self.embedded.runs:
            return False
        return node not in self.buffer_of or self.buffers[self.buffer_of[node]].role == "temp"

    # -------------------------------------------------------------------------------------- kernels

    def _emit(self, order: Sequence[Unit], copies: list[tuple[Node, int]], status: Status) -> list[Step]:
        done: list[Call] = []
        memory = Memory(
            self.buffer_of.__getitem__, self.fused.stored, status, self._temporary, self.embedded.parts
        )
        late: dict[Unit, list[Call]] = {}  # second kernels, which add up what first ones leave
        for unit in order:
            if unit in self.writers or not late.keys().isdisjoint(self.needs.direct[unit]):
                done += [
                    part for parts in late.values() for part in parts
                ]  # all at once: one barrier for all
                late.clear()
            if unit.kind == "control":
                region = lower(unit.nodes, self.buffer_of, self.shared, lay_out_body)
                done.append((region, tuple(unit.nodes), unit.nodes[0].op.name))
                continue
            if unit.nodes[0] in self.embedded.cuts:
                continue  # it is there already
            plan = Plan(
                unit.kind, unit.axes, unit.reduced, tuple(unit.nodes), unit.placement, tuple(unit.outputs)
            )
            name, nodes = kernel_name(unit.nodes), (*unit.nodes, *self._completed(unit))
            parts: list[Call] = [(part, nodes, name) for part in emit(plan, memory, name)]
            if unit.kind in ("row", "column", "fold", "tiled"):
                done.append(parts[0])
                if len(parts) > 1:
                    late[unit] = parts[1:]
            else:
                done += parts
        done += [part for parts in late.values() for part in parts]
        for node, state in copies:
            done.append((_copy(node, self.buffer_of[node], state), (node,), "update"))
        return self._with_barriers(_alike(done, self.shared.memory_of), status)

    def _completed(self, unit: Unit) -> list[Node]:
        """Concatenations of which the unit writes all parts."""
        parts = {n: {place.whole for place in self.embedded.parts.get(n, ())} for n in unit.outputs}
        wholes = dict.fromkeys(place.whole for n in parts for place in self.embedded.parts.get(n, ()))
        return [whole for whole in wholes if all(whole in parts.get(i, ()) for i in whole.inputs)]

    def _with_barriers(self, runs: Sequence[Sequence[Call]], status: Status) -> list[Step]:
        """The calls in order with barriers where they have to wait, loops and branches written out."""
        steps: list[Step] = []
        changing = behind_region = False
        written: set[int] = set()
        read: set[int] = set()
        for calls in runs:
            reads = {self.shared.memory_of(b) for emitted, _, _ in calls for b in emitted.reads}
            writes = {self.shared.memory_of(b) for emitted, _, _ in calls for b in emitted.writes}
            is_region = isinstance(calls[0][0], Region)
            barrier = bool(written & (reads | writes) or read & writes) or is_region or behind_region
            behind_region = is_region
            if status.nodes and not changing and any(self.buffers[b].role == "state" for b in writes):
                barrier = changing = True  # no state changes before every index has been checked
            if barrier:
                written, read = set(), set()
            written |= writes
            read |= reads
            for number, (emitted, nodes, name) in enumerate(calls):
                if isinstance(emitted, Region):
                    steps += emitted.steps
                else:
                    steps.append(Step(emitted, nodes, name, barrier and number == 0))
        return steps

    def _with_lifetimes(self, steps: Sequence[Step]) -> list[Buffer]:
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for number, step in enumerate(steps):
            for buffer in map(self.shared.memory_of, (*step.emitted.reads, *step.emitted.writes)):
                first.setdefault(buffer, number)
                last[buffer] = number
        return [replace(b, first=first.get(i, 0), last=last.get(i, 0)) for i, b in enumerate(self.buffers)]


def _checks(node: Node) -> bool:
    """Whether kernels of the node look at indices."""
    graphs = [v for v in node.attrs.values() if isinstance(v, Graph)]
    inside = any(_checks(inner) for graph in graphs for inner in graph.nodes())
    return inside or node.op.kind in ("gather", "scatter") or node.op.name == "checked_index"


def _loops(node: Node) -> bool:
    """Whether there is a loop in the node."""
    graphs = [v for v in node.attrs.values() if isinstance(v, Graph)]
    return node.op.name in ("scan", "while_loop") or any(_loops(i) for graph in graphs for i in graph.nodes())


def _alike(calls: Sequence[Call], memory_of: Callable[[int], int]) -> list[list[Call]]:
    """Runs of calls of the same kernel that don't wait for each other: they become one command."""
    runs: list[list[Call]] = []
    written: set[int] = set()
    for call in calls:
        emitted = call[0]
        first = runs[-1][0][0] if runs else None
        writes = {memory_of(b) for b in emitted.writes}
        touched = {memory_of(b) for b in emitted.reads} | writes
        read = {memory_of(b) for other, _, _ in runs[-1] for b in other.reads} if runs else set()
        if (
            isinstance(emitted, Loops)
            and isinstance(first, Loops)
            and emitted.function == first.function
            and written.isdisjoint(touched)
            and read.isdisjoint(writes)
        ):
            runs[-1].append(call)
            written |= writes
        else:
            runs.append([call])
            written = writes
    return runs


def _copy(node: Node, source: int, target: int) -> Emitted:
    """The kernel that copies one buffer into another of the same type."""
    result = OPS["alias"](node, uid=-1)
    place = tuple(Index() if s == 1 else Index.of(f"a{i}") for i, s in enumerate(node.shape))
    plan = Plan("map", node.shape, (), (result,), {result: place}, (result,))
    where: Callable[[Node], int] = lambda n: target if n is result else source  # noqa: E731
    memory = Memory(where, frozenset({node}), Status(-1), lambda key, dtype, shape: -1)
    return emit(plan, memory, "copy")[0]
