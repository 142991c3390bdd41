"""Functions with a gradient of their own: eager, compiled, batched, differentiated again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.autograd.function import Function, once_differentiable
from graphflow.errors import GradientError, TraceError

X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.5]])


class Cube(Function):
    """x**3, saving its argument."""

    @staticmethod
    def forward(ctx: Any, x: Any, scale: float) -> Any:
        ctx.save_for_backward(x)
        ctx.scale = scale
        return x * x * x * scale

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (x,) = ctx.saved_tensors
        return g * 3 * x * x * ctx.scale, None


class Exp(Function):
    """exp(x) with setup_context, saving its result."""

    @staticmethod
    def forward(x: Any) -> Any:
        return gf.exp(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g * ctx.saved_tensors[0]


class Between(Function):
    """sin(x)**2, saving something in between, which has derivatives, too."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        s = gf.sin(x)
        ctx.save_for_backward(x, s)
        return s * s

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, s = ctx.saved_tensors
        return g * 2 * s * gf.cos(x)


def run(f: Callable[..., Any], *arrays: np.ndarray) -> list[np.ndarray]:
    """Results at once, which have to be those of the compiled function."""
    eager = [r.detach().numpy() for r in f(*map(gf.tensor, arrays))]
    compiled = [r.detach().numpy() for r in gf.compile(f)(*map(gf.tensor, arrays))]
    for a, b in zip(eager, compiled, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    return eager


def cube(x: Any) -> Any:
    return Cube.apply(x, 2.0).sum()


def test_first_and_higher_derivatives() -> None:
    found = run(
        lambda x: (Cube.apply(x, 2.0), gf.grad(cube)(x), gf.grad(lambda y: gf.grad(cube)(y).sum())(x)), X
    )
    for got, wanted in zip(found, (2 * X**3, 6 * X**2, 12 * X), strict=True):
        np.testing.assert_allclose(got, wanted)
    third = gf.grad(lambda z: gf.grad(lambda y: gf.grad(cube)(y).sum())(z).sum())
    np.testing.assert_allclose(third(gf.tensor(X)).numpy(), np.full(X.shape, 12.0))


def test_results_saved_and_what_is_between() -> None:
    def second(f: Any) -> Callable[[Any], Any]:
        return lambda x: (gf.grad(lambda y: gf.grad(lambda z: f(z).sum())(y).sum())(x),)

    np.testing.assert_allclose(run(second(Exp.apply), X)[0], np.exp(X))
    (compiled,) = gf.compile(second(Between.apply))(gf.tensor(X))
    np.testing.assert_allclose(compiled.numpy(), 2 * np.cos(2 * X))


@pytest.mark.parametrize("way", ["jvp", "vjp", "grad"])
def test_transforms_in_a_backward_have_derivatives(way: str) -> None:
    def pull(x: Any, g: Any) -> Any:
        if way == "jvp":
            return gf.jvp(gf.sin, (x,), (g,))[1]
        return gf.vjp(gf.sin, x)[1](g)[0] if way == "vjp" else gf.grad(lambda z: (z.sin() * g).sum())(x)

    sine = gf.autograd.custom_function(lambda x: (x.sin(), x), pull)
    first = gf.grad(lambda x: sine(x).sum())
    second = gf.grad(lambda x: first(x).sum())
    third = gf.grad(lambda x: second(x).sum())
    found = run(lambda x: (first(x), second(x), third(x)), X)
    for got, wanted in zip(found, (np.cos(X), -np.sin(X), -np.cos(X)), strict=True):
        np.testing.assert_allclose(got, wanted)


def test_the_gradient_is_the_one_given() -> None:
    class Clip(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.round()

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g

    np.testing.assert_allclose(run(lambda x: (gf.grad(lambda a: (Clip.apply(a) * a).sum())(x),), X)[0],
                               X + np.round(X))  # fmt: skip
    x = gf.tensor(X, requires_grad=True)
    Clip.apply(x * 2).sum().backward()
    assert x.grad is not None and (x.grad == 2).all()


def test_several_arguments_and_results() -> None:
    class Two(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, flag: bool, w: Any) -> Any:
            ctx.save_for_backward(x, w)
            ctx.flag = flag
            order = gf.argsort(x) if hasattr(gf, "argsort") else gf.argmax(x, dim=-1, keepdim=True)
            fixed = x * 0
            ctx.mark_non_differentiable(fixed)
            return x @ w, order, x + 1, fixed

        @staticmethod
        def backward(ctx: Any, by_product: Any, by_order: Any, by_sum: Any, by_fixed: Any) -> Any:
            x, w = ctx.saved_tensors
            assert ctx.flag and ctx.needs_input_grad == (True, False, True)
            return by_product @ w.mT + by_sum, None, x.mT @ by_product

    w = np.arange(6.0).reshape(3, 2)

    def gradients(x: Any, w: Any) -> Any:
        def loss(x: Any, w: Any) -> Any:
            y, order, z, fixed = Two.apply(x, True, w)
            assert not order.requires_grad and not fixed.requires_grad
            return (y * y).sum() + z.sum() + fixed.sum()

        return gf.grad(loss, argnums=(0, 1))(x, w)

    by_x, by_w = run(gradients, X, w)
    np.testing.assert_allclose(by_x, 2 * X @ w @ w.T + 1)
    np.testing.assert_allclose(by_w, 2 * X.T @ X @ w)


def test_batches_and_jacobians() -> None:
    per_row = gf.vmap(gf.grad(lambda row: Between.apply(row).sum()))
    np.testing.assert_allclose(run(lambda x: (per_row(x),), X)[0], np.sin(2 * X))
    row = X[0]
    np.testing.assert_allclose(run(lambda x: (gf.jacrev(Exp.apply)(x),), row)[0], np.diag(np.exp(row)))
    np.testing.assert_allclose(run(lambda x: (gf.jacfwd(Exp.apply)(x),), row)[0], np.diag(np.exp(row)))
    np.testing.assert_allclose(run(lambda x: (gf.hessian(cube)(x),), row)[0], np.diag(12 * row))
    shared = gf.vmap(gf.grad(lambda w, row: (Cube.apply(w, 1.0) * row).sum()), (None, 0))
    np.testing.assert_allclose(run(lambda w, x: (shared(w, x),), row, X)[0], 3 * row**2 * X)
    outer = gf.grad(lambda w, x: gf.vmap(lambda r: (Exp.apply(w) * r).sum())(x).sum())
    np.testing.assert_allclose(run(lambda w, x: (outer(w, x),), row, X)[0], np.exp(row) * X.sum(0))


def test_python_runs_in_eager_calls() -> None:
    seen: list[str] = []

    class Seen(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            seen.append(f"forward {x.detach().numpy().sum():g}")
            return gf.tensor(x.detach().numpy() * 2)

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            seen.append(f"backward {g.sum().item():g}")
            return g * 2

    x = gf.tensor([1.0, 2.0], requires_grad=True)
    y = Seen.apply(x).sum()
    y.backward()
    assert seen == ["forward 3", "backward 2"] and x.grad is not None and x.grad.tolist() == [2, 2]
    with gf.no_grad():
        assert not Seen.apply(x).requires_grad


def test_once_differentiable() -> None:
    class Once(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2 * ctx.saved_tensors[0]

    np.testing.assert_allclose(run(lambda x: (gf.grad(lambda a: Once.apply(a).sum())(x),), X)[0], 2 * X)
    twice = gf.grad(lambda x: gf.grad(lambda a: Once.apply(a).sum())(x).sum())
    for f in (twice, gf.compile(twice)):
        with pytest.raises(GradientError, match="once_differentiable"):
            f(gf.tensor(X))


def test_in_place() -> None:
    class Double(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.mark_dirty(x)
            return x.mul_(2)

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * 2

    def f(x: Any) -> Any:
        y = x * 3
        z = Double.apply(y)
        assert z is y
        return (y * y).sum()

    np.testing.assert_allclose(run(lambda x: (gf.grad(f)(x),), X)[0], 72 * X)

    class Careless(Double):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x.mul_(2)

    for call in (Careless.apply, gf.compile(lambda x: Careless.apply(x * 1))):
        with pytest.raises(GradientError, match="mark_dirty"):
            call(gf.tensor(X))


def test_decorated_functions() -> None:
    def forward(x: Any, w: Any) -> Any:
        return x * w, {"x": x, "w": w, "note": 2.0}

    def backward(saved: Any, g: Any) -> Any:
        return g * saved["w"] * saved["note"], g * saved["x"]

    f = gf.custom_function(forward, backward)
    by_x, by_w = run(lambda x, w: gf.grad(lambda a, b: f(a, b).sum(), argnums=(0, 1))(x, w), X, X + 1)
    np.testing.assert_allclose(by_x, 2 * (X + 1))
    np.testing.assert_allclose(by_w, X)

    @gf.custom_function(backward=lambda saved, g: g * saved)
    def sine(x: Any) -> Any:
        return gf.sin(x), gf.cos(x)

    np.testing.assert_allclose(run(lambda x: (gf.grad(lambda a: sine(a).sum())(x),), X)[0], np.cos(X))
    with pytest.raises(TypeError, match="needs a backward"):
        gf.custom_function(forward)
    with pytest.raises(GradientError, match="returns \\(output, saved\\)"):
        gf.custom_function(gf.sin, backward)(gf.tensor(X))


def test_randomness_and_states_inside() -> None:
    count = gf.zeros(())

    class Noisy(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            mask = (gf.rand(3) > 0.5).double()
            count.add_(x.sum().float())
            ctx.save_for_backward(mask)
            return x * mask

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.saved_tensors[0]

    results = []
    for f in (Noisy.apply, gf.compile(Noisy.apply)):
        gf.manual_seed(1)
        count.zero_()
        x = gf.tensor(X, requires_grad=True)
        y = f(x)
        y.sum().backward()
        assert x.grad is not None
        np.testing.assert_allclose((x.grad * x).detach().numpy(), y.detach().numpy())
        assert count.item() == pytest.approx(X.sum())
        results.append(y.detach().numpy())
    np.testing.assert_allclose(*results)


def _with_backward(backward: Callable[..., Any]) -> Callable[[Any], Any]:
    class Wrong(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, n: int) -> Any:
            return x * n

    Wrong.backward = staticmethod(backward)  # type: ignore[method-assign, assignment]
    return lambda x: gf.grad(lambda a: Wrong.apply(a, 3).sum())(x)


@pytest.mark.parametrize(
    ("backward", "message"),
    [
        (lambda ctx, g: g, "gave 1 gradients, expected 2"),
        (lambda ctx, g: (g, g), "a gradient for argument 1, which is int"),
        (lambda ctx, g: (g[0, :2], None), "gradient of argument 0 has to have its shape"),
        (lambda ctx, g: (3.0, None), "has to be a tensor, got float"),
        (lambda ctx, g: ctx.missing, "missing"),
    ],
)
def test_errors_name_the_gradient(backward: Callable[..., Any], message: str) -> None:
    f = _with_backward(backward)
    for call in (f, gf.compile(f)):
        with pytest.raises((GradientError, AttributeError), match=message):
            call(gf.tensor(X))


def test_a_gradient_may_be_larger_by_broadcasting_or_of_another_dtype() -> None:
    f = _with_backward(lambda ctx, g: (gf.stack([g, g]).float(), None))
    for call in (f, gf.compile(f)):
        np.testing.assert_allclose(call(gf.tensor(X)).numpy(), np.full(X.shape, 2.0))


def test_gradients_for_arguments_left_at_their_defaults() -> None:
    class Scaled(Function):
        @staticmethod
        def forward(ctx: Any, x: Any, scale: float = 3.0, shift: float = 1.0) -> Any:
            ctx.scale = scale
            return x * scale + shift

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g * ctx.scale, None, None

    (found,) = run(lambda x: (gf.grad(lambda y: Scaled.apply(y).sum())(x),), X)
    np.testing.assert_allclose(found, np.full(X.shape, 3.0))


def test_values_must_not_leave() -> None:
    kept: list[Any] = []

    class Leaky(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            kept.append(x * 2)
            return x

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            return g

    with pytest.raises(TraceError, match="stored outside"):
        gf.compile(lambda x: Leaky.apply(x) + kept[-1])(gf.tensor(X))
