"""Pooling against loops over windows, in float64, eagerly and compiled."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.nn import functional as F

RNG = np.random.default_rng(11)

Interval = tuple[int, int, int]  # start, stop, step


def regular(size: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> list[Interval]:
    """The windows along an axis, the border included."""
    room = size + 2 * p - d * (k - 1) - 1
    count = (-(-room // s) if ceil_mode else room // s) + 1
    starts = [i * s - p for i in range(count)]
    if ceil_mode and starts[-1] >= size:
        starts.pop()
    return [(start, start + d * (k - 1) + 1, d) for start in starts]


def adaptive(size: int, out: int) -> list[Interval]:
    """PyTorch's windows of a size that fits."""
    return [(i * size // out, math.ceil((i + 1) * size / out), 1) for i in range(out)]


def pooled(
    x: np.ndarray, windows: Sequence[list[Interval]], pick: Callable[[np.ndarray, tuple[Any, ...]], float]
) -> np.ndarray:
    """`pick` of what lies inside the array, for each window of (N, C, ...)."""
    out = np.zeros((*x.shape[:2], *map(len, windows)))
    for place in itertools.product(*(range(len(w)) for w in windows)):
        bounds = [w[i] for w, i in zip(windows, place, strict=True)]
        inside = tuple(
            [q for q in range(*b) if 0 <= q < size] for b, size in zip(bounds, x.shape[2:], strict=True)
        )
        for n, c in np.ndindex(x.shape[:2]):
            out[(n, c, *place)] = pick(x[n, c][np.ix_(*inside)], (bounds, inside))
    return out


def close(got: gf.Tensor, wanted: np.ndarray) -> None:
    assert tuple(got.shape) == wanted.shape
    np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=1e-11, atol=1e-12)


# (dimensions, size, kernel, stride, padding, dilation, ceil_mode)
MAXIMA = [
    (1, (9,), (3,), (2,), (1,), (2,), False),
    (2, (6, 7), (2, 2), (2, 2), (0, 0), (1, 1), False),
    (2, (6, 7), (3, 2), (2, 3), (1, 0), (1, 2), True),
    (3, (4, 5, 4), (2, 3, 2), (1, 2, 2), (1, 1, 0), (1, 1, 2), True),
]


@pytest.mark.parametrize("case", MAXIMA, ids=str)
def test_max_pools(case: tuple[Any, ...]) -> None:
    n, size, kernel, stride, padding, dilation, ceil_mode = case
    x = RNG.integers(-3, 4, (2, 2, *size)).astype(float)  # many equal elements
    windows = [
        regular(*axis, ceil_mode) for axis in zip(size, kernel, stride, padding, dilation, strict=True)
    ]
    wanted = pooled(x, windows, lambda values, _: values.max())

    def position(values: np.ndarray, where: tuple[Any, ...]) -> float:
        first = np.unravel_index(values.argmax(), values.shape)
        return float(np.ravel_multi_index([i[f] for i, f in zip(where[1], first, strict=True)], size))

    places = pooled(x, windows, position).astype(np.int64)
    function = getattr(F, f"max_pool{n}d")
    t = gf.tensor(x, requires_grad=True)
    values, indices = function(t, kernel, stride, padding, dilation, ceil_mode, return_indices=True)
    close(values, wanted)
    np.testing.assert_array_equal(indices.numpy(), places)
    close(function(t[0], kernel, stride, padding, dilation, ceil_mode), wanted[0])
    g = RNG.standard_normal(wanted.shape)
    values.backward(gf.tensor(g))
    expected = np.zeros((4, math.prod(size)))
    np.add.at(expected, (np.arange(4)[:, None], places.reshape(4, -1)), g.reshape(4, -1))
    close(t.grad, expected.reshape(x.shape))


@pytest.mark.parametrize("case", [c for c in MAXIMA if c[5] == (1,) * c[0]] + [MAXIMA[2]], ids=str)
@pytest.mark.parametrize("include", [True, False])
def test_average_pools(case: tuple[Any, ...], include: bool) -> None:
    n, size, kernel, stride, padding, _, ceil_mode = case
    x = RNG.standard_normal((2, 2, *size))
    windows = [regular(*axis, 1, ceil_mode) for axis in zip(size, kernel, stride, padding, strict=True)]

    def mean(values: np.ndarray, where: tuple[Any, ...]) -> float:
        bounds = where[0]
        widths = [min(b[1], s + p) - b[0] for b, s, p in zip(bounds, size, padding, strict=True)]
        return float(values.sum() / (math.prod(widths) if include else values.size))

    wanted = pooled(x, windows, mean)
    function = getattr(F, f"avg_pool{n}d")
    t = gf.tensor(x, requires_grad=True)
    result = function(t, kernel, stride, padding, ceil_mode, include)
    close(result, wanted)
    g, direction = RNG.standard_normal(wanted.shape), RNG.standard_normal(x.shape)
    result.backward(gf.tensor(g))
    np.testing.assert_allclose(
        np.sum(t.grad.numpy() * direction), np.sum(g * pooled(direction, windows, mean)), rtol=1e-10
    )
    close(
        function(t, kernel, stride, padding, ceil_mode, include, 3),
        pooled(x, windows, lambda v, _: v.sum() / 3),
    )


@pytest.mark.parametrize(
    ("n", "size", "out"),
    [(1, (7,), (3,)), (2, (6, 8), (3, 2)), (2, (5, 7), (3, None)), (3, (3, 4, 5), (2, 4, 3))],
)
def test_adaptive_pools(n: int, size: tuple[int, ...], out: Any) -> None:
    x = RNG.standard_normal((2, 2, *size))
    windows = [adaptive(s, s if o is None else o) for s, o in zip(size, out, strict=True)]
    average, maximum = getattr(F, f"adaptive_avg_pool{n}d"), getattr(F, f"adaptive_max_pool{n}d")
    wanted = pooled(x, windows, lambda values, _: values.mean())
    close(average(gf.tensor(x), out), wanted)
    close(average(gf.tensor(x[1]), out), wanted[1])
    values, places = maximum(gf.tensor(x), out, return_indices=True)
    close(values, pooled(x, windows, lambda values, _: values.max()))
    flat = np.take_along_axis(x.reshape(4, -1), places.numpy().reshape(4, -1), 1)
    close(values, flat.reshape(values.shape))


@pytest.mark.parametrize(("order", "choose"), [(math.inf, np.max), (-math.inf, np.min)])
def test_power_means_of_infinite_order_are_the_largest_or_smallest_size(order: float, choose: Any) -> None:
    x = RNG.standard_normal((2, 3, 7))
    wanted = np.stack([choose(np.abs(x[:, :, i : i + 3]), -1) for i in (0, 2, 4)], -1)
    for pool in (nn.LPPool1d(order, 3, 2), gf.compile(nn.LPPool1d(order, 3, 2))):
        close(pool(gf.tensor(x)), wanted)
    y = gf.tensor(x[:, :, :3], requires_grad=True)
    F.lp_pool2d(y, order, (3, 3)).sum().backward()
    assert np.abs(y.grad.numpy()).sum() == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.max_pool2d(x, 2),
        lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True)[0],
        lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
        lambda x: F.adaptive_max_pool2d(x, (2, 4)),
        lambda x: F.lp_pool2d(x * x, 2.0, 2),
    ],
    ids=["max tiles", "max overlapping", "average", "adaptive average", "adaptive max", "power"],
)
def test_one_compiled_variant_serves_all_batch_sizes(function: Callable[[gf.Tensor], gf.Tensor]) -> None:
    def step(x: gf.Tensor) -> tuple[gf.Tensor, ...]:
        def loss(x: gf.Tensor) -> gf.Tensor:
            return (function(x) ** 3).sum()

        slope = gf.grad(lambda x: (gf.grad(loss)(x) ** 2).sum())
        return function(x), gf.grad(loss)(x), slope(x)

    compiled = gf.compile(step)
    for batch in (2, 4, 1, 0):
        x = gf.tensor(RNG.standard_normal((batch, 2, 5, 7)))
        for ours, wanted in zip(compiled(x), step(x), strict=True):
            np.testing.assert_allclose(ours.detach().numpy(), wanted.detach().numpy(), rtol=1e-9, atol=1e-10)
    assert len(compiled.variants) == 1


