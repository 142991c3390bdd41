"""``x[...]``, read and written: what an index means, as boxes of memory and as positions."""

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
    Operand,
    at_least,
    cast,
    copied,
    expanded,
    is_one,
    of_array,
    of_size,
    operand,
    pinned,
    reshaped,
    result_dtype,
    scalar,
)
from graphflow.functions.registry import error, public
from graphflow.functions.shape import permuted
from graphflow.memory import keep
from graphflow.sizes import SymbolicSize, unwrap
from graphflow.tensor import Tensor, apply

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


def _items(key: Any, ndim: int) -> list[Any]:
    """The index as a list of items, the ellipsis spelt out; a mask stands for all of its dimensions."""
    items = list(key) if isinstance(key, tuple) or _is_like_tuple(key) else [key]
    items = [_as_item(i) for i in items]
    if sum(i is Ellipsis for i in items) > 1:
        raise error(IndexRangeError, "index", "an index can have only one ellipsis ('...')")
    taken = sum(_consumes(i) for i in items)
    if taken > ndim:
        raise error(IndexRangeError, "index", f"too many indices for a tensor of dimension {ndim}: {taken}")
    fill = [slice(None)] * (ndim - taken)
    at = next((n for n, i in enumerate(items) if i is Ellipsis), None)
    return items + fill if at is None else items[:at] + fill + items[at + 1 :]


def _is_like_tuple(key: Any) -> bool:
    """Whether a list is read as a tuple: PyTorch does so if it is short and holds more than numbers."""
    parts = (list, tuple, range, np.ndarray, Tensor, slice, EllipsisType, type(None))
    return isinstance(key, list) and len(key) < 32 and any(isinstance(k, parts) for k in key)


def _consumes(item: Any) -> int:
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if isinstance(item, Tensor) and item.dtype is bool_ else 1


def is_mask(item: Any) -> bool:
    """Whether an item of an index is a bool tensor."""
    return isinstance(item, Tensor) and item.dtype is bool_


@dataclass
class _Chosen:
    """A 0-d mask: a new dimension, of one element or of none."""

    count: int


def _expanded_masks(items: list[Any], shape: tuple[Extent, ...]) -> list[Any]:
    """Bool masks as the positions of their True elements, one index tensor for each of their dimensions."""
    found: list[Any] = []
    dim = 0
    for item in items:
        if not is_mask(item):
            dim += _consumes(item)
            found.append(item)
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
    if item is None or isinstance(item, (slice, EllipsisType, SymbolicSize)):
        return item
    if isinstance(item, (bool, np.bool_)):
        return of_array(np.asarray(bool(item)))
    if isinstance(item, (list, np.ndarray, range)):
        array = np.asarray(item)
        item = of_array(array.astype(np.int64) if array.size == 0 else array, "index")
    if isinstance(item, Tensor):
        if item.dtype.kind == "float":
            raise error(
                DTypeError, "index", f"tensors used as indices have to be integer or bool, got {item.type_}"
            )
        if item.dtype is bool_:
            return item
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
    for item in _expanded_masks(_items(key, len(shape)), shape):
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
    """
    parsed = parse(key, self.type_.shape)
    box = basic(self, parsed)
    return _at_tensors(box, parsed.advanced) if parsed.advanced else box


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


# ---------------------------------------------------------------------------------------------- writing


def written(t: Tensor, key: Any, value: Operand, add: bool = False) -> Tensor:
    """`t` with ``t[key] = value`` (with `add`, ``t[key] += value`` for every occurrence of a place) done, as
    a new tensor; gradients flow to both.
    """
    items = _items(key, t.ndim)
    if current_trace() is not None and any(map(is_mask, items)):
        return _written_where(t, items, value, add)
    parsed = parse(key, t.type_.shape)
    if parsed.advanced:
        return _written_at_tensors(t, parsed, value, add)
    box = fitted(value, parsed.shape, t, "setitem")
    if add:
        box = apply(OPS["add"], basic(t, parsed), box)
    if parsed.shape == () and t.ndim == 0:
        return box
    return put_box(t, parsed, box)


def _written_where(t: Tensor, items: list[Any], value: Operand, add: bool) -> Tensor:
    """Writing by a mask whose values aren't known: a choice for every element."""
    at = next(n for n, item in enumerate(items) if is_mask(item))
    mask, before, after = items[at], items[:at], items[at + 1 :]
    if any(isinstance(item, Tensor) for item in (*before, *after)):
        raise error(
            TraceError, "setitem",
            "a compiled function can write by one mask together with integers, slices, None and ..., not "
            "with other index tensors; combine masks with & and use gf.where",
        )  # fmt: skip
    _require_mask_shape(mask, t.type_.shape, sum(map(_consumes, before)))
    parsed = parse((*before, *(slice(None),) * mask.ndim, *after), t.type_.shape)
    lead = sum(item is None or isinstance(item, slice) for item in before)
    rest = len(parsed.shape) - lead - mask.ndim
    wide = reshaped(mask, (*(1,) * lead, *mask.type_.shape, *(1,) * rest))
    source = operand(value, "setitem", "value")
    if isinstance(source, Tensor) and source.ndim > rest:
        shape = source.type_.shape
        place = source.ndim - rest - 1  # the dimension that runs over the chosen elements
        if not is_one(shape[place], "a value for the elements of a mask"):
            raise error(
                TraceError, "setitem",
                f"{source.type_} has a value for each chosen element, and how many those are depends on the "
                "mask's values; in a compiled function the value has to fit every element: use "
                "gf.where(mask, value, x) with values of x's shape, or gf.masked_scatter",
            )  # fmt: skip
        source = reshaped(source, (*shape[:place], *(1,) * mask.ndim, *shape[place + 1 :]))
    box = basic(t, parsed)
    new = fitted(source, parsed.shape, t, "setitem")
    changed = apply(OPS["where"], wide, apply(OPS["add"], box, new) if add else new, box)
    return changed if parsed.shape == () and t.ndim == 0 else put_box(t, parsed, changed)


