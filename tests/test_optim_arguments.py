"""What optimizers take as PyTorch's do: names, rates as tensors, hooks, implementations, users' own steps."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn, optim
from graphflow.optim.optimizer import required


def parameter(*values: float) -> gf.Tensor:
    return gf.tensor(values, dtype=gf.float64, requires_grad=True)


def descend(p: gf.Tensor, optimizer: optim.Optimizer, steps: int = 1) -> None:
    for _ in range(steps):
        p.grad = p.detach() * 2
        optimizer.step()


# What PyTorch's signatures say, in their order, `|` before arguments by keyword only.
SIGNATURES = {
    optim.SGD: "lr momentum dampening weight_decay nesterov | maximize foreach differentiable fused",
    optim.Adam: "lr betas eps weight_decay amsgrad | foreach maximize capturable differentiable fused "
    "decoupled_weight_decay",
    optim.AdamW: "lr betas eps weight_decay amsgrad | maximize foreach capturable differentiable fused",
    optim.Adagrad: "lr lr_decay weight_decay initial_accumulator_value eps foreach | maximize differentiable "
    "fused",
    optim.Adadelta: "lr rho eps weight_decay foreach | capturable maximize differentiable",
    optim.Adamax: "lr betas eps weight_decay foreach | maximize differentiable capturable",
    optim.NAdam: "lr betas eps weight_decay momentum_decay decoupled_weight_decay | foreach maximize "
    "capturable differentiable",
    optim.RAdam: "lr betas eps weight_decay decoupled_weight_decay | foreach maximize capturable "
    "differentiable",
    optim.RMSprop: "lr alpha eps weight_decay momentum centered capturable foreach maximize differentiable",
    optim.Rprop: "lr etas step_sizes | capturable foreach maximize differentiable",
    optim.ASGD: "lr lambd alpha t0 weight_decay foreach maximize differentiable capturable",
}


@pytest.mark.parametrize("kind", SIGNATURES, ids=lambda kind: kind.__name__)
def test_arguments_stand_in_pytorchs_order_and_in_the_groups(kind: Any) -> None:
    taken = list(inspect.signature(kind).parameters.values())[1:]
    positional = [p.name for p in taken if p.kind is p.POSITIONAL_OR_KEYWORD]
    keyword = [p.name for p in taken if p.kind is p.KEYWORD_ONLY]
    expected = SIGNATURES[kind].split(" | ")
    assert positional == expected[0].split()
    assert keyword == (expected[1].split() if len(expected) > 1 else [])
    assert {*positional, *keyword} <= set(kind([parameter(1.0)]).param_groups[0])


@pytest.mark.parametrize("name", ["foreach", "fused", "capturable"])
def test_the_choice_of_an_implementation_changes_nothing(name: str) -> None:
    p, q = parameter(1.0, -2.0), parameter(1.0, -2.0)
    one, other = optim.Adam([p], lr=0.1), optim.Adam([q], lr=0.1, **{name: True})
    descend(p, one, 5)
    descend(q, other, 5)
    assert p.tolist() == q.tolist()
    assert other.state_dict()["param_groups"][0][name] is True


def test_implementations_that_exclude_each_other_or_change_the_meaning_are_refused() -> None:
    p = parameter(1.0)
    with pytest.raises(RuntimeError, match="`fused` and `foreach` cannot be `True` together"):
        optim.SGD([p], fused=True, foreach=True)
    with pytest.raises(ValueError, match="differentiable=True isn't supported"):
        optim.SGD([{"params": [p], "differentiable": True}])
    optimizer = optim.SGD([p])
    saved = optimizer.state_dict()
    saved["param_groups"][0]["differentiable"] = True
    with pytest.raises(ValueError, match="differentiable=True isn't supported"):
        optimizer.load_state_dict(saved)


# ---------------------------------------------------------------------------------------------- parameters


def test_names_of_parameters_are_kept_and_saved() -> None:
    model = nn.Linear(2, 1)
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    saved = optimizer.state_dict()["param_groups"][0]
    assert saved["param_names"] == ["weight", "bias"] and saved["params"] == [0, 1]
    bare = {"state": {}, "param_groups": [{k: v for k, v in saved.items() if k != "param_names"}]}
    optimizer.load_state_dict(bare)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]


def test_parameters_come_from_generators_and_groups() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    assert len(optim.SGD(p for p in model.parameters()).param_groups[0]["params"]) == 4
    groups = [{"params": m.parameters(), "lr": 0.1 * (i + 1)} for i, m in enumerate(model)]
    optimizer = optim.SGD(iter(groups), momentum=0.5)
    assert [len(g["params"]) for g in optimizer.param_groups] == [2, 2]
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda a, b: optim.SGD([("a", a), b]), "Some param names are missing"),
        (
            lambda a, b: optim.SGD([{"params": [a]}, {"params": [("b", b)]}]),
            "cannot add param group with names",
        ),
        (
            lambda a, b: optim.SGD([{"params": [("a", a)]}, {"params": [b]}]),
            "cannot add param group without names",
        ),
        (lambda a, b: optim.SGD([{"params": [a]}, {"params": [a]}]), "in more than one parameter group"),
        (lambda a, b: optim.SGD([a, a]), "with duplicate parameters"),
        (lambda a, b: optim.SGD([a], lr=gf.tensor([0.1, 0.2])), "Tensor lr must be 1-element"),
        (lambda a, b: optim.Adam([a], betas=(0.9, gf.tensor(0.99))), "either both floats or both Tensors"),
        (lambda a, b: optim.Optimizer([a], {"pace": required}), "didn't specify a value of required .* pace"),
    ],
)
def test_what_does_not_fit_is_told(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(parameter(1.0), parameter(2.0))


# --------------------------------------------------------------------------------------- rates as tensors


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_a_rate_given_as_a_tensor_is_that_tensor(compiled: bool) -> None:
    p, lr = parameter(1.0), gf.tensor(0.5, dtype=gf.float64)
    optimizer = optim.SGD([p], lr=lr)

    def step(g: gf.Tensor) -> None:
        optimizer.zero_grad()
        (p * g).sum().backward()
        optimizer.step()

    run = gf.compile(step) if compiled else step
    g = gf.ones(1, dtype=gf.float64)
    run(g)
    assert p.item() == 0.5
    lr.mul_(0.5)
    run(g)
    assert p.item() == 0.25
    optimizer.param_groups[0]["lr"].mul_(0.5)
    run(g)
    assert p.item() == 0.125
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    scheduler.step()
    assert lr.item() == 0.0625 and scheduler.get_last_lr() == [0.0625]
    if compiled:
        assert len(run.variants) == 1


def test_rates_are_numbers_of_any_kind() -> None:
    p, q = parameter(1.0), parameter(1.0)
    descend(p, optim.SGD([p], lr=np.float32(0.5), momentum=np.int64(0)))
    descend(q, optim.SGD([q], lr=0.5))
    assert p.item() == q.item() == 0.0
    with pytest.raises(TypeError, match=r"learning rate has to be a number or a tensor .*, got str"):
        optim.SGD([p], lr="0.1")
    with pytest.raises(TypeError, match=r"learning rate has to be a number or a tensor .*, got NoneType"):
        optim.Adam([{"params": [p], "lr": None}])
    with pytest.raises(TypeError, match="betas has to be two numbers, got float"):
        optim.Adam([p], betas=0.9)


def test_a_decay_given_as_a_tensor_may_start_at_zero() -> None:
    p, decay = parameter(1.0), gf.tensor(0.0, dtype=gf.float64)
    optimizer = optim.SGD([p], lr=1.0, weight_decay=decay)
    p.grad = gf.zeros(1, dtype=gf.float64)
    optimizer.step()
    assert p.item() == 1.0
    decay.fill_(0.25)
    optimizer.step()
    assert p.item() == 0.75


# ---------------------------------------------------------------------------------------------- hooks


def test_hooks_run_around_steps() -> None:
    p = parameter(1.0)
    optimizer = optim.SGD([p], lr=0.5)
    told: list[Any] = []
    before = optimizer.register_step_pre_hook(lambda o, args, kwargs: told.append(("pre", args, kwargs)))
    after = optimizer.register_step_post_hook(lambda o, args, kwargs: told.append(("post", o.has_stepped)))
    descend(p, optimizer)
    assert told == [("pre", (optimizer,), {}), ("post", True)]
    before.remove()
    with after:
        descend(p, optimizer)
    descend(p, optimizer)
    assert len(told) == 3

    def with_closure(o: Any, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "closure": lambda: 7.0}

    optimizer.register_step_pre_hook(with_closure)
    assert optimizer.step() == 7.0
    optimizer.register_step_pre_hook(lambda o, args, kwargs: 3)
    with pytest.raises(RuntimeError, match="must return None or a tuple"):
        optimizer.step()


def test_hooks_run_around_saving_and_loading() -> None:
    p = parameter(1.0)
    optimizer = optim.SGD([p], lr=0.5, momentum=0.9)
    descend(p, optimizer)
    told: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda o: told.append("save"))
    optimizer.register_state_dict_pre_hook(lambda o: told.append("first"), prepend=True)
    optimizer.register_state_dict_post_hook(lambda o, saved: {**saved, "note": 3})
    optimizer.register_load_state_dict_pre_hook(lambda o, saved: {**saved, "state": {}})
    optimizer.register_load_state_dict_post_hook(lambda o: told.append("loaded"))
    saved = optimizer.state_dict()
    assert saved["note"] == 3 and 0 in saved["state"]
    optimizer.load_state_dict(saved)
    assert told == ["first", "save", "loaded"]
    assert optimizer.state[p]["momentum_buffer"].item() == 0.0


def test_a_hook_on_a_compiled_step_makes_a_new_variant() -> None:
    p = parameter(1.0)
    optimizer = optim.SGD([p], lr=0.5)

    @gf.compile
    def step(g: gf.Tensor) -> None:
        optimizer.zero_grad()
        (p * g).sum().backward()
        optimizer.step()

    g = gf.ones(1, dtype=gf.float64)
    step(g)

    def halve(o: optim.Optimizer, args: Any, kwargs: Any) -> None:
        assert p.grad is not None
        p.grad.mul_(0.5)

    with optimizer.register_step_pre_hook(halve):
        step(g)
        assert p.item() == 0.25
    step(g)
    assert p.item() == -0.25


# -------------------------------------------------------------------------------------- users' own steps


class Momentum(optim.Optimizer):
    """As PyTorch's tutorials write them: the state is made at the first step, and counts in Python."""

    def __init__(self, params: Any, lr: float = 0.1):
        super().__init__(params, {"lr": lr})

    def step(self, closure: Any = None) -> Any:
        loss = None if closure is None else closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"] = 0
                    state["sum"] = gf.zeros_like(p.data)
                state["step"] += 1
                state["sum"].mul_(0.9).add_(p.grad)
                p.data.add_(state["sum"], alpha=-group["lr"] / state["step"])
        return loss


