"""PyTorch's older names for tensors of one dtype: ``FloatTensor([1, 2])``, ``isinstance(x, LongTensor)``."""

from __future__ import annotations

from typing import Any

from graphflow import dtypes
from graphflow.dtypes import DType
from graphflow.interop import numbers
from graphflow.tensor import Tensor


class _Typed(type):
    """Calling such a class makes a Tensor; its instances are the tensors of its dtype."""

    holds: DType

    def __call__(cls, *data: Any) -> Tensor:
        return Tensor.holding(numbers(data, cls.holds.numpy))

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, Tensor) and instance.dtype is cls.holds


def _typed(name: str, dtype: DType) -> _Typed:
    doc = f"Tensors of {dtype}; called with sizes, a list, an array or a tensor, it makes one."
    return _Typed(name, (), {"holds": dtype, "__doc__": doc, "__module__": __name__})


FloatTensor = _typed("FloatTensor", dtypes.float32)
DoubleTensor = _typed("DoubleTensor", dtypes.float64)
HalfTensor = _typed("HalfTensor", dtypes.float16)
BFloat16Tensor = _typed("BFloat16Tensor", dtypes.bfloat16)
LongTensor = _typed("LongTensor", dtypes.int64)
IntTensor = _typed("IntTensor", dtypes.int32)
ShortTensor = _typed("ShortTensor", dtypes.int16)
CharTensor = _typed("CharTensor", dtypes.int8)
ByteTensor = _typed("ByteTensor", dtypes.uint8)
BoolTensor = _typed("BoolTensor", dtypes.bool_)

__all__ = [
    "BFloat16Tensor", "BoolTensor", "ByteTensor", "CharTensor", "DoubleTensor", "FloatTensor", "HalfTensor",
    "IntTensor", "LongTensor", "ShortTensor", "set_default_tensor_type",
]  # fmt: skip


def set_default_tensor_type(t: Any) -> None:
    """``set_default_dtype`` for code that names a tensor type: ``FloatTensor`` or ``"torch.FloatTensor"``."""
    found = globals().get(t.rpartition(".")[2]) if isinstance(t, str) else t
    if not isinstance(found, _Typed):
        raise TypeError(f"a tensor type such as gf.FloatTensor is needed, not {t!r}")
    dtypes.set_default_dtype(found.holds)
