"""Readers of local data sets, on files made here, good and bad."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import graphflow as gf
import numpy as np
import pytest
from graphflow.data import (
    CIFAR10,
    CIFAR100,
    MNIST,
    DataLoader,
    FashionMNIST,
    ImageFolder,
    NpyDataset,
    read_idx,
)
from graphflow.errors import FormatError
from PIL import Image

RNG = np.random.default_rng(0)


def idx(array: np.ndarray) -> bytes:
    """The IDX form of an array."""
    codes = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
    header = bytes([0, 0, codes[array.dtype.str[1:]], array.ndim])
    return (
        header
        + struct.pack(f">{array.ndim}I", *array.shape)
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


# ---------------------------------------------------------------------------------------------- IDX


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 3)])
@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_of_every_type(tmp_path: Path, dtype: str, shape: tuple[int, ...], zipped: bool) -> None:
    array = RNG.integers(0, 100, shape).astype(dtype)
    path = tmp_path / "array"
    path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    read = read_idx(path)
    np.testing.assert_array_equal(read, array)
    assert read.dtype == array.dtype


GOOD = idx(np.arange(12, dtype=np.uint8).reshape(3, 4))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not an IDX file"),
        (b"\x01\x00\x08\x01", "not an IDX file"),
        (b"\x00\x00\x07\x01" + GOOD[4:], "not an IDX file"),
        (GOOD[:9], "ends within its header"),
        (GOOD[:-1], "12 bytes|24 bytes|it has"),
        (GOOD + b"\0", "it has"),
        (b"\x00\x00\x08\x02\xff\xff\xff\xff\xff\xff\xff\xff", "promises"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_idx_files_are_refused(tmp_path: Path, data: bytes, message: str, zipped: bool) -> None:
    path = tmp_path / "array"
    path.write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(FormatError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_damaged_gzip_files_are_refused(tmp_path: Path) -> None:
    zipped = gzip.compress(GOOD)
    for number, data in enumerate([zipped[:-9], zipped[:15] + b"\xff\xff" + zipped[17:]]):
        path = tmp_path / str(number)
        path.write_bytes(data)
        with pytest.raises(FormatError):
            read_idx(path)


def write_mnist(
    folder: Path, images: np.ndarray, labels: np.ndarray, part: str = "train", zipped: bool = False
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
        data = idx(array)
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(gzip.compress(data) if zipped else data)


@pytest.mark.parametrize("place", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("zipped", [False, True])
def test_mnist(tmp_path: Path, place: str, zipped: bool) -> None:
    images = RNG.integers(0, 256, (7, 28, 28)).astype(np.uint8)
    labels = np.array([3, 1, 4, 1, 5, 9, 2], np.uint8)
    write_mnist(tmp_path / place, images, labels, "t10k", zipped)
    dataset = MNIST(tmp_path, train=False, target_transform=lambda target: target * 10)
    assert len(dataset) == 7
    image, target = dataset[5]
    np.testing.assert_array_equal(image, images[5])
    assert target == 90
    image[:] = 0  # a sample's memory is its own
    np.testing.assert_array_equal(dataset[5][0], images[5])
    x, y = next(iter(DataLoader(MNIST(tmp_path, train=False, transform=gf.data.transforms.ToTensor()), 4)))
    assert x.shape == (4, 1, 28, 28)
    assert y.tolist() == [3, 1, 4, 1]
    np.testing.assert_allclose(x.numpy()[:, 0], images[:4] / 255, rtol=1e-6)


def test_fashion_mnist_has_names(tmp_path: Path) -> None:
    write_mnist(tmp_path, np.zeros((1, 28, 28), np.uint8), np.array([9], np.uint8))
    dataset = FashionMNIST(tmp_path)
    assert dataset.classes[dataset[0][1]] == "Ankle boot"
    assert dataset.class_to_idx["Coat"] == 4


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 28), np.uint8), np.zeros(2, np.uint8), "images are"),
        (np.zeros((2, 28, 28), np.int8), np.zeros(2, np.uint8), "images are"),
        (np.zeros((2, 28, 28), np.uint8), np.zeros(3, np.uint8), "3 labels for 2 images"),
        (np.zeros((2, 28, 28), np.uint8), np.zeros((2, 1), np.uint8), "labels are"),
        (np.zeros((2, 28, 28), np.uint8), np.array([1, 10], np.uint8), "label 10 is none"),
    ],
)
def test_mnist_files_that_do_not_fit(
    tmp_path: Path, images: np.ndarray, labels: np.ndarray, message: str
) -> None:
    write_mnist(tmp_path, images, labels)
    with pytest.raises(FormatError, match=message):
        MNIST(tmp_path)


def test_mnist_downloads_nothing_and_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="downloads nothing"):
        MNIST(tmp_path, download=True)
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte"):
        MNIST(tmp_path)


# ---------------------------------------------------------------------------------------------- CIFAR


def cifar10(folder: Path, each: int = 3) -> tuple[np.ndarray, np.ndarray]:
    images = RNG.integers(0, 256, (6 * each, 3, 32, 32)).astype(np.uint8)
    labels = RNG.integers(0, 10, 6 * each).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate([*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]):
        part = slice(i * each, (i + 1) * each)
        records = np.concatenate([labels[part, None], images[part].reshape(each, -1)], axis=1)
        (folder / name).write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(f"class {i}" for i in range(10)) + "\n\n")
    return images.transpose(0, 2, 3, 1), labels


@pytest.mark.parametrize("place", ["", "cifar-10-batches-bin"])
def test_cifar10(tmp_path: Path, place: str) -> None:
    images, labels = cifar10(tmp_path / place)
    train, test = CIFAR10(tmp_path), CIFAR10(tmp_path, train=False)
    assert (len(train), len(test)) == (15, 3)
    for dataset, start in ((train, 0), (test, 15)):
        for i in range(len(dataset)):
            np.testing.assert_array_equal(dataset[i][0], images[start + i])
            assert dataset[i][1] == labels[start + i]
    np.testing.assert_array_equal(train[-1][0], images[14])
    assert train.classes[2] == "class 2"
    with pytest.raises(IndexError):
        train[15]


def test_cifar100_has_fine_labels(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (4, 3072)).astype(np.uint8)
    labels = np.array([[1, 99], [0, 0], [19, 42], [5, 7]], np.uint8)
    for name in ("train.bin", "test.bin"):
        (tmp_path / name).write_bytes(np.concatenate([labels, images], axis=1).tobytes())
    dataset = CIFAR100(tmp_path)
    assert [dataset[i][1] for i in range(4)] == [99, 0, 42, 7]
    np.testing.assert_array_equal(dataset[2][0], images[2].reshape(3, 32, 32).transpose(1, 2, 0))


def test_the_pickled_version_of_cifar_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"\x80\x02}q\x01.")
    with pytest.raises(FormatError, match=r"would run code.*binary version"):
        CIFAR10(tmp_path)


def test_damaged_cifar_files_are_refused(tmp_path: Path) -> None:
    cifar10(tmp_path)
    path = tmp_path / "data_batch_3.bin"
    good = path.read_bytes()
    for data, message in (
        (good[:-1], "whole number of records"),
        (b"", "whole number"),
        (b"\x0a" + good[1:], "label 10"),
    ):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=message):
            CIFAR10(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3\.bin"):
        CIFAR10(tmp_path)
    with pytest.raises(ValueError, match="downloads nothing"):
        CIFAR10(tmp_path, download=True)


# ------------------------------------------------------------------------------------- folders of images


def test_image_folder(tmp_path: Path) -> None:
    for name, colour in (("dogs", (255, 0, 0)), ("cats", (0, 0, 255))):
        (tmp_path / name / "more").mkdir(parents=True)
        Image.new("RGB", (4, 3), colour).save(tmp_path / name / "b.PNG")
        Image.new("L", (4, 3), 7).save(tmp_path / name / "more" / "a.png")
        (tmp_path / name / "notes.txt").write_text("no image")
    dataset = ImageFolder(tmp_path)
    assert dataset.classes == ["cats", "dogs"]
    assert dataset.targets == [0, 0, 1, 1]
    image, target = dataset[2]
    assert (image.shape, image.dtype, target) == ((3, 4, 3), np.uint8, 1)
    assert image[0, 0].tolist() == [255, 0, 0]
    assert dataset[3][0][0, 0].tolist() == [7, 7, 7]
    assert len(ImageFolder(tmp_path, is_valid_file=lambda path: path.endswith(".txt"), loader=Path)) == 2


def test_image_folders_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no class folder"):
        ImageFolder(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no valid file for the class 'empty'"):
        ImageFolder(tmp_path)
    assert len(ImageFolder(tmp_path, allow_empty=True)) == 0
    (tmp_path / "empty" / "x.png").write_bytes(b"\x89PNG no")
    with pytest.raises(FormatError, match=r"x\.png"):
        ImageFolder(tmp_path)[0]


# ---------------------------------------------------------------------------------------------- arrays


def test_npy_files_are_mapped(tmp_path: Path) -> None:
    x, y = RNG.standard_normal((6, 2)), np.arange(6)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y.astype(">i8"))
    dataset = NpyDataset(tmp_path / "x.npy", tmp_path / "y.npy")
    assert isinstance(dataset.arrays[0], np.memmap)
    assert (dataset[4][0].tolist(), dataset[4][1].item()) == (x[4].tolist(), 4)
    batch = next(iter(DataLoader(dataset, 4)))
    np.testing.assert_array_equal(batch[0].numpy(), x[:4])
    assert batch[1].tolist() == [0, 1, 2, 3]
    doubled = NpyDataset(tmp_path / "x.npy", transform=lambda sample: sample[0] * 2)
    np.testing.assert_array_equal(doubled[1].numpy(), x[1] * 2)


def test_npy_files_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError):
        NpyDataset(path)
    np.save(path, np.zeros(3, np.complex128))
    with pytest.raises(FormatError, match="no dtype complex128"):
        NpyDataset(path)
    np.save(path, np.float64(3))
    with pytest.raises(FormatError, match="single number"):
        NpyDataset(path)
    path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'")
    with pytest.raises(FormatError):
        NpyDataset(path)
    np.savez(tmp_path / "b.npz", a=np.zeros(2))
    with pytest.raises(FormatError, match="archive"):
        NpyDataset(tmp_path / "b.npz")
    np.save(path, np.zeros(3))
    np.save(tmp_path / "c.npy", np.zeros(4))
    with pytest.raises(ValueError, match="differ in their first size"):
        NpyDataset(path, tmp_path / "c.npy")
    with pytest.raises(ValueError, match="at least one file"):
        NpyDataset()
    with pytest.raises(FileNotFoundError):
        NpyDataset(tmp_path / "absent.npy")


def test_arrays_that_can_not_be(tmp_path: Path) -> None:
    idx, npy = tmp_path / "a.idx", tmp_path / "a.npy"
    for sizes in ((1,) * 255, (0, 2**32 - 1, 2**32 - 1), (0,) + (2**32 - 1,) * 3):
        idx.write_bytes(bytes([0, 0, 14, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes))
        with pytest.raises(FormatError, match=r"a\.idx: the header promises .* more than can be"):
            read_idx(idx)
    np.save(npy, np.arange(100.0))
    data = npy.read_bytes()
    for damaged, message in (
        (data.replace(b"(100,), ", b"(-99,), "), "can't be memory-mapped"),
        (data.replace(b"(100,)", b"(1<9,)"), "can't be memory-mapped"),
        (data[:-1], "can't be memory-mapped"),
        (b"\x80\x04nothing", "not a .npy file, it starts with the bytes 80 04"),
        (b"PK\x03\x04nothing", "an archive of arrays"),
        (b"", "the bytes of nothing"),
    ):
        npy.write_bytes(damaged)
        with pytest.raises(FormatError, match=message):
            NpyDataset(npy)


def test_all_of_cifars_images_are_in_data(tmp_path: Path) -> None:
    for i in range(1, 6):
        images = np.full((2, 3072), i, np.uint8)
        (tmp_path / f"data_batch_{i}.bin").write_bytes(
            b"".join(bytes([i]) + image.tobytes() for image in images)
        )
    found = CIFAR10(tmp_path)
    assert (found.data.shape, found.data.dtype) == ((10, 32, 32, 3), np.uint8)
    for i in range(10):
        np.testing.assert_array_equal(found.data[i], found[i][0])
    (tmp_path / "batches.meta.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match=r"batches\.meta\.txt: not a list of names"):
        CIFAR10(tmp_path)
