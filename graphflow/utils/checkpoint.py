"""Trading time for memory, after ``torch.utils.checkpoint``."""

from graphflow.recompute import checkpoint, checkpoint_sequential

__all__ = ["checkpoint", "checkpoint_sequential"]
