"""How a consumer reaches an operand through views: to which node's memory, at which element."""

from __future__ import annotations

import functools
from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

from graphflow.compiler.indexing import ZERO, Index, Shape, flat_index, reshape_groups
from graphflow.compiler.ir import Node


class Access(NamedTuple):
    """An operand resolved: ``index`` addresses an element of ``base``.

    ``flat`` replaces it where a reshape that can't be undone dimension by dimension lies between (the base is
    contiguous then).
    """

    base: Node
    index: tuple[Index, ...]  # type: ignore[assignment]  # hides tuple's method, which nobody needs here
    flat: Index | None = None

    @property
    def address(self) -> Index:
        """Position in the base's row-major memory."""
        return self.flat if self.flat is not None else flat_index(self.index, self.base.shape)


@functools.lru_cache(1024)
def _has_ones(shape: Shape) -> bool:
    return any(size == 1 for size in shape)


def normalize(index: Sequence[Index], shape: Shape) -> tuple[Index, ...]:
    """The index with 0 in dimensions of size 1."""
    if not _has_ones(shape):
        return tuple(index)
    return tuple(ZERO if size == 1 else i for i, size in zip(index, shape, strict=True))


def broadcast_index(index: Sequence[Index], operand: Shape) -> tuple[Index, ...]:
    """The index of an elementwise operand, right-aligned; 0 where it is broadcast."""
    shift = len(index) - len(operand)
    if not shift and not _has_ones(operand):
        return tuple(index)
    return tuple(ZERO if size == 1 else index[d + shift] for d, size in enumerate(operand))


def splits(node: Node) -> bool:
    """Whether a reshape node merges source dimensions, so that its index can't be mapped without division."""
    return _merges(node.inputs[0].shape, node.shape)


@functools.lru_cache(1024)
def _merges(source: Shape, target: Shape) -> bool:
    groups = reshape_groups(source, target)
    return groups is None or any(sum(source[d] != 1 for d in left) > 1 for left, _ in groups)


def strip_reshapes(node: Node) -> Node:
    """The node behind any reshapes: the same elements in the same order."""
    while node.op.name == "reshape":
        node = node.inputs[0]
    return node


def is_view(node: Node) -> bool:
    """Whether the node only renames elements."""
    return node.op.kind in ("view", "reshape")


def picks_elements(node: Node) -> bool:
    """Whether the node is one element of each row of its operand: of a dimension, or of several."""
    if node.op.name == "gather":
        return bool(node.shape[node.attrs["dim"]] == 1)
    return node.op.name == "slice" and any(
        size == 1 != whole for size, whole in zip(node.shape, node.inputs[0].shape, strict=True)
    )


def resolve(node: Node, index: Sequence[Index], stored: Container[Node] = ()) -> Access:
    """Walks from `node` at `index` through views to the node that computes or holds the elements.

    Views in `stored` hold their elements themselves. Views behind a merging reshape must be (fusion sees to
    it).
    """
    index = normalize(index, node.shape)
    while is_view(node) and node not in stored:
        source = node.inputs[0]
        if node.op.name == "reshape" and splits(node):
            base = node
            while base.op.name == "reshape" and base not in stored:
                base = base.inputs[0]
            return Access(base, (), flat_index(index, node.shape))
        mapped = node.op.lowering.index(index, source.shape, node.shape, **node.attrs)
        index, node = normalize(mapped, source.shape), source
    return Access(node, tuple(index))


def is_total(node: Node, place: Sequence[Index], reduced: Sequence[int]) -> bool:
    """Whether a node of a row unit is a total over its rows: a reduction that stands on the row's axes."""
    return node.op.kind == "reduction" and any(f"a{a}" in i.terms for i in place for a in reduced)


def reduction_index(node: Node, place: Sequence[Index], reduced: Sequence[int]) -> tuple[Index, ...]:
    """The operand's index of a reduction that stands at `place`: the reduced axes run
    in the reduced dimensions; for a total over rows, those before them do.
    """
    source = node.inputs[0]
    dims = [d for d in node.attrs["dims"] if source.shape[d] != 1]
    over = range(min(reduced)) if is_total(node, place, reduced) else sorted(reduced)
    axes = {d: Index.of(f"a{a}") for d, a in zip(sorted(dims), over, strict=True)}
    return tuple(axes.get(d, i) for d, i in enumerate(place))


ELSEWHERE = Index.of("?")  # a place that only the running kernel knows


def operands_at(
    node: Node, place: Sequence[Index], reduced: Sequence[int] = ()
) -> Iterator[tuple[Node, tuple[Index, ...]]]:
    """What an element of `node` at `place` is made of: operands, and which of their elements."""
    kind = node.op.kind
    if kind == "elementwise":
        for operand in node.inputs:
            yield operand, broadcast_index(place, operand.shape)
    elif kind == "reduction":
        yield node.inputs[0], reduction_index(node, place, reduced)
    elif kind == "gather":
        source, positions = node.inputs
        dim = node.attrs["dim"]
        count = 1 if node.op.name == "gather" else len(positions.shape)
        yield positions, tuple(place) if node.op.name == "gather" else tuple(place[dim : dim + count])
        yield source, (*place[:dim], ELSEWHERE, *place[dim + count :])
    elif kind == "pad":
        source = node.inputs[0]
        whole = zip(node.attrs["starts"], node.attrs["steps"], source.shape, node.shape, strict=True)
        same = [start == 0 and step == 1 and size == room for start, step, size, room in whole]
        yield source, tuple(i if kept else ELSEWHERE for i, kept in zip(place, same, strict=True))
    elif is_view(node) and not (node.op.name == "reshape" and splits(node)):
        source = node.inputs[0]
        yield source, tuple(node.op.lowering.index(place, source.shape, node.shape, **node.attrs))
    else:
        for operand in node.inputs:
            yield operand, (ELSEWHERE,) * len(operand.shape)


def reads(
    node: Node,
    place: Sequence[Index],
    stored: Container[Node],
    computed: Container[Node],
    reduced: Sequence[int] = (),
) -> Iterator[Access]:
    """The elements of inputs and of `computed` nodes that an element of `node` at `place` needs.

    Looks through views and through values that are computed again wherever they are used. A view in `stored`
    that merges dimensions reads its operand by position: its access has a ``flat`` index.
    """
    if node.op.name == "reshape" and splits(node):
        yield Access(strip_reshapes(node), (), flat_index(place, node.shape))
        return
    stack = list(operands_at(node, place, reduced))
    while stack:
        operand, index = stack.pop()
        access = resolve(operand, index, stored)
        if access.base.op.kind == "input" or access.base in computed:
            yield access
        elif access.flat is not None:  # a merged view that a product looks through
            stack.append((access.base.inputs[0], (ELSEWHERE,) * len(access.base.inputs[0].shape)))
        elif access.base.op.kind != "const":
            stack.extend(operands_at(access.base, access.index))
