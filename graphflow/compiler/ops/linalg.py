"""Linear algebra on the last two dimensions: solving, determinants and factorisations.

A matrix that has no such solution or factor (singular, not positive definite) gives NaN. The signs that a
definition leaves open are fixed, so that every implementation gives the same factors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow.compiler.ir import (
    OPS,
    BadSample,
    Node,
    Op,
    Sample,
    TensorType,
    TupleType,
    equal_size,
    format_shape,
    register,
)
from graphflow.compiler.ops import elementwise as el
from graphflow.compiler.ops import linalg_text as text
from graphflow.compiler.ops.contract import matmul, transpose
from graphflow.compiler.ops.family import FLOAT, Routine, require_kind, require_same
from graphflow.compiler.ops.index import iota_along
from graphflow.compiler.ops.movement import expand, reshape
from graphflow.errors import DTypeError, GradientError, ShapeError

Cotangents = dict[int, Node]


def _require_matrix(a: TensorType) -> None:
    require_kind(a.dtype, FLOAT)
    if a.ndim < 2:
        raise ShapeError("needs a matrix, or a batch of matrices")


def _require_square(a: TensorType) -> None:
    _require_matrix(a)
    try:
        equal_size(a.shape[-1], a.shape[-2])
    except ShapeError:
        raise ShapeError(f"needs square matrices, got {format_shape(a.shape[-2:])}") from None


def _cubic(n: Any, m: Any = 1) -> Any:
    return n + 4


# ---------------------------------------------------------------------------------------------- samples


def _each(function: Callable[..., Any], *arrays: np.ndarray, results: Sequence[np.ndarray]) -> Any:
    """Fills `results` matrix by matrix; NaN where there is no result."""
    with np.errstate(all="ignore"):
        for at in np.ndindex(results[0].shape[: arrays[0].ndim - 2]):
            try:
                found = function(*(a[at] for a in arrays))
            except np.linalg.LinAlgError:
                found = (np.nan,) * len(results)
            for result, value in zip(results, found, strict=True):
                result[at] = value
    return results[0] if len(results) == 1 else tuple(results)


def _matrices(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Matrices far from singular ones."""
    return rng.standard_normal(shape) + 2 * np.eye(shape[-2], shape[-1])


_BATCHES = (((), 3), ((2,), 2), ((), 1), ((2, 1), 4), ((0,), 2), ((2,), 0))


def _square_samples(rng: np.random.Generator) -> list[Sample]:
    return [
        Sample((_matrices(rng, *batch, n, n).astype(t),), gradient=t == "float64")
        for t in ("float32", "float64")
        for batch, n in _BATCHES
    ]


def _bad_square(rng: np.random.Generator) -> list[BadSample]:
    return [
        BadSample((np.ones((2, 3)),), {}, ShapeError, "square"),
        BadSample((np.ones(3),), {}, ShapeError, "needs a matrix"),
        BadSample((np.ones((2, 2), int),), {}, DTypeError, "needs a dtype of kind"),
    ]


# ---------------------------------------------------------------------------------------------- solve


def _infer_solve(a: TensorType, b: TensorType) -> TensorType:
    require_same((a, b))
    _require_square(a)
    if b.ndim != a.ndim:
        raise ShapeError("both operands need the same number of dimensions")
    batch = tuple(map(equal_size, a.shape[:-2], b.shape[:-2]))
    return TensorType(a.dtype, (*batch, equal_size(a.shape[-1], b.shape[-2]), b.shape[-1]))


def _solve_vjp(g: Node, out: Node, a: Node, b: Node) -> tuple[Node, Node]:
    back = solve(transpose(a), g)
    return -matmul(back, transpose(out)), back


def _solve_samples(rng: np.random.Generator) -> list[Sample]:
    found = []
    for t in ("float32", "float64"):
        for batch, n in _BATCHES:
            pair = (_matrices(rng, *batch, n, n).astype(t), rng.standard_normal((*batch, n, 2)).astype(t))
            found.append(Sample(pair, gradient=t == "float64"))
    return found


