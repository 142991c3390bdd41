"""Images at another size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow.data.transforms.image import Image, Plane, interpolation_of, is_pillow, pair


def _linear(x: np.ndarray) -> np.ndarray:
    weights: np.ndarray = np.maximum(0.0, 1.0 - np.abs(x))
    return weights


def _cubic(x: np.ndarray) -> np.ndarray:
    """R. G. Keys: Cubic convolution interpolation for digital image processing. 1981, with a = -0.5."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


_KERNELS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "bilinear": _linear, "bicubic": _cubic, "lanczos": _lanczos,
}  # fmt: skip
_NUMBERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}  # Pillow's


class Resize:
    """The image at another size: (height, width), or one number for the shorter side.

    `interpolation` is "bilinear", "bicubic", "lanczos" or "nearest", or an InterpolationMode. When shrinking,
    all pixels count that fall together, as Pillow does it and torchvision with its `antialias`; without
    `antialias` (which takes an array or a tensor) only the nearest ones do. Pillow resizes Pillow's images.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        interpolation: Any = "bilinear",
        max_size: int | None = None,
        antialias: bool | None = True,
    ):
        self.shorter = size if isinstance(size, int) else size[0] if len(size) == 1 else None
        self.size = pair("Resize", size)
        self.interpolation = interpolation_of("Resize", interpolation, list(_NUMBERS))
        if max_size is not None and (self.shorter is None or max_size <= self.shorter):
            raise ValueError(
                f"Resize: max_size={max_size} takes one number as size, and is more than it, got {size!r}"
            )
        self.max_size, self.antialias = max_size, antialias is not False

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
        plane = Plane(image, "Resize")
        target = self.target(*plane.size)
        if is_pillow(image):
            return image.resize((target[1], target[0]), _NUMBERS[self.interpolation])
        values = plane.values
        for axis, size in zip((plane.rows, plane.rows + 1), target, strict=True):
            if values.shape[axis] != size:
                values = self._along(values, axis, size)
        return plane.back(values) if self.interpolation == "nearest" else plane.rounded(values)

    def _along(self, values: np.ndarray, axis: int, size: int) -> np.ndarray:
        have = values.shape[axis]
        if self.interpolation == "nearest":
            picked: np.ndarray = np.take(values, np.arange(size) * have // size, axis=axis)
            return picked
        weights = _weights(have, size, self.interpolation, self.antialias)
        return np.moveaxis(np.tensordot(weights, values.astype(np.float64), (1, axis)), 0, axis)

    def __repr__(self) -> str:
        return f"Resize(size={self.size}, interpolation={self.interpolation})"


def _weights(have: int, want: int, interpolation: str, antialias: bool) -> np.ndarray:
    """(want, have) shares of the pixels; when shrinking, the kernel is as wide as a target pixel."""
    kernel = _KERNELS[interpolation]
    scale = have / want
    width = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(want) + 0.5) * scale
    weights = kernel((np.arange(have) + 0.5 - centres[:, None]) / width)
    total: np.ndarray = weights / weights.sum(axis=1, keepdims=True)
    return total
