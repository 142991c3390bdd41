"""Distributions over whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from graphflow import functions as ops
from graphflow.distributions import constraints
from graphflow.distributions.constraints import Constraint
from graphflow.distributions.distribution import Distribution, parameters, tracing
from graphflow.dtypes import finfo
from graphflow.modes import no_grad
from graphflow.nn.functional import binary_cross_entropy_with_logits, softplus
from graphflow.tensor import Tensor


def _one_of(name: str, probs: Any, logits: Any) -> None:
    if (probs is None) == (logits is None):
        raise ValueError(f"{name}: either `probs` or `logits` must be specified, but not both")


def _clamped(probs: Tensor) -> Tensor:
    eps = finfo(probs.dtype).eps
    return probs.clamp(min=eps, max=1 - eps)


class _Binary(Distribution):
    """What depends on one chance, given as probability or as its logit."""

    def __init__(self, probs: Any, logits: Any, validate_args: bool | None):
        _one_of(type(self).__name__, probs, logits)
        if probs is not None:
            self.arg_constraints = {"probs": constraints.unit_interval}
        else:
            self.arg_constraints = {"logits": constraints.real}
        self._by_probs = probs is not None
        (self._given,) = parameters(probs if self._by_probs else logits)
        super().__init__(self._given.shape, validate_args=validate_args)

    @property
    def probs(self) -> Tensor:
        """The chance."""
        return self._given if self._by_probs else self._given.sigmoid()

    @property
    def logits(self) -> Tensor:
        """``log(probs / (1 - probs))``."""
        if not self._by_probs:
            return self._given
        clamped = _clamped(self._given)
        return clamped.log() - ops.log1p(-clamped)


class Bernoulli(_Binary):
    """1 with probability `probs`, else 0; or with the logits of that."""

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        super().__init__(probs, logits, validate_args)

    @property
    def support(self) -> Constraint:
        """0 and 1."""
        return constraints.boolean

    @property
    def mean(self) -> Tensor:
        """`probs`."""
        return self.probs

    @property
    def mode(self) -> Tensor:
        """The likelier value; NaN for a chance of one half."""
        mode = (self.probs >= 0.5).to(self.probs.dtype)
        return mode.masked_fill(self.probs == 0.5, float("nan"))

    @property
    def variance(self) -> Tensor:
        """``probs * (1 - probs)``."""
        return self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[Any] = ()) -> Tensor:
        """Zeros and ones."""
        with no_grad():
            return ops.bernoulli(self.probs.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        self._validate_sample(value)
        logits, value = ops.broadcast_tensors(self.logits, value)
        return -binary_cross_entropy_with_logits(logits, value.to(logits.dtype), reduction="none")

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none")


class Geometric(_Binary):
    """How many trials fail before the first success: 0, 1, 2, …"""

    def __init__(self, probs: Any = None, logits: Any = None, validate_args: bool | None = None):
        super().__init__(probs, logits, validate_args)
        if self._validates and probs is not None and not tracing():
            self._require(constraints.positive, self.probs, f"parameter probs of distribution {self!r}")

    @property
    def support(self) -> Constraint:
        """Whole numbers from 0 on."""
        return constraints.nonnegative_integer

    @property
    def mean(self) -> Tensor:
        """``1 / probs - 1``."""
        return 1.0 / self.probs - 1.0

    @property
    def mode(self) -> Tensor:
        """0."""
        return ops.zeros_like(self.probs)

    @property
    def variance(self) -> Tensor:
        """``(1 / probs - 1) / probs``."""
        return (1.0 / self.probs - 1.0) / self.probs

    def sample(self, sample_shape: Sequence[Any] = ()) -> Tensor:
        """Whole numbers."""
        with no_grad():
            probs = self.probs.expand(self._extended_shape(sample_shape))
            noise = ops.empty(self._extended_shape(sample_shape), dtype=probs.dtype).exponential_()
            return (noise / -ops.log1p(-_clamped(probs))).floor()

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        self._validate_sample(value)
        return ops.xlogy(value, 1 - self.probs) + self.probs.log()

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        return binary_cross_entropy_with_logits(self.logits, self.probs, reduction="none") / self.probs


class Poisson(Distribution):
    """Poisson with mean `rate`."""

    arg_constraints = MappingProxyType({"rate": constraints.nonnegative})

    def __init__(self, rate: Any, validate_args: bool | None = None):
        (self.rate,) = parameters(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    @property
    def support(self) -> Constraint:
        """Whole numbers from 0 on."""
        return constraints.nonnegative_integer

    @property
    def mean(self) -> Tensor:
        """`rate`."""
        return self.rate

    @property
    def mode(self) -> Tensor:
        """`rate` rounded down."""
        return self.rate.floor()

    @property
    def variance(self) -> Tensor:
        """`rate`."""
        return self.rate

    def sample(self, sample_shape: Sequence[Any] = ()) -> Tensor:
        """Whole numbers."""
        with no_grad():
            return ops.poisson(self.rate.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        self._validate_sample(value)
        value = value.to(self.rate.dtype)
        return ops.xlogy(value, self.rate) - self.rate - ops.lgamma(value + 1)


class Binomial(Distribution):
    """How many of `total_count` trials succeed, with a chance of `probs` (or its logits) each."""

    def __init__(
        self, total_count: Any = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ):
        _one_of("Binomial", probs, logits)
        trials, chance = parameters(total_count, probs if logits is None else logits)
        self.total_count = trials.to(chance.dtype)
        by_probs = logits is None
        self._bernoulli = Bernoulli(
            chance if by_probs else None, None if by_probs else chance, validate_args=validate_args
        )
        self.arg_constraints = {"total_count": constraints.nonnegative_integer}
        super().__init__(chance.shape, validate_args=validate_args)

    @property
    def probs(self) -> Tensor:
        """The chance of a success."""
        return self._bernoulli.probs

    @property
    def logits(self) -> Tensor:
        """``log(probs / (1 - probs))``."""
        return self._bernoulli.logits

    @property
    def support(self) -> Constraint:
        """From 0 to `total_count`."""
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        """``total_count * probs``."""
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        """``(total_count + 1) * probs`` rounded down."""
        return ((self.total_count + 1) * self.probs).floor().clamp(max=self.total_count)

    @property
    def variance(self) -> Tensor:
        """``total_count * probs * (1 - probs)``."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[Any] = ()) -> Tensor:
        """Whole numbers."""
        shape = self._extended_shape(sample_shape)
        with no_grad():
            return ops.binomial(self.total_count.expand(shape), self.probs.expand(shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        self._validate_sample(value)
        n, k = self.total_count, value
        ways = ops.lgamma(n + 1) - ops.lgamma(k + 1) - ops.lgamma(n - k + 1)
        return ways + k * self.logits - n * softplus(self.logits)


class Categorical(Distribution):
    """Indices with probabilities in proportion to `probs`, or with logits, along the last dimension."""

    def __init__(
        self, probs: Tensor | None = None, logits: Tensor | None = None, validate_args: bool | None = None
    ):
        _one_of(type(self).__name__, probs, logits)
        given = logits if probs is None else probs
        if not isinstance(given, Tensor) or given.ndim < 1:
            name = "logits" if probs is None else "probs"
            raise ValueError(f"`{name}` parameter must be at least one-dimensional.")
        self._given, self._by_probs = given, probs is not None
        self._events = given.shape[-1]
        checked = not tracing() and (Distribution._checking if validate_args is None else validate_args)
        if probs is not None:
            if checked:
                told = f"parameter probs (Tensor of shape {tuple(probs.shape)}) of distribution {self!r}"
                self._require(Weights(), probs, told)
            self.probs = probs / probs.sum(-1, keepdim=True)
            clamped = _clamped(self.probs)
            self.logits = clamped.log()
        else:
            if checked:
                told = f"parameter logits (Tensor of shape {tuple(given.shape)}) of distribution {self!r}"
                self._require(constraints.real_vector, given, told)
            self.logits = given - given.logsumexp(dim=-1, keepdim=True)
            self.probs = self.logits.softmax(-1)
        super().__init__(given.shape[:-1], validate_args=validate_args)

    def __repr__(self) -> str:
        name = "probs" if self._by_probs else "logits"
        return f"{type(self).__name__}({name}: {tuple(self._given.shape)})"

    @property
    def param_shape(self) -> tuple[Any, ...]:
        """The shape of the parameters, with the categories."""
        return tuple(self.logits.shape)

    @property
    def support(self) -> Constraint:
        """Indices of categories."""
        return constraints.integer_interval(0, self._events - 1)

    @property
    def mean(self) -> Tensor:
        """NaN: categories have no order."""
        return ops.full_like(self.probs.sum(-1), float("nan"))

    @property
    def mode(self) -> Tensor:
        """The likeliest index."""
        return self.probs.argmax(dim=-1)

    @property
    def variance(self) -> Tensor:
        """NaN: categories have no order."""
        return ops.full_like(self.probs.sum(-1), float("nan"))

    def sample(self, sample_shape: Sequence[Any] = ()) -> Tensor:
        """int64 indices."""
        shape = self._extended_shape(sample_shape)
        with no_grad():
            wide = self.probs.expand(*shape, self._events).reshape(-1, self._events)
            return ops.multinomial(wide, 1).reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability of index `value`."""
        self._validate_sample(value)
        index, table = ops.broadcast_tensors(value.long().unsqueeze(-1), self.logits)
        return table.gather(-1, index[..., :1]).squeeze(-1)

    def entropy(self) -> Tensor:
        """The entropy in nats."""
        smallest = finfo(self.logits.dtype).min
        return -(self.logits.clamp(min=smallest) * self.probs).sum(-1)


class Weights(Constraint):
    """Rows of numbers that aren't negative, with a positive sum."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value >= 0).all(dim=-1) & (value.sum(dim=-1) > 0)


class Multinomial(Distribution):
    """How often each category comes in `total_count` draws."""

    def __init__(
        self, total_count: int = 1, probs: Tensor | None = None, logits: Tensor | None = None,
        validate_args: bool | None = None,
    ):  # fmt: skip
        if not isinstance(total_count, int):
            raise NotImplementedError("inhomogeneous total_count is not supported")
        self.total_count = total_count
        self._categorical = Categorical(probs, logits, validate_args)
        super().__init__(
            self._categorical.batch_shape, self._categorical.param_shape[-1:], validate_args=validate_args
        )

    @property
    def probs(self) -> Tensor:
        """Probabilities of the categories."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """Their logarithms."""
        return self._categorical.logits

    @property
    def support(self) -> Constraint:
        """Counts."""
        return constraints.multinomial(self.total_count)

    @property
    def mean(self) -> Tensor:
        """``total_count * probs``."""
        return self.probs * self.total_count

    @property
    def variance(self) -> Tensor:
        """``total_count * probs * (1 - probs)``."""
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[Any] = ()) -> Tensor:
        """Counts, in the dtype of `probs`."""
        drawn = self._categorical.sample((self.total_count, *sample_shape))
        with no_grad():
            return ops.one_hot(drawn, self.event_shape[0]).sum(0).to(self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the probability."""
        self._validate_sample(value)
        logits, counts = ops.broadcast_tensors(self.logits, value)
        ways = ops.lgamma(counts.sum(-1) + 1) - ops.lgamma(counts + 1).sum(-1)
        impossible = (counts == 0) & (logits == -float("inf"))
        return ways + (logits.masked_fill(impossible, 0) * counts).sum(-1)


__all__ = ["Bernoulli", "Binomial", "Categorical", "Geometric", "Multinomial", "Poisson"]
