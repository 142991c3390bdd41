"""Loop nests: a fused unit becomes the text of one kernel.

Axes of the domain are merged where every address allows it, so that contiguous data is one flat loop; the last axis
is the innermost, vectorised loop; the outer axes are the range that threads share.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field

from graphflow.compiler.access import normalize, reduction_index
from graphflow.compiler.codegen.kernel import Loops, Parameters, Size, suffix
from graphflow.compiler.codegen.scalar import INNER, PROLOGUE, ROW, Scalars, Status, Value, literal
from graphflow.compiler.indexing import Index, flat_index, numel
from graphflow.compiler.ir import Node
from graphflow.dims import ceil_div, product
from graphflow.dtypes import DType

CHUNK = 4096  # elements summed in one run before partial sums meet: bounds the rounding error of long rows
COLUMNS = 128  # columns that one share of a column reduction owns
DEAR = 10  # instructions above which a value is kept from pass to pass instead of computed again
Position = tuple[Index, ...]


@dataclass(frozen=True)
class Plan:
    """What the emitters are told about a unit: see ``passes.fuse.Unit``. Borders keep them from asking themselves."""

    kind: str
    axes: tuple[Size, ...]
    reduced: tuple[int, ...]
    nodes: tuple[Node, ...]
    placement: dict[Node, Position]
    outputs: tuple[Node, ...]


@dataclass
class Loop:
    """One loop of the nest: a text variable, its extent, and the axes it stands for."""

    variable: str
    size: Size
    axes: tuple[int, ...]


@dataclass
class Writer:
    """State shared by the emitters of one kernel."""

    plan: Plan
    buffer_of: Callable[[Node], int]
    stored: Container[Node]
    status: Status
    scalars: Scalars = field(init=False)
    parameters: Parameters = field(init=False)
    store_addresses: list[Index] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything written."""
        self.parameters = Parameters(self.buffer_of)
        self.scalars = Scalars(self.parameters, frozenset(self.plan.nodes), self.stored, self.status)

    def element(self, node: Node) -> Value:
        """The value of a node at its place in the domain."""
        return self.scalars.value(node, self.plan.placement[node])

    def store(self, node: Node, value: Value, level: int) -> str:
        """The statement that writes an output's element."""
        address = self.scalars.index_text(flat_index(self.plan.placement[node], node.shape))
        pointer = self.parameters.pointer(node, node.dtype, write=True)
        return f"{pointer}[{address.text}] = {value.text}"


def merged(axes: Sequence[int], sizes: Sequence[Size], addresses: Sequence[Index], prefix: str) -> list[Loop]:
    """The fewest loops over the axes that all addresses can be written in."""
    loops: list[Loop] = []
    for a in axes:
        if sizes[a] == 1:
            continue
        if loops:
            before = loops[-1].axes[-1]
            if all(
                address.terms.get(f"a{before}", 0) == address.terms.get(f"a{a}", 0) * sizes[a] for address in addresses
            ):
                loops[-1] = Loop(loops[-1].variable, loops[-1].size * sizes[a], (*loops[-1].axes, a))
                continue
        loops.append(Loop(f"{prefix}{len(loops)}", sizes[a], (a,)))
    return loops


def bind(scalars: Scalars, loops: Sequence[Loop], level: int) -> None:
    """Lets the loops' variables stand for their axes: the last of merged axes carries them all."""
    for loop in loops:
        for a in loop.axes[:-1]:
            scalars.variables[f"a{a}"] = Index()
        scalars.variables[f"a{loop.axes[-1]}"] = Index.of(loop.variable)
        scalars.levels[loop.variable] = level


def unravel(loops: Sequence[Loop], flat: str, parameters: Parameters) -> list[str]:
    """Statements that split a flat row number into the loops' variables."""
    lines, rest = [], flat
    for position, loop in enumerate(reversed(loops)):
        if position == len(loops) - 1:
            lines.append(f"{loop.variable} = {rest}")
        else:
            size = parameters.size(loop.size)
            quotient = f"{loop.variable}q"
            lines.append(f"{quotient} = floordiv_i64({rest}, {size})")
            lines.append(f"{loop.variable} = {rest} - {quotient} * {size}")
            rest = quotient
    return lines


def indent(lines: Sequence[str], depth: int = 1) -> list[str]:
    """Lines of a nested block."""
    return ["    " * depth + line for line in lines]


def nest(loops: Sequence[Loop], body: list[str], parameters: Parameters) -> list[str]:
    """The body inside the loops, the last innermost."""
    for loop in reversed(loops):
        body = [f"for {loop.variable} in range(0, {parameters.size(loop.size)}):", *indent(body or ["pass"])]
    return body


