"""Plain values that a traced function may depend on, made comparable."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from graphflow.dtypes import DType

_PLAIN = (bool, int, float, complex, str, bytes, type(None), DType)


def plain(value: Any) -> Hashable:
    """A comparable stand-in: plain values by value and type, everything else by identity.

    Lists and dicts, too: whether what is in them matters is seen from the code that reads them.
    """
    if isinstance(value, _PLAIN):
        return type(value).__name__, value
    if isinstance(value, tuple):
        return type(value).__name__, tuple(map(plain, value))
    return f"a {type(value).__name__} at {id(value):#x}"
