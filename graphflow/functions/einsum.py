"""Products described by labels, and products of several tensors' dimensions."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from graphflow.compiler.ir import OPS
from graphflow.dims import product
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.arrange import stack
from graphflow.functions.common import (
    Extent,
    axis_arg,
    broadcast,
    expanded,
    pinned,
    promoted,
    reshaped,
    same_size,
    tensor_arg,
)
from graphflow.functions.diagonal import diagonal
from graphflow.functions.linalg import matmul
from graphflow.functions.reduce import reduced
from graphflow.functions.registry import error, public
from graphflow.functions.shape import permuted
from graphflow.tensor import Tensor, apply

__all__ = ["cross", "einsum", "inner", "kron", "tensordot"]

_LETTERS = string.ascii_letters


class _Term:
    """A tensor and the label of each of its dimensions, none of them twice."""

    def __init__(self, tensor: Tensor, labels: list[str]):
        self.tensor = tensor
        self.labels = labels

    def size(self, label: str) -> Extent:
        return self.tensor.type_.shape[self.labels.index(label)]

    def without(self, labels: Sequence[str]) -> _Term:
        """The sum over some dimensions."""
        dims = tuple(d for d, label in enumerate(self.labels) if label in labels)
        if not dims:
            return self
        return _Term(reduced("sum", self.tensor, dims, False), [v for v in self.labels if v not in labels])

    def ordered(self, labels: Sequence[str]) -> Tensor:
        """The tensor with its dimensions in an order."""
        return permuted(self.tensor, [self.labels.index(label) for label in labels])


def _parsed(equation: str, count: int) -> tuple[list[str], str | None]:
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != count:
        raise error(ShapeError, "einsum", f"{equation!r} describes {len(parts)} operands, got {count}")
    for part in [*parts, right]:
        letters = part.replace("...", "", 1)
        if any(letter not in _LETTERS for letter in letters):
            raise error(ShapeError, "einsum", f"subscripts are letters and one '...', not {part!r}")
    return parts, right if arrow else None


def _term(tensor: Tensor, part: str, extra: int) -> _Term:
    """An operand with its labels; '...' stands for numbered ones, and labels met twice for a diagonal."""
    named = len(part.replace("...", ""))
    hidden = tensor.ndim - named
    if hidden < 0 or (hidden and "..." not in part):
        raise error(ShapeError, "einsum", f"the subscripts {part!r} don't fit {tensor.type_}")
    before, _, after = part.partition("...")
    labels = (
        [*before, *(str(i) for i in range(extra - hidden, extra)), *after] if "..." in part else list(part)
    )
    while len(set(labels)) < len(labels):
        label = next(v for v in labels if labels.count(v) > 1)
        first = labels.index(label)
        second = labels.index(label, first + 1)
        shape = tensor.type_.shape
        same_size(shape[first], shape[second], "einsum", f"{label!r} is twice in {part!r}")
        tensor = diagonal(tensor, 0, first, second)
        labels = [v for d, v in enumerate(labels) if d not in (first, second)] + [label]
    return _Term(tensor, labels)


def _contracted(a: _Term, b: _Term, needed: set[str]) -> _Term:
    """The product of two operands, summed over what nobody else needs."""
    a = a.without([v for v in a.labels if v not in b.labels and v not in needed])
    b = b.without([v for v in b.labels if v not in a.labels and v not in needed])
    for label in [v for v in a.labels if v in b.labels]:  # a size of 1 goes with any other
        if a.size(label) != b.size(label):
            if a.size(label) == 1:
                a = a.without([label])
            elif b.size(label) == 1:
                b = b.without([label])
            else:
                same_size(a.size(label), b.size(label), "einsum", f"dimension {label!r} of two operands")
    common = [v for v in a.labels if v in b.labels]
    batch, inner = [v for v in common if v in needed], [v for v in common if v not in needed]
    rows = [v for v in a.labels if v not in common]
    columns = [v for v in b.labels if v not in common]
    sizes = {v: term.size(v) for term in (b, a) for v in term.labels}

    def size(labels: list[str]) -> Extent:
        return product(sizes[v] for v in labels)

    left = a.ordered([*batch, *rows, *inner])
    right = b.ordered([*batch, *inner, *columns])
    kept = [*batch, *rows, *columns]
    if not inner:  # nothing to sum over
        left = reshaped(left, (*(sizes[v] for v in [*batch, *rows]), *(1,) * len(columns)))
        right = reshaped(right, (*(sizes[v] for v in batch), *(1,) * len(rows), *(sizes[v] for v in columns)))
        return _Term(apply(OPS["mul"], left, right), kept)
    left = reshaped(left, (*(sizes[v] for v in batch), size(rows), size(inner)))
    right = reshaped(right, (*(sizes[v] for v in batch), size(inner), size(columns)))
    return _Term(reshaped(matmul(left, right), tuple(sizes[v] for v in kept)), kept)


def _spelt(operands: tuple[Any, ...]) -> tuple[str, list[Any]]:
    """The equation of the form ``einsum(x, [0, 1], y, [1, 2], [0, 2])``."""
    tensors, lists = list(operands[: len(operands) // 2 * 2 : 2]), list(operands[1::2])
    output = operands[-1] if len(operands) % 2 else None

    def letters(numbers: Any) -> str:
        if not isinstance(numbers, (list, tuple)) or any(
            n is not Ellipsis and not (isinstance(n, int) and 0 <= n < 52) for n in numbers
        ):
            raise error(
                DTypeError, "einsum",
                "expects an equation as a string, or lists of numbers 0 … 51 after the operands, got "
                f"{numbers!r}",
            )  # fmt: skip
        return "".join("..." if n is Ellipsis else _LETTERS[26 + n if n < 26 else n - 26] for n in numbers)

    equation = ",".join(map(letters, lists))
    return (equation if output is None else f"{equation}->{letters(output)}"), tensors


@public(method=False)
def einsum(*args: Any) -> Tensor:
    """Sums of products by Einstein's convention: ``einsum("bij,bjk->bik", x, y)``.

    Labels that the right side leaves out are summed over; without a right side it has the labels that occur
    once, in alphabetical order. A label twice in one operand takes the diagonal, '...' stands for dimensions
    that broadcast. ``einsum(x, [0, 1], y, [1, 2], [0, 2])`` names labels by numbers.
    """
    if not args:
        raise error(ShapeError, "einsum", "expects an equation and its operands")
    if isinstance(args[0], str):
        equation, given = args[0], list(args[1:])
        given = list(given[0]) if len(given) == 1 and isinstance(given[0], (list, tuple)) else given
    else:
        equation, given = _spelt(args)
    if not given:
        raise error(ShapeError, "einsum", "expects at least one operand")
    tensors = promoted("einsum", *(tensor_arg(t, "einsum", "operands") for t in given))
    parts, right = _parsed(equation, len(tensors))
    hidden = [t.ndim - len(p.replace("...", "")) for t, p in zip(tensors, parts, strict=True) if "..." in p]
    extra = max([*hidden, 0])
    terms = [_term(t, p, extra) for t, p in zip(tensors, parts, strict=True)]
    dots = [str(i) for i in range(extra)]
    if right is None:
        letters = sorted("".join(parts).replace(".", ""))
        output = [*dots, *(v for v in letters if letters.count(v) == 1)]
    else:
        before, _, after = right.partition("...")
        output = [*before, *(dots if "..." in right else ()), *after]
    known = {v for term in terms for v in term.labels}
    if len(set(output)) < len(output) or not set(output) <= known:
        raise error(ShapeError, "einsum", f"the output of {equation!r} needs labels of operands, each once")
    found = terms[0]
    for number, term in enumerate(terms[1:], 2):
        needed = {*output, *(v for later in terms[number:] for v in later.labels)}
        found = _contracted(found, term, needed)
    return found.without([v for v in found.labels if v not in output]).ordered(output)


@public(method=False)
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Products summed over dimensions: the last `dims` of `a` with the first of `b`, or pairs given as two
    lists.
    """
    x, y = tensor_arg(a, "tensordot", "a"), tensor_arg(b, "tensordot", "b")
    if isinstance(dims, int):
        if not 0 <= dims <= min(x.ndim, y.ndim):
            raise error(
                ShapeError, "tensordot", f"can't sum over {dims} dimensions of {x.type_} and {y.type_}"
            )
        first, second = list(range(x.ndim - dims, x.ndim)), list(range(dims))
    else:
        pair = dims.tolist() if isinstance(dims, Tensor) else dims
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise error(DTypeError, "tensordot", f"dims is an integer or two lists of them, got {dims!r}")
        left, right = (list(d) if isinstance(d, (list, tuple)) else [d] for d in pair)
        first = [axis_arg(d, x, "tensordot") for d in left]
        second = [axis_arg(d, y, "tensordot") for d in right]
        if len(first) != len(second):
            raise error(ShapeError, "tensordot", f"both lists need as many dimensions, got {dims}")
    labels = list(_LETTERS[: x.ndim + y.ndim])
    mine, yours = labels[: x.ndim], labels[x.ndim :]
    for i, j in zip(first, second, strict=True):
        yours[j] = mine[i]
    rest = [v for d, v in enumerate(mine) if d not in first] + [
        v for d, v in enumerate(yours) if d not in second
    ]
    return einsum(f"{''.join(mine)},{''.join(yours)}->{''.join(rest)}", x, y)


