"""What the ops of a family share: type rules, sample inputs, and the lowering records
that the compiler reads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphflow.compiler.ir import BadSample, Node, Op, Sample, Size, TensorType, broadcast_shapes, register
from graphflow.dims import Dim
from graphflow.dtypes import ALL, FLOATS, INTS, DType, bool_, by_name
from graphflow.errors import DTypeError, ShapeError

Kinds = tuple[str, ...]
ANY: Kinds = ("bool", "int", "float")
NUMERIC: Kinds = ("int", "float")
INTEGRAL: Kinds = ("bool", "int")
FLOAT: Kinds = ("float",)


@dataclass(frozen=True)
class Elementwise:
    """One output element from the operands' elements at the same index.

    ``expr`` is Python text shared by all backends, by dtype kind of the first operand; ``{0} {1} …`` stand
    for the operands, ``{t}`` for the suffix of the first operand's dtype (``f32``), ``{o}`` for the result's.
    ``cost`` is a rough count of arithmetic instructions per element.
    """

    expr: Mapping[str, str]
    cost: int = 1


@dataclass(frozen=True)
class Reduction:
    """``combine`` folds elements (same placeholders as Elementwise) starting from
    ``init``, text by dtype kind.
    """

    combine: Mapping[str, str]
    init: Callable[[DType], Any]
    arg: bool = False  # the result is the index of the winning element; combine is then a comparison


@dataclass(frozen=True)
class Routine:
    """A procedure over whole rows or matrices, run once for each index of the leading (batch) dimensions.

    ``signature`` names operands, results and their last dimensions, as in ``"a[n n] b[n k] -> x[n k]"``. The
    text that ``body(node)`` gives knows those as pointers and sizes; memory is row-major, and ``{t}`` in the
    text stands for the suffix of the first operand's dtype. ``scratch`` declares memory of the routine's own
    in the same notation, ``"order:i64[n] work[n n]"``, of the first operand's dtype unless said otherwise.
    ``cost`` is a rough count of instructions for each element of the largest operand, given its sizes.
    """

    signature: str
    body: Callable[[Node], str]
    scratch: str = ""
    cost: Callable[..., int | Dim] = lambda *sizes: 4


@dataclass(frozen=True)
class Tiled:
    """A procedure over tiles of matrices, whose products the matrix core computes.

    ``signature`` is written as a `Routine`'s; operands at its end may be left out. The text that
    ``body(node)`` gives is run for each index of the leading (batch) dimensions, or ``ceil(n / R)`` times,
    numbered by ``part``, for ``parts=("n", "R")``. For ``shared=("m", "C", "x")`` the ``ceil(m / C)`` blocks
    of a batch item are dealt to ``shares`` runs, numbered by ``share``, where there are few items; each has
    an x of its own, and those are added up in order. Operands have any strides: ``x_0`` and ``x_1`` are
    those of x; results and scratch are row-major. ``tiles`` are sizes that text and scratch may use. A
    product of (m, k) and (k, n) matrices is ``multiply(core, work, a, a_row, a_k, b, b_k, b_column, c, c_row,
    m, n, k)``, which overwrites c; ``depths`` names the largest k. ``flops`` counts a batch item's. Where
    tiles don't pay, ``compose(node, inputs)`` gives the results written in other ops, and None elsewhere.
    """

    signature: str
    body: Callable[[Node], str]
    scratch: str
    tiles: Mapping[str, int]
    depths: str
    flops: Callable[[Mapping[str, Size], Node], Size]
    compose: Callable[[Node, Sequence[Node]], list[Node] | None]
    parts: tuple[str, str] | None = None
    shared: tuple[str, str, str] | None = None


def by_kind(value: str | Mapping[str, str]) -> Mapping[str, str]:
    """One text for every dtype kind, or the given table."""
    return {"bool": value, "int": value, "float": value} if isinstance(value, str) else value


def require_same(types: Sequence[TensorType]) -> DType:
    """The operands' one dtype, or DTypeError."""
    first = types[0].dtype
    if any(t.dtype is not first for t in types):
        raise DTypeError(
            f"operands have different dtypes: {', '.join(t.dtype.name for t in types)}; "
            "convert with .to(dtype)"
        )
    return first


def require_kind(dtype: DType, kinds: Kinds) -> None:
    """DTypeError unless `dtype` is of one of `kinds`."""
    if dtype.kind not in kinds:
        raise DTypeError(f"needs a dtype of kind {' or '.join(kinds)}, got {dtype}; convert with .to(dtype)")


