"""Solutions by factors that are there already, matrix exponentials, and tensors as matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence

from graphflow import return_types
from graphflow.compiler.ir import OPS
from graphflow.compiler.trace import current_trace
from graphflow.dims import product
from graphflow.dtypes import int32
from graphflow.errors import LinAlgError, ShapeError
from graphflow.functions.choose import where
from graphflow.functions.common import cast, dim_arg, expanded, pinned, reshaped, tensor_arg
from graphflow.functions.create import eye
from graphflow.functions.decompose import inverse, matrices, multi_dot, solution, solve, solve_triangular
from graphflow.functions.diagonal import diagonal
from graphflow.functions.einsum import cross
from graphflow.functions.linalg import matmul
from graphflow.functions.reduce import any_, sum_
from graphflow.functions.registry import error, public
from graphflow.functions.shape import permuted, transpose
from graphflow.tensor import Tensor, apply

__all__ = ["chain_matmul", "cholesky_inverse", "cholesky_solve", "matrix_exp", "triangular_solve"]


@public()
def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """``X`` with ``A @ X = input`` for the matrix A whose Cholesky factor is L (or, if `upper`, its
    transpose).
    """
    b, factor = matrices(input, "cholesky_solve"), matrices(L, "cholesky_solve", "L", square=True)
    lower = transpose(factor, -2, -1) if upper else factor
    half = solve_triangular(lower, b, upper=False)
    return solve_triangular(transpose(lower, -2, -1), half, upper=True)


@public()
def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of the matrix whose Cholesky factor is L (or, if `upper`, its transpose)."""
    factor = matrices(L, "cholesky_inverse", "L", square=True)
    return cholesky_solve(_identity(factor), factor, upper)


def _identity(like: Tensor) -> Tensor:
    return expanded(eye(like.shape[-1], dtype=like.dtype), like.type_.shape)


@public()
def triangular_solve(
    b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False, unitriangular: bool = False
) -> return_types.triangular_solve:
    """``(solution, cloned_coefficient)``: X with ``A @ X = b`` (or ``A.mT @ X = b``), reading one triangle of
    A; the older form of ``linalg.solve_triangular``.
    """
    a = matrices(A, "triangular_solve", "A", square=True)
    matrix, high = (a.mT, not upper) if transpose else (a, upper)
    found = solve_triangular(
        matrix, matrices(b, "triangular_solve", "b"), upper=high, unitriangular=unitriangular
    )
    return return_types.triangular_solve(found, a.clone())


