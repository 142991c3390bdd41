"""Linear algebra: solving, determinants, factorisations, and what is made of them.

At once, a matrix without a solution or factor is a LinAlgError; a compiled function gives NaN for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphflow import return_types
from graphflow.compiler.ir import OPS, broadcast_shapes
from graphflow.compiler.trace import current_trace
from graphflow.dtypes import DType
from graphflow.errors import DTypeError, LinAlgError, ShapeError
from graphflow.functions.common import (
    Extent,
    cast,
    expanded,
    pinned,
    require_float,
    reshaped,
    scalar,
    tensor_arg,
    unshared,
)
from graphflow.functions.linalg import matmul
from graphflow.functions.reduce import count_nonzero, reduced
from graphflow.functions.registry import error, public
from graphflow.functions.shape import transpose
from graphflow.several import apply_several
from graphflow.tensor import Tensor, apply

__all__ = ["cholesky", "det", "inverse", "logdet", "matrix_power", "pinverse", "qr", "slogdet"]


def matrices(value: Any, name: str, argument: str = "input", square: bool = False) -> Tensor:
    """An argument that is a floating point matrix or a batch of them; square, where that is needed."""
    t = require_float(tensor_arg(value, name, argument), name)
    if t.ndim < 2:
        raise error(ShapeError, name, f"{argument} needs at least 2 dimensions, got {t.type_}")
    if square and t.type_.shape[-1] != t.type_.shape[-2]:
        sizes = [pinned(s, f"a square matrix for {name}") for s in t.type_.shape[-2:]]
        if sizes[0] != sizes[1]:
            raise error(ShapeError, name, f"{argument} must be batches of square matrices, got {t.type_}")
    return t


def _checked(result: Tensor, name: str, problem: str, *operands: Tensor) -> Tensor:
    """LinAlgError where a result computed at once is NaN though no operand is."""
    if current_trace() is not None or result.is_traced:
        return result
    if np.isnan(result.detach().numpy()).any() and all(
        np.isfinite(o.detach().numpy()).all() for o in operands
    ):
        raise error(LinAlgError, name, problem)
    return result


_SINGULAR = "the matrix is singular, so there is no solution"


def _flipped(t: Tensor) -> Tensor:
    return transpose(t, -2, -1)


def _identity(size: Extent, dtype: DType) -> Tensor:
    places = apply(OPS["iota"], size=size)
    return cast(apply(OPS["eq"], reshaped(places, (size, 1)), places), dtype)


def solution(op: str, name: str, a: Tensor, b: Any, **attrs: Any) -> Tensor:
    """What a primitive gives for matrices and right-hand sides, also vectors; NaN for a singular one."""
    right = require_float(tensor_arg(b, name, "B"), name)
    if right.dtype is not a.dtype:
        raise error(DTypeError, name, f"expected operands of the same dtype, got {a.type_} and {right.type_}")
    shape = a.type_.shape
    is_vector = right.ndim == 1 or (right.ndim == a.ndim - 1 and right.type_.shape == shape[:-1])
    if is_vector and op == "solve":
        right = reshaped(right, (*right.type_.shape, 1))
    else:
        is_vector = False
    if right.ndim < 2:
        raise error(ShapeError, name, f"B needs at least 2 dimensions, got {right.type_}")
    batch = broadcast_shapes(shape[:-2], right.type_.shape[:-2])
    wide = expanded(right, (*batch, *right.type_.shape[-2:]))
    result = apply(OPS[op], expanded(a, (*batch, *shape[-2:])), wide, **attrs)
    return reshaped(result, result.type_.shape[:-1]) if is_vector else result


@public(name="linalg.solve", function=False, method=False, backward="LinalgSolveExBackward0")
def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """``X`` with ``A @ X = B`` (``X @ A = B`` if not `left`) for (batches of) square matrices ``A``; a batch
    of vectors ``B`` has the shape of ``A`` without its last dimension.

    LinAlgError for a singular matrix; NaN in a compiled function.
    """
    a = matrices(A, "linalg.solve", "A", square=True)
    if not left:
        return _flipped(solve(_flipped(a), _flipped(matrices(B, "linalg.solve", "B"))))
    return _checked(solution("solve", "linalg.solve", a, B), "linalg.solve", _SINGULAR, a, B)


@public(
    name="linalg.solve_triangular", function=False, method=False, backward="LinalgSolveTriangularBackward0"
)
def solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """``X`` with ``A @ X = B`` (``X @ A = B`` if not `left`), reading one triangle of ``A`` only, and not its
    diagonal (taken for ones) if `unitriangular`.
    """
    name = "linalg.solve_triangular"
    a, b = matrices(A, name, "A", square=True), matrices(B, name, "B")
    if not left:
        return _flipped(
            solve_triangular(_flipped(a), _flipped(b), upper=not upper, unitriangular=unitriangular)
        )
    return solution("solve_triangular", name, a, b, upper=bool(upper), unit=bool(unitriangular))


@public(backward="LinalgInvExBackward0")
def inverse(input: Tensor) -> Tensor:
    """The inverse of (batches of) square matrices. LinAlgError for a singular one; NaN in a compiled
    function.
    """
    a = matrices(input, "inverse", square=True)
    eye = expanded(_identity(a.type_.shape[-1], a.dtype), a.type_.shape)
    return _checked(apply(OPS["solve"], a, eye), "inverse", "the matrix is singular: it has no inverse", a)


@public(name="linalg.inv", function=False, method=False, backward="LinalgInvExBackward0")
def inv(A: Tensor) -> Tensor:
    """`inverse`, by the name that it has in ``linalg``."""
    return inverse(A)


@public(backward="LinalgDetBackward0")
def det(input: Tensor) -> Tensor:
    """Determinants of (batches of) square matrices. The gradient is NaN where a matrix is singular."""
    return apply(OPS["det"], matrices(input, "det", square=True))


@public(backward="LinalgSlogdetBackward0")
def slogdet(input: Tensor) -> return_types.slogdet:
    """``(sign, logabsdet)`` of the determinants of (batches of) square matrices."""
    sign, size = apply_several(OPS["slogdet"], matrices(input, "slogdet", square=True))
    return return_types.slogdet(sign.detach(), size)


@public()
def logdet(input: Tensor) -> Tensor:
    """The logarithm of the determinant; NaN where that is negative, -inf where it is 0."""
    sign, size = slogdet(input)
    negative = apply(OPS["lt"], sign, scalar(0, sign.dtype))
    return apply(OPS["where"], negative, scalar(math.nan, sign.dtype), size)


@public(backward="LinalgCholeskyExBackward0")
def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """The lower triangular L with ``L @ L.mT = input`` (or the upper one, its transpose) of symmetric
    positive definite matrices, whose lower (upper) triangle alone is read.

    LinAlgError for a matrix that isn't positive definite; NaN in a compiled function.
    """
    a = matrices(input, "cholesky", square=True)
    found = apply(OPS["cholesky"], _flipped(a) if upper else a)
    found = _checked(found, "cholesky", "the matrix is not positive definite", a)
    return _flipped(found) if upper else found


@public(backward="LinalgQrBackward0")
def qr(input: Tensor, some: bool = True) -> return_types.qr:
    """``(Q, R)``: orthonormal columns and an upper triangular matrix, whose product is `input`; `some` leaves
    out the columns that R doesn't need.
    """
    return _qr("qr", input, "reduced" if some else "complete")


def _qr(name: str, input: Any, mode: str) -> return_types.qr:
    a = matrices(input, name)
    if mode not in ("reduced", "complete", "r"):
        raise error(ShapeError, name, f"mode is 'reduced', 'complete' or 'r', not {mode!r}")
    m, n = (pinned(s, f"{name} of a matrix") for s in a.type_.shape[-2:])
    if m < n:  # the rest of R follows from the square part
        q, r = apply_several(OPS["qr"], _part(a, m, m), complete=False)
        rest = matmul(_flipped(q), _part(a, m, n, m))
        r = apply(OPS["cat"], r, rest, dim=a.ndim - 1)
    else:
        q, r = apply_several(OPS["qr"], a, complete=mode == "complete")
    if mode == "r":
        q = Tensor.holding(np.zeros(0, a.dtype.numpy))
    return return_types.qr(q, r)


@public(name="linalg.qr", function=False, method=False, backward="LinalgQrBackward0")
def linalg_qr(A: Tensor, mode: str = "reduced") -> return_types.qr:
    """``(Q, R)``: orthonormal columns and an upper triangular matrix, whose product is ``A``.

    `mode`: 'reduced' leaves out the columns that R doesn't need, 'complete' keeps them, 'r' gives R alone.
    A gradient is there for 'reduced', and for matrices with no more rows than columns.
    """
    return _qr("linalg.qr", A, mode)


def _part(a: Tensor, rows: int, stop: int, start: int = 0) -> Tensor:
    """The first rows, and the columns from `start` to `stop`."""
    batch = a.type_.shape[:-2]
    starts = (*(0,) * len(batch), 0, start)
    return apply(OPS["slice"], a, starts=starts, steps=(1,) * a.ndim, sizes=(*batch, rows, stop - start))


def _lower(input: Any, name: str, uplo: str) -> Tensor:
    a = matrices(input, name, square=True)
    if uplo not in ("L", "U"):
        raise error(ShapeError, name, f"UPLO is 'L' or 'U', not {uplo!r}")
    return _flipped(a) if uplo == "U" else a


@public(name="linalg.eigh", function=False, method=False, backward="LinalgEighBackward0")
def eigh(A: Tensor, UPLO: str = "L") -> return_types.eigh:
    """``(eigenvalues, eigenvectors)`` of symmetric matrices, ascending, the vectors as columns; only the
    lower
    (or upper) triangle is read.

    The gradient of the vectors is finite only where all eigenvalues differ.
    """
    return return_types.eigh(*apply_several(OPS["eigh"], _lower(A, "linalg.eigh", UPLO)))


@public(name="linalg.eigvalsh", function=False, method=False, backward="LinalgEighBackward0")
def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric matrices, ascending."""
    return eigh(A, UPLO).eigenvalues


