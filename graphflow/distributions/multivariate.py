"""Distributions over vectors of real numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MappingProxyType

from graphflow import functions as ops
from graphflow import linalg
from graphflow.distributions import constraints
from graphflow.distributions.constraints import Constraint
from graphflow.distributions.distribution import Distribution
from graphflow.tensor import Tensor

_MATRICES = ("covariance_matrix", "precision_matrix", "scale_tril")


class MultivariateNormal(Distribution):
    """Normal vectors with mean `loc` (..., n) and one of the (..., n, n) matrices: the covariance, its
    inverse (`precision_matrix`), or its lower Cholesky factor (`scale_tril`), which is the cheapest to give.
    """

    arg_constraints = MappingProxyType({
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    })  # fmt: skip
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ):
        matrices = zip(_MATRICES, (covariance_matrix, precision_matrix, scale_tril), strict=True)
        given = [(name, matrix) for name, matrix in matrices if matrix is not None]
        if len(given) != 1:
            raise ValueError(
                "Exactly one of covariance_matrix or precision_matrix or scale_tril may be specified."
            )
        ((name, matrix),) = given
        for argument, value, least in (("loc", loc, 1), (name, matrix, 2)):
            if not isinstance(value, Tensor) or value.ndim < least:
                raise ValueError(
                    f"{argument} must be a tensor, at least {('one', 'two')[least - 1]}-dimensional, with "
                    f"optional leading batch dimensions, got {getattr(value, 'type_', type(value).__name__)}"
                )
        size = loc.shape[-1]
        if tuple(matrix.shape[-2:]) != (size, size):
            raise ValueError(f"{name} is (..., {size}, {size}) for this loc, got {tuple(matrix.shape)}")
        batch = tuple(ops.broadcast_shapes(tuple(matrix.shape[:-2]), tuple(loc.shape[:-1])))
        self.loc = loc.expand((*batch, size))
        setattr(self, name, matrix.expand((*batch, size, size)))
        chosen = {"loc": constraints.real_vector, name: self.arg_constraints[name]}
        self.arg_constraints = MappingProxyType(chosen)
        super().__init__(batch, (size,), validate_args)
        self._factor = matrix if name == "scale_tril" else _factor(matrix, name == "precision_matrix")
        factor = self._factor.expand((*batch, size, size))
        if name != "scale_tril":
            self.scale_tril = factor
        if name != "covariance_matrix":
            self.covariance_matrix = factor @ factor.mT
        if name != "precision_matrix":
            self.precision_matrix = ops.cholesky_inverse(factor)

    @property
    def support(self) -> Constraint:
        """All vectors of real numbers."""
        return constraints.real_vector

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
        """The diagonal of the covariance."""
        return (self.scale_tril * self.scale_tril).sum(dim=-1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """``loc + scale_tril @ noise``."""
        noise = ops.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype)
        return self.loc + (self._factor @ noise.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density."""
        self._validate_sample(value)
        distance = (solved(self._factor, value - self.loc) ** 2).sum(dim=-1)
        return -0.5 * (self.event_shape[0] * math.log(2 * math.pi) + distance) - self._log_volume()

    def entropy(self) -> Tensor:
        """The differential entropy."""
        return (0.5 * self.event_shape[0] * (1 + math.log(2 * math.pi)) + self._log_volume()).expand(
            self.batch_shape
        )

    def _log_volume(self) -> Tensor:
        """Half the logarithm of the covariance's determinant."""
        found: Tensor = self._factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        return found


def solved(factor: Tensor, vectors: Tensor) -> Tensor:
    """``factor⁻¹ @ v`` for vectors (..., n)."""
    if factor.ndim == 2:  # one matrix for all
        rows = vectors.reshape(-1, vectors.shape[-1])
        return linalg.solve_triangular(factor, rows.mT, upper=False).mT.reshape(vectors.shape)
    shape = tuple(ops.broadcast_shapes(tuple(factor.shape[:-1]), tuple(vectors.shape)))
    factor = factor.expand((*shape, shape[-1]))
    return linalg.solve_triangular(factor, vectors.expand(shape).unsqueeze(-1), upper=False).squeeze(-1)


def _factor(matrix: Tensor, is_inverse: bool) -> Tensor:
    """The lower Cholesky factor of a covariance, or of the inverse of what is given."""
    if not is_inverse:
        return linalg.cholesky(matrix)
    upside_down = linalg.cholesky(matrix.flip((-2, -1))).flip((-2, -1)).mT
    one = ops.eye(matrix.shape[-1], dtype=matrix.dtype).expand(matrix.shape)
    return linalg.solve_triangular(upside_down, one, upper=False)


__all__ = ["MultivariateNormal", "solved"]
