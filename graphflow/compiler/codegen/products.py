"""Kernels that aren't plain loop nests: matrix products with epilogues, scatters,
concatenations, shared ranges.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import llvmlite.ir as ll

from graphflow.compiler.access import broadcast_index, resolve, strip_reshapes
from graphflow.compiler.codegen import llvm, matmul, matmul_gather
from graphflow.compiler.codegen.kernel import Loops, Parameters, Size, suffix
from graphflow.compiler.codegen.loops import Loop, Plan, Writer, bind, indent, merged, nest, unravel, work_of
from graphflow.compiler.codegen.scalar import INNER, PROLOGUE, ROW, Memory, Scalars, Value, literal
from graphflow.compiler.indexing import Index, contiguous_strides, flat_index, numel
from graphflow.compiler.ir import Node
from graphflow.compiler.spread import Part, Spread, spread
from graphflow.dims import Dim, ceil_div, product
from graphflow.dtypes import DType
from graphflow.runtime.program import BufferArg

COLUMNS = 512  # columns that one share of a scatter owns


# -------------------------------------------------------------------------------------------- matrix products


@dataclass(frozen=True)
class Operand:
    """A product's operand in memory: where its first element is, and strides along batch
    dimensions and both axes; or a packer, where strides can't say it. `dims` and `overlaps` are as its
    `Spread` has them.
    """

    buffer: BufferArg
    batch: tuple[Size, ...]
    strides: tuple[Size, Size]
    packer: matmul_gather.Packer | None = None
    dims: tuple[tuple[Part, ...], ...] = ()
    overlaps: bool = False


@dataclass(frozen=True)
class Product:
    """A matrix product as a core takes it; `epilogue` None stores sums into `c`, `addend` added to them.
    `indirect` products are for ``codegen.matmul_indirect``. `kept` says how B is packed already, see
    ``codegen.matmul_arguments``. Of a `turned` one the operands are exchanged, not what the epilogue sees.
    """

    node: Node
    m: Size
    n: Size
    k: Size
    batch: tuple[Size, ...]
    a: Operand
    b: Operand
    c: Operand | None
    epilogue: Loops | None
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    indirect: bool
    turned: bool
    addend: tuple[BufferArg, Size, Size] | None = None  # what the core adds to the sums, and its strides
    kept: int = 0


@dataclass(frozen=True)
class Packing:
    """A copy of an operand as a core packs it (``codegen.matmul_keep``): of B in the way `kept`, of A if that
    is 0. `rows` are A's rows or B's columns, `batch` has size, stride and the copy's stride of each
    dimension.
    """

    dtype: DType
    kept: int
    rows: Size
    k: Size
    batch: tuple[tuple[Size, Size, Size], ...]
    source: Operand
    copy: int

    @property
    def reads(self) -> tuple[int, ...]:
        """The buffer that it copies from."""
        return (self.source.buffer.buffer,)

    @property
    def writes(self) -> tuple[int, ...]:
        """The buffer of the copy."""
        return (self.copy,)


def emit_product(plan: Plan, memory: Memory, name: str) -> Product:
    """The product of a contract unit with the rest of the unit as its epilogue."""
    node = plan.nodes[0]
    left, right = node.inputs
    batch = node.shape[:-2]
    m, n, k = node.shape[-2], node.shape[-1], left.shape[-1]
    first, second = _places(left, batch, memory), _places(right, batch, memory)
    epilogue, c, addend = None, None, None
    reads: tuple[int, ...] = ()
    writes: tuple[int, ...]
    turned = _better_turned(first, second, m, node.dtype)
    added = None if turned or any(_in_place(first, second, node.dtype)) else _addend(plan, memory)
    if plan.nodes == (node,) or added is not None:
        ((whole, origin),) = memory.places(plan.outputs[0], (Index(),) * len(node.shape))
        strides = contiguous_strides(whole.shape)
        row, column = strides[-2:]
        if added is not None:
            base, offset, *steps = added
            addend = (BufferArg(memory.buffer_of(base), offset), steps[0], steps[1])
            reads = (memory.buffer_of(base),)
        elif second.is_merged and _longer(second.run(-2), second.run(-1)):
            turned = True  # the transpose of the right operand is copied in longer runs
        row, column = (column, row) if turned else (row, column)
        start = flat_index(origin, whole.shape).offset
        c = Operand(BufferArg(memory.buffer_of(whole), start), strides[:-2], (row, column))
        writes = (memory.buffer_of(whole),)
    else:
        epilogue = _emit_epilogue(plan, memory, name + "_epilogue")
        reads, writes = epilogue.reads, epilogue.writes
    if turned:
        first, second, m, n = second.turned, first.turned, n, m
    along_a, along_b = _in_place(first, second, node.dtype)
    a, b = _operand(first, "a", node, memory, along_a), _operand(second, "b", node, memory, along_b)
    reads = (*reads, a.buffer.buffer, b.buffer.buffer)
    return Product(node, m, n, k, batch, a, b, c, epilogue, reads, writes, along_a or along_b, turned, addend)


def _addend(plan: Plan, memory: Memory) -> tuple[Node, Size, Size, Size] | None:
    """What is all that a product is added to, if the core does that well: a matrix or a row in memory.

    The place of its first element there, and its strides along the product's rows and columns. The sum is
    the same that an epilogue would make.
    """
    node, *rest = plan.nodes
    depth = node.inputs[0].shape[-1]
    if len(rest) != 1 or rest[0].op.name != "add" or plan.outputs != (rest[0],) or len(node.shape) != 2:
        return None
    if rest[0].shape != node.shape or not isinstance(depth, int):
        return None
    if not 0 < depth <= matmul.blocking(node.dtype.itemsize, llvm.host()).depth:
        return None
    others = [i for i in rest[0].inputs if i is not node]
    if len(others) != 1:
        return None
    place = broadcast_index(plan.placement[rest[0]], others[0].shape)
    access = resolve(others[0], place, memory.stored)
    base, address = access.base, access.address
    if base in plan.nodes or not (base.op.kind == "input" or base in memory.stored):
        return None
    row, column = (address.terms.get(f"a{d}", 0) for d in (0, 1))
    if column != 1 and node.shape[1] != 1:
        return None
    return base, address.offset, row, column


#: A's neighbours along the depth are at most so many elements apart where A is read without a copy.
NEAR = 4


def _in_place(first: Spread, second: Spread, dtype: DType) -> tuple[bool, bool]:
    """Which operands are read where they lie instead of being packed: those of whose elements each is in
    several rows or columns, as an image's are in several windows, so that copies would be more memory.

    Rows of A may lie anywhere, but not every k of them in a cache line of its own. Columns of B are read
    as vectors.
    """
    if not first.steps_within(NEAR):
        return False, False
    along_a = first.is_merged and first.overlaps
    run = second.run(-1)
    lanes = matmul.blocking(dtype.itemsize, llvm.host()).lanes
    along_b = second.is_merged and second.overlaps and isinstance(run, int) and run % lanes == 0
    return along_a or (along_b and first.is_merged), along_b


def _better_turned(first: Spread, second: Spread, m: Size, dtype: DType) -> bool:
    """Whether windows that can't be read as vectors of columns are read as rows: if the other operand, which
    is packed then, has enough rows to make vectors of.
    """
    windows = second.is_merged and second.overlaps and second.turned.steps_within(NEAR)
    enough = not isinstance(m, int) or m >= matmul.blocking(dtype.itemsize, llvm.host()).lanes
    return windows and enough and not _in_place(first, second, dtype)[1]


def _longer(one: Size, other: Size) -> bool:
    """Whether a run is the longer one; one whose length is a symbol is taken for long."""
    if isinstance(one, int) and isinstance(other, int):
        return one > other
    return isinstance(other, int) and not isinstance(one, int)


def _places(node: Node, batch: tuple[Size, ...], memory: Memory) -> Spread:
    """Where an operand's elements are, for every dimension of the product's batch too."""
    found = spread(node, memory.stored)
    if found is None:
        raise AssertionError(f"{node} isn't in memory as a product's operand has to be")
    missing = len(batch) - (len(node.shape) - 2)
    same = ((),) * missing  # the same matrix for every item
    return found._replace(dims=(*same, *found.dims))


def _operand(places: Spread, side: str, node: Node, memory: Memory, in_place: bool) -> Operand:
    """An operand as a core takes it: by strides, or through a function of its own."""
    buffer = BufferArg(memory.buffer_of(places.base), places.offset)
    seen = places.dims, places.overlaps
    if not places.is_merged:
        strides = [parts[0][1] if parts else 0 for parts in places.dims]
        return Operand(buffer, tuple(strides[:-2]), (strides[-2], strides[-1]), None, *seen)
    batch: list[tuple[Size, Size]] = []
    for size, parts in zip(node.shape, places.dims[:-2], strict=False):
        batch += parts or [(size, 0)]
    rows, depth = places.dims[-2:] if side == "a" else places.dims[:-3:-1]
    make = matmul_gather.locator if in_place else matmul_gather.packer
    made = make(node.dtype, side, buffer, batch, rows, depth)
    return Operand(buffer, (0,) * len(places.dims[:-2]), (0, int(in_place)), made, *seen)


def _emit_epilogue(plan: Plan, memory: Memory, name: str) -> Loops:
    writer = Writer(plan, memory)
    scalars, parameters = writer.scalars, writer.parameters
    node = plan.nodes[0]
    rank = len(node.shape)
    loops = [Loop(f"x{d}", node.shape[d], (d,)) for d in range(rank - 2) if node.shape[d] != 1]
    row, column = Loop("i", node.shape[-2], (rank - 2,)), Loop("j", node.shape[-1], (rank - 1,))
    bind(scalars, [*loops, row], ROW)
    bind(scalars, [column], INNER)
    scalars.given[(node, plan.placement[node])] = Value("tile[(i - row0) * ld + (j - col0)]", INNER)
    values = [(n, writer.element(n)) for n in plan.outputs]
    stores = [writer.store(n, v, INNER) for n, v in values]
    body = [
        *unravel(loops, "batch", parameters),
        "for i in range(row0, row1):",
        *indent([*scalars.scopes[ROW].lines, "for j in range(col0, col1):"]),
        *indent([*scalars.scopes[INNER].lines, *stores], 2),
    ]
    trailing = (
        *((v, "i64") for v in ("batch", "row0", "row1", "col0", "col1")),
        ("tile", suffix(node.dtype) + "*"),
        ("ld", "i64"),
    )
    text = "\n".join([*scalars.scopes[PROLOGUE].lines, *body])
    function = parameters.function(name, text, tuple(trailing))
    extra: Size = 0
    for other in plan.nodes[1:]:
        for operand in other.inputs:
            if operand not in plan.nodes and operand.op.kind != "const":
                extra = extra + numel(operand.shape) * operand.dtype.itemsize
    return Loops(
        function,
        tuple(parameters.args),
        1,
        1,
        bytes=extra,
        flops=work_of(plan.nodes[1:], numel(node.shape)),
        reads=tuple(parameters.reads),
        writes=tuple(parameters.writes),
    )


# ---------------------------------------------------------------------------------------------- scatter


def emit_scatter(plan: Plan, memory: Memory, name: str) -> Loops:
    """Zeros with elements added at computed positions, in order: the result doesn't depend on the threads.

    A share owns a block of columns (what follows the indexed dimension) of one position before it.
    """
    node = plan.nodes[0]
    src, index = (strip_reshapes(i) for i in node.inputs)
    dim, size = node.attrs["dim"], node.attrs["size"]
    source = node.inputs[0].shape
    whole = node.op.name == "put_add"
    count = len(node.inputs[1].shape) if whole else 1
    before, along, after = numel(source[:dim]), numel(source[dim : dim + count]), numel(source[dim + count :])
    parameters = Parameters(memory.buffer_of)
    scalars = Scalars(parameters, frozenset(), memory.stored, memory.status)
    out = parameters.pointer(node, node.dtype, write=True)
    values, positions = _elements(src, parameters), _elements(index, parameters)
    width, rows, length = parameters.size(after), parameters.size(size), parameters.size(along)
    blocks = parameters.size(ceil_div(after, COLUMNS))

    def add(row: Value) -> str:
        target = f"{out}[(u * {rows} + {row.text}) * {width} + j]"
        value = values(f"(u * {length} + l) * {width} + j")
        return f"{target} = {target} {'|' if node.dtype.kind == 'bool' else '+'} {value}"

    if whole:
        place = scalars.checked(scalars.let(positions("l"), ROW), rows, node)
        step = [*scalars.scopes[ROW].lines, "for j in range(c0, c1):", *indent([add(place)])]
    else:
        raw = scalars.let(positions(f"(u * {length} + l) * {width} + j"), INNER)
        statement = add(scalars.checked(raw, rows, node))
        step = ["for j in range(c0, c1):", *indent([*scalars.scopes[INNER].lines, statement])]
    body = [
        f"u = floordiv_i64(r, {blocks})",
        f"c0 = (r - u * {blocks}) * {COLUMNS}",
        f"c1 = minimum_i64(c0 + {COLUMNS}, {width})",
        f"for z in range(0, {rows}):",
        "    for j in range(c0, c1):",
        f"        {out}[(u * {rows} + z) * {width} + j] = {literal(0, node.dtype)}",
        f"for l in range(0, {length}):",
        *indent(step),
    ]
    text = "\n".join(["for r in range(lo, hi):", *indent(body)])
    moved = (numel(node.shape) + 2 * numel(source)) * node.dtype.itemsize
    return Loops(
        parameters.function(name, text),
        tuple(parameters.args),
        before * ceil_div(after, COLUMNS),
        1,
        bytes=moved,
        flops=numel(source) * 2,
        reads=tuple(parameters.reads),
        writes=tuple(parameters.writes),
    )


def _elements(node: Node, parameters: Parameters) -> Callable[[str], str]:
    """The text of a node's element at a flat position: in memory, or the same one everywhere."""
    if node.op.kind == "const":
        value = node.attrs["value"]
        text = literal(value, node.dtype) if not isinstance(value, Dim) else parameters.size(value)
        return lambda position: text
    pointer = parameters.pointer(node, node.dtype)
    return lambda position: f"{pointer}[{position}]"


