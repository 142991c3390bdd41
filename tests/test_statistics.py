"""Covariances, histograms, slopes, windows and solvers against NumPy and SciPy, at once and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
import scipy.linalg
import scipy.signal
from graphflow.errors import GraphflowError, LinAlgError, ShapeError

RNG = np.random.default_rng(5)
X = RNG.normal(size=(3, 7))
HOW = {"at once": lambda function: function, "compiled": gf.compile}
how = pytest.mark.parametrize("how", HOW)


def close(got: Any, want: Any, rtol: float = 1e-12) -> None:
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=rtol, atol=1e-13)


@how
def test_covariances(how: str) -> None:
    often, much = np.array([1, 2, 0, 3, 1, 1, 2]), RNG.uniform(0.1, 2, 7)
    run = HOW[how]
    close(run(gf.cov)(gf.tensor(X)), np.cov(X))
    close(run(gf.cov)(gf.tensor(X[0])), np.cov(X[0]))
    close(run(lambda x: gf.cov(x, correction=0))(gf.tensor(X)), np.cov(X, ddof=0))
    weighted = run(lambda x: x.cov(fweights=gf.tensor(often), aweights=gf.tensor(much)))
    close(weighted(gf.tensor(X)), np.cov(X, fweights=often, aweights=much))
    close(run(gf.corrcoef)(gf.tensor(X)), np.corrcoef(X))
    assert gf.corrcoef(gf.tensor(X[0])).item() == 1.0
    with pytest.raises(ShapeError, match="fweights"):
        gf.cov(gf.tensor(X), fweights=gf.tensor([1, 2]))
    assert gf.autograd.gradcheck(gf.cov, (gf.tensor(X, requires_grad=True),))


@how
def test_histograms(how: str) -> None:
    weight = RNG.uniform(size=21).reshape(3, 7)
    edges = np.array([-1.0, -0.2, 0.0, 1.5])
    for options, reference in (
        ({"bins": 5}, {"bins": 5}),
        ({"bins": 4, "range": (-1.0, 2.0)}, {"bins": 4, "range": (-1, 2)}),
        ({"bins": gf.tensor(edges)}, {"bins": edges}),
        ({"bins": 3, "density": True}, {"bins": 3, "density": True}),
        ({"bins": 3, "weight": gf.tensor(weight)}, {"bins": 3, "weights": weight}),
    ):
        found = HOW[how](lambda x, options=options: gf.histogram(x, **options))(gf.tensor(X))
        want, borders = np.histogram(X, **reference)  # type: ignore[call-overload]
        close(found[0], want)
        close(found[1], borders)
    points = RNG.normal(size=(30, 2))
    found = HOW[how](lambda x: gf.histogramdd(x, [3, 4], density=True))(gf.tensor(points))
    want_dd, axes = np.histogramdd(points, [3, 4], density=True)
    close(found[0], want_dd)
    for got, axis in zip(found[1], axes, strict=True):
        close(got, axis)
    for wrong in ({"bins": 0}, {"range": (1.0,)}, {"range": (1.0, 0.0)}, {"weight": gf.ones(2)}):
        with pytest.raises(GraphflowError, match="histogram"):
            gf.histogram(gf.tensor(X), **wrong)


@how
def test_slopes(how: str) -> None:
    times = np.cumsum(RNG.uniform(0.5, 2, 7))
    run = HOW[how]
    for got, want in zip(run(gf.gradient)(gf.tensor(X)), np.gradient(X), strict=True):
        close(got, want)
    for order in (1, 2):
        one = run(lambda x, order=order: gf.gradient(x, spacing=0.3, dim=1, edge_order=order))(gf.tensor(X))
        close(one[0], np.gradient(X, 0.3, axis=1, edge_order=order))
        uneven = run(
            lambda x, order=order: gf.gradient(x, spacing=[gf.tensor(times)], dim=-1, edge_order=order)
        )
        close(uneven(gf.tensor(X))[0], np.gradient(X, times, axis=1, edge_order=order), 1e-10)
    with pytest.raises(ShapeError, match="at least"):
        gf.gradient(gf.ones(1))


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("size", [0, 1, 2, 9])
def test_windows(size: int, periodic: bool) -> None:
    windows: dict[str, Any] = {
        "hann": "hann", "hamming": "hamming", "blackman": "blackman", "bartlett": "bartlett",
        "kaiser": ("kaiser", 12.0),
    }  # fmt: skip
    for name, reference in windows.items():
        made = getattr(gf, f"{name}_window")(size, periodic, dtype=gf.float64)
        want = scipy.signal.get_window(reference, size, periodic) if size else np.zeros(0)
        close(made, want, 1e-10)
    assert gf.hann_window(4).dtype is gf.float32
    with pytest.raises(GraphflowError, match="window_length"):
        gf.hann_window(-1)
    with pytest.raises(TypeError, match="floating"):
        gf.hann_window(3, dtype=gf.int64)


def test_small_makers() -> None:
    assert gf.range(1, 4).tolist() == [1.0, 2.0, 3.0, 4.0]
    assert gf.range(1, 4, 0.5, dtype=gf.float64).tolist() == [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]
    with pytest.raises(ValueError, match="reached"):
        gf.range(4, 1)
    assert gf.scalar_tensor(3).dtype is gf.float32
    memory = bytearray(np.arange(4, dtype=np.int16).tobytes())
    shared = gf.frombuffer(memory, dtype=gf.int16, offset=2)
    assert shared.tolist() == [1, 2, 3]
    memory[2] = 9
    assert shared.tolist() == [9, 2, 3]
    with pytest.raises(ValueError, match="bytes"):
        gf.frombuffer(memory, dtype=gf.int64, count=2)
    assert [t.tolist() for t in gf.unravel_index(gf.tensor([5, 0]), (2, 3))] == [[1, 0], [2, 0]]


@how
def test_positions_in_a_tensor_of_known_size(how: str) -> None:
    x = gf.tensor([[0, 1, 2], [3, 0, 4]])
    for size, fill in ((2, -1), (4, -1), (6, 7), (0, 0)):
        got = HOW[how](lambda x, size=size, fill=fill: gf.nonzero_static(x, size=size, fill_value=fill))(x)
        want = np.full((size, 2), fill)
        places = np.argwhere(x.numpy())[:size]
        want[: len(places)] = places
        assert got.tolist() == want.tolist()


SQUARE = RNG.normal(size=(2, 4, 4))
POSITIVE = SQUARE @ SQUARE.transpose(0, 2, 1) + np.eye(4)
FACTOR = np.linalg.cholesky(POSITIVE)
RIGHT = RNG.normal(size=(2, 4, 3))
SOLVED: dict[str, tuple[Callable[..., Any], list[np.ndarray], Callable[[], Any]]] = {
    "cholesky_solve": (gf.cholesky_solve, [RIGHT, FACTOR], lambda: np.linalg.solve(POSITIVE, RIGHT)),
    "cholesky_inverse": (gf.cholesky_inverse, [FACTOR], lambda: np.linalg.inv(POSITIVE)),
    "triangular_solve": (
        lambda b, a: gf.triangular_solve(b, a, upper=False).solution, [RIGHT, FACTOR],
        lambda: np.linalg.solve(FACTOR, RIGHT),
    ),
    "matrix_exp": (gf.matrix_exp, [SQUARE], lambda: scipy.linalg.expm(SQUARE)),
    "matrix_exp large": (gf.matrix_exp, [SQUARE * 20], lambda: scipy.linalg.expm(SQUARE * 20)),
    "inv_ex": (lambda a: gf.linalg.inv_ex(a).inverse, [SQUARE], lambda: np.linalg.inv(SQUARE)),
    "solve_ex": (
        lambda a, b: gf.linalg.solve_ex(a, b).result, [SQUARE, RIGHT], lambda: np.linalg.solve(SQUARE, RIGHT)
    ),
    "cholesky_ex": (lambda a: gf.linalg.cholesky_ex(a).L, [POSITIVE], lambda: FACTOR),
    "vecdot": (gf.linalg.vecdot, [RIGHT, RIGHT], lambda: (RIGHT * RIGHT).sum(-1)),
    "tensorinv": (
        gf.linalg.tensorinv, [SQUARE[0].reshape(2, 2, 4)],
        lambda: np.linalg.tensorinv(SQUARE[0].reshape(2, 2, 4)),
    ),
    "tensorsolve": (
        gf.linalg.tensorsolve, [SQUARE[0].reshape(2, 2, 4), SQUARE[1][:2, :2]],
        lambda: np.linalg.tensorsolve(SQUARE[0].reshape(2, 2, 4), SQUARE[1][:2, :2]),
    ),
    "addr": (
        gf.addr, [RIGHT[0], RIGHT[0, :, 0], RIGHT[0, 0]],
        lambda: RIGHT[0] + np.outer(RIGHT[0, :, 0], RIGHT[0, 0]),
    ),
}  # fmt: skip


@how
@pytest.mark.parametrize("name", SOLVED)
def test_solvers(name: str, how: str) -> None:
    function, operands, reference = SOLVED[name]
    want = reference()
    found = HOW[how](function)(*map(gf.tensor, operands))
    np.testing.assert_allclose(found.numpy(), want, rtol=1e-9, atol=1e-12 * np.abs(want).max())


def test_failures_without_an_error() -> None:
    bad = gf.zeros(2, 2)
    assert gf.linalg.inv_ex(bad).info.item() == 1
    assert gf.linalg.cholesky_ex(-gf.eye(2)).info.item() == 1
    assert gf.linalg.solve_ex(gf.eye(2), gf.ones(2)).info.item() == 0
    with pytest.raises(LinAlgError):
        gf.linalg.inv_ex(bad, check_errors=True)
    assert gf.autograd.gradcheck(gf.matrix_exp, (gf.tensor(SQUARE[0], requires_grad=True),))
