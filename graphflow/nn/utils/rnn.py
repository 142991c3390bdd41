"""Sequences of different lengths in one tensor."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow import functions as ops
from graphflow.tensor import Tensor


def pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:  # fmt: skip
    """Tensors (L_i, *) filled up to the longest and stacked: (L, N, *), or with `batch_first` (N, L, *).

    TypeError unless `sequences` are tensors, ValueError for none, for sizes that differ after the first
    dimension, and for a `padding_side` other than left and right. Gradients flow through.
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f"pad_sequence: padding_side is 'left' or 'right', not {padding_side!r}")
    tensors = list(sequences)
    if not all(isinstance(t, Tensor) and t.ndim for t in tensors):
        raise TypeError("pad_sequence: expected tensors of at least one dimension")
    if not tensors:
        raise ValueError("pad_sequence: received an empty list of sequences")
    first = tensors[0]
    rest = first.shape[1:]
    for t in tensors:
        if t.shape[1:] != rest:
            raise ValueError(f"pad_sequence: sizes after the first differ: {t.shape} beside {first.shape}")
    longest = max(int(t.shape[0]) for t in tensors)
    padded = [_padded(t, longest, padding_value, padding_side == "left") for t in tensors]
    return ops.stack(padded, 0 if batch_first else 1)


def _padded(t: Tensor, length: int, value: float, left: bool) -> Tensor:
    missing = length - int(t.shape[0])
    if not missing:
        return t
    filler = ops.full((missing, *t.shape[1:]), value, dtype=t.dtype)
    return ops.cat((filler, t) if left else (t, filler), 0)
