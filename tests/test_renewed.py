"""Compiled functions that change a trained tensor before they use it, differentiated from outside."""

from __future__ import annotations

from collections.abc import Callable

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn

Function = Callable[..., gf.Tensor]


@pytest.mark.parametrize("kind", ["embedding", "bag"])
def test_an_embedding_that_bounds_its_rows(kind: str) -> None:
    results = []
    for compiled in (False, True):
        gf.manual_seed(0)
        layer = nn.Embedding if kind == "embedding" else nn.EmbeddingBag
        table = layer(6, 3, max_norm=1.0, dtype=gf.float64)
        head = gf.ones(3, dtype=gf.float64, requires_grad=True)
        run: Function = gf.compile(table.forward) if compiled else table
        values = []
        for rows in ([[1, 2], [1, 5]], [[0, 2], [4, 2]], [[3, 3], [1, 1]]):
            found = ((run(gf.tensor(rows)) * head) ** 3).sum()
            table.weight.grad = None
            found.backward()
            assert table.weight.grad is not None
            values += [found.detach().numpy(), table.weight.grad.numpy().copy()]
            with gf.no_grad():
                table.weight -= 0.5 * table.weight.grad
        results.append([*values, table.weight.detach().numpy(), head.grad.numpy()])
        if compiled:
            assert len(run.variants) == 1  # type: ignore[attr-defined]
    for eager, traced in zip(*results, strict=True):
        np.testing.assert_allclose(eager, traced, rtol=1e-12)


def test_used_before_and_after_the_change() -> None:
    for compiled in (False, True):
        w = gf.tensor([1.0, 2.0], requires_grad=True)

        def f(x: gf.Tensor, w: gf.Tensor = w) -> gf.Tensor:
            before = (w * x).sum()
            with gf.no_grad():
                w.mul_(0.5)
            return before + 2 * (w * x * x).sum()

        run = gf.compile(f) if compiled else f
        x = gf.tensor([3.0, 5.0])
        run(x).backward()
        assert w.grad is not None and w.grad.tolist() == [3 + 18, 5 + 50]
        assert w.tolist() == [0.5, 1.0]
        second = run(x)
        second.backward()
        assert w.grad.tolist() == [42, 110] and second.item() == 6.5 + 2 * (0.25 * 9 + 0.5 * 25)


def test_a_training_step_returns_plain_values() -> None:
    w = gf.tensor([1.0, 2.0], requires_grad=True)

    @gf.compile
    def step(x: gf.Tensor) -> gf.Tensor:
        value, slope = gf.value_and_grad(lambda v: ((v * x) ** 2).sum())(w)
        with gf.no_grad():
            w.sub_(0.1 * slope)
        return value

    assert not step(gf.tensor([1.0, 1.0])).requires_grad


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("compiled", [False, True])
def test_data_carries_no_gradient(order: int, compiled: bool) -> None:
    w = gf.tensor([3.0, 4.0], requires_grad=True)

    def f(x: gf.Tensor) -> gf.Tensor:
        if order:
            length = w.data.norm()
            return (w * x).sum() * length + w.data.sum()
        value = (w * x).sum()
        return value * w.data.norm() + w.data.sum()

    run = gf.compile(f) if compiled else f
    run(gf.tensor([1.0, 2.0])).backward()
    assert w.grad is not None and w.grad.tolist() == [5, 10]


def test_updates_through_data() -> None:
    results = []
    for compiled in (False, True):
        w = gf.tensor([1.0, 2.0], requires_grad=True)

        def step(x: gf.Tensor, w: gf.Tensor = w) -> gf.Tensor:
            loss = ((w * x) ** 2).sum()
            w.grad = None
            loss.backward()
            assert w.grad is not None
            w.data -= 0.01 * w.grad
            w.data.mul_(0.5)
            return loss

        run = gf.compile(step) if compiled else step
        losses = [run(gf.tensor([1.0, 3.0])).item() for _ in range(3)]
        results.append((losses, w.tolist()))
    np.testing.assert_allclose(results[0][0], results[1][0])
    np.testing.assert_allclose(results[0][1], results[1][1])
