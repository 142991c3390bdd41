"""Dropping elements at random."""

from __future__ import annotations

from graphflow import functions as ops
from graphflow.errors import ShapeError
from graphflow.functions.common import tensor_arg
from graphflow.functions.registry import error
from graphflow.random import rand
from graphflow.tensor import Tensor

__all__ = ["dropout", "dropout1d", "dropout2d", "dropout3d"]


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """While `training`, zeros each element with probability `p` and divides the others by 1-p.

    Srivastava et al., JMLR 2014, in the inverted form: nothing is scaled in evaluation. The draw comes from
    graphflow's generator (``manual_seed``). ValueError unless 0 <= p <= 1.
    """
    if not 0 <= p <= 1:
        raise error(ValueError, "dropout", f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0:
        return input
    return _dropped(input, p, inplace, tuple(input.shape))


def _dropped(input: Tensor, p: float, inplace: bool, shape: tuple[int, ...]) -> Tensor:
    """`input` with elements dropped by one draw of `shape`, broadcast."""
    result: Tensor
    if p == 1:
        result = input * 0.0
    else:
        kept = rand(shape) >= p
        result = ops.where(kept, input * (1.0 / (1.0 - p)), 0.0)
    if inplace:
        result = input.copy_(result)
    return result


def _channels(
    name: str, rank: int, input: Tensor, p: float, training: bool, inplace: bool, batched: bool
) -> Tensor:
    """Drops whole channels of (N, C, ...), or of (C, ...) where there is no batch."""
    t = tensor_arg(input, name)
    if not 0 <= p <= 1:
        raise error(ValueError, name, f"dropout probability has to be between 0 and 1, but got {p}")
    if t.ndim not in (rank + 1, rank + 2):
        raise error(
            ShapeError, name,
            f"expected {rank + 1}D or {rank + 2}D input, but received a {t.ndim}D input {t.type_}",
        )  # fmt: skip
    if not training or p == 0:
        return input
    kept = 2 if batched or t.ndim == rank + 2 else 1
    return _dropped(t, p, inplace, (*t.shape[:kept], *(1,) * (t.ndim - kept)))


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels of (N, C, L) or (C, L)."""
    return _channels("dropout1d", 1, input, p, training, inplace, False)


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels of (N, C, H, W); three dimensions are (N, C, L), as in PyTorch."""
    return _channels("dropout2d", 2, input, p, training, inplace, True)


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """`dropout` of whole channels of (N, C, D, H, W) or (C, D, H, W)."""
    return _channels("dropout3d", 3, input, p, training, inplace, False)
