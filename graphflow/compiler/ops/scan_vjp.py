"""The gradient of a scan: a scan the other way over the body's own gradient.

What the gradient wants from the forward loop, it asks of a scan with the same carries that emits it; passes
make one loop of the two. That is the values of carries before each step, and the body's matrix products or
what became of them, which aren't computed twice. Where a constant's gradient is a sum of matrix products, one
for each step, their factors are emitted and multiplied after the loop, as one product. So is a sum of what is
emitted anyway, such as a bias's gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from graphflow import dims
from graphflow.compiler.access import is_view
from graphflow.compiler.indexing import numel
from graphflow.compiler.ir import OPS, Graph, Node, Size, input_node, substitute, toposort, users
from graphflow.compiler.passes.autodiff import zeros
from graphflow.compiler.subgraph import pull_back, used


def _project(source: Node, index: int) -> Node:
    return OPS["project"](source, index=index)


@dataclass(frozen=True)
class _Product:
    """``left.T @ right``, seen through transposes and reshapes."""

    left: Node
    right: Node
    views: tuple[Node, ...]  # from the product outwards

    @property
    def factors(self) -> tuple[Node, ...]:
        """What is wanted of every step."""
        return self.left, self.right

    def total(self, stacked: Mapping[Node, Node], length: Size) -> Node:
        """The sum over all steps, as one product."""
        left, right = (_rows(stacked[f], length) for f in self.factors)
        return _viewed(OPS["matmul"](OPS["permute"](left, dims=(1, 0)), right), self.views)


@dataclass(frozen=True)
class _Sum:
    """The sum of an array's elements along dimensions, seen through transposes and reshapes."""

    node: Node
    views: tuple[Node, ...]

    @property
    def factors(self) -> tuple[Node, ...]:
        """What is wanted of every step."""
        return self.node.inputs

    def total(self, stacked: Mapping[Node, Node], length: Size) -> Node:
        """The sum over all steps, as one sum."""
        source, dims = stacked[self.node.inputs[0]], self.node.attrs["dims"]
        if 0 in dims:
            return _viewed(OPS["sum"](_rows(source, length), dims=dims), self.views)
        total = OPS["sum"](source, dims=(0, *(d + 1 for d in dims)))
        return _viewed(OPS["reshape"](total, shape=self.node.shape), self.views)


def _rows(stacked: Node, length: Size) -> Node:
    """The values of all steps as one with more rows."""
    shape = stacked.shape[1:]
    return OPS["reshape"](stacked, shape=(length * shape[0], *shape[1:]))


def _viewed(node: Node, views: Sequence[Node]) -> Node:
    for view in views:
        node = view.op(node, **view.attrs)
    return node


def _terms(share: Node) -> list[_Product | _Sum] | None:
    """The products of matrices and the sums that a gradient is the sum of; None if it is anything else."""
    found: list[_Product | _Sum] = []
    stack = [share]
    while stack:
        node = stack.pop()
        if node.op.name == "add" and all(i.shape == node.shape for i in node.inputs):
            stack.extend(reversed(node.inputs))
            continue
        peeled = []
        while node.op.name in ("permute", "reshape"):
            peeled.append(node)
            node = node.inputs[0]
        views = tuple(reversed(peeled))
        if node.op.name == "sum":
            found.append(_Sum(node, views))
            continue
        if node.op.name != "matmul" or len(node.shape) != 2 or any(len(i.shape) != 2 for i in node.inputs):
            return None
        left, right = node.inputs
        if _is_larger(left.shape[1], *node.shape):
            return None
        left = left.inputs[0] if left.op.name == "permute" else OPS["permute"](left, dims=(1, 0))
        found.append(_Product(left, right, views))
    return found


def _is_larger(depth: Size, rows: Size, columns: Size) -> bool:
    """Whether a product's factors take much more memory than the product."""
    if not (isinstance(depth, int) and isinstance(rows, int) and isinstance(columns, int)):
        return False
    return depth * (rows + columns) > 8 * rows * columns


