"""What became of a function: every stage as data, and as text."""

from __future__ import annotations

from dataclasses import dataclass

from graphflow.compiler.ir import Graph, Node
from graphflow.compiler.pipeline import Compiled
from graphflow.dims import Dim
from graphflow.runtime.executor import Executor
from graphflow.runtime.program import FunctionArg

Size = int | Dim


@dataclass(frozen=True)
class KernelReport:
    """One command: its kernel, the user's lines it computes, and what it moves and computes
    (sizes may be symbolic).
    """

    label: str
    kernel: str
    source: str
    ops: tuple[str, ...]
    lines: tuple[str, ...]
    bytes: Size
    flops: Size


@dataclass(frozen=True)
class MemoryReport:
    """Bytes by role, and the arena for each set of sizes that has run."""

    inputs: Size
    states: Size
    outputs: Size
    temporaries: Size
    arenas: tuple[tuple[dict[str, int], int], ...]


class Explanation:
    """The stages of one compiled variant: ``graph``, ``stages``, ``kernels``, ``memory``;
    ``print`` it for the text.
    """

    def __init__(self, compiled: Compiled, executor: Executor, variants: list[str]):
        self._compiled = compiled
        self._executor = executor
        self.variants = variants

    @property
    def graph(self) -> Graph:
        """The graph as traced: forward, gradient and update."""
        return self._compiled.graph

    @property
    def stages(self) -> dict[str, Graph]:
        """The graph after each pass, in order; a pass that runs twice has a number behind its name."""
        found: dict[str, Graph] = {}
        for name, graph in self._compiled.stages:
            label, count = name, 1
            while label in found:
                count += 1
                label = f"{name}_{count}"
            found[label] = graph
        return found

    @property
    def kernels(self) -> list[KernelReport]:
        """The commands in order."""
        program = self._compiled.program
        reports = []
        for command, nodes in zip(program.commands, self._compiled.command_nodes, strict=True):
            kernels = () if command.control else (program.kernels[command.kernel],)
            inner = [program.kernels[a.kernel] for a in command.args if isinstance(a, FunctionArg)]
            source = "\n".join(k.source for k in (*kernels, *inner) if k.source and k.name != "shared_range")
            reports.append(
                KernelReport(
                    command.label,
                    program.kernel_name(command),
                    source,
                    tuple(dict.fromkeys(n.op.name for n in nodes)),
                    _lines(nodes),
                    command.bytes,
                    command.flops,
                )
            )
        return reports

    @property
    def memory(self) -> MemoryReport:
        """Bytes of every kind of buffer, and the planned arena of each assignment of sizes in use."""
        totals: dict[str, Size] = {"input": 0, "state": 0, "output": 0, "temp": 0}
        for buffer in self._compiled.program.buffers:
            if buffer.part is not None:
                continue  # of another buffer
            size: Size = buffer.dtype.itemsize
            for s in buffer.shape:
                size = size * s
            totals[buffer.role] = totals[buffer.role] + size
        arenas = []
        for values in self._executor.kept_assignments:
            arenas.append((values, self._executor.instance(values).arena_bytes))
        return MemoryReport(totals["input"], totals["state"], totals["output"], totals["temp"], tuple(arenas))

    @property
    def bytes(self) -> Size:
        """Bytes that one run moves to and from memory at least."""
        total: Size = 0
        for command in self._compiled.program.commands:
            total = total + command.bytes
        return total

    @property
    def flops(self) -> Size:
        """Arithmetic of one run, by the compiler's estimate."""
        total: Size = 0
        for command in self._compiled.program.commands:
            total = total + command.flops
        return total

    def __str__(self) -> str:
        program, memory = self._compiled.program, self.memory
        lines = [str(self.stages[next(reversed(self.stages))])]
        lines.append(f"\n{len(program.commands)} kernels")
        for report in self.kernels:
            lines.append(f"  {report.label}: {', '.join(report.ops)}")
            lines.append(
                f"    {report.bytes} bytes, {report.flops} flops; from {', '.join(report.lines) or 'no line'}"
            )
            lines += [f"    | {text}" for text in report.source.strip().splitlines()]
        lines.append("\nmemory")
        for name in ("inputs", "states", "outputs", "temporaries"):
            lines.append(f"  {name}: {getattr(memory, name)} bytes")
        for values, size in memory.arenas:
            told = ", ".join(f"{k}={v}" for k, v in values.items()) or "all sizes"
            lines.append(f"  arena for {told}: {size} bytes")
        lines.append(f"\none run: {self.bytes} bytes, {self.flops} flops")
        if self.variants:
            lines.append("\nvariants")
            lines += [f"  {v}" for v in self.variants]
        return "\n".join(lines)

    __repr__ = __str__


def _lines(nodes: tuple[Node, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(n.loc) for n in nodes if n.loc is not None))