def test_a_step_of_ones_own_has_hooks_and_can_be_saved() -> None:
    p = parameter(1.0, 2.0)
    optimizer = Momentum([p])
    told: list[int] = []
    optimizer.register_step_post_hook(lambda o, args, kwargs: told.append(o.state[p]["step"]))
    descend(p, optimizer, 3)
    assert told == [1, 2, 3] and optimizer.has_stepped
    saved = copy.deepcopy(optimizer.state_dict())
    q = p.detach().clone().requires_grad_()
    other = Momentum([q], lr=5.0)
    other.load_state_dict(saved)
    descend(p, optimizer, 3)
    descend(q, other, 3)
    assert other.state[q]["step"] == 6
    np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


def test_a_copied_optimizer_steps_on_its_own() -> None:
    p = parameter(1.0)
    optimizer = optim.Adam([p], lr=0.1)
    descend(p, optimizer)
    twin = copy.deepcopy(optimizer)
    (q,) = twin.param_groups[0]["params"]
    assert q is not p and q.item() == p.item()
    descend(q, twin)
    descend(p, optimizer)
    assert q.item() == p.item() and twin.state[q]["step"].item() == 2


def test_state_that_would_be_lost_in_a_compiled_step_is_refused() -> None:
    class Counting(Momentum):
        def step(self, closure: Any = None) -> Any:
            for p in self.param_groups[0]["params"]:
                state = self.state[p]
                if not state:
                    state["sum"], state["step"] = gf.zeros_like(p.detach()), self.counter()
                state["step"] = self.advanced(state["step"])
                with gf.no_grad():
                    state["sum"].mul_(0.5).add_(p.grad)
                    p.sub_(0.1 * state["sum"] / state["step"])

        def counter(self) -> Any:
            return 0

        def advanced(self, counter: Any) -> Any:
            return counter + 1

    class Kept(Counting):
        def counter(self) -> Any:
            return gf.zeros((), dtype=gf.float64)

        def advanced(self, counter: Any) -> Any:
            return counter.add_(1)

    p = parameter(1.0)
    optimizer: Counting = Counting([p])

    def step() -> None:
        optimizer.zero_grad()
        (p * p).sum().backward()
        optimizer.step()

    with pytest.raises(gf.errors.TraceError, match=r"Counting\.step made its state 'sum' while"):
        gf.compile(step)()
    step()
    with pytest.raises(gf.errors.TraceError, match=r"state\[0\]\['step'\] is a Python number"):
        gf.compile(step)()
    p, q = parameter(1.0), parameter(1.0)
    optimizer = Kept([p])
    step()
    compiled = gf.compile(step)
    for _ in range(3):
        compiled()
    assert optimizer.state[p]["step"].item() == 4.0
    got, p = p.item(), q
    optimizer = Kept([p])
    for _ in range(4):
        step()
    assert p.item() == pytest.approx(got, rel=1e-12)