def _svd(name: str, input: Any) -> tuple[Tensor, Tensor, Tensor]:
    """U, S and V, without what doesn't belong to a singular value."""
    a = matrices(input, name)
    m, n = (pinned(s, f"{name} of a matrix") for s in a.type_.shape[-2:])
    if m >= n:
        u, s, v = apply_several(OPS["svd"], a)
        return u, s, v
    v, s, u = apply_several(OPS["svd"], _flipped(a))
    return u, s, v


def _completed(u: Tensor) -> Tensor:
    """Orthonormal columns with those that are missing to a basis."""
    m, n = u.type_.shape[-2:]
    if m == n:
        return u
    q = apply_several(OPS["qr"], u.detach(), complete=True)[0]
    assert isinstance(m, int) and isinstance(n, int)
    return apply(OPS["cat"], u, _part(q, m, m, n), dim=u.ndim - 1)


@public(name="linalg.svd", function=False, method=False, backward="LinalgSvdBackward0")
def svd(A: Tensor, full_matrices: bool = True) -> return_types.linalg_svd:
    """``(U, S, Vh)`` with ``A = U @ diag(S) @ Vh``, singular values descending; with `full_matrices` U and Vh
    are square.

    The gradient of U and Vh is finite only where all singular values differ from each other and from 0; the
    columns that only `full_matrices` gives have none.
    """
    u, s, v = _svd("linalg.svd", A)
    if full_matrices:
        u, v = _completed(u), _completed(v)
    return return_types.linalg_svd(u, s, _flipped(v))


