"""Tensors print as PyTorch prints them: the golden file holds what torch 2.13 printed, with
graphflow's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import graphflow as gf
import numpy as np
import pytest
from graphflow.printing import ElementFormat

from lives import traced

PRINTED = (Path(__file__).parent / "golden" / "printed_tensors.txt").read_text(encoding="utf-8")
CASES = [part.split("\n", 1) for part in PRINTED.removeprefix(">>> ").rstrip("\n").split("\n>>> ")]


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda n: CASES[n][0])
def test_tensors_print_as_in_pytorch(case: int) -> None:
    expression, text = CASES[case]
    assert repr(eval(expression, {"gf": gf})) == text


def test_the_gradient_is_shown() -> None:
    x = gf.tensor([[2.0, 4.0], [3.0, 5.0]], requires_grad=True)
    y = 3 * (x + 2) ** 2
    assert str(y.mean()) == "tensor(94.5000, grad_fn=<MeanBackward0>)"
    assert str(y.detach().sum()) == "tensor(378.)"
    wide = gf.ones(1, 8, requires_grad=True) * 1.5
    assert str(wide).endswith("1.5000]],\n       grad_fn=<MulBackward0>)")


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda x: x + 1, "AddBackward0"), (lambda x: 1 - x, "RsubBackward1"),
        (lambda x: x**2, "PowBackward0"),
        (lambda x: x @ x, "MmBackward0"), (lambda x: x.sum(), "SumBackward0"),
        (lambda x: x.sum(0), "SumBackward1"),
        (lambda x: x.max(), "MaxBackward1"), (lambda x: x.max(0).values, "MaxBackward0"),
        (lambda x: x[0], "SelectBackward0"),
        (lambda x: x[:, 1:], "SliceBackward0"), (lambda x: x.reshape(-1), "ViewBackward0"),
        (lambda x: x.t(), "TBackward0"),
        (lambda x: x.exp(), "ExpBackward0"), (lambda x: x.relu(), "ReluBackward0"),
        (lambda x: -x, "NegBackward0"),
        (lambda x: x.softmax(1), "SoftmaxBackward0"), (lambda x: x.double(), "ToCopyBackward0"),
        (lambda x: x.clone(), "CloneBackward0"), (lambda x: x.clamp(0, 1), "ClampBackward1"),
    ],
)  # fmt: skip
def test_grad_fn_is_named_after_the_function(make: object, name: str) -> None:
    assert make(gf.ones(2, 2, requires_grad=True)).grad_fn.name() == name  # type: ignore[operator]


def test_the_history_of_a_loss_as_in_pytorch() -> None:
    linear = gf.nn.Linear(3, 2)
    x = gf.ones(4, 3)
    loss = gf.nn.MSELoss()(linear(x).relu(), gf.zeros(4, 2))
    found, names = loss.grad_fn, []
    while found is not None:
        names.append(type(found).__name__)
        last, found = found, found.next_functions[0][0] if found.next_functions else None
    assert names == ["MseLossBackward0", "ReluBackward0", "AddmmBackward0", "AccumulateGrad"]
    assert last.variable is linear.bias
    assert repr(loss.grad_fn).startswith("<MseLossBackward0 object at 0x")
    assert loss.grad_fn.next_functions[1] == (None, 0) and loss.grad_fn == loss.grad_fn
    classes = gf.tensor([0, 1, 0, 1])
    loss = gf.nn.functional.cross_entropy(gf.nn.functional.linear(x, linear.weight), classes)
    assert str(loss).endswith("grad_fn=<NllLossBackward0>)")
    assert loss.grad_fn.next_functions[0][0].name() == "LogSoftmaxBackward0"
    assert loss.grad_fn.next_functions[0][0].next_functions[0][0].name() == "MmBackward0"
    both = gf.cat([linear.weight, linear.weight.detach(), x])
    assert [f and f.name() for f, _ in both.grad_fn.next_functions] == ["AccumulateGrad", None, None]


@pytest.mark.parametrize("compiled", [False, True])
def test_values_with_positions_print_as_in_pytorch(compiled: bool) -> None:
    for name in ("max", "min"):
        function = getattr(gf, name)
        along = gf.compile(lambda x, f=function: f(x, 1)) if compiled else lambda x, f=function: f(x, 1)
        text = "values=tensor([2., 4.]),\nindices=tensor([1, 0]))"
        if name == "min":
            text = "values=tensor([1., 3.]),\nindices=tensor([0, 1]))"
        assert repr(along(gf.tensor([[1.0, 2.0], [4.0, 3.0]]))) == f"graphflow.return_types.{name}(\n{text}"


def test_numbers_format_like_numbers() -> None:
    assert f"{gf.tensor(3.14159):.2f}" == "3.14"
    assert f"{gf.tensor([1.0, 2.0])}" == "tensor([1., 2.])"
    assert f"{gf.tensor(2, requires_grad=False):>4d}" == "   2"


def test_traced_values_print_their_type() -> None:
    texts: list[str] = []

    def function(x: gf.Tensor) -> gf.Tensor:
        y = x * weight
        texts.extend([str(x), repr(y), f"{y.sum()}", str(weight)])
        return y

    weight = gf.ones(3, requires_grad=True)
    traced(function, np.ones((5, 3), np.float32), symbolic=True)
    assert texts[0] == "Tensor(float32[n5, 3], traced)"
    assert texts[1] == "Tensor(float32[n5, 3], traced)"
    assert texts[2] == "Tensor(float32[], traced)"
    assert texts[3] == "Tensor(float32[3], traced)"
    assert str(weight) == "tensor([1., 1., 1.], requires_grad=True)"


@pytest.fixture
def options() -> Iterator[None]:
    yield
    gf.set_printoptions(profile="default")


@pytest.mark.usefixtures("options")
def test_print_options() -> None:
    x = gf.tensor([1.23456, 100.0])
    gf.set_printoptions(precision=2)
    assert str(x) == "tensor([  1.23, 100.00])"
    gf.set_printoptions(sci_mode=True)
    assert str(x) == "tensor([1.23e+00, 1.00e+02])"
    gf.set_printoptions(profile="short", threshold=3)
    assert str(gf.arange(6)) == "tensor([0, 1,  ..., 4, 5])"


def test_only_the_shown_elements_decide_the_width() -> None:
    x = np.ones(2000)
    x[1000] = 1e-9
    assert not ElementFormat(x[:3]).scientific
    assert str(gf.tensor(x, dtype=gf.float32)) == "tensor([1., 1., 1.,  ..., 1., 1., 1.])"
