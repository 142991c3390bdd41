"""``autograd``: derivatives at inputs, batched gradients, hooks, modes, and gradients checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.autograd import functional
from graphflow.errors import GradientError

RNG = np.random.default_rng(7)
X, W = RNG.standard_normal((3, 2)), RNG.standard_normal((2, 2))
V, U = RNG.standard_normal((3, 2)), RNG.standard_normal((2, 2))


def run(f: Callable[..., Any], *arrays: np.ndarray) -> list[np.ndarray]:
    """Results at once, which have to be those of the compiled function."""
    eager = [r.detach().numpy() for r in f(*map(gf.tensor, arrays))]
    compiled = [r.detach().numpy() for r in gf.compile(f)(*map(gf.tensor, arrays))]
    for a, b in zip(eager, compiled, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)
    return eager


def energy(x: Any, w: Any) -> Any:
    return gf.sin(x @ w).sum()


def test_products_with_jacobians() -> None:
    y, (by_x, by_w) = functional.vjp(lambda x, w: x @ w, (gf.tensor(X), gf.tensor(W)), gf.tensor(V))
    np.testing.assert_allclose(y.numpy(), X @ W)
    np.testing.assert_allclose(by_x.numpy(), V @ W.T)
    np.testing.assert_allclose(by_w.numpy(), X.T @ V)
    found = run(lambda x, w, v, u: functional.jvp(gf.matmul, (x, w), (v, u)), X, W, V, U)
    np.testing.assert_allclose(found[1], V @ W + X @ U)
    assert functional.vjp(gf.sum, gf.tensor(X))[1].tolist() == np.ones((3, 2)).tolist()
    assert functional.jvp(gf.exp, gf.tensor([0.0]))[1].tolist() == [1.0]


def test_products_with_hessians() -> None:
    expected = -np.sin(X @ W) * (V @ W + X @ U)
    by_x = expected @ W.T + np.cos(X @ W) @ U.T
    by_w = X.T @ expected + V.T @ np.cos(X @ W)
    for product in (functional.hvp, functional.vhp):
        found = run(lambda x, w, v, u, product=product: product(energy, (x, w), (v, u))[1], X, W, V, U)
        np.testing.assert_allclose(found[0], by_x)
        np.testing.assert_allclose(found[1], by_w)


def test_whole_jacobians() -> None:
    jacobian = functional.jacobian
    for strategy in ("reverse-mode", "forward-mode"):
        (found,) = run(lambda x, s=strategy: (jacobian(gf.exp, x, strategy=s, vectorize=True),), X)
        np.testing.assert_allclose(found.reshape(6, 6), np.diag(np.exp(X).ravel()))
    blocks = jacobian(lambda x, w: (x @ w, w.sum()), (gf.tensor(X), gf.tensor(W)))
    assert [[tuple(b.shape) for b in row] for row in blocks] == [
        [(3, 2, 3, 2), (3, 2, 2, 2)],
        [(3, 2), (2, 2)],
    ]
    hessian = functional.hessian(energy, (gf.tensor(X), gf.tensor(W)))
    np.testing.assert_allclose(hessian[0][1].numpy(), hessian[1][0].permute(2, 3, 0, 1).numpy())
    x = gf.tensor(X, requires_grad=True)
    assert jacobian(gf.exp, x, create_graph=True).requires_grad and not jacobian(gf.exp, x).requires_grad
    with pytest.raises(GradientError, match="strict"):
        jacobian(lambda x, w: x, (x, x), strict=True)
    with pytest.raises(GradientError, match="can only be None"):
        functional.vjp(gf.exp, x)
    with pytest.raises(ValueError, match="strategy"):
        jacobian(gf.exp, x, strategy="sideways")
    with pytest.raises(TypeError, match="tuple of tensors"):
        jacobian(gf.exp, 3.0)
    with pytest.raises(GradientError, match="single element"):
        functional.hessian(gf.exp, x)


def test_backward_into_some_inputs_only() -> None:
    def f(x: Any) -> Any:
        a, b = (x * 2).detach().requires_grad_(), (x * 3).detach().requires_grad_()
        between = a * b
        loss = (between * between).sum()
        loss.backward(inputs=[b], retain_graph=True)
        first = (a.grad is None, b.grad.clone())
        gf.autograd.backward(loss, inputs=(a, b, a))
        return *first, a.grad, b.grad

    for function in (f, gf.compile(f)):
        for _ in range(2):
            none, *found = function(gf.ones(2))
            assert none
            assert [g.tolist() for g in found] == [[24, 24], [36, 36], [48, 48]]
    x = gf.ones(2, requires_grad=True)
    y = x * 2
    (y * y).sum().backward(inputs=y)
    assert x.grad is None
    with pytest.raises(GradientError, match="cannot be empty"):
        y.sum().backward(inputs=[])
    with pytest.raises(GradientError, match="does not require grad"):
        y.sum().backward(inputs=[gf.ones(2)])
    assert gf.autograd.grad((x * x).sum(), x, None, None, False, True, True)[0].tolist() == [2, 2]
    with pytest.raises(ValueError, match="only_inputs"):
        gf.autograd.grad(y.sum(), x, only_inputs=False)


def test_batched_gradients() -> None:
    x = gf.tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x * x
    (rows,) = gf.autograd.grad(y, x, gf.eye(3), is_grads_batched=True)
    assert rows.tolist() == np.diag([2.0, 4.0, 6.0]).tolist()
    unused = gf.ones(2, requires_grad=True)
    found = gf.autograd.grad(y, [x, unused], gf.eye(3), is_grads_batched=True, allow_unused=True)
    assert found[1] is None
    assert gf.autograd.grad(y.sum(), [unused], materialize_grads=True)[0].tolist() == [0, 0]
    with pytest.raises(GradientError, match="not used"):
        gf.autograd.grad(y.sum(), [unused])
    with pytest.raises(GradientError, match="needs grad_outputs"):
        gf.autograd.grad(y, x, is_grads_batched=True)
    with pytest.raises(ValueError, match="materialize_grads"):
        gf.autograd.grad(y, x, gf.ones(3), allow_unused=False, materialize_grads=True)


def test_hooks_see_and_change_gradients() -> None:
    x = gf.tensor([1.0, 2.0, 3.0], requires_grad=True)
    seen: list[Any] = []
    handle = x.register_hook(lambda g: g + 1)
    y = x * 2
    y.retain_grad()
    y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 10)
    assert y.retains_grad and not x.retains_grad
    ((y * y).sum() + y.sum()).backward()
    assert seen == [[5, 9, 13]] and y.grad is not None and y.grad.tolist() == [50, 90, 130]
    assert x.grad is not None and x.grad.tolist() == [101, 181, 261]
    handle.remove()
    handle.remove()
    x.grad = None
    (x * 3).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [3, 3, 3]
    with x.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.tolist())):
        (x * 3).sum().backward()
    assert seen[1] == [6, 6, 6]


def test_hooks_and_higher_derivatives() -> None:
    def f(x: Any) -> Any:
        y = x * x
        y.register_hook(lambda g: g * x.detach() * 2)
        (first,) = gf.autograd.grad(y.pow(2).sum(), x, create_graph=True)
        return (gf.autograd.grad(first.sum(), x)[0],)

    x = gf.tensor(X, requires_grad=True)
    # First 2y * 2c * 2x, where c = x is a constant; its share that comes through y passes the hook once more.
    expected = 8 * X**3 + 32 * X**4
    for call in (f, gf.compile(f)):
        np.testing.assert_allclose(call(x)[0].detach().numpy(), expected)


def test_hooks_in_compiled_functions() -> None:
    w = gf.ones(3, requires_grad=True)

    @gf.compile
    def step(x: Any) -> Any:
        loss = (w * x).sum()
        loss.backward()
        return loss

    def gradient() -> Any:
        w.grad = None
        step(gf.tensor([1.0, 2.0, 3.0]))
        assert w.grad is not None
        return w.grad.tolist()

    assert gradient() == [1, 2, 3]
    handle = w.register_hook(lambda g: g.clamp(max=2.0))
    assert gradient() == [1, 2, 2]
    handle.remove()
    assert gradient() == [1, 2, 3]


def test_errors_of_hooks() -> None:
    x = gf.ones(2, requires_grad=True)
    with pytest.raises(GradientError, match="doesn't require gradient"):
        gf.ones(2).register_hook(print)
    with pytest.raises(TypeError, match="a hook is a function"):
        x.register_hook(3)
    with pytest.raises(GradientError, match="leaf tensors"):
        (x * 2).register_post_accumulate_grad_hook(print)
    with pytest.raises(GradientError, match="can't retain_grad"):
        gf.ones(2).retain_grad()
    x.register_hook(lambda g: g[0])
    with pytest.raises(GradientError, match="has to return None or a gradient like"):
        x.sum().backward()


def test_modes() -> None:
    x = gf.ones(2, requires_grad=True)

    @gf.no_grad
    def plain() -> bool:
        return (x * 2).requires_grad

    @gf.inference_mode
    def inference() -> bool:
        return (x * 2).requires_grad or not gf.is_inference_mode_enabled()

    @gf.set_grad_enabled(False)
    def flagged() -> bool:
        return (x * 2).requires_grad

    assert not plain() and not inference() and not flagged() and (x * 2).requires_grad
    with gf.inference_mode():
        assert not (x * 2).requires_grad
        with gf.inference_mode(False):
            assert (x * 2).requires_grad and not gf.is_inference_mode_enabled()
    gf.set_grad_enabled(False)
    assert not gf.is_grad_enabled()
    with gf.set_grad_enabled(True):
        assert gf.is_grad_enabled()
    assert not gf.is_grad_enabled()
    gf.set_grad_enabled(True)
    assert gf.is_grad_enabled()


def test_anomalies_are_told_with_their_line() -> None:
    x = gf.tensor([0.0, 1.0], requires_grad=True)

    def wrong() -> Any:
        return (gf.sqrt(x) * 0).sum()

    wrong().backward()
    with gf.autograd.detect_anomaly():
        assert gf.is_anomaly_enabled()
        with pytest.raises(GradientError, match=r"nan values, first in[\s\S]*gf\.sqrt\(x\)"):
            wrong().backward()
        (x * 2).sum().backward()
    assert not gf.is_anomaly_enabled()


def test_gradcheck() -> None:
    x, w = (gf.tensor(a, requires_grad=True) for a in (X, W))
    assert gf.autograd.gradcheck(lambda x, w: (gf.tanh(x @ w), x.sum()), (x, w), check_forward_ad=True)
    assert gf.autograd.gradgradcheck(lambda x, w: gf.tanh(x @ w), (x, w))
    wrong = gf.custom_function(lambda x: (gf.sin(x), x), lambda saved, g: g * saved)
    with pytest.raises(
        gf.autograd.GradcheckError, match="Jacobian mismatch for output 0 with respect to input 0"
    ):
        gf.autograd.gradcheck(wrong, x)
    assert not gf.autograd.gradcheck(wrong, x, raise_exception=False)
    right_once = gf.custom_function(lambda x: (gf.sin(x), x), lambda saved, g: g * gf.cos(saved).detach())
    assert gf.autograd.gradcheck(right_once, x)
    assert not gf.autograd.gradgradcheck(right_once, x, raise_exception=False)
    with pytest.raises(gf.autograd.GradcheckError, match="same twice"):
        gf.autograd.gradcheck(lambda x: x * gf.rand(1), x)
    with pytest.raises(TypeError, match="float64"):
        gf.autograd.gradcheck(gf.sin, gf.ones(2, requires_grad=True))
    with pytest.raises(TypeError, match="no input requires grad"):
        gf.autograd.gradcheck(gf.sin, gf.ones(2))
