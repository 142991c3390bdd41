"""Whether there is a GPU, after ``torch.cuda``, and what programs call that prepare for one."""

from graphflow.random import manual_seed as _manual_seed
from graphflow.runtime.device import cuda_device_count as device_count
from graphflow.runtime.device import cuda_is_available as is_available


def manual_seed(seed: int) -> None:
    """Seeds the random numbers, of which there is one stream for all devices."""
    _manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Seeds the random numbers, of which there is one stream for all devices."""
    _manual_seed(seed)


def empty_cache() -> None:
    """Nothing: no GPU memory is held."""


def synchronize(device: object = None) -> None:
    """Nothing: every call is finished when it returns."""


def is_initialized() -> bool:
    """Whether a GPU is in use: never."""
    return False


def memory_allocated(device: object = None) -> int:
    """Bytes of GPU memory that tensors take: 0."""
    return 0


def max_memory_allocated(device: object = None) -> int:
    """The most bytes of GPU memory that tensors took: 0."""
    return 0


__all__ = [
    "device_count", "empty_cache", "is_available", "is_initialized", "manual_seed", "manual_seed_all",
    "max_memory_allocated", "memory_allocated", "synchronize",
]  # fmt: skip
