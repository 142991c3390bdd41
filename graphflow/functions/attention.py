"""Attention as one operation, on tensors."""

from __future__ import annotations

from graphflow.compiler.ir import OPS
from graphflow.functions.common import rounded_once
from graphflow.several import apply_several
from graphflow.tensor import Tensor

__all__: list[str] = []


@rounded_once
def attended(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, scale: float, causal: bool
) -> Tensor:
    """``softmax(query @ key.T * scale + mask) @ value`` with no matrix of all weights in memory.

    (..., L, E), (..., S, E) and (..., S, V) give (..., L, V), and dimensions before those broadcast. A mask
    of (..., L, S) is bool, True where a key takes part, or floating point; a query that it leaves no key gets
    zeros. With `causal` query i sees keys 0 to i.
    """
    operands = (query, key, value) if mask is None else (query, key, value, mask)
    return apply_several(OPS["attention"], *operands, scale=scale, causal=causal, fill=None)[0]
