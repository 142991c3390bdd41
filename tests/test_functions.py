"""Functions on tensors: NumPy's results, PyTorch's dtypes and errors, alike at once and traced."""

from __future__ import annotations

import inspect
import itertools
import operator
from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.dtypes import by_name
from graphflow.errors import DTypeError, IndexRangeError
from graphflow.functions.registry import FUNCTIONS
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lives import both, eager, same

RNG = np.random.default_rng(7)


def layouts(array: np.ndarray) -> list[np.ndarray]:
    """The same numbers contiguous, in Fortran order, strided, reversed in memory, and read-only."""
    wide = np.repeat(array, 2, axis=-1) if array.ndim else array
    strided = wide[..., ::2] if array.ndim else array
    backwards = np.ascontiguousarray(np.flip(array))
    backwards = np.flip(backwards)
    frozen = array.copy()
    frozen.flags.writeable = False
    return [array, np.asfortranarray(array), strided, backwards, frozen]


# ------------------------------------------------------------------------------------------- the public names


def test_every_function_is_exported_and_documented() -> None:
    assert set(FUNCTIONS) <= set(gf.__all__)
    for name, function in FUNCTIONS.items():
        assert getattr(gf, name) is function
        assert function.__doc__, name
    for name in gf.__all__:
        assert hasattr(gf, name), name
    assert len(set(gf.__all__)) == len(gf.__all__)


def test_functions_are_methods_with_the_same_definition() -> None:
    assert gf.Tensor.sum is gf.sum
    assert gf.Tensor.add is gf.add
    assert "dim" in inspect.signature(gf.sum).parameters
    x = gf.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert x.sum(axis=0, keepdims=True).tolist() == [[4.0, 6.0]]
    with pytest.raises(DTypeError, match="same argument twice"):
        x.sum(axis=0, dim=0)


# ---------------------------------------------------------------------------------------------- elementwise

UNARY: dict[str, Any] = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log1p": np.log1p, "log2": np.log2,
    "log10": np.log10, "sqrt": np.sqrt, "sin": np.sin, "cos": np.cos, "tan": np.tan, "asin": np.arcsin,
    "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
    "asinh": np.arcsinh,
    "atanh": np.arctanh, "abs": np.abs, "sign": np.sign, "floor": np.floor, "ceil": np.ceil,
    "trunc": np.trunc,
    "round": np.round, "neg": np.negative, "square": np.square, "reciprocal": np.reciprocal,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "relu": lambda x: np.maximum(x, 0), "isnan": np.isnan,
    "isinf": np.isinf, "isfinite": np.isfinite, "frac": lambda x: x - np.trunc(x), "deg2rad": np.deg2rad,
    "rsqrt": lambda x: 1 / np.sqrt(x), "logical_not": np.logical_not, "nan_to_num": np.nan_to_num,
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (4, 5), (2, 3, 4)])
def test_unary_functions_are_numpys_on_every_layout(name: str, shape: tuple[int, ...]) -> None:
    base = RNG.uniform(0.05, 0.95, shape) if name != "round" else RNG.uniform(-9, 9, shape)
    for array in layouts(np.asarray(base)):
        before = array.copy()
        got = getattr(gf, name)(gf.from_numpy(array)).numpy()
        np.testing.assert_allclose(got, UNARY[name](array), rtol=1e-12)
        np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    "name", ["exp", "log", "sqrt", "sigmoid", "relu", "tanh", "abs", "floor", "isnan", "isinf"]
)
def test_special_values_pass_as_ieee_says(name: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -2.5])
    with np.errstate(all="ignore"):
        np.testing.assert_array_almost_equal(getattr(gf, name)(gf.tensor(x)).numpy(), UNARY[name](x))


@pytest.mark.parametrize("name", ["exp", "sigmoid", "sqrt", "tan", "log1p"])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int64"])
def test_float_functions_of_integers_are_float32(name: str, dtype: str) -> None:
    x = gf.tensor([0, 1, 1], dtype=by_name(dtype))
    assert getattr(gf, name)(x).dtype is gf.float32


BINARY: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "maximum": np.maximum,
    "minimum": np.minimum, "floor_divide": np.floor_divide, "remainder": np.remainder, "fmod": np.fmod,
    "pow": np.power, "atan2": np.arctan2, "eq": np.equal, "ne": np.not_equal, "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater, "ge": np.greater_equal, "logical_and": np.logical_and, "logical_or": np.logical_or,
    "logical_xor": np.logical_xor,
}  # fmt: skip
broadcasting = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3, min_side=0)


