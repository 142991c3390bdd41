"""Random graphs and their gradients: fused = one kernel per op = evaluator."""

from __future__ import annotations

import numpy as np
import pytest
from graphflow.compiler.interpret import run_graph
from graphflow.compiler.ir import Graph
from graphflow.engine import compile_graph
from hypothesis import given, settings

from graphs import graphs
from registry import gradient_graph


def agree(graph: Graph, arrays: list[np.ndarray], join: bool) -> None:
    expected = run_graph(graph, arrays)
    found = compile_graph(graph, join).run(arrays)
    for ours, theirs in zip([*found[0], *found[1]], [*expected[0], *expected[1]], strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("join", [True, False], ids=["fused", "unfused"])
@settings(max_examples=25)
@given(drawn=graphs(control=False))
def test_random_graphs(join: bool, drawn: tuple[Graph, list[np.ndarray]]) -> None:
    agree(*drawn, join)


@pytest.mark.parametrize("join", [True, False], ids=["fused", "unfused"])
@settings(max_examples=25)
@given(drawn=graphs(control=False))
def test_gradients_of_random_graphs(join: bool, drawn: tuple[Graph, list[np.ndarray]]) -> None:
    graph, arrays = drawn
    pulled, _ = gradient_graph(Graph(graph.name, graph.inputs, (), graph.roots))
    rng = np.random.default_rng(5)
    cotangents = [np.asarray(rng.standard_normal(node.shape)) for node in pulled.args[len(arrays) :]]
    agree(pulled, [*arrays, *cotangents], join)
