"""Type promotion by PyTorch's rule, written down here once more: over all pairs of dtypes, 0-d tensors and
Python numbers, for every function of two operands; results of reductions; the default dtype.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.dtypes import ALL, FLOATS, HALVES, INTS, DType
from graphflow.errors import DTypeError, GradientError

CATEGORY = {"bool": 0, "int": 1, "float": 2}
Operand = tuple[str, DType]  # "dims", "0-d" or "number", and the dtype

OPERANDS: list[Operand] = [(form, dtype) for form in ("dims", "0-d") for dtype in ALL]
NUMBERS: list[Operand] = [("number", gf.bool), ("number", gf.int64), ("number", gf.float32)]


def promoted(a: DType, b: DType) -> DType:
    """Two tensors alike: the higher category, in it the wider type; what neither holds widens."""
    if a.kind != b.kind:
        return max(a, b, key=lambda t: CATEGORY[t.kind])
    if a.kind == "float" and a is not b and a.itemsize == b.itemsize:
        return gf.float32
    if a.kind == "int" and gf.uint8 in (a, b) and a is not b:
        other = b if a is gf.uint8 else a
        return gf.int16 if other is gf.int8 else other
    return max(a, b, key=lambda t: t.itemsize)


def expected(*operands: Operand) -> DType:
    """Forms in order of weight; a lighter one only counts where its category is higher."""
    result = None
    for form in ("dims", "0-d", "number"):
        found = None
        for _, dtype in (o for o in operands if o[0] == form):
            found = dtype if found is None else promoted(found, dtype)
        if found is not None and (result is None or CATEGORY[found.kind] > CATEGORY[result.kind]):
            result = found
    assert result is not None
    return result


def made(operand: Operand, values: tuple[int, int] = (3, 1)) -> Any:
    form, dtype = operand
    if form == "number":
        return {"bool": True, "int": 2, "float": 1.5}[dtype.kind]
    return gf.tensor(list(values) if form == "dims" else values[0], dtype=dtype)


def pairs() -> Iterator[tuple[Operand, Operand]]:
    yield from itertools.product(OPERANDS, OPERANDS)
    yield from itertools.product(OPERANDS, NUMBERS)
    yield from itertools.product(NUMBERS, OPERANDS)


def floating(dtype: DType) -> DType:
    return dtype if dtype.kind == "float" else gf.float32


SAME: dict[str, Callable[[Any, Any], Any]] = {
    "add": gf.add, "+": operator.add, "mul": gf.mul, "*": operator.mul, "maximum": gf.maximum,
    "where": lambda a, b: gf.where(gf.tensor([True, False]), a, b),
}  # fmt: skip
TRUTHS = {"eq": gf.eq, "<": operator.lt, "ge": gf.ge, "logical_xor": gf.logical_xor}
FLOATING = {"div": gf.div, "/": operator.truediv, "atan2": gf.atan2}
COUNTING = {"floor_divide": gf.floor_divide, "%": operator.mod, "fmod": gf.fmod, "**": operator.pow}
BITS = {"bitwise_and": gf.bitwise_and, "|": operator.or_, "^": operator.xor}
SHIFTS = {"<<": operator.lshift, "bitwise_right_shift": gf.bitwise_right_shift}


def check(function: Callable[[Any, Any], Any], wanted: Callable[[DType, Any, Any], DType | None]) -> None:
    """`wanted` gives the result's dtype, or None where the function refuses."""
    for x, y in pairs():
        dtype = wanted(expected(x, y), x[1], y[1])
        if dtype is None:
            with pytest.raises(DTypeError):
                function(made(x), made(y))
        else:
            assert function(made(x), made(y)).dtype is dtype, (x, y)


@pytest.mark.parametrize("name", SAME)
def test_common_dtype(name: str) -> None:
    check(SAME[name], lambda dtype, a, b: dtype)


def test_result_type_and_promote_types() -> None:
    check(lambda a, b: type("R", (), {"dtype": gf.result_type(a, b)}), lambda dtype, a, b: dtype)
    for a, b in itertools.product(ALL, ALL):
        assert gf.promote_types(a, b) is promoted(a, b) is gf.promote_types(b, a)
        assert gf.can_cast(a, b) is (CATEGORY[a.kind] <= CATEGORY[b.kind])


