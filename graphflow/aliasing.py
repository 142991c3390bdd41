"""Views: which memory a handle shares, or would share, so that in-place changes reach everyone who sees it.

Outside a trace the memory is there, and only histories have to follow: see `histories`. While tracing, nodes
are values and share nothing. A view's handle therefore remembers the handle that owns the memory and the
steps from there. Reading it takes the steps again when the owner has changed; writing it computes the owner's
new value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphflow.compiler.ir import OPS, Node, Op, constant, make_node
from graphflow.dtypes import bool_
from graphflow.errors import GradientError, TraceError

Step = tuple[Op, Mapping[str, Any]]

REPEATS = (
    "unsupported operation: more than one element of the written-to tensor refers to a single memory "
    "location (expand). Please clone() the tensor before performing the operation."
)


def unwritable(array: np.ndarray) -> str:
    """Why an array that can't be written can't."""
    if any(step == 0 and size > 1 for step, size in zip(array.strides, array.shape, strict=True)):
        return REPEATS
    return "this tensor's memory is read-only; .clone() it first"


@dataclass
class Alias:
    """How a handle sees another one's memory.

    `owner` is a handle without an alias of its own, `seen` the node it held when the view was last read in a
    trace. `certain` is False where it depends on strides whether the view shares memory at all, and outside a
    trace for views through which no gradient flows.
    """

    owner: Any
    steps: tuple[Step, ...]
    seen: Node | None
    certain: bool

    @property
    def detached(self) -> bool:
        """Whether gradients are cut between owner and view."""
        return any(op.name == "detach" for op, _ in self.steps)

    def require_certain(self) -> None:
        """TraceError where sharing depends on strides."""
        if not self.certain:
            raise TraceError(
                "a reshape of a transposed or sliced tensor may or may not share its memory, and one of the "
                "two is changed "
                "in place; .clone() it, or use a function instead of the in-place method"
            )


def is_view(op: Op) -> bool:
    """Whether results of `op` share their operand's memory outside a trace."""
    return op.kind in ("view", "reshape") or op.name in ("detach", "alias")


def extended(
    outer: Alias | None, owner: Any, seen: Node, op: Op, attrs: Mapping[str, Any], node: Node
) -> Alias:
    """The alias of ``op(view)``, where `outer` is that of the view (None for the owner itself)."""
    steps = outer.steps if outer is not None else ()
    certain = outer.certain if outer is not None else True
    if op.kind == "reshape" and certain:
        source = node.inputs[0].shape
        only_ones = [s for s in source if s != 1] == [s for s in node.shape if s != 1]
        certain = only_ones or all(o.kind not in ("view",) for o, _ in steps)
    return Alias(owner, (*steps, (op, attrs)), seen, certain)


def replay(node: Node, steps: tuple[Step, ...]) -> Node:
    """The view of `node` that the steps lead to."""
    for op, attrs in steps:
        node = make_node(op, (node,), dict(attrs))
    return node


def written_through(node: Node, steps: tuple[Step, ...], value: Node) -> Node:
    """`node` with the part that the steps lead to replaced by `value`."""
    if not steps:
        return value
    (op, attrs), rest = steps[0], steps[1:]
    if rest:
        value = written_through(make_node(op, (node,), dict(attrs)), rest, value)
    if op.name == "permute":
        dims = attrs["dims"]
        return OPS["permute"](value, dims=tuple(dims.index(d) for d in range(len(dims))))
    if op.kind == "reshape":
        return OPS["reshape"](value, shape=node.shape)
    if op.name == "slice":
        placed = {"shape": node.shape, "starts": attrs["starts"], "steps": attrs["steps"]}
        everywhere = OPS["expand"](constant(True, bool_), shape=value.shape)
        return OPS["where"](OPS["pad"](everywhere, **placed), OPS["pad"](value, **placed), node)
    if op.name == "slide":
        sizes = tuple(node.shape[d] for d in attrs["dims"])
        everywhere = OPS["expand"](constant(True, bool_), shape=value.shape)
        hit, changed = (OPS["unslide"](v, sizes=sizes, **attrs) for v in (everywhere, value))
        return OPS["where"](hit, changed, node)
    if op.name in ("detach", "alias"):
        return value
    raise GradientError(REPEATS)
