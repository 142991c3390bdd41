"""grad and value_and_grad: any order, nested, of trees, at once and compiled."""

from __future__ import annotations

from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import DTypeError, GradientError

from lives import both


def cube(x: Any) -> Any:
    return (x**3).sum()


def test_derivatives_of_any_order() -> None:
    x = np.array([1.0, 2.0, 3.0])
    first = gf.grad(cube)
    second = gf.grad(lambda x: first(x).sum())
    third = gf.grad(lambda x: second(x).sum())
    fourth = gf.grad(lambda x: third(x).sum())
    found = both(lambda t: (first(t), second(t), third(t), fourth(t)), x)
    for got, wanted in zip(found, (3 * x**2, 6 * x, 6 + 0 * x, 0 * x), strict=True):
        np.testing.assert_allclose(got, wanted)


def test_the_closed_over_value_is_a_constant() -> None:
    x = np.array(3.0)
    assert both(lambda t: gf.grad(lambda a: a * t)(t), x)[0] == 3.0
    assert both(lambda t: gf.grad(lambda a: a * gf.grad(lambda b: a + b)(gf.ones_like(a)))(t), x)[0] == 1.0
    assert both(lambda t: gf.grad(lambda a: a * gf.grad(lambda b: a * b)(a))(t), x)[0] == 6.0
    assert both(lambda t: gf.grad(lambda a: (a * a.detach()).sum())(t), x)[0] == 3.0


def test_arguments_may_be_trees() -> None:
    def loss(parameters: dict[str, Any], scale: Any) -> Any:
        w, (b, c) = parameters["w"], parameters["rest"]
        return (w * scale).sum() + b * 2 + (c * c).sum()

    w, scale = gf.tensor([1.0, 2.0]), gf.tensor([3.0, 4.0])
    tree = {"w": w, "rest": (gf.tensor(1.0), [gf.tensor(5.0)][0])}
    value, grads = gf.value_and_grad(loss)(tree, scale)
    assert value.item() == 3 + 8 + 2 + 25
    assert grads["w"].tolist() == [3, 4] and grads["rest"][0].item() == 2 and grads["rest"][1].item() == 10
    (by_tree, by_scale) = gf.grad(loss, argnums=(0, 1))(tree, scale)
    assert by_tree["w"].tolist() == [3, 4] and by_scale.tolist() == [1, 2]
    assert gf.grad(loss, argnums=-1)(tree, scale).tolist() == [1, 2]


def test_auxiliary_results_are_handed_through() -> None:
    def loss(x: Any) -> Any:
        y = x * 2
        return y.sum(), {"y": y, "note": "text"}

    x = gf.tensor([1.0, 2.0])
    (value, aux), gradient = gf.value_and_grad(loss, has_aux=True)(x)
    assert (value.item(), aux["y"].tolist(), aux["note"], gradient.tolist()) == (6, [2, 4], "text", [2, 2])
    gradient, aux = gf.grad(loss, has_aux=True)(x)
    assert gradient.tolist() == [2, 2] and not aux["y"].requires_grad


def test_results_carry_history_only_where_something_outside_needs_it() -> None:
    x = gf.tensor([1.0, 2.0])
    assert not gf.grad(cube)(x).requires_grad
    value, gradient = gf.value_and_grad(cube)(x)
    assert value.grad_fn is None and gradient.grad_fn is None
    leaf = gf.tensor([1.0, 2.0], requires_grad=True)
    result = gf.grad(cube)(leaf)
    result.sum().backward()
    assert leaf.grad is not None and leaf.grad.tolist() == [6, 12]
    with gf.no_grad():
        assert gf.grad(cube)(leaf).tolist() == [3, 12] and not gf.grad(cube)(leaf).requires_grad
    weight = gf.tensor(2.0, requires_grad=True)
    gf.grad(lambda a: (a * a * weight).sum())(x).sum().backward()
    assert weight.grad is not None and weight.grad.item() == 6


def test_grad_leaves_grads_alone() -> None:
    x = gf.tensor([1.0], requires_grad=True)
    gf.grad(cube)(x)
    assert x.grad is None


def test_an_unused_argument_has_a_zero_gradient() -> None:
    a, b = gf.grad(lambda x, y: (x * 2).sum(), argnums=(0, 1))(gf.ones(2), gf.ones(3))
    assert a.tolist() == [2, 2] and b.tolist() == [0, 0, 0]
    assert gf.grad(lambda x: gf.tensor(1.0))(gf.ones(2)).tolist() == [0, 0]
    assert gf.grad(lambda x: x * x)(3.0).item() == 6


def test_compiled_transforms() -> None:
    @gf.compile
    def step(x: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
        value, gradient = gf.value_and_grad(cube)(x)
        hessian = gf.grad(lambda y: gf.grad(cube)(y).sum())(x)
        return value, gradient + hessian

    value, total = step(gf.tensor([1.0, 2.0]))
    assert value.item() == 9 and total.tolist() == [9, 24]


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: gf.grad(lambda x: x)(gf.ones(2)),
            GradientError,
            r"return a scalar, it returned shape \(2\)",
        ),
        (lambda: gf.grad(lambda x: (x, 1))(gf.ones(())), GradientError, "has_aux=True"),
        (lambda: gf.grad(lambda x: x, has_aux=True)(gf.ones(())), GradientError, "returns \\(output, aux\\)"),
        (lambda: gf.grad(lambda x, y: x, (0, 0))(gf.ones(()), 1), GradientError, "must be unique"),
        (lambda: gf.grad(lambda x: x, "a")(gf.ones(())), TypeError, "must be an int or"),
        (
            lambda: gf.grad(lambda x: x.sum())(gf.tensor([1, 2])),
            DTypeError,
            "floating point tensors.*argnums",
        ),
        (lambda: gf.grad(cube, argnums=2)(gf.ones(2)), GradientError, "1 positional arguments"),
        (lambda: gf.grad(lambda x: (x > 0).sum())(gf.ones(2)), GradientError, "no gradient"),
    ],
)
def test_errors_say_what_is_wrong(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
