"""The passes in order, and their runner: verifying, timing and printing are its business, not theirs."""

from __future__ import annotations

import functools
import hashlib
import importlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from graphflow.compiler import printer
from graphflow.compiler.codegen import function, llvm, matmul, matmul_arguments, matmul_keep, products
from graphflow.compiler.codegen.kernel import Loops
from graphflow.compiler.codegen.matmul_gather import Packer
from graphflow.compiler.codegen.products import Operand, Packing, Product
from graphflow.compiler.ir import Graph, Node
from graphflow.compiler.passes.control import Mark, Step
from graphflow.compiler.passes.fuse import fuse
from graphflow.compiler.passes.memory import Layout, lay_out
from graphflow.compiler.passes.recognise import recognise
from graphflow.compiler.passes.simplify import simplify, split_reductions
from graphflow.compiler.passes.split import split_late
from graphflow.compiler.passes.unit import Fused
from graphflow.compiler.passes.widen import widen
from graphflow.compiler.verify import verify
from graphflow.config import settings
from graphflow.dims import Dim
from graphflow.dtypes import DType
from graphflow.runtime.program import (
    Arg,
    BlockArg,
    BufferArg,
    Command,
    Control,
    FunctionArg,
    Kernel,
    Program,
    SizeArg,
)

Size = int | Dim
Pass = Callable[[Graph], Graph]

always_verify = False  # tests set it, so that every pass is checked on every graph

PASSES: tuple[Pass, ...] = (recognise, widen, simplify, split_late, split_reductions, simplify)

# Gives object code and metadata for many digests, each with the function that makes them, which is called
# only when nobody has before. Several may be called at once; the first ones begin first.
Compile = Callable[
    [Sequence[tuple[str, Callable[[], tuple[bytes, dict[str, Any]]]]]], Sequence[tuple[bytes, dict[str, Any]]]
]


@dataclass(frozen=True)
class Compiled:
    """Every stage of one graph's way to machine code."""

    graph: Graph
    stages: tuple[tuple[str, Graph], ...]
    fused: Fused
    layout: Layout
    program: Program
    seconds: tuple[tuple[str, float], ...]
    command_nodes: tuple[tuple[Node, ...], ...]


def compile_graph(graph: Graph, compile_all: Compile, join: bool = True) -> Compiled:
    """Runs every pass and emits the Program; `join=False` gives each op a kernel of its own, to compare with.
    """
    debug = settings().debug
    seconds: list[tuple[str, float]] = []
    stages = [("trace", graph)]
    current = graph
    _check(graph, "trace", debug)
    for step in PASSES:
        current = _timed(step.__name__, seconds, step, current)
        stages.append((step.__name__, current))
        _check(current, step.__name__, debug)
    fused = _timed("fuse", seconds, fuse, current, join)
    layout = _timed("memory", seconds, lay_out, fused, join)
    program, command_nodes = _timed("emit", seconds, _Assembler(layout, compile_all).program)
    if debug >= 1:
        total = sum(s for _, s in seconds)
        report = ", ".join(f"{name} {s * 1e3:.1f}" for name, s in seconds)
        print(f"graphflow: compiled {graph.name} in {total * 1e3:.0f} ms ({report})", file=sys.stderr)
    if debug >= 4:
        for kernel in program.kernels:
            print(f"# {kernel.name}\n{kernel.source}", file=sys.stderr)
    return Compiled(graph, tuple(stages), fused, layout, program, tuple(seconds), command_nodes)


def _timed(name: str, seconds: list[tuple[str, float]], function: Callable, *args: object):  # type: ignore[no-untyped-def,type-arg]
    start = time.perf_counter()
    result = function(*args)
    seconds.append((name, time.perf_counter() - start))
    return result


def _check(graph: Graph, stage: str, debug: int) -> None:
    """Verifies when asked, and prints the graph at level 3."""
    if debug >= 1 or always_verify:
        verify(graph)
    if debug >= 3:
        print(f"# after {stage}\n{printer.print_graph(graph)}", file=sys.stderr)


