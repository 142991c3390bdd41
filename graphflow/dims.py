"""Symbolic sizes: polynomials with integer coefficients over named symbols, floor divisions and choices.

``Dim`` is structural: two Dims are equal when their canonical polynomials are. Constants are plain ``int``
wherever possible, so a shape is a tuple of ``int | Dim``. Used by the IR (types), the compiler (strides,
ranges) and the runtime (sizes instantiated once per batch size).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping


class FloorDiv:
    """The atom ``floor(numerator / divisor)`` with a positive integer divisor."""

    __slots__ = ("divisor", "numerator")

    def __init__(self, numerator: Dim, divisor: int):
        self.numerator, self.divisor = numerator, divisor

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, FloorDiv)
            and self.divisor == other.divisor
            and self.numerator == other.numerator
        )

    def __hash__(self) -> int:
        return hash((self.numerator, self.divisor))

    def __str__(self) -> str:
        return f"(({self.numerator})//{self.divisor})"

    __repr__ = __str__  # Dim orders its monomials by their text, which must not hold an address

    def symbols(self) -> set[str]:
        """Names of all symbols in it."""
        return self.numerator.symbols()

    def evaluate(self, values: Mapping[str, int]) -> int:
        """Its number under an assignment of its symbols."""
        return evaluate(self.numerator, values) // self.divisor

    def substitute(self, values: Mapping[str, int | Dim]) -> int | Dim:
        """It with some symbols replaced."""
        return substitute(self.numerator, values) // self.divisor


class Choice:
    """The atom that is ``then`` where ``condition > 0`` and ``otherwise`` elsewhere; made by `choose`.

    Sizes of memory have it, shapes don't.
    """

    __slots__ = ("_text", "condition", "otherwise", "then")

    def __init__(self, condition: Dim, then: int | Dim, otherwise: int | Dim):
        self.condition, self.then, self.otherwise = condition, then, otherwise
        self._text = f"choose({condition}, {then}, {otherwise})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Choice) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__

    def symbols(self) -> set[str]:
        """Names of all symbols in it."""
        parts = (self.condition, self.then, self.otherwise)
        return set().union(*(part.symbols() for part in parts if isinstance(part, Dim)))

    def evaluate(self, values: Mapping[str, int]) -> int:
        """Its number under an assignment of its symbols."""
        return evaluate(self.then if evaluate(self.condition, values) > 0 else self.otherwise, values)

    def substitute(self, values: Mapping[str, int | Dim]) -> int | Dim:
        """It with some symbols replaced."""
        return choose(*(substitute(part, values) for part in (self.condition, self.then, self.otherwise)))


Atom = str | FloorDiv | Choice
Monomial = tuple[Atom, ...]


class Dim:
    """A non-constant size: ``terms`` maps a sorted tuple of atoms (a monomial) to its coefficient."""

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Mapping[Monomial, int]):
        self.terms: dict[Monomial, int] = dict(terms)
        self._hash = hash(frozenset(self.terms.items()))

    @staticmethod
    def symbol(name: str) -> Dim:
        """The size called `name`, a Python identifier."""
        if not name.isidentifier():
            raise ValueError(f"a symbolic size needs an identifier for its name, not {name!r}")
        return Dim({(name,): 1})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: int | Dim) -> int | Dim:
        return _combine(self, other, 1)

    __radd__ = __add__

    def __sub__(self, other: int | Dim) -> int | Dim:
        return _combine(self, other, -1)

    def __rsub__(self, other: int | Dim) -> int | Dim:
        return -1 * self + other

    def __neg__(self) -> int | Dim:
        return -1 * self

    def __mul__(self, other: int | Dim) -> int | Dim:
        if isinstance(other, int):
            if other == 1:
                return self
            return _make({monomial: a * other for monomial, a in self.terms.items()})
        terms: dict[Monomial, int] = {}
        for monomial_a, a in self.terms.items():
            for monomial_b, b in _terms(other).items():
                key = tuple(sorted(monomial_a + monomial_b, key=str))
                terms[key] = terms.get(key, 0) + a * b
        return _make(terms)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int | Dim) -> int | Dim:
        """Exact where the division is; otherwise a FloorDiv atom (integer divisors only)."""
        exact = divide(self, divisor)
        if exact is not None:
            return exact
        if not isinstance(divisor, int) or divisor < 1:
            raise ValueError(f"can't divide the symbolic size {self} by {divisor}")
        return Dim({(FloorDiv(self, divisor),): 1})

    def __mod__(self, divisor: int | Dim) -> int | Dim:
        return self - (self // divisor) * divisor

    def __str__(self) -> str:
        parts: list[str] = []
        for monomial, coefficient in sorted(self.terms.items(), key=lambda t: (-len(t[0]), str(t[0]))):
            factors = [str(a) for a in monomial]
            if abs(coefficient) != 1 or not factors:
                factors.insert(0, str(abs(coefficient)))
            sign = "-" if coefficient < 0 else "+" if parts else ""
            parts.append(sign + "*".join(factors))
        return "".join(parts)

    __repr__ = __str__

    def symbols(self) -> set[str]:
        """Names of all symbols the size depends on."""
        found: set[str] = set()
        for monomial in self.terms:
            for atom in monomial:
                found |= {atom} if isinstance(atom, str) else atom.symbols()
        return found


def _terms(value: int | Dim) -> dict[Monomial, int]:
    return value.terms if isinstance(value, Dim) else {(): int(value)}


def _make(terms: dict[Monomial, int]) -> int | Dim:
    terms = {m: c for m, c in terms.items() if c}
    if not terms:
        return 0
    if len(terms) == 1 and () in terms:
        return terms[()]
    return Dim(terms)


def _combine(a: Dim, b: int | Dim, sign: int) -> int | Dim:
    if isinstance(b, int) and b == 0:
        return a
    terms = dict(_terms(a))
    for monomial, c in _terms(b).items():
        terms[monomial] = terms.get(monomial, 0) + sign * c
    return _make(terms)


def divide(a: int | Dim, b: int | Dim) -> int | Dim | None:
    """``a / b`` when it is exact for every value of the symbols, else None. `b` is an
    int or a single monomial.
    """
    if isinstance(a, int) and isinstance(b, int):
        return a // b if b and a % b == 0 else None
    if a == b:
        return 1
    divisor = _terms(b)
    if len(divisor) != 1:
        return None
    ((monomial, coefficient),) = divisor.items()
    if coefficient == 0:
        return None
    terms: dict[Monomial, int] = {}
    for m, c in _terms(a).items():
        rest = list(m)
        for atom in monomial:
            if atom not in rest:
                return None
            rest.remove(atom)
        if c % coefficient:
            return None
        terms[tuple(rest)] = c // coefficient
    return _make(terms)


def product(sizes: Iterable[int | Dim]) -> int | Dim:
    """The product of sizes; 1 for none."""
    total: int | Dim = 1
    for size in sizes:
        total = total * size
    return total


def ceil_div(a: int | Dim, b: int) -> int | Dim:
    """``ceil(a / b)``."""
    return (a + (b - 1)) // b


def choose(condition: int | Dim, then: int | Dim, otherwise: int | Dim) -> int | Dim:
    """`then` where `condition` is greater than 0, `otherwise` elsewhere."""
    if isinstance(condition, int):
        return then if condition > 0 else otherwise
    return then if then == otherwise else Dim({(Choice(condition, then, otherwise),): 1})


def minimum(a: int | Dim, b: int | Dim) -> int | Dim:
    """The smaller one of two sizes."""
    return choose(b - a, a, b)


def maximum(a: int | Dim, b: int | Dim) -> int | Dim:
    """The larger one of two sizes."""
    return choose(a - b, a, b)


def evaluate(size: int | Dim, values: Mapping[str, int]) -> int:
    """The number that `size` is under an assignment of its symbols."""
    if isinstance(size, int):
        return size
    total = 0
    for monomial, coefficient in size.terms.items():
        for atom in monomial:
            coefficient *= values[atom] if isinstance(atom, str) else atom.evaluate(values)
        total += coefficient
    return total


def substitute(size: int | Dim, values: Mapping[str, int | Dim]) -> int | Dim:
    """`size` with some symbols replaced by numbers or other sizes."""
    if isinstance(size, int):
        return size
    total: int | Dim = 0
    for monomial, coefficient in size.terms.items():
        term: int | Dim = coefficient
        for atom in monomial:
            if isinstance(atom, str):
                term = term * values.get(atom, Dim.symbol(atom))
            else:
                term = term * atom.substitute(values)
        total = total + term
    return total


_TOKEN = re.compile(r"//|[A-Za-z_]\w*|\d+|[-+*(),]")
_MAX_NESTING = 50


def parse(text: str) -> int | Dim:
    """Reads what ``str(size)`` printed. ValueError on anything else; never evaluates Python."""
    reader = _Reader(text.strip())
    try:
        value = reader.total(0)
    except ZeroDivisionError:
        raise reader.error() from None
    if reader.tokens[reader.position]:
        raise reader.error()
    return value


class _Reader:
    """A recursive-descent reader of sizes; the token after the last one is empty."""

    def __init__(self, text: str):
        self.text, self.tokens, self.position = text, _TOKEN.findall(text), 0
        if "".join(self.tokens) != "".join(text.split()):
            raise self.error()  # something between them is no token
        self.tokens.append("")

    def error(self, more: str = "") -> ValueError:
        return ValueError(f"not a size: {self.text!r}{more}")

    def take(self) -> str:
        self.position += 1
        token: str = self.tokens[self.position - 1]
        return token

    def atom(self, depth: int) -> int | Dim:
        token = self.take()
        if depth > _MAX_NESTING:
            raise self.error(" is nested too deeply")
        if token == "(":
            value = self.total(depth + 1)
            if self.take() != ")":
                raise self.error()
            return value
        if token == "-":
            return -1 * self.atom(depth + 1)
        if token.isdigit():
            return int(token)
        if token == "choose" and self.tokens[self.position] == "(":
            parts = []
            for separator in "(,,":
                if self.take() != separator:
                    raise self.error()
                parts.append(self.total(depth + 1))
            if self.take() != ")":
                raise self.error()
            return choose(*parts)
        if token.isidentifier():
            return Dim.symbol(token)
        raise self.error()

    def chain(self, operand: Callable[[int], int | Dim], operators: tuple[str, ...], depth: int) -> int | Dim:
        value = operand(depth)
        while (operator := self.tokens[self.position]) in operators:
            self.position += 1
            value = _OPERATORS[operator](value, operand(depth))
        return value

    def factor(self, depth: int) -> int | Dim:
        return self.chain(self.atom, ("*", "//"), depth)

    def total(self, depth: int) -> int | Dim:
        return self.chain(self.factor, ("+", "-"), depth)


def _quotient(a: int | Dim, b: int | Dim) -> int | Dim:
    if isinstance(a, Dim):
        return a // b
    if isinstance(b, Dim):
        raise ValueError(f"can't divide {a} by the symbolic size {b}")
    return a // b


_OPERATORS: dict[str, Callable[[int | Dim, int | Dim], int | Dim]] = {
    "*": lambda a, b: a * b,
    "//": _quotient,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
}


def gcd_constant(size: int | Dim) -> int:
    """The largest integer known to divide `size` whatever its symbols are."""
    return math.gcd(*(abs(c) for c in _terms(size).values()))
