"""Writing at computed positions along a dimension: scatter and its relatives."""

from __future__ import annotations

from typing import Any

from graphflow.compiler.ir import OPS
from graphflow.dims import product
from graphflow.dtypes import bool_, int64, uint8
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.assignment import written
from graphflow.functions.common import (
    Operand,
    at_least,
    broadcast,
    cast,
    copied,
    dim_arg,
    expanded,
    in_dtype,
    operand,
    reshaped,
    scalar,
    tensor_arg,
)
from graphflow.functions.cumulative import cumsum, from_last, to_last
from graphflow.functions.index import index_arg, lifted, trimmed
from graphflow.functions.registry import asked_by, error, public
from graphflow.functions.shape import flatten
from graphflow.tensor import Tensor, apply

__all__ = ["index_copy", "index_fill", "masked_scatter", "scatter", "scatter_reduce"]

_REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


def _operands(name: str, input: Any, dim: int, index: Any, src: Any) -> tuple[Tensor, int, Tensor, Tensor]:
    """The tensor, the dimension, the index, and the source in the index's shape; each has a dimension."""
    t, positions = lifted(tensor_arg(input, name)), lifted(index_arg(index, name))
    axis = dim_arg(dim, t.ndim, name)
    given = operand(src, name, "src")
    given = lifted(given) if isinstance(given, Tensor) else given
    if not isinstance(given, Tensor):
        given = expanded(in_dtype(given, t.dtype), positions.type_.shape)
    if given.dtype is not t.dtype:
        raise error(DTypeError, name, f"input and src need one dtype, got {t.dtype} and {given.dtype}")
    if t.ndim != positions.ndim:
        raise error(
            ShapeError, name, f"index and input need the same number of dimensions, got {positions.type_} "
            f"and {t.type_}",
        )  # fmt: skip
    return t, axis, positions, trimmed(given, positions, -1, name)


