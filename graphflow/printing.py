"""Tensors as text, the way PyTorch prints them: 4 digits, columns aligned, long ones summarised, 80 columns
wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphflow import dtypes
from graphflow.compiler.trace import current_trace
from graphflow.dtypes import DType
from graphflow.tensor import Tensor


@dataclass
class PrintOptions:
    """What `set_printoptions` sets; the defaults are PyTorch's."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


OPTIONS = PrintOptions()
_PROFILES = {
    "default": PrintOptions(),
    "short": PrintOptions(precision=2, edgeitems=2),
    "full": PrintOptions(threshold=math.inf),
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Digits after the point, elements above which tensors are summarised, elements shown at an edge then,
    columns.

    `profile` ("default", "short", "full") sets all of them first; `sci_mode` forces or forbids scientific
    notation, and None leaves that to the numbers.
    """
    if profile is not None:
        base = _PROFILES[profile]
        OPTIONS.precision, OPTIONS.threshold = base.precision, base.threshold
        OPTIONS.edgeitems, OPTIONS.linewidth = base.edgeitems, base.linewidth
    if precision is not None:
        OPTIONS.precision = precision
    if threshold is not None:
        OPTIONS.threshold = threshold
    if edgeitems is not None:
        OPTIONS.edgeitems = edgeitems
    if linewidth is not None:
        OPTIONS.linewidth = linewidth
    OPTIONS.sci_mode = sci_mode


# ---------------------------------------------------------------------------------------------- one element


class ElementFormat:
    """How the elements of one tensor are written: notation and column width follow from all elements
    shown.
    """

    def __init__(self, shown: np.ndarray):
        self.floating = dtypes.holds_floats(shown)
        self.whole = True
        self.scientific = False
        values = shown.reshape(-1)
        if self.floating:
            values = values.astype(np.float64)
            values = values[np.isfinite(values) & (values != 0)]
            if values.size:
                self._choose_notation(np.abs(values))
        # Zeros, NaN and infinities don't widen the columns: PyTorch measures the other numbers only.
        self.width = max((len(self._bare(v)) for v in values.tolist()), default=1)

    def _choose_notation(self, magnitudes: np.ndarray) -> None:
        smallest, largest = float(magnitudes.min()), float(magnitudes.max())
        self.whole = bool(np.all(np.ceil(magnitudes) == magnitudes))
        wide = largest > smallest * 1000.0 or largest > 1.0e8 or smallest < 1.0e-4
        self.scientific = wide if OPTIONS.sci_mode is None else OPTIONS.sci_mode

    def _bare(self, value: float | int | bool) -> str:
        if not self.floating:
            return str(value)
        if self.scientific:
            return f"{value:.{OPTIONS.precision}e}"
        if self.whole:
            return f"{value:.0f}." if math.isfinite(value) else f"{value:.0f}"
        return f"{value:.{OPTIONS.precision}f}"

    def __call__(self, value: float | int | bool) -> str:
        """The element, right-aligned in its column."""
        return self._bare(value).rjust(self.width)


# ---------------------------------------------------------------------------------------------- the brackets


def _edges(array: np.ndarray) -> np.ndarray:
    """The elements of a summarised array that are shown."""
    n = OPTIONS.edgeitems
    for axis, size in enumerate(array.shape):
        if size > 2 * n:
            array = np.take(array, [*range(n), *range(size - n, size)], axis=axis)
    return array


def _rows(array: np.ndarray, summarize: bool) -> tuple[list[int], int | None]:
    """Positions along the first dimension that are shown, and where the dots go."""
    size, n = len(array), OPTIONS.edgeitems
    if summarize and size > 2 * n:
        return [*range(n), *range(size - n, size)], n
    return list(range(size)), None


def _vector_text(array: np.ndarray, indent: int, summarize: bool, element: ElementFormat) -> str:
    shown, gap = _rows(array, summarize)
    items = [element(array[i].item()) for i in shown]
    if gap is not None:
        items.insert(gap, " ...")
    per_line = max(1, (OPTIONS.linewidth - indent) // (element.width + 2))
    lines = [", ".join(items[i : i + per_line]) for i in range(0, len(items), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _nested_text(array: np.ndarray, indent: int, summarize: bool, element: ElementFormat) -> str:
    if array.ndim == 0:
        return element(array.item())
    if array.ndim == 1:
        return _vector_text(array, indent, summarize, element)
    shown, gap = _rows(array, summarize)
    parts = [_nested_text(array[i], indent + 1, summarize, element) for i in shown]
    if gap is not None:
        parts.insert(gap, "...")
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def array_text(array: np.ndarray, indent: int) -> str:
    """The nested brackets of an array that starts in column `indent`."""
    if array.size == 0:
        return "[]"
    summarize = array.size > OPTIONS.threshold
    return _nested_text(array, indent, summarize, ElementFormat(_edges(array) if summarize else array))


# ------------------------------------------------------------------------------------------- the whole tensor

_UNMARKED: tuple[DType, ...] = (dtypes.int64, dtypes.bool_)  # nor the default dtype


def _suffixes(t: Tensor, array: np.ndarray) -> list[str]:
    found = []
    if array.size == 0:
        if array.ndim != 1:
            found.append(f"size={tuple(array.shape)}")
        if t.dtype is not dtypes.get_default_dtype():
            found.append(f"dtype={t.dtype!r}")
    elif t.dtype not in (*_UNMARKED, dtypes.get_default_dtype()):
        found.append(f"dtype={t.dtype!r}")
    grad_fn = t.grad_fn
    if grad_fn is not None:
        found.append(f"grad_fn=<{grad_fn.name()}>")
    elif t.requires_grad:
        found.append("requires_grad=True")
    return found


def tensor_text(t: Tensor) -> str:
    """``tensor([1., 2.], requires_grad=True)``; while tracing, the type: ``Tensor(float32[batch, 64],
    traced)``.
    """
    array = _numbers(t)
    if array is None:
        return f"Tensor({t.type_}, traced)"
    prefix = "tensor("
    text = prefix + array_text(array, len(prefix))
    return _with_suffixes(text, _suffixes(t, array), len(prefix))


def _with_suffixes(text: str, suffixes: Sequence[str], indent: int) -> str:
    column = len(text) - text.rfind("\n") - 1
    for suffix in suffixes:
        # Room is kept for the comma, the space before and the parenthesis after; a second suffix on a
        # continued line gets less of it, as in PyTorch.
        if column + len(suffix) + 4 > OPTIONS.linewidth:
            text += ",\n" + " " * indent + suffix
            column = indent + len(suffix) - 2
        else:
            text += ", " + suffix
            column += len(suffix) + 2
    return text + ")"


def _numbers(t: Tensor) -> np.ndarray | None:
    """The elements to print, or None for what only stands for numbers now."""
    trace = current_trace()
    if t._array is None or (trace is not None and t._key() in trace.states):
        return None
    return t._array


def _format(t: Tensor, spec: str) -> str:
    """A 0-d tensor formats like its number, others like their text."""
    if not t.ndim and spec:
        if t.is_traced:
            t._concrete("formatting", "return the tensor and print it outside")
        if _numbers(t) is not None:
            return format(t.detach().item(), spec)
    return format(str(t), spec)


Tensor.__repr__ = Tensor.__str__ = tensor_text  # type: ignore[assignment,method-assign]
Tensor.__format__ = _format  # type: ignore[method-assign, assignment]
