"""Sampling at any places, and smaller images without aliases, beside loops over single elements."""

from __future__ import annotations

import itertools
import math
import warnings

import graphflow as gf
import numpy as np
import pytest
from graphflow.nn import functional as F

from compositions import check

RNG = np.random.default_rng(0)


def reflected(x: float, low: float, high: float) -> float:
    """Goes back and forth between the two."""
    if low == high:
        return 0.0
    while not low <= x <= high:
        x = 2 * low - x if x < low else 2 * high - x
    return x


def inside(x: float, size: int, padding: str, align: bool) -> float:
    if padding == "reflection":
        x = reflected(x, 0, size - 1) if align else reflected(x, -0.5, size - 0.5)
    return x if padding == "zeros" else min(max(x, 0), size - 1)


def cubic(d: float, a: float = -0.75) -> float:
    d = abs(d)
    if d < 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def sampled(x: np.ndarray, grid: np.ndarray, mode: str, padding: str, align: bool) -> np.ndarray:
    sizes = x.shape[2:]
    out = np.zeros((*x.shape[:2], *grid.shape[1:-1]))
    for n, *place in itertools.product(range(len(x)), *map(range, grid.shape[1:-1])):
        coordinates = []
        for size, g in zip(sizes, grid[(n, *place)][::-1], strict=True):
            c = (g + 1) / 2 * (size - 1) if align else ((g + 1) * size - 1) / 2
            coordinates.append(c if mode == "bicubic" else inside(c, size, padding, align))
        near = []
        for c in coordinates:
            if mode == "nearest":
                near.append([(round(c), 1.0)])
            elif mode == "bilinear":
                near.append([(math.floor(c), 1 - c + math.floor(c)), (math.floor(c) + 1, c - math.floor(c))])
            else:
                near.append([(k, cubic(c - k)) for k in range(math.floor(c) - 1, math.floor(c) + 3)])
        for taps in itertools.product(*near):
            index, weight = [k for k, _ in taps], math.prod(w for _, w in taps)
            if mode == "bicubic":
                index = [int(inside(k, s, padding, align)) for k, s in zip(index, sizes, strict=True)]
            if all(0 <= k < s for k, s in zip(index, sizes, strict=True)):
                out[(n, slice(None), *place)] += x[(n, slice(None), *index)] * weight
    return out


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grid_sample(mode: str, padding: str, align: bool) -> None:
    for sizes in [(4, 3)] if mode == "bicubic" else [(4, 3), (3, 1, 2)]:
        x = RNG.standard_normal((2, 2, *sizes))
        grid = RNG.uniform(-2.2, 2.2, (2, 3, *sizes[1:], len(sizes)))
        got = F.grid_sample(gf.tensor(x), gf.tensor(grid), mode, padding, align).numpy()
        np.testing.assert_allclose(got, sampled(x, grid, mode, padding, align), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_grid_sample_compiled_and_its_gradients(mode: str) -> None:
    x, grid = RNG.standard_normal((2, 2, 4, 3)), RNG.uniform(-1.3, 1.3, (2, 3, 2, 2))
    check(
        lambda x, g: F.grid_sample(x, g, mode, "reflection", False),
        lambda x, g: sampled(x, g, mode, "reflection", False),
        x, grid, trained=(0, 1), sizes=(1,),
    )  # fmt: skip


def test_places_that_are_no_number_are_outside() -> None:
    grid = gf.tensor([[[[math.nan, 0.0], [math.inf, 0.0], [-1e30, 1e30]]]])
    assert F.grid_sample(gf.ones(1, 1, 2, 2), grid, align_corners=False).tolist() == [[[[0.0, 0.0, 0.0]]]]


@pytest.mark.parametrize("align", [False, True])
def test_affine_grid(align: bool) -> None:
    for sizes in ((3, 4), (2, 1, 3)):
        n = len(sizes)
        theta = RNG.standard_normal((2, n, n + 1))

        def formula(theta: np.ndarray, sizes: tuple[int, ...] = sizes, n: int = n) -> np.ndarray:
            ends = [(0 if s == 1 else 1) * (1 if align else (s - 1) / s) for s in sizes]
            axes = [np.linspace(-end, end, s) for end, s in zip(ends, sizes, strict=True)]
            places = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(sizes)], -1)
            return np.einsum("...i,bji->b...j", places, theta)

        got = F.affine_grid(gf.tensor(theta), (2, 5, *sizes), align).numpy()
        np.testing.assert_allclose(got, formula(theta), rtol=1e-12, atol=1e-12)
        check(lambda t, s=sizes: F.affine_grid(t, (t.shape[0], 5, *s), align), formula, theta, sizes=(1,))


