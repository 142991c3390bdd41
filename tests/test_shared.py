"""Results that are, or see the memory of, arguments, tensors around the function and each other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn

from direct_calls import ready

W = gf.ones(3, 2)
P = nn.Parameter(gf.ones(2))


def twice(x: Any) -> Any:
    y = x * 2
    return y, {"again": y, "row": y[0], "all": y.reshape(-1)}


def changed(x: Any) -> Any:
    x.add_(1)
    return x, x[1:]


def updated(x: Any) -> Any:
    W.add_(x.sum())
    return W, W[1], W * 2


def without_history(x: Any) -> Any:
    y = x * P
    with gf.no_grad():
        part = y[0]
    return y, y.detach(), part


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "argument": lambda x: x,
    "views of an argument": lambda x: (x.t(), x[1:, None], x.reshape(-1), x.view(x.shape[0] * 2)),
    "the last of a batch": lambda x: x[x.shape[0] - 1 :],
    "the same twice": twice,
    "changed argument": changed,
    "state": lambda x: (x, W, W),
    "views of a state": lambda x: (W[0], W.t(), W.t().reshape(-1), W.data),
    "changed state": updated,
    "parameter": lambda x: (x * P, P, P[:1]),
    "detached": without_history,
    "copies": lambda x: (x.clone(), W.clone(), x.t().reshape(-1), W + 0),
    "of Python": lambda x: (x, 3, None, [x]),
}


def seen(function: Callable[..., Any], size: int, position: int) -> list[Any]:
    """What everybody holds after a result was changed in place; which results are the same objects."""
    x = gf.tensor(np.arange(2.0 * size, dtype=np.float32).reshape(size, 2))
    W.fill_(1)
    results: list[Any] = []

    def collect(found: Any) -> None:
        if isinstance(found, (tuple, list, dict)):
            for part in found.values() if isinstance(found, dict) else found:
                collect(part)
        else:
            results.append(found)

    collect(function(x))
    tensors = [t for t in results if isinstance(t, gf.Tensor)]
    same = [a is b for a in (x, W, P, *tensors) for b in tensors]
    facts = [(t.requires_grad, t.is_leaf, t.dtype) for t in tensors]
    with gf.no_grad():
        tensors[position % len(tensors)].mul_(10)
    values = [t.tolist() if isinstance(t, gf.Tensor) else t for t in (x, W, P, *results)]
    with gf.no_grad():
        P.fill_(1)
    return [same, facts, values]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_results_share_what_they_share_without_compile(name: str) -> None:
    function = FUNCTIONS[name]
    compiled = gf.compile(function)
    for size in (2, 3, 2, 1):
        for position in range(5):
            assert seen(compiled, size, position) == seen(function, size, position)


def test_gradients_of_shared_results() -> None:
    def f(x: Any) -> Any:
        y = x * P
        return y, y[0], x, x[1]

    for function in (f, gf.compile(f)):
        x = gf.ones(2, 2, requires_grad=True)
        P.grad = None
        y, row, same, part = function(x)
        assert same is x
        (y.sum() + 2 * row.sum() + 4 * same.sum() + 8 * part.sum()).backward()
        assert x.grad.tolist() == [[7.0, 7.0], [13.0, 13.0]]
        assert P.grad.tolist() == [4.0, 4.0]
    P.grad = None


def test_arrays_and_numbers_come_back_as_tensors() -> None:
    f = gf.compile(lambda x, rate: (x, x[0], rate))
    array = np.ones(3, np.float32)
    for _ in range(3):
        x, first, rate = f(array, 0.5)
        x.zero_()
        assert array.tolist() == [1, 1, 1]
        assert (first.item(), rate.item()) == (1, 0.5)
    x = gf.ones(3)
    assert f(x, 0.5)[0] is x


def test_direct_calls_give_them_too() -> None:
    f = gf.compile(lambda k, x, *, z=None: (lambda y: (y, y[:1], W, x, x[k:], z))(x * 2))
    for size in (2, 2, 2, 4, 4, 4):
        x, z = gf.ones(size), gf.zeros(1)
        y, first, state, same, rest, other = f(1, x, z=z)
        first.zero_()
        rest.zero_()
        assert y.tolist() == [0.0] + [2.0] * (size - 1)
        assert x.tolist() == [1.0] + [0.0] * (size - 1)
        assert (state is W, same is x, other is z) == (True, True, True)
    assert len(ready(f)) == 2
    count = sys.getrefcount(x)
    for _ in range(10):
        f(1, x, z=z)
    assert sys.getrefcount(x) == count


def test_what_is_made_of_numbers_inside_is_made_anew() -> None:
    f = gf.compile(lambda x: (gf.tensor([1.0, 2.0]), gf.from_numpy(np.zeros(2)), gf.hann_window(4)))
    for _ in range(4):
        for made in f(gf.ones(1)):
            before = made.tolist()
            made.add_(1)
            assert before != made.tolist()
    assert [t.tolist() for t in f(gf.ones(1))[:2]] == [[1, 2], [0, 0]]


def test_graphs_and_files_give_memory_of_their_own(tmp_path: Any) -> None:
    def f(x: Any) -> Any:
        y = x * 2
        return y, y, x

    compiled = gf.compile(f)
    compiled(gf.ones(2))
    gf.export(compiled, tmp_path / "f.gfz")
    for graph in (gf.load_graph(tmp_path / "f.gfz"), gf.compile(gf.trace(f, gf.TensorSpec(["n"])))):
        x = gf.ones(2)
        a, b, c = graph(x)
        a.zero_()
        assert [t.tolist() for t in (b, c, x)] == [[2, 2], [1, 1], [1, 1]]


def test_a_gradient_is_the_one_that_is_there_now() -> None:
    weight = gf.ones(3, requires_grad=True)

    @gf.compile
    def f(x: Any) -> Any:
        return weight.grad, weight.grad[1:], x

    for number in (2.0, 2.0, 3.0, 4.0):
        weight.grad = gf.full((3,), number)
        for _ in range(3):
            whole, part, _ = f(gf.ones(1))
            assert (whole.tolist(), part.tolist()) == ([number] * 3, [number] * 2)
    assert len(f.variants) == 1
