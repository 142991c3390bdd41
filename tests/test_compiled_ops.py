"""Every op in the registry compiled, beside the evaluator: its samples, and what kernels find hard.

Symbolic and empty dimensions, operands behind views, sizes of 1, eight dimensions, NaN, Inf and -0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from graphflow.compiler.interpret import run_graph
from graphflow.compiler.ir import Graph, Op
from graphflow.dims import Dim
from graphflow.engine import compile_graph
from graphflow.errors import CompileError

from registry import ALL_OPS, case_for, samples_of

CONTROL = [op for op in ALL_OPS if op.kind in ("control", "project")]
COMPILED = [op for op in ALL_OPS if op not in CONTROL]
ELEMENTWISE = [op for op in COMPILED if op.kind == "elementwise"]
N = Dim.symbol("n")

# What the functions of `vecmath` may be off by, relative to the result (their measured errors are below 4
# ULP).
ROUNDING = {"float32": 2e-6, "float64": 1e-14}


def compare(graph: Graph, arrays: Sequence[np.ndarray], spread: float = 0.0) -> None:
    """Runs the compiled graph beside the evaluator; `spread` is an absolute error
    that terms of a sum may add.
    """
    with np.errstate(all="ignore"):
        expected, _ = run_graph(graph, arrays)
    actual, _ = compile_graph(graph).run(arrays)
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        if theirs.dtype.kind != "f":
            np.testing.assert_array_equal(ours, theirs)
            continue
        rounding = ROUNDING[theirs.dtype.name]
        np.testing.assert_allclose(ours, theirs, rtol=4 * rounding, atol=spread * rounding)


@pytest.mark.parametrize("op", COMPILED, ids=lambda op: op.name)
def test_samples(op: Op) -> None:
    # One graph of all samples: a compile has a price, whatever its size.
    cases = [case_for(op, sample) for sample in samples_of(op)]
    args = tuple(a for c in cases for a in c.graph.args)
    outputs = tuple(o for c in cases for o in c.graph.outputs)
    arrays = [a for c in cases for a in c.arrays]
    compare(Graph(op.name, args, (), outputs), arrays, spread=50.0)


@pytest.mark.parametrize("op", CONTROL, ids=lambda op: op.name)
def test_control_flow_is_refused_by_name(op: Op) -> None:
    case = case_for(op, samples_of(op)[0])
    with pytest.raises(CompileError, match="can't be compiled yet"):
        compile_graph(case.graph)
