"""Indices of every kind, read and assigned, at once and compiled, beside NumPy; their gradients."""

from __future__ import annotations

from typing import Any

import graphflow as gf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

Key = tuple[Any, ...]


@st.composite
def subscripts(draw: st.DrawFn) -> tuple[tuple[int, ...], Key]:
    """A shape and an index for it, made of what NumPy and PyTorch take for the same.

    An integer beside an index array is left out: NumPy counts it among the arrays.
    """
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    common = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=2)))
    ends = st.one_of(st.none(), st.integers(-6, 6))
    key: list[Any] = []
    dim = 0
    while dim < len(shape) and (len(key) < 3 or draw(st.booleans())):
        size = shape[dim]
        kind = draw(st.sampled_from(["slice", "slice", "integer", "none", "array", "mask", "ellipsis"]))
        has_mask = any(isinstance(k, np.ndarray) and k.dtype == bool for k in key)
        if kind == "none":
            key.append(None)
        elif kind == "slice":
            key.append(slice(draw(ends), draw(ends), draw(st.sampled_from([None, 1, 2, -1, -2]))))
            dim += 1
        elif kind == "integer":
            key.append(draw(st.integers(-size, size - 1)))
            dim += 1
        elif kind == "array":
            places = draw(
                st.lists(
                    st.integers(-size, size - 1),
                    min_size=int(np.prod(common)),
                    max_size=int(np.prod(common)),
                )
            )
            key.append(np.array(places).reshape(common))
            dim += 1
        elif kind == "mask" and not has_mask:
            rank = draw(st.integers(1, len(shape) - dim))
            covered = shape[dim : dim + rank]
            count = int(np.prod(covered))
            key.append(
                np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count))).reshape(covered)
            )
            dim += rank
        elif kind == "ellipsis" and Ellipsis not in [k for k in key if not isinstance(k, np.ndarray)]:
            key.append(Ellipsis)
            dim += draw(st.integers(1, len(shape) - dim))
    if any(isinstance(k, np.ndarray) for k in key):
        key = [slice(None) if isinstance(k, int) else k for k in key]
        taken = sum(k.ndim if _is_mask(k) else k is not None for k in key if k is not Ellipsis)
        if taken == len(shape):  # NumPy counts an ellipsis of nothing as standing between
            key = [k for k in key if k is not Ellipsis]
    return shape, tuple(key)


def _is_mask(item: Any) -> bool:
    return isinstance(item, np.ndarray) and item.dtype == bool


def _numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(float(np.prod(shape))).reshape(shape) + 1


def _tensors(key: Key) -> Key:
    return tuple(gf.tensor(k) if isinstance(k, np.ndarray) else k for k in key)


def _fits(key: Key, x: np.ndarray) -> bool:
    try:
        x[key]
    except IndexError:  # index arrays whose shapes don't go together
        return False
    return True


@settings(max_examples=150, deadline=None)
@given(subscripts())
def test_reading(case: tuple[tuple[int, ...], Key]) -> None:
    shape, key = case
    x = _numbers(shape)
    if not _fits(key, x):
        return
    t = gf.tensor(x, requires_grad=True)
    found = t[_tensors(key)]
    np.testing.assert_array_equal(found.detach().numpy(), x[key])
    weights = np.random.default_rng(0).standard_normal(x[key].shape)
    (found * gf.tensor(weights)).sum().backward()
    expected = np.zeros(shape)
    np.add.at(expected, key, weights)
    np.testing.assert_allclose(t.grad.numpy(), expected, atol=1e-12)


