"""Nodes, graphs and the walks over them."""

from __future__ import annotations

import gc
import math
import sys
import weakref

import graphflow.compiler.ops
import numpy as np
import pytest
from graphflow.compiler import ir
from graphflow.compiler.interpret import bind_symbols, evaluate, run_graph
from graphflow.compiler.ir import (
    OPS,
    Constraints,
    Graph,
    Node,
    Size,
    TensorType,
    broadcast_shapes,
    constant,
    constrained_by,
    equal_size,
    input_node,
    normalize_dim,
    substitute,
    toposort,
    users,
)
from graphflow.compiler.location import Loc, at_frame
from graphflow.dims import Dim
from graphflow.dtypes import bool_, float32, float64, int64, uint8
from graphflow.errors import DTypeError, GraphflowError, ShapeError

assert graphflow.compiler.ops
N, M = Dim.symbol("n"), Dim.symbol("m")


def f32(name: str, *shape: Size) -> Node:
    return input_node(name, TensorType(float32, shape))


# -------------------------------------------------------------------------------- interning


def test_equal_applications_are_one_node() -> None:
    x, y = f32("x", 3), f32("y", 3)
    assert OPS["add"](x, y) is OPS["add"](x, y)
    assert OPS["add"](x, y) is not OPS["add"](y, x)


def test_inputs_are_never_one_node() -> None:
    assert f32("x", 3) is not f32("x", 3)


@pytest.mark.parametrize(
    ("a", "b"), [(0.0, -0.0), (1.0, math.nextafter(1.0, 2.0)), (math.inf, -math.inf), (math.inf, math.nan)]
)
def test_floats_that_differ_in_a_bit_are_different_constants(a: float, b: float) -> None:
    assert constant(a, float64) is not constant(b, float64)


def test_nan_is_one_constant() -> None:
    assert constant(math.nan, float64) is constant(math.nan, float64)


def test_attributes_of_equal_value_and_other_kind_are_told_apart() -> None:
    made = [OPS["const"](value=v, dtype=t) for v, t in ((1, int64), (1.0, float64), (True, bool_))]
    assert len(set(made)) == 3


def test_the_first_maker_gives_the_line() -> None:
    x = f32("x", 2)
    first, second = Loc("a.py", 1, "f"), Loc("b.py", 2, "g")
    with ir.at(first):
        node = OPS["exp"](x)
    with ir.at(second):
        assert OPS["exp"](x) is node
    assert node.loc == first
    assert ir.current_loc() is None


def test_unused_nodes_are_freed() -> None:
    node = OPS["exp"](f32("x", 2))
    ref = weakref.ref(node)
    del node
    gc.collect()
    assert ref() is None


def test_a_long_chain_is_freed_without_recursion() -> None:
    node = f32("x", 2)
    for _ in range(50_000):
        node = OPS["neg"](OPS["exp"](node))
    del node
    gc.collect()


def test_nodes_are_frozen() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        f32("x").type = TensorType(float32, (1,))


def test_an_op_is_declared_once() -> None:
    with pytest.raises(GraphflowError, match="'add' is declared twice"):
        ir.register(OPS["add"])


# -------------------------------------------------------------------------------- building


def test_python_scalars_take_the_nodes_dtype() -> None:
    x = input_node("x", TensorType(float64, (2,)))
    node = 2 * x - 1
    assert node.dtype is float64
    np.testing.assert_array_equal(evaluate([node], {x: np.array([1.0, 2.0])})[0], [1.0, 3.0])


def test_constants_are_rounded_to_their_dtype() -> None:
    assert constant(0.1, float32).attrs["value"] == float(np.float32(0.1))
    assert constant(N, int64).attrs["value"] is N


@pytest.mark.parametrize(
    ("value", "dtype"), [(1, float32), (1.0, int64), (True, int64), (1, bool_), (300, uint8)]
)
def test_a_constant_needs_a_value_of_its_dtype(value: object, dtype: object) -> None:
    with pytest.raises(DTypeError):
        OPS["const"](value=value, dtype=dtype)


def test_errors_name_op_operands_and_line() -> None:
    x, y = f32("x", 2, 3), f32("y", 4)
    with ir.at(at_frame(sys._getframe())), pytest.raises(ShapeError) as raised:
        x + y
    message = str(raised.value)
    assert message.startswith("add: shapes (2, 3) and (4) don't broadcast")
    assert "operands: float32[2, 3], float32[4]" in message
    assert "test_errors_name_op_operands_and_line" in message


