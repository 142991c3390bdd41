"""Every invariant of a graph has a graph here that breaks it."""

from __future__ import annotations

from typing import Any

import pytest
from graphflow.compiler import ir
from graphflow.compiler.ir import OPS, Graph, Node, TensorType, constant, input_node
from graphflow.compiler.location import Loc
from graphflow.compiler.ops.control import scan
from graphflow.compiler.schema import attribute_kinds, check_attributes, matches
from graphflow.compiler.verify import MAX_NESTING, verify
from graphflow.dims import Dim
from graphflow.dtypes import DType, float32, float64, int64
from graphflow.errors import VerifyError

N = Dim.symbol("n")


def f32(name: str, *shape: Any) -> Node:
    return input_node(name, TensorType(float32, shape))


def forged(op: str, inputs: tuple[Node, ...], type_: Any, **attrs: Any) -> Node:
    """A node that went by no type rule."""
    return Node(OPS[op], inputs, attrs, type_, Loc("model.py", 10, "f"))


def refused(graph: Graph, message: str) -> str:
    with pytest.raises(VerifyError) as raised:
        verify(graph)
    assert message in str(raised.value)
    return str(raised.value)


def test_a_sound_graph_comes_back() -> None:
    x, w = f32("x", N, 4), f32("w", 4)
    graph = Graph("g", (x,), (w,), (x * w, x), ((0, w + 1.0),))
    assert verify(graph) is graph


def test_the_type_is_inferred_anew_and_the_line_named() -> None:
    x = f32("x", 3)
    message = refused(
        Graph("g", (x,), (), (forged("exp", (x,), TensorType(float32, (4,))),)), "gives float32[3]"
    )
    assert "exp(float32[3]) : float32[4]" in message
    assert "model.py:10" in message


def test_an_ill_typed_node() -> None:
    x, y = f32("x", 3), f32("y", 4)
    refused(Graph("g", (x, y), (), (forged("add", (x, y), x.type),)), "the node is ill-typed: add: shapes")


def test_inputs_are_input_nodes_each_once() -> None:
    x = f32("x", 3)
    refused(Graph("g", (OPS["exp"](x),), (), ()), "an input of the graph g is no input node")
    refused(Graph("g", (x,), (x,), ()), "is listed twice")


def test_no_other_input_is_reachable() -> None:
    x, y = f32("x", 3), f32("y", 3)
    refused(Graph("g", (x,), (), (x + y,)), "reads an input that isn't its own")
    refused(Graph("g", (x,), (), (y,)), "reads an input that isn't its own")


def test_updates_fit_their_states() -> None:
    w = f32("w", 3)
    refused(Graph("g", (), (w,), (), ((0, OPS["reshape"](w, shape=(3, 1))),)), "the state w is float32[3]")
    refused(Graph("g", (), (w,), (), ((0, OPS["cast"](w, dtype=float64)),)), "the state w is float32[3]")
    refused(Graph("g", (), (w,), (), ((1, w),)), "an update is for state 1 of 1")
    refused(Graph("g", (), (w,), (), ((0, w), (0, w + 1.0))), "updated twice")


def test_attributes_are_of_the_declared_kinds() -> None:
    x = f32("x", 3, 4)
    type_ = TensorType(float32, (4, 3))
    for attrs, message in [
        ({"dims": [1, 0]}, "the attribute dims can't be [1, 0]"),
        ({"dims": (True, False)}, "the attribute dims can't be"),
        ({}, "the attribute dims is missing"),
        ({"dims": (1, 0), "keep": 1}, "permute has no attribute keep"),
    ]:
        refused(Graph("g", (x,), (), (forged("permute", (x,), type_, **attrs),)), message)


def test_an_op_outside_the_registry() -> None:
    x = f32("x", 3)
    exp = OPS["exp"]
    stray = ir.Op("exp", exp.kind, exp.infer, exp.numpy, None, exp.samples)
    refused(Graph("g", (x,), (), (Node(stray, (x,), {}, x.type, None),)), "the op exp isn't in the registry")


