"""Transforms of images, as ``torchvision.transforms``.

An image is a uint8 array of shape (H, W) or (H, W, C), as readers give it, a Pillow image, which is taken as
such an array, or a tensor of shape (..., C, H, W). What a transform is given decides what it returns: arrays
stay arrays, tensors tensors. Random transforms draw from `sample_generator`, so that a DataLoader's samples
are the same for any number of workers, and after resuming.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow import functions as ops
from graphflow.data.randomness import sample_generator
from graphflow.dtypes import DType, as_dtype, float32
from graphflow.tensor import Tensor

Image = Any  # an array, a Pillow image or a tensor


class _Plane:
    """An image's values as an array whose rows and columns are at known places, and the way back."""

    def __init__(self, image: Image, name: str):
        self.tensor = isinstance(image, Tensor)
        values = image.detach().numpy() if isinstance(image, Tensor) else np.asarray(image)
        least = 2 if not self.tensor else 3
        if values.ndim < least or (not self.tensor and values.ndim > 3) or values.dtype == object:
            raise TypeError(
                f"{name}: an image is an (H, W) or (H, W, C) array, a Pillow image or a (..., C, H, W) "
                f"tensor, got {type(image).__name__} of shape {values.shape}"
            )
        self.values = values
        self.rows = values.ndim - 2 if self.tensor else 0

    @property
    def size(self) -> tuple[int, int]:
        return self.values.shape[self.rows], self.values.shape[self.rows + 1]

    def crop(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        index = [slice(None)] * self.rows + [slice(top, top + height), slice(left, left + width)]
        part: np.ndarray = self.values[tuple(index)]
        return part

    def back(self, values: np.ndarray) -> Image:
        values = np.ascontiguousarray(values)
        if np.shares_memory(values, self.values):
            values = values.copy()
        return ops.from_numpy(values) if self.tensor else values


def _pair(name: str, value: int | Sequence[int], least: int = 1) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) == 1:
        pair = pair * 2
    if len(pair) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < least for v in pair):
        raise ValueError(f"{name}: the size is a whole number or two, at least {least}, got {value!r}")
    return pair


def _probability(name: str, p: float) -> float:
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p is a probability, got {p!r}")
    return float(p)


