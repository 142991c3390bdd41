"""Primitives on corresponding elements: reference, gradient and element expression side by side."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphflow.compiler.ir import BadSample, Node, Op, Sample, TensorType, broadcast_shapes, register
from graphflow.compiler.ops.family import (
    ANY,
    INTEGRAL,
    NUMERIC,
    Elementwise,
    by_kind,
    elementwise,
    require_same,
)
from graphflow.dims import Dim
from graphflow.dtypes import ALL, FLOATS, DType, bool_, by_name, holds_floats, rounded
from graphflow.errors import DTypeError, ShapeError


def _quiet(function: Any) -> Any:
    """IEEE results without NumPy's warnings: NaN and Inf are values here, not accidents."""

    def reference(*arrays: np.ndarray) -> Any:
        with np.errstate(all="ignore"):
            return function(*arrays)

    return reference


def _math(function: Any) -> Any:
    """A reference for functions that only the math module has, in float64."""
    vectorized = np.vectorize(function, otypes=[np.float64])

    def reference(x: np.ndarray) -> Any:
        return vectorized(x.astype(np.float64)).astype(x.dtype) if x.size else x

    return reference


# ---------------------------------------------------------------------------------------------- arithmetic

add: Op = elementwise(
    "add", _quiet(np.add), {"bool": "({0} | {1})", "int": "({0} + {1})", "float": "({0} + {1})"},
    lambda g, out, x, y: (g, g), arity=2, kinds=ANY
)
sub: Op = elementwise(
    "sub", _quiet(np.subtract), "({0} - {1})", lambda g, out, x, y: (g, -g), arity=2, kinds=NUMERIC
)
mul: Op = elementwise(
    "mul", _quiet(np.multiply), {"bool": "({0} & {1})", "int": "({0} * {1})", "float": "({0} * {1})"},
    lambda g, out, x, y: (g * y, g * x), arity=2, kinds=ANY
)
div: Op = elementwise(
    "div", _quiet(np.divide), "({0} / {1})", lambda g, out, x, y: (g / y, -g * out / y), arity=2,
    domain=(0.5, 3.0), cost=4
)
neg: Op = elementwise("neg", np.negative, "(-{0})", lambda g, out, x: (-g,), kinds=NUMERIC)


def _pow_vjp(g: Node, out: Node, x: Node, y: Node) -> tuple[Node, Node]:
    # PyTorch's conventions at the edges: d/dx x**0 is 0 everywhere, d/dy 0**y is 0 for y >= 0.
    gx = where(eq(y, 0.0), 0.0, g * y * pow_(x, y - 1.0))
    gy = where(bitwise_and(eq(x, 0.0), ge(y, 0.0)), 0.0, g * out * log(x))
    return gx, gy


def _numpy_pow(x: np.ndarray, y: np.ndarray) -> Any:
    with np.errstate(all="ignore"):
        if x.dtype.kind == "f":
            return np.power(x, y)
        # Negative integer exponents: what PyTorch gives, 0 but for the bases 1 and -1.
        power = np.power(x, np.maximum(y, 0))
        parity = np.where(y % 2 == 0, 1, x)
        inverse = np.where(np.abs(x) == 1, parity, 0)
        return np.where(y < 0, inverse, power).astype(x.dtype)


