"""Colours, and parts painted over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow import functions as ops
from graphflow.data.randomness import sample_generator
from graphflow.data.transforms.image import Image, Plane, is_pillow, pair, probability, to_pillow
from graphflow.tensor import Tensor


class Grayscale:
    """One channel (or three equal ones) of luminance: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)."""

    def __init__(self, num_output_channels: int = 1):
        if num_output_channels not in (1, 3):
            raise ValueError(f"Grayscale: num_output_channels is 1 or 3, got {num_output_channels!r}")
        self.num_output_channels = num_output_channels

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        if is_pillow(image):
            values = np.asarray(image.convert("L"))
            return to_pillow(np.repeat(values[:, :, None], self.num_output_channels, axis=2))
        plane = Plane(image, "Grayscale")
        values = plane.values
        if values.ndim == 2:
            values = values[:, :, None]
        channel = plane.rows - 1 if plane.tensor else 2
        if values.shape[channel] not in (1, 3):
            raise TypeError(f"Grayscale: takes 1 or 3 channels, got {values.shape[channel]}")
        if values.shape[channel] == 3:
            gray = luminance(np.moveaxis(values, channel, 0))
            gray = np.rint(gray) if values.dtype.kind in "iu" else gray
            values = np.expand_dims(gray.astype(values.dtype), channel)
        return plane.back(np.repeat(values, self.num_output_channels, axis=channel))

    def __repr__(self) -> str:
        return f"Grayscale(num_output_channels={self.num_output_channels})"


def luminance(parts: np.ndarray) -> np.ndarray:
    """0.299 R + 0.587 G + 0.114 B of (3, ...) values, float64."""
    wide = parts.astype(np.float64)
    gray: np.ndarray = 0.299 * wide[0] + 0.587 * wide[1] + 0.114 * wide[2]
    return gray


class RandomGrayscale:
    """Three equal channels of luminance, with probability `p`; as many channels as before."""

    def __init__(self, p: float = 0.1):
        self.p = probability("RandomGrayscale", p)

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        plane = Plane(image, "RandomGrayscale")
        if sample_generator().random() >= self.p:
            return image
        channels = 1 if plane.channel is None else plane.values.shape[plane.channel]
        return Grayscale(3 if channels == 3 else 1)(image)

    def __repr__(self) -> str:
        return f"RandomGrayscale(p={self.p})"


class RandomInvert:
    """The colours inverted, with probability `p`: ``255 - x`` for bytes, ``1 - x`` for floats."""

    def __init__(self, p: float = 0.5):
        self.p = probability("RandomInvert", p)

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        plane = Plane(image, "RandomInvert")
        return plane.back(_top(plane) - plane.values) if sample_generator().random() < self.p else image

    def __repr__(self) -> str:
        return f"RandomInvert(p={self.p})"


def _top(plane: Plane) -> Any:
    """The highest value of a pixel, in the image's dtype."""
    dtype = plane.values.dtype
    return dtype.type(np.iinfo(dtype).max if dtype.kind in "iu" else 1)


class ColorJitter:
    """Brightness, contrast, saturation and hue changed at random, in random order.

    The first three are a number b, for a factor in [max(0, 1 - b), 1 + b], or (lowest, highest) factors; hue
    is at most 0.5, a share of the circle in either direction, or (lowest, highest). Images have one or three
    channels; saturation and hue leave one channel as it is.
    """

    def __init__(self, brightness: Any = 0, contrast: Any = 0, saturation: Any = 0, hue: Any = 0):
        self.brightness = _factors("brightness", brightness)
        self.contrast = _factors("contrast", contrast)
        self.saturation = _factors("saturation", saturation)
        self.hue = _factors("hue", hue, 0.0, (-0.5, 0.5))

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        plane = Plane(image, "ColorJitter")
        generator = sample_generator()
        order = generator.permutation(4).tolist()
        ranges = (self.brightness, self.contrast, self.saturation, self.hue)
        amounts = [None if limits is None else float(generator.uniform(*limits)) for limits in ranges]
        channel = plane.channel
        values = plane.values[None] if channel is None else np.moveaxis(plane.values, channel, 0)
        if len(values) not in (1, 3):
            raise TypeError(f"ColorJitter: takes 1 or 3 channels, got {len(values)}")
        top = float(_top(plane))
        result = values.astype(np.float64)
        steps = (_brighter, _contrasted, _saturated, _turned)
        for which in order:
            amount = amounts[which]
            if amount is not None and (which < 2 or len(values) == 3):
                result = np.clip(steps[which](result, amount, top), 0, top)
        return plane.rounded(result[0] if channel is None else np.moveaxis(result, 0, channel))

    def __repr__(self) -> str:
        return (
            f"ColorJitter(brightness={self.brightness}, contrast={self.contrast}, "
            f"saturation={self.saturation}, hue={self.hue})"
        )


def _factors(
    name: str, value: Any, centre: float = 1.0, bounds: tuple[float, float] = (0.0, math.inf)
) -> tuple[float, float] | None:
    if isinstance(value, (int, float)):
        if value < 0:
            raise ValueError(f"ColorJitter: {name} isn't negative, got {value!r}")
        low, high = centre - value, centre + value
        low = max(low, 0.0) if centre else low
    else:
        low, high = (float(v) for v in value)
    if not bounds[0] <= low <= high <= bounds[1]:
        raise ValueError(f"ColorJitter: {name} lies within {bounds}, got {value!r}")
    return None if low == high == centre else (low, high)


