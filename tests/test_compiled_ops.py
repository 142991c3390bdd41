"""Every op in the registry compiled, beside the evaluator: its samples, and what kernels find hard.

Symbolic and empty dimensions, operands behind views, sizes of 1, eight dimensions, NaN, Inf and -0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.compiler.interpret import run_graph
from graphflow.compiler.ir import OPS, Graph, Node, Op, TensorType, TupleType, input_node
from graphflow.compiler.ops.control import items
from graphflow.compiler.ops.movement import slice_
from graphflow.dims import Dim
from graphflow.dtypes import (
    ALL,
    FLOATS,
    HALVES,
    DType,
    float32,
    float64,
    holds_floats,
    int32,
    int64,
    is_half,
)
from graphflow.engine import compile_graph

from registry import ALL_OPS, case_for, samples_of, type_of

TENSORS = [op for op in ALL_OPS if op.kind not in ("control", "project")]  # of tensors, giving a tensor
SYMBOLIC = ("elementwise", "reduction", "contract", "routine")
ELEMENTWISE = [op for op in ALL_OPS if op.kind == "elementwise"]
N = Dim.symbol("n")

# What the functions of `vecmath` may be off by, relative to the result (their measured errors are below 4
# ULP).
ROUNDING = {"float16": 2.5e-4, "bfloat16": 2e-3, "float32": 2e-6, "float64": 1e-14}


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
        if not holds_floats(theirs):
            np.testing.assert_array_equal(ours, theirs)
            continue
        rounding = ROUNDING[theirs.dtype.name]
        if is_half(theirs):  # what they sum is summed in float32
            ours, theirs, spread = ours.astype(float), theirs.astype(float), spread / 1000
        np.testing.assert_allclose(ours, theirs, rtol=4 * rounding, atol=spread * rounding)


@pytest.mark.parametrize("op", ALL_OPS, ids=lambda op: op.name)
def test_samples(op: Op) -> None:
    # One graph of all samples: a compile has a price, whatever its size.
    cases = [case_for(op, sample) for sample in samples_of(op)]
    args = tuple(a for c in cases for a in c.graph.args)
    outputs = tuple(o for c in cases for o in c.graph.outputs)
    arrays = [a for c in cases for a in c.arrays]
    compare(Graph(op.name, args, (), outputs), arrays, spread=50.0)


# --------------------------------------------------------------------------------------------- operands


def _symbolic(graph: Graph) -> Graph | None:
    """The same op with a symbolic first size, where all operands agree on that."""
    if any(not a.shape for a in graph.args) or len({a.shape[0] for a in graph.args}) != 1:
        return None
    (size,) = {a.shape[0] for a in graph.args}
    node = graph.outputs[0]
    if not isinstance(size, int) or size < 2 or node.op.kind not in SYMBOLIC:
        return None
    if node.op.kind == "routine" and "n n]" in node.op.lowering.signature and len(node.inputs[0].shape) < 3:
        return None  # the size isn't one of the batch's
    args = tuple(input_node(a.attrs["name"], TensorType(a.dtype, (N, *a.shape[1:]))) for a in graph.args)
    return Graph(graph.name, args, (), (node.op(*args, **node.attrs),))


@pytest.mark.parametrize("op", ALL_OPS, ids=lambda op: op.name)
def test_symbolic_sizes(op: Op) -> None:
    for sample in samples_of(op):
        case = case_for(op, sample)
        symbolic = _symbolic(case.graph)
        if symbolic is None or any(
            a.dtype not in (np.float32, np.float64, np.int64, np.bool_) for a in case.arrays
        ):
            continue
        compare(symbolic, case.arrays, spread=50.0)
        tall = [np.concatenate([a] * 9) for a in case.arrays]
        compare(symbolic, tall, spread=100.0)
        if not (op.kind == "reduction" and op.name not in ("sum", "prod", "any", "all")):
            compare(symbolic, [a[:0] for a in case.arrays], spread=50.0)
        break


def _shown(array: np.ndarray, rng: np.random.Generator) -> tuple[Node, Node, np.ndarray]:
    """A view with the values of `array`, the input behind it, and that input's array."""
    rank = array.ndim
    order = tuple(int(d) for d in rng.permutation(rank))
    steps = tuple(int(s) for s in rng.choice([1, 2, -1], rank))
    starts = tuple(
        size - 1 if step == -1 and size else 1 for step, size in zip(steps, array.shape, strict=True)
    )
    room = tuple(2 * size + 2 for size in array.shape)
    behind = np.zeros(room, array.dtype)
    places = [
        np.arange(size) * step + start for size, step, start in zip(array.shape, steps, starts, strict=True)
    ]
    behind[np.ix_(*places)] = array
    permuted = np.array(np.transpose(behind, order), order="C")
    node = input_node("behind", type_of(permuted))
    back = tuple(int(d) for d in np.argsort(order))
    view = slice_(OPS["permute"](node, dims=back), starts=starts, steps=steps, sizes=array.shape)
    return view, node, permuted


