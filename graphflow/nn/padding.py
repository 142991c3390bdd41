"""Layers that put a border around signals, images and volumes."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.nn import functional as F
from graphflow.nn.module import Module
from graphflow.tensor import Tensor

__all__ = [
    "CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d", "ConstantPad3d",
    "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d", "ReplicationPad1d", "ReplicationPad2d",
    "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d", "ZeroPad3d",
]  # fmt: skip

Numbers = int | Sequence[int]


class _Pad(Module):
    rank: int
    mode: str

    def __init__(self, padding: Numbers):
        super().__init__()
        width = 2 * self.rank
        given = tuple(padding) if isinstance(padding, Sequence) else (padding,) * width
        self.padding: tuple[int, ...] = given
        if len(self.padding) != width:
            raise ValueError(f"{type(self).__name__}: padding takes 1 or {width} numbers, got {padding!r}")

    def forward(self, input: Tensor) -> Tensor:
        """`input` with its border."""
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        """The border's widths."""
        return f"{self.padding}"


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: Numbers, value: float):
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        """`input` with its border."""
        return F.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        """The border's widths and value."""
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """`value` before and after the last dimension; `padding` is one number or (left, right)."""

    rank = 1


class ConstantPad2d(_ConstantPad):
    """`value` around the last two dimensions; `padding` is one number or (left, right, top, bottom)."""

    rank = 2


class ConstantPad3d(_ConstantPad):
    """`value` around the last three dimensions; `padding` is one number or (left, right, top, bottom, front,
    back).
    """

    rank = 3


class _ZeroPad(_ConstantPad):
    def __init__(self, padding: Numbers):
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """The border's widths."""
        return f"{self.padding}"


class ZeroPad1d(_ZeroPad):
    """Zeros before and after the last dimension. See `ConstantPad1d`."""

    rank = 1


class ZeroPad2d(_ZeroPad):
    """Zeros around the last two dimensions. See `ConstantPad2d`."""

    rank = 2


class ZeroPad3d(_ZeroPad):
    """Zeros around the last three dimensions. See `ConstantPad3d`."""

    rank = 3


class ReflectionPad1d(_Pad):
    """The last dimension mirrored at its ends, which aren't repeated; `padding` as in `ConstantPad1d`."""

    rank, mode = 1, "reflect"


class ReflectionPad2d(_Pad):
    """The last two dimensions mirrored at their ends; `padding` as in `ConstantPad2d`."""

    rank, mode = 2, "reflect"


class ReflectionPad3d(_Pad):
    """The last three dimensions mirrored at their ends; `padding` as in `ConstantPad3d`."""

    rank, mode = 3, "reflect"


class ReplicationPad1d(_Pad):
    """First and last elements of the last dimension repeated; `padding` as in `ConstantPad1d`."""

    rank, mode = 1, "replicate"


class ReplicationPad2d(_Pad):
    """First and last elements of the last two dimensions repeated; `padding` as in `ConstantPad2d`."""

    rank, mode = 2, "replicate"


class ReplicationPad3d(_Pad):
    """First and last elements of the last three dimensions repeated; `padding` as in `ConstantPad3d`."""

    rank, mode = 3, "replicate"


class CircularPad1d(_Pad):
    """The last dimension going round; `padding` as in `ConstantPad1d`."""

    rank, mode = 1, "circular"


class CircularPad2d(_Pad):
    """The last two dimensions going round; `padding` as in `ConstantPad2d`."""

    rank, mode = 2, "circular"


class CircularPad3d(_Pad):
    """The last three dimensions going round; `padding` as in `ConstantPad3d`."""

    rank, mode = 3, "circular"