@public()
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Products summed over the last dimension of both; with a number of dimensions 0, the product."""
    x, y = tensor_arg(input, "inner"), tensor_arg(other, "inner", "other")
    if not x.ndim or not y.ndim:
        return apply(OPS["mul"], *promoted("inner", x, y))
    a, b = x.type_.shape[-1], y.type_.shape[-1]
    if isinstance(a, int) and isinstance(b, int) and a != b:
        raise error(
            ShapeError, "inner", f"the last dimension must match on both tensors, got {x.type_} and {y.type_}"
        )
    return tensordot(x, y, ([x.ndim - 1], [y.ndim - 1]))


@public()
def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: blocks of `other`, each times an element of `input`."""
    x, y = promoted("kron", tensor_arg(input, "kron"), tensor_arg(other, "kron", "other"))
    rank = max(x.ndim, y.ndim)
    a = (*(1,) * (rank - x.ndim), *x.type_.shape)
    b = (*(1,) * (rank - y.ndim), *y.type_.shape)
    left = reshaped(x, tuple(s for size in a for s in (size, 1)))
    right = reshaped(y, tuple(s for size in b for s in (1, size)))
    return reshaped(apply(OPS["mul"], left, right), tuple(p * q for p, q in zip(a, b, strict=True)))


@public()
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The cross product along `dim`, by default the first dimension of size 3."""
    x, y = promoted("cross", tensor_arg(input, "cross"), tensor_arg(other, "cross", "other"))
    if x.ndim != y.ndim:
        raise error(
            ShapeError, "cross", f"needs as many dimensions in both tensors, got {x.type_} and {y.type_}"
        )
    why = "the dimension of a cross product"
    if dim is not None:
        axis: int | None = axis_arg(dim, x, "cross")
    else:
        axis = next((d for d, s in enumerate(x.type_.shape) if pinned(s, why) == 3), None)
    shape = broadcast(x, y)
    if axis is not None and any(pinned(t.type_.shape[axis], why) != 3 for t in (x, y)):
        raise error(ShapeError, "cross", f"needs size 3 in dimension {axis} of {x.type_} and {y.type_}")
    x, y = expanded(x, shape), expanded(y, shape)
    if axis is None or shape[axis] != 3:
        raise error(ShapeError, "cross", f"needs a dimension of size 3 in {x.type_}")
    a, b = ([t.select(axis, i) for i in range(3)] for t in (x, y))
    parts = []
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        parts.append(apply(OPS["sub"], apply(OPS["mul"], a[j], b[k]), apply(OPS["mul"], a[k], b[j])))
    return stack(parts, axis)
