"""Whether there is a GPU, after ``torch.cuda``."""

from graphflow.runtime.device import cuda_device_count as device_count
from graphflow.runtime.device import cuda_is_available as is_available

__all__ = ["device_count", "is_available"]