pow_: Op = elementwise(
    "pow", _numpy_pow, {"int": "{t}(pow_i64(i64({0}), i64({1})))", "float": "pow_{t}({0}, {1})"}, _pow_vjp,
    arity=2, kinds=NUMERIC, domain=(0.5, 3.0), cost=40
)
# NumPy's: the exact multiple below, rounded, with the quotient's sign also where it is zero; a quotient by
# zero or infinity is as IEEE division has it.
_FLOOR_DIVIDE = (
    "select({1} == 0, {0} / {1}, copysign_{t}(round_{t}(({0} - fmod_{t}({0}, {1})) / {1} "
    "- {t}((fmod_{t}({0}, {1}) != 0) & (({1} < 0) != (fmod_{t}({0}, {1}) < 0)))), {0} / {1}))"
)
floor_divide: Op = elementwise(
    "floor_divide", _quiet(np.floor_divide),
    {"int": "floordiv_{t}({0}, {1})", "float": _FLOOR_DIVIDE}, lambda g, out, x, y: (None, None), arity=2,
    kinds=NUMERIC, domain=(0.5, 9.0), smooth=False, cost=6
)
remainder: Op = elementwise(
    "remainder", _quiet(np.remainder), {"int": "mod_{t}({0}, {1})", "float": "mod_{t}({0}, {1})"},
    lambda g, out, x, y: (g, -g * floor(x / y)), arity=2, kinds=NUMERIC, domain=(0.7, 1.3), smooth=False,
    cost=8
)
abs_: Op = elementwise(
    "abs", np.abs, {"int": "select({0} < 0, -{0}, {0})", "float": "abs_{t}({0})"},
    lambda g, out, x: (g * sign(x),), kinds=NUMERIC, smooth=False
)
sign: Op = elementwise("sign", np.sign, {"int": "{t}({0} > 0) - {t}({0} < 0)", "float": "sign_{t}({0})"},
                   lambda g, out, x: (None,), kinds=NUMERIC, smooth=False)
# Of equal operands the first one, as in PyTorch: with zeros of both signs NumPy's choice varies.
maximum: Op = elementwise(
    "maximum", lambda x, y: np.where((x >= y) | (x != x), x, y),
    {"bool": "({0} | {1})", "int": "select({0} > {1}, {0}, {1})",
     "float": "select(({0} >= {1}) | ({0} != {0}), {0}, {1})"},
    lambda g, out, x, y: _split_tie(g, gt(x, y), lt(x, y)), arity=2, kinds=ANY)
minimum: Op = elementwise(
    "minimum", lambda x, y: np.where((x <= y) | (x != x), x, y),
    {"bool": "({0} & {1})", "int": "select({0} < {1}, {0}, {1})",
     "float": "select(({0} <= {1}) | ({0} != {0}), {0}, {1})"},
    lambda g, out, x, y: _split_tie(g, lt(x, y), gt(x, y)), arity=2, kinds=ANY)


def _split_tie(g: Node, first: Node, second: Node) -> tuple[Node, Node]:
    """The winner takes the cotangent; equal operands share it, as in PyTorch."""
    half = 0.5 * g
    return where(first, g, where(second, 0.0, half)), where(second, g, where(first, 0.0, half))


# ---------------------------------------------------------------------------------------------- rounding

floor: Op = elementwise("floor", np.floor, "floor_{t}({0})", lambda g, out, x: (None,), smooth=False)
ceil: Op = elementwise("ceil", np.ceil, "ceil_{t}({0})", lambda g, out, x: (None,), smooth=False)
round_: Op = elementwise("round", np.round, "round_{t}({0})", lambda g, out, x: (None,), smooth=False,
                    doc="Halves go to the even neighbour.")
trunc: Op = elementwise("trunc", np.trunc, "trunc_{t}({0})", lambda g, out, x: (None,), smooth=False)

# ---------------------------------------------------------------------------------------------- exponentials

exp: Op = elementwise("exp", _quiet(np.exp), "exp_{t}({0})", lambda g, out, x: (g * out,), cost=12)
exp2: Op = elementwise(
    "exp2", _quiet(np.exp2), "exp2_{t}({0})", lambda g, out, x: (g * out * math.log(2),), cost=12
)
expm1: Op = elementwise(
    "expm1", _quiet(np.expm1), "expm1_{t}({0})", lambda g, out, x: (g * (out + 1.0),), cost=16
)
log: Op = elementwise(
    "log", _quiet(np.log), "log_{t}({0})", lambda g, out, x: (g / x,), domain=(0.1, 5), cost=14
)
log1p: Op = elementwise(
    "log1p", _quiet(np.log1p), "log1p_{t}({0})", lambda g, out, x: (g / (x + 1.0),), domain=(-0.9, 5),
    cost=16
)
log2: Op = elementwise("log2", _quiet(np.log2), "log2_{t}({0})", lambda g, out, x: (g / (x * math.log(2)),),
                   domain=(0.1, 5), cost=14)
