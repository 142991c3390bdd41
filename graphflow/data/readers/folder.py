"""Images in folders, one folder for each class."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from graphflow.data.dataset import Dataset
from graphflow.data.readers.arrays import Transform
from graphflow.errors import FormatError

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def load_image(path: str | PathLike[str]) -> np.ndarray:
    """An image file as an RGB array, (H, W, 3) uint8.

    Takes the extra ``images`` (Pillow; ImportError names it). FormatError when the file is no image or a
    damaged one.
    """
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("reading images takes Pillow: pip install 'graphflow[images]'") from None
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FormatError(f"{path}: no image that can be read: {error}") from None


class ImageFolder(Dataset):
    """Images in ``root/<class>/…``, as torchvision's: classes are the folders in order of their names.

    A sample is what `loader` makes of the file (by default an RGB array, (H, W, 3) uint8, with the extra
    ``images``) and a class number, each through its transform. Files count if their suffix is in
    `extensions`, or if `is_valid_file` says so. ``classes``, ``class_to_idx``, ``samples`` (also ``imgs``)
    and ``targets`` are as torchvision's. FileNotFoundError when there is no class folder, or one without a
    valid file and not `allow_empty`.
    """

    def __init__(
        self,
        root: str | PathLike[str],
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        loader: Callable[[str], Any] = load_image,
        is_valid_file: Callable[[str], bool] | None = None,
        allow_empty: bool = False,
        *,
        extensions: Iterable[str] = IMG_EXTENSIONS,
    ):
        self.root = Path(root)
        self.transform = transform
        self.target_transform = target_transform
        self.loader = loader
        self.classes = sorted(entry.name for entry in self.root.iterdir() if entry.is_dir())
        if not self.classes:
            raise FileNotFoundError(f"ImageFolder: there is no class folder in {self.root}")
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        suffixes = tuple(suffix.lower() for suffix in extensions)

        def valid(path: Path) -> bool:
            return path.suffix.lower() in suffixes if is_valid_file is None else is_valid_file(str(path))

        self.samples: list[tuple[str, int]] = []
        for name, number in self.class_to_idx.items():
            found = sorted(str(p) for p in (self.root / name).rglob("*") if p.is_file() and valid(p))
            if not found and not allow_empty:
                accepted = ", ".join(suffixes) if is_valid_file is None else "those is_valid_file takes"
                raise FileNotFoundError(
                    f"ImageFolder: found no valid file for the class {name!r} in {self.root / name}; "
                    f"valid are {accepted}"
                )
            self.samples += [(path, number) for path in found]
        self.imgs = self.samples
        self.targets = [number for _, number in self.samples]

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        path, number = self.samples[index]
        image, target = self.loader(path), number
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    def __len__(self) -> int:
        return len(self.samples)
