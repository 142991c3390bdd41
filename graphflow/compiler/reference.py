"""What 16-bit floats mean to the reference functions of ops: arithmetic in float32, the result rounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphflow.dtypes import is_half


def widened(reference: Callable[..., Any]) -> Callable[..., Any]:
    """A reference that takes float16 and bfloat16 by way of float32."""

    def in_single(*arrays: Any, **attrs: Any) -> Any:
        half = next((a.dtype for a in arrays if a.dtype.itemsize == 2 and is_half(a)), None)
        if half is None:
            return reference(*arrays, **attrs)
        found = reference(*(a.astype(np.float32) if is_half(a) else a for a in arrays), **attrs)
        several = isinstance(found, tuple)
        with np.errstate(all="ignore"):
            parts = [np.asarray(v) for v in (found if several else (found,))]
            parts = [v.astype(half) if v.dtype == np.float32 else v for v in parts]
        return tuple(parts) if several else parts[0]

    return in_single
