"""Compiled training steps beside the same code run as it stands."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import graphflow as gf
import graphflow.nn.functional as F
import numpy as np
import pytest
from graphflow import nn, optim
from graphflow.tensor import Tensor

Step = Callable[[Any, Any], Any]
TOLERANCE = {gf.float32: 1e-5, gf.float64: 1e-12}


class Setup:
    """A small classifier, its optimizer, and batches; the same numbers every time."""

    def __init__(self, dtype: Any = gf.float64, optimizer: Any = None):
        gf.manual_seed(3)
        self.dtype = dtype
        self.model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
        if dtype is gf.float64:
            self.model.double()
        make = optimizer or (lambda p: optim.SGD(p, lr=0.1))
        self.optimizer = make(self.model.parameters())

    def tensors(self) -> dict[str, Tensor]:
        found = dict(self.model.named_parameters())
        for number, state in self.optimizer.state_dict()["state"].items():
            found.update({f"{number}.{name}": value for name, value in state.items()})
        return found

    def grads(self) -> dict[str, np.ndarray | None]:
        return {
            n: None if p.grad is None else p.grad.numpy().copy() for n, p in self.model.named_parameters()
        }


def batch(number: int, dtype: Any = gf.float64, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The batch of a step: 32 rows, then 17, then 1, and so on."""
    rng = np.random.default_rng(number)
    rows = (32, 17, 1)[number % 3] if size is None else size
    return rng.standard_normal((rows, 6)).astype(dtype.numpy), rng.integers(0, 4, rows)


def assert_same(compiled: Setup, eager: Setup, tolerance: float) -> None:
    ours, theirs = compiled.tensors(), eager.tensors()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        expected = theirs[name].detach().numpy()
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            value.detach().numpy(), expected, tolerance, tolerance * scale, err_msg=name
        )
    for name, grad in compiled.grads().items():
        expected = eager.grads()[name]
        assert (grad is None) == (expected is None), name
        if grad is not None:
            np.testing.assert_allclose(
                grad, expected, tolerance, tolerance * np.abs(expected).max(), err_msg=name
            )


def run_both(
    define: Callable[[Setup], Step], steps: int = 8, dtype: Any = gf.float64, optimizer: Any = None
) -> tuple[Setup, gf.CompiledFunction]:
    """Runs a step compiled and as it stands, comparing everything after each; gives the compiled one."""
    ours, theirs = Setup(dtype, optimizer), Setup(dtype, optimizer)
    compiled, eager = gf.compile(define(ours)), define(theirs)
    for number in range(steps):
        x, y = batch(number, dtype)
        loss = compiled(gf.tensor(x), gf.tensor(y))
        expected = eager(gf.tensor(x), gf.tensor(y))
        np.testing.assert_allclose(loss.item(), expected.item(), TOLERANCE[dtype])
        assert_same(ours, theirs, TOLERANCE[dtype])
    return ours, compiled


def the_loop(s: Setup) -> Step:
    def train_step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(s.model(x), y)
        s.optimizer.zero_grad()
        loss.backward()
        s.optimizer.step()
        return loss

    return train_step


OPTIMIZERS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adam": lambda p: optim.Adam(p, lr=1e-2, weight_decay=1e-2),
    "adamw": lambda p: optim.AdamW(p, lr=1e-2),
}


