"""What can be seen of a compiled function: ``explain()``, and ``GRAPHFLOW_DEBUG``."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import graphflow as gf
import graphflow.nn.functional as F
import numpy as np
import pytest
from graphflow import nn, optim
from graphflow.compiler.ir import Graph
from graphflow.dims import Dim, evaluate
from graphflow.errors import TraceError
from graphflow.explain import Explanation


def step_and_lines() -> tuple[gf.CompiledFunction, dict[str, int]]:
    gf.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    @gf.compile
    def train_step(x: Any, y: Any) -> Any:
        scores = model(x)  # model
        loss = F.cross_entropy(scores, y)  # loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()  # update
        return loss

    source, start = inspect.getsourcelines(train_step._function)
    lines = {line.split("# ")[1].strip(): start + i for i, line in enumerate(source) if "# " in line}
    for rows in (32, 17):
        train_step(np.ones((rows, 6), np.float32), np.zeros(rows, np.int64))
    return train_step, lines


@pytest.fixture(scope="module")
def explained() -> tuple[gf.CompiledFunction, dict[str, int], Explanation]:
    step, lines = step_and_lines()
    return step, lines, step.explain()


Case = tuple[gf.CompiledFunction, dict[str, int], Explanation]


def test_the_graphs(explained: Case) -> None:
    _, _, e = explained
    assert isinstance(e.graph, Graph)
    assert [n.attrs["name"] for n in e.graph.args] == ["x", "y"]
    stages = e.stages
    assert next(iter(stages)) == "trace"
    assert stages["trace"] is e.graph
    assert "simplify" in stages
    assert len(stages[list(stages)[-1]].nodes()) < len(e.graph.nodes())
    assert "matmul" in str(e.graph)


def test_the_kernels_tell_their_lines_and_work(explained: Case) -> None:
    _, lines, e = explained
    reports = e.kernels
    assert reports
    assert [int(re.match(r"k(\d+)_", r.label).group(1)) for r in reports] == list(range(len(reports)))  # type: ignore[union-attr]
    here = os.path.basename(__file__)
    told = {line for r in reports for line in r.lines}
    for name in ("model", "loss", "update"):
        assert f"{here}:{lines[name]}" in told
    assert all(line.startswith(here) for line in told)
    for report in reports:
        assert report.ops
        assert report.kernel
        for amount in (report.bytes, report.flops):
            value = evaluate(amount, {"batch": 32}) if isinstance(amount, Dim) else amount
            assert value >= 0
    assert any("def " in r.source for r in reports)
    products = [r for r in reports if "matmul" in r.ops]
    assert len(products) == 5  # two forward; two weight gradients and one of the hidden values
    assert evaluate(e.flops, {"batch": 32}) > 32 * 2 * (6 * 16 + 16 * 3) * 2  # type: ignore[arg-type]
    assert evaluate(e.bytes, {"batch": 32}) > 4 * 3 * (6 * 16 + 16 * 3)  # type: ignore[arg-type]


def test_the_predicted_arena_is_the_arena(explained: Case) -> None:
    step, _, e = explained
    memory = e.memory
    assert [values for values, _ in memory.arenas] == [{"batch": 32}, {"batch": 17}]
    executor = step.variants[0].engine.executor
    for values, size in memory.arenas:
        assert executor.instance(values).arena_bytes == size > 0
        assert size <= evaluate(memory.temporaries, values) + 64 * 100  # type: ignore[arg-type]
    assert evaluate(memory.inputs, {"batch": 10}) == 10 * (6 * 4 + 8)  # type: ignore[arg-type]
    parameters = 4 * (6 * 16 + 16 + 16 * 3 + 3)
    assert memory.states >= 3 * parameters
    assert memory.outputs == parameters + 4  # the gradients and the loss


def test_the_text_has_everything(explained: Case) -> None:
    _, lines, e = explained
    text = str(e)
    assert repr(e) == text
    for line in lines.values():
        assert f"{os.path.basename(__file__)}:{line}" in text
    for part in (
        "kernels",
        "memory",
        "arena for batch=17",
        "bytes",
        "flops",
        "variants",
        "the first call",
        "def ",
    ):
        assert part in text
    for report in e.kernels:
        assert report.label in text


def test_before_the_first_call_there_is_nothing() -> None:
    with pytest.raises(TraceError, match=r"hasn't been compiled yet; call it once, or use graphflow\.trace"):
        gf.compile(lambda x: x).explain()


def test_graphs_and_functions_without_kernels_explain_themselves() -> None:
    graph = gf.compile(gf.trace(lambda x: x * 2, gf.TensorSpec(("n",))))
    assert "mul" in str(graph.explain())
    assert graph.explain().memory.arenas == ()
    nothing = gf.compile(lambda x: None)
    nothing(np.ones(2))
    assert "0 kernels" in str(nothing.explain())


SCRIPT = """
import numpy as np, graphflow as gf

@gf.compile
def scaled(x):
    return (x * 2).tanh().sum(1)

scaled(np.ones((3, 4)))
scaled(np.ones((2, 4)))
print("done")
"""


def test_debug_levels_each_show_more(tmp_path: Path) -> None:
    script = tmp_path / "user_script.py"
    script.write_text(SCRIPT)
    shown = []
    for level in ("0", "1", "2", "3", "4"):
        out = subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "GRAPHFLOW_DEBUG": level},
            capture_output=True,
            text=True,
            check=True,
        )
        assert out.stdout == "done\n"
        shown.append(out.stderr)
    assert shown[0] == ""
    marks = [
        r"graphflow: compiled scaled in \d+ ms \(recognise [\d.]+, .*fuse [\d.]+, memory [\d.]+, emit",
        r"graphflow: scaled\n +us +% +GB/s +GFLOP/s  kernel\n",
        r"# after trace\n.*user_script.py:6",
        r"def [a-z_]*tanh[a-z_]*\(",
    ]
    for level in range(1, 5):
        for number, mark in enumerate(marks, 1):
            found = re.search(mark, shown[level], re.DOTALL)
            assert (found is not None) == (number <= level), (level, mark, shown[level])
    assert shown[2].count("graphflow: scaled\n") == 2
    assert shown[1].count("compiled scaled") == 1
