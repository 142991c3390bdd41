"""vjp, jvp, Jacobians and Hessians against finite differences and closed forms, eager and compiled."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import DTypeError, GradientError

from lives import both

RNG = np.random.default_rng(5)
X, W = RNG.standard_normal((3, 2)), RNG.standard_normal((2, 2))


def differences(f: Callable[[np.ndarray], np.ndarray], x: np.ndarray, eps: float = 1e-6) -> np.ndarray:
    """The Jacobian by central differences, shape f(x).shape + x.shape."""
    found = np.zeros((*f(x).shape, *x.shape))
    for index in np.ndindex(x.shape):
        ends = []
        for step in (eps, -eps):
            moved = x.copy()
            moved[index] += step
            ends.append(f(moved))
        found[(..., *index)] = (ends[0] - ends[1]) / (2 * eps)
    return found


def curve(x: Any) -> Any:
    return gf.tanh(x) * x.sum(0) + gf.softmax(x, 1)


def curve_array(x: np.ndarray) -> np.ndarray:
    e = np.exp(x)
    return np.tanh(x) * x.sum(0) + e / e.sum(1, keepdims=True)


def close(actual: Any, expected: Any, **tolerance: float) -> None:
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, **(tolerance or {"rtol": 1e-9, "atol": 1e-11}))


def test_jacobians_by_rows_and_by_columns() -> None:
    expected = differences(curve_array, X)
    for transform in (gf.jacrev, gf.jacfwd, gf.jacobian):
        close(both(transform(curve), X), [expected], rtol=1e-6, atol=1e-8)
    by_chunks = gf.jacrev(curve, chunk_size=4)(gf.tensor(X))
    close([by_chunks.numpy()], [expected], rtol=1e-6, atol=1e-8)


def test_one_graph_for_all_rows() -> None:
    graph = gf.trace(gf.jacrev(lambda x: gf.tanh(x @ x)), gf.TensorSpec([6, 6]))
    assert len([n for n in graph.nodes() if n.op.name == "tanh"]) == 1
    assert len(graph.nodes()) < 40


def test_jacobians_of_trees() -> None:
    def f(x: Any, tree: dict[str, Any]) -> Any:
        return {"a": gf.sin(x @ tree["w"]), "b": (x.sum(), tree["w"] * tree["w"])}

    tree = {"w": gf.tensor(W)}
    for transform in (gf.jacrev, gf.jacfwd):
        found = transform(f, argnums=(0, 1))(gf.tensor(X), tree)
        by_x, by_tree = found["b"][1]
        assert by_x.shape == (2, 2, 3, 2) and not by_x.any()
        np.testing.assert_allclose(
            by_tree["w"].numpy(), 2 * W[:, :, None, None] * np.eye(4).reshape(2, 2, 2, 2)
        )
        np.testing.assert_allclose(found["b"][0][0].numpy(), np.ones((3, 2)))
        assert found["a"][1]["w"].shape == (3, 2, 2, 2)
    jacobian, aux = gf.jacrev(lambda x: (x * 2, "aux"), has_aux=True)(gf.tensor(X))
    assert aux == "aux" and jacobian.shape == (3, 2, 3, 2)


@pytest.mark.parametrize("empty", [{}, OrderedDict(), defaultdict(list), Counter()])
def test_dicts_keep_their_class(empty: Any) -> None:
    tree = empty.copy()
    tree["a"], tree["b"] = gf.tensor(2.0), gf.tensor(3.0)
    found = gf.grad(lambda t: t["a"] * t["b"])(tree)
    assert type(found) is type(empty)
    assert {key: value.item() for key, value in found.items()} == {"a": 3.0, "b": 2.0}
    assert getattr(found, "default_factory", None) is getattr(empty, "default_factory", None)


def test_second_derivatives_in_any_order() -> None:
    def f(x: Any) -> Any:
        return gf.exp(x).prod() + (x[0] * x[1]).sum()

    gradient = gf.grad(f)
    expected = differences(lambda x: gradient(gf.tensor(x)).numpy(), X)
    for transform in (
        gf.hessian(f), gf.jacrev(gf.jacrev(f)), gf.jacfwd(gf.jacfwd(f)), gf.jacrev(gf.jacfwd(f)),
        gf.jacrev(gf.grad(f)),
    ):  # fmt: skip
        close(both(transform, X), [expected], rtol=1e-6, atol=1e-7)
    blocks = gf.hessian(lambda x, w: gf.sin(x @ w).sum(), argnums=(0, 1))(gf.tensor(X), gf.tensor(W))
    assert [[b.shape for b in row] for row in blocks] == [
        [(3, 2, 3, 2), (3, 2, 2, 2)], [(2, 2, 3, 2), (2, 2, 2, 2)]]  # fmt: skip
    np.testing.assert_allclose(blocks[0][1].numpy(), blocks[1][0].permute(2, 3, 0, 1).numpy())


def test_any_batch_size_in_one_variant() -> None:
    compiled = gf.compile(lambda x: gf.jacrev(curve)(x), signature=[gf.TensorSpec(["n", 2], "float64")])
    for n in (3, 1, 4):
        x = RNG.standard_normal((n, 2))
        np.testing.assert_allclose(compiled(gf.tensor(x)).numpy(), differences(curve_array, x), atol=1e-7)
    assert len(compiled.variants) == 1


def test_vjp() -> None:
    def f(x: Any, w: Any) -> Any:
        return x @ w, {"s": x.sum()}

    (y, rest), pull = gf.vjp(f, gf.tensor(X), gf.tensor(W))
    np.testing.assert_allclose(y.numpy(), X @ W)
    assert not y.requires_grad and rest["s"].item() == pytest.approx(X.sum())
    g = RNG.standard_normal((3, 2))
    for _ in range(2):
        by_x, by_w = pull((gf.tensor(g), {"s": gf.tensor(2.0, dtype=gf.float64)}))
        np.testing.assert_allclose(by_x.numpy(), g @ W.T + 2)
        np.testing.assert_allclose(by_w.numpy(), X.T @ g)
    _, pull, aux = gf.vjp(lambda x: (x * 2, x.sum()), gf.tensor(X), has_aux=True)
    assert aux.item() == pytest.approx(X.sum())
    (by_x,) = pull(gf.ones(3, 2, dtype=gf.float64))
    assert (by_x == 2).all()


def test_cotangents_and_tangents_go_by_the_keys_of_dicts() -> None:
    x = gf.tensor(X)
    _, pull = gf.vjp(lambda y: {"a": y, "b": 10 * y}, x)
    assert gf.equal(pull({"b": gf.zeros_like(x), "a": x})[0], x)
    _, moved = gf.jvp(lambda d: d["a"] + 10 * d["b"], ({"a": x, "b": x},), ({"b": 0 * x, "a": x},))
    assert gf.equal(moved, x)


def test_python_may_decide_outside_of_compiled_functions() -> None:
    def f(x: Any) -> Any:
        return x * 3 if x.sum().item() > 0 else x * 5

    x = gf.tensor([1.0, 2.0])
    _, pull = gf.vjp(f, -x)
    rows = gf.vmap(pull)(gf.eye(2))[0]
    np.testing.assert_allclose(rows.numpy(), 5 * np.eye(2))
    np.testing.assert_allclose(gf.jacfwd(f)(x).numpy(), 3 * np.eye(2))
    np.testing.assert_allclose(gf.compile(lambda ct: pull(ct)[0])(gf.ones(2)).numpy(), [5, 5])


def test_jvp() -> None:
    t = RNG.standard_normal(X.shape)
    expected = np.einsum("abij,ij->ab", differences(curve_array, X), t)
    found = both(lambda x, t: gf.jvp(curve, (x,), (t,)), X, t)
    close(found, [curve_array(X), expected], rtol=1e-6, atol=1e-8)
    _, push = gf.linearize(curve, gf.tensor(X))
    close([push(gf.tensor(t)).numpy()], [expected], rtol=1e-6, atol=1e-8)
    close(both(lambda x, t: gf.jvp(gf.grad(lambda a: gf.exp(a).sum()), (x,), (t,))[1], X, t), [np.exp(X) * t])
    close(both(lambda x: gf.grad(lambda y: gf.jvp(gf.exp, (y,), (y,))[1].sum())(x), X), [np.exp(X) * (1 + X)])
    nested = both(lambda x: gf.jvp(lambda a: gf.jvp(gf.sin, (a,), (a,))[1], (x,), (x,))[1], X)
    close(nested, [-np.sin(X) * X * X + np.cos(X) * X])


def test_points_where_there_is_no_derivative() -> None:
    x = np.array([-1.0, 0.0, 2.0, 0.0])
    one = gf.ones(4, dtype=gf.float64)
    for f, expected in [
        (gf.relu, [0, 0, 1, 0]),
        (gf.abs, [-1, 0, 1, 0]),
        (lambda a: gf.where(a > 0, gf.sqrt(a), a * 0), [0, 0, 0.5 / np.sqrt(2), 0]),
        (lambda a: gf.maximum(a, a * 0), [0, 0.5, 1, 0.5]),
    ]:
        np.testing.assert_allclose(gf.jvp(f, (gf.tensor(x),), (one,))[1].numpy(), expected)


def test_gradients_of_what_vjp_and_jvp_give() -> None:
    x = gf.tensor(X, requires_grad=True)
    _, pull = gf.vjp(gf.sin, x)
    pull(gf.ones(3, 2, dtype=gf.float64))[0].sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), -np.sin(X))
    with gf.no_grad():
        assert not gf.jvp(gf.sin, (x,), (x,))[1].requires_grad


def test_values_overwritten_since_are_noticed() -> None:
    x = gf.tensor(X)
    _, pull = gf.vjp(lambda a: a * a, x)
    x.zero_()
    with pytest.raises(GradientError, match="modified by an inplace operation"):
        pull(gf.tensor(X))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: gf.vjp(gf.sin), "at least one primal"),
        (lambda x: gf.vjp(gf.sin, x.long()), "floating point"),
        (lambda x: gf.vjp(gf.sin, x)[1](x[0]), "has to be float64"),
        (lambda x: gf.vjp(gf.sin, x)[1]((x, x)), "expected 1 cotangents, got 2"),
        (lambda x: gf.vjp(lambda y: (y, y), x)[1]([[x], x]), "nested as what they belong to"),
        (lambda x: gf.jacrev(gf.mul, (0, 0))(x, x), "must be unique"),
        (lambda x: gf.jacrev(gf.mul, (0, -2))(x, x), "must be unique"),
        (lambda x: gf.jacfwd(gf.mul, "a")(x, x), "must be an int or"),
        (lambda x: gf.jvp(gf.sin, x, x), "primals is a non-empty tuple"),
        (lambda x: gf.jvp(gf.sin, (x,), (x[0],)), "tangents 0 has to be"),
        (lambda x: gf.jvp(lambda a: gf.ones(2), (x,), (x,), strict=True), "does not depend"),
        (lambda x: gf.jacrev(lambda a: 3)(x), "has to return tensors"),
        (lambda x: gf.jacrev(gf.sin, argnums=1)(x), "argnums=1"),
        (lambda x: gf.jacrev(gf.argmax)(x), "has no Jacobian"),
        (lambda x: gf.jacrev(gf.sin, has_aux=True)(x), "returns \\(output, aux\\)"),
    ],
)
def test_errors_say_what_is_wrong(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises((GradientError, DTypeError), match=message):
        call(gf.tensor(X))


CHANGES: dict[str, Callable[[gf.Tensor], object]] = {
    "mul_": lambda x: x.mul_(2.0),
    "zero_": lambda x: x.zero_(),
    "setitem": lambda x: x.__setitem__(0, 5.0),
    "through a view": lambda x: x[:1].exp_(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_argument_that_is_differentiated_by_cannot_be_changed(name: str) -> None:
    """The derivative would be taken at what was put there, which nobody asks for; PyTorch refuses it, too."""

    def changing(x: gf.Tensor) -> gf.Tensor:
        CHANGES[name](x)
        return (x * gf.tensor([1.0, 2.0])).sum()

    x = gf.tensor([1.0, 2.0])
    for transformed in (
        gf.grad(changing),
        gf.compile(gf.grad(changing)),
        gf.func.jacrev(changing),
        lambda x: gf.vjp(changing, x),
    ):
        with pytest.raises(GradientError, match=r"in-place operation; \.clone\(\) it first") as raised:
            transformed(x.clone())
        assert "test_derivatives.py" in str(raised.value)
    copied = gf.grad(lambda x: changing(x.clone()))(x).tolist()
    assert copied == {
        "mul_": [2.0, 4.0], "zero_": [0.0, 0.0], "setitem": [0.0, 2.0],
        "through a view": [pytest.approx(np.exp(1.0)), 2.0],
    }[name]  # fmt: skip
