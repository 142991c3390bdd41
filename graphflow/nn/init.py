"""Fills tensors in place with starting values; PyTorch's names. Every function gives its tensor back."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from graphflow import functions as ops
from graphflow.dtypes import float64
from graphflow.random import Generator, rand, randn
from graphflow.tensor import Tensor, no_grad

_CONVOLUTIONS = tuple(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))
_PLAIN_GAINS = ("linear", "sigmoid", *_CONVOLUTIONS)


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights are scaled so that a nonlinearity keeps the variance. ValueError for
    unknown ones.

    `param` is leaky_relu's negative slope (0.01 when None).
    """
    if nonlinearity in _PLAIN_GAINS:
        return 1.0
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"negative_slope {slope} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity == "selu":
        return 3.0 / 4
    raise ValueError(f"Unsupported nonlinearity {nonlinearity}")


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform in [a, b)."""
    return _fill(tensor, rand(tensor.shape, dtype=tensor.dtype, generator=generator) * (b - a) + a)


def normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Normal with the given mean and standard deviation."""
    return _fill(tensor, randn(tensor.shape, dtype=tensor.dtype, generator=generator) * std + mean)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """`val` everywhere."""
    return _fill(tensor, ops.full(tensor.shape, val, dtype=tensor.dtype))


def ones_(tensor: Tensor) -> Tensor:
    """1 everywhere."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """0 everywhere."""
    return constant_(tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """The identity matrix; ValueError unless 2-d."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    return _fill(tensor, ops.eye(rows, columns, dtype=tensor.dtype))


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Uniform with standard deviation gain * sqrt(2 / (fan_in + fan_out)); Glorot & Bengio, AISTATS 2010."""
    bound = math.sqrt(3.0) * _xavier_std(tensor, gain)
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Normal with standard deviation gain * sqrt(2 / (fan_in + fan_out)); Glorot & Bengio, AISTATS 2010."""
    return normal_(tensor, 0.0, _xavier_std(tensor, gain), generator)


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Uniform with standard deviation gain / sqrt(fan); He et al., ICCV 2015. `a` is leaky_relu's slope."""
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Tensor:
    """Normal with standard deviation gain / sqrt(fan); He et al., ICCV 2015. `a` is leaky_relu's slope."""
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Generator | None = None,
) -> Tensor:
    """Normal with the given mean and standard deviation, cut off outside [a, b]. ValueError unless a < b."""
    if not a < b:
        raise ValueError(f"trunc_normal_: expected a < b, got a={a} and b={b}")
    low, high = (a - mean) / std, (b - mean) / std
    # Where the density is largest, and how far from there less than 2^-60 of the mass is left to be drawn.
    top = min(max(0.0, low), high)
    low, high = max(low, -math.sqrt(top * top + 84)), min(high, math.sqrt(top * top + 84))
    found = np.empty(tensor.numel())
    missing = np.arange(found.size)
    while missing.size:
        if low <= -0.5 and high >= 0.5:
            drawn = randn(missing.size, dtype=float64, generator=generator).numpy()
            accepted = (drawn >= low) & (drawn <= high)
        else:
            uniform = rand((2, missing.size), dtype=float64, generator=generator).numpy()
            drawn = uniform[0] * (high - low) + low
            accepted = uniform[1] < np.exp((top * top - drawn * drawn) / 2)
        found[missing[accepted]] = drawn[accepted]
        missing = missing[~accepted]
    value = np.clip(found * std + mean, a, b)
    return _fill(tensor, ops.tensor(value, dtype=tensor.dtype).reshape(tensor.shape))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """The convolution weight (3-d to 5-d) that hands each input channel through; ValueError otherwise.

    With `groups` each group of output channels does.
    """
    if tensor.ndim not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    outputs, inputs, *kernel = tensor.shape
    if outputs % groups:
        raise ValueError("dim 0 must be divisible by groups")
    each = outputs // groups
    value = np.zeros(tuple(tensor.shape))
    for group in range(groups):
        for d in range(min(each, inputs)):
            value[(group * each + d, d, *(k // 2 for k in kernel))] = 1.0
    return _fill(tensor, ops.tensor(value, dtype=tensor.dtype))


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Generator | None = None) -> Tensor:
    """A (semi-)orthogonal matrix of the first dimension by the others, times `gain`; Saxe et al., ICLR 2014.

    ValueError below two dimensions.
    """
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if tensor.numel() == 0:
        return tensor
    rows = tensor.shape[0]
    columns = tensor.numel() // rows
    drawn = randn((rows, columns), dtype=float64, generator=generator).numpy()
    q, r = np.linalg.qr(drawn if rows >= columns else drawn.T)
    q *= np.sign(np.diag(r))  # makes the distribution uniform: Mezzadri, arXiv:math-ph/0609050
    value = (q if rows >= columns else q.T) * gain
    return _fill(tensor, ops.tensor(value, dtype=tensor.dtype).reshape(tensor.shape))


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Generator | None = None) -> Tensor:
    """Normal with standard deviation `std`, but for a share `sparsity` of each column, which is zero;
    Martens, ICML 2010. ValueError unless 2-d.
    """
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    value = (randn((rows, columns), dtype=float64, generator=generator) * std).numpy()
    order = np.argsort(rand((rows, columns), dtype=float64, generator=generator).numpy(), axis=0)
    np.put_along_axis(value, order[: math.ceil(sparsity * rows)], 0.0, axis=0)
    return _fill(tensor, ops.tensor(value, dtype=tensor.dtype))


def _fill(tensor: Tensor, value: Tensor) -> Tensor:
    with no_grad():
        tensor.copy_(value)
    return tensor


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, *kernel); ValueError below two dimensions."""
    if tensor.ndim < 2:
        raise ValueError("Fan in and fan out can not be computed for tensor with fewer than 2 dimensions")
    receptive = math.prod(tensor.shape[2:])
    return tensor.shape[1] * receptive, tensor.shape[0] * receptive


def _xavier_std(tensor: Tensor, gain: float) -> float:
    return gain * math.sqrt(2.0 / sum(fans(tensor)))


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"Mode {mode} not supported, please use one of ['fan_in', 'fan_out']")
    fan_in, fan_out = fans(tensor)
    fan = fan_in if mode == "fan_in" else fan_out
    # A weight without elements has nothing to scale.
    return calculate_gain(nonlinearity, a) / math.sqrt(fan) if fan else 0.0


def _older(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Tensor:
        warnings.warn(
            f"`nn.init.{name}` is now deprecated in favor of `nn.init.{name}_`.", FutureWarning, stacklevel=2
        )
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"`{name}_` under its older name, with a FutureWarning."
    return call


uniform = _older("uniform", uniform_)
normal = _older("normal", normal_)
constant = _older("constant", constant_)
eye = _older("eye", eye_)
dirac = _older("dirac", dirac_)
xavier_uniform = _older("xavier_uniform", xavier_uniform_)
xavier_normal = _older("xavier_normal", xavier_normal_)
kaiming_uniform = _older("kaiming_uniform", kaiming_uniform_)
kaiming_normal = _older("kaiming_normal", kaiming_normal_)
orthogonal = _older("orthogonal", orthogonal_)
sparse = _older("sparse", sparse_)