@pytest.mark.parametrize("name", TRUTHS)
def test_comparisons_give_bools(name: str) -> None:
    check(TRUTHS[name], lambda dtype, a, b: gf.bool)


@pytest.mark.parametrize("name", FLOATING)
def test_quotients_are_floating(name: str) -> None:
    check(FLOATING[name], lambda dtype, a, b: floating(dtype))


@pytest.mark.parametrize("name", COUNTING)
def test_bools_dont_count(name: str) -> None:
    check(COUNTING[name], lambda dtype, a, b: None if dtype is gf.bool else dtype)


@pytest.mark.parametrize("name", ["sub", "-"])
def test_bools_arent_subtracted(name: str) -> None:
    function = gf.sub if name == "sub" else operator.sub
    check(function, lambda dtype, a, b: None if gf.bool in (a, b) else dtype)


@pytest.mark.parametrize("name", BITS)
def test_bits_are_of_integers_and_bools(name: str) -> None:
    check(BITS[name], lambda dtype, a, b: None if dtype.kind == "float" else dtype)


@pytest.mark.parametrize("name", SHIFTS)
def test_shifts_are_of_integers(name: str) -> None:
    check(SHIFTS[name], lambda dtype, a, b: dtype if dtype.kind == "int" else None)


def test_compiled_functions_promote_alike() -> None:
    chosen = [(("dims", a), ("0-d", b)) for a, b in itertools.product(ALL, ALL)]
    by_first = itertools.groupby(chosen, key=lambda pair: pair[0])
    for first, group in by_first:
        seconds = [made(second) for _, second in group]
        results = gf.compile(lambda x, ys: [(x * y, x / y, x < y) for y in ys])(made(first), seconds)
        for (product, quotient, truth), dtype in zip(results, ALL, strict=True):
            common = expected(first, ("0-d", dtype))
            assert (product.dtype, quotient.dtype, truth.dtype) == (common, floating(common), gf.bool)


@pytest.mark.parametrize("name", ["add_", "mul_", "+=", "/=", "floor_divide_", "clamp_"])
def test_results_in_place_keep_the_category(name: str) -> None:
    apply: dict[str, Callable[[Any, Any], Any]] = {
        "+=": operator.iadd,
        "/=": operator.itruediv,
        "clamp_": lambda a, b: a.clamp_(min=b),
    }
    function = apply.get(name) or (lambda a, b: getattr(a, name)(b))
    for x, y in itertools.chain(itertools.product(OPERANDS, OPERANDS), itertools.product(OPERANDS, NUMBERS)):
        if (x[0], y[0]) == ("0-d", "dims") or (name == "floor_divide_" and expected(x, y) is gf.bool):
            continue
        result = expected(x, y)
        result = floating(result) if name == "/=" else result
        target = made(x)
        if CATEGORY[result.kind] > CATEGORY[x[1].kind]:
            before = target.tolist()
            with pytest.raises(DTypeError, match="can't be"):
                function(target, made(y))
            assert target.tolist() == before
        else:
            assert function(target, made(y)) is target
            assert target.dtype is x[1]


# ---------------------------------------------------------------------------------------------- reductions


def test_reductions() -> None:
    for dtype in ALL:
        t = gf.tensor([[3, 1], [0, 1]], dtype=dtype)
        whole = dtype if dtype.kind == "float" else gf.int64
        for function in (gf.sum, gf.prod, lambda t: gf.cumsum(t, 0), lambda t: gf.cumprod(t, 1)):
            assert function(t).dtype is whole
        assert gf.amax(t).dtype is gf.max(t, 0).values.dtype is dtype
        assert gf.max(t, 0).indices.dtype is gf.int64
        assert gf.count_nonzero(t).dtype is gf.int64
        assert (t > 0).any().dtype is (t > 0).all().dtype is gf.bool
        assert gf.sum(t, dtype=gf.float64).dtype is gf.float64
        for function in (gf.mean, gf.var, gf.std, lambda t: gf.softmax(t, 0), gf.norm):
            if dtype.kind == "float":
                assert function(t).dtype is dtype
            else:
                with pytest.raises(DTypeError):
                    function(t)
        assert gf.mean(t, dtype=gf.float32).dtype is gf.float32
        for function in (gf.exp, gf.sqrt, gf.sin, gf.sigmoid, gf.reciprocal, gf.erf):
            assert function(t).dtype is floating(dtype)
    assert gf.tensor([True] * 300).sum().item() == 300
    assert gf.tensor([100, 100], dtype=gf.int8).sum().item() == 200
    assert gf.tensor([100, 100], dtype=gf.int8).sum(dtype=gf.int8).item() == -56


