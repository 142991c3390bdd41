"""Places where PyTorch keeps things, for code that names them there."""

from graphflow.utils import data

__all__ = ["data"]
