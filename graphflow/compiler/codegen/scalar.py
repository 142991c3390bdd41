"""Element values as kernel text: what one element of a node is, written in terms of loads and loop variables.

Values are asked for at an index and written where they belong: what depends on nothing goes before the loops,
what depends on the row into the row, the rest into the innermost loop. A value asked for twice is computed
once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Mapping, Set
from dataclasses import dataclass, field

from graphflow.compiler.access import broadcast_index, is_view, resolve
from graphflow.compiler.codegen.kernel import Parameters, Size, suffix
from graphflow.compiler.indexing import Index, flat_index, numel
from graphflow.compiler.ir import Node
from graphflow.compiler.ops.random import MULTIPLIERS, ROUNDS, WEYL
from graphflow.dims import Dim
from graphflow.dtypes import DType

PROLOGUE, ROW, INNER = 0, 1, 2
Position = tuple[Index, ...]


@dataclass(frozen=True)
class Value:
    """Text of an element's value and the innermost scope it depends on."""

    text: str
    level: int


@dataclass
class Scope:
    """Statements of one loop level, and the values they have named."""

    lines: list[str] = field(default_factory=list)
    known: dict[object, Value] = field(default_factory=dict)


class Scalars:
    """Writes element values of one kernel.

    `computed` are the nodes that this kernel computes; all others are loaded. `variables` maps an axis
    variable to the index it stands for in the text (merged axes vanish), `levels` a text variable to its
    scope. `status` is the buffer that a bad index is reported in, with `check_code(node)` telling which.
    """

    def __init__(
        self, parameters: Parameters, computed: Container[Node], stored: Container[Node], status: Status
    ):
        self.parameters = parameters
        self.computed = computed
        self.stored = stored
        self.status = status
        self.variables: dict[str, Index] = {}
        self.levels: dict[str, int] = {}
        self.scopes = [Scope(), Scope(), Scope()]
        self.addresses: list[Index] = []  # every address and axis-dependent value, for merging axes
        self.given: dict[tuple[Node, Position], Value] = {}  # reductions, tiles: values made elsewhere
        self._count = 0

    # -------------------------------------------------------------------------------------- naming

    def fresh(self, prefix: str = "t") -> str:
        """A name not used before."""
        self._count += 1
        return f"{prefix}{self._count}"

    def let(self, text: str, level: int, prefix: str = "t") -> Value:
        """Names a value in its scope."""
        key = ("text", text)
        for scope in self.scopes[: level + 1]:
            if key in scope.known:
                return scope.known[key]
        name = self.fresh(prefix)
        self.scopes[level].lines.append(f"{name} = {text}")
        value = Value(name, level)
        self.scopes[level].known[key] = value
        return value

    def begin(self, level: int) -> Scope:
        """Opens a new scope at a level (the next inner loop) and gives the old one."""
        old, self.scopes[level] = self.scopes[level], Scope()
        return old

    # -------------------------------------------------------------------------------------- indices

    def place(self, index: Index) -> Index:
        """An index over axis variables as one over text variables."""
        return index.substitute(self.variables)

    def index_text(self, index: Index) -> Value:
        """An index as an i64 expression."""
        self.addresses.append(index)
        placed = self.place(index)
        parts, level = [], PROLOGUE
        for variable, coefficient in placed.terms.items():
            level = max(level, self.levels.get(variable, INNER))
            parts.append(variable if coefficient == 1 else f"{variable} * {self._coefficient(coefficient)}")
        if placed.offset != 0 or not parts:
            parts.append(self._coefficient(placed.offset))
        return Value(" + ".join(parts), level)

    def _coefficient(self, size: Size) -> str:
        text = self.parameters.size(size)
        return f"({text})" if text.startswith("-") else text

    # -------------------------------------------------------------------------------------- values

    def value(self, node: Node, index: Iterable[Index]) -> Value:
        """The element of `node` at `index`."""
        access = resolve(node, tuple(index), self.stored)
        base = access.base
        if base.op.kind == "const":
            return self._constant(base)
        if access.flat is not None or not self._computes(base):
            return self._load(base, access.address)
        return self._computed(base, access.index)

    def _computes(self, node: Node) -> bool:
        return node.op.kind != "input" and (node in self.computed or node not in self.stored)

    def _load(self, node: Node, address: Index) -> Value:
        pointer = self.parameters.pointer(node, node.dtype)
        where = self.index_text(address)
        return self.let(f"{pointer}[{where.text}]", where.level)

    def _constant(self, node: Node) -> Value:
        value = node.attrs["value"]
        if isinstance(value, Dim):
            return Value(f"{suffix(node.dtype)}({self.parameters.size(value)})", PROLOGUE)
        return Value(literal(value, node.dtype), PROLOGUE)

    def _computed(self, node: Node, index: Position) -> Value:
        key = (node, index)
        if key in self.given:
            return self.given[key]
        for scope in self.scopes:
            if key in scope.known:
                return scope.known[key]
        value = self._compute(node, index)
        self.scopes[value.level].known[key] = value
        return value

    def _compute(self, node: Node, index: Position) -> Value:
        kind = node.op.kind
        if node.op.name == "checked_index":
            raw = self.value(node.inputs[0], index)
            return self.checked(raw, self.parameters.size(node.attrs["size"]), node)
        if kind == "elementwise":
            operands = [self.value(i, broadcast_index(index, i.shape)) for i in node.inputs]
            level = max((o.level for o in operands), default=PROLOGUE)
            return self.let(expression(node, [o.text for o in operands]), level)
        if is_view(node):  # a stored view that this kernel writes
            source = node.inputs[0]
            if node.op.name == "reshape":
                mapped = node.op.lowering.index(index, source.shape, node.shape, **node.attrs)
                if mapped is None:
                    base = source
                    while base.op.name == "reshape":
                        base = base.inputs[0]
                    return self._load(base, flat_index(index, node.shape))
            else:
                mapped = node.op.lowering.index(index, source.shape, node.shape, **node.attrs)
            return self.value(source, mapped)
        if node.op.name == "iota":
            where = self.index_text(index[0])
            return Value(f"({where.text})", where.level)
        if node.op.name == "random_bits":
            return self._random(node, index)
        if kind == "gather":
            return self._gather(node, index)
        if kind == "pad":
            return self._pad(node, index)
        if kind == "unslide":
            return self._unslide(node, index)
        raise AssertionError(f"{node.op.name} has no element at {index} in this kernel")

    # -------------------------------------------------------------------------------------- special kinds

    def _gather(self, node: Node, index: Position) -> Value:
        source, positions = node.inputs
        dim = node.attrs["dim"]
        if node.op.name == "gather":
            at, rest = index, index[dim + 1 :]
        else:
            count = len(positions.shape)
            at, rest = index[dim : dim + count], index[dim + count :]
        raw = self.value(positions, at)
        size = self.parameters.size(source.shape[dim])
        place = self.checked(raw, size, node)
        return self.value(source, (*index[:dim], Index.of(place.text), *rest))

    def checked(self, raw: Value, size: str, node: Node) -> Value:
        """An index counted from the front; one out of range is reported and replaced by 0."""
        level = raw.level
        wrapped = self.let(f"select({raw.text} < 0, {raw.text} + {size}, {raw.text})", level)
        bad = self.let(f"({wrapped.text} < 0) | ({wrapped.text} >= {size})", level)
        report = self.parameters.pointer_to(self.status.buffer, "i64*")
        key = ("report", bad.text)
        if key not in self.scopes[level].known:
            lines = [
                f"if {bad.text}:",
                f"    {report}[0] = {self.status.code(node)}",
                f"    {report}[1] = {raw.text}",
            ]
            self.scopes[level].lines.extend(lines)
            self.scopes[level].known[key] = bad
        place = self.let(f"select({bad.text}, 0, {wrapped.text})", level, "g")
        self.levels[place.text] = level
        return place

    def _pad(self, node: Node, index: Position) -> Value:
        source, attrs = node.inputs[0], node.attrs
        inside: list[str] = []
        mapped = list(index)
        limited: dict[int, Value] = {}
        for d, (start, step, count) in enumerate(
            zip(attrs["starts"], attrs["steps"], source.shape, strict=True)
        ):
            if step == 1 and start == 0 and count == node.shape[d]:
                continue
            mapped[d] = index[d] + (0 - start)
            limited[d] = self._inside(mapped[d], step, count, inside)
        return self._read_inside(node, mapped, limited, inside, all(step == 1 for step in attrs["steps"]))

    def _unslide(self, node: Node, index: Position) -> Value:
        source, attrs = node.inputs[0], node.attrs
        inside: list[str] = []
        mapped = list(index)
        limited: dict[int, Value] = {}
        for d, k, stride, dilation in zip(
            attrs["dims"], attrs["taps"], attrs["strides"], attrs["dilations"], strict=True
        ):
            mapped[d] = index[d] + index[k] * -dilation
            limited[d] = self._inside(mapped[d], stride, source.shape[d], inside)
        return self._read_inside(node, mapped, limited, inside, all(s == 1 for s in attrs["strides"]))

    def _inside(self, position: Index, step: int, count: Size, inside: list[str]) -> Value:
        """The variable of ``position / step``; adds to `inside` the conditions under which it is an index."""
        offset = self.index_text(position)
        where = self.let(offset.text, offset.level)
        if step != 1:
            quotient = self.let(f"floordiv_i64({where.text}, {step})", where.level)
            inside.append(f"({where.text} == {quotient.text} * ({step}))")
            where = quotient
        inside.append(f"({where.text} >= 0) & ({where.text} < {self.parameters.size(count)})")
        self.levels[where.text] = where.level
        return where

    def _read_inside(
        self, node: Node, mapped: list[Index], limited: Mapping[int, Value], inside: list[str], runs: bool
    ) -> Value:
        """The source's element where the conditions hold, else 0. They are about the `limited` indices.

        If those are `mapped` as they are, neighbours are neighbours in the source, too (`runs`), and none is
        loaded from memory where the conditions don't hold: a vector of which some are left out. Otherwise an
        element is taken everywhere, with indices kept in range.
        """
        source = node.inputs[0]
        if not inside:
            return self.value(source, mapped)
        level = max(where.level for where in limited.values())
        condition = self.let(" & ".join(f"({c})" for c in inside), level)
        zero = literal(0, node.dtype)
        if runs:
            access = resolve(source, tuple(mapped), self.stored)
            in_memory = access.flat is not None or not self._computes(access.base)
            if in_memory and access.base.op.kind != "const":
                pointer = self.parameters.pointer(access.base, node.dtype)
                where = self.index_text(access.address)
                text = f"({pointer}[{where.text}] if {condition.text} else {zero})"
                return self.let(text, max(level, where.level))
        for d, where in limited.items():
            limit = self.parameters.size(source.shape[d])
            text = f"minimum_i64(maximum_i64({where.text}, 0), {limit} - 1)"
            safe = self.let(text, where.level, "g")
            self.levels[safe.text] = safe.level
            mapped[d] = Index.of(safe.text)
        value = self.value(source, mapped)
        return self.let(f"select({condition.text}, {value.text}, {zero})", max(level, value.level))

    def _random(self, node: Node, index: Position) -> Value:
        """Philox4x32-10 on (offset + position), as ``ops.random.philox``."""
        key = node.inputs[0]
        seed = self.let(f"u64({self.value(key, (Index(None, 0),)).text})", PROLOGUE)
        offset = self.let(f"u64({self.value(key, (Index(None, 1),)).text})", PROLOGUE)
        where = self.index_text(flat_index(index, node.shape))
        counter = self.let(f"{offset.text} + u64({where.text})", where.level)
        level = where.level
        mask = "u64(4294967295)"
        c = [f"({counter.text} & {mask})", f"({counter.text} >> 32)", "u64(0)", "u64(0)"]
        k = [self.let(f"{seed.text} & {mask}", PROLOGUE).text, self.let(f"{seed.text} >> 32", PROLOGUE).text]
        for _ in range(ROUNDS):
            p0 = self.let(f"u64({MULTIPLIERS[0]}) * {c[0]}", level).text
            p1 = self.let(f"u64({MULTIPLIERS[1]}) * {c[2]}", level).text
            c = [
                self.let(f"({p1} >> 32) ^ {c[1]} ^ {k[0]}", level).text,
                self.let(f"{p1} & {mask}", level).text,
                self.let(f"({p0} >> 32) ^ {c[3]} ^ {k[1]}", level).text,
                self.let(f"{p0} & {mask}", level).text,
            ]
            k = [self.let(f"({k[i]} + u64({WEYL[i]})) & {mask}", PROLOGUE).text for i in (0, 1)]
        return self.let(f"i64({c[node.attrs['word']]})", level)


