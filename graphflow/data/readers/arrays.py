"""What readers of arrays share: samples that are an image and a class, and rows of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from graphflow import functions as ops
from graphflow.data.dataset import Dataset

Transform = Callable[[Any], Any]


class ImageClasses(Dataset):
    """Images in one array and their class numbers: what MNIST's and CIFAR's readers have in common.

    A subclass has the images in ``data``, uint8, first dimension N; ``targets`` int64 class numbers, (N,).
    A sample is (image, class): the image a uint8 array of shape (H, W) or (H, W, C), unless a `transform`
    makes something else of it, the class an int, unless a `target_transform` does.
    """

    classes: tuple[str, ...] = ()

    def __init__(
        self, targets: np.ndarray, transform: Transform | None, target_transform: Transform | None
    ):
        self.targets = targets
        self.transform = transform
        self.target_transform = target_transform

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image: Any = self.image(index)
        target: Any = int(self.targets[index])
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    def image(self, index: int) -> np.ndarray:
        """The image itself, in memory of its own."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.targets)

    def __repr__(self) -> str:
        return f"Dataset {type(self).__name__}\n    Number of datapoints: {len(self)}"

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class numbers by names."""
        return {name: number for number, name in enumerate(self.classes)}


class Rows(Dataset):
    """Samples are tuples of the rows of arrays that share their first size, as tensors."""

    def __init__(self, arrays: tuple[np.ndarray, ...], transform: Transform | None = None):
        self.arrays = arrays
        self.transform = transform

    def __getitem__(self, index: int) -> Any:
        sample = tuple(ops.from_numpy(_native(array[index])) for array in self.arrays)
        return sample if self.transform is None else self.transform(sample)

    def __len__(self) -> int:
        return len(self.arrays[0])

    def take_batch(self, indices: np.ndarray) -> Any:
        """The batch of these rows, one tensor for each array."""
        if self.transform is not None:
            return NotImplemented
        return [ops.from_numpy(_native(array[indices])) for array in self.arrays]


def _native(values: np.ndarray) -> np.ndarray:
    """A copy in the machine's byte order."""
    return np.array(values, dtype=values.dtype.newbyteorder("="))
