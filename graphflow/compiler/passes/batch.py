"""Batching: what a graph computes for one element, computed for a whole batch at once.

The rules stand on the ops; this module only walks. A batched value has the batch as its first dimension. What
doesn't depend on anything batched stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphflow.compiler.batching import BY_KIND, repeated
from graphflow.compiler.ir import Graph, Node, Op, Size, TensorType, TupleType, at, input_node, toposort
from graphflow.errors import TraceError

# What a rule gives for an op with several results: those, and which of them are batches.
Items = tuple[list[Node], list[bool]]


def rule_of(op: Op) -> Callable[..., Any] | str | None:
    """How the op is batched: a rule, or the reason why it has none; None if nobody has thought of it."""
    return op.batch if op.batch is not None else BY_KIND.get(op.kind)  # type: ignore[return-value]


def batch(outputs: Sequence[Node], batched: Mapping[Node, Node], size: Size) -> tuple[list[Node], list[bool]]:
    """`outputs` with the nodes in `batched` replaced by batches of them, and which of them became batches.

    TraceError for an op that can't be batched.
    """
    found: dict[Node, Node] = dict(batched)
    flags: dict[Node, bool] = dict.fromkeys(batched, True)
    parts: dict[Node, Items] = {}
    for node in toposort(outputs, stop=set(batched)):
        if node in found:
            continue
        with at(node.loc):
            if node.op.name == "project" and node.inputs[0] in parts:
                nodes, several = parts[node.inputs[0]]
                found[node], flags[node] = nodes[node.attrs["index"]], several[node.attrs["index"]]
                continue
            operands = [found[i] for i in node.inputs]
            flags[node] = any(flags[i] for i in node.inputs)
            if not flags[node]:
                same = all(a is b for a, b in zip(operands, node.inputs, strict=True))
                found[node] = node if same else node.op(*operands, **node.attrs)
                continue
            result = _apply_rule(node, size, operands, tuple(flags[i] for i in node.inputs))
            if isinstance(result, tuple):
                parts[node] = result
                found[node] = node  # only its items are used
            else:
                found[node] = result
    return [found[o] for o in outputs], [flags[o] for o in outputs]


def _apply_rule(node: Node, size: Size, operands: Sequence[Node], flags: tuple[bool, ...]) -> Node | Items:
    rule = rule_of(node.op)
    if not callable(rule):
        where = f"\n  at {node.loc.describe()}" if node.loc else ""
        raise TraceError(f"vmap: {node.op.name} can't be batched: {rule or 'it has no rule for that'}{where}")
    result: Any = rule(node, size, flags, *operands, **node.attrs)
    has_items = isinstance(node.type, TupleType)
    types = node.type.items if has_items else (node.type,)
    made_items: Items = result if has_items else ([result], [True])
    for type_, made, is_batch in zip(types, *made_items, strict=True):
        expected = TensorType(type_.dtype, (size, *type_.shape)) if is_batch else type_
        if made.type != expected:
            raise AssertionError(f"batching {node.op.name} gave {made} where {expected} was due")
    return result  # type: ignore[no-any-return]


def batch_graph(
    graph: Graph, size: Size, batched: Sequence[bool], wanted: Sequence[bool] | None = None
) -> tuple[Graph, list[bool]]:
    """A sub-graph with some arguments batched, and which of its results then are.

    With `wanted`, those results are batches in any case; the others must not depend on one.
    """
    args = [
        input_node(a.attrs["name"], TensorType(a.dtype, (size, *a.shape)), a.loc) if b else a
        for a, b in zip(graph.args, batched, strict=True)
    ]
    mapping = {a: new for a, new, b in zip(graph.args, args, batched, strict=True) if b}
    outputs, flags = batch(graph.outputs, mapping, size)
    for i, want in enumerate(wanted or ()):
        if want and not flags[i]:
            outputs[i], flags[i] = repeated(outputs[i], size), True
    return Graph(graph.name, tuple(args), (), tuple(outputs)), flags


__all__ = ["Items", "batch", "batch_graph", "rule_of"]