@public(name="svd", backward="LinalgSvdBackward0")
def svd_(input: Tensor, some: bool = True, compute_uv: bool = True) -> return_types.svd:
    """``(U, S, V)`` with ``input = U @ diag(S) @ V.mT``; see `linalg.svd`, which gives V transposed."""
    u, s, v = _svd("svd", input)
    if not some:
        u, v = _completed(u), _completed(v)
    if not compute_uv:
        u, v = (apply(OPS["mul"], t.detach(), scalar(0, t.dtype)) for t in (u, v))
    return return_types.svd(u, s, v)


@public(name="linalg.svdvals", function=False, method=False, backward="LinalgSvdBackward0")
def svdvals(A: Tensor) -> Tensor:
    """The singular values, descending."""
    return _svd("linalg.svdvals", A)[1]


# ---------------------------------------------------------------------------------------------- made of these


Tolerance = float | Tensor | None


def _tolerance(s: Tensor, shape: tuple[Extent, ...], rtol: Any, atol: Any) -> Tensor:
    """The size from which on singular values count."""
    largest = apply(OPS["max"], s.detach(), dims=(s.ndim - 1,))
    m, n = (pinned(v, "the rank of a matrix") for v in shape[-2:])
    default = 0.0 if atol is not None else max(m, n) * float(np.finfo(s.dtype.numpy).eps)
    relative = _per_matrix(default if rtol is None else rtol, s)
    absolute = _per_matrix(0.0 if atol is None else atol, s)
    return apply(OPS["maximum"], apply(OPS["mul"], largest, relative), absolute)


