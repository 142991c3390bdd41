"""Places where PyTorch keeps things, for code that names them there."""

from graphflow.utils import checkpoint, data

__all__ = ["checkpoint", "data"]
