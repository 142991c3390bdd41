"""Index expressions: how an element of a result names an element of an operand.

An ``Index`` is a sum of integer variables times sizes plus a constant. Views (permute, expand, slice, reshape
that splits) map indices to indices; codegen asks them with loop variables, the memory view with dimension
numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graphflow.dims import Dim, divide, product

Size = int | Dim
Shape = tuple[Size, ...]


class Index:
    """``sum(variable * coefficient) + offset`` over integer variables of the generated code."""

    __slots__ = ("offset", "terms")

    def __init__(self, terms: Mapping[str, Size] | None = None, offset: Size = 0):
        self.terms: dict[str, Size] = {v: c for v, c in (terms or {}).items() if c != 0}
        self.offset = offset

    @staticmethod
    def of(variable: str) -> Index:
        """The variable itself."""
        return Index({variable: 1})

    def __add__(self, other: Index | Size) -> Index:
        if not isinstance(other, Index):
            return Index(self.terms, self.offset + other)
        terms = dict(self.terms)
        for variable, coefficient in other.terms.items():
            terms[variable] = terms.get(variable, 0) + coefficient
        return Index(terms, self.offset + other.offset)

    def __mul__(self, factor: Size) -> Index:
        return Index({v: c * factor for v, c in self.terms.items()}, self.offset * factor)

    def substitute(self, values: Mapping[str, Index]) -> Index:
        """The index with variables replaced by indices."""
        terms: dict[str, Size] = {}
        offset = self.offset
        for variable, coefficient in self.terms.items():
            value = values.get(variable)
            if value is None:
                terms[variable] = terms.get(variable, 0) + coefficient
                continue
            for inner, factor in value.terms.items():
                terms[inner] = terms.get(inner, 0) + factor * coefficient
            offset = offset + value.offset * coefficient
        return Index(terms, offset)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Index) and self.terms == other.terms and self.offset == other.offset

    def __hash__(self) -> int:
        return hash((frozenset(self.terms.items()), self.offset))

    def __repr__(self) -> str:
        return " + ".join([f"{v}*{c}" for v, c in self.terms.items()] + [str(self.offset)])


ZERO = Index()


def contiguous_strides(shape: Sequence[Size]) -> tuple[Size, ...]:
    """Row-major strides in elements."""
    strides: list[Size] = []
    step: Size = 1
    for size in reversed(shape):
        strides.insert(0, step)
        step = step * size
    return tuple(strides)


def reshape_groups(source: Shape, target: Shape) -> list[tuple[tuple[int, ...], tuple[int, ...]]] | None:
    """Runs of source and target dimensions holding the same elements, smallest runs first to last.

    None when symbolic sizes keep the runs from being told apart (then everything is one run).
    """
    groups = []
    i = j = 0
    while i < len(source) or j < len(target):
        left: list[int] = []
        right: list[int] = []
        a: Size = 1
        b: Size = 1
        if i < len(source):
            left, a, i = [i], source[i], i + 1
        if j < len(target):
            right, b, j = [j], target[j], j + 1
        while a != b:
            # Take the side that still lacks a factor; a size 1 is always safe to take.
            if i < len(source) and (source[i] == 1 or j >= len(target) or _divides(a, b)):
                a, left, i = a * source[i], [*left, i], i + 1
            elif j < len(target):
                b, right, j = b * target[j], [*right, j], j + 1
            elif i < len(source):
                a, left, i = a * source[i], [*left, i], i + 1
            else:
                return None
        groups.append((tuple(left), tuple(right)))
    return groups


def _divides(a: Size, b: Size) -> bool:
    """Whether `b` is a larger multiple of `a` (or might need more of the source to match)."""
    quotient = divide(b, a) if a != 0 else None
    return quotient is not None and quotient != 1


def reshape_index(index: Sequence[Index], source: Shape, target: Shape) -> list[Index] | None:
    """The source index of a target index when no source run has to be split by division, else None."""
    groups = reshape_groups(source, target)
    if groups is None:
        return None
    result: list[Index] = [ZERO] * len(source)
    for left, right in groups:
        wide = [d for d in left if source[d] != 1]
        if not wide:
            continue
        flat = ZERO
        for d, stride in zip(right, contiguous_strides([target[d] for d in right]), strict=True):
            if target[d] != 1:
                flat = flat + index[d] * stride
        if len(wide) == 1:
            result[wide[0]] = flat
        elif not flat.terms and flat.offset == 0:
            continue
        else:
            return None
    return result


def flat_index(index: Sequence[Index], shape: Shape) -> Index:
    """The row-major position of an index."""
    total = ZERO
    for position, stride in zip(index, contiguous_strides(shape), strict=True):
        total = total + position * stride
    return total


def numel(shape: Shape) -> Size:
    """Number of elements."""
    return product(shape)
