"""Linear algebra beside NumPy, at once and compiled; gradients beside finite differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest

RNG = np.random.default_rng(5)
A = RNG.standard_normal((2, 3, 3)) + 2 * np.eye(3)
S = A @ A.transpose(0, 2, 1) + np.eye(3)
TALL = RNG.standard_normal((4, 3))
WIDE = RNG.standard_normal((3, 5))
B = RNG.standard_normal((2, 3, 2))


def _close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-10)


VALUES: dict[str, tuple[Callable[[Any], Any], np.ndarray, Callable[[np.ndarray], Any]]] = {
    "solve": (lambda a: gf.linalg.solve(a, gf.tensor(B)), A, lambda a: np.linalg.solve(a, B)),
    "inv": (gf.linalg.inv, A, np.linalg.inv),
    "det": (gf.linalg.det, A, np.linalg.det),
    "slogdet": (lambda a: gf.linalg.slogdet(a).logabsdet, A, lambda a: np.linalg.slogdet(a)[1]),
    "cholesky": (lambda a: gf.linalg.cholesky(0.5 * (a + a.mT)), S, np.linalg.cholesky),
    "eigvalsh": (lambda a: gf.linalg.eigvalsh(0.5 * (a + a.mT)), S, np.linalg.eigvalsh),
    "svdvals": (gf.linalg.svdvals, TALL, lambda a: np.linalg.svd(a)[1]),
    "svd": (lambda a: (lambda r: r.U.square() @ r.Vh)(gf.linalg.svd(a, False)), WIDE, lambda a: _svd(a)),
    "qr": (lambda a: gf.linalg.qr(a).R, WIDE, lambda a: np.linalg.qr(a)[1]),
    "pinv": (gf.linalg.pinv, TALL, np.linalg.pinv),
    "matrix_power": (lambda a: gf.linalg.matrix_power(a, -3), A, lambda a: np.linalg.matrix_power(a, -3)),
    "nuclear": (lambda a: gf.linalg.norm(a, "nuc"), TALL, lambda a: np.linalg.norm(a, "nuc")),
    "norm_1": (lambda a: gf.linalg.norm(a, 1), TALL, lambda a: np.linalg.norm(a, 1)),
    "cond": (gf.linalg.cond, TALL, np.linalg.cond),
    "triangular": (
        lambda a: gf.linalg.solve_triangular(a, gf.tensor(B), upper=True),
        A,
        lambda a: np.linalg.solve(np.triu(a), B),
    ),
}


def _svd(a: np.ndarray) -> np.ndarray:
    u, _, vh = np.linalg.svd(a, full_matrices=False)
    signs = np.sign(np.take_along_axis(u, np.abs(u).argmax(0)[None], 0))[0]
    return (u * u) @ (vh * signs[:, None])


@pytest.mark.parametrize("name", VALUES)
def test_values_and_gradients(name: str) -> None:
    function, x, reference = VALUES[name]
    _close(function(gf.tensor(x)), reference(x))
    _close(gf.compile(function)(gf.tensor(x)), reference(x))

    def loss(a: Any) -> Any:
        y = function(a)
        return (y * y * 0.3 + y).sum()

    expected = np.zeros(x.shape)
    for at in np.ndindex(x.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = x.copy()
            moved[at] += step
            ends.append(float(loss(gf.tensor(moved))))
        expected[at] = (ends[0] - ends[1]) / 2e-6
    for found in (gf.grad(loss)(gf.tensor(x)), gf.compile(gf.grad(loss))(gf.tensor(x))):
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    "x", [A, TALL, WIDE, np.zeros((3, 2)), np.ones((4, 3)), RNG.standard_normal((40, 40))]
)
def test_factors_multiply_to_the_matrix(x: np.ndarray) -> None:
    @gf.compile
    def compiled(a: Any) -> Any:
        return (*gf.linalg.svd(a, full_matrices=False), *gf.linalg.qr(a), *gf.linalg.eigh(a @ a.mT))

    for u, s, vh, q, r, w, v in (compiled(gf.tensor(x)), compiled.__wrapped__(gf.tensor(x))):
        _close((u * s.unsqueeze(-2)) @ vh, x)
        _close(q @ r, x)
        np.testing.assert_allclose(
            ((v * w.unsqueeze(-2)) @ v.mT).numpy(), x @ np.swapaxes(x, -1, -2), atol=1e-9
        )
        for columns in (u, vh.mT, q, v):
            _close(
                columns.mT @ columns, np.broadcast_to(np.eye(columns.shape[-1]), (columns.mT @ columns).shape)
            )


def test_full_factors() -> None:
    for x in (TALL, WIDE):
        u, _, vh = gf.linalg.svd(gf.tensor(x))
        assert u.shape == (len(x), len(x))
        assert vh.shape == (x.shape[1],) * 2
        _close(u @ u.mT, np.eye(len(x)))
        _close(vh @ vh.mT, np.eye(x.shape[1]))
        q, r = gf.linalg.qr(gf.tensor(x), "complete")
        _close(q @ r, x)
        assert q.shape == (len(x), len(x))


def test_one_compiled_function_for_every_batch() -> None:
    fn = gf.compile(lambda a, b: (gf.linalg.solve(a, b), gf.linalg.det(a)))
    for size in (3, 1, 7, 0):
        a, b = RNG.standard_normal((size, 3, 3)) + 2 * np.eye(3), RNG.standard_normal((size, 3, 2))
        x, d = fn(gf.tensor(a), gf.tensor(b))
        _close(x, np.linalg.solve(a, b))
        _close(d, np.linalg.det(a))
    assert len(fn.explain().variants) == 1


def test_least_squares_and_rank() -> None:
    b = RNG.standard_normal((4, 2))
    found = gf.linalg.lstsq(gf.tensor(TALL), gf.tensor(b))
    x, residuals, rank, _ = np.linalg.lstsq(TALL, b, rcond=None)
    _close(found.solution, x)
    _close(found.residuals, residuals)
    assert found.rank.item() == rank
    deficient = TALL.copy()
    deficient[:, 2] = deficient[:, 0] - deficient[:, 1]
    assert gf.linalg.matrix_rank(gf.tensor(deficient)).item() == 2
    _close(gf.linalg.pinv(gf.tensor(deficient)), np.linalg.pinv(deficient, rcond=1e-12))
    chain = [TALL, WIDE, RNG.standard_normal((5, 2))]
    _close(gf.linalg.multi_dot([gf.tensor(m) for m in chain]), np.linalg.multi_dot(chain))


def test_matrices_without_a_result() -> None:
    singular, vector = gf.ones(2, 2), gf.ones(2, 1)
    for call in (
        lambda: gf.linalg.inv(singular),
        lambda: gf.linalg.solve(singular, vector),
        lambda: gf.linalg.cholesky(-singular),
    ):
        with pytest.raises(gf.linalg.LinAlgError, match=r"singular|positive definite"):
            call()
    assert np.isnan(gf.compile(gf.linalg.inv)(singular).numpy()).all()
    assert np.isnan(gf.compile(gf.linalg.cholesky)(-singular).numpy()).all()
    assert gf.linalg.det(singular).item() == 0
    with pytest.raises(ValueError, match="square"):
        gf.linalg.det(gf.ones(2, 3))
    with pytest.raises(TypeError, match="floating point"):
        gf.linalg.inv(gf.ones(2, 2).long())


def test_pinv_of_a_symmetric_matrix_reads_the_lower_triangle() -> None:
    rng = np.random.default_rng(3)
    lower = np.tril(rng.standard_normal((2, 4, 4)))
    symmetric = lower + np.swapaxes(np.tril(lower, -1), 1, 2)
    symmetric[1] = np.outer(symmetric[1, 0], symmetric[1, 0])  # of rank 1
    lower[1] = np.tril(symmetric[1])
    found = gf.linalg.pinv(gf.tensor(lower), hermitian=True)
    _close(found, np.linalg.pinv(symmetric, hermitian=True))
    _close(gf.pinverse(gf.tensor(symmetric), 1e-10), np.linalg.pinv(symmetric))


def test_lstsq_tells_what_the_driver_tells() -> None:
    b = np.arange(float(TALL.shape[0]))
    found = gf.linalg.lstsq(gf.tensor(TALL), gf.tensor(b), driver="gelsd")
    x, residuals, rank, singular = np.linalg.lstsq(TALL, b, rcond=None)
    _close(found.solution, x)
    _close(found.residuals, residuals)
    assert found.rank.item() == rank
    _close(found.singular_values, singular)
    assert gf.linalg.lstsq(gf.tensor(TALL), gf.tensor(b), driver="gels").rank.shape == (0,)
    assert gf.linalg.lstsq(gf.tensor(TALL), gf.tensor(b)).singular_values.shape == (0,)
    deficient = np.ones((4, 2))
    assert gf.linalg.lstsq(gf.tensor(deficient), gf.ones(4, 1, dtype=gf.float64)).residuals.shape == (0,)
    with pytest.raises(ValueError, match="same number of rows"):
        gf.linalg.lstsq(gf.tensor(TALL), gf.ones(2, 1, dtype=gf.float64))
    with pytest.raises(ValueError, match="driver is one of"):
        gf.linalg.lstsq(gf.tensor(TALL), gf.tensor(b), driver="qr")
