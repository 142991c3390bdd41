"""``x[...]``: what an index means, as boxes of memory and as positions, and reading it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import numpy as np

from graphflow.compiler.ir import OPS, broadcast_shapes, format_shape
from graphflow.compiler.trace import current_trace
from graphflow.dims import Dim, ceil_div, product
from graphflow.dtypes import bool_, int64
from graphflow.errors import DTypeError, IndexRangeError, ShapeError, TraceError
from graphflow.functions.common import (
    Extent,
    at_least,
    cast,
    expanded,
    of_array,
    of_size,
    pinned,
    reshaped,
    scalar,
)
from graphflow.functions.registry import asked_by, error, public
from graphflow.functions.selection import selection
from graphflow.functions.shape import permuted
from graphflow.sizes import SymbolicSize, unwrap
from graphflow.tensor import Tensor, apply, frozen, seen_as

# --------------------------------------------------------------------------------------------- parsing x[...]


@dataclass
class Basic:
    """What ``x[...]`` reads before tensor indices come in: a strided box, then a shape.

    ``advanced`` holds (dimension of the boxed and reshaped tensor, index tensor) in order.
    """

    starts: tuple[Extent, ...]
    steps: tuple[int, ...]
    sizes: tuple[Extent, ...]
    shape: tuple[Extent, ...]
    advanced: list[tuple[int, Tensor]]


def index_items(key: Any, ndim: int) -> list[Any]:
    """The index as a list of items, the ellipsis spelt out; a mask stands for all of its dimensions."""
    items = list(key) if isinstance(key, tuple) or _is_like_tuple(key) else [key]
    items = [_as_item(i) for i in items]
    if sum(i is Ellipsis for i in items) > 1:
        raise error(IndexRangeError, "index", "an index can have only one ellipsis ('...')")
    taken = sum(consumes(i) for i in items)
    if taken > ndim:
        raise error(IndexRangeError, "index", f"too many indices for a tensor of dimension {ndim}: {taken}")
    fill = [slice(None)] * (ndim - taken)
    at = next((n for n, i in enumerate(items) if i is Ellipsis), None)
    return items + fill if at is None else items[:at] + fill + items[at + 1 :]


def _is_like_tuple(key: Any) -> bool:
    """Whether a list is read as a tuple: PyTorch does so if it is short and holds more than numbers."""
    parts = (list, tuple, range, np.ndarray, Tensor, slice, EllipsisType, type(None))
    return isinstance(key, list) and len(key) < 32 and any(isinstance(k, parts) for k in key)


def consumes(item: Any) -> int:
    """How many dimensions an item of an index takes up."""
    if item is None or item is Ellipsis or isinstance(item, _Chosen):
        return 0
    if isinstance(item, _Positions):
        return item.mask.ndim
    return item.ndim if isinstance(item, Tensor) and item.dtype is bool_ else 1


def is_mask(item: Any) -> bool:
    """Whether an item of an index is a bool tensor."""
    return isinstance(item, Tensor) and item.dtype is bool_


@dataclass
class _Chosen:
    """A 0-d mask: a new dimension, of one element or of none."""

    count: int


@dataclass
class _Positions:
    """A mask that is part of the program: a list of bools."""

    mask: np.ndarray


def _expanded_masks(items: list[Any], shape: tuple[Extent, ...]) -> list[Any]:
    """Bool masks as the positions of their True elements, one index tensor for each of their dimensions."""
    found: list[Any] = []
    dim = 0
    for item in items:
        if isinstance(item, _Positions):
            _require_mask_shape(Tensor.holding(item.mask), shape, dim)
            found += [Tensor.holding(position) for position in item.mask.nonzero()]
        if not is_mask(item):
            dim += consumes(item)
            found += [] if isinstance(item, _Positions) else [item]
            continue
        _require_mask_shape(item, shape, dim)
        dim += item.ndim
        if item.is_traced or current_trace() is not None:
            raise error(
                TraceError, "index",
                "a bool mask selects a number of elements that depends on values, which a compiled function "
                "can't have; use gf.where(mask, x, 0) and sum, or x[mask] = value for writing",
            )  # fmt: skip
        if item.ndim:
            found += [Tensor.holding(position) for position in item.numpy().nonzero()]
        else:
            found.append(_Chosen(int(item.item())))
    return found


def _require_mask_shape(mask: Tensor, shape: tuple[Extent, ...], dim: int) -> None:
    covered = shape[dim : dim + mask.ndim]
    for size, there in zip(mask.type_.shape, covered, strict=True):
        if isinstance(size, int) and isinstance(there, int) and size != there:
            raise error(
                IndexRangeError, "index",
                f"the mask's shape {format_shape(mask.type_.shape)} doesn't match the tensor's "
                f"{format_shape(covered)} at dimension {dim}",
            )  # fmt: skip


def _as_item(item: Any) -> Any:
    """An index item as int, SymbolicSize, slice, None, Ellipsis or Tensor."""
    if item is None or isinstance(item, (slice, EllipsisType, SymbolicSize, _Chosen, _Positions)):
        return item
    if isinstance(item, (bool, np.bool_)):
        return _Chosen(int(item))
    if isinstance(item, (list, np.ndarray, range)):
        array = np.asarray(item)
        if isinstance(item, list) and array.dtype == bool:
            return _Positions(array)
        item = of_array(array.astype(np.int64) if array.size == 0 else array, "index")
    if isinstance(item, Tensor):
        if item.dtype.kind == "float":
            raise error(
                DTypeError, "index", f"tensors used as indices have to be integer or bool, got {item.type_}"
            )
        if item.dtype is bool_:
            return item
        if item.dtype.name == "uint8":
            raise error(
                DTypeError, "index",
                "an index of dtype uint8 is a mask in PyTorch and positions in NumPy; convert it with "
                ".bool() or .long()",
            )  # fmt: skip
        if not item.ndim and not item.is_traced and current_trace() is None:
            return int(item)
        return cast(item, int64)
    if hasattr(item, "__index__"):
        return item.__index__()
    raise error(
        DTypeError,
        "index",
        f"an index is made of integers, slices, None, ... and tensors, not {type(item).__name__}",
    )


def _bound(value: Any) -> Extent | None:
    if value is None:
        return None
    if isinstance(value, Tensor) and value.is_traced:
        raise error(
            TraceError,
            "index",
            "a slice bound is a traced value, and shapes can't depend on values; use gf.where on positions",
        )
    if not isinstance(value, SymbolicSize) and not hasattr(value, "__index__"):
        raise error(
            DTypeError, "index", f"slice bounds have to be integers or None, not {type(value).__name__}"
        )
    return unwrap(value)


def _slice(item: slice, size: Extent) -> tuple[Extent, int, Extent]:
    """(start, step, count) of a Python slice of a dimension."""
    step = 1 if item.step is None else int(item.step)
    if step == 0:
        raise error(ShapeError, "index", "a slice's step can't be zero")
    start, stop = _bound(item.start), _bound(item.stop)
    if start is None and stop is None:
        if isinstance(size, Dim):
            return (0 if step > 0 else size - 1), step, size if abs(step) == 1 else ceil_div(size, abs(step))
    elif start in (None, 0) and step == 1 and stop == size:
        return 0, 1, size
    if step > 0 and any(isinstance(s, Dim) for s in (start, stop, size)):
        first = 0 if start is None else _clipped(start, size)
        last = size if stop is None else _clipped(stop, size)
        return (first, step, ceil_div(last - first, step)) if at_least(last - first, 1) else (0, step, 0)
    size = pinned(size, "slicing a dimension backwards")
    start, stop = (None if b is None else pinned(b, "a slice's bound") for b in (start, stop))
    positions = range(*slice(start, stop, step).indices(size))
    return positions.start if len(positions) else 0, step, len(positions)


def _clipped(bound: Extent, size: Extent) -> Extent:
    """A bound of a slice as a position: from the end where it is negative, and within the dimension."""
    if not at_least(bound, 0):
        bound = size + bound
        return bound if at_least(bound, 0) else 0
    return bound if at_least(size, bound) else size


def parse(key: Any, shape: tuple[Extent, ...]) -> Basic:
    """The meaning of an index for a tensor of `shape`."""
    starts: list[Extent] = []
    steps: list[int] = []
    sizes: list[Extent] = []
    kept: list[Extent] = []
    advanced: list[tuple[int, Tensor]] = []
    dim = 0
    for item in _expanded_masks(index_items(key, len(shape)), shape):
        if item is None:
            kept.append(1)
            continue
        if isinstance(item, _Chosen):
            advanced.append((len(kept), Tensor.holding(np.zeros(item.count, np.int64))))
            kept.append(1)
            continue
        size = shape[dim]
        if isinstance(item, slice):
            start, step, count = _slice(item, size)
            kept.append(count)
        elif isinstance(item, Tensor):
            advanced.append((len(kept), item))
            start, step, count = 0, 1, size
            kept.append(size)
        else:
            start, step, count = _position(item, size, dim), 1, 1
        starts.append(start)
        steps.append(step)
        sizes.append(count)
        dim += 1
    return Basic(tuple(starts), tuple(steps), tuple(sizes), tuple(kept), advanced)


def _position(item: int | SymbolicSize, size: Extent, dim: int) -> Extent:
    at = unwrap(item)
    place = at if at_least(at, 0) else size + at
    if not at_least(place, 0) or not at_least(size, place + 1):
        raise error(
            IndexRangeError, "index", f"index {at} is out of bounds for dimension {dim} with size {size}"
        )
    return place


# ---------------------------------------------------------------------------------------------- reading


def _getitem_backward(self: Tensor, key: Any) -> str:
    last = key[-1] if isinstance(key, tuple) and key else key
    if any(
        isinstance(k, (Tensor, list, np.ndarray, range)) for k in (key if isinstance(key, tuple) else (key,))
    ):
        return "IndexBackward0"
    if last is None:
        return "UnsqueezeBackward0"
    if isinstance(last, slice):
        return "SliceBackward0"
    return "SelectBackward0"


@public(name="__getitem__", function=False, backward=_getitem_backward)
def getitem(self: Tensor, key: Any) -> Tensor:
    """``x[key]`` with integers, slices, ``None``, ``...`` (a view of the memory) and integer tensors (a
    copy).

    While tracing, ``x[mask]`` is a `Selection`.
    """
    if current_trace() is None:
        return read(self, parse(key, self.type_.shape))
    items = index_items(key, self.ndim)
    number = position_among(items)
    while number is not None:  # as with an integer, what is left is a view
        self = _at_position(self, sum(map(consumes, items[:number])), items.pop(number))
        number = position_among(items)
    if has_one_mask(items):
        parsed, mask, lead, rest = masked(self, items)
        return selection(basic(self, parsed), mask, lead, rest)  # type: ignore[return-value]
    return read(self, parse(tuple(items), self.type_.shape))


def has_one_mask(items: list[Any]) -> bool:
    """Whether a mask stands with integers, slices and new dimensions only."""
    kinds = (Tensor, _Chosen, _Positions)
    return sum(isinstance(i, kinds) for i in items) == 1 and any(map(is_mask, items))


def read(t: Tensor, parsed: Basic) -> Tensor:
    """What a parsed index reads."""
    box = basic(t, parsed)
    return _at_tensors(box, parsed.advanced) if parsed.advanced else box


def position_among(items: list[Any]) -> int | None:
    """Where an index has a 0-d integer tensor."""
    found = (n for n, i in enumerate(items) if isinstance(i, Tensor) and not i.ndim and not is_mask(i))
    return next(found, None)


def _at_position(t: Tensor, dim: int, index: Tensor) -> Tensor:
    """``t.select(dim, index)`` for a position that is only known when the function runs; a view."""
    trace = current_trace()
    assert trace is not None
    if isinstance(t.type_.shape[dim], int) and t.type_.shape[dim] == 0:
        raise error(IndexRangeError, "index", f"dimension {dim} of {t.type_} has no elements")
    with asked_by("index"):
        result = apply(OPS["take"], t, index, dim=dim)
    return seen_as(result, t, trace, OPS["take"], {"dim": dim, "at": frozen(index, trace)})


def masked(t: Tensor, items: list[Any]) -> tuple[Basic, Tensor, int, int]:
    """What an index with one mask covers, the mask, and the numbers of dimensions before and behind it."""
    at = next(n for n, item in enumerate(items) if is_mask(item))
    mask, before, after = items[at], items[:at], items[at + 1 :]
    _require_mask_shape(mask, t.type_.shape, sum(map(consumes, before)))
    parsed = parse((*before, *(slice(None),) * mask.ndim, *after), t.type_.shape)
    lead = sum(item is None or isinstance(item, slice) for item in before)
    return parsed, mask, lead, len(parsed.shape) - lead - mask.ndim


def basic(t: Tensor, parsed: Basic) -> Tensor:
    """The strided box of a parsed index, in its shape; a view."""
    shape = t.type_.shape
    if not shape:
        return reshaped(t, parsed.shape)
    whole = parsed.sizes == shape and not any(parsed.starts) and all(s == 1 for s in parsed.steps)
    if not whole or parsed.shape == shape:
        t = apply(OPS["slice"], t, starts=parsed.starts, steps=parsed.steps, sizes=parsed.sizes)
    return t if parsed.shape == t.type_.shape else reshaped(t, parsed.shape)


def _at_tensors(t: Tensor, advanced: Sequence[tuple[int, Tensor]]) -> Tensor:
    if len(advanced) == 1:
        ((dim, index),) = advanced
        check_range(index, t.type_.shape[dim], dim)
        return apply(OPS["take"], t, index, dim=dim)
    moved, dim, index = flat_position(t, advanced)
    return apply(OPS["take"], moved, index, dim=dim)


def flat_position(t: Tensor, advanced: Sequence[tuple[int, Tensor]]) -> tuple[Tensor, int, Tensor]:
    """Several index tensors as one: (t with the indexed dimensions merged, where, the merged index).

    The indexed dimensions stay in place when they are neighbours and come first otherwise, as in NumPy.
    """
    dims = [d for d, _ in advanced]
    shape = t.type_.shape
    if dims != list(range(dims[0], dims[-1] + 1)):
        t = permuted(t, [*dims, *(d for d in range(len(shape)) if d not in dims)])
        dims = list(range(len(dims)))
    shape = t.type_.shape
    target = broadcast_shapes(*(i.type_.shape for _, i in advanced))
    total: Tensor | None = None
    valid: Tensor | None = None
    for dim, (_, index) in zip(dims, advanced, strict=True):
        check_range(index, shape[dim], dim)
        size = of_size(shape[dim], int64)
        negative = apply(OPS["lt"], index, scalar(0, int64))
        position = apply(OPS["where"], negative, apply(OPS["add"], index, size), index)
        inside = apply(
            OPS["bitwise_and"], apply(OPS["ge"], position, scalar(0, int64)), apply(OPS["lt"], position, size)
        )
        total = position if total is None else apply(OPS["add"], apply(OPS["mul"], total, size), position)
        valid = inside if valid is None else apply(OPS["bitwise_and"], valid, inside)
    assert total is not None and valid is not None
    # A position outside one dimension must not land inside the merged one: it is sent where the check sees
    # it.
    total = apply(OPS["where"], valid, total, scalar(_NOWHERE, int64))
    merged = product(shape[d] for d in dims)
    t = reshaped(t, (*shape[: dims[0]], merged, *shape[dims[-1] + 1 :]))
    return t, dims[0], expanded(total, target)


_NOWHERE = -(2**62)


def check_range(index: Tensor, size: Extent, dim: int) -> None:
    """IndexRangeError for a concrete index with a position outside; a traced one is checked where it
    is used.
    """
    if index.is_traced or current_trace() is not None or not isinstance(size, int):
        return
    positions = index.numpy()
    bad = positions[(positions < -size) | (positions >= size)]
    if bad.size:
        raise error(
            IndexRangeError, "index", f"index {bad[0]} is out of bounds for dimension {dim} with size {size}"
        )
