"""Making and converting tensors, and the errors of all functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import DeviceError, DTypeError, IndexRangeError, ShapeError

from lives import both, same

RNG = np.random.default_rng(9)

# ---------------------------------------------------------------------------------------------- creation


def test_creation_functions() -> None:
    def make() -> tuple[Any, ...]:
        return (
            gf.zeros(2, 3), gf.ones((2,), dtype=gf.int64), gf.full((2, 2), 7), gf.full((2,), 2.5),
            gf.arange(5),
            gf.arange(1, 2, 0.3), gf.arange(5, 0, -2), gf.linspace(0, 1, 5), gf.linspace(-3, 10, 7),
            gf.eye(2, 3),
            gf.zeros(()), gf.arange(3, dtype=gf.float64), gf.empty(0, 2), gf.full((2,), True),
            gf.linspace(0, 1, 1),
        )  # fmt: skip

    f = np.float32
    wanted = [
        np.zeros((2, 3), f), np.ones(2, np.int64), np.full((2, 2), 7), np.full(2, 2.5, f), np.arange(5),
        np.arange(1, 2, 0.3).astype(f), np.arange(5, 0, -2), np.linspace(0, 1, 5, dtype=f),
        np.linspace(-3, 10, 7, dtype=f), np.eye(2, 3, dtype=f), np.zeros((), f), np.arange(3.0),
        np.zeros((0, 2), f),
        np.full(2, True), np.zeros(1, f),
    ]  # fmt: skip
    same(both(make), wanted)
    x = gf.tensor([[1, 2]])
    assert gf.zeros_like(x).dtype is gf.int64 and gf.ones_like(x, dtype=gf.float32).tolist() == [[1, 1]]
    assert gf.full_like(x, 3).tolist() == [[3, 3]] and x.new_zeros(2).dtype is gf.int64
    assert x.new_tensor([1.7]).tolist() == [1] and x.new_full((2,), 5).tolist() == [5, 5]
    assert gf.zeros(2, requires_grad=True).requires_grad
    z = gf.zeros(3)
    z[1] = 2  # memory of its own, not a broadcast zero
    assert z.tolist() == [0, 2, 0]


def test_sizes_may_be_symbolic() -> None:
    def make(t: Any) -> tuple[Any, ...]:
        n = t.shape[0]
        return (
            gf.zeros(n, 2),
            gf.arange(n),
            gf.ones_like(t),
            t.reshape(n * 2, 2),
            t.sum() / n,
            gf.full((n,), n),
        )

    array = RNG.standard_normal((3, 4))
    both(make, array)


@pytest.mark.parametrize(
    ("data", "dtype", "values"),
    [
        ([1, 2], "int64", [1, 2]), ([1.0, 2], "float32", [1, 2]), ([True, False], "bool", [True, False]),
        ([[1], [2]], "int64", [[1], [2]]), ([], "float32", []), (2.5, "float32", 2.5), (3, "int64", 3),
        (np.float64(2), "float64", 2), (np.arange(3)[::-1], "int64", [2, 1, 0]),
        (range(3), "int64", [0, 1, 2]),
        ([np.float32(1)], "float32", [1]), ([np.array([1.0])], "float64", [[1]]), ((1, 2), "int64", [1, 2]),
        (np.array([1, 2], ">i4"), "int32", [1, 2]), ([gf.tensor(1.5), gf.tensor(2.5)], "float32", [1.5, 2.5]),
    ],
)  # fmt: skip
def test_tensor_takes_its_dtype_from_the_data(data: Any, dtype: str, values: Any) -> None:
    made = gf.tensor(data)
    assert made.dtype.name == dtype
    assert made.tolist() == values


def test_the_class_makes_tensors_of_the_default_dtype() -> None:
    assert gf.Tensor([1, 2]).dtype is gf.float32
    assert gf.Tensor(np.ones((2, 2))).dtype is gf.float32
    assert gf.Tensor(gf.arange(3)).tolist() == [0.0, 1.0, 2.0]
    assert [gf.Tensor(*s).shape for s in ((), (3,), (2, 3))] == [(0,), (3,), (2, 3)]
    assert gf.Tensor(gf.ones(2, 3).shape).shape == (2, 3)
    memory = np.zeros(2, np.float32)
    gf.Tensor(memory).add_(1)
    assert memory.tolist() == [1, 1]
    with pytest.raises(TypeError, match=r"gf\.tensor"):
        gf.Tensor(2.5)
    with pytest.raises(TypeError, match="one by one"):
        gf.Tensor(2, [3])
    with pytest.raises(gf.errors.ShapeError, match="negative"):
        gf.Tensor(-2)


def test_the_classes_of_one_dtype() -> None:
    assert gf.LongTensor([1, 2]).dtype is gf.int64
    assert gf.DoubleTensor(2, 2).shape == (2, 2)
    assert isinstance(gf.ones(2), gf.FloatTensor)
    assert not isinstance(gf.ones(2), gf.LongTensor)
    assert gf.tensor([1.5]).type(gf.LongTensor).tolist() == [1]
    try:
        gf.set_default_tensor_type("torch.DoubleTensor")
        assert gf.ones(1).dtype is gf.float64
    finally:
        gf.set_default_tensor_type(gf.FloatTensor)
    with pytest.raises(TypeError, match="FloatTensor"):
        gf.set_default_tensor_type("double")


@pytest.mark.parametrize("make", [
    lambda: gf.zeros(size=(2, 3)), lambda: gf.ones(size=[2, 3]), lambda: gf.empty(size=(2, 3)),
    lambda: gf.rand(size=(2, 3)), lambda: gf.randn(size=(2, 3)), lambda: gf.randint(high=5, size=(2, 3)),
    lambda: gf.randint(5, size=(2, 3)), lambda: gf.ones(1).new_zeros(size=(2, 3)),
    lambda: gf.ones(6).view(size=(2, 3)), lambda: gf.ones(3).expand(size=(2, 3)),
    lambda: gf.reshape(gf.ones(6), shape=(2, -1)), lambda: gf.permute(gf.ones(3, 2), dims=(1, 0)),
    lambda: gf.flip(gf.ones(2, 3), dims=[0]), lambda: gf.tile(gf.ones(3), dims=(2, 1)),
    lambda: gf.ones(1, 3).repeat(repeats=(2, 1)),
])  # fmt: skip
def test_sizes_and_dimensions_by_keyword(make: Callable[[], gf.Tensor]) -> None:
    assert make().shape == (2, 3)


def test_sizes_twice_are_refused() -> None:
    with pytest.raises(TypeError, match="both by position and by keyword"):
        gf.ones(2, size=(2,))
    assert gf.arange(end=3).tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match="needs an end"):
        gf.arange()


# ---------------------------------------------------------------------------------------------- conversions


def test_conversions() -> None:
    x = gf.tensor([[1.7, -1.7]])
    assert (
        x.long().tolist() == [[1, -1]] and x.int().dtype is gf.int32 and x.bool().tolist() == [[True, True]]
    )
    assert x.to(gf.float64).dtype is gf.float64 and x.to(x.long()).dtype is gf.int64
    assert x.to("cpu", gf.int16).dtype is gf.int16 and x.double().type() == "graphflow.DoubleTensor"
    assert x.to(gf.float32) is x and x.float() is x and x.cpu() is x and x.contiguous() is x
    assert x.to(gf.float32, copy=True) is not x
    assert x.type("graphflow.LongTensor").dtype is gf.int64 and x.type_as(gf.tensor(1)).dtype is gf.int64
    assert (x.numel(), x.dim(), x.size(), x.size(-1), x.element_size(), x.is_cuda) == (
        2,
        2,
        (1, 2),
        2,
        4,
        False,
    )
    assert x.t().stride() == (1, 2) and not gf.ones(2, 3).t().is_contiguous()
    assert gf.ones(2, 3).t().contiguous().stride() == (2, 1)
    with pytest.raises(DeviceError):
        x.cuda()


# ---------------------------------------------------------------------------------------------- errors

F23, F4, I2, B2 = gf.ones(2, 3), gf.ones(4), gf.tensor([1, 2]), gf.tensor([True, False])
ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: F23 + F4, ShapeError, r"add: .*don't broadcast(.|\n)*test_creation.py"),
    (lambda: F23 @ F23, ShapeError, "inner sizes differ"),
    (lambda: F23 @ gf.ones(3, dtype=gf.float64), DTypeError, r"same dtype.*convert one with \.to"),
    (lambda: F23.sum(2), IndexRangeError, r"expected to be in range of \[-2, 1\], but got 2\)"),
    (lambda: F23.sum((0, 0)), IndexRangeError, "twice"),
    (lambda: I2.mean(), DTypeError, r"Got: int64; convert with \.float\(\)"),
    (lambda: I2.softmax(0), DTypeError, "floating point"),
    (lambda: -B2, DTypeError, "use ~"),
    (lambda: B2 - B2, DTypeError, "bool tensor"),
    (lambda: 1 - B2, DTypeError, "bool tensor"),
    (lambda: F23 & 1, DTypeError, "bools and integers"),
    (lambda: I2**-1, DTypeError, "negative integer powers"),
    (lambda: F23.reshape(4, -1), ShapeError, "invalid for input of size 6"),
    (lambda: F23.reshape(-1, -1), ShapeError, "one size may be -1"),
    (lambda: F23.t().view(-1), ShapeError, r"use \.reshape"),
    (lambda: F23.expand(2, 4), ShapeError, "broadcast"),
    (lambda: F23.permute(0, 0), ShapeError, "not an order"),
    (lambda: gf.cat([]), ShapeError, "at least one"),
    (lambda: gf.cat([F23, F4]), ShapeError, "different ranks"),
    (lambda: gf.stack([F4, gf.ones(5)]), ShapeError, "differ"),
    (lambda: F23[5], IndexRangeError, "index 5 is out of bounds for dimension 0 with size 2"),
    (lambda: F23[0, 0, 0], IndexRangeError, "too many indices"),
    (lambda: F23[gf.tensor([7])], IndexRangeError, "index 7 is out of bounds"),
    (lambda: F23[gf.tensor([0]), gf.tensor([9])], IndexRangeError, "index 9 is out of bounds for dim"),
    (lambda: F23[1.5], DTypeError, "not float"),
    (lambda: F23[gf.tensor([1.5])], DTypeError, "integer or bool"),
    (lambda: gf.exp([1.0]), DTypeError, r"argument 'input' must be a Tensor, not list"),
    (lambda: gf.where(I2, 1, 2), DTypeError, "bool tensor"),
    (lambda: F23.clamp(), ShapeError, "at least one"),
    (lambda: gf.tensor([[1], [2, 3]]), ShapeError, "rectangle"),
    (lambda: gf.tensor("a"), DTypeError, "text"),
    (lambda: gf.tensor([None]), DTypeError, "NoneType"),
    (lambda: gf.tensor(1j), DTypeError, "complex128"),
    (lambda: gf.tensor([2**70]), DTypeError, "beyond 64 bits"),
    (lambda: gf.tensor([300], dtype=gf.uint8), DTypeError, "doesn't fit"),
    (lambda: gf.from_numpy(np.zeros(2, np.uint16)), DTypeError, "uint16"),
    (lambda: gf.from_numpy(np.array(["a"])), DTypeError, "strings"),
    (lambda: gf.from_numpy(np.zeros(2, ">f4")), DTypeError, "byte order"),
    (lambda: gf.from_numpy([1]), DTypeError, r"use gf\.tensor"),
    (lambda: gf.zeros(-1), ShapeError, "negative"),
    (lambda: gf.zeros(2.5), DTypeError, "integers"),
    (lambda: gf.arange(0, 5, 0), ShapeError, "nonzero"),
    (lambda: gf.zeros(2, device="cuda"), DeviceError, "not there"),
    (lambda: I2.add_(1.5), DTypeError, "in place"),
    (lambda: gf.ones(2).add_(gf.ones(3, 2)), ShapeError, "doesn't match the broadcast shape"),
    (lambda: gf.ones(2).expand(3, 2).add_(1), gf.errors.GradientError, r"clone\(\)"),
    (lambda: gf.one_hot(gf.tensor([3]), 2), IndexRangeError, "index 3 is out of range for .* size 2"),
]  # fmt: skip


@pytest.mark.parametrize("case", range(len(ERRORS)))
def test_errors_say_what_is_wrong(case: int) -> None:
    call, kind, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        call()
