"""Graphs as plain data: exact both ways, and nothing but what the encoder writes is accepted."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from graphflow.compiler import ir
from graphflow.compiler.codec import decode, encode
from graphflow.compiler.interpret import run_graph
from graphflow.compiler.ir import OPS, Graph, Node, Op, TensorType, constant, input_node
from graphflow.compiler.location import Loc
from graphflow.compiler.ops.control import items, scan
from graphflow.compiler.verify import MAX_NESTING
from graphflow.dims import Dim
from graphflow.dtypes import float32, float64, int64
from graphflow.errors import FormatError
from hypothesis import given
from hypothesis import strategies as st

from graphs import graphs
from registry import ALL_OPS, case_for, gradient_graph, samples_of

N = Dim.symbol("n")


def f32(name: str, *shape: Any) -> Node:
    return input_node(name, TensorType(float32, shape))


def rich() -> Graph:
    """A small graph with every kind of attribute, a state, lines, a loop and its gradient."""
    h, x, w = f32("h", 2), f32("x", 2), f32("w", 2)
    body = Graph("cell", (h, x, w), (), (OPS["tanh"](h * w + x), h))
    first, xs, weight = f32("first", 2), f32("xs", N, 2), f32("weight", 2)
    with ir.at(Loc("/somewhere/model.py", 3, "forward")):
        loop = scan(first, xs, weight, body=body, carries=1, sequences=1, length=N, reverse=False)
        taken = OPS["slice"](xs, starts=((N + 1) // 2, 0), steps=(1, 1), sizes=(N - (N + 1) // 2, 1))
    others = (OPS["cast"](taken, dtype=float64), constant(2 * N + 1, int64), OPS["alias"](first, uid=99))
    return Graph("rich", (first, xs), (weight,), (*items(loop), *others), ((0, weight * 0.1),))


def through_json(data: Any) -> Any:
    return json.loads(json.dumps(data, allow_nan=False))


def round_trip(graph: Graph) -> Graph:
    data = encode(graph)
    assert through_json(data) == data
    again = decode(through_json(data))
    assert str(again) == str(graph)
    assert encode(again) == data
    return again


def refused(data: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode(data)


# ---------------------------------------------------------------------------------------------- exactness


def test_a_rich_graph_and_its_gradient_come_back() -> None:
    graph = round_trip(rich())
    round_trip(gradient_graph(Graph("g", graph.inputs, (), graph.outputs))[0])


@pytest.mark.parametrize("op", ALL_OPS, ids=lambda op: op.name)
def test_every_op(op: Op) -> None:
    for sample in samples_of(op):
        case = case_for(op, sample)
        again = round_trip(case.graph)
        for a, b in zip(run_graph(case.graph, case.arrays)[0], run_graph(again, case.arrays)[0], strict=True):
            np.testing.assert_array_equal(a, b)


@given(graphs())
def test_random_graphs(drawn: tuple[Graph, list[np.ndarray]]) -> None:
    round_trip(drawn[0])


@given(st.floats(width=64) | st.sampled_from([math.inf, -math.inf, math.nan, -0.0, 5e-324]))
def test_floats_are_exact(value: float) -> None:
    node = OPS["const"](value=value, dtype=float64)
    assert round_trip(Graph("g", (), (), (node,))).outputs == (node,)


def test_lines_keep_the_file_name_only() -> None:
    assert encode(rich())["locs"] == [["model.py", 3, "forward"]]
    locs = {node.loc for node in round_trip(rich()).nodes() if node.loc}
    assert locs == {Loc("model.py", 3, "forward")}


def test_the_same_graph_gives_the_same_data() -> None:
    assert encode(rich()) == encode(rich())


def test_a_long_chain() -> None:
    node = x = f32("x", 4)
    for _ in range(20_000):
        node = OPS["tanh"](node)
    start = time.process_time()
    again = decode(encode(Graph("g", (x,), (), (node,))))
    assert time.process_time() - start < 10
    assert len(again.nodes()) == 20_001


def test_an_integer_beyond_64_bits_has_no_room() -> None:
    with pytest.raises(FormatError, match="more than 64 bits"):
        encode(Graph("g", (f32("x", 2**70),), (), ()))


# ---------------------------------------------------------------------------------------------- strictness

JUNK = [
    None,
    True,
    -1,
    10**6,
    2**63,
    1.5,
    "",
    "n",
    "x" * 2000,
    [],
    [[]],
    {},
    {"float": "1"},
    {"size": [[1, []]]},
]


def places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) in nested data."""
    pairs = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in list(pairs):
        yield data, key
        yield from places(value)


def accepted_only_if_canonical(data: Any) -> None:
    with contextlib.suppress(FormatError):
        assert encode(decode(data)) == data


def test_any_part_replaced_by_anything() -> None:
    data = encode(rich())
    for container, key in list(places(data)):
        kept = container[key]
        for junk in JUNK:
            container[key] = copy.deepcopy(junk)
            accepted_only_if_canonical(data)
        container[key] = kept
    assert data == encode(rich())


