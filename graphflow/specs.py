"""What a compiled function may be called with: argument types with named symbolic sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphflow import dtypes
from graphflow.compiler.ir import TensorType
from graphflow.dims import Dim
from graphflow.dtypes import DType
from graphflow.errors import DTypeError, ShapeError
from graphflow.tensor import Tensor, where_called


@dataclass(frozen=True, init=False)
class TensorSpec:
    """Shape and dtype of an argument. A string in the shape names a size that may differ from call to call.

    ``TensorSpec(("batch", 64), graphflow.float32)``.
    """

    shape: tuple[int | str, ...]
    dtype: DType
    name: str | None

    def __init__(self, shape: Sequence[int | str], dtype: object = dtypes.float32, name: str | None = None):
        if isinstance(shape, (str, int)):
            raise TypeError(f"a shape is a sequence of sizes, not {shape!r}; write ({shape!r},)")
        for size in shape:
            fits = (isinstance(size, str) and size.isidentifier()) or (isinstance(size, int) and size >= 0)
            if not fits or isinstance(size, bool):
                raise TypeError(f"a size is a number or an identifier, not {size!r}")
        object.__setattr__(self, "shape", tuple(shape))
        object.__setattr__(self, "dtype", dtypes.as_dtype(dtype))
        object.__setattr__(self, "name", name)

    def type_(self, pinned: Mapping[str, int]) -> TensorType:
        """The IR type, symbols in `pinned` being numbers."""
        sizes = (s if isinstance(s, int) else pinned.get(s, Dim.symbol(s)) for s in self.shape)
        return TensorType(self.dtype, tuple(sizes))

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


def as_array(leaf: Any) -> np.ndarray | None:
    """The numbers behind a dynamic argument, or None for a static one."""
    if isinstance(leaf, Tensor):
        return leaf._array
    if type(leaf) is np.ndarray and leaf.dtype.isnative:
        return leaf
    if isinstance(leaf, (np.ndarray, np.generic)):
        array = np.asarray(leaf)
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if isinstance(leaf, float):
        return np.asarray(leaf)
    return None


def default_specs(arrays: Sequence[np.ndarray], names: Sequence[str]) -> list[TensorSpec]:
    """Leading sizes symbolic; those that agree share one symbol: ``batch``, then ``batch_2`` and so on."""
    symbols: dict[int, str] = {}
    specs = []
    for array, name in zip(arrays, names, strict=True):
        shape: list[int | str] = list(array.shape)
        if shape:
            size = array.shape[0]
            if size not in symbols:
                symbols[size] = "batch" if not symbols else f"batch_{len(symbols) + 1}"
            shape[0] = symbols[size]
        specs.append(TensorSpec(shape, _dtype_of(array, name)))
    return specs


def _dtype_of(array: np.ndarray, name: str) -> DType:
    try:
        return dtypes.as_dtype(array.dtype)
    except DTypeError:
        hint = "make it a rectangular array of numbers" if array.dtype.kind in "OUS" else "convert it first"
        raise DTypeError(
            f"argument {name} has dtype {array.dtype}, which graphflow doesn't have; {hint}{where_called()}"
        ) from None


def bind(specs: Sequence[TensorSpec], arrays: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, int]:
    """Values of the symbols; DTypeError or ShapeError where an argument doesn't match its spec."""
    values: dict[str, int] = {}
    for spec, array, name in zip(specs, arrays, names, strict=True):
        dtype = _dtype_of(array, name)
        fits = array.ndim == len(spec.shape)
        for size, actual in zip(spec.shape, array.shape, strict=True) if fits else ():
            expected = values.setdefault(size, actual) if isinstance(size, str) else size
            fits = fits and expected == actual
        if not fits or dtype is not spec.dtype:
            raise misfit(f"argument {name}", str(spec), spec.dtype, array, values)
    return values


def misfit(what: str, wanted: str, dtype: DType, array: np.ndarray, sizes: Mapping[str, int]) -> Exception:
    """The error for an array that isn't what it has to be: both types, what to do, and the user's line."""
    got = f"{array.dtype}[{', '.join(map(str, array.shape))}]"
    if array.dtype != dtype.numpy:
        remedy = f"convert it with .to({dtype!r})"
        return DTypeError(f"{what} has to be {wanted}, got {got}; {remedy}{where_called()}")
    told = f" with {', '.join(f'{k}={v}' for k, v in sizes.items())}" if sizes else ""
    remedy = "pass one of that shape, or compile for both shapes"
    return ShapeError(f"{what} has to be {wanted}{told}, got {got}; {remedy}{where_called()}")


__all__ = ["TensorSpec"]