VALUES = [-128, -7, -3, -1, 0, 1, 2, 7, 127]


@pytest.mark.parametrize("divisor", [-5, -1, 3])
def test_division_of_negative_integers(divisor: int) -> None:
    for dtype in INTS:
        if dtype is gf.uint8:
            continue
        bits = 8 * dtype.itemsize

        def wrapped(value: int, bits: int = bits) -> int:
            return (value + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)

        t = gf.tensor(VALUES, dtype=dtype)
        truncated = [abs(v) // abs(divisor) * (1 if (v < 0) == (divisor < 0) else -1) for v in VALUES]
        cases = {
            "floor": (lambda a, b: a // b, [wrapped(v // divisor) for v in VALUES]),
            "rest": (lambda a, b: a % b, [v % divisor for v in VALUES]),
            "trunc": (lambda a, b: gf.div(a, b, rounding_mode="trunc"), [wrapped(v) for v in truncated]),
            "fmod": (gf.fmod, [v - divisor * w for v, w in zip(VALUES, truncated, strict=True)]),
        }
        for name, (function, wanted) in cases.items():
            for by in (divisor, gf.tensor([divisor], dtype=dtype)):
                assert function(t, by).tolist() == wanted, (name, dtype)
                assert gf.compile(function)(t, by).tolist() == wanted, (name, dtype)


def test_powers_of_integers() -> None:
    t = gf.tensor([-3, -1, 0, 1, 2])
    assert (t**3).tolist() == [-27, -1, 0, 1, 8]
    with pytest.raises(DTypeError, match="negative integer powers"):
        t**-1
    assert (t ** gf.tensor(-1)).tolist() == [0, -1, 0, 1, 0]
    assert (2**t.abs()).tolist() == [8, 2, 1, 2, 4]
    assert (t**2.0).dtype is gf.float32


# ---------------------------------------------------------------------------------------------- default dtype


@pytest.fixture
def default() -> Iterator[Callable[[Any], None]]:
    yield gf.set_default_dtype
    gf.set_default_dtype(gf.float32)


@pytest.mark.parametrize("dtype", (*HALVES, *FLOATS), ids=str)
def test_default_dtype(dtype: DType, default: Callable[[Any], None]) -> None:
    function = gf.compile(lambda x: (x / 2, x * 1.5, gf.zeros(2), gf.tensor([0.5])))
    before = function(gf.tensor([1, 2]))
    assert all(t.dtype is gf.float32 for t in before)
    default(dtype)
    assert gf.get_default_dtype() is dtype
    made = (
        gf.tensor([1.5]), gf.zeros(2), gf.ones(1), gf.full((1,), 2.0), gf.arange(0.0, 2.0), gf.eye(2),
        gf.linspace(0, 1, 3), gf.rand(2), gf.randn(2), gf.Tensor([1, 2]), gf.tensor([1]) / 2,
        gf.tensor([1]) * 1.5, gf.exp(gf.tensor([1])), gf.nn.Linear(2, 2).weight, *function(gf.tensor([1, 2])),
    )  # fmt: skip
    assert [t.dtype for t in made] == [dtype] * len(made)
    assert gf.tensor([1]).dtype is gf.int64 and gf.tensor([True]).dtype is gf.bool
    assert repr(gf.tensor([1.5])) == "tensor([1.5000])"
    assert gf.finfo().dtype == dtype.name
    assert gf.from_numpy(np.zeros(1, np.float32)).dtype is gf.float32


def test_default_dtype_is_floating(default: Callable[[Any], None]) -> None:
    for bad in (gf.int64, gf.bool, int):
        with pytest.raises(DTypeError, match="floating point"):
            default(bad)
    default("float64")
    assert gf.get_default_dtype() is gf.float64
    assert gf.zeros(1, dtype=float).dtype is gf.float64  # Python's float


def test_only_floats_require_gradients() -> None:
    for dtype in ALL:
        if dtype.kind == "float":
            assert gf.zeros(1, dtype=dtype, requires_grad=True).requires_grad
        else:
            with pytest.raises(GradientError, match="floating point"):
                gf.zeros(1, dtype=dtype, requires_grad=True)
