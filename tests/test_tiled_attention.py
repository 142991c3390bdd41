"""Attention by tiles and by matrices: sizes around a tile's, masks, layouts, symbols, and threads."""

from __future__ import annotations

from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.compiler.ir import Graph, Node, TensorType, input_node
from graphflow.compiler.ops import attention as declared
from graphflow.compiler.ops.control import items
from graphflow.compiler.ops.movement import permute
from graphflow.compiler.passes.autodiff import vjp
from graphflow.dims import Dim
from graphflow.dtypes import as_dtype
from graphflow.engine import compile_graph
from graphflow.nn import functional as F

from registry import case_for, samples_of

RNG = np.random.default_rng(7)
R, C = declared.TILES["R"], declared.TILES["C"]
SIZES = [(1, 1), (1, C + 3), (R + 1, 1), (R, C), (R - 1, C + 1), (R + 2, 2 * C + 65), (2 * R + 5, C - 1)]


@pytest.fixture(params=["tiles", "matrices"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every size is computed by tiles, or every one by matrices."""

    def composed(node: Node) -> bool:
        n, m = (i.shape[-2] for i in node.inputs[:2])
        known = isinstance(n, int) and isinstance(m, int) and n * m > 0
        return known and request.param == "matrices"

    monkeypatch.setattr(declared, "_is_short", composed)


def draw(*shape: int, dtype: Any = np.float64) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def operands(n: int, m: int, d: int, e: int, lead: tuple[int, ...] = (2,), dtype: Any = np.float64) -> Any:
    shapes = ((n, d), (m, d), (m, e), (n, e))
    return [draw(*lead, *shape, dtype=dtype) for shape in shapes]


def graph_of(shapes: Any, dtypes: Any, causal: bool, turned: bool = False) -> Graph:
    """Means and gradients as a function of q, k, v, the means' cotangent, and the mask."""
    args = [
        input_node(f"x{i}", TensorType(as_dtype(dtype), shape))
        for i, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True))
    ]
    shown: list[Node] = [permute(a, dims=(0, 2, 1)) for a in args] if turned else list(args)
    q, k, v, g, *mask = shown
    mean = items(declared.attention(q, k, v, *mask, scale=0.3, causal=causal, fill=None))[0]
    wrt = [x for x in (q, k, v, *mask) if x.dtype.is_floating_point]
    roots = [mean, *(share for share in vjp([mean], [g], wrt) if share is not None)]
    return Graph("attention", tuple(args), (), tuple(roots))


def expected(q: Any, k: Any, v: Any, g: Any, mask: Any = None, causal: bool = False) -> list[np.ndarray]:
    """The same by the formulas, in float64."""
    q, k, v, g = (a.astype(np.float64) for a in (q, k, v, g))
    s = q @ np.swapaxes(k, -1, -2) * 0.3
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    if causal:
        s = np.where(np.tri(*s.shape[-2:], dtype=bool), s, -np.inf)
    top = s.max(-1, keepdims=True, initial=-np.inf)
    p = np.exp(s - np.where(np.isneginf(top), 0, top))
    total = p.sum(-1, keepdims=True)
    p = p / np.where(total == 0, 1, total)
    mean = p @ v
    inner = p * (g @ np.swapaxes(v, -1, -2) - (g * mean).sum(-1, keepdims=True))
    found = [mean, inner @ k * 0.3, np.swapaxes(inner, -1, -2) @ q * 0.3, np.swapaxes(p, -1, -2) @ g]
    if mask is not None and mask.dtype != bool:
        while inner.ndim > mask.ndim:
            inner = inner.sum(0)
        found.append(inner)
    return found


def compare(found: Any, wanted: Any) -> None:
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape
        size = np.abs(theirs).max(initial=1)
        rounding = 5e-6 if ours.dtype == np.float32 else 1e-13
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=size * rounding)


def check(arrays: list[np.ndarray], causal: bool = False, wanted: Any = None) -> list[np.ndarray]:
    graph = graph_of([a.shape for a in arrays], [a.dtype for a in arrays], causal)
    found, _ = compile_graph(graph).run(arrays)
    compare(found, expected(*arrays, causal=causal))
    return list(found)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sizes_around_a_tiles(causal: bool, dtype: Any) -> None:
    for n, m in SIZES:
        check(operands(n, m, 5, 3, dtype=dtype), causal)


@pytest.mark.usefixtures("way")
def test_masks_of_every_kind() -> None:
    n, m = R + 3, C + 70
    sees = RNG.random((2, n, m)) > 0.5
    sees[:, 4] = False
    sees[0, :, : C + 5] = False  # the first block shows nothing
    for mask in (sees, sees[0], np.where(sees, draw(2, n, m), -np.inf), draw(n, m)):
        check([*operands(n, m, 4, 6), mask])
    check([*operands(n, m, 4, 6), draw(n, m)], causal=True)


