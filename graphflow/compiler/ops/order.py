"""Sorting along the last dimension, and what is found in sorted rows. NaN counts as larger than numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.compiler.ir import BadSample, Node, Op, Sample, TensorType, equal_size, register
from graphflow.compiler.ops.cumulative import require_row
from graphflow.compiler.ops.family import Routine, require_same
from graphflow.dims import Dim
from graphflow.dtypes import ALL, float32, int64
from graphflow.errors import DTypeError, ShapeError

# ---------------------------------------------------------------------------------------------- argsort


def _infer_argsort(x: TensorType, descending: bool) -> TensorType:
    require_row(x)
    return TensorType(int64, x.shape)


def _numpy_argsort(x: np.ndarray, descending: bool) -> Any:
    if x.dtype.itemsize == 2 and not np.issubdtype(x.dtype, np.integer):
        x = x.astype(np.float32)  # NumPy doesn't know where bfloat16's NaN belongs
    if not descending:
        return np.argsort(x, axis=-1, kind="stable")
    # Sorted backwards in a stable way: the last of equal elements comes first, and then all turn round.
    return x.shape[-1] - 1 - np.argsort(x[..., ::-1], axis=-1, kind="stable")[..., ::-1]


def _argsort_body(node: Node) -> str:
    symbol = ">" if node.attrs["descending"] else "<"
    later, earlier = "(u {s} v)".replace("{s}", symbol), ""
    if node.inputs[0].dtype.kind == "float":
        nan = "((u != u) and (v == v))" if node.attrs["descending"] else "((v != v) and (u == u))"
        earlier = f" or {nan}"
    # The element to the right goes first only if it has to: that keeps equal ones in order.
    return f"""
for start in range(0, n, 16):
    stop = minimum_i64(start + 16, n)
    for i in range(start, stop):
        u = x[i]
        j = i
        while j > start:
            v = x[y[j - 1]]
            if {later}{earlier}:
                y[j] = y[j - 1]
                j = j - 1
            else:
                break
        y[j] = i
width = i64(16)
while width < n:
    for start in range(0, n, 2 * width):
        middle = minimum_i64(start + width, n)
        stop = minimum_i64(start + 2 * width, n)
        for i in range(start, middle):
            left[i - start] = y[i]
        i = i64(0)
        j = middle
        k = start
        length = middle - start
        while i < length:
            if j < stop:
                u = x[y[j]]
                v = x[left[i]]
                if {later}{earlier}:
                    y[k] = y[j]
                    j = j + 1
                else:
                    y[k] = left[i]
                    i = i + 1
            else:
                y[k] = left[i]
                i = i + 1
            k = k + 1
    width = width * 2
"""


def _argsort_samples(rng: np.random.Generator) -> list[Sample]:
    found = []
    for dtype in ALL:
        # Each is a kernel of its own, and slow to compile; where nothing is to be sorted, types are alike.
        edges = ((2, 1), (0, 3), (2, 0), (2, 2, 33)) if dtype in (float32, int64) else ()
        for shape in ((3, 5), (70,), *edges):
            values = (rng.integers(0, 9, shape) * 0.5).astype(dtype.numpy)
            if dtype.kind == "float" and dtype.itemsize > 2 and values.size > 9:
                values.flat[::7] = np.nan
            found += [Sample((values,), {"descending": d}, gradient=False) for d in (False, True)]
    return found


argsort: Op = register(Op(
    "argsort", "routine", _infer_argsort, _numpy_argsort, None, _argsort_samples,
    lambda rng: [BadSample((np.ones(()),), {"descending": False}, ShapeError, "at least one dimension")],
    Routine("x[n] -> y[n]", _argsort_body, "left:i64[n]", lambda n: 60), 1,
    "Positions of the elements in order along the last dimension, equal ones in the order they had.",
))  # fmt: skip


# ---------------------------------------------------------------------------------------------- searchsorted


def _infer_searchsorted(row: TensorType, values: TensorType, right: bool) -> TensorType:
    require_row(row)
    require_same((row, values))
    if row.ndim != values.ndim:
        raise ShapeError("the sorted rows and the values need the same number of dimensions")
    batch = tuple(map(equal_size, row.shape[:-1], values.shape[:-1]))
    return TensorType(int64, (*batch, values.shape[-1]))


def _numpy_searchsorted(row: np.ndarray, values: np.ndarray, right: bool) -> Any:
    result = np.zeros(values.shape, np.int64)
    for at in np.ndindex(values.shape[:-1]):
        result[at] = np.searchsorted(row[at], values[at], "right" if right else "left")
    return result


def _searchsorted_body(node: Node) -> str:
    before = "u <= v" if node.attrs["right"] else "u < v"
    if node.inputs[0].dtype.kind == "float":
        before = f"({before}) or ((v != v) and (u == u))" + (" or (v != v)" if node.attrs["right"] else "")
    return f"""
for i in range(0, m):
    v = values[i]
    low = i64(0)
    high = i64(n)
    while low < high:
        middle = (low + high) >> 1
        u = row[middle]
        if {before}:
            low = middle + 1
        else:
            high = middle
    y[i] = low
