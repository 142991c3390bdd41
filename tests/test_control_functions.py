"""``gf.scan``, ``gf.cond``, ``gf.while_loop``, ``gf.fori_loop``: eager, compiled, derived, in files."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.errors import DTypeError, GradientError, ShapeError, TraceError, UnrollWarning

RNG = np.random.default_rng(0)


def both(function: Callable[..., Any], *args: Any) -> list[np.ndarray]:
    """The results of a function, eagerly and compiled, which have to be the same."""
    results = []
    for f in (function, gf.compile(function)):
        leaves = f(*args)
        leaves = leaves if isinstance(leaves, (tuple, list)) else (leaves,)
        results.append([np.array(leaf.detach().numpy()) for leaf in leaves])
    for eager, compiled in zip(*results, strict=True):
        assert eager.dtype == compiled.dtype
        np.testing.assert_allclose(eager, compiled, rtol=1e-12, atol=1e-12)
    return results[0]


def tensor(*shape: int) -> gf.Tensor:
    return gf.tensor(RNG.standard_normal(shape))


def check_gradients(function: Callable[..., gf.Tensor], *args: gf.Tensor) -> None:
    """First and second derivatives, eagerly and compiled, beside finite differences."""
    first = gf.grad(function, argnums=tuple(range(len(args))))
    second = gf.grad(lambda *a: sum((g * g).sum() for g in first(*a)), argnums=tuple(range(len(args))))
    for f, df in ((function, first), (lambda *a: sum((g * g).sum() for g in first(*a)), second)):
        found = both(df, *args)
        for number, arg in enumerate(args):
            direction = RNG.standard_normal(arg.shape)
            step = 1e-5

            def at(s: float, number: int = number, direction: np.ndarray = direction, f: Any = f) -> float:
                moved = [a + s * gf.tensor(direction) if i == number else a for i, a in enumerate(args)]
                return f(*moved).item()

            numeric = (at(step) - at(-step)) / (2 * step)
            np.testing.assert_allclose((found[number] * direction).sum(), numeric, rtol=2e-5, atol=1e-7)


# ---------------------------------------------------------------------------------------------- scan


def test_scan_over_nested_values() -> None:
    def run(xs: gf.Tensor, flags: gf.Tensor) -> tuple[gf.Tensor, ...]:
        def step(carry: dict[str, Any], x: tuple[gf.Tensor, gf.Tensor]) -> Any:
            total = carry["total"] + x[0] * x[1]
            return {"total": total, "count": carry["count"] + 1}, [total, None, (carry["count"],)]

        init = {"total": gf.zeros(3, dtype=gf.float64), "count": 0}
        last, ys = gf.scan(step, init, (xs, flags))
        assert ys[1] is None
        return last["total"], last["count"], ys[0], ys[2][0]

    xs, flags = tensor(5, 3), tensor(5)
    total, count, totals, counts = both(run, xs, flags)
    expected = np.cumsum(xs.numpy() * flags.numpy()[:, None], axis=0)
    np.testing.assert_allclose(totals, expected)
    np.testing.assert_allclose(total, expected[-1])
    assert count == 5 and counts.tolist() == [0, 1, 2, 3, 4]
    both(run, xs[:0], flags[:0])


def test_reverse_and_length() -> None:
    xs = tensor(4)
    _, sums = both(
        lambda x: gf.scan(lambda c, v: (c + v, c + v), gf.tensor(0.0, dtype=gf.float64), x, reverse=True), xs
    )
    np.testing.assert_allclose(sums, np.cumsum(xs.numpy()[::-1])[::-1])
    powers = both(lambda x: gf.scan(lambda c, _: (c * x, c), x, length=5)[1], gf.tensor(2.0))
    assert powers[0].tolist() == [2, 4, 8, 16, 32]


def test_one_variant_serves_any_length() -> None:
    @gf.compile
    def run(xs: gf.Tensor) -> gf.Tensor:
        return gf.scan(lambda c, x: (c * 0.5 + x, c), gf.zeros(2), xs)[1]

    for length in (6, 1, 0, 11):
        assert run(gf.ones(length, 2)).shape == (length, 2)
    assert len(run.variants) == 1


def test_gradients_through_captured_values() -> None:
    def loss(w: gf.Tensor, h: gf.Tensor, xs: gf.Tensor) -> gf.Tensor:
        def step(h: gf.Tensor, x: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
            h = gf.tanh(h @ w + x)
            return h, h * h

        last, ys = gf.scan(step, h, xs)
        return last.sum() + (ys * ys).sum()

    check_gradients(loss, tensor(3, 3) * 0.5, tensor(2, 3), tensor(4, 2, 3))


def test_a_module_in_the_body_trains() -> None:
    def train(compiled: bool) -> list[float]:
        gf.manual_seed(3)
        cell = nn.Linear(4, 3)
        optimizer = gf.optim.SGD(cell.parameters(), lr=0.1)
        xs = gf.tensor(np.linspace(-1, 1, 30).reshape(10, 1, 3).astype(np.float32)[:, :, :1])

        def step(xs: gf.Tensor) -> gf.Tensor:
            optimizer.zero_grad()
            h, ys = gf.scan(lambda h, x: (gf.tanh(cell(gf.cat([h, x], 1))),) * 2, gf.zeros(1, 3), xs)
            loss = ((ys - 0.5) ** 2).mean() + h.sum() * 0.01
            loss.backward()
            optimizer.step()
            return loss

        run = gf.compile(step) if compiled else step
        return [run(xs).item() for _ in range(6)]

    eager, compiled = train(False), train(True)
    np.testing.assert_allclose(eager, compiled, rtol=1e-5)
    assert compiled[-1] < compiled[0]


def test_random_numbers_and_buffers_are_carried() -> None:
    def run(compiled: bool) -> list[np.ndarray]:
        gf.manual_seed(11)
        total = gf.zeros(2)
        total.name = "total"

        def step(xs: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
            def body(c: gf.Tensor, x: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
                noise = gf.rand(2)
                total.add_(noise * x)
                return c + noise, gf.nn.functional.dropout(x.expand(8), 0.5) + total[0]

            return gf.scan(body, gf.zeros(2), xs)

        function = gf.compile(step) if compiled else step
        results = []
        for _ in range(2):
            results += [r.numpy() for r in function(gf.arange(5.0))]
        return [*results, total.numpy().copy(), gf.rand(3).numpy()]

    for eager, compiled in zip(run(False), run(True), strict=True):
        np.testing.assert_allclose(eager, compiled, rtol=1e-6)


def test_a_branch_that_draws_moves_the_generator_only_if_taken() -> None:
    def run(compiled: bool) -> list[np.ndarray]:
        gf.manual_seed(5)

        def drawing(x: gf.Tensor) -> gf.Tensor:
            return gf.cond(x.sum() > 0, lambda v: v + gf.rand(2), lambda v: v * 2.0, x)

        function = gf.compile(drawing) if compiled else drawing
        return [function(gf.tensor([s, 1.0])).numpy().copy() for s in (1.0, -5.0, 2.0)] + [gf.rand(2).numpy()]

    for eager, compiled in zip(run(False), run(True), strict=True):
        np.testing.assert_array_equal(eager, compiled)


def test_what_a_carry_may_not_do() -> None:
    xs = gf.ones(3)
    for function, kind, told in (
        (lambda: gf.scan(lambda c, x: (c > 0, x), gf.ones(2), xs), DTypeError, "carry goes in as float32"),
        (
            lambda: gf.scan(lambda c, x: ({"a": c["a"][:1]}, x), {"a": gf.ones(2)}, xs),
            ShapeError,
            r"carry\['a'\]",
        ),
        (lambda: gf.scan(lambda c, x: ((c, c), x), gf.ones(2), xs), DTypeError, "same structure"),
        (lambda: gf.scan(lambda c, x: c, gf.ones(2), xs), DTypeError, r"return \(carry, y\)"),
        (lambda: gf.scan(lambda c, x: (c, x), gf.ones(2)), DTypeError, "needs the argument 'length'"),
        (lambda: gf.scan(lambda c, x: (c, x), gf.ones(2), xs, length=4), ShapeError, "length has 4 steps"),
        (
            lambda: gf.scan(lambda c, x: (c, x), gf.ones(2), gf.tensor(1.0)),
            ShapeError,
            "dimension to go along",
        ),
        (lambda: gf.scan(3, gf.ones(2), xs), DTypeError, "'f' must be a function"),
        (lambda: gf.while_loop(lambda c: c < 3, lambda c: c, gf.ones(2)), ShapeError, "one value"),
        (
            lambda: gf.while_loop(lambda c: c.sum() < 3, lambda c: c.double(), gf.ones(2)),
            DTypeError,
            "comes out as float64",
        ),
        (lambda: gf.fori_loop(0.5, 3, lambda i, c: c, gf.ones(2)), DTypeError, "'lower' must be an integer"),
    ):
        for run in (function, gf.compile(function)):
            with pytest.raises(kind, match=told) as caught:
                run()
            assert "test_control_functions.py" in str(caught.value)


def test_values_of_the_body_stay_inside() -> None:
    kept: list[gf.Tensor] = []

    @gf.compile
    def leaks(xs: gf.Tensor) -> gf.Tensor:
        gf.scan(lambda c, x: (c + x, kept.append(c + x)), gf.tensor(0.0), xs)
        return kept[-1] * 2

    with pytest.raises(TraceError, match="used outside of it; return it"):
        leaks(gf.ones(3))

    @gf.compile
    def writes(xs: gf.Tensor) -> gf.Tensor:
        y = xs * 2
        gf.scan(lambda c, x: (c + x, y.add_(x)), gf.tensor(0.0), xs)
        return y

    with pytest.raises(TraceError, match="changed in place inside the body of scan"):
        writes(gf.ones(3))


def test_python_values_in_the_body_are_compared_at_every_call() -> None:
    factor = 2.0

    @gf.compile
    def run(xs: gf.Tensor) -> gf.Tensor:
        return gf.scan(lambda c, x: (c + x * factor, None), gf.tensor(0.0), xs)[0]

    assert run(gf.ones(3)).item() == 6
    factor = 3.0
    assert run(gf.ones(3)).item() == 9


def test_gradients_inside_the_body() -> None:
    def descend(x: gf.Tensor) -> gf.Tensor:
        slope = gf.grad(lambda v: ((v - 3) ** 2).sum())
        return gf.fori_loop(0, 20, lambda i, v: v - 0.2 * slope(v), x)

    np.testing.assert_allclose(both(descend, tensor(2))[0], 3, atol=1e-3)


# ---------------------------------------------------------------------------------------------- cond


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


# ---------------------------------------------------------------------------------------------- while


def newton(a: gf.Tensor, max_steps: int | None = None) -> gf.Tensor:
    """The square root, by Newton's method."""
    return gf.while_loop(
        lambda x: (x * x - a).abs().max() > 1e-12, lambda x: 0.5 * (x + a / x), gf.ones_like(a), max_steps
    )


