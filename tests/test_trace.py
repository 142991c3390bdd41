"""``gf.trace``: graphs that print, parse back and run; and derivatives as functions, compiled and not."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn, optim
from graphflow.compiler.parser import parse
from graphflow.errors import DTypeError, GradientError, ShapeError, TraceError
from graphflow.nn import functional as F

Spec = gf.TensorSpec


def test_a_graph_prints_parses_back_and_runs() -> None:
    def f(x: Any, y: Any) -> Any:
        return {"loss": ((x * 2 - y) ** 2).mean(), "x": gf.where(x > 0, x, y)}

    graph = gf.trace(f, Spec(("batch", 3), gf.float64), Spec(("batch", 3), gf.float64, name="target"))
    text = str(graph)
    assert "float64[batch, 3]" in text
    assert "target" in text
    assert "test_trace.py:" in text
    again = parse(text)
    assert str(again) == text
    ours, theirs = gf.compile(graph), gf.compile(again)
    for n in (4, 1, 0):
        rng = np.random.default_rng(n)
        x, y = rng.standard_normal((2, n, 3))
        out = ours(x, y)
        expected = f(gf.tensor(x), gf.tensor(y))
        flat = theirs(x, y)
        for name, other in zip(("loss", "x"), flat, strict=True):
            np.testing.assert_allclose(out[name].numpy(), expected[name].numpy(), 1e-12)
            np.testing.assert_array_equal(out[name].numpy(), other.numpy())


def test_a_training_step_as_a_graph() -> None:
    def build() -> tuple[Any, Any, Any]:
        gf.manual_seed(1)
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
        optimizer = optim.Adam(model.parameters(), lr=0.1)

        def step(x: Any, y: Any) -> Any:
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return model, optimizer, step

    model, _, step = build()
    graph = gf.trace(step, Spec(("n", 3), gf.float64), Spec(("n",), gf.int64))
    assert model[0].weight.grad is None
    run = gf.compile(graph)
    shared = [t for t in run.states.values() if t.data_ptr() == model[0].weight.data_ptr()]
    assert len(shared) == 1
    copies = {name: t.detach().clone() for name, t in run.states.items()}
    again = gf.compile(parse(str(graph)), states=copies)
    other, _, plain = build()
    for n in (5, 2, 8):
        x, y = np.random.default_rng(n).standard_normal((n, 3)), np.arange(n) % 2
        losses = [run(x, y)[0], again(x, y)[0], plain(gf.tensor(x), gf.tensor(y))]
        np.testing.assert_allclose([loss.item() for loss in losses], losses[2].item(), 1e-12)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), 1e-12)
    for name, tensor in run.states.items():
        np.testing.assert_array_equal(tensor.detach().numpy(), copies[name].detach().numpy())


def test_compiled_graphs_tell_what_they_need() -> None:
    w = gf.ones(3)
    graph = gf.trace(lambda x: x * w, Spec(("n", 3)))
    text = parse(str(graph))
    with pytest.raises(TypeError, match="states without values: s0; pass states="):
        gf.compile(text)
    with pytest.raises(TypeError, match="has no state 'w'; it has s0"):
        gf.compile(text, states={"w": w})
    with pytest.raises(TypeError, match=r"state s0 has to be float32\[3\], got float64\[3\]"):
        gf.compile(text, states={"s0": np.ones(3)})
    run = gf.compile(text, states={"s0": np.full(3, 2, np.float32)})
    assert run(np.ones((1, 3), np.float32)).tolist() == [[2.0] * 3]
    with pytest.raises(TypeError, match=r"takes \(x: float32\[n, 3\]\), got 2 arguments"):
        run(w, w)
    for bad in (np.ones((1, 3)), np.ones((1, 4), np.float32), np.ones(3, np.float32)):
        with pytest.raises((TypeError, ValueError), match="argument x has"):
            run(bad)
    with pytest.raises(ValueError, match=r"argument x has to be float32\[n, 3\], a rectangular array"):
        run([[1.0], [2.0, 3.0]])
    with pytest.raises(TypeError, match="states= goes with a Graph"):
        gf.compile(lambda x: x, states={})  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="not with a Graph"):
        gf.compile(graph, max_variants=3)  # type: ignore[call-overload]
    with pytest.raises(TraceError, match="can't be part of a compiled function"):
        gf.compile(lambda x: run(x))(np.ones((1, 3), np.float32))


@pytest.mark.parametrize("shape", ["batch", 3])
def test_a_shape_is_a_sequence(shape: Any) -> None:
    with pytest.raises(TypeError, match=r"a shape is a sequence of sizes, not (.*); write \(\1,\)"):
        Spec(shape)


def test_sizes_without_numbers() -> None:
    pinned = gf.trace(lambda x: x + gf.ones(32), Spec(("n",)))
    assert "float32[32]" in str(pinned)
    with pytest.raises(
        TraceError, match="needs the number behind the symbolic size n; give a number in the TensorSpec"
    ):
        gf.trace(lambda x: x if x.shape[0] > 3 else -x, Spec(("n",)))
    with pytest.raises(ValueError, match="don't broadcast"):
        gf.trace(lambda x, y: x + y, Spec(("n",)), Spec(("m",)))
    assert "float32[3]" in str(gf.trace(lambda x: x if x.shape[0] > 2 else -x, Spec((3,))))


@pytest.mark.parametrize(
    ("shape", "dtype", "error"),
    [
        ((-1,), gf.float32, TypeError),
        ((2.5,), gf.float32, TypeError),
        ((True,), gf.float32, TypeError),
        (("not a name",), gf.float32, TypeError),
        (("",), gf.float32, TypeError),
        ((None,), gf.float32, TypeError),
        (3, gf.float32, TypeError),
        ("batch", gf.float32, TypeError),
        ((2,), "complex64", DTypeError),
        ((2,), "no such", DTypeError),
    ],
)
def test_specs_that_make_no_sense(shape: Any, dtype: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Spec(shape, dtype)


def test_specs() -> None:
    spec = Spec(["n", 4], "float64")
    assert spec == Spec(("n", 4), np.float64)
    assert str(spec) == "float64[n, 4]"
    assert str(Spec(())) == "float32[]"
    assert hash(spec) == hash(Spec(("n", 4), gf.float64))
    with pytest.raises(TypeError, match="TensorSpecs after the function, not int"):
        gf.trace(lambda x: x, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes a function or a Module, not str"):
        gf.trace("f")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        gf.trace(lambda x: x)


# ---------------------------------------------------------------------------------------------- derivatives


def cubed(x: Any) -> Any:
    return (x**3 * gf.sin(x)).sum()


X = np.array([0.3, -1.2, 2.0])


def expected_derivatives() -> list[np.ndarray]:
    s, c, x = np.sin(X), np.cos(X), X
    return [
        x**3 * s,
        3 * x**2 * s + x**3 * c,
        6 * x * s + 6 * x**2 * c - x**3 * s,
        6 * s + 18 * x * c - 9 * x**2 * s - x**3 * c,
    ]


def nth(order: int) -> Any:
    f: Any = cubed
    for _ in range(order):
        inner = f
        f = lambda x, inner=inner: gf.grad(lambda v: inner(v).sum())(x)  # noqa: E731
    return f


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("where", ["eager", "outside", "inside", "graph", "both"])
def test_derivatives_of_any_order_inside_and_outside(order: int, where: str) -> None:
    derivative = nth(order)
    if where == "inside":
        derivative = gf.compile(derivative)
    elif where == "graph":
        derivative = gf.compile(gf.trace(derivative, Spec(("n",), gf.float64)))
    elif where == "outside":
        compiled = gf.compile(cubed)
        derivative = compiled
        for _ in range(order):
            inner = derivative
            derivative = lambda x, inner=inner: gf.grad(lambda v: inner(v).sum())(x)  # noqa: E731
    elif where == "both":
        derivative = gf.compile(gf.grad(lambda v: gf.compile(nth(order - 1))(v).sum()))
    np.testing.assert_allclose(derivative(gf.tensor(X)).numpy(), expected_derivatives()[order], 1e-10)


def test_values_gradients_and_auxiliary_results() -> None:
    def loss(params: Any, x: Any) -> Any:
        out = x @ params["w"] + params["b"]
        return (out**2).mean(), {"out": out}

    rng = np.random.default_rng(0)
    params = {"w": gf.tensor(rng.standard_normal((3, 2))), "b": gf.zeros(2).double()}
    eager = gf.value_and_grad(loss, has_aux=True)
    compiled = gf.compile(eager)
    for n in (4, 1, 7):
        x = gf.tensor(rng.standard_normal((n, 3)))
        (value, aux), grads = compiled(params, x)
        (value_, aux_), grads_ = eager(params, x)
        np.testing.assert_allclose(value.item(), value_.item(), 1e-12)
        np.testing.assert_allclose(aux["out"].numpy(), aux_["out"].numpy(), 1e-12)
        for name in params:
            np.testing.assert_allclose(grads[name].numpy(), grads_[name].numpy(), 1e-12)
    assert len(compiled.variants) == 1
    both = gf.compile(gf.grad(lambda a, b: (a * b).sum(), argnums=(0, 1)))
    a, b = both(gf.ones(2), gf.full((2,), 3.0))
    assert (a.tolist(), b.tolist()) == ([3.0, 3.0], [1.0, 1.0])


def test_gradients_with_respect_to_gradients() -> None:
    """A gradient penalty: the loss holds a gradient, and is differentiated with respect to the parameters."""

    def build() -> tuple[Any, Any]:
        gf.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()

        def step(x: Any) -> Any:
            slope = gf.grad(lambda v: net(v).sum())(x)
            penalty = ((slope**2).sum(1) - 1).pow(2).mean()
            for p in net.parameters():
                p.grad = None
            penalty.backward()
            return penalty

        return net, step

    (ours, step), (theirs, eager) = build(), build()
    compiled = gf.compile(step)
    for n in (3, 1):
        x = gf.tensor(np.random.default_rng(n).standard_normal((n, 2)))
        np.testing.assert_allclose(compiled(x).item(), eager(x).item(), 1e-12)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None)
            if p.grad is not None:
                np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), 1e-10, 1e-14)
    assert len(compiled.variants) == 1


def test_double_backward_through_a_compiled_function() -> None:
    f = gf.compile(lambda x: (x**3).sum())
    x = gf.tensor([2.0, 3.0], requires_grad=True)
    (first,) = gf.autograd.grad(f(x), x, create_graph=True)
    assert first.tolist() == [12.0, 27.0]
    (second,) = gf.autograd.grad(first.sum(), x, create_graph=True)
    assert second.tolist() == [12.0, 18.0]
    second.sum().backward()
    assert x.grad.tolist() == [6.0, 6.0]


def test_a_gradient_assigned_inside_compile() -> None:
    weight = gf.zeros(2, 3, requires_grad=True)
    optimizer = gf.optim.SGD([weight], lr=0.5)

    @gf.compile
    def step(g: Any) -> Any:
        weight.grad = g
        weight.grad += g
        optimizer.step()
        return g.sum()

    assert step(gf.ones(2, 3)).item() == 12  # the gradient is that tensor, which grew
    assert (weight == -1).all() and (weight.grad == 2).all()
    with pytest.raises(GradientError, match=r"float32\[2, 3\]; got float32\[batch, 3\]"):
        step(gf.ones(4, 3))


def test_what_cannot_be_differentiated() -> None:
    with pytest.raises(GradientError, match="scalar"):
        gf.compile(gf.grad(lambda x: x * 2))(gf.ones(2))
    with pytest.raises(DTypeError, match="floating point"):
        gf.compile(gf.grad(lambda x: x.sum()))(gf.arange(3))
    with pytest.raises(GradientError, match="argnums=3"):
        gf.compile(gf.grad(lambda x: x.sum(), argnums=3))(gf.ones(2))


def test_compiled_functions_and_what_they_train_are_let_go() -> None:
    def step() -> list[weakref.ref[Any]]:
        weight = nn.Parameter(gf.ones(3))
        optimizer = optim.SGD([weight], lr=0.1)

        @gf.compile
        def run(x: Any) -> Any:
            optimizer.zero_grad()
            loss = (weight * x).sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        for _ in range(3):
            run(gf.ones(3))
        return [weakref.ref(o) for o in (weight, optimizer, run, run._function)]

    def network() -> list[weakref.ref[Any]]:
        weight = nn.Parameter(gf.ones(3))

        @gf.compile
        def run(x: Any) -> Any:
            return gf.fori_loop(0, 3, lambda i, v: v * weight, x).sum()

        run(gf.ones(3)).backward()
        return [weakref.ref(o) for o in (weight, run)]

    def failing() -> list[weakref.ref[Any]]:
        weight = nn.Parameter(gf.ones(3))

        @gf.compile
        def run(x: Any) -> Any:
            return weight * x + gf.ones(2)

        with pytest.raises(ShapeError):
            run(gf.ones(3))
        return [weakref.ref(o) for o in (weight, run)]

    for make in (step, network, failing):
        refs = make()
        gc.collect()
        assert [r() for r in refs] == [None] * len(refs), make.__name__
