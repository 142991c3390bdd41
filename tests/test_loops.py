"""Loops and branches as machine code: beside the evaluator, nested, on several threads, with bad indices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import graphflow as gf
import numpy as np
import pytest
from graphflow.checking import CheckedEngine
from graphflow.compiler.interpret import run_graph
from graphflow.compiler.ir import OPS, Graph, Node, TensorType, constant, input_node
from graphflow.compiler.ops import elementwise as el
from graphflow.compiler.ops.contract import matmul
from graphflow.compiler.ops.control import cond, items, scan, while_loop
from graphflow.compiler.ops.index import take
from graphflow.compiler.ops.movement import cat, permute, reshape, slice_
from graphflow.compiler.ops.reduce import sum_
from graphflow.compiler.passes.autodiff import vjp
from graphflow.dims import Dim
from graphflow.dtypes import DType, bool_, float32, float64, int64
from graphflow.engine import Engine, compile_graph
from graphflow.errors import VerifyError
from graphflow.runtime.program import Part
from graphflow.runtime.validate import validate
from hypothesis import HealthCheck, given, settings

from graphs import graphs
from registry import check_gradient

T = Dim.symbol("t")


def arg(name: str, shape: Sequence[int | Dim] = (), dtype: DType = float64) -> Node:
    return input_node(name, TensorType(dtype, tuple(shape)))


def compare(graph: Graph, *arrays: np.ndarray) -> Engine:
    """Runs the graph fused, unfused and beside the evaluator, twice each."""
    arrays = tuple(map(np.asarray, arrays))
    expected, _ = run_graph(graph, arrays)
    engine = compile_graph(graph)
    for other in (engine, engine, compile_graph(graph, join=False), CheckedEngine(graph, True, False)):
        actual, _ = other.run(arrays)
        for ours, theirs in zip(actual, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)
    return engine


def decay(length: int | Dim, reverse: bool = False, width: int = 3) -> Graph:
    """``h = tanh(h @ w + x)``, with all its values, over a sequence."""
    w, h, x = arg("w", (width, width)), arg("h", (2, width)), arg("x", (2, width))
    new = el.tanh(matmul(h, w) + x)
    body = Graph("step", (h, x, w), (), (new, new))
    h0, xs, weights = arg("h0", (2, width)), arg("xs", (length, 2, width)), arg("w", (width, width))
    attrs = {"body": body, "carries": 1, "sequences": 1, "length": length, "reverse": reverse}
    return Graph("decay", (h0, xs, weights), (), items(scan(h0, xs, weights, **attrs)))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_length_that_is_a_symbol(reverse: bool) -> None:
    rng = np.random.default_rng(0)
    graph = decay(T, reverse)
    engine = compile_graph(graph)
    for length in (5, 1, 0, 9):
        arrays = [rng.standard_normal(s) for s in ((2, 3), (length, 2, 3), (3, 3))]
        expected, _ = run_graph(graph, arrays)
        actual, _ = engine.run(arrays)
        for ours, theirs in zip(actual, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_a_thousand_steps_compile_as_ten_do() -> None:
    short, long = (compile_graph(decay(length)).compiled.program for length in (10, 1000))
    assert [c.label for c in short.commands] == [c.label for c in long.commands]
    assert [k.symbol for k in short.kernels] == [k.symbol for k in long.kernels]


@pytest.mark.parametrize("reverse", [False, True])
def test_gradients(reverse: bool) -> None:
    rng = np.random.default_rng(1)
    graph = decay(4, reverse)
    last, steps = graph.outputs
    loss = sum_(steps * steps, dims=(0, 1, 2)) + sum_(last, dims=(0, 1))
    first = vjp([loss], [constant(1.0, float64)], graph.args)
    again = vjp([sum_(first[2] * first[2], dims=(0, 1))], [constant(1.0, float64)], graph.args)
    outputs = (loss, *(g for g in (*first, *again) if g is not None))
    arrays = [rng.standard_normal(s) for s in ((2, 3), (4, 2, 3), (3, 3))]
    compare(Graph("grad", graph.args, (), outputs), *arrays)


def test_a_gradient_runs_the_forward_loop_once() -> None:
    """Though only the last carry is used, and the gradient wants those before each step."""
    graph = decay(4)
    last = graph.outputs[0]
    grads = vjp([sum_(el.sin(last), dims=(0, 1))], [constant(1.0, float64)], graph.args)
    both = Graph("grad", graph.args, (), (last, *(g for g in grads if g is not None)))
    rng = np.random.default_rng(4)
    engine = compare(both, *(rng.standard_normal(s) for s in ((2, 3), (4, 2, 3), (3, 3))))
    commands = engine.compiled.program.commands
    loops = engine.compiled.program.regions().values()
    assert len(loops) == 2
    # One product in each round, forward and backward; that for the weights' gradient comes after the loops.
    products = [i for i, c in enumerate(commands) if "matmul" in c.label]
    assert [sum(a <= i < b for i in products) for a, b in loops] == [1, 1]
    assert len(products) == 3


def gated(length: int | Dim, rows: int | Dim = 2, reverse: bool = False) -> Graph:
    """Four gates from one product, as in an LSTM, with a bias and the sequence of what comes out."""
    shapes: dict[str, tuple[int | Dim, ...]] = {
        "h": (rows, 3), "c": (rows, 3), "x": (rows, 12), "w": (12, 3), "b": (12,)
    }  # fmt: skip
    h, c, x, w, b = (arg(name, shape) for name, shape in shapes.items())
    gates = x + (matmul(h, permute(w, dims=(1, 0))) + b)
    i, f, g, o = (slice_(gates, starts=(0, k), steps=(1, 1), sizes=(rows, 3)) for k in range(0, 12, 3))
    memory = el.sigmoid(f) * c + el.sigmoid(i) * el.tanh(g)
    out = el.sigmoid(o) * el.tanh(memory)
    body = Graph("cell", (h, c, x, w, b), (), (out, memory, out))
    xs = arg("xs", (length, rows, 12))
    operands = (arg("h0", shapes["h"]), arg("c0", shapes["c"]), xs, arg("w", (12, 3)), arg("b", (12,)))
    attrs = {"body": body, "carries": 2, "sequences": 1, "length": length, "reverse": reverse}
    last, _, steps = items(scan(*operands, **attrs))
    loss = sum_(steps * steps, dims=(0, 1, 2)) + sum_(el.sin(last), dims=(0, 1))
    grads = vjp([loss], [constant(1.0, float64)], operands)
    return Graph("gated", operands, (), (loss, *(g for g in grads if g is not None)))


@pytest.mark.parametrize("reverse", [False, True])
def test_a_round_back_is_one_map_and_one_product(reverse: bool) -> None:
    """The bias's gradient is summed after the loop, nothing is computed twice, no gate's share is copied."""
    rng = np.random.default_rng(5)
    graph = gated(5, reverse=reverse)
    shapes = ((2, 3), (2, 3), (5, 2, 12), (12, 3), (12,))
    engine = compare(graph, *(rng.standard_normal(s) for s in shapes))
    program = engine.compiled.program
    (_, (start, stop)) = sorted(program.regions().values())
    inside = [c.label.split("_", 1)[1] for c in program.commands[start + 1 : stop - 1]]
    assert inside == ["mul_add_tanh_sub", "matmul"]
    (back,) = (n for n in graph.nodes() if n.op.name == "scan" and "vjp" in n.attrs["body"].name)
    assert back.attrs["carries"] == 2
    # What the gradient wants of the activations' arguments, their results hold.
    assert sum(n.op.name == "sigmoid" for n in back.attrs["body"].nodes()) == 0


def test_gradients_of_gates_of_any_size() -> None:
    rng = np.random.default_rng(6)
    rows = Dim.symbol("b")
    graph = gated(T, rows)
    engine = compile_graph(graph)
    for length, count in ((4, 3), (1, 1), (0, 2), (3, 0), (2, 17)):
        shapes = ((count, 3), (count, 3), (length, count, 12), (12, 3), (12,))
        arrays = [rng.standard_normal(s) for s in shapes]
        for ours, theirs in zip(engine.run(arrays)[0], run_graph(graph, arrays)[0], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-11)


def test_gates_differentiate_twice() -> None:
    rng = np.random.default_rng(7)
    check_gradient(
        gated(2), [rng.standard_normal(s) for s in ((2, 3), (2, 3), (2, 2, 12), (12, 3), (12,))], rng
    )


def test_a_sum_that_would_have_to_be_stacked_stays_in_the_loop() -> None:
    """Only what is emitted anyway is summed after the loop: memory for all steps is dear."""
    h, x, b = arg("h", (2, 3)), arg("x", (2, 3)), arg("b", (3,))
    body = Graph("step", (h, x, b), (), (el.tanh(h * x + b),))
    operands = (arg("h0", (2, 3)), arg("xs", (4, 2, 3)), arg("b", (3,)))
    last = items(scan(*operands, body=body, carries=1, sequences=1, length=4, reverse=False))[0]
    (grad,) = vjp([sum_(last, dims=(0, 1))], [constant(1.0, float64)], operands[2:])
    assert grad is not None
    graph = Graph("g", operands, (), (grad,))
    rng = np.random.default_rng(8)
    compare(graph, *(rng.standard_normal(n.shape) for n in operands))
    (back,) = (n for n in graph.nodes() if n.op.name == "scan" and "vjp" in n.attrs["body"].name)
    assert back.attrs["carries"] == 2  # the state and the sum


def inside(engine: Engine) -> list[str]:
    """Labels of the commands of the first loop, between its decisions."""
    labels = [c.label for c in engine.compiled.program.commands]
    first, last = (next(i for i, label in enumerate(labels) if mark in label) for mark in ("loop", "end"))
    return labels[first + 1 : last]


@pytest.mark.parametrize("reverse", [False, True])
def test_products_of_a_sequence_alone_are_computed_before_the_loop(reverse: bool) -> None:
    h, x, w, u = arg("h", (2, 3)), arg("x", (2, 4)), arg("w", (3, 3)), arg("u", (4, 3))
    product = matmul(x, u)
    wide = matmul(el.tanh(product), w)  # of a product that the body wants itself, too
    new = el.tanh(matmul(h, w) + product * wide)
    body = Graph("step", (h, x, w, u), (), (new, product, x))
    operands = (arg("h0", (2, 3)), arg("xs", (T, 2, 4)), w, u)
    attrs = {"body": body, "carries": 1, "sequences": 1, "length": T, "reverse": reverse}
    loop = items(scan(*operands, **attrs))
    rng = np.random.default_rng(12)
    for length in (5, 1, 0):
        arrays = [rng.standard_normal(s) for s in ((2, 3), (length, 2, 4), (3, 3), (4, 3))]
        engine = compare(Graph("g", operands, (), loop), *arrays)
    assert [label[4:10] for label in inside(engine)] == ["matmul", "mul_ad"]
    total = sum_(loop[0], dims=(0, 1)) + reshape(sum_(loop[1] * loop[1], dims=(0, 1, 2)), shape=(1, 1))
    shares = vjp([reshape(total, shape=())], [constant(1.0, float64)], operands)
    graph = Graph("g", operands, (), tuple(n for n in shares if n is not None))
    compare(graph, *(rng.standard_normal(s) for s in ((2, 3), (6, 2, 4), (3, 3), (4, 3))))


def test_products_that_stay_in_a_loop() -> None:
    """Those that would take much more memory than their sequence, and those that may fail or have to wait."""
    h, x, row, w = arg("h", (2, 3)), arg("x", (2, 1)), arg("row", (1, 90)), arg("w", (90, 3))
    place = arg("place", (2,), int64)
    for product, count in (
        (matmul(el.sin(matmul(x, row)), w), 1),
        (matmul(take(x, place, dim=0), matmul(row, w)), 1),
        (matmul(OPS["barrier"](x, h), matmul(row, w)), 1),
        (matmul(x, matmul(row, w)), 0),
    ):
        body = Graph("step", (h, x, row, w, place), (), (el.tanh(h + product),))
        operands = (arg("h0", (2, 3)), arg("xs", (4, 2, 1)), row, w, place)
        (last,) = items(scan(*operands, body=body, carries=1, sequences=1, length=4, reverse=False))
        rng = np.random.default_rng(13)
        arrays = [rng.standard_normal(n.shape) * 0.1 for n in operands[:-1]]
        engine = compare(Graph("g", operands, (), (last,)), *arrays, np.array([1, 0]))
        loose = [label for label in inside(engine) if "matmul" in label and "row" not in label]
        assert min(len(loose), 1) == count, inside(engine)


def test_parts_of_concatenations_around_and_in_loops() -> None:
    """Emitted values lie in the concatenation that they become a part of, at every step."""
    rng = np.random.default_rng(9)
    h, x = arg("h", (2, 3)), arg("x", (2, 3))
    new = el.tanh(h + x)
    both = cat(el.sin(new), new * x, dim=0)
    body = Graph(
        "step",
        (h, x),
        (),
        (
            new,
            both,
            cat(new, el.cos(x), dim=1),
            slice_(el.exp(both), starts=(1, 0), steps=(1, 1), sizes=(2, 3)),
        ),
    )
    first, xs = arg("h0", (2, 3)), arg("xs", (T, 2, 3))
    for reverse in (False, True):
        loop = items(scan(first, xs, body=body, carries=1, sequences=1, length=T, reverse=reverse))
        start = reshape(first, shape=(1, 2, 3))
        inner = cat(start, xs, el.exp(xs), dim=0)
        states = cat(start, slice_(loop[2], starts=(0, 0, 0), steps=(1, 1, 1), sizes=(T, 2, 3)), dim=0)
        shifted = slice_(states, starts=(0, 0, 0), steps=(1, 1, 1), sizes=(T, 2, 3))
        again = items(scan(first, shifted, body=body, carries=1, sequences=1, length=T, reverse=not reverse))
        steps, cut = cat(loop[1], again[1], dim=0), cat(loop[3], start, again[3], dim=0)
        graph = Graph(
            "g", (first, xs), (), (el.exp(steps), el.sin(cut), sum_(inner, dims=(0,)), again[0], again[2])
        )
        compare(graph, rng.standard_normal((2, 3)), rng.standard_normal((5, 2, 3)))


def test_carries_that_change_places_stay_or_count() -> None:
    a, b, fixed, n, x = arg("a"), arg("b"), arg("fixed"), arg("n", (), int64), arg("x")
    results = (b, a + b, fixed, n + 1, a * x, constant(2.0, float64))
    body = Graph("fibonacci", (a, b, fixed, n, x), (), results)
    firsts = (arg("a0"), arg("b0"), arg("f0"), arg("n0", (), int64))
    xs = arg("xs", (6,))
    loop = scan(*firsts, xs, body=body, carries=4, sequences=1, length=6, reverse=False)
    graph = Graph("g", (*firsts, xs), (), (*items(loop), firsts[0] + 1.0))
    compare(graph, np.float64(0), np.float64(1), np.float64(7), np.int64(3), np.arange(6.0))


def nested(rows: int | Dim, columns: int) -> Graph:
    """A loop over rows, in it one over columns, in that a branch, and a while loop behind it."""
    count, value, limit = arg("count", (), int64), arg("value"), arg("limit")
    body = Graph("halve", (count, value, limit), (), (count + 1, value * 0.5))
    condition = Graph("large", (count, value, limit), (), (el.gt(el.abs_(value), limit),))

    s, x = arg("s"), arg("x")
    then = Graph("then", (s, x), (), (s + el.sin(x),))
    otherwise = Graph("otherwise", (s, x), (), (s * x - 1.0,))
    s1, x1 = arg("s"), arg("x")
    (picked,) = items(cond(el.gt(x1, 0.0), s1, x1, then=then, otherwise=otherwise))
    inner = Graph("inner", (s1, x1), (), (picked, picked * 2.0))

    total, row, bound = arg("total"), arg("row", (columns,)), arg("bound")
    sums, doubled = items(scan(total, row, body=inner, carries=1, sequences=1, length=columns, reverse=True))
    steps, small = items(
        while_loop(constant(0, int64), sums, bound, condition=condition, body=body, carries=2)
    )
    outer = Graph("outer", (total, row, bound), (), (small, doubled, steps, sums))
    t0, xs, b0 = arg("t0"), arg("xs", (rows, columns)), arg("b0")
    loop = scan(t0, xs, b0, body=outer, carries=1, sequences=1, length=rows, reverse=False)
    return Graph("nested", (t0, xs, b0), (), items(loop))


def test_loops_in_loops() -> None:
    rng = np.random.default_rng(2)
    graph = nested(T, 4)
    for rows in (3, 0, 5):
        compare(graph, np.float64(2), rng.standard_normal((rows, 4)) * 3, np.float64(0.3))


def test_a_branch_on_an_argument_and_results_that_nobody_uses() -> None:
    x, y = arg("x", (3,)), arg("x", (3,))
    flag, value = arg("flag", (), bool_), arg("value", (3,))
    both = cond(
        flag,
        value,
        then=Graph("t", (x,), (), (el.exp(x), x, x)),
        otherwise=Graph("o", (y,), (), (y, y * y, y)),
    )
    graph = Graph("g", (flag, value), (), (items(both)[1], items(both)[1]))
    for choice in (True, False):
        compare(graph, np.bool_(choice), np.arange(3.0))


@pytest.fixture
def threads() -> Iterator[None]:
    before = gf.get_num_threads()
    yield
    gf.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_several_threads_take_the_same_way(count: int, threads: None) -> None:
    """Wide steps are shared; short loops and branches beside them belong to one thread."""
    width = 192
    h, n, x, w = (
        arg("h", (64, width), float32),
        arg("n", (), int64),
        arg("x", (width,), float32),
        arg("w", (width, width), float32),
    )
    k, m = arg("k"), arg("k")
    even = Graph("even", (k,), (), (k * 0.5,))
    odd = Graph("odd", (m,), (), (el.sin(m),))
    value = el.cast(n, dtype=float64)
    (small,) = items(cond(el.eq(el.remainder(n, constant(2, int64)), 0), value, then=even, otherwise=odd))
    new = el.tanh(matmul(h, w) + x) + el.cast(small, dtype=float32)
    body = Graph("step", (h, n, x, w), (), (new, n + 1, sum_(new, dims=(1,)), small))
    args = (
        arg("h0", (64, width), float32),
        arg("n0", (), int64),
        arg("xs", (7, width), float32),
        arg("w0", (width, width), float32),
    )
    loop = scan(*args, body=body, carries=2, sequences=1, length=7, reverse=False)
    graph = Graph("wide", args, (), items(loop))
    rng = np.random.default_rng(3)
    arrays = [
        rng.standard_normal((64, width)).astype(np.float32),
        np.asarray(0),
        rng.standard_normal((7, width)).astype(np.float32),
        (rng.standard_normal((width, width)) * 0.05).astype(np.float32),
    ]
    gf.set_num_threads(1)
    engine = compile_graph(graph)
    expected, _ = engine.run(arrays)
    reference, _ = run_graph(graph, arrays)
    np.testing.assert_allclose(expected[0], reference[0], rtol=1e-4, atol=1e-4)
    gf.set_num_threads(count)
    for _ in range(3):
        actual, _ = engine.run(arrays)
        for ours, theirs in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    profiled, times, _ = engine.executor.profile(arrays)
    np.testing.assert_array_equal(profiled[0], expected[0])
    assert {"loop", "end", "branch", "jump"} <= {t.kernel for t in times}


def test_a_bad_index_ends_the_loop_and_changes_no_state() -> None:
    total, i, table = arg("total"), arg("i", (1,), int64), arg("table", (4,))
    picked = reshape(take(table, i, dim=0), shape=())
    body = Graph("pick", (total, i, table), (), (total + picked, picked))
    state, indices, values = arg("state"), arg("indices", (T, 1), int64), arg("values", (4,))
    last, all_ = items(
        scan(state, indices, values, body=body, carries=1, sequences=1, length=T, reverse=False)
    )
    graph = Graph("g", (indices, values), (state,), (all_,), ((0, last),))
    engine = compile_graph(graph)
    table_ = np.arange(4.0)
    states = (np.array(10.0),)
    for bad in ([[0], [9], [1]], [[0], [1], [-5]]):
        with pytest.raises(IndexError, match=f"index {9 if [9] in bad else -5} is out of range"):
            engine.call((np.array(bad), table_), states)
        assert states[0] == 10.0
    (picked_,) = engine.call((np.array([[3], [-1], [1]]), table_), states)
    np.testing.assert_array_equal(picked_, [3.0, 3.0, 1.0])
    assert states[0] == 17.0


@pytest.mark.parametrize(
    ("kind", "change", "told"),
    [
        ("end", {"target": 99}, "leads out of its region"),
        ("end", {"target": 0}, "leads out of its region"),
        ("loop", {"leave": 2}, "leads out of its region"),
        ("loop", {"length": Dim.symbol("u")}, "unknown symbol 'u'"),
        ("end", {"kind": "branch", "target": 5}, "needs a bool"),
    ],
)
def test_programs_whose_decisions_lead_astray_are_refused(
    kind: str, change: dict[str, object], told: str
) -> None:
    program = compile_graph(decay(3)).compiled.program
    commands = [
        replace(c, control=replace(c.control, **change)) if c.control and c.control.kind == kind else c
        for c in program.commands
    ]
    with pytest.raises(VerifyError, match=told):
        validate(replace(program, commands=tuple(commands)))


def test_parts_of_parts_are_refused() -> None:
    program = compile_graph(decay(3)).compiled.program
    buffers = list(program.buffers)
    number = next(i for i, b in enumerate(buffers) if b.part)
    for part, told in ((Part(number, 0, ()), "which it can't be"), (Part(0, 0, ((7, 1),)), "loop 7")):
        buffers[number] = replace(buffers[number], part=part)
        with pytest.raises(VerifyError, match=told):
            validate(replace(program, buffers=tuple(buffers)))


def test_explain_tells_of_decisions() -> None:
    program = compile_graph(decay(5)).compiled.program
    kinds = [c.control.kind for c in program.commands if c.control]
    assert kinds == ["loop", "end"]
    (region,) = program.regions().values()
    assert program.commands[region[1] - 1].control.kind == "end"


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(graphs())
def test_random_graphs_with_loops_and_branches(case: tuple[Graph, list[np.ndarray]]) -> None:
    graph, arrays = case
    expected, states = run_graph(graph, arrays)
    for join in (True, False):
        actual, new = compile_graph(graph, join).run(arrays)
        for ours, theirs in zip([*actual, *new], [*expected, *states], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)
