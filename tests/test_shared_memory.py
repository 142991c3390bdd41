"""Memory that tensors share with NumPy and with each other, eagerly and while tracing."""

from __future__ import annotations

from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import GradientError, TraceError

from lives import both, traced

RNG = np.random.default_rng(3)

def test_numpy_and_tensors_share_memory_both_ways() -> None:
    array = np.zeros((2, 3), np.float32)
    x = gf.from_numpy(array)
    array[0, 0] = 5
    x[1, 2] = 7
    x.t()[1] = 3
    assert x.tolist() == [[5, 3, 0], [0, 3, 7]] and array.tolist() == x.tolist()
    assert np.shares_memory(x.numpy(), array) and np.shares_memory(np.asarray(x), array)
    assert gf.as_tensor(x) is x and np.shares_memory(gf.as_tensor(array).numpy(), array)
    assert not np.shares_memory(gf.tensor(array).numpy(), array)
    x.add_(1)
    assert array[0, 0] == 6
    backwards = np.arange(3.0)[::-1]
    gf.from_numpy(backwards)[0] = 9
    assert backwards[0] == 9
    np.testing.assert_array_equal(np.from_dlpack(gf.arange(3)), [0, 1, 2])
    assert gf.from_dlpack(np.arange(3)).tolist() == [0, 1, 2]


def test_views_share_memory() -> None:
    x = gf.arange(12.0).reshape(3, 4)
    for view in (
        x[1:],
        x.view(-1),
        x.t(),
        x[:, 1],
        x[None],
        x.unsqueeze(0),
        x.expand(2, 3, 4),
        x.detach(),
        x.data,
    ):
        assert np.shares_memory(view.numpy(), x.numpy())
    assert not np.shares_memory(x.clone().numpy(), x.numpy())
    x[0].fill_(9)
    assert x[0].tolist() == [9] * 4


def test_read_only_memory_is_not_written() -> None:
    array = np.zeros(3)
    array.flags.writeable = False
    x = gf.from_numpy(array)
    for change in (lambda: x.add_(1), lambda: x.__setitem__(0, 1), lambda: x.__setitem__(gf.tensor([0]), 1)):
        with pytest.raises(GradientError, match="read-only"):
            change()
    assert (x + 1).tolist() == [1, 1, 1]


def write_through_views(x: gf.Tensor) -> Any:
    y = x.clone()
    row, flat, turned = y[0], y.view(-1), y.t()
    row[1] = 7
    flat[:2].mul_(3)
    turned[2] += 100
    y[0][0] = -1
    y.detach()[1] = 5
    return y, row, flat, turned, y.sum()


def test_writes_reach_everyone_who_shares_the_memory() -> None:
    both(write_through_views, RNG.standard_normal((3, 4)))


def test_writes_through_views_of_a_state_change_the_state() -> None:
    state = gf.arange(6.0).reshape(2, 3)

    @gf.compile
    def step(x: gf.Tensor) -> gf.Tensor:
        state[0].add_(x)
        state.data[1] = 0
        state.t()[2] *= 2
        return state.sum()

    assert step(gf.ones(3)).item() == 1 + 2 + 6
    assert state.tolist() == [[1, 2, 6], [0, 0, 0]]
    assert step(gf.ones(3)).item() == 2 + 3 + 14


def test_gradients_flow_through_writes_to_views() -> None:
    def function(x: gf.Tensor) -> gf.Tensor:
        def loss(w: gf.Tensor) -> gf.Tensor:
            y = gf.zeros_like(w)
            y[0] = w[1] * 2
            y.view(-1)[4:] = w.view(-1)[4:] ** 2
            return (y * y).sum()

        return gf.grad(loss)(x)  # type: ignore[no-any-return]

    x = RNG.standard_normal((2, 4))
    wanted = np.zeros((2, 4))
    wanted[1] = 8 * x[1] + 4 * x[1] ** 3
    np.testing.assert_allclose(traced(function, x)[0], wanted)
    np.testing.assert_allclose(function(gf.tensor(x)).numpy(), wanted)


def test_memory_that_may_be_shared_is_not_guessed_about() -> None:
    def write(x: gf.Tensor) -> gf.Tensor:
        y = x.clone()
        y.t().reshape(-1).add_(1)
        return y

    def read(x: gf.Tensor) -> gf.Tensor:
        y = x.clone()
        flat = y[:, 1:].reshape(-1)
        y.add_(1)
        return flat

    for function in (write, read):
        with pytest.raises(TraceError, match=r"may or may not share its memory(.|\n)*\.clone\(\)"):
            traced(function, np.ones((3, 4)))
    with pytest.raises(GradientError, match="expand"):
        traced(lambda x: x.expand(2, 3, 4).add_(1), np.ones((3, 4)))


def test_a_view_of_a_leaf_is_not_changed_in_place_while_tracing() -> None:
    weight = gf.ones(3, requires_grad=True)
    with pytest.raises(GradientError, match="leaf"):
        traced(lambda: weight[0].add_(1))
    with gf.no_grad():
        traced(lambda: weight[0].add_(1))
