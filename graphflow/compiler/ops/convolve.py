"""Convolution in any number of dimensions, with both gradients and the transposed one in the same op.

``y[b, g, o, i] = sum over c, k of x'[b, g, c, i * stride + k * dilation] * w[g, o, c, k]`` in each spatial
dimension, where x' is x with its elements `spread` apart, and `low` and `high` zeros around it (negative ones
cut off). `counts` are the sizes of y, at most as many as fit. Groups g don't see each other. With the window
turned round and stride and spread exchanged this is its own gradient with respect to x; with batch and
channels, stride and dilation exchanged, its gradient with respect to w. (Dumoulin and Visin, "A guide to
convolution arithmetic for deep learning", 2016, has the arithmetic.)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphflow.compiler.ir import (
    OPS,
    BadSample,
    Node,
    Op,
    Sample,
    Size,
    TensorType,
    constant,
    equal_size,
    register,
)
from graphflow.compiler.ops.contract import matmul
from graphflow.compiler.ops.family import FLOAT, require_kind, require_same
from graphflow.compiler.ops.movement import expand, pad, permute, reshape, slice_
from graphflow.compiler.ops.window import slide, unslide, window_count
from graphflow.dims import evaluate, product
from graphflow.errors import ShapeError

Ints = tuple[int, ...]
Sizes = tuple[Size, ...]

#: Fewer places than this in one image make thin products: those of all images are put into one.
FEW_PLACES = 64


@dataclass(frozen=True)
class Composite:
    """``compose(*inputs, **attrs)`` is the op written in other ops, put in its place before compiling."""

    compose: Any


class Geometry(NamedTuple):
    """The attributes of a convolution."""

    strides: Ints
    dilations: Ints
    spreads: Ints
    lows: Ints
    highs: Ints
    counts: Sizes

    def extents(self, sizes: Sequence[Size]) -> Sizes:
        """The spatial sizes of x'."""
        around = zip(sizes, self.spreads, self.lows, self.highs, strict=True)
        return tuple(low + (size - 1) * spread + 1 + high for size, spread, low, high in around)

    def fitting(self, sizes: Sequence[Size], kernel: Sequence[Size]) -> Sizes:
        """How many windows there are."""
        each = zip(self.extents(sizes), kernel, self.strides, self.dilations, strict=True)
        return tuple(window_count(*given) for given in each)

    @property
    def attrs(self) -> dict[str, Any]:
        """As an op takes them."""
        return dict(self._asdict())


def _infer(
    x: TensorType, w: TensorType, strides: Ints, dilations: Ints, spreads: Ints, lows: Ints, highs: Ints,
    counts: tuple[Size, ...],
) -> TensorType:  # fmt: skip
    dtype = require_same((x, w))
    require_kind(dtype, FLOAT)
    geometry = Geometry(strides, dilations, spreads, lows, highs, counts)
    n = len(counts)
    if any(len(given) != n for given in geometry) or x.ndim != n + 3 or w.ndim != n + 3:
        raise ShapeError(
            f"needs operands of {n + 3} dimensions and {n} of each attribute, got {x} and {w} with {geometry}"
        )
    if any(step < 1 for steps in geometry[:3] for step in steps):
        raise ShapeError(f"strides, dilations and spreads have to be positive, got {geometry}")
    equal_size(x.shape[1], w.shape[0])
    equal_size(x.shape[2], w.shape[2])
    for count, fits in zip(geometry.counts, geometry.fitting(x.shape[3:], w.shape[3:]), strict=True):
        short = fits - count
        if isinstance(short, int) and short < 0:
            raise ShapeError(f"{count} places of the window are asked for where {fits} fit")
    return TensorType(dtype, (x.shape[0], x.shape[1], w.shape[1], *geometry.counts))


# ---------------------------------------------------------------------------------------------- NumPy


