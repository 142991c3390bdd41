"""Convolutions, windows and borders written as plain loops over NumPy arrays."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np


def convolution(
    x: np.ndarray,
    w: np.ndarray,
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
    dilations: Sequence[int],
    groups: int = 1,
) -> np.ndarray:
    """Cross-correlation of (N, C, ...) with (O, C / groups, ...)."""
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    kernel, own = w.shape[2:], w.shape[1]
    sizes = [
        (s - d * (k - 1) - 1) // t + 1
        for s, k, t, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ]
    out = np.zeros((x.shape[0], w.shape[0], *sizes), x.dtype)
    for o in range(w.shape[0]):
        first = o // (w.shape[0] // groups) * own
        for place in itertools.product(*map(range, sizes)):
            for tap in itertools.product(*map(range, kernel)):
                at = tuple(p * t + k * d for p, t, k, d in zip(place, strides, tap, dilations, strict=True))
                picked = x[(slice(None), slice(first, first + own), *at)]
                out[(slice(None), o, *place)] += picked @ w[(o, slice(None), *tap)]
    return out


def transposed(
    x: np.ndarray,
    w: np.ndarray,
    strides: Sequence[int],
    paddings: Sequence[int],
    extras: Sequence[int],
    dilations: Sequence[int],
    groups: int = 1,
) -> np.ndarray:
    """Every element of (N, C, ...) puts its multiple of the kernel (C, O / groups, ...) into the result."""
    kernel, own = w.shape[2:], x.shape[1] // groups
    sizes = [
        (s - 1) * t + d * (k - 1) + 1 + e
        for s, k, t, d, e in zip(x.shape[2:], kernel, strides, dilations, extras, strict=True)
    ]
    out = np.zeros((x.shape[0], w.shape[1] * groups, *sizes), x.dtype)
    for c in range(x.shape[1]):
        first = c // own * w.shape[1]
        for place in itertools.product(*map(range, x.shape[2:])):
            for tap in itertools.product(*map(range, kernel)):
                at = tuple(p * t + k * d for p, t, k, d in zip(place, strides, tap, dilations, strict=True))
                added = np.outer(x[(slice(None), c, *place)], w[(c, slice(None), *tap)])
                out[(slice(None), slice(first, first + w.shape[1]), *at)] += added
    crop = tuple(slice(p, s - p) for p, s in zip(paddings, sizes, strict=True))
    return out[(slice(None), slice(None), *crop)]


def numeric_gradients(function: Any, arrays: Sequence[np.ndarray], weights: np.ndarray) -> list[np.ndarray]:
    """Central differences of ``sum(function(*arrays) * weights)`` in every element."""
    found = []
    for number, array in enumerate(arrays):
        gradient = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = [a.copy() for a in arrays]
                moved[number][index] += step
                ends.append(float(np.sum(function(*moved) * weights)))
            gradient[index] = (ends[0] - ends[1]) / 2e-6
        found.append(gradient)
    return found
