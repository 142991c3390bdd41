"""When a compiled function is traced again, when not, and what it says about it."""

from __future__ import annotations

import threading
from collections import OrderedDict, namedtuple
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.errors import TraceError

F64 = np.float64


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape)


def reasons(f: gf.CompiledFunction) -> list[str]:
    return [v.reason for v in f.variants]


# ---------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    "x",
    [
        np.arange(12.0).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(24.0).reshape(6, 4)[::-2],
        np.arange(24.0).reshape(3, 8)[:, ::-2],
        np.broadcast_to(np.arange(4.0), (3, 4)),
        np.frombuffer(np.arange(12.0).tobytes()).reshape(3, 4),
        np.arange(12.0).reshape(3, 4).astype(">f8"),
        np.frombuffer(b"\0" + np.arange(12.0).tobytes(), np.uint8)[1:].view(F64).reshape(3, 4),
        gf.arange(12.0).double().reshape(3, 4),
        gf.arange(12.0).double().reshape(4, 3).T.reshape(3, 4),
    ],
    ids=lambda x: type(x).__name__,
)
def test_every_layout_of_memory_works(x: Any) -> None:
    f = gf.compile(lambda x: (x * 2 + 1).sum(0))
    expected = (np.asarray(x, F64) * 2 + 1).sum(0)
    np.testing.assert_array_equal(f(x).numpy(), expected)
    np.testing.assert_array_equal(f(ones(5, 4)).numpy(), ones(4) * 15)
    np.testing.assert_array_equal(f(x).numpy(), expected)


def test_kinds_of_arguments() -> None:
    calls = []

    @gf.compile
    def f(x: Any, scale: Any, power: int, flip: bool, mode: str, nothing: None = None) -> Any:
        calls.append(mode)
        y = x * scale if mode == "mul" else x + scale
        return (-y if flip else y) ** power if nothing is None else y

    x = np.array([1.0, 2.0])
    assert f(x, 3.0, 2, False, "mul").tolist() == [9.0, 36.0]
    assert f(x, 4.5, 2, False, "mul").tolist() == [20.25, 81.0]  # a float is an input
    assert f(x, np.float64(1.0), 2, False, "mul").tolist() == [1.0, 4.0]
    assert f(x, np.array(2.0), 2, False, "mul").tolist() == [4.0, 16.0]
    assert f(gf.tensor(x), gf.tensor(2.0).double(), 2, False, "mul").tolist() == [4.0, 16.0]
    assert len(f.variants) == 1
    assert f(x, 3.0, 3, False, "mul").tolist() == [27.0, 216.0]
    assert f(x, 3.0, 3, True, "mul").tolist() == [-27.0, -216.0]
    assert f(x, 3.0, 3, True, "add").tolist() == [-64.0, -125.0]
    assert f(x, 3.0, 3, True, "add", nothing=1).tolist() == [4.0, 5.0]  # type: ignore[arg-type]
    assert reasons(f) == [
        "the first call",
        "power: 2 became 3",
        "flip: False became True",
        "mode: 'mul' became 'add'",
        "another nesting or number of arguments",
    ]
    f(x, 3.0, 2, False, "mul")
    assert len(f.variants) == len(calls) == 5
    assert f(x, np.float32(3.0), 2, False, "mul").dtype is gf.float64
    assert reasons(f)[-1] == "scale: float64 with 0 dimensions became float32 with 0 dimensions"


def test_floats_that_are_passed_weigh_no_more_than_floats_that_are_written() -> None:
    def f(x: Any, scale: float) -> Any:
        half = scale / 2
        return (
            x * scale,
            half + x.sum(),
            gf.where(x > 0, x, half),
            x.sum() - scale * 2 + 1,
            half * half,
            scale > 1,
        )

    compiled = gf.compile(f)
    for dtype in (gf.float32, gf.float64, gf.int64):
        x = gf.tensor([1, 2, -3]).to(dtype)
        for scale in (2.5, 0.1):
            for ours, theirs in zip(compiled(x, scale), f(x, scale), strict=True):
                if isinstance(theirs, gf.Tensor):
                    assert ours.dtype is theirs.dtype
                    assert ours.tolist() == theirs.tolist()
                else:
                    assert ours.item() == theirs
    assert len(compiled.variants) == 3


