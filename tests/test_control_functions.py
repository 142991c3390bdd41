"""``gf.scan``, ``gf.cond``, ``gf.while_loop``, ``gf.fori_loop``: eager, compiled, derived, in files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.errors import DTypeError, GradientError, ShapeError, TraceError, UnrollWarning

from bodies import RNG, both, check_gradients, tensor

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
