"""Grids, blocks and pieces: functions made of joining, splitting and reading at positions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.compiler.ir import OPS
from graphflow.compiler.trace import current_trace
from graphflow.errors import DTypeError, ShapeError, TraceError
from graphflow.functions.arguments import fits, misfit
from graphflow.functions.arrange import cat, flip, promoted_all, sliced, stack
from graphflow.functions.common import (
    axis_arg,
    copied,
    dim_arg,
    expanded,
    of_array,
    pinned,
    reshaped,
    tensor_arg,
)
from graphflow.functions.registry import error, public
from graphflow.functions.shape import flatten, permuted
from graphflow.sizes import SymbolicSize, unwrap
from graphflow.tensor import Tensor, apply

__all__ = [
    "atleast_1d", "atleast_2d", "atleast_3d", "block_diag", "cartesian_prod", "column_stack",
    "combinations", "dsplit", "dstack", "fliplr", "flipud", "hsplit", "meshgrid", "repeat_interleave",
    "rot90", "tensor_split", "vsplit",
]  # fmt: skip


def _several(tensors: Any) -> list[Any]:
    return list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else list(tensors)


@public(method=False)
def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Each vector repeated over a grid of all; `indexing` is 'ij' (rows first, the default) or 'xy'."""
    if indexing not in (None, "ij", "xy"):
        raise error(ShapeError, "meshgrid", f"indexing is 'ij' or 'xy', not {indexing!r}")
    found = [tensor_arg(t, "meshgrid", "tensors") for t in _several(tensors)]
    found = [reshaped(t, (1,)) if not t.ndim else t for t in found]
    if not found or any(t.ndim != 1 for t in found):
        raise error(ShapeError, "meshgrid", "expects at least one vector, and vectors only")
    order = list(range(len(found)))
    if indexing == "xy" and len(found) > 1:
        order[:2] = [1, 0]
    shape = tuple(found[i].type_.shape[0] for i in order)
    return tuple(
        expanded(reshaped(t, tuple(t.type_.shape[0] if i == n else 1 for i in order)), shape)
        for n, t in enumerate(found)
    )


def _at_least(name: str, rank: int, tensors: tuple[Any, ...]) -> Any:
    found = []
    for value in _several(tensors):
        t = tensor_arg(value, name, "tensors")
        shape = t.type_.shape
        if rank == 3 and t.ndim < 3:
            shape = {0: (1, 1, 1), 1: (1, *shape, 1), 2: (*shape, 1)}[t.ndim]
        else:
            shape = (*(1,) * (rank - t.ndim), *shape)
        found.append(t if shape == t.type_.shape else reshaped(t, shape))
    single = len(tensors) == 1 and isinstance(tensors[0], (Tensor, np.ndarray))
    return found[0] if single else tuple(found)


@public(method=False)
def atleast_1d(*tensors: Any) -> Any:
    """Tensors with at least one dimension."""
    return _at_least("atleast_1d", 1, tensors)


@public(method=False)
def atleast_2d(*tensors: Any) -> Any:
    """Tensors with at least two dimensions; new ones come in front."""
    return _at_least("atleast_2d", 2, tensors)


@public(method=False)
def atleast_3d(*tensors: Any) -> Any:
    """Tensors with at least three dimensions, as NumPy and PyTorch add them."""
    return _at_least("atleast_3d", 3, tensors)


@public(method=False)
def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined along the third dimension."""
    return cat([atleast_3d(t) for t in promoted_all("dstack", tensors)], 2)


@public(method=False)
def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined along the second dimension, 1-d ones as columns."""
    found = promoted_all("column_stack", tensors)
    return cat([t if t.ndim > 1 else reshaped(flatten(t), (*flatten(t).type_.shape, 1)) for t in found], 1)


@public(method=False)
def block_diag(*tensors: Tensor) -> Tensor:
    """The matrix with matrices along its diagonal, zeros elsewhere."""
    found = [atleast_2d(t) for t in promoted_all("block_diag", _several(tensors))]
    if any(t.ndim != 2 for t in found):
        raise error(ShapeError, "block_diag", "expects tensors of at most two dimensions")
    rows = sum(pinned(t.type_.shape[0], "block_diag") for t in found)
    columns = sum(pinned(t.type_.shape[1], "block_diag") for t in found)
    total: Tensor | None = None
    row = column = 0
    for t in found:
        placed = apply(OPS["pad"], t, shape=(rows, columns), starts=(row, column), steps=(1, 1))
        total = placed if total is None else apply(OPS["add"], total, placed)
        row, column = row + int(t.shape[0]), column + int(t.shape[1])
    assert total is not None
    return total


@public(method=False)
def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of the vectors' elements, one a row."""
    found = [tensor_arg(t, "cartesian_prod", "tensors") for t in _several(tensors)]
    for t in found:
        if t.ndim != 1:
            raise error(ShapeError, "cartesian_prod", f"expects vectors, got {t.type_}")
    if len(found) == 1:
        return copied(found[0])
    return stack([flatten(t) for t in meshgrid(*found)], 1)


