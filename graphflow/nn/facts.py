"""Plain values that a traced function may depend on, made comparable."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from graphflow.dtypes import DType

_PLAIN = (bool, int, float, complex, str, bytes, type(None), DType)


def plain(value: Any) -> Hashable:
    """A comparable stand-in: plain values by value and type, everything else by identity."""
    if isinstance(value, _PLAIN):
        return type(value).__name__, value
    if isinstance(value, (list, tuple)):
        return type(value).__name__, tuple(map(plain, value))
    if isinstance(value, dict):
        return "dict", tuple((plain(k), plain(v)) for k, v in value.items())
    return id(value)
