"""NumPy arrays around a compiled function that are changed in place: never a number of yesterday."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import contents, nn

from direct_calls import ready, takes

K = np.array([1.0, 2.0], np.float32)
HELD = SimpleNamespace(k=K, deep={"k": [K]})

TAKEN: dict[str, Callable[..., Any]] = {
    "tensor": lambda x: x * gf.tensor(K),
    "tensor of another dtype": lambda x: x * gf.tensor(K, dtype=gf.float64),
    "from_numpy": lambda x: x * gf.from_numpy(K),
    "as_tensor": lambda x: x * gf.as_tensor(K, dtype=gf.float64),
    "operand": lambda x: K * x,
    "view": lambda x: x * gf.tensor(K[::-1]),
    "attribute": lambda x: x * gf.tensor(HELD.k),
    "sizes": lambda x: x * gf.tensor(K) * len(K) * K.shape[0] * K.T.ndim,
    "another shape": lambda x: x * gf.from_numpy(K.reshape(2)),
    "in a container": lambda x: x * gf.tensor(HELD.deep["k"][0]),
}
READ: dict[str, Callable[..., Any]] = {
    "element": lambda x: x * K[0],
    "number": lambda x: x * float(K[1]),
    "expression": lambda x: x * gf.tensor(K * 2),
    "total": lambda x: x * np.sum(K),
    "both": lambda x: x * K / K.sum(),
    "list": lambda x: x * gf.tensor([K[0], K[1]]),
    "in a container": lambda x: x * HELD.deep["k"][0].max(),
    "another dtype": lambda x: x * gf.Tensor(K.astype(np.float64)),
    "a view's element": lambda x: x * K.reshape(-1)[1] if K.flags.c_contiguous else x,
    "a view's total": lambda x: x * K.T.sum(),
}


@pytest.fixture(autouse=True)
def _numbers() -> None:
    K[:] = [1, 2]


@pytest.mark.parametrize("name", TAKEN)
def test_an_array_that_becomes_a_tensor_is_read_at_every_call(name: str) -> None:
    f = gf.compile(TAKEN[name])
    x = gf.ones(2)
    for numbers in ([1, 2], [3, 5], [4, 4], [1, 2], [0, 7]):
        K[:] = numbers
        assert f(x).tolist() == TAKEN[name](x).tolist()
    assert len(f.variants) == 1


@pytest.mark.parametrize("name", READ)
def test_an_array_whose_numbers_python_reads_is_compared(name: str) -> None:
    f = gf.compile(READ[name])
    x = gf.ones(2)
    for numbers in ([1, 2], [3, 5], [3, 5], [4, 3], [1, 2]):
        K[:] = numbers
        for _ in range(2):
            assert f(x).tolist() == pytest.approx(READ[name](x).tolist(), rel=1e-6)
    assert len(f.variants) == 3
    assert "the numbers in an array are others now" in f.variants[1].reason
    assert any(takes(run, x) for run in ready(f))
    K[:] = 9
    assert not any(takes(run, x) for run in ready(f))


def test_an_array_that_is_nan_is_the_same() -> None:
    f = gf.compile(READ["element"])
    K[0] = np.nan
    for _ in range(3):
        assert np.isnan(f(gf.ones(2)).numpy()).all()
    assert len(f.variants) == 1
    assert len(ready(f)) == 1


def test_arrays_of_modules_and_of_objects_among_arguments() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.k = np.ones(2, np.float32)

        def forward(self, x: Any) -> Any:
            return x * self.k[1]

    net = Net()
    f, g = gf.compile(net), gf.compile(lambda x, held: x * held.k[0])
    for value in (1.0, 2.0, 2.0, 3.0):
        net.k[:] = K[:] = value
        assert f(gf.ones(1)).item() == g(gf.ones(1), HELD).item() == value


def test_an_array_that_counts_calls() -> None:
    counts = np.zeros(1)

    @gf.compile
    def f(x: Any) -> Any:
        counts[0] += 1
        return x * counts[0]

    assert [f(gf.ones(1)).item() for _ in range(3)] == [1, 2, 3]


def test_a_tensor_made_of_an_array_has_memory_of_its_own() -> None:
    @gf.compile
    def f(x: Any) -> Any:
        made = gf.tensor(K, requires_grad=True)
        (made * made * x).sum().backward()
        with gf.no_grad():
            made += 10
        return made.grad, made

    for _ in range(2):
        grad, made = f(gf.ones(2))
        assert grad.tolist() == [2, 4]
        assert made.tolist() == [11, 12]
        assert K.tolist() == [1, 2]


def test_of_large_arrays_a_sample_is_compared() -> None:
    large = np.zeros((1 << 10, 1 << 10), np.float32)
    for array in (large, large.T, large[:, ::-1]):
        assert len(contents.content(array)) < 1 << 14
        before = contents.content(array)
        large += 1
        assert contents.content(array) != before
