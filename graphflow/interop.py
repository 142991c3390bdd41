"""A tensor as Python and NumPy see it: numbers, sequences, arrays on the same memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from graphflow.compiler.location import user_loc
from graphflow.errors import GradientError, ShapeError
from graphflow.methods import Methods


class Interop(Methods):
    """The part of Tensor that gives out its numbers; each method is an error for a value that is
    only traced.
    """

    __slots__ = ()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        """The elements as an array that shares memory with this tensor; `force` goes without its gradient."""
        array: np.ndarray = self._concrete(".numpy()", "stay with graphflow's functions, which trace")
        if self._requires_grad and not force:
            raise GradientError("can't call numpy() on a tensor that requires grad; use .detach().numpy()")
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self._concrete("a NumPy call", "use the graphflow function of the same name")
        if self._requires_grad:
            raise GradientError("can't make an array of a tensor that requires grad; use .detach()")
        return (
            np.array(array, dtype=dtype, copy=bool(copy))
            if copy or dtype not in (None, array.dtype)
            else array
        )

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """NumPy's functions work on the numbers and give arrays."""
        return function(*map_arrays(args), **dict(zip(kwargs, map_arrays(kwargs.values()), strict=True)))

    def __dlpack__(self, **options: Any) -> Any:
        return self.numpy().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def item(self) -> bool | int | float:
        """The one element as a Python number."""
        array = self._concrete(".item()", "return the tensor and call .item() on the result")
        if array.size != 1:
            loc = user_loc()
            raise ShapeError(
                f"only a tensor with one element converts to a number, this one has shape {array.shape}"
                + (f"\n  at {loc.describe()}" if loc else "")
            )
        number: bool | int | float = array.item()
        return number

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        return self._concrete(".tolist()", "return the tensor and call .tolist() on the result").tolist()

    def __bool__(self) -> bool:
        hint = (
            "write gf.where(condition, a, b), gf.cond or gf.while_loop, or decide on something that is known "
            "before the call"
        )
        array = self._concrete("a Python branch on a tensor", hint)
        if array.size != 1:
            raise ValueError(
                f"the truth value of a tensor with shape {array.shape} is ambiguous; use .any() or .all()"
            )
        return bool(array.item())

    def __int__(self) -> int:
        self._concrete("int()", "keep it a tensor, e.g. with .long()")
        return int(self.item())

    def __float__(self) -> float:
        self._concrete("float()", "keep it a tensor, e.g. with .float()")
        return float(self.item())

    def __index__(self) -> int:
        self._concrete("use as an index", "use gf.take or x[index] with a tensor index")
        value = self.item()
        if isinstance(value, float):
            raise TypeError("only integer tensors of one element can be used as an index")
        return int(value)

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return int(self.shape[0])

    def __iter__(self) -> Iterator[Any]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return (self[i] for i in range(len(self)))


def map_arrays(values: Iterable[Any]) -> list[Any]:
    """The values with arrays for tensors, also inside lists and tuples."""
    return [
        type(v)(map_arrays(v)) if type(v) in (list, tuple) else np.asarray(v) if isinstance(v, Interop) else v
        for v in values
    ]


def numbers(data: tuple[Any, ...], dtype: np.dtype) -> np.ndarray:
    """What ``Tensor(*data)`` holds: elements of any value in the sizes given, or numbers in `dtype`."""
    if len(data) == 1 and not hasattr(data[0], "__index__"):
        (given,) = data
        if type(given).__name__ == "Size":
            return np.empty(given, dtype)
        if isinstance(given, Interop):
            given = given.detach().numpy()
        if not isinstance(given, (list, tuple, np.ndarray)):
            raise TypeError(
                f"Tensor() takes sizes, a list, an array or a tensor, not "
                f"{type(given).__name__}; gf.tensor() takes numbers"
            )
        return np.asarray(given, dtype)
    if len(data) == 1 and isinstance(data[0], (Interop, np.ndarray)):
        return np.asarray(data[0].detach().numpy() if isinstance(data[0], Interop) else data[0], dtype)
    sizes = data or (0,)
    if not all(hasattr(size, "__index__") and not isinstance(size, bool) for size in sizes):
        raise TypeError(f"Tensor() takes sizes one by one as integers, got {data}")
    if min(sizes) < 0:
        raise ShapeError(f"Tensor() can't have negative sizes, got {data}")
    return np.empty(tuple(int(size) for size in sizes), dtype)
