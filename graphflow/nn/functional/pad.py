"""Borders around tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.common import at_least, tensor_arg, unshared
from graphflow.functions.registry import error
from graphflow.functions.window import cropped, filled, reflected, replicated, wrapped
from graphflow.nn.functional.spatial import sizes_text
from graphflow.tensor import Tensor

__all__ = ["pad"]

_MODES: dict[str, Callable[[Tensor, int, int, int], Tensor]] = {
    "reflect": reflected,
    "replicate": replicated,
    "circular": wrapped,
}


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """`input` with a border: `pad` is (before, after) for the last dimension, then for the one before, and
    so on.

    Modes: ``"constant"`` (`value`, 0 by default, around any number of dimensions), ``"reflect"``,
    ``"replicate"`` and ``"circular"`` (the last one, two or three dimensions behind batch and channels).
    Negative numbers cut off. ShapeError for borders that the tensor is too small for; NotImplementedError
    for unknown modes. As ``torch.nn.functional.pad``.
    """
    t = tensor_arg(input, "pad")
    if any(isinstance(p, bool) or not hasattr(p, "__index__") for p in pad):
        raise error(DTypeError, "pad", f"pad takes integers, got {tuple(pad)}")
    widths = tuple(p.__index__() for p in pad)
    if len(widths) % 2 or len(widths) > 2 * t.ndim:
        raise error(
            ShapeError, "pad",
            f"pad has {len(widths)} numbers; it takes two for each padded dimension of {t.type_}, the "
            f"last first",
        )  # fmt: skip
    pairs = [(widths[i], widths[i + 1]) for i in range(0, len(widths), 2)][::-1]
    pairs = [(0, 0)] * (t.ndim - len(pairs)) + pairs
    for size, (low, high) in zip(t.type_.shape, pairs, strict=True):
        if min(low, high) < 0 and not at_least(size + low + high, 0):
            raise error(
                ShapeError, "pad",
                f"the input size {size}, plus padding {low} and {high}, resulted in a negative output size, "
                "which is invalid",
            )  # fmt: skip
    if mode == "constant":
        return unshared(filled(t, pairs, 0 if value is None else value), t)
    return _border(t, pairs, len(widths) // 2, mode, value)


def _border(t: Tensor, pairs: list[tuple[int, int]], count: int, mode: str, value: float | None) -> Tensor:
    if mode not in _MODES:
        raise error(
            NotImplementedError, "pad",
            f"unrecognised padding mode {mode}; there are 'constant', 'reflect', 'replicate' and 'circular'",
        )  # fmt: skip
    if value is not None:
        raise error(ValueError, "pad", f"padding mode {mode!r} doesn't take in value argument")
    if count not in (1, 2, 3) or t.ndim not in (count + 1, count + 2):
        raise error(
            NotImplementedError, "pad",
            "only 2D, 3D, 4D, 5D padding with non-constant padding are supported for now: one pair of "
            "numbers for "
            f"2D and 3D tensors, two for 3D and 4D, three for 4D and 5D; got {2 * count} numbers for "
            f"{t.type_}",
        )  # fmt: skip
    given = t
    if mode == "circular":
        t = cropped(t, pairs)
    for axis in range(t.ndim):
        low, high = (max(p, 0) for p in pairs[axis])
        size = t.type_.shape[axis]
        least = {"reflect": max(low, high) + 1, "replicate": 1, "circular": max(low, high)}[mode]
        if (low or high) and not at_least(size, least):
            raise error(
                ShapeError, "pad",
                f"padding {mode} needs a dimension of at least {least} elements for a border of ({low}, "
                f"{high}), "
                f"got dimension {axis} of {sizes_text(t.type_.shape)}",
            )  # fmt: skip
        t = _MODES[mode](t, axis, low, high)
    return unshared(t if mode == "circular" else cropped(t, pairs), given)