def test_while() -> None:
    a = gf.tensor([2.0, 9.0], dtype=gf.float64)
    np.testing.assert_allclose(both(newton, a)[0], [2**0.5, 3.0])
    np.testing.assert_allclose(both(lambda x: newton(x, 40), a)[0], [2**0.5, 3.0])
    for f in (gf.grad(lambda x: newton(x, 40).sum()), gf.compile(gf.grad(lambda x: newton(x, 40).sum()))):
        np.testing.assert_allclose(f(a).numpy(), [0.5 / 2**0.5, 0.5 / 3], rtol=1e-6)
    with pytest.raises(GradientError, match="while_loop has no gradient"):
        gf.compile(gf.grad(lambda x: newton(x).sum()))(a)
    assert both(lambda x: newton(x, 0), a)[0].tolist() == [1, 1]


def test_fori_loop() -> None:
    def power(x: gf.Tensor) -> gf.Tensor:
        return gf.fori_loop(1, 5, lambda i, c: c * x + i, gf.ones_like(x))

    x = tensor(3)
    expected = np.ones(3)
    for i in range(1, 5):
        expected = expected * x.numpy() + i
    np.testing.assert_allclose(both(power, x)[0], expected)
    check_gradients(lambda v: power(v).sin().sum(), x)
    count = both(lambda n: gf.fori_loop(n - 3, n, lambda i, c: c + i, 0), gf.tensor(10))
    assert count[0] == 24
    assert both(lambda v: gf.fori_loop(0, v.shape[0], lambda i, c: c + v[i], gf.zeros(2)), gf.ones(7, 2))[
        0
    ].tolist() == [7, 7]
    assert both(lambda v: gf.fori_loop(3, 0, lambda i, c: c + v, v), x)[0].tolist() == x.tolist()


