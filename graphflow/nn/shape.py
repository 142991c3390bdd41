"""Layers that only reshape."""

from __future__ import annotations

from graphflow import functions as ops
from graphflow.nn.module import Module
from graphflow.tensor import Tensor


class Flatten(Module):
    """Dimensions `start_dim` to `end_dim`, both included, as one: (N, C, H, W) to (N, C*H*W) by default."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        """`input` reshaped."""
        return ops.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """The dimensions."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
