"""Activations that everything uses, and the softmax family."""

from __future__ import annotations

import math
import warnings
from typing import Any

from graphflow import functions as ops
from graphflow.errors import ShapeError
from graphflow.functions.inplace import stored
from graphflow.functions.registry import error, titled, user_level
from graphflow.random import rand
from graphflow.tensor import Tensor

__all__ = ["gelu", "glu", "gumbel_softmax", "log_softmax", "relu", "sigmoid", "softmax", "softmin", "tanh"]


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0)."""
    return written(input, ops.relu(input), inplace)


def written(input: Tensor, result: Tensor, inplace: bool) -> Tensor:
    """`result`, which with `inplace` takes the input's place; DTypeError where its dtype doesn't fit."""
    return stored(input, result, "inplace") if inplace else result


def tanh(input: Tensor) -> Tensor:
    """tanh(x)."""
    return ops.tanh(input)


def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return ops.sigmoid(input)


@titled("GeluBackward0")
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x Φ(x) with the normal distribution function Φ; Hendrycks & Gimpel, arXiv:1606.08415.

    ``approximate="tanh"`` uses 0.5 x (1 + tanh(sqrt(2/π) (x + 0.044715 x³))). ValueError for any other name.
    """
    if approximate == "none":
        share = ops.erf(input * math.sqrt(0.5))
    elif approximate == "tanh":
        share = ops.tanh(math.sqrt(2.0 / math.pi) * (input + 0.044715 * input * input * input))
    else:
        raise error(
            ValueError, "gelu", f"approximate argument must be either none or tanh, got {approximate!r}"
        )
    result: Tensor = input * 0.5 * (1.0 + share)
    return result


def softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`. A row of -inf gives nan, as in PyTorch."""
    return ops.softmax(input, _chosen("softmax", input, dim), dtype)


def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """log(softmax(x)) along `dim`, without overflow. A row of -inf gives nan, as in PyTorch."""
    return ops.log_softmax(input, _chosen("log_softmax", input, dim), dtype)


def softmin(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """``softmax(-input)`` along `dim`."""
    return ops.softmax(-input, _chosen("softmin", input, dim), dtype)


def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """A draw from the Gumbel-softmax distribution along `dim` at temperature `tau`; Jang et al., ICLR 2017.

    With `hard` a one-hot vector whose gradient is that of the soft draw. `eps` has no effect, as in PyTorch.
    """
    # -log(u) of a uniform u in (0, 1] is exponential; its own -log is Gumbel's.
    exponential = -(1.0 - rand(logits.shape, dtype=logits.dtype)).log()
    soft = ops.softmax((logits - exponential.log()) / tau, dim)
    if not hard:
        return soft
    chosen = soft.detach().argmax(dim, keepdim=True)
    positions = ops.arange(soft.shape[dim]).reshape((-1, *(1,) * (soft.ndim - 1 - dim % soft.ndim)))
    one_hot = (positions == chosen).to(soft.dtype)
    result: Tensor = one_hot - soft.detach() + soft
    return result


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """``a * sigmoid(b)`` for the halves a and b of the input along `dim`; Dauphin et al., ICML 2017.

    ShapeError for an odd size.
    """
    if not input.ndim:
        raise error(ShapeError, "glu", "does not support 0-dimensional tensors")
    size = ops.movedim(input, dim, 0).shape[0]
    if isinstance(size, int) and size % 2:
        raise error(ShapeError, "glu", f"Halving dimension must be even, but dimension {dim} is size {size}")
    first, second = input.chunk(2, dim)
    result: Tensor = first * second.sigmoid()
    return result


def _chosen(name: str, input: Tensor, dim: int | None) -> int:
    """`dim`, or without one PyTorch's old choice with a warning."""
    if dim is not None:
        return dim
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include dim=X as an "
        "argument.",
        FutureWarning,
        stacklevel=user_level(),
    )
    return 0 if input.ndim in (0, 1, 3) else 1