def _rows(t: Tensor, axis: int, index: Tensor, source: Tensor, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """What the index covers of the tensor, the checked positions and the source, the dimension last."""
    rows = to_last(trimmed(t, index, axis, name), axis)
    places, values = to_last(index, axis), to_last(source, axis)
    size = rows.type_.shape[-1]
    # Gathering from 0, 1, … counts negative positions from the front and checks that they exist.
    numbers = expanded(apply(OPS["iota"], size=size), (*rows.type_.shape[:-1], size))
    with asked_by(name):
        return rows, apply(OPS["gather"], numbers, places, dim=rows.ndim - 1), values


def _put_back(t: Tensor, axis: int, rows: Tensor) -> Tensor:
    region = from_last(rows, axis)
    if region.type_.shape == t.type_.shape:
        return region
    return written(t, tuple(slice(0, int(s)) for s in region.shape), region)


def _last_written(rows: Tensor, places: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Whether anything is written to each place, and the last of what is."""
    winner = apply(OPS["last_places"], places, size=rows.type_.shape[-1])
    hit = apply(OPS["ge"], winner, scalar(0, int64))
    last = apply(OPS["maximum"], winner, scalar(0, int64))
    return hit, apply(OPS["gather"], values, last, dim=rows.ndim - 1)


@public()
def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Operand | None = None,
    reduce: str | None = None,
) -> Tensor:  # fmt: skip
    """`input` with ``out[i][index[i][j]] = src[i][j]`` for dim 1, and so on; `src` may be a number.

    The last of several writes to a place wins. `reduce` 'add' or 'multiply' combines with what is there.
    """
    source = value if src is None else src
    if source is None:
        raise error(ShapeError, "scatter", "needs src or value=")
    if reduce is not None:
        if reduce not in ("add", "multiply"):
            raise error(ShapeError, "scatter", f"reduce is 'add' or 'multiply', not {reduce!r}")
        wide = _operands("scatter", input, dim, index, source)[3]
        return scatter_reduce(input, dim, index, wide, "sum" if reduce == "add" else "prod")
    shape = tensor_arg(input, "scatter").type_.shape
    t, axis, positions, wide = _operands("scatter", input, dim, index, source)
    if not at_least(product(positions.type_.shape), 1):
        return copied(reshaped(t, shape))
    rows, places, values = _rows(t, axis, positions, wide, "scatter")
    hit, last = _last_written(rows, places, values)
    return reshaped(_put_back(t, axis, apply(OPS["where"], hit, last, rows)), shape)


@public()
def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """`input` with everything that ``src[i][j]`` brings to ``out[i][index[i][j]]`` (dim 1, and so on)
    combined by 'sum', 'prod', 'mean', 'amax' or 'amin', together with the element there if `include_self`.

    Of equal extremes, one takes the gradient.
    """
    if reduce not in _REDUCTIONS:
        raise error(ShapeError, "scatter_reduce", f"reduce is one of {_REDUCTIONS}, not {reduce!r}")
    shape = tensor_arg(input, "scatter_reduce").type_.shape
    t, axis, positions, wide = _operands("scatter_reduce", input, dim, index, src)
    if not at_least(product(positions.type_.shape), 1):
        return copied(reshaped(t, shape))
    rows, places, values = _rows(t, axis, positions, wide, "scatter_reduce")
    if reduce in ("sum", "mean"):
        result = _summed(rows, places, values, reduce == "mean", include_self)
    else:
        result = _combined(rows, places, values, reduce, include_self)
    return reshaped(_put_back(t, axis, result), shape)


def _summed(rows: Tensor, places: Tensor, values: Tensor, mean: bool, include_self: bool) -> Tensor:
    last, size = rows.ndim - 1, rows.type_.shape[-1]
    total = apply(OPS["scatter_add"], values, places, dim=last, size=size)
    ones = expanded(scalar(1, rows.dtype), places.type_.shape)
    count = apply(OPS["scatter_add"], ones, places, dim=last, size=size)
    hit = apply(OPS["gt"], count, scalar(0, rows.dtype))
    if include_self:
        total = apply(OPS["add"], total, rows)
        count = apply(OPS["add"], count, scalar(1, rows.dtype))
    if mean:
        count = apply(OPS["maximum"], count, scalar(1, rows.dtype))
        total = apply(OPS["div" if rows.dtype.kind == "float" else "floor_divide"], total, count)
    return apply(OPS["where"], hit, total, rows)


def _combined(rows: Tensor, places: Tensor, values: Tensor, reduce: str, include_self: bool) -> Tensor:
    """In an order in which the last of the values for a place is the result."""
    last = rows.ndim - 1
    if rows.dtype is bool_:
        rows, values = cast(rows, uint8), cast(values, uint8)
        return cast(_combined(rows, places, values, reduce, include_self), bool_)
    if reduce == "prod":  # runs of equal places, multiplied up along each run
        order = apply(OPS["argsort"], places, descending=False)
        places, values = (apply(OPS["gather"], t, order, dim=last) for t in (places, values))
        number = apply(OPS["iota"], size=places.type_.shape[-1])
        before = apply(OPS["maximum"], apply(OPS["sub"], number, scalar(1, int64)), scalar(0, int64))
        first = apply(OPS["ne"], places, apply(OPS["take"], places, before, dim=last))
        first = apply(OPS["bitwise_or"], first, apply(OPS["eq"], number, scalar(0, int64)))
        zero = scalar(0, values.dtype)
        factors = apply(OPS["where"], first, zero, values)
        starts = apply(OPS["where"], first, values, zero)
        values = apply(OPS["recurrence"], factors, starts, reverse=False)
    else:
        order = apply(OPS["argsort"], values.detach(), descending=reduce == "amin")
        places, values = (apply(OPS["gather"], t, order, dim=last) for t in (places, values))
    hit, found = _last_written(rows, places, values)
    if include_self:
        found = apply(OPS[{"prod": "mul", "amax": "maximum", "amin": "minimum"}[reduce]], found, rows)
    return apply(OPS["where"], hit, found, rows)


def _along(name: str, t: Tensor, dim: int, index: Tensor) -> tuple[Any, ...]:
    """The key of ``t[..., index]``, the index at `dim`."""
    axis = dim_arg(dim, t.ndim, name)
    if index.ndim > 1:
        raise error(ShapeError, name, f"the index has to be a vector, got {index.type_}")
    return (*(slice(None),) * axis, index if index.ndim else reshaped(index, (1,)))


@public()
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """`input` with the slices at the positions in the 1-d `index` along `dim` replaced by those of
    `source`.
    """
    t, src = tensor_arg(input, "index_copy"), tensor_arg(source, "index_copy", "source")
    if src.dtype is not t.dtype:
        raise error(
            DTypeError, "index_copy", f"input and source need one dtype, got {t.dtype} and {src.dtype}"
        )
    if not t.ndim:
        return reshaped(index_copy(reshaped(t, (1,)), dim, index, src), ())
    return written(t, _along("index_copy", t, dim, index_arg(index, "index_copy")), src)


@public()
def index_fill(input: Tensor, dim: int, index: Tensor, value: Operand) -> Tensor:
    """`input` with the slices at the positions in the 1-d `index` along `dim` set to one value."""
    t = tensor_arg(input, "index_fill")
    filler = operand(value, "index_fill", "value")
    if isinstance(filler, Tensor) and filler.ndim:
        raise error(ShapeError, "index_fill", f"value has to be a number or a 0-d tensor, got {filler.type_}")
    if not t.ndim:
        return reshaped(index_fill(reshaped(t, (1,)), dim, index, filler), ())
    return written(t, _along("index_fill", t, dim, index_arg(index, "index_fill")), filler)


@public()
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """`input` with the elements where `mask` holds replaced by the elements of `source`, in order."""
    t, m = tensor_arg(input, "masked_scatter"), tensor_arg(mask, "masked_scatter", "mask")
    src = tensor_arg(source, "masked_scatter", "source")
    if m.dtype is not bool_ or src.dtype is not t.dtype:
        raise error(
            DTypeError, "masked_scatter",
            f"needs a bool mask and a source of input's dtype, got {m.type_} and {src.type_}",
        )  # fmt: skip
    shape = broadcast(t, m)
    wide = flatten(expanded(m, shape)) if shape else reshaped(m, (1,))
    number = apply(OPS["sub"], cumsum(cast(wide, int64), 0), scalar(1, int64))
    if not number.is_traced and number.numpy().size and number.numpy()[-1] >= src.numel():
        raise error(ShapeError, "masked_scatter", f"the mask holds more places than {src.type_} has elements")
    place = apply(OPS["where"], wide, number, scalar(0, int64))
    if not at_least(product(src.type_.shape), 1):
        return copied(expanded(t, shape))
    taken = apply(OPS["take"], flatten(src), place, dim=0)
    return apply(OPS["where"], expanded(m, shape), reshaped(taken, shape), t)
