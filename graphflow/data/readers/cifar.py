"""CIFAR-10 and CIFAR-100 in their binary version.

Format: A. Krizhevsky, "Learning multiple layers of features from tiny images", and the data set's own page:
records of one label byte (CIFAR-100: coarse, then fine) and 3072 bytes of a 32x32 image, red, green, blue,
row by row.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import numpy as np

from graphflow.data.readers.arrays import ImageClasses, Transform
from graphflow.errors import FormatError

_PIXELS = 3 * 32 * 32
_PICKLE_NAMES = ("data_batch_1", "test_batch", "train", "test")


class _Cifar(ImageClasses):
    folder = ""
    pickled_folder = ""
    files: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())  # for training, for testing
    label_bytes = 1
    names_file = ""
    class_count = 0

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
                f"{name}: graphflow downloads nothing; unpack the binary version "
                f"({self.folder}) into {root} yourself"
            )
        place = self._place(Path(root))
        parts = [self._records(place / file) for file in self.files[0 if train else 1]]
        labels = np.concatenate([records[:, self.label_bytes - 1] for records in parts]).astype(np.int64)
        self._parts = [records[:, self.label_bytes :].reshape(-1, 3, 32, 32) for records in parts]
        self._ends = np.cumsum([len(part) for part in self._parts])
        self._images: np.ndarray | None = None
        super().__init__(labels, transform, target_transform)
        self.train = train
        self.classes = self._names(place)

    @property
    def data(self) -> np.ndarray:
        """All images in one array, (N, 32, 32, 3) uint8, read-only; in memory from the first use on."""
        if self._images is None:
            images = np.concatenate(self._parts).transpose(0, 2, 3, 1)
            images.setflags(write=False)
            self._images = images
        return self._images

    def image(self, index: int) -> np.ndarray:
        """The (32, 32, 3) uint8 image itself, in memory of its own."""
        index = range(len(self))[index]
        part = int(np.searchsorted(self._ends, index, side="right"))
        first = int(self._ends[part - 1]) if part else 0
        return np.ascontiguousarray(self._parts[part][index - first].transpose(1, 2, 0))

    def _place(self, root: Path) -> Path:
        name = type(self).__name__
        wanted = self.files[0][0]
        for place in (root, root / self.folder):
            if (place / wanted).is_file():
                return place
        for place in (root, root / self.pickled_folder):
            if any((place / pickled).is_file() for pickled in _PICKLE_NAMES):
                raise FormatError(
                    f"{name}: {place} holds the pickled Python version; reading it would run "
                    f"code from the file. Get the binary version of the data set "
                    f"({self.folder}, the one for C programs) instead"
                )
        raise FileNotFoundError(f"{name}: there is no {wanted} in {root} or {root / self.folder}")

    def _records(self, path: Path) -> np.ndarray:
        if not path.is_file():
            raise FileNotFoundError(f"{type(self).__name__}: there is no {path}")
        size, record = path.stat().st_size, self.label_bytes + _PIXELS
        if size == 0 or size % record:
            raise FormatError(f"{path}: {size} bytes aren't a whole number of records of {record} bytes")
        records = np.memmap(path, np.uint8, "r", 0, (size // record, record))
        highest = int(records[:, self.label_bytes - 1].max())
        if highest >= self.class_count:
            raise FormatError(f"{path}: the label {highest} is none of the {self.class_count} classes")
        return records

    def _names(self, place: Path) -> tuple[str, ...]:
        path = place / self.names_file
        if not path.is_file():
            return tuple(map(str, range(self.class_count)))
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(f"{path}: not a list of names: {error}") from None
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
        if len(names) != self.class_count:
            raise FormatError(f"{path}: {len(names)} names for {self.class_count} classes")
        return names


class CIFAR10(_Cifar):
    """60,000 small photographs in 10 classes, from the local files of the binary version.

    `root`, or ``cifar-10-batches-bin`` in it, holds ``data_batch_1.bin`` to ``data_batch_5.bin``,
    ``test_batch.bin`` and ``batches.meta.txt``. A sample is an image, (32, 32, 3) uint8, and a class number,
    each through its transform. The files are memory-mapped. FileNotFoundError names what is missing,
    FormatError what is wrong with a file; the pickled Python version is refused. ValueError for `download`:
    graphflow downloads nothing.
    """

    folder = "cifar-10-batches-bin"
    pickled_folder = "cifar-10-batches-py"
    files = (tuple(f"data_batch_{i}.bin" for i in range(1, 6)), ("test_batch.bin",))
    names_file = "batches.meta.txt"
    class_count = 10


class CIFAR100(_Cifar):
    """60,000 small photographs in 100 classes, from ``train.bin``, ``test.bin`` and ``fine_label_names.txt``
    of the binary version in `root` or ``cifar-100-binary`` in it. Otherwise as CIFAR10.
    """

    folder = "cifar-100-binary"
    pickled_folder = "cifar-100-python"
    files = (("train.bin",), ("test.bin",))
    label_bytes = 2
    names_file = "fine_label_names.txt"
    class_count = 100
