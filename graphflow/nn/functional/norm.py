"""Normalisation by statistics of each sample alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphflow.errors import ShapeError
from graphflow.functions.arguments import fits, misfit
from graphflow.functions.registry import error, titled
from graphflow.nn.functional.precision import widened
from graphflow.nn.functional.reduction import sizes_differ
from graphflow.tensor import Tensor

__all__ = ["group_norm", "layer_norm", "rms_norm"]

_EPS = {"float32": 2.0**-23, "float64": 2.0**-52}


@titled("NativeLayerNormBackward0")
def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over the last dimensions, which are `normalized_shape`; then times `weight`, plus
    `bias`, both of that shape. Ba et al., arXiv:1607.06450. `eps` is added to the variance.
    """
    dims = _last(input, normalized_shape, "layer_norm")
    _require_shape("layer_norm", "weight", weight, normalized_shape)
    _require_shape("layer_norm", "bias", bias, normalized_shape)
    return _affine(_normalised(widened(input), dims, eps), weight, bias, input)


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """The input divided by its root mean square over the last dimensions, then times `weight`.

    Zhang & Sennrich, NeurIPS 2019. `eps`, added to the mean square, is the epsilon of what is computed in for
    None: float32's also for 16 bits.
    """
    dims = _last(input, normalized_shape, "rms_norm")
    _require_shape("rms_norm", "weight", weight, normalized_shape)
    x = widened(input)
    square = (x * x).mean(dims, keepdim=True)
    return _affine(x * (square + (_EPS[x.dtype.name] if eps is None else eps)).rsqrt(), weight, None, input)


@titled("NativeGroupNormBackward0")
def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over each of `num_groups` groups of channels of (N, C, ...) and all positions.

    `weight` and `bias` are (C,). Wu & He, ECCV 2018. ShapeError when the groups don't divide the channels.
    """
    if input.ndim < 2:
        raise error(
            ShapeError,
            "group_norm",
            f"Expected at least 2 dimensions for input tensor but received {input.ndim}",
        )
    if num_groups <= 0:
        raise error(ShapeError, "group_norm", f"Expected num groups to be greater than 0, got {num_groups}")
    channels = input.shape[1]
    if channels % num_groups:
        raise error(
            ShapeError,
            "group_norm",
            "Expected number of channels in input to be divisible by num_groups, but got input of shape "
            f"{list(input.shape)} and num_groups={num_groups}",
        )
    _require_shape("group_norm", "weight", weight, (channels,))
    _require_shape("group_norm", "bias", bias, (channels,))
    # (N, group, channel in the group, position) to the end, so that all of it is one pass over rows.
    sizes = (num_groups, channels // num_groups)
    split = widened(input).reshape((input.shape[0], *sizes, math.prod(input.shape[2:])))
    groups = _normalised(split, (-2, -1), eps)
    scale, shift = (None if t is None else t.reshape((*sizes, 1)) for t in (weight, bias))
    result: Tensor = _affine(groups, scale, shift, input).reshape(input.shape)
    return result


def _normalised(input: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    centred = input - input.mean(dims, keepdim=True)
    variance = (centred * centred).mean(dims, keepdim=True)
    result: Tensor = centred * (variance + eps).rsqrt()
    return result


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None, like: Tensor) -> Tensor:
    """`x` scaled and shifted, in the dtype of `like`."""
    scaled = x if weight is None else x * weight
    result: Tensor = (scaled if bias is None else scaled + bias).to(like.dtype)
    return result


def _last(input: Tensor, normalized_shape: Sequence[int], name: str) -> tuple[int, ...]:
    """The last dimensions, counted from the end, after their sizes were compared."""
    if not fits(normalized_shape, Sequence[int]):
        raise misfit(name, "normalized_shape", Sequence[int], normalized_shape)
    wanted = tuple(normalized_shape)
    if not wanted:
        raise error(ShapeError, name, "Expected normalized_shape to be at least 1-dimensional")
    found = tuple(input.shape[-len(wanted) :])
    if len(found) != len(wanted) or any(map(sizes_differ, found, wanted)):
        raise error(
            ShapeError,
            name,
            f"Given normalized_shape={list(wanted)}, expected input with shape "
            f"[*, {', '.join(map(str, wanted))}], but got input of size {list(input.shape)}",
        )
    return tuple(range(-len(wanted), 0))


def _require_shape(function: str, name: str, t: Tensor | None, shape: Sequence[int]) -> None:
    if t is not None and tuple(t.shape) != tuple(shape):
        raise error(
            ShapeError, function, f"Expected {name} to be of shape {list(shape)}, but got {list(t.shape)}"
        )
