"""Functions inside a graph: closing nodes into sub-graphs, putting those back in line, their gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphflow import dims
from graphflow.compiler.ir import (
    OPS,
    Graph,
    Node,
    Size,
    TensorType,
    at,
    input_node,
    make_node,
    substitute,
    toposort,
)
from graphflow.compiler.passes import autodiff
from graphflow.dims import Dim


def close(
    name: str, args: Sequence[Node], outputs: Sequence[Node], draws: bool = False
) -> tuple[Graph, tuple[Node, ...]]:
    """A sub-graph computing `outputs` from `args`, and the outside nodes it reads besides them.

    What doesn't depend on `args` is computed outside, once: it becomes an argument of the sub-graph after
    `args`, in the order of the returned nodes. Expressions of constants alone stay inside, where they cost
    nothing to pass, and so do transposes and reshapes, which would be copies outside. With `draws`, so do
    random numbers: their generator's place is passed instead. What has no gradient outside has none inside;
    an alias has one, because it is made for derivatives with respect to it.
    """
    inside = set(args)
    closed: set[Node] = set()
    detached: set[Node] = set()
    captured: dict[Node, Node] = {}

    def capture(node: Node) -> None:
        while node.op.name in ("permute", "reshape"):
            node = node.inputs[0]
        if node not in inside and node not in closed and node not in captured:
            captured[node] = input_node(
                str(node.attrs.get("name", f"captured{len(captured)}")), node.type, node.loc
            )

    for node in toposort(outputs, stop=inside):
        if node in inside:
            continue
        floats = [i for i in node.inputs if autodiff.is_differentiable(i)]
        starts = node.op.name in ("input", "alias")
        if node.op.name == "detach" or (not starts and all(i in detached for i in floats)):
            detached.add(node)
        if any(i in inside for i in node.inputs) or (draws and node.op.kind == "generator" and node.inputs):
            inside.add(node)
            for source in node.inputs:
                capture(source)
        elif node.op.name != "input" and all(i in closed for i in node.inputs):
            closed.add(node)
    for node in outputs:
        capture(node)
    values = {
        node: OPS["detach"](arg) if node in detached and autodiff.is_differentiable(node) else arg
        for node, arg in captured.items()
    }
    graph = Graph(name, (*args, *captured.values()), (), tuple(substitute(outputs, values)))
    return graph, tuple(captured)


def close_branches(
    name: str, captured: Sequence[Node], branches: Sequence[Sequence[Node]]
) -> tuple[list[Graph], tuple[Node, ...]]:
    """Sub-graphs that compute `branches` from the outside nodes `captured`, and those of them that are read.

    Everything else is computed inside, also what doesn't depend on anything: only if the branch is taken.
    """
    reached = set(toposort([node for outputs in branches for node in outputs], stop=set(captured)))
    outside = tuple(node for node in captured if node in reached and node.op.name != "const")
    graphs = []
    for number, outputs in enumerate(branches):
        args = [
            input_node(str(n.attrs.get("name", f"captured{i}")), n.type, n.loc) for i, n in enumerate(outside)
        ]
        inside = substitute(outputs, dict(zip(outside, args, strict=True)))
        graphs.append(Graph(f"{name}{number}", tuple(args), (), tuple(inside)))
    return graphs, outside


def inline(graph: Graph, operands: Sequence[Node]) -> list[Node]:
    """The sub-graph's outputs with `operands` in the place of its arguments."""
    return substitute(graph.outputs, dict(zip(graph.args, operands, strict=True)))


def inline_sized(graph: Graph, operands: Sequence[Node]) -> list[Node]:
    """`inline` for a graph with symbols of its own, which take the sizes that the operands have."""
    symbols: dict[str, Size] = {}
    for arg, operand in zip(graph.args, operands, strict=True):
        for size, actual in zip(arg.shape, operand.shape, strict=True):
            if isinstance(size, Dim) and str(size).isidentifier():
                symbols.setdefault(str(size), actual)
    return _sized_outputs(graph, operands, symbols)


def _sized_outputs(graph: Graph, operands: Sequence[Node], symbols: Mapping[str, Size]) -> list[Node]:
    done = dict(zip(graph.args, operands, strict=True))
    for node in toposort(graph.outputs, stop=set(done)):
        if node not in done:
            attrs = {key: _sized(value, symbols) for key, value in node.attrs.items()}
            with at(node.loc):
                done[node] = make_node(node.op, tuple(done[i] for i in node.inputs), attrs)
    return [done[o] for o in graph.outputs]


def _sized(value: Any, symbols: Mapping[str, Size]) -> Any:
    """An attribute with sizes in place of symbols."""
    if isinstance(value, Dim):
        return dims.substitute(value, symbols)
    if isinstance(value, tuple):
        return tuple(_sized(v, symbols) for v in value)
    if isinstance(value, Graph):
        args = tuple(
            input_node(a.attrs["name"], TensorType(a.dtype, _sized(a.shape, symbols)), a.loc)
            for a in value.args
        )
        return Graph(value.name, args, (), tuple(_sized_outputs(value, args, symbols)))
    return value


def pull_back(graph: Graph, received: Mapping[int, Node]) -> list[Node | None]:
    """Cotangents of the sub-graph's arguments, given those of some of its outputs by their numbers."""
    given = [received.get(k) for k in range(len(graph.outputs))]
    return autodiff.vjp(graph.outputs, given, graph.args, watched=())


def used(graph_args: Sequence[Node], outputs: Sequence[Node]) -> list[int]:
    """Numbers of the arguments that the outputs depend on."""
    reached = set(toposort(outputs))
    return [i for i, arg in enumerate(graph_args) if arg in reached]