def _front() -> ModuleType:
    """The module that has Numba do a part of the work, loaded when there is something to compile.

    Importing Numba takes as long as everything else that a process needs whose kernels are in the cache.
    """
    return importlib.import_module("graphflow.compiler.codegen.numba_front")


@dataclass(frozen=True)
class _Job:
    """A kernel whose object code is wanted; `cost` is compared with that of others only."""

    name: str
    symbol: str
    source: str
    emit: Callable[[], bytes]
    cost: int

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.symbol.encode()).hexdigest()

    def make(self) -> tuple[bytes, dict[str, Any]]:
        return self.emit(), {"name": self.name, "symbol": self.symbol}


_PACK_COST = 1 << 18
_CORE_COST = 1 << 20  # a matrix-product core takes longer than any kernel made of text


class _Assembler:
    """Makes kernels, once each, and the commands that call them."""

    def __init__(self, layout: Layout, compile_all: Compile):
        self.layout = layout
        self.compile_all = compile_all
        self.jobs: list[_Job] = []
        self.numbers: dict[str, int] = {}

    def program(self) -> tuple[Program, tuple[tuple[Node, ...], ...]]:
        layout = self.layout
        commands: list[Command] = []
        nodes: list[tuple[Node, ...]] = []
        groups = _groups(layout.steps)
        marks = [group[0].emitted if isinstance(group[0].emitted, Mark) else None for group in groups]
        for group in groups:
            step = group[0]
            if isinstance(step.emitted, Mark):
                command = _decision(step.emitted, step.name, len(commands), marks)
            elif isinstance(step.emitted, Product):
                command = self._product(step, step.emitted, len(commands))
            elif isinstance(step.emitted, Packing):
                command = self._packing(step, step.emitted, len(commands))
            elif len(group) > 1:
                command = self._shared(group, len(commands))
            else:
                command = self._single(step, step.emitted, len(commands))
            commands.append(command)
            nodes.append(tuple(n for s in group for n in s.nodes))
        renumbered = _lifetimes(layout, [len(g) for g in groups])
        program = Program(
            layout.graph.name,
            layout.graph.symbols(),
            self._kernels(),
            renumbered,
            tuple(commands),
            layout.inputs,
            layout.states,
            layout.outputs,
            layout.states[-1] if layout.checks else None,
        )
        return program, tuple(nodes)

    def _kernels(self) -> tuple[Kernel, ...]:
        """All kernels with their object code. What takes longest to make begins first."""
        jobs = {job.digest: job for job in sorted(self.jobs, key=lambda job: -job.cost)}
        entries = self.compile_all([(digest, job.make) for digest, job in jobs.items()])
        codes = {digest: code for digest, (code, _) in zip(jobs, entries, strict=True)}
        return tuple(Kernel(j.name, j.symbol, j.digest, codes[j.digest], j.source) for j in self.jobs)

    def _kernel(self, name: str, symbol: str, source: str, emit: Callable[[], bytes], cost: int = 0) -> int:
        if symbol not in self.numbers:
            self.numbers[symbol] = len(self.jobs)
            self.jobs.append(_Job(name, symbol, source, emit, cost or len(source)))
        return self.numbers[symbol]

    def _loops(self, loops: Loops) -> int:
        return self._kernel(
            loops.function.name,
            function.symbol(loops.function),
            loops.function.source,
            lambda: _front().compile_function(loops.function)[1],
        )

    def _core(self, dtype: DType, indirect: bool = False) -> int:
        return self._kernel(
            f"{'indirect_' if indirect else ''}matmul_{dtype}",
            matmul.symbol(dtype, indirect=indirect),
            "",
            lambda: matmul.object_code(dtype, indirect=indirect)[1],
            _CORE_COST,
        )

    def _arguments(self, loops: Loops) -> tuple[Arg, ...]:
        """The function's argument block, with what it needs to call the matrix core."""
        if loops.core is None:
            return loops.args
        plan = matmul.blocking(loops.core.itemsize, llvm.host())
        units = (SizeArg(plan.unit_rows), SizeArg(plan.unit_columns))
        return (*loops.args, BlockArg((FunctionArg(self._core(loops.core)), *units)))

    def _single(self, step: Step, loops: Loops, number: int) -> Command:
        return Command(
            self._loops(loops),
            self._arguments(loops),
            loops.extent,
            loops.grain,
            step.barrier,
            f"k{number:02d}_{step.name}",
            loops.scratch,
            _nanoseconds(loops.bytes, loops.flops, 16 if loops.core is None else 100),
            loops.bytes,
            loops.flops,
        )

    def _shared(self, group: Sequence[Step], number: int) -> Command:
        """One command over the ranges of several calls of one kernel."""
        symbol, text = products.shared_range()
        symbol = f"{symbol}_{function.fingerprint()[:16]}"
        text = text.replace("gf_shared_range", symbol)
        driver = self._kernel("shared_range", symbol, text, lambda: llvm.emit([text]))
        members: list[Loops] = [s.emitted for s in group]  # type: ignore[misc]
        args: list[Arg] = [SizeArg(len(group)), FunctionArg(self._loops(members[0]))]
        start: Size = 0
        size: Size = 0
        flops: Size = 0
        for loops in members:
            args += [SizeArg(start), BlockArg(self._arguments(loops))]
            start, size, flops = start + loops.extent, size + loops.bytes, flops + loops.flops
        args.append(SizeArg(start))
        scratch = max((m.scratch for m in members), key=lambda s: s if isinstance(s, int) else 0)
        label = f"k{number:02d}_{group[0].name}_x{len(group)}"
        barrier = group[0].barrier
        work = _nanoseconds(size, flops, 16)
        return Command(
            driver, tuple(args), start, members[0].grain, barrier, label, scratch, work, size, flops
        )

    def _product(self, step: Step, product: Product, number: int) -> Command:
        dtype = product.node.dtype
        core = self._core(dtype, product.indirect)
        epilogue, c = None, product.c
        extra_bytes: Size = 0
        extra_flops: Size = 0
        if product.epilogue is not None:
            epilogue = (FunctionArg(self._loops(product.epilogue)), BlockArg(product.epilogue.args))
            extra_bytes, extra_flops = product.epilogue.bytes, product.epilogue.flops
        batch = []
        for d, size in enumerate(product.batch):
            batch.append((size, product.a.batch[d], product.b.batch[d], c.batch[d] if c else 0))
        m, n, k = product.m, product.n, product.k
        args = matmul.arguments(
            m=m,
            n=n,
            k=k,
            a=None if product.a.packer else product.a.buffer,
            b=None if product.b.packer else product.b.buffer,
            c=c.buffer if c else None,
            a_strides=product.a.strides,
            b_strides=product.b.strides,
            c_strides=c.strides if c else (int(product.turned), 0),
            batch=_merge_batch(batch),
            pack_a=self._packer(product.a.packer),
            pack_b=self._packer(product.b.packer),
            epilogue=epilogue,
            addend=product.addend,
            kept=product.kept,
        )
        sizes = product.batch
        count: Size = 1
        for size in sizes:
            count = count * size
        flops = count * m * n * k * 2
        moved = count * (m * k + k * n + m * n) * dtype.itemsize + extra_bytes
        return Command(
            core,
            args,
            matmul.units(dtype, m, n, sizes),
            1,
            step.barrier,
            f"k{number:02d}_{step.name}",
            matmul.scratch_bytes(dtype, matmul.sizes(args), indirect=product.indirect),
            _nanoseconds(moved, flops, 100) + extra_flops // 16,
            moved,
            flops + extra_flops,
        )

    def _packing(self, step: Step, packing: Packing, number: int) -> Command:
        dtype, rows, k, source = packing.dtype, packing.rows, packing.k, packing.source
        symbol = matmul_keep.symbol(dtype)
        kernel = self._kernel(
            f"pack_{dtype}", symbol, "", lambda: matmul_keep.object_code(dtype)[1], _PACK_COST
        )
        function = self._packer(source.packer)
        args = matmul.arguments(
            m=0 if packing.kept else rows,
            n=rows if packing.kept else 0,
            k=k,
            a=source.buffer,
            b=source.buffer,
            c=BufferArg(packing.copy),
            b_strides=source.strides,
            batch=_merge_batch([(size, 0, stride, step) for size, stride, step in packing.batch]),
            pack_a=None if packing.kept else function,
            pack_b=function if packing.kept else None,
            kept=packing.kept,
        )
        count: Size = 1
        for size, _, _ in packing.batch:
            count = count * size
        moved = 2 * count * rows * k * dtype.itemsize
        return Command(
            kernel,
            args,
            count * matmul_keep.units(dtype, rows, packing.kept),
            1,
            step.barrier,
            f"k{number:02d}_{step.name}",
            work=moved // 8,
            bytes=moved,
        )

    def _packer(self, packer: Packer | None) -> matmul_arguments.Function | None:
        if packer is None:
            return None
        kernel = self._kernel("pack", packer.symbol, "", lambda: llvm.emit([packer.text]))
        return FunctionArg(kernel), BlockArg(packer.args)


