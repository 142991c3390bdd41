"""Transforms of images: what they do to arrays and tensors, and which random numbers they draw."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.data import DataLoader, Dataset, sample_generator
from graphflow.data import transforms as T
from PIL import Image

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (6, 8, 3)).astype(np.uint8)


def as_tensor(image: np.ndarray) -> gf.Tensor:
    """The same pixels, channels first."""
    return gf.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


@pytest.mark.parametrize("shape", [(6, 8), (6, 8, 1), (6, 8, 3)])
def test_to_tensor_scales_bytes(shape: tuple[int, ...]) -> None:
    image = RNG.integers(0, 256, shape).astype(np.uint8)
    tensor = T.ToTensor()(image)
    assert (tensor.dtype, tensor.shape) == (gf.float32, (shape[2] if len(shape) == 3 else 1, 6, 8))
    np.testing.assert_array_equal(
        tensor.numpy(), image.reshape(6, 8, -1).transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    )


def test_to_tensor_keeps_other_dtypes_and_copies() -> None:
    image = np.zeros((2, 3, 1), np.float64)
    tensor = T.ToTensor()(image)
    assert tensor.dtype is gf.float64
    tensor.fill_(1)
    assert not image.any()
    assert T.PILToTensor()(PHOTO).dtype is gf.uint8
    np.testing.assert_array_equal(T.ToTensor()(Image.fromarray(PHOTO)).numpy(), T.ToTensor()(PHOTO).numpy())


def test_the_usual_pipeline() -> None:
    pipeline = T.Compose([T.ToTensor(), T.Normalize((0.5, 0.4, 0.3), (0.5, 0.25, 0.1))])
    expected = (PHOTO / 255 - [0.5, 0.4, 0.3]) / [0.5, 0.25, 0.1]
    np.testing.assert_allclose(pipeline(PHOTO).numpy(), expected.transpose(2, 0, 1), rtol=1e-5, atol=1e-5)
    assert repr(pipeline).startswith("Compose(\n    ToTensor()\n    Normalize(")


def test_normalize_in_place_and_batched() -> None:
    x = gf.rand(2, 3, 4, 5)
    expected = (x.numpy() - 0.5) / 2
    assert T.Normalize(0.5, 2, inplace=True)(x) is x
    np.testing.assert_allclose(x.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("source", "target", "given", "expected"),
    [
        (gf.uint8, gf.float32, [0, 255], [0.0, 1.0]),
        (gf.float32, gf.uint8, [0.0, 1.0, 0.5], [0, 255, 127]),
        (gf.uint8, gf.int16, [1, 255], [128, 32640]),
        (gf.int16, gf.uint8, [128, 32767], [1, 255]),
        (gf.float32, gf.float64, [0.25], [0.25]),
        (gf.uint8, gf.uint8, [3], [3]),
    ],
)
def test_convert_image_dtype_keeps_the_range(source: Any, target: Any, given: Any, expected: Any) -> None:
    result = T.ConvertImageDtype(target)(gf.tensor(given, dtype=source))
    assert result.dtype is target
    assert result.tolist() == expected


GEOMETRY: list[tuple[Callable[[Any], Any], Callable[[np.ndarray], np.ndarray]]] = [
    (T.Pad(2), lambda a: np.pad(a, ((2, 2), (2, 2), (0, 0)))),
    (T.Pad((1, 2), fill=9), lambda a: np.pad(a, ((2, 2), (1, 1), (0, 0)), constant_values=9)),
    (T.Pad((1, 2, 3, 0), padding_mode="reflect"), lambda a: np.pad(a, ((2, 0), (1, 3), (0, 0)), "reflect")),
    (T.CenterCrop(4), lambda a: a[1:5, 2:6]),
    (T.CenterCrop((9, 3)), lambda a: np.pad(a, ((1, 2), (0, 0), (0, 0)))[:, 2:5]),
    (T.RandomHorizontalFlip(1.0), lambda a: a[:, ::-1]),
    (T.RandomVerticalFlip(1.0), lambda a: a[::-1]),
    (T.RandomHorizontalFlip(0.0), lambda a: a),
    (T.RandomCrop((6, 8)), lambda a: a),
    (T.Resize((3, 4), "nearest"), lambda a: a[::2, ::2]),
    (T.Resize((12, 16), "nearest"), lambda a: a.repeat(2, 0).repeat(2, 1)),
    (
        T.Grayscale(3),
        lambda a: np.repeat(np.rint(a @ [0.299, 0.587, 0.114]).astype(np.uint8)[:, :, None], 3, axis=2),
    ),
]


@pytest.mark.parametrize(("transform", "expected"), GEOMETRY, ids=[repr(t) for t, _ in GEOMETRY])
def test_geometry_of_arrays_and_tensors(
    transform: Callable[[Any], Any], expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    wanted = expected(PHOTO)
    np.testing.assert_array_equal(transform(PHOTO), wanted)
    if not (isinstance(transform, T.Resize) and transform.size < (6, 8)):  # Pillow takes other neighbours
        shown = transform(Image.fromarray(PHOTO))
        assert isinstance(shown, Image.Image)
        np.testing.assert_array_equal(shown, wanted)
    result = transform(as_tensor(PHOTO))
    assert result.dtype is gf.uint8
    np.testing.assert_array_equal(result.numpy(), wanted.transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(3, 4), (6, 8), (13, 5), 3, 12, (1, 1)])
def test_resize_is_pillows_bilinear(size: Any) -> None:
    resize = T.Resize(size)
    height, width = resize.target(6, 8)
    ours = resize(PHOTO).astype(int)
    pillows = np.asarray(Image.fromarray(PHOTO).resize((width, height), Image.Resampling.BILINEAR)).astype(
        int
    )
    assert ours.shape == pillows.shape
    assert np.abs(ours - pillows).max() <= 1  # Pillow rounds between its two passes


def test_resize_by_the_shorter_side() -> None:
    assert T.Resize(3).target(6, 8) == (3, 4)
    assert T.Resize(3).target(8, 6) == (4, 3)
    assert T.Resize(10, max_size=12).target(6, 8) == (9, 12)


def test_random_erasing_overwrites_one_rectangle() -> None:
    gf.manual_seed(3)
    image = gf.ones(3, 20, 20)
    result = T.RandomErasing(1.0)(image)
    assert image.min().item() == 1
    erased = (result == 0).all(0).numpy()
    rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
    assert 0 < len(rows) < 20
    assert erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    assert erased.sum() == len(rows) * len(columns)
    assert 0.01 < erased.mean() < 0.4
    noisy = T.RandomErasing(1.0, value="random", inplace=True)(image)
    assert noisy is image
    assert (image != 1).any()


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: T.Normalize(0.0, 0.0), ValueError, "divide by zero"),
    (lambda: T.Normalize(0.0, 1.0)(PHOTO), TypeError, "put ToTensor before it"),
    (lambda: T.Normalize(0.0, 1.0)(as_tensor(PHOTO)), TypeError, "float tensor"),
    (lambda: T.Normalize((0.0, 1.0), 1.0)(gf.rand(3, 2, 2)), ValueError, "2 values of mean for 3 channels"),
    (lambda: T.ToTensor()(gf.rand(3, 2, 2)), TypeError, "a tensor already"),
    (lambda: T.ToTensor()([1, 2]), TypeError, "an image is"),
    (lambda: T.CenterCrop(2)(gf.rand(4, 4)), TypeError, "an image is"),
    (lambda: T.RandomCrop(9)(PHOTO), ValueError, r"crop \(9, 9\) is larger than the image \(6, 8\)"),
    (lambda: T.RandomCrop(0), ValueError, "at least 1"),
    (lambda: T.Pad((1, 2, 3)), ValueError, "one, two or four"),
    (lambda: T.Pad(1, padding_mode="mirror"), ValueError, "padding_mode"),
    (lambda: T.RandomHorizontalFlip(1.5), ValueError, "probability"),
    (lambda: T.Resize(3, "cubic"), ValueError, "bilinear or bicubic, got .cubic."),
    (lambda: T.Grayscale(2), ValueError, "1 or 3"),
    (lambda: T.Grayscale()(PHOTO[:, :, :2]), TypeError, "1 or 3 channels"),
    (lambda: T.Lambda(3), TypeError, "takes a function"),
    (lambda: T.RandomErasing(value="noise"), ValueError, "number or 'random'"),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED)
def test_what_does_not_fit_is_refused(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# ------------------------------------------------------------------------------------- random numbers


class Drawn(Dataset):
    """Samples are what they draw."""

    def __getitem__(self, index: int) -> tuple[int, float, float]:
        return index, float(sample_generator().random()), float(sample_generator().random())

    def __len__(self) -> int:
        return 10


def epochs(count: int, **options: Any) -> list[list[list[float]]]:
    loader = DataLoader(Drawn(), 3, seed=5, **options)
    return [
        [[float(v) for v in row] for batch in loader for row in zip(*batch, strict=True)]
        for _ in range(count)
    ]


@pytest.mark.parametrize("shuffle", [False, True])
def test_random_numbers_of_samples_do_not_depend_on_workers(shuffle: bool) -> None:
    alone = epochs(2, shuffle=shuffle)
    assert alone == epochs(2, shuffle=shuffle, num_workers=3)
    drawn = [value for epoch in alone for row in epoch for value in row[1:]]
    assert len(set(drawn)) == len(drawn)  # none comes twice


def test_a_resumed_epoch_draws_the_same_numbers() -> None:
    whole = epochs(1, shuffle=True)[0]
    first = DataLoader(Drawn(), 3, shuffle=True, seed=5)
    batches = iter(first)
    head = [next(batches), next(batches)]
    second = DataLoader(Drawn(), 3, shuffle=True, seed=1)
    second.load_state_dict(first.state_dict())
    rows = [[float(v) for v in row] for batch in [*head, *second] for row in zip(*batch, strict=True)]
    assert rows == whole


def test_outside_of_a_loader_graphflows_seed_decides() -> None:
    def draw() -> list[np.ndarray]:
        gf.manual_seed(1)
        return [T.RandomCrop(3)(PHOTO) for _ in range(8)]

    first, second = draw(), draw()
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != first[0]).any() for a in first)
    flips = [(T.RandomHorizontalFlip()(PHOTO) != PHOTO).any() for _ in range(200)]
    assert 60 < sum(flips) < 140
    kept = [T.RandomApply([T.Lambda(lambda image: None)], 0.25)(PHOTO) is None for _ in range(200)]
    assert 20 < sum(kept) < 80