class Compose:
    """The transforms one after another."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]):
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> Any:
        """The transformed image."""
        for transform in self.transforms:
            image = transform(image)
        return image

    def __repr__(self) -> str:
        lines = "".join(f"\n    {transform}" for transform in self.transforms)
        return f"Compose({lines}\n)"


class Lambda:
    """Calls `function` with the image."""

    def __init__(self, function: Callable[[Any], Any]):
        if not callable(function):
            raise TypeError(f"Lambda: takes a function, got {type(function).__name__}")
        self.function = function

    def __call__(self, image: Any) -> Any:
        """The transformed image."""
        return self.function(image)

    def __repr__(self) -> str:
        return "Lambda()"


class ToTensor:
    """(H, W) or (H, W, C) to a (C, H, W) tensor: uint8 becomes float32 in [0, 1], other dtypes stay."""

    def __call__(self, image: Image) -> Tensor:
        """The transformed image."""
        if isinstance(image, Tensor):
            raise TypeError("ToTensor: the image is a tensor already")
        values = _Plane(image, "ToTensor").values
        values = values[:, :, None] if values.ndim == 2 else values
        values = np.ascontiguousarray(values.transpose(2, 0, 1))
        if values.dtype == np.uint8:
            values = values.astype(np.float32) / np.float32(255)
        elif np.shares_memory(values, image):
            values = values.copy()
        return ops.from_numpy(values)

    def __repr__(self) -> str:
        return "ToTensor()"


class PILToTensor:
    """(H, W) or (H, W, C) to a (C, H, W) tensor of the same dtype."""

    def __call__(self, image: Image) -> Tensor:
        """The transformed image."""
        values = _Plane(image, "PILToTensor").values
        values = values[:, :, None] if values.ndim == 2 else values
        return ops.from_numpy(values.transpose(2, 0, 1).copy())

    def __repr__(self) -> str:
        return "PILToTensor()"


class ConvertImageDtype:
    """A tensor in another dtype, its range kept: between integers and floats, [0, max] goes with [0, 1]."""

    def __init__(self, dtype: DType):
        self.dtype = as_dtype(dtype)

    def __call__(self, image: Tensor) -> Tensor:
        """The transformed image."""
        if not isinstance(image, Tensor):
            raise TypeError(f"ConvertImageDtype: takes a tensor, got {type(image).__name__}")
        source, target = image.dtype, self.dtype
        result: Tensor
        if source is target or (source.is_floating_point and target.is_floating_point):
            result = image.to(target)
        elif not (source.is_floating_point or target.is_floating_point):
            result = self._between_integers(image)
        elif target.is_floating_point:
            result = image.to(target) / float(np.iinfo(source.numpy).max)
        else:
            # just below the next whole number, so that 1.0 is the highest value and all have equal shares
            scale = np.iinfo(target.numpy).max + 1.0 - 1e-3
            result = (image.to(ops.promote_types(source, float32)) * scale).to(target)
        return result

    def _between_integers(self, image: Tensor) -> Tensor:
        source, target = np.iinfo(image.dtype.numpy).max, np.iinfo(self.dtype.numpy).max
        values = image.detach().numpy()
        if source > target:
            values = values // ((source + 1) // (target + 1))
        else:
            values = values.astype(self.dtype.numpy) * ((target + 1) // (source + 1))
        result: Tensor = ops.from_numpy(values.astype(self.dtype.numpy))
        return result

    def __repr__(self) -> str:
        return f"ConvertImageDtype({self.dtype})"


class Normalize:
    """``(x - mean) / std`` for each channel of a float tensor (..., C, H, W). ValueError where a std is 0."""

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float], inplace: bool = False):
        self.mean = tuple(np.atleast_1d(mean).astype(float).tolist())
        self.std = tuple(np.atleast_1d(std).astype(float).tolist())
        self.inplace = inplace
        if 0.0 in self.std:
            raise ValueError(f"Normalize: a standard deviation of 0 would divide by zero: {self.std}")

    def __call__(self, image: Tensor) -> Tensor:
        """The transformed image."""
        if not isinstance(image, Tensor):
            raise TypeError(f"Normalize: takes a tensor, got {type(image).__name__}; put ToTensor before it")
        if not image.is_floating_point() or image.ndim < 3:
            raise TypeError(
                f"Normalize: takes a float tensor (..., C, H, W), got {image.dtype} {tuple(image.shape)}"
            )
        channels = image.shape[-3]
        for what, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, channels):
                raise ValueError(f"Normalize: {len(values)} values of {what} for {channels} channels")
        mean = ops.tensor(self.mean, dtype=image.dtype).reshape(-1, 1, 1)
        std = ops.tensor(self.std, dtype=image.dtype).reshape(-1, 1, 1)
        result: Tensor = image.sub_(mean).div_(std) if self.inplace else (image - mean) / std
        return result

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"


class Pad:
    """`padding` pixels of `fill` around the image: one number, (horizontal, vertical), or (left, top, right,
    bottom).

    `padding_mode` is "constant", "edge", "reflect" or "symmetric", as NumPy's.
    """

    def __init__(self, padding: int | Sequence[int], fill: float = 0, padding_mode: str = "constant"):
        sides = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
        sides = sides * 2 if len(sides) == 2 else sides
        if len(sides) != 4 or min(sides) < 0:
            raise ValueError(f"Pad: padding is one, two or four whole numbers, got {padding!r}")
        if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
            raise ValueError(
                f"Pad: padding_mode is constant, edge, reflect or symmetric, got {padding_mode!r}"
            )
        self.padding, self.fill, self.padding_mode = sides, fill, padding_mode

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        plane = _Plane(image, "Pad")
        left, top, right, bottom = self.padding
        widths = [(0, 0)] * plane.values.ndim
        widths[plane.rows], widths[plane.rows + 1] = (top, bottom), (left, right)
        if self.padding_mode == "constant":
            return plane.back(np.pad(plane.values, widths, constant_values=self.fill))
        return plane.back(np.pad(plane.values, widths, mode=self.padding_mode))  # type: ignore[call-overload]

    def __repr__(self) -> str:
        return f"Pad(padding={self.padding}, fill={self.fill}, padding_mode={self.padding_mode})"


class CenterCrop:
    """The middle (height, width) of the image, with zeros around it where the image is smaller."""

    def __init__(self, size: int | Sequence[int]):
        self.size = _pair("CenterCrop", size)

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        height, width = self.size
        rows, columns = _Plane(image, "CenterCrop").size
        if rows < height or columns < width:
            over, side = max(height - rows, 0), max(width - columns, 0)
            image = Pad((side // 2, over // 2, side - side // 2, over - over // 2))(image)
        plane = _Plane(image, "CenterCrop")
        top, left = (round((have - want) / 2.0) for have, want in zip(plane.size, self.size, strict=True))
        return plane.back(plane.crop(top, left, height, width))

    def __repr__(self) -> str:
        return f"CenterCrop(size={self.size})"


class RandomCrop:
    """A random (height, width) of the image, after `padding` (see Pad). ValueError where the image is
    smaller, unless `pad_if_needed`.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: float = 0,
        padding_mode: str = "constant",
    ):
        self.size = _pair("RandomCrop", size)
        self.padding = None if padding is None else Pad(padding, fill, padding_mode)
        self.pad_if_needed, self.fill, self.padding_mode = pad_if_needed, fill, padding_mode

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        if self.padding is not None:
            image = self.padding(image)
        height, width = self.size
        rows, columns = _Plane(image, "RandomCrop").size
        if self.pad_if_needed and (rows < height or columns < width):
            image = Pad((max(width - columns, 0), max(height - rows, 0)), self.fill, self.padding_mode)(image)
        plane = _Plane(image, "RandomCrop")
        rows, columns = plane.size
        if rows < height or columns < width:
            raise ValueError(f"RandomCrop: the crop {self.size} is larger than the image ({rows}, {columns})")
        generator = sample_generator()
        top = int(generator.integers(0, rows - height + 1))
        left = int(generator.integers(0, columns - width + 1))
        return plane.back(plane.crop(top, left, height, width))

    def __repr__(self) -> str:
        return f"RandomCrop(size={self.size}, padding={self.padding})"


