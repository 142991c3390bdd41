"""What people are told: while tracing, after it, and when a run fails."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import graphflow as gf
import graphflow.nn.functional as F
import numpy as np
import pytest
from graphflow import metrics, nn, optim
from graphflow.errors import DeviceError, DTypeError, GradientError, GraphflowError, ShapeError, TraceError


def ones(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def told(error: type[Exception], function: Callable[..., Any], *args: Any) -> str:
    """The message; it names this file and the line in the function marked with ``# here``."""
    with pytest.raises(error) as raised:
        gf.compile(function)(*args)
    text = str(raised.value)
    lines, start = inspect.getsourcelines(function)
    (number,) = [start + i for i, line in enumerate(lines) if "# here" in line]
    assert f"{__file__}:{number} in {function.__name__}: {lines[number - start].strip()}" in text
    assert not re.search("numba|llvm", text.replace(__file__, ""), re.IGNORECASE)
    return text


def test_shapes_that_do_not_fit() -> None:
    def product(x: Any, w: Any) -> Any:
        h = x + 1
        return h @ w  # here

    text = told(ShapeError, product, ones(3, 4), ones(5, 2))
    assert text.startswith("matmul: ")
    assert "operands: float32[batch, 4], float32[batch_2, 2]" in text
    assert "with batch = 3, batch_2 = 5 at this call" in text
    assert ".mT" in text

    def total(x: Any, w: Any) -> Any:
        return x + w  # here

    text = told(ShapeError, total, ones(3, 4), ones(5, 4))
    assert "add: shapes (batch, 4) and (batch_2, 4) don't broadcast" in text
    assert "batch = 3, batch_2 = 5 at this call" in text

    def joined(x: Any, w: Any) -> Any:
        return gf.cat([x, w])  # here

    assert "cat: sizes 4 and 2 differ" in told(ShapeError, joined, ones(3, 4), ones(3, 2))

    def reshaped(x: Any) -> Any:
        return x.reshape(x.shape[0], 3)  # here

    assert "4*batch elements against 3*batch" in told(ShapeError, reshaped, ones(3, 4))

    def summed(x: Any) -> Any:
        return x.sum(5)  # here

    assert "sum: Dimension out of range" in told(IndexError, summed, ones(3, 4))


def test_errors_inside_modules_name_the_users_line() -> None:
    layer = nn.Linear(3, 2)

    def forward(x: Any) -> Any:
        return layer(x)  # here

    text = told(ShapeError, forward, ones(5, 4))
    assert (
        "linear: input of shape (batch, 4) has 4 features in its last dimension, weight of shape (2, 3)"
        in text
    )

    def loss(x: Any, y: Any) -> Any:
        return F.cross_entropy(x, y)  # here

    assert "integers" in told(DTypeError, loss, ones(3, 4), ones(3))
    text = told(ShapeError, loss, ones(3, 4), np.zeros(4, np.int64))
    assert "cross_entropy: expected a target of shape (3,) for scores of shape (3, 4), got (4,)" in text


def test_dtypes_that_do_not_fit() -> None:
    def product(x: Any, w: Any) -> Any:
        return x @ w  # here

    text = told(DTypeError, product, ones(3, 4), ones(4, 2, dtype=np.int64))
    assert (
        "matmul: expected operands of the same dtype, but got float32[batch, 4] and int64[batch_2, 2]" in text
    )
    assert ".to(dtype)" in text

    def shifted(x: Any) -> Any:
        return x << 2  # here

    assert "float32" in told(DTypeError, shifted, ones(3))


@pytest.mark.parametrize(
    ("use", "hint"),
    [
        (lambda x: x if x.sum() > 0 else -x, "gf.where"),
        (lambda x: (x > 0).all() and x, "gf.where"),
        (lambda x: 1.0 in x, "gf.where"),
        (lambda x: max(x.sum(), x.mean()), "gf.where"),
        (lambda x: float(x.sum()), ".float()"),
        (lambda x: int(x.sum()), ".long()"),
        (lambda x: x.sum().item(), "return the tensor and call .item()"),
        (lambda x: x.tolist(), "return the tensor and call .tolist()"),
        (lambda x: x.numpy(), "graphflow's functions"),
        (lambda x: np.exp(x), "graphflow function of the same name"),
        (lambda x: np.sum(x, axis=0), "graphflow function of the same name"),
        (lambda x: np.concatenate([x, x]), "graphflow function of the same name"),
        (lambda x: np.asarray(x), "graphflow function of the same name"),
        (lambda x: [1, 2, 3][x.sum().long()], "x[index] with a tensor index"),
        (lambda x: range(x.sum().long()), "x[index] with a tensor index"),
        (lambda x: f"{x.sum():.3f}", "print it outside"),
        (lambda x: x[x > 0], "gf.where"),
        (lambda x: gf.tensor([x.sum(), 1.0]), "gf.stack"),
        (lambda x: nn.Linear(2, 2)(x), "make modules and parameters before"),
        (lambda x: PARAMETER.sum().item(), "call .item()"),
        (lambda x: x * np.asarray(PARAMETER.detach()), "graphflow function of the same name"),
        (lambda x: x if PARAMETER.sum() > 0 else -x, "gf.where"),
    ],
)
def test_numbers_of_traced_values(use: Callable[[Any], Any], hint: str) -> None:
    f = gf.compile(use)
    with pytest.raises(TraceError) as raised:
        f(ones(3, 2))
    text = str(raised.value)
    assert hint in text
    line = use.__code__.co_firstlineno
    assert f"\n  at {__file__}:{line} in <lambda>" in text
    assert f.variants == ()
    with pytest.raises(TraceError):
        f(ones(3, 2))


