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


# ---------------------------------------------------------------------------------------------- sizes


def test_leading_sizes_that_agree_are_one_symbol() -> None:
    f = gf.compile(lambda x, y, z: (x * y).sum() + z.sum())
    f(ones(4, 2), ones(4, 2), ones(7))
    assert str(f.variants[0]) == "(float64[batch, 2], float64[batch, 2], float64[batch_2]): the first call"
    f(ones(5, 2), ones(5, 2), ones(5))
    assert len(f.variants) == 1
    assert f.variants[0].symbols == {"batch": "any", "batch_2": "any"}
    with pytest.raises(ValueError, match="don't broadcast"):
        f(ones(5, 2), ones(4, 2), ones(5))


def test_sizes_that_agree_by_chance_make_one_more_variant_at_most() -> None:
    f = gf.compile(lambda x, y: x.sum() + y.sum())
    f(ones(3), ones(3))
    assert f(ones(4), ones(6)).item() == 10
    assert f.variants[1].reason == "y: float64[batch] with batch = 4 doesn't take shape (6,)"
    f(ones(8), ones(9))
    f(ones(5), ones(5))
    assert len(f.variants) == 2


def test_trailing_sizes_are_fixed() -> None:
    f = gf.compile(lambda x: x.sum(1))
    f(ones(2, 3))
    f(ones(2, 4))
    assert reasons(f)[1] == "x: float64[batch, 3] with 3 = 3 doesn't take shape (2, 4)"


def test_a_signature_names_the_sizes() -> None:
    spec = gf.TensorSpec
    f = gf.compile(signature=[spec(("n", "m"), gf.float64), spec(("m",), gf.float64)])(lambda x, y: x * y)
    for n, m in ((2, 3), (4, 1), (1, 5), (0, 2)):
        assert f(ones(n, m), ones(m)).tolist() == ones(n, m).tolist()
    assert len(f.variants) == 1
    for args, message in [
        ((ones(2, 3), ones(4)), r"y has to be float64\[m\] with n=2, m=3, got float64\[4\]"),
        ((ones(2), ones(2)), r"x has to be float64\[n, m\], got float64\[2\]"),
        ((ones(2, 2).astype("f"), ones(2)), r"x has to be float64\[n, m\], got float32\[2, 2\]"),
        ((ones(2, 2),), "signature of .* has 2 arguments, the call 1"),
    ]:
        with pytest.raises(TraceError, match=message):
            f(*args)
    with pytest.raises(TypeError, match="TensorSpecs"):
        gf.compile(signature=[(2, 3)])  # type: ignore[list-item]


W = np.arange(32.0)


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (lambda x: x + gf.tensor(W), lambda x: x + W),
        (lambda x: sum((x[i] * i for i in range(x.shape[0])), 0.0), lambda x: (x * W).sum()),
        (lambda x: x * 2 if x.shape[0] > 20 else x, lambda x: x * 2),
        (lambda x: x * 2 if x.shape[0] == 32 else x, lambda x: x * 2),
        (lambda x: x * 2 if len(x) % 2 else x * 3, lambda x: x * 3),
        (lambda x: x.reshape(4, 8).sum(0), lambda x: x.reshape(4, 8).sum(0)),
        (lambda x: gf.stack([row * 2 for row in x]), lambda x: x * 2),
        (lambda x: x * int(x.shape[0]), lambda x: x * 32),
        (lambda x: x[: x.shape[0] // 2] + gf.zeros(16).double(), lambda x: x[:16]),
    ],
    ids=["add", "range", "compare", "equal", "mod", "reshape", "iterate", "int", "half"],
)
def test_a_size_that_the_program_fixes(program: Any, expected: Any) -> None:
    f = gf.compile(program)
    np.testing.assert_allclose(f(W).numpy(), expected(W))
    assert f.variants[0].reason == "the first call, with batch = 32 fixed by the program"
    np.testing.assert_allclose(f(W + 1).numpy(), expected(W + 1))
    assert len(f.variants) == 1
    assert f.variants[0].symbols == {"batch": 32}


def test_a_size_that_broadcasts_at_the_first_call() -> None:
    f = gf.compile(lambda x: x + gf.tensor(W))
    assert f(np.array([1.0])).shape == (32,)
    assert f(W).tolist() == (2 * W).tolist()
    assert reasons(f) == [
        "the first call, with batch = 1 fixed by the program",
        "x: float64[batch] with batch = 1 doesn't take shape (32,)",
    ]
    with pytest.raises(ValueError, match="broadcast"):
        f(ones(17))


def test_two_sizes_the_program_makes_equal() -> None:
    spec = gf.TensorSpec
    f = gf.compile(signature=[spec(("n",), gf.float64), spec(("m",), gf.float64)])(lambda x, y: x * y)
    assert f(ones(3), ones(3)).shape == (3,)
    assert f(ones(1), ones(4)).shape == (4,)
    with pytest.raises(ValueError, match=r"\(n\) and \(m\) don't broadcast"):
        f(ones(2), ones(3))


def test_sizes_that_no_program_fixes() -> None:
    @gf.compile
    def f(x: Any) -> Any:
        n = x.shape[0]
        y = x.reshape(n * 2, 2) * n
        return y.reshape(-1, 4).mean(0) + x.sum(0) * (n + 1)

    for n in (3, 1, 8):
        x = np.arange(4.0 * n).reshape(n, 4)
        np.testing.assert_allclose(f(x).numpy(), (x * n).mean(0) + x.sum(0) * (n + 1))
    assert len(f.variants) == 1


def test_no_rows() -> None:
    f = gf.compile(lambda x: (x @ x.T, x.sum(0), x * 2))
    for n in (0, 3, 0):
        product, total, double = f(ones(n, 2))
        assert product.shape == (n, n)
        assert total.tolist() == [float(n)] * 2
        assert double.shape == (n, 2)
    assert len(f.variants) == 1
    for first in (0, 3):
        largest = gf.compile(lambda x: x.max())
        for n in (first, 0, 3, 0):
            if n:
                assert largest(ones(n, 2)).item() == 1.0
            else:
                with pytest.raises(ValueError, match=r"max of nothing has no value\n  at .*test_variants"):
                    largest(ones(0, 2))


def test_one_row_is_nothing_special() -> None:
    f = gf.compile(lambda x, y: x - y.mean(0))
    for n in (1, 4, 1):
        assert f(ones(n, 3), ones(n, 3)).tolist() == (ones(n, 3) * 0).tolist()
    assert len(f.variants) == 1


def test_sizes_are_results_too() -> None:
    f = gf.compile(lambda x: (x.shape, x.shape[0] * 3, x.numel(), len(x.shape), x.size(1)))
    for n in (2, 7):
        shape, triple, count, rank, width = f(ones(n, 4))
        assert shape == (n, 4)
        assert type(shape) is gf.Size
        assert (triple, count, rank, width) == (3 * n, 4 * n, 2, 4)
        assert type(triple) is int
    assert len(f.variants) == 1


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
