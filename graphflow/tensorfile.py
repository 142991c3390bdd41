"""Arrays in the safetensors format, bfloat16 included, which the package's NumPy side can't read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors import deserialize
from safetensors.numpy import save

from graphflow import dtypes
from graphflow.errors import FormatError

_DTYPES = {
    "BOOL": dtypes.bool_, "U8": dtypes.uint8, "I8": dtypes.int8, "I16": dtypes.int16, "I32": dtypes.int32,
    "I64": dtypes.int64, "F16": dtypes.float16, "BF16": dtypes.bfloat16, "F32": dtypes.float32,
    "F64": dtypes.float64,
}  # fmt: skip


def to_bytes(arrays: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """The file that holds the arrays under their names, and `metadata` in its header."""
    return save(dict(arrays), metadata)


def from_bytes(data: bytes) -> dict[str, np.ndarray]:
    """The arrays of a file; SafetensorError where it is none, FormatError for other dtypes."""
    return {name: _array(name, facts) for name, facts in deserialize(data)}  # type: ignore[no-untyped-call]


def from_map(data: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of a file that is mapped into memory, as views of it; FormatError where it is none."""
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    if start > len(data):
        raise FormatError(f"the header promises {start} bytes, there are {len(data)}")
    header = json.loads(data[8:start].tobytes())
    arrays = {}
    for name, facts in header.items():
        if name == "__metadata__":
            continue
        dtype = _DTYPES.get(facts["dtype"])
        if dtype is None:
            raise _unknown(name, facts)
        first, end = facts["data_offsets"]
        shape = facts["shape"]
        whole = all(type(n) is int and n >= 0 for n in (*shape, first, end))
        if not whole or end - first != math.prod(shape) * dtype.itemsize or start + end > len(data):
            raise FormatError(f"{name!r} of shape {shape} isn't the bytes {first} to {end} of its file")
        part = data[start + first : start + end].view(np.ndarray)
        if part.ctypes.data % dtype.itemsize:
            part = part.copy()
        arrays[name] = part.view(dtype.numpy).reshape(shape)
    return arrays


def _unknown(name: str, facts: Mapping[str, Any]) -> FormatError:
    return FormatError(f"{name!r} holds elements of type {facts['dtype']}, which graphflow doesn't have")


def _array(name: str, facts: Mapping[str, Any]) -> np.ndarray:
    dtype = _DTYPES.get(facts["dtype"])
    if dtype is None:
        raise _unknown(name, facts)
    return np.frombuffer(bytearray(facts["data"]), dtype.numpy).reshape(facts["shape"])
