"""Convolutions (cross-correlations, as everywhere in deep learning) and their transposes.

A convolution is a matrix product: one row for each place of the window, one column for each output channel.
Inside, channels come last, so that a window's rows are runs of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.dims import product
from graphflow.errors import ShapeError
from graphflow.functions.common import at_least, pinned, reshaped, tensor_arg
from graphflow.functions.precision import autocasting
from graphflow.functions.registry import error
from graphflow.functions.window import filled, overlap_add, window_count, windows
from graphflow.nn.functional.spatial import (
    Extent,
    Ints,
    batched,
    channels_first,
    channels_last,
    ints,
    same_dtype,
    sizes_text,
)
from graphflow.tensor import Tensor

Numbers = int | Sequence[int]


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
    geometry = kernel, strides, dilations
    if groups == 1:
        padded = filled(channels_last(t), ((0, 0), *pads, (0, 0)), 0)
        result = _dense(padded, w, bias, counts, *geometry)
    else:
        padded = filled(t, ((0, 0), (0, 0), *pads), 0)
        split = _depthwise if shape[1] == 1 else _grouped
        result = split(padded, w, groups, counts, *geometry)
        if bias is not None:
            result = result + bias.reshape(-1, *(1,) * n)
        result = result.contiguous()
    return result if had_batch else result.squeeze(0)


def _dense(
    x: Tensor, w: Tensor, bias: Tensor | None, counts: Sequence[Extent], kernel: Ints, strides: Ints,
    dilations: Ints,
) -> Tensor:  # fmt: skip
    """(N, ..., C) with channels that all see each other: one product."""
    n = len(kernel)
    batch, out = x.type_.shape[0], w.shape[0]
    found = windows(x, range(1, n + 1), kernel, strides, dilations, at=n + 1)
    depth = product(w.type_.shape[1:])
    rows = reshaped(found, (batch * product(counts), depth))
    result = rows @ reshaped(channels_last(w), (out, depth)).t()
    if bias is not None:
        result = result + bias
    return channels_first(reshaped(result, (batch, *counts, out)))


def _grouped(
    x: Tensor, w: Tensor, groups: int, counts: Sequence[Extent], kernel: Ints, strides: Ints, dilations: Ints
) -> Tensor:
    """(N, C, ...) in groups of channels: a batch of products."""
    n = len(kernel)
    batch = x.type_.shape[0]
    out, own = w.shape[0] // groups, w.shape[1]
    parts = x.reshape(batch, groups, own, *x.type_.shape[2:])
    parts = parts.permute(1, 0, *range(3, n + 3), 2)  # (G, N, ..., C / G)
    found = windows(parts, range(2, n + 2), kernel, strides, dilations, at=n + 2)
    depth = product(kernel) * own
    rows = reshaped(found, (groups, batch * product(counts), depth))
    columns = reshaped(w, (groups, out, own, *kernel)).permute(0, *range(3, n + 3), 2, 1)
    result = reshaped(rows @ reshaped(columns, (groups, depth, out)), (groups, batch, *counts, out))
    return reshaped(result.permute(1, 0, n + 2, *range(2, n + 2)), (batch, groups * out, *counts))


def _depthwise(
    x: Tensor, w: Tensor, groups: int, counts: Sequence[Extent], kernel: Ints, strides: Ints, dilations: Ints
) -> Tensor:
    """(N, C, ...) where each output channel sees one channel: sums of products, without a copy of windows."""
    n = len(kernel)
    batch = x.type_.shape[0]
    found = windows(x, range(2, n + 2), kernel, strides, dilations)
    found = found.unsqueeze(2)
    factors = reshaped(w, (groups, w.shape[0] // groups, *(1,) * n, *kernel))
    result: Tensor = (found * factors).sum(tuple(range(n + 3, 2 * n + 3)))
    return reshaped(result, (batch, w.shape[0], *counts))


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
    batch = t.type_.shape[0]
    own, out = shape[0] // groups, shape[1]
    last = channels_last(t)
    if groups == 1:
        rows = reshaped(last, (batch * product(sizes), own))
        columns = reshaped(channels_last(w), (own, product(kernel) * out))
        spread = reshaped(rows @ columns, (batch, *sizes, *kernel, out))
        first = 1
    else:
        parts = reshaped(last, (batch, *sizes, groups, own)).permute(n + 1, 0, *range(1, n + 1), n + 2)
        rows = reshaped(parts, (groups, batch * product(sizes), own))
        columns = reshaped(channels_last(w), (groups, own, product(kernel) * out))
        spread = reshaped(rows @ columns, (groups, batch, *sizes, *kernel, out))
        first = 2
    taps = range(first + n, first + 2 * n)
    added = overlap_add(spread, range(first, first + n), taps, strides, dilations, full)
    edges = tuple((-p, extra - p) for p, extra in zip(paddings, extras, strict=True))
    result = filled(added, (*((0, 0),) * first, *edges, (0, 0)), 0)
    if groups > 1:
        result = result.permute(1, *range(2, n + 2), 0, n + 2).flatten(n + 1)
    if bias is not None:
        result = result + bias
    result = channels_first(result)
    return result if had_batch else result.squeeze(0)