def test_any_part_left_out_or_doubled() -> None:
    original = encode(rich())
    for number in range(sum(1 for _ in places(original))):
        data = copy.deepcopy(original)
        container, key = list(places(data))[number]
        if isinstance(container, list):
            container.insert(key, copy.deepcopy(container[key]))
            accepted_only_if_canonical(data)
        data = copy.deepcopy(original)
        container, key = list(places(data))[number]
        del container[key]
        accepted_only_if_canonical(data)


ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.recursive(ATOMS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_any_data_is_refused(data: Any) -> None:
    refused(data, "has to be")


def edited(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    x, w = f32("x", N, 3), f32("w", 3)
    data = encode(Graph("g", (x,), (w,), (OPS["sum"](x * w, dims=(0,)),), ((0, w * 0.5),)))
    change(data)
    return data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(code="import os"), "a graph has to be a table with"),
        (
            lambda d: d["nodes"][0].__setitem__(0, "system"),
            "node 0 of g: there is no op 'system'; a newer graphflow",
        ),
        (lambda d: d["nodes"][0].__setitem__(0, "input"), "there is no op 'input'"),
        (lambda d: d["nodes"][0].__setitem__(1, [0, 9]), "the operand 9 is out of range"),
        (lambda d: d["nodes"][0].__setitem__(1, [0, 2]), "the operand 2 is out of range"),
        (lambda d: d["nodes"][0].__setitem__(1, [0, -1]), "the operand -1 is out of range"),
        (lambda d: d["nodes"][0].__setitem__(1, [0]), "takes 2 operands, got 1"),
        (lambda d: d["nodes"][1].__setitem__(2, {"dims": [7]}), "dimension 7 is out of range"),
        (lambda d: d["nodes"][1].__setitem__(2, {"dims": [0, 0]}), "each of them once"),
        (lambda d: d["nodes"][1].__setitem__(2, {"dims": [True]}), "the attribute dims can't be"),
        (lambda d: d["nodes"][1].__setitem__(2, {}), "the attribute dims is missing"),
        (lambda d: d["nodes"][1].__setitem__(2, {"dims": [0], "x": 1}), "has no attribute x"),
        (lambda d: d["nodes"][1].__setitem__(2, {"dims": {"float": "zero"}}), "'zero' is no float"),
        (lambda d: d["nodes"][1].__setitem__(2, {"dims": {"python": "1"}}), "no known kind"),
        (lambda d: d["nodes"][1].__setitem__(2, {"dims": 2**64}), "an integer of 64 bits"),
        (lambda d: d["nodes"][1].__setitem__(3, 0), "but .* is stored"),
        (lambda d: d["nodes"][1].__setitem__(4, 5), "the line 5 is out of range"),
        (lambda d: d["outputs"].append(99), "the output 99 is out of range"),
        (lambda d: d["updates"].append([0, 1]), "updated twice"),
        (lambda d: d["updates"].append([1, 1]), "the state 1 is out of range"),
        (lambda d: d["updates"][0].__setitem__(1, 0), "the state w is"),
        (lambda d: d["types"].append(["float32", [5]]), "isn't in the form"),
        (lambda d: d["types"].append(["float99", [5]]), "no dtype is called"),
        (lambda d: d["types"].append(["float32", [-5]]), "not negative"),
        (lambda d: d["types"].append(["float32", [1] * 40]), "more than 32 dimensions"),
        (lambda d: d["types"].append(["float32", [2**40, 2**40]]), "larger than any memory"),
        (lambda d: d["types"].append({"tuple": [{"tuple": []}]}), "a tuple can't hold tuples"),
        (lambda d: d["nodes"].append(["exp", [0], {}, 0, None]), "isn't in the form"),
        (lambda d: d["args"].append(["y", 99]), "the type 99 is out of range"),
        (lambda d: d["locs"].append(["f", "1", "g"]), "a line's number"),
    ],
)
def test_what_is_wrong_is_said(change: Callable[[dict[str, Any]], Any], message: str) -> None:
    decode(edited(lambda d: None))
    refused(edited(change), message)


def size_data(size: Any) -> dict[str, Any]:
    return edited(lambda d: d["types"].append(["float32", [size]]))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"size": []}, "turned out to be a number"),
        ({"size": [[3, []]]}, "turned out to be a number"),
        ({"size": [[1, ["a b"]]]}, "no name of a size"),
        ({"size": [[1, ["n"] * 40]]}, "more than 32 factors"),
        ({"size": [[1, [[[[2, ["n"]]], 2]]]]}, "a floor division is exact"),
        ({"size": [[1, [[[[1, ["n"]]], 0]]]]}, "positive divisor"),
        ({"size": [[1, [[[[5, []]], 2]]]]}, "symbolic numerator"),
        ({"size": [[1, []], [1, ["n"]]]}, "isn't in the form"),
        ({"size": [[2**63, ["n"]]]}, "a coefficient"),
        ({"size": [[1, ["n"]]] * 5000}, "too deep or too long"),
        ({"size": 5}, "has to be a list"),
    ],
)
def test_sizes_are_checked(size: Any, message: str) -> None:
    refused(size_data(size), message)


def test_nested_floor_divisions_are_bounded() -> None:
    size: Any = [[1, ["n"]]]
    for _ in range(500):
        size = [[1, [[size, 2]]]]
    refused(size_data({"size": size}), "too deep or too long")


def test_a_shape_whose_product_explodes() -> None:
    sizes = [{"size": [[1, [f"a{i}"]], [1, [f"b{i}"]]]} for i in range(30)]
    refused(edited(lambda d: d["types"].append(["float32", sizes])), "too complicated")
    refused(edited(lambda d: d["nodes"][1].__setitem__(2, {"dims": sizes})), "too complicated")


def test_deep_data() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    refused(edited(lambda d: d["nodes"][1].__setitem__(2, {"dims": deep})), "too deep")
    while isinstance(deep, list):  # taken apart here, as Python would do it recursively
        deep = deep.pop()


def test_nested_sub_graphs_are_bounded() -> None:
    inner: Any = edited(lambda d: None)
    for _ in range(MAX_NESTING + 5):
        inner = {**edited(lambda d: None), "nodes": [["scan", [0], {"body": {"graph": inner}}, 0, None]]}
    refused(inner, "nested more than")