def test_loops_travel_in_files(tmp_path: Path) -> None:
    w = gf.tensor(RNG.standard_normal((3, 3)), requires_grad=True)

    def step(xs: gf.Tensor) -> gf.Tensor:
        last, _ = gf.scan(lambda h, x: (gf.tanh(h @ w + x), None), gf.zeros(3, dtype=gf.float64), xs)
        kept = gf.cond(last.sum() > 0, lambda: last, lambda: -last)
        loss = (kept * kept).sum()
        (g,) = gf.autograd.grad(loss, [w])
        with gf.no_grad():
            w.sub_(0.1 * g)
        return loss

    path = tmp_path / "step.gfz"
    xs = tensor(6, 3)
    compiled = gf.compile(step)
    compiled(xs)
    gf.export(compiled, path)
    loaded = gf.load_graph(path)
    for _ in range(3):
        assert loaded(xs).item() == pytest.approx(compiled(xs).item(), rel=1e-12)


# ---------------------------------------------------------------------------------------------- unrolling


def test_long_python_loops_are_told_once() -> None:
    def unrolled(x: gf.Tensor) -> gf.Tensor:
        for _ in range(205):
            x = x * 1.01
        return x

    with pytest.warns(
        UnrollWarning, match=r"(?s)test_control_functions.py:\d+ in unrolled.*gf.scan"
    ) as found:
        gf.compile(unrolled)(gf.ones(2))
    assert len(found) == 1

    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(130)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.compile(lambda x: model(x))(gf.ones(1, 1))


def test_what_is_detached_outside_a_body_has_no_gradient_inside() -> None:
    # A while loop has no gradient, but nobody asks for one here.
    def run(x: gf.Tensor) -> gf.Tensor:
        held = x.detach() * 2.0

        def step(carry: gf.Tensor, _: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
            halved = gf.while_loop(lambda v: v.sum() > 1.0, lambda v: v * 0.5, held)
            return carry * halved, carry

        last, _ = gf.scan(step, x, gf.zeros(3))
        return last.sum()

    x = gf.tensor([0.5, 2.0], requires_grad=True)
    y = x.detach().clone().requires_grad_()
    run(x).backward()
    gf.compile(run)(y).backward()
    np.testing.assert_allclose(y.grad.numpy(), [0.125**3, 0.5**3], rtol=1e-6)
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-6)