def test_a_wrong_number_of_operands() -> None:
    with pytest.raises(DTypeError, match="add: takes 2 operands, got 1"):
        OPS["add"](f32("x"))


# -------------------------------------------------------------------------------- walks


def test_toposort_puts_operands_first_and_each_once() -> None:
    x = f32("x", 2)
    a = OPS["exp"](x)
    b = a * a + x
    order = toposort([b, a])
    assert len(order) == len(set(order))
    place = {node: i for i, node in enumerate(order)}
    assert all(place[i] < place[n] for n in order for i in n.inputs)


def test_toposort_stops() -> None:
    x = f32("x", 2)
    a = OPS["exp"](x)
    assert toposort([OPS["neg"](a)], stop={a}) == [a, OPS["neg"](a)]


def test_users_counts_every_reading_operand() -> None:
    x = f32("x", 2)
    square = x * x
    assert users([x, square])[x] == [square, square]


def test_substitute_rebuilds_only_what_depends() -> None:
    x, y, z = f32("x", 2), f32("y", 2), f32("z", 2)
    kept = OPS["exp"](y)
    with ir.at(Loc("m.py", 7, "f")):
        root = OPS["add"](OPS["neg"](x), kept)
    (new,) = substitute([root], {x: z})
    assert new is OPS["add"](OPS["neg"](z), kept)
    assert new.loc == root.loc
    assert substitute([root], {}) == [root]


def test_graph_symbols_and_roots() -> None:
    x, w = f32("x", N, M), f32("w", M)
    graph = Graph("g", (x,), (w,), (x,), ((0, OPS["neg"](w)),))
    assert graph.symbols() == ("n", "m")
    assert graph.roots == (x, OPS["neg"](w))
    other = graph.with_roots([OPS["exp"](x), w])
    assert other.outputs == (OPS["exp"](x),)
    assert other.updates == ((0, w),)


# -------------------------------------------------------------------------------- sizes


def test_broadcasting_with_symbols() -> None:
    assert broadcast_shapes((N, 1), (4,)) == (N, 4)
    assert broadcast_shapes((1,), (N,)) == (N,)
    assert broadcast_shapes() == ()
    with pytest.raises(ShapeError, match="n against m in dimension -1"):
        broadcast_shapes((N,), (M,))


def test_unequal_sizes_are_refused_unless_the_trace_decides() -> None:
    with pytest.raises(ShapeError, match="sizes 3 and n differ"):
        equal_size(3, N)

    class Pinning(Constraints):
        def require_equal(self, a: Size, b: Size) -> Size:
            return a

    with constrained_by(Pinning()):
        assert equal_size(3, N) == 3
    with pytest.raises(ShapeError):
        equal_size(3, N)


def test_floor_divisions_print_in_one_order() -> None:
    a, b = N // 2, M // 3
    assert str(a + b) == str(b + a) == "((m)//3)+((n)//2)"


@pytest.mark.parametrize(("dim", "ndim", "expected"), [(0, 2, 0), (-1, 2, 1), (-1, 0, 0), (0, 0, 0)])
def test_normalize_dim(dim: int, ndim: int, expected: int) -> None:
    assert normalize_dim(dim, ndim) == expected


def test_normalize_dim_out_of_range() -> None:
    with pytest.raises(ShapeError, match="dimension 2 is out of range"):
        normalize_dim(2, 2)


# -------------------------------------------------------------------------------- evaluation


def test_symbols_are_bound_from_shapes() -> None:
    x, y = f32("x", N, 3), f32("y", 2 * N)
    assert bind_symbols([x, y], [np.zeros((4, 3)), np.zeros(8)]) == {"n": 4}
    with pytest.raises(ShapeError, match=r"y has to be float32\[2\*n\], got shape \(9,\)"):
        bind_symbols([x, y], [np.zeros((4, 3)), np.zeros(9)])
    with pytest.raises(ShapeError, match="x has to be"):
        bind_symbols([x], [np.zeros(4)])


def test_run_graph_gives_outputs_and_new_states() -> None:
    x, w = f32("x", N), f32("w", N)
    graph = Graph("g", (x,), (w,), (x * w,), ((0, w + 1.0),))
    (y,), (new,) = run_graph(graph, [np.float32([1, 2]), np.float32([3, 4])])
    np.testing.assert_array_equal(y, [3, 8])
    np.testing.assert_array_equal(new, [4, 5])
