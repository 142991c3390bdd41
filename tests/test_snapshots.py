"""What objects hold is compared wherever code may read it: in callees, in loops, by name, through classes."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import graphflow as gf
import graphflow.nn.functional as F
import pytest
from graphflow import nn, optim

X = gf.ones(3, 2)


class Held:
    """An object with an attribute that matters and one that doesn't."""

    def __init__(self, k: float) -> None:
        self.k, self.other = k, 0

    def value(self) -> float:
        return self.k

    @property
    def seen(self) -> float:
        return self.k

    def __call__(self, y: Any) -> Any:
        return y * self.k

    def summed(self, y: Any) -> Any:
        return sum(y * self.k for _ in range(1))


class Derived(Held):
    """A method that asks its base."""

    def value(self) -> float:
        return super().value()


class Slotted:
    """An object without a dictionary."""

    __slots__ = ("k",)

    def __init__(self, k: float) -> None:
        self.k = k


@dataclass
class Options:
    """Options as people write them."""

    k: float


class Lenient(dict[str, Any]):
    """A dictionary whose items are attributes."""

    def __getattr__(self, name: str) -> Any:
        return self[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class Net(nn.Module):
    """A module that others read."""

    def __init__(self) -> None:
        super().__init__()
        self.k, self.gains, self.held = 3.0, [3.0], Held(3.0)

    def forward(self, y: Any) -> Any:
        return y


def times(o: Any, y: Any) -> Any:
    return y * o.k


def times_inner(o: Any, y: Any) -> Any:
    return times(o.inner, y)


def times_gain(o: Any, y: Any) -> Any:
    return y * o.gains[0]


def aliased(o: Any) -> Callable[[Any], Any]:
    def function(y: Any) -> Any:
        local = o
        return y * local.k

    return function


def through_class() -> tuple[Any, Any]:
    class Constants:
        k = 3.0

    return Constants, Constants()


def listed(o: Any) -> Any:
    functions = [lambda y: y * o.k]
    return lambda y: sum(f(y) for f in functions)


def bound(o: Any) -> Any:
    method = o.value
    return lambda y: y * method()


def picked(o: Any) -> Any:
    pick = operator.attrgetter("k")
    return lambda y: y * pick(o)


def partially(o: Any) -> Any:
    applied = partial(times, o)
    return lambda y: applied(y)


CASES: dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]] = {
    "argument of a callee": (lambda o: lambda y: times(o, y), lambda: Held(3.0)),
    "getattr": (lambda o: lambda y: y * getattr(o, "k", None), lambda: SimpleNamespace(k=3.0)),
    "getattr with a computed name": (lambda o: lambda y: y * getattr(o, "K".lower(), 0), lambda: Held(3.0)),
    "vars": (lambda o: lambda y: y * vars(o)["k"], lambda: Held(3.0)),
    "method": (lambda o: lambda y: y * o.value(), lambda: Held(3.0)),
    "property": (lambda o: lambda y: y * o.seen, lambda: Held(3.0)),
    "generator in a method": (lambda o: lambda y: o.summed(y), lambda: Held(3.0)),
    "super": (lambda o: lambda y: y * o.value(), lambda: Derived(3.0)),
    "slots": (lambda o: lambda y: times(o, y), lambda: Slotted(3.0)),
    "dataclass": (lambda o: lambda y: times(o, y), lambda: Options(3.0)),
    "attributes that are items": (lambda o: lambda y: y * o.k, lambda: Lenient(k=3.0)),
    "called object": (lambda o: lambda y: o(y), lambda: Held(3.0)),
    "another name": (aliased, lambda: Held(3.0)),
    "functions in a list": (listed, lambda: Held(3.0)),
    "bound method": (bound, lambda: Held(3.0)),
    "attrgetter": (picked, lambda: Held(3.0)),
    "partial": (partially, lambda: Held(3.0)),
    "module": (lambda o: lambda y: times(o, y), Net),
    "class": (lambda o: lambda y: times(o, y), lambda: through_class()[0]),
}


@pytest.mark.parametrize("case", CASES)
def test_an_attribute_that_changes_is_noticed_and_others_are_not(case: str) -> None:
    make, new = CASES[case]
    held = new()
    function = gf.compile(make(held))
    assert [function(X).sum().item() for _ in range(2)] == [18.0, 18.0]
    if case not in ("slots", "class", "vars", "attrgetter", "module") and not isinstance(held, dict):
        held.unread = 1  # only where all attributes count, it is
    count = len(function.variants)
    function(X)
    assert len(function.variants) - count == (case == "getattr with a computed name")
    count = len(function.variants)
    held.k = 5.0
    assert [function(X).sum().item() for _ in range(2)] == [30.0, 30.0]
    assert len(function.variants) == count + 1
    assert "3.0" in function.variants[-1].reason
    assert "5.0" in function.variants[-1].reason


