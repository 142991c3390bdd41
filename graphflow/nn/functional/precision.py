"""Where 16 bits aren't enough between the first and the last operation of a function."""

from __future__ import annotations

from graphflow.tensor import Tensor


def widened(x: Tensor) -> Tensor:
    """`x`, as float32 if it has 16 bits: their squares and sums overflow or lose what they measure."""
    return x.float() if x.dtype.name in ("float16", "bfloat16") else x
