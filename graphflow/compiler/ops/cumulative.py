"""Running totals along the last dimension, and the first-order recurrence that their gradients are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphflow.compiler.ir import (
    BadSample,
    Node,
    Op,
    Sample,
    TensorType,
    constant,
    equal_size,
    register,
)
from graphflow.compiler.ops import elementwise as el
from graphflow.compiler.ops.family import ANY, FLOAT, NUMERIC, Kinds, Routine, require_kind, require_same
from graphflow.compiler.ops.index import iota_along, take
from graphflow.compiler.ops.movement import reshape
from graphflow.dtypes import ALL, int64
from graphflow.errors import DTypeError, ShapeError


def require_row(x: TensorType) -> None:
    """ShapeError for a type without a last dimension."""
    if not x.ndim:
        raise ShapeError("needs a tensor of at least one dimension")


def _rows(kinds: Kinds, attrs: tuple[dict[str, Any], ...]) -> Callable[[np.random.Generator], list[Sample]]:
    def samples(rng: np.random.Generator) -> list[Sample]:
        found = []
        for dtype in ALL:
            if dtype.kind not in kinds:
                continue
            for shape in ((3, 7), (5,), (2, 2, 1), (0, 3), (3, 0)):
                # Distinct values, so that finite differences never change which one is the extreme.
                values = (rng.permutation(int(np.prod(shape))).reshape(shape) * 0.37 - 2).astype(dtype.numpy)
                found += [Sample((values,), chosen, gradient=dtype.name == "float64") for chosen in attrs]
        return found

    return samples


def _bad_rows(rng: np.random.Generator) -> list[BadSample]:
    return [BadSample((np.ones(()),), {}, ShapeError, "at least one dimension")]


# ---------------------------------------------------------------------------------------------- sums


def _infer_cumsum(x: TensorType, reverse: bool) -> TensorType:
    require_row(x)
    require_kind(x.dtype, NUMERIC)
    return x


def _numpy_cumsum(x: np.ndarray, reverse: bool) -> Any:
    if reverse:
        return np.cumsum(x[..., ::-1], axis=-1, dtype=x.dtype)[..., ::-1]
    return np.cumsum(x, axis=-1, dtype=x.dtype)


def _cumsum_body(node: Node) -> str:
    steps = "range(n - 1, -1, -1)" if node.attrs["reverse"] else "range(0, n)"
    return f"""
total = {{t}}(0)
for i in {steps}:
    total = {{t}}(total + x[i])
    y[i] = total
"""


_WAYS = ({"reverse": False}, {"reverse": True})

cumsum: Op = register(Op(
    "cumsum", "routine", _infer_cumsum, _numpy_cumsum,
    lambda g, out, x, reverse: (cumsum(g, reverse=not reverse),),
    _rows(NUMERIC, _WAYS),
    lambda rng: [
        BadSample((np.ones(()),), {"reverse": False}, ShapeError, "at least one dimension"),
        BadSample((np.ones(3, bool),), {"reverse": False}, DTypeError, "needs a dtype of kind"),
    ],
    Routine("x[n] -> y[n]", _cumsum_body), 1,
    "Sums of the elements up to each one (with `reverse`, from each one on) along the last dimension.",
))  # fmt: skip


# ---------------------------------------------------------------------------------------------- recurrences


def _infer_recurrence(a: TensorType, b: TensorType, reverse: bool) -> TensorType:
    require_row(a)
    dtype = require_same((a, b))
    require_kind(dtype, NUMERIC)
    if a.ndim != b.ndim:
        raise ShapeError("both operands need the same shape")
    return TensorType(dtype, tuple(map(equal_size, a.shape, b.shape)))


def _numpy_recurrence(a: np.ndarray, b: np.ndarray, reverse: bool) -> Any:
    result = b.copy()
    size = b.shape[-1]
    with np.errstate(all="ignore"):
        for i in range(1, size):
            if reverse:
                result[..., size - 1 - i] += a[..., size - i] * result[..., size - i]
            else:
                result[..., i] += a[..., i] * result[..., i - 1]
    return result


def _recurrence_body(node: Node) -> str:
    if node.attrs["reverse"]:
        return """
if n > 0:
    last = b[n - 1]
    y[n - 1] = last
    for i in range(n - 2, -1, -1):
        last = {t}(a[i + 1] * last + b[i])
        y[i] = last
"""
    return """
if n > 0:
    last = b[0]
    y[0] = last
    for i in range(1, n):
        last = {t}(a[i] * last + b[i])
        y[i] = last