@pytest.mark.parametrize("name", BINARY)
@given(shapes=broadcasting, seed=st.integers(0, 2**30))
def test_binary_functions_broadcast_like_numpy(name: str, shapes: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.uniform(0.2, 4, s) for s in shapes.input_shapes)
    same(eager(getattr(gf, name), a, b), [np.asarray(BINARY[name](a, b))], rtol=1e-12)


OPERATORS = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.pow,
    operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
]  # fmt: skip


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.__name__)
def test_operators_take_tensors_numbers_and_arrays(op: Callable[[Any, Any], Any]) -> None:
    a = RNG.uniform(0.5, 3, (2, 3))
    x = gf.tensor(a)
    for other in (2, 2.5, True, RNG.uniform(0.5, 3, 3), np.float64(1.5), np.int32(2)):
        if op is operator.sub and other is True:
            continue  # refused, as PyTorch does
        np.testing.assert_allclose(op(x, other).numpy(), op(a, other), rtol=1e-12)
        np.testing.assert_allclose(op(other, x).numpy(), op(other, a), rtol=1e-12)


def test_operators_leave_other_types_to_python() -> None:
    x = gf.tensor([1.0])
    assert (x == None) is False  # noqa: E711
    assert (x != "a") is True
    for bad in ("a", None, object(), [1]):
        with pytest.raises(TypeError):
            x + bad


def test_bitwise_operators_are_logic_on_bools() -> None:
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    x, y = gf.tensor(a), gf.tensor(b)
    for got, wanted in ((x & y, a & b), (x | y, a | b), (x ^ y, a ^ b), (~x, ~a)):
        np.testing.assert_array_equal(got.numpy(), wanted)
    i = gf.tensor([6, 5])
    assert ((i & 3).tolist(), (i | 8).tolist(), (i ^ 1).tolist(), (~i).tolist()) == (
        [2, 1],
        [14, 13],
        [7, 4],
        [-7, -6],
    )
    assert ((i << 1).tolist(), (i >> 1).tolist()) == ([12, 10], [3, 2])


def test_clamp_where_lerp_and_friends() -> None:
    x = RNG.standard_normal((3, 4)).astype(np.float32)
    y = RNG.standard_normal((3, 4)).astype(np.float32)
    half = np.float32(0.5)
    cases: list[tuple[Callable[..., Any], np.ndarray]] = [
        (lambda a, b: a.clamp(-0.5, 0.5), x.clip(-half, half)),
        (lambda a, b: a.clamp(min=b), np.maximum(x, y)),
        (lambda a, b: gf.clamp(a, max=0), np.minimum(x, 0)),
        (lambda a, b: gf.where(a > 0, a, b), np.where(x > 0, x, y)),
        (lambda a, b: a.where(a > b, 7), np.where(x > y, x, np.float32(7))),
        (lambda a, b: a.masked_fill(a > 0, -np.inf), np.where(x > 0, np.float32(-np.inf), x)),
        (lambda a, b: gf.lerp(a, b, 0.25), x + np.float32(0.25) * (y - x)),
        (lambda a, b: gf.addcmul(a, a, b, value=2), x + 2 * x * y),
        (lambda a, b: gf.addcdiv(a, a, b, value=0.5), x + half * x / y),
        (lambda a, b: gf.add(a, b, alpha=3), x + 3 * y),
        (lambda a, b: gf.div(a, 0.3, rounding_mode="floor"), np.floor_divide(x, np.float32(0.3))),
        (lambda a, b: gf.div(a, 0.3, rounding_mode="trunc"), np.trunc(x / np.float32(0.3))),
    ]
    for function, wanted in cases:
        same(both(function, x, y), [wanted], rtol=1e-5)


def test_long_columns_are_summed_as_exactly_as_rows() -> None:
    x = np.random.default_rng(0).random((200_000, 3)).astype(np.float32)
    same(both(lambda x: x.sum(0), x), [x.sum(0, dtype=np.float64).astype(np.float32)], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8])
