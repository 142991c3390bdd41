"""Conversions between dtypes and devices, and questions about a tensor's form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow import dtypes
from graphflow.aliasing import Alias, lies_in_rows, strides_of
from graphflow.compiler.ir import OPS, Shape, Size
from graphflow.compiler.trace import current_trace
from graphflow.dims import Dim, evaluate, product
from graphflow.dtypes import DType
from graphflow.errors import DeviceError, DTypeError
from graphflow.functions.common import (
    as_dtype,
    cast,
    copied,
    dim_arg,
    is_one,
    operand,
    reshaped,
    result_dtype,
    tensor_arg,
)
from graphflow.functions.create import on_cpu
from graphflow.functions.registry import error, public
from graphflow.layouts import layout
from graphflow.runtime.device import Device
from graphflow.sizes import SymbolicSize
from graphflow.tensor import Tensor, apply

__all__ = ["can_cast", "clone", "is_floating_point", "is_tensor", "numel", "promote_types", "result_type"]

_TO_COPY = "ToCopyBackward0"
_DTYPE_LIKE = (DType, np.dtype, type)


@public(function=False, backward=_TO_COPY)
def to(
    self: Tensor,
    *args: Any,
    dtype: Any = None,
    device: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
) -> Tensor:
    """In another dtype, on another device, or as another tensor: ``to(dtype)``, ``to(device, dtype)``,
    ``to(other)``.

    The tensor itself where nothing changes, unless `copy`. `non_blocking` is accepted and has no effect.
    """
    for arg in args:
        if isinstance(arg, Tensor):
            dtype, device = arg.dtype, arg.device
        elif isinstance(arg, bool):
            continue
        elif isinstance(arg, _DTYPE_LIKE):
            dtype = arg
        elif isinstance(arg, (str, Device)):
            device = arg
        elif arg is not None:
            raise error(DTypeError, "to", f"takes a dtype, a device or a tensor, not {type(arg).__name__}")
    if device is not None:
        on_cpu(device)
    result = self if dtype is None else cast(self, as_dtype(dtype))
    return copied(result) if copy and result is self else result


def _conversion(name: str, dtype: DType) -> Callable[[Tensor], Tensor]:
    def function(self: Tensor) -> Tensor:
        return cast(self, dtype)

    function.__doc__ = f"In {dtype}; the tensor itself if it is already."
    function.__module__ = __name__
    return public(name, function=False, backward=_TO_COPY)(function)


_conversion("float", dtypes.float32)
_conversion("double", dtypes.float64)
_conversion("half", dtypes.float16)
_conversion("bfloat16", dtypes.bfloat16)
_conversion("long", dtypes.int64)
_conversion("int", dtypes.int32)
_conversion("short", dtypes.int16)
_conversion("char", dtypes.int8)
_conversion("byte", dtypes.uint8)
_conversion("bool", dtypes.bool_)

_TYPE_NAMES = {
    "float16": "HalfTensor", "bfloat16": "BFloat16Tensor",
    "float32": "FloatTensor", "float64": "DoubleTensor", "int64": "LongTensor", "int32": "IntTensor",
    "int16": "ShortTensor", "int8": "CharTensor", "uint8": "ByteTensor", "bool": "BoolTensor",
}  # fmt: skip


@public(name="type", function=False, backward=_TO_COPY)
def type_of(self: Tensor, dtype: Any = None) -> Any:
    """The type's name, ``"graphflow.FloatTensor"``; with `dtype` (or such a name), the tensor converted to
    it.
    """
    if dtype is None:
        return f"graphflow.{_TYPE_NAMES[self.dtype.name]}"
    if isinstance(dtype, str):
        last = dtype.rpartition(".")[2]
        dtype = next((name for name, spelling in _TYPE_NAMES.items() if spelling == last), last)
    return cast(self, as_dtype(getattr(dtype, "holds", dtype)))


@public(function=False, backward=_TO_COPY)
def type_as(self: Tensor, other: Tensor) -> Tensor:
    """In the dtype of `other`."""
    return cast(self, tensor_arg(other, "type_as", "other").dtype)


@public(function=False)
def cpu(self: Tensor) -> Tensor:
    """The tensor on the CPU: itself."""
    return self


@public(function=False)
def cuda(self: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """The tensor on a GPU; DeviceError where there is none."""
    on_cpu(
        Device("cuda") if device is None else Device("cuda", device) if isinstance(device, int) else device
    )
    raise DeviceError("tensors live on the CPU")  # on_cpu refused before, for whatever it was


Tensor.is_cuda = property(lambda self: False, doc="Whether the elements are on a GPU.")  # type: ignore[attr-defined]


@public()
def clone(input: Tensor, *, memory_format: layout | None = None) -> Tensor:
    """A copy; gradients flow through it. `memory_format` has no effect."""
    return copied(tensor_arg(input, "clone"))


@public(function=False, backward="CloneBackward0")
def contiguous(self: Tensor, memory_format: layout | None = None) -> Tensor:
    """The tensor with its elements in row-major order (whatever `memory_format`): itself if they are, else a
    copy.
    """
    if current_trace() is not None:
        return _contiguous_traced(self)
    if is_contiguous(self):
        return self
    # Laid out anew on the way: a reshape of strided memory copies in row-major order.
    flat = apply(OPS["reshape"], self, shape=(product(self.type_.shape),))
    result = apply(OPS["reshape"], flat, shape=self.type_.shape)
    return result if result._storage is not self._storage else copied(result)


def _contiguous_traced(self: Tensor) -> Tensor:
    """What is known to be strided is copied; what isn't known may be changed in place only while the tensor
    that it may share memory with isn't used.
    """
    laid_out = reshaped(self, self.type_.shape)
    alias, result = laid_out._alias, copied(laid_out)
    if alias is None:  # a constant
        return result
    assert alias.seen is not None
    strides = strides_of(alias.seen, alias.steps)
    copies = None if strides is None else _surely_strided(self.type_.shape, strides)
    if strides is not None and len(alias.steps) == 1:  # not a view
        rows = lies_in_rows(alias.owner)
        copies = None if rows is None else not rows
    if not copies:
        steps = (*alias.steps, (OPS["cast"], {"dtype": self.dtype}))
        result._alias = Alias(alias.owner, steps, alias.seen, copies is False, True)
    return result


def _surely_strided(shape: Shape, strides: Sequence[Size]) -> bool | None:
    """Whether elements with these strides don't lie in row-major order; None where sizes decide."""
    trace = current_trace()
    assert trace is not None
    expected: Size = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if stride != expected and not is_one(size, "contiguous()"):
            excess = stride - expected
            if isinstance(excess, int):
                return True
            if trace.hints is None or evaluate(excess, trace.hints) == 0:
                return None
            for symbol in excess.symbols():
                is_one(Dim.symbol(symbol), "contiguous()")
            return True
        expected = expected * size
    return False