@pytest.mark.parametrize("op", TENSORS, ids=lambda op: op.name)
def test_operands_behind_views(op: Op) -> None:
    rng = np.random.default_rng(5)
    args: list[Node] = []
    arrays: list[np.ndarray] = []
    outputs = []
    for sample in samples_of(op)[-3:]:
        shown = [_shown(np.asarray(a), rng) for a in sample.inputs]
        made = op(*(view for view, _, _ in shown), **sample.attrs)
        outputs += items(made) if isinstance(made.type, TupleType) else (made,)
        args += [node for _, node, _ in shown]
        arrays += [array for _, _, array in shown]
    compare(Graph(op.name, tuple(args), (), tuple(outputs)), arrays, spread=50.0)


HARD = [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, 1e-300, -1e-310, 1e30, -1e300, np.inf, -np.inf, np.nan]


@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_special_values(op: Op, dtype: DType) -> None:
    samples = [
        s for s in samples_of(op) if all(np.asarray(a).dtype in (dtype.numpy, np.bool_) for a in s.inputs)
    ]
    if not samples or op.name == "cast":
        return
    with np.errstate(over="ignore"):
        values = np.array(HARD).astype(dtype.numpy)
    chosen = samples[0]
    arrays = []
    for number, operand in enumerate(chosen.inputs):
        if np.asarray(operand).dtype == np.bool_:
            arrays.append(np.arange(len(values)) % 2 == 0)
        else:
            shape = tuple(-1 if d == number else 1 for d in range(len(chosen.inputs)))
            arrays.append(values.reshape(shape))
    args = tuple(input_node(f"x{i}", type_of(a)) for i, a in enumerate(arrays))
    graph = Graph(op.name, args, (), (op(*args, **chosen.attrs),))
    with np.errstate(all="ignore"):
        (expected,), _ = run_graph(graph, arrays)
    (actual,), _ = compile_graph(graph).run(arrays)
    if expected.dtype.kind != "f":
        np.testing.assert_array_equal(actual, expected)
        return
    np.testing.assert_array_equal(np.isnan(actual), np.isnan(expected))
    # Results at the edge of the range, or below the normal numbers, may round the other way.
    tiny = np.finfo(dtype.numpy).tiny
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(actual, expected, rtol=4 * ROUNDING[dtype.name], atol=4 * tiny)
    if op.name not in UNSIGNED_ZEROS:
        zeros = (expected == 0) & (actual == 0)
        np.testing.assert_array_equal(np.signbit(actual[zeros]), np.signbit(expected[zeros]))


# Zero results whose sign differs from NumPy's, and nothing is promised about it.
UNSIGNED_ZEROS = frozenset(["maximum", "minimum", "floor_divide", "sign"])


@pytest.mark.parametrize("to", ALL, ids=str)
@pytest.mark.parametrize("dtype", (*HALVES, *FLOATS), ids=str)
def test_casts_of_special_values(dtype: DType, to: DType) -> None:
    with np.errstate(over="ignore"):
        values = np.array([*HARD, 255.9, -129.0, 2.0**31, -(2.0**40), 2.0**63, 1e19]).astype(dtype.numpy)
    x = input_node("x", type_of(values))
    compare(Graph("cast", (x,), (), (OPS["cast"](x, dtype=to),)), [values])


