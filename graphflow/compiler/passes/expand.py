"""Calls and composite ops put in line: once gradients are built, what has one of its own is like all else.
Tiled ops are, too, where they are too small for tiles.
"""

from __future__ import annotations

from graphflow.compiler.ir import Graph, Node, at, make_node, toposort
from graphflow.compiler.subgraph import inline


def expand(graph: Graph) -> Graph:
    """The same function without nodes of kind ``call`` or ``composite``, in sub-graphs neither."""
    done: dict[Node, Node] = {}
    parts: dict[Node, list[Node]] = {}
    for node in toposort(graph.roots):
        inputs = tuple(done.get(i, i) for i in node.inputs)
        if node.op.kind == "call":
            body = expand(node.attrs["body"])
            parts[node] = inline(body, inputs)
            continue
        if node.op.kind == "composite":
            with at(node.loc):
                done[node] = node.op.lowering.compose(*inputs, **node.attrs)
            continue
        if node.op.kind == "tiled":
            with at(node.loc):
                written = node.op.lowering.compose(node, inputs)
            if written is not None:
                parts[node] = written
                continue
        if node.op.name == "project" and node.inputs[0] in parts:
            done[node] = parts[node.inputs[0]][node.attrs["index"]]
            continue
        attrs = {k: expand(v) if isinstance(v, Graph) else v for k, v in node.attrs.items()}
        same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
        if same and all(attrs[k] is v for k, v in node.attrs.items()):
            done[node] = node
            continue
        with at(node.loc):
            done[node] = make_node(node.op, inputs, attrs)
    roots = [done[r] for r in graph.roots]
    if all(a is b for a, b in zip(roots, graph.roots, strict=True)):
        return graph
    return graph.with_roots(roots)