def _decision(mark: Mark, name: str, number: int, marks: Sequence[Mark | None]) -> Command:
    """The command of one of all the program's marks, which stands at `number`."""
    own = [i for i, other in enumerate(marks) if other is not None and other.region == mark.region]
    leave = own[-1] + 1
    target = leave
    if mark.kind == "end":
        target = own[0] + 1
    elif mark.kind == "branch" and number == own[0]:
        target = own[1] + 1  # behind the jump that ends the first branch
    control = Control(mark.kind, mark.region, target, leave, mark.length)
    args = () if mark.flag is None else (BufferArg(mark.flag),)
    return Command(-1, args, 0, 1, True, f"k{number:02d}_{name}", control=control)


def _merge_batch(batch: list[tuple[Size, Size, Size, Size]]) -> list[tuple[Size, Size, Size, Size]]:
    """Batch dimensions without those of size 1, neighbours merged where all three operands allow it."""
    merged: list[tuple[Size, Size, Size, Size]] = []
    for dimension in batch:
        size = dimension[0]
        if size == 1:
            continue
        if merged and all(merged[-1][i] == dimension[i] * size for i in (1, 2, 3)):
            merged[-1] = (merged[-1][0] * size, *dimension[1:])
        else:
            merged.append(dimension)
    return merged