def test_objects_in_containers_and_in_objects() -> None:
    objects = [Held(3.0)]
    table = {"a": SimpleNamespace(inner=Held(3.0))}
    each = gf.compile(lambda y: sum(y.sum() * o.k for o in objects))
    deep = gf.compile(lambda y: times_inner(table["a"], y).sum())
    assert [each(X).item(), deep(X).item()] == [18.0, 18.0]
    objects[0].k = table["a"].inner.k = 5.0
    assert [each(X).item(), deep(X).item()] == [30.0, 30.0]
    assert each.variants[-1].reason == "objects[0].k: 3.0 became 5.0"
    assert deep.variants[-1].reason == "table['a'].inner.k: 3.0 became 5.0"
    objects.append(Held(1.0))
    assert each(X).item() == 36.0


def test_what_a_module_holds_is_compared_where_it_is_handed_on() -> None:
    net = Net()
    gain, held = (
        gf.compile(lambda y: times_gain(net, y).sum()),
        gf.compile(lambda y: times(net.held, y).sum()),
    )
    assert [gain(X).item(), held(X).item()] == [18.0, 18.0]
    net.gains[0] = net.held.k = 5.0
    assert [gain(X).item(), held(X).item()] == [30.0, 30.0]


class Task:
    """A trainer that keeps books, and hands itself to functions."""

    def __init__(self) -> None:
        self.k, self.calls, self.log = 3.0, 0, []  # type: ignore[var-annotated]

    @gf.compile
    def step(self, y: Any) -> Any:
        self.log.append("traced")
        return times(self, y).sum()

    @gf.compile
    def own(self, y: Any) -> Any:
        return self.scaled(y).sum()

    def scaled(self, y: Any) -> Any:
        return y * self.k


@pytest.mark.parametrize("name", ["step", "own"])
def test_arguments_are_objects_whose_attributes_callees_read(name: str) -> None:
    task = Task()
    step = getattr(task, name)
    count = len(step.variants)
    for _ in range(3):
        assert step(X).item() == 18.0
        task.calls += 1
    assert len(step.variants) == count + 1
    task.k = 5.0
    assert step(X).item() == 30.0
    assert step.variants[-1].reason == "self.k: 3.0 became 5.0"


def test_arguments_within_containers_and_by_keyword() -> None:
    def each(objects: Any, y: Any, *, last: Any) -> Any:
        return sum(times(o, y).sum() for o in [*objects, last])

    function = gf.compile(each)
    first, last = Held(1.0), Held(2.0)
    assert function([first], X, last=last).item() == 18.0
    last.k = 4.0
    assert function([first], X, last=last).item() == 30.0
    first.k = 2.0
    assert function([first], X, last=last).item() == 36.0
    first.other = last.other = 7
    function([first], X, last=last)
    assert len(function.variants) == 3


def test_a_training_loop_that_keeps_books_compiles_once() -> None:
    class Trainer:
        def __init__(self) -> None:
            self.model = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
            self.optimizer = optim.Adam(self.model.parameters(), lr=0.1)
            self.losses: list[float] = []
            self.count = 0
            self.step = gf.compile(self.plain_step)

        def plain_step(self, x: Any, y: Any) -> Any:
            return helper(self, x, y)

        def fit(self) -> None:
            for n in (4, 3, 4, 5):
                self.losses.append(self.step(gf.ones(n, 2), gf.zeros(n, dtype=gf.int64)).item())
                self.count += 1

    def helper(trainer: Trainer, x: Any, y: Any) -> Any:
        loss = F.cross_entropy(trainer.model(x), y)
        trainer.optimizer.zero_grad()
        loss.backward()
        trainer.optimizer.step()
        return loss

    trainer = Trainer()
    trainer.fit()
    assert trainer.losses[-1] < trainer.losses[0]
    assert len(trainer.step.variants) == 1


def test_collecting_in_an_object_is_no_reason() -> None:
    counted = SimpleNamespace(k=3.0, traces=[])

    def note(o: Any) -> None:
        o.traces.append(o.k)

    @gf.compile
    def function(y: Any) -> Any:
        note(counted)
        return times(counted, y).sum()

    assert [function(X).item() for _ in range(3)] == [18.0] * 3
    assert counted.traces == [3.0]
    counted.k = 5.0
    assert function(X).item() == 30.0


def test_an_object_that_answers_strangely_is_only_looked_at() -> None:
    class Strange:
        __slots__ = ("k",)

        def __init__(self) -> None:
            self.k: Any = 3.0

        def __getattr__(self, name: str) -> Any:
            raise KeyError(name)

        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        def __repr__(self) -> str:
            raise RuntimeError

        __hash__ = None  # type: ignore[assignment]

    strange = Strange()
    function = gf.compile(lambda y: times(strange, y).sum())
    assert function(X).item() == 18.0
    strange.k = 5.0
    assert function(X).item() == 30.0


def test_a_list_the_function_appends_to_and_reads_is_compared() -> None:
    sizes: list[Any] = []
    kept: list[Any] = []

    def f(x: Any) -> Any:
        sizes.append(1)
        kept.append(x * 2)
        return kept[-1] * len(sizes)

    g = gf.compile(f)
    assert [g(gf.ones(1)).item() for _ in range(4)] == [2, 4, 6, 8]
    sizes.clear()
    assert g(gf.ones(1)).item() == 2
    h = gf.compile(lambda x: (kept.append(x), kept[-1] * 2)[1])
    assert [h(gf.ones(1)).item() for _ in range(3)] == [2, 2, 2]
    assert len(h.variants) == 1