def test_truncated_quotients_at_the_ends_of_the_range(dtype: type[np.integer[Any]]) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x, y = np.meshgrid(*2 * [np.array([low, low + 1, 1, 3, high - 1, high], dtype)])
    x, y = x[y != 0], y[y != 0]
    rest = np.fmod(x, y)
    same(both(gf.fmod, x, y), [rest])
    same(both(lambda x, y: gf.div(x, y, rounding_mode="trunc"), x, y), [(x - rest) // y])


def test_fmod_keeps_the_sign_of_zero() -> None:
    x, y = np.array([-0.0, 0.0, -1.0, 1.0, -3.0]), np.array([1.0, -1.0, 1.0, -1.0, 1.5])
    for found in both(gf.fmod, x, y):
        assert np.signbit(found).tolist() == [True, False, True, False, True]


def test_integer_division_rounds_as_asked() -> None:
    i = gf.tensor([7, -7, 7, -7])
    j = gf.tensor([2, 2, -2, -2])
    assert gf.div(i, j, rounding_mode="floor").tolist() == [3, -4, -4, 3]
    assert gf.div(i, j, rounding_mode="trunc").tolist() == [3, -3, -3, 3]
    assert (i % j).tolist() == [1, 1, -1, -1]
    assert gf.fmod(i, j).tolist() == [1, -1, 1, -1]
    assert (i / j).dtype is gf.float32
    assert gf.div(i, 0, rounding_mode="floor").tolist() == [0, 0, 0, 0]


# --------------------------------------------------------------------------------------------- type promotion

NAMES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64")
# Rows and columns in the order of NAMES, as torch.promote_types has them.
TENSOR_WITH_TENSOR = """
bool    uint8   int8    int16   int32   int64   float32 float64
uint8   uint8   int16   int16   int32   int64   float32 float64
int8    int16   int8    int16   int32   int64   float32 float64
int16   int16   int16   int16   int32   int64   float32 float64
int32   int32   int32   int32   int32   int64   float32 float64
int64   int64   int64   int64   int64   int64   float32 float64
float32 float32 float32 float32 float32 float32 float32 float64
float64 float64 float64 float64 float64 float64 float64 float64
"""
# A tensor with dimensions against a 0-d one, as torch.result_type has it.
TENSOR_WITH_0D = """
bool    uint8   int8    int16   int32   int64   float32 float64
uint8   uint8   uint8   uint8   uint8   uint8   float32 float64
int8    int8    int8    int8    int8    int8    float32 float64
int16   int16   int16   int16   int16   int16   float32 float64
int32   int32   int32   int32   int32   int32   float32 float64
int64   int64   int64   int64   int64   int64   float32 float64
float32 float32 float32 float32 float32 float32 float32 float32
float64 float64 float64 float64 float64 float64 float64 float64
"""
# Against True, 2 and 2.5: a tensor with dimensions and a 0-d one alike.
WITH_NUMBERS = """
bool    int64   float32
uint8   uint8   float32
int8    int8    float32
int16   int16   float32
int32   int32   float32
int64   int64   float32
float32 float32 float32
float64 float64 float64
"""


def table(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


def test_promotion_is_pytorchs() -> None:
    full, scalar = ({n: gf.ones(s, dtype=by_name(n)) for n in NAMES} for s in ((2,), ()))
    rows = list(zip(NAMES, table(TENSOR_WITH_TENSOR), strict=True))
    for (a, row), (b, column) in itertools.product(rows, enumerate(NAMES)):
        wanted = row[b]
        assert (full[a] * full[column]).dtype.name == wanted
        assert (scalar[a] * scalar[column]).dtype.name == wanted
        assert gf.promote_types(by_name(a), by_name(column)).name == wanted
    for a, row in zip(NAMES, table(TENSOR_WITH_0D), strict=True):
        for column, wanted in zip(NAMES, row, strict=True):
            assert (full[a] * scalar[column]).dtype.name == wanted
            assert gf.result_type(scalar[column], full[a]).name == wanted
    for a, row in zip(NAMES, table(WITH_NUMBERS), strict=True):
        for value, wanted in zip((True, 2, 2.5), row, strict=True):
            assert (full[a] * value).dtype.name == wanted
            assert (value * scalar[a]).dtype.name == wanted
            assert (full[a] / value).dtype.name == (wanted if wanted.startswith("float") else "float32")
            assert (full[a] == value).dtype is gf.bool


def test_numbers_wrap_and_round_into_the_tensors_dtype() -> None:
    assert (gf.tensor([1], dtype=gf.int8) + 300).tolist() == [45]
    assert (gf.tensor([1], dtype=gf.uint8) - 1).tolist() == [0]
    assert (gf.tensor([1.0]) * 1e300).tolist() == [np.inf]
    assert (gf.tensor([2]) ** 2).dtype is gf.int64
    assert (gf.tensor([2]) ** 2.0).dtype is gf.float32


# ---------------------------------------------------------------------------------------------- reductions

REDUCTIONS: dict[str, Any] = {
    "sum": np.sum, "mean": np.mean, "prod": np.prod, "amax": np.max, "amin": np.min,
    "logsumexp": lambda x, axis=None, keepdims=False: np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims)),
    "var": lambda x, **k: np.var(x, ddof=1, **k), "std": lambda x, **k: np.std(x, ddof=1, **k),
    "norm": lambda x, axis=None, keepdims=False: np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims)),
    "all": np.all, "any": np.any,
}  # fmt: skip


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (1,), (0, 1, 2)])
@pytest.mark.parametrize("keepdim", [False, True])
def test_reductions_are_numpys(name: str, axis: Any, keepdim: bool) -> None:
    base = RNG.standard_normal((3, 4, 5))
    wanted = np.asarray(REDUCTIONS[name](base, axis=axis, keepdims=keepdim))
    for array in layouts(base):
        got = getattr(gf, name)(gf.from_numpy(array), dim=axis, keepdim=keepdim).numpy()
        assert got.shape == wanted.shape
        np.testing.assert_allclose(got, wanted, rtol=1e-10)
    same(both(lambda x: getattr(x, name)(dim=axis, keepdim=keepdim), base), [wanted], rtol=1e-10)


