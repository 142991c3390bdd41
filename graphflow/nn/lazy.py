"""Layers that take the number of their inputs from the first batch."""

from __future__ import annotations

import itertools
from typing import Any

from graphflow.errors import ShapeError, TraceError
from graphflow.nn.batch import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from graphflow.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    Numbers,
)
from graphflow.nn.linear import Linear
from graphflow.nn.module import Module
from graphflow.nn.parameter import Uninitialized, UninitializedBuffer, UninitializedParameter, is_lazy
from graphflow.tensor import Tensor, no_grad, where_called

__all__ = [
    "LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d", "LazyConv1d", "LazyConv2d", "LazyConv3d",
    "LazyConvTranspose1d", "LazyConvTranspose2d", "LazyConvTranspose3d", "LazyInstanceNorm1d",
    "LazyInstanceNorm2d", "LazyInstanceNorm3d", "LazyLinear",
]  # fmt: skip


class LazyModuleMixin(Module):
    """What a module has whose parameters' sizes follow from the first input: ``initialize_parameters``, given
    forward's arguments, has to fix them, and then the module becomes one of class `cls_to_become`.

    As ``torch.nn.modules.lazy.LazyModuleMixin``. The first call can't be inside a compiled function.
    """

    cls_to_become: type[Module] | None = None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._initialize_hook = self.register_forward_pre_hook(self._infer_parameters, with_kwargs=True)

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Gives every parameter and buffer its size; NotImplementedError unless the class defines it."""
        raise NotImplementedError(f"initialize_parameters is not implemented for {type(self).__name__}")

    def has_uninitialized_params(self) -> bool:
        """Whether there is a parameter or buffer whose size isn't known."""
        return any(map(is_lazy, itertools.chain(self._parameters.values(), self._buffers.values())))

    def _infer_parameters(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        name = type(self).__name__
        if any(isinstance(v, Tensor) and v.is_traced for v in (*args, *kwargs.values())):
            raise TraceError(
                f"{name}: the sizes of its parameters aren't known yet, and a compiled function can't make "
                f"them; call the model once on a batch before compiling{where_called()}"
            )
        self.initialize_parameters(*args, **kwargs)
        if self.has_uninitialized_params():
            raise RuntimeError(f"module {name} has not been fully initialized")
        self._initialize_hook.remove()
        del self._initialize_hook
        if self.cls_to_become is not None:
            self.__class__ = self.cls_to_become  # type: ignore[assignment]


class _Lazy(LazyModuleMixin):
    """The layers below: made with 0 inputs, and their tensors then replaced by ones without a size."""

    counted = "in_features"

    def __init__(self, *args: Any, device: Any, dtype: Any, **kwargs: Any):
        super().__init__(*args, device=device, dtype=dtype, **kwargs)
        for name, parameter in self._parameters.items():
            if parameter is not None:
                setattr(self, name, UninitializedParameter(device=device, dtype=dtype))
        for name in ("running_mean", "running_var"):
            if self._buffers.get(name) is not None:
                setattr(self, name, UninitializedBuffer(device=device, dtype=dtype))

    def _count(self, input: Tensor) -> int:
        return int(input.shape[-1])

    def _shape(self, name: str, count: int) -> tuple[int, ...]:
        """The shape of a tensor for this number of inputs."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Draws the parameters anew, once there are any."""
        if not self.has_uninitialized_params() and getattr(self, self.counted):
            super().reset_parameters()  # type: ignore[misc]  # the layer's

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Sizes, and starting values, from forward's arguments."""
        input = args[0] if args else kwargs.get("input")
        if not isinstance(input, Tensor):
            raise TypeError(f"{type(self).__name__}: expected a Tensor, got {type(input).__name__}")
        if self.has_uninitialized_params():
            count = self._count(input)
            setattr(self, self.counted, count)
            with no_grad():
                for name, tensor in (*self._parameters.items(), *self._buffers.items()):
                    if isinstance(tensor, Uninitialized):
                        tensor.materialize(self._shape(name, count))
                self.reset_parameters()
        elif not getattr(self, self.counted):  # its tensors were loaded
            setattr(self, self.counted, self._count(input))


class LazyLinear(_Lazy, Linear):
    """`Linear` with ``in_features`` from the first input. As ``torch.nn.LazyLinear``."""

    cls_to_become = Linear

    def __init__(self, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None):
        super().__init__(0, out_features, bias, device=device, dtype=dtype)

    def _shape(self, name: str, count: int) -> tuple[int, ...]:
        return (self.out_features, count) if name == "weight" else (self.out_features,)


class _LazyConv(_Lazy):
    counted = "in_channels"
    rank: int
    groups: int
    out_channels: int
    transposed: bool
    kernel_size: tuple[int, ...]

    def _count(self, input: Tensor) -> int:
        if input.ndim not in (self.rank + 1, self.rank + 2):
            raise ShapeError(
                f"Expected {self.rank + 1}D (unbatched) or {self.rank + 2}D (batched) input to "
                f"{type(self).__name__}, but got input of size: {list(input.shape)}{where_called()}"
            )
        count = int(input.shape[-self.rank - 1])
        if count % self.groups:
            raise ValueError(f"in_channels={count} must be divisible by groups={self.groups}{where_called()}")
        return count

    def _shape(self, name: str, count: int) -> tuple[int, ...]:
        if name == "bias":
            return (self.out_channels,)
        if self.transposed:
            return (count, self.out_channels // self.groups, *self.kernel_size)
        return (self.out_channels, count // self.groups, *self.kernel_size)


class _LazyForward(_LazyConv):
    def __init__(
        self,
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
            0, out_channels, kernel_size, stride, padding, dilation, groups, bias, padding_mode,
            device=device, dtype=dtype,
        )  # fmt: skip


class _LazyTransposed(_LazyConv):
    def __init__(
        self,
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
        super().__init__(
            0, out_channels, kernel_size, stride, padding, output_padding, groups, bias, dilation,
            padding_mode, device=device, dtype=dtype,
        )  # fmt: skip


class _LazyNorm(_Lazy):
    counted = "num_features"
    ranks: tuple[int, ...]

    def __init__(
        self,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ):
        super().__init__(0, eps, momentum, affine, track_running_stats, device=device, dtype=dtype, bias=bias)

    def _count(self, input: Tensor) -> int:
        if input.ndim not in self.ranks:
            expected = " or ".join(f"{rank}D" for rank in self.ranks)
            raise ValueError(f"{type(self).__name__}: expected {expected} input (got {input.ndim}D input)")
        return int(input.shape[1 if input.ndim == self.ranks[-1] else self.axis])

    axis = 1

    def _shape(self, name: str, count: int) -> tuple[int, ...]:
        return (count,)


class _LazyInstanceNorm(_LazyNorm):
    axis = 0  # of the channels, where there is no batch


class LazyConv1d(_LazyForward, Conv1d):  # which of the two says rank is the same
    """`Conv1d` with ``in_channels`` from the first input. As ``torch.nn.LazyConv1d``."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyForward, Conv2d):  # which of the two says rank is the same
    """`Conv2d` with ``in_channels`` from the first input. As ``torch.nn.LazyConv2d``."""

    cls_to_become = Conv2d


class LazyConv3d(_LazyForward, Conv3d):  # which of the two says rank is the same
    """`Conv3d` with ``in_channels`` from the first input. As ``torch.nn.LazyConv3d``."""

    cls_to_become = Conv3d


class LazyConvTranspose1d(_LazyTransposed, ConvTranspose1d):
    """`ConvTranspose1d` with ``in_channels`` from the first input.

    As ``torch.nn.LazyConvTranspose1d``.
    """

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyTransposed, ConvTranspose2d):
    """`ConvTranspose2d` with ``in_channels`` from the first input.

    As ``torch.nn.LazyConvTranspose2d``.
    """

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyTransposed, ConvTranspose3d):
    """`ConvTranspose3d` with ``in_channels`` from the first input.

    As ``torch.nn.LazyConvTranspose3d``.
    """

    cls_to_become = ConvTranspose3d


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):  # type: ignore[misc]
    """`BatchNorm1d` with ``num_features`` from the first input. As ``torch.nn.LazyBatchNorm1d``."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):  # type: ignore[misc]
    """`BatchNorm2d` with ``num_features`` from the first input. As ``torch.nn.LazyBatchNorm2d``."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):  # type: ignore[misc]
    """`BatchNorm3d` with ``num_features`` from the first input. As ``torch.nn.LazyBatchNorm3d``."""

    cls_to_become = BatchNorm3d


class LazyInstanceNorm1d(_LazyInstanceNorm, InstanceNorm1d):  # type: ignore[misc]
    """`InstanceNorm1d` with ``num_features`` from the first input. As ``torch.nn.LazyInstanceNorm1d``."""

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(_LazyInstanceNorm, InstanceNorm2d):  # type: ignore[misc]
    """`InstanceNorm2d` with ``num_features`` from the first input. As ``torch.nn.LazyInstanceNorm2d``."""

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(_LazyInstanceNorm, InstanceNorm3d):  # type: ignore[misc]
    """`InstanceNorm3d` with ``num_features`` from the first input. As ``torch.nn.LazyInstanceNorm3d``."""

    cls_to_become = InstanceNorm3d
