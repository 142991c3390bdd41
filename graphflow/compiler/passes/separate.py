"""Storage of its own for what has to have one: results of a graph, and what loops start from."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from graphflow.compiler.access import strip_reshapes
from graphflow.compiler.ir import OPS, Graph, Node, at, make_node, toposort


def separate(graph: Graph) -> Graph:
    """The graph with a storage of its own for every root and every carry of a loop.

    None of those is an input or a constant, and no other operand of a loop, branch, routine or tiled op is a
    constant.
    """
    uids = count(-1, -1)
    return _separate_operands(_separate_roots(graph, uids), uids)


def _separate_roots(graph: Graph, uids: Iterator[int]) -> Graph:
    taken: set[Node] = set()
    roots = []
    for root in graph.roots:
        uid = next(uids)
        base = strip_reshapes(root)
        if base in taken or base.op.kind in ("input", "const"):
            with at(root.loc):
                base = root = OPS["alias"](root, uid=uid)
        taken.add(base)
        roots.append(root)
    return graph.with_roots(roots)


def _separate_operands(graph: Graph, uids: Iterator[int]) -> Graph:
    done: dict[Node, Node] = {}
    for node in toposort(graph.roots):
        inputs = [done[i] for i in node.inputs]
        if node.op.kind in ("control", "routine", "tiled"):
            carries = node.attrs.get("carries", 0)  # the loop overwrites the memory that these start in
            for position, operand in enumerate(inputs):
                if position < carries or strip_reshapes(operand).op.kind == "const":
                    with at(node.loc):
                        inputs[position] = OPS["alias"](operand, uid=next(uids))
        if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
            done[node] = node
        else:
            with at(node.loc):
                done[node] = make_node(node.op, tuple(inputs), dict(node.attrs))
    return graph.with_roots([done[root] for root in graph.roots])
