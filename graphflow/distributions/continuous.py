"""Distributions over real numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from graphflow import functions as ops
from graphflow.distributions import constraints
from graphflow.distributions.constraints import Constraint
from graphflow.distributions.distribution import Distribution, parameters, tracing
from graphflow.tensor import Tensor


class Normal(Distribution):
    """Normal with mean `loc` and standard deviation `scale`."""

    arg_constraints = MappingProxyType({"loc": constraints.real, "scale": constraints.positive})
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        self.loc, self.scale = parameters(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> Constraint:
        """All real numbers."""
        return constraints.real

    @property
    def mean(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """The square of `scale`."""
        return self.scale * self.scale

    @property
    def stddev(self) -> Tensor:
        """`scale`."""
        return self.scale

    def rsample(self, sample_shape: Sequence[Any] = ()) -> Tensor:
        """``loc + scale * noise``."""
        return self.loc + self.scale * ops.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._validate_sample(value)
        distance = (value - self.loc) / self.scale
        return -0.5 * distance * distance - self.scale.log() - 0.5 * math.log(2 * math.pi)

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of values up to `value`."""
        self._validate_sample(value)
        return 0.5 * (1 + ops.erf((value - self.loc) / (self.scale * math.sqrt(2))))

    def entropy(self) -> Tensor:
        """The differential entropy."""
        return 0.5 + 0.5 * math.log(2 * math.pi) + self.scale.log()


class LogNormal(Distribution):
    """Exponentials of normal numbers of mean `loc` and standard deviation `scale`."""

    arg_constraints = MappingProxyType({"loc": constraints.real, "scale": constraints.positive})
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        self.base_dist = Normal(loc, scale, validate_args)
        self.loc, self.scale = self.base_dist.loc, self.base_dist.scale
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> Constraint:
        """Positive numbers."""
        return constraints.positive

    @property
    def mean(self) -> Tensor:
        """``exp(loc + scale**2 / 2)``."""
        return (self.loc + self.scale * self.scale / 2).exp()

    @property
    def mode(self) -> Tensor:
        """``exp(loc - scale**2)``."""
        return (self.loc - self.scale * self.scale).exp()

    @property
    def variance(self) -> Tensor:
        """``(exp(scale**2) - 1) * exp(2 loc + scale**2)``."""
        square = self.scale * self.scale
        return ops.expm1(square) * (2 * self.loc + square).exp()

    def rsample(self, sample_shape: Sequence[Any] = ()) -> Tensor:
        """``exp(loc + scale * noise)``."""
        return self.base_dist.rsample(sample_shape).exp()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._validate_sample(value)
        return self.base_dist.log_prob(value.log()) - value.log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of values up to `value`."""
        self._validate_sample(value)
        return self.base_dist.cdf(value.log())

    def entropy(self) -> Tensor:
        """The differential entropy."""
        return self.base_dist.entropy() + self.loc


class Uniform(Distribution):
    """Uniform on [low, high)."""

    has_rsample = True

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None):
        self.low, self.high = parameters(low, high)
        self.arg_constraints = {"low": constraints.real, "high": constraints.real}
        super().__init__(self.low.shape, validate_args=validate_args)
        if self._validates and not tracing():
            self._require(constraints.greater_than(self.low.detach()), self.high, f"low < high in {self!r}")

    @property
    def support(self) -> Constraint:
        """From `low` to `high`."""
        return constraints.interval(self.low.detach(), self.high.detach())

    @property
    def mean(self) -> Tensor:
        """The middle."""
        return (self.high + self.low) / 2

    @property
    def variance(self) -> Tensor:
        """``(high - low)**2 / 12``."""
        width = self.high - self.low
        return width * width / 12

    def rsample(self, sample_shape: Sequence[Any] = ()) -> Tensor:
        """``low + (high - low) * noise``."""
        noise = ops.rand(self._extended_shape(sample_shape), dtype=self.low.dtype)
        return self.low + noise * (self.high - self.low)

    def log_prob(self, value: Tensor) -> Tensor:
        """``-log(high - low)`` within, ``-inf`` outside."""
        self._validate_sample(value)
        inside = ((self.low <= value) & (self.high > value)).to(self.low.dtype)
        return inside.log() - (self.high - self.low).log()

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of values up to `value`."""
        self._validate_sample(value)
        return ((value - self.low) / (self.high - self.low)).clamp(min=0, max=1)

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of `cdf`."""
        return value * (self.high - self.low) + self.low

    def entropy(self) -> Tensor:
        """``log(high - low)``."""
        return (self.high - self.low).log()


class Exponential(Distribution):
    """Exponential with mean ``1 / rate``."""

    arg_constraints = MappingProxyType({"rate": constraints.positive})
    has_rsample = True

    def __init__(self, rate: Any, validate_args: bool | None = None):
        (self.rate,) = parameters(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def support(self) -> Constraint:
        """Numbers from 0 on."""
        return constraints.nonnegative

    @property
    def mean(self) -> Tensor:
        """``1 / rate``."""
        return self.rate.reciprocal()

    @property
    def mode(self) -> Tensor:
        """0."""
        return ops.zeros_like(self.rate)

    @property
    def stddev(self) -> Tensor:
        """``1 / rate``."""
        return self.rate.reciprocal()

    @property
    def variance(self) -> Tensor:
        """``1 / rate**2``."""
        return (self.rate * self.rate).reciprocal()

    def rsample(self, sample_shape: Sequence[Any] = ()) -> Tensor:
        """``noise / rate``."""
        noise = ops.empty(self._extended_shape(sample_shape), dtype=self.rate.dtype)
        return noise.exponential_() / self.rate

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._validate_sample(value)
        return self.rate.log() - self.rate * value

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of values up to `value`."""
        self._validate_sample(value)
        return -ops.expm1(-self.rate * value)

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of `cdf`."""
        return -ops.log1p(-value) / self.rate

    def entropy(self) -> Tensor:
        """``1 - log(rate)``."""
        return 1.0 - self.rate.log()


class Laplace(Distribution):
    """Laplace: exponential distances of mean `scale` to both sides of `loc`."""

    arg_constraints = MappingProxyType({"loc": constraints.real, "scale": constraints.positive})
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None):
        self.loc, self.scale = parameters(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @property
    def support(self) -> Constraint:
        """All real numbers."""
        return constraints.real

    @property
    def mean(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """`loc`."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """``2 * scale**2``."""
        return 2 * self.scale * self.scale

    def rsample(self, sample_shape: Sequence[Any] = ()) -> Tensor:
        """``loc + scale * noise``."""
        shape = self._extended_shape(sample_shape)
        size = ops.empty(shape, dtype=self.loc.dtype).exponential_()
        sign = 2 * ops.empty(shape, dtype=self.loc.dtype).bernoulli_(0.5) - 1
        return self.loc + self.scale * size * sign

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._validate_sample(value)
        return -(2 * self.scale).log() - (value - self.loc).abs() / self.scale

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of values up to `value`."""
        self._validate_sample(value)
        away = value - self.loc
        return 0.5 - 0.5 * away.sign() * ops.expm1(-away.abs() / self.scale)

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of `cdf`."""
        term = value - 0.5
        return self.loc - self.scale * term.sign() * ops.log1p(-2 * term.abs())

    def entropy(self) -> Tensor:
        """``1 + log(2 scale)``."""
        return 1 + (2 * self.scale).log()


__all__ = ["Exponential", "Laplace", "LogNormal", "Normal", "Uniform"]
