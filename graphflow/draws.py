"""Draws with given probabilities, and tensors filled with random numbers in place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphflow import rejection, sampling
from graphflow.compiler.ir import OPS
from graphflow.compiler.trace import current_trace
from graphflow.dtypes import DType, float32, float64, iinfo, int64
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.arrange import narrow
from graphflow.functions.common import (
    Extent,
    broadcast,
    cast,
    copied,
    expanded,
    in_dtype,
    of_size,
    operand,
    require_float,
    scalar,
    tensor_arg,
)
from graphflow.functions.cumulative import cumsum
from graphflow.functions.logic import isfinite, isinf
from graphflow.functions.order import searchsorted, topk
from graphflow.functions.reduce import all_, any_
from graphflow.functions.registry import error, public
from graphflow.random import (
    Generator,
    check_spread,
    exponential,
    integers,
    normal_numbers,
    uniform,
    uniform_bits,
    words,
)
from graphflow.tensor import Tensor, apply, no_grad

__all__ = ["bernoulli", "binomial", "multinomial", "poisson"]


@public()
def bernoulli(input: Tensor, p: Any = None, *, generator: Generator | None = None) -> Tensor:
    """1 with each element's probability (or with probability `p`), else 0, in input's dtype.

    ShapeError outside of a compiled function for a probability that isn't between 0 and 1.
    """
    t = tensor_arg(input, "bernoulli").detach()
    if p is not None:
        return bernoulli_(copied(t), p, generator=generator)
    t = require_float(t, "bernoulli")
    _check_probabilities(t, "bernoulli")
    return cast(apply(OPS["lt"], uniform(t.type_.shape, t.dtype, generator), t), t.dtype)


def _check_probabilities(t: Tensor, name: str) -> None:
    """ShapeError where a number is there to be looked at, and isn't a probability."""
    array = t._array
    if array is None or current_trace() is not None or not array.size:
        return
    values = array.astype("float64")
    if not ((values >= 0) & (values <= 1)).all():
        raise error(ShapeError, name, "expects every probability to be between 0 and 1")


