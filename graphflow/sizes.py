"""Symbolic sizes as user code sees them: integers until somebody asks which."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from graphflow.compiler.ir import TensorType, equal_size
from graphflow.compiler.trace import Trace
from graphflow.dims import Dim, product
from graphflow.errors import ShapeError


class SymbolicSize:
    """A size of a traced tensor that may differ from call to call.

    Arithmetic stays symbolic. Anything that needs the number (a branch, ``range``, ``int``) fixes the symbol
    to its value at this call, and the compiled variant is then good for that value only.
    """

    __slots__ = ("size", "trace")

    def __init__(self, size: Dim, trace: Trace | None):
        self.size, self.trace = size, trace

    def _wrap(self, size: int | Dim) -> int | SymbolicSize:
        return SymbolicSize(size, self.trace) if isinstance(size, Dim) else size

    def _number(self, what: str) -> int:
        if self.trace is None:
            raise TypeError(f"the symbolic size {self.size} has no number")
        return self.trace.pin(self.size, f"{what} on the size {self.size}")

    def _as_number(self, compute: Callable[[Any, Any], Any], other: Any, swapped: bool = False) -> Any:
        """What isn't a size any more is a number: of the size of this call, which the variant then needs."""
        if not isinstance(other, (int, float, SymbolicSize)):
            return NotImplemented
        here = self._number("arithmetic")
        there = other._number("arithmetic") if isinstance(other, SymbolicSize) else other
        return compute(there, here) if swapped else compute(here, there)

    def __add__(self, other: Any) -> Any:
        if _is_size(other):
            return self._wrap(self.size + unwrap(other))
        return self._as_number(operator.add, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        if _is_size(other):
            return self._wrap(self.size - unwrap(other))
        return self._as_number(operator.sub, other)

    def __rsub__(self, other: Any) -> Any:
        if _is_size(other):
            return self._wrap(unwrap(other) - self.size)
        return self._as_number(operator.sub, other, swapped=True)

    def __mul__(self, other: Any) -> Any:
        if _is_size(other):
            return self._wrap(self.size * unwrap(other))
        return self._as_number(operator.mul, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self._as_number(operator.truediv, other)

    def __rtruediv__(self, other: Any) -> Any:
        return self._as_number(operator.truediv, other, swapped=True)

    def __rfloordiv__(self, other: Any) -> Any:
        return self._as_number(operator.floordiv, other, swapped=True)

    def __rmod__(self, other: Any) -> Any:
        return self._as_number(operator.mod, other, swapped=True)

    def __pow__(self, other: Any) -> Any:
        return self._as_number(operator.pow, other)

    def __rpow__(self, other: Any) -> Any:
        return self._as_number(operator.pow, other, swapped=True)

    def __neg__(self) -> Any:
        return self._wrap(-self.size)

    def __floordiv__(self, other: Any) -> Any:
        if not _is_size(other):
            return self._as_number(operator.floordiv, other)
        divisor = unwrap(other)
        if isinstance(divisor, int) and divisor > 0:
            return self._wrap(self.size // divisor)
        return int(self) // int(other)

    def __mod__(self, other: Any) -> Any:
        if isinstance(other, int) and other > 0:
            return self._wrap(self.size % other)
        return self._as_number(operator.mod, other)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SymbolicSize) and other.size == self.size:
            return True
        return bool(_is_size(other) and self._number("a comparison") == int(other))  # type: ignore[call-overload]

    def __lt__(self, other: Any) -> bool:
        return self._number("a comparison") < int(other)

    def __le__(self, other: Any) -> bool:
        return self._number("a comparison") <= int(other)

    def __gt__(self, other: Any) -> bool:
        return self._number("a comparison") > int(other)

    def __ge__(self, other: Any) -> bool:
        return self._number("a comparison") >= int(other)

    def __hash__(self) -> int:
        return hash(self.size)

    def __bool__(self) -> bool:
        return self._number("a branch") != 0

    def __int__(self) -> int:
        return self._number("int()")

    def __index__(self) -> int:
        return self._number("use as a plain integer")

    def __float__(self) -> float:
        return float(self._number("float()"))

    def __repr__(self) -> str:
        return str(self.size)

    __str__ = __repr__


def _is_size(value: object) -> bool:
    return isinstance(value, (int, SymbolicSize)) and not isinstance(value, bool)


def unwrap(value: Any) -> int | Dim:
    """The `int | Dim` behind an integer, a symbolic size, or anything with ``__index__``."""
    if isinstance(value, SymbolicSize):
        return value.size
    if isinstance(value, Dim):
        return value
    return operator.index(value)


def unwrap_shape(shape: Any) -> tuple[int | Dim, ...]:
    """A shape given as an integer, a sequence or nested sequence, as a tuple of `int | Dim`."""
    if isinstance(shape, (list, tuple)):
        return tuple(unwrap(s) for s in shape)
    return (unwrap(shape),)


def numel(shape: Any) -> int | Dim:
    """Number of elements of an unwrapped shape."""
    return product(shape)


def is_same_type(a: TensorType, b: TensorType) -> bool:
    """Whether two types are one, for which symbols may be pinned to numbers."""
    if a.dtype is not b.dtype or len(a.shape) != len(b.shape):
        return False
    try:
        for one, other in zip(a.shape, b.shape, strict=True):
            equal_size(one, other)
    except ShapeError:
        return False
    return True
