"""Matrix products."""

from __future__ import annotations

from typing import Any

from graphflow.compiler.ir import OPS, equal_size, format_shape
from graphflow.dtypes import bool_
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.common import Operand, in_dtype, operand, reshaped, tensor_arg
from graphflow.functions.elementwise import mul
from graphflow.functions.reduce import reduced
from graphflow.functions.registry import error, public
from graphflow.tensor import Tensor, apply

__all__ = [
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "dot", "ger", "matmul", "mm", "mv", "outer",
    "vdot",
]  # fmt: skip


def _pair(name: str, a: Any, b: Any, second: str = "other") -> tuple[Tensor, Tensor]:
    x, y = tensor_arg(a, name), tensor_arg(b, name, second)
    if x.dtype is not y.dtype:
        raise error(
            DTypeError, name,
            f"expected operands of the same dtype, but got {x.type_} and {y.type_}; convert one with "
            ".to(dtype)",
        )  # fmt: skip
    if x.dtype is bool_:
        raise error(DTypeError, name, "has no meaning for bool tensors; convert with .float()")
    return x, y


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The product of (batches of) matrices of one dtype."""
    if a.dtype.kind == "float":
        return apply(OPS["matmul"], a, b)
    # Integers have no kernel of their own: the definition, spelt out.
    left, right = a.type_.shape, b.type_.shape
    try:
        equal_size(left[-1], right[-2])
    except ShapeError:
        raise error(
            ShapeError, "matmul", f"inner sizes differ: {format_shape(left)} @ {format_shape(right)}"
        ) from None
    terms = apply(OPS["mul"], reshaped(a, (*left, 1)), reshaped(b, (*right[:-2], 1, *right[-2:])))
    return reduced("sum", terms, (terms.ndim - 2,), False)


_PRODUCTS = {(1, 1): "DotBackward0", (2, 1): "MvBackward0", (2, 2): "MmBackward0", (3, 3): "BmmBackward0"}


def _matmul_backward(input: Any, other: Any) -> str:
    return _PRODUCTS.get((input.ndim, other.ndim), "UnsafeViewBackward0")


@public(backward=_matmul_backward)
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """``input @ other``: dot product, matrix times vector, or (broadcast batches of) matrix products, by
    rank.
    """
    a, b = _pair("matmul", input, other)
    if not a.ndim or not b.ndim:
        raise error(
            ShapeError, "matmul", f"both operands need at least 1 dimension, got {a.type_} and {b.type_}"
        )
    row, column = a.ndim == 1, b.ndim == 1
    if row:
        a = reshaped(a, (1, *a.type_.shape))
    if column:
        b = reshaped(b, (*b.type_.shape, 1))
    result = _product(a, b)
    shape = result.type_.shape
    if row and column:
        return reshaped(result, shape[:-2])
    if row:
        return reshaped(result, (*shape[:-2], shape[-1]))
    return reshaped(result, shape[:-1]) if column else result


def _ranked(name: str, a: Tensor, b: Tensor, ranks: tuple[int, int]) -> None:
    if (a.ndim, b.ndim) != ranks:
        raise error(
            ShapeError, name, f"expected {ranks[0]}-d and {ranks[1]}-d operands, got {a.type_} and {b.type_}"
        )


@public()
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices."""
    a, b = _pair("mm", input, mat2, "mat2")
    _ranked("mm", a, b, (2, 2))
    return _product(a, b)


@public()
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Matrix times vector."""
    a, b = _pair("mv", input, vec, "vec")
    _ranked("mv", a, b, (2, 1))
    product = _product(a, reshaped(b, (*b.type_.shape, 1)))
    return reshaped(product, product.type_.shape[:-1])


@public()
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Products of corresponding matrices of two batches of equal size."""
    a, b = _pair("bmm", input, mat2, "mat2")
    _ranked("bmm", a, b, (3, 3))
    first, second = a.type_.shape[0], b.type_.shape[0]
    if isinstance(first, int) and isinstance(second, int) and first != second:
        raise error(ShapeError, "bmm", f"batch sizes differ: {a.type_} and {b.type_}")
    return _product(a, b)


@public()
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The sum of products of two vectors of equal length."""
    a, b = _pair("dot", input, tensor, "tensor")
    _ranked("dot", a, b, (1, 1))
    first, second = a.type_.shape[0], b.type_.shape[0]
    if isinstance(first, int) and isinstance(second, int) and first != second:
        raise error(ShapeError, "dot", f"vectors differ in length: {a.type_} and {b.type_}")
    return reduced("sum", apply(OPS["mul"], a, b), (0,), False)


@public(aliases=("ger",), backward="MulBackward0")
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The matrix of all products of two vectors' elements."""
    a, b = tensor_arg(input, "outer"), tensor_arg(vec2, "outer", "vec2")
    _ranked("outer", a, b, (1, 1))
    return mul(reshaped(a, (a.type_.shape[0], 1)), reshaped(b, (1, b.type_.shape[0])))


def _combined(name: str, bias: Any, product: Tensor, beta: Operand, alpha: Operand) -> Tensor:
    t = tensor_arg(bias, name)
    if t.dtype is not product.dtype:
        raise error(
            DTypeError, name, f"expected operands of the same dtype, but got {t.type_} and {product.type_}"
        )
    if isinstance(alpha, Tensor) or alpha != 1:
        product = apply(OPS["mul"], product, in_dtype(operand(alpha, name, "alpha"), t.dtype))
    if isinstance(beta, (int, float)) and beta == 0:
        return product  # by PyTorch's rule NaNs in the bias don't count then
    if isinstance(beta, Tensor) or beta != 1:
        t = apply(OPS["mul"], t, in_dtype(operand(beta, name, "beta"), t.dtype))
    return apply(OPS["add"], product, t)


@public()
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Operand = 1, alpha: Operand = 1) -> Tensor:
    """``beta * input + alpha * (mat1 @ mat2)``."""
    return _combined("addmm", input, mm(mat1, mat2), beta, alpha)


@public()
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Operand = 1, alpha: Operand = 1) -> Tensor:
    """``beta * input + alpha * (mat @ vec)``."""
    return _combined("addmv", input, mv(mat, vec), beta, alpha)


@public()
def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Operand = 1, alpha: Operand = 1
) -> Tensor:
    """``beta * input + alpha * bmm(batch1, batch2)``."""
    return _combined("baddbmm", input, bmm(batch1, batch2), beta, alpha)


@public()
def addbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Operand = 1, alpha: Operand = 1) -> Tensor:
    """``beta * input + alpha * bmm(batch1, batch2).sum(0)``."""
    total = reduced("sum", bmm(batch1, batch2), (0,), False)
    return _combined("addbmm", input, total, beta, alpha)


@public()
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """`dot`: numbers are real here."""
    return dot(tensor_arg(input, "vdot"), tensor_arg(other, "vdot", "other"))


@public()
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Operand = 1, alpha: Operand = 1) -> Tensor:
    """``beta * input + alpha * outer(vec1, vec2)``."""
    return _combined("addr", input, outer(vec1, vec2), beta, alpha)


# other names for the same
ger = outer
