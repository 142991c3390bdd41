"""What all distributions have in common, after ``torch.distributions.Distribution``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from graphflow import functions as ops
from graphflow.distributions.constraints import Constraint
from graphflow.modes import no_grad
from graphflow.tensor import Tensor


class Distribution:
    """A batch of distributions: parameters of shape `batch_shape`, samples of ``batch_shape + event_shape``.

    Parameters and values are checked (ValueError) unless ``validate_args=False``, or while a function is
    being traced, when there are no numbers yet.
    """

    arg_constraints: Mapping[str, Constraint] = MappingProxyType({})
    has_rsample = False
    _checking = True

    def __init__(
        self,
        batch_shape: Sequence[Any] = (),
        event_shape: Sequence[Any] = (),
        validate_args: bool | None = None,
    ):
        self.batch_shape = tuple(batch_shape)
        self.event_shape = tuple(event_shape)
        self._validates = Distribution._checking if validate_args is None else validate_args
        if self._validates and not tracing():
            for name, constraint in self.arg_constraints.items():
                value = getattr(self, name)
                told = f"parameter {name} ({_shown(value)}) of distribution {self!r}"
                self._require(constraint, value, told)

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether distributions made from here on check, where they aren't told."""
        if value not in (True, False):
            raise ValueError(f"validate_args is a bool, not {value!r}")
        Distribution._checking = value

    def _require(self, constraint: Constraint, value: Tensor, told: str) -> None:
        with no_grad():
            if bool(constraint.check(value.detach()).all()):
                return
        raise ValueError(
            f"Expected {told} to satisfy the constraint {constraint!r}, but found invalid values:\n{value}"
        )

    def _validate_sample(self, value: Tensor) -> None:
        if not self._validates:
            return
        if not isinstance(value, Tensor):
            raise ValueError("The value argument to log_prob must be a Tensor")
        events = len(self.event_shape)
        if value.ndim < events or (events and tuple(value.shape)[-events:] != self.event_shape):
            raise ValueError(
                "The right-most size of value must match event_shape: "
                f"{tuple(value.shape)} vs {self.event_shape}."
            )
        if tracing():
            return
        self._require(
            self.support, value, f"value argument ({_shown(value)}) to be within the support of {self!r},"
        )

    @property
    def support(self) -> Constraint:
        """The values that samples may have."""
        raise NotImplementedError

    @property
    def mean(self) -> Tensor:
        """The expectation."""
        raise NotImplementedError

    @property
    def mode(self) -> Tensor:
        """Where the density is greatest."""
        raise NotImplementedError(f"{type(self)} does not implement mode")

    @property
    def variance(self) -> Tensor:
        """The expected squared distance from the mean."""
        raise NotImplementedError

    @property
    def stddev(self) -> Tensor:
        """The square root of the variance."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Sequence[Any] = ()) -> Tensor:
        """Samples of shape ``sample_shape + batch_shape + event_shape``, without history."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Sequence[Any] = ()) -> Tensor:
        """Samples through which gradients flow to the parameters."""
        raise NotImplementedError(f"{type(self).__name__} has no reparameterised samples")

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density, or of the probability, at `value`."""
        raise NotImplementedError

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of values up to `value`."""
        raise NotImplementedError

    def icdf(self, value: Tensor) -> Tensor:
        """The inverse of `cdf`."""
        raise NotImplementedError

    def entropy(self) -> Tensor:
        """The expectation of ``-log_prob``."""
        raise NotImplementedError

    def perplexity(self) -> Tensor:
        """``exp(entropy)``."""
        return self.entropy().exp()

    def _extended_shape(self, sample_shape: Sequence[Any] = ()) -> tuple[Any, ...]:
        return (*sample_shape, *self.batch_shape, *self.event_shape)

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{name}: {value.item() if not value.is_traced and value.numel() == 1 else tuple(value.shape)}"
            for name in self.arg_constraints
            if isinstance(value := self.__dict__.get(name, self.__dict__.get("_given")), Tensor)
        )
        return f"{type(self).__name__}({shown})"


def tracing() -> bool:
    """Whether values have no numbers yet."""
    return bool(ops.zeros(()).is_traced)


def _shown(value: Tensor) -> str:
    return f"Tensor of shape {tuple(value.shape)}"


def parameters(*values: Any) -> list[Tensor]:
    """Numbers and tensors as tensors of one shape and dtype."""
    for value in values:
        if not isinstance(value, (Tensor, int, float)):
            raise ValueError(f"Input arguments must all be numbers or tensors, got {type(value).__name__}")
    floats = [v for v in values if isinstance(v, Tensor)]
    dtype = floats[0].dtype if floats else None
    made = [v if isinstance(v, Tensor) else ops.tensor(float(v), dtype=dtype) for v in values]
    return list(ops.broadcast_tensors(*made))


__all__ = ["Distribution", "parameters", "tracing"]
