"""Borders against ``numpy.pad``, eagerly and compiled."""

from __future__ import annotations

from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.nn import functional as F

RNG = np.random.default_rng(8)
NUMPY_MODES: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}

CASES = [
    ("constant", (4,), (2, 1)),
    ("constant", (2, 3, 4), (1, 0, 0, 2, 3, 1)),
    ("constant", (3, 4), (-1, 2, 1, -2)),
    ("reflect", (2, 4), (3, 2)),
    ("reflect", (2, 3, 4, 5), (2, 4, 3, 0)),
    ("replicate", (2, 3), (4, 1)),
    ("replicate", (2, 1, 2, 3, 2), (1, 2, 0, 3, 2, 1)),
    ("circular", (2, 3, 4), (4, 2)),
    ("circular", (1, 2, 3, 3), (3, 0, 1, 2)),
]


def wanted(x: np.ndarray, pad: tuple[int, ...], mode: str, value: float) -> np.ndarray:
    pairs = [(0, 0)] * (x.ndim - len(pad) // 2) + [pad[i : i + 2] for i in range(len(pad) - 2, -1, -2)]
    room = [(max(low, 0), max(high, 0)) for low, high in pairs]
    options = {"constant_values": value} if mode == "constant" else {}
    full = np.pad(x, room, mode=NUMPY_MODES.get(mode, "constant"), **options)
    return full[
        tuple(slice(max(-low, 0), s + min(high, 0)) for (low, high), s in zip(pairs, full.shape, strict=True))
    ]


@pytest.mark.parametrize(("mode", "shape", "pad"), CASES, ids=str)
def test_borders_are_numpys(mode: str, shape: tuple[int, ...], pad: tuple[int, ...]) -> None:
    value = 2.5 if mode == "constant" else None
    x = RNG.standard_normal(shape)
    expected = wanted(x, pad, mode, 2.5)

    def loss(t: gf.Tensor) -> gf.Tensor:
        return (F.pad(t, pad, mode, value) ** 3).sum()

    def step(t: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
        return F.pad(t, pad, mode, value), gf.grad(loss)(t)

    compiled = gf.compile(step)
    # Which elements the border repeats, by padding their numbers.
    numbers = wanted(np.arange(1.0, x.size + 1).reshape(shape), pad, mode, 0.0).astype(int)
    slope = np.bincount(numbers.ravel(), (3 * expected**2).ravel(), x.size + 1)[1:].reshape(shape)
    for function in (step, compiled):
        result, gradient = function(gf.tensor(x))
        np.testing.assert_array_equal(result.numpy(), expected)
        np.testing.assert_allclose(gradient.numpy(), slope, rtol=1e-12)


def test_one_variant_for_all_batch_sizes() -> None:
    for mode in ("constant", *NUMPY_MODES):
        compiled = gf.compile(lambda x, mode=mode: F.pad(x, (1, 2, 2, 0), mode))
        for batch in (2, 5, 1):
            x = RNG.standard_normal((batch, 2, 3, 4))
            np.testing.assert_array_equal(compiled(gf.tensor(x)).numpy(), wanted(x, (1, 2, 2, 0), mode, 0.0))
        assert len(compiled.variants) == 1


def test_other_dtypes_take_constants_of_theirs() -> None:
    assert F.pad(gf.tensor([1, 2]), (1, 1), value=7).tolist() == [7, 1, 2, 7]
    assert F.pad(gf.tensor([True]), (0, 1), value=True).tolist() == [True, True]
    assert F.pad(gf.tensor([1.0]), (1, 0), value=float("-inf")).tolist() == [float("-inf"), 1.0]


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda x: F.pad(x, (1,)), ValueError, "takes two for each padded dimension"),
        (lambda x: F.pad(x, (1,) * 10), ValueError, "takes two for each padded dimension"),
        (lambda x: F.pad(x, (1.5, 1)), TypeError, "takes integers"),
        (lambda x: F.pad(x, (-3, -2)), ValueError, "negative output size"),
        (lambda x: F.pad(x, (1, 1), "mirror"), NotImplementedError, "unrecognised padding mode mirror"),
        (lambda x: F.pad(x, (1, 1), "reflect"), NotImplementedError, "only 2D, 3D, 4D, 5D"),
        (lambda x: F.pad(x, (4, 0, 0, 0), "reflect"), ValueError, "at least 5 elements"),
        (lambda x: F.pad(x, (5, 0, 0, 0), "circular"), ValueError, "at least 5 elements"),
        (lambda x: F.pad(x[..., :0], (1, 0, 0, 0), "replicate"), ValueError, "at least 1 elements"),
        (lambda x: F.pad(x, (1, 1, 0, 0), "circular", 1.0), ValueError, "doesn't take in value"),
        (lambda x: nn.ZeroPad2d((1, 2)), ValueError, "takes 1 or 4 numbers"),
    ],
)
def test_mistakes_are_told(act, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        act(gf.ones(2, 3, 4, 4))


def test_layers() -> None:
    x = RNG.standard_normal((1, 2, 3, 4))
    for mode, layers in {
        "constant": (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d),
        "reflect": (nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReflectionPad3d),
        "replicate": (nn.ReplicationPad1d, nn.ReplicationPad2d, nn.ReplicationPad3d),
        "circular": (nn.CircularPad1d, nn.CircularPad2d, nn.CircularPad3d),
    }.items():
        for rank, layer in enumerate(layers, 1):
            operand = x if rank > 1 else x[0]
            expected = wanted(operand, (1,) * 2 * rank, mode, 0.0)
            np.testing.assert_array_equal(layer(1)(gf.tensor(operand)).numpy(), expected)
    constant = nn.ConstantPad2d((1, 0, 2, 0), 3.5)
    np.testing.assert_array_equal(constant(gf.tensor(x)).numpy(), wanted(x, (1, 0, 2, 0), "constant", 3.5))
    assert repr(constant) == "ConstantPad2d(padding=(1, 0, 2, 0), value=3.5)"
    assert repr(nn.ZeroPad2d(1)) == "ZeroPad2d((1, 1, 1, 1))"