def emit(
    plan: Plan,
    buffer_of: Callable[[Node], int],
    stored: Container[Node],
    status: Status,
    name: str,
) -> Loops:
    """The kernel of a map, row or column unit."""
    writer = Writer(plan, buffer_of, stored, status)
    emitter = {"map": _emit_map, "row": _emit_row, "column": _emit_column}[plan.kind]
    # The first writing only finds out which addresses there are; the second has the axes merged.
    emitter(writer, [Index({f"a{i}": 2**61 + i for i in range(len(plan.axes))})], name)
    addresses = list(writer.scalars.addresses)
    writer.reset()
    return emitter(writer, addresses, name)


def traffic(plan: Plan, loops: Parameters, extra: Sequence[Node] = ()) -> Size:
    """Bytes the kernel moves at least: every distinct operand and result once."""
    total: Size = 0
    for node in {*outside(plan), *plan.outputs, *extra}:
        total = total + numel(node.shape) * node.dtype.itemsize
    return total


def outside(plan: Plan) -> list[Node]:
    """Nodes that the kernel reads from memory, looked up through views and inlined values."""
    found: dict[Node, None] = {}
    stack, seen = [i for n in plan.nodes for i in n.inputs], set()
    mine = set(plan.nodes)
    while stack:
        node = stack.pop()
        if node in seen or node in mine or node.op.kind == "const":
            continue
        seen.add(node)
        if node.op.kind in ("input", "contract", "scatter", "cat", "reduction"):
            found[node] = None
        elif node.op.kind in ("view", "reshape", "generator"):
            stack.extend(node.inputs)
        else:
            found[node] = None
    return list(found)


def work_of(nodes: Sequence[Node], full: Size) -> Size:
    """Instructions a kernel spends on its elements."""
    per_element = sum(n.op.lowering.cost if n.op.kind == "elementwise" else 60 if n.op.kind == "generator" else 1 for n in nodes)
    return full * max(per_element, 1)


# ---------------------------------------------------------------------------------------------- map


def _emit_map(writer: Writer, addresses: Sequence[Index], name: str) -> Loops:
    plan, scalars, parameters = writer.plan, writer.scalars, writer.parameters
    loops = merged(range(len(plan.axes)), plan.axes, addresses, "i")
    full = product(plan.axes)
    inner = loops[-1:]
    outer = loops[:-1]
    bind(scalars, outer, ROW)
    bind(scalars, inner, INNER)
    values = [(n, writer.element(n)) for n in plan.outputs]
    stores = [writer.store(n, v, INNER) for n, v in values]
    body = [*scalars.scopes[INNER].lines, *stores]
    if not inner:  # a single element
        lines = ["for r in range(lo, hi):", *indent([*scalars.scopes[ROW].lines, *body])]
        extent: Size = 1
        grain = 1
    elif not outer:
        lines = [f"for {inner[0].variable} in range(lo, hi):", *indent(body)]
        extent, grain = inner[0].size, 2048
    else:
        rows = [*unravel(outer, "r", parameters), *scalars.scopes[ROW].lines, *nest(inner, body, parameters)]
        lines = ["for r in range(lo, hi):", *indent(rows)]
        extent = product(loop.size for loop in outer)
        grain = _row_grain(inner[0].size)
    return _finish(writer, name, lines, extent, grain, full)


