"""``compile(check=True)`` names a kernel that computes the wrong thing, ``check_nan=True`` a NaN's maker."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import graphflow as gf
import graphflow.nn.functional as F
import numpy as np
import pytest
from graphflow import nn, optim
from graphflow.compiler.ir import OPS
from graphflow.errors import CheckError, NaNError
from graphflow.runtime.executor import Executor


def line_of(function: Callable[..., Any], mark: str = "# here") -> str:
    """``file:line`` of the marked line in a function."""
    lines, start = inspect.getsourcelines(function)
    (number,) = [start + i for i, line in enumerate(lines) if mark in line]
    return f"{__file__}:{number} in "


def classifier(dtype: Any, **options: Any) -> tuple[Any, Any, gf.CompiledFunction]:
    gf.manual_seed(0)
    layers = [nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 5)]
    model = nn.Sequential(*layers)
    if dtype is gf.float64:
        model.double()
    optimizer = optim.AdamW(model.parameters(), lr=0.01)

    @gf.compile(**options)
    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return model, optimizer, step


@pytest.mark.parametrize("dtype", [gf.float32, gf.float64], ids=str)
def test_a_checked_training_step_computes_what_the_step_computes(dtype: Any) -> None:
    results = []
    for options in ({}, {"check": True, "check_nan": True}):
        model, optimizer, step = classifier(dtype, **options)
        losses = []
        for number, rows in enumerate((16, 7, 1, 16)):
            rng = np.random.default_rng(number)
            x = rng.standard_normal((rows, 6)).astype(dtype.numpy)
            losses.append(step(x, rng.integers(0, 5, rows)).item())
        moments = [t for p in model.parameters() for t in optimizer.state[p].values()]
        results.append((losses, [t.tolist() for t in (*model.parameters(), *moments)]))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "function",
    [
        lambda x, i: F.softmax(x, 1).max(1),
        lambda x, i: (x - x.mean(0)) / (x.var(0) + 1e-5).sqrt(),
        lambda x, i: gf.cat([x, x * 2, x[:2]]).sum(0),
        lambda x, i: x[i].sum(1),
        lambda x, i: (x @ x.T).relu().sum(),
        lambda x, i: gf.where(x > 0, x.exp().log(), (x * 1e30) * 1e30),
        lambda x, i: (x.argmax(1), x.round(), x.sum() - x.sum(), x > 0.5),
        lambda x, i: (x.reshape(-1), x, x, x.T.reshape(-1)[:3]),
        lambda x, i: gf.rand(4, 3) * x.sum() + gf.randn(3),
        lambda x, i: (x / 0.0, x - x / 0.0, i // 2, i % 3, (x * 0.0).log()),
        lambda x, i: gf.grad(lambda v: (v.tanh() @ v.T).pow(2).mean())(x),
        lambda x, i: x.cumsum(0) if hasattr(x, "cumsum") else x,
    ],
)
def test_right_kernels_pass(function: Callable[..., Any]) -> None:
    gf.manual_seed(1)
    checked, plain = gf.compile(check=True)(function), gf.compile(function)
    for rows in (8, 3):
        rng = np.random.default_rng(rows)
        x, i = rng.standard_normal((rows, 5)).astype(np.float32), rng.integers(0, rows, 6)
        state = gf.get_rng_state()
        ours = checked(x, i)
        gf.set_rng_state(state)
        for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (ours, plain(x, i))), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


def broken(name: str, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the kernels of an op compute ``pattern`` of the right element."""
    expressions = OPS[name].lowering.expr
    for kind, text in list(expressions.items()):
        monkeypatch.setitem(expressions, kind, pattern.format(text))


def test_a_wrong_kernel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken("tanh", "({}) * {{t}}(1.001)", monkeypatch)
    w = nn.Parameter(gf.ones(6, 6))

    def step(x: Any) -> Any:
        y = (x @ w).exp().sum(1)
        z = gf.tanh(y * 1e-3)  # here
        with gf.no_grad():
            w.mul_(2.0)
        return z

    x = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    gf.compile(step)(x)
    w.data.fill_(1.0)
    f = gf.compile(check=True)(step)
    with pytest.raises(CheckError) as raised:
        f(x)
    text = str(raised.value)
    assert "tanh" in text.splitlines()[0]
    assert "differs from the evaluator" in text
    assert line_of(step) in text
    assert "tanh_f32" in text
    assert w.tolist() == gf.ones(6, 6).tolist()


