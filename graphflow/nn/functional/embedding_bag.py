"""Rows of a table, looked up by number and reduced bag by bag."""

from __future__ import annotations

import math

from graphflow import functions as ops
from graphflow.errors import ShapeError
from graphflow.functions.registry import error
from graphflow.nn.functional.embedding import embedding
from graphflow.nn.functional.reduction import differ
from graphflow.tensor import Tensor

__all__ = ["embedding_bag"]

_MODES = ("sum", "mean", "max")


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """`embedding` of each bag of integers, reduced by `mode` "sum", "mean" or "max": (bags, size).

    `input` is (bags, n), or (total,) with `offsets` (bags,), where each bag begins; with
    `include_last_offset` the total stands at their end, too. Entries `padding_idx` don't count, empty bags
    give zeros. `per_sample_weights`, shaped as the input, scale rows of a sum. With offsets a maximum takes
    memory for bags times total rows. As ``torch.nn.functional.embedding_bag``.
    """
    _check(input, offsets, mode, per_sample_weights)
    rows = embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    counted = ops.ones_like(input).bool() if padding_idx is None else input != padding_idx % weight.shape[0]
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    if offsets is None:
        return _reduced(rows, counted, mode)
    starts = offsets[:-1] if include_last_offset else offsets
    bags = ops.searchsorted(starts.long(), ops.arange(input.shape[0]), right=True) - 1
    if mode == "max":
        inside = (bags == ops.arange(starts.shape[0]).unsqueeze(-1)) & counted
        return _reduced(rows.unsqueeze(0), inside, mode)
    return _summed(rows, counted, bags, starts.shape[0], mode)


def _summed(rows: Tensor, counted: Tensor, bags: Tensor, count: int, mode: str) -> Tensor:
    kept = ops.where(counted.unsqueeze(-1), rows, 0.0)
    total: Tensor = ops.zeros((count, rows.shape[-1]), dtype=rows.dtype).index_add(0, bags, kept)
    if mode == "mean":
        sizes = ops.zeros((count,), dtype=rows.dtype).index_add(0, bags, counted.to(rows.dtype))
        total = total / sizes.clamp(min=1).unsqueeze(-1)
    return total


def _reduced(rows: Tensor, counted: Tensor, mode: str) -> Tensor:
    """Over dimension 1 of (bags, n, size), where `counted` (bags, n) says so."""
    kept = counted.unsqueeze(-1)
    if mode == "max":
        largest = ops.where(kept, rows, -math.inf).amax(1)
        return ops.where(kept.any(1), largest, 0.0)
    total: Tensor = ops.where(kept, rows, 0.0).sum(1)
    if mode == "mean":
        total = total / kept.to(rows.dtype).sum(1).clamp(min=1)
    return total


def _check(input: Tensor, offsets: Tensor | None, mode: str, weights: Tensor | None) -> None:
    name = "embedding_bag"
    if mode not in _MODES:
        raise error(ValueError, name, f"mode has to be one of sum, mean or max, got {mode!r}")
    if input.ndim == 2 and offsets is not None:
        raise error(
            ValueError,
            name,
            "if input is 2D, then offsets has to be None, as input is treated as a mini-batch of fixed "
            "length sequences",
        )
    if input.ndim not in (1, 2):
        raise error(
            ShapeError, name, f"input has to be 1D or 2D Tensor, but got Tensor of dimension {input.ndim}"
        )
    if input.ndim == 1 and (offsets is None or offsets.ndim != 1):
        raise error(ValueError, name, "offsets has to be a 1D Tensor for a 1D input")
    if weights is not None and mode != "sum":
        raise error(
            ValueError, name, f"per_sample_weights is only supported for mode='sum', got mode='{mode}'"
        )
    if weights is not None and differ(input, weights):
        raise error(
            ShapeError,
            name,
            f"per_sample_weights of shape {tuple(weights.shape)} need the input's, {tuple(input.shape)}",
        )