log10: Op = elementwise(
    "log10", _quiet(np.log10), "log10_{t}({0})", lambda g, out, x: (g / (x * math.log(10)),), domain=(0.1, 5),
    cost=14
)
sqrt: Op = elementwise(
    "sqrt", _quiet(np.sqrt), "sqrt_{t}({0})", lambda g, out, x: (0.5 * g / out,), domain=(0.1, 5), cost=6
)
rsqrt: Op = elementwise("rsqrt", _quiet(lambda x: x.dtype.type(1) / np.sqrt(x)), "rsqrt_{t}({0})",
                    lambda g, out, x: (-0.5 * g * out / x,), domain=(0.1, 5), cost=8)

# ---------------------------------------------------------------------------------------------- trigonometry

sin: Op = elementwise("sin", _quiet(np.sin), "sin_{t}({0})", lambda g, out, x: (g * cos(x),), cost=20)
cos: Op = elementwise("cos", _quiet(np.cos), "cos_{t}({0})", lambda g, out, x: (-g * sin(x),), cost=20)
tan: Op = elementwise("tan", _quiet(np.tan), "tan_{t}({0})", lambda g, out, x: (g * (1.0 + out * out),),
                  domain=(-1, 1), cost=30)
asin: Op = elementwise(
    "asin", _quiet(np.arcsin), "asin_{t}({0})", lambda g, out, x: (g * rsqrt(1.0 - x * x),),
    domain=(-0.9, 0.9), cost=20
)
acos: Op = elementwise(
    "acos", _quiet(np.arccos), "acos_{t}({0})", lambda g, out, x: (-g * rsqrt(1.0 - x * x),),
    domain=(-0.9, 0.9), cost=20
)
atan: Op = elementwise("atan", np.arctan, "atan_{t}({0})", lambda g, out, x: (g / (1.0 + x * x),), cost=20)


def _atan2_vjp(g: Node, out: Node, y: Node, x: Node) -> tuple[Node, Node]:
    # PyTorch's convention: the gradient at the origin is 0.
    square = x * x + y * y
    scale = where(eq(square, 0.0), 0.0, g / square)
    return scale * x, -scale * y


atan2: Op = elementwise(
    "atan2", np.arctan2, "atan2_{t}({0}, {1})", _atan2_vjp, arity=2, domain=(0.3, 3), cost=30
)
sinh: Op = elementwise("sinh", _quiet(np.sinh), "sinh_{t}({0})", lambda g, out, x: (g * cosh(x),), cost=20)
cosh: Op = elementwise("cosh", _quiet(np.cosh), "cosh_{t}({0})", lambda g, out, x: (g * sinh(x),), cost=20)
tanh: Op = elementwise("tanh", np.tanh, "tanh_{t}({0})", lambda g, out, x: (g * (1.0 - out * out),), cost=16)
asinh: Op = elementwise(
    "asinh", np.arcsinh, "asinh_{t}({0})", lambda g, out, x: (g * rsqrt(x * x + 1.0),), cost=24
)
acosh: Op = elementwise(
    "acosh", _quiet(np.arccosh), "acosh_{t}({0})", lambda g, out, x: (g * rsqrt(x * x - 1.0),),
    domain=(1.2, 4), cost=24
)
atanh: Op = elementwise("atanh", _quiet(np.arctanh), "atanh_{t}({0})", lambda g, out, x: (g / (1.0 - x * x),),
                    domain=(-0.8, 0.8), cost=24)


def _numpy_sigmoid(x: np.ndarray) -> Any:
    with np.errstate(all="ignore"):
        e = np.exp(-np.abs(x))
        return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


relu: Op = elementwise(
    "relu", _quiet(lambda x: np.where(x < 0, 0, x).astype(x.dtype)), "select({0} < 0, {t}(0), {0})",
    lambda g, out, x: (where(le(out, 0.0), 0.0, g),), kinds=NUMERIC, smooth=False,
    doc="Its own primitive because the gradient then needs the result alone, which is stored anyway."
)
sigmoid: Op = elementwise(
    "sigmoid", _numpy_sigmoid, "sigmoid_{t}({0})", lambda g, out, x: (g * out * (1.0 - out),), cost=14
)
erf: Op = elementwise("erf", _math(math.erf), "erf_{t}({0})",
                  lambda g, out, x: (g * exp(-(x * x)) * (2 / math.sqrt(math.pi)),), cost=20)
