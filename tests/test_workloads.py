"""Golden figures of the benchmark's nine training steps: kernels, bytes moved, FLOPs, memory.

A change in them is a change of what a step costs; ``pytest --update-golden`` writes them again, to be
reviewed. Nothing is compiled to machine code here, and nothing is timed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from graphflow.compiler import pipeline
from graphflow.compiler.codegen import llvm
from graphflow.dims import Dim, evaluate
from graphflow.footprint import peak

from workloads import WORKLOADS, graph_of

# The leading size of each workload's batch; the other one here is one that it wasn't traced with.
BATCHES = dict(zip(WORKLOADS, (64, 128, 4, 64, 12, 64, 1000, 4096, 4), strict=True))
TARGET = llvm.Target("x86_64-unknown-linux-gnu", "skylake-avx512", "+avx512f", 512)


@pytest.mark.parametrize("name", WORKLOADS)
def test_workload(name: str, golden: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(name, monkeypatch)
    # which way a product goes depends on the width of vectors
    monkeypatch.setattr(llvm, "host", lambda: TARGET)
    compiled = pipeline.compile_graph(graph, lambda jobs: [(b"", {}) for _ in jobs])
    program = compiled.program
    repeats = program.repeats()

    def total(kind: str, sizes: dict[str, int]) -> int:
        amounts = [getattr(c, kind) * n for c, n in zip(program.commands, repeats, strict=True)]
        return sum(evaluate(a, sizes) if isinstance(a, Dim) else a for a in amounts)

    lines = [
        f"{len(program.commands)} commands, {len(program.kernels)} kernels",
        f"symbols: {', '.join(program.symbols) or 'none'}",
    ]
    for batch in (BATCHES[name], 17):
        sizes = dict.fromkeys(program.symbols, batch)
        arena = peak(compiled, sizes).arena
        moved, computed = total("bytes", sizes), total("flops", sizes)
        lines.append(f"batch {batch}: {moved:,} bytes moved, {computed:,} FLOPs, arena {arena:,} bytes")
    lines += [f"  {c.label}" for c in program.commands]
    golden(f"workloads/{name}.txt", "\n".join(lines))