def test_true_and_one_are_not_the_same() -> None:
    f = gf.compile(lambda x, flag: x + 1 if flag is True else x - 1)
    assert f(ones(1), True).item() == 2.0
    assert f(ones(1), 1).item() == 0.0
    assert f(ones(1), True).item() == 2.0


def test_static_arguments_go_by_value_where_they_have_one() -> None:
    f = gf.compile(lambda x, part, names: x[part] * len(names))
    assert f(ones(4), slice(0, 2), frozenset("ab")).tolist() == [2.0, 2.0]
    assert f(ones(4), slice(0, 2), frozenset("ab")).tolist() == [2.0, 2.0]
    assert len(f.variants) == 1
    assert f(ones(4), slice(0, 3), frozenset("ab")).tolist() == [2.0, 2.0, 2.0]
    assert len(f.variants) == 2


Point = namedtuple("Point", "x y")


def test_nested_arguments_and_results() -> None:
    @gf.compile
    def f(pair: Any, *rest: Any, table: Any, **more: Any) -> Any:
        a, [b, c] = pair
        return {
            "sum": a + b + c,
            "rest": [r * 2 for r in rest],
            "point": Point(table["x"], more["z"]),
            "none": None,
            "names": ("a", 3),
            "ordered": OrderedDict(q=a),
        }

    for n in (2, 5, 1):
        x = ones(n)
        out = f((x, [x, 2.5]), x, x * 3, table={"x": x * 4}, z=Point(x, x).x)
        assert out["sum"].tolist() == [4.5] * n
        assert [r.tolist() for r in out["rest"]] == [[2.0] * n, [6.0] * n]
        assert type(out["point"]) is Point
        assert out["point"].x.tolist() == [4.0] * n
        assert out["none"] is None
        assert out["names"] == ("a", 3)
        assert type(out["ordered"]) is OrderedDict
    assert len(f.variants) == 1
    assert [n.attrs["name"] for n in f.explain().graph.args] == [
        "pair_0", "pair_1_0", "pair_1_1", "rest_0", "rest_1", "table_x", "z",
    ]  # fmt: skip


def test_ordered_dicts_go_in_and_named_tuples_too() -> None:
    f = gf.compile(lambda batch, point: batch["x"] + point.y)
    for value in (1.0, 2.0):
        batch = OrderedDict(x=ones(2) * value)
        assert f(batch, Point(1, ones(2))).tolist() == [value + 1] * 2
    assert len(f.variants) == 1


def test_dtypes_ranks_and_gradients_make_variants() -> None:
    f = gf.compile(lambda x: x * 2)
    f(ones(3))
    f(ones(3).astype(np.float32))
    f(ones(3, 2).astype(np.float32))
    f(gf.ones(3, 2, requires_grad=True))
    assert reasons(f)[1:] == [
        "x: float64 with 1 dimensions became float32 with 1 dimensions",
        "x: float32 with 1 dimensions became float32 with 2 dimensions",
        "x: float32 with 2 dimensions became float32 with 2 dimensions requiring grad",
    ]
    with pytest.raises(TypeError):
        f()


def test_integer_and_bool_tensors() -> None:
    f = gf.compile(lambda i, m: gf.where(m, i, -i))
    out = f(np.array([1, 2, 3]), np.array([True, False, True]))
    assert out.dtype is gf.int64
    assert out.tolist() == [1, -2, 3]
    assert f(np.int64(4), np.bool_(False)).item() == -4


# ---------------------------------------------------------------------------------------------- how many


def test_max_variants() -> None:
    f = gf.compile(max_variants=2)(lambda x, n: x + n)
    f(ones(1), 1)
    f(ones(1), 2)
    with pytest.raises(TraceError, match=r"more than max_variants=2 compiled variants: n: 2 became 3"):
        f(ones(1), 3)
    f(ones(1), 1)


