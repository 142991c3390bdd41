"""Max pooling partly undone: maxima put back where they were found, zeros elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphflow import functions as ops
from graphflow.errors import ShapeError
from graphflow.functions.common import pinned
from graphflow.functions.registry import error
from graphflow.nn.functional.spatial import batched, ints
from graphflow.tensor import Tensor

__all__ = ["max_unpool1d", "max_unpool2d", "max_unpool3d"]

Numbers = int | Sequence[int]


def _max_unpool(
    name: str, n: int, input: Any, indices: Any, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Tensor:
    t, had_batch = batched(input, n, name)
    places, _ = batched(indices, n, name)
    if places.dtype.kind != "int" or tuple(places.shape) != tuple(t.shape):
        raise error(
            ShapeError,
            name,
            f"indices are int64 of the input's shape {tuple(t.shape)}, got {places.dtype} "
            f"{tuple(places.shape)}",
        )
    kernel = ints(kernel_size, n, name, "kernel_size")
    strides = kernel if stride is None else ints(stride, n, name, "stride")
    borders = ints(padding, n, name, "padding")
    sizes = [pinned(size, f"{name} along its last dimensions") for size in t.type_.shape[2:]]
    usual = [(s - 1) * d - 2 * b + k for s, d, b, k in zip(sizes, strides, borders, kernel, strict=True)]
    wanted = usual if output_size is None else [int(s) for s in output_size][-n:]
    if len(wanted) != n or any(abs(w - u) >= d for w, u, d in zip(wanted, usual, strides, strict=True)):
        raise error(
            ValueError, name, f"output_size has to be within a stride of {tuple(usual)}, got {output_size}"
        )
    flat = ops.flatten(places, 2)
    room = ops.zeros(t.shape[0], t.shape[1], math.prod(wanted), dtype=t.dtype)
    made: Tensor = ops.scatter(room, 2, flat, ops.flatten(t, 2))
    made = ops.reshape(made, (*t.shape[:2], *wanted))
    return made if had_batch else made.squeeze(0)


def max_unpool1d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """`max_unpool2d` for (N, C, L) or (C, L)."""
    return _max_unpool("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """The maxima (N, C, H, W) or (C, H, W) of `max_pool2d` at the positions it gave with ``return_indices``;
    zeros elsewhere. `output_size` is the pooled signal's, where windows didn't fit evenly.
    """
    return _max_unpool("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor,
    indices: Tensor,
    kernel_size: Numbers,
    stride: Numbers | None = None,
    padding: Numbers = 0,
    output_size: Sequence[int] | None = None,
) -> Tensor:
    """`max_unpool2d` for (N, C, D, H, W) or (C, D, H, W)."""
    return _max_unpool("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)
