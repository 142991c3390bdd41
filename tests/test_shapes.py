"""Rearranging, indexing, assigning and multiplying tensors: NumPy's results, alike at once and traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lives import both, eager, same, traced

RNG = np.random.default_rng(8)

# ---------------------------------------------------------------------------------------------- shapes

SHAPES: list[tuple[Callable[[Any], Any], Callable[[np.ndarray], Any]]] = [
    (lambda t: t.reshape(4, 6), lambda a: a.reshape(4, 6)),
    (lambda t: t.reshape((6, -1)), lambda a: a.reshape(6, -1)),
    (lambda t: t.view(-1), lambda a: a.reshape(-1)),
    (lambda t: t.flatten(1), lambda a: a.reshape(2, 12)),
    (lambda t: t.flatten(0, 1), lambda a: a.reshape(6, 4)),
    (lambda t: t.unsqueeze(-1).unsqueeze(0), lambda a: a[None, ..., None]),
    (lambda t: t.unsqueeze(1).squeeze(), lambda a: a),
    (lambda t: t.transpose(0, -1), lambda a: a.swapaxes(0, -1)),
    (lambda t: t.permute(2, 0, 1), lambda a: a.transpose(2, 0, 1)),
    (lambda t: t.mT, lambda a: a.swapaxes(1, 2)),
    (lambda t: t.T, lambda a: a.T),
    (lambda t: t.movedim(0, 2), lambda a: np.moveaxis(a, 0, 2)),
    (lambda t: t.movedim((0, 1), (2, 0)), lambda a: np.moveaxis(a, (0, 1), (2, 0))),
    (lambda t: t.expand(5, 2, 3, 4), lambda a: np.broadcast_to(a, (5, 2, 3, 4))),
    (lambda t: t.repeat(1, 2, 3), lambda a: np.tile(a, (1, 2, 3))),
    (lambda t: gf.tile(t, (2, 2)), lambda a: np.tile(a, (2, 2))),
    (lambda t: gf.cat([t, t * 2], 1), lambda a: np.concatenate([a, a * 2], 1)),
    (lambda t: gf.stack([t, t * 2], -1), lambda a: np.stack([a, a * 2], -1)),
    (lambda t: gf.split(t, 3, 2), lambda a: [a[..., :3], a[..., 3:]]),
    (lambda t: t.split([1, 2], dim=1), lambda a: [a[:, :1], a[:, 1:]]),
    (lambda t: t.chunk(2, 1), lambda a: [a[:, :2], a[:, 2:]]),
    (lambda t: t.unbind(1), lambda a: [a[:, 0], a[:, 1], a[:, 2]]),
    (lambda t: t.flip(1, 2), lambda a: np.flip(a, (1, 2))),
    (lambda t: t.roll(1, 1), lambda a: np.roll(a, 1, 1)),
    (lambda t: gf.roll(t, 5), lambda a: np.roll(a, 5)),
    (lambda t: t.tril(1), lambda a: np.tril(a, 1)),
    (lambda t: t.triu(-1), lambda a: np.triu(a, -1)),
    (lambda t: t.narrow(2, 1, 2), lambda a: a[..., 1:3]),
    (lambda t: t.select(1, -1), lambda a: a[:, -1]),
    (lambda t: t.unflatten(2, (2, -1)), lambda a: a.reshape(2, 3, 2, 2)),
]


@pytest.mark.parametrize("case", range(len(SHAPES)))
def test_shape_functions_are_numpys(case: int) -> None:
    function, reference = SHAPES[case]
    array = RNG.standard_normal((2, 3, 4))
    wanted = reference(array)
    wanted = [np.asarray(w) for w in (wanted if isinstance(wanted, list) else [wanted])]
    same(both(function, array), wanted)


@given(
    shape=hnp.array_shapes(max_dims=3, max_side=4, min_side=0),
    key=st.data(),
)
def test_basic_indexing_is_numpys(shape: tuple[int, ...], key: Any) -> None:
    array = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape)
    index = key.draw(hnp.basic_indices(shape, allow_newaxis=True))
    got = gf.from_numpy(array)[index]
    wanted = array[index]
    np.testing.assert_array_equal(got.numpy(), wanted)
    if wanted.size:
        assert np.shares_memory(got.numpy(), array)
    same(traced(lambda t: t[index], array), [np.asarray(wanted)])


@given(shape=hnp.array_shapes(min_dims=1, max_dims=3, max_side=4), key=st.data())
def test_basic_assignment_is_numpys(shape: tuple[int, ...], key: Any) -> None:
    array = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape)
    index = key.draw(hnp.basic_indices(shape))
    value = np.float64(-1.5)

    def assign(t: Any) -> Any:
        t = t.clone()
        t[index] = -1.5
        return t

    wanted = array.copy()
    wanted[index] = value
    same(both(assign, array), [wanted])


ADVANCED: list[Any] = [
    lambda i, j: i,
    lambda i, j: (slice(None), j),
    lambda i, j: (i, j),
    lambda i, j: (i, slice(None), j),
    lambda i, j: (Ellipsis, j),
    lambda i, j: (i[:, None], j[None]),
    lambda i, j: (slice(1, None), j),
    lambda i, j: (None, i),
]


@pytest.mark.parametrize("case", range(len(ADVANCED)))
def test_integer_tensors_index_as_in_numpy(case: int) -> None:
    array = RNG.standard_normal((3, 4, 5))
    i, j = np.array([0, 2, -1]), np.array([1, -1, 3])
    key = ADVANCED[case]
    wanted = array[key(i, j)]
    same(both(lambda t, a, b: t[key(a, b)], array, i, j), [wanted])
    np.testing.assert_array_equal(gf.tensor(array)[key(i, j)].numpy(), wanted)

    def assign(t: Any, a: Any, b: Any) -> Any:
        t = t.clone()
        t[key(a, b)] = 0.5
        return t

    changed = array.copy()
    changed[key(i, j)] = 0.5
    same(both(assign, array, i, j), [changed])


def test_assignment_at_repeated_positions_keeps_the_last() -> None:
    def assign(t: Any, index: Any, value: Any) -> Any:
        t = t.clone()
        t[index] = value
        return t

    found = both(assign, np.zeros((3, 2)), np.array([1, 1, 0]), np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(found[0], [[4, 5], [2, 3], [0, 0]])


def test_bool_masks_read_and_write() -> None:
    array = RNG.standard_normal((3, 4))
    mask = array > 0
    x = gf.tensor(array)
    np.testing.assert_array_equal(x[x > 0].numpy(), array[mask])
    np.testing.assert_array_equal(x[gf.tensor(mask[:, 0])].numpy(), array[mask[:, 0]])
    np.testing.assert_array_equal(gf.nonzero(x > 0).numpy(), np.argwhere(mask))
    x[x > 0] = 0
    np.testing.assert_array_equal(x.numpy(), np.where(mask, 0, array))
    same(traced(lambda t: t.clone().masked_fill_(t > 0, 0), array), [np.where(mask, 0, array)])
    with pytest.raises(gf.errors.TraceError, match=r"gf\.where"):
        traced(lambda t: t[t > 0], array)


def test_gather_scatter_take_and_one_hot() -> None:
    a = RNG.standard_normal((3, 4))
    i = RNG.integers(0, 4, (3, 2))
    rows = np.array([0, 2, 2])
    same(both(lambda t, k: gf.gather(t, 1, k), a, i), [np.take_along_axis(a, i, 1)])
    same(both(lambda t, k: gf.index_select(t, 0, k), a, rows), [a[rows]])
    same(both(lambda t, k: gf.take(t, k), a, rows), [np.take(a, rows)])
    same(both(lambda t: gf.take_along_dim(t, t.argmax(1, keepdim=True), 1), a), [a.max(1, keepdims=True)])
    added = np.zeros((3, 5))
    for r in range(3):
        for c in range(2):
            added[r, i[r, c]] += a[r, c]
    same(both(lambda t, k: gf.zeros(3, 5, dtype=gf.float64).scatter_add(1, k, t[:, :2]), a, i), [added])
    same(both(lambda k: gf.one_hot(k, 4), i), [np.eye(4, dtype=np.int64)[i]])
    assert gf.one_hot(gf.tensor([0, 2])).tolist() == [[1, 0, 0], [0, 0, 1]]
    summed = a.copy()
    np.add.at(summed, rows, a)
    same(both(lambda t, k: t.index_add(0, k, t), a, rows), [summed])


# -------------------------------------------------------------------------------------------- matrix products

RANKS = [
    ((4,), (4,)), ((3, 4), (4,)), ((4,), (4, 5)), ((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (4,)),
    ((4,), (2, 4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (6, 4, 5)), ((3, 0), (0, 2)), ((0, 4), (4, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), RANKS)
def test_matmul_takes_every_combination_of_ranks(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    a, b = RNG.standard_normal(left), RNG.standard_normal(right)
    same(both(lambda x, y: x @ y, a, b), [np.asarray(a @ b)], rtol=1e-10)
    i, j = (10 * a).astype(np.int64), (10 * b).astype(np.int64)
    same(eager(gf.matmul, i, j), [np.asarray(i @ j)])


def test_named_products() -> None:
    a, b, v = RNG.standard_normal((3, 4)), RNG.standard_normal((4, 5)), RNG.standard_normal(4)
    c = RNG.standard_normal((3, 5))
    batch = RNG.standard_normal((2, 3, 4))
    same(both(gf.mm, a, b), [a @ b])
    same(both(gf.mv, a, v), [a @ v])
    same(both(gf.dot, v, v), [np.asarray(v @ v)])
    same(both(gf.outer, v, v), [np.outer(v, v)])
    same(both(gf.bmm, batch, batch.swapaxes(1, 2)), [batch @ batch.swapaxes(1, 2)])
    same(both(lambda x, y, z: gf.addmm(z, x, y, beta=0.5, alpha=2), a, b, c), [0.5 * c + 2 * (a @ b)])
    same(both(lambda x: x.t() @ x, a), [a.T @ a])


def test_a_symbolic_size_of_one_stays_one_when_expanded() -> None:
    compiled = gf.compile(lambda x: x.expand(2, 1, 5))
    assert compiled(gf.ones(1, 5)).shape == (2, 1, 5)


def test_logsumexp_of_a_scalar_and_squeeze_of_no_dimensions() -> None:
    assert gf.logsumexp(gf.tensor(1231.0), 0).item() == 1231.0
    assert gf.ones(1, 1).squeeze(()).shape == (1, 1)


def test_where_with_a_condition_alone_gives_positions() -> None:
    rows, columns = gf.where(gf.tensor([[0, 1], [1, 0]]) > 0)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])
    with pytest.raises(TypeError, match="or neither"):
        gf.where(gf.tensor([True]), 1.0)


def test_integer_products_of_arguments_agree_on_the_inner_size() -> None:
    compiled = gf.compile(lambda a, b: a @ b)
    a, b = gf.arange(6).reshape(2, 3), gf.arange(12).reshape(3, 4)
    assert compiled(a, b).tolist() == (a.numpy() @ b.numpy()).tolist()
    with pytest.raises(gf.errors.ShapeError, match="inner sizes differ"):
        compiled(a, gf.ones(2, 4, dtype=gf.int64))
