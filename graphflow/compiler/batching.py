"""What batching rules are made of: the same op over one more dimension, which leads wherever it is.

A rule gets the node it is for (``out``, with the shapes one element of the batch has), the batch's size,
which operands are batched, and the operands; a batched one has the batch as its first dimension, the others
are as they were. The result has the batch first, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.compiler.ir import OPS, Node, Size, TupleType


def aligned(x: Node, ndim: int) -> Node:
    """A batched operand with dimensions of size 1 behind the batch, so that an element has `ndim`."""
    size, *shape = x.shape
    missing = ndim - len(shape)
    return OPS["reshape"](x, shape=(size, *(1,) * missing, *shape)) if missing > 0 else x


def repeated(x: Node, size: Size) -> Node:
    """An operand that isn't batched, the same for every element of the batch; takes no memory."""
    return OPS["expand"](x, shape=(size, *x.shape))


def all_batched(size: Size, batched: Sequence[bool], operands: Sequence[Node]) -> list[Node]:
    """The operands with a batch dimension each."""
    return [x if b else repeated(x, size) for x, b in zip(operands, batched, strict=True)]


def moved(x: Node, source: int, target: int) -> Node:
    """`x` with one dimension in another place."""
    order = [d for d in range(len(x.shape)) if d != source]
    order.insert(target, source)
    return x if source == target else OPS["permute"](x, dims=tuple(order))


def elementwise(out: Node, size: Size, batched: Sequence[bool], /, *operands: Node, **attrs: Any) -> Node:
    """Broadcasting aligns shapes at their ends, so the batch is put before the longest."""
    ndim = len(out.shape)
    return out.op(*(aligned(x, ndim) if b else x for x, b in zip(operands, batched, strict=True)), **attrs)


def reduction(out: Node, size: Size, batched: Sequence[bool], x: Node, dims: tuple[int, ...]) -> Node:
    """The same dimensions, counted from behind the batch."""
    return out.op(x, dims=tuple(d + 1 for d in dims))


def along_dim(
    out: Node, size: Size, batched: Sequence[bool], /, *operands: Node, dim: int, **attrs: Any
) -> Node:
    """For ops on tensors of the same shape but along `dim`."""
    return out.op(*all_batched(size, batched, operands), dim=dim + 1, **attrs)


def routine(out: Node, size: Size, batched: Sequence[bool], /, *operands: Node, **attrs: Any) -> Any:
    """Routines run over all leading dimensions anyway."""
    made = out.op(*all_batched(size, batched, operands), **attrs)
    if not isinstance(out.type, TupleType):
        return made
    count = len(out.type.items)
    return [OPS["project"](made, index=i) for i in range(count)], [True] * count


# What ops of a kind have unless they say otherwise.
BY_KIND = {"elementwise": elementwise, "reduction": reduction, "routine": routine}
