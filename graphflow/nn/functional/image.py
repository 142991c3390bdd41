"""Windows as columns and back, and rearranging channels into pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphflow.dims import product
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.common import at_least, pinned, reshaped, tensor_arg, unshared
from graphflow.functions.registry import error
from graphflow.functions.window import cropped, filled, overlap_add, window_count, windows
from graphflow.nn.functional.spatial import Extent, ints, quotient, sizes_text
from graphflow.tensor import Tensor

__all__ = ["channel_shuffle", "fold", "pixel_shuffle", "pixel_unshuffle", "unfold"]

Numbers = int | Sequence[int]


def unfold(
    input: Tensor, kernel_size: Numbers, dilation: Numbers = 1, padding: Numbers = 0, stride: Numbers = 1
) -> Tensor:
    """The windows of (N, C, H, W) or (C, H, W) as columns: (N, C kh kw, L) with L windows, row-major.

    As ``torch.nn.functional.unfold`` (im2col). ShapeError where no window fits.
    """
    name = "unfold"
    t = tensor_arg(input, name)
    if t.ndim not in (3, 4):
        raise error(
            ShapeError, name,
            f"expected 3D or 4D (batch mode) tensor with possibly 0 batch size, but got {t.type_}",
        )  # fmt: skip
    batch = t if t.ndim == 4 else t.unsqueeze(0)
    kernel, dilations = ints(kernel_size, 2, name, "kernel_size", 1), ints(dilation, 2, name, "dilation", 1)
    strides, paddings = ints(stride, 2, name, "stride", 1), ints(padding, 2, name, "padding")
    counts: list[Extent] = []
    for size, k, s, p, d in zip(batch.type_.shape[2:], kernel, strides, paddings, dilations, strict=True):
        if not at_least(size + 2 * p, d * (k - 1) + 1):
            raise error(
                ShapeError, name,
                f"given input with spatial size {sizes_text(batch.type_.shape[2:])}, kernel_size={kernel}, "
                f"dilation={dilations}, padding={paddings}, there is no window that fits",
            )  # fmt: skip
        counts.append(window_count(size + 2 * p, k, s, d))
    padded = filled(batch, ((0, 0), (0, 0), *((p, p) for p in paddings)), 0)
    found = windows(padded, (2, 3), kernel, strides, dilations, at=2)
    shape = (batch.type_.shape[0], batch.type_.shape[1] * math.prod(kernel), product(counts))
    columns = reshaped(found, shape)
    result: Tensor = columns if t.ndim == 4 else columns.squeeze(0)
    return result


def fold(
    input: Tensor,
    output_size: Numbers,
    kernel_size: Numbers,
    dilation: Numbers = 1,
    padding: Numbers = 0,
    stride: Numbers = 1,
) -> Tensor:
    """The transpose of `unfold`: columns (N, C kh kw, L) or (C kh kw, L) added up in an image of
    `output_size`.

    As ``torch.nn.functional.fold`` (col2im). ShapeError where the columns aren't those of such an image.
    """
    name = "fold"
    t = tensor_arg(input, name)
    if t.ndim not in (2, 3):
        raise error(ShapeError, name, f"expected a 2D (unbatched) or 3D (batched) input, got {t.type_}")
    batch = t if t.ndim == 3 else t.unsqueeze(0)
    sizes = ints(output_size, 2, name, "output_size", 1)
    kernel, dilations = ints(kernel_size, 2, name, "kernel_size", 1), ints(dilation, 2, name, "dilation", 1)
    strides, paddings = ints(stride, 2, name, "stride", 1), ints(padding, 2, name, "padding")
    room = [size + 2 * p for size, p in zip(sizes, paddings, strict=True)]
    counts = [
        int(window_count(size, k, s, d))  # type: ignore[arg-type]  # numbers all of them
        for size, k, s, d in zip(room, kernel, strides, dilations, strict=True)
    ]
    rows = batch.type_.shape[1]
    channels = quotient(rows, math.prod(kernel), "the rows of fold")
    if channels is None:
        raise error(
            ShapeError, name,
            f"expected size of input's dimension 1 to be divisible by the product of kernel_size, but got "
            f"{rows} and kernel_size={kernel}",
        )  # fmt: skip
    columns = pinned(batch.type_.shape[2], "the number of windows of fold")
    if min(counts) < 1 or columns != math.prod(counts):
        raise error(
            ShapeError, name,
            f"given output_size={sizes}, kernel_size={kernel}, dilation={dilations}, padding={paddings}, "
            f"stride={strides}, expected {max(counts[0], 0) * max(counts[1], 0)} columns, but got "
            f"{sizes_text(t.type_.shape)}",
        )  # fmt: skip
    apart = reshaped(batch, (batch.type_.shape[0], channels, *kernel, *counts))
    whole = overlap_add(apart, (4, 5), (2, 3), strides, dilations, room)
    image = cropped(whole, ((0, 0), (0, 0), *((-p, -p) for p in paddings)))
    result: Tensor = image.contiguous() if t.ndim == 3 else image.contiguous().squeeze(0)
    return result


# ---------------------------------------------------------------------------------------------- channels


def _factor(name: str, argument: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise error(DTypeError, name, f"{argument} is an integer, not {type(value).__name__}")
    if value.__index__() < 1:
        raise error(ShapeError, name, f"{argument} has to be positive, got {value}")
    return value.__index__()  # type: ignore[no-any-return]


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C r², H, W) as (..., C, H r, W r) with r = `upscale_factor`; Shi et al., CVPR 2016."""
    name = "pixel_shuffle"
    t, r = tensor_arg(input, name), _factor(name, "upscale_factor", upscale_factor)
    if t.ndim < 3:
        raise error(ShapeError, name, f"expects input to have at least 3 dimensions, but got {t.type_}")
    *lead, channels, height, width = t.type_.shape
    rest = quotient(channels, r * r, "the channels of pixel_shuffle")
    if rest is None:
        raise error(
            ShapeError, name,
            f"expects its input's 'channel' dimension to be divisible by the square of upscale_factor, but "
            f"input.size(-3)={channels} is not divisible by {r * r}",
        )  # fmt: skip
    n = len(lead)
    split = reshaped(t, (*lead, rest, r, r, height, width))
    order = (*range(n), n, n + 3, n + 1, n + 4, n + 2)
    return unshared(reshaped(split.permute(*order), (*lead, rest, height * r, width * r)), t)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H r, W r) as (..., C r², H, W) with r = `downscale_factor`: `pixel_shuffle` undone."""
    name = "pixel_unshuffle"
    t, r = tensor_arg(input, name), _factor(name, "downscale_factor", downscale_factor)
    if t.ndim < 3:
        raise error(ShapeError, name, f"expects input to have at least 3 dimensions, but got {t.type_}")
    *lead, channels, height, width = t.type_.shape
    why = "the size of pixel_unshuffle's input"
    rows, columns = quotient(height, r, why), quotient(width, r, why)
    if rows is None or columns is None:
        raise error(
            ShapeError, name,
            f"expects height and width to be divisible by downscale_factor, but ({height}, {width}) aren't "
            f"divisible by {r}",
        )  # fmt: skip
    n = len(lead)
    split = reshaped(t, (*lead, channels, rows, r, columns, r))
    order = (*range(n), n, n + 2, n + 4, n + 1, n + 3)
    return unshared(reshaped(split.permute(*order), (*lead, channels * (r * r), rows, columns)), t)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """(N, C, ...) with its `groups` of channels interleaved; Zhang et al., CVPR 2018."""
    name = "channel_shuffle"
    t, g = tensor_arg(input, name), _factor(name, "groups", groups)
    if t.ndim < 3:
        raise error(ShapeError, name, f"expects input to have more than 2 dimensions, but got {t.type_}")
    batch, channels, *rest = t.type_.shape
    own = quotient(channels, g, "the channels of channel_shuffle")
    if own is None:
        raise error(
            ShapeError, name,
            f"number of channels must be divisible by groups. Got {channels} channels and {g} groups.",
        )  # fmt: skip
    split = reshaped(t, (batch, g, own, *rest)).transpose(1, 2)
    return unshared(reshaped(split, t.type_.shape), t)
