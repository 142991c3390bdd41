"""Reverse-mode differentiation: the gradient of a graph is more graph.

The rules stand on the ops; this module only walks. Broadcasting is undone here, once, for every rule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphflow.compiler.ir import OPS, Node, Shape, TensorType, at, toposort
from graphflow.errors import GradientError


def unbroadcast(g: Node, shape: Shape) -> Node:
    """The cotangent of an operand of `shape` that was broadcast to g's shape: sums over what was repeated."""
    if g.shape == shape:
        return g
    shift = len(g.shape) - len(shape)
    dims = tuple(d for d in range(len(g.shape)) if d < shift or (shape[d - shift] == 1 and g.shape[d] != 1))
    if dims:
        g = OPS["sum"](g, dims=dims)
    if shift > 0:
        g = OPS["reshape"](g, shape=g.shape[shift:])
    # A rule may give a cotangent that is constant along a dimension, with size 1 there: sum's does.
    return g if g.shape == shape else OPS["expand"](g, shape=shape)


def is_differentiable(node: Node) -> bool:
    """Whether the node's value can carry a gradient at all."""
    return not isinstance(node.type, TensorType) or node.type.dtype.is_floating_point


def vjp(
    outputs: Sequence[Node],
    cotangents: Sequence[Node | None],
    wrt: Sequence[Node],
    stop: frozenset[Node] = frozenset(),
) -> list[Node | None]:
    """Cotangents of `wrt` given those of `outputs`; None where an output doesn't depend on a node differentiably.

    Every cotangent has the type of its node. Nodes in `stop` are treated as inputs: nothing behind them is visited.
    GradientError when the path runs through an op that has no gradient rule.
    """
    order = toposort(outputs, stop=stop | frozenset(wrt) if _are_leaves(wrt) else stop)
    targets = set(wrt)
    needed: set[Node] = set()
    for node in order:
        if node in targets or (node not in stop and any(i in needed for i in node.inputs)):
            if is_differentiable(node) and node.op.name != "detach":
                needed.add(node)
            elif node in targets:
                needed.add(node)
    totals: dict[Node, list[Node]] = {}
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is not None and output in needed:
            totals.setdefault(output, []).append(cotangent)
    found: dict[Node, Node] = {}
    for node in reversed(order):
        terms = totals.pop(node, None)
        if not terms or node not in needed:
            continue
        with at(node.loc):
            g = _total(terms, node)
            if node in targets:
                found[node] = g
            if node in stop or not any(i in needed for i in node.inputs):
                continue
            _push(node, g, needed, totals)
    return [found.get(node) for node in wrt]


def _are_leaves(nodes: Sequence[Node]) -> bool:
    return all(not n.inputs for n in nodes)


def _push(node: Node, g: Node, needed: set[Node], totals: dict[Node, list[Node]]) -> None:
    """Applies the node's rule and hands each needed operand its share."""
    rule = node.op.vjp
    if rule is None:
        raise GradientError(
            f"{node.op.name} has no gradient" + (f"\n  at {node.loc.describe()}" if node.loc else "") + "\n  use "
            ".detach() on its operand if none is wanted"
        )
    shares = rule(g, node, *node.inputs, **node.attrs)
    for operand, share in zip(node.inputs, shares, strict=True):
        if share is not None and operand in needed:
            if isinstance(operand.type, TensorType):
                share = unbroadcast(share, operand.shape)
            totals.setdefault(operand, []).append(share)


def _total(terms: list[Node], node: Node) -> Node:
    """The sum of a node's cotangents, as a balanced tree: accuracy, and depth log n instead of n."""
    add: Callable[[Node, Node], Node] = OPS["add"] if isinstance(node.type, TensorType) else OPS["tuple_add"]
    while len(terms) > 1:
        pairs = [add(a, b) for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[len(pairs) * 2 :]
    return terms[0]