# ---------------------------------------------------------------------------------------------- concatenation


def emit_cat(plan: Plan, memory: Memory, name: str) -> list[Loops]:
    """One copy kernel for each part that isn't in its place by itself."""
    node = plan.nodes[0]
    dim = node.attrs["dim"]
    start: Size = 0
    kernels = []
    for part in node.inputs:
        there = memory.inside.get(strip_reshapes(part), ())
        if all(place.whole is not node for place in there):
            kernels.append(_copy_into(node, part, dim, start, memory, name))
        start = start + part.shape[dim]
    return kernels


def _copy_into(
    node: Node,
    part: Node,
    dim: int,
    start: Size,
    memory: Memory,
    name: str,
) -> Loops:
    axes = part.shape
    addresses = [Index({f"a{i}": 2**61 + i for i in range(len(axes))})]
    for _ in range(2):  # first to learn the addresses, then with axes merged
        parameters = Parameters(memory.buffer_of)
        scalars = Scalars(parameters, frozenset(), memory.stored, memory.status)
        loops = merged(range(len(axes)), axes, addresses, "x")
        bind(scalars, loops[:-1], ROW)
        bind(scalars, loops[-1:], INNER)
        index = [Index() if s == 1 else Index.of(f"a{d}") for d, s in enumerate(axes)]
        value = scalars.value(part, index)
        there = [i + start if d == dim else i for d, i in enumerate(index)]
        address = scalars.index_text(flat_index(there, node.shape))
        pointer = parameters.pointer(node, node.dtype, write=True)
        body = [*scalars.scopes[INNER].lines, f"{pointer}[{address.text}] = {value.text}"]
        outer = loops[:-1]
        rows = [
            *unravel(outer, "r", parameters),
            *scalars.scopes[ROW].lines,
            *nest(loops[-1:], body, parameters),
        ]
        addresses = list(scalars.addresses)
    lines = [*scalars.scopes[PROLOGUE].lines, "for r in range(lo, hi):", *indent(rows)]
    return Loops(
        parameters.function(name, "\n".join(lines)),
        tuple(parameters.args),
        product(loop.size for loop in outer),
        1,
        bytes=2 * numel(axes) * node.dtype.itemsize,
        flops=numel(axes),
        reads=tuple(parameters.reads),
        writes=tuple(parameters.writes),
    )


