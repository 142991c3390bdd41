"""Golden figures of the benchmark's nine training steps: kernels, bytes moved, FLOPs, memory.

A change in them is a change of what a step costs; ``pytest --update-golden`` writes them again, to be
reviewed. Nothing is compiled to machine code here, and nothing is timed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import graphflow as gf
import pytest
from graphflow import api
from graphflow.compiler import pipeline
from graphflow.compiler.codegen import llvm
from graphflow.compiler.ir import Graph
from graphflow.dims import Dim, evaluate
from graphflow.runtime import arena
from graphflow.runtime.buffers import ALIGNMENT
from graphflow.runtime.layout import Layout, evaluator
from graphflow.runtime.program import Program

HERE = Path(__file__).resolve().parent
PATH = HERE.parent / "benchmarks" / "peers_graphflow.py"
WORKLOADS = ("twolayer", "mlp", "lenet", "cnn", "gpt", "lstm", "chain", "norm", "dispatch")
# The leading size of each workload's batch, and one that it wasn't traced with.
BATCHES = {
    "twolayer": 64,
    "mlp": 128,
    "lenet": 4,
    "cnn": 64,
    "gpt": 12,
    "lstm": 64,
    "chain": 1000,
    "norm": 4096,
    "dispatch": 4,
}


TARGET = llvm.Target("x86_64-unknown-linux-gnu", "skylake-avx512", "+avx512f", 512)


class Traced(Exception):
    """Ends a call of a compiled function once it is traced."""


def workload(name: str) -> Callable[[], Callable[[], object]]:
    spec = importlib.util.spec_from_file_location("peers_graphflow", PATH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made: Callable[[], Callable[[], object]] = module.ALL[name]
    return made


def graph_of(name: str, monkeypatch: pytest.MonkeyPatch) -> Graph:
    found: list[Graph] = []

    def engine_for(graph: Graph, **_: object) -> None:
        found.append(graph)
        raise Traced

    monkeypatch.setattr(api, "engine_for", engine_for)
    gf.manual_seed(0)
    step = workload(name)()
    with pytest.raises(Traced):
        step()
    return found[0]


def temporary_bytes(program: Program, sizes: dict[str, int]) -> int:
    """What the arena takes for these sizes, as an Instance plans it."""
    size = evaluator(sizes)
    intervals = Layout(program, [0] * len(program.kernels)).intervals
    numbers = []
    for index in intervals:
        buffer = program.buffers[index]
        count = buffer.dtype.itemsize
        for s in buffer.shape:
            count *= size(s)
        numbers.append(count)
    return arena.plan(list(intervals.values()), numbers, ALIGNMENT)[1]


def total(amounts: list[int | Dim], sizes: dict[str, int]) -> int:
    return sum(evaluate(a, sizes) if isinstance(a, Dim) else a for a in amounts)


@pytest.mark.parametrize("name", WORKLOADS)
def test_workload(name: str, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    # which way a product goes depends on the width of vectors
    monkeypatch.setattr(llvm, "host", lambda: TARGET)
    compiled = pipeline.compile_graph(graph_of(name, monkeypatch), lambda jobs: [(b"", {}) for _ in jobs])
    program = compiled.program
    repeats = program.repeats()
    lines = [
        f"{len(program.commands)} commands, {len(program.kernels)} kernels",
        f"symbols: {', '.join(program.symbols) or 'none'}",
    ]
    for batch in (BATCHES[name], 17):
        sizes = dict.fromkeys(program.symbols, batch)
        moved = total([c.bytes * n for c, n in zip(program.commands, repeats, strict=True)], sizes)
        computed = total([c.flops * n for c, n in zip(program.commands, repeats, strict=True)], sizes)
        held = temporary_bytes(program, sizes)
        lines.append(f"batch {batch}: {moved:,} bytes moved, {computed:,} FLOPs, arena {held:,} bytes")
    lines += [f"  {c.label}" for c in program.commands]
    golden(f"workloads/{name}.txt", "\n".join(lines))