@public(method=False)
def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of several matrices; ``linalg.multi_dot`` takes them as a list."""
    return multi_dot(list(matrices))


_DEGREE = 18  # Taylor's series of matrices of norm 1 is exact to 2**-53


@public()
def matrix_exp(input: Tensor) -> Tensor:
    """The exponential of (batches of) square matrices, by scaling and squaring.

    In a compiled function the 1-norms are at most 2**20.
    """
    a = matrices(input, "matrix_exp", square=True)
    if 0 in a.type_.shape:
        return apply(OPS["cast"], a, dtype=a.dtype)
    size = apply(OPS["abs"], a.detach()).sum(-2, keepdim=True).amax(-1, keepdim=True)
    halvings = size.clamp(min=1.0).log2().ceil()
    rounds = 20
    if current_trace() is None:
        largest = float(halvings.max().item())
        rounds = int(largest) if math.isfinite(largest) else 0
    halvings = halvings.clamp(max=float(rounds))
    x = a / halvings.exp2()
    total = one = _identity(a)
    for k in range(_DEGREE, 0, -1):  # 1 + x (1 + x/2 (1 + x/3 (...)))
        total = one + matmul(x, total) / k
    for done in range(rounds):
        total = where(halvings > done, matmul(total, total), total)
    return total


# ---------------------------------------------------------------------------------------------- in linalg


def _failed(result: Tensor, name: str, check_errors: bool) -> Tensor:
    info = cast(any_(apply(OPS["isnan"], result), (-2, -1)), int32)
    if check_errors and not info.is_traced and info.any():
        raise error(LinAlgError, name, "a matrix has no such result; see info, which tells which")
    return info.detach()


@public(name="linalg.cholesky_ex", function=False, method=False)
def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> return_types.cholesky_ex:
    """``(L, info)``: `cholesky` without an error where a matrix isn't positive definite: L is NaN there, and
    info, int32, 1 instead of 0.
    """
    a = matrices(A, "linalg.cholesky_ex", "A", square=True)
    found = apply(OPS["cholesky"], a.mT if upper else a)
    info = _failed(found, "linalg.cholesky_ex", check_errors)
    return return_types.cholesky_ex(found.mT if upper else found, info)


@public(name="linalg.inv_ex", function=False, method=False)
def inv_ex(A: Tensor, *, check_errors: bool = False) -> return_types.inv_ex:
    """``(inverse, info)``: the inverse without an error where there is none: it is NaN there, and info 1."""
    a = matrices(A, "linalg.inv_ex", "A", square=True)
    found = apply(OPS["solve"], a, _identity(a))
    return return_types.inv_ex(found, _failed(found, "linalg.inv_ex", check_errors))


@public(name="linalg.solve_ex", function=False, method=False)
def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False) -> return_types.solve_ex:
    """``(result, info)``: `linalg.solve` without an error for singular matrices: NaN there, and info 1."""
    name = "linalg.solve_ex"
    a = matrices(A, name, "A", square=True)
    if left:
        found = solution("solve", name, a, B)
    else:
        found = solution("solve", name, a.mT, matrices(B, name, "B").mT).mT
    bad = inv_ex(a, check_errors=check_errors).info
    return return_types.solve_ex(found, bad)


@public(name="linalg.vecdot", function=False, method=False)
def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Dot products along `dim` of tensors that broadcast together."""
    return sum_(tensor_arg(x, "linalg.vecdot", "x") * tensor_arg(y, "linalg.vecdot", "y"), dim)


@public(name="linalg.cross", function=False, method=False)
def linalg_cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """Cross products of vectors of 3 elements along `dim`."""
    return cross(input, other, dim)


@public(name="linalg.diagonal", function=False, method=False)
def linalg_diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """`diagonal` of the last two dimensions."""
    return diagonal(A, offset, dim1, dim2)


@public(name="linalg.tensorinv", function=False, method=False)
def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse by ``tensordot`` over `ind` dimensions: NumPy's ``tensorinv``."""
    a = tensor_arg(A, "linalg.tensorinv", "A")
    if ind <= 0:
        raise error(ShapeError, "linalg.tensorinv", f"ind has to be positive, got {ind}")
    shape = [pinned(s, "tensorinv") for s in a.type_.shape]
    rows, columns = math.prod(shape[:ind]), math.prod(shape[ind:])
    if rows != columns:
        raise error(
            ShapeError, "linalg.tensorinv",
            f"the first {ind} sizes have to have the product of the others, got {a.type_}",
        )  # fmt: skip
    return reshaped(inverse(reshaped(a, (rows, columns))), (*shape[ind:], *shape[:ind]))


@public(name="linalg.tensorsolve", function=False, method=False)
def tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """``X`` with ``tensordot(A, X, X.ndim) = B``, the dimensions `dims` of A moved to its end before: NumPy's
    ``tensorsolve``.
    """
    a, b = tensor_arg(A, "linalg.tensorsolve", "A"), tensor_arg(B, "linalg.tensorsolve", "B")
    if dims is not None:
        moved = [dim_arg(d, a.ndim, "linalg.tensorsolve") for d in dims]
        a = permuted(a, [*(d for d in range(a.ndim) if d not in moved), *moved])
    rest = tuple(pinned(s, "tensorsolve") for s in a.type_.shape[b.ndim :])
    if product(rest) != product(pinned(s, "tensorsolve") for s in b.type_.shape):
        raise error(
            ShapeError, "linalg.tensorsolve",
            f"the last sizes of A have to have the product of those of B, got {a.type_} and {b.type_}",
        )  # fmt: skip
    count = product(rest)
    found = solve(reshaped(a, (count, count)), reshaped(b, (count,)))
    return reshaped(found, rest)
