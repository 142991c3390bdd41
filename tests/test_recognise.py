"""Attention that users write out in products and a softmax: found where it may be, left where it may not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import api
from graphflow.compiler.ir import Graph, toposort
from graphflow.engine import Engine
from graphflow.nn import functional as F

RNG = np.random.default_rng(11)
B, H, T, D = 2, 3, 150, 8  # too long for matrices: what is found is computed by tiles
FORM = Callable[..., gf.Tensor]


def nano(q: Any, k: Any, v: Any, m: Any) -> Any:
    scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
    scores = scores.masked_fill(m[:, :, :T, :T] == 0, float("-inf"))
    return F.dropout(F.softmax(scores, dim=-1), 0.0) @ v


def causal(q: Any, k: Any, v: Any, m: Any) -> Any:
    scores = gf.matmul(q, k.transpose(-2, -1)) / math.sqrt(D)
    scores = scores.masked_fill(gf.tril(gf.ones(T, T)) == 0, float("-inf"))
    return gf.matmul(gf.softmax(scores, -1), v)


def triangle(q: Any, k: Any, v: Any, m: Any) -> Any:
    scores = q @ k.mT / math.sqrt(D) + gf.full((T, T), float("-inf"), dtype=q.dtype).triu(1)
    return scores.softmax(-1) @ v


def above(q: Any, k: Any, v: Any, m: Any) -> Any:
    i = gf.arange(T)
    scores = gf.where(i[:, None] >= i, q @ k.mT, -math.inf)
    return F.dropout(F.softmax(scores, -1), 0.5, training=False) @ v


def low(q: Any, k: Any, v: Any, m: Any) -> Any:
    scores = (q @ k.mT).masked_fill(m[..., :1] == 0, -1e9)  # whole queries see nothing
    return F.softmax(scores.masked_fill(gf.ones(T, T).tril() == 0, -1e9), -1) @ v


def low_causal(q: Any, k: Any, v: Any, m: Any) -> Any:
    scores = (q @ k.mT).masked_fill((m == 0).tril(9), -1e9)
    return F.softmax(scores.masked_fill(gf.ones(T, T).tril() == 0, -math.inf), -1) @ v


def triangle_low(q: Any, k: Any, v: Any, m: Any) -> Any:
    return F.softmax((q @ k.mT).masked_fill(gf.ones(T, T).tril() == 0, -1e9), -1) @ v


def numbers(q: Any, k: Any, v: Any, m: Any) -> Any:
    return gf.softmax(0.25 * (q @ k.mT) + m.sin(), -1) @ v


def large(q: Any, k: Any, v: Any, m: Any) -> Any:
    return F.softmax((q @ k.mT / 3).masked_fill(m == 0, -1e9), -1) @ v


def moderate(q: Any, k: Any, v: Any, m: Any) -> Any:
    return F.softmax((q @ k.mT / 3).masked_fill(m == 0, -0.5).masked_fill(m[..., :1] > 2, -0.5), -1) @ v


def keys(q: Any, k: Any, v: Any, m: Any) -> Any:
    scores = (q @ k.mT).masked_fill(gf.arange(T) >= T - 9, -1e9)
    return F.softmax(scores, -1) @ v


def both(q: Any, k: Any, v: Any, m: Any) -> Any:
    scores = q @ k.mT * 0.3 - -m.cos()  # a subtraction isn't looked for
    scores = gf.where(gf.ones(T, T, dtype=gf.bool).tril(), scores + m.cos(), -math.inf)
    return F.softmax(scores, -1) @ v


def biased(q: Any, k: Any, v: Any, m: Any) -> Any:
    scores = gf.where(gf.ones(T, T, dtype=gf.bool).tril(), q @ k.mT * 0.3 + m.cos(), -math.inf)
    return F.softmax(scores, -1) @ v


def einsum(q: Any, k: Any, v: Any, m: Any) -> Any:
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    scores = gf.einsum("bqhd,bkhd->bhqk", q, k) / D**0.5
    return gf.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).transpose(1, 2)


def grouped(q: Any, k: Any, v: Any, m: Any) -> Any:
    q, k, v = (t.reshape(-1, T, D) for t in (q, k, v))
    scores = gf.bmm(q, k.transpose(1, 2)).view(B, H, T, T).masked_fill(m == 0, -1e9)
    return gf.bmm(F.softmax(scores.view(-1, T, T), -1), v).view(B, H, T, D)


def far(q: Any, k: Any, v: Any, m: Any) -> Any:
    m = m * (gf.arange(T) != 7)[:, None]  # a query with all its keys far away
    return F.softmax(q @ k.mT / 3 + (1 - m) * -1e9, -1) @ v


FOUND = (
    nano, causal, triangle, above, large, moderate, keys, einsum, grouped, low, low_causal, triangle_low,
)  # fmt: skip
ADDED = (numbers, biased, far)


def dropped(q: Any, k: Any, v: Any, m: Any) -> Any:
    return F.dropout(F.softmax(q @ k.mT, -1), 0.1) @ v


def used_again(q: Any, k: Any, v: Any, m: Any) -> Any:
    weights = F.softmax(q @ k.mT * 0.3, -1)
    return weights @ v + weights.sin().sum()


def scores_used(q: Any, k: Any, v: Any, m: Any) -> Any:
    scores = q @ k.mT * 0.3
    return F.softmax(scores, -1) @ v + scores.sum()


def watched(q: Any, k: Any, v: Any, m: Any) -> Any:
    weights = F.softmax(q @ k.mT * 0.3, -1)
    if weights.requires_grad:
        weights.register_hook(lambda g: 2 * g)
    return weights @ v


def other_dimension(q: Any, k: Any, v: Any, m: Any) -> Any:
    return F.softmax(q @ k.mT, -2) @ v


def squared(q: Any, k: Any, v: Any, m: Any) -> Any:
    weights = F.softmax(q @ k.mT * 0.3, -1)
    return (weights @ weights)[..., :D]


def scaled_bias(q: Any, k: Any, v: Any, m: Any) -> Any:
    return F.softmax((q @ k.mT + m) * 0.5, -1) @ v


def neither_low_nor_small(q: Any, k: Any, v: Any, m: Any) -> Any:
    return F.softmax((q @ k.mT).masked_fill(m == 0, -1e5), -1) @ v


def over_triangle(q: Any, k: Any, v: Any, m: Any) -> Any:
    scores = (q @ k.mT).masked_fill(gf.ones(T, T).tril() == 0, -math.inf)
    return F.softmax(scores.masked_fill(m == 0, -0.5), -1) @ v  # later keys are back


def over_added_triangle(q: Any, k: Any, v: Any, m: Any) -> Any:
    scores = q @ k.mT + gf.zeros(T, T, dtype=q.dtype).masked_fill(gf.ones(T, T).tril() == 0, -math.inf)
    return F.softmax(scores.masked_fill(m == 0, -1e9), -1) @ v


def two_fills(q: Any, k: Any, v: Any, m: Any) -> Any:
    scores = (q @ k.mT).masked_fill(m == 0, -math.inf)
    return F.softmax(scores.masked_fill(gf.ones(T, T).tril() == 0, -1e9), -1) @ v


LEFT = (
    neither_low_nor_small, over_triangle, over_added_triangle, two_fills, dropped, both, used_again,
    scores_used, watched, other_dimension, squared, scaled_bias,
)  # fmt: skip


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def operands() -> list[gf.Tensor]:
    sees = RNG.random((1, 1, T, T)) > 0.4
    sees[..., 0] = True
    return [*(gf.tensor(draw(B, H, T, D)) for _ in range(3)), gf.tensor(sees.astype(np.float64))]


def ops_of(monkeypatch: pytest.MonkeyPatch, function: Any, *args: Any) -> tuple[Any, set[str]]:
    """What a compiled function gives, and the ops that its kernels are made of."""
    found: list[Graph] = []

    def engine_for(graph: Graph, **_: object) -> Engine:
        engine = Engine(graph)
        graphs = [engine.compiled.fused.graph]
        for whole in graphs:  # and sub-graphs
            found.append(whole)
            graphs += [a for n in toposort(whole.roots) for a in n.attrs.values() if isinstance(a, Graph)]
        return engine

    with monkeypatch.context() as patch:
        patch.setattr(api, "engine_for", engine_for)
        result = gf.compile(function)(*args)
    return result, {node.op.name for graph in found for node in toposort(graph.roots)}


def with_gradients(form: FORM) -> Callable[..., Any]:
    def run(q: Any, k: Any, v: Any, m: Any) -> Any:
        return gf.value_and_grad(lambda q, k, v: form(q, k, v, m).sin().sum(), argnums=(0, 1, 2))(q, k, v)

    return run


def agree(ours: Any, theirs: Any) -> None:
    (value, grads), (wanted, wanted_grads) = ours, theirs
    for a, b in zip((value, *grads), (wanted, *wanted_grads), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("form", FOUND, ids=lambda f: f.__name__)
def test_written_out_attention_is_the_op(form: FORM, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, m = operands()
    both_ways = with_gradients(form)
    made, ops = ops_of(monkeypatch, both_ways, q, k, v, m)
    assert {"attention", "attention_gradient"} <= ops and "exp" not in ops
    agree(made, both_ways(q, k, v, m))


@pytest.mark.parametrize("form", LEFT, ids=lambda f: f.__name__)
def test_what_asks_for_the_weights_keeps_them(form: FORM, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, m = operands()
    both_ways = with_gradients(form)
    gf.manual_seed(3)
    made, ops = ops_of(monkeypatch, both_ways, q, k, v, m)
    assert "attention" not in ops and "attention_gradient" not in ops
    gf.manual_seed(3)
    agree(made, both_ways(q, k, v, m))


@pytest.mark.parametrize("form", ADDED, ids=lambda f: f.__name__)
def test_with_added_numbers_gradients_keep_the_weights(form: FORM, monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, m = operands()
    made, ops = ops_of(monkeypatch, form, q, k, v, m)
    assert "attention" in ops and "exp" not in ops
    np.testing.assert_allclose(made.numpy(), form(q, k, v, m).numpy(), rtol=1e-9, atol=1e-11)
    both_ways = with_gradients(form)
    made, ops = ops_of(monkeypatch, both_ways, q, k, v, m)
    assert "attention" not in ops and "attention_gradient" not in ops
    agree(made, both_ways(q, k, v, m))


def test_weights_that_are_returned_are_not_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, _ = operands()

    def run(q: Any, k: Any, v: Any) -> Any:
        kept = []

        def loss(q: Any, k: Any, v: Any) -> Any:
            weights = F.softmax(q @ k.mT * 0.3, -1)
            kept.append(weights)
            return (weights @ v).sin().sum()

        value, grads = gf.value_and_grad(loss, argnums=(0, 1, 2))(q, k, v)
        return value, (*grads, kept[0].detach())

    made, ops = ops_of(monkeypatch, run, q, k, v)
    assert "attention" not in ops
    agree(made, run(q, k, v))


def test_a_trained_bias_keeps_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, m = operands()

    def run(q: Any, k: Any, v: Any, m: Any) -> Any:
        return gf.value_and_grad(lambda *a: numbers(*a).sin().sum(), argnums=(0, 1, 2, 3))(q, k, v, m)

    made, ops = ops_of(monkeypatch, run, q, k, v, m)
    assert "attention" not in ops and "attention_gradient" not in ops
    agree(made, run(q, k, v, m))


@pytest.mark.parametrize("form", [nano, large, moderate, biased], ids=lambda f: f.__name__)
def test_gradients_are_those_of_finite_differences(form: FORM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_recognise.T", 5)
    q, k, v, m = operands()
    tensors = [t[:1, :1, :5].clone().requires_grad_() for t in (q, k, v)]
    compiled = gf.compile(lambda q, k, v: form(q, k, v, m[..., :5, :5]))
    assert gf.autograd.gradcheck(compiled, tensors)
    assert gf.autograd.gradgradcheck(lambda q, k, v: compiled(q, k, v), tensors)


@pytest.mark.parametrize("fill", [-math.inf, -1e9, -1e300, 0.25])
def test_queries_without_any_key_are_what_the_softmax_gives(
    fill: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v, m = operands()
    m[0, 0, 7] = 0

    def form(q: Any, k: Any, v: Any, m: Any) -> Any:
        return F.softmax((q @ k.mT).masked_fill(m == 0, fill), -1) @ v

    last = 7 if math.isinf(fill) else T  # NaN would say little of gradients
    both_ways = with_gradients(lambda q, k, v, m: form(q, k, v, m)[:, :, :last])
    made, ops = ops_of(monkeypatch, form, q, k, v, m)
    assert "attention" in ops
    np.testing.assert_allclose(made.numpy(), form(q, k, v, m).numpy(), rtol=1e-10, atol=1e-12)
    made, ops = ops_of(monkeypatch, both_ways, q, k, v, m)
    assert "attention_gradient" in ops
    agree(made, both_ways(q, k, v, m))


def test_in_checkpoints_loops_and_vmap(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, m = operands()
    again = with_gradients(lambda *a: gf.utils.checkpoint.checkpoint(large, *a, use_reentrant=False))
    looped = with_gradients(
        lambda q, k, v, m: gf.scan(lambda c, _: (large(c, k, v, m), c.sum()), q, length=2)[0]
    )
    mapped = with_gradients(lambda q, k, v, m: gf.vmap(lambda a, b, c: large(a, b, c, m[0]))(q, k, v))
    for run in (again, looped, mapped):
        made, ops = ops_of(monkeypatch, run, q, k, v, m)
        assert {"attention", "attention_gradient"} <= ops and "exp" not in ops
        agree(made, run(q, k, v, m))


def test_symbolic_sizes_and_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    def form(q: Any, k: Any, v: Any) -> Any:
        return F.softmax(q @ k.T / 3, -1) @ v

    compiled = gf.compile(form)
    for n in (200, 1, 130):
        q, k, v = (gf.tensor(draw(n, 16).astype(np.float32)) for _ in range(3))
        np.testing.assert_allclose(compiled(q, k, v).numpy(), form(q, k, v).numpy(), rtol=0, atol=5e-6)
    _, ops = ops_of(monkeypatch, form, q, k, v)
    assert "attention" in ops


def test_explain_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v, m = operands()
    compiled = gf.compile(nano)
    compiled(q, k, v, m)
    assert any("attention" in kernel.ops for kernel in compiled.explain().kernels)
