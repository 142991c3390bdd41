"""Direct calls: that they are made, that they notice everything, and that they leave nothing behind."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import config, nn, optim
from graphflow.errors import NaNError
from graphflow.runtime import direct as runtime_direct
from graphflow.runtime import threads

from direct_calls import numbers, ready, takes, warm


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)
    gf.set_default_dtype(gf.float32)
    config.reload()


def test_a_call_that_comes_again_is_direct_and_gives_the_same() -> None:
    w, b, x = numbers(16, 16), numbers(16), numbers(4, 16)
    f = gf.compile(lambda x: gf.relu(x @ w + b))
    first = f(x)
    assert not ready(f)
    run = warm(f, x)
    again = run(x)
    assert type(again) is gf.Tensor
    assert np.array_equal(first.numpy(), again.numpy())
    assert np.array_equal(f(numbers(4, 16) * 2).numpy(), f._call((numbers(4, 16) * 2,), {}).numpy())
    made = Any if again is None else again
    plain = gf.Tensor.holding(np.zeros(1))
    for name in ("_node", "_node_version", "_trace", "_alias", "_requires_grad", "_leaf", "_grad", "name"):
        assert getattr(made, name) is getattr(plain, name)
    assert made._storage is not first._storage
    assert made._storage.born > first._storage.born
    assert made._storage.version == 0
    made.note = "has a dictionary"  # type: ignore[attr-defined]
    assert weakref.ref(made)() is made


def test_arguments_of_another_kind_are_not_taken() -> None:
    f = gf.compile(lambda x, k=1: x * 2 + k)
    x = np.ones((4, 6), np.float32)
    run = warm(f, x)
    readonly = x.copy()
    readonly.flags.writeable = False
    assert takes(run, readonly)
    raw = np.zeros(4 * 6 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(4, 6)

    class Sub(np.ndarray):
        pass

    for other in (
        np.ones((4, 7), np.float32), np.ones((5, 6), np.float32), np.ones((4, 6)), np.ones((4, 6), np.int32),
        np.ones((4, 6, 1), np.float32), np.ones(24, np.float32), np.ones((6, 4), np.float32).T, x.view(Sub),
        np.ones((4, 12), np.float32)[:, ::2], raw, x.astype(">f4"), gf.tensor(x), 1.0, None, [1.0],
        np.float32(1),
    ):  # fmt: skip
        assert not takes(run, other)
    assert not takes(run)
    assert not takes(run, x, 1)
    assert np.array_equal(f(raw).numpy(), raw * 2 + 1)
    assert np.array_equal(f(np.ones((6, 4), np.float32).T).numpy(), np.full((4, 6), 3.0))


def test_tensors_and_flags() -> None:
    f = gf.compile(lambda x: x * 2)
    x = numbers(3, 5)
    run = warm(f, x)
    assert takes(run, numbers(3, 5))
    assert not takes(run, numbers(3, 5).requires_grad_())
    assert not takes(run, x.numpy())
    assert not takes(run, nn.Parameter(x))
    f(x.requires_grad_())
    assert f(x).requires_grad
    with gf.no_grad():
        assert not f(x).requires_grad


def test_floats_and_static_values() -> None:
    f = gf.compile(lambda x, rate, power, name: x * rate**power if name == "a" else x)
    x = numbers(4)
    run = warm(f, x, 0.5, 2, "a")
    for rate in (0.5, 3.0, -1.25, float("inf")):
        assert np.array_equal(run(x, rate, 2, "a").numpy(), (x * rate**2).numpy())
    assert not takes(run, x, 1, 2, "a")
    assert not takes(run, x, 0.5, 3, "a")
    assert not takes(run, x, 0.5, 2, "b")
    assert not takes(run, x, np.float64(0.5), 2, "a")
    assert np.array_equal(f(x, 2.0, 3, "a").numpy(), (x * 8).numpy())


def test_arguments_by_name() -> None:
    f = gf.compile(lambda x, y=1.0, *, k=0, z=None: x * y + (0 if z is None else z) + k)
    x, y = numbers(3), numbers(3) * 2
    for _ in range(3):
        for call in (
            lambda: f(x, y=y), lambda: f(x, z=y), lambda: f(x=x, y=y), lambda: f(y=y, x=x), lambda: f(x, y),
            lambda: f(x, y, k=2), lambda: f(x, y, k=3), lambda: f(x, y, k=3, z=x), lambda: f(x, y, z=x, k=3),
        ):  # fmt: skip
            call()
    assert len(ready(f)) == 9
    product = (x * y).numpy()
    for _ in range(2):
        assert np.array_equal(f(x, y=y).numpy(), product)
        assert np.array_equal(f(x, z=y).numpy(), (x + y).numpy())
        assert np.array_equal(f(y=y * 2, x=x).numpy(), 2 * product)
        assert np.array_equal(f(x, y, k=2).numpy(), product + 2)
        assert np.array_equal(f(x, y, k=3).numpy(), product + 3)
        assert np.array_equal(f(x, y, **{"".join("z"): x}, k=3).numpy(), product + x.numpy() + 3)
        assert np.array_equal(f(x, y, k=7).numpy(), product + 7)
        with pytest.raises(TypeError):
            f(x, y, w=1)
        with pytest.raises(TypeError):
            f(x, x=x)


def test_sizes_that_take_turns_are_all_direct() -> None:
    f = gf.compile(lambda x: (x * 2).sum())
    for _ in range(3):
        for size in (3, 5, 0):
            assert f(np.ones((size, 2), np.float32)).item() == 4 * size
    assert len(ready(f)) == 3
    for size in range(20):
        for _ in range(2):
            assert f(np.ones((size, 2), np.float32)).item() == 4 * size
    assert 1 <= len(ready(f)) <= 16


def test_inside_a_trace_it_becomes_part_of_that() -> None:
    f = gf.compile(lambda x: x * 2)
    x = numbers(3)
    run = warm(f, x)
    g = gf.compile(lambda y: f(x) + f(y))
    assert np.allclose(g(numbers(3)).numpy(), 4 * numbers(3).numpy())
    assert takes(run, x)
    w = numbers(3).requires_grad_()
    assert np.allclose(gf.grad(lambda w: f(w).sum())(w).detach().numpy(), 2)


def test_states_that_change_hands() -> None:
    w = nn.Parameter(numbers(3))
    f = gf.compile(lambda x: (x * w).detach())
    x = np.ones(3, np.float32)
    run = warm(f, x)
    with gf.no_grad():
        w.mul_(2)
    assert takes(run, x)
    assert np.array_equal(f(x).numpy(), w.detach().numpy())
    w.data = gf.ones(3)
    assert not takes(run, x)
    assert np.array_equal(f(x).numpy(), np.ones(3))
    assert run not in ready(f)
    run = warm(f, x)
    w.requires_grad_(False)
    assert not takes(run, x)
    assert np.array_equal(f(x).numpy(), np.ones(3))


def train(leaves_gradients: bool) -> tuple[nn.Linear, Any]:
    gf.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    @gf.compile
    def step(x: gf.Tensor, y: gf.Tensor) -> dict[str, Any]:
        if leaves_gradients:
            optimizer.zero_grad()
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        if not leaves_gradients:
            optimizer.zero_grad()
        return {"loss": loss, "size": x.shape[0], "none": None, "pair": (loss * 2, x)}

    return model, step


@pytest.mark.parametrize("leaves_gradients", [False, True])
def test_training_steps(leaves_gradients: bool) -> None:
    x, y = numbers(4, 3), numbers(4, 2)
    model, step = train(leaves_gradients)
    other, slow = train(leaves_gradients)
    for _ in range(6):
        version = model.weight._storage.version
        got, expected = step(x, y), slow._call((x, y), {})
        slow._direct.ready = ()
        assert model.weight._storage.version == version + 1
        assert np.array_equal(got["loss"].numpy(), expected["loss"].numpy())
        assert (got["size"], got["none"]) == (4, None)
        assert np.array_equal(got["pair"][1].numpy(), x.numpy())
        assert np.array_equal(model.weight.detach().numpy(), other.weight.detach().numpy())
        if leaves_gradients:
            assert model.weight.grad is not None
            assert np.array_equal(model.weight.grad.numpy(), other.weight.grad.numpy())  # type: ignore[union-attr]
        else:
            assert model.weight.grad is None
    assert takes(ready(step)[0], x, y)
    model.weight.grad = gf.ones(2, 3)
    if not leaves_gradients:
        assert not takes(ready(step)[0], x, y)


def test_arguments_that_share_memory_with_what_is_changed() -> None:
    w = gf.zeros(8)

    @gf.compile
    def f(x: gf.Tensor) -> gf.Tensor:
        w.add_(1)
        return x + w

    x = numbers(8)
    run = warm(f, x)
    assert takes(run, x)
    assert not takes(run, w)
    assert not takes(run, gf.Tensor.holding(w.numpy()))
    before = w.numpy().copy()
    assert np.array_equal(f(w).numpy(), before + before + 1)


def test_results_are_never_overwritten() -> None:
    for shape in ((3,), (1000, 5), (0, 4), ()):
        f = gf.compile(lambda x: x + 1)
        x = np.zeros(shape, np.float32)
        warm(f, x)
        held = [f(x + i) for i in range(5)]
        views = [f(x + i).numpy()[..., None] for i in range(5)]
        for _ in range(10):
            f(x + 7)
        for i in range(5):
            assert (held[i].numpy() == i + 1).all()
            assert (views[i] == i + 1).all()


def test_a_bad_index_is_told_and_nothing_stays_locked() -> None:
    table, count = numbers(5, 3), gf.zeros(1)

    @gf.compile
    def look(i: gf.Tensor) -> gf.Tensor:
        count.add_(1)
        return table[i].sum()

    good = np.array([0, 4])
    run = warm(look, good)
    for _ in range(3):
        with pytest.raises(IndexError, match="9"):
            run(np.array([0, 9]))
        before = count.item()
        assert takes(run, good)
        assert count.item() == before + 1
    assert look(good).item() == pytest.approx(table.numpy()[[0, 4]].sum())


def references(*values: object) -> list[int]:
    gc.collect()
    return [sys.getrefcount(v) for v in values]


def test_references_stay_as_they_are() -> None:
    w, x, scale = numbers(16, 16), numbers(4, 16), 2.5
    count = gf.zeros(1)

    @gf.compile
    def f(x: gf.Tensor, rate: float, name: str) -> tuple[gf.Tensor, gf.Tensor]:
        count.add_(1)
        return (x @ w) * scale * rate, x.sum()

    g = gf.compile(lambda x: x + 1)
    large = np.zeros((100, 100), np.float32)
    warm(f, x, 0.5, "n")
    warm(g, large)
    held = x._array, w._array, count._array
    own = (*held, x, w, count, count._storage, large, large.dtype, gf.Tensor, f)
    before = references(*own)
    shared = sys.getrefcount(None)
    for i in range(2000):
        f(x, 0.5, "n")
        f(x, 0.5, f"n{i % 2}")
        g(large)
        g(large.T)
    direct, slow = g(large), g._call((large,), {})
    assert references(direct, direct._array) == references(slow, slow._array)
    after = references(*own)
    # records that were made meanwhile hold some; a reference for each call would be thousands
    assert all(abs(a - b) <= 100 for a, b in zip(before, after, strict=True)), (before, after)
    assert abs(sys.getrefcount(None) - shared) < 1000


def test_the_variant_that_is_used_directly_is_not_the_one_unused_for_longest() -> None:
    f = gf.compile(lambda x, k: x * k, keep=2)
    x = np.ones(3, np.float32)
    warm(f, x, 1)
    f(x, 2)
    for _ in range(3):
        f(x, 1)
    f(x, 3)
    assert [v.key[2][1][1] for v in f.variants] == [1, 3]
    f(x, 4)
    assert all(takes(run, x, 1) is False for run in ready(f))


def test_memory_that_the_executor_lets_go_is_let_go() -> None:
    f = gf.compile(lambda x: x.T @ x)
    warm(f, numbers(4, 3))
    (old,) = f._direct._made
    for size in range(5, 30):
        f(numbers(size, 3))
    assert old._instance.dropped
    assert old not in f._direct._made
    assert np.allclose(f(numbers(4, 3)).numpy(), numbers(4, 3).numpy().T @ numbers(4, 3).numpy())


def test_arguments_are_let_go_after_the_call() -> None:
    f = gf.compile(lambda x, y, n: (x @ y).sum() * n)
    x, y = numbers(40, 30), numbers(30, 40).numpy()
    warm(f, x, y, 2)
    arrays = [weakref.ref(x._array), weakref.ref(y)]
    del x, y
    gc.collect()
    assert [a() for a in arrays] == [None, None]
    assert takes(ready(f)[0], numbers(40, 30), numbers(30, 40).numpy(), 2)


def test_states_stay_while_a_call_may_still_run() -> None:
    w = numbers(30, 30)
    f = gf.compile(lambda x: x @ w)
    run = warm(f, numbers(4, 30))
    array = weakref.ref(w._array)
    w.data = numbers(30, 30)
    f(numbers(4, 30))
    gc.collect()
    assert run not in ready(f)
    assert array() is not None  # a thread that is in there reads it
    del run
    gc.collect()
    assert array() is None


def test_without_it_everything_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_direct, "_machines", {})
    monkeypatch.setattr(runtime_direct, "_is_laid_out", lambda: False)
    f = gf.compile(lambda x: x + 1)
    for _ in range(5):
        assert f(np.zeros(2, np.float32)).numpy()[1] == 1
    assert not ready(f)


def test_checked_functions_are_checked_at_every_call() -> None:
    f = gf.compile(lambda x: gf.log(x), check_nan=True)
    for _ in range(3):
        f(np.ones(2, np.float32))
    assert not ready(f)
    with pytest.raises(NaNError):
        f(-np.ones(2, np.float32))
