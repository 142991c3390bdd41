"""Whether there is a GPU, after ``torch.cuda``, and what programs call that prepare for one."""

from graphflow.cuda import amp
from graphflow.errors import DeviceError
from graphflow.random import manual_seed as _manual_seed
from graphflow.runtime.device import Device, as_device, check
from graphflow.runtime.device import cuda_device_count as device_count
from graphflow.runtime.device import cuda_is_available as is_available


def current_device() -> int:
    """The number of the GPU in use: 0, the first."""
    return 0


def is_bf16_supported() -> bool:
    """Whether GPUs compute in bfloat16: only where there is one."""
    return is_available()


def reset_peak_memory_stats(device: object = None) -> None:
    """Nothing: no GPU memory is held."""


def memory_reserved(device: object = None) -> int:
    """Bytes of GPU memory held for tensors to come: 0."""
    return 0


def max_memory_reserved(device: object = None) -> int:
    """The most bytes of GPU memory that were held: 0."""
    return 0


def get_device_name(device: object = None) -> str:
    """The name of a GPU; DeviceError where there is none."""
    raise DeviceError("get_device_name: graphflow computes on the CPU and doesn't look at GPUs")


def set_device(device: object) -> None:
    """Chooses a GPU; DeviceError where it isn't there."""
    check(Device("cuda", device) if isinstance(device, int) else as_device(device))  # type: ignore[arg-type]


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
    "amp", "current_device", "device_count", "empty_cache", "get_device_name", "is_available",
    "is_bf16_supported", "is_initialized", "manual_seed", "manual_seed_all", "max_memory_allocated",
    "max_memory_reserved", "memory_allocated", "memory_reserved", "reset_peak_memory_stats", "set_device",
    "synchronize",
]  # fmt: skip
