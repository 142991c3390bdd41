"""The benchmark's training steps in float32 machine code beside the same steps in float64 NumPy.

The bounds are those that docs/performance.md promises: relative to the largest element of what is compared
(the loss, gradients as the moments of SGD and Adam hold them after one step, new parameters).
"""

from __future__ import annotations

import graphflow as gf
import numpy as np
import pytest
from graphflow.compiler.interpret import run_graph
from graphflow.compiler.ir import Graph
from graphflow.compiler.printer import print_graph
from graphflow.dims import Dim

from workloads import first_call

# Rows of the batch that the step is run with here.
ROWS = {
    "twolayer": 16,
    "mlp": 16,
    "lenet": 4,
    "cnn": 3,
    "gpt": 2,
    "lstm": 4,
    "chain": 50,
    "norm": 40,
    "dispatch": 4,
}
RELATIVE = 2e-6
# Adam moves a parameter by rate * g / (|g| + 1e-8), which turns the rounding of a gradient g near 1e-8 into a
# part of the whole rate.
RATE, ADAM = 1e-3, 0.1


def in_float64(graph: Graph) -> Graph:
    return gf.parse_graph(print_graph(graph).replace("float32", "float64"))


def distance(single: np.ndarray, double: np.ndarray) -> float:
    """The largest difference, relative to the largest element."""
    if double.dtype.kind != "f":
        return float(not np.array_equal(single, double))
    return float(np.max(np.abs(single - double), initial=0) / max(np.max(np.abs(double), initial=0), 1e-30))


@pytest.mark.parametrize("name", ROWS)
def test_float32_is_near_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, args, states = first_call(name, monkeypatch)
    graph = engine.graph
    symbolic = [isinstance(node.shape[0], Dim) for node in graph.args]
    inputs = [a[: ROWS[name]] if s else a for a, s in zip(args, symbolic, strict=True)] + states
    outputs, results = engine.run(inputs)
    doubles = [a.astype(np.float64) if a.dtype == np.float32 else a for a in inputs]
    expected, expected_states = run_graph(in_float64(graph), doubles)
    names = [graph.states[number].attrs["name"] for number, _ in graph.updates]
    assert len(names) == len(results)
    for a, b in zip(outputs, expected, strict=True):
        assert distance(a, b) <= RELATIVE
    for state, a, b in zip(names, results, expected_states, strict=True):
        if f"{state}.exp_avg" in names:
            assert np.max(np.abs(a - b)) <= ADAM * RATE, state
        else:
            squared = state.endswith(".exp_avg_sq")  # twice the gradient's relative error
            assert distance(a, b) <= RELATIVE * (2 if squared else 1), state
