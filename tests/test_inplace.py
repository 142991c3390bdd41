"""Values written over what they are made of: where that happens, and that nothing is read too late."""

from __future__ import annotations

from collections.abc import Sequence

import graphflow as gf
import numpy as np
import pytest
from graphflow.compiler.ir import OPS, Graph, Node
from graphflow.compiler.passes import inplace
from graphflow.compiler.passes.autodiff import vjp
from graphflow.engine import Engine, compile_graph
from graphflow.runtime import threads

from models import N, arg, layer_norm, log_softmax, softmax

X = (N, 96)
ROWS = 70


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the smallest values may share memory here."""
    monkeypatch.setattr(inplace, "LEAST", 1)


def checked(outputs: Sequence[Node], args: Sequence[Node]) -> Engine:
    """The graph compiled; what it gives has the bits of the same kernels without any sharing."""
    graph = Graph("g", tuple(args), (), tuple(outputs))
    rng = np.random.default_rng(2)
    shapes = [tuple(ROWS if s == N else s for s in node.shape) for node in args]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    engine = compile_graph(graph)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inplace, "LEAST", 1 << 60)
        apart = compile_graph(graph)
    before = threads.get_num_threads()
    expected, _ = apart.run(arrays)
    try:
        for count in (1, 2, 3):
            threads.set_num_threads(count)
            for got, value in zip(engine.run(arrays)[0], expected, strict=True):
                np.testing.assert_array_equal(got, value)
    finally:
        threads.set_num_threads(before)
    return engine


def temporaries(engine: Engine) -> int:
    """How many values as large as a batch have memory of their own."""
    buffers = engine.compiled.program.buffers
    return sum(b.role == "temp" and b.shape[-2:] == X for b in buffers)


def product(x: Node, w: Node) -> Node:
    """x @ w."""
    return OPS["matmul"](x, w)


def test_an_epilogue_writes_over_what_it_reads() -> None:
    x, w, v = arg("x", *X), arg("w", 96, 96), arg("v", 96, 96)
    a = product(x, w)
    b = product(OPS["exp"](a), v) + a * a  # a is read by the exp, then only by this epilogue
    engine = checked([product(b, w)], [x, w, v])
    assert temporaries(engine) == 2  # a, which becomes b, and the exp


def test_a_map_of_another_layout_does_not() -> None:
    x, w = arg("x", 96, 96), arg("w", 96, 96)
    a = OPS["exp"](product(x, w))
    b = product(product(x, x), w) + OPS["permute"](a, dims=(1, 0))
    engine = checked([product(b, w)], [x, w])
    assert len([buffer for buffer in engine.compiled.program.buffers if buffer.role == "temp"]) == 3


def test_a_value_that_is_wanted_later_stays() -> None:
    x, w, v = arg("x", *X), arg("w", 96, 96), arg("v", 96, 96)
    a = product(x, w)
    b = product(OPS["exp"](a), v) + a
    engine = checked([product(OPS["tanh"](product(b, w)), v) + a], [x, w, v])
    assert temporaries(engine) >= 3


def test_rows_write_over_their_operand_in_the_last_pass_only() -> None:
    x, w = arg("x", *X), arg("w", 96, 96)
    a = product(x, w)
    assert temporaries(checked([product(softmax(OPS["tanh"](a)), w)], [x, w])) == 1
    first = OPS["exp"](a - OPS["max"](a, dims=(1,)))  # known before the sum is, and read again after it
    rows = first / OPS["sum"](first, dims=(1,))
    checked([product(first, w), product(rows, w)], [x, w])
    centred = a - OPS["sum"](a, dims=(1,)) * 0.1
    doubled = a * 2.0  # written in the first pass, while the second reads a again
    checked([product(doubled, w), product(centred, w)], [x, w])


def test_a_picked_element_of_an_overwritten_row() -> None:
    x, w = arg("x", *X), arg("w", 96, 96)
    a = product(x, w)
    first = OPS["slice"](a, starts=(0, 3), steps=(1, 1), sizes=(N, 1))
    checked([product(OPS["exp"](a) * first, w)], [x, w])


def test_a_row_of_which_one_element_is_computed_twice() -> None:
    x, w = arg("x", *X), arg("w", 96, 96)
    rows = log_softmax(product(x, w))
    first = OPS["slice"](rows, starts=(0, 3), steps=(1, 1), sizes=(N, 1))
    checked([product(rows, w), first], [x, w])


def test_totals_over_rows_that_are_overwritten() -> None:
    x, w, g = arg("x", *X), arg("w", 96), arg("g", 96, 96)
    gradient = product(x, g)
    normed = layer_norm(product(x * x, g), w, w)
    checked([n for n in vjp([normed], [gradient], [x, w]) if n is not None], [x, w, g])


def test_sums_that_are_finished_later_have_read_before() -> None:
    x, w, v = arg("x", *X), arg("w", 96, 96), arg("v", 1, 96)
    a = product(x, w)
    total = OPS["sum"](a, dims=(0,))
    b = product(x * x, w) * a
    checked([OPS["tanh"](total), product(b, w) * v], [x, w, v])


def test_chains_share_one_memory() -> None:
    x, w = arg("x", *X), arg("w", 96, 96)
    value = product(x, w)
    for _ in range(4):
        value = value * product(OPS["exp"](value), w)
    engine = checked([product(value, w)], [x, w])
    assert temporaries(engine) <= 5
    # the value, its exp, and that of the next value, which the same kernel makes; and the operand that all
    # products read, packed
    assert engine.executor.instance({"n": ROWS}).arena_bytes == (3 * ROWS + 96) * 96 * 4


@pytest.mark.parametrize("rows", [3, 7, 8, 40])
def test_a_total_over_rows_is_not_taken_in_what_its_rows_read(rows: int) -> None:
    """Few rows are one chunk, which adds up in the result's own memory: that mustn't be the old value's."""
    rng = np.random.default_rng(3)
    start, x = rng.standard_normal(20), rng.standard_normal((rows, 20))
    weight = gf.tensor(start)

    @gf.compile
    def step(x: gf.Tensor) -> gf.Tensor:
        y = gf.softmax(x * weight, 1)
        weight.copy_((y * x * weight).sum(0))
        return y

    found = step(gf.tensor(x))
    powers = np.exp(x * start)
    wanted = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-12)
    np.testing.assert_allclose(weight.numpy(), (wanted * x * start).sum(0), rtol=1e-12)