def _elementwise_samples(
    arity: int, kinds: Kinds, domain: tuple[float, float], smooth: bool
) -> Callable[[np.random.Generator], list[Sample]]:
    by_arity: dict[int, list[tuple[tuple[int, ...], ...]]] = {
        1: [((),), ((3, 4),), ((0, 3),), ((2, 1, 5),)],
        2: [((), ()), ((3, 4), (4,)), ((3, 1), (1, 4)), ((2, 0, 3), (3,)), ((2, 3, 4), ())],
        3: [((3, 4), (3, 4), (3, 4)), ((3, 1), (4,), ()), ((0, 2), (1, 2), (2,))],
    }
    shapes = by_arity[arity]
    low, high = domain

    def draw(rng: np.random.Generator, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
        if dtype is bool_:
            return rng.integers(0, 2, shape).astype(bool)
        if dtype.kind == "int":
            return rng.integers(
                max(0 if dtype.name == "uint8" else -9, int(low)), min(10, int(high) + 1), shape
            ).astype(dtype.numpy)
        values = rng.uniform(low, high, shape)
        if not smooth:  # keep finite differences away from kinks at integers and halves
            values = np.floor(values) + 0.1 + 0.3 * (values - np.floor(values))
        return values.astype(dtype.numpy)

    def samples(rng: np.random.Generator) -> list[Sample]:
        dtypes = [t for t in ALL if t.kind in kinds]
        return [
            Sample(tuple(draw(rng, dtype, shape) for shape in group), gradient=dtype in FLOATS)
            for dtype in dtypes
            for group in (shapes if dtype in FLOATS else shapes[1:2] if dtype.is_half else shapes[:3])
        ]

    return samples


def _elementwise_bad(arity: int, kinds: Kinds) -> Callable[[np.random.Generator], list[BadSample]]:
    def samples(rng: np.random.Generator) -> list[BadSample]:
        bad = []
        dtype = next(t for t in (*FLOATS, *INTS, bool_) if t.kind in kinds).numpy
        if arity > 1:
            wrong = tuple(np.ones((2, 3 + i), dtype) for i in range(arity))
            bad.append(BadSample(wrong, {}, ShapeError, "don't broadcast"))
            other = by_name("int32").numpy if dtype != by_name("int32").numpy else by_name("int64").numpy
            mixed = (np.ones(3, dtype),) * (arity - 1) + (np.ones(3, other),)
            bad.append(BadSample(mixed, {}, DTypeError, "different dtypes"))
        for excluded in ("bool", "float"):
            if excluded not in kinds:
                value = np.ones(3, by_name("bool" if excluded == "bool" else "float32").numpy)
                bad.append(BadSample((value,) * arity, {}, DTypeError, "needs a dtype of kind"))
        return bad

    return samples


def elementwise(
    name: str,
    numpy: Callable[..., Any],
    expr: str | Mapping[str, str],
    vjp: Callable[..., Sequence[Node | None]] | None = None,
    *,
    arity: int = 1,
    kinds: Kinds = FLOAT,
    result: DType | None = None,
    domain: tuple[float, float] = (-3.0, 3.0),
    smooth: bool = True,
    cost: int = 1,
    doc: str = "",
) -> Op:
    """Declares an op on corresponding elements with NumPy broadcasting; operands share one dtype.

    `result` is the result's dtype when it isn't the operands'. `domain` bounds the sample inputs,
    `smooth=False` keeps them off the integers and halves, where gradients jump.
    """

    def infer(*types: TensorType) -> TensorType:
        dtype = require_same(types)
        require_kind(dtype, kinds)
        return TensorType(result or dtype, broadcast_shapes(*(t.shape for t in types)))

    return register(
        Op(
            name,
            "elementwise",
            infer,
            numpy,
            vjp,
            _elementwise_samples(arity, kinds, domain, smooth),
            _elementwise_bad(arity, kinds),
            Elementwise(by_kind(expr), cost),
            arity,
            doc,
        )
    )


def reduced_shape(shape: tuple[int | Dim, ...], dims: tuple[int, ...]) -> tuple[int | Dim, ...]:
    """`shape` with the given dimensions of size 1."""
    return tuple(1 if i in dims else s for i, s in enumerate(shape))
