"""Loops and branches as part of the command order: steps that decide what comes next, around the steps of
their sub-graphs.

A carry is a state of the body: its new value is written in its place where that is safe. Elements of
sequences and of stacked results are parts of whole buffers, which every round moves on. What the body
captures is where it was computed, outside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from graphflow.compiler.access import strip_reshapes
from graphflow.compiler.codegen.emit import Emitted
from graphflow.compiler.codegen.scalar import Status
from graphflow.compiler.indexing import numel
from graphflow.compiler.ir import Graph, Node, Size, TensorType, input_node, substitute
from graphflow.dtypes import bool_
from graphflow.runtime.program import Buffer, Part


@dataclass(frozen=True)
class Mark:
    """A step that decides: see ``runtime.program.Control``. A region ends behind the last of its marks."""

    kind: Literal["loop", "end", "branch", "jump"]
    region: int
    length: Size | None = None
    flag: int | None = None

    @property
    def reads(self) -> tuple[int, ...]:
        """The buffer it decides by."""
        return () if self.flag is None else (self.flag,)

    @property
    def writes(self) -> tuple[int, ...]:
        """Nothing."""
        return ()


@dataclass(frozen=True)
class Step:
    """One kernel call in order: what to run, which nodes it computes, whether it waits for all before it."""

    emitted: Emitted | Mark
    nodes: tuple[Node, ...]
    name: str
    barrier: bool


@dataclass(frozen=True)
class Region:
    """A loop or branch with everything in it, in order."""

    steps: tuple[Step, ...]

    @property
    def reads(self) -> tuple[int, ...]:
        """Buffers that some step reads."""
        return tuple(dict.fromkeys(b for step in self.steps for b in step.emitted.reads))

    @property
    def writes(self) -> tuple[int, ...]:
        """Buffers that some step writes."""
        return tuple(dict.fromkeys(b for step in self.steps for b in step.emitted.writes))


@dataclass
class Shared:
    """What the planners of a graph and of its sub-graphs share."""

    join: bool = True
    buffers: list[Buffer] = field(default_factory=list)
    status: Status = field(default_factory=lambda: Status(-1))
    places: dict[Node, int] = field(default_factory=dict)
    regions: int = 0
    _twice: set[Node] = field(default_factory=set)

    def new_region(self) -> int:
        """The number of another loop or pair of branches."""
        self.regions += 1
        return self.regions - 1

    def new_buffer(self, buffer: Buffer) -> int:
        """The number of another buffer."""
        self.buffers.append(buffer)
        return len(self.buffers) - 1

    def memory_of(self, buffer: int) -> int:
        """The buffer in whose memory a buffer lies: itself, or what it is a part of."""
        part = self.buffers[buffer].part
        return buffer if part is None else part.buffer

    def element(self, whole: int, type_: TensorType, name: str, loop: int, first: Size, step: int) -> int:
        """A new part of a buffer: its element `first`, moving on by `step` elements in every round."""
        size = numel(type_.shape)
        return self.run(whole, type_, name, first * size, (loop, size * step))

    def run(self, whole: int, type_: TensorType, name: str, start: Size, *steps: tuple[int, Size]) -> int:
        """A new part of a buffer: a run of its elements from `start` on."""
        outer = self.buffers[whole].part or Part(whole, 0, ())
        part = Part(outer.buffer, outer.start + start, (*outer.steps, *steps))
        return self.new_buffer(Buffer("part", type_.dtype, type_.shape, name, part=part))

    def add_places(self, found: Mapping[Node, int]) -> None:
        """Notes where values are; a value that has two places (constants, in a loop and outside) has none."""
        for node, buffer in found.items():
            if self.places.setdefault(node, buffer) != buffer:
                self._twice.add(node)
        for node in self._twice:
            self.places.pop(node, None)


# Lays out a sub-graph: graph, what is shared, buffers of its inputs (arguments, states) and of its outputs.
LayOut = Callable[[Graph, Shared, Sequence[int], Sequence[int]], list[Step]]


def lower(nodes: Sequence[Node], place: Mapping[Node, int], shared: Shared, lay_out: LayOut) -> Region:
    """The steps of a control node, the first of `nodes`; the others are its results that are used."""
    node = nodes[0]
    operands = [place[strip_reshapes(i)] for i in node.inputs]
    results = {result.attrs["index"]: place[result] for result in nodes[1:]}
    return _Lowering(node, operands, results, shared, lay_out).region()


class _Lowering:
    def __init__(
        self, node: Node, operands: list[int], results: dict[int, int], shared: Shared, lay_out: LayOut
    ):
        self.node, self.operands, self.results = node, operands, results
        self.shared, self.lay_out = shared, lay_out
        self.number = shared.new_region()
        self.steps: list[Step] = []

    def region(self) -> Region:
        {"scan": self._scan, "cond": self._cond, "while_loop": self._while}[self.node.op.name]()
        steps = self.steps
        for i in range(1, len(steps)):  # threads that don't take part in a decision may be ahead of it
            if isinstance(steps[i - 1].emitted, Mark):
                steps[i] = replace(steps[i], barrier=True)
        return Region(tuple(steps))

    def _mark(
        self,
        kind: Literal["loop", "end", "branch", "jump"],
        length: Size | None = None,
        flag: int | None = None,
    ) -> None:
        mark = Mark(kind, self.number, length, flag)
        self.steps.append(Step(mark, (), f"{self.node.op.name}_{kind}", True))

    def _body(
        self, graph: Graph, states: int, inputs: Sequence[int], wanted: Sequence[int], outputs: Sequence[int]
    ) -> None:
        """The steps of a sub-graph whose first arguments are states, and their new values its first results.

        The results `wanted` go to the buffers `outputs`. All nodes are made anew: another loop may have the
        same.
        """
        args = [input_node(str(a.attrs["name"]), a.type, a.loc) for a in graph.args]
        roots = substitute(graph.outputs, dict(zip(graph.args, args, strict=True)))
        changed = tuple((i, roots[i]) for i in range(states) if roots[i] is not args[i])
        results = tuple(roots[i] for i in wanted)
        body = Graph(graph.name, tuple(args[states:]), tuple(args[:states]), results, changed)
        self.steps += self.lay_out(body, self.shared, (*inputs[states:], *inputs[:states]), outputs)

    def _scan(self) -> None:
        attrs, node = self.node.attrs, self.node
        body, carries, sequences = attrs["body"], attrs["carries"], attrs["sequences"]
        length, reverse = attrs["length"], attrs["reverse"]
        first, step = (length - 1, -1) if reverse else (0, 1)

        def element(whole: int, type_: TensorType, name: str) -> int:
            return self.shared.element(whole, type_, name, self.number, first, step)

        inputs = list(self.operands)
        for i in range(carries, carries + sequences):
            arg = body.args[i]
            inputs[i] = element(inputs[i], arg.type, arg.attrs["name"])
        wanted = [i for i in range(carries, len(body.outputs)) if i in self.results]
        outputs = [element(self.results[i], body.outputs[i].type, f"{node.op.name}{i}") for i in wanted]
        self._mark("loop", length)
        self._body(body, carries, inputs, wanted, outputs)
        self._mark("end")

    def _while(self) -> None:
        attrs = self.node.attrs
        flag = self.shared.new_buffer(Buffer("temp", bool_, (), "go_on"))
        self._mark("loop")
        self._body(attrs["condition"], 0, self.operands, [0], [flag])
        self._mark("branch", flag=flag)
        self._body(attrs["body"], attrs["carries"], self.operands, [], [])
        self._mark("end")

    def _cond(self) -> None:
        flag, *inputs = self.operands
        wanted = sorted(self.results)
        outputs = [self.results[i] for i in wanted]
        self._mark("branch", flag=flag)
        for branch in ("then", "otherwise"):
            self._body(self.node.attrs[branch], 0, inputs, wanted, outputs)
            self._mark("jump")


__all__ = ["LayOut", "Mark", "Region", "Shared", "Step", "lower"]
