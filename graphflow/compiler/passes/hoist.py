"""Matrix products that a loop's steps don't wait for are computed for all of them at once, before the loop.

So ``x @ w`` for every element of a sequence is one product, whose rows are those of all steps; only what
takes the carries stays inside. A row of a product has the same bits however many there are.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphflow import dims
from graphflow.compiler.access import is_view
from graphflow.compiler.indexing import numel
from graphflow.compiler.ir import OPS, Graph, Node, Size, input_node, substitute, toposort
from graphflow.compiler.passes.batch import batch, rule_of

#: How much larger than the elements that it is made of a value may be, as it is kept for all steps.
LARGEST = 16


def hoist_products(node: Node) -> Node | None:
    """A scan that takes as a sequence what products in its body make of sequences alone."""
    body, carries, sequences = node.attrs["body"], node.attrs["carries"], node.attrs["sequences"]
    first = carries + sequences
    elements = dict(zip(body.args[carries:first], node.inputs[carries:first], strict=True))
    moved = _movable(body, carries, elements.keys())
    if not moved:
        return None
    fixed = dict(zip(body.args[first:], node.inputs[first:], strict=True))
    made, _ = batch(substitute(moved, fixed), elements, node.attrs["length"])
    new = {n: input_node(f"product{i}", n.type, n.loc) for i, n in enumerate(moved)}
    outputs = substitute(body.outputs, new)
    reached = set(toposort(outputs))
    kept = [(arg, whole) for arg, whole in elements.items() if arg in reached]
    kept += zip(new.values(), made, strict=True)
    args = (*body.args[:carries], *(arg for arg, _ in kept), *fixed)
    return OPS["scan"](
        *node.inputs[:carries],
        *(whole for _, whole in kept),
        *fixed.values(),
        **{**node.attrs, "body": Graph(body.name, args, (), tuple(outputs)), "sequences": len(kept)},
    )


def read_sequence(node: Node) -> Node | None:
    """What a scan emits of a sequence as it is, is the sequence."""
    loop, index = node.inputs[0], node.attrs["index"]
    if loop.op.name != "scan":
        return None
    body, carries, sequences = (loop.attrs[key] for key in ("body", "carries", "sequences"))
    for arg, whole in zip(body.args[carries:], loop.inputs[carries : carries + sequences], strict=False):
        if index >= carries and body.outputs[index] is arg:
            return whole
    return None


def _movable(body: Graph, carries: int, elements: Iterable[Node]) -> list[Node]:
    """Products in the body that depend on elements of sequences and on no carry, and that more than others of
    them need.
    """
    parts = {arg: {arg} for arg in elements}  # the elements that a value is made of
    free = set(body.args[carries:])
    for node in toposort(body.outputs):
        if node.op.kind != "const" and not (node.inputs and _is_alike(node) and free.issuperset(node.inputs)):
            continue
        made_of = {part for i in node.inputs for part in parts.get(i, ())}
        if is_view(node) or not made_of or _bytes([node]) <= LARGEST * _bytes(made_of):
            free.add(node)
            parts[node] = made_of
    products = {n for n in free if n.op.kind == "contract" and parts[n]}
    return [n for n in toposort(body.outputs, stop=products) if n in products]


def _is_alike(node: Node) -> bool:
    """Whether the op does for all steps what it does for each; what can fail or has to wait stays."""
    return (
        (node.op.kind in ("elementwise", "contract") or is_view(node))
        and node.op.name not in ("checked_index", "barrier")
        and callable(rule_of(node.op))
    )


def _bytes(nodes: Iterable[Node]) -> int:
    """Memory of values, symbols being taken for some usual size."""
    total: Size = 0
    for node in nodes:
        total = total + numel(node.shape) * node.dtype.itemsize
    return total if isinstance(total, int) else dims.evaluate(total, dict.fromkeys(total.symbols(), 64))


__all__ = ["hoist_products", "read_sequence"]
