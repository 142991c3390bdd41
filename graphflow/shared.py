"""Results of a compiled function that have no memory of their own.

A result that is an argument, a tensor from around the function or another result is that very object, and one
that is a view of such is a view of it, so that changes in place reach whoever they would reach without
``compile``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from graphflow.aliasing import Alias, Step, is_view, lies_in_rows
from graphflow.dims import Dim, evaluate
from graphflow.tensor import Tensor, apply


@dataclass(frozen=True)
class Shared:
    """What a result is, or is a view of by ``steps``: an argument or a result, by its number, or a tensor."""

    source: Literal["argument", "result", "tensor"]
    of: Any
    steps: tuple[Step, ...] = ()

    def view(self, owner: Tensor, sizes: Mapping[str, int]) -> Tensor:
        """The result, given what `of` is at a call with these sizes."""
        for op, attrs in self.steps:
            owner = apply(op, owner, **{name: _number(value, sizes) for name, value in attrs.items()})
        return owner


def _number(value: Any, sizes: Mapping[str, int]) -> Any:
    """An attribute without symbols."""
    if isinstance(value, tuple):
        return tuple([_number(v, sizes) for v in value])
    return evaluate(value, sizes) if isinstance(value, Dim) else value


def shared_results(
    leaves: Sequence[Any], arguments: Sequence[Tensor], grads: Collection[int], since: int
) -> dict[int, Shared]:
    """What the leaves of a traced function's result share, by position, without values of their own.

    `arguments` are their handles in the trace, which began when storages were numbered `since`. `grads` are
    the ``id()`` of gradients that were there: at the next call there may be others.
    """
    numbers = {id(handle): i for i, handle in enumerate(arguments)}
    first: dict[int, int] = {}
    for position, leaf in enumerate(leaves):
        first.setdefault(id(leaf), position)

    def place(handle: Tensor, position: int | None) -> Shared | None:
        if id(handle) in numbers:
            return Shared("argument", numbers[id(handle)])
        if handle._array is not None:
            # one that was made while tracing, of numbers, is made anew at every call
            there = handle._storage.born < since and handle._node_is_state() and id(handle) not in grads
            return Shared("tensor", handle) if there else None
        earlier = first.get(id(handle))
        return None if earlier in (None, position) else Shared("result", earlier)

    found: dict[int, Shared] = {}
    for position, leaf in enumerate(leaves):
        known = place(leaf, position) if isinstance(leaf, Tensor) else None
        if known is None and isinstance(leaf, Tensor) and leaf._alias is not None:
            owner = place(leaf._alias.owner, None)
            if owner is not None and _can_be_taken(leaf._alias, owner):
                known = Shared(owner.source, owner.of, leaf._alias.steps)
        if known is not None:
            found[position] = known
    return found


def _can_be_taken(alias: Alias, owner: Shared) -> bool:
    """Whether the steps lead to a view outside of the trace, too, wherever they would without ``compile``."""
    if not all(is_view(op) and "at" not in attrs for op, attrs in alias.steps):
        return False
    if owner.source != "result":
        return True  # whose memory is as it always is; results are in row-major order
    return alias.certain and not (alias.row_major and lies_in_rows(alias.owner) is not True)


__all__ = ["Shared", "shared_results"]