def _left_for_later(shares: Mapping[int, Node], stacked: Iterable[Node]) -> dict[int, list[_Product | _Sum]]:
    """The gradients to be taken after the loop, and of what.

    A sum only where its summands are `stacked` anyway, or for a product: the product's factors are smaller
    than what a product per step costs, but a sum per step costs next to nothing.
    """
    found = {i: terms for i, share in shares.items() if (terms := _terms(share)) is not None}
    products = [t for terms in found.values() for t in terms if all(isinstance(u, _Product) for u in terms)]
    known = {*stacked, *(f for term in products for f in term.factors)}
    return {
        i: terms
        for i, terms in found.items()
        if all(isinstance(t, _Product) or known.issuperset(t.factors) for t in terms)
    }


def _worth_saving(inside: Set[Node], roots: Sequence[Node]) -> list[Node]:
    """Values of the forward body that its gradient `roots` take from there instead of computing them again.

    These are its matrix products; or what the forward body makes of a product, where that takes no more
    memory and the gradient reads nothing else of it: an activation's result in place of its argument.
    """
    saved = {n for n in toposort(roots) if n in inside and n.op.kind == "contract"}
    while True:
        reached = toposort(roots, stop=saved)
        readers = users([n for n in reached if n not in saved])
        moved = False
        for node in [n for n in reached if n in saved and n not in roots]:
            after = dict.fromkeys(readers[node])
            if after and all(_takes_over(n, inside) for n in after) and _bytes(after) <= _bytes([node]):
                saved.remove(node)
                saved.update(after)
                moved = True
        if not moved:
            return _whole([n for n in reached if n in saved])


def _whole(nodes: Sequence[Node]) -> list[Node]:
    """The nodes, with what several of them are views of in their place, where it isn't larger."""
    views: dict[Node, list[Node]] = {}
    for node in nodes:
        base = node
        while is_view(base):
            base = base.inputs[0]
        views.setdefault(base, []).append(node)
    chosen = ([base] if _bytes([base]) <= _bytes(found) else found for base, found in views.items())
    return [node for group in chosen for node in group]


def _takes_over(node: Node, inside: Set[Node]) -> bool:
    return node in inside and (node.op.kind == "elementwise" or is_view(node))


def _bytes(nodes: Iterable[Node]) -> int:
    """Memory of values, symbols being taken for some usual size."""
    total: Size = 0
    for node in nodes:
        total = total + numel(node.shape) * node.dtype.itemsize
    return total if isinstance(total, int) else dims.evaluate(total, dict.fromkeys(total.symbols(), 64))


class _Forward:
    """Values of a forward loop's body at all steps, stacked: its own results where those hold them."""

    def __init__(self, out: Node, operands: Sequence[Node]):
        self.out, self.operands = out, operands
        self.body, self.carries = out.attrs["body"], out.attrs["carries"]
        self.known: dict[Node, Node] = {}

    def find(self, wanted: Sequence[Node]) -> dict[Node, Node]:
        """The stacked values of carries (before each step) and of other nodes of the body."""
        missing = []
        for node in wanted:
            carry = self.body.args.index(node) if node in self.body.args[: self.carries] else None
            at = self._emitted(node if carry is None else self.body.outputs[carry])
            if at is None:
                missing.append(node)
            elif carry is None:
                self.known[node] = _project(self.out, at)
            else:
                self.known[node] = self._shifted(_project(self.out, at), self.operands[carry])
        if missing:
            outputs = (*self.body.outputs[: self.carries], *missing)
            saving = Graph(self.body.name, self.body.args, (), outputs)
            again = OPS["scan"](*self.operands, **{**self.out.attrs, "body": saving})
            self.known.update((n, _project(again, self.carries + k)) for k, n in enumerate(missing))
        return {node: self.known[node] for node in wanted}

    def _emitted(self, node: Node) -> int | None:
        outputs = self.body.outputs
        return next((k for k in range(self.carries, len(outputs)) if outputs[k] is node), None)

    def _shifted(self, after: Node, start: Node) -> Node:
        """A carry before each step, from its values after each."""
        first = OPS["reshape"](start, shape=(1, *start.shape))
        reverse = self.out.attrs["reverse"]
        steps = OPS["cat"](after, first, dim=0) if reverse else OPS["cat"](first, after, dim=0)
        starts = (1 if reverse else 0, *(0 for _ in start.shape))
        sizes = (self.out.attrs["length"], *start.shape)
        return OPS["slice"](steps, starts=starts, steps=(1,) * len(starts), sizes=sizes)


