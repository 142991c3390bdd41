"""Memory of arrays: aligned allocation, addresses, and reuse of outputs that nobody holds any more."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from math import prod
from sys import getrefcount

import numpy as np

ALIGNMENT = 64

_from_buffer: Callable[[np.ndarray], ctypes.c_char] = ctypes.c_char.from_buffer  # type: ignore[assignment]
_addressof = ctypes.addressof


def aligned_bytes(size: int) -> tuple[np.ndarray, int]:
    """Uninitialised memory (a uint8 array) and its first 64-byte aligned address, `size` bytes from there."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    address = int(memory.ctypes.data)
    return memory, -(-address // ALIGNMENT) * ALIGNMENT


def array_at(memory: np.ndarray, address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array at `address`, inside `memory` (uint8), that keeps the memory alive."""
    start = address - int(memory.ctypes.data)
    piece = memory[start : start + prod(shape) * dtype.itemsize]
    return np.ndarray(shape, dtype, piece)


def address_of(array: np.ndarray) -> int:
    """The address of the first element of a C-contiguous array."""
    try:
        # a quarter of the time of array.ctypes.data, but only for arrays that are writable and not empty
        return _addressof(_from_buffer(array))
    except (TypeError, ValueError, BufferError):
        return int(array.ctypes.data)


class WordArray:
    """A zeroed array of int64 words on a cache line of its own."""

    __slots__ = ("address", "values")

    def __init__(self, *shape: int):
        memory, self.address = aligned_bytes(8 * max(prod(shape), 1))
        self.values = array_at(memory, self.address, shape, np.dtype(np.int64))
        self.values[...] = 0


class OutputPool:
    """Fresh C-contiguous arrays of one shape and dtype for one output of a program.

    An array never shares memory with one that was handed out earlier and is still held, directly or through
    views or exported buffers: its memory counts references, and is handed out again only when the pool's own
    are the last. Two pieces are kept, because a loop holds the last result while it computes the next. One
    thread at a time.
    """

    __slots__ = (
        "_first",
        "_first_address",
        "_first_array",
        "_second",
        "_second_address",
        "_second_array",
        "dtype",
        "shape",
    )

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype):
        self.shape, self.dtype = shape, dtype
        self._first, self._first_array, self._first_address = self._allocate()
        # None is referenced from everywhere, so it never looks free
        self._second: np.ndarray | None = None
        self._second_array, self._second_address = self._first_array, 0

    @property
    def bytes(self) -> int:
        """Bytes of the pieces that the pool keeps."""
        return self._first_array.nbytes + (0 if self._second is None else self._second_array.nbytes)

    def take(self) -> tuple[np.ndarray, int]:
        """An uninitialised array and its address."""
        if getrefcount(self._first) == _UNUSED:
            return self._first_array.view(), self._first_address
        if getrefcount(self._second) == _UNUSED:
            return self._second_array.view(), self._second_address
        self._second, self._second_array = self._first, self._first_array
        self._second_address = self._first_address
        self._first, self._first_array, self._first_address = self._allocate()
        return self._first_array.view(), self._first_address

    def _allocate(self) -> tuple[np.ndarray, np.ndarray, int]:
        memory, address = aligned_bytes(prod(self.shape) * self.dtype.itemsize)
        return memory, array_at(memory, address, self.shape, self.dtype), address


_UNUSED = 0


def _unused_count() -> int:
    """What `getrefcount` says in `take` of memory that only the pool holds; -1 (never) where that can't be
    told.

    The number differs between Python versions, and it means nothing without the global interpreter lock.
    """
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return -1
    pool = OutputPool((3,), np.dtype(np.float32))
    unused = getrefcount(pool._first)
    held = pool._first_array.view()[1:]
    told_apart = getrefcount(pool._first) > unused
    del held
    return unused if told_apart and getrefcount(pool._first) == unused else -1


_UNUSED = _unused_count()
