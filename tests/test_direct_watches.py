"""Direct calls: that they notice whatever else than their arguments they depend on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import config
from graphflow.runtime import threads

from direct_calls import numbers, ready, takes, warm

RATE = 2.0


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)
    gf.set_default_dtype(gf.float32)
    config.reload()


def test_what_was_captured_is_watched() -> None:
    global RATE
    scale = 1.0

    @gf.compile
    def f(x: Any) -> Any:
        return x * scale + RATE

    x = np.ones(3, np.float32)
    run = warm(f, x)
    assert f(x).numpy()[0] == 3
    scale = 5.0
    assert not takes(run, x)
    assert f(x).numpy()[0] == 7
    scale, before, RATE = 1.0, RATE, 10.0
    try:
        assert not takes(run, x)
        assert f(x).numpy()[0] == 11
    finally:
        RATE = before
    assert f(x).numpy()[0] == 3


def test_values_that_are_made_anew_come_to_be_direct_again() -> None:
    scale = 1.5
    f = gf.compile(lambda x: x * scale)
    x = np.ones(3, np.float32)
    run = warm(f, x)
    scale = float("1.5")
    assert not takes(run, x)
    for _ in range(4):
        f(x)
    assert takes(ready(f)[0], x)
    assert len(f.variants) == 1


def test_code_and_defaults_are_watched() -> None:
    def scaled(x: Any, by: float = 2.0, *, plus: float = 0.0) -> Any:
        return x * by + plus

    def other(x: Any, by: float = 2.0, *, plus: float = 0.0) -> Any:
        return x - by

    def f(x: Any, power: int = 1) -> Any:
        return scaled(x) ** power

    g = gf.compile(f)
    x = np.full(3, 3, np.float32)
    changes: list[tuple[Any, str, Any, float]] = [
        (scaled, "__defaults__", (4.0,), 12),
        (scaled, "__kwdefaults__", {"plus": 1.0}, 13),
        (f, "__defaults__", (2,), 169),
        (scaled, "__code__", other.__code__, 1),
    ]
    for function, name, value, expected in changes:
        run = warm(g, x)
        assert takes(run, x)
        setattr(function, name, value)
        assert not takes(run, x)
        assert g(x).numpy()[0] == expected
    run = warm(g, x)
    scaled.__kwdefaults__["plus"] = 2.0
    assert not takes(run, x)
    scaled.__kwdefaults__ = None
    assert not takes(run, x)
    with pytest.raises(TypeError, match="plus"):
        g(x)


def test_attributes_and_containers_are_compared_as_ever() -> None:
    class Config:
        rate = 2.0

    held, shifts = Config(), [1.0]
    f = gf.compile(lambda x: x * held.rate + sum(shifts))
    x = np.ones(3, np.float32)
    run = warm(f, x)
    assert takes(run, x)
    held.rate = 3.0
    assert not takes(run, x)
    assert f(x).numpy()[0] == 4
    shifts.append(10.0)
    assert f(x).numpy()[0] == 14
    assert f(x).numpy()[0] == 14
    held.rate = 2.0
    assert f(x).numpy()[0] == 13


def test_methods_and_objects_among_arguments() -> None:
    class Model:
        def __init__(self, rate: float):
            self.rate, self.shifts = rate, [1.0]

        @gf.compile
        def scaled(self, x: Any) -> Any:
            return x * self.rate + sum(self.shifts)

    one, other = Model(2.0), Model(3.0)
    x = np.ones(3, np.float32)
    for _ in range(3):
        assert (one.scaled(x).numpy()[0], other.scaled(x).numpy()[0]) == (3, 4)
    assert len(ready(Model.scaled)) == 2
    assert [takes(run, one, x) for run in ready(Model.scaled)] == [False, True]
    one.rate = 5.0
    assert not any(takes(run, one, x) for run in ready(Model.scaled))
    assert one.scaled(x).numpy()[0] == 6
    other.shifts.append(4.0)
    assert other.scaled(x).numpy()[0] == 8
    assert one.scaled(x).numpy()[0] == 6
    of_set = gf.compile(lambda x, names: x * len(names))
    for _ in range(4):
        assert of_set(x, {"a", "b"}).numpy()[0] == 2
    assert not ready(of_set)


def test_modes_of_the_thread_and_settings_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    f = gf.compile(lambda x: x @ x)
    x = numbers(4, 4)
    run = warm(f, x)
    with gf.no_grad():
        assert not takes(run, x)
    with gf.autocast("cpu", dtype=gf.bfloat16):
        assert not takes(run, x)
        assert f(x).dtype is gf.bfloat16
    gf.set_default_dtype(gf.float64)
    assert not takes(run, x)
    gf.set_default_dtype(gf.float32)
    assert takes(run, x)
    with gf.profiler.profile() as profiled:
        assert not takes(run, x)
        f(x)
    assert any("matmul" in k.key for k in profiled.key_averages())
    assert takes(run, x)
    threads.set_num_threads(3)
    assert not takes(run, x)
    threads.set_num_threads(1)
    monkeypatch.setenv("GRAPHFLOW_DEBUG", "2")
    config.reload()
    f(x)
    assert "matmul" in capsys.readouterr().err
    seen = []

    def other() -> None:
        seen.append(f(x))

    monkeypatch.undo()
    config.reload()
    warm(f, x)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert np.array_equal(seen[0].numpy(), f(x).numpy())


def test_another_function_in_a_module_is_noticed() -> None:
    layers, inner = ModuleType("layers"), ModuleType("inner")
    layers.inner, inner.scaled, layers.rate = inner, lambda x: x * 2.0, 1.0  # type: ignore[attr-defined]

    @gf.compile
    def f(x: Any) -> Any:
        return layers.inner.scaled(x) * layers.rate

    x = gf.ones(1)
    for _ in range(4):
        assert f(x).item() == 2.0
    assert takes(ready(f)[0], x)
    inner.scaled = lambda x: x * 3.0  # type: ignore[attr-defined]
    assert f(x).item() == f(x).item() == 3.0
    layers.inner = SimpleNamespace(scaled=lambda x: x * 4.0)  # type: ignore[attr-defined]
    assert f(x).item() == f(x).item() == 4.0
    layers.rate = 2.0  # type: ignore[attr-defined]
    assert f(x).item() == 8.0
    layers = SimpleNamespace(inner=inner, rate=1.0)  # type: ignore[assignment]
    assert f(x).item() == 3.0
