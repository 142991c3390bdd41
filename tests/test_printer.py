"""The text of graphs, and reading it back."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from graphflow.compiler import ir
from graphflow.compiler.interpret import run_graph
from graphflow.compiler.ir import OPS, Graph, Node, TensorType, constant, input_node
from graphflow.compiler.location import Loc
from graphflow.compiler.ops.control import items, scan
from graphflow.compiler.parser import parse
from graphflow.compiler.printer import spell_value
from graphflow.compiler.verify import MAX_NESTING
from graphflow.dims import Dim
from graphflow.dtypes import bool_, by_name, float32, float64, int64
from graphflow.errors import FormatError
from hypothesis import given
from hypothesis import strategies as st

from graphs import graphs
from registry import gradient_graph

BATCH, N = Dim.symbol("batch"), Dim.symbol("n")


def f32(name: str, *shape: Any) -> Node:
    return input_node(name, TensorType(float32, shape))


def train_step() -> Graph:
    x, w, rate = f32("x", BATCH, 64), f32("layer1.weight", 64, 8), input_node("lr", TensorType(float64, ()))
    with ir.at(Loc("/home/someone/model.py", 10, "forward")):
        y = OPS["tanh"](OPS["matmul"](x, w))
    with ir.at(Loc("/home/someone/model.py", 12, "loss")):
        loss = OPS["reshape"](OPS["sum"](y * y, dims=(0, 1)), shape=())
    pulled = ir.substitute(*_gradient(loss, w))
    with ir.at(Loc("/home/someone/train.py", 31, "step")):
        new = w - OPS["cast"](rate, dtype=float32) * pulled[0]
    return Graph("train_step", (x,), (w, rate), (loss,), ((0, new),))


def _gradient(loss: Node, w: Node) -> tuple[list[Node], dict[Node, Node]]:
    graph, _ = gradient_graph(Graph("loss", (w,), (), (loss,)))
    return list(graph.outputs), {graph.args[1]: constant(1.0, float32)}


def recurrence() -> Graph:
    h, x, w = f32("h", 4), f32("x", 4), f32("w", 4)
    with ir.at(Loc("rnn.py", 3, "cell")):
        new = OPS["tanh"](h * w + x)
    body = Graph("cell", (h, x, w), (), (new, new))
    first, xs, weight = f32("first", 4), f32("xs", N, 4), f32("weight", 4)
    with ir.at(Loc("rnn.py", 9, "rnn")):
        last, steps = items(
            scan(first, xs, weight, body=body, carries=1, sequences=1, length=N, reverse=False)
        )
    return Graph("rnn", (first, xs), (weight,), (last, steps))


def round_trip(graph: Graph) -> Graph:
    text = str(graph)
    again = parse(text)
    assert str(again) == text
    return again


# -------------------------------------------------------------------------------- golden texts


def test_train_step(golden: Callable[[str, str], None]) -> None:
    graph = train_step()
    round_trip(graph)
    golden("train_step.graph", str(graph))


def test_scan_and_its_gradient(golden: Callable[[str, str], None]) -> None:
    graph = recurrence()
    pulled, _ = gradient_graph(Graph("rnn", graph.inputs, (), graph.outputs))
    round_trip(pulled)
    golden("scan_gradient.graph", str(pulled))


def test_every_kind_of_attribute(golden: Callable[[str, str], None]) -> None:
    x = f32("x", BATCH, 2 * N + 1)
    made = [
        *(constant(v, float64) for v in (0.1, -0.0, math.inf, -math.inf, math.nan, 1e300, 5e-324, 3.0)),
        constant(-7, int64),
        constant(True, bool_),
        constant(BATCH * N - 1, int64),
        constant(Dim.symbol("inf"), int64),
        OPS["slice"](x, starts=(0, (N + 3) // 2), steps=(1, 1), sizes=(BATCH, 1)),
        OPS["permute"](x, dims=(1, 0)),
        OPS["reshape"](OPS["cast"](x, dtype=by_name("uint8")), shape=(BATCH * (2 * N + 1),)),
        OPS["alias"](x, uid=123456),
    ]
    graph = Graph(
        "a graph",
        (x, f32("x", Dim.symbol("inf"), N), f32("odd name%"), f32("0")),
        (f32("x", 3),),
        tuple(made),
    )
    round_trip(graph)
    golden("attributes.graph", str(graph))


# -------------------------------------------------------------------------------- round trips


@given(graphs())
def test_random_graphs_come_back(drawn: tuple[Graph, list[np.ndarray]]) -> None:
    graph, arrays = drawn
    again = round_trip(graph)
    for a, b in zip(run_graph(graph, arrays), run_graph(again, arrays), strict=True):
        for u, v in zip(a, b, strict=True):
            np.testing.assert_array_equal(u, v)


@given(st.floats(width=64))
def test_floats_are_exact(value: float) -> None:
    node = OPS["const"](value=value, dtype=float64)
    (back,) = round_trip(Graph("g", (), (), (node,))).outputs
    assert back is node


@given(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12))
def test_any_text_can_be_a_name(graph_name: str, first: str, second: str) -> None:
    x, w = f32(first, 2), f32(second, 2)
    again = round_trip(Graph(graph_name, (x,), (w,), (x * w,)))
    assert again.name == graph_name
    assert [n.attrs["name"] for n in again.inputs] == [first, second]


@given(st.text(max_size=20), st.integers(0, 10**6))
def test_any_file_name_can_be_in_a_line(file: str, line: int) -> None:
    x = f32("x", 2)
    with ir.at(Loc(file, line, "f")):
        round_trip(Graph("g", (x,), (), (OPS["exp"](x),)))


def test_lines_come_back() -> None:
    graph = round_trip(train_step())
    # what depends on no input has the line of whoever made it first, in another test maybe
    open_nodes = set(graph.inputs)
    for node in graph.nodes():
        if not open_nodes.isdisjoint(node.inputs):
            open_nodes.add(node)
    lines = {str(n.loc) for n in open_nodes if n.loc}
    assert lines == {"model.py:10", "model.py:12", "train.py:31"}


def test_constants_carry_no_line() -> None:
    with ir.at(Loc("elsewhere.py", 1, "f")):
        unusual = constant(0.123456789, float64)
    assert "elsewhere" not in str(Graph("g", (), (), (OPS["exp"](unusual),)))


def test_an_attribute_of_another_kind() -> None:
    with pytest.raises(TypeError, match="an attribute can't be"):
        spell_value([1])


def test_a_long_chain_prints_and_parses_quickly() -> None:
    x = node = f32("x", BATCH, 64)
    for line in range(25_000):
        with ir.at(Loc("model.py", line, "f")):
            node = OPS["tanh"](node + x)
    graph = Graph("chain", (x,), (), (node,))
    start = time.process_time()
    text = str(graph)
    printed = time.process_time()
    again = parse(text)
    parsed = time.process_time()
    assert str(again) == text
    assert printed - start < 3
    assert parsed - printed < 6  # alone on a core it takes under two seconds


# -------------------------------------------------------------------------------- what is no graph

HEAD = "graph g(%x: float32[3, n], %w: float32[3, n] state) {\n"
BAD = [
    ("", 1, "expected 'graph', found the end"),
    ("graph", 1, "expected the graph's name"),
    (HEAD, 2, "expected 'return', found the end"),
    (HEAD + "  return %x\n} extra", 3, "text after the graph: 'extra'"),
    (HEAD + "  return %y\n}", 2, "%y is not defined"),
    (HEAD + "  %0 = frobnicate(%x) : float32[3, n]\n  return %0\n}", 2, "there is no op 'frobnicate'"),
    (HEAD + "  %0 = input(%x) : float32[3, n]\n  return %0\n}", 2, "there is no op 'input'"),
    (
        HEAD + "\n\n  %0 = exp(%x) : float32[3, 4]\n  return %0\n}",
        4,
        "exp gives float32[3, n], the text says float32[3, 4]",
    ),
    (HEAD + "  %0 = exp(%x, %w) : float32[3, n]\n  return %0\n}", 2, "takes 1 operands, got 2"),
    (HEAD + "  %0 = sum(%x, dims=(5,)) : float32[3, n]\n  return %0\n}", 2, "dimension 5 is out of range"),
    (HEAD + "  %0 = sum(%x) : float32[3, n]\n  return %0\n}", 2, "dims"),
    (HEAD + "  %0 = sum(%x, dims=3) : float32[3, n]\n  return %0\n}", 2, ""),
    (HEAD + "  %0 = sum(%x, dims=(0,), dims=(0,)) : float32[1, n]\n  return %0\n}", 2, "dims is given twice"),
    (
        HEAD + "  %0 = sum(dims=(0,), %x) : float32[1, n]\n  return %0\n}",
        2,
        "operands come before attributes",
    ),
    (
        HEAD + "  %0 = exp(%x) : float32[3, n]\n  %0 = exp(%x) : float32[3, n]\n  return %0\n}",
        3,
        "%0 is defined twice",
    ),
    (HEAD + "  %x = exp(%x) : float32[3, n]\n  return %x\n}", 2, "%x is defined twice"),
    (
        HEAD + "  %0 = cast(%x, dtype=@float33) : float32[3, n]\n  return %0\n}",
        2,
        "no dtype is called 'float33'",
    ),
    (HEAD + "  %0 = exp(%x) : float33[3, n]\n  return %0\n}", 2, "no dtype is called 'float33'"),
    (HEAD + "  %0 = exp(%x) : float32[3, n\n  return %0\n}", 2, "can't read '[3, n'"),
    (HEAD + "  %0 = exp(%x) : float32[3, n+]\n  return %0\n}", 2, "not a size"),
    (HEAD + "  %0 = iota(size=) : int64[3]\n  return %0\n}", 2, "expected a value"),
    (HEAD + "  %0 = iota(size=inf) : int64[3]\n  return %0\n}", 2, ""),
    (HEAD + "  %0 = iota(size=__import__) : int64[__import__]\n  return %0\n}", None, "no input has"),
    (HEAD + "  %0 = iota(size=f(3)) : int64[3]\n  return %0\n}", 2, "not a size"),
    (
        HEAD + "  %0 = iota(size=" + "(" * 200 + "n" + ")" * 200 + ") : int64[n]\n  return %0\n}",
        2,
        "nested too deeply",
    ),
    (HEAD + "  %0 = sum(%x, dims=" + "(" * 40 + "1," + "),)" * 40 + ") : int64[n]\n  return %0\n}", 2, ""),
    (HEAD + "  %0 = iota(size=" + "9" * 5000 + ") : int64[n]\n  return %0\n}", 2, ""),
    (HEAD + "  %0 = exp(%x) : float32[3, n]\n  return %0\n  update %x = %0\n}", 4, "%x is no state"),
    (
        HEAD + "  %0 = sum(%x, dims=(0,)) : float32[1, n]\n  return\n  update %w = %0\n}",
        None,
        "the state w is",
    ),
    (HEAD + "  return\n  update %w = %x\n  update %w = %x\n}", None, "updated twice"),
    ("graph g(%x: float32[] state, %y: float32[]) {\n  return\n}", 1, "arguments come before states"),
    ("graph g(%x: float32[], %x: float32[]) {\n  return\n}", 1, "%x is defined twice"),
    ("graph g(%0: float32[]) {\n  return\n}", 1, "needs a name that isn't a number"),
    ('graph g(%"a\\q": float32[]) {\n  return\n}', 1, "not a string"),
    ("graph g() {\n  ?\n}", 2, "can't read '?'"),
    ("graph g() {\n  \x0b\n}", 2, "can't read '\\x0b'"),
    ("graph g() {\n  return \x00\n}", 2, "can't read"),
]


@pytest.mark.parametrize(("text", "line", "message"), BAD, ids=range(len(BAD)))
def test_bad_text_is_refused_with_its_line(text: str, line: int | None, message: str) -> None:
    with pytest.raises(FormatError) as raised:
        parse(text)
    assert message in str(raised.value)
    if line is not None:
        assert str(raised.value).startswith(f"line {line}: ")


@pytest.mark.parametrize("depth", [MAX_NESTING + 2, 5000])
def test_nesting_is_bounded(depth: int) -> None:
    text = "graph g(%x: float32[]) {\n  %0 = scan(%x, body=" * depth
    with pytest.raises(FormatError, match="nested more than"):
        parse(text)


@given(st.integers(0, 2000), st.integers(0, 300), st.text(max_size=5))
def test_altered_text_gives_a_graph_or_a_format_error(start: int, length: int, replacement: str) -> None:
    text = str(recurrence())
    start %= len(text)
    with contextlib.suppress(FormatError):
        parse(text[:start] + replacement + text[start + length % 8 :])


def test_people_may_add_comments_and_lines() -> None:
    text = (
        "# about\ngraph g(\n  %x: float32[2], # the input\n) {\n\n # more\n  %a = exp(%x)\n : float32[2]\n"
        "  return %a # done\n}\n# end"
    )
    assert str(parse(text)) == "graph g(%x: float32[2]) {\n  %0 = exp(%x) : float32[2]\n  return %0\n}"
