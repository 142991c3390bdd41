"""Normalisation by statistics of a batch, of each image's channels, and of neighbouring channels."""

from __future__ import annotations

from typing import Any

from graphflow import functions as ops
from graphflow.dims import product
from graphflow.dtypes import bfloat16, float16, float32
from graphflow.errors import ShapeError
from graphflow.functions.common import at_least, of_size, pinned, tensor_arg
from graphflow.functions.registry import error, titled
from graphflow.functions.window import filled, windows
from graphflow.nn.functional.spatial import Extent, in_single, same_dtype, sizes_text
from graphflow.tensor import Tensor, no_grad

__all__ = ["batch_norm", "instance_norm", "local_response_norm"]

Momentum = float | Tensor
_SINGLE = (float16, bfloat16, float32)


@titled("NativeBatchNormBackward0")
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: Momentum = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias for each channel of (N, C, ...); Ioffe & Szegedy, 2015.

    While `training`, mean and (biased) variance are those of the batch, and the running ones, where given,
    move in place by `momentum` towards the batch's mean and unbiased variance; else the running ones are
    used. All other tensors are (C,). ValueError for one value a channel while training, ShapeError and
    DTypeError for tensors that don't fit. As ``torch.nn.functional.batch_norm``.
    """
    name = "batch_norm"
    t = tensor_arg(input, name)
    if t.ndim < 2:
        raise error(ShapeError, name, f"expected at least 2D input (N, C, ...), got {t.type_}")
    _check_vectors(name, t, running_mean, running_var, weight, bias)
    given, t = t, in_single(t)
    weight, bias = (None if v is None else in_single(v) for v in (weight, bias))
    dims = (0, *range(2, t.ndim))
    if not training:
        return _by_running(name, t, running_mean, running_var, weight, bias, eps).to(given.dtype)  # type: ignore[no-any-return]
    count = product(t.type_.shape[d] for d in dims)
    if not at_least(count, 2):
        if at_least(count, 1):
            raise error(
                ValueError, name,
                "expected more than 1 value per channel when training, got input size "
                f"{sizes_text(t.type_.shape)}",
            )  # fmt: skip
        return _affine(t, weight, bias).to(given.dtype)  # type: ignore[no-any-return]  # nothing to learn from
    mean, var, centred = _moments(t, dims, count)
    if running_mean is not None:
        _move(running_mean, mean.reshape(-1), momentum)
    if running_var is not None:
        _move(running_var, var.reshape(-1) * _unbiased(count, t), momentum)
    return _affine(centred * ops.rsqrt(var + eps), weight, bias).to(given.dtype)  # type: ignore[no-any-return]


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: Momentum = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`batch_norm` with mean and variance of each sample's channels of (N, C, ...) by themselves.

    Running statistics, where given, move towards the samples' mean; they are used without `use_input_stats`.
    As ``torch.nn.functional.instance_norm``; Ulyanov et al., arXiv:1607.08022.
    """
    name = "instance_norm"
    t = tensor_arg(input, name)
    if t.ndim < 3 and use_input_stats:
        raise error(ShapeError, name, f"expected at least 3D input (N, C, ...), got {t.type_}")
    _check_vectors(name, t, running_mean, running_var, weight, bias)
    given, t = t, in_single(t)
    weight, bias = (None if v is None else in_single(v) for v in (weight, bias))
    if not use_input_stats:
        return _by_running(name, t, running_mean, running_var, weight, bias, eps).to(given.dtype)  # type: ignore[no-any-return]
    count = product(t.type_.shape[2:])
    if not at_least(count, 2):
        raise error(
            ValueError, name,
            "expected more than 1 spatial element when training, got input size "
            f"{sizes_text(t.type_.shape)}",
        )  # fmt: skip
    mean, var, centred = _moments(t, tuple(range(2, t.ndim)), count)
    if (running_mean is not None or running_var is not None) and at_least(t.type_.shape[0], 1):
        channels = t.type_.shape[1]
        if running_mean is not None:
            _move(running_mean, mean.reshape(-1, channels).mean(0), momentum)
        if running_var is not None:
            _move(running_var, var.reshape(-1, channels).mean(0) * _unbiased(count, t), momentum)
    return _affine(centred * ops.rsqrt(var + eps), weight, bias).to(given.dtype)  # type: ignore[no-any-return]


def _check_vectors(name: str, t: Tensor, *given: Tensor | None) -> None:
    """Every vector has an element for each channel, and the input's dtype."""
    titles = ("running_mean", "running_var", "weight", "bias")
    found = {
        title: None if value is None else tensor_arg(value, name, title)
        for title, value in zip(titles, given, strict=True)
    }
    half = t.dtype.itemsize == 2  # computed in float32, so that all others may be float32, too
    same_dtype(
        name, t, **{k: v for k, v in found.items() if not (half and v is not None and v.dtype in _SINGLE)}
    )
    for title, value in found.items():
        if value is None:
            continue
        channels = pinned(t.type_.shape[1], f"the channels of {name}")
        if value.ndim != 1 or pinned(value.type_.shape[0], f"{title} of {name}") != channels:
            raise error(
                ShapeError, name,
                f"{title} should contain {channels} elements, one for each channel of "
                f"{sizes_text(t.type_.shape)}, not {sizes_text(value.type_.shape)}",
            )  # fmt: skip


def _moments(t: Tensor, dims: tuple[int, ...], count: Extent) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, biased variance (dimensions kept), and what is left without the mean."""
    size = of_size(count, t.dtype)
    mean = t.sum(dims, keepdim=True) / size
    centred = t - mean
    return mean, (centred * centred).sum(dims, keepdim=True) / size, centred


def _unbiased(count: Extent, t: Tensor) -> Any:
    """n / (n - 1)."""
    return of_size(count, t.dtype) / of_size(count - 1, t.dtype)


def _move(running: Tensor, now: Tensor, momentum: Momentum) -> None:
    with no_grad():
        running.copy_((running * (1 - momentum) + now.detach() * momentum).to(running.dtype))


def _per_channel(vector: Tensor, t: Tensor) -> Tensor:
    result: Tensor = vector.reshape(-1, *(1,) * (t.ndim - 2))
    return result


def _affine(t: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    if weight is not None:
        t = t * _per_channel(weight, t)
    return t if bias is None else t + _per_channel(bias, t)


def _by_running(
    name: str, t: Tensor, mean: Tensor | None, var: Tensor | None, weight: Tensor | None, bias: Tensor | None,
    eps: float,
) -> Tensor:  # fmt: skip
    if mean is None or var is None:
        raise error(ValueError, name, "expected running_mean and running_var to be defined when not training")
    mean, var = (_per_channel(in_single(v), t) for v in (mean, var))
    return _affine((t - mean) * ops.rsqrt(var + eps), weight, bias)


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + alpha * mean of x² over `size` neighbouring channels)^beta for (N, C, ...).

    Krizhevsky et al., NIPS 2012, with PyTorch's division of alpha by `size`. ShapeError below 3 dimensions.
    """
    t = tensor_arg(input, "local_response_norm")
    if t.ndim < 3:
        raise error(
            ShapeError, "local_response_norm", f"expected 3D or higher dimensionality input, got {t.type_}"
        )
    same_dtype("local_response_norm", t)
    border = ((0, 0), (size // 2, (size - 1) // 2), *((0, 0),) * (t.ndim - 2))
    near = windows(filled(t * t, border, 0), (1,), (size,), (1,), (1,)).sum(-1)
    result: Tensor = t / (near / size * alpha + k) ** beta
    return result