PARAMETER = nn.Parameter(gf.ones(2))


def test_printing_a_traced_value_tells_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    @gf.compile
    def f(x: Any) -> Any:
        print(x, x.shape, f"{x}", x.sum() > 0)
        return x

    f(ones(3, 2))
    assert capsys.readouterr().out == (
        "Tensor(float32[batch, 2], traced) graphflow.Size([batch, 2]) "
        "Tensor(float32[batch, 2], traced) Tensor(bool[], traced)\n"
    )


def test_lengths_of_traced_values() -> None:
    f = gf.compile(lambda x: len(x.sum()))
    with pytest.raises(TypeError, match="0-d"):
        f(ones(2))
    with pytest.raises(TypeError, match="0-d"):
        gf.compile(lambda x: list(x.sum()))(ones(2))


class Holder:
    kept: Any = None


def leaked() -> Any:
    """A traced value that outlived its trace."""
    holder = Holder()

    @gf.compile
    def keep(x: Any) -> Any:
        holder.kept = x * 2
        return x

    keep(ones(2))
    return holder.kept


@pytest.mark.parametrize(
    "use",
    [
        lambda t: t + 1,
        lambda t: t.item(),
        lambda t: t.numpy(),
        lambda t: np.asarray(t),
        lambda t: bool(t),
        lambda t: t.sum().backward(),
        lambda t: t.backward(),
        lambda t: t.add_(1),
        lambda t: t.detach(),
        lambda t: gf.ones(2).copy_(t),
        lambda t: gf.compile(lambda x: x + t)(ones(2)),
        lambda t: gf.compile(lambda x: x)(t),
        lambda t: gf.compile(lambda x: t)(ones(2)),
        lambda t: gf.compile(lambda x: x * 2)({"x": t}),
        lambda t: gf.compile(gf.trace(lambda x: x, gf.TensorSpec((2,))))(t),
    ],
)
def test_a_value_that_leaked_is_told(use: Callable[[Any], Any]) -> None:
    value = leaked()
    with pytest.raises(
        TraceError, match=r"a traced value of keep made at test_errors.py:\d+ is used outside of it"
    ):
        use(value)
    assert repr(value) == "Tensor(float32[batch], traced)"


def test_a_value_that_leaked_through_a_module() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden: Any = None

        def forward(self, x: Any) -> Any:
            self.hidden = x * 2
            return self.hidden + 1

    net = Net()
    f = gf.compile(net)
    for _ in range(4):
        assert f(gf.ones(1)).item() == 3.0
    assert len(f.variants) <= 2
    with pytest.raises(TraceError, match="traced value of Net made at"):
        net.hidden.sum()
    net(gf.ones(1))
    assert net.hidden.item() == 2.0


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (np.array([[1, 2], [3]], dtype=object), "dtype object, .*; make it a rectangular array of numbers"),
        (np.array(["a"]), "dtype <U1, .*; make it a rectangular array of numbers"),
        (ones(2, dtype=np.complex128), "dtype complex128, .*; convert it first"),
        (ones(2, dtype=np.longdouble), "dtype float128, .*; convert it first"),
        (ones(2, dtype=np.uint64), "dtype uint64"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "dtype datetime64"),
        (np.complex64(1), "dtype complex64"),
    ],
)
def test_arrays_of_other_things(argument: Any, message: str) -> None:
    with pytest.raises(DTypeError, match=f"argument x has {message}.*(\n.*)*test_errors.py"):
        gf.compile(lambda x: x)(argument)


def test_lists_of_other_things() -> None:
    with pytest.raises(ShapeError, match="rectangle"):
        gf.compile(lambda x: gf.tensor(x))([[1, 2], [3]])
    with pytest.raises(TypeError, match="complex"):
        gf.compile(lambda x, c: x * c)(ones(2), 1j)
    with pytest.raises(TypeError, match="list"):
        gf.compile(lambda x, y: x + y["z"])(ones(2), {"z": [1, 2]})
    with pytest.raises(TypeError, match="positional"):
        gf.compile(lambda x: x)(ones(2), ones(2))
    with pytest.raises(TypeError, match="takes a function, a Module or a Graph, not int"):
        gf.compile(3)  # type: ignore[call-overload]