@pytest.mark.parametrize("dtype", [gf.float32, gf.float64], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_steps_give_the_numbers_of_the_undecorated_code(name: str, dtype: Any) -> None:
    _, compiled = run_both(the_loop, 20, dtype, OPTIMIZERS[name])
    assert len(compiled.variants) == 1


def test_one_variant_and_updates_in_place() -> None:
    s = Setup(gf.float32, lambda p: optim.Adam(p, lr=1e-3))
    traced = []

    @gf.compile
    def train_step(x: Any, y: Any) -> Any:
        traced.append(x.shape)
        return the_loop(s)(x, y)

    train_step(*batch(0, gf.float32, 32))
    before = {name: (t.data_ptr(), t.detach().numpy().copy()) for name, t in s.tensors().items()}
    assert any("exp_avg" in name for name in before)
    for rows in (17, 1, 32):
        train_step(*batch(1, gf.float32, rows))
    for name, tensor in s.tensors().items():
        address, value = before[name]
        assert tensor.data_ptr() == address, name
        assert not np.array_equal(tensor.detach().numpy(), value), name
    assert len(train_step.variants) == 1
    assert len(traced) == 1


def zero_first(s: Setup) -> Step:
    def step(x: Any, y: Any) -> Any:
        s.optimizer.zero_grad()
        loss = F.cross_entropy(s.model(x), y)
        loss.backward()
        s.optimizer.step()
        return loss

    return step


def zero_last(s: Setup) -> Step:
    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(s.model(x), y)
        loss.backward()
        s.optimizer.step()
        s.optimizer.zero_grad()
        return loss

    return step


def zeros_first(s: Setup) -> Step:
    def step(x: Any, y: Any) -> Any:
        s.optimizer.zero_grad(set_to_none=False)
        loss = F.cross_entropy(s.model(x), y)
        loss.backward()
        s.optimizer.step()
        return loss

    return step


def zeros_last(s: Setup) -> Step:
    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(s.model(x), y)
        loss.backward()
        s.optimizer.step()
        s.optimizer.zero_grad(set_to_none=False)
        return loss

    return step


def never_zeroed(s: Setup) -> Step:
    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(s.model(x), y)
        loss.backward()
        s.optimizer.step()
        return loss

    return step


def two_losses(s: Setup) -> Step:
    def step(x: Any, y: Any) -> Any:
        out = s.model(x)
        loss, penalty = F.cross_entropy(out, y), 0.01 * (out * out).mean()
        s.optimizer.zero_grad()
        loss.backward(retain_graph=True)
        penalty.backward()
        s.optimizer.step()
        return loss + penalty

    return step


def two_halves(s: Setup) -> Step:
    def step(x: Any, y: Any) -> Any:
        s.optimizer.zero_grad()
        first = F.cross_entropy(s.model(x), y)
        first.backward()
        second = F.cross_entropy(s.model(x * 0.5), y)
        second.backward()
        s.optimizer.step()
        return first + second

    return step


def frozen(s: Setup) -> Step:
    for p in s.model[0].parameters():
        p.requires_grad_(False)
    return the_loop(s)


def clipped(s: Setup) -> Step:
    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(s.model(x), y)
        s.optimizer.zero_grad()
        loss.backward()
        with gf.no_grad():
            for p in s.model.parameters():
                p.grad.clamp_(-0.05, 0.05)
        s.optimizer.step()
        return loss.detach()

    return step


@pytest.mark.parametrize(
    ("define", "variants"),
    [(zero_first, 1), (zero_last, 1), (zeros_first, 2), (zeros_last, 2), (never_zeroed, 2), (two_losses, 1),
     (two_halves, 1), (frozen, 1), (clipped, 1)],
)  # fmt: skip
def test_every_way_to_write_the_loop(define: Callable[[Setup], Step], variants: int) -> None:
    _, compiled = run_both(define)
    assert len(compiled.variants) == variants


def test_the_optimizer_may_step_outside() -> None:
    ours, theirs = Setup(), Setup()

    def forward(s: Setup) -> Step:
        def forward_backward(x: Any, y: Any) -> Any:
            loss = F.cross_entropy(s.model(x), y)
            loss.backward()
            return loss

        return forward_backward

    compiled, eager = gf.compile(forward(ours)), forward(theirs)
    for number in range(6):
        for s, step in ((ours, compiled), (theirs, eager)):
            x, y = batch(number)
            s.optimizer.zero_grad()
            step(x if s is ours else gf.tensor(x), gf.tensor(y))
            s.optimizer.step()
        assert_same(ours, theirs, 1e-12)
    assert len(compiled.variants) == 1


def test_accumulation_over_calls_needs_two_variants_however_often_it_starts_anew() -> None:
    ours, theirs = Setup(), Setup()

    def accumulate(s: Setup) -> Step:
        def forward_backward(x: Any, y: Any) -> Any:
            loss = F.cross_entropy(s.model(x), y)
            loss.backward()
            return loss

        return forward_backward

    compiled, eager = gf.compile(accumulate(ours)), accumulate(theirs)
    for number in range(12):
        x, y = (gf.tensor(v) for v in batch(number))
        compiled(x, y)
        eager(x, y)
        if number % 4 == 3:
            for s in (ours, theirs):
                s.optimizer.step()
                s.optimizer.zero_grad()
        assert_same(ours, theirs, 1e-12)
    assert len(compiled.variants) == 2
    assert "grad" in compiled.variants[1].reason


def test_backward_may_run_outside() -> None:
    ours, theirs = Setup(), Setup()
    compiled = gf.compile(lambda x, y: F.cross_entropy(ours.model(x), y))
    for number in range(4):
        x, y = (gf.tensor(v) for v in batch(number))
        for s, forward in ((ours, compiled), (theirs, lambda x, y: F.cross_entropy(theirs.model(x), y))):
            loss = forward(x, y)
            s.optimizer.zero_grad()
            loss.backward()
            s.optimizer.step()
        assert_same(ours, theirs, 1e-12)
    assert len(compiled.variants) == 1


def test_gradients_reach_what_arguments_were_made_from() -> None:
    results = []
    for wrap in (gf.compile, lambda f: f):
        w = gf.tensor([1.0, 2.0, 3.0], requires_grad=True)

        @wrap
        def forward_backward(h: Any) -> Any:
            loss = (h * h).sum()
            loss.backward()
            return loss

        forward_backward(w * 2)
        forward_backward(w * 3)
        results.append(w.grad.tolist())
    assert results[0] == results[1] == [26.0, 52.0, 78.0]


def test_gradients_of_arguments() -> None:
    @gf.compile
    def f(x: Any) -> Any:
        loss = (x**3).sum()
        loss.backward()
        return loss

    x = gf.tensor([1.0, 2.0], requires_grad=True)
    f(x)
    assert x.grad.tolist() == [3.0, 12.0]
    f(x)
    assert x.grad.tolist() == [6.0, 24.0]
    f(x)
    assert x.grad.tolist() == [9.0, 36.0]
    z = gf.tensor([1.0, 2.0, 3.0], requires_grad=True)
    f(z)
    assert z.grad.tolist() == [3.0, 12.0, 27.0]
    assert x.grad.tolist() == [9.0, 36.0]


def test_two_models_may_share_a_parameter() -> None:
    def build() -> tuple[Any, Any, Any]:
        gf.manual_seed(0)
        a, b = nn.Linear(5, 5).double(), nn.Linear(5, 5).double()
        b.weight = a.weight
        return a, b, optim.Adam([a.weight, a.bias, b.bias], lr=1e-2)

    def define(a: Any, b: Any, optimizer: Any) -> Callable[[Any], Any]:
        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = (b(a(x).tanh()) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        return step

    ours, theirs = build(), build()
    compiled, eager = gf.compile(define(*ours)), define(*theirs)
    for number in range(5):
        x = np.random.default_rng(number).standard_normal((4 + number, 5))
        np.testing.assert_allclose(compiled(x).item(), eager(gf.tensor(x)).item(), 1e-12)
    assert ours[0].weight is ours[1].weight
    np.testing.assert_allclose(ours[0].weight.detach().numpy(), theirs[0].weight.detach().numpy(), 1e-12)


def test_the_learning_rate_may_change() -> None:
    ours, theirs = Setup(), Setup()
    compiled, eager = gf.compile(the_loop(ours)), the_loop(theirs)
    for number, rate in enumerate((0.1, 0.05, 0.01, 0.2)):
        for s, step in ((ours, compiled), (theirs, eager)):
            s.optimizer.param_groups[0]["lr"] = rate
            step(*(gf.tensor(v) for v in batch(number)))
        assert_same(ours, theirs, 1e-12)
    assert len(compiled.variants) == 1


def test_retained_graph_gradients_are_right_whether_or_not_grad_is_enabled() -> None:
    s = Setup()
    f = gf.compile(lambda x: s.model(x).sum())
    x = gf.tensor(batch(0)[0])
    with gf.no_grad():
        assert not f(x).requires_grad
    out = f(x)
    assert out.requires_grad
    assert not out.is_leaf
    assert [v.reason for v in f.variants][1] == "gradients are enabled now"


def test_a_deep_copy_computes_with_its_own_parameters() -> None:
    model = gf.compile(nn.Linear(2, 1, bias=False))
    before = model(gf.ones(1, 2)).item()
    twin = copy.deepcopy(model)
    with gf.no_grad():
        twin.weight.zero_()
    assert twin(gf.ones(1, 2)).item() == 0.0
    assert model(gf.ones(1, 2)).item() == before


def test_a_tensor_from_outside_may_be_viewed_first_thing() -> None:
    table = gf.tensor(np.arange(12.0).reshape(3, 4))

    @gf.compile
    def halves() -> Tensor:
        part = table.view(3, 2, 2)
        part[:, 0] = part[:, 0] + 1.0
        return part.sum(-1)

    np.testing.assert_array_equal(halves().numpy(), [[3, 5], [11, 13], [19, 21]])
    np.testing.assert_array_equal(table.numpy()[:, 0], [1, 5, 9])