class _RandomFlip:
    axis = 0

    def __init__(self, p: float = 0.5):
        self.p = _probability(type(self).__name__, p)

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        plane = _Plane(image, type(self).__name__)
        if sample_generator().random() >= self.p:
            return image
        return plane.back(np.flip(plane.values, plane.rows + self.axis))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p})"


class RandomHorizontalFlip(_RandomFlip):
    """Left and right exchanged, with probability `p`."""

    axis = 1


class RandomVerticalFlip(_RandomFlip):
    """Top and bottom exchanged, with probability `p`."""


class Grayscale:
    """One channel (or three equal ones) of luminance: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601)."""

    def __init__(self, num_output_channels: int = 1):
        if num_output_channels not in (1, 3):
            raise ValueError(f"Grayscale: num_output_channels is 1 or 3, got {num_output_channels!r}")
        self.num_output_channels = num_output_channels

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        plane = _Plane(image, "Grayscale")
        values = plane.values
        if values.ndim == 2:
            values = values[:, :, None]
        channel = plane.rows - 1 if plane.tensor else 2
        if values.shape[channel] not in (1, 3):
            raise TypeError(f"Grayscale: takes 1 or 3 channels, got {values.shape[channel]}")
        if values.shape[channel] == 3:
            parts = np.moveaxis(values, channel, 0).astype(np.float64)
            gray = 0.299 * parts[0] + 0.587 * parts[1] + 0.114 * parts[2]
            gray = np.rint(gray) if values.dtype.kind in "iu" else gray
            values = np.expand_dims(gray.astype(values.dtype), channel)
        return plane.back(np.repeat(values, self.num_output_channels, axis=channel))

    def __repr__(self) -> str:
        return f"Grayscale(num_output_channels={self.num_output_channels})"