def test_the_identity_gives_the_image_back() -> None:
    image = gf.rand(2, 3, 5, 7, dtype=gf.float64)
    identity = gf.eye(2, 3, dtype=gf.float64).expand(2, 2, 3)
    for align in (False, True):
        again = F.grid_sample(image, F.affine_grid(identity, image.shape, align), align_corners=align)
        np.testing.assert_allclose(again.numpy(), image.numpy(), rtol=1e-9)


def smooth(x: np.ndarray, new: int, scale: float, cube: bool) -> np.ndarray:
    """Along the last dimension."""
    old, out = x.shape[-1], np.zeros((*x.shape[:-1], new))
    wide = max(scale, 1.0)
    reach = (2 if cube else 1) * wide
    for i in range(new):
        center = (i + 0.5) * scale
        first, last = max(int(center - reach + 0.5), 0), min(int(center + reach + 0.5), old)
        far = [(j + 0.5 - center) / wide for j in range(first, last)]
        weights = [cubic(d, -0.5) if cube else max(0.0, 1 - abs(d)) for d in far]
        out[..., i] = x[..., first:last] @ weights / sum(weights)
    return out


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("size", "scale", "scales"),
    [((3, 4), None, (7 / 3, 9 / 4)), ((8, 2), None, (7 / 8, 9 / 2)), (None, (0.5, 0.3), (2, 1 / 0.3))],
)
def test_smaller_images_without_aliases(
    mode: str, size: tuple[int, int] | None, scale: object, scales: tuple[float, float]
) -> None:
    x = RNG.standard_normal((2, 2, 7, 9))
    h, w = size or (3, 2)

    def formula(x: np.ndarray) -> np.ndarray:
        narrow = smooth(x, w, scales[1], mode == "bicubic")
        return smooth(narrow.swapaxes(2, 3), h, scales[0], mode == "bicubic").swapaxes(2, 3)

    def resized(t: gf.Tensor) -> gf.Tensor:
        return F.interpolate(t, size, scale, mode, antialias=True)  # type: ignore[arg-type]

    np.testing.assert_allclose(resized(gf.tensor(x)).numpy(), formula(x), rtol=1e-9, atol=1e-12)
    check(resized, formula, x, sizes=(1,))


X, GRID = gf.ones(1, 1, 3, 3), gf.zeros(1, 2, 2, 2)
WRONG = {
    "expected mode to be": lambda: F.grid_sample(X, GRID, "linear"),
    "expected padding_mode to be": lambda: F.grid_sample(X, GRID, padding_mode="edge"),
    "same floating point dtype": lambda: F.grid_sample(X, GRID.double()),
    "expected 4D or 5D input": lambda: F.grid_sample(X, GRID[0]),
    "same batch size": lambda: F.grid_sample(X, gf.zeros(2, 2, 2, 2)),
    "size 2 in last dimension": lambda: F.grid_sample(X, gf.zeros(1, 2, 2, 3)),
    "only supports 4D input": lambda: F.grid_sample(X[None], gf.zeros(1, 2, 2, 2, 3), "bicubic"),
    "non-empty spatial": lambda: F.grid_sample(X[:, :, :0], GRID, align_corners=True),
    "2D affine matrices of shape Nx2x3": lambda: F.affine_grid(gf.ones(1, 3, 3), (1, 1, 2, 2)),
    "expected 2 matrices": lambda: F.affine_grid(gf.ones(1, 2, 3), (2, 1, 2, 2)),
    "positive output size": lambda: F.affine_grid(gf.ones(1, 2, 3), (1, 1, 0, 2), True),
    "restricted to bilinear and bicubic": lambda: F.interpolate(X, 2, antialias=True),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_does_not_fit(message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        WRONG[message]()


def test_align_corners_has_to_be_said() -> None:
    with pytest.warns(UserWarning, match="Default grid_sample and affine_grid behavior"):
        F.grid_sample(X, GRID)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        F.affine_grid(gf.ones(1, 2, 3), (1, 1, 2, 2), align_corners=False)
