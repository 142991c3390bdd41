"""``torch.utils.data.distributed``'s place."""

from graphflow.data.samplers import DistributedSampler

__all__ = ["DistributedSampler"]
