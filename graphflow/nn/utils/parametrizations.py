"""Parametrizations that networks use: PyTorch's ``torch.nn.utils.parametrizations``."""

from __future__ import annotations

from typing import Any, TypeVar

from graphflow import functions as ops
from graphflow.errors import IndexRangeError
from graphflow.nn import functional as F
from graphflow.nn.module import Module
from graphflow.nn.utils.parametrize import register_parametrization
from graphflow.nn.utils.power import PowerIteration, default_dim
from graphflow.tensor import Tensor

M = TypeVar("M", bound=Module)


def norm_except(tensor: Tensor, dim: int | None) -> Tensor:
    """The 2-norm over all dimensions but one, which are kept with size 1; over all dimensions for None."""
    if dim is None:
        return ops.sqrt((tensor * tensor).sum())
    if not -tensor.ndim <= dim < tensor.ndim:
        raise IndexRangeError(f"weight_norm: dim={dim} isn't a dimension of {tensor.type_}")
    others = tuple(axis for axis in range(tensor.ndim) if axis != dim % tensor.ndim)
    squares = tensor * tensor
    return ops.sqrt(squares.sum(others, keepdim=True) if others else squares)


class _WeightNorm(Module):
    def __init__(self, dim: int | None):
        super().__init__()
        self.dim = dim

    def forward(self, magnitude: Tensor, direction: Tensor) -> Tensor:
        """The direction, scaled to the magnitude."""
        return direction * (magnitude / norm_except(direction, self.dim))

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(magnitude, direction)."""
        return norm_except(weight, self.dim), weight


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """The weight as its norm over all dimensions but `dim` (None: one norm for all) times its direction.

    Salimans and Kingma, 2016. They are trained as ``parametrizations.weight.original0`` and ``original1``.
    As ``torch.nn.utils.parametrizations.weight_norm``.
    """
    return register_parametrization(module, name, _WeightNorm(None if dim == -1 else dim), unsafe=True)


class _SpectralNorm(Module):
    def __init__(self, weight: Tensor, n_power_iterations: int, dim: int, eps: float):
        super().__init__()
        if not -weight.ndim <= dim < weight.ndim:
            raise IndexError(
                f"Dimension out of range (expected to be in range of [-{weight.ndim}, {weight.ndim - 1}] but "
                f"got {dim})"
            )
        if n_power_iterations <= 0:
            raise ValueError(
                f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
            )
        self.dim = dim % weight.ndim
        self.eps = eps
        if weight.ndim > 1:
            self.n_power_iterations = n_power_iterations
            self._power = PowerIteration(self.dim, eps)
            u, v = self._power.start(weight)
            self.register_buffer("_u", u)
            self.register_buffer("_v", v)
            self._power.move(weight, self._u, self._v, 15)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight over its largest singular value; while training the estimate of that moves first."""
        if weight.ndim == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        if self.training:
            self._power.move(weight, self._u, self._v, self.n_power_iterations)
        return weight / self._power.norm(weight, self._u.clone(), self._v.clone())

    def right_inverse(self, value: Tensor) -> Tensor:
        """The value as it is, which need not have norm 1."""
        return value


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """The weight over its largest singular value, estimated by power iteration, which goes on at every use
    while training.

    Miyato et al., 2018. `dim` is that of the outputs: 0, or 1 for transposed convolutions. ValueError for
    a name that the module doesn't have. As ``torch.nn.utils.parametrizations.spectral_norm``.
    """
    weight: Any = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    found = default_dim(module) if dim is None else dim
    return register_parametrization(module, name, _SpectralNorm(weight, n_power_iterations, found, eps))


__all__ = ["spectral_norm", "weight_norm"]
