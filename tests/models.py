"""Small models as graphs, with gradients and updates, for structural and golden tests."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.compiler.ir import OPS, Graph, Node, Size, TensorType, constant, input_node
from graphflow.compiler.passes.autodiff import vjp
from graphflow.dims import Dim
from graphflow.dtypes import DType, float32, float64, int64

N = Dim.symbol("n")


def arg(name: str, *shape: Size, dtype: DType = float32) -> Node:
    """A new input."""
    return input_node(name, TensorType(dtype, shape))


def total(x: Node) -> Node:
    """The 0-d sum of all elements."""
    return OPS["reshape"](OPS["sum"](x, dims=tuple(range(len(x.shape)))), shape=())


def mean(x: Node) -> Node:
    """The 0-d mean of all elements."""
    count: Size = 1
    for size in x.shape:
        count = count * size
    return total(x) / OPS["cast"](constant(count, int64), dtype=x.dtype)


def softmax(x: Node) -> Node:
    """Along the last dimension."""
    last = (len(x.shape) - 1,)
    powers = OPS["exp"](x - OPS["detach"](OPS["max"](x, dims=last)))
    return powers / OPS["sum"](powers, dims=last)


def log_softmax(x: Node) -> Node:
    """Along the last dimension."""
    last = (len(x.shape) - 1,)
    shifted = x - OPS["detach"](OPS["max"](x, dims=last))
    return shifted - OPS["log"](OPS["sum"](OPS["exp"](shifted), dims=last))


def cross_entropy(logits: Node, labels: Node) -> Node:
    """Mean over rows; `labels` are class indices."""
    rows = labels.shape[0]
    picked = OPS["gather"](log_softmax(logits), OPS["reshape"](labels, shape=(rows, 1)), dim=1)
    return mean(-OPS["reshape"](picked, shape=(rows,)))


def layer_norm(x: Node, weight: Node, bias: Node) -> Node:
    """Over the last dimension."""
    last = (len(x.shape) - 1,)
    count = OPS["cast"](constant(x.shape[-1], int64), dtype=x.dtype)
    centred = x - OPS["sum"](x, dims=last) / count
    variance = OPS["sum"](centred * centred, dims=last) / count
    return centred * OPS["rsqrt"](variance + 1e-5) * weight + bias


def linear(x: Node, weight: Node, bias: Node) -> Node:
    """``x @ weight.T + bias``, weight (out, in)."""
    return OPS["matmul"](x, OPS["permute"](weight, dims=(1, 0))) + bias


def gradients(loss: Node, wrt: Sequence[Node]) -> list[Node]:
    """The gradient of a 0-d loss."""
    found = vjp([loss], [constant(1.0, loss.dtype)], wrt)
    assert all(g is not None for g in found)
    return found  # type: ignore[return-value]


def adam(
    params: Sequence[Node], loss: Node, lr: Node, step: Node
) -> tuple[list[Node], list[tuple[Node, Node]]]:
    """The states that Adam adds, and (state, new value) of everything."""
    now = step + 1.0
    rate = lr / (1.0 - OPS["pow"](constant(0.9, float64), now))
    scale = OPS["sqrt"](1.0 - OPS["pow"](constant(0.999, float64), now))
    moments: list[Node] = []
    updates = [(step, now)]
    for p, g in zip(params, gradients(loss, params), strict=True):
        name = p.attrs["name"]
        m, v = arg(f"{name}_m", *p.shape, dtype=p.dtype), arg(f"{name}_v", *p.shape, dtype=p.dtype)
        new_m, new_v = m * 0.9 + g * 0.1, v * 0.999 + g * g * 0.001
        size = OPS["cast"](rate, dtype=p.dtype) * new_m
        new_p = p - size / (OPS["sqrt"](new_v) / OPS["cast"](scale, dtype=p.dtype) + 1e-8)
        moments += [m, v]
        updates += [(m, new_m), (v, new_v), (p, new_p)]
    return moments, updates


def with_updates(
    name: str,
    args: Sequence[Node],
    states: Sequence[Node],
    outputs: Sequence[Node],
    updates: Sequence[tuple[Node, Node]],
) -> Graph:
    """A graph whose updates are given by state instead of by number."""
    numbers = {s: i for i, s in enumerate(states)}
    return Graph(
        name, tuple(args), tuple(states), tuple(outputs), tuple((numbers[s], new) for s, new in updates)
    )


def linear_regression_sgd() -> Graph:
    """One step of gradient descent on a linear model."""
    x, y, lr = arg("x", N, 13), arg("y", N, 1), arg("lr", dtype=float64)
    w, b = arg("w", 1, 13), arg("b", 1)
    error = linear(x, w, b) - y
    loss = mean(error * error)
    rate = OPS["cast"](lr, dtype=float32)
    new = [(p, p - rate * g) for p, g in zip((w, b), gradients(loss, (w, b)), strict=True)]
    return with_updates("linear_regression_sgd", (x, y), (w, b, lr), (loss,), new)


def mlp_adam() -> Graph:
    """One step of Adam on a two-layer perceptron with cross-entropy."""
    x, labels = arg("x", N, 20), arg("labels", N, dtype=int64)
    params = [arg("w1", 32, 20), arg("b1", 32), arg("w2", 10, 32), arg("b2", 10)]
    hidden = OPS["relu"](linear(x, params[0], params[1]))
    loss = cross_entropy(linear(hidden, params[2], params[3]), labels)
    lr, step = arg("lr", dtype=float64), arg("step", dtype=float64)
    moments, updates = adam(params, loss, lr, step)
    return with_updates("mlp_adam", (x, labels), (*params, *moments, lr, step), (loss,), updates)


def softmax_regression() -> Graph:
    """Loss, gradients and predictions of a linear classifier."""
    x, labels = arg("x", N, 64), arg("labels", N, dtype=int64)
    w, b = arg("w", 10, 64), arg("b", 10)
    logits = linear(x, w, b)
    loss = cross_entropy(logits, labels)
    predicted = OPS["argmax"](logits, dims=(1,))
    return Graph("softmax_regression", (x, labels, w, b), (), (loss, *gradients(loss, (w, b)), predicted))


def layer_norm_log_softmax_gradient() -> Graph:
    """The gradient of a layer norm followed by a log-softmax, weighted by a cotangent."""
    x, weight, bias, g = arg("x", N, 48), arg("weight", 48), arg("bias", 48), arg("g", N, 48)
    out = log_softmax(layer_norm(x, weight, bias))
    return Graph(
        "layer_norm_log_softmax_gradient",
        (x, weight, bias, g),
        (),
        (out, *gradients(total(out * g), (x, weight, bias))),
    )


def elementwise_chain() -> Graph:
    """An elementwise function with broadcasting, and its gradients."""
    x, scale, shift = arg("x", N, 100), arg("scale", 100), arg("shift", N, 1)
    y = OPS["tanh"](x * scale + shift) * OPS["sigmoid"](x) + OPS["exp"](-x * x)
    return Graph("elementwise_chain", (x, scale, shift), (), (y, *gradients(total(y), (x, scale, shift))))


MODELS = (
    linear_regression_sgd,
    mlp_adam,
    softmax_regression,
    layer_norm_log_softmax_gradient,
    elementwise_chain,
)