erfc: Op = elementwise("erfc", _math(math.erfc), "erfc_{t}({0})",
                   lambda g, out, x: (-g * exp(-(x * x)) * (2 / math.sqrt(math.pi)),), cost=24)

# --------------------------------------------------------------------------------------- comparison and logic


def _comparison(name: str, numpy: Any, symbol: str) -> Op:
    return elementwise(name, numpy, f"({{0}} {symbol} {{1}})", arity=2, kinds=ANY, result=bool_, smooth=False)


eq: Op = _comparison("eq", np.equal, "==")
ne: Op = _comparison("ne", np.not_equal, "!=")
lt: Op = _comparison("lt", np.less, "<")
le: Op = _comparison("le", np.less_equal, "<=")
gt: Op = _comparison("gt", np.greater, ">")
ge: Op = _comparison("ge", np.greater_equal, ">=")

bitwise_and: Op = elementwise("bitwise_and", np.bitwise_and, "({0} & {1})", arity=2, kinds=INTEGRAL)
bitwise_or: Op = elementwise("bitwise_or", np.bitwise_or, "({0} | {1})", arity=2, kinds=INTEGRAL)
bitwise_xor: Op = elementwise("bitwise_xor", np.bitwise_xor, "({0} ^ {1})", arity=2, kinds=INTEGRAL)
bitwise_not: Op = elementwise(
    "bitwise_not", np.invert, {"bool": "(not {0})", "int": "(~{0})"}, kinds=INTEGRAL
)
left_shift: Op = elementwise(
    "left_shift", np.left_shift, "({0} << {1})", arity=2, kinds=("int",), domain=(0, 5)
)
right_shift: Op = elementwise(
    "right_shift", np.right_shift, "({0} >> {1})", arity=2, kinds=("int",), domain=(0, 5)
)

isnan: Op = elementwise("isnan", np.isnan, "({0} != {0})", result=bool_)
isinf: Op = elementwise("isinf", np.isinf, "isinf_{t}({0})", result=bool_)
isfinite: Op = elementwise("isfinite", np.isfinite, "isfinite_{t}({0})", result=bool_)


# ---------------------------------------------------------------------------------------- where, cast, detach


def _infer_where(condition: TensorType, x: TensorType, y: TensorType) -> TensorType:
    if condition.dtype is not bool_:
        raise DTypeError(f"the condition has to be bool, got {condition.dtype}; compare it with != 0")
    return TensorType(require_same((x, y)), broadcast_shapes(condition.shape, x.shape, y.shape))


def _where_samples(rng: np.random.Generator) -> list[Sample]:
    found = []
    for dtype in ALL:
        x, y = ((rng.standard_normal(s) * 4).astype(dtype.numpy) for s in ((3, 4), (4,)))
        found.append(
            Sample((rng.integers(0, 2, (3, 1)).astype(bool), x, y), gradient=dtype in FLOATS)
        )
    return found


where: Op = register(Op(
    "where", "elementwise", _infer_where, np.where,
    lambda g, out, c, x, y: (None, where(c, g, 0.0), where(c, 0.0, g)),
    _where_samples,
    lambda rng: [
        BadSample((np.ones(3), np.ones(3), np.ones(3)), {}, DTypeError, "has to be bool"),
        BadSample((np.ones(3, bool), np.ones(4), np.ones(3)), {}, ShapeError, "don't broadcast"),
    ],
    Elementwise(by_kind("select({0}, {1}, {2})")), 3,
))  # fmt: skip


def _numpy_cast(x: np.ndarray, dtype: DType) -> Any:
    with np.errstate(all="ignore"):
        if holds_floats(x) and dtype.kind == "int":
            return _float_to_int(x, dtype)
        if dtype.is_half and x.dtype != dtype.numpy:
            return rounded(x, dtype)
        return x.astype(dtype.numpy)


