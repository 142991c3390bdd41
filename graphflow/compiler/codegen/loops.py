"""Loop nests: what the emitters of map, row and column kernels share, and map kernels.

Axes of the domain are merged where every address allows it, so that contiguous data is one flat loop; the
last axis is the innermost, vectorised loop; the outer axes are the range that threads share.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field

from graphflow.compiler.codegen.kernel import Loops, Parameters, Size, suffix
from graphflow.compiler.codegen.scalar import INNER, PROLOGUE, ROW, Memory, Scalars, Value
from graphflow.compiler.indexing import Index, flat_index, numel
from graphflow.compiler.ir import Node
from graphflow.dims import product
from graphflow.dtypes import DType

Position = tuple[Index, ...]
ROW_LENGTH = 32  # elements that pay for the divisions which tell a row's place
LONGEST_ROW = 1024  # elements of a row made of several loops
#: Lengths of innermost loops that LLVM would write out before it makes vectors. It would then have the loop
#: over rows, whose elements are scattered: so it isn't told the length, only that it is no longer.
VECTOR_ROWS = (16, 24, 32)


@dataclass(frozen=True)
class Plan:
    """What the emitters are told about a unit: see ``passes.unit.Unit``. Borders keep
    them from asking themselves.
    """

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
    memory: Memory
    scalars: Scalars = field(init=False)
    parameters: Parameters = field(init=False)
    store_addresses: list[Index] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything written."""
        memory = self.memory
        self.parameters = Parameters(memory.buffer_of)
        self.scalars = Scalars(self.parameters, frozenset(self.plan.nodes), memory.stored, memory.status)

    def element(self, node: Node) -> Value:
        """The value of a node at its place in the domain."""
        return self.scalars.value(node, self.plan.placement[node])

    def store(self, node: Node, value: Value, level: int) -> str:
        """The statement that writes an output's element."""
        statements = []
        for whole, index in self.memory.places(node, self.plan.placement[node]):
            address = self.scalars.index_text(flat_index(index, whole.shape))
            pointer = self.parameters.pointer(whole, node.dtype, write=True)
            statements.append(f"{pointer}[{address.text}] = {value.text}")
        return "; ".join(statements)


def merged(axes: Sequence[int], sizes: Sequence[Size], addresses: Sequence[Index], prefix: str) -> list[Loop]:
    """The fewest loops over the axes that all addresses can be written in."""
    loops: list[Loop] = []
    for a in axes:
        if sizes[a] == 1:
            continue
        if loops:
            before = loops[-1].axes[-1]
            if all(
                address.terms.get(f"a{before}", 0) == address.terms.get(f"a{a}", 0) * sizes[a]
                for address in addresses
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
    for number, loop in enumerate(reversed(loops)):
        size = parameters.size(loop.size)
        if number == 0 and loop.size in VECTOR_ROWS:
            size = f"minimum_i64({parameters.runtime_size(loop.size)}, {size})"
        body = [f"for {loop.variable} in range(0, {size}):", *indent(body or ["pass"])]
    return body


Emitter = Callable[[Writer, Sequence[Index], str], list[Loops]]


def write(emitter: Emitter, plan: Plan, memory: Memory, name: str) -> list[Loops]:
    """The kernels of a unit, as one of the emitters writes them."""
    writer = Writer(plan, memory)
    # The first writing only finds out which addresses there are; the second has the axes merged.
    kernels = emitter(writer, [Index({f"a{i}": 2**61 + i for i in range(len(plan.axes))})], name)
    if sum(size != 1 for size in plan.axes) <= 1:
        return kernels  # there was nothing to merge
    addresses = list(writer.scalars.addresses)
    writer.reset()
    return emitter(writer, addresses, name)


def sums_floats(node: Node) -> bool:
    """Whether the node is a sum that rounds."""
    return node.op.name == "sum" and node.dtype.kind == "float"


def combine(node: Node, total: str, value: str) -> str:
    """The text that folds a value into a running total."""
    dtype: DType = node.inputs[0].dtype
    template: str = node.op.lowering.combine[dtype.kind]
    return template.format(total, value, t=suffix(dtype), o=suffix(node.dtype))


def traffic(plan: Plan, stored: Container[Node]) -> Size:
    """Bytes the kernel moves at least: every distinct operand and result once."""
    found: dict[Node, None] = dict.fromkeys(plan.outputs)
    stack, seen = [i for n in plan.nodes for i in n.inputs], set(plan.nodes)
    while stack:
        node = stack.pop()
        if node in seen or node.op.kind == "const":
            continue
        seen.add(node)
        if node.op.kind == "input" or node in stored:
            found[node] = None
        else:
            stack.extend(node.inputs)  # a view, or a value that is computed again
    total: Size = 0
    for node in found:
        total = total + numel(node.shape) * node.dtype.itemsize
    return total


def work_of(nodes: Sequence[Node], full: Size) -> Size:
    """Instructions a kernel spends on its elements."""
    per_element = sum(
        n.op.lowering.cost if n.op.kind == "elementwise" else 60 if n.op.kind == "generator" else 1
        for n in nodes
    )
    return full * max(per_element, 1)


# ---------------------------------------------------------------------------------------------- map


def emit_map(writer: Writer, addresses: Sequence[Index], name: str) -> list[Loops]:
    """Every element by itself: one flat loop, or rows of one."""
    plan, scalars, parameters = writer.plan, writer.scalars, writer.parameters
    loops = merged(range(len(plan.axes)), plan.axes, addresses, "x")
    full = product(plan.axes)
    outer, inner = divided(loops)
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
        grain = row_grain(product(loop.size for loop in inner))
    return [finish(writer, name, lines, extent, grain, full)]


def divided(loops: list[Loop]) -> tuple[list[Loop], list[Loop]]:
    """The loops that threads share, whose variables cost divisions, and those inside a row of enough
    elements.
    """
    split = max(len(loops) - 1, 0)
    width = loops[split].size if loops else 1
    while split > 1 and isinstance(width, int) and width < ROW_LENGTH:
        wider = loops[split - 1].size * width
        if not isinstance(wider, int) or wider > LONGEST_ROW:
            break  # enough rows have to be left for the threads
        split, width = split - 1, wider
    return loops[:split], loops[split:]


def row_grain(width: Size) -> int:
    """The least number of rows worth a share of their own."""
    return max(1, 2048 // width) if isinstance(width, int) and width > 0 else 1


def finish(
    writer: Writer, name: str, lines: list[str], extent: Size, grain: int, full: Size, scratch: Size = 0
) -> Loops:
    """The kernel out of its loops; `full` is the number of elements of the domain."""
    plan, parameters = writer.plan, writer.parameters
    text = "\n".join([*writer.scalars.scopes[PROLOGUE].lines, *lines])
    return Loops(
        parameters.function(name, text),
        tuple(parameters.args),
        extent,
        grain,
        scratch,
        traffic(plan, writer.memory.stored),
        work_of(plan.nodes, full),
        tuple(parameters.reads),
        tuple(parameters.writes),
    )
