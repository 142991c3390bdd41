"""Reverse-mode differentiation: the gradient of a graph is more graph.

The rules stand on the ops; this module only walks. Broadcasting is undone here, once, for every rule.

The cotangent of a node with several results is a mapping from item to node that leaves out what has none:
``project`` gives such a mapping, the rules of the ops with several results receive one.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence

from graphflow.compiler.ir import OPS, Node, Shape, TensorType, TupleType, at, constant, toposort
from graphflow.compiler.passes.recognise import WrittenOut, written_out
from graphflow.errors import GradientError

Cotangent = Node | Mapping[int, Node]
Applied = Callable[[Node, Cotangent, Sequence[Cotangent | None]], None]


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
    items = node.type.items if isinstance(node.type, TupleType) else (node.type,)
    return any(item.dtype.is_floating_point for item in items)


def vjp(
    outputs: Sequence[Node],
    cotangents: Sequence[Node | None],
    wrt: Sequence[Node],
    stop: frozenset[Node] = frozenset(),
    adjust: Callable[[Node, Node], Node] | None = None,
    applied: Applied | None = None,
    watched: Container[Node] | None = None,
) -> list[Node | None]:
    """Cotangents of `wrt` given those of `outputs`; None where an output doesn't depend on a node
    differentiably.

    Every cotangent has the type of its node. Nodes in `stop` are treated as inputs: nothing behind them is
    visited. `adjust` may replace the cotangent of a node; `applied` is told of every rule: the node, its
    cotangent and its operands' shares. With `watched`, attention that is written out gets the gradient of the
    op, which passes over the nodes in between, unless one of those is watched. GradientError when the path
    runs through an op that has no gradient rule.
    """
    order, needed = _paths(outputs, wrt, stop)
    targets = set(wrt)
    whole: dict[Node, WrittenOut] = {}
    if watched is not None:
        whole = written_out(order, needed, {*outputs, *wrt, *stop}, watched)
    totals: dict[Node, list[Cotangent]] = {}
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
            if adjust is not None and not isinstance(g, Mapping):
                g = adjust(node, g)
            if node in targets:
                found[node] = g  # type: ignore[assignment]
            if node in stop or not any(i in needed for i in node.inputs):
                continue
            if node in whole:
                _push_whole(whole[node], g, needed, totals)
            else:
                _push(node, g, needed, totals, applied)
    return [found.get(node) for node in wrt]


def _paths(
    outputs: Sequence[Node], wrt: Sequence[Node], stop: frozenset[Node] = frozenset()
) -> tuple[list[Node], set[Node]]:
    """The nodes behind `outputs` in order, and those that depend on `wrt` differentiably."""
    order = toposort(outputs, stop=stop | frozenset(wrt) if _are_leaves(wrt) else stop)
    targets = set(wrt)
    needed: set[Node] = set()
    for node in order:
        passes_on = node not in stop and node.op.name != "detach" and any(i in needed for i in node.inputs)
        if is_differentiable(node) and (node in targets or passes_on):
            needed.add(node)
    return order, needed


def with_zeros(
    outputs: Sequence[Node], wrt: Sequence[Node], found: Sequence[Node | None]
) -> list[Node | None]:
    """Cotangents as `vjp` gives them, with zeros where an output depends on a node through steps alone, as
    ``floor``, whose derivative is 0 wherever there is one.
    """
    if all(g is not None for g in found):
        return list(found)
    _, needed = _paths(outputs, wrt)
    return [
        zeros(node.type) if g is None and node in needed else g for node, g in zip(wrt, found, strict=True)
    ]


def zeros(type_: TensorType) -> Node:
    """A node of zeros (False for bool)."""
    zero = constant(0, type_.dtype)
    return OPS["expand"](zero, shape=type_.shape) if type_.shape else zero


def _are_leaves(nodes: Sequence[Node]) -> bool:
    return all(not n.inputs for n in nodes)


def _push(
    node: Node,
    g: Cotangent,
    needed: set[Node],
    totals: dict[Node, list[Cotangent]],
    applied: Applied | None,
) -> None:
    """Applies the node's rule and hands each needed operand its share."""
    rule = node.op.vjp
    if rule is None:
        raise GradientError(
            f"{node.op.name} has no gradient"
            + (f"\n  at {node.loc.describe()}" if node.loc else "")
            + "\n  use "
            ".detach() on its operand if none is wanted"
        )
    shares = rule(g, node, *node.inputs, **node.attrs)
    if applied is not None:
        applied(node, g, shares)
    for operand, share in zip(node.inputs, shares, strict=True):
        if share is not None and operand in needed:
            if isinstance(operand.type, TensorType):
                share = unbroadcast(share, operand.shape)
            totals.setdefault(operand, []).append(share)


def _push_whole(
    found: WrittenOut, g: Cotangent, needed: set[Node], totals: dict[Node, list[Cotangent]]
) -> None:
    """Hands what an attention is computed from its share."""
    assert not isinstance(g, Mapping)
    sources = list(dict.fromkeys(s for s in found.sources if s in needed))
    shares = vjp([found.value], [g], sources, stop=frozenset(found.sources))
    for source, share in zip(sources, shares, strict=True):
        if share is not None:
            totals.setdefault(source, []).append(share)


def _total(terms: list[Cotangent], node: Node) -> Cotangent:
    """The sum of a node's cotangents, item by item where it has several results."""
    if not isinstance(node.type, TupleType):
        return _sum(terms)  # type: ignore[arg-type]
    items: dict[int, list[Node]] = {}
    for term in terms:
        for index, g in term.items():  # type: ignore[union-attr]
            items.setdefault(index, []).append(g)
    return {index: _sum(items[index]) for index in sorted(items)}


def _sum(terms: list[Node]) -> Node:
    """The sum as a balanced tree: accuracy, and depth log n instead of n."""
    terms = _joined(terms)
    while len(terms) > 1:
        pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[len(pairs) * 2 :]
    return terms[0]


def _joined(terms: list[Node]) -> list[Node]:
    """The terms, with cotangents of neighbouring slices put side by side, not added up among zeros."""
    along: dict[int, list[tuple[int, Node]]] = {}
    rest = []
    for term in terms:
        place = _slab(term)
        if place is None:
            rest.append(term)
        else:
            along.setdefault(place[0], []).append((place[1], term))
    for dim, slabs in along.items():
        slabs.sort(key=lambda slab: slab[0])
        run: list[Node] = []
        end = -1
        for start, slab in slabs:
            if run and start != end:
                rest.append(_side_by_side(run, dim))
                run = []
            run.append(slab)
            end = start + slab.inputs[0].shape[dim]  # type: ignore[assignment]
        rest.append(_side_by_side(run, dim))
    return rest


def _slab(term: Node) -> tuple[int, int] | None:
    """Where a padded array lies that fills its place but for one dimension: that, and its start there."""
    if term.op.name != "pad" or any(step != 1 for step in term.attrs["steps"]):
        return None
    source, starts = term.inputs[0].shape, term.attrs["starts"]
    partial = [d for d, size in enumerate(term.shape) if source[d] != size]
    if len(partial) != 1 or not isinstance(source[partial[0]], int):
        return None
    start = starts[partial[0]]
    return (partial[0], start) if isinstance(start, int) else None


def _side_by_side(slabs: Sequence[Node], dim: int) -> Node:
    """The sum of padded arrays that lie next to each other along a dimension."""
    first = slabs[0]
    if len(slabs) == 1:
        return first
    whole = OPS["cat"](*(slab.inputs[0] for slab in slabs), dim=dim)
    return whole if whole.shape == first.shape else OPS["pad"](whole, **first.attrs)