def _numpy(x: np.ndarray, w: np.ndarray, **attrs: Any) -> np.ndarray:
    geometry = Geometry(**attrs)
    n = len(geometry.counts)
    batch, groups, channels = x.shape[:3]
    out, kernel = w.shape[1], w.shape[3:]
    counts = tuple(evaluate(count, {}) for count in geometry.counts)
    framed = _numpy_framed(x, geometry)
    steps = framed.strides[3:]
    taps = tuple(s * d for s, d in zip(steps, geometry.dilations, strict=True))
    places = tuple(s * d for s, d in zip(steps, geometry.strides, strict=True))
    found = as_strided(
        framed, (*framed.shape[:3], *kernel, *counts), (*framed.strides[:3], *taps, *places), writeable=False
    )
    depth = channels * product(kernel)
    found = found.transpose(1, 2, *range(3, n + 3), 0, *range(n + 3, 2 * n + 3))
    columns = found.reshape(groups, depth, batch * product(counts))
    with np.errstate(all="ignore"):
        result = np.matmul(w.reshape(groups, out, depth), columns)
    return np.ascontiguousarray(np.moveaxis(result.reshape(groups, out, batch, *counts), 2, 0))


def _numpy_framed(x: np.ndarray, geometry: Geometry) -> np.ndarray:
    extents = [max(evaluate(size, {}), 0) for size in geometry.extents(x.shape[3:])]
    frame = np.zeros((*x.shape[:3], *extents), x.dtype)
    inner: list[Any] = [...]
    taken: list[Any] = [...]
    for size, extent, spread, low in zip(x.shape[3:], extents, geometry.spreads, geometry.lows, strict=True):
        first = max(0, -(low // spread))  # the first element at or behind the frame's beginning
        last = min(size, (extent - 1 - low) // spread + 1)
        taken.append(slice(first, max(last, first)))
        start = low + first * spread
        inner.append(slice(start, start + max(last - first, 0) * spread, spread))
    frame[tuple(inner)] = x[tuple(taken)]
    return frame


# ---------------------------------------------------------------------------------------------- gradients


def _vjp(g: Node, out: Node, x: Node, w: Node, **attrs: Any) -> tuple[Node, Node]:
    geometry = Geometry(**attrs)
    return _of_image(g, x, w, geometry), _of_window(g, x, w, geometry)


def _of_image(g: Node, x: Node, w: Node, geometry: Geometry) -> Node:
    """``x[b, g, c, j]`` gets the sum over o, i and k with ``i * stride + k * dilation = j * spread + low``.

    The window runs over the cotangent; or the cotangent over the window, where the window's size is a symbol,
    as it is in gradients with respect to windows. Where sizes are symbols there may be more room behind the
    image than its elements take: less than a stride's, which is less than a spread's in the gradient of that.
    """
    n = len(geometry.counts)
    rest = range(3, n + 3)
    swapped = not all(isinstance(size, int) for size in w.shape[3:])
    if swapped:
        image, window = permute(w, dims=(2, 0, 1, *rest)), permute(g, dims=(1, 0, 2, *rest))
        spreads, dilations = geometry.dilations, geometry.strides
    else:
        image, window = g, permute(w, dims=(0, 2, 1, *rest))
        spreads, dilations = geometry.strides, geometry.dilations
    lows, highs = [], []
    for d, (spread, dilation, step) in enumerate(zip(spreads, dilations, geometry.spreads, strict=True)):
        reach = dilation * (_known(window.shape[d + 3]) - 1)
        low = reach - geometry.lows[d]
        exact = (x.shape[d + 3] - 1) * step + reach - low - (image.shape[d + 3] - 1) * spread
        lows.append(low)
        most = reach - geometry.highs[d] + (spread - 1) + (step - 1)
        highs.append(exact if isinstance(exact, int) else most)
    turned = Geometry(geometry.spreads, dilations, spreads, tuple(lows), tuple(highs), tuple(x.shape[3:]))
    found = convolve(image, _turned(window), **turned.attrs)
    return permute(found, dims=(2, 1, 0, *rest)) if swapped else found


def _known(size: Size) -> int:
    if isinstance(size, int):
        return size
    raise ShapeError(f"a convolution of images of unknown size with windows of unknown size {size}")


def _of_window(g: Node, x: Node, w: Node, geometry: Geometry) -> Node:
    rest = range(3, len(geometry.counts) + 3)
    exchanged = geometry._replace(
        strides=geometry.dilations, dilations=geometry.strides, counts=tuple(w.shape[3:])
    )
    found = convolve(permute(x, dims=(2, 1, 0, *rest)), permute(g, dims=(1, 2, 0, *rest)), **exchanged.attrs)
    return permute(found, dims=(1, 2, 0, *rest))


def _turned(w: Node) -> Node:
    """The window with every spatial dimension the other way round."""
    sizes = w.shape[3:]
    if all(size == 1 for size in sizes):
        return w
    return slice_(
        w,
        starts=(0, 0, 0, *(size - 1 for size in sizes)),
        steps=(1, 1, 1, *(-1 for _ in sizes)),
        sizes=w.shape,
    )


def _batch(out: Node, size: Size, batched: tuple[bool, bool], x: Node, w: Node, **attrs: Any) -> Node:
    """A batch of images joins the batch; windows of their own make groups of their own."""
    rest = range(4, len(out.shape) + 1)
    batch, groups, channels = out.shape[:3]
    if not batched[1]:
        found = convolve(reshape(x, shape=(size * batch, *x.shape[2:])), w, **attrs)
        return reshape(found, shape=(size, *out.shape))
    if not batched[0]:
        x = expand(x, shape=(size, *x.shape))
    images = permute(x, dims=(1, 0, 2, 3, *rest))
    images = reshape(images, shape=(batch, size * groups, *x.shape[3:]))
    found = convolve(images, reshape(w, shape=(size * groups, *w.shape[2:])), **attrs)
    found = reshape(found, shape=(batch, size, groups, channels, *out.shape[3:]))
    return permute(found, dims=(1, 0, 2, 3, *rest))


# ---------------------------------------------------------------------------------------------- composition


def _compose(x: Node, w: Node, **attrs: Any) -> Node:
    """Written in products, sums and windows."""
    geometry = Geometry(**attrs)
    apart = any(s > 1 for s in geometry.spreads) and all(s == 1 for s in geometry.strides)
    if apart and all(isinstance(size, int) for size in w.shape[3:]):
        sizes = (*x.shape[3:], *geometry.counts)
        known = all(isinstance(size, int) and size > 0 for size in sizes)
        if known and all(d == 1 for d in geometry.dilations):
            return _in_phases(x, w, geometry)
        return _scattered(x, w, geometry)
    framed = _framed(x, geometry.lows, geometry.highs, geometry.spreads)
    found = _windows(framed, tuple(w.shape[3:]), geometry)
    is_alone = w.shape[1] == 1 and w.shape[0] != 1
    return _summed(found, w) if is_alone else _multiplied(found, w)


def _framed(x: Node, lows: Sequence[int], highs: Sequence[int], spreads: Ints) -> Node:
    """x' of `x`, (b, g, c, ...)."""
    extents: list[Size] = list(x.shape[:3])
    starts: list[Size] = [0, 0, 0]
    cut: list[Size] = [0, 0, 0]
    sizes: list[Size] = list(x.shape[:3])
    for size, low, high, spread in zip(x.shape[3:], lows, highs, spreads, strict=True):
        before, after = max(low, 0), max(high, 0)
        extents.append(before + (size - 1) * spread + 1 + after)
        starts.append(before)
        cut.append(before - low)
        sizes.append(extents[-1] - (before - low) - (after - high))
    ones = (1,) * len(extents)
    if tuple(extents) != tuple(x.shape):
        x = pad(x, shape=tuple(extents), starts=tuple(starts), steps=(1, 1, 1, *spreads))
    if tuple(sizes) != tuple(extents):
        x = slice_(x, starts=tuple(cut), steps=ones, sizes=tuple(sizes))
    return x


def _windows(framed: Node, kernel: Sizes, geometry: Geometry) -> Node:
    """(b, g, c, *kernel, *counts): a view."""
    n = len(kernel)
    lead, extents = framed.shape[:3], framed.shape[3:]
    apart = reshape(framed, shape=(*lead, *(1,) * n, *extents))
    found = slide(
        expand(apart, shape=(*lead, *kernel, *extents)),
        dims=tuple(range(n + 3, 2 * n + 3)),
        taps=tuple(range(3, n + 3)),
        strides=geometry.strides,
        dilations=geometry.dilations,
    )
    sizes = (*lead, *kernel, *geometry.counts)
    if tuple(found.shape) == sizes:
        return found
    return slice_(found, starts=(0,) * len(sizes), steps=(1,) * len(sizes), sizes=sizes)


def _multiplied(found: Node, w: Node) -> Node:
    """One matrix product for each group, and for each image where it has enough places."""
    batch, groups, channels, *rest = found.shape
    kernel, counts = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    out, n = w.shape[1], len(kernel)
    depth, places = product((channels, *kernel)), product(counts)
    left = reshape(w, shape=(groups, out, depth))
    if batch != 1 and isinstance(places, int) and places < FEW_PLACES:
        order = (1, 2, *range(3, n + 3), 0, *range(n + 3, 2 * n + 3))
        columns = reshape(permute(found, dims=order), shape=(groups, depth, batch * places))
        result = reshape(matmul(left, columns), shape=(groups, out, batch, *counts))
        return permute(result, dims=(2, 0, 1, *range(3, n + 3)))
    columns = reshape(found, shape=(batch, groups, depth, places))
    return reshape(matmul(left, columns), shape=(batch, groups, out, *counts))


def _summed(found: Node, w: Node) -> Node:
    """Groups with one output channel: sums of products, as there is nothing to share."""
    n = (len(found.shape) - 3) // 2
    batch, groups, channels, *rest = found.shape
    kernel, counts = rest[:n], rest[n:]
    places = permute(found, dims=(0, 1, *range(n + 3, 2 * n + 3), 2, *range(3, n + 3)))
    factors = reshape(w, shape=(groups, *(1,) * n, channels, *kernel))
    total = OPS["sum"](places * factors, dims=tuple(range(n + 2, 2 * n + 3)))
    return reshape(total, shape=(batch, groups, 1, *counts))


def _in_phases(x: Node, w: Node, geometry: Geometry) -> Node:
    """A convolution of its own for each phase, the results that lie a spread apart: they take taps of the
    window that no other phase takes, and x as it is. Sizes are known and dilations 1.
    """
    n, spreads = len(geometry.counts), geometry.spreads
    places = [-(-_known(count) // s) for count, s in zip(geometry.counts, spreads, strict=True)]
    phases = []  # for each of the spatial dimensions: first tap, number of taps, zeros before x
    for d, (s, low) in enumerate(zip(spreads, geometry.lows, strict=True)):
        firsts = [(low - p) % s for p in range(s)]
        taps = [len(range(first, _known(w.shape[d + 3]), s)) for first in firsts]
        phases.append([(f, t, (low - p - f) // s) for p, (f, t) in enumerate(zip(firsts, taps, strict=True))])
    found = [_phase(x, w, spreads, places, each) for each in itertools.product(*phases)]
    together = OPS["cat"](*(reshape(part, shape=(1, *part.shape)) for part in found), dim=0)
    lead = tuple(found[0].shape[:3])
    apart = reshape(together, shape=(*spreads, *lead, *places))
    order = itertools.chain.from_iterable((n + 3 + d, d) for d in range(n))
    apart = permute(apart, dims=(n, n + 1, n + 2, *order))
    whole = reshape(apart, shape=(*lead, *(p * s for p, s in zip(places, spreads, strict=True))))
    wanted = (*lead, *geometry.counts)
    if tuple(whole.shape) == wanted:
        return whole
    return slice_(whole, starts=(0,) * len(wanted), steps=(1,) * len(wanted), sizes=wanted)


def _phase(x: Node, w: Node, spreads: Ints, places: list[int], parts: Sequence[Ints]) -> Node:
    """The results of one phase: `parts` are first tap, number of taps, zeros before x in each dimension."""
    ones = (1,) * len(places)
    firsts, taps, lows = zip(*parts, strict=True)
    if 0 in taps:
        shape = (*x.shape[:2], w.shape[1], *places)
        return expand(constant(0.0, x.dtype), shape=shape)
    window = slice_(w, starts=(0, 0, 0, *firsts), steps=(1, 1, 1, *spreads), sizes=(*w.shape[:3], *taps))
    each = zip(places, taps, lows, x.shape[3:], strict=True)
    highs = tuple(place + tap - 1 - low - _known(size) for place, tap, low, size in each)
    return _compose(x, window, **Geometry(ones, ones, ones, lows, highs, tuple(places)).attrs)


def _scattered(x: Node, w: Node, geometry: Geometry) -> Node:
    """Every element of x times the window, added up where they overlap: nothing is multiplied with the zeros
    between elements that are `spread` apart.
    """
    batch, groups, channels, *sizes = x.shape
    kernel, n, out = w.shape[3:], len(geometry.counts), w.shape[1]
    columns = permute(_turned(w), dims=(0, 1, *range(3, n + 3), 2))
    products = matmul(
        reshape(columns, shape=(groups, out * product(kernel), channels)),
        reshape(x, shape=(batch, groups, channels, product(sizes))),
    )
    reaches = [d * (_known(k) - 1) for d, k in zip(geometry.dilations, kernel, strict=True)]
    full = tuple(
        (size - 1) * s + reach + 1 for size, s, reach in zip(sizes, geometry.spreads, reaches, strict=True)
    )
    taps = tuple(range(3, n + 3))
    apart = unslide(
        reshape(products, shape=(batch, groups, out, *kernel, *sizes)),
        dims=tuple(range(n + 3, 2 * n + 3)),
        taps=taps,
        strides=geometry.spreads,
        dilations=geometry.dilations,
        sizes=full,
    )
    added = reshape(OPS["sum"](apart, dims=taps), shape=(batch, groups, out, *full))
    lows = [low - reach for low, reach in zip(geometry.lows, reaches, strict=True)]
    highs = [high - reach for high, reach in zip(geometry.highs, reaches, strict=True)]
    framed = _framed(added, lows, highs, (1,) * n)
    wanted = (batch, groups, out, *geometry.counts)
    if tuple(framed.shape) == wanted:
        return framed
    return slice_(framed, starts=(0,) * len(wanted), steps=(1,) * len(wanted), sizes=wanted)


# ---------------------------------------------------------------------------------------------- samples


_GEOMETRIES: list[tuple[Ints, Ints, Ints, dict[str, Ints]]] = [
    # batch, groups, channels in and out; spatial sizes; window; what isn't as usual
    ((2, 1, 3, 4), (7,), (3,), {}),
    ((2, 1, 2, 3), (6, 5), (3, 2), {"lows": (1, 0), "highs": (1, 2)}),
    ((1, 2, 2, 3), (9,), (3,), {"strides": (2,), "lows": (2,), "highs": (1,)}),
    ((2, 1, 2, 2), (9, 4), (2, 3), {"dilations": (3, 1), "strides": (2, 1)}),
    ((2, 3, 2, 1), (5,), (2,), {"spreads": (2,), "lows": (1,)}),
    ((1, 1, 2, 3), (4, 3), (3, 2), {"spreads": (2, 3), "lows": (2, 1), "highs": (2, -1)}),
    ((3, 1, 2, 2), (6,), (3,), {"lows": (-1,), "highs": (-1,)}),
    ((2, 1, 1, 1), (4, 3, 5), (2, 1, 3), {"strides": (1, 2, 1)}),
    ((1, 1, 2, 2), (5,), (2,), {"spreads": (2,), "strides": (3,), "lows": (3,), "highs": (1,)}),
    ((0, 1, 2, 3), (5,), (2,), {}),
]


def _geometry(sizes: Ints, kernel: Ints, given: dict[str, Ints]) -> Geometry:
    n = len(sizes)
    ones, none = (1,) * n, (0,) * n
    geometry = Geometry(ones, ones, ones, none, none, none)._replace(**given)
    return geometry._replace(counts=geometry.fitting(sizes, kernel))


def _samples(rng: np.random.Generator) -> list[Sample]:
    found = []
    for (batch, groups, channels, out), sizes, kernel, given in _GEOMETRIES:
        x = rng.standard_normal((batch, groups, channels, *sizes))
        w = rng.standard_normal((groups, out, channels, *kernel))
        found.append(Sample((x, w), _geometry(sizes, kernel, given).attrs))
    return found


def _bad_samples(rng: np.random.Generator) -> list[BadSample]:
    good = _geometry((5,), (2,), {})
    x, w = np.ones((1, 1, 2, 5)), np.ones((1, 3, 2, 2))
    return [
        BadSample(
            (x, w),
            good._replace(counts=(5,)).attrs,
            ShapeError,
            "5 places of the window are asked for where 4 fit",
        ),
        BadSample((x, w), good._replace(strides=(0,)).attrs, ShapeError, "have to be positive"),
        BadSample((x, w), good._replace(lows=(0, 0)).attrs, ShapeError, "1 of each attribute"),
        BadSample((x, np.ones((1, 3, 4, 2))), good.attrs, ShapeError, "differ"),
    ]


convolve: Op = register(Op(
    "convolve", "composite", _infer, _numpy, _vjp, _samples, _bad_samples, Composite(_compose), 2,
    "Sums of products of windows of an image, group by group.",
    batch=_batch,
))  # fmt: skip
