"""What a function takes from around it: a changed value is another variant, changed numbers aren't."""

from __future__ import annotations

from collections import Counter
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
        "CONFIG: dict('rate': 0.5) became dict('rate': 1.0)",
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


class Settings:
    """A plain object that a module keeps."""

    def __init__(self, power: float) -> None:
        self.power = power


class Scaled(nn.Module):
    """A module with Python values of every kind around its one operation."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = [2.0, 3.0]
        self.table = {"scale": 1.0}
        self.settings = Settings(1.0)
        self.offset = gf.zeros(1)
        self.history: list[float] = []

    def scale(self) -> float:
        return self.factors[0] * self.table["scale"]

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        return x * (self.scale() * self.settings.power) + self.offset


class Holder(nn.Module):
    """A module around another one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Scaled()

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        return self.inner(x)


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("as_module", [False, True])
def test_what_a_modules_methods_take_from_it_is_compared(nested: bool, as_module: bool) -> None:
    model = Holder() if nested else Scaled()
    part = model.inner if isinstance(model, Holder) else model
    function = gf.compile(model) if as_module else gf.compile(lambda x: model(x))
    x = gf.ones(1)
    assert function(x).item() == 2.0
    part.factors[0] = 5.0
    assert function(x).item() == 5.0
    part.table["scale"] = 2.0
    assert function(x).item() == 10.0
    part.settings.power = 3.0
    assert function(x).item() == 30.0
    part.offset = gf.ones(1)
    assert function(x).item() == 31.0
    reasons = [v.reason for v in function.variants[1:]]
    assert "factors: list(2.0, 3.0) became list(5.0, 3.0)" in reasons[0]
    assert "settings.power: 1.0 became 3.0" in reasons[2]
    assert len(reasons) == 4


def test_what_a_module_keeps_for_others_is_no_reason_to_compile_again() -> None:
    model = Scaled()
    function = gf.compile(lambda x: model(x))
    for _ in range(3):
        model.train()
        model.history.append(function(gf.ones(1)).item())
        model.eval()
        function(gf.ones(1))
    assert len(function.variants) == 2


def test_another_part_in_a_networks_place_is_noticed() -> None:
    model, place = Holder(), SimpleNamespace()
    place.model = Holder()
    functions = [
        gf.compile(lambda x: model(x)),
        gf.compile(lambda x: model.inner(x)),
        gf.compile(lambda x: place.model.inner(x)),
    ]
    assert [f(gf.ones(1)).item() for f in functions] == [2.0] * 3
    other = Holder()
    other.inner.factors = [7.0]
    model.inner, place.model = other.inner, other
    assert [f(gf.ones(1)).item() for f in functions] == [7.0] * 3


class Counted:
    """A class whose attribute its own method reads."""

    factor = 2.0

    @classmethod
    def scaled(cls, x: gf.Tensor) -> gf.Tensor:
        return x * cls.factor


def test_what_a_class_method_takes_from_its_class_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    function = gf.compile(Counted.scaled)
    assert function(gf.ones(1)).item() == 2.0
    monkeypatch.setattr(Counted, "factor", 3.0)
    assert function(gf.ones(1)).item() == 3.0