def _nanoseconds(size: Size, flops: Size, flops_per_ns: int) -> Size:
    """A rough time on one core: memory (mostly caches) at 24 bytes a nanosecond,
    arithmetic at the given rate.
    """
    return size // 24 + flops // flops_per_ns


def _groups(steps: Sequence[Step]) -> list[list[Step]]:
    """Neighbouring steps that call the same loop kernel without needing each other."""
    groups: list[list[Step]] = []
    for step in steps:
        if groups and _can_share(groups[-1], step):
            groups[-1].append(step)
        else:
            groups.append([step])
    return groups


def _can_share(group: list[Step], step: Step) -> bool:
    first = group[0].emitted
    if step.barrier or not isinstance(first, Loops) or not isinstance(step.emitted, Loops):
        return False
    same = first.function == step.emitted.function
    return same and isinstance(first.scratch, int) and isinstance(step.emitted.scratch, int)


def _lifetimes(layout: Layout, counts: Sequence[int]) -> tuple:  # type: ignore[type-arg]
    """Buffers with lifetimes counted in commands, several steps having become one."""
    command_of = [number for number, count in enumerate(counts) for _ in range(count)]
    return tuple(
        replace(b, first=command_of[b.first], last=command_of[b.last]) if command_of else b
        for b in layout.buffers
    )


__all__ = ["Compiled", "Operand", "compile_graph"]