def test_the_first_of_several_wrong_kernels_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken("sin", "({}) + {{t}}(0.01)", monkeypatch)

    def step(x: Any) -> Any:
        return (x.sin() @ x.T).sin().sum()  # here

    with pytest.raises(CheckError, match=r"sin.*differs from the evaluator: .* of \d+ elements differ"):
        gf.compile(check=True)(step)(np.ones((4, 4)))
    with pytest.raises(CheckError):
        gf.compile(gf.trace(step, gf.TensorSpec((4, 4), gf.float64)), check=True)(np.ones((4, 4)))


def test_kernels_that_need_each_other_are_compared_with_one_after_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = Executor.run

    def racing(self: Executor, *args: Any, **options: Any) -> Any:
        outputs = run(self, *args, **options)
        outputs[0][...] += 1
        return outputs

    monkeypatch.setattr(Executor, "run", racing)
    with pytest.raises(CheckError, match="at the same time"):
        gf.compile(check=True)(lambda x: x * 2)(np.ones(3))


# ---------------------------------------------------------------------------------------------- NaNs


def test_the_log_of_a_negative_number_is_located() -> None:
    def f(x: Any, w: Any) -> Any:
        y = x * 2 + w
        z = gf.log(y)  # here
        return (z * w).sum()

    g = gf.compile(check_nan=True)(f)
    x = np.array([1.0, 2.0, 3.0])
    assert np.isfinite(g(x, x).item())
    with pytest.raises(NaNError) as raised:
        g(np.array([1.0, -2.0, 3.0]), np.ones(3))
    text = str(raised.value)
    assert text.startswith("f: log makes a NaN of -3.0; the result is float64[batch]")
    assert line_of(f) in text
    assert isinstance(raised.value, FloatingPointError)


def test_a_nan_made_backward_is_located_and_no_state_is_spoiled() -> None:
    w = nn.Parameter(gf.zeros(3))
    optimizer = optim.SGD([w], lr=0.1, momentum=0.9)

    def step(x: Any) -> Any:
        size = (w * x).pow(2).sum()
        norm = size.sqrt()  # here
        loss = norm * 1.0
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    assert np.isnan(w.tolist()).sum() == 0
    with pytest.raises(NaNError) as raised:
        gf.compile(check_nan=True)(step)(gf.ones(3))
    assert "makes a NaN" in str(raised.value)
    assert w.tolist() == [0.0] * 3
    assert w.grad is None
    gf.compile(step)(gf.ones(3))
    assert np.isnan(w.tolist()).all()


def test_nans_that_were_there_before_are_told_apart() -> None:
    f = gf.compile(check_nan=True)(lambda x: x + 1)
    with pytest.raises(NaNError, match="the argument x held a NaN before the call"):
        f(np.array([1.0, np.nan]))
    w = gf.tensor([1.0, float("nan")])
    w.name = "weight"
    g = gf.compile(check_nan=True)(lambda x: x * w)
    with pytest.raises(NaNError, match="the state weight held a NaN"):
        g(gf.ones(2))


def test_nans_that_reach_no_result_are_no_error() -> None:
    f = gf.compile(check_nan=True)(lambda x: gf.where(x > 0, x.log(), 0.0))
    assert f(np.array([1.0, -1.0])).tolist() == [0.0, 0.0]
    g = gf.compile(check_nan=True)(lambda x: (x / 0.0, gf.isnan(x)))
    out, flags = g(np.array([1.0, -1.0]))
    assert out.tolist() == [np.inf, -np.inf]
    assert flags.tolist() == [False, False]


def test_checks_see_indices_out_of_range_too() -> None:
    f = gf.compile(check=True, check_nan=True)(lambda x, i: x[i])
    assert f(np.arange(3.0), np.array([2, 0])).tolist() == [2.0, 0.0]
    with pytest.raises(IndexError, match="index 3 is out of range"):
        f(np.arange(3.0), np.array([3]))
