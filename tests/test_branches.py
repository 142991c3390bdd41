"""``gf.cond``, and what bodies of loops and branches may do to values from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import DTypeError, ShapeError

from bodies import both, check_gradients, tensor


def test_cond_takes_one_branch() -> None:
    def run(x: gf.Tensor, table: gf.Tensor, i: gf.Tensor) -> gf.Tensor:
        # The branch that isn't taken would read out of range.
        return gf.cond(x.sum() > 0, lambda: x * 2, lambda: table[i] + x)

    x, table = tensor(3).abs(), tensor(4)
    np.testing.assert_allclose(both(run, x, table, gf.tensor([9, 9, 9]))[0], x.numpy() * 2)
    index = gf.tensor([1, 0, 3])
    np.testing.assert_allclose(both(run, -x, table, index)[0], table.numpy()[[1, 0, 3]] - x.numpy())
    assert gf.cond(True, lambda a: a, lambda a: -a, gf.ones(1)).item() == 1
    check_gradients(
        lambda a, b: gf.cond(a.sum() > 0, lambda: (a * b).sin(), lambda: a + b).sum(), x, tensor(3)
    )
    check_gradients(
        lambda a, b: gf.cond(a.sum() > 9, lambda: a * b, lambda: (a * b * b).exp()).sum(), x, tensor(3)
    )
    with pytest.raises(ShapeError, match="in one branch"):
        gf.compile(lambda a: gf.cond(a.sum() > 0, lambda: a, lambda: a[:1]))(gf.ones(3))
    with pytest.raises(DTypeError, match="same structure"):
        gf.compile(lambda a: gf.cond(a.sum() > 0, lambda: a, lambda: (a, a)))(gf.ones(3))


def test_branches_and_loops_in_branches_change_a_buffer() -> None:
    buffer = gf.zeros(2)

    def run(x: gf.Tensor) -> gf.Tensor:
        def summed() -> gf.Tensor:
            buffer.add_(1)
            return gf.scan(
                lambda c, e: (c + gf.cond(e > 1, lambda: e * c, lambda: e), None), gf.tensor(1.0), x
            )[0]

        def doubled() -> gf.Tensor:
            buffer.mul_(2)
            return gf.cond(x[0] > 0, lambda: x.sum() * buffer[0], lambda: gf.tensor(0.0))

        return gf.cond(x.sum() > 2, summed, doubled)

    found = []
    for function in (run, gf.compile(run)):
        buffer.zero_()
        rows = ([1.0, 2.0, 3.0], [1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [3.0, 1.0, 2.0])
        found.append([(function(gf.tensor(row)).item(), buffer.tolist()) for row in rows])
    assert found[0] == found[1]
    assert [b for _, b in found[0]] == [[1, 1], [2, 2], [4, 4], [5, 5]]


def test_views_as_carries_sequences_and_captured_values() -> None:
    def run(x: gf.Tensor) -> tuple[gf.Tensor, ...]:
        y = x * 1
        row = y[0]
        y.add_(1)  # seen through the view
        last, before = gf.scan(lambda c, e: (e, c), x[0], x)
        sums = gf.scan(lambda c, e: (c + e.sum() * row, e * 2), row, x.t()[1:])
        return last, before, *sums

    both(run, tensor(4, 4))


def test_second_derivatives_of_a_branch_in_a_loop() -> None:
    def value(x: gf.Tensor) -> gf.Tensor:
        def step(c: gf.Tensor, e: gf.Tensor) -> tuple[gf.Tensor, None]:
            return gf.cond(c > 0, lambda: (c * e).sin(), lambda: c - e * e), None

        return gf.scan(step, gf.tensor(0.5, dtype=gf.float64), x)[0]

    check_gradients(value, gf.tensor([0.3, 0.7, -1.1], dtype=gf.float64))


def test_in_place_changes_stay_in_the_body() -> None:
    def run(x: gf.Tensor, rows: gf.Tensor) -> tuple[Any, ...]:
        def step(c: gf.Tensor, e: gf.Tensor) -> tuple[gf.Tensor, tuple[gf.Tensor, ...]]:
            e.mul_(2)
            c += e
            return c, (c, e)

        last, (sums, doubled) = gf.scan(step, x, rows)
        same = gf.cond(x.sum() > -99, lambda a: a, lambda a: -a, x)
        same += 1
        none = gf.fori_loop(0, 0, lambda i, c: c, x)
        none += 1
        once = gf.while_loop(lambda c: c.sum() < -99, lambda c: c, x)
        once += 1
        return last, sums, doubled, same, none, once, x, rows

    x, rows = tensor(3), tensor(4, 3)
    last, sums, doubled, same, none, once, *unchanged = both(run, x, rows)
    expected = x.numpy() + np.cumsum(2 * rows.numpy(), axis=0)
    np.testing.assert_allclose(sums, expected)
    np.testing.assert_allclose(last, expected[-1])
    np.testing.assert_allclose(doubled, 2 * rows.numpy())
    for found in (same, none, once):
        np.testing.assert_allclose(found, x.numpy() + 1)
    for found, given in zip(unchanged, (x, rows), strict=True):
        np.testing.assert_array_equal(found, given.numpy())


def test_a_buffer_that_a_body_changes_and_emits() -> None:
    def run(rows: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
        def step(c: gf.Tensor, e: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
            buffer.add_(e)
            return c + buffer, buffer

        return gf.scan(step, gf.zeros(3, dtype=gf.float64), rows)

    rows = tensor(4, 3)
    for f in (run, gf.compile(run)):
        buffer = gf.zeros(3, dtype=gf.float64)
        last, emitted = f(rows)
        np.testing.assert_allclose(emitted.numpy(), np.cumsum(rows.numpy(), axis=0))
        np.testing.assert_allclose(last.numpy(), np.cumsum(rows.numpy(), axis=0).sum(0))
        assert gf.equal(buffer, emitted[-1])


def test_dicts_may_come_back_in_another_order() -> None:
    def run(x: gf.Tensor) -> tuple[gf.Tensor, ...]:
        last, _ = gf.scan(
            lambda c, e: ({"b": c["b"] * e, "a": c["a"] + e}, None), {"a": x[0], "b": x[1]}, x
        )
        chosen = gf.cond(x.sum() > 0, lambda: {"a": x[0], "b": x[1]}, lambda: {"b": x[2], "a": x[3]})
        return last["a"], last["b"], chosen["a"], chosen["b"]

    for sign in (1, -1):
        x = sign * gf.tensor([1.0, 2.0, 3.0, 4.0])
        found = [float(v) for v in both(run, x)]
        rest = [1, 2] if sign > 0 else [-4, -3]
        assert found == [x[0].item() + x.sum().item(), x[1].item() * 24, *rest]


def test_operands_as_pytorch_takes_them() -> None:
    def run(x: gf.Tensor) -> tuple[gf.Tensor, ...]:
        pair = (x, x + 1)
        return (
            gf.cond(x.sum() > 0, lambda a, b: a * b, lambda a, b: a - b, pair),
            gf.cond(x.sum() > 0, lambda a, b: a * b, lambda a, b: a - b, operands=list(pair)),
            gf.cond(x.sum() > 0, lambda a, b: a * b, lambda a, b: a - b, *pair),
            gf.cond(x.sum() > 0, true_fn=lambda a: a, false_fn=lambda a: -a, operands=(x,)),
        )

    x = gf.tensor([1.0, 2.0])
    for found, wanted in zip(both(run, x), ([2, 6], [2, 6], [2, 6], [1, 2]), strict=True):
        assert found.tolist() == wanted
    with pytest.raises(TypeError, match="tuple or list"):
        gf.cond(x.sum() > 0, lambda a: a, lambda a: -a, operands=x)


@pytest.mark.parametrize("way", ["jvp", "vjp", "grad"])
def test_derivatives_taken_in_a_body_have_derivatives(way: str) -> None:
    def slope(c: gf.Tensor) -> gf.Tensor:
        if way == "jvp":
            return gf.jvp(gf.sin, (c,), (c * c,))[1]
        if way == "vjp":
            return gf.vjp(gf.sin, c)[1](c * c)[0]
        return gf.grad(lambda z: (z.sin() * (c * c)).sum())(c)

    def looped(f: Callable[[gf.Tensor], gf.Tensor]) -> Callable[[gf.Tensor], gf.Tensor]:
        return lambda x: gf.scan(lambda c, e: (f(c) + e, f(e)), x, gf.stack([x, 2 * x]))[0].sum()

    x = tensor(3)
    wanted = both(gf.grad(looped(lambda c: c.cos() * c * c)), x)[0]
    np.testing.assert_allclose(both(gf.grad(looped(slope)), x)[0], wanted)
    check_gradients(looped(slope), x)
