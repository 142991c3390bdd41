"""Random small graphs for property tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from graphflow.compiler import ir
from graphflow.compiler.ir import OPS, Graph, Node, TensorType, input_node
from graphflow.compiler.location import Loc
from graphflow.compiler.ops.control import cond, items, scan
from graphflow.dtypes import float64, int64
from hypothesis import strategies as st

# Every shape here broadcasts with every other.
SHAPES = [(2, 3), (3,), (1, 3), (2, 1), (), (1, 1)]


def _branch(name: str, x: Node, function: Callable[[Node, Node], Node]) -> Graph:
    a, b = (input_node(n, TensorType(float64, x.shape)) for n in ("a", "b"))
    return Graph(name, (a, b), (), (function(a, b),))


def _choose(x: Node) -> Node:
    positive = OPS["gt"](OPS["reshape"](OPS["sum"](x, dims=tuple(range(len(x.shape)))), shape=()), 0.1)
    then = _branch("then", x, lambda a, b: OPS["sin"](a) * b)
    otherwise = _branch("otherwise", x, lambda a, b: a + OPS["tanh"](b))
    return items(cond(positive, x, OPS["cos"](x), then=then, otherwise=otherwise))[0]


def _loop(x: Node) -> Node:
    h, w = (input_node(n, TensorType(float64, x.shape)) for n in ("h", "w"))
    new = OPS["tanh"](h * w)
    body = Graph("body", (h, w), (), (new, new + w))
    last, steps = items(scan(x, x, body=body, carries=1, sequences=0, length=3, reverse=False))
    return last + OPS["reshape"](OPS["sum"](steps, dims=(0,)), shape=x.shape)


def _reduced(x: Node) -> Node:
    return OPS["sum"](x, dims=tuple(range(len(x.shape)))) * 0.3


UNARY: list[Callable[[Node], Node]] = [
    lambda x: OPS["tanh"](x),
    lambda x: OPS["sin"](x),
    lambda x: OPS["sigmoid"](x) * 2.0,
    lambda x: OPS["neg"](x),
    lambda x: OPS["exp"](OPS["tanh"](x)),
    lambda x: x * x,
    lambda x: OPS["detach"](x) * x,
    lambda x: OPS["alias"](x, uid=7),
    lambda x: OPS["cast"](OPS["cast"](x, dtype=int64), dtype=float64) + x,
    _reduced,
]
CONTROL: list[Callable[[Node], Node]] = [_choose, _loop]
BINARY: list[Callable[[Node, Node], Node]] = [
    lambda x, y: x + y,
    lambda x, y: x - y,
    lambda x, y: x * OPS["tanh"](y),
    lambda x, y: x / (OPS["exp"](OPS["tanh"](y)) + 1.0),
    lambda x, y: OPS["where"](OPS["gt"](x, y), OPS["sin"](x), y * 0.5),
]


@st.composite
def graphs(draw: st.DrawFn, control: bool = True) -> tuple[Graph, list[np.ndarray]]:
    """A sound graph of float64 tensors and arrays for its inputs; `control` allows loops and branches."""
    unary = UNARY + CONTROL if control else UNARY
    inputs = [
        input_node(f"x{i}", TensorType(float64, draw(st.sampled_from(SHAPES))))
        for i in range(draw(st.integers(1, 3)))
    ]
    states = [
        input_node(f"w{i}", TensorType(float64, draw(st.sampled_from(SHAPES))))
        for i in range(draw(st.integers(0, 2)))
    ]
    pool = inputs + states
    for line in range(draw(st.integers(1, 8))):
        with ir.at(Loc("model.py", line + 1, "model")):
            if draw(st.booleans()):
                pool.append(draw(st.sampled_from(unary))(draw(st.sampled_from(pool))))
            else:
                pool.append(
                    draw(st.sampled_from(BINARY))(draw(st.sampled_from(pool)), draw(st.sampled_from(pool)))
                )
    outputs = tuple(draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3)))
    updates = tuple((i, pool[-1]) for i, w in enumerate(states) if w.type == pool[-1].type)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    graph = Graph("random", tuple(inputs), tuple(states), outputs, updates)
    return graph, [np.asarray(rng.uniform(-1.5, 1.5, node.shape)) for node in graph.inputs]
