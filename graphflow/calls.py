"""Compiled functions inside eager differentiation: one call is one operation, whose gradient is another
compiled call.

The gradient's graph computes the forward pass again from the inputs; nothing is kept between the two calls.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np

from graphflow.compiler.ir import (
    OPS,
    Graph,
    Node,
    Op,
    TensorType,
    TupleType,
    constant,
    input_node,
    unshared_node,
)
from graphflow.compiler.passes.autodiff import is_differentiable, vjp
from graphflow.compiler.subgraph import inline_sized
from graphflow.dims import Dim, substitute
from graphflow.engine import Engine

_OPS: WeakKeyDictionary[Graph, Op] = WeakKeyDictionary()


Renewed = Sequence[tuple[int, Node]]


def call_op(graph: Graph, renewed: Renewed = ()) -> Op:
    """The operation that runs `graph`: operands are its arguments and states, the result is a tuple.

    `renewed` are states, by their numbers, whose new values have their share of the gradient, too.
    """
    op = _OPS.get(graph)
    if op is None:
        first = len(graph.args)
        renewed = [(first + number, node) for number, node in renewed]
        op = _OPS[graph] = _make(Graph(graph.name, graph.inputs, (), graph.outputs), renewed)
    return op


def _make(graph: Graph, renewed: Renewed) -> Op:
    engines: list[Engine] = []
    gradients: list[tuple[Graph, list[int], list[int]]] = []

    def infer(*types: TensorType) -> TupleType:
        symbols: dict[str, int | Dim] = {}
        for node, type_ in zip(graph.args, types, strict=True):
            for size, actual in zip(node.shape, type_.shape, strict=True):
                if isinstance(size, Dim) and str(size).isidentifier():
                    symbols.setdefault(str(size), actual)
        return TupleType(
            tuple(TensorType(o.dtype, tuple(substitute(s, symbols) for s in o.shape)) for o in graph.outputs)
        )

    def run(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
        if not engines:
            engines.append(Engine(graph))
        return tuple(engines[0].call(arrays, ()))

    def gradient(g: dict[int, Node], out: Node, *inputs: Node) -> Sequence[Node | None]:
        if not gradients:
            gradients.append(_gradient(graph, renewed))
        backward, outputs, wanted = gradients[0]
        cotangents = [g[i] if i in g else _zeros(out.type.items[i]) for i in outputs]
        node = called(backward, [*cotangents, *inputs])
        shares: list[Node | None] = [None] * len(inputs)
        for position, number in enumerate(wanted):
            shares[number] = project(node, position)
        return shares

    return Op(
        graph.name, "control", infer, run, gradient, lambda rng: [],
        lowering=functools.partial(inline_sized, graph), arity=len(graph.args),
    )  # fmt: skip


def _zeros(type_: TensorType) -> Node:
    return OPS["expand"](constant(0.0, type_.dtype), shape=type_.shape)


def _gradient(graph: Graph, renewed: Renewed) -> tuple[Graph, list[int], list[int]]:
    """The graph of the gradient, which outputs it takes cotangents of, and which inputs
    it gives cotangents for.
    """
    outputs = [i for i, o in enumerate(graph.outputs) if is_differentiable(o)]
    seeds = [input_node(f"g{i}", graph.outputs[i].type) for i in outputs]
    nodes = [*graph.args, *(node for _, node in renewed)]
    found = vjp([graph.outputs[i] for i in outputs], list(seeds), nodes, watched=())
    grads = found[: len(graph.args)]
    for (number, _), share in zip(renewed, found[len(graph.args) :], strict=True):
        known = grads[number]
        grads[number] = share if known is None else known if share is None else known + share
    wanted = [i for i, g in enumerate(grads) if g is not None]
    results = tuple(g for g in grads if g is not None)
    return Graph(f"{graph.name}_backward", (*seeds, *graph.args), (), results), outputs, wanted


def called(graph: Graph, operands: Sequence[Node], renewed: Renewed = ()) -> Node:
    """One call of a compiled graph: an event, whose results are its own.

    Never shared: different functions may have the same name and the same operands.
    """
    return unshared_node(call_op(graph, renewed), tuple(operands), {})


def project(call: Node, index: int) -> Node:
    """One result of a call."""
    return unshared_node(OPS["project"], (call,), {"index": index})


__all__ = ["called", "project"]