@pytest.mark.usefixtures("way")
def test_samples_run_both_ways() -> None:
    for op in (declared.attention, declared.attention_gradient):
        for sample in samples_of(op):
            case = case_for(op, sample)
            found, _ = compile_graph(case.graph).run(case.arrays)
            with np.errstate(all="ignore"):
                wanted = op.numpy(*case.arrays, **sample.attrs)
            for ours, theirs in zip(found, wanted, strict=True):
                single = ours.dtype == np.float32
                np.testing.assert_allclose(
                    ours, theirs, rtol=1e-4 if single else 1e-11, atol=1e-4 if single else 1e-12
                )


def test_operands_are_read_through_their_strides() -> None:
    arrays = [np.ascontiguousarray(np.swapaxes(a, 1, 2)) for a in operands(R + 9, 2 * C + 1, 6, 4)]
    graph = graph_of([a.shape for a in arrays], [a.dtype for a in arrays], False, turned=True)
    compiled = compile_graph(graph)
    found, _ = compiled.run(arrays)
    compare(found, expected(*(np.swapaxes(a, 1, 2) for a in arrays)))


@pytest.mark.parametrize("causal", [False, True])
def test_symbolic_batches_and_lengths(causal: bool) -> None:
    b, n, m = (Dim.symbol(name) for name in "bnm")
    shapes = [(b, n, 4), (b, m, 4), (b, m, 3), (b, n, 3)]
    compiled = compile_graph(graph_of(shapes, [np.float64] * 4, causal))
    for lead, length, keys in ((2, 5, 7), (1, R + 1, 3 * C), (0, 3, 3), (3, 2 * R, 1), (2, 0, 4)):
        arrays = operands(length, keys, 4, 3, (lead,))
        found, _ = compiled.run(arrays)
        compare(found, expected(*arrays, causal=causal))


def test_bits_do_not_depend_on_the_threads() -> None:
    arrays = operands(3 * R + 7, 3 * C + 11, 16, 16, (4,), np.float32)
    before = gf.get_num_threads()
    results = []
    try:
        for count in (1, 2, 3, 4):
            gf.set_num_threads(count)
            results.append(check(arrays, causal=True))
    finally:
        gf.set_num_threads(before)
    for other in results[1:]:
        for ours, theirs in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.usefixtures("way")
def test_eager_and_compiled_agree_for_grouped_queries_and_broadcast_masks() -> None:
    q, k, v = draw(2, 6, R + 4, 8), draw(2, 3, C + 9, 8), draw(2, 3, C + 9, 5)
    mask = RNG.random((2, 1, 1, C + 9)) > 0.3
    tensors = [gf.tensor(a) for a in (q, k, v, mask)]

    def gradients(q: gf.Tensor, k: gf.Tensor, v: gf.Tensor, mask: gf.Tensor) -> Any:
        def loss(q: gf.Tensor, k: gf.Tensor, v: gf.Tensor) -> gf.Tensor:
            return F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True).sin().sum()

        return gf.func.grad(loss, argnums=(0, 1, 2))(q, k, v)

    for ours, theirs in zip(gf.compile(gradients)(*tensors), gradients(*tensors), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-9, atol=1e-12)


def test_infinite_scores_without_a_mask_are_nan_as_softmax_has_them() -> None:
    q, k, v, _ = operands(2, R * C + 1, 1, 2, ())
    q[0], k[:] = -np.inf, np.abs(k) + 1
    made = gf.compile(F.scaled_dot_product_attention)(*(gf.tensor(a) for a in (q, k, v))).numpy()
    assert np.isnan(made[0]).all() and np.isfinite(made[1]).all()


def test_long_sequences_take_no_matrix_of_weights() -> None:
    n = 4 * C
    arrays = operands(n, n, 8, 8, (1,), np.float32)
    compiled = compile_graph(graph_of([a.shape for a in arrays], [np.float32] * 4, True))
    program = compiled.compiled.program
    assert all(b.role != "temp" or np.prod(b.shape) < n * n for b in program.buffers)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n", "m"), [(5 * C + 9,) * 2, (R - 3, 3 * C + 1), (4 * R, C + 2), (3, 11 * C)])
def test_few_heads_share_their_blocks_with_the_same_bits(n: int, m: int, causal: bool) -> None:
    b = Dim.symbol("b")
    before = gf.get_num_threads()
    for lead, symbol in (((1,), 1), ((1,), b), ((3,), b), ((5,), b), ((0,), b)):
        arrays = operands(n, m, 4, 3, lead)
        shapes = [(symbol, *a.shape[1:]) for a in arrays]
        compiled = compile_graph(graph_of(shapes, [np.float64] * 4, causal))
        results = []
        try:
            for count in (1, 2, 4):
                gf.set_num_threads(count)
                results.append(compiled.run(arrays)[0])
        finally:
            gf.set_num_threads(before)
        compare(results[0], expected(*arrays, causal=causal))
        for other in results[1:]:
            for ours, theirs in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_only_few_heads_have_shares() -> None:
    def kernels(*lead: Any) -> int:
        shapes = [(*lead, *a.shape) for a in operands(3 * C, 3 * C, 4, 3, ())]
        program = compile_graph(graph_of(shapes, [np.float64] * 4, True)).compiled.program
        return sum("shares" in kernel.name for kernel in program.kernels)

    assert kernels(1) == kernels(2, 2) == kernels(Dim.symbol("b")) == 1
    assert kernels(5) == kernels(2, 4) == 0
