"""Golden text of five models: the graph after every pass, the commands, and the kernels' source.

A refactoring leaves it as it is; a change in it is a change of what the compiler does. ``pytest
--update-golden`` writes it again, to be reviewed.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from graphflow.compiler.ir import Graph
from graphflow.compiler.pipeline import Compiled
from graphflow.compiler.printer import print_graph
from graphflow.engine import compile_graph

import models

# Written in LLVM's language or none: nothing of a model's is in their text.
GENERIC = ("shared_range", "matmul_float32", "matmul_float64")


def describe(compiled: Compiled) -> str:
    """What the compiler made of a graph, without anything that depends on the machine."""
    parts = []
    previous = ""
    for name, graph in compiled.stages:
        text = print_graph(graph)
        parts.append(f"# {name}\n{text if text != previous else '(unchanged)'}")
        previous = text
    program = compiled.program
    lines = []
    for command in program.commands:
        wait = "after all before" if command.barrier else "at once"
        lines.append(f"{command.label}: {program.kernels[command.kernel].name}, {wait}")
    for buffer in program.buffers:
        sizes = ", ".join(map(str, buffer.shape))
        life = f", commands {buffer.first} to {buffer.last}" if buffer.role == "temp" else ""
        lines.append(f"{buffer.role} {buffer.name}: {buffer.dtype}[{sizes}]{life}")
    parts.append("# program\n" + "\n".join(lines))
    parts += [k.source.rstrip() for k in program.kernels if k.name not in GENERIC]
    return "\n\n".join(parts)


@pytest.mark.parametrize("model", models.MODELS, ids=lambda m: m.__name__)
def test_model(model: Callable[[], Graph], golden: Callable[[str, str], None]) -> None:
    graph = model()
    golden(f"models/{graph.name}.txt", describe(compile_graph(graph).compiled))
