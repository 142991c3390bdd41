"""``x[mask]`` inside compiled functions, positions that are traced values, tensors made of numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import TraceError

RNG = np.random.default_rng(11)
X = RNG.integers(-5, 6, (3, 4)) + 0.25
Function = Callable[[gf.Tensor], Any]


def _shift(x: gf.Tensor) -> gf.Tensor:
    x[x > 0] -= 1
    x[x < -2] *= 3
    x[x == 0.25] = 7
    return x


def _with_itself(x: gf.Tensor) -> gf.Tensor:
    m = x > 0
    y = x.clone()
    y[m] += x[m] ** 2 + 1
    x[m] = (x[m] / 2).clamp(max=1.5)
    return y


def _rows(x: gf.Tensor) -> gf.Tensor:
    x[x.sum(1) > 0] += gf.tensor([1.0, 2.0, 3.0, 4.0], dtype=gf.float64)
    x[:, x.sum(0) < 0] = -1
    x[0, x[0] < 0] *= gf.tensor([2.0], dtype=gf.float64)
    return x


def _one_for_each(x: gf.Tensor) -> gf.Tensor:
    order = x.reshape(-1).argsort()
    mask = gf.zeros(12, dtype=gf.bool)
    mask[order[:5]] = True
    x[mask.reshape(3, 4)] = gf.arange(5, dtype=gf.float64)
    return x


def _sums(x: gf.Tensor) -> gf.Tensor:
    return x[x > 0].sum() + x[x[:, 0] < 10].mean() + (x[x < 0] * 2).sum()


def _program(x: gf.Tensor) -> gf.Tensor:
    x[:, [True, False, True, False]] = 0
    x[[False, True, True]] += 1
    return x[True] * 2 + x[[[0, 1, 2], [3, 2, 1]]].sum()


def _row_at(x: gf.Tensor) -> gf.Tensor:
    i = (x[0] > -100).sum() - 3
    row, column = x[i], x[:, i]
    row.add_(10)
    column *= 2
    x += 1
    return row + column.sum()


def _write_at(x: gf.Tensor) -> gf.Tensor:
    i = (x[0] > -100).sum() - 2
    x[i, [0, 1]] = 5
    x[i - 4, i] = -1
    x[i, 1:] += 3
    x[:, i][0] = 9
    return x[i, :, None] + x[None, i, [0, 1]]


FUNCTIONS = [_shift, _with_itself, _rows, _one_for_each, _sums, _program, _row_at, _write_at]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_same_as_at_once(function: Function) -> None:
    compiled = gf.compile(function)
    for array in (X, -X, X * 0 - 1.5 if function is not _sums else X + 20):
        now, later = gf.tensor(array), gf.tensor(array)
        np.testing.assert_allclose(compiled(later).numpy(), function(now).numpy(), rtol=1e-12)
        np.testing.assert_allclose(later.numpy(), now.numpy(), rtol=1e-12)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_gradients_are_the_same_as_at_once(function: Function) -> None:
    weight = gf.tensor(RNG.standard_normal((3, 4)))

    def loss(x: gf.Tensor) -> gf.Tensor:
        y = x * weight
        return (function(y) ** 2).sum() + (y * weight).sum()

    x = gf.tensor(X, requires_grad=True)
    loss(x).backward()
    found = gf.compile(gf.grad(loss))(gf.tensor(X))
    np.testing.assert_allclose(found.numpy(), x.grad.numpy(), rtol=1e-10)


def test_as_many_values_as_the_mask_selects() -> None:
    @gf.compile
    def fill(x: gf.Tensor, values: gf.Tensor) -> None:
        x[x > 0] = values

    x = gf.tensor([1.0, -1.0, 2.0, -2.0])
    fill(x, gf.tensor([5.0, 6.0]))
    assert x.tolist() == [5.0, -1.0, 6.0, -2.0]
    for count in (3, 4):
        with pytest.raises(
            IndexError, match=rf"selects 2 elements, the value has {count}\n .*x\[x > 0\] = values"
        ):
            fill(x, gf.zeros(count))
    assert x.tolist() == [5.0, -1.0, 6.0, -2.0]


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x[x > 0],
        lambda x: gf.exp(x[x > 0]),
        lambda x: len(x[x > 0]),
        lambda x: x[x > 0].reshape(-1),
        lambda x: x[x > 0][0],
        lambda x: x[x > 0] + x[x < 0],
        lambda x: list(x[x > 0]),
        lambda x: x.reshape(1, 3)[[0, 0], x > 0],
        lambda x: gf.ones(3) * 1 if x[x > 0] else x,
    ],
)
def test_what_depends_on_the_number_of_elements_is_refused(use: Function) -> None:
    with pytest.raises(TraceError, match=r"mask") as raised:
        gf.compile(use)(gf.tensor([1.0, -1.0, 2.0]))
    assert f"{__file__}:{use.__code__.co_firstlineno}" in str(raised.value)


def test_positions_out_of_range_are_told_when_the_function_runs() -> None:
    @gf.compile
    def read(x: gf.Tensor, i: gf.Tensor) -> gf.Tensor:
        return x[i] * 2

    @gf.compile
    def write(x: gf.Tensor, i: gf.Tensor) -> None:
        x[i] = 3

    x = gf.zeros(3)
    assert read(x, gf.tensor(-3)).tolist() == 0
    for function, line in ((read, "return x"), (write, "= 3")):
        for bad in (3, -4):
            with pytest.raises(
                IndexError, match=rf"index {bad} is out of range for a dimension of size 3[\s\S]*{line}"
            ):
                function(x, gf.tensor(bad))
    assert x.tolist() == [0, 0, 0]


def test_tensors_made_of_numbers_are_new_at_every_call() -> None:
    def run(x: gf.Tensor) -> Any:
        counts = gf.tensor([1.0, 2.0])
        counts += 1
        first = counts[0]
        first.mul_(10)
        other = gf.Tensor([3.0])
        other.add_(x[:1])
        weight = gf.tensor([2.0], requires_grad=True)
        (weight * x).sum().backward()
        with gf.no_grad():
            weight -= weight.grad
        return counts, other, weight.detach()

    compiled = gf.compile(run)
    for _ in range(3):
        assert [t.tolist() for t in compiled(gf.ones(2))] == [[20.0, 3.0], [4.0], [0.0]]


def test_uint8_is_no_index() -> None:
    x = gf.arange(3.0)
    for index in (gf.tensor([0, 1, 1], dtype=gf.uint8), np.array([0, 1, 1], np.uint8)):
        with pytest.raises(TypeError, match="mask in PyTorch and positions in NumPy"):
            x[index]


def test_a_list_of_lists_is_a_tuple() -> None:
    x = gf.arange(6.0).reshape(2, 3)
    assert x[[[0, 1], [1, 2]]].tolist() == [1.0, 5.0]
    assert x[[[1, 1]]].shape == (2, 3)
    assert x[[0, 1], :].shape == (2, 3)
