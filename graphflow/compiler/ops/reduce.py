"""Reductions. All keep the reduced dimensions with size 1; dropping them is a reshape."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.compiler.ir import BadSample, Node, Op, Sample, TensorType, constant, register
from graphflow.compiler.ops import elementwise as el
from graphflow.compiler.ops.cumulative import cumprod, shifted
from graphflow.compiler.ops.family import NUMERIC, Kinds, Reduction, by_kind, reduced_shape, require_kind
from graphflow.compiler.ops.index import iota_along
from graphflow.compiler.ops.movement import permute, reshape
from graphflow.dims import product
from graphflow.dtypes import ALL, DType, bool_, int64
from graphflow.errors import DTypeError, ShapeError


def _samples(kinds: Kinds, empty: bool) -> Callable[[np.random.Generator], list[Sample]]:
    def samples(rng: np.random.Generator) -> list[Sample]:
        found = []
        for dtype in ALL:
            if dtype.kind not in kinds:
                continue
            shapes = [((3, 4), (1,)), ((3, 4), (0,)), ((2, 3, 5), (0, 2)), ((4,), (0,)), ((2, 3), (0, 1))]
            if empty:
                shapes += [((0, 3), (0,)), ((2, 0), (1,))]
            else:
                shapes.append(((0, 3), (1,)))
            for shape, dims in shapes:
                # Distinct values, so that finite differences never change which element wins.
                values = rng.permutation(max(int(np.prod(shape)), 0)).reshape(shape) * 0.37 - 2
                found.append(
                    Sample((values.astype(dtype.numpy),), {"dims": dims}, gradient=dtype.name == "float64")
                )
        return found

    return samples


def _reduction(
    name: str,
    numpy: Callable[..., Any],
    combine: str | Mapping[str, str],
    init: Callable[[DType], Any],
    vjp: Callable[..., Sequence[Node | None]] | None = None,
    *,
    kinds: Kinds = NUMERIC,
    empty: bool = True,
    arg: bool = False,
) -> Op:
    """Declares a reduction over ``dims`` (sorted, non-negative); `empty` says whether
    zero elements have a result.
    """

    def infer(x: TensorType, dims: tuple[int, ...]) -> TensorType:
        require_kind(x.dtype, kinds)
        if dims != tuple(sorted(set(dims))):
            raise ShapeError(f"the dimensions {dims} have to be in order, each of them once")
        for dim in dims:
            if not 0 <= dim < x.ndim:
                raise ShapeError(f"dimension {dim} is out of range for {x.ndim} dimensions")
            if not empty and x.shape[dim] == 0:
                raise ShapeError(f"dimension {dim} has no elements, and {name} of nothing has no value")
        return TensorType(int64 if arg else x.dtype, reduced_shape(x.shape, dims))

    def bad(rng: np.random.Generator) -> list[BadSample]:
        found = [
            BadSample(
                (np.ones((2, 3), bool if "bool" in kinds else np.float32),),
                {"dims": (2,)},
                ShapeError,
                "range",
            )
        ]
        if not empty:
            found.append(BadSample((np.ones((2, 0), np.float32),), {"dims": (1,)}, ShapeError, "no elements"))
        if "float" not in kinds:
            found.append(BadSample((np.ones(3),), {"dims": (0,)}, DTypeError, "needs a dtype of kind"))
        return found

    return register(
        Op(
            name,
            "reduction",
            infer,
            numpy,
            vjp,
            _samples(kinds, empty),
            bad,
            Reduction(by_kind(combine), init, arg),
            1,
        )
    )


def _lowest(dtype: DType) -> Any:
    return -np.inf if dtype.kind == "float" else False if dtype is bool_ else int(np.iinfo(dtype.numpy).min)


def _highest(dtype: DType) -> Any:
    return np.inf if dtype.kind == "float" else True if dtype is bool_ else int(np.iinfo(dtype.numpy).max)


def _share(g: Node, out: Node, x: Node, dims: tuple[int, ...]) -> tuple[Node]:
    """Equal winners share the cotangent evenly, as PyTorch's amax does."""
    winners = el.cast(el.eq(x, out), dtype=x.dtype)
    return (g * winners / sum_(winners, dims=dims),)