@public()
def multinomial(
    input: Tensor, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Tensor:
    """int64 indices drawn with probabilities in proportion to the weights of a row: ``[c]`` or ``[rows, c]``
    weights give ``[num_samples]`` or ``[rows, num_samples]``.

    Without replacement no index comes twice. Weights are finite, not negative, and enough of them positive:
    ShapeError otherwise, IndexError when a compiled function runs. With replacement and more than one sample
    weights count in steps of 2**-38 of a row's largest.
    """
    t = require_float(tensor_arg(input, "multinomial"), "multinomial").detach()
    if t.ndim not in (1, 2):
        raise error(ShapeError, "multinomial", f"takes one or two dimensions, got {t.type_}")
    rows, categories = t.type_.shape[:-1], t.type_.shape[-1]
    count = _count_of_samples(num_samples)
    if not replacement and isinstance(categories, int) and count > categories:
        raise error(
            ShapeError, "multinomial", f"cannot sample {count} of {categories} categories without replacement"
        )
    weights = cast(t, float64)
    _check_weights(weights, 1 if replacement else count)
    if count == 1 or not replacement:
        found = _race(weights, count, generator)
    else:
        found = _by_totals(weights, count, (*rows, count), generator)
    # An index that doesn't exist stands for a row that can't be drawn from: reading there reports it.
    return apply(OPS["take"], apply(OPS["iota"], size=categories), found, dim=0)


def _count_of_samples(num_samples: Any) -> int:
    if isinstance(num_samples, bool) or not hasattr(num_samples, "__index__"):
        raise error(DTypeError, "multinomial", f"num_samples is an integer, not {type(num_samples).__name__}")
    count = int(num_samples.__index__())
    if count <= 0:
        raise error(ShapeError, "multinomial", "cannot sample n_sample <= 0 samples")
    return count


def _check_weights(weights: Tensor, least: int) -> None:
    """ShapeError where the numbers are there to be looked at, and can't be drawn from."""
    array = weights._array
    if array is None or current_trace() is not None:
        return
    if not np.isfinite(array).all() or (array < 0).any():
        raise error(ShapeError, "multinomial", "a weight is infinite, NaN or negative")
    if ((array > 0).sum(-1) < least).any():
        raise error(
            ShapeError, "multinomial", f"a row has fewer than the {least} positive weight(s) that are needed"
        )


def _race(weights: Tensor, count: int, generator: Generator | None) -> Tensor:
    """Every category arrives after an exponential time, at a rate of its weight: the first ones win."""
    times = apply(OPS["div"], exponential(weights.type_.shape, float64, generator), weights)
    good = apply(OPS["bitwise_and"], apply(OPS["gt"], weights, scalar(0.0, float64)), isfinite(weights))
    times = apply(OPS["where"], good, times, scalar(math.inf, float64))
    bad = apply(OPS["bitwise_not"], apply(OPS["ge"], weights, scalar(0.0, float64)))  # negative or NaN
    bad = any_(apply(OPS["bitwise_or"], bad, isinf(weights)), dim=-1, keepdim=True)
    first = topk(times, count, dim=-1, largest=False)
    lost = apply(OPS["bitwise_or"], isinf(first.values), bad)
    return apply(OPS["where"], lost, of_size(weights.type_.shape[-1], int64), first.indices)


def _by_totals(
    weights: Tensor, count: int, shape: tuple[Extent, ...], generator: Generator | None
) -> Tensor:
    """Where random numbers fall among the running totals of whole weights, which add up exactly."""
    largest = apply(OPS["max"], weights, dims=(weights.ndim - 1,))
    share = apply(OPS["div"], weights, largest)
    whole = cast(apply(OPS["floor"], apply(OPS["mul"], share, scalar(2.0**38, float64))), int64)
    totals = cumsum(whole, -1)
    good = apply(OPS["bitwise_and"], apply(OPS["ge"], weights, scalar(0.0, float64)), isfinite(weights))
    some = apply(OPS["gt"], largest, scalar(0.0, float64))
    good = apply(OPS["bitwise_and"], all_(good, dim=-1, keepdim=True), some)
    total = apply(OPS["where"], good, narrow(totals, -1, -1, 1), scalar(1, int64))
    drawn = apply(OPS["remainder"], uniform_bits(shape, generator), total)
    found = searchsorted(totals, drawn, right=True)
    return apply(OPS["where"], good, found, of_size(weights.type_.shape[-1], int64))


def _keys(shape: tuple[Extent, ...], generator: Generator | None) -> Tensor:
    """64 random bits an element."""
    high, low = words(shape, 2, generator)
    return sampling.joined(apply(OPS["sub"], high, scalar(2**31, int64)), 32, low)


@public(method=False)
def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Numbers from Poisson distributions with the rates that `input` holds, in its shape and dtype.

    ShapeError outside of a compiled function for a rate that isn't 0 or more; compiled, it gives NaN.
    """
    t = require_float(tensor_arg(input, "poisson"), "poisson").detach()
    array = t._array
    if array is not None and current_trace() is None and not (array.astype("float64") >= 0).all():
        raise error(ShapeError, "poisson", "expects every rate to be 0 or more")
    with no_grad():
        return cast(rejection.poisson(cast(t, float64), _keys(t.type_.shape, generator)), t.dtype)


@public(method=False)
def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """How many of `count` trials succeed with chance `prob` each: floating point tensors of one dtype, which
    broadcast. Without trials or without a chance that is 0, beyond a chance of 1 it is `count`.
    """
    trials, chance = tensor_arg(count, "binomial", "count"), tensor_arg(prob, "binomial", "prob")
    trials, chance = require_float(trials, "binomial").detach(), require_float(chance, "binomial").detach()
    if trials.dtype is not chance.dtype:
        raise error(DTypeError, "binomial", f"count and prob differ: {trials.type_} and {chance.type_}")
    shape = broadcast(trials, chance)
    with no_grad():
        first, second = (expanded(cast(t, float64), shape) for t in (trials, chance))
        return cast(rejection.binomial(first, second, _keys(shape, generator)), trials.dtype)


# ---------------------------------------------------------------------------------------------- in place


@public(function=False)
def uniform_(
    self: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fills the tensor with uniform numbers in [from, to)."""
    require_float(self, "uniform_")
    if not float(from_) <= float(to):
        raise error(ShapeError, "uniform_", f"expects from <= to, but found from={from_} > to={to}")
    shape, work = _work(self)
    drawn = cast(uniform(shape, self.dtype, generator), work)  # in steps of the dtype's own, so never `to`
    return self._assign(_moved(drawn, float(to) - float(from_), from_, self.dtype))


def _work(t: Tensor) -> tuple[tuple[Extent, ...], DType]:
    """What to draw for a tensor: its shape, and its dtype or that of arithmetic on it."""
    return t.type_.shape, float32 if t.dtype.is_half else t.dtype


def _moved(drawn: Tensor, scale: Any, shift: Any, dtype: DType) -> Tensor:
    """``drawn * scale + shift``, rounded to `dtype`."""
    scaled = apply(OPS["mul"], drawn, in_dtype(scale, drawn.dtype))
    return cast(apply(OPS["add"], scaled, in_dtype(shift, drawn.dtype)), dtype)


@public(function=False)
def normal_(
    self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fills the tensor with normal numbers."""
    require_float(self, "normal_")
    check_spread(std, "normal_")
    return self._assign(_moved(normal_numbers(*_work(self), generator), std, mean, self.dtype))


@public(function=False)
def log_normal_(
    self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None
) -> Tensor:
    """Fills the tensor with exponentials of normal numbers of this mean and standard deviation.

    The exponential is taken in float64; a float64 tensor's last bit may depend on whether this is compiled.
    """
    require_float(self, "log_normal_")
    if not std > 0:
        raise error(ShapeError, "log_normal_", f"expects std > 0.0, but found std={std}")
    drawn = _moved(cast(normal_numbers(*_work(self), generator), float64), std, mean, float64)
    return self._assign(cast(apply(OPS["exp"], drawn), self.dtype))


@public(function=False)
def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with exponential numbers of mean ``1 / lambd``."""
    require_float(self, "exponential_")
    if not lambd > 0:
        raise error(ShapeError, "exponential_", f"expects lambda > 0.0, but found lambda={lambd}")
    drawn = exponential(*_work(self), generator)
    return self._assign(cast(apply(OPS["div"], drawn, scalar(float(lambd), drawn.dtype)), self.dtype))


@public(function=False)
def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with how many trials of probability `p` it takes to succeed once: 1, 2, 3, …"""
    if not 0 < p < 1:
        raise error(ShapeError, "geometric_", f"expects p to be in (0, 1), but got p={p}")
    drawn = exponential(self.type_.shape, float64, generator)
    rounds = apply(OPS["floor"], apply(OPS["div"], drawn, scalar(-math.log1p(-float(p)), float64)))
    return self._assign(cast(apply(OPS["add"], rounds, scalar(1.0, float64)), self.dtype))


@public(function=False)
def cauchy_(
    self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fills the tensor with Cauchy numbers of this median and half width."""
    require_float(self, "cauchy_")
    if not sigma > 0:
        raise error(ShapeError, "cauchy_", f"expects sigma > 0.0, but found sigma={sigma}")
    shape, dtype = _work(self)
    drawn = sampling.cauchy(words(shape, sampling.words_for(dtype), generator), dtype)
    return self._assign(_moved(drawn, sigma, median, self.dtype))


@public(function=False)
def bernoulli_(self: Tensor, p: Any = 0.5, *, generator: Generator | None = None) -> Tensor:
    """Fills the tensor with 1 with probability `p`, a number or a tensor, else 0."""
    chance = operand(p, "bernoulli_", "p")
    if isinstance(chance, Tensor):
        chance = require_float(chance, "bernoulli_").detach()
        _check_probabilities(chance, "bernoulli_")
    elif not 0 <= chance <= 1:
        raise error(ShapeError, "bernoulli_", f"expects p to be in [0, 1], but got p={p}")
    dtype = chance.dtype if isinstance(chance, Tensor) else float64
    wide = expanded(in_dtype(chance, dtype), self.type_.shape)
    return self._assign(
        cast(apply(OPS["lt"], uniform(self.type_.shape, dtype, generator), wide), self.dtype)
    )


@public(function=False)
def random_(
    self: Tensor, from_: int | None = None, to: Any = ..., *, generator: Generator | None = None
) -> Tensor:
    """Fills the tensor with integers in [from, to); ``random_(n)`` starts at 0. Without `to`, or with
    None for it, up to what fits exactly.
    """
    if self.dtype.kind == "int":
        end = iinfo(self.dtype).max + (self.dtype is not int64 or from_ is not None)
    else:
        end = _EXACT[self.dtype.name]
    if to is ...:
        first, last = (0, end) if from_ is None else (0, from_)
    else:
        first, last = from_ or 0, end if to is None else to
    return self._assign(integers(first, last, self.type_.shape, self.dtype, generator, "random_"))


# One above the integers up to which all are exact.
_EXACT = {"bool": 2, "float16": 2**11 + 1, "bfloat16": 2**8 + 1, "float32": 2**24 + 1, "float64": 2**53 + 1}
