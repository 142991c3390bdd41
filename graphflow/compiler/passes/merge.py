"""Loops that run over the same things with the same carries become one.

The gradient of a scan wants values from the forward loop and asks for them with a scan of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.compiler.ir import OPS, Graph, Node, at, make_node, toposort


def merge_scans(graph: Graph) -> Graph:
    """The same function with fewer loops, in sub-graphs too."""
    while True:
        merged = _merged(graph)
        if merged is graph:
            return graph
        graph = merged


def _key(node: Node) -> tuple[object, ...]:
    """What scans that can be one have in common: all but what they emit."""
    attrs, body = node.attrs, node.attrs["body"]
    common = (*node.inputs, *body.args, *body.outputs[: attrs["carries"]])
    return (*map(id, common), attrs["carries"], attrs["sequences"], attrs["length"], attrs["reverse"])


def _merged(graph: Graph) -> Graph:
    order = toposort(graph.roots)
    groups: dict[tuple[object, ...], list[Node]] = {}
    for node in order:
        if node.op.name == "scan":
            groups.setdefault(_key(node), []).append(node)
    group_of = {node: nodes for nodes in groups.values() if len(nodes) > 1 for node in nodes}
    done: dict[Node, Node] = {}
    for node in order:
        inputs = [done[i] for i in node.inputs]
        if node in group_of:
            first = group_of[node][0]
            done[node] = done[first] if first in done else _together(group_of[node], inputs)
            continue
        attrs = {k: merge_scans(v) if isinstance(v, Graph) else v for k, v in node.attrs.items()}
        if node.op.name == "project" and node.inputs[0] in group_of:
            source = node.inputs[0]
            attrs["index"] = _position(group_of[source], source, node.attrs["index"])
        same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
        if same and all(attrs[k] is v for k, v in node.attrs.items()):
            done[node] = node
        else:
            with at(node.loc):
                done[node] = make_node(node.op, tuple(inputs), attrs)
    if all(done[root] is root for root in graph.roots):
        return graph
    return graph.with_roots([done[root] for root in graph.roots])


def _emitted(nodes: Sequence[Node]) -> list[Node]:
    """What any of the scans emits, once each."""
    carries = nodes[0].attrs["carries"]
    return list(dict.fromkeys(o for node in nodes for o in node.attrs["body"].outputs[carries:]))


def _together(nodes: Sequence[Node], inputs: Sequence[Node]) -> Node:
    attrs, body = nodes[0].attrs, nodes[0].attrs["body"]
    outputs = (*body.outputs[: attrs["carries"]], *_emitted(nodes))
    with at(nodes[0].loc):
        return OPS["scan"](*inputs, **{**attrs, "body": Graph(body.name, body.args, (), outputs)})


def _position(nodes: Sequence[Node], node: Node, index: int) -> int:
    """Where a result of one of the scans is among those of all."""
    carries = node.attrs["carries"]
    if index < carries:
        return index
    return int(carries + _emitted(nodes).index(node.attrs["body"].outputs[index]))
