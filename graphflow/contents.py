"""What arrays around a function hold, where NumPy or Python read them while it was traced.

An array that graphflow itself took is an input of the graph, read anew by every run. What anything else reads
of one (``K.sum()``, ``K[0]``) are numbers in the graph, so such arrays are compared at every call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

_WHOLE_BYTES = 1 << 20  # of larger arrays a sample is compared
_SAMPLE = 256  # elements, about
# Attributes that say nothing about elements.
_HARMLESS = frozenset(["dtype", "flags", "itemsize", "nbytes", "ndim", "shape", "size", "strides"])
# Those that give another array on the same memory.
_VIEWS = frozenset(
    ["T", "diagonal", "mT", "ravel", "reshape", "squeeze", "swapaxes", "transpose", "view"]
)  # fmt: skip


class Read(NamedTuple):
    """An array that code may read: its name, and whether more of it than graphflow takes is surely read."""

    label: str
    array: np.ndarray
    surely: bool = False


@dataclass(frozen=True)
class Held:
    """An array and what it held."""

    label: str
    array: np.ndarray
    content: bytes

    def has_changed(self) -> bool:
        """Whether it holds something else now."""
        return content(self.array) != self.content


def content(array: np.ndarray) -> bytes:
    """The bytes of an array, or of a sample of its elements."""
    array = np.asarray(array)
    if array.nbytes > _WHOLE_BYTES:
        flat = array.reshape(-1) if array.flags.c_contiguous else array.flat
        array = flat[:: max(array.size // _SAMPLE, 1)]
    return array.tobytes()


def reads_elements(attribute: str) -> bool:
    """Whether an attribute of an array has to do with what is in it."""
    return attribute not in _HARMLESS and attribute not in _VIEWS


def hands_on_elements(attribute: str) -> bool:
    """Whether an attribute of an array is another array with its elements."""
    return attribute in _VIEWS


def held(reads: Iterable[Read]) -> list[tuple[Read, Held]]:
    """What arrays hold now."""
    return [(read, Held(read.label, read.array, content(read.array))) for read in reads]


def left_to_compare(before: Sequence[tuple[Read, Held]], taken: Iterable[Any]) -> tuple[Held, ...]:
    """Those of which a trace that took the arrays `taken` may have made constants."""
    known = set()
    for array in taken:
        while array is not None:
            known.add(id(array))
            array = getattr(array, "base", None)
    return tuple([h for read, h in before if read.surely or id(read.array) not in known])


__all__ = ["Held", "Read", "content", "hands_on_elements", "held", "left_to_compare", "reads_elements"]