def test_a_new_variant_names_the_flag_or_option_that_changed() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    optimizer = gf.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    @gf.compile
    def step(x: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
        return loss

    step(gf.ones(3, 2))
    model.eval()
    step(gf.ones(3, 2))
    optimizer.param_groups[0]["nesterov"] = True
    step(gf.ones(3, 2))
    model.append(nn.ReLU())
    step(gf.ones(3, 2))
    assert reasons(step)[1:3] == [
        "Sequential.training: True became False",
        "SGD.param_groups[0]['nesterov']: False became True",
    ]
    assert "Sequential.2: nothing became a ReLU" in reasons(step)[3]


class Task:
    """A plain object with a compiled method."""

    def __init__(self) -> None:
        self.factor = gf.ones(1)

    @gf.compile
    def scaled(self, x: gf.Tensor) -> gf.Tensor:
        return x * self.factor


def test_what_a_compiled_method_inside_another_function_takes_is_compared() -> None:
    task = Task()
    function = gf.compile(lambda x: task.scaled(x))
    assert function(gf.ones(1)).item() == 1.0
    task.factor = gf.full((1,), 5.0)
    assert function(gf.ones(1)).item() == 5.0


def test_a_compiled_module_inside_another_function_is_looked_into() -> None:
    model = Scaled()
    part = gf.compile(model)
    function = gf.compile(lambda x: part(x))
    assert function(gf.ones(1)).item() == 2.0
    model.factors[0] = 5.0
    assert function(gf.ones(1)).item() == 5.0


def test_numbers_deep_inside_containers_are_compared() -> None:
    config = {"layers": {"sizes": [[1.0], (2.0, {"gain": 3.0})]}, "log": []}

    @gf.compile
    def f(x: Any) -> Any:
        config["log"].append(x.shape)
        return x * config["layers"]["sizes"][0][0] * config["layers"]["sizes"][1][1]["gain"]

    assert [f(ones(1)).item(), f(ones(2))[0].item(), len(f.variants)] == [3.0, 3.0, 1]
    config["layers"]["sizes"][1][1]["gain"] = 5.0
    assert f(ones(1)).item() == 5.0


def test_a_mapping_the_function_adds_to_is_still_looked_into() -> None:
    state: dict[str, Any] = {"rate": 2.0, "log": []}

    @gf.compile
    def f(x: Any) -> Any:
        state["log"].append(x)
        state["last"] = x * state["rate"]
        return x * state["rate"]

    assert [f(ones(1)).item(), f(ones(1)).item(), len(f.variants)] == [2.0, 2.0, 1]
    state["rate"] = 3.0
    assert f(ones(1)).item() == 3.0


def counters() -> list[Any]:
    """Functions that multiply by how often they have been called, each keeping the number elsewhere."""
    held: Any = SimpleNamespace(number=0)
    mapping, counter, numbers = {"n": 0, "all": [0]}, Counter[str](), [0]

    def attribute(x: Any) -> Any:
        held.number += 1
        return x * held.number

    def entry(x: Any) -> Any:
        mapping["n"] += 1  # type: ignore[operator]
        return x * mapping["n"]

    def nested(x: Any) -> Any:
        mapping["all"][0] += 1  # type: ignore[index]
        return x * mapping["all"][0]  # type: ignore[index]

    def counts(x: Any) -> Any:
        counter["calls"] += 1
        return x * counter["calls"]

    def item(x: Any) -> Any:
        numbers[0] += 1
        return x * numbers[0]

    return [attribute, entry, nested, counts, item]


@pytest.mark.parametrize("function", counters(), ids=lambda f: f.__name__)
def test_a_function_that_counts_its_calls(function: Any) -> None:
    f = gf.compile(function)
    assert [f(ones(1)).item() for _ in range(4)] == [1.0, 2.0, 3.0, 4.0]


def shifted(x: Any, by: Any = (1.0,), *, times: Any = 1.0) -> Any:
    return x * times + by[0]


def test_defaults_and_code_that_are_replaced_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def f(x: Any, config: Any = None) -> Any:
        return shifted(x) + (config or {"add": 0.0})["add"]

    def other(x: Any, by: Any = (1.0,), *, times: Any = 1.0) -> Any:
        return x - by[0]

    g = gf.compile(f)
    assert g(ones(1)).item() == 2.0
    monkeypatch.setattr(shifted, "__defaults__", ((5.0,),))
    assert g(ones(1)).item() == 6.0
    monkeypatch.setitem(shifted.__kwdefaults__, "times", 3.0)
    assert g(ones(1)).item() == 8.0
    monkeypatch.setattr(shifted, "__kwdefaults__", {"times": 4.0})
    assert g(ones(1)).item() == 9.0
    f.__defaults__ = ({"add": 10.0},)
    assert g(ones(1)).item() == 19.0
    g.__defaults__ = ({"add": 20.0},)
    assert f(ones(1)).item() == g(ones(1)).item() == 29.0
    monkeypatch.setattr(shifted, "__code__", other.__code__)
    assert g(ones(1)).item() == 16.0
    assert reasons(g)[1:] == [
        "shifted.__defaults__: tuple(tuple(1.0)) became tuple(tuple(5.0))",
        "shifted.__kwdefaults__: dict('times': 1.0) became dict('times': 3.0)",
        "shifted.__kwdefaults__: dict('times': 3.0) became dict('times': 4.0)",
        "f.__defaults__: tuple(None) became tuple(dict('add': 10.0))",
        "f.__defaults__: tuple(dict('add': 10.0)) became tuple(dict('add': 20.0))",
        "shifted.__code__: a code became another code",
    ]


def test_what_defaults_hold_is_compared() -> None:
    net, held = nn.Dropout(0.5), SimpleNamespace(rate=2.0)
    seen: list[Any] = []

    @gf.compile
    def f(x: Any, drop: Any = net, config: Any = held, met: Any = seen) -> Any:
        met.append(1)
        return drop(x) * config.rate

    assert set(f(ones(64)).tolist()) == {0.0, 4.0}
    net.eval()
    assert f(ones(1)).item() == 2.0
    held.rate = 3.0
    for _ in range(4):
        assert f(ones(1)).item() == 3.0
    assert f(ones(1), nn.ReLU()).item() == 3.0
    assert len(f.variants) == len(seen) == 4


def test_another_code_has_other_parameters() -> None:
    def f(x: Any, a: Any, b: Any) -> Any:
        return x * a.rate

    def other(x: Any, b: Any, a: Any) -> Any:
        return x * b.rate

    one, two = SimpleNamespace(rate=2.0), SimpleNamespace(rate=3.0)
    g = gf.compile(f)
    assert g(ones(1), one, two).item() == 2.0
    f.__code__ = other.__code__
    assert g(ones(1), one, two).item() == 2.0
    one.rate = 5.0
    assert g(ones(1), one, two).item() == 5.0