solve: Op = register(Op(
    "solve", "routine", _infer_solve,
    lambda a, b: _each(lambda a, b: (np.linalg.solve(a, b),), a, b, results=[np.zeros_like(b)]),
    _solve_vjp, _solve_samples,
    lambda rng: [
        BadSample((np.ones((2, 2)), np.ones((3, 1))), {}, ShapeError, "differ"),
        BadSample((np.ones((2, 3)), np.ones((2, 1))), {}, ShapeError, "square"),
    ],
    Routine("a[n n] b[n k] -> x[n k]", lambda node: text.SOLVE, "w[n n]", _cubic), 2,
    "The solution of a @ x = b for square matrices, by LU decomposition with pivots.",
))  # fmt: skip


def _identity(like: Node) -> Node:
    """The identity in the shape of a (batch of) square matrices."""
    rank, size = len(like.shape), like.shape[-1]
    same = el.eq(iota_along(size, rank - 2, rank), iota_along(size, rank - 1, rank))
    return expand(el.cast(same, dtype=like.dtype), shape=like.shape)


def _inverse(a: Node) -> Node:
    return solve(a, _identity(a))


def _infer_triangular(a: TensorType, b: TensorType, upper: bool, unit: bool) -> TensorType:
    return _infer_solve(a, b)


def _numpy_triangular(a: np.ndarray, b: np.ndarray, upper: bool, unit: bool) -> Any:
    a = np.triu(a) if upper else np.tril(a)
    if unit:
        eye = np.eye(a.shape[-1], dtype=a.dtype)
        a = a * (1 - eye) + eye
    x = b.copy()
    order = range(a.shape[-1])
    with np.errstate(all="ignore"):
        for i in reversed(order) if upper else order:
            x[..., i, :] /= a[..., i, i, None]
            rest = slice(0, i) if upper else slice(i + 1, None)
            x[..., rest, :] -= a[..., rest, i, None] * x[..., i, None, :]
    return x


def _mask(x: Node, upper: bool, strict: bool = False) -> Node:
    rank = len(x.shape)
    row = iota_along(x.shape[-2], rank - 2, rank)
    column = iota_along(x.shape[-1], rank - 1, rank)
    compare = (el.gt if strict else el.ge) if upper else (el.lt if strict else el.le)
    return el.where(compare(column, row), x, 0.0)


def _triangular_vjp(g: Node, out: Node, a: Node, b: Node, upper: bool, unit: bool) -> tuple[Node, Node]:
    back = solve_triangular(transpose(a), g, upper=not upper, unit=unit)
    return _mask(-matmul(back, transpose(out)), upper, unit), back


solve_triangular: Op = register(Op(
    "solve_triangular", "routine", _infer_triangular, _numpy_triangular, _triangular_vjp,
    lambda rng: [
        Sample(s.inputs, {"upper": upper, "unit": unit}, gradient=s.gradient)
        for s in _solve_samples(rng)[::2] for upper in (False, True) for unit in (False, True)
    ],
    lambda rng: [
        BadSample((np.ones((2, 2)), np.ones((3, 1))), {"upper": True, "unit": False}, ShapeError, "differ")
    ],
    Routine("a[n n] b[n k] -> x[n k]", text.triangular, cost=lambda n, m: m), 2,
    "The solution of a @ x = b, reading only one triangle of a, and not its diagonal where that is `unit`.",
))  # fmt: skip


# ---------------------------------------------------------------------------------------------- determinants


def _infer_det(a: TensorType) -> TensorType:
    _require_square(a)
    return TensorType(a.dtype, a.shape[:-2])


def _over_matrix(g: Node) -> Node:
    return reshape(g, shape=(*g.shape, 1, 1))


