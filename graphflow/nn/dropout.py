"""Layers that drop elements at random while training."""

from __future__ import annotations

from graphflow.nn import functional as F
from graphflow.nn.module import Module
from graphflow.tensor import Tensor

__all__ = ["AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"]


class Dropout(Module):
    """While training, zeros each element with probability `p` and divides the others by 1-p; else the input
    as it is.

    ValueError unless 0 <= p <= 1.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.dropout(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        """The probability, and whether it works in place."""
        return f"p={self.p}, inplace={self.inplace}"


class AlphaDropout(Dropout):
    """While training, sets elements with probability `p` to SELU's saturation; mean 0 and variance 1 stay."""

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.alpha_dropout(input, self.p, self.training, self.inplace)


class FeatureAlphaDropout(Dropout):
    """`AlphaDropout` of whole channels, dimension 1 of (N, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.feature_alpha_dropout(input, self.p, self.training, self.inplace)


class Dropout1d(Dropout):
    """While training, zeros each channel of (N, C, L) or (C, L) with probability `p`, dividing the others by
    1-p.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(Dropout):
    """While training, zeros each channel of (N, C, H, W) with probability `p`, dividing the others by 1-p."""

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(Dropout):
    """While training, zeros each channel of (N, C, D, H, W) or (C, D, H, W) with probability `p`, dividing
    the others by 1-p.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Same shape as `input`."""
        return F.dropout3d(input, self.p, self.training, self.inplace)
