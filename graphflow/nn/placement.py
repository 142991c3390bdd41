"""Where a module's tensors are and of which dtype: the part of Module that moves and converts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from graphflow.dtypes import DType, as_dtype
from graphflow.functions import empty_like
from graphflow.tensor import Tensor

Self = TypeVar("Self", bound="Placed")


class Placed:
    """What Module has of ``to`` and its short forms."""

    def _convert(self: Self, change: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        raise NotImplementedError

    def to(self: Self, *args: Any, **kwargs: Any) -> Self:
        """Moves to a device and converts floating-point parameters and buffers to a dtype, in place.

        ``to(device)``, ``to(dtype)``, ``to(device, dtype)``, ``to(tensor)``, or by keyword. TypeError for a
        dtype that isn't floating point.
        """
        device, dtype = _destination(args, kwargs)
        return self._convert(
            lambda t: t.to(device=device, dtype=dtype if t.dtype.is_floating_point else None)
        )

    def to_empty(self: Self, *, device: Any, recurse: bool = True) -> Self:
        """Moves to a device without the elements, which are still to be filled; with ``recurse=False``
        without the modules below.
        """
        return self._convert(lambda t: empty_like(t, device=device), recurse)

    def share_memory(self: Self) -> Self:
        """The module as it is: threads share its tensors."""
        return self

    def type(self: Self, dst_type: Any) -> Self:
        """Converts every parameter and buffer to a dtype."""
        dtype = as_dtype(dst_type)
        return self._convert(lambda t: t.to(dtype=dtype))

    def float(self: Self) -> Self:
        """Converts floating-point parameters and buffers to float32."""
        return self.to(dtype="float32")

    def double(self: Self) -> Self:
        """Converts floating-point parameters and buffers to float64."""
        return self.to(dtype="float64")

    def half(self: Self) -> Self:
        """Converts floating-point parameters and buffers to float16."""
        return self.to(dtype="float16")

    def bfloat16(self: Self) -> Self:
        """Converts floating-point parameters and buffers to bfloat16."""
        return self.to(dtype="bfloat16")

    def cpu(self: Self) -> Self:
        """Moves to the CPU."""
        return self.to(device="cpu")

    def cuda(self: Self, device: Any = None) -> Self:
        """Moves to a GPU; DeviceError where there is none."""
        if device is None or isinstance(device, int):
            device = "cuda" if device is None else f"cuda:{device}"
        return self.to(device=device)


def _destination(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, DType | None]:
    """(device, dtype) out of what ``to`` was given, either None."""
    unknown = set(kwargs) - {"device", "dtype", "non_blocking", "copy"}
    if unknown or len(args) > 2:
        raise TypeError(
            f"to() takes device= and dtype=, got {', '.join(sorted(unknown)) or f'{len(args)} positions'}"
        )
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    for arg in args:
        if isinstance(arg, Tensor):
            device, dtype = arg.device, arg.dtype
        elif isinstance(arg, DType):
            dtype = arg
        elif arg is not None:
            device = arg
    if dtype is not None:
        dtype = as_dtype(dtype)
        if not dtype.is_floating_point:
            raise TypeError(
                f"nn.Module.to only accepts floating point dtypes, but got desired dtype={dtype!r}"
            )
    return device, dtype
