"""Graphs of thousands of nodes in a row: no recursion, no quadratic passes, few distinct kernels."""

from __future__ import annotations

import time

import numpy as np
from graphflow.compiler.interpret import run_graph
from graphflow.compiler.ir import OPS, Graph, Node, TensorType, constant, input_node
from graphflow.compiler.passes.autodiff import vjp
from graphflow.compiler.passes.fuse import MAX_NODES, fuse
from graphflow.compiler.passes.memory import lay_out
from graphflow.compiler.passes.simplify import simplify, split_reductions
from graphflow.compiler.printer import print_graph
from graphflow.dims import Dim
from graphflow.dtypes import float64
from graphflow.engine import compile_graph

N = Dim.symbol("n")


def chain(length: int) -> Graph:
    """A chain of elementwise ops and its gradient."""
    x = input_node("x", TensorType(float64, (N,)))
    y: Node = x
    for step in range(length):
        y = (y * 0.5, OPS["tanh"](y), y + x)[step % 3]
    one = OPS["expand"](constant(1.0, float64), shape=y.shape)
    (gradient,) = vjp([y], [one], [x])
    assert gradient is not None
    return Graph("chain", (x,), (), (y, gradient))


def test_a_chain_of_thousands_runs_and_compiles_few_kernels() -> None:
    graph = chain(1500)
    engine = compile_graph(graph)
    program = engine.compiled.program
    assert len(program.kernels) < len(program.commands) / 1.5
    x = np.random.default_rng(0).standard_normal(9)
    for ours, theirs in zip(engine.run([x])[0], run_graph(graph, [x])[0], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def _seconds_per_node(length: int) -> float:
    graph = simplify(split_reductions(simplify(chain(length))))
    start = time.process_time()
    fused = fuse(graph)
    lay_out(fused)
    assert all(len(unit.nodes) <= MAX_NODES for unit in fused.units)
    return (time.process_time() - start) / length


def test_fusing_and_planning_take_time_in_proportion() -> None:
    small, large = _seconds_per_node(400), _seconds_per_node(4000)
    assert large < 4 * small


def test_twenty_thousand_nodes_are_differentiated_printed_and_simplified() -> None:
    graph = chain(20_000)
    assert print_graph(graph).count("tanh") >= 6_000
    assert len(simplify(graph).nodes()) > 40_000


def test_a_wide_sum_of_many_values_is_no_deep_kernel() -> None:
    xs = [input_node(f"x{i}", TensorType(float64, (3,))) for i in range(300)]
    total = xs[0]
    for x in xs[1:]:
        total = total + x
    graph = Graph("wide", tuple(xs), (), (total,))
    arrays = [np.full(3, float(i)) for i in range(300)]
    (found,), _ = compile_graph(graph).run(arrays)
    np.testing.assert_array_equal(found, np.full(3, 300 * 299 / 2))