def test_integer_powers_wrap_and_invert() -> None:
    bases = np.array([0, 1, -1, 2, -3, 7, 10, 2**40], np.int64)
    exponents = np.array([[0], [1], [2], [5], [63], [64], [2**62 + 1], [-1], [-2]], np.int64)
    x, y = input_node("x", type_of(bases)), input_node("y", type_of(exponents))
    compare(Graph("pow", (x, y), (), (OPS["pow"](x, y),)), [bases, exponents])
    small = [bases.astype(np.int8), exponents.astype(np.int8)]
    x, y = input_node("x", type_of(small[0])), input_node("y", type_of(small[1]))
    power = OPS["pow"](x, y)
    compare(Graph("pow", (x, y), (), (power, OPS["gt"](power, x))), small)


def test_integers_divided_by_zero_give_zero() -> None:
    for dtype in (int32, int64):
        values = np.array([5, -5, 0, np.iinfo(dtype.numpy).min], dtype.numpy)
        x = input_node("x", type_of(values))
        by = OPS["permute"](OPS["reshape"](x, shape=(1, 4)), dims=(1, 0))
        outputs = (OPS["floor_divide"](x, by), OPS["remainder"](x, by))
        compare(Graph("divide", (x,), (), outputs), [values])


def test_eight_dimensions_and_sizes_of_one() -> None:
    rng = np.random.default_rng(3)
    shape = (2, 1, 3, 1, 2, 2, 1, 3)
    x, y = (input_node(n, TensorType(float64, s)) for n, s in (("x", shape), ("y", (1, 4, 2, 1, 1, 3))))
    turned = OPS["permute"](x, dims=(7, 2, 0, 5, 1, 4, 3, 6))
    outputs = (
        x * y,
        OPS["sum"](x * y, dims=(0, 3, 5)),
        OPS["sum"](turned, dims=(1, 2)),
        OPS["argmax"](x, dims=(0, 4, 7)),
        OPS["max"](turned * 2.0, dims=tuple(range(8))),
        OPS["sum"](x, dims=(1,)) + OPS["exp"](OPS["sum"](x, dims=(7,))),
        OPS["slice"](turned, starts=(2,) + (0,) * 7, steps=(-1,) + (1,) * 7, sizes=turned.shape) + turned,
    )
    arrays = [rng.standard_normal(x.shape), rng.standard_normal(y.shape)]
    compare(Graph("eight", (x, y), (), outputs), arrays, spread=100.0)


@pytest.mark.parametrize("m,k,n", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0), (1, 0, 1)])
def test_empty_products_with_epilogues(m: int, k: int, n: int) -> None:
    a, b, bias = (
        input_node(v, TensorType(float32, s)) for v, s in (("a", (m, k)), ("b", (k, n)), ("bias", (n,)))
    )
    graph = Graph("empty", (a, b, bias), (), (OPS["exp"](OPS["matmul"](a, b) + bias),))
    compare(graph, [np.ones(x.shape, np.float32) for x in (a, b, bias)])


def test_sums_of_nothing_are_zero_in_every_kind_of_kernel() -> None:
    x = input_node("x", TensorType(float32, (N, 20)))
    rows = OPS["exp"](x) * OPS["sum"](x, dims=(1,))
    outputs = (OPS["sum"](x, dims=(0,)), OPS["sum"](x, dims=(0, 1)), OPS["sum"](rows, dims=(0,)) + 1.0, rows)
    graph = Graph("nothing", (x,), (), outputs)
    for n in (0, 1, 600):
        compare(graph, [np.full((n, 20), 0.25, np.float32)], spread=600.0)
    y = input_node("y", TensorType(float32, (N, 0)))
    outputs = (OPS["sum"](y, dims=(1,)), OPS["sum"](y, dims=(0, 1)), OPS["prod"](y, dims=(1,)) * 3.0)
    compare(Graph("nothing", (y,), (), outputs), [np.zeros((4, 0), np.float32)])


