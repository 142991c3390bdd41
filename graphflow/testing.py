"""Comparing tensors in tests, after ``torch.testing``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.dtypes import DType
from graphflow.functions.create import as_tensor
from graphflow.tensor import Tensor

# relative and absolute, by dtype; the others have to be equal
_TOLERANCES = {
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
}


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:
    """AssertionError unless ``|actual - expected| <= atol + rtol * |expected|`` everywhere, and shapes and
    (with `check_dtype`) dtypes agree. Tensors, arrays, numbers, and sequences and mappings of them.

    Tolerances come with the dtypes unless both are given: 1.3e-6 and 1e-5 for float32, 1e-7 twice for
    float64, none for integers. `msg` replaces the message, or makes another of it.
    """
    if (rtol is None) is not (atol is None):
        raise ValueError("rtol and atol must both be specified or both be unspecified")
    problem = _difference(actual, expected, "", (rtol, atol), equal_nan, check_dtype, check_stride)
    if problem is not None:
        raise AssertionError(problem if msg is None else msg if isinstance(msg, str) else msg(problem))


Tolerance = tuple[float | None, float | None]


def _difference(
    actual: Any, expected: Any, place: str, tolerance: Tolerance, equal_nan: bool, dtypes: bool, strides: bool
) -> str | None:
    """What is wrong, or None."""
    options = (tolerance, equal_nan, dtypes, strides)
    if isinstance(actual, Mapping) and isinstance(expected, Mapping):
        if set(actual) != set(expected):
            odd = sorted(map(str, set(actual) ^ set(expected)))
            return f"The keys of the mappings do not match{place}: {odd}"
        pairs = [(f"{place}[{key!r}]", actual[key], expected[key]) for key in actual]
    elif _is_sequence(actual) and _is_sequence(expected):
        if len(actual) != len(expected):
            return f"The length of the sequences mismatch{place}: {len(actual)} != {len(expected)}"
        pairs = [(f"{place}[{i}]", a, b) for i, (a, b) in enumerate(zip(actual, expected, strict=True))]
    else:
        return _unlike(actual, expected, place, *options)
    found = (_difference(a, b, at, *options) for at, a, b in pairs)
    return next((f for f in found if f is not None), None)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _array(value: Any) -> tuple[np.ndarray, DType]:
    t = as_tensor(value)
    return t.detach().numpy(), t.dtype


def _unlike(
    actual: Any, expected: Any, place: str, tolerance: Tolerance, equal_nan: bool, dtypes: bool, strides: bool
) -> str | None:
    what, place = "Tensor-likes", f"\n\nThe failure occurred for item {place}" if place else ""
    if not isinstance(actual, (Tensor, np.ndarray)) and not isinstance(expected, (Tensor, np.ndarray)):
        what, dtypes = "Scalars", False
        if isinstance(actual, str) or isinstance(expected, str) or actual is None or expected is None:
            return None if actual == expected else f"{actual!r} is not {expected!r}{place}"
    (a, first), (b, second) = _array(actual), _array(expected)
    if a.shape != b.shape:
        return f"The values for attribute 'shape' do not match: {tuple(a.shape)} != {tuple(b.shape)}.{place}"
    if dtypes and first is not second:
        return f"The values for attribute 'dtype' do not match: {first!r} != {second!r}.{place}"
    if strides and a.strides != b.strides:
        return (
            f"The values for attribute 'stride()' do not match: {a.strides} != {b.strides} (in bytes).{place}"
        )
    rtol, atol = (
        max(_TOLERANCES.get(t.name, (0.0, 0.0))[i] for t in (first, second)) if given is None else given
        for i, given in enumerate(tolerance)
    )
    wide = np.float64 if "float" in (first.kind, second.kind) else object  # integers without rounding
    x, y = a.astype(wide), b.astype(wide)
    with np.errstate(all="ignore"):
        gap = np.abs(x - y)
        near = (x == y) | (np.isfinite(gap.astype(np.float64)) & (gap <= atol + rtol * np.abs(y)))
    if equal_nan and wide is np.float64:
        near |= np.isnan(x) & np.isnan(y)
    if near.all():
        return None
    exact = "equal" if rtol == atol == 0 else "close"
    if not near.ndim:
        return f"{what} are not {exact}!\n\nExpected {y.item()!r} but got {x.item()!r}.{place}"
    wrong = int((~near).sum())
    gap = np.where(near, 0.0, gap.astype(np.float64))
    with np.errstate(all="ignore"):
        ratio = np.where(near, 0.0, gap / np.abs(y.astype(np.float64)))
    lines = [
        f"{what} are not {exact}!\n",
        f"Mismatched elements: {wrong} / {near.size} ({100 * wrong / near.size:.1f}%)",
    ]
    for kind, values, allowed in (("absolute", gap, atol), ("relative", ratio, rtol)):
        at = np.unravel_index(int(np.argmax(np.nan_to_num(values, nan=np.inf))), values.shape)
        limit = "" if exact == "equal" else f" (up to {allowed} allowed)"
        lines.append(f"Greatest {kind} difference: {values[at]} at index {tuple(int(i) for i in at)}{limit}")
    return "\n".join(lines) + place


__all__ = ["assert_close"]
