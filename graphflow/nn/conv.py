"""Convolution layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from graphflow import functions as ops
from graphflow.nn import functional as F
from graphflow.nn import init
from graphflow.nn.functional.conv import same_padding
from graphflow.nn.functional.spatial import Ints, ints
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.tensor import Tensor

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

Numbers = int | Sequence[int]
_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """What all convolution layers have: parameters, their start and their description."""

    rank: int
    function: Callable[..., Tensor]
    bias: Parameter | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Numbers, stride: Numbers,
        padding: Numbers | str, dilation: Numbers, transposed: bool, output_padding: Numbers, groups: int,
        bias: bool, padding_mode: str, device: Any, dtype: Any,
    ):  # fmt: skip
        super().__init__()
        name = type(self).__name__
        if groups <= 0:
            raise ValueError(f"{name}: groups must be a positive integer, got {groups}")
        if in_channels % groups:
            raise ValueError(f"{name}: in_channels={in_channels} must be divisible by groups={groups}")
        if out_channels % groups:
            raise ValueError(f"{name}: out_channels={out_channels} must be divisible by groups={groups}")
        if padding_mode not in _MODES:
            raise ValueError(f"{name}: padding_mode must be one of {_MODES}, but got {padding_mode!r}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = ints(kernel_size, self.rank, name, "kernel_size", 1)
        self.stride = ints(stride, self.rank, name, "stride", 1)
        self.dilation = ints(dilation, self.rank, name, "dilation", 1)
        self.padding: Ints | str = self._padding_of(padding)
        self.transposed = transposed
        self.output_padding = ints(output_padding, self.rank, name, "output_padding")
        self.groups = groups
        self.padding_mode = padding_mode
        own = (in_channels, out_channels // groups) if transposed else (out_channels, in_channels // groups)
        self.weight = Parameter(ops.empty((*own, *self.kernel_size), device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(ops.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _padding_of(self, padding: Any) -> Ints | str:
        name = type(self).__name__
        if not isinstance(padding, str):
            return ints(padding, self.rank, name, "padding")
        if padding not in ("same", "valid"):
            raise ValueError(f"{name}: invalid padding string {padding!r}, should be one of 'valid', 'same'")
        if padding == "same" and any(s != 1 for s in self.stride):
            raise ValueError(f"{name}: padding='same' is not supported for strided convolutions")
        return padding

    def reset_parameters(self) -> None:
        """Draws the parameters anew: uniform in ±1/sqrt(fan_in), as PyTorch."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init.fans(self.weight)
            if fan_in:
                init.uniform_(self.bias, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    def extra_repr(self) -> str:
        """Sizes, and what differs from the defaults."""
        rank = self.rank
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        if self.padding != (0,) * rank:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * rank:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * rank:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


class _Forward(_Conv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Numbers,
        stride: Numbers = 1,
        padding: Numbers | str = 0,
        dilation: Numbers = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ):
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, False, 0, groups, bias,
            padding_mode, device, dtype,
        )  # fmt: skip

    def forward(self, input: Tensor) -> Tensor:
        """(N, out_channels, ...), or without N if the input has none."""
        padding = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._border(), mode=self.padding_mode)
            padding = (0,) * self.rank
        function = type(self).function
        return function(input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _border(self) -> list[int]:
        """The padding as `F.pad` takes it, the last dimension first."""
        if self.padding == "valid":
            return [0] * (2 * self.rank)
        if self.padding == "same":
            pairs = same_padding(self.kernel_size, self.dilation)
        else:
            pairs = tuple((p, p) for p in self.padding)  # type: ignore[misc]  # no string here
        return [width for pair in reversed(pairs) for width in pair]


class Conv1d(_Forward):
    """Cross-correlation of (N, C, L) or (C, L) with `weight` (out_channels, in_channels / groups, k), plus
    `bias` (out_channels,).

    Parameters start uniform in ±1/sqrt(in_channels / groups * k), as ``torch.nn.Conv1d``'s do. `padding` is a
    number, ``"same"`` or ``"valid"``; `padding_mode` ``"zeros"``, ``"reflect"``, ``"replicate"`` or
    ``"circular"``.
    """

    rank = 1
    function = staticmethod(F.conv1d)


class Conv2d(_Forward):
    """Cross-correlation of (N, C, H, W) or (C, H, W) with `weight` (out_channels, in_channels / groups, kh,
    kw), plus `bias` (out_channels,). See `Conv1d`.
    """

    rank = 2
    function = staticmethod(F.conv2d)


class Conv3d(_Forward):
    """Cross-correlation of (N, C, D, H, W) or (C, D, H, W) with `weight` (out_channels, in_channels / groups,
    kd, kh, kw), plus `bias` (out_channels,). See `Conv1d`.
    """

    rank = 3
    function = staticmethod(F.conv3d)


class _Transposed(_Conv):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Numbers,
        stride: Numbers = 1,
        padding: Numbers = 0,
        output_padding: Numbers = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Numbers = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ):
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, True, output_padding, groups,
            bias, padding_mode, device, dtype,
        )  # fmt: skip

    def _padding_of(self, padding: Any) -> Ints:
        return ints(padding, self.rank, type(self).__name__, "padding")

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """(N, out_channels, ...); of several sizes that are possible with a stride, `output_size` picks
        one.
        """
        extra = self.output_padding if output_size is None else self._extra(input, output_size)
        function = type(self).function
        return function(
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )

    def _extra(self, input: Tensor, output_size: Sequence[int]) -> Ints:
        name, wanted = type(self).__name__, tuple(output_size)[-self.rank :]
        if not self.rank < input.ndim <= self.rank + 2:
            raise ValueError(
                f"{name}: expected input of {self.rank + 1} or {self.rank + 2} dimensions, got {input.type_}"
            )
        if len(output_size) not in (self.rank, input.ndim):
            raise ValueError(
                f"{name}: for {input.ndim}D input, output_size must have {self.rank} or "
                f"{input.ndim} elements (got {len(output_size)})"
            )
        found = []
        for axis, size in enumerate(wanted):
            padding = self.padding[axis]
            assert isinstance(padding, int)
            low = (
                (int(input.shape[axis - self.rank]) - 1) * self.stride[axis]
                - 2 * padding
                + self.dilation[axis] * (self.kernel_size[axis] - 1)
                + 1
            )
            if not low <= size <= low + self.stride[axis] - 1:
                raise ValueError(
                    f"{name}: requested an output size of {wanted}, but valid sizes in dimension {axis} are "
                    f"{low} to {low + self.stride[axis] - 1} (for an input of {tuple(input.shape)})"
                )
            found.append(size - low)
        return tuple(found)


class ConvTranspose1d(_Transposed):
    """The transpose of `Conv1d`: (N, C, L) or (C, L) with `weight` (in_channels, out_channels / groups, k).

    Arguments, sizes and starting values are those of ``torch.nn.ConvTranspose1d``.
    """

    rank = 1
    function = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_Transposed):
    """The transpose of `Conv2d`: (N, C, H, W) or (C, H, W) with `weight` (in_channels, out_channels / groups,
    kh, kw). See `ConvTranspose1d`.
    """

    rank = 2
    function = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_Transposed):
    """The transpose of `Conv3d`: (N, C, D, H, W) or (C, D, H, W) with `weight` (in_channels, out_channels /
    groups, kd, kh, kw). See `ConvTranspose1d`.
    """

    rank = 3
    function = staticmethod(F.conv_transpose3d)
