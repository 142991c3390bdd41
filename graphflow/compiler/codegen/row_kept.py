"""What a row kernel keeps of its row between passes, in scratch memory, instead of computing it again."""

from __future__ import annotations

from collections.abc import Mapping, Set

from graphflow.compiler.access import is_total, is_view, normalize
from graphflow.compiler.codegen.kernel import Size, suffix
from graphflow.compiler.codegen.loops import Loop, Plan, Writer
from graphflow.compiler.codegen.scalar import INNER, PROLOGUE, Value
from graphflow.compiler.ir import Node
from graphflow.dims import ceil_div

DEAR = 10  # instructions of an operation whose value is always kept
LABOUR = 5  # instructions and loads behind a value that is kept where there is room
ROOM = 12288  # bytes of such rows: what is read and written needs the first-level cache, too
LEAST = 256  # bytes of a row: shorter ones stay in registers
INDIRECT = 4  # instructions that find an element which isn't simply the next one


def is_full(plan: Plan, node: Node) -> bool:
    """Whether the node has a value for every element of the row."""
    reduced = {f"a{a}" for a in plan.reduced}
    return any(v in reduced for i in plan.placement[node] for v in i.terms)


def folds_row(plan: Plan, node: Node) -> bool:
    """Whether the node is a reduction of each row."""
    return node.op.kind == "reduction" and not is_total(node, plan.placement[node], plan.reduced)


class Kept:
    """The kept values while a kernel's text is written."""

    def __init__(self, writer: Writer, inner: list[Loop], level: Mapping[Node, int]):
        self.writer = writer
        self.inner = inner
        self.bytes: Size = 0
        self.slots: dict[Node, tuple[str, int]] = {}
        if len(inner) != 1:
            return
        for node, first in worth_keeping(writer.plan, writer.memory.stored, level, inner[0].size).items():
            start = writer.parameters.size(self.bytes)
            self.bytes = self.bytes + _row_bytes(node, inner[0].size)
            self.slots[node] = (f"ptr_{suffix(node.dtype)}(scratch + {start})", first)

    def offer(self, phase: int) -> None:
        """Makes what earlier passes kept known to this one."""
        scalars = self.writer.scalars
        for node, (text, first) in self.slots.items():
            if phase > first:
                pointer = scalars.let(text, PROLOGUE, "row")
                key = (node, normalize(self.writer.plan.placement[node], node.shape))
                scalars.given[key] = Value(f"{pointer.text}[{self.inner[0].variable}]", INNER)

    def statements(self, phase: int) -> list[str]:
        """Stores of what this pass keeps for later ones."""
        scalars = self.writer.scalars
        lines = []
        for node, (text, first) in self.slots.items():
            if phase == first:
                value = self.writer.element(node)
                pointer = scalars.let(text, PROLOGUE, "row")
                lines.append(f"{pointer.text}[{self.inner[0].variable}] = {value.text}")
        return lines


def _row_bytes(node: Node, width: Size) -> Size:
    return ceil_div(width * node.dtype.itemsize, 64) * 64


def worth_keeping(plan: Plan, stored: Set[Node], level: Mapping[Node, int], width: Size) -> dict[Node, int]:
    """Values that several passes need and that are kept, each with the pass that makes it.

    Results of dear operations always are. Of a chain of cheap ones it is the last that several passes need,
    where many instructions lead to it and rows are short.
    """
    readers = _readers(plan, stored)
    passes: dict[Node, set[int]] = {}
    kept: dict[Node, int] = {}
    room = ROOM
    for node in reversed(plan.nodes):
        if not is_full(plan, node):
            continue
        found = {level[node]} if node in plan.outputs else set()
        for reader in readers.get(node, ()):
            if reader.op.kind == "reduction":
                found.add(level[reader] - folds_row(plan, reader))
            elif reader in kept:
                found.add(kept[reader])
            else:
                found |= passes.get(reader, set())
        passes[node] = found
        if node.op.kind != "elementwise" or len(found) < 2:
            continue
        size = _row_bytes(node, width)
        fits = isinstance(size, int) and LEAST <= size <= room
        if node.op.lowering.cost >= DEAR or (fits and _labour(node, plan, stored) >= LABOUR):
            kept[node] = min(found)
            room -= size if isinstance(size, int) else 0
    return {node: kept[node] for node in plan.nodes if node in kept}


def _readers(plan: Plan, stored: Set[Node]) -> dict[Node, list[Node]]:
    """The unit's nodes that read each of its nodes, also through views and values computed again."""
    mine = set(plan.nodes)
    readers: dict[Node, list[Node]] = {}
    for node in plan.nodes:
        stack = list(node.inputs)
        while stack:
            source = stack.pop()
            if source in mine:
                readers.setdefault(source, []).append(node)
            elif source not in stored:
                stack.extend(source.inputs)
    return readers


def _labour(node: Node, plan: Plan, stored: Set[Node]) -> int:
    """Instructions and loads that lead to an element of the row; what is kept anyway is one load."""
    mine = set(plan.nodes)
    total, stack, seen = 0, [node], {node}
    while stack:
        current = stack.pop()
        if current.op.kind == "const" or (current in mine and not is_full(plan, current)):
            continue
        if current.op.kind == "input" or (current in stored and current not in mine):
            total += bool(current.shape) and current.shape[-1] != 1
            continue
        if current is not node and current.op.kind == "elementwise" and current.op.lowering.cost >= DEAR:
            total += 1
            continue
        if current.op.kind == "elementwise":
            total += current.op.lowering.cost
        elif not is_view(current):
            total += INDIRECT
        for source in current.inputs:
            if source not in seen:
                seen.add(source)
                stack.append(source)
    return total