def _float_to_int(x: np.ndarray, dtype: DType) -> np.ndarray:
    """Truncation; NaN gives 0 and what doesn't fit in int64 its nearest end, then the low bits are kept."""
    whole = np.trunc(np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=2.0**63, neginf=-(2.0**63)))
    inside = (whole >= -(2.0**63)) & (whole < 2.0**63)
    ends = np.where(whole > 0, np.int64(2**63 - 1), np.int64(-(2**63)))
    return np.where(inside, np.where(inside, whole, 0).astype(np.int64), ends).astype(dtype.numpy)


def _cast_samples(rng: np.random.Generator) -> list[Sample]:
    values = np.array([[0.0, 1.0, 2.5, 100.25], [3.75, 7.5, 0.25, 1e-3]])
    return [
        Sample((values.astype(a.numpy),), {"dtype": b}, gradient=a.name == b.name == "float64")
        for a in ALL
        for b in ALL
    ]


def _infer_cast(x: TensorType, dtype: DType) -> TensorType:
    return TensorType(dtype, x.shape)


cast: Op = register(Op(
    "cast", "elementwise", _infer_cast,
    _numpy_cast,
    lambda g, out, x, dtype: (cast(g, dtype=x.dtype),),
    _cast_samples,
    None,
    Elementwise(by_kind("{o}({0})")), 1,
))  # fmt: skip

detach: Op = register(Op(
    "detach", "elementwise",
    lambda x: x,
    lambda x: x,
    lambda g, out, x: (None,),
    lambda rng: [Sample((rng.standard_normal((2, 3)),), gradient=False)],
    None,
    Elementwise(by_kind("{0}"), 0), 1,
    "The same value, cut off from gradients.",
))  # fmt: skip

def _infer_alias(x: TensorType, uid: int) -> TensorType:
    return x


alias: Op = register(Op(
    "alias", "elementwise", _infer_alias,
    lambda x, uid: x,
    lambda g, out, x, uid: (g,),
    lambda rng: [Sample((rng.standard_normal((2, 3)),), {"uid": 0})],
    None,
    Elementwise(by_kind("{0}"), 0), 1,
    "The same value under a name of its own, so that a derivative can be taken with respect to one use.",
))  # fmt: skip


def _const_samples(rng: np.random.Generator) -> list[Sample]:
    values = [
        (0.5, "float32"),
        (-0.0, "float64"),
        (math.inf, "float32"),
        (math.nan, "float64"),
        (-7, "int32"),
        (True, "bool"),
    ]
    return [Sample((), {"value": v, "dtype": by_name(t)}) for v, t in values]


def _infer_const(value: int | float | bool | Dim, dtype: DType) -> TensorType:
    fits: tuple[type, ...] = {"bool": (bool,), "int": (int, Dim), "float": (float, Dim)}[dtype.kind]
    if not isinstance(value, fits) or (isinstance(value, bool) and dtype is not bool_):
        raise DTypeError(f"{value!r} is no value of {dtype}")
    if dtype.kind == "int" and not isinstance(value, Dim):
        ends = np.iinfo(dtype.numpy)
        if not ends.min <= value <= ends.max:
            raise DTypeError(f"{value} is outside {dtype}")
    return TensorType(dtype, ())


const: Op = register(Op(
    "const", "const", _infer_const,
    lambda value, dtype: np.asarray(value, dtype.numpy),
    None, _const_samples, None, None, 0,
    "A 0-d constant: a bool, int or float as the dtype is, or a symbolic size.",
))  # fmt: skip


def _no_value(**attrs: Any) -> Any:
    raise AssertionError("an input has no value of its own")


def _infer_input(name: str, dtype: DType, shape: tuple[int | Dim, ...], uid: int) -> TensorType:
    return TensorType(dtype, shape)


input_: Op = register(Op(
    "input", "input", _infer_input,
    _no_value, None, lambda rng: [], None, None, 0,
    "A graph's argument or state.",
))  # fmt: skip