@settings(max_examples=150, deadline=None)
@given(subscripts(), st.booleans())
def test_assigning(case: tuple[tuple[int, ...], Key], is_number: bool) -> None:
    shape, key = case
    x = _numbers(shape)
    if not _fits(key, x):
        return
    room = x[key].shape
    value = np.asarray(7.5) if is_number else -_numbers(room)
    expected = x.copy()
    expected[key] = value
    t = gf.tensor(x)
    t[_tensors(key)] = gf.tensor(value)
    np.testing.assert_array_equal(t.numpy(), expected)
    # with gradients: each place is the last value written to it, or what it was
    old, new = gf.tensor(x, requires_grad=True), gf.tensor(value, requires_grad=True)
    changed = old * 1.0
    changed[_tensors(key)] = new
    np.testing.assert_array_equal(changed.detach().numpy(), expected)
    weights = np.random.default_rng(0).standard_normal(shape)
    (changed * gf.tensor(weights)).sum().backward()
    owners = np.full(shape, -1)
    owners[key] = np.arange(int(np.prod(room))).reshape(room)
    np.testing.assert_allclose(old.grad.numpy(), np.where(owners < 0, weights, 0))
    shares = np.zeros(int(np.prod(room)))
    np.add.at(shares, owners[owners >= 0], weights[owners >= 0])
    shares = shares.sum() if is_number else shares.reshape(room)
    np.testing.assert_allclose(0.0 if new.grad is None else new.grad.numpy(), shares, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(subscripts())
def test_compiled(case: tuple[tuple[int, ...], Key]) -> None:
    shape, key = case
    x = _numbers(shape)
    if not _fits(key, x):
        return
    arrays = [gf.tensor(k) for k in key if isinstance(k, np.ndarray)]

    def of(tensors: tuple[Any, ...]) -> Key:
        rest = iter(tensors)
        return tuple(next(rest) if isinstance(k, np.ndarray) else k for k in key)

    @gf.compile
    def read(t: Any, *indices: Any) -> Any:
        return t[of(indices)]

    @gf.compile
    def write(t: Any, value: Any, *indices: Any) -> Any:
        t = t * 1.0
        t[of(indices)] = value
        return t

    masks = sum(map(_is_mask, key))
    if not masks:
        np.testing.assert_array_equal(read(gf.tensor(x), *arrays).numpy(), x[key])
    if masks and len(arrays) > 1:
        return
    value = np.asarray(7.5) if masks else -_numbers(x[key].shape)
    expected = x.copy()
    expected[key] = value
    np.testing.assert_array_equal(write(gf.tensor(x), gf.tensor(value), *arrays).numpy(), expected)


def test_masks_in_compiled_assignment() -> None:
    @gf.compile
    def fn(x: Any, mask: Any, row: Any) -> Any:
        x = x * 1.0
        x[mask] = 0.0
        x[:, mask[0]] = row
        x[x > 5] = -1.0
        return x

    x, mask, row = (
        _numbers((3, 4)),
        np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]], bool),
        [[9.0], [8.0], [7.0]],
    )
    expected = x.copy()
    expected[mask] = 0
    expected[:, mask[0]] = row
    expected[expected > 5] = -1
    found = fn(gf.tensor(x), gf.tensor(mask), gf.tensor(row, dtype=gf.float64))
    np.testing.assert_array_equal(found.numpy(), expected)


def test_index_put() -> None:
    x, places, values = np.zeros((3, 2)), ([0, 2, 0], [1, 0, 1]), [1.0, 2, 3]
    for accumulate in (False, True):
        expected = x.copy()
        if accumulate:
            np.add.at(expected, places, values)
        else:
            expected[places] = values

        def put(t: Any, i: Any, j: Any, v: Any, accumulate: bool = accumulate) -> Any:
            return t.index_put((i, j), v, accumulate)

        operands = [
            gf.tensor(x), *map(gf.tensor, places), gf.tensor(values, dtype=gf.float64),
        ]
        for found in (put(*operands), gf.compile(put)(*operands)):
            np.testing.assert_array_equal(found.numpy(), expected)


def test_many_places_take_time_in_proportion() -> None:
    size = 100_000
    index = np.random.default_rng(0).integers(0, size, size)

    @gf.compile
    def fn(x: Any, i: Any, v: Any) -> Any:
        x = x * 1.0
        x[i] = v
        return x

    expected = np.zeros(size)
    expected[index] = np.arange(size)
    found = fn(gf.zeros(size, dtype=gf.float64), gf.tensor(index), gf.arange(size, dtype=gf.float64))
    np.testing.assert_array_equal(found.numpy(), expected)


def test_bad_places() -> None:
    x = gf.zeros(3, 2)
    with pytest.raises(IndexError, match="mask's shape"):
        x[gf.tensor([True, False])]

    @gf.compile
    def write(t: Any, i: Any) -> Any:
        t = t * 1.0
        t[i] = 1.0
        return t

    with pytest.raises(IndexError, match="index 3 is out of range for a dimension of size 3"):
        write(x, gf.tensor([0, 3]))
    with pytest.raises(TypeError, match="one dtype"):
        x.index_put((gf.tensor([0]),), gf.tensor([1]))


def test_zero_dimensional_masks() -> None:
    x = _numbers((2, 3))
    for flag in (True, False):
        np.testing.assert_array_equal(gf.tensor(x)[flag].numpy(), x[flag])
        np.testing.assert_array_equal(gf.tensor(x)[gf.tensor(flag)].numpy(), x[flag])
        t, expected = gf.tensor(x), x.copy()
        t[gf.tensor(flag)] = 5.0
        expected[flag] = 5.0
        np.testing.assert_array_equal(t.numpy(), expected)