det: Op = register(Op(
    "det", "routine", _infer_det, lambda a: np.linalg.det(a),
    lambda g, out, a: (_over_matrix(g * out) * transpose(_inverse(a)),),
    _square_samples, _bad_square,
    Routine("a[n n] -> d[]", lambda node: text.DET, "w[n n]", _cubic), 1,
    "Determinants. The gradient is NaN where the matrix is singular.",
))  # fmt: skip


def _infer_slogdet(a: TensorType) -> TupleType:
    return TupleType((_infer_det(a),) * 2)


def _slogdet_vjp(g: Cotangents, out: Node, a: Node) -> tuple[Node | None]:
    return (_over_matrix(g[1]) * transpose(_inverse(a)) if 1 in g else None,)


slogdet: Op = register(Op(
    "slogdet", "routine", _infer_slogdet, lambda a: tuple(np.linalg.slogdet(a)), _slogdet_vjp,
    _square_samples, _bad_square,
    Routine("a[n n] -> s[] d[]", lambda node: text.SLOGDET, "w[n n]", _cubic), 1,
    "The determinant's sign and the logarithm of its magnitude.",
))  # fmt: skip


# ---------------------------------------------------------------------------------------------- cholesky


def _infer_cholesky(a: TensorType) -> TensorType:
    _require_square(a)
    return a


def _symmetric(x: Node) -> Node:
    return 0.5 * (x + transpose(x))


def _cholesky_vjp(g: Node, out: Node, a: Node) -> tuple[Node]:
    # Murray, Differentiation of the Cholesky decomposition (2016), with half of the diagonal
    inner = _mask(matmul(transpose(out), _mask(g, False)), False)
    inner = inner - 0.5 * (inner * _identity(inner))
    left = solve_triangular(transpose(out), inner, upper=True, unit=False)
    whole = transpose(solve_triangular(transpose(out), transpose(left), upper=True, unit=False))
    return (_symmetric(whole),)


def _positive_samples(rng: np.random.Generator) -> list[Sample]:
    found = []
    for sample in _square_samples(rng):
        (a,) = sample.inputs
        # the gradient is a symmetric matrix's: single elements can't be moved
        found.append(
            Sample((a @ np.swapaxes(a, -1, -2) + np.eye(a.shape[-1], dtype=a.dtype),), gradient=False)
        )
    return found


cholesky: Op = register(Op(
    "cholesky", "routine", _infer_cholesky,
    lambda a: _each(lambda a: (np.linalg.cholesky(a),), a, results=[np.zeros_like(a)]),
    _cholesky_vjp, _positive_samples, _bad_square,
    Routine("a[n n] -> x[n n]", lambda node: text.CHOLESKY, cost=_cubic), 1,
    "The lower triangular x with x @ x.T = a, for symmetric positive definite a, of which it reads the lower "
    "triangle.",
))  # fmt: skip


# ---------------------------------------------------------------------------------------------- qr


def _infer_qr(a: TensorType, complete: bool) -> TupleType:
    _require_matrix(a)
    m, n = a.shape[-2:]
    if not isinstance(m, int) or not isinstance(n, int):
        raise ShapeError("the matrices' sizes have to be numbers")
    k = m if complete else min(m, n)
    batch = a.shape[:-2]
    return TupleType((TensorType(a.dtype, (*batch, m, k)), TensorType(a.dtype, (*batch, k, n))))


def _numpy_qr(a: np.ndarray, complete: bool) -> Any:
    m, n = a.shape[-2:]
    k = m if complete else min(m, n)
    results = [np.zeros((*a.shape[:-2], m, k), a.dtype), np.zeros((*a.shape[:-2], k, n), a.dtype)]
    if not a.size:
        results[0][...] = np.eye(m, k)
        return tuple(results)
    return _each(lambda a: np.linalg.qr(a, "complete" if complete else "reduced"), a, results=results)


def _zeros_like(type_: TensorType) -> Node:
    return expand(el.const(value=0.0, dtype=type_.dtype), shape=type_.shape)