def test_nan_is_the_largest_number_and_equal_maxima_share_nothing() -> None:
    x = gf.tensor([[[1.0, math.nan, 2.0, 3.0, 3.0, 3.0]]], requires_grad=True)
    result = F.max_pool1d(x, 3)
    np.testing.assert_array_equal(result.detach().numpy(), [[[math.nan, 3.0]]])
    result.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [[[0, 1, 0, 1, 0, 0]]])


def test_a_window_of_nothing_but_minus_infinity_names_an_element_inside() -> None:
    x = gf.full((1, 1, 3, 3), -math.inf)
    _, places = F.max_pool2d(x, 3, 2, 1, return_indices=True)
    np.testing.assert_array_equal(places.numpy(), [[[[0, 1], [3, 4]]]])


def test_integers_have_maxima_too() -> None:
    x = gf.tensor([[[-5, -7, -6]]])
    result = F.max_pool1d(x, 2, 1, 1)
    assert result.dtype is gf.int64
    np.testing.assert_array_equal(result.numpy(), [[[-5, -5, -6, -6]]])


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda x: F.max_pool2d(x[0, 0], 2), ValueError, "expected 3D .* or 4D"),
        (lambda x: F.max_pool2d(x, 2, padding=2), ValueError, "pad should be at most half of kernel size"),
        (lambda x: F.max_pool2d(x, 6), ValueError, "output size is too small"),
        (lambda x: F.max_pool2d(x, 0), ValueError, "kernel_size must be greater than zero"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=0), ValueError, "divisor must be not zero"),
        (lambda x: F.avg_pool2d(x.long(), 2), TypeError, "needs a floating point input"),
        (lambda x: F.adaptive_avg_pool2d(x, (1, 2, 3)), ValueError, "output_size takes 2 numbers"),
        (lambda x: F.adaptive_avg_pool2d(x, (1.5, 2)), TypeError, "takes integers and None"),
        (lambda x: F.adaptive_max_pool2d(x[:, :, :0], 2), ValueError, "non-zero size"),
    ],
)
def test_mistakes_are_told(act, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        act(gf.ones(2, 3, 5, 5))


def test_layers_print_and_compute_as_pytorchs() -> None:
    x = gf.rand(2, 3, 8, 8)
    model = nn.Sequential(
        nn.MaxPool2d(2), nn.AvgPool2d(3, stride=1, padding=1), nn.AdaptiveMaxPool2d((3, None)),
        nn.LPPool2d(2, 1), nn.AdaptiveAvgPool2d(1),
    )  # fmt: skip
    assert tuple(model(x).shape) == (2, 3, 1, 1)
    assert repr(model) == (
        "Sequential(\n"
        "  (0): MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)\n"
        "  (1): AvgPool2d(kernel_size=3, stride=1, padding=1)\n"
        "  (2): AdaptiveMaxPool2d(output_size=(3, None))\n"
        "  (3): LPPool2d(norm_type=2, kernel_size=1, stride=None, ceil_mode=False)\n"
        "  (4): AdaptiveAvgPool2d(output_size=1)\n"
        ")"
    )
    assert repr(nn.AvgPool1d(2)) == "AvgPool1d(kernel_size=(2,), stride=(2,), padding=(0,))"
    values, places = nn.MaxPool2d(2, return_indices=True)(x)
    assert places.dtype is gf.int64
    assert tuple(nn.MaxPool1d(2)(x[0]).shape) == (3, 8, 4)
    assert tuple(nn.AvgPool3d(2)(x).shape) == (2, 1, 4, 4)
    assert tuple(values.shape) == (2, 3, 4, 4)