def _per_matrix(value: Any, s: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return reshaped(cast(value, s.dtype), (*value.type_.shape, 1))
    return scalar(float(value), s.dtype)


@public(name="linalg.matrix_rank", function=False, method=False)
def matrix_rank(
    A: Tensor, *, atol: Tolerance = None, rtol: Tolerance = None, hermitian: bool = False
) -> Tensor:
    """How many singular values are larger than ``max(atol, rtol * the largest)``; by default rtol is eps
    times
    the larger size.
    """
    a = matrices(A, "linalg.matrix_rank")
    s = svdvals(a.detach())
    if 0 in a.type_.shape[-2:]:
        return count_nonzero(s, -1)
    return count_nonzero(apply(OPS["gt"], s, _tolerance(s, a.type_.shape, rtol, atol)), -1)


@public(name="linalg.pinv", function=False, method=False, backward="LinalgPinvBackward0")
def pinv(A: Tensor, *, atol: Tolerance = None, rtol: Tolerance = None, hermitian: bool = False) -> Tensor:
    """The pseudoinverse (Moore-Penrose); singular values up to ``max(atol, rtol * the largest)`` count
    as 0. With `hermitian` the matrix is taken for symmetric, and its lower triangle alone is read.
    """
    a = matrices(A, "linalg.pinv", "A", square=hermitian)
    m, n = a.type_.shape[-2:]
    if 0 in (m, n):
        return _flipped(a)
    if hermitian:
        s, u = eigh(a)
        v, size = u, apply(OPS["abs"], s)
    else:
        u, s, v = _svd("linalg.pinv", a)
        size = s
    keep = apply(OPS["gt"], size, _tolerance(size, (m, n), rtol, atol))
    one = scalar(1, s.dtype)
    inverted = apply(OPS["div"], one, apply(OPS["where"], keep, s, one))
    inverted = apply(OPS["where"], keep, inverted, scalar(0, s.dtype))
    scaled = apply(
        OPS["mul"], v, reshaped(inverted, (*inverted.type_.shape[:-1], 1, inverted.type_.shape[-1]))
    )
    return matmul(scaled, _flipped(u))


@public(backward="LinalgPinvBackward0")
def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """The pseudoinverse; singular values up to `rcond` times the largest count as 0. See `linalg.pinv`."""
    return pinv(matrices(input, "pinverse"), rtol=rcond)


_DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


@public(name="linalg.lstsq", function=False, method=False)
def lstsq(
    A: Tensor, B: Tensor, rcond: float | None = None, *, driver: str | None = None
) -> return_types.lstsq:
    """``(solution, residuals, rank, singular_values)``: the X of least norm among those that make
    ``norm(A @ X - B)`` least; a batch of vectors ``B`` has the shape of ``A`` without its last dimension.

    By the pseudoinverse, whatever the `driver`, which only says what is told, as in PyTorch: ranks unless it
    is 'gels', singular values with 'gelsd' and 'gelss'. Residuals are given where there are more
    rows than columns, all of which are independent; a compiled function takes that for granted.
    """
    name = "linalg.lstsq"
    a, b = matrices(A, name, "A"), require_float(tensor_arg(B, name, "B"), name)
    if driver not in (None, *_DRIVERS):
        raise error(ShapeError, name, f"driver is one of {_DRIVERS}, not {driver!r}")
    if a.dtype is not b.dtype:
        raise error(DTypeError, name, f"expected operands of the same dtype, got {a.type_} and {b.type_}")
    m, n = (pinned(v, "least squares") for v in a.type_.shape[-2:])
    is_vector = b.ndim == a.ndim - 1 and (b.ndim == 1 or b.type_.shape == a.type_.shape[:-1])
    b = matrices(reshaped(b, (*b.type_.shape, 1)) if is_vector else b, name, "B")
    if pinned(b.type_.shape[-2], "least squares") != m:
        raise error(ShapeError, name, f"A and B need the same number of rows, got {a.type_} and {b.type_}")
    x = matmul(pinv(a, rtol=rcond), b)
    empty = Tensor.holding(np.zeros(0, a.dtype.numpy))
    rank = matrix_rank(a, rtol=rcond)
    residuals = empty
    if m > n and (rank.is_traced or bool((rank.numpy() == n).all())):
        left = apply(OPS["sub"], matmul(a, x), b)
        residuals = reduced("sum", apply(OPS["mul"], left, left), (left.ndim - 2,), False)
    if is_vector:
        x = reshaped(x, x.type_.shape[:-1])
    return return_types.lstsq(
        x,
        residuals,
        Tensor.holding(np.zeros(0, np.int64)) if driver == "gels" else rank,
        svdvals(a.detach()) if driver in ("gelsd", "gelss") else empty,
    )


@public()
def matrix_power(input: Tensor, n: int) -> Tensor:
    """A square matrix multiplied by itself `n` times; the inverse, for a negative `n`."""
    a = matrices(input, "matrix_power", square=True)
    if isinstance(n, bool) or not isinstance(n, int):
        raise error(DTypeError, "matrix_power", f"n has to be an integer, not {type(n).__name__}")
    if n < 0:
        a, n = inverse(a), -n
    found: Tensor | None = None
    while n:
        if n & 1:
            found = a if found is None else matmul(found, a)
        n >>= 1
        a = matmul(a, a) if n else a
    if found is not None:
        return unshared(found, input)
    # The identity is still a function of the matrix, whose gradient is 0.
    eye = expanded(_identity(a.type_.shape[-1], a.dtype), a.type_.shape)
    always = apply(OPS["bitwise_or"], apply(OPS["eq"], a, a), apply(OPS["ne"], a, a))
    return apply(OPS["where"], always, eye, a)


@public(name="linalg.multi_dot", function=False, method=False)
def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of several matrices (the first and the last may be vectors), in the cheapest order."""
    found = [tensor_arg(t, "linalg.multi_dot", "tensors") for t in tensors]
    if len(found) < 2 or any(t.ndim != 2 for t in found[1:-1]) or not all(1 <= t.ndim <= 2 for t in found):
        raise error(ShapeError, "linalg.multi_dot", "expects at least two matrices; the ends may be vectors")
    first, last = found[0].ndim == 1, found[-1].ndim == 1
    chain = list(found)
    if first:
        chain[0] = reshaped(chain[0], (1, *chain[0].type_.shape))
    if last:
        chain[-1] = reshaped(chain[-1], (*chain[-1].type_.shape, 1))
    while len(chain) > 1:
        sizes = [pinned(t.type_.shape[1], "the order of a product") for t in chain[:-1]]
        at = sizes.index(max(sizes))  # the largest inner size is summed over first
        chain[at : at + 2] = [matmul(chain[at], chain[at + 1])]
    shape = chain[0].type_.shape
    return reshaped(chain[0], shape[1 if first else 0 : 1 if last else 2])
