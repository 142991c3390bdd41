"""Transforms that change images at random, and those to and from Pillow's images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.data import DataLoader
from graphflow.data import transforms as T
from PIL import Image

RNG = np.random.default_rng(1)
PHOTO = RNG.integers(0, 256, (9, 9, 3)).astype(np.uint8)


def as_tensor(image: np.ndarray) -> gf.Tensor:
    return gf.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


@pytest.fixture(autouse=True)
def seeded() -> None:
    gf.manual_seed(0)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I", "F", "CMYK"])
def test_pillow_images_stay_pillow_images(mode: str) -> None:
    image = Image.fromarray(PHOTO).convert(mode)
    pipeline = T.Compose([
        T.Pad(1), T.CenterCrop(9), T.RandomHorizontalFlip(1.0), T.RandomCrop(7), T.RandomVerticalFlip(1.0),
    ])  # fmt: skip
    result = pipeline(image)
    assert isinstance(result, Image.Image)
    assert (result.mode, result.size) == (mode, (7, 7))
    values = np.asarray(image.convert("RGB"))
    windows = [values[i : i + 7, j : j + 7][::-1, ::-1] for i in range(3) for j in range(3)]
    assert any((np.asarray(result.convert("RGB")) == window).all() for window in windows)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "F", "I"])
def test_to_pillow_and_back(mode: str) -> None:
    image = Image.fromarray(PHOTO).convert(mode)
    pixels = T.PILToTensor()(image)
    assert pixels.shape == (len(image.getbands()), 9, 9)
    if mode != "1":
        again = T.ToPILImage("F" if mode == "F" else None)(pixels)
        np.testing.assert_array_equal(np.asarray(again), np.asarray(image))
    scaled = T.ToTensor()(image)
    if mode in ("1", "L", "RGB", "RGBA"):
        assert scaled.dtype is gf.float32
        assert float(scaled.max()) <= 1 and float(scaled.max()) > 0.8
        assert T.ToPILImage()(scaled).getbands() == (("L",) if mode == "1" else image.getbands())
    with pytest.raises(TypeError, match="Pillow image already"):
        T.ToPILImage()(image)
    with pytest.raises(TypeError, match="no Pillow image of 5 channels"):
        T.ToPILImage()(np.zeros((2, 2, 5), np.uint8))


@pytest.mark.parametrize("name", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(4, 13), (20, 3)])
def test_resizing_is_pillows(name: str, size: tuple[int, int]) -> None:
    resize = T.Resize(size, T.InterpolationMode(name))
    pillow = resize(Image.fromarray(PHOTO))
    assert pillow.size == size[::-1]
    ours = resize(PHOTO).astype(int)
    assert np.abs(ours - np.asarray(pillow)).max() <= 1
    np.testing.assert_array_equal(resize(as_tensor(PHOTO)).numpy(), ours.transpose(2, 0, 1))


def test_resizing_without_antialias_takes_neighbours_only() -> None:
    row = np.arange(16.0, dtype=np.float32).reshape(1, 1, 16) ** 2
    found = T.Resize((1, 4), antialias=False)(gf.from_numpy(row))
    expected = [(a * a + b * b) / 2 for a, b in ((1, 2), (5, 6), (9, 10), (13, 14))]
    np.testing.assert_allclose(found.numpy().reshape(-1), expected)
    with pytest.raises(ValueError, match="max_size"):
        T.Resize((3, 4), max_size=9)


def test_rotation_by_right_angles() -> None:
    for quarter in range(-2, 3):
        turn = T.RandomRotation((90 * quarter, 90 * quarter))
        np.testing.assert_array_equal(turn(PHOTO), np.rot90(PHOTO, quarter))
        found = turn(as_tensor(PHOTO)).numpy().transpose(1, 2, 0)
        np.testing.assert_array_equal(found, np.rot90(PHOTO, quarter))
    wide = T.RandomRotation((90, 90), "bilinear", expand=True)(PHOTO[:5])
    np.testing.assert_array_equal(wide, np.rot90(PHOTO[:5]))
    tilted = T.RandomRotation((45, 45), fill=7, expand=True)(PHOTO)
    assert tilted.shape == (13, 13, 3)
    assert (tilted[0, 0] == 7).all() and (tilted[6, 6] == PHOTO[4, 4]).all()
    angles = {T.RandomRotation(180)(PHOTO).tobytes() for _ in range(9)}
    assert len(angles) > 5


def test_affine_maps() -> None:
    np.testing.assert_array_equal(T.RandomAffine((90, 90))(PHOTO), np.rot90(PHOTO, -1))
    np.testing.assert_array_equal(T.RandomAffine(0)(PHOTO), PHOTO)
    doubled = T.RandomAffine(0, scale=(3, 3))(PHOTO)
    np.testing.assert_array_equal(doubled, PHOTO[3:6, 3:6].repeat(3, 0).repeat(3, 1))
    moved = {T.RandomAffine(0, translate=(0.3, 0.0))(PHOTO).tobytes() for _ in range(40)}
    shifts = {np.pad(PHOTO, ((0, 0), (4, 4), (0, 0)))[:, 4 - k : 13 - k].tobytes() for k in range(-3, 4)}
    assert moved <= shifts and len(moved) > 3


def test_random_resized_crop_takes_parts_of_the_shape_it_was_given() -> None:
    crop = T.RandomResizedCrop(4, scale=(0.3, 0.6), ratio=(0.5, 2.0))
    for _ in range(200):
        top, left, height, width = crop.place(30, 40)
        assert 0 <= top <= 30 - height and 0 <= left <= 40 - width
        assert 0.27 <= height * width / 1200 <= 0.63 and 0.45 <= width / height <= 2.2
    assert T.RandomResizedCrop(4, (2.0, 3.0)).place(10, 40) == (0, 13, 10, 13)
    assert T.RandomResizedCrop(4, (2.0, 3.0)).place(40, 10) == (13, 0, 13, 10)
    whole = T.RandomResizedCrop((9, 9), (1, 1), (1, 1))
    np.testing.assert_array_equal(whole(PHOTO), PHOTO)
    assert whole(Image.fromarray(PHOTO)).size == (9, 9)


def test_several_crops_of_one_image() -> None:
    corners = T.FiveCrop(4)(PHOTO)
    for found, (i, j) in zip(corners, [(0, 0), (0, 5), (5, 0), (5, 5), (2, 2)], strict=True):
        np.testing.assert_array_equal(found, PHOTO[i : i + 4, j : j + 4])
    ten = T.TenCrop(4)(PHOTO)
    np.testing.assert_array_equal(ten[5], PHOTO[:4, 5:][:, ::-1])
    with pytest.raises(ValueError, match="larger than the image"):
        T.FiveCrop(10)(PHOTO)


def test_colours_change_by_the_formulas() -> None:
    x = PHOTO.astype(np.float64)
    gray = x @ [0.299, 0.587, 0.114]

    def near(transform: Callable[[Any], Any], wanted: np.ndarray) -> None:
        wanted = np.clip(wanted, 0, 255)
        for found in (transform(PHOTO), np.asarray(transform(Image.fromarray(PHOTO)))):
            assert np.abs(found - wanted).max() <= 0.5 + 1e-9
        floats = transform(as_tensor((x / 255).astype(np.float32))).numpy().transpose(1, 2, 0)
        np.testing.assert_allclose(floats, wanted / 255, atol=1e-6)

    near(T.ColorJitter(brightness=(1.5, 1.5)), 1.5 * x)
    near(T.ColorJitter(contrast=(0.25, 0.25)), 0.25 * x + 0.75 * gray.mean())
    near(T.ColorJitter(saturation=(2, 2)), 2 * x - gray[:, :, None])
    near(T.ColorJitter(hue=(1 / 3, 1 / 3)), x[:, :, [2, 0, 1]])  # a third of the circle: red becomes green
    near(T.ColorJitter(), x)
    near(T.RandomInvert(1.0), 255 - x)
    lone = PHOTO[:, :, 0]
    np.testing.assert_array_equal(T.ColorJitter(0, 0, (2, 2), 0.5)(lone), lone)
    assert len({T.ColorJitter(0.5, 0.5, 0.5, 0.5)(PHOTO).tobytes() for _ in range(9)}) == 9
    shown = T.RandomGrayscale(1.0)(PHOTO)
    assert shown.shape == PHOTO.shape and (shown[..., 0] == shown[..., 2]).all()
    assert T.Grayscale()(Image.fromarray(PHOTO)).mode == "L"


def test_blur_is_a_weighted_mean() -> None:
    flat = np.full((9, 9), 77, np.uint8)
    np.testing.assert_array_equal(T.GaussianBlur(5)(flat), flat)
    dot = gf.zeros(1, 9, 9)
    dot[0, 4, 4] = 1
    weights = np.exp(-0.5 * (np.arange(-2, 3) / 1.5) ** 2)
    weights /= weights.sum()
    found = T.GaussianBlur((5, 3), 1.5)(dot)[0].numpy()
    narrow = weights[1:4] / weights[1:4].sum()
    np.testing.assert_allclose(found[2:7, 3:6], np.outer(weights, narrow), rtol=1e-5)


def test_chance_decides_which_and_in_which_order() -> None:
    steps = [T.Lambda(lambd=lambda text, letter=letter: text + letter) for letter in "abc"]
    chosen = [T.RandomChoice(steps, p=[1, 0, 3])("") for _ in range(400)]
    assert set(chosen) == {"a", "c"} and 60 < chosen.count("a") < 140
    assert len({T.RandomOrder(steps)("") for _ in range(100)}) == 6
    painted = T.RandomErasing(1.0, value=[1.0, 2.0, 3.0])(gf.zeros(3, 20, 20))
    assert [sorted(set(channel.reshape(-1).tolist())) for channel in painted] == [[0, 1], [0, 2], [0, 3]]


def test_augmentation_in_workers_is_the_same() -> None:
    pipeline = T.Compose([
        T.RandomResizedCrop(6), T.RandomRotation(30), T.ColorJitter(0.4, 0.4, 0.4, 0.1), T.GaussianBlur(3),
        T.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), 5), T.ToTensor(),
    ])  # fmt: skip

    class Photos(gf.utils.data.Dataset):
        def __getitem__(self, index: int) -> gf.Tensor:
            return pipeline(PHOTO)

        def __len__(self) -> int:
            return 8

    alone, shared = (next(iter(DataLoader(Photos(), 8, seed=3, num_workers=n))) for n in (0, 3))
    np.testing.assert_array_equal(alone.numpy(), shared.numpy())
    assert len(np.unique(alone.numpy(), axis=0)) == 8


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (lambda: T.RandomRotation(-3), "degrees isn't negative"),
    (lambda: T.RandomRotation((3, 1)), "from the lowest to the highest"),
    (lambda: T.RandomAffine(0, translate=(2, 0)), "translate is two shares"),
    (lambda: T.RandomAffine(0, scale=(0, 1)), "scale is above 0"),
    (lambda: T.ColorJitter(hue=0.7), "hue lies within"),
    (lambda: T.ColorJitter(brightness=-1), "brightness isn't negative"),
    (lambda: T.GaussianBlur(4), "kernel_size is odd"),
    (lambda: T.GaussianBlur(3, 0.0), "sigma is above 0"),
    (lambda: T.RandomChoice([]), "0 transforms"),
    (lambda: T.RandomResizedCrop(3, scale=(2, 1)), "isn't a range"),
    (lambda: T.RandomRotation(3, "lanczos"), "interpolation is nearest or bilinear"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_what_does_not_fit_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