def put_box(t: Tensor, parsed: Basic, box: Tensor) -> Tensor:
    """`t` with the elements of a box replaced."""
    placed = {"shape": t.type_.shape, "starts": parsed.starts, "steps": parsed.steps}
    hit = apply(OPS["pad"], expanded(scalar(True, bool_), parsed.sizes), **placed)
    if not hit.is_traced:
        keep(hit._history())
    return apply(OPS["where"], hit, apply(OPS["pad"], reshaped(box, parsed.sizes), **placed), t)


def _written_at_tensors(t: Tensor, parsed: Basic, value: Operand, add: bool) -> Tensor:
    """``t[..., index, ...] = value``, where the last of several writes to a place wins, or all are added."""
    box = basic(t, parsed)
    if len(parsed.advanced) == 1:
        flat, (dim, index) = box, parsed.advanced[0]
        check_range(index, flat.type_.shape[dim], dim)
    else:
        flat, dim, index = flat_position(box, parsed.advanced)
    shape = flat.type_.shape
    rows, count = shape[dim], product(index.type_.shape)
    source = fitted(value, (*shape[:dim], *index.type_.shape, *shape[dim + 1 :]), t, "setitem")
    if rows == 0 or not at_least(count, 1):
        return copied(t)
    if add:
        changed = apply(OPS["add"], flat, apply(OPS["put_add"], source, index, dim=dim, size=rows))
        return put_box(t, parsed, _unmerged(changed, box, parsed))
    source = reshaped(source, (*shape[:dim], count, *shape[dim + 1 :]))
    # Taking from 0, 1, … counts negative positions from the front and checks that they exist.
    places = apply(OPS["take"], apply(OPS["iota"], size=rows), reshaped(index, (count,)), dim=0)
    winner = apply(OPS["last_places"], places, size=rows)
    hit = reshaped(apply(OPS["ge"], winner, scalar(0, int64)), (rows, *(1,) * (len(shape) - dim - 1)))
    last = apply(OPS["maximum"], winner, scalar(0, int64))
    changed = apply(OPS["where"], hit, apply(OPS["take"], source, last, dim=dim), flat)
    return put_box(t, parsed, _unmerged(changed, box, parsed))


def _unmerged(changed: Tensor, box: Tensor, parsed: Basic) -> Tensor:
    """Undoes `flat_position`'s moving and merging of the indexed dimensions."""
    shape = box.type_.shape
    dims = [d for d, _ in parsed.advanced]
    if len(dims) == 1 or dims == list(range(dims[0], dims[-1] + 1)):
        return reshaped(changed, shape)
    order = [*dims, *(d for d in range(len(shape)) if d not in dims)]
    moved = reshaped(changed, tuple(shape[d] for d in order))
    return permuted(moved, [order.index(d) for d in range(len(shape))])


def fitted(value: Any, shape: tuple[Extent, ...], like: Tensor, name: str) -> Tensor:
    """A value to be written: converted to like's dtype and broadcast to `shape`."""
    source = operand(value, name, "value")
    if not isinstance(source, Tensor):
        if result_dtype(like, source).kind != like.dtype.kind and like.dtype is not bool_:
            source = int(source)  # like PyTorch: a float written into integers is truncated
        return expanded(scalar(source, like.dtype), shape)
    source = cast(source, like.dtype)
    extra = source.ndim - len(shape)
    if extra > 0 and all(is_one(s, "a value with more dimensions") for s in source.type_.shape[:extra]):
        source = reshaped(source, source.type_.shape[extra:])
    for size, room in zip(reversed(source.type_.shape), reversed(shape), strict=False):
        if room == 1:
            pinned(size, f"the shape of a value for {name}")
    try:
        return expanded(source, shape)
    except ShapeError:
        raise error(
            ShapeError, name,
            f"shape mismatch: a value of shape {format_shape(source.type_.shape)} can't be broadcast to "
            f"{format_shape(shape)}",
        ) from None  # fmt: skip