@public()
def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of `r` elements of a vector, in their order, one a row."""
    t = tensor_arg(input, "combinations")
    if t.ndim != 1:
        raise error(ShapeError, "combinations", f"expects a vector, got {t.type_}")
    if r < 0:
        raise error(ShapeError, "combinations", f"expects an r that isn't negative, got {r}")
    if r == 0:
        return apply(OPS["slice"], t, starts=(0,), steps=(1,), sizes=(0,))
    size = pinned(t.type_.shape[0], "combinations")
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    places = np.array(list(choose(range(size), r)), np.int64).reshape(-1, r)
    return apply(OPS["take"], t, of_array(places), dim=0)


@public()
def fliplr(input: Tensor) -> Tensor:
    """Elements in reverse order along the second dimension."""
    return flip(tensor_arg(input, "fliplr"), 1)


@public()
def flipud(input: Tensor) -> Tensor:
    """Elements in reverse order along the first dimension."""
    t = tensor_arg(input, "flipud")
    return flip(t, axis_arg(0, t, "flipud"))


@public()
def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """`k` quarter turns in the plane of two dimensions, from the first towards the second."""
    t = tensor_arg(input, "rot90")
    if len(dims) != 2:
        raise error(ShapeError, "rot90", f"expects two dimensions, got {tuple(dims)}")
    a, b = (dim_arg(d, t.ndim, "rot90") for d in dims)
    if a == b:
        raise error(ShapeError, "rot90", f"expects two different dimensions, got {tuple(dims)}")
    turns = k % 4
    if turns in (0, 2):
        return flip(t, a, b) if turns else copied(t)
    order = list(range(t.ndim))
    order[a], order[b] = b, a
    return permuted(flip(t, b), order) if turns == 1 else flip(permuted(t, order), b)


@public()
def repeat_interleave(
    input: Tensor, repeats: Any, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Every element (or slice along `dim`) `repeats` times over: a number, or one for each of them.

    While tracing, `repeats` has to be a number, because sizes can't depend on values.
    """
    t = tensor_arg(input, "repeat_interleave")
    axis = 0 if dim is None else dim_arg(dim, t.ndim, "repeat_interleave")
    t = flatten(t) if dim is None or not t.ndim else t
    shape = t.type_.shape
    if isinstance(repeats, (int, SymbolicSize)):
        count = unwrap(repeats)
        if isinstance(count, int) and count < 0:
            raise error(ShapeError, "repeat_interleave", f"repeats can't be negative, got {count}")
        column = reshaped(t, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
        wide = expanded(column, (*shape[: axis + 1], count, *shape[axis + 1 :]))
        return copied(reshaped(wide, (*shape[:axis], shape[axis] * count, *shape[axis + 1 :])))
    counts = tensor_arg(repeats, "repeat_interleave", "repeats")
    if counts.is_traced or current_trace() is not None:
        raise error(
            TraceError, "repeat_interleave", "the result's size depends on values; pass repeats as a number"
        )
    size = pinned(shape[axis], "repeat_interleave")
    if counts.ndim > 1:
        raise error(ShapeError, "repeat_interleave", f"repeats has to be 0-d or 1-d, got {counts.type_}")
    given = counts.numpy().reshape(-1)
    if counts.dtype.kind != "int" or given.size not in (1, size) or (given < 0).any():
        raise error(
            ShapeError, "repeat_interleave",
            f"repeats has to be {size} integers that aren't negative, got {counts.type_}",
        )  # fmt: skip
    places = np.repeat(np.arange(size), given)
    return apply(OPS["take"], t, of_array(places.astype(np.int64)), dim=axis)


# ---------------------------------------------------------------------------------------------- splitting


@public()
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces along `dim`: as many as given, the first ones larger by one, or those between positions."""
    t = tensor_arg(input, "tensor_split")
    axis = dim_arg(dim, t.ndim, "tensor_split")
    if not t.ndim:
        raise error(ShapeError, "tensor_split", "expects at least one dimension")
    size = pinned(t.type_.shape[axis], "splitting a dimension")
    if isinstance(indices_or_sections, Tensor):
        if indices_or_sections.dtype.kind != "int" or indices_or_sections.ndim > 1:
            raise error(
                DTypeError, "tensor_split",
                "indices or sections in a tensor are int64 and 0-d or 1-d, got "
                f"{indices_or_sections.type_}",
            )  # fmt: skip
        indices_or_sections = indices_or_sections.tolist()
    if not fits(indices_or_sections, int | Sequence[int]):
        raise misfit("tensor_split", "indices_or_sections", int | Sequence[int], indices_or_sections)
    if isinstance(indices_or_sections, int):
        count = indices_or_sections
        if count < 1:
            raise error(ShapeError, "tensor_split", f"the number of sections has to be positive, got {count}")
        small, larger = divmod(size, count)
        cuts = list(itertools.accumulate([small + 1] * larger + [small] * (count - larger)))[:-1]
    else:
        cuts = [slice(None, int(c)).indices(size)[1] for c in indices_or_sections]
    ends = [0, *cuts, size]
    return tuple(sliced(t, axis, a, max(b - a, 0)) for a, b in itertools.pairwise(ends))


def _split(name: str, input: Any, given: Any, dim: int, least: int) -> tuple[Tensor, ...]:
    t = tensor_arg(input, name)
    if t.ndim < least:
        raise error(ShapeError, name, f"expects at least {least} dimensions, got {t.type_}")
    size = t.type_.shape[dim]
    if isinstance(given, int) and (given < 1 or pinned(size, name) % given):
        raise error(ShapeError, name, f"dimension {dim} of {t.type_} doesn't split into {given} equal pieces")
    return tensor_split(t, given, dim)


@public()
def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` into equal pieces or at positions along the second dimension (the first of a vector)."""
    return _split("hsplit", input, indices_or_sections, 0 if tensor_arg(input, "hsplit").ndim == 1 else 1, 1)


@public()
def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` into equal pieces or at positions along the first dimension."""
    return _split("vsplit", input, indices_or_sections, 0, 2)


@public()
def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` into equal pieces or at positions along the third dimension."""
    return _split("dsplit", input, indices_or_sections, 2, 3)
