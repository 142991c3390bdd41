"""Slices whose bounds hold for some values of the symbols only: what has to be checked before a graph runs.

Type rules check bounds that are numbers. With symbolic sizes, ``x[5:8]`` is sound or not as the batch has it;
machine code doesn't look, so whoever runs it asks here what to look at, for every choice of symbols.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from graphflow.compiler.ir import Graph, Node
from graphflow.compiler.location import Loc
from graphflow.dims import Choice, Dim, FloorDiv, evaluate
from graphflow.errors import ShapeError

Size = int | Dim


@dataclass(frozen=True)
class Bound:
    """If `count` elements are read at all, `first` and `last` have to lie in ``[0, size)``.

    `name` is the op's, `loc` the user's line.
    """

    first: Size
    last: Size
    count: Size
    size: Size
    name: str
    loc: Loc | None

    def check(self, symbols: Mapping[str, int]) -> None:
        """ShapeError naming the op and the user's line when the bound doesn't hold."""
        first, last, count, size = (
            evaluate(v, symbols) for v in (self.first, self.last, self.count, self.size)
        )
        if count < 0 or (count > 0 and not (0 <= first < size and 0 <= last < size)):
            where = f"\n  at {self.loc.describe()}" if self.loc else ""
            raise ShapeError(
                f"{self.name}: {count} elements from {first} to {last} don't fit a dimension of size "
                f"{size} ({', '.join(f'{k} = {v}' for k, v in symbols.items())}){where}"
            )


def unproved(graph: Graph) -> tuple[Bound, ...]:
    """The bounds of the graph, and of sub-graphs inside, that don't hold for every value of the symbols."""
    found: dict[tuple[Size, Size, Size, Size], Bound] = {}
    for node in graph.nodes():
        for value in node.attrs.values():
            if isinstance(value, Graph):
                found.update({(b.first, b.last, b.count, b.size): b for b in unproved(value)})
        if node.op.name == "slide":
            for bound in _windows(node):
                found.setdefault((bound.first, bound.last, bound.count, bound.size), bound)
        if node.op.name not in ("slice", "pad"):
            continue
        whole, part = (node.inputs[0], node) if node.op.name == "slice" else (node, node.inputs[0])
        for size, first, step, count in zip(
            whole.shape, node.attrs["starts"], node.attrs["steps"], part.shape, strict=True
        ):
            last = first + (count - 1) * step
            low, high = (first, last) if step > 0 else (last, first)
            if count == 0 or (is_natural(low) and is_natural(size - 1 - high) and is_natural(count)):
                continue
            bound = Bound(first, last, count, size, node.op.name, node.loc)
            found.setdefault((first, last, count, size), bound)
    return tuple(found.values())


def _windows(node: Node) -> Iterator[Bound]:
    """At least one window has to fit."""
    shape = node.inputs[0].shape
    for d, k, dilation in zip(node.attrs["dims"], node.attrs["taps"], node.attrs["dilations"], strict=True):
        last = (shape[k] - 1) * dilation
        if not is_natural(shape[d] - 1 - last):
            yield Bound(0, last, 1, shape[d], node.op.name, node.loc)


def is_natural(size: Size) -> bool:
    """Whether the size is known not to be negative whatever its symbols are; a symbol itself never is."""
    if isinstance(size, int):
        return size >= 0
    return all(
        coefficient >= 0 and all(isinstance(atom, str) or _is_natural_atom(atom) for atom in monomial)
        for monomial, coefficient in size.terms.items()
    )


def _is_natural_atom(atom: FloorDiv | Choice) -> bool:
    if isinstance(atom, FloorDiv):
        return is_natural(atom.numerator)
    return is_natural(atom.then) and is_natural(atom.otherwise)