def _row_grain(width: Size) -> int:
    return max(1, 2048 // width) if isinstance(width, int) and width > 0 else 1


def _finish(
    writer: Writer, name: str, lines: list[str], extent: Size, grain: int, full: Size, scratch: Size = 0
) -> Loops:
    plan, parameters = writer.plan, writer.parameters
    text = "\n".join([*writer.scalars.scopes[PROLOGUE].lines, *lines])
    return Loops(
        parameters.function(name, text),
        tuple(parameters.args),
        extent,
        grain,
        scratch,
        traffic(plan, parameters),
        work_of(plan.nodes, full),
        tuple(parameters.reads),
        tuple(parameters.writes),
    )


# ---------------------------------------------------------------------------------------------- rows


def phases(plan: Plan) -> dict[Node, int]:
    """For every node, the number of reductions in a row on the way to it: the pass after which it is known."""
    level: dict[Node, int] = {}
    mine = set(plan.nodes)

    def of(node: Node) -> int:
        stack = [node]
        while stack:
            current = stack[-1]
            if current in level:
                stack.pop()
                continue
            missing = [i for i in current.inputs if i not in level]
            if current.op.kind in ("input", "const") or (current not in mine and not _inlines(current, mine)):
                level[current] = 0
            elif missing:
                stack.extend(missing)
                continue
            else:
                deepest = max((level[i] for i in current.inputs), default=0)
                level[current] = deepest + (current.op.kind == "reduction" and current in mine)
            stack.pop()
        return level[node]

    for node in plan.nodes:
        of(node)
    return {n: level[n] for n in plan.nodes}


def _inlines(node: Node, mine: set[Node]) -> bool:
    return node.op.kind in ("view", "reshape", "elementwise", "generator")


@dataclass
class _Accumulator:
    """A reduction in progress: its running value, that of a chunk, and the running index of an argmax."""

    node: Node
    variable: str
    partial: str | None
    place: str | None


def _emit_row(writer: Writer, addresses: Sequence[Index], name: str) -> Loops:
    plan, scalars, parameters = writer.plan, writer.scalars, writer.parameters
    kept = [a for a in range(len(plan.axes)) if a not in plan.reduced]
    outer = merged(kept, plan.axes, addresses, "i")
    inner = merged(plan.reduced, plan.axes, addresses, "j")
    bind(scalars, outer, ROW)
    bind(scalars, inner, INNER)
    level = phases(plan)
    last = max((level[n] for n in plan.nodes), default=0)
    width = product(plan.axes[a] for a in plan.reduced)
    kept_values = _Kept(writer, inner, level)
    row = _store_rows(writer, [n for n in plan.outputs if level[n] == 0])
    for phase in range(last + 1):
        stores = [n for n in plan.outputs if level[n] == phase and _is_full(plan, n)]
        folds = [n for n in plan.nodes if n.op.kind == "reduction" and level[n] == phase + 1]
        if stores or folds:
            row += _pass(writer, inner, stores, folds, kept_values, phase)
        row += _store_rows(writer, [n for n in plan.outputs if level[n] == phase + 1])
    extent = product(loop.size for loop in outer)
    lines = ["for r in range(lo, hi):", *indent([*unravel(outer, "r", parameters), *row])]
    grain = _row_grain(width)
    return _finish(writer, name, lines, extent, grain, product(plan.axes), kept_values.bytes)


def _is_full(plan: Plan, node: Node) -> bool:
    """Whether the node has a value for every element of the row."""
    reduced = {f"a{a}" for a in plan.reduced}
    return any(v in reduced for i in plan.placement[node] for v in i.terms)


def _store_rows(writer: Writer, nodes: Sequence[Node]) -> list[str]:
    """Writes the row's own results among `nodes`."""
    lines: list[str] = []
    for node in nodes:
        if not _is_full(writer.plan, node):
            statement = writer.store(node, writer.element(node), ROW)
            lines += [*writer.scalars.scopes[ROW].lines, statement]
            writer.scalars.scopes[ROW].lines.clear()
    return lines


def _pass(
    writer: Writer,
    inner: list[Loop],
    stores: list[Node],
    folds: list[Node],
    kept: _Kept,
    phase: int,
) -> list[str]:
    """One pass over the row: folds into reductions, stores what is known by now."""
    scalars, parameters = writer.scalars, writer.parameters
    scalars.begin(INNER)
    kept.offer(phase)
    in_chunks = bool(inner) and not (isinstance(inner[-1].size, int) and inner[-1].size <= CHUNK)
    accumulators, body = [], []
    for node in folds:
        source = node.inputs[0]
        value = scalars.value(source, reduction_index(node, writer.plan.placement[node], writer.plan.reduced))
        accumulator = _Accumulator(
            node,
            scalars.fresh("s"),
            scalars.fresh("s") if in_chunks and _sums_floats(node) else None,
            scalars.fresh("k") if node.op.lowering.arg else None,
        )
        accumulators.append(accumulator)
        body += _fold(accumulator, value, inner, parameters)
    values = [(n, writer.element(n)) for n in stores]
    keeps = kept.statements(phase)
    body = [*scalars.scopes[INNER].lines, *body, *keeps, *(writer.store(n, v, INNER) for n, v in values)]
    before = list(scalars.scopes[ROW].lines)
    scalars.scopes[ROW].lines.clear()
    for accumulator in accumulators:
        before += _start(accumulator)
    if any(a.partial for a in accumulators):
        loop = _chunked(inner, body, accumulators, scalars, parameters)
    else:
        loop = nest(inner, body, parameters)
    for accumulator in accumulators:
        result = accumulator.place or accumulator.variable
        key = (accumulator.node, normalize(writer.plan.placement[accumulator.node], accumulator.node.shape))
        scalars.given[key] = Value(result, ROW)
    return [*before, *loop]


def _sums_floats(node: Node) -> bool:
    return node.op.name == "sum" and node.dtype.kind == "float"


def _start(accumulator: _Accumulator) -> list[str]:
    node = accumulator.node
    dtype = node.inputs[0].dtype
    lines = [f"{accumulator.variable} = {literal(node.op.lowering.init(dtype), dtype)}"]
    if accumulator.place:
        lines.append(f"{accumulator.place} = i64(-1)")
    return lines


def _fold(accumulator: _Accumulator, value: Value, inner: Sequence[Loop], parameters: Parameters) -> list[str]:
    node = accumulator.node
    target = accumulator.partial or accumulator.variable
    combined = combine(node, target, value.text)
    if not accumulator.place:
        return [f"{target} = {combined}"]
    position = "i64(0)"
    for loop in inner:
        position = f"({position}) * {parameters.size(loop.size)} + {loop.variable}"
    return [
        f"if ({accumulator.place} < 0) or ({combined}):",
        f"    {accumulator.variable} = {value.text}",
        f"    {accumulator.place} = {position}",
    ]


def combine(node: Node, total: str, value: str) -> str:
    """The text that folds a value into a running total."""
    dtype: DType = node.inputs[0].dtype
    template = node.op.lowering.combine[dtype.kind]
    return template.format(total, value, t=suffix(dtype), o=suffix(node.dtype))


def _chunked(
    inner: list[Loop], body: list[str], sums: list[_Accumulator], scalars: Scalars, parameters: Parameters
) -> list[str]:
    """The pass in chunks of the last axis; float sums of a chunk meet the total once."""
    loop = inner[-1]
    size = parameters.size(loop.size)
    start, end = scalars.fresh("b"), scalars.fresh("e")
    inside = [f"{end} = minimum_i64({start} + {CHUNK}, {size})"]
    after = []
    for a in sums:
        if a.partial:
            inside.append(f"{a.partial} = {literal(0, a.node.dtype)}")
            after.append(f"{a.variable} = {a.variable} + {a.partial}")
    inside += [f"for {loop.variable} in range({start}, {end}):", *indent(body), *after]
    chunk = [f"for {start} in range(0, {size}, {CHUNK}):", *indent(inside)]
    return nest(inner[:-1], chunk, parameters)


class _Kept:
    """Dear values that several passes need, held in a row of scratch memory between them."""

    def __init__(self, writer: Writer, inner: list[Loop], level: dict[Node, int]):
        self.writer = writer
        self.inner = inner
        self.bytes: Size = 0
        self.slots: dict[Node, tuple[str, int]] = {}
        if len(inner) != 1:
            return
        plan = writer.plan
        passes = {n: _passes_using(n, plan, level) for n in plan.nodes if n.op.kind == "elementwise"}
        for node in plan.nodes:
            if node.op.kind != "elementwise" or not _is_full(plan, node):
                continue
            if node.op.lowering.cost >= DEAR and len(passes[node]) > 1:
                item = node.dtype.itemsize
                offset = self.bytes
                row = inner[0].size * item
                self.bytes = offset + ceil_div(row, 64) * 64
                start = writer.parameters.size(offset)
                text = f"ptr_{suffix(node.dtype)}(scratch + {start})"
                self.slots[node] = (text, min(passes[node]))

    def offer(self, phase: int) -> None:
        """Makes what earlier passes kept known to this one."""
        scalars = self.writer.scalars
        for node, (text, first) in self.slots.items():
            if phase > first:
                pointer = scalars.let(text, PROLOGUE, "row")
                key = (node, normalize(self.writer.plan.placement[node], node.shape))
                scalars.given[key] = Value(f"{pointer.text}[{self.inner[0].variable}]", INNER)

    def statements(self, phase: int) -> list[str]:
        """Stores of what this pass keeps for later ones."""
        scalars = self.writer.scalars
        lines = []
        for node, (text, first) in self.slots.items():
            if phase == first:
                value = self.writer.element(node)
                pointer = scalars.let(text, PROLOGUE, "row")
                lines.append(f"{pointer.text}[{self.inner[0].variable}] = {value.text}")
        return lines


def _passes_using(node: Node, plan: Plan, level: dict[Node, int]) -> set[int]:
    """The passes whose folds or stores need the node's elements."""
    mine = set(plan.nodes)
    readers: dict[Node, list[Node]] = {}
    for n in plan.nodes:
        stack = list(n.inputs)
        while stack:
            source = stack.pop()
            if source in mine:
                readers.setdefault(source, []).append(n)
            elif source.op.kind in ("view", "reshape", "elementwise"):
                stack.extend(source.inputs)
    found, stack, seen = set(), [node], {node}
    while stack:
        current = stack.pop()
        if current in plan.outputs and _is_full(plan, current):
            found.add(level[current])
        for reader in readers.get(current, ()):
            if reader.op.kind == "reduction":
                found.add(level[reader] - 1)
            elif reader not in seen and _is_full(plan, reader):
                seen.add(reader)
                stack.append(reader)
    return found


# ---------------------------------------------------------------------------------------------- columns


def _emit_column(writer: Writer, addresses: Sequence[Index], name: str) -> Loops:
    plan, scalars, parameters = writer.plan, writer.scalars, writer.parameters
    first, last = plan.reduced[0], plan.reduced[-1]
    before = merged(range(first), plan.axes, addresses, "i")
    along = merged(plan.reduced, plan.axes, addresses, "k")
    across = merged(range(last + 1, len(plan.axes)), plan.axes, addresses, "c")
    middle = [Loop(f"m{i}", loop.size, loop.axes) for i, loop in enumerate(across[:-1])]
    column = Loop("j", across[-1].size, across[-1].axes)
    outer = [*before, *middle]
    bind(scalars, [*outer, *along], ROW)
    bind(scalars, [column], INNER)
    folds = [n for n in plan.nodes if n.op.kind == "reduction"]
    stores = [n for n in plan.outputs if n not in folds]
    width = parameters.size(column.size)
    blocks = parameters.size(ceil_div(column.size, COLUMNS))
    body: list[str] = []
    names = [(n, scalars.fresh("s"), scalars.fresh("q") if _sums_floats(n) else None) for n in folds]
    for node, total, partial in names:
        value = scalars.value(node.inputs[0], reduction_index(node, plan.placement[node], plan.reduced))
        target = partial or total
        body.append(f"{target}[j - c0] = {combine(node, f'{target}[j - c0]', value.text)}")
    values = [(n, writer.element(n)) for n in stores]
    body = [*scalars.scopes[INNER].lines, *body, *(writer.store(n, v, INNER) for n, v in values)]
    step = [*scalars.scopes[ROW].lines, "for j in range(c0, c1):", *indent(body)]
    lines, after = [], []
    for node, total, partial in names:
        dtype = node.dtype
        lines.append(f"{total} = stack_{suffix(dtype)}({COLUMNS})")
        initial = literal(node.op.lowering.init(dtype), dtype)
        lines += [f"for j in range(0, {COLUMNS}):", f"    {total}[j] = {initial}"]
        if partial:
            lines.append(f"{partial} = stack_{suffix(dtype)}({COLUMNS})")
        address = scalars.index_text(flat_index(plan.placement[node], node.shape))
        pointer = parameters.pointer(node, dtype, write=True)
        after += ["for j in range(c0, c1):", f"    {pointer}[{address.text}] = {total}[j - c0]"]
    lines += _walk(along, step, names, parameters)
    rows = [
        f"u = floordiv_i64(r, {blocks})",
        f"c0 = (r - u * {blocks}) * {COLUMNS}",
        f"c1 = minimum_i64(c0 + {COLUMNS}, {width})",
        *unravel(outer, "u", parameters),
        *lines,
        *after,
    ]
    extent = product(loop.size for loop in outer) * ceil_div(column.size, COLUMNS)
    return _finish(writer, name, ["for r in range(lo, hi):", *indent(rows)], extent, 1, product(plan.axes))


def _walk(
    along: list[Loop], step: list[str], names: list[tuple[Node, str, str | None]], parameters: Parameters
) -> list[str]:
    """The loops along the reduced axes; float sums are gathered over runs of rows before they meet the total."""
    partials = [(total, partial, n) for n, total, partial in names if partial]
    if not partials:
        return nest(along, step, parameters)
    run = along[-1]
    size = parameters.size(run.size)
    clear, flush = [], []
    for total, partial, node in partials:
        clear += ["for j in range(0, c1 - c0):", f"    {partial}[j] = {literal(0, node.dtype)}"]
        flush += ["for j in range(0, c1 - c0):", f"    {total}[j] = {total}[j] + {partial}[j]"]
    inside = [*clear, f"for {run.variable} in range(kb, minimum_i64(kb + 256, {size})):", *indent(step), *flush]
    return nest(along[:-1], [f"for kb in range(0, {size}, 256):", *indent(inside)], parameters)
