"""Element types: PyTorch's names over NumPy's storage."""

from __future__ import annotations

import functools
import types
from dataclasses import dataclass

import numpy as np

from graphflow.errors import DTypeError


@dataclass(frozen=True, eq=False)
class DType:
    """An element type. Instances are the module's constants; compare them with ``is`` or ``==``.

    `kind` is ``"bool"``, ``"int"`` or ``"float"``: the category that decides type promotion.
    """

    name: str
    kind: str
    itemsize: int  # bytes that one element takes
    rank: int  # position in the promotion order within its kind

    @functools.cached_property
    def numpy(self) -> np.dtype:
        """NumPy's dtype with the same elements."""
        return _bfloat16() if self.name == "bfloat16" else np.dtype(self.name)

    @property
    def is_floating_point(self) -> bool:
        """Whether the type holds fractions (and so can carry gradients)."""
        return self.kind == "float"

    @property
    def is_half(self) -> bool:
        """Whether the type only stores numbers: arithmetic is done in float32, each result rounded."""
        return self.kind == "float" and self.itemsize == 2

    @property
    def is_signed(self) -> bool:
        """Whether the type has negative numbers."""
        return self.name not in ("uint8", "bool")

    @property
    def is_complex(self) -> bool:
        """Whether the type has an imaginary part: never."""
        return False

    def __repr__(self) -> str:
        return f"graphflow.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> str:
        return self.name


def _bfloat16() -> np.dtype:
    try:
        import ml_dtypes
    except ImportError:
        raise DTypeError(
            "bfloat16 arrays need the package ml_dtypes: pip install 'graphflow[bfloat16]'"
        ) from None
    found: np.dtype = np.dtype(ml_dtypes.bfloat16)
    return found


bool_ = DType("bool", "bool", 1, 0)
uint8 = DType("uint8", "int", 1, 1)
int8 = DType("int8", "int", 1, 2)
int16 = DType("int16", "int", 2, 3)
int32 = DType("int32", "int", 4, 4)
int64 = DType("int64", "int", 8, 5)
float16 = DType("float16", "float", 2, 6)
bfloat16 = DType("bfloat16", "float", 2, 7)
float32 = DType("float32", "float", 4, 8)
float64 = DType("float64", "float", 8, 9)

ALL: tuple[DType, ...] = (
    bool_, uint8, int8, int16, int32, int64, float16, bfloat16, float32, float64
)  # fmt: skip
HALVES: tuple[DType, ...] = (float16, bfloat16)  # these only store numbers; see DType.is_half
FLOATS: tuple[DType, ...] = (float32, float64)  # those that arithmetic is done in
INTS: tuple[DType, ...] = (uint8, int8, int16, int32, int64)

_BY_NAME = {t.name: t for t in ALL}
_BY_NUMPY = {t.numpy: t for t in ALL if t is not bfloat16}
_BY_PYTHON: dict[object, DType] = {float: float64, int: int64, bool: bool_}
_KINDS = ("bool", "int", "float")


DEFAULT = types.CellType(float32)


def get_default_dtype() -> DType:
    """The dtype of tensors made of Python floats, and of what integers become in floating point functions."""
    return DEFAULT.cell_contents  # type: ignore[no-any-return]


def set_default_dtype(d: object) -> None:
    """Sets what `get_default_dtype` gives; compiled functions make a variant for each.

    DTypeError unless it is a floating point dtype.
    """
    dtype = as_dtype(d)
    if dtype.kind != "float":
        raise DTypeError(f"set_default_dtype: only floating point dtypes can be the default, not {dtype}")
    DEFAULT.cell_contents = dtype


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
    if isinstance(dtype, str) and dtype == "bfloat16":
        return bfloat16
    found = None
    try:
        given = np.dtype(dtype).newbyteorder("=")  # type: ignore[call-overload]
    except (TypeError, ValueError):
        pass
    else:
        found = bfloat16 if is_bfloat16(given) else _BY_NUMPY.get(given)
    if found is None:
        raise DTypeError(f"{dtype!r} is not a dtype graphflow has; it has {', '.join(_BY_NAME)}")
    return found


def is_bfloat16(dtype: np.dtype) -> bool:
    """Whether a NumPy dtype is that of ml_dtypes for bfloat16, which NumPy itself doesn't know."""
    return dtype.kind == "V" and dtype.name == "bfloat16"


def holds_floats(array: np.ndarray) -> bool:
    """Whether an array's elements are floating point numbers."""
    return array.dtype.kind == "f" or is_bfloat16(array.dtype)


def is_half(array: np.ndarray) -> bool:
    """Whether an array's elements only store numbers, for arithmetic in float32."""
    return array.dtype.itemsize == 2 and holds_floats(array)


def rounded(array: np.ndarray, dtype: DType) -> np.ndarray:
    """Numbers of any dtype in one that is half: by way of float32, to the nearest, halves to even."""
    return array.astype(np.float32).astype(dtype.numpy)


@dataclass(frozen=True)
class finfo:
    """What a floating point dtype can represent: ``finfo(dtype)``, by default of the default dtype."""

    dtype: str
    bits: int
    eps: float  # the distance from 1 to the next number
    max: float
    min: float
    tiny: float  # the smallest positive number of full precision
    smallest_normal: float
    resolution: float

    def __init__(self, type: object = None):
        found = as_dtype(type) if type is not None else get_default_dtype()
        if found.kind != "float":
            raise DTypeError(f"finfo: {found} is no floating point dtype; use iinfo")
        facts = _Bfloat16Facts() if found is bfloat16 else np.finfo(found.numpy)
        for name in ("eps", "max", "min", "smallest_normal", "resolution"):
            object.__setattr__(self, name, float(getattr(facts, name)))
        for name, value in (("dtype", found.name), ("bits", facts.bits), ("tiny", self.smallest_normal)):
            object.__setattr__(self, name, value)


@dataclass(frozen=True)
class _Bfloat16Facts:
    bits: int = 16
    eps: float = 2.0**-7
    max: float = 2.0**127 * (2 - 2.0**-7)
    min: float = -(2.0**127) * (2 - 2.0**-7)
    smallest_normal: float = 2.0**-126
    resolution: float = 0.01


@dataclass(frozen=True)
class iinfo:
    """What an integer dtype can represent: ``iinfo(dtype)``."""

    dtype: str
    bits: int
    max: int
    min: int

    def __init__(self, type: object):
        found = as_dtype(type)
        if found.kind != "int":
            raise DTypeError(f"iinfo: {found} is no integer dtype")
        facts = np.iinfo(found.numpy)
        object.__setattr__(self, "dtype", found.name)
        for name in ("bits", "max", "min"):
            object.__setattr__(self, name, int(getattr(facts, name)))


def can_cast(from_: object, to: object) -> bool:
    """Whether a conversion keeps the category: bools fit everywhere, integers into floats, but not back."""
    kinds = _KINDS.index(as_dtype(from_).kind), _KINDS.index(as_dtype(to).kind)
    return kinds[0] <= kinds[1]


def promote(a: DType, b: DType) -> DType:
    """The common type of two tensors' dtypes, by PyTorch's rule (the higher category wins)."""
    if a is b:
        return a
    ka, kb = _KINDS.index(a.kind), _KINDS.index(b.kind)
    if ka != kb:
        return a if ka > kb else b
    if {a, b} == {uint8, int8}:
        return int16
    if {a, b} == {float16, bfloat16}:
        return float32
    return a if a.rank > b.rank else b
