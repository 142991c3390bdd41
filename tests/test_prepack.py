"""Operands of products that are packed once for all that read them: where, how often, and with which bits."""

from __future__ import annotations

from collections.abc import Callable

import graphflow as gf
import graphflow.nn.functional as F
import numpy as np
import pytest
from graphflow import dtypes
from graphflow.compiler.codegen.matmul_arguments import VECTORS
from graphflow.compiler.codegen.products import Packing, Product
from graphflow.compiler.passes import memory
from graphflow.compiler.passes.control import Mark
from graphflow.compiler.passes.prepack import LITTLE
from graphflow.engine import Engine, compile_graph
from graphflow.runtime import threads as device

from workloads import first_call

Function = Callable[..., gf.Tensor]
Pair = tuple[gf.Tensor, gf.Tensor]


def engine_of(function: Function, *args: gf.Tensor) -> Engine:
    """The compiled form of a function that was called with these arguments."""
    compiled = gf.compile(function)
    compiled(*args)
    return compiled.explain()._engine


def shape_of(engine: Engine) -> list[str]:
    """The order of packing, products and marks."""
    found = []
    for step in engine.compiled.layout.steps:
        if isinstance(step.emitted, Packing):
            found.append("pack b" if step.emitted.kept else "pack a")
        elif isinstance(step.emitted, Product):
            found.append("product" + " kept" * bool(step.emitted.kept))
        elif isinstance(step.emitted, Mark):
            found.append(step.emitted.kind)
    return found


def unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has what is compiled from now on pack as it comes."""
    monkeypatch.setattr(memory, "prepack", lambda steps, shared: list(steps))


def same_bits(monkeypatch: pytest.MonkeyPatch, make: Callable[[], Function], *args: gf.Tensor) -> None:
    """The results of a function with and without copies."""
    one = np.asarray(gf.compile(make())(*args))
    with monkeypatch.context() as patch:
        unpacked(patch)
        other = np.asarray(gf.compile(make())(*args))
    assert one.tobytes() == other.tobytes()
    with gf.no_grad():
        expected = np.asarray(make()(*args), np.float64)
    scale = np.abs(expected).max(initial=1)
    np.testing.assert_allclose(one, expected, rtol=1e-4, atol=1e-4 * scale)


def rand(*shape: int, seed: int = 0, dtype: dtypes.DType = dtypes.float32) -> gf.Tensor:
    return gf.tensor(np.random.default_rng(seed).standard_normal(shape).astype(dtype.numpy) / 8)


def recurrent(w: gf.Tensor, transposed: bool) -> Function:
    def run(xs: gf.Tensor, h: gf.Tensor) -> gf.Tensor:
        def step(h: gf.Tensor, x: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
            h = gf.tanh(x + h @ (w.T if transposed else w))
            return h, h

        return gf.scan(step, h, xs)[1]

    return run


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("rows", "size"), [(24, 96), (1, 100), (33, 70), (0, 64)])
def test_a_weight_is_packed_before_the_loop(
    transposed: bool, rows: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    w, xs, h = rand(size, size), rand(12, rows, size, seed=1), rand(rows, size, seed=2)
    same_bits(monkeypatch, lambda: recurrent(w, transposed), xs, h)
    if rows == 24:
        order = ["pack b", "loop", "product kept", "end"]
        assert shape_of(engine_of(recurrent(w, transposed), xs, h)) == order


@pytest.mark.parametrize("transposed", [False, True])
def test_one_row_in_many_rounds(transposed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    w, xs, h = rand(300, 300), rand(12, 300, seed=1), rand(300, seed=2)

    def run(xs: gf.Tensor, h: gf.Tensor) -> gf.Tensor:
        def step(h: gf.Tensor, x: gf.Tensor) -> tuple[gf.Tensor, None]:
            return gf.tanh(x + (h @ (w.T if transposed else w))), None

        return gf.scan(step, h, xs)[0]

    fixed = gf.compile(lambda xs: run(xs, h))
    fixed(xs)
    assert shape_of(fixed.explain()._engine) == ["pack b", "loop", "product kept", "end"]
    same_bits(monkeypatch, lambda: lambda xs: run(xs, h), xs)


def test_what_a_round_changes_is_packed_in_it() -> None:
    def run(xs: gf.Tensor, h: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
        def step(carry: Pair, x: gf.Tensor) -> tuple[Pair, None]:
            h, w = carry
            h = gf.tanh(x + gf.relu(h @ w) @ w)
            return (h, w * 0.5), None

        return gf.scan(step, (h, w), xs)[0][0]

    xs, h, w = rand(5, 40, 256), rand(40, 256), rand(256, 256)
    order = ["loop", "pack b", "product kept", "product kept", "end"]
    assert shape_of(engine_of(run, xs, h, w)) == order


def test_elements_of_a_sequence_are_packed_outside_of_inner_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(ws: gf.Tensor, h: gf.Tensor) -> gf.Tensor:
        def outer(h: gf.Tensor, w: gf.Tensor) -> tuple[gf.Tensor, None]:
            def inner(h: gf.Tensor, i: gf.Tensor) -> tuple[gf.Tensor, None]:
                return gf.tanh(h @ w + i), None

            return gf.scan(inner, h, gf.arange(4, dtype=gf.float32))[0], None

        return gf.scan(outer, h, ws)[0]

    ws, h = rand(3, 128, 128), rand(40, 128)
    order = ["loop", "pack b", "loop", "product kept", "end", "end"]
    assert shape_of(engine_of(run, ws, h)) == order
    same_bits(monkeypatch, lambda: run, ws, h)


def test_products_share_a_copy_until_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
        return gf.relu(gf.relu(x @ w) @ w) @ w

    x, w = rand(40, 256), rand(256, 256)
    assert shape_of(engine_of(run, x, w)) == ["pack b", *["product kept"] * 3]
    same_bits(monkeypatch, lambda: run, x, w)


def test_what_is_little_or_multiplied_often_is_left() -> None:
    def run(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
        return gf.relu(x @ w) @ w

    small = rand(8, 8)
    assert small.numel() * 4 * 2 < LITTLE
    assert shape_of(engine_of(run, rand(40, 8), small)) == ["product", "product"]
    fixed = rand(1, 2000, 256)
    assert shape_of(engine_of(lambda x, w: run(x[0], w), fixed, rand(256, 256))) == ["product", "product"]


CONVOLUTIONS = {
    "small": ((4, 24, 8, 8), (40, 24, 3, 3), {"padding": 1}),
    "strided": ((4, 16, 12, 12), (32, 16, 3, 3), {"stride": 2, "padding": 1}),
    "wide": ((3, 16, 32, 32), (16, 16, 3, 3), {"padding": 1}),
    "groups": ((4, 32, 8, 8), (64, 16, 3, 3), {"padding": 1, "groups": 2}),
    "one image": ((1, 24, 8, 8), (40, 24, 3, 3), {}),
}


@pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=str)
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case: str, dtype: dtypes.DType, monkeypatch: pytest.MonkeyPatch) -> None:
    image, window, how = CONVOLUTIONS[case]
    x, w = rand(*image, dtype=dtype), rand(*window, seed=1, dtype=dtype)

    def forward(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
        return F.conv2d(x, w, **how)

    def backward(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
        return gf.vjp(lambda x: gf.tanh(forward(x, w)), x)[1](gf.ones_like(forward(x, w)))[0]

    for function in (forward, backward):
        same_bits(monkeypatch, lambda f=function: f, x, w)  # type: ignore[misc]


def test_a_convolutions_weights_are_packed_once() -> None:
    x, w = rand(4, 24, 8, 8), rand(40, 24, 3, 3)
    engine = engine_of(lambda x, w: F.conv2d(x, w, padding=1), x, w)
    (packing,) = (s.emitted for s in engine.compiled.layout.steps if isinstance(s.emitted, Packing))
    assert packing.kept == VECTORS and (packing.rows, packing.k) == (40, 24 * 9)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bits_do_not_depend_on_threads(threads: int) -> None:
    w, xs, h = rand(256, 256), rand(8, 300, 256, seed=1), rand(300, 256, seed=2)
    one = np.asarray(gf.compile(recurrent(w, True))(xs, h))
    before = device.get_num_threads()
    device.set_num_threads(threads)
    try:
        other = np.asarray(gf.compile(recurrent(w, True))(xs, h))
    finally:
        device.set_num_threads(before)
    assert one.tobytes() == other.tobytes()


#: Steps that pack, of A and of B, in the benchmark's training steps.
COPIES = {"lstm": ["pack b", "pack b"], "cnn": ["pack a", "pack a"], "mlp": [], "gpt": [], "twolayer": []}


@pytest.mark.parametrize("name", COPIES)
def test_training_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _, _ = first_call(name, monkeypatch)
    assert [s for s in shape_of(engine) if s.startswith("pack")] == COPIES[name]
    labels = [command.label for command in engine.executor.program.commands]
    assert sum("_pack_" in label for label in labels) == len(COPIES[name])


def test_explain_names_the_copy() -> None:
    run = gf.compile(lambda x, w: gf.relu(x @ w) @ w)
    run(rand(3, 256), rand(256, 256))
    explained = run.explain()
    assert "262144 bytes: packed operand float32[256, 256]" in str(explained)
    assert [k.kernel for k in explained.kernels if "pack" in k.label] == ["pack_float32"]
    (found,) = explained.memory.peaks
    assert found.arena == explained.peak(batch=3).arena == 256 * 256 * 4 + 3 * 256 * 4
    assert explained.kernels[0].bytes == 2 * 256 * 256 * 4


def test_every_op_by_itself_packs_for_itself() -> None:
    engine = engine_of(lambda x, w: gf.relu(x @ w) @ w, rand(40, 256), rand(256, 256))
    steps = compile_graph(engine.graph, join=False).compiled.layout.steps
    assert not any(isinstance(step.emitted, Packing) for step in steps)
