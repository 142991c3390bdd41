"""Reverse mode over graphs; the rules of single ops are tested with the ops."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from graphflow.compiler import ir
from graphflow.compiler.interpret import evaluate, run_graph
from graphflow.compiler.ir import OPS, Graph, Node, TensorType, constant, input_node, toposort
from graphflow.compiler.location import Loc
from graphflow.compiler.passes.autodiff import unbroadcast, vjp
from graphflow.compiler.verify import verify
from graphflow.dims import Dim
from graphflow.dtypes import float32, float64, int64
from graphflow.errors import GradientError
from hypothesis import given

from graphs import graphs
from registry import check_gradient, gradient_graph

N = Dim.symbol("n")


def f64(name: str, *shape: Any) -> Node:
    return input_node(name, TensorType(float64, shape))


def gradient(output: Node, *wrt: Node) -> list[Node | None]:
    """Cotangents for a cotangent of ones."""
    one = constant(1.0, output.dtype)
    return vjp([output], [OPS["expand"](one, shape=output.shape) if output.shape else one], wrt)


def value(node: Node | None, **arrays: Any) -> np.ndarray:
    assert node is not None
    inputs = {n: np.asarray(arrays[n.attrs["name"]]) for n in toposort([node]) if n.op.name == "input"}
    return np.asarray(evaluate([node], inputs)[0])


@given(graphs())
def test_random_graphs_against_differences(drawn: tuple[Graph, list[np.ndarray]]) -> None:
    graph, arrays = drawn
    check_gradient(Graph(graph.name, graph.inputs, (), graph.roots), arrays, np.random.default_rng(7))


@given(graphs())
def test_gradients_of_sound_graphs_are_sound(drawn: tuple[Graph, list[np.ndarray]]) -> None:
    graph, _ = drawn
    pulled, owners = gradient_graph(Graph(graph.name, graph.inputs, (), graph.roots))
    verify(pulled)
    assert [pulled.outputs[k].type for k in range(len(owners))] == [graph.inputs[i].type for i in owners]


def test_a_chain_of_20000_nodes() -> None:
    x = node = f64("x", 2)
    for _ in range(20_000):
        node = OPS["sin"](node)
    assert sys.getrecursionlimit() < 20_000
    (g,) = gradient(node, x)
    start = np.array([0.5, -1.0])
    expected, state = np.ones(2), start
    for _ in range(20_000):
        expected, state = expected * np.cos(state), np.sin(state)
    np.testing.assert_allclose(value(g, x=start), expected, rtol=1e-9)
    assert len(str(Graph("g", (x,), (), (g,)))) > 20_000  # type: ignore[arg-type]


# -------------------------------------------------------------------------------- un-broadcasting


@pytest.mark.parametrize(
    ("wide", "narrow"),
    [
        ((2, 3), (3,)), ((2, 3), (1, 3)), ((2, 3), (2, 1)), ((2, 3), ()), ((2, 3), (1, 1)),
        ((4, 2, 3), (2, 1)),
        ((1, 3), (3,)), ((0, 3), (3,)), ((2, 0), (2, 1)), ((1, 1), ()), ((2, 3), (2, 3)),
    ],
)  # fmt: skip
def test_unbroadcast_sums_what_was_repeated(wide: tuple[int, ...], narrow: tuple[int, ...]) -> None:
    g = f64("g", *wide)
    array = np.arange(np.prod(wide, dtype=int)).reshape(wide) + 1.0
    kept = tuple(d for d in range(len(wide)) if d < len(wide) - len(narrow))
    summed = array.sum(axis=kept)
    repeated = tuple(d for d in range(len(narrow)) if narrow[d] == 1 and summed.shape[d] != 1)
    np.testing.assert_array_equal(
        value(unbroadcast(g, narrow), g=array), summed.sum(axis=repeated, keepdims=True)
    )


def test_unbroadcast_keeps_symbolic_sizes() -> None:
    g = f64("g", N, 4)
    assert unbroadcast(g, (4,)).shape == (4,)
    assert unbroadcast(g, (N, 1)).shape == (N, 1)
    assert unbroadcast(g, (N, 4)) is g


def test_a_cotangent_of_size_one_is_expanded() -> None:
    assert unbroadcast(f64("g", 1, 3), (N, 3)).shape == (N, 3)


# -------------------------------------------------------------------------------- which paths count


def test_shared_subexpressions_add_up_once_each() -> None:
    x = f64("x")
    shared = OPS["exp"](x)
    (g,) = gradient(shared * shared + shared, x)
    np.testing.assert_allclose(value(g, x=0.3), 2 * np.exp(0.6) + np.exp(0.3))


def test_many_uses_sum_as_a_shallow_tree() -> None:
    x = f64("x")
    total = OPS["neg"](x)
    for k in range(1, 64):
        total = total + OPS["sin"](x * float(k))
    (g,) = gradient(total, x)
    depth: dict[Node, int] = {}
    for node in toposort([g]):  # type: ignore[list-item]
        depth[node] = 1 + max((depth[i] for i in node.inputs), default=0)
    assert depth[g] < 20  # type: ignore[index]
    np.testing.assert_allclose(value(g, x=0.2), -1 + sum(k * np.cos(0.2 * k) for k in range(1, 64)))


def test_detach_cuts() -> None:
    x = f64("x")
    (g,) = gradient(OPS["detach"](OPS["exp"](x)) * x, x)
    np.testing.assert_allclose(value(g, x=0.5), np.exp(0.5))
    assert gradient(OPS["detach"](x), x) == [None]


def test_a_detached_node_can_be_differentiated_by() -> None:
    x = f64("x")
    cut = OPS["detach"](x)
    (g,) = gradient(cut * cut, cut)
    np.testing.assert_allclose(value(g, x=3.0), 6.0)


def test_integers_carry_no_gradient() -> None:
    x, k = f64("x"), input_node("k", TensorType(int64, ()))
    gx, gk = gradient(x * OPS["cast"](k, dtype=float64), x, k)
    assert gk is None
    assert value(gx, k=3) == 3
    assert gradient(OPS["cast"](OPS["cast"](x, dtype=int64), dtype=float64), x) == [None]


def test_inputs_without_a_path_have_none() -> None:
    x, y = f64("x"), f64("y")
    assert gradient(OPS["exp"](x), x, y)[1] is None


def test_an_intermediate_node_can_be_asked_for_with_an_input() -> None:
    x = f64("x")
    middle = OPS["exp"](x)
    gx, gm = gradient(middle * middle, x, middle)
    np.testing.assert_allclose(value(gm, x=0.4), 2 * np.exp(0.4))
    np.testing.assert_allclose(value(gx, x=0.4), 2 * np.exp(0.8))


def test_nothing_behind_a_stop_node_is_visited() -> None:
    x = f64("x")
    wall = OPS["exp"](x)
    root = wall * 2.0
    one = constant(1.0, float64)
    assert vjp([root], [one], [x], stop=frozenset([wall])) == [None]
    (g,) = vjp([root], [one], [wall], stop=frozenset([wall]))
    assert value(g, x=1.0) == 2.0


def test_the_output_itself() -> None:
    x = f64("x", 3)
    g = f64("g", 3)
    assert vjp([x], [g], [x]) == [g]
    (both,) = vjp([x, x], [g, g], [x])
    np.testing.assert_array_equal(value(both, g=np.arange(3.0)), [0, 2, 4])


def test_two_outputs_with_one_cotangent_missing() -> None:
    x = f64("x")
    outputs = [OPS["exp"](x), OPS["sin"](x)]
    one = constant(1.0, float64)
    (g,) = vjp(outputs, [None, one], [x])
    np.testing.assert_allclose(value(g, x=0.3), np.cos(0.3))
    (g,) = vjp(outputs, [one, one], [x])
    np.testing.assert_allclose(value(g, x=0.3), np.exp(0.3) + np.cos(0.3))


def test_results_keep_dtype() -> None:
    x = input_node("x", TensorType(float32, (2,)))
    wide = OPS["cast"](x, dtype=float64)
    (g,) = gradient(wide * wide, x)
    assert g is not None
    assert g.type == x.type


def test_any_order() -> None:
    x = f64("x")
    node: Node | None = OPS["sin"](x * x)
    for _ in range(3):
        assert node is not None
        (node,) = gradient(node, x)
    t = 0.7
    expected = -12 * t * np.sin(t * t) - 8 * t**3 * np.cos(t * t)
    np.testing.assert_allclose(value(node, x=t), expected, rtol=1e-12)


def test_symbolic_sizes() -> None:
    x, w = f64("x", N, 3), f64("w", 3)
    graph, owners = gradient_graph(Graph("g", (x, w), (), (OPS["sum"](OPS["tanh"](x * w), dims=(0, 1)),)))
    verify(graph)
    assert owners == [0, 1]
    for n in (0, 1, 5):
        gx, gw = run_graph(graph, [np.ones((n, 3)), np.ones(3), np.ones((1, 1))])[0]
        np.testing.assert_allclose(gx, np.full((n, 3), 1 - np.tanh(1) ** 2))
        np.testing.assert_allclose(gw, n * np.full(3, 1 - np.tanh(1) ** 2))


# -------------------------------------------------------------------------------- lines and errors


def test_gradient_nodes_carry_the_forward_line() -> None:
    x = f64("x")
    with ir.at(Loc("model.py", 12, "f")):
        y = OPS["sin"](x)
    (g,) = gradient(y, x)
    assert g is not None
    assert g.loc == Loc("model.py", 12, "f")


def test_an_op_without_gradient_names_itself_and_the_line() -> None:
    x = f64("x")
    with ir.at(Loc("model.py", 12, "forward")):
        y = OPS["nextafter"](x, 2.0)
    with pytest.raises(GradientError) as raised:
        gradient(y * 3.0, x)
    assert "nextafter has no gradient" in str(raised.value)
    assert "model.py:12 in forward" in str(raised.value)
    assert ".detach()" in str(raised.value)


def test_an_op_without_gradient_off_the_path_is_no_error() -> None:
    x, y = f64("x"), f64("y")
    (g,) = gradient(x * OPS["floor_divide"](y, 2.0), x)
    assert value(g, y=5.0) == 2.0


def test_gradients_of_neighbouring_slices_are_put_side_by_side() -> None:
    x = f64("x", 2, N, 7)

    def part(start: int, size: int, rows: int = 2) -> Node:
        return OPS["slice"](x, starts=(0, 0, start), steps=(1, 1, 1), sizes=(rows, N, size))

    pieces = [part(0, 2), part(2, 4), part(6, 1)]
    for chosen, ops in (
        (pieces, {"cat": 1, "pad": 0, "add": 0}),
        (pieces[1:], {"cat": 1, "pad": 1, "add": 0}),
        (pieces[::-2], {"cat": 0, "pad": 2, "add": 1}),  # a gap between them
        ([*pieces, part(1, 3)], {"cat": 1, "pad": 3, "add": 2}),  # overlapping ones are added up
        ([*pieces, part(0, 7, rows=1)], {"cat": 1, "pad": 1, "add": 1}),
    ):
        outputs = tuple(OPS["sin"](c) for c in chosen)
        graph = Graph("g", (x,), (), outputs)
        pulled, _ = gradient_graph(graph)
        names = [n.op.name for n in toposort(pulled.outputs)]
        assert {op: names.count(op) for op in ops} == ops
        check_gradient(graph, [np.random.default_rng(0).standard_normal((2, 3, 7))], np.random.default_rng(1))