def scan_vjp(
    g: Mapping[int, Node],
    out: Node,
    *operands: Node,
    body: Graph,
    carries: int,
    sequences: int,
    length: Size,
    reverse: bool,
) -> list[Node | None]:
    """Cotangents of the operands, given those of the results."""
    args = body.args
    flowing = [i for i in range(carries) if args[i].dtype.is_floating_point]
    sent = [k for k in range(carries, len(body.outputs)) if k in g]
    received = {k: input_node(f"g{k}", body.outputs[k].type) for k in (*flowing, *sent)}
    shares: list[Any] = pull_back(body, received)
    wanted = [i for i, share in enumerate(shares) if share is not None]

    saved = _worth_saving(set(toposort(body.outputs)), [shares[i] for i in wanted])
    places = {n: input_node(f"saved{k}", n.type) for k, n in enumerate(saved)}
    for i, share in zip(wanted, substitute([shares[i] for i in wanted], places), strict=True):
        shares[i] = share

    ready = {*args[: carries + sequences], *places.values(), *(received[k] for k in sent)}
    elements = [i for i in wanted if carries <= i < carries + sequences]
    constants = {i: shares[i] for i in wanted if i >= carries + sequences}
    later = _left_for_later(constants, {*ready, *(shares[i] for i in elements)})
    summed = {
        i: input_node(f"sum_{args[i].attrs['name']}", args[i].type) for i in constants if i not in later
    }
    factors = [f for terms in later.values() for term in terms for f in term.factors]
    emitted = list(dict.fromkeys([*(shares[i] for i in elements), *(f for f in factors if f not in ready)]))
    results = [shares[i] if shares[i] is not None else zeros(args[i].type) for i in flowing]
    results += [total + shares[i] for i, total in summed.items()]
    results += emitted

    needed = used([*args, *places.values()], [*results, *factors])
    before = [args[i] for i in needed if i < carries]
    again = [saved[i - len(args)] for i in needed if i >= len(args)]
    found = _Forward(out, operands).find([*before, *again])
    stacked = {**{a: found[a] for a in before}, **{places[n]: found[n] for n in again}}
    stacked |= {received[k]: g[k] for k in sent}
    stacked |= {args[i]: operands[i] for i in range(carries, carries + sequences) if i in needed}
    fixed = [i for i in needed if carries + sequences <= i < len(args)]
    starts = [*(received[i] for i in flowing), *summed.values()]
    inputs = (*starts, *stacked, *(args[i] for i in fixed))
    backward = OPS["scan"](
        *(g[i] if i in g else zeros(args[i].type) for i in flowing),
        *(zeros(total.type) for total in summed.values()),
        *stacked.values(),
        *(operands[i] for i in fixed),
        body=Graph(f"{body.name}_vjp", inputs, (), tuple(results)),
        carries=len(starts),
        sequences=len(stacked),
        length=length,
        reverse=not reverse,
    )
    for k, node in enumerate(emitted):
        stacked[node] = _project(backward, len(starts) + k)

    owners = [*flowing, *summed]
    cotangents: list[Node | None] = [None] * len(operands)
    for position, i in enumerate(owners):
        cotangents[i] = _project(backward, position)
    for i in elements:
        cotangents[i] = stacked[shares[i]]
    for i, terms in later.items():
        for term in terms:
            total = term.total(stacked, length)
            cotangents[i] = total if cotangents[i] is None else cotangents[i] + total  # type: ignore[operator]
    return cotangents


__all__ = ["scan_vjp"]
