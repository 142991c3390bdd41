"""Max unpooling, Vandermonde's matrix, addbmm."""

from __future__ import annotations

import graphflow as gf
import graphflow.nn.functional as F
import numpy as np
import pytest
from graphflow import nn
from graphflow.errors import ShapeError


@pytest.mark.parametrize("n", [1, 2, 3])
def test_unpooling_puts_maxima_back(n: int) -> None:
    x = gf.randn(2, 3, *[7, 6, 4][:n], dtype=gf.float64)
    pool = getattr(nn, f"MaxPool{n}d")(3, stride=2, padding=1, return_indices=True)
    unpool = getattr(nn, f"MaxUnpool{n}d")(3, stride=2, padding=1)
    values, places = pool(x)
    want = np.zeros((2, 3, int(np.prod(x.shape[2:]))))
    flat = places.flatten(2).numpy()
    np.put_along_axis(want, flat, values.flatten(2).numpy(), 2)
    want = want.reshape(x.shape)
    np.testing.assert_array_equal(unpool(values, places, output_size=x.shape).numpy(), want)
    step = gf.compile(lambda v, p: unpool(v, p, output_size=x.shape))
    np.testing.assert_array_equal(step(values, places).numpy(), want)
    np.testing.assert_array_equal(step(values[:1], places[:1]).numpy(), want[:1])
    np.testing.assert_array_equal(unpool(values[0], places[0], output_size=x.shape[2:]).numpy(), want[0])
    pull = gf.compile(gf.grad(lambda v, p: (unpool(v, p, output_size=x.shape) * x).sum()))
    distinct = gf.tensor(np.arange(flat.shape[2]).reshape(places.shape[2:])).expand(*places.shape)
    found = pull(values, distinct).flatten(2).numpy()
    np.testing.assert_array_equal(found, x.flatten(2).numpy()[..., : found.shape[-1]])


def test_unpooling_refuses_what_does_not_fit() -> None:
    values, places = F.max_pool2d(gf.randn(1, 1, 4, 4), 2, return_indices=True)
    assert F.max_unpool2d(values, places, 2).shape == (1, 1, 4, 4)
    with pytest.raises(ShapeError, match="max_unpool2d: indices are int64"):
        F.max_unpool2d(values, places[..., :1], 2)
    with pytest.raises(ValueError, match="max_unpool2d: output_size has to be within a stride of"):
        F.max_unpool2d(values, places, 2, output_size=(9, 4))
    with pytest.raises(IndexError):
        F.max_unpool2d(values, places + 16, 2)


@pytest.mark.parametrize("count", [None, 0, 2, 5])
def test_vander(count: int | None) -> None:
    x = np.array([1.5, -2.0, 0.0])
    for run in (lambda f: f(gf.tensor(x)), lambda f: gf.compile(f)(gf.tensor(x))):
        got = run(lambda x: gf.vander(x, count)).numpy()
        np.testing.assert_allclose(got, np.vander(x, count), rtol=1e-14)
        want = np.vander(x, count, increasing=True)
        np.testing.assert_allclose(run(lambda x: gf.vander(x, count, True)).numpy(), want, rtol=1e-14)
        np.testing.assert_allclose(run(lambda x: gf.linalg.vander(x, N=count)).numpy(), want, rtol=1e-14)
    whole = gf.vander(gf.tensor([1, 2, 3]))
    assert whole.tolist() == np.vander([1, 2, 3]).tolist()
    assert gf.linalg.vander(gf.ones(2, 3)).shape == (2, 3, 3)
    with pytest.raises(ShapeError, match="vander: x has to be a vector"):
        gf.vander(gf.ones(2, 2))


def test_addbmm() -> None:
    x, a, b = gf.randn(2, 4), gf.randn(5, 2, 3), gf.randn(5, 3, 4)
    want = 0.5 * x.numpy() + 2 * np.einsum("bij,bjk->ik", a.numpy(), b.numpy())
    for run in (gf.addbmm, gf.compile(gf.addbmm)):
        np.testing.assert_allclose(run(x, a, b, beta=0.5, alpha=2).numpy(), want, rtol=1e-4, atol=1e-5)