def _qr_vjp(g: Cotangents, out: Node, a: Node, complete: bool) -> tuple[Node]:
    q_type, r_type = out.type.items
    if r_type.shape[-1] != r_type.shape[-2]:
        raise GradientError("qr has a gradient for mode='reduced' and at least as many rows as columns only")
    # taken again, so that the gradient depends on a itself
    q, r = qr_items(a, complete)
    gq, gr = g.get(0, _zeros_like(q_type)), g.get(1, _zeros_like(r_type))
    m = matmul(r, transpose(gr)) - matmul(transpose(gq), q)
    copied = _mask(m, False) + transpose(_mask(m, False, True))
    inner = gq + matmul(q, copied)
    return (transpose(solve_triangular(r, transpose(inner), upper=True, unit=False)),)


def _items(op: Op, a: Node, **attrs: Any) -> list[Node]:
    node = op(a, **attrs)
    return [OPS["project"](node, index=i) for i in range(len(node.type.items))]


def qr_items(a: Node, complete: bool) -> list[Node]:
    """Q and R."""
    return _items(qr, a, complete=complete)


def _tall(rng: np.random.Generator) -> list[np.ndarray]:
    sizes = (((), 3, 3), ((2,), 4, 2), ((), 5, 1), ((2,), 1, 1), ((0,), 3, 2))
    return [_matrices(rng, *b, m, n).astype(t) for t in ("float32", "float64") for b, m, n in sizes]


qr: Op = register(Op(
    "qr", "routine", _infer_qr, _numpy_qr, _qr_vjp,
    lambda rng: [
        *(Sample((a,), {"complete": False}, gradient=a.dtype == np.float64) for a in _tall(rng)),
        *(Sample((a,), {"complete": True}, gradient=False) for a in _tall(rng)),
        Sample((_matrices(rng, 2, 4),), {"complete": False}, gradient=False),
    ],
    lambda rng: [BadSample((np.ones(3),), {"complete": False}, ShapeError, "needs a matrix")],
    Routine("a[m n] -> q[m k] r[k n]", lambda node: text.QR, "w[m n] tau[m]", lambda m, n: n + 4), 1,
    "Orthonormal columns q and upper triangular r with q @ r = a, by Householder reflections.",
))  # fmt: skip


# ---------------------------------------------------------------------------------------------- eigenvalues


def _infer_eigh(a: TensorType) -> TupleType:
    _require_square(a)
    return TupleType((TensorType(a.dtype, a.shape[:-1]), a))


def _signs(v: np.ndarray) -> np.ndarray:
    """For each column the sign of its first element of the largest magnitude, within rounding."""
    if not v.size:
        return np.ones((*v.shape[:-2], 1, v.shape[-1]), v.dtype)
    size = np.abs(v)
    place = np.argmax(size >= 0.999 * size.max(-2, keepdims=True), -2)
    chosen = np.take_along_axis(v, place[..., None, :], -2)
    return np.where(chosen < 0, -1, 1).astype(v.dtype)