# ------------------------------------------------------------------------------------------ many calls as one


@functools.cache
def shared_range() -> tuple[str, str]:
    """Symbol and IR of the kernel that runs one other kernel over several argument blocks as one range.

    Its block is: number of pieces, function, then for every piece the first unit of the common range that is
    its own and its argument block, and last the end of the range. So one command updates all parameters.
    """
    module = ll.Module("shared_range", context=ll.Context())
    word, byte_pointer = ll.IntType(64), ll.IntType(8).as_pointer()
    kernel = ll.FunctionType(ll.VoidType(), [word.as_pointer(), word, word, byte_pointer])
    function = ll.Function(module, kernel, "gf_shared_range")
    args, lo, hi, scratch = function.args
    entry, head, body, call, step, leave = (
        function.append_basic_block(n) for n in ("entry", "head", "body", "call", "step", "leave")
    )
    b = ll.IRBuilder(entry)
    zero, one, two = (ll.Constant(word, v) for v in (0, 1, 2))

    def load(position: ll.Value) -> ll.Value:
        return b.load(b.gep(args, [position]))

    count = load(zero)
    target = b.inttoptr(load(one), kernel.as_pointer())
    b.branch(head)
    b.position_at_end(head)
    piece = b.phi(word)
    piece.add_incoming(zero, entry)
    b.cbranch(b.icmp_signed("<", piece, count), body, leave)
    b.position_at_end(body)
    position = b.add(two, b.mul(piece, two))
    start, block, end = load(position), load(b.add(position, one)), load(b.add(position, two))
    low = b.select(b.icmp_signed(">", lo, start), lo, start)
    high = b.select(b.icmp_signed("<", hi, end), hi, end)
    b.cbranch(b.icmp_signed("<", low, high), call, step)
    b.position_at_end(call)
    pointer = b.inttoptr(block, word.as_pointer())
    b.call(target, [pointer, b.sub(low, start), b.sub(high, start), scratch])
    b.branch(step)
    b.position_at_end(step)
    piece.add_incoming(b.add(piece, one), step)
    b.branch(head)
    b.position_at_end(leave)
    b.ret_void()
    return "gf_shared_range", str(module)
