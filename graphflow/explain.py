"""What became of a function: every stage as data, and as text."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphflow.ceilings import Ceilings, ceilings
from graphflow.compiler.ir import Graph, Node, TensorType
from graphflow.dims import Dim, evaluate
from graphflow.dtypes import float64
from graphflow.engine import Engine
from graphflow.footprint import Peak, peak
from graphflow.runtime.program import FunctionArg

Size = int | Dim


@dataclass(frozen=True)
class KernelTime:
    """What a kernel took at best in profiled runs of the same sizes, beside what the machine can do.

    ``nanoseconds``, ``bytes`` and ``flops`` are those of one step, in which a loop's kernels run more than
    once.
    """

    sizes: dict[str, int]
    nanoseconds: int
    bytes: int
    flops: int
    threads: int
    ceilings: Ceilings

    @property
    def roofline(self) -> float:
        """The least time that its bytes and FLOPs need on this machine, by the time it took: 1 is as good as
        can be, and more means that its data was nearer than the step's other data.
        """
        return self.ceilings.nanoseconds(self.flops, self.bytes) / max(self.nanoseconds, 1)

    def __str__(self) -> str:
        told = ", ".join(f"{k}={v}" for k, v in self.sizes.items())
        # per nanosecond these are GB/s and GFLOP/s
        speed = f"{self.bytes / max(self.nanoseconds, 1):.1f} GB/s of {self.ceilings.bytes:.0f}"
        rate = f"{self.flops / max(self.nanoseconds, 1):.1f} GFLOP/s of {self.ceilings.flops:.0f}"
        count = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        taken = f"{self.nanoseconds / 1e3:.1f} us on {count}: {speed}, {rate}"
        taken = f"{taken}, {self.roofline:.0%} of the roofline"
        return f"{told}: {taken}" if told else taken


@dataclass(frozen=True)
class KernelReport:
    """One command: its kernel, the user's lines it computes, what it moves and computes (sizes may be
    symbolic), and what it took in runs that ``graphflow.profiler.profile`` saw.
    """

    label: str
    kernel: str
    source: str
    ops: tuple[str, ...]
    lines: tuple[str, ...]
    bytes: Size
    flops: Size
    times: tuple[KernelTime, ...] = ()


@dataclass(frozen=True)
class MemoryReport:
    """Bytes by role, and for each set of sizes that has run the arena and what is in it at its peak."""

    inputs: Size
    states: Size
    outputs: Size
    temporaries: Size
    peaks: tuple[Peak, ...]

    @property
    def arenas(self) -> tuple[tuple[dict[str, int], int], ...]:
        """Sizes, and the bytes of temporary memory that are allocated for them."""
        return tuple((peak.sizes, peak.arena) for peak in self.peaks)


class Explanation:
    """The stages of one compiled variant: ``graph``, ``stages``, ``kernels``, ``memory``;
    ``print`` it for the text.
    """

    def __init__(self, engine: Engine, variants: list[str]):
        self._engine = engine
        self._compiled = engine.compiled
        self._executor = engine.executor
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
        for number, (command, nodes) in enumerate(
            zip(program.commands, self._compiled.command_nodes, strict=True)
        ):
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
                    () if command.control else tuple(self._times(number, nodes)),
                )
            )
        return reports

    def _times(self, number: int, nodes: tuple[Node, ...]) -> Iterator[KernelTime]:
        types = [t for n in nodes for t in ([n.type] if isinstance(n.type, TensorType) else n.type.items)]
        itemsize = 8 if any(t.dtype is float64 for t in types) else 4
        for sizes, times in self._engine.fastest.items():
            t = times[number]
            if t.runs:  # a branch that wasn't taken has no time
                most = ceilings(itemsize, self._footprint(dict(sizes)), t.threads)
                yield KernelTime(dict(sizes), t.nanoseconds, t.bytes, t.flops, t.threads, most)

    def _footprint(self, sizes: dict[str, int]) -> int:
        """Bytes of all memory that one step goes through."""
        totals = self._totals()
        around = totals["input"] + totals["state"] + totals["output"]
        around = evaluate(around, sizes) if isinstance(around, Dim) else around
        return around + self._executor.instance(sizes).arena_bytes

    @property
    def memory(self) -> MemoryReport:
        """Bytes of every kind of buffer, and the peak of temporary memory for all sizes in use."""
        totals = self._totals()
        peaks = tuple(peak(self._compiled, values) for values in self._executor.kept_assignments)
        return MemoryReport(totals["input"], totals["state"], totals["output"], totals["temp"], peaks)

    def _totals(self) -> dict[str, Size]:
        """Bytes of all buffers by role."""
        totals: dict[str, Size] = {"input": 0, "state": 0, "output": 0, "temp": 0}
        for buffer in self._compiled.program.buffers:
            if buffer.part is not None:
                continue  # of another buffer
            size: Size = buffer.dtype.itemsize
            for s in buffer.shape:
                size = size * s
            totals[buffer.role] = totals[buffer.role] + size
        return totals

    def peak(self, **sizes: int) -> Peak:
        """The temporary memory that a run with these sizes of the symbols takes, and what for."""
        missing = set(self._compiled.program.symbols) - sizes.keys()
        if missing:
            raise TypeError(f"peak takes the size of {', '.join(sorted(missing))}")
        return peak(self._compiled, sizes)

    @property
    def bytes(self) -> Size:
        """Bytes that one run moves to and from memory at least."""
        return self._total([command.bytes for command in self._compiled.program.commands])

    @property
    def flops(self) -> Size:
        """Arithmetic of one run, by the compiler's estimate."""
        return self._total([command.flops for command in self._compiled.program.commands])

    def _total(self, amounts: list[Size]) -> Size:
        total: Size = 0
        for amount, times in zip(amounts, self._compiled.program.repeats(), strict=True):
            total = total + amount * times
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
            lines += [f"    {time}" for time in report.times]
            lines += [f"    | {text}" for text in report.source.strip().splitlines()]
        lines.append("\nmemory")
        for name in ("inputs", "states", "outputs", "temporaries"):
            lines.append(f"  {name}: {getattr(memory, name)} bytes")
        lines += [f"  {line}" for p in memory.peaks for line in str(p).splitlines()]
        lines.append(f"\none run: {self.bytes} bytes, {self.flops} flops")
        if self.variants:
            lines.append("\nvariants")
            lines += [f"  {v}" for v in self.variants]
        return "\n".join(lines)

    __repr__ = __str__


def _lines(nodes: tuple[Node, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(n.loc) for n in nodes if n.loc is not None))