def _numpy_eigh(a: np.ndarray) -> Any:
    def one(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        w, v = np.linalg.eigh(a)
        return w, v * _signs(v)

    return _each(one, a, results=[np.zeros(a.shape[:-1], a.dtype), np.zeros_like(a)])


def _columns(x: Node) -> Node:
    return reshape(x, shape=(*x.shape[:-1], 1, x.shape[-1]))


def _gaps(x: Node) -> Node:
    """1 / (x[j] - x[i]) off the diagonal, 0 on it."""
    rows = reshape(x, shape=(*x.shape, 1))
    one = _identity_over(x)
    return el.where(one, 0.0, 1.0 / el.where(one, 1.0, _columns(x) - rows))


def _identity_over(x: Node) -> Node:
    size = x.shape[-1]
    return el.eq(iota_along(size, 0, 2), iota_along(size, 1, 2))


def _diagonal(x: Node) -> Node:
    return el.where(_identity_over(x), _columns(x), 0.0)


def _eigh_vjp(g: Cotangents, out: Node, a: Node) -> tuple[Node]:
    w, v = _items(eigh, a)
    inner = None
    if 1 in g:
        inner = matmul(transpose(v), g[1]) * _gaps(w)
    if 0 in g:
        inner = _diagonal(g[0]) if inner is None else inner + _diagonal(g[0])
    assert inner is not None
    return (_symmetric(matmul(matmul(v, inner), transpose(v))),)


eigh: Op = register(Op(
    "eigh", "routine", _infer_eigh, _numpy_eigh, _eigh_vjp, _positive_samples, _bad_square,
    Routine("a[n n] -> w[n] v[n n]", text.eigh, "s[n n]", lambda n, m: 20 * n + 4), 1,
    "Eigenvalues in ascending order and eigenvectors, as columns, of symmetric matrices, whose lower "
    "triangle is read; by Jacobi rotations. The element of the largest magnitude in each vector is positive.",
))  # fmt: skip


# -------------------------------------------------------------------------------------------- singular values


def _infer_svd(a: TensorType) -> TupleType:
    _require_matrix(a)
    m, n = a.shape[-2:]
    if not isinstance(m, int) or not isinstance(n, int) or m < n:
        raise ShapeError("needs at least as many rows as columns, in numbers; transpose the matrices")
    batch = a.shape[:-2]
    return TupleType((a, TensorType(a.dtype, (*batch, n)), TensorType(a.dtype, (*batch, n, n))))


def _numpy_svd(a: np.ndarray) -> Any:
    def one(a: np.ndarray) -> tuple[np.ndarray, ...]:
        u, s, vh = np.linalg.svd(a, full_matrices=False)
        signs = _signs(vh.T)
        return u * signs, s, vh.T * signs

    shape = (*a.shape[:-2], a.shape[-1])
    results = [np.zeros_like(a), np.zeros(shape, a.dtype), np.zeros((*shape, a.shape[-1]), a.dtype)]
    return _each(one, a, results=results)


def _svd_vjp(g: Cotangents, out: Node, a: Node) -> tuple[Node]:
    # Townsend, Differentiating the singular value decomposition (2016)
    u, s, v = _items(svd, a)
    gaps = _gaps(s) * _sums(s)
    row, column = _columns(s), reshape(s, shape=(*s.shape, 1))
    inner = _diagonal(g[1]) if 1 in g else None
    outer = None
    if 0 in g:
        gu = matmul(transpose(u), g[0])
        term = (gu - transpose(gu)) * gaps * row
        inner = term if inner is None else inner + term
        outer = matmul((g[0] - matmul(u, gu)) / row, transpose(v))
    if 2 in g:
        gv = matmul(transpose(v), g[2])
        term = column * ((gv - transpose(gv)) * gaps)
        inner = term if inner is None else inner + term
    assert inner is not None
    found = matmul(matmul(u, inner), transpose(v))
    return (found if outer is None else found + outer,)


def _sums(s: Node) -> Node:
    return 1.0 / (_columns(s) + reshape(s, shape=(*s.shape, 1)))


svd: Op = register(Op(
    "svd", "routine", _infer_svd, _numpy_svd, _svd_vjp,
    lambda rng: [Sample((a,), gradient=a.dtype == np.float64) for a in _tall(rng)],
    lambda rng: [BadSample((np.ones((2, 3)),), {}, ShapeError, "as many rows")],
    Routine("a[m n] -> u[m n] s[n] v[n n]", text.svd, cost=lambda m, n: 20 * n + 4), 1,
    "Orthonormal columns u and v and singular values s in descending order with (u * s) @ v.T = a, by "
    "one-sided Jacobi rotations. The element of the largest magnitude in each column of v is positive.",
))  # fmt: skip
