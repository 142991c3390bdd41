"""Symbolic sizes: what stays open from call to call, what a program fixes, and no rows or one."""

from __future__ import annotations

import itertools
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import DTypeError, ShapeError, TraceError


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape)


def reasons(f: gf.CompiledFunction) -> list[str]:
    return [v.reason for v in f.variants]


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
    for args, kind, message in [
        ((ones(2, 3), ones(4)), ShapeError, r"y has to be float64\[m\] with n=2, m=3, got float64\[4\]"),
        ((ones(2), ones(2)), ShapeError, r"x has to be float64\[n, m\], got float64\[2\]"),
        ((ones(2, 2).astype("f"), ones(2)), DTypeError, r"x has to be float64\[n, m\], got float32\[2, 2\]"),
        ((ones(2, 2),), TraceError, "signature of .* has 2 arguments, the call 1"),
    ]:
        with pytest.raises(kind, match=message):
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
        (lambda x: x * (1.0 / x.shape[0]) + x.shape[0] * 0.5, lambda x: x / 32 + 16),
        (lambda x: x * x.shape[0] ** -0.5 * (x.shape[0] / 2), lambda x: x * 32**-0.5 * 16),
        (lambda x: x * (2 ** x.shape[0]) - (0.5 - x.shape[0]), lambda x: x * 2.0**32 + 31.5),
        (lambda x: x * (100 // x.shape[0]) + 100 % x.shape[0], lambda x: x * 3 + 4),
        (lambda x: x[: x.shape[0] // 2] + gf.zeros(16).double(), lambda x: x[:16]),
        (lambda x: x[30::-3], lambda x: x[30::-3]),
    ],
    ids=[
        "add",
        "range",
        "compare",
        "equal",
        "mod",
        "reshape",
        "iterate",
        "int",
        "float",
        "root",
        "power",
        "rest",
        "half",
        "backwards",
    ],
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


def test_parts_of_dimensions_whose_size_is_open() -> None:
    def f(x: Any) -> Any:
        n = x.shape[0]
        parts = [
            x[0],
            x[-1],
            x[2],
            x[1:],
            x[:-1],
            x[-3:],
            x[:3],
            x[1:-1:2],
            x[n - 2],
            x[: n // 2],
            x[n // 2 :],
        ]
        parts += [x[::2], x[::-1], x[9:], x[:100], x[-100:2], x.narrow(0, 1, n - 2), x.select(0, -2), x[2:1]]
        return parts

    compiled = gf.compile(f)
    for n in (4, 5, 4, 3):
        x = np.arange(2.0 * n).reshape(n, 2)
        for ours, theirs in zip(compiled(x), f(gf.tensor(x)), strict=True):
            assert ours.shape == theirs.shape
            assert ours.tolist() == theirs.tolist()
    assert len(compiled.variants) == 1
    x = np.arange(20.0).reshape(10, 2)
    assert [p.tolist() for p in compiled(x)] == [p.tolist() for p in f(gf.tensor(x))]
    assert len(compiled.variants) == 2
    assert compiled.variants[1].reason.startswith("the program did what is right for ")
    with pytest.raises(
        IndexError, match=r"out of bounds for dimension 0 with size batch(.|\n)*batch = 2 at this call"
    ):
        compiled(np.ones((2, 2)))
    shift = gf.compile(signature=[gf.TensorSpec(("n", "t"), gf.int64)])(lambda x: (x[:, :-1], x[:, 1:]))
    for shape in ((2, 5), (3, 9), (1, 1)):
        x = np.arange(shape[0] * shape[1]).reshape(shape)
        ours = shift(x)
        assert ours[0].tolist() == x[:, :-1].tolist()
        assert ours[1].tolist() == x[:, 1:].tolist()


def test_graphs_without_numbers_check_parts_when_they_run() -> None:
    run = gf.compile(gf.trace(lambda x: (x[2], x[1:]), gf.TensorSpec(("n",))))
    third, rest = run(np.arange(4, dtype=np.float32))
    assert (third.item(), rest.tolist()) == (2.0, [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="don't fit a dimension of size 2"):
        run(np.ones(2, np.float32))


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
                with pytest.raises(ValueError, match=r"max of nothing has no value\n  at .*test_sizes"):
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


@pytest.mark.parametrize("order", list(itertools.permutations((1, 4, 2))))
@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.sum(1).squeeze(), lambda x: (x * 2).squeeze(0), lambda x: x.squeeze((0, 1)) + 1,
        lambda x: x.T.squeeze(), lambda x: gf.cat([x, x]).squeeze(0), lambda x: x[:1].squeeze(),
        lambda x: x.sum(1).squeeze().tanh().mean(), lambda x: x + gf.ones(4 if len(x) == 4 else 1, 3),
        lambda x: x.expand(len(x) if len(x) > 1 else 5, 3).sum(0),
    ],
)  # fmt: skip
def test_what_a_size_of_1_changes_is_told_apart(function: Any, order: tuple[int, ...]) -> None:
    compiled = gf.compile(function)
    for batch in (*order, *order):
        x = gf.arange(1.0, 3 * batch + 1).reshape(batch, 3) / 10
        wanted, got = function(x), compiled(x)
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-6)


def test_sizes_other_than_1_share_a_variant_with_squeeze() -> None:
    compiled = gf.compile(lambda x: x.sum(1).squeeze())
    for batch in (4, 1, 5, 1, 0, 7):
        assert compiled(gf.ones(batch, 3)).shape == (() if batch == 1 else (batch,))
    assert len(compiled.variants) == 2
    assert "the size batch is 1 now" in str(compiled.variants[1])
    loss = gf.compile(lambda x: (x.sum(1) * 2).backward())
    x = gf.ones(1, 3, requires_grad=True)
    loss(x)
    assert x.grad is not None and x.grad.tolist() == [[2, 2, 2]]
    with pytest.raises(gf.errors.GradientError, match="only for scalar outputs"):
        loss(gf.ones(2, 3, requires_grad=True))


def test_a_range_over_a_size_leaves_the_size_open() -> None:
    numbered = gf.compile(lambda x: x + gf.arange(x.shape[0]).unsqueeze(1))
    for n in (5, 3, 2):
        assert (numbered(gf.zeros(n, 2))[:, 1] == gf.arange(n)).all()
    assert len(numbered.variants) == 1
