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

from graphflow.compiler.ir import OPS, Node, Op, Shape, Size, constant, make_node
from graphflow.compiler.trace import current_trace
from graphflow.dtypes import bool_
from graphflow.errors import GradientError, TraceError

Step = tuple[Op, Mapping[str, Any]]

REPEATS = (
    "unsupported operation: more than one element of the written-to tensor refers to a single memory "
    "location (expand). Please clone() the tensor before performing the operation."
)


UNCERTAIN = (
    "a reshape of a transposed or sliced tensor may or may not share its memory, and one of the two is "
    "changed in place; .clone() it, or use a function instead of the in-place method"
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
    trace for views through which no gradient flows. `row_major` says that it shares memory only if the
    owner's elements lie in row-major order.
    """

    owner: Any
    steps: tuple[Step, ...]
    seen: Node | None
    certain: bool
    row_major: bool = False

    @property
    def detached(self) -> bool:
        """Whether gradients are cut between owner and view."""
        return any(op.name == "detach" for op, _ in self.steps)

    @property
    def is_same(self) -> bool:
        """Whether the view has every element of its owner, in its place."""
        return all(op.name == "detach" for op, _ in self.steps)

    def require_certain(self) -> None:
        """TraceError where sharing depends on strides."""
        if self.row_major:
            self.row_major = False
            self.certain = self.certain and bool(lies_in_rows(self.owner))
        if not self.certain:
            raise TraceError(UNCERTAIN)


def is_view(op: Op) -> bool:
    """Whether results of `op` share their operand's memory outside a trace."""
    return op.kind in ("view", "reshape") or op.name in ("detach", "alias")


def extended(
    outer: Alias | None, owner: Any, seen: Node, op: Op, attrs: Mapping[str, Any], node: Node
) -> Alias:
    """The alias of ``op(view)``, where `outer` is that of the view (None for the owner itself)."""
    steps = outer.steps if outer is not None else ()
    certain = outer.certain if outer is not None else True
    row_major = outer is not None and outer.row_major
    if op.kind == "reshape" and certain and not _only_ones_differ(node.inputs[0].shape, node.shape):
        certain, row_major = all(o.kind not in ("view",) for o, _ in steps), True
    return Alias(owner, (*steps, (op, attrs)), seen, certain, row_major)


def _only_ones_differ(a: Shape, b: Shape) -> bool:
    return [s for s in a if s != 1] == [s for s in b if s != 1]


def lies_in_rows(owner: Any) -> bool | None:
    """Whether a handle's elements lie in row-major order outside a trace; None where that isn't known.

    The compiled variant is good for arguments and states of which this is as now.
    """
    trace = current_trace()
    assert trace is not None
    root = trace.root
    if owner._array is None and id(owner) not in root.in_rows:
        return None if _follows_strides(owner._node) else True
    found = root.in_rows[id(owner)] if owner._array is None else bool(owner._array.flags.c_contiguous)
    root.relied[id(owner)] = (owner, found)
    return found


def _follows_strides(node: Node) -> bool:
    """Whether elementwise operations made a value out of a transposed one: their results lie as it does."""
    waiting, met = [node], set()
    while waiting:
        now = waiting.pop()
        if now in met:
            continue
        met.add(now)
        if now.op.name == "permute" and len(now.shape) > 1:
            return True
        if now.op.kind == "elementwise":
            waiting += [i for i in now.inputs if len(i.shape) == len(node.shape)]
    return False


def row_major_strides(shape: Shape) -> list[Size]:
    """Steps between neighbours where elements lie in row-major order."""
    strides: list[Size] = [1] * len(shape)
    for d in range(len(shape) - 1, 0, -1):
        strides[d - 1] = strides[d] * shape[d]
    return strides


def strides_of(node: Node, steps: tuple[Step, ...]) -> list[Size] | None:
    """Strides of the view of a row-major tensor that the steps lead to; None where a reshape may copy."""
    strides = row_major_strides(node.shape)
    for op, attrs in steps:
        source, node = node, taken(node, op, attrs)
        if op.name == "permute":
            strides = [strides[d] for d in attrs["dims"]]
        elif op.name == "slice":
            strides = [s * step for s, step in zip(strides, attrs["steps"], strict=True)]
        elif op.name == "expand":
            new = len(node.shape) - len(source.shape)
            kept = zip(strides, source.shape, node.shape[new:], strict=True)
            strides = [*[0] * new, *(s if a == b else 0 for s, a, b in kept)]
        elif op.kind == "reshape" and _only_ones_differ(source.shape, node.shape):
            rest = iter([s for s, size in zip(strides, source.shape, strict=True) if size != 1])
            strides = [1 if size == 1 else next(rest) for size in node.shape]
        elif op.kind == "reshape" and strides == row_major_strides(source.shape):
            strides = row_major_strides(node.shape)
        elif op.name not in ("detach", "alias", "cast"):
            return None
    return strides


def taken(node: Node, op: Op, attrs: Mapping[str, Any]) -> Node:
    """One step from memory to a view of it; a position that is a value of the trace stands under ``at``."""
    if "at" not in attrs:
        return make_node(op, (node,), dict(attrs))
    return make_node(op, (node, _place(attrs)), {"dim": attrs["dim"]})


def _place(attrs: Mapping[str, Any]) -> Node:
    return attrs["at"]._traced_node(current_trace())  # type: ignore[no-any-return]


def replay(node: Node, steps: tuple[Step, ...]) -> Node:
    """The view of `node` that the steps lead to."""
    for op, attrs in steps:
        node = taken(node, op, attrs)
    return node


def written_through(node: Node, steps: tuple[Step, ...], value: Node) -> Node:
    """`node` with the part that the steps lead to replaced by `value`."""
    if not steps:
        return value
    (op, attrs), rest = steps[0], steps[1:]
    if rest:
        value = written_through(taken(node, op, attrs), rest, value)
    if op.name == "permute":
        dims = attrs["dims"]
        return OPS["permute"](value, dims=tuple(dims.index(d) for d in range(len(dims))))
    if op.kind == "reshape":
        return OPS["reshape"](value, shape=node.shape)
    if op.name == "slice":
        placed = {"shape": node.shape, "starts": attrs["starts"], "steps": attrs["steps"]}
        everywhere = OPS["expand"](constant(True, bool_), shape=value.shape)
        return OPS["where"](OPS["pad"](everywhere, **placed), OPS["pad"](value, **placed), node)
    if op.name == "take":
        return put_at(node, _place(attrs), attrs["dim"], value)
    if op.name == "slide":
        sizes = tuple(node.shape[d] for d in attrs["dims"])
        everywhere = OPS["expand"](constant(True, bool_), shape=value.shape)
        hit, changed = (OPS["unslide"](v, sizes=sizes, **attrs) for v in (everywhere, value))
        return OPS["where"](hit, changed, node)
    if op.name in ("detach", "alias", "cast"):
        return value
    raise GradientError(REPEATS)


def put_at(node: Node, place: Node, dim: int, value: Node) -> Node:
    """`node` with its slice at a 0-d position of a dimension replaced."""
    size, shape = node.shape[dim], node.shape
    position = OPS["checked_index"](place, size=size)
    numbers = OPS["reshape"](OPS["iota"](size=size), shape=(size, *(1,) * (len(shape) - dim - 1)))
    layer = OPS["reshape"](value, shape=(*shape[:dim], 1, *shape[dim + 1 :]))
    return OPS["where"](OPS["eq"](numbers, position), layer, node)
