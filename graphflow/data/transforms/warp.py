"""Rotations and other affine maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow.data.randomness import sample_generator
from graphflow.data.transforms.image import Image, Plane, interpolation_of

_MODES = ("nearest", "bilinear")


def _range(name: str, what: str, value: float | Sequence[float]) -> tuple[float, float]:
    if isinstance(value, (int, float)):
        if value < 0:
            raise ValueError(f"{name}: {what} isn't negative if it is one number, got {value!r}")
        return -float(value), float(value)
    low, high = (float(v) for v in value)
    if low > high:
        raise ValueError(f"{name}: {what} goes from the lowest to the highest, got {value!r}")
    return low, high


def _warped(
    image: Image, name: str, inverse: np.ndarray, size: tuple[int, int] | None, mode: str, fill: float
) -> Image:
    """The image whose pixel at an offset from its middle is the one at ``inverse @ offset`` from the image's,
    offsets being (x, y, 1), x to the right and y down.
    """
    plane = Plane(image, name)
    rows, columns = plane.size
    height, width = size or plane.size
    y, x = np.mgrid[:height, :width]
    offsets = np.stack([x - (width - 1) / 2, y - (height - 1) / 2, np.ones_like(x)]).reshape(3, -1)
    across, down = inverse[:2] @ offsets
    # rounding must not decide about what falls between two pixels exactly
    across, down = np.round(across + (columns - 1) / 2, 9), np.round(down + (rows - 1) / 2, 9)
    values = np.moveaxis(plane.values, (plane.rows, plane.rows + 1), (0, 1))
    extra = values.shape[2:]

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        found = values[np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)]
        picked: np.ndarray = np.where(inside.reshape(-1, *(1,) * len(extra)), found, fill)
        return picked

    if mode == "nearest":
        result = at(np.rint(down).astype(np.int64), np.rint(across).astype(np.int64))
    else:
        top, left = np.floor(down).astype(np.int64), np.floor(across).astype(np.int64)
        low, right = ((part - np.floor(part)).reshape(-1, *(1,) * len(extra)) for part in (down, across))
        upper = at(top, left) * (1 - right) + at(top, left + 1) * right
        lower = at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right
        result = upper * (1 - low) + lower * low
    result = result.reshape(height, width, *extra)
    return plane.rounded(np.moveaxis(result, (0, 1), (plane.rows, plane.rows + 1)))


class RandomRotation:
    """Turned about its middle by a random angle within `degrees`, counter-clockwise; one number d is for
    (-d, d).

    `fill` is for what comes from outside. With `expand` the result holds the whole turned image.
    `interpolation` is "nearest" or "bilinear".
    """

    def __init__(
        self,
        degrees: float | Sequence[float],
        interpolation: Any = "nearest",
        expand: bool = False,
        center: None = None,
        fill: float = 0,
    ):
        self.degrees = _range("RandomRotation", "degrees", degrees)
        self.interpolation = interpolation_of("RandomRotation", interpolation, _MODES)
        if center is not None:
            raise ValueError("RandomRotation: center is None, the middle of the image")
        self.expand, self.fill = bool(expand), fill

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        angle = math.radians(sample_generator().uniform(*self.degrees))
        sine, cosine = math.sin(angle), math.cos(angle)
        size = None
        if self.expand:
            height, width = Plane(image, "RandomRotation").size
            wide, high = abs(width * cosine) + abs(height * sine), abs(width * sine) + abs(height * cosine)
            size = math.ceil(round(high, 6)), math.ceil(round(wide, 6))
        inverse = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0]])
        return _warped(image, "RandomRotation", inverse, size, self.interpolation, self.fill)

    def __repr__(self) -> str:
        return f"RandomRotation(degrees={self.degrees}, interpolation={self.interpolation}, fill={self.fill})"


class RandomAffine:
    """Turned clockwise within `degrees`, moved by at most the shares `translate` of (width, height), scaled
    within `scale` and sheared within `shear` degrees along x, all at random; about the middle.
    """

    def __init__(
        self,
        degrees: float | Sequence[float],
        translate: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        shear: float | Sequence[float] | None = None,
        interpolation: Any = "nearest",
        fill: float = 0,
    ):
        self.degrees = _range("RandomAffine", "degrees", degrees)
        self.translate = (0.0, 0.0) if translate is None else tuple(float(v) for v in translate)
        self.scale = (1.0, 1.0) if scale is None else _range("RandomAffine", "scale", scale)
        self.shear = (0.0, 0.0) if shear is None else _range("RandomAffine", "shear", shear)
        if len(self.translate) != 2 or not all(0 <= share <= 1 for share in self.translate):
            raise ValueError(f"RandomAffine: translate is two shares between 0 and 1, got {translate!r}")
        if self.scale[0] <= 0:
            raise ValueError(f"RandomAffine: scale is above 0, got {scale!r}")
        self.interpolation = interpolation_of("RandomAffine", interpolation, _MODES)
        self.fill = fill

    def __call__(self, image: Image) -> Image:
        """The transformed image."""
        height, width = Plane(image, "RandomAffine").size
        generator = sample_generator()
        angle = math.radians(generator.uniform(*self.degrees))
        most = self.translate[0] * width, self.translate[1] * height
        moved = [float(np.rint(generator.uniform(-by, by))) for by in most]
        scale = generator.uniform(*self.scale)
        shear = math.tan(math.radians(generator.uniform(*self.shear)))
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        forward = np.eye(3)
        forward[:2, :2] = scale * turn @ np.array([[1.0, -shear], [0.0, 1.0]])
        forward[:2, 2] = moved
        inverse = np.linalg.inv(forward)
        return _warped(image, "RandomAffine", inverse, None, self.interpolation, self.fill)

    def __repr__(self) -> str:
        return (
            f"RandomAffine(degrees={self.degrees}, translate={self.translate}, scale={self.scale}, "
            f"shear={self.shear})"
        )