def test_reductions_of_nothing_and_of_one() -> None:
    empty = gf.zeros(0, 3)
    assert (empty.sum().item(), empty.prod().item(), empty.all().item(), empty.any().item()) == (
        0,
        1,
        True,
        False,
    )
    assert np.isnan(empty.mean().item())
    assert empty.sum(0).tolist() == [0, 0, 0]
    assert empty.amax(1).shape == (0,)
    for name in ("max", "min", "amax", "amin", "argmax", "argmin"):
        with pytest.raises(IndexRangeError, match="no elements"):
            getattr(empty, name)()
    zero = gf.tensor(3)
    assert (zero.sum(0).item(), zero.argmax().item(), zero.max(0).indices.item()) == (3, 0, 0)
    assert np.isnan(gf.tensor([1.0]).var().item())


def test_sums_of_bools_and_integers_are_int64() -> None:
    for name in ("bool", "uint8", "int8", "int32"):
        x = gf.tensor([1, 1, 1], dtype=by_name(name))
        assert x.sum().dtype is gf.int64 and x.prod().dtype is gf.int64
        assert x.sum(dtype=gf.float64).dtype is gf.float64
    assert gf.tensor([200, 200], dtype=gf.uint8).sum().item() == 400
    assert gf.tensor([0.0, 2.0, 3.0]).count_nonzero().item() == 2


def test_max_and_min_with_a_dimension_give_values_and_first_positions() -> None:
    x = np.array([[1.0, 5.0, 5.0], [7.0, 2.0, 7.0]])
    values, indices = gf.tensor(x).max(1)
    assert (values.tolist(), indices.tolist()) == ([5, 7], [1, 0])
    found = gf.tensor(x).min(dim=0, keepdim=True)
    assert (found.values.tolist(), found.indices.tolist()) == ([[1, 2, 5]], [[0, 1, 0]])
    assert gf.max(gf.tensor([1.0, 4.0]), gf.tensor([3.0, 2.0])).tolist() == [3, 4]
    assert gf.tensor(x).argmax().item() == 3
    assert gf.tensor([1.0, np.nan, 3.0]).argmax().item() == 1
    assert gf.tensor([True, False]).max(0).values.item() is True


def test_softmax_and_logsumexp_survive_large_and_infinite_values() -> None:
    big = gf.tensor([1e4, 1e4 + 1, -1e4])
    np.testing.assert_allclose(big.softmax(0).numpy(), [0.26894143, 0.7310586, 0], rtol=1e-5)
    np.testing.assert_allclose(big.log_softmax(0).numpy(), [-1.3132616, -0.31326166, -20001.313], rtol=1e-5)
    low = gf.tensor([-np.inf, 1.0, 2.0])
    np.testing.assert_allclose(low.softmax(0).numpy(), [0, 0.26894143, 0.7310586], rtol=1e-6)
    assert gf.logsumexp(gf.tensor([-np.inf, -np.inf]), 0).item() == -np.inf
    assert gf.logsumexp(gf.tensor([np.inf, 1.0]), 0).item() == np.inf
    assert gf.isnan(gf.tensor([-np.inf, -np.inf]).softmax(0)).all()
