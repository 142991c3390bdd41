"""Lengths of vectors and distances between them."""

from __future__ import annotations

from graphflow import functions as ops
from graphflow.tensor import Tensor

__all__ = ["cosine_similarity", "normalize", "pairwise_distance"]


def normalize(
    input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    """`input` divided by its p-norm along `dim`, which is taken for at least `eps`."""
    length = input.norm(p, dim, keepdim=True).clamp(min=eps)
    result: Tensor = input / length
    return result if out is None else out.copy_(result)


def _at_least(length: Tensor, eps: float) -> Tensor:
    """Held at `eps` without the gradient knowing, as PyTorch does it."""
    held: Tensor = length + (length.clamp(min=eps) - length).detach()
    return held


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between vectors along `dim`; lengths are taken for at least `eps`.

    Broadcasts; the result lacks `dim`.
    """
    x1, x2 = (x if x.is_floating_point() else x.to(ops.result_type(x1, x2)) for x in (x1, x2))
    one, two = (x / _at_least(x.norm(2, dim, keepdim=True), eps) for x in ops.broadcast_tensors(x1, x2))
    result: Tensor = (one * two).sum(dim)
    return result


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The p-norm of ``x1 - x2 + eps`` along the last dimension; `eps` keeps the gradient finite."""
    result: Tensor = (x1 - x2 + eps).norm(p, -1, keepdim=keepdim)
    return result
