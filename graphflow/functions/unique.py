"""Functions whose result's size depends on values: computed at once, and an error while tracing."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.compiler.ir import OPS
from graphflow.compiler.trace import current_trace
from graphflow.dtypes import float64, int64
from graphflow.errors import DTypeError, ShapeError, TraceError
from graphflow.functions.common import cast, dim_arg, of_array, pinned, tensor_arg
from graphflow.functions.registry import error, public
from graphflow.sizes import unwrap
from graphflow.tensor import Tensor, apply

__all__ = ["bincount", "unique", "unique_consecutive"]


def _values(input: Any, name: str) -> np.ndarray:
    t = tensor_arg(input, name)
    if t.is_traced or current_trace() is not None:
        raise error(
            TraceError,
            name,
            "the result's size depends on values, which a compiled function can't have; call it outside",
        )
    return t.detach().numpy()


def _wanted(values: Tensor, inverse: Tensor | None, counts: Tensor | None) -> Any:
    found = tuple(part for part in (values, inverse, counts) if part is not None)
    return found if len(found) > 1 else values


@public()
def unique(
    input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
    dim: int | None = None,
) -> Any:  # fmt: skip
    """The distinct elements in order, or with `dim` the distinct slices along it.

    With `return_inverse` also where each element went, with `return_counts` how many there were. Not while
    tracing.
    """
    x = _values(input, "unique")
    axis = None if dim is None else dim_arg(dim, x.ndim, "unique")
    values, inverse, counts = np.unique(
        x, return_inverse=True, return_counts=True, axis=axis, equal_nan=False
    )
    where = of_array(inverse.reshape(x.shape if axis is None else x.shape[axis]).astype(np.int64))
    return _wanted(
        of_array(values.astype(x.dtype)),
        where if return_inverse else None,
        of_array(counts.astype(np.int64)) if return_counts else None,
    )


@public()
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """The first of every run of equal elements, or with `dim` of equal slices along it. Not while tracing."""
    x = _values(input, "unique_consecutive")
    axis = 0 if dim is None else dim_arg(dim, x.ndim, "unique_consecutive")
    rows = x.reshape(-1) if dim is None else np.moveaxis(x, axis, 0)
    flat = rows.reshape(len(rows), -1) if rows.size else np.zeros((len(rows), 1))
    starts = np.ones(len(rows), bool)
    starts[1:] = (flat[1:] != flat[:-1]).any(1)
    places = np.flatnonzero(starts)
    inverse = np.cumsum(starts) - 1
    counts = np.diff(np.append(places, len(rows)))
    values = rows[places] if dim is None else np.moveaxis(rows[places], 0, axis)
    where = inverse.reshape(x.shape) if dim is None else inverse
    return _wanted(
        of_array(np.ascontiguousarray(values)),
        of_array(where.astype(np.int64)) if return_inverse else None,
        of_array(counts.astype(np.int64)) if return_counts else None,
    )


@public()
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each number 0, 1, … occurs in a vector of integers, or the sums of their `weights`.

    The result is as long as the largest number needs, at least `minlength`; so not while tracing.
    """
    x = _values(input, "bincount")
    t = tensor_arg(input, "bincount")
    least = pinned(unwrap(minlength), "minlength")
    if t.dtype.kind != "int":
        raise error(DTypeError, "bincount", f"expects integers, got {t.type_}")
    if x.ndim != 1 or (x.size and x.min() < 0):
        raise error(
            ShapeError, "bincount", f"expects a vector of numbers that aren't negative, got {t.type_}"
        )
    if least < 0:
        raise error(ShapeError, "bincount", f"minlength can't be negative, got {least}")
    size = max(least, int(x.max()) + 1 if x.size else 0)
    if weights is None:
        return of_array(np.bincount(x, minlength=size).astype(np.int64))
    w = tensor_arg(weights, "bincount", "weights")
    if w.type_.shape != t.type_.shape:
        raise error(ShapeError, "bincount", f"weights {w.type_} need the shape of {t.type_}")
    w = w if w.dtype.kind == "float" else cast(w, float64)
    return apply(OPS["put_add"], w, cast(t, int64), dim=0, size=size)