"""


def shifted(x: Node, by: int) -> Node:
    """`x` moved by one place along its last dimension, to later places for 1, to earlier ones for -1; 0
    comes in.
    """
    rank, size = len(x.shape), x.shape[-1]
    places = reshape(iota_along(size, rank - 1, rank), shape=(size,))
    last = constant(size, int64) - 1
    source = el.maximum(places - 1, 0) if by == 1 else el.minimum(places + 1, last)
    edge = el.eq(places, 0) if by == 1 else el.eq(places, last)
    return el.where(edge, 0, take(x, source, dim=rank - 1))


def _recurrence_vjp(g: Node, out: Node, a: Node, b: Node, reverse: bool) -> tuple[Node, Node]:
    back = recurrence(a, g, reverse=not reverse)
    return (shifted(back, 1) * out if reverse else back * shifted(out, 1)), back


def _recurrence_samples(rng: np.random.Generator) -> list[Sample]:
    found = []
    for dtype in ("float32", "float64", "int64"):
        for shape in ((3, 6), (4,), (2, 1), (0, 3), (2, 0)):
            pair = tuple((rng.standard_normal(shape) * 2).astype(dtype) for _ in range(2))
            found += [Sample(pair, way, gradient=dtype == "float64") for way in _WAYS]
    return found


recurrence: Op = register(Op(
    "recurrence", "routine", _infer_recurrence, _numpy_recurrence, _recurrence_vjp, _recurrence_samples,
    lambda rng: [
        BadSample((np.ones((2, 3)), np.ones((2, 4))), {"reverse": False}, ShapeError, "differ"),
        BadSample((np.ones(3), np.ones((2, 3))), {"reverse": False}, ShapeError, "same shape"),
    ],
    Routine("a[n] b[n] -> y[n]", _recurrence_body), 2,
    "y[i] = a[i] * y[i - 1] + b[i] along the last dimension, from y[0] = b[0]; with `reverse` "
    "y[i] = a[i + 1] * y[i + 1] + b[i], which is its transpose.",
))  # fmt: skip


def cumprod(x: Node, reverse: bool = False) -> Node:
    """Products of the elements up to each one along the last dimension; exact derivatives at zeros, too."""
    rank, size = len(x.shape), x.shape[-1]
    places = iota_along(size, rank - 1, rank)
    first = el.eq(places, constant(size, int64) - 1 if reverse else 0)
    # adding -0 changes nothing, not even a zero's sign
    starts = el.where(first, x, -0.0 if x.dtype.kind == "float" else 0)
    # the reversed recurrence reads the factor one place further on
    factors = shifted(x, 1) if reverse else x
    return recurrence(factors, starts, reverse=reverse)


# ---------------------------------------------------------------------------------------------- extremes


def _infer_places(x: TensorType) -> TensorType:
    require_row(x)
    return TensorType(int64, x.shape)


def _numpy_running(beats: Callable[[Any, Any], Any]) -> Callable[[np.ndarray], Any]:
    def reference(x: np.ndarray) -> Any:
        places = np.zeros(x.shape, np.int64)
        for i in range(1, x.shape[-1]):
            best = np.take_along_axis(x, places[..., i - 1 : i], -1)[..., 0]
            wins = beats(x[..., i], best) | (x[..., i] != x[..., i])
            places[..., i] = np.where(wins, i, places[..., i - 1])
        return places

    return reference


def _running(name: str, symbol: str, beats: Callable[[Any, Any], Any]) -> Op:
    body = f"""
if n > 0:
    place = i64(0)
    best = x[0]
    for i in range(0, n):
        value = x[i]
        if (value {symbol} best) or (value != value):
            best = value
            place = i
        y[i] = place
"""
    return register(Op(
        name, "routine", _infer_places, _numpy_running(beats), None, _rows(ANY, ({},)), _bad_rows,
        Routine("x[n] -> y[n]", lambda node: body), 1,
        "The position of the extreme element so far, the last of equal ones, along the last dimension; a NaN "
        "stays.",
    ))  # fmt: skip


cummax_places: Op = _running("cummax_places", ">=", np.greater_equal)
cummin_places: Op = _running("cummin_places", "<=", np.less_equal)


# ---------------------------------------------------------------------------------------------- logarithms


def _infer_logcumsumexp(x: TensorType) -> TensorType:
    require_row(x)
    require_kind(x.dtype, FLOAT)
    return x


def _numpy_logcumsumexp(x: np.ndarray) -> Any:
    with np.errstate(all="ignore"):
        return np.logaddexp.accumulate(x, axis=-1) if x.shape[-1] else x


_LOGCUMSUMEXP = """
if n > 0:
    total = x[0]
    y[0] = total
    for i in range(1, n):
        value = x[i]
        high = maximum_{t}(value, total)
        low = minimum_{t}(value, total)
        if (high == low) and isinf_{t}(high):
            total = high
        else:
            total = high + log1p_{t}(exp_{t}(low - high))
        y[i] = total
"""


def _logcumsumexp_vjp(g: Node, out: Node, x: Node) -> tuple[Node]:
    # The share of element k in result i is exp(x[k] - out[i]); all exponents here are at most 0.
    before = shifted(out, 1)
    gone = el.isinf(before)  # nothing summed yet: no share, and -inf - -inf would be NaN
    decay = el.exp(el.where(gone, -np.inf, before - out))
    share = el.where(el.isinf(out), el.cast(el.eq(x, out), dtype=x.dtype), el.exp(x - out))
    return (share * recurrence(decay, g, reverse=True),)


logcumsumexp: Op = register(Op(
    "logcumsumexp", "routine", _infer_logcumsumexp, _numpy_logcumsumexp, _logcumsumexp_vjp,
    _rows(FLOAT, ({},)), _bad_rows,
    Routine("x[n] -> y[n]", lambda node: _LOGCUMSUMEXP, cost=lambda n: 40), 1,
    "log(cumsum(exp(x))) along the last dimension, without overflow.",
))  # fmt: skip
