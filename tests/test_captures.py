"""What a function takes from around it: a changed value is another variant, changed numbers aren't."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn

SCALE = 2.0
CONFIG = {"rate": 0.5}


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape)


def reasons(f: gf.CompiledFunction) -> list[str]:
    return [v.reason for v in f.variants]


def test_modes_and_attributes_of_modules() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.gain = nn.Dropout(0.5), 2.0

        def forward(self, x: Any) -> Any:
            return self.drop(x) * self.gain

    net = Net()
    f = gf.compile(lambda x: net(x))
    f(ones(64))
    net.eval()
    assert f(ones(64)).tolist() == [2.0] * 64
    net.gain = 3.0
    assert f(ones(64)).tolist() == [3.0] * 64
    assert len(f.variants) == 3
    assert "training" in reasons(f)[1] or "False" in reasons(f)[1]
    net.train()
    net.gain = 2.0
    f(ones(64))
    net.eval()
    assert f(ones(64)).tolist() == [2.0] * 64
    assert len(f.variants) == 3


def test_requires_grad_of_parameters() -> None:
    layer = nn.Linear(2, 2)
    f = gf.compile(lambda x: layer(x))
    x = gf.ones(3, 2)
    assert f(x).requires_grad
    layer.requires_grad_(False)
    assert not f(x).requires_grad
    assert "requires_grad of weight changed from True to False" in reasons(f)
    layer.requires_grad_(True)
    assert f(x).requires_grad
    assert len(f.variants) == 2


def test_replaced_parameters_and_memory() -> None:
    layer = nn.Linear(2, 2, bias=False)
    f = gf.compile(lambda x: layer(x))
    x = gf.ones(1, 2)
    f(x)
    layer.weight.data = gf.zeros(2, 2)
    assert f(x).tolist() == [[0.0, 0.0]]
    assert len(f.variants) == 1
    layer.weight = nn.Parameter(gf.ones(2, 2))
    assert f(x).tolist() == [[2.0, 2.0]]
    layer.load_state_dict({"weight": gf.full((2, 2), 3.0)})
    assert f(x).tolist() == [[6.0, 6.0]]
    layer.double()
    assert f(x.double()).dtype is gf.float64


def scaled(x: Any) -> Any:
    return x * SCALE + CONFIG["rate"]


def test_globals_closures_and_what_helpers_read(monkeypatch: pytest.MonkeyPatch) -> None:
    offset = 1.0
    space = SimpleNamespace(deep=SimpleNamespace(shift=0.0))

    @gf.compile
    def f(x: Any) -> Any:
        return scaled(x) + offset + space.deep.shift

    assert f(ones(1)).item() == 3.5
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    assert f(ones(1)).item() == 4.5
    offset = 2.0
    assert f(ones(1)).item() == 5.5
    space.deep.shift = 10.0
    assert f(ones(1)).item() == 15.5
    monkeypatch.setitem(CONFIG, "rate", 1.0)
    assert f(ones(1)).item() == 16.0
    assert reasons(f)[1:] == [
        "SCALE: 2.0 became 3.0",
        "offset: 1.0 became 2.0",
        "space.deep.shift: 0.0 became 10.0",
        "CONFIG: dict(tuple('rate', 0.5)) became dict(tuple('rate', 1.0))",
    ]
    assert f(ones(1)).item() == 16.0
    assert len(f.variants) == 5


def test_globals_may_come_after_the_function() -> None:
    space: dict[str, Any] = {"gf": gf}
    exec("f = gf.compile(lambda x: x * LATER)\nLATER = 2.0", space)
    assert space["f"](ones(1)).item() == 2.0
    space["LATER"] = 3.0
    assert space["f"](ones(1)).item() == 3.0


def test_tensors_from_around_the_function_are_states() -> None:
    w = gf.tensor([1.0, 2.0])
    f = gf.compile(lambda x: x * w)
    x = gf.ones(2)
    assert f(x).tolist() == [1.0, 2.0]
    w.mul_(3)
    assert f(x).tolist() == [3.0, 6.0]
    assert len(f.variants) == 1
    w = gf.tensor([5.0, 5.0])
    assert f(x).tolist() == [5.0, 5.0]
    assert len(f.variants) == 2


def test_the_attributes_of_a_methods_object() -> None:
    class Trainer:
        def __init__(self, gain: float) -> None:
            self.gain = gain

        @gf.compile
        def step(self, x: Any) -> Any:
            return x * self.gain

    a, b = Trainer(2.0), Trainer(3.0)
    assert a.step(ones(1)).item() == 2.0
    assert b.step(ones(4)).tolist() == [3.0] * 4
    a.gain = 5.0
    assert a.step(ones(1)).item() == 5.0
    assert b.step(ones(4)).tolist() == [3.0] * 4
    assert [v.reason for v in a.step.variants] == [
        "the first call",
        "self: a Trainer became another Trainer",
        "self: a Trainer became another Trainer",
    ]
    b.gain = 7.0
    assert b.step(ones(4)).tolist() == [7.0] * 4
    assert b.step.variants[-1].reason == "self.gain: 3.0 became 7.0"


def test_a_compiled_forward_notices_its_modules_mode() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        @gf.compile
        def forward(self, x: Any) -> Any:
            return self.layer(x) * (1.0 if self.training else 0.0)

    net = Net()
    assert net(gf.ones(1, 2)).abs().sum().item() > 0
    net.eval()
    assert net(gf.ones(1, 2)).abs().sum().item() == 0
    net.train()
    net.layer = nn.Linear(2, 5)
    assert net(gf.ones(1, 2)).shape == (1, 5)


def test_a_list_the_function_appends_to_is_no_reason() -> None:
    seen: list[Any] = []
    gains = [1.0, 2.0]

    @gf.compile
    def f(x: Any) -> Any:
        seen.append(x.shape)
        return x * gains[0]

    for n in (1, 2, 3):
        f(ones(n))
    assert len(seen) == len(f.variants) == 1
    gains[0] = 7.0
    assert f(ones(1)).item() == 7.0


def test_many_variants_are_warned_about() -> None:
    f = gf.compile(lambda x, n: x + n)
    for n in range(15):
        f(ones(1), n)
    with pytest.warns(
        RuntimeWarning, match="has 16 compiled variants now, the last because of: n: 14 became 15"
    ):
        f(ones(1), 15)