@dataclass
class Status:
    """Where kernels report an index out of range, and which node each code stands for."""

    buffer: int
    nodes: list[Node] = field(default_factory=list)

    def code(self, node: Node) -> int:
        """The number, from 1, that stands for `node`."""
        if node not in self.nodes:
            self.nodes.append(node)
        return self.nodes.index(node) + 1


@dataclass(frozen=True)
class Inside:
    """Where a value lies that is a part of a concatenation: behind the first `start` elements along `dim`.

    If that is the first dimension, the part is a run of the whole's memory, which is its own buffer.
    """

    whole: Node
    dim: int
    start: Size

    @property
    def is_run(self) -> bool:
        """Whether the part has a buffer."""
        return numel(self.whole.shape[: self.dim]) == 1


@dataclass(frozen=True)
class Memory:
    """What emitters know of where values live.

    ``buffer_of`` gives a stored node's buffer; ``stored`` holds the nodes that are in memory when they are
    read; ``temporary(key, dtype, shape)`` gives a buffer for a kernel's own use, the same for the same key.
    ``inside`` has the results that are written into other values.
    """

    buffer_of: Callable[[Node], int]
    stored: Set[Node]
    status: Status
    temporary: Callable[[object, DType, tuple[Size, ...]], int]
    inside: Mapping[Node, tuple[Inside, ...]] = field(default_factory=dict)

    def places(self, node: Node, index: Position) -> list[tuple[Node, Position]]:
        """The values that a result's element is written into, and at which indices."""
        found = [
            (there.whole, tuple(i + there.start if d == there.dim else i for d, i in enumerate(index)))
            for there in self.inside.get(node, ())
            if not there.is_run
        ]
        return found or [(node, index)]


def literal(value: bool | int | float, dtype: DType) -> str:
    """A constant of a dtype as text."""
    name = suffix(dtype)
    if dtype.kind == "float":
        value = float(value)
        if math.isnan(value):
            return f"{name}(1e999 - 1e999)"
        if math.isinf(value):
            return f"{name}({'-' if value < 0 else ''}1e999)"
        return f"{name}({value!r})"
    return f"{name}({int(value)})"


def expression(node: Node, operands: list[str]) -> str:
    """An elementwise op's text with its operands filled in."""
    first = node.inputs[-1].dtype if node.op.name == "where" else node.inputs[0].dtype
    template: str = node.op.lowering.expr[first.kind]
    if node.op.name == "cast" and first.kind == "float" and node.dtype.kind == "int":
        template = "{o}(i64({0}))"  # a float saturates at the ends of int64, then its low bits are kept
    return template.format(*operands, **{**node.attrs, "t": suffix(first), "o": suffix(node.dtype)})