def test_devices_that_are_not_there() -> None:
    def move(x: Any) -> Any:
        return x.to("cuda:7")  # here

    assert "cuda" in told(DeviceError, move, ones(2))


def test_gradients_that_do_not_exist() -> None:
    def backward(x: Any) -> Any:
        return (x * PARAMETER).backward()  # here

    text = told(GradientError, backward, ones(3, 2))
    assert "only for scalar outputs" in text

    def nothing(x: Any) -> Any:
        return x.sum().backward()  # here

    assert "does not require grad" in told(GradientError, nothing, ones(3, 2))


@pytest.mark.parametrize("threads", [1, 2])
def test_an_index_out_of_range_leaves_every_state_as_it_was(threads: int) -> None:
    before = gf.get_num_threads()
    gf.set_num_threads(threads)
    try:
        table = nn.Parameter(gf.ones(50, 8))
        optimizer = optim.Adam([table], lr=0.1)

        @gf.compile
        def step(indices: Any) -> Any:
            optimizer.zero_grad()
            loss = (table[indices] ** 2).sum()  # line
            loss.backward()
            optimizer.step()
            return loss

        good = np.arange(40)
        step(good)
        held = [table, *optimizer.state[table].values()]
        values = [t.detach().numpy().copy() for t in held]
        gradient = table.grad
        line = inspect.getsourcelines(step._function)[1] + 3
        for bad, index in ((50, 50), (-51, -51), (10**9, 10**9)):
            with pytest.raises(IndexError) as raised:
                step(np.where(good == 39, bad, good))
            text = str(raised.value)
            assert f"index {index} is out of range for a dimension of size 50" in text
            assert f"{__file__}:{line} in step" in text
            for tensor, value in zip(held, values, strict=True):
                np.testing.assert_array_equal(tensor.detach().numpy(), value)
            assert table.grad is gradient
        step(good)
        assert not np.array_equal(table.detach().numpy(), values[0])
    finally:
        gf.set_num_threads(before)


def test_negative_indices_count_from_the_end() -> None:
    f = gf.compile(lambda x, i: x[i])
    assert f(np.arange(4.0), np.array([-1, 0, -4])).tolist() == [3.0, 0.0, 0.0]


def test_every_error_is_graphflows_and_a_builtin() -> None:
    with pytest.raises(GraphflowError):
        gf.compile(lambda x: x @ x)(ones(3, 4))
    with pytest.raises(ValueError):
        gf.compile(lambda x: x @ x)(ones(3, 4))


@pytest.mark.parametrize("given", [11, 4, -1, -7])
@pytest.mark.parametrize("compiled", [True, False])
def test_a_bad_index_is_told_as_it_was_given_and_by_whom(given: int, compiled: bool) -> None:
    index, x, table = gf.tensor([1, given]), gf.randn(2, 4), gf.randn(4, 3)
    counted_from_the_end = [] if given == -1 else [("index_select", lambda: gf.index_select(table, 0, index))]
    for name, function in [
        ("cross_entropy", lambda: F.cross_entropy(x, index)),
        ("nll_loss", lambda: F.nll_loss(x, index)),
        ("multi_margin_loss", lambda: F.multi_margin_loss(x, index)),
        ("embedding", lambda: F.embedding(index, table)),
        *counted_from_the_end,
    ]:
        arguments = "" if compiled else r"(\n  arguments: .*)?"
        expected = (
            rf"index {given} is out of range for a dimension of size 4{arguments}\n  at .*test_errors.py"
        )
        if not compiled and name in ("cross_entropy", "nll_loss"):
            expected = "a target is outside the classes 0 … 3"
        with pytest.raises(IndexError, match=f"^{name}: .*{expected}"):
            (gf.compile(function) if compiled else function)()


def test_a_step_that_differentiates_a_loss_names_the_loss_too() -> None:
    x, index = gf.randn(2, 4).requires_grad_(), gf.tensor([1, -2])

    @gf.compile
    def step() -> Any:
        return gf.value_and_grad(lambda x: F.cross_entropy(x, index))(x)

    with pytest.raises(IndexError, match="cross_entropy: index -2 is out of range for a dimension of size 4"):
        step()