class Resize:
    """The image at another size: (height, width), or one number for the shorter side.

    `interpolation` is "bilinear" (averaging over the source pixels that fall together when shrinking, as
    Pillow's and torchvision's with antialias) or "nearest".
    """

    def __init__(
        self, size: int | Sequence[int], interpolation: str = "bilinear", max_size: int | None = None
    ):
        if interpolation not in ("bilinear", "nearest"):
            raise ValueError(f"Resize: interpolation is bilinear or nearest, got {interpolation!r}")
        self.shorter = size if isinstance(size, int) else size[0] if len(size) == 1 else None
        self.size = _pair("Resize", size)
        self.interpolation, self.max_size = interpolation, max_size

    def target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the result for an image of this size."""
        if self.shorter is None:
            return self.size
        short, long = min(height, width), max(height, width)
        other = int(self.shorter * long / short)
        shorter = self.shorter
        if self.max_size is not None and other > self.max_size:
            shorter, other = int(self.max_size * shorter / other), self.max_size
        return (shorter, other) if height <= width else (other, shorter)

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        plane = _Plane(image, "Resize")
        target = self.target(*plane.size)
        values = plane.values
        for axis, size in zip((plane.rows, plane.rows + 1), target, strict=True):
            if values.shape[axis] != size:
                values = self._along(values, axis, size)
        if values.dtype != plane.values.dtype:
            if plane.values.dtype.kind in "iu":
                limits = np.iinfo(plane.values.dtype)
                values = np.clip(np.rint(values), limits.min, limits.max)
            values = values.astype(plane.values.dtype)
        return plane.back(values)

    def _along(self, values: np.ndarray, axis: int, size: int) -> np.ndarray:
        have = values.shape[axis]
        if self.interpolation == "nearest":
            picked: np.ndarray = np.take(values, np.arange(size) * have // size, axis=axis)
            return picked
        summed = np.tensordot(_triangle(have, size), values.astype(np.float64), (1, axis))
        return np.moveaxis(summed, 0, axis)

    def __repr__(self) -> str:
        return f"Resize(size={self.size}, interpolation={self.interpolation})"


def _triangle(have: int, want: int) -> np.ndarray:
    """(want, have) weights of bilinear interpolation, whose triangle is as wide as a target pixel."""
    scale = have / want
    width = max(scale, 1.0)
    centres = (np.arange(want) + 0.5) * scale
    distance = np.abs(np.arange(have) + 0.5 - centres[:, None]) / width
    weights = np.maximum(0.0, 1.0 - distance)
    total: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
    return total


class RandomErasing:
    """A random rectangle of a tensor (..., C, H, W) overwritten, with probability `p`.

    Z. Zhong et al.: Random erasing data augmentation. AAAI 2020. `scale` bounds the rectangle's share of the
    image, `ratio` its height by width; `value` fills it, or "random" noise from a standard normal
    distribution.
    """

    def __init__(
        self,
        p: float = 0.5,
        scale: tuple[float, float] = (0.02, 0.33),
        ratio: tuple[float, float] = (0.3, 3.3),
        value: float | str = 0,
        inplace: bool = False,
    ):
        self.p = _probability("RandomErasing", p)
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
        rows, columns = _Plane(image, "RandomErasing").size
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
                else:
                    region.fill_(self.value)
                return result
        return image

    def __repr__(self) -> str:
        return f"RandomErasing(p={self.p}, scale={self.scale}, ratio={self.ratio}, value={self.value})"


class RandomApply:
    """All of `transforms`, or, with probability 1 - `p`, none."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: float = 0.5):
        self.transforms = Compose(transforms)
        self.p = _probability("RandomApply", p)

    def __call__(self, image: Any) -> Any:
        """The transformed image."""
        return self.transforms(image) if sample_generator().random() < self.p else image

    def __repr__(self) -> str:
        return f"RandomApply(p={self.p}, {self.transforms})"