def test_symbols_come_from_whole_dimensions_of_inputs() -> None:
    other = Dim.symbol("m")
    x = f32("x", N)
    refused(Graph("g", (x,), (), (OPS["iota"](size=other),)), "has symbols that no input has")
    refused(Graph("g", (x,), (), (constant(other, int64),)), "has symbols that no input has")
    refused(Graph("g", (f32("y", 2 * N),), (), ()), "has symbols that no input has")
    verify(Graph("g", (f32("y", 2 * N), x), (), (OPS["iota"](size=N * N),)))


def test_sizes_are_not_negative() -> None:
    x = f32("x", 6)
    refused(Graph("g", (x,), (), (OPS["reshape"](x, shape=(-2, -3)),)), "a size can't be -2")


def test_results_are_tensors() -> None:
    x = f32("x", 3)
    node = loop(x, Graph("body", (x,), (), (x,)))
    refused(Graph("g", (x,), (), (node,)), "is a tuple")


def loop(x: Node, body: Graph) -> Node:
    return scan(x, body=body, carries=1, sequences=0, length=2, reverse=False)


def test_sub_graphs_are_verified() -> None:
    x, h, other = f32("x", 3), f32("h", 3), f32("other", 3)
    message = refused(
        Graph("g", (x,), (), (OPS["project"](loop(x, Graph("body", (h,), (), (h + other,))), index=0),)),
        "the graph body reads an input that isn't its own",
    )
    assert "in the sub-graph body of scan(float32[3])" in message
    stateful = forged(
        "scan", (x,), loop(x, Graph("body", (h,), (), (h,))).type, **loop(x, Graph("b", (h,), (), (h,))).attrs
    )
    stateful.attrs["body"] = Graph("body", (), (h,), (h,))  # type: ignore[index]
    refused(Graph("g", (x,), (), (OPS["project"](stateful, index=0),)), "has state")


def test_symbols_inside_sub_graphs_come_from_outside() -> None:
    x, h = f32("x", N), f32("h", N)
    body = Graph("body", (h,), (), (h * OPS["cast"](OPS["iota"](size=N), dtype=float32),))
    verify(Graph("g", (x,), (), (OPS["project"](loop(x, body), index=0),)))
    y = f32("y", 3)
    odd = Graph(
        "body", (y,), (), (y + OPS["cast"](OPS["sum"](OPS["iota"](size=N), dims=(0,)), dtype=float32),)
    )
    refused(Graph("g", (y,), (), (OPS["project"](loop(y, odd), index=0),)), "has symbols that no input has")


def test_nesting_is_bounded() -> None:
    h = f32("h", 3)
    body = Graph("body", (h,), (), (OPS["exp"](h),))
    for _ in range(MAX_NESTING + 1):
        x = f32("x", 3)
        body = Graph("body", (x,), (), (OPS["project"](loop(x, body), index=0),))
    refused(body, f"nested more than {MAX_NESTING} deep")


def test_cycles_are_found() -> None:
    x = f32("x", 3)
    a = forged("exp", (x,), x.type)
    b = forged("exp", (a,), x.type)
    object.__setattr__(a, "inputs", (b,))
    refused(Graph("g", (x,), (), (b,)), "depends on itself")


# -------------------------------------------------------------------------------- the schema


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (1, int, True),
        (True, int, False),
        (1, float, False),
        (1.0, float, True),
        (N, int | Dim, True),
        ((1, N), tuple[int | Dim, ...], True),
        ([1], tuple[int, ...], False),
        ((1, 2.0), tuple[int, ...], False),
        ((1, "a"), tuple[int, str], True),
        ((1,), tuple[int, str], False),
        (float32, DType, True),
        (None, int | None, True),
    ],
)
def test_matches(value: object, kind: Any, expected: bool) -> None:
    assert matches(value, kind) is expected


def test_attribute_kinds_keep_the_rules_order() -> None:
    assert list(attribute_kinds(OPS["slice"])) == ["starts", "steps", "sizes"]
    assert list(attribute_kinds(OPS["cat"])) == ["dim"]
    assert check_attributes(OPS["cat"], {"dim": 1}) is None


def test_a_type_rule_without_annotations_is_refused() -> None:
    bare = ir.Op("bare", "elementwise", lambda x, k: x, lambda x, k: x, None, lambda rng: [], arity=1)
    with pytest.raises(TypeError, match="bare has no annotation for k"):
        attribute_kinds(bare)