@pytest.mark.parametrize("given", [11, 4, -1, -7])
def test_indices_that_only_become_comparisons_are_checked_in_graphs(given: int) -> None:
    index, x = gf.tensor([1, 2, given]), gf.randn(3, 4)
    steps = {
        "cross_entropy": lambda x, y: gf.grad(lambda x: F.cross_entropy(x, y))(x),
        "nll_loss": lambda x, y: gf.grad(lambda x: F.nll_loss(x, y))(x),
        "one_hot": lambda x, y: F.one_hot(y, 4) * x,
        "confusion_matrix": lambda x, y: metrics.confusion_matrix(y, gf.zeros_like(y), 4),
    }
    for name, step in steps.items():
        message = rf"{name}: index {given} is out of range for a dimension of size 4\n  at .*test_errors.py"
        with pytest.raises(IndexError, match=message):
            gf.compile(step)(x, index)
    with pytest.raises(IndexError, match=f"one_hot: index {given} is out of range"):
        F.one_hot(index, 4)


def test_a_state_that_an_index_is_computed_from_keeps_its_value_when_that_is_bad() -> None:
    count, table = gf.zeros(3, dtype=gf.int64), gf.ones(3, 4)

    @gf.compile
    def step(y: Any) -> Any:
        count.add_(1)
        table.sub_(F.one_hot(y + count - 1, 4).float())
        return table.sum()

    assert step(gf.tensor([0, 1, 2])).item() == 9
    with pytest.raises(IndexError, match="one_hot: index 4 is out of range"):
        step(gf.tensor([0, 1, 3]))
    assert count.tolist() == [1, 1, 1]
    assert table.sum().item() == 9
    assert step(gf.tensor([0, 1, 2])).item() == 6


def generator(x: Any) -> Any:
    yield x * 2


async def coroutine(x: Any) -> Any:
    return x * 2


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (generator, "returns a generator, whose code would run after the trace"),
        (coroutine, "returns a coroutine, whose code would run after the trace"),
        (lambda x: map(gf.sin, [x]), "returns a map, whose code would run after the trace"),
        (lambda x: {x * 2}, r"returns a set with a traced value in it \(the result\[0\]\)"),
        (lambda x: [{"a": frozenset([x * 2])}], "returns a frozenset with a traced value"),
        (lambda x: SimpleNamespace(y=[x * 2]), r"a traced value in it \(the result.y\[0\]\)"),
    ],
)
def test_results_that_would_be_of_no_use_are_refused(function: Any, expected: str) -> None:
    with pytest.raises(TraceError, match=expected):
        gf.compile(function)(gf.ones(2))


def test_results_without_traced_values_are_free() -> None:
    found = gf.compile(lambda x: ({1, 2}, SimpleNamespace(y=2), x))(gf.ones(2))
    assert found[0] == {1, 2}
    assert found[1].y == 2


@pytest.mark.parametrize("compiled", [False, True])
def test_a_linear_layer_tells_its_sizes_and_dtypes(compiled: bool) -> None:
    layer = nn.Linear(12, 2)
    f = gf.compile(layer) if compiled else layer
    rows = "batch" if compiled else "5"
    with pytest.raises(ShapeError, match=rf"linear: input of shape \({rows}, 7\) has 7 features .* takes 12"):
        f(gf.ones(5, 7))
    with pytest.raises(ShapeError, match=r"takes 12; input\.flatten\(1\) has them\n"):
        f(gf.ones(5, 3, 4))
    with pytest.raises(DTypeError, match="linear: input of float64 and weight of float32"):
        f(gf.ones(5, 12, dtype=gf.float64))


def test_warnings_name_the_users_line() -> None:
    for loss in (F.mse_loss, nn.MSELoss(), F.smooth_l1_loss, nn.HuberLoss()):
        with pytest.warns(UserWarning, match="target size") as told_of:
            loss(gf.ones(3, 1), gf.ones(3))
        assert [w.filename for w in told_of] == [__file__]
    with pytest.warns(FutureWarning, match="Implicit dimension") as told_of:
        nn.Softmax()(gf.ones(3, 1))
    assert told_of[0].filename == __file__


def test_a_number_is_no_gradient() -> None:
    with pytest.raises(DTypeError, match=r"'gradient' has to be a tensor .* or None, not float"):
        gf.ones(3, requires_grad=True).backward(1.0)  # type: ignore[arg-type]


def test_the_package_lists_its_public_names() -> None:
    assert {"tensor", "nn", "compile", "Tensor"} < set(dir(gf)) - {n for n in dir(gf) if n.startswith("_")}
    assert not {"interop", "traced", "captures"} & set(dir(gf))


def test_a_buffer_that_a_compiled_function_replaces() -> None:
    module = nn.Module()
    module.register_buffer("mean", gf.zeros(()))

    def replace(x: Any) -> Any:
        module.mean = module.mean * 0.9 + x  # of another shape: the buffer's memory can't take it
        return x

    f = gf.compile(replace)
    f(gf.ones(2))
    with pytest.raises(TraceError, match=r"change what is stored already in place, as with \.copy_\(\)"):
        f(gf.ones(2))
