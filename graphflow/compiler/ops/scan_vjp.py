"""The gradient of a scan: a scan the other way over the body's own gradient.

What the gradient wants from the forward loop, it asks of a scan with the same carries that emits it; passes
make one loop of the two. That is the values of carries before each step, and the body's matrix products,
which aren't computed twice. Where a constant's gradient is a sum of matrix products, one for each step, their
factors are emitted and multiplied after the loop, as one product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graphflow.compiler.ir import OPS, Graph, Node, Size, input_node, substitute, toposort
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


def _products(share: Node) -> list[_Product] | None:
    """The products of matrices that a gradient is the sum of; None if it is anything else."""
    found = []
    stack = [share]
    while stack:
        node = stack.pop()
        if node.op.name == "add" and all(i.shape == node.shape for i in node.inputs):
            stack.extend(reversed(node.inputs))
            continue
        views = []
        while node.op.name in ("permute", "reshape"):
            views.append(node)
            node = node.inputs[0]
        if node.op.name != "matmul" or len(node.shape) != 2 or any(len(i.shape) != 2 for i in node.inputs):
            return None
        left, right = node.inputs
        if _is_larger(left.shape[1], *node.shape):
            return None
        left = left.inputs[0] if left.op.name == "permute" else OPS["permute"](left, dims=(1, 0))
        found.append(_Product(left, right, tuple(reversed(views))))
    return found


def _is_larger(depth: Size, rows: Size, columns: Size) -> bool:
    """Whether a product's factors take much more memory than the product."""
    if not (isinstance(depth, int) and isinstance(rows, int) and isinstance(columns, int)):
        return False
    return depth * (rows + columns) > 8 * rows * columns


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

    # Products of the forward body come from there.
    inside = set(toposort(body.outputs))
    reached = toposort([shares[i] for i in wanted])
    saved = [n for n in reached if n in inside and n.op.kind == "contract"]
    places = {n: input_node(f"saved{k}", n.type) for k, n in enumerate(saved)}
    for i, share in zip(wanted, substitute([shares[i] for i in wanted], places), strict=True):
        shares[i] = share

    later = {i: p for i in wanted if i >= carries + sequences and (p := _products(shares[i])) is not None}
    summed = {
        i: input_node(f"sum_{args[i].attrs['name']}", args[i].type)
        for i in wanted
        if i >= carries + sequences and i not in later
    }
    elements = [i for i in wanted if carries <= i < carries + sequences]
    factors = [f for products in later.values() for p in products for f in (p.left, p.right)]
    ready = {*args[: carries + sequences], *places.values(), *(received[k] for k in sent)}
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
    for i, products in later.items():
        for product in products:
            total = _multiplied(product, stacked, length)
            cotangents[i] = total if cotangents[i] is None else cotangents[i] + total  # type: ignore[operator]
    return cotangents


def _multiplied(product: _Product, stacked: Mapping[Node, Node], length: Size) -> Node:
    """The sum over all steps of a product, as one product."""
    rows = [
        OPS["reshape"](stacked[f], shape=(length * f.shape[0], f.shape[1]))
        for f in (product.left, product.right)
    ]
    total = OPS["matmul"](OPS["permute"](rows[0], dims=(1, 0)), rows[1])
    for view in product.views:
        total = view.op(total, **view.attrs)
    return total


__all__ = ["scan_vjp"]