@pytest.mark.parametrize("name", ["gather", "take", "scatter_add", "put_add"])
def test_an_index_out_of_range_is_an_error(name: str) -> None:
    x = input_node("x", TensorType(float64, (4, 3)))
    index = input_node("index", TensorType(int64, (4, 3) if name in ("gather", "scatter_add") else (4,)))
    attrs = {"dim": 0} if name in ("gather", "take") else {"dim": 0, "size": 4}
    graph = Graph(name, (x, index), (), (OPS[name](x, index, **attrs) * 2.0,))
    engine = compile_graph(graph)
    good, bad = np.zeros(index.shape, np.int64), np.full(index.shape, 1)
    bad[2] = -5
    engine.run([np.ones((4, 3)), good])
    with pytest.raises(IndexError, match="index -5 is out of range for a dimension of size 4"):
        engine.run([np.ones((4, 3)), bad])
    engine.run([np.ones((4, 3)), good])


def test_winners_are_found_among_values_computed_again() -> None:
    # The gradient of max compares x with max(x), both computed from x's operands, in loops of their own.
    a, b, c = (input_node(n, TensorType(float32, (33, 57))) for n in "abc")
    x = OPS["exp"](a * b + c) * b - c * c
    winners = OPS["eq"](x, OPS["max"](x, dims=(1,)))
    counts = OPS["sum"](OPS["cast"](winners, dtype=float32), dims=(1,))
    rng = np.random.default_rng(4)
    arrays = [rng.standard_normal((33, 57)).astype(np.float32) for _ in range(3)]
    for join in (True, False):
        engine = compile_graph(Graph("winners", (a, b, c), (), (counts,)), join=join)
        (found,), _ = engine.run(arrays)
        np.testing.assert_array_equal(found, np.ones((33, 1), np.float32))


@pytest.mark.parametrize("dtype", [gf.float32, gf.float64, gf.float16])
@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x // y, lambda x, y: y // x, lambda x, y: x % y, lambda x, y: gf.fmod(x, y),
        lambda x, y: gf.sign(x), lambda x, y: gf.relu(x), gf.maximum, gf.minimum,
        lambda x, y: gf.maximum(y, x), lambda x, y: gf.minimum(y, x),
        lambda x, y: x // 2.0, lambda x, y: x // -1, lambda x, y: gf.maximum(x, gf.tensor(0)),
        lambda x, y: gf.minimum(gf.tensor(0), x), lambda x, y: gf.clamp(x, 0, 1),
        lambda x, y: gf.clamp(x, max=0),
        lambda x, y: gf.trunc(x) + gf.ceil(x) * 0.0, lambda x, y: gf.round(x), lambda x, y: -x * y,
    ],
)  # fmt: skip
def test_zeros_have_the_same_sign_eager_and_compiled(function: Any, dtype: gf.DType) -> None:
    values = [-0.0, 0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.5, 3.0, float("inf"), -float("inf"), float("nan")]
    x, y = (g.reshape(-1) for g in gf.meshgrid(gf.tensor(values).to(dtype), gf.tensor(values).to(dtype)))
    wanted, got = function(x, y).numpy().astype(float), gf.compile(function)(x, y).numpy().astype(float)
    np.testing.assert_array_equal(got, wanted)
    real = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(got)[real], np.signbit(wanted)[real])


def test_signs_of_zeros_are_pytorchs_or_numpys() -> None:
    zero, half = gf.tensor(-0.0), gf.tensor(-0.5)
    found = [
        zero // 2, half // -1, gf.sign(zero), gf.relu(zero), gf.maximum(zero, gf.tensor(0)),
        gf.maximum(-zero, zero), gf.tensor(-1.0) % 1, gf.fmod(gf.tensor(-1.0), 1.0),
    ]  # fmt: skip
    negative = [bool(np.signbit(t.numpy())) for t in found]
    assert negative == [True, False, False, True, True, False, False, True]
    assert gf.sign(gf.tensor(float("nan"))).isnan().item()