def _prod_vjp(g: Node, out: Node, x: Node, dims: tuple[int, ...]) -> tuple[Node]:
    """Every element gets the product of the others: those before it times those behind it, no division."""
    kept = [d for d in range(len(x.shape)) if d not in dims]
    order = (*kept, *dims)
    moved = permute(x, dims=order)
    size = product(x.shape[d] for d in dims)
    row = reshape(moved, shape=(*(x.shape[d] for d in kept), size))
    places = iota_along(size, len(kept), len(kept) + 1)
    before = el.where(el.eq(places, 0), 1, shifted(cumprod(row), 1))
    behind = el.where(el.eq(places, constant(size, int64) - 1), 1, shifted(cumprod(row, reverse=True), -1))
    others = reshape(before * behind, shape=moved.shape)
    return (g * permute(others, dims=tuple(int(d) for d in np.argsort(order))),)


def _numpy_sum(x: np.ndarray, dims: tuple[int, ...]) -> Any:
    """NumPy adds pairwise along neighbours only; other dimensions, which it adds one by one, come there."""
    trailing = dims == tuple(range(x.ndim - len(dims), x.ndim))
    if x.dtype.kind != "f" or trailing:
        return np.sum(x, axis=dims, keepdims=True, dtype=x.dtype)
    kept = [d for d in range(x.ndim) if d not in dims]
    rows = np.ascontiguousarray(np.transpose(x, (*kept, *dims)))
    total = np.sum(rows, axis=tuple(range(len(kept), x.ndim)), dtype=x.dtype)
    return total.reshape(reduced_shape(x.shape, dims))


def _first(g: Node, out: Node, x: Node, dims: tuple[int, ...]) -> tuple[Node]:
    """The first of equal winners takes the whole cotangent, as in PyTorch's pooling."""
    ndim, place, below = len(x.shape), None, constant(1, int64)
    for d in reversed(dims):
        along = iota_along(x.shape[d], d, ndim) * below
        place = along if place is None else place + along
        below = below * constant(x.shape[d], int64)
    if place is None:
        return (g,)
    return (el.where(el.eq(place, argmax(x, dims=dims)), g, 0.0),)


sum_: Op = _reduction(
    "sum", _numpy_sum,
    {"int": "({0} + {1})", "float": "acc_add_{t}({0}, {1})"}, lambda t: 0, lambda g, out, x, dims: (g,),
)  # fmt: skip
prod: Op = _reduction(
    "prod", lambda x, dims: np.prod(x, axis=dims, keepdims=True, dtype=x.dtype), "({0} * {1})",
    lambda t: 1, _prod_vjp,
)  # fmt: skip
max_: Op = _reduction(
    "max", lambda x, dims: np.max(x, axis=dims, keepdims=True),
    {"int": "select({1} > {0}, {1}, {0})", "float": "acc_max_{t}({0}, {1})"}, _lowest, _share, empty=False,
)  # fmt: skip
peak: Op = _reduction(
    "peak", lambda x, dims: np.max(x, axis=dims, keepdims=True), max_.lowering.combine, _lowest, _first,
    empty=False,
)  # fmt: skip
min_: Op = _reduction(
    "min", lambda x, dims: np.min(x, axis=dims, keepdims=True),
    {"int": "select({1} < {0}, {1}, {0})", "float": "acc_min_{t}({0}, {1})"}, _highest, _share, empty=False,
)  # fmt: skip
any_: Op = _reduction(
    "any", lambda x, dims: np.any(x, axis=dims, keepdims=True), "({0} | {1})", lambda t: False,
    kinds=("bool",),
)  # fmt: skip
all_: Op = _reduction(
    "all", lambda x, dims: np.all(x, axis=dims, keepdims=True), "({0} & {1})", lambda t: True,
    kinds=("bool",),
)  # fmt: skip


def _arg(function: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's argmax/argmin over several dimensions: the index counts row-major over them."""

    def reference(x: np.ndarray, dims: tuple[int, ...]) -> Any:
        kept = [d for d in range(x.ndim) if d not in dims]
        flat = np.transpose(x, (*kept, *dims)).reshape(
            *(x.shape[d] for d in kept), math.prod(x.shape[d] for d in dims)
        )
        return function(flat, axis=-1).reshape(reduced_shape(x.shape, dims))

    return reference


# The comparison tells whether {1} beats the best so far {0}; a NaN beats every number, the first one stays.
_BEATS = "({1} {symbol} {0}) or (({1} != {1}) and ({0} == {0}))"
argmax: Op = _reduction(
    "argmax", _arg(np.argmax), {"int": "({1} > {0})", "float": _BEATS.replace("{symbol}", ">")},
    _lowest, empty=False, arg=True,
)  # fmt: skip
argmin: Op = _reduction(
    "argmin", _arg(np.argmin), {"int": "({1} < {0})", "float": _BEATS.replace("{symbol}", "<")},
    _highest, empty=False, arg=True,
)  # fmt: skip
