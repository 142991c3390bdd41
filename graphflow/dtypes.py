"""Element types: PyTorch's names over NumPy's storage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from graphflow.errors import DTypeError


@dataclass(frozen=True, eq=False)
class DType:
    """An element type. Instances are the module's constants; compare them with ``is`` or ``==``."""

    name: str
    numpy: np.dtype
    rank: int  # position in the promotion order within its kind

    @property
    def itemsize(self) -> int:
        """Bytes one element takes."""
        return self.numpy.itemsize

    @property
    def is_floating_point(self) -> bool:
        """Whether the type holds fractions (and so can carry gradients)."""
        return self.numpy.kind == "f"

    @property
    def kind(self) -> str:
        """``"bool"``, ``"int"`` or ``"float"``: the category that decides type promotion."""
        return {"b": "bool", "i": "int", "u": "int", "f": "float"}[self.numpy.kind]

    def __repr__(self) -> str:
        return f"graphflow.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> str:
        return self.name


bool_ = DType("bool", np.dtype(np.bool_), 0)
uint8 = DType("uint8", np.dtype(np.uint8), 1)
int8 = DType("int8", np.dtype(np.int8), 2)
int16 = DType("int16", np.dtype(np.int16), 3)
int32 = DType("int32", np.dtype(np.int32), 4)
int64 = DType("int64", np.dtype(np.int64), 5)
float32 = DType("float32", np.dtype(np.float32), 6)
float64 = DType("float64", np.dtype(np.float64), 7)

ALL: tuple[DType, ...] = (bool_, uint8, int8, int16, int32, int64, float32, float64)
FLOATS: tuple[DType, ...] = (float32, float64)
INTS: tuple[DType, ...] = (uint8, int8, int16, int32, int64)

_BY_NAME = {t.name: t for t in ALL}
_BY_NUMPY = {t.numpy: t for t in ALL}
_BY_PYTHON: dict[object, DType] = {float: float32, int: int64, bool: bool_}
_KINDS = ("bool", "int", "float")


def by_name(name: str) -> DType:
    """The dtype called `name`; DTypeError when there is none."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise DTypeError(f"no dtype is called {name!r}; graphflow has {', '.join(_BY_NAME)}") from None


def as_dtype(dtype: object) -> DType:
    """The DType for a DType, a NumPy dtype or scalar type, a Python type, or a name."""
    if isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, type) and dtype in _BY_PYTHON:
        return _BY_PYTHON[dtype]
    try:
        found = _BY_NUMPY.get(np.dtype(dtype).newbyteorder("="))  # type: ignore[call-overload]
    except TypeError:
        found = None
    if found is None:
        raise DTypeError(f"{dtype!r} is not a dtype graphflow has; it has {', '.join(_BY_NAME)}")
    return found


def promote(a: DType, b: DType) -> DType:
    """The common type of two tensors' dtypes, by PyTorch's rule (the higher category wins)."""
    if a is b:
        return a
    ka, kb = _KINDS.index(a.kind), _KINDS.index(b.kind)
    if ka != kb:
        return a if ka > kb else b
    if {a, b} == {uint8, int8}:
        return int16
    return a if a.rank > b.rank else b
