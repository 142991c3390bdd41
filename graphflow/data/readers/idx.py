"""The IDX format of the MNIST digits, plain or gzipped.

Format: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits": two zero bytes, a
type code, the number of dimensions, then their sizes as big-endian 32-bit numbers, then the elements,
big-endian.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np

from graphflow.data.readers.arrays import ImageClasses, Transform
from graphflow.errors import FormatError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_CHUNK = 1 << 20
_MOST_DIMENSIONS, _MOST_BYTES = 32, 2**62
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | PathLike[str]) -> np.ndarray:
    """The array in an IDX file, plain (memory-mapped, read-only) or gzipped (in memory).

    FormatError when it isn't such a file, or its size isn't what its header says.
    """
    path = Path(path)
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP_MAGIC
        file.seek(0)
        if zipped:
            return _from_gzip(path, file)
        dtype, shape, start = _header(path, file)
    expected = start + math.prod(shape) * dtype.itemsize
    actual = path.stat().st_size
    if actual != expected:
        raise FormatError(
            f"{path}: the header promises {shape} {dtype.name}, {expected} bytes; it has {actual}"
        )
    if 0 in shape:
        return np.zeros(shape, dtype.newbyteorder("="))
    array = np.memmap(path, dtype, "r", start, shape)
    return array if dtype.itemsize == 1 else array.astype(dtype.newbyteorder("="))


def _header(path: Path, file: BinaryIO | gzip.GzipFile) -> tuple[np.dtype, tuple[int, ...], int]:
    """Element type, shape, and where the elements start."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _TYPES:
        raise FormatError(
            f"{path}: not an IDX file, it starts with the bytes {magic.hex(' ') or 'of nothing'}"
        )
    dimensions = magic[3]
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise FormatError(f"{path}: ends within its header")
    dtype, shape = np.dtype(_TYPES[magic[2]]), struct.unpack(f">{dimensions}I", sizes)
    if dimensions > _MOST_DIMENSIONS or math.prod(max(n, 1) for n in shape) * dtype.itemsize > _MOST_BYTES:
        raise FormatError(
            f"{path}: the header promises {dimensions} dimensions of sizes {shape[:4]}…, more than can be"
        )
    return dtype, shape, 4 + 4 * dimensions


def _from_gzip(path: Path, file: BinaryIO) -> np.ndarray:
    try:
        with gzip.GzipFile(fileobj=file) as unzipped:
            dtype, shape, _ = _header(path, unzipped)
            expected = math.prod(shape) * dtype.itemsize
            # in pieces: memory is only taken for what is really there, whatever the header promises
            data = b"".join(_pieces(unzipped, expected + 1))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise FormatError(f"{path}: a damaged gzip file: {error}") from None
    if len(data) != expected:
        found = f"more than {expected}" if len(data) > expected else str(len(data))
        raise FormatError(
            f"{path}: the header promises {shape} {dtype.name}, {expected} bytes; it has {found}"
        )
    array = np.frombuffer(data, dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _pieces(file: gzip.GzipFile, limit: int) -> Iterator[bytes]:
    while limit and (piece := file.read(min(_CHUNK, limit))):
        limit -= len(piece)
        yield piece


class MNIST(ImageClasses):
    """Handwritten digits, 60,000 for training and 10,000 for testing, from local IDX files.

    `root`, or ``raw`` or ``MNIST/raw`` in it (as torchvision lays it out), holds ``train-images-idx3-ubyte``,
    ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each as it is or
    with ``.gz``. A sample is an image, (28, 28) uint8, and a class number, each through its transform.
    FileNotFoundError names what is missing, FormatError what is wrong with a file. ValueError for
    `download`: graphflow downloads nothing.
    """

    classes: tuple[str, ...] = tuple("0123456789")

    def __init__(
        self,
        root: str | PathLike[str],
        train: bool = True,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
        download: bool = False,
    ):
        name = type(self).__name__
        if download:
            raise ValueError(
                f"{name}: graphflow downloads nothing; put the four IDX files into {root} yourself"
            )
        part = "train" if train else "t10k"
        images_path = _find(Path(root), name, f"{part}-images-idx3-ubyte")
        labels_path = _find(Path(root), name, f"{part}-labels-idx1-ubyte")
        images, labels = read_idx(images_path), read_idx(labels_path)
        if images.ndim != 3 or images.dtype != np.uint8:
            raise FormatError(
                f"{images_path}: images are (N, H, W) uint8, this is {images.shape} {images.dtype}"
            )
        if labels.ndim != 1 or labels.dtype != np.uint8:
            raise FormatError(f"{labels_path}: labels are (N,) uint8, this is {labels.shape} {labels.dtype}")
        if len(images) != len(labels):
            raise FormatError(f"{labels_path}: {len(labels)} labels for {len(images)} images")
        if labels.max(initial=0) >= len(self.classes):
            raise FormatError(
                f"{labels_path}: the label {labels.max()} is none of the {len(self.classes)} classes"
            )
        super().__init__(labels.astype(np.int64), transform, target_transform)
        self.data = images
        self.train = train

    def image(self, index: int) -> np.ndarray:
        """The image itself, uint8, in memory of its own."""
        return np.array(self.data[index])


class FashionMNIST(MNIST):
    """Photographs of clothes in MNIST's format, see there; ``classes`` has their names."""

    classes = (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip


def _find(root: Path, name: str, file: str) -> Path:
    for place in (root, root / "raw", root / name / "raw"):
        for path in (place / file, place / f"{file}.gz"):
            if path.is_file():
                return path
    raise FileNotFoundError(
        f"{name}: there is no {file} or {file}.gz in {root}, {root / 'raw'} or {root / name / 'raw'}"
    )
