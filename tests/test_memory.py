"""Saved values of several Python threads: one thread's backward doesn't let go of what another one needs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import variant
from graphflow.compiler.ir import Node
from graphflow.tensor import Tensor


@pytest.fixture
def switching_often() -> Iterator[None]:
    """Python threads take turns much more often than they do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Scaled(gf.autograd.Function):
    """``x * w`` with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        """The product."""
        ctx.save_for_backward(w)
        return x * w

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        """For x only."""
        (w,) = ctx.saved_tensors
        return g * w, None


tensor = sys.modules["graphflow.tensor"]  # gf.tensor is a function
functions = sys.modules["graphflow.autograd.function"]
W = gf.tensor([2.0, 3.0])
FUNCTIONS = {
    variant: gf.compile(lambda x: x * W),
    tensor: lambda x: x * W,
    functions: lambda x: Scaled.apply(x, W),
}


@pytest.mark.parametrize("module", FUNCTIONS, ids=lambda module: module.__name__)
def test_a_value_that_two_histories_share(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    function, x, y = FUNCTIONS[module], *(gf.tensor([1.0, 1.0], requires_grad=True) for _ in range(2))
    other = function(y).sum()
    thread = threading.Thread(target=other.backward)
    record = vars(module)["record"]

    def recorded(result: Tensor, node: Node) -> None:
        # operands have histories now, but aren't counted among the values used
        if thread.ident is None:
            thread.start()
            thread.join(0.2)  # it may have to wait for this one
        record(result, node)

    monkeypatch.setattr(module, "record", recorded)
    result = function(x).sum()
    thread.join()
    result.backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), [2.0, 3.0])


def test_backwards_of_many_threads(switching_often: None) -> None:
    w = gf.randn(20, 20)
    fs: Sequence[Callable[[Tensor], Tensor]] = (gf.compile(lambda x: (x @ w).tanh() @ w), lambda x: x @ w)
    data = [np.full((n, 20), n / 8, np.float32) for n in range(1, 5)]

    def gradient(f: Callable[[Tensor], Tensor], array: np.ndarray) -> np.ndarray:
        x = gf.tensor(array, requires_grad=True)
        f(x).sum().backward()
        assert x.grad is not None
        return x.grad.numpy()

    expected = [[gradient(f, array) for array in data] for f in fs]
    wrong: list[object] = []

    def work() -> None:
        try:
            for _ in range(100):
                for f, values in zip(fs, expected, strict=True):
                    for array, value in zip(data, values, strict=True):
                        if not np.array_equal(gradient(f, array), value):
                            wrong.append(array.shape)
        except Exception as error:
            wrong.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
