"""NumPy's own files, memory-mapped."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from graphflow import dtypes
from graphflow.data.readers.arrays import Rows, Transform
from graphflow.errors import DTypeError, FormatError


class NpyDataset(Rows):
    """Samples are tuples of rows, one of each ``.npy`` file, as tensors; the files are memory-mapped, not
    loaded.

    All files have the same first size (ValueError). `transform` takes the tuple. FormatError for a file
    that is damaged, holds Python objects (reading those would run code from the file), or has a dtype that
    tensors don't have.
    """

    def __init__(self, *paths: str | PathLike[str], transform: Transform | None = None):
        if not paths:
            raise ValueError("NpyDataset needs at least one file")
        arrays = tuple(_map(Path(path)) for path in paths)
        sizes = {str(path): len(array) for path, array in zip(paths, arrays, strict=True)}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"NpyDataset: the files differ in their first size: {sizes}")
        super().__init__(arrays, transform)


def _map(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        start = file.read(6)
    if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        raise FormatError(
            f"{path}: an archive of arrays (.npz); store each in a file of its own with np.save"
        )
    if start != b"\x93NUMPY":
        seen = start.hex(" ") or "of nothing"
        raise FormatError(f"{path}: not a .npy file, it starts with the bytes {seen}")
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, OverflowError) as error:
        raise FormatError(f"{path}: can't be memory-mapped: {error}") from None
    if array.ndim == 0:
        raise FormatError(f"{path}: holds a single number, not rows")
    try:
        dtypes.as_dtype(array.dtype)
    except DTypeError:
        raise FormatError(
            f"{path}: tensors have no dtype {array.dtype}; convert the array with astype"
        ) from None
    return array