def test_of_too_many_variants_the_one_unused_for_longest_goes() -> None:
    calls = []

    @gf.compile(keep=2)
    def f(x: Any, n: int) -> Any:
        calls.append(n)
        return x + n

    for n in (1, 2, 1, 3, 1):
        assert f(ones(1), n).item() == 1.0 + n
    assert calls == [1, 2, 3]
    f(ones(1), 2)
    assert calls == [1, 2, 3, 2]
    assert len(f.variants) == 2
    with pytest.raises(ValueError, match="at least one"):
        gf.compile(keep=0)


def test_functions_that_differ_are_kept_apart() -> None:
    """Also where both have the same name and see the same operands."""
    x = gf.tensor([2.0], requires_grad=True)
    f, g = gf.compile(lambda x: x * 3), gf.compile(lambda x: x * x)
    (f(x) + g(x)).sum().backward()
    assert x.grad.tolist() == [7.0]


# ---------------------------------------------------------------------------------------------- composition


def test_compiled_functions_inside_compiled_functions() -> None:
    inner = gf.compile(lambda x: x * 2)
    outer = gf.compile(lambda x: inner(x) + 1)
    assert outer(ones(2)).tolist() == [3.0, 3.0]
    assert inner.variants == ()
    assert inner(ones(2)).tolist() == [2.0, 2.0]


def test_recursion() -> None:
    @gf.compile
    def power(x: Any, n: int) -> Any:
        return x if n == 1 else x * power(x, n - 1)

    assert power(ones(1) * 2, 5).item() == 32.0
    assert len(power.variants) == 1


def test_modules_compiled() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.9))
    f = gf.compile(model)
    assert f.training
    f.eval()
    assert not model.training
    x = gf.ones(4, 3)
    np.testing.assert_allclose(f(x).detach().numpy(), model(x).detach().numpy(), rtol=1e-6)
    assert [p.shape for p in f.parameters()] == [(2, 3), (2,)]
    f.train()
    assert not np.array_equal(f(x).detach().numpy(), model.eval()(x).detach().numpy())
    assert "Sequential" in repr(f)
    with pytest.raises(AttributeError):
        _ = f.no_such_thing


def test_threads_calling_the_same_function() -> None:
    w = gf.randn(8, 8).double()
    traced = []

    @gf.compile
    def f(x: Any) -> Any:
        traced.append(1)
        return (x @ w).tanh().sum(1)

    inputs = [np.random.default_rng(i).standard_normal((i % 7 + 1, 8)) for i in range(40)]
    expected = [np.tanh(x @ w.numpy()).sum(1) for x in inputs]
    wrong: list[Any] = []
    start = threading.Barrier(6)

    def work(first: int) -> None:
        start.wait()
        for i in range(first, 240, 6):
            try:
                np.testing.assert_allclose(f(inputs[i % 40]).numpy(), expected[i % 40], 1e-12)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(traced) == len(f.variants) == 1


def test_threads_updating_the_same_state_lose_nothing() -> None:
    total = gf.zeros(2).double()

    @gf.compile
    def add(x: Any) -> Any:
        total.add_(x)
        return x

    def work() -> None:
        for _ in range(50):
            add(ones(2))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert total.tolist() == [200.0, 200.0]


def test_an_exception_while_tracing_changes_nothing() -> None:
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    gf.manual_seed(5)
    state = gf.get_rng_state().tolist()
    fail = True

    @gf.compile
    def f(x: Any) -> Any:
        loss = model(x + gf.rand(2)).sum()
        loss.backward()
        with gf.no_grad():
            model.weight.add_(1.0)
        if fail:
            raise KeyError("mine")
        return loss

    x = gf.ones(1, 2)
    with pytest.raises(KeyError, match="mine"):
        f(x)
    assert model.weight.tolist() == before.tolist()
    assert model.weight.grad is None
    assert gf.get_rng_state().tolist() == state
    assert f.variants == ()
    assert (gf.ones(2) + 1).tolist() == [2.0, 2.0]
    fail = False
    f(x)
    assert model.weight.tolist() == (before + 1).tolist()
    assert model.weight.grad is not None
