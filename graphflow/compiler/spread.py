"""Operands of matrix products where a row, a column or the batch runs over several dimensions of what is in
memory: the windows of a convolution, the heads of an attention.

A reshape that merges dimensions ends what `access.resolve` can say in strides. A product that packs its
operand anyway can be told all the dimensions instead, and nobody has to write the merged array.
"""

from __future__ import annotations

import math
from collections.abc import Container
from typing import NamedTuple

from graphflow.compiler.access import is_view, normalize, splits
from graphflow.compiler.indexing import ZERO, Index, Shape, Size, flat_index, reshape_groups, reshape_index
from graphflow.compiler.ir import Node

Part = tuple[Size, Size]  # size and stride in elements


class Spread(NamedTuple):
    """Where an operand's elements are: for each of its dimensions the parts that it runs over, the last
    fastest. `reshapes` are the merging ones that were looked through.
    """

    base: Node
    offset: Size
    dims: tuple[tuple[Part, ...], ...]
    reshapes: tuple[Node, ...]

    @property
    def is_merged(self) -> bool:
        """Whether strides alone don't say it."""
        return any(len(parts) > 1 for parts in self.dims)

    def run(self, d: int) -> Size:
        """How many neighbours along a dimension are neighbours in memory, too."""
        parts = self.dims[d]
        return parts[-1][0] if parts and parts[-1][1] == 1 else 1

    def steps_within(self, limit: int) -> bool:
        """Whether neighbours along the last dimension are at most so many elements apart in memory."""
        parts = self.dims[-1]
        step = parts[-1][1] if parts else 1
        return isinstance(step, int) and abs(step) <= limit

    @property
    def overlaps(self) -> bool:
        """Whether elements of memory are in the matrix several times, half of them twice at least. Parts of
        unknown size are taken to lie side by side.
        """
        parts = [part for d in self.dims[-2:] for part in d]
        known = [(n, stride) for n, stride in parts if isinstance(n, int) and isinstance(stride, int)]
        reach = 1 + sum((size - 1) * abs(stride) for size, stride in known)
        return math.prod(size for size, _ in known) * 2 >= reach * 3

    @property
    def turned(self) -> Spread:
        """The matrix transposed."""
        return self._replace(dims=(*self.dims[:-2], self.dims[-1], self.dims[-2]))


def spread(node: Node, stored: Container[Node] = ()) -> Spread | None:
    """Walks from an operand through views to what is in memory; None where that isn't made of dimensions."""
    sizes: dict[str, Size] = {f"d{d}": size for d, size in enumerate(node.shape)}
    order: list[list[str]] = [[v] for v in sizes]
    index = normalize([Index.of(v) for v in sizes], node.shape)
    reshapes: list[Node] = []
    while is_view(node) and node not in stored:
        source = node.inputs[0]
        if node.op.name == "reshape" and splits(node):
            base = _behind(node, stored)
            if not is_view(base) or base in stored:  # row-major: any reshape of it has strides
                return _spread(base, flat_index(index, node.shape), sizes, order, reshapes)
            mapped = _split(index, source.shape, node.shape, sizes, order)
            if mapped is None:
                return None
            reshapes.append(node)
        else:
            mapped = node.op.lowering.index(index, source.shape, node.shape, **node.attrs)
        index, node = normalize(mapped, source.shape), source
    return _spread(node, flat_index(index, node.shape), sizes, order, reshapes)


def _behind(node: Node, stored: Container[Node]) -> Node:
    while node.op.name == "reshape" and node not in stored:
        node = node.inputs[0]
    return node


def _spread(
    base: Node, address: Index, sizes: dict[str, Size], order: list[list[str]], reshapes: list[Node]
) -> Spread:
    dims = tuple(tuple(_joined([(sizes[v], address.terms.get(v, 0)) for v in names])) for names in order)
    return Spread(base, address.offset, dims, tuple(reshapes))


def _split(
    index: tuple[Index, ...], source: Shape, target: Shape, sizes: dict[str, Size], order: list[list[str]]
) -> list[Index] | None:
    """The index in front of a merging reshape: a variable that runs over a merged dimension becomes one for
    each of the dimensions that were merged. None where a part of a dimension would have to be divided.
    """
    groups = reshape_groups(source, target)
    if groups is None:
        return None
    result: list[Index] = [ZERO] * len(source)
    for left, right in groups:
        wide = [d for d in left if source[d] != 1]
        merged = [d for d in right if target[d] != 1]
        if len(wide) <= 1:
            part = reshape_index(
                [index[d] for d in right], tuple(source[d] for d in left), tuple(target[d] for d in right)
            )
            if part is None:
                return None
            for d, i in zip(left, part, strict=True):
                result[d] = i
            continue
        if len(merged) != 1 or not (variable := _whole(index, merged[0], target, sizes)):
            return None
        names = [f"{variable}_{d}" for d in wide]
        for d, name in zip(wide, names, strict=True):
            sizes[name] = source[d]
            result[d] = Index.of(name)
        row = next(names_ for names_ in order if variable in names_)
        place = row.index(variable)
        row[place : place + 1] = names
    return result


def _whole(index: tuple[Index, ...], d: int, shape: Shape, sizes: dict[str, Size]) -> str | None:
    """The variable that runs over all of dimension `d`, in order, and over nothing else."""
    terms = index[d].terms
    if len(terms) != 1 or index[d].offset != 0:
        return None
    ((variable, coefficient),) = terms.items()
    if coefficient != 1 or sizes[variable] != shape[d]:
        return None
    elsewhere = any(variable in i.terms for other, i in enumerate(index) if other != d)
    return None if elsewhere else variable


def _joined(parts: list[Part]) -> list[Part]:
    """Parts with neighbours joined that one stride covers, and without those of one element."""
    result: list[Part] = []
    for size, stride in parts:
        if size == 1:
            continue
        if result and result[-1][1] == stride * size:
            result[-1] = (result[-1][0] * size, stride)
        else:
            result.append((size, stride))
    return result
