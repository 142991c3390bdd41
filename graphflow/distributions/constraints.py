"""Sets of values that parameters and samples belong to, after ``torch.distributions.constraints``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphflow import linalg
from graphflow.tensor import Tensor


class Constraint:
    """A set of values. The last `event_dim` dimensions of a value belong together."""

    is_discrete = False
    event_dim = 0

    def check(self, value: Tensor) -> Tensor:
        """Where the values are in the set, as bool."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Real(Constraint):
    def check(self, value: Tensor) -> Tensor:
        return value == value  # all but NaN


class Boolean(Constraint):
    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return (value == 0) | (value == 1)


@dataclass(frozen=True)
class Interval(Constraint):
    lower_bound: Any
    upper_bound: Any

    def check(self, value: Tensor) -> Tensor:
        return (self.lower_bound <= value) & (value <= self.upper_bound)


@dataclass(frozen=True)
class IntegerInterval(Interval):
    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return (value % 1 == 0) & super().check(value)


@dataclass(frozen=True)
class GreaterThan(Constraint):
    lower_bound: Any

    def check(self, value: Tensor) -> Tensor:
        return self.lower_bound < value


@dataclass(frozen=True)
class GreaterThanEq(Constraint):
    lower_bound: Any

    def check(self, value: Tensor) -> Tensor:
        return self.lower_bound <= value


class NonnegativeInteger(Constraint):
    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return (value % 1 == 0) & (value >= 0)


class Simplex(Constraint):
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value >= 0).all(dim=-1) & ((value.sum(dim=-1) - 1).abs() < 1e-6)


@dataclass(frozen=True)
class Multinomial(Constraint):
    upper_bound: int
    is_discrete = True
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value >= 0).all(dim=-1) & (value.sum(dim=-1) <= self.upper_bound)


class RealVector(Constraint):
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value == value).all(dim=-1)


class LowerCholesky(Constraint):
    """Lower triangular matrices with a positive diagonal."""

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        lower = (value.tril() == value).all(dim=-1).all(dim=-1)
        return lower & (value.diagonal(dim1=-2, dim2=-1) > 0).all(dim=-1)


class PositiveDefinite(Constraint):
    """Symmetric matrices with positive eigenvalues."""

    event_dim = 2

    def check(self, value: Tensor) -> Tensor:
        close = (value - value.mT).abs() <= 1e-6 + 1e-5 * value.mT.abs()
        symmetric = close.all(dim=-1).all(dim=-1)
        return symmetric & (linalg.cholesky_ex(value).info == 0)


interval = Interval
integer_interval = IntegerInterval
greater_than = GreaterThan
greater_than_eq = GreaterThanEq
multinomial = Multinomial

real = Real()
real_vector = RealVector()
boolean = Boolean()
positive = GreaterThan(0.0)
nonnegative = GreaterThanEq(0.0)
unit_interval = Interval(0.0, 1.0)
nonnegative_integer = NonnegativeInteger()
simplex = Simplex()
lower_cholesky = LowerCholesky()
positive_definite = PositiveDefinite()

__all__ = [
    "Constraint",
    "boolean",
    "greater_than",
    "greater_than_eq",
    "integer_interval",
    "interval",
    "lower_cholesky",
    "multinomial",
    "nonnegative",
    "nonnegative_integer",
    "positive",
    "positive_definite",
    "real",
    "real_vector",
    "simplex",
    "unit_interval",
]
