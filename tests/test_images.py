"""Windows as columns, resizing, and channels as pixels, against formulas in NumPy and SciPy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.nn import functional as F

RNG = np.random.default_rng(21)


def close(got: gf.Tensor, wanted: np.ndarray) -> None:
    assert tuple(got.shape) == wanted.shape
    np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=1e-11, atol=1e-11)


def columns(x: np.ndarray, kernel: Any, dilation: Any, padding: Any, stride: Any) -> np.ndarray:
    """The windows of (N, C, H, W), one by one."""
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in padding)])
    found = []
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    for i in range(0, x.shape[2] - reach[0] + 1, stride[0]):
        for j in range(0, x.shape[3] - reach[1] + 1, stride[1]):
            window = x[:, :, i : i + reach[0] : dilation[0], j : j + reach[1] : dilation[1]]
            found.append(window.reshape(len(x), -1))
    return np.stack(found, -1)


WINDOWS = [
    ((2, 3), (1, 1), (0, 0), (1, 1)),
    ((3, 2), (1, 2), (1, 2), (2, 1)),
    ((2, 2), (1, 1), (0, 1), (2, 2)),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_unfold_and_fold_are_transposes(window: tuple[Any, ...]) -> None:
    x = RNG.standard_normal((2, 3, 5, 6))
    expected = columns(x, *window)
    t = gf.tensor(x, requires_grad=True)
    result = F.unfold(t, *window)
    close(result, expected)
    close(F.unfold(t[0], *window), expected[0])
    g = RNG.standard_normal(expected.shape)
    result.backward(gf.tensor(g))
    back = F.fold(gf.tensor(g), (5, 6), *window)
    close(t.grad, back.numpy())
    np.testing.assert_allclose(np.sum(back.numpy() * x), np.sum(g * expected), rtol=1e-10)
    close(nn.Fold((5, 6), *window)(gf.tensor(g[0])), back.numpy()[0])
    compiled = gf.compile(lambda a: (F.unfold(a, *window), F.fold(F.unfold(a, *window), (5, 6), *window)))
    for batch in (2, 3):
        x = RNG.standard_normal((batch, 3, 5, 6))
        ours = compiled(gf.tensor(x))
        close(ours[0], columns(x, *window))
        close(ours[1], F.fold(gf.tensor(columns(x, *window)), (5, 6), *window).numpy())
    assert len(compiled.variants) == 1


def test_unfolding_a_dimension() -> None:
    x = RNG.standard_normal((2, 7, 3))
    for dim, size, step in ((1, 3, 2), (-2, 3, 3), (0, 2, 1), (2, 1, 2)):
        expected = np.lib.stride_tricks.sliding_window_view(x, size, dim)
        steps = tuple(slice(None, None, step if d == dim % 3 else None) for d in range(3))
        close(gf.tensor(x).unfold(dim, size, step), expected[steps])
        close(gf.compile(lambda t, a=(dim, size, step): t.unfold(*a))(gf.tensor(x)), expected[steps])
    t = gf.tensor(x)
    view = t.unfold(1, 3, 1)
    t[0, 1, 2] = 9.0
    assert view[0, 1, 2, 0].item() == view[0, 0, 2, 1].item() == 9.0
    with pytest.raises(RuntimeError, match="read-only"):
        view.zero_()
    for arguments, error, message in (
        ((1, 8, 1), ValueError, "between 1 and 7"),
        ((1, 2, 0), ValueError, "step is 0"),
        ((3, 1, 1), IndexError, "out of range"),
    ):
        with pytest.raises(error, match=message):
            t.unfold(*arguments)


def test_windows_of_a_symbolic_size_are_checked_before_a_run() -> None:
    compiled = gf.compile(lambda t: t.unfold(0, 3, 2) * 2)
    for size in (9, 4, 3):
        x = RNG.standard_normal(size)
        close(compiled(gf.tensor(x)), np.lib.stride_tricks.sliding_window_view(x, 3)[::2] * 2)
    with pytest.raises(ValueError, match="size"):
        compiled(gf.ones(2))


# ---------------------------------------------------------------------------------------------- resizing


def resized(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """(N, C, ...) with a matrix of weights (new, old) along each axis."""
    for axis, matrix in enumerate(weights, 2):
        x = np.moveaxis(np.tensordot(x, matrix, (axis, 1)), -1, axis)
    return x


def matrix(old: int, new: int, kernel: str, align: bool, scale: float | None) -> np.ndarray:
    """How much of each old element goes into each new one."""
    found = np.zeros((new, old))
    ratio = 1 / scale if scale else old / new
    for i in range(new):
        place = i * (old - 1) / (new - 1) if align and new > 1 else 0 if align else (i + 0.5) * ratio - 0.5
        if kernel == "nearest":
            found[i, min(math.floor(i * ratio), old - 1)] = 1
        elif kernel == "nearest-exact":
            found[i, min(math.floor((i + 0.5) * ratio), old - 1)] = 1
        elif kernel == "area":
            first, last = i * old // new, math.ceil((i + 1) * old / new)
            found[i, first:last] = 1 / (last - first)
        elif kernel == "linear":
            place = max(place, 0)
            low = min(math.floor(place), old - 1)
            found[i, low] += 1 - (place - low)
            found[i, min(low + 1, old - 1)] += place - low
        else:
            low = math.floor(place)
            for tap in range(-1, 3):
                d = abs(place - low - tap)
                near = 1.25 * d**3 - 2.25 * d**2 + 1
                far = -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
                found[i, min(max(low + tap, 0), old - 1)] += near if d <= 1 else far
    return found


CASES: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("nearest", (4, 5), {"scale_factor": 3}),
    ("nearest", (4, 5), {"size": (7, 2)}),
    ("nearest-exact", (6,), {"size": 4}),
    ("area", (5, 6), {"size": (2, 4)}),
    ("linear", (5,), {"size": 8}),
    ("bilinear", (4, 5), {"scale_factor": 2.0}),
    ("bilinear", (4, 5), {"size": (7, 3), "align_corners": True}),
    ("bilinear", (5, 5), {"scale_factor": (1.7, 0.6)}),
    ("bilinear", (5, 5), {"scale_factor": (1.7, 0.6), "recompute_scale_factor": True}),
    ("bicubic", (4, 5), {"size": (7, 9)}),
    ("bicubic", (4, 5), {"size": (3, 9), "align_corners": True}),
    ("trilinear", (2, 3, 4), {"size": (4, 2, 5)}),
]


@pytest.mark.parametrize(("mode", "size", "options"), CASES, ids=str)
def test_interpolation_is_a_matrix_along_each_axis(
    mode: str, size: tuple[int, ...], options: dict[str, Any]
) -> None:
    n = len(size)
    scales: tuple[float | None, ...] = (None,) * n
    if "size" in options:
        new = options["size"] if isinstance(options["size"], tuple) else (options["size"],) * n
    else:
        given = options["scale_factor"]
        factors = given if isinstance(given, tuple) else (given,) * n
        new = tuple(math.floor(s * f) for s, f in zip(size, factors, strict=True))
        scales = scales if options.get("recompute_scale_factor") else factors
    kernel = "linear" if mode.endswith("linear") else mode
    align = options.get("align_corners", False)
    weights = [matrix(old, s, kernel, align, scale) for old, s, scale in zip(size, new, scales, strict=True)]

    def step(t: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
        slope = gf.grad(lambda a: (F.interpolate(a, mode=mode, **options) ** 2).sum())
        return F.interpolate(t, mode=mode, **options), slope(t)

    compiled = gf.compile(step)
    for batch, function in ((2, step), (2, compiled), (3, compiled)):
        x = RNG.standard_normal((batch, 2, *size))
        expected = resized(x, weights)
        result, gradient = function(gf.tensor(x))
        close(result, expected)
        close(gradient, resized(2 * expected, [w.T for w in weights]))
    assert len(compiled.variants) == 1


def test_pixels_and_channels() -> None:
    x = RNG.standard_normal((2, 8, 3, 2))
    shuffled = np.zeros((2, 2, 6, 4))
    for c, i, j in itertools.product(range(2), range(2), range(2)):
        shuffled[:, c, i::2, j::2] = x[:, c * 4 + i * 2 + j]
    close(nn.PixelShuffle(2)(gf.tensor(x)), shuffled)
    close(nn.PixelUnshuffle(2)(gf.tensor(shuffled)), x)
    close(gf.compile(nn.PixelShuffle(2))(gf.tensor(x)), shuffled)
    close(gf.compile(nn.PixelUnshuffle(2))(gf.tensor(shuffled)), x)
    close(nn.ChannelShuffle(2)(gf.tensor(x)), x[:, [0, 4, 1, 5, 2, 6, 3, 7]])


@pytest.mark.parametrize(
    ("layer", "shape", "kept"),
    [
        (nn.Dropout1d, (8, 16, 5), 2), (nn.Dropout1d, (64, 5), 1), (nn.Dropout2d, (8, 16, 3, 2), 2),
        (nn.Dropout2d, (8, 16, 3), 2), (nn.Dropout3d, (8, 16, 2, 3, 2), 2), (nn.Dropout3d, (64, 2, 3, 2), 1),
    ],
)  # fmt: skip
def test_dropout_of_channels(layer: Callable[..., nn.Module], shape: tuple[int, ...], kept: int) -> None:
    gf.manual_seed(4)
    drop = layer(0.4)
    for call in (drop, gf.compile(drop)):
        found = call(gf.ones(*shape)).numpy().reshape(*shape[:kept], -1)
        assert (found == found[..., :1]).all()
        np.testing.assert_allclose(np.unique(found), [0, 1 / 0.6], rtol=1e-6)
        assert 0.3 < (found[..., 0] > 0).mean() < 0.9
    assert drop.eval()(x := gf.ones(*shape)) is x


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda x: F.unfold(x[0, 0], 2), ValueError, "expected 3D or 4D"),
        (lambda x: F.unfold(x, 7), ValueError, "no window that fits"),
        (lambda x: F.fold(x, 4, 2), ValueError, "2D .unbatched. or 3D"),
        (lambda x: F.fold(x[0], 4, 2), ValueError, "divisible by the product of kernel_size"),
        (lambda x: F.fold(gf.ones(2, 4, 5), 4, 2), ValueError, "expected 9 columns"),
        (lambda x: F.interpolate(x), ValueError, "either size or scale_factor"),
        (lambda x: F.interpolate(x, 3, 2), ValueError, "only one of size or scale_factor"),
        (lambda x: F.interpolate(x, 3, mode="linear"), NotImplementedError, "Only 3D, 4D and 5D"),
        (lambda x: F.interpolate(x, 3, mode="sinc"), NotImplementedError, "unknown mode 'sinc'"),
        (lambda x: F.interpolate(x, 3, align_corners=True), ValueError, "align_corners option"),
        (lambda x: F.interpolate(x, (3, 4, 5)), ValueError, "size takes one number or 2"),
        (lambda x: F.interpolate(x, 0), ValueError, "greater than 0"),
        (lambda x: F.interpolate(x.long(), 3), TypeError, "floating point"),
        (lambda x: F.interpolate(x, 3, mode="area", antialias=True), ValueError, "Anti-alias option"),
        (lambda x: F.pixel_shuffle(x, 2), ValueError, "is not divisible by 4"),
        (lambda x: F.pixel_unshuffle(x, 3), ValueError, "divisible by downscale_factor"),
        (lambda x: F.channel_shuffle(x, 2), ValueError, "divisible by groups"),
        (lambda x: F.pixel_shuffle(x, 1.5), TypeError, "upscale_factor is an integer"),
        (lambda x: F.dropout2d(x[0, 0]), ValueError, "expected 3D or 4D"),
        (lambda x: F.dropout1d(x[0], 1.5), ValueError, "between 0 and 1"),
    ],
)
def test_mistakes_are_told(act, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        act(gf.ones(2, 3, 4, 5))
