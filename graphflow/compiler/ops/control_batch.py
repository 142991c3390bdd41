"""Batching of loops and branches: their sub-graphs are batched, for those arguments that are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.compiler.batching import aligned, moved, repeated
from graphflow.compiler.ir import OPS, Graph, Node, Size, toposort
from graphflow.compiler.passes.batch import Items, batch_graph
from graphflow.compiler.subgraph import inline


def _settled(
    body: Graph, size: Size, batched: Sequence[bool], carries: int
) -> tuple[Graph, list[bool], list[bool]]:
    """The body with every carry batched that has to be: which arguments are then, and which results."""
    flags = list(batched)
    while True:
        graph, results = batch_graph(body, size, flags, flags[:carries])
        if results[:carries] == flags[:carries]:
            return graph, flags, results
        flags[:carries] = results[:carries]


def _given(
    size: Size, batched: Sequence[bool], flags: Sequence[bool], operands: Sequence[Node]
) -> list[Node]:
    """The operands, repeated for the batch where a carry becomes a batch only later."""
    return [
        repeated(x, size) if flag and not b else x
        for x, b, flag in zip(operands, batched, flags, strict=True)
    ]


def _items(node: Node) -> list[Node]:
    return [OPS["project"](node, index=i) for i in range(len(node.type.items))]


def _streams(graph: Graph) -> list[bool]:
    """Which results are streams of random numbers that the graph draws from: their places after that.

    A stream belongs to the batch as a whole. It is a key of random bits that is then moved on, here or in a
    loop or branch inside.
    """
    order = toposort(graph.outputs)
    keys = _keys(order)
    found: set[Node] = set()
    inside: dict[Node, list[bool]] = {}
    for node in order:
        name, attrs = node.op.name, node.attrs
        moved_on = name == "add" and node.inputs[0] in keys
        if moved_on or (name == "maximum" and not found.isdisjoint(node.inputs)):
            found.add(node)
        elif name == "cond":
            inside[node] = _drawn_by_one(attrs["then"], attrs["otherwise"])
        elif "body" in attrs:
            inside[node] = _streams(attrs["body"])[: attrs.get("carries")]
        elif name == "project" and any(inside.get(node.inputs[0], ())[attrs["index"] :][:1]):
            found.add(node)
    return [output in found for output in graph.outputs]


def _keys(order: Sequence[Node]) -> set[Node]:
    """The nodes that say which random bits to draw, also in bodies that are operations of their own."""
    found = {node.inputs[0] for node in order if node.op.name == "random_bits"}
    for node in order:
        if "body" in node.attrs:
            body = node.attrs["body"]
            inner = _keys(toposort(body.outputs))
            found.update(x for x, arg in zip(node.inputs, body.args, strict=True) if arg in inner)
    return found


def _drawn_by_one(then: Graph, otherwise: Graph) -> list[bool]:
    return [a or b for a, b in zip(_streams(then), _streams(otherwise), strict=True)]


def scan(out: Node, size: Size, batched: Sequence[bool], /, *operands: Node, **attrs: Any) -> Items:
    """The steps stay; the batch goes behind them while the loop runs."""
    carries, sequences = attrs["carries"], attrs["sequences"]
    body, flags, results = _settled(attrs["body"], size, batched, carries)
    given = _given(size, batched, flags, operands)
    for i in range(carries, carries + sequences):
        given[i] = moved(given[i], 0, 1) if flags[i] else given[i]
    found = _items(out.op(*given, **{**attrs, "body": body}))
    for i in range(carries, len(found)):
        found[i] = moved(found[i], 1, 0) if results[i] else found[i]
    return found, results


def cond(
    out: Node, size: Size, batched: Sequence[bool], /, *operands: Node, then: Graph, otherwise: Graph
) -> Items:
    """One predicate for the whole batch still chooses a branch; a batch of predicates has both computed."""
    predicate, *rest = operands
    streams = [batched[0] and stream for stream in _drawn_by_one(then, otherwise)]
    wanted = [batched[0] and not stream for stream in streams]
    graphs = []
    for branch in (then, otherwise, then, otherwise):  # what one branch makes a batch has to be one in both
        graph, flags = batch_graph(branch, size, batched[1:], wanted)
        wanted = [a or b for a, b in zip(wanted, flags, strict=True)]
        graphs.append(graph)
    if not batched[0]:
        return _items(out.op(predicate, *rest, then=graphs[2], otherwise=graphs[3])), wanted
    found = []
    for a, b, several in zip(inline(graphs[2], rest), inline(graphs[3], rest), wanted, strict=True):
        if several:
            found.append(OPS["where"](aligned(predicate, len(a.shape) - 1), a, b))
        else:  # a stream goes on after whichever branch has drawn more
            found.append(OPS["maximum"](a, b))
    return found, wanted


def while_loop(
    out: Node,
    size: Size,
    batched: Sequence[bool],
    /,
    *operands: Node,
    condition: Graph,
    body: Graph,
    carries: int,
) -> Items:
    """Runs while one element of the batch still has to; the others then keep what they have.

    A stream of random numbers goes on with the loop, as none of its numbers may come twice.
    """
    graph, flags, results = _settled(body, size, batched, carries)
    test, (several,) = batch_graph(condition, size, flags)
    if several:
        moving = [a and not b for a, b in zip(_streams(body), flags, strict=False)]
        flags[:carries] = [not a for a in moving]
        graph, flags, results = _settled(body, size, flags, carries)
        test, _ = batch_graph(condition, size, flags)
        goes_on = inline(test, graph.args)[0]
        kept = [
            OPS["where"](aligned(goes_on, len(new.shape) - 1), new, old) if several else new
            for new, old, several in zip(graph.outputs, graph.args, results, strict=False)
        ]
        graph = Graph(graph.name, graph.args, (), tuple(kept))
        any_left = OPS["reshape"](OPS["any"](test.outputs[0], dims=(0,)), shape=())
        test = Graph(test.name, test.args, (), (any_left,))
    given = _given(size, batched, flags, operands)
    return _items(out.op(*given, condition=test, body=graph, carries=carries)), results
