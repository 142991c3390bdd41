"""Products by labels, diagonals, grids and pieces beside NumPy, at once and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest

RNG = np.random.default_rng(3)


def _draw(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    return [RNG.standard_normal(s) for s in shapes]


EQUATIONS = [
    ("ij,jk->ik", (2, 3), (3, 4)),
    ("bij,bjk", (2, 3, 4), (2, 4, 5)),
    ("ii->i", (3, 3)),
    ("iij->ji", (3, 3, 2)),
    ("...ij,...jk->...ik", (2, 1, 3, 4), (5, 4, 2)),
    ("i,j", (3,), (4,)),
    ("bn,anm,bm->ba", (2, 5), (3, 5, 4), (2, 4)),
    ("i...->...", (2, 3, 4)),
]


@pytest.mark.parametrize("case", EQUATIONS, ids=lambda c: c[0])
def test_einsum(case: tuple[Any, ...]) -> None:
    equation, *shapes = case
    arrays = _draw(*shapes)
    tensors = [gf.tensor(a, requires_grad=True) for a in arrays]
    expected = np.einsum(equation, *arrays)
    found = gf.einsum(equation, *tensors)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-12)
    compiled = gf.compile(lambda *ts: gf.einsum(equation, *ts))(*map(gf.tensor, arrays))
    np.testing.assert_allclose(compiled.numpy(), expected, atol=1e-12)
    (found * found).sum().backward()
    for n, t in enumerate(tensors):  # a product is linear in each operand
        moved = RNG.standard_normal(arrays[n].shape)
        change = np.einsum(equation, *arrays[:n], moved, *arrays[n + 1 :])
        np.testing.assert_allclose((t.grad.numpy() * moved).sum(), (2 * expected * change).sum(), rtol=1e-9)


def test_einsum_with_numbers_for_labels() -> None:
    a, b = _draw((2, 3), (3, 4))
    found = gf.einsum(gf.tensor(a), [0, 1], gf.tensor(b), [1, 2], [2, 0])
    np.testing.assert_allclose(found.numpy(), (a @ b).T)


X, CUBE = _draw((3, 4), (4, 8, 2))
FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[np.ndarray], Any], np.ndarray]] = {
    "tensordot": (lambda t: gf.tensordot(t, t, ([1], [1])), lambda x: np.tensordot(x, x, ([1], [1])), X),
    "kron": (lambda t: gf.kron(t, t[:1]), lambda x: np.kron(x, x[:1]), X),
    "inner": (lambda t: gf.inner(t, t[:2]), lambda x: np.inner(x, x[:2]), X),
    "cross": (lambda t: gf.cross(t[:, :3], t[:, 1:]), lambda x: np.cross(x[:, :3], x[:, 1:], axis=0), X),
    "diagonal": (lambda t: gf.diagonal(t, 1), lambda x: np.diagonal(x, 1), X),
    "diag": (lambda t: gf.diag(t[0], -1), lambda x: np.diag(x[0], -1), X),
    "diagflat": (lambda t: gf.diagflat(t), lambda x: np.diagflat(x), X),
    "trace": (lambda t: t.trace(), np.trace, X),
    "rot90": (lambda t: gf.rot90(t, 3), lambda x: np.rot90(x, 3), X),
    "fliplr": (lambda t: t.fliplr(), np.fliplr, X),
    "flipud": (lambda t: t.flipud(), np.flipud, X),
    "repeat_interleave": (lambda t: t.repeat_interleave(2, 1), lambda x: np.repeat(x, 2, 1), X),
    "meshgrid": (
        lambda t: gf.meshgrid(t[0], t[:, 0], indexing="xy")[1],
        lambda x: np.meshgrid(x[0], x[:, 0])[1],
        X,
    ),
    "tensor_split": (lambda t: t.tensor_split(3, 1)[2], lambda x: np.array_split(x, 3, 1)[2], CUBE),
    "hsplit": (lambda t: t.hsplit(4)[1], lambda x: np.hsplit(x, 4)[1], CUBE),
    "vsplit": (lambda t: t.vsplit((1, 3))[1], lambda x: np.vsplit(x, (1, 3))[1], CUBE),
    "dstack": (lambda t: gf.dstack([t, t]), lambda x: np.dstack([x, x]), X),
    "column_stack": (lambda t: gf.column_stack([t[0], t[1]]), lambda x: np.column_stack([x[0], x[1]]), X),
    "atleast_3d": (lambda t: gf.atleast_3d(t), np.atleast_3d, X),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str) -> None:
    function, reference, x = FUNCTIONS[name]
    for found in (function(gf.tensor(x)), gf.compile(function)(gf.tensor(x))):
        np.testing.assert_allclose(found.numpy(), reference(x), atol=1e-12)


def test_blocks_and_choices() -> None:
    a, b = gf.ones(2, 1), gf.tensor([[3.0, 4.0]])
    assert gf.block_diag(a, b).tolist() == [[1, 0, 0], [1, 0, 0], [0, 3, 4]]
    assert gf.cartesian_prod(gf.tensor([1, 2]), gf.tensor([3, 4])).tolist() == [
        [1, 3],
        [1, 4],
        [2, 3],
        [2, 4],
    ]
    assert gf.combinations(gf.tensor([1, 2, 3])).tolist() == [[1, 2], [1, 3], [2, 3]]
    assert gf.tril_indices(2, 2).tolist() == [[0, 1, 1], [0, 0, 1]]
    assert gf.tensor([5, 6, 7]).repeat_interleave(gf.tensor([1, 0, 2])).tolist() == [5, 7, 7]
    t = gf.zeros(3, 3)
    t.diagonal()[:] = 1.0
    assert t.tolist() == np.eye(3).tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: gf.einsum("ij,jk", t), "describes 2 operands"),
        (lambda t: gf.einsum("ijk", t), "don't fit"),
        (lambda t: gf.einsum("ij->iz", t), "labels of operands"),
        (lambda t: gf.einsum("ij,ij", t, t.mT), "differ"),
        (lambda t: t.hsplit(3), "equal pieces"),
        (lambda t: gf.diagonal(t, 0, 1, 1), "two different dimensions"),
        (lambda t: gf.cross(t[:, :2], t[:2, :2].mT), r"size 3|broadcast"),
        (lambda t: t.repeat_interleave(-1), "negative"),
    ],
)
def test_bad_arguments(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(gf.tensor(X))
