"""Crops, flips and borders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.data.randomness import sample_generator
from graphflow.data.transforms.image import Image, Plane, pair, probability
from graphflow.data.transforms.resize import Resize


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
        plane = Plane(image, "Pad")
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
        self.size = pair("CenterCrop", size)

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        height, width = self.size
        rows, columns = Plane(image, "CenterCrop").size
        if rows < height or columns < width:
            over, side = max(height - rows, 0), max(width - columns, 0)
            image = Pad((side // 2, over // 2, side - side // 2, over - over // 2))(image)
        plane = Plane(image, "CenterCrop")
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
        self.size = pair("RandomCrop", size)
        self.padding = None if padding is None else Pad(padding, fill, padding_mode)
        self.pad_if_needed, self.fill, self.padding_mode = pad_if_needed, fill, padding_mode

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        if self.padding is not None:
            image = self.padding(image)
        height, width = self.size
        rows, columns = Plane(image, "RandomCrop").size
        if self.pad_if_needed and (rows < height or columns < width):
            image = Pad((max(width - columns, 0), max(height - rows, 0)), self.fill, self.padding_mode)(image)
        plane = Plane(image, "RandomCrop")
        rows, columns = plane.size
        if rows < height or columns < width:
            raise ValueError(f"RandomCrop: the crop {self.size} is larger than the image ({rows}, {columns})")
        generator = sample_generator()
        top = int(generator.integers(0, rows - height + 1))
        left = int(generator.integers(0, columns - width + 1))
        return plane.back(plane.crop(top, left, height, width))

    def __repr__(self) -> str:
        return f"RandomCrop(size={self.size}, padding={self.padding})"


class RandomResizedCrop:
    """A random part of the image, resized to (height, width): the usual augmentation for training.

    `scale` bounds the part's share of the area, `ratio` its width by height. `interpolation` as for Resize.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        interpolation: Any = "bilinear",
        antialias: bool | None = True,
    ):
        self.size = pair("RandomResizedCrop", size)
        if not 0 <= scale[0] <= scale[1] or not 0 < ratio[0] <= ratio[1]:
            raise ValueError(f"RandomResizedCrop: scale {scale} or ratio {ratio} isn't a range")
        self.scale, self.ratio = tuple(scale), tuple(ratio)
        self.resize = Resize(self.size, interpolation, antialias=antialias)

    def place(self, rows: int, columns: int) -> tuple[int, int, int, int]:
        """(top, left, height, width) of a random part of an image of this size."""
        generator = sample_generator()
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = rows * columns * generator.uniform(self.scale[0], self.scale[1])
            shape = math.exp(generator.uniform(low, high))
            width, height = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < width <= columns and 0 < height <= rows:
                top = int(generator.integers(0, rows - height + 1))
                return top, int(generator.integers(0, columns - width + 1)), height, width
        width, height = columns, rows
        if columns / rows < self.ratio[0]:
            height = max(1, round(width / self.ratio[0]))
        elif columns / rows > self.ratio[1]:
            width = max(1, round(height * self.ratio[1]))
        return (rows - height) // 2, (columns - width) // 2, height, width

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        plane = Plane(image, "RandomResizedCrop")
        return self.resize(plane.back(plane.crop(*self.place(*plane.size))))

    def __repr__(self) -> str:
        return f"RandomResizedCrop(size={self.size}, scale={self.scale}, ratio={self.ratio})"


class _RandomFlip:
    axis = 0

    def __init__(self, p: float = 0.5):
        self.p = probability(type(self).__name__, p)

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        plane = Plane(image, type(self).__name__)
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


class FiveCrop:
    """Five images: the four corners, (height, width) each, and the middle. ValueError for smaller images."""

    def __init__(self, size: int | Sequence[int]):
        self.size = pair("FiveCrop", size)

    def __call__(self, image: Image) -> tuple[Image, ...]:
        """Top left, top right, bottom left, bottom right, middle."""
        plane = Plane(image, "FiveCrop")
        (rows, columns), (height, width) = plane.size, self.size
        if rows < height or columns < width:
            raise ValueError(f"FiveCrop: the crop {self.size} is larger than the image ({rows}, {columns})")
        places = [(0, 0), (0, columns - width), (rows - height, 0), (rows - height, columns - width)]
        corners = [plane.back(plane.crop(top, left, height, width)) for top, left in places]
        return (*corners, CenterCrop(self.size)(image))

    def __repr__(self) -> str:
        return f"FiveCrop(size={self.size})"


class TenCrop:
    """FiveCrop's images, and the same of the image flipped, from left to right or from top to bottom."""

    def __init__(self, size: int | Sequence[int], vertical_flip: bool = False):
        self.crop = FiveCrop(size)
        self.flip = RandomVerticalFlip(1.0) if vertical_flip else RandomHorizontalFlip(1.0)

    def __call__(self, image: Image) -> tuple[Image, ...]:
        """Ten images."""
        return (*self.crop(image), *self.crop(self.flip(image)))

    def __repr__(self) -> str:
        return f"TenCrop(size={self.crop.size})"
