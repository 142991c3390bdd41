"""The reference evaluator: a graph run node by node with NumPy. It defines what kernels must compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphflow.compiler.ir import Graph, Node, TensorType, toposort
from graphflow.dims import Dim
from graphflow.dims import evaluate as evaluate_size
from graphflow.errors import ShapeError


@dataclass(frozen=True)
class Closure:
    """A sub-graph and the numbers that its symbolic sizes stand for; calling it evaluates it."""

    graph: Graph
    symbols: Mapping[str, int]

    def __call__(self, *arrays: Any) -> list[Any]:
        """Values of the sub-graph's outputs for its arguments' values."""
        return evaluate(self.graph.outputs, dict(zip(self.graph.args, arrays, strict=True)), self.symbols)

    def empty(self, output: int, length: int) -> np.ndarray:
        """Uninitialised room for `length` values of an output, stacked along a new leading dimension."""
        type_ = self.graph.outputs[output].type
        return np.empty((length, *concrete(type_.shape, self.symbols)), type_.dtype.numpy)


def concrete(value: Any, symbols: Mapping[str, int]) -> Any:
    """An attribute with its symbolic sizes replaced by numbers; a sub-graph becomes a function of arrays."""
    if isinstance(value, Dim):
        return evaluate_size(value, symbols)
    if isinstance(value, Graph):
        return Closure(value, symbols)
    if isinstance(value, tuple):
        return tuple(concrete(v, symbols) for v in value)
    return value


def apply(node: Node, arrays: Sequence[Any], symbols: Mapping[str, int]) -> Any:
    """One node's value from its operands' values: an array of the node's dtype, or a tuple of arrays."""
    attrs = {k: concrete(v, symbols) for k, v in node.attrs.items()}
    value = node.op.numpy(*arrays, **attrs)
    if isinstance(node.type, TensorType):
        return np.asarray(value, node.type.dtype.numpy)
    return tuple(np.asarray(v, t.dtype.numpy) for v, t in zip(value, node.type.items, strict=True))


def evaluate(
    roots: Sequence[Node],
    values: Mapping[Node, Any],
    symbols: Mapping[str, int] | None = None,
    on_node: Callable[[Node, Any], None] | None = None,
) -> list[Any]:
    """Values of `roots`, given values of some nodes (at least every input they need).

    Nodes already in `values` are not computed again. `on_node` is called with every node computed. Values
    nobody reads any more are let go.
    """
    known: dict[Node, Any] = dict(values)
    order = toposort(roots, stop=set(known))
    last = {source: node for node in order for source in node.inputs}  # who reads a value last
    kept = set(roots)
    for node in order:
        if node in known:
            continue
        known[node] = apply(node, [known[i] for i in node.inputs], symbols or {})
        if on_node:
            on_node(node, known[node])
        for source in node.inputs:
            if last[source] is node and source not in kept:
                known.pop(source, None)
    return [known[r] for r in roots]


def bind_symbols(nodes: Sequence[Node], arrays: Sequence[np.ndarray]) -> dict[str, int]:
    """Sizes of the symbols from the inputs' shapes; ShapeError when shapes disagree with the types."""
    symbols: dict[str, int] = {}
    for node, array in zip(nodes, arrays, strict=True):
        if len(node.shape) != array.ndim:
            raise ShapeError(f"{node.attrs['name']} has to be {node.type}, got shape {array.shape}")
        for size, actual in zip(node.shape, array.shape, strict=True):
            if isinstance(size, Dim) and len(size.terms) == 1 and str(size).isidentifier():
                symbols.setdefault(str(size), actual)
    for node, array in zip(nodes, arrays, strict=True):
        if tuple(concrete(node.shape, symbols)) != array.shape:
            raise ShapeError(f"{node.attrs['name']} has to be {node.type}, got shape {array.shape}")
    return symbols


def run_graph(graph: Graph, inputs: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Outputs and new states (as ``graph.updates`` orders them) for arrays in ``graph.inputs`` order."""
    symbols = bind_symbols(graph.inputs, inputs)
    values = evaluate(graph.roots, dict(zip(graph.inputs, inputs, strict=True)), symbols)
    return values[: len(graph.outputs)], values[len(graph.outputs) :]