@public(function=False)
def is_contiguous(self: Tensor, memory_format: layout | None = None) -> bool:
    """Whether elements lie in row-major order; while tracing, False for views that may not."""
    if self._array is not None:
        return bool(self._array.flags.c_contiguous)
    return self._alias is None or all(op.kind != "view" for op, _ in self._alias.steps)


@public(function=False)
def stride(self: Tensor, dim: int | None = None) -> Any:
    """Steps in elements between neighbours, along all dimensions or one."""
    array = self._concrete(".stride()", "strides are chosen by the compiler")
    steps = tuple(s // array.itemsize for s in array.strides)
    return steps if dim is None else steps[dim_arg(dim, self.ndim, "stride")]


@public(function=False)
def data_ptr(self: Tensor) -> int:
    """The address of the first element."""
    return int(self._concrete(".data_ptr()", "a traced value has no memory").__array_interface__["data"][0])


def _as_size(value: int | Dim) -> Any:
    return SymbolicSize(value, current_trace()) if isinstance(value, Dim) else value


@public()
def numel(input: Tensor) -> int:
    """The number of elements."""
    return _as_size(product(tensor_arg(input, "numel").type_.shape))  # type: ignore[no-any-return]


@public(name="nelement", function=False)
def nelement(self: Tensor) -> int:
    """The number of elements."""
    return numel(self)


@public(function=False, aliases=("ndimension",))
def dim(self: Tensor) -> int:
    """The number of dimensions."""
    return self.ndim


@public(function=False)
def size(self: Tensor, dim: int | None = None) -> Any:
    """The shape, or one size."""
    return self.shape if dim is None else self.shape[dim_arg(dim, self.ndim, "size")]


@public(function=False)
def element_size(self: Tensor) -> int:
    """Bytes an element takes."""
    return self.dtype.itemsize


@public()
def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype holds fractions."""
    return tensor_arg(input, "is_floating_point").dtype.is_floating_point


@public(method=False)
def is_tensor(obj: object) -> bool:
    """Whether `obj` is a Tensor."""
    return isinstance(obj, Tensor)


@public(method=False)
def result_type(tensor1: Any, tensor2: Any) -> DType:
    """The dtype that arithmetic on two operands gives."""
    from_operands = [
        operand(v, "result_type", argument) for v, argument in ((tensor1, "tensor1"), (tensor2, "tensor2"))
    ]
    return result_dtype(*from_operands)


@public(method=False)
def promote_types(type1: Any, type2: Any) -> DType:
    """The smallest dtype that both convert to, as PyTorch defines it."""
    return dtypes.promote(as_dtype(type1), as_dtype(type2))


@public(method=False)
def can_cast(from_: Any, to: Any) -> bool:
    """Whether `to` is of the category of `from_` or a higher one: bool, integer, floating point."""
    return dtypes.can_cast(from_, to)
