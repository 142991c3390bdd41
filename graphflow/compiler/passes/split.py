"""Splits of dimensions after elementwise work instead of before it."""

from __future__ import annotations

from graphflow.compiler.access import splits
from graphflow.compiler.indexing import Shape, Size, numel, reshape_groups
from graphflow.compiler.ir import OPS, Graph, Node
from graphflow.compiler.rewrite import RuleSet

_RULES = RuleSet()
_OBSERVED = ("alias", "detach", "once", "checked_index")  # what they do isn't in their value


def split_late(graph: Graph) -> Graph:
    """The same function with reshapes that only split dimensions put behind elementwise ops.

    What updates states stays in the shape the states have: all states are updated together.
    """
    return _RULES.apply(graph, update_nodes(graph))


def update_nodes(graph: Graph) -> set[Node]:
    """Elementwise nodes that only serve a state's new value, element by element.

    They run together for all states, as one multi-tensor update, not behind one product each.
    """
    found: set[Node] = set()
    for _, root in graph.updates:
        stack = [root]
        while stack:
            node = stack.pop()
            if (
                node not in found
                and node.op.kind == "elementwise"
                and node.shape == root.shape
                and node.shape != ()
            ):
                found.add(node)
                stack.extend(node.inputs)
    return found


@_RULES.rule()
def push_reshape_down(node: Node) -> Node | None:
    """Elementwise ops on a computed value whose dimensions were split: done before the split.

    So they can run in the kernel that makes the value: behind a convolution's matrix product, whose rows and
    columns the image's dimensions are only afterwards.
    """
    if node.op.kind != "elementwise" or node.op.name in _OBSERVED:
        return None
    split = [i for i in node.inputs if i.shape == node.shape and i.op.name == "reshape"]
    if not split or any(i.inputs[0].shape != split[0].inputs[0].shape for i in split):
        return None
    source = split[0].inputs[0]
    if splits(split[0]) or source.op.kind not in ("contract", "elementwise"):
        return None
    operands = []
    for operand in node.inputs:
        shape = _before_split(operand.shape, source.shape, node.shape)
        if operand in split:
            operands.append(operand.inputs[0])
        elif operand.shape == node.shape or shape is None:
            return None
        else:
            operands.append(operand if operand.shape == shape else OPS["reshape"](operand, shape=shape))
    return OPS["reshape"](node.op(*operands, **node.attrs), shape=node.shape)


def _before_split(operand: Shape, source: Shape, target: Shape) -> Shape | None:
    """The shape in which an operand that broadcasts to `target` broadcasts to `source`, if there is one."""
    if numel(operand) == 1:
        return ()
    groups = reshape_groups(source, target)
    aligned = (1,) * (len(target) - len(operand)) + tuple(operand)
    result: list[Size] = [1] * len(source)
    for left, right in groups or ():
        wide = [d for d in right if target[d] != 1]
        if all(aligned[d] == 1 for d in wide):
            continue
        whole = [d for d in left if source[d] != 1]
        if any(aligned[d] != target[d] for d in wide) or len(whole) != 1:
            return None
        result[whole[0]] = source[whole[0]]
    return tuple(result) if groups is not None else None
