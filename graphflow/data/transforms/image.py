"""What images are: arrays, Pillow images and tensors, their pixels, and the way back."""

from __future__ import annotations

import enum
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow import functions as ops
from graphflow.tensor import Tensor

Image = Any  # an array, a Pillow image or a tensor


class InterpolationMode(enum.Enum):
    """How values between pixels are found. As ``torchvision.transforms.InterpolationMode``."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


# Pillow's numbers for them, which older code writes.
_PILLOW = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def interpolation_of(name: str, value: Any, among: Sequence[str]) -> str:
    """The interpolation's name; ValueError unless it is one of these."""
    text = value.value if isinstance(value, enum.Enum) else value
    text = _PILLOW.get(text, text) if not isinstance(text, str) else text
    if text not in among:
        raise ValueError(f"{name}: interpolation is {' or '.join(among)}, got {value!r}")
    return str(text)


def is_pillow(image: Any) -> bool:
    """Whether it is a Pillow image. There are none where Pillow wasn't imported."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(image, module.Image)


def to_pillow(values: np.ndarray, mode: str | None = None, like: Any = None) -> Any:
    """The Pillow image of an array (H, W) or (H, W, C); `like` gives the palette where it has one."""
    try:
        from PIL import Image as pillow
    except ImportError:
        raise ImportError("Pillow's images take Pillow: pip install 'graphflow[images]'") from None
    values = values[:, :, 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.dtype == np.bool_:
        return pillow.fromarray(values)
    size = (values.shape[1], values.shape[0])
    result = pillow.frombytes(mode or mode_of(values), size, np.ascontiguousarray(values).tobytes())
    if like is not None and like.mode == "P":
        result.putpalette(like.getpalette())
    return result


def mode_of(values: np.ndarray) -> str:
    """Pillow's mode for an array; TypeError where it has none."""
    channels = values.shape[2] if values.ndim == 3 else 1
    kinds = {(1, "uint8"): "L", (1, "int32"): "I", (1, "float32"): "F", (1, "int16"): "I;16",
             (2, "uint8"): "LA", (3, "uint8"): "RGB", (4, "uint8"): "RGBA"}  # fmt: skip
    mode = kinds.get((channels, values.dtype.name))
    if mode is None:
        raise TypeError(f"there is no Pillow image of {channels} channels of {values.dtype.name}")
    return mode


class Plane:
    """An image's values as an array whose rows and columns are at known places, and the way back."""

    def __init__(self, image: Image, name: str):
        self.image = image
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
        """(height, width)."""
        return self.values.shape[self.rows], self.values.shape[self.rows + 1]

    @property
    def channel(self) -> int | None:
        """The dimension of the channels; None for an array without."""
        if self.tensor:
            return self.rows - 1
        return 2 if self.values.ndim == 3 else None

    def crop(self, top: int, left: int, height: int, width: int) -> np.ndarray:
        """The values of a part of the image."""
        index = [slice(None)] * self.rows + [slice(top, top + height), slice(left, left + width)]
        part: np.ndarray = self.values[tuple(index)]
        return part

    def back(self, values: np.ndarray) -> Image:
        """An image of the same kind with other values."""
        values = np.ascontiguousarray(values)
        if is_pillow(self.image):
            same = values.ndim == self.values.ndim and values.shape[2:] == self.values.shape[2:]
            return to_pillow(values, self.image.mode if same else None, self.image)
        if np.shares_memory(values, self.values):
            values = values.copy()
        return ops.from_numpy(values) if self.tensor else values

    def rounded(self, values: np.ndarray) -> Image:
        """The same, from floats, which become the image's own dtype."""
        dtype = self.values.dtype
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return self.back(values.astype(dtype, copy=False))


def pair(name: str, value: int | Sequence[int], least: int = 1) -> tuple[int, int]:
    """Two whole numbers, from one or two."""
    found = (value, value) if isinstance(value, int) else tuple(value)
    if len(found) == 1:
        found = found * 2
    if len(found) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < least for v in found):
        raise ValueError(f"{name}: the size is a whole number or two, at least {least}, got {value!r}")
    return found


def probability(name: str, p: float) -> float:
    """A number from 0 to 1."""
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p is a probability, got {p!r}")
    return float(p)
