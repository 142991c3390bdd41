"""Direct calls from several threads, on several threads, and in a forked child."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import graphflow as gf
import numpy as np
import pytest
from graphflow.runtime import threads

from direct_calls import numbers, takes, warm


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


def test_python_threads() -> None:
    w, total = numbers(64, 64), gf.zeros(1)
    small = gf.compile(lambda x: x * 2 + 1)
    product = gf.compile(lambda x: gf.tanh(x @ w) @ w)

    @gf.compile
    def add(x: gf.Tensor) -> gf.Tensor:
        total.add_(x)
        return total * 1

    many = numbers(512, 64)
    expected = [product(many * i).numpy() for i in range(4)]
    for f, x in ((small, np.ones(4, np.float32)), (product, many), (add, np.ones(1, np.float32))):
        warm(f, x)
    before, wrong = total.item(), []

    def work(i: int) -> None:
        x = many * i
        for _ in range(100):
            if not np.array_equal(product(x).numpy(), expected[i]):
                wrong.append("product")
            for k in range(10):
                if small(np.full(4, i * 10 + k, np.float32)).numpy()[3] != 2 * (i * 10 + k) + 1:
                    wrong.append("small")
                add(np.ones(1, np.float32))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert total.item() == before + 4000


@pytest.mark.parametrize("count", [1, 2, 3])
def test_native_threads_give_the_same_bits(count: int) -> None:
    w = numbers(256, 256)
    f = gf.compile(lambda x: gf.tanh(x @ w))
    x = numbers(512, 256)
    threads.set_num_threads(1)
    expected = f(x).numpy()
    threads.set_num_threads(count)
    run = warm(f, x)
    for _ in range(5):
        assert np.array_equal(run(x).numpy(), expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_another_number_of_threads_is_used_from_the_next_call_on() -> None:
    w, x = numbers(512, 512), numbers(512, 512)
    f = gf.compile(lambda x: gf.tanh(x @ w) @ w)
    for _ in range(12):  # direct calls are made ever more seldom, so that they outlive changes
        for count in (1, 2):
            threads.set_num_threads(count)
            for _ in range(3):
                f(x)
                (variant,) = f._order
                assert max(variant.engine.executor.instance({"batch": 512}).command_threads) == count


def test_a_forked_child_goes_on() -> None:
    total = gf.zeros(3)

    @gf.compile
    def f(x: gf.Tensor) -> gf.Tensor:
        total.add_(x)
        return total + 1

    x = np.ones(3, np.float32)
    run = warm(f, x)
    lock = f.variants[0].lock
    with lock:  # type: ignore[attr-defined]  # held by a thread that the child doesn't have
        child = os.fork()
        if child == 0:
            os._exit(0 if takes(run, x) and f(x).numpy()[0] == 5 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert total.numpy()[0] == 2
