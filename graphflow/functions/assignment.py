"""``x[...] = value`` as a function: the tensor with what the index covers replaced, as a new tensor."""

from __future__ import annotations

from typing import Any

from graphflow.compiler.ir import OPS, format_shape
from graphflow.compiler.trace import current_trace
from graphflow.dims import product
from graphflow.dtypes import bool_, int64
from graphflow.errors import ShapeError, TraceError
from graphflow.functions.common import (
    Extent,
    Operand,
    at_least,
    cast,
    copied,
    expanded,
    is_one,
    operand,
    pinned,
    reshaped,
    result_dtype,
    scalar,
)
from graphflow.functions.registry import asked_by, error
from graphflow.functions.selection import spread
from graphflow.functions.shape import permuted
from graphflow.functions.subscript import (
    Basic,
    basic,
    check_range,
    consumes,
    flat_position,
    has_one_mask,
    index_items,
    is_mask,
    masked,
    parse,
    position_among,
)
from graphflow.memory import keep
from graphflow.tensor import Tensor, apply


def written(t: Tensor, key: Any, value: Operand, add: bool = False) -> Tensor:
    """`t` with ``t[key] = value`` (with `add`, ``t[key] += value`` for every occurrence of a place) done, as
    a new tensor; gradients flow to both.
    """
    if current_trace() is not None:
        items = index_items(key, t.ndim)
        number = position_among(items)
        if number is not None:
            dim, index = sum(map(consumes, items[:number])), items.pop(number)
            with asked_by("setitem"):
                part = apply(OPS["take"], t, index, dim=dim)
            part = written(part, tuple(items), value, add)
            return _put_at_position(t, dim, index, part)
        if any(map(is_mask, items)):
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
    if not has_one_mask(items):
        raise error(
            TraceError, "setitem",
            "a compiled function can write by one mask together with integers, slices, None and ..., not "
            "with other index tensors; combine masks with & and use gf.where",
        )  # fmt: skip
    parsed, mask, lead, rest = masked(t, items)
    wide = reshaped(mask, (*(1,) * lead, *mask.type_.shape, *(1,) * rest))
    box = basic(t, parsed)
    new = fitted(spread(value, mask, lead, rest, "setitem"), parsed.shape, t, "setitem")
    changed = apply(OPS["where"], wide, apply(OPS["add"], box, new) if add else new, box)
    return changed if parsed.shape == () and t.ndim == 0 else put_box(t, parsed, changed)


def _put_at_position(t: Tensor, dim: int, index: Tensor, part: Tensor) -> Tensor:
    """`t` with the slice at a 0-d position replaced."""
    size, shape = t.type_.shape[dim], t.type_.shape
    with asked_by("setitem"):
        place = apply(OPS["checked_index"], index, size=size)
    numbers = reshaped(apply(OPS["iota"], size=size), (size, *(1,) * (len(shape) - dim - 1)))
    layer = reshaped(part, (*shape[:dim], 1, *shape[dim + 1 :]))
    return apply(OPS["where"], apply(OPS["eq"], numbers, place), layer, t)


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
