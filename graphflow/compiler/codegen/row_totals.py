"""Totals over all rows of a row kernel: the gradients of a layer norm's weight and bias, say.

Threads share chunks of rows. Every chunk adds its rows up in memory of its own, a row at a time, while their
values are at hand; a second kernel adds up what the chunks leave, in order. How many rows a chunk has depends
on sizes alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.compiler.access import reduction_index
from graphflow.compiler.codegen.columns import join, left_by_chunks
from graphflow.compiler.codegen.kernel import Loops, Size
from graphflow.compiler.codegen.loops import Writer, combine, indent
from graphflow.compiler.codegen.scalar import literal
from graphflow.compiler.indexing import flat_index, numel
from graphflow.compiler.ir import Node

SHARE = 16384  # elements of the rows that make a chunk
FEWEST, MOST = 8, 32  # rows of a chunk


def rows_of_chunk(rows: Size, width: Size) -> int:
    """How many rows share a total: enough for its own traffic to be small beside theirs, and few enough for
    there to be chunks for all threads.
    """
    count = SHARE // max(width, 1) if isinstance(width, int) else FEWEST * 2
    count = min(max(count, FEWEST), MOST)
    return min(count, max(rows // FEWEST, 1)) if isinstance(rows, int) else count


class Totals:
    """The totals of one row kernel while its text is written."""

    def __init__(self, writer: Writer, nodes: Sequence[Node], rows: Size, width: Size):
        self.nodes = nodes
        self.chunks: Size = 1
        self._writer = writer
        self._rows = rows
        self._places: dict[Node, str] = {}
        if nodes:
            self._per_chunk = rows_of_chunk(rows, width)
            # one even where there are no rows: somebody has to write zeros
            self.chunks = (rows - 1) // self._per_chunk + 1 if isinstance(rows, int) and rows else 1
            if not isinstance(rows, int):
                self.chunks = rows // self._per_chunk + 1

    def add(self, node: Node) -> str:
        """The statement that adds the row's element to a total."""
        writer, place = self._writer, self._writer.plan.placement[node]
        index = reduction_index(node, place, writer.plan.reduced)
        value = writer.scalars.value(node.inputs[0], index)
        address = writer.scalars.index_text(flat_index(place, node.shape)).text
        target = f"{self._place(node)}[{address}]"
        return f"{target} = {combine(node, target, value.text)}"

    def _place(self, node: Node) -> str:
        if node not in self._places:
            self._places[node] = self._writer.scalars.fresh("d")
        return self._places[node]

    def by_chunks(self, row: Sequence[str]) -> list[str]:
        """The kernel's loops around the statements of row `r`."""
        size = self._writer.parameters.size
        lines = [
            f"first = chunk * {self._per_chunk}",
            f"last = minimum_i64(first + {self._per_chunk}, {size(self._rows)})",
        ]
        for node in self.nodes:
            lines += self._start(node)
        lines += ["for r in range(first, last):", *indent(row)]
        return ["for chunk in range(lo, hi):", *indent(lines)]

    def _start(self, node: Node) -> list[str]:
        parameters, dtype, count = self._writer.parameters, node.dtype, numel(node.shape)
        place = self._place(node)
        target = parameters.pointer(node, dtype, write=True)
        if self.chunks != 1:
            buffer = left_by_chunks(self._writer, node, self.chunks)
            left = parameters.temporary(buffer, dtype, write=True)
            where = f"{left} + chunk * {parameters.size(count)}"
            is_only = not isinstance(self.chunks, int)
            target = f"select({parameters.size(self.chunks)} == 1, {target}, {where})" if is_only else where
        clear = f"    {place}[j] = {literal(node.op.lowering.init(dtype), dtype)}"
        return [f"{place} = {target}", f"for j in range(0, {parameters.size(count)}):", clear]

    def joined(self, name: str) -> list[Loops]:
        """The kernel that adds up what the chunks leave."""
        return [join(self._writer, self.nodes, self.chunks, name)] if self.chunks != 1 else []