"""


def _searchsorted_samples(rng: np.random.Generator) -> list[Sample]:
    found = []
    for dtype in ("float32", "float64", "int64", "uint8"):
        for batch, n, m in (((3,), 5, 4), ((), 9, 7), ((2,), 0, 3), ((), 4, 0)):
            row = np.sort(rng.integers(0, 9, (*batch, n)), -1).astype(dtype)
            values = rng.integers(0, 10, (*batch, m)).astype(dtype)
            found += [Sample((row, values), {"right": r}, gradient=False) for r in (False, True)]
    return found


searchsorted: Op = register(Op(
    "searchsorted", "routine", _infer_searchsorted, _numpy_searchsorted, None, _searchsorted_samples,
    lambda rng: [
        BadSample((np.ones(3), np.ones((2, 3))), {"right": False}, ShapeError, "same number of dimensions"),
        BadSample((np.ones(3), np.ones(3, int)), {"right": False}, DTypeError, "different dtypes"),
    ],
    Routine("row[n] values[m] -> y[m]", _searchsorted_body, cost=lambda n: 30), 2,
    "Where the values would have to be inserted into sorted rows, before equal elements or (`right`) behind.",
))  # fmt: skip


# ---------------------------------------------------------------------------------------------- mode


def _infer_mode(x: TensorType, order: TensorType) -> TensorType:
    require_row(x)
    if order.dtype is not int64:
        raise DTypeError(f"the order has to be int64, got {order.dtype}")
    if x.ndim != order.ndim:
        raise ShapeError("the order needs the operand's shape")
    return TensorType(int64, (*tuple(map(equal_size, x.shape, order.shape))[:-1], 1))


_MODE = """
y[0] = i64(0)
best = i64(0)
run = i64(0)
for i in range(0, n):
    u = x[order[i]]
    v = x[order[maximum_i64(i - 1, 0)]]
    if (i > 0) and ((u == v) or ((u != u) and (v != v))):
        run = run + 1
    else:
        run = i64(1)
    if run > best:
        best = run
        y[0] = order[i]
"""


def _numpy_mode(x: np.ndarray, order: np.ndarray) -> Any:
    result = np.zeros((*x.shape[:-1], 1), np.int64)
    for at in np.ndindex(x.shape[:-1]):
        best = run = 0
        for i, place in enumerate(order[at]):
            u, v = x[at][place], x[at][order[at][max(i - 1, 0)]]
            run = run + 1 if i and (u == v or (u != u and v != v)) else 1
            if run > best:
                best, result[at] = run, place
    return result


def _mode_samples(rng: np.random.Generator) -> list[Sample]:
    found = []
    for dtype in ("float32", "int64", "bool"):
        for shape in ((3, 9), (5,), (2, 1), (0, 3)):
            x = rng.integers(0, 4, shape).astype(dtype)
            found.append(Sample((x, np.argsort(x, -1, kind="stable")), gradient=False))
    return found


mode_place: Op = register(Op(
    "mode_place", "routine", _infer_mode, _numpy_mode, None, _mode_samples,
    lambda rng: [
        BadSample((np.ones(3), np.ones(3)), {}, DTypeError, "has to be int64"),
        BadSample((np.ones(3), np.ones((1, 3), int)), {}, ShapeError, "the operand's shape"),
    ],
    Routine("x[n] order[n] -> y[one]", lambda node: _MODE), 2,
    "A position of the smallest of the most frequent elements along the last dimension, given their order.",
))  # fmt: skip


# ---------------------------------------------------------------------------------------------- last places


def _infer_last_places(index: TensorType, size: int | Dim) -> TensorType:
    require_row(index)
    if index.dtype is not int64:
        raise DTypeError(f"the index has to be int64, got {index.dtype}")
    return TensorType(int64, (*index.shape[:-1], size))


def _numpy_last_places(index: np.ndarray, size: int) -> Any:
    result = np.full((*index.shape[:-1], size), -1, np.int64)
    for at in np.ndindex(index.shape[:-1]):
        for j, place in enumerate(index[at]):
            result[at][place] = j
    return result


_LAST_PLACES = """
for i in range(0, n):
    y[i] = i64(-1)
for j in range(0, m):
    y[index[j]] = j
"""


last_places: Op = register(Op(
    "last_places", "routine", _infer_last_places, _numpy_last_places, None,
    lambda rng: [
        Sample((rng.integers(0, n, s),), {"size": n}, gradient=False)
        for s, n in (((7,), 5), ((2, 3), 9), ((0,), 3), ((4, 1), 1))
    ],
    lambda rng: [BadSample((np.ones(3),), {"size": 4}, DTypeError, "has to be int64")],
    Routine("index[m] -> y[n]", lambda node: _LAST_PLACES), 1,
    "For each of 0 … size-1 the last position along the last dimension where the index has it, or -1. The "
    "index must be within that range.",
))  # fmt: skip
