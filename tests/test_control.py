"""Loops and branches: meaning, gradients, symbolic sizes, and closing over outside values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graphflow.compiler import ir
from graphflow.compiler.interpret import run_graph
from graphflow.compiler.ir import OPS, Graph, Node, TensorType, constant, input_node
from graphflow.compiler.location import Loc
from graphflow.compiler.ops.control import cond, items, scan, while_loop
from graphflow.compiler.parser import parse
from graphflow.compiler.passes.autodiff import vjp, zeros
from graphflow.compiler.subgraph import close, inline, pull_back
from graphflow.compiler.verify import verify
from graphflow.dims import Dim
from graphflow.dtypes import bool_, float64, int64
from graphflow.errors import GradientError, ShapeError

from registry import check_gradient, gradient_graph

T, N = Dim.symbol("t"), Dim.symbol("n")
RNG = np.random.default_rng(3)


def f64(name: str, *shape: Any) -> Node:
    return input_node(name, TensorType(float64, shape))


def run(graph: Graph, *arrays: Any) -> list[np.ndarray]:
    return run_graph(verify(graph), [np.asarray(a) for a in arrays])[0]


def scans_in(nodes: list[Node]) -> list[Node]:
    return [n for n in nodes if n.op.name == "scan"]


# -------------------------------------------------------------------------------- scan


def cumulative(reverse: bool) -> Graph:
    total, x = f64("total", N), f64("x", N)
    new = total + x
    body = Graph("body", (total, x), (), (new, new * 2.0))
    first, xs = f64("first", N), f64("xs", T, N)
    results = items(scan(first, xs, body=body, carries=1, sequences=1, length=T, reverse=reverse))
    return Graph("cumulative", (first, xs), (), results)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 5])
def test_scan_with_symbolic_sizes(reverse: bool, length: int) -> None:
    xs = RNG.standard_normal((length, 3))
    last, steps = run(cumulative(reverse), np.ones(3), xs)
    order = xs[::-1] if reverse else xs
    expected = 1 + np.cumsum(order, axis=0)
    np.testing.assert_allclose(last, expected[-1] if length else np.ones(3))
    np.testing.assert_allclose(steps, 2 * (expected[::-1] if reverse else expected))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("length", [0, 1, 4])
def test_gradient_of_scan_with_symbolic_sizes(reverse: bool, length: int) -> None:
    check_gradient(verify(cumulative(reverse)), [np.ones(2), RNG.standard_normal((length, 2))], RNG)


def test_sizes_of_the_outer_graph_are_known_inside() -> None:
    total = f64("total")
    grown = total + OPS["reshape"](
        OPS["sum"](OPS["cast"](OPS["iota"](size=N), dtype=float64), dims=(0,)), shape=()
    )
    first, other = f64("first"), f64("other", N)
    loop = scan(
        first, body=Graph("body", (total,), (), (grown,)), carries=1, sequences=0, length=N, reverse=False
    )
    assert run(Graph("g", (first, other), (), items(loop)), 0.0, np.zeros(4)) == [4 * 6]


def attention_like(emit_carry: bool) -> Graph:
    """Every kind of operand: float carries, an integer one, sequences of floats and integers, a constant."""
    h, c, k, x, i, w = args = (
        f64("h", 3), f64("c"), input_node("k", TensorType(int64, ())), f64("x", 3),
        input_node("i", TensorType(int64, ())), f64("w", 3),
    )  # fmt: skip
    new_h = OPS["tanh"](h * w + x) * OPS["cast"](i, dtype=float64)
    new_c = c + OPS["reshape"](OPS["sum"](h * new_h, dims=(0,)), shape=())
    emitted = (new_h, k * 2) if emit_carry else (new_h * c,)
    body = Graph("cell", args, (), (new_h, new_c, k + i, *emitted))
    operands = (
        f64("h0", 3), f64("c0"), input_node("k0", TensorType(int64, ())), f64("xs", 4, 3),
        input_node("is", TensorType(int64, (4,))), f64("w0", 3),
    )  # fmt: skip
    loop = scan(*operands, body=body, carries=3, sequences=2, length=4, reverse=False)
    return Graph("g", operands, (), items(loop))


def attention_arrays() -> list[Any]:
    return [RNG.standard_normal(3), np.float64(0.4), np.int64(2), RNG.standard_normal((4, 3)),
            np.array([1, 2, 1, 3]), RNG.standard_normal(3)]  # fmt: skip


@pytest.mark.parametrize("emit_carry", [False, True])
def test_gradient_of_scan_with_all_kinds_of_operands(emit_carry: bool) -> None:
    check_gradient(verify(attention_like(emit_carry)), [np.asarray(a) for a in attention_arrays()], RNG)


def test_emitted_carries_are_not_computed_again() -> None:
    total, x = f64("total"), f64("x")
    new = OPS["sin"](total) * x
    first, xs = f64("first"), f64("xs", 4)
    for emitted, loops in (((new,), 2), ((), 3)):
        body = Graph("body", (total, x), (), (new, *emitted))
        results = items(scan(first, xs, body=body, carries=1, sequences=1, length=4, reverse=False))
        pulled, _ = gradient_graph(Graph("g", (first, xs), (), results))
        # The loop itself is needed for its emitted values only; without them one saves, one goes back.
        assert len(scans_in(pulled.nodes())) == (loops if emitted else loops - 1)


def test_a_linear_loop_saves_nothing() -> None:
    first, xs = cumulative(False).args
    pulled, _ = gradient_graph(cumulative(False))
    assert len(scans_in(pulled.nodes())) == 1
    assert first is not xs


def test_third_derivative_through_scan() -> None:
    x = f64("x")
    h = f64("h")
    k = f64("k")
    power = Graph("power", (h, k), (), (h * k,))
    loop = scan(constant(1.0, float64), x, body=power, carries=1, sequences=0, length=5, reverse=False)
    node: Node | None = items(loop)[0]
    for _ in range(3):
        assert node is not None
        (node,) = vjp([node], [constant(1.0, float64)], [x])
    assert node is not None
    np.testing.assert_allclose(run(Graph("g", (x,), (), (node,)), 1.5), [60 * 1.5**2])


def test_loops_inside_loops() -> None:
    x, w = f64("x", 2), f64("w", 2)
    inner = Graph("inner", (x, w), (), (OPS["sin"](x * w),))
    y, v = f64("y", 2), f64("v", 2)
    once = items(scan(y, v, body=inner, carries=1, sequences=0, length=2, reverse=False))[0]
    outer = Graph("outer", (y, v), (), (once + y, once))
    a, b = f64("a", 2), f64("b", 2)
    graph = Graph(
        "g", (a, b), (), items(scan(a, b, body=outer, carries=1, sequences=0, length=3, reverse=True))
    )
    check_gradient(verify(graph), [RNG.standard_normal(2), RNG.standard_normal(2)], RNG)
    assert str(parse(str(graph))) == str(graph)


# -------------------------------------------------------------------------------- cond


def absolute() -> tuple[Graph, Node]:
    x = f64("x", N)
    then, otherwise = f64("a", N), f64("b", N)
    positive = OPS["gt"](OPS["reshape"](OPS["sum"](x, dims=(0,)), shape=()), 0.0)
    node = cond(
        positive, x, then=Graph("then", (then,), (), (then * then,)),
        otherwise=Graph("otherwise", (otherwise,), (), (OPS["neg"](otherwise),)),
    )  # fmt: skip
    return Graph("g", (x,), (), items(node)), x


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_cond_runs_one_branch_and_differentiates_it(sign: float) -> None:
    graph, _ = absolute()
    x = sign * np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(run(graph, x)[0], x * x if sign > 0 else -x)
    check_gradient(verify(graph), [x], RNG)


def test_cond_with_an_operand_that_one_branch_ignores() -> None:
    p, x, y = input_node("p", TensorType(bool_, ())), f64("x"), f64("y")
    a, b = f64("a"), f64("b")
    node = cond(
        p, x, y, then=Graph("then", (a, b), (), (a,)), otherwise=Graph("otherwise", (a, b), (), (b * b,))
    )
    pulled, owners = gradient_graph(Graph("g", (p, x, y), (), items(node)))
    assert owners == [1, 2]
    assert run(pulled, True, 2.0, 3.0, 1.0) == [1.0, 0.0]
    assert run(pulled, False, 2.0, 3.0, 1.0) == [0.0, 6.0]


def test_cond_that_differentiates_to_nothing() -> None:
    p, x = input_node("p", TensorType(bool_, ())), f64("x")
    a = f64("a")
    stopped = Graph("stopped", (a,), (), (OPS["detach"](a),))
    assert gradient_graph(Graph("g", (p, x), (), items(cond(p, x, then=stopped, otherwise=stopped))))[1] == []


# -------------------------------------------------------------------------------- while_loop


def halving() -> tuple[Node, Node]:
    x = f64("x")
    a, limit = f64("a"), f64("limit")
    condition = Graph("condition", (a, limit), (), (OPS["gt"](a, limit),))
    body = Graph("body", (a, limit), (), (a * 0.5,))
    with ir.at(Loc("model.py", 21, "forward")):
        return x, items(while_loop(x, constant(1.0, float64), condition=condition, body=body, carries=1))[0]


def test_while_loop() -> None:
    x, last = halving()
    assert run(Graph("g", (x,), (), (last,)), 24.0) == [0.75]
    assert run(Graph("g", (x,), (), (last,)), 0.5) == [0.5]


def test_while_loop_has_no_gradient_and_says_what_has() -> None:
    x, last = halving()
    with pytest.raises(GradientError) as raised:
        vjp([last], [constant(1.0, float64)], [x])
    for part in ("while_loop has no gradient", "model.py:21 in forward", "use scan"):
        assert part in str(raised.value)


# -------------------------------------------------------------------------------- sub-graphs


def test_close_computes_outside_what_it_can() -> None:
    x, w, b = f64("x", 2), f64("w", 2), f64("b", 2)
    outside = OPS["exp"](w)
    zero = zeros(x.type)
    graph, captured = close("body", (x,), (x * outside + b, outside, zero))
    assert captured == (outside, b)
    assert [n.attrs["name"] for n in graph.args] == ["x", "captured0", "b"]
    verify(graph)
    assert OPS["exp"] not in [node.op for node in graph.nodes()]
    assert graph.outputs[2] is zero
    assert inline(graph, (x, *captured)) == [x * outside + b, outside, zero]


def test_close_without_anything_outside() -> None:
    x = f64("x", 2)
    graph, captured = close("body", (x,), (x * x,))
    assert captured == ()
    assert graph.outputs == (x * x,)


def test_pull_back_gives_arguments_their_cotangents() -> None:
    x, y = f64("x"), f64("y")
    g = f64("g")
    gx, gy = pull_back(Graph("f", (x, y), (), (OPS["exp"](y), x * 3.0)), {1: g})
    assert gy is None
    assert run(Graph("g", (g,), (), (gx,)), 2.0) == [6.0]  # type: ignore[arg-type]


def test_results_of_a_loop_that_is_used_twice_are_one_node() -> None:
    graph = cumulative(False)
    assert len(scans_in(graph.nodes())) == 1


def test_a_tuple_is_no_operand() -> None:
    x, _ = halving()
    loop = scan(x, body=Graph("b", (x,), (), (x,)), carries=1, sequences=0, length=2, reverse=False)
    with pytest.raises((ShapeError, TypeError), match="operand 0 is a tuple"):
        scan(loop, body=Graph("b", (x,), (), (x,)), carries=1, sequences=0, length=2, reverse=False)


def test_what_is_detached_outside_a_body_has_no_gradient_inside() -> None:
    x, carry = (input_node(name, TensorType(float64, (3,))) for name in ("x", "carry"))
    held = OPS["detach"](x) * 2.0
    body, captured = close("body", [carry], [carry * held + x])
    assert set(captured) == {held, x}
    shares = dict(zip((carry, *captured), pull_back(body, {0: input_node("g", carry.type)}), strict=True))
    assert shares[held] is None
    assert shares[x] is not None
