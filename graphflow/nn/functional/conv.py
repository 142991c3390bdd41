"""Convolutions (cross-correlations, as everywhere in deep learning) and their transposes.

Both are one op, whose geometry `functions.window.convolved` explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.errors import ShapeError
from graphflow.functions.common import at_least, pinned, reshaped, tensor_arg
from graphflow.functions.precision import autocasting
from graphflow.functions.registry import error, titled
from graphflow.functions.window import Geometry, convolved, window_count
from graphflow.nn.functional.spatial import (
    Ints,
    batched,
    ints,
    same_dtype,
    sizes_text,
)
from graphflow.tensor import Tensor

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]

Numbers = int | Sequence[int]


@titled("ConvolutionBackward0")
@autocasting
def conv1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers | str = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of (N, C, L) or (C, L) with `weight` (O, C / groups, k): (N, O, L') or (O, L').

    See `conv2d`.
    """
    return _conv("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


@titled("ConvolutionBackward0")
@autocasting
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers | str = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of (N, C, H, W) or (C, H, W) with `weight` (O, C / groups, kh, kw), plus `bias` (O,).

    ``H' = (H + 2 padding - dilation (kh - 1) - 1) // stride + 1``, W' alike. ``padding="same"`` keeps the
    sizes (stride 1 only), ``"valid"`` pads nothing. `groups` splits the channels into parts that don't see
    each other. ShapeError, DTypeError or ValueError for what doesn't fit, as ``torch.nn.functional.conv2d``.
    """
    return _conv("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


@titled("ConvolutionBackward0")
@autocasting
def conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers | str = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Tensor:
    """Cross-correlation of (N, C, D, H, W) or (C, D, H, W) with `weight` (O, C / groups, kd, kh, kw).

    See `conv2d`.
    """
    return _conv("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


@autocasting
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Tensor:
    """The transpose of `conv1d`: (N, C, L) with `weight` (C, O / groups, k). See `conv_transpose2d`."""
    name = "conv_transpose1d"
    return _conv_transpose(name, 1, input, weight, bias, stride, padding, output_padding, groups, dilation)


@autocasting
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Tensor:
    """The transpose (the gradient's map) of `conv2d`: (N, C, H, W) with `weight` (C, O / groups, kh, kw).

    ``H' = (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding + 1``, W' alike. `output_padding`
    has to be smaller than stride or dilation. As ``torch.nn.functional.conv_transpose2d``.
    """
    name = "conv_transpose2d"
    return _conv_transpose(name, 2, input, weight, bias, stride, padding, output_padding, groups, dilation)


@autocasting
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Numbers = 1,
    padding: Numbers = 0,
    output_padding: Numbers = 0,
    groups: int = 1,
    dilation: Numbers = 1,
) -> Tensor:
    """The transpose of `conv3d`: (N, C, D, H, W) with `weight` (C, O / groups, kd, kh, kw).

    See `conv_transpose2d`.
    """
    name = "conv_transpose3d"
    return _conv_transpose(name, 3, input, weight, bias, stride, padding, output_padding, groups, dilation)


# ---------------------------------------------------------------------------------------------- arguments


def same_padding(kernel: Ints, dilations: Ints) -> tuple[tuple[int, int], ...]:
    """What to add before and after each dimension so that a convolution with stride 1 keeps its size."""
    totals = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)


def _pads(
    name: str, n: int, padding: Any, kernel: Ints, strides: Ints, dilations: Ints
) -> tuple[tuple[int, int], ...]:
    if not isinstance(padding, str):
        return tuple((p, p) for p in ints(padding, n, name, "padding"))
    if padding == "valid":
        return ((0, 0),) * n
    if padding != "same":
        raise error(ValueError, name, f"invalid padding string {padding!r}, should be one of 'valid', 'same'")
    if any(s != 1 for s in strides):
        raise error(ValueError, name, "padding='same' is not supported for strided convolutions")
    return same_padding(kernel, dilations)


def _checked(
    name: str, n: int, input: Any, weight: Any, bias: Any, groups: int, transposed: bool
) -> tuple[Tensor, bool, Tensor, Ints]:
    """The input with a batch, whether it had one, the weight, and its sizes as numbers."""
    t, had_batch = batched(input, n, name)
    w = tensor_arg(weight, name, "weight")
    b = None if bias is None else tensor_arg(bias, name, "bias")
    same_dtype(name, t, weight=w, bias=b)
    if w.ndim != n + 2:
        raise error(
            ShapeError, name, f"expected a {n + 2}D weight, but got one of size {sizes_text(w.type_.shape)}"
        )
    (groups,) = ints(groups, 1, name, "groups", 1)
    shape = tuple(pinned(size, f"the weight of {name}") for size in w.type_.shape)
    if shape[0] % groups:
        raise error(
            ShapeError, name,
            f"expected weight to be divisible by {groups} at dimension 0, but got weight of size "
            f"{sizes_text(shape)}",
        )  # fmt: skip
    channels = pinned(t.type_.shape[1], f"the channels of {name}")
    wanted = shape[0] if transposed else shape[1] * groups
    if channels != wanted:
        raise error(
            ShapeError, name,
            f"given groups={groups}, weight of size {sizes_text(shape)}, expected input"
            f"{sizes_text(t.type_.shape)} to have {wanted} channels, but got {channels} channels instead",
        )  # fmt: skip
    out = shape[1] * groups if transposed else shape[0]
    if b is not None and (b.ndim != 1 or pinned(b.type_.shape[0], f"the bias of {name}") != out):
        raise error(
            ShapeError, name,
            f"given weight of size {sizes_text(shape)}, expected bias to be 1-dimensional with {out} "
            f"elements, "
            f"but got bias of size {sizes_text(b.type_.shape)} instead",
        )  # fmt: skip
    return t, had_batch, w, shape


# ---------------------------------------------------------------------------------------------- convolution


def _conv(
    name: str, n: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    groups: int,
) -> Tensor:  # fmt: skip
    t, had_batch, w, shape = _checked(name, n, input, weight, bias, groups, False)
    kernel = shape[2:]
    strides, dilations = ints(stride, n, name, "stride", 1), ints(dilation, n, name, "dilation", 1)
    pads = _pads(name, n, padding, kernel, strides, dilations)
    room = tuple(s + low + high for s, (low, high) in zip(t.type_.shape[2:], pads, strict=True))
    for size, k, d in zip(room, kernel, dilations, strict=True):
        if k == 0 or not at_least(size, d * (k - 1) + 1):
            raise error(
                ShapeError, name,
                f"calculated padded input size per channel: {sizes_text(room)}. Kernel size: "
                f"{sizes_text(kernel)}, dilation: {sizes_text(dilations)}. Kernel size can't be greater than "
                "actual input size",
            )  # fmt: skip
    counts = tuple(
        window_count(size, k, s, d) for size, k, s, d in zip(room, kernel, strides, dilations, strict=True)
    )
    ones, (lows, highs) = (1,) * n, zip(*pads, strict=True)
    parts = reshaped(w, (groups, shape[0] // groups, *shape[1:]))
    geometry = Geometry(strides, dilations, ones, lows, highs, counts)
    return _convolved(t, parts, bias, geometry, had_batch)


def _convolved(
    t: Tensor, parts: Tensor, bias: Tensor | None, geometry: Geometry, had_batch: bool
) -> Tensor:
    """(N, C, ...) with windows (groups, out, C / groups, ...): (N, groups * out, ...)."""
    n = len(geometry.counts)
    batch, sizes = t.type_.shape[0], t.type_.shape[2:]
    groups, out, channels = parts.shape[:3]
    images = reshaped(t, (batch, groups, channels, *sizes))
    found = convolved(images, parts, geometry)
    result = reshaped(found, (batch, groups * out, *geometry.counts))
    if bias is not None:
        result = result + bias.reshape(-1, *(1,) * n)
    return result if had_batch else result.squeeze(0)


# ---------------------------------------------------------------------------------------------- transposed


def _conv_transpose(
    name: str, n: int, input: Any, weight: Any, bias: Any, stride: Any, padding: Any, output_padding: Any,
    groups: int, dilation: Any,
) -> Tensor:  # fmt: skip
    t, had_batch, w, shape = _checked(name, n, input, weight, bias, groups, True)
    kernel = shape[2:]
    strides, dilations = ints(stride, n, name, "stride", 1), ints(dilation, n, name, "dilation", 1)
    paddings, extras = ints(padding, n, name, "padding"), ints(output_padding, n, name, "output_padding")
    for extra, s, d in zip(extras, strides, dilations, strict=True):
        if extra >= max(s, d):
            raise error(
                ShapeError, name,
                "output padding must be smaller than either stride or dilation, but got output_padding: "
                f"{extras}, stride: {strides}, dilation: {dilations}",
            )  # fmt: skip
    sizes = t.type_.shape[2:]
    full = tuple(
        (size - 1) * s + d * (k - 1) + 1
        for size, k, s, d in zip(sizes, kernel, strides, dilations, strict=True)
    )
    for size, whole, p, extra in zip(sizes, full, paddings, extras, strict=True):
        if not at_least(size, 1) or not at_least(whole + extra - 2 * p, 1):
            raise error(
                ShapeError, name,
                f"given input size per channel: {sizes_text(sizes)}. Calculated output size per channel: "
                f"{sizes_text([f + e - 2 * q for f, e, q in zip(full, extras, paddings, strict=True)])}. "
                "Output size is too small",
            )  # fmt: skip
    reaches = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
    lows = tuple(reach - p for reach, p in zip(reaches, paddings, strict=True))
    highs = tuple(low + extra for low, extra in zip(lows, extras, strict=True))
    counts = tuple(f + e - 2 * p for f, e, p in zip(full, extras, paddings, strict=True))
    ones = (1,) * n
    parts = reshaped(w, (groups, shape[0] // groups, *shape[1:])).transpose(1, 2).flip(*range(3, n + 3))
    return _convolved(t, parts, bias, Geometry(ones, dilations, strides, lows, highs, counts), had_batch)
