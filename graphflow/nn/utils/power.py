"""The largest singular value by power iteration."""

from __future__ import annotations

from graphflow import functions as ops
from graphflow.nn import functional as F
from graphflow.nn.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from graphflow.nn.module import Module
from graphflow.random import randn
from graphflow.tensor import Tensor, no_grad


def default_dim(module: Module) -> int:
    """The dimension of a layer's weight that stands for its outputs."""
    return 1 if isinstance(module, (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)) else 0


class PowerIteration:
    """Estimates of the first singular vectors `u`, `v` of a weight as a matrix with rows along `dim`."""

    def __init__(self, dim: int, eps: float):
        self.dim = dim
        self.eps = eps

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight as a matrix."""
        if self.dim:
            weight = ops.movedim(weight, self.dim, 0)
        rows: Tensor = weight.reshape(weight.shape[0], -1)
        return rows

    def start(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Random unit vectors."""
        sizes = self.matrix(weight.detach()).shape
        u, v = (F.normalize(randn(n, dtype=weight.dtype), dim=0, eps=self.eps) for n in sizes)
        return u, v

    @no_grad()
    def move(self, weight: Tensor, u: Tensor, v: Tensor, rounds: int) -> None:
        """Makes `u` and `v` better in place."""
        matrix = self.matrix(weight.detach())
        for _ in range(rounds):
            self.half(matrix, v, u)
            self.half(matrix.t(), u, v)

    def half(self, matrix: Tensor, start: Tensor, end: Tensor) -> None:
        """Sets `end` to the direction of ``matrix @ start``."""
        end.copy_(F.normalize(matrix @ start, dim=0, eps=self.eps))

    def norm(self, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The singular value that belongs to `u` and `v`, 0-d."""
        value: Tensor = (u * (self.matrix(weight) @ v)).sum()
        return value
