"""Arrays in the safetensors format, bfloat16 included, which the package's NumPy side can't read."""

from __future__ import annotations

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


def _array(name: str, facts: Mapping[str, Any]) -> np.ndarray:
    dtype = _DTYPES.get(facts["dtype"])
    if dtype is None:
        raise FormatError(f"{name!r} holds elements of type {facts['dtype']}, which graphflow doesn't have")
    return np.frombuffer(bytearray(facts["data"]), dtype.numpy).reshape(facts["shape"])
