"""Where tensors live: ``Device`` after ``torch.device``, and which devices this machine has."""

from __future__ import annotations

import ctypes
import functools
import re
import sys

from graphflow.errors import DeviceError

_NAMES = {"linux": ("libcuda.so.1",), "win32": ("nvcuda.dll",)}


class Device:
    """A device by type and index, as ``torch.device``: ``Device("cpu")``, ``Device("cuda:0")``,
    ``Device("cuda", 1)``.

    ``index`` is None where none was given. Immutable; equal devices have equal hashes. DeviceError for a type
    other than cpu and cuda and for text that isn't a device. That a Device can be named doesn't mean that it
    is there: see `check`.
    """

    __slots__ = ("_index", "_type")

    def __init__(self, type: str | Device, index: int | None = None):
        if isinstance(type, Device):
            if index is not None:
                raise DeviceError(f"{type!r} is a device already; it takes no index")
            name, index = type.type, type.index
        else:
            match = re.fullmatch(r"(cpu|cuda)(?::([0-9]{1,4}))?", type) if isinstance(type, str) else None
            if match is None:
                raise DeviceError(f"{type!r} is not a device; write 'cpu', 'cuda' or 'cuda:0'")
            if match.group(2) is not None and index is not None:
                raise DeviceError(f"{type!r} names an index already, and index={index} gives another")
            name = match.group(1)
            index = int(match.group(2)) if match.group(2) is not None else index
        if index is not None and (not isinstance(index, int) or index < 0 or (name == "cpu" and index > 0)):
            raise DeviceError(f"{name!r} has no device number {index!r}")
        self._type, self._index = name, index

    @property
    def type(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return self._type

    @property
    def index(self) -> int | None:
        """The number among devices of this type, None for the current one."""
        return self._index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Device, (str(self),)

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type={self.type!r}{index})"


CPU = Device("cpu")


def as_device(device: Device | str | None) -> Device:
    """The Device for a Device, its text, or None (the CPU)."""
    if device is None:
        return CPU
    return device if isinstance(device, Device) else Device(device)


def check(device: Device) -> None:
    """DeviceError unless this machine has `device`."""
    if device.type == "cpu":
        return
    count = cuda_device_count()
    if count == 0:
        raise DeviceError(f"{device!r} is not there: no CUDA driver with a device was found on this machine")
    if (device.index or 0) >= count:
        raise DeviceError(f"{device!r} is not there: this machine has {count} CUDA device(s), counted from 0")


def cuda_is_available() -> bool:
    """Whether a CUDA driver is installed and has at least one device, as ``torch.cuda.is_available``."""
    return cuda_device_count() > 0


@functools.cache
def cuda_device_count() -> int:
    """How many CUDA devices the driver offers; 0 without a driver. Asked of the driver once."""
    for name in _NAMES.get(sys.platform, ()):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return count.value
    return 0