def _brighter(parts: np.ndarray, factor: float, top: float) -> np.ndarray:
    return parts * factor


def _contrasted(parts: np.ndarray, factor: float, top: float) -> np.ndarray:
    gray = parts[0] if len(parts) == 1 else luminance(parts)
    mean = gray.mean(axis=(-2, -1), keepdims=True)
    result: np.ndarray = factor * parts + (1 - factor) * mean
    return result


def _saturated(parts: np.ndarray, factor: float, top: float) -> np.ndarray:
    return factor * parts + (1 - factor) * luminance(parts)


def _turned(parts: np.ndarray, share: float, top: float) -> np.ndarray:
    """The hue turned by a share of the circle (A. R. Smith: Color gamut transform pairs. 1978)."""
    red, green, blue = parts / top
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    spread = np.where(high > low, high - low, 1.0)
    hue = np.where(
        high == red, (green - blue) / spread,
        np.where(high == green, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )  # fmt: skip
    hue = np.where(high > low, hue / 6 + share, 0.0)
    mixed = []
    for place in (5, 3, 1):
        distance = (place + hue * 6) % 6
        mixed.append(high - (high - low) * np.clip(np.minimum(distance, 4 - distance), 0, 1))
    return np.stack(mixed) * top


class GaussianBlur:
    """Blurred by a Gaussian of a random deviation within `sigma`, with a kernel of `kernel_size` pixels (odd;
    (height, width) or one for both). Borders are reflected.
    """

    def __init__(self, kernel_size: int | Sequence[int], sigma: float | Sequence[float] = (0.1, 2.0)):
        self.kernel_size = pair("GaussianBlur", kernel_size)
        low, high = (sigma, sigma) if isinstance(sigma, (int, float)) else tuple(sigma)
        if any(size % 2 == 0 for size in self.kernel_size):
            raise ValueError(f"GaussianBlur: kernel_size is odd, got {kernel_size!r}")
        if not 0 < low <= high:
            raise ValueError(f"GaussianBlur: sigma is above 0, got {sigma!r}")
        self.sigma = (float(low), float(high))

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        plane = Plane(image, "GaussianBlur")
        sigma = float(sample_generator().uniform(*self.sigma))
        values = plane.values.astype(np.float64)
        for axis, size in zip((plane.rows, plane.rows + 1), self.kernel_size, strict=True):
            offsets = np.arange(size) - size // 2
            kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
            widths = [(0, 0)] * values.ndim
            widths[axis] = (size // 2, size // 2)
            windows = np.lib.stride_tricks.sliding_window_view(np.pad(values, widths, "reflect"), size, axis)
            values = windows @ (kernel / kernel.sum())
        return plane.rounded(values)

    def __repr__(self) -> str:
        return f"GaussianBlur(kernel_size={self.kernel_size}, sigma={self.sigma})"


class RandomErasing:
    """A random rectangle of a tensor (..., C, H, W) overwritten, with probability `p`.

    Z. Zhong et al.: Random erasing data augmentation. AAAI 2020. `scale` bounds the rectangle's share of the
    image, `ratio` its height by width; `value` fills it (one number, or one for each channel),
    or "random" noise from a standard normal distribution.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float | str | Sequence[float] = 0,
        inplace: bool = False,
    ):
        self.p = probability("RandomErasing", p)
        if not 0 <= scale[0] <= scale[1] <= 1 or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"RandomErasing: scale {scale} or ratio {ratio} isn't a range of shares")
        if isinstance(value, str) and value != "random":
            raise ValueError(f"RandomErasing: value is a number or 'random', got {value!r}")
        self.scale, self.ratio, self.value, self.inplace = scale, ratio, value, inplace

    def __call__(self, image: Tensor) -> Tensor:
        """The transformed image."""
        if not isinstance(image, Tensor):
            raise TypeError(
                f"RandomErasing: takes a tensor, got {type(image).__name__}; put ToTensor before it"
            )
        rows, columns = Plane(image, "RandomErasing").size
        generator = sample_generator()
        if generator.random() >= self.p:
            return image
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = rows * columns * generator.uniform(*self.scale)
            shape = math.exp(generator.uniform(low, high))
            height, width = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < height < rows and 0 < width < columns:
                top = int(generator.integers(0, rows - height + 1))
                left = int(generator.integers(0, columns - width + 1))
                result = image if self.inplace else image.clone()
                region = result[..., top : top + height, left : left + width]
                if isinstance(self.value, str):
                    noise = generator.standard_normal(tuple(region.shape))
                    region.copy_(ops.from_numpy(noise.astype(image.dtype.numpy)))
                elif isinstance(self.value, (int, float)):
                    region.fill_(self.value)
                else:
                    region.copy_(ops.tensor(self.value, dtype=image.dtype).reshape(-1, 1, 1))
                return result
        return image

    def __repr__(self) -> str:
        return f"RandomErasing(p={self.p}, scale={self.scale}, ratio={self.ratio}, value={self.value})"
