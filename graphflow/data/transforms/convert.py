"""Between images and tensors, and what every pipeline is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow import functions as ops
from graphflow.data.transforms.image import Image, Plane, is_pillow, to_pillow
from graphflow.dtypes import DType, as_dtype, float32
from graphflow.tensor import Tensor


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
    """Calls `lambd` with the image."""

    def __init__(self, lambd: Callable[[Any], Any]):
        if not callable(lambd):
            raise TypeError(f"Lambda: takes a function, got {type(lambd).__name__}")
        self.lambd = lambd

    def __call__(self, image: Any) -> Any:
        """The transformed image."""
        return self.lambd(image)

    def __repr__(self) -> str:
        return "Lambda()"


def _pixels(image: Image, name: str) -> np.ndarray:
    """(H, W, C) values; Pillow's black and white images have 0 and 255."""
    values = Plane(image, name).values
    if is_pillow(image) and values.dtype == np.bool_:
        values = values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint16:  # there are no tensors of that
        values = values.astype(np.int32)
    return values[:, :, None] if values.ndim == 2 else values


class ToTensor:
    """(H, W) or (H, W, C) to a (C, H, W) tensor: uint8 becomes float32 in [0, 1], other dtypes stay."""

    def __call__(self, image: Image) -> Tensor:
        """The transformed image."""
        if isinstance(image, Tensor):
            raise TypeError("ToTensor: the image is a tensor already")
        values = _pixels(image, "ToTensor")
        values = np.ascontiguousarray(values.transpose(2, 0, 1))
        if values.dtype == np.uint8:
            values = values.astype(np.float32) / np.float32(255)
        elif np.shares_memory(values, np.asarray(image)):
            values = values.copy()
        return ops.from_numpy(values)

    def __repr__(self) -> str:
        return "ToTensor()"


class PILToTensor:
    """(H, W) or (H, W, C) to a (C, H, W) tensor of the same dtype."""

    def __call__(self, image: Image) -> Tensor:
        """The transformed image."""
        values = _pixels(image, "PILToTensor")
        return ops.from_numpy(values.transpose(2, 0, 1).copy())

    def __repr__(self) -> str:
        return "PILToTensor()"


class ToPILImage:
    """A (C, H, W) tensor or an (H, W) or (H, W, C) array to a Pillow image, of `mode` or the one that fits.

    Floats of a tensor are taken for [0, 1]. Takes the extra ``images``.
    """

    def __init__(self, mode: str | None = None):
        self.mode = mode

    def __call__(self, image: Image) -> Any:
        """The transformed image."""
        if is_pillow(image):
            raise TypeError("ToPILImage: the image is a Pillow image already")
        values = image.detach().numpy() if isinstance(image, Tensor) else np.asarray(image)
        if values.ndim not in (2, 3):
            raise ValueError(f"ToPILImage: an image has 2 or 3 dimensions, got {values.ndim}")
        if isinstance(image, Tensor):
            values = values.transpose(1, 2, 0) if values.ndim == 3 else values
            if values.dtype.kind == "f" and self.mode != "F":
                values = (values * 255).astype(np.uint8)
        elif values.dtype == np.float64:
            values = values.astype(np.float32)
        return to_pillow(values, self.mode)

    def __repr__(self) -> str:
        return "ToPILImage()" if self.mode is None else f"ToPILImage(mode={self.mode})"


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
