"""Tiled kernels: a procedure over tiles of matrices that calls the matrix core, for each batch item or part.

Operands are read through their strides, so that transposed and repeated ones aren't copied. Tiles live in
scratch memory, which is small enough to stay in the nearer caches. Where there are few batch items, threads
share the blocks of one: a second kernel adds up what the shares leave. How many there are depends on sizes
alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphflow.compiler.codegen import matmul
from graphflow.compiler.codegen.kernel import Loops, Parameters, Size, suffix
from graphflow.compiler.codegen.loops import Loop, Plan, indent, unravel
from graphflow.compiler.codegen.routines import ITEM_SIZES, Array, arrays, result
from graphflow.compiler.codegen.scalar import Memory
from graphflow.compiler.indexing import numel
from graphflow.compiler.ir import Node, TupleType
from graphflow.compiler.spread import spread
from graphflow.dims import ceil_div, product

MOST_SHARES = 8  # of all batch items together
MANY = 2**40  # more than there are batch items, or blocks of one


@dataclass(frozen=True)
class _Shares:
    """How blocks of few batch items are shared: the result that every share has its own of, and the buffer
    for those; the number of batch items, and that of an item's blocks.
    """

    result: Array
    left: int
    items: Size
    blocks: Size

    def lines(self, parameters: Parameters) -> list[str]:
        """The statement that tells how many shares an item has."""
        items = f"maximum_i64({parameters.size(self.items)}, 1)"
        most = f"minimum_i64(floordiv_i64({MOST_SHARES}, {items}), {parameters.size(self.blocks)})"
        return [f"shares = maximum_i64(1, {most})"]

    @property
    def are_several(self) -> Size:
        """1 where an item has several shares, else 0."""
        few = ceil_div(MOST_SHARES // 2 + 1 - self.items, MANY)
        return few * ceil_div(self.blocks - 1, MANY)


def _shares(plan: Plan, memory: Memory, sizes: Mapping[str, Size], items: Size) -> _Shares | None:
    """How the unit's blocks are shared, if they can be."""
    node = plan.nodes[0]
    tiled = node.op.lowering
    if tiled.shared is None:
        return None
    of, block, name = tiled.shared
    blocks = ceil_div(sizes[of], tiled.tiles[block])
    if (isinstance(items, int) and items > MOST_SHARES // 2) or (isinstance(blocks, int) and blocks < 2):
        return None
    result = next(array for array in arrays(tiled.signature.split("->")[1]) if array.name == name)
    shape = (MOST_SHARES, *(sizes[key] for key in result.sizes))
    return _Shares(result, memory.temporary((node, "shares"), node.inputs[0].dtype, shape), items, blocks)


def emit_tiled(plan: Plan, memory: Memory, name: str) -> list[Loops]:
    """The kernel of an op over tiles, and what adds up the shares it leaves."""
    node = plan.nodes[0]
    tiled = node.op.lowering
    before, after = tiled.signature.split("->")
    operands, results = arrays(before)[: len(node.inputs)], arrays(after)
    types = node.type.items if isinstance(node.type, TupleType) else (node.type,)
    parameters = Parameters(memory.buffer_of)
    sizes: dict[str, Size] = {}
    for array, type_ in zip([*operands, *results], [*(i.type for i in node.inputs), *types], strict=True):
        for key, size in zip(array.sizes, type_.shape[len(type_.shape) - len(array.sizes) :], strict=True):
            sizes.setdefault(key, size)
    lines = [f"{key} = i64({parameters.size(size)})" for key, size in (*sizes.items(), *tiled.tiles.items())]
    batch = types[0].shape[: len(types[0].shape) - len(results[0].sizes)]
    loops = [Loop(f"x{d}", size, (d,)) for d, size in enumerate(batch) if size != 1]
    parts: Size = 1
    if tiled.parts is not None:
        of, block = tiled.parts
        parts = ceil_div(sizes[of], tiled.tiles[block])
        loops.append(Loop("part", parts, ()))
    shares = _shares(plan, memory, sizes, product(batch))
    if shares is None:
        lines += ["share = i64(0)", "shares = i64(1)"] if tiled.shared else []
    else:
        parts = MOST_SHARES
        loops.append(Loop("share", parts, ()))
        lines += shares.lines(parameters)
    rows = [*unravel(loops, "r", parameters)]
    rows.append(f"item = {_flat(batch, parameters)}")
    for array, operand in zip(operands, node.inputs, strict=True):
        rows += _operand(array, operand, len(batch), parameters, memory)
    for number, (array, type_) in enumerate(zip(results, types, strict=True)):
        pointer = result(plan, number, type_, parameters, memory)
        size = f"({' * '.join(array.sizes)})"
        place = f"{pointer} + item * {size}"
        if shares is not None and array == shares.result:
            left = parameters.temporary(shares.left, type_.dtype, write=True)
            place = f"select(shares == 1, {place}, {left} + (item * shares + share) * {size})"
        rows.append(f"{array.name} = {place}")
    first = suffix(node.inputs[0].dtype)
    scratch = _scratch(tiled.scratch, {**sizes, **tiled.tiles}, first, lines, parameters)
    core = node.inputs[0].dtype
    lines.append(f"work = scratch + {parameters.size(scratch)}")
    depths = [{**sizes, **tiled.tiles}[depth] for depth in tiled.depths.split()]
    scratch = scratch + max(matmul.scratch_bound(core, depth) for depth in depths)
    body = textwrap.dedent(tiled.body(node)).strip("\n").replace("{t}", first).split("\n")
    if shares is not None:
        body = ["if share < shares:", *indent(body)]
    text = "\n".join([*lines, "for r in range(lo, hi):", *indent([*rows, *body])])
    parameters.params.append(("core", "i64*"))
    moved: Size = 0
    for type_ in [*(i.type for i in node.inputs), *types]:
        moved = moved + numel(type_.shape) * type_.dtype.itemsize
    kernel = Loops(
        parameters.function(name, text),
        tuple(parameters.args),
        product(batch) * parts,
        1,
        scratch,
        moved,
        tiled.flops(sizes, node) * product(batch),
        tuple(parameters.reads),
        tuple(parameters.writes),
        core,
    )
    return [kernel] if shares is None else [kernel, _joined(plan, memory, shares, name)]


def _joined(plan: Plan, memory: Memory, shares: _Shares, name: str) -> Loops:
    """The kernel that adds up what shares leave, in order. Its range is empty where items have one share."""
    node = plan.nodes[0]
    results = arrays(node.op.lowering.signature.split("->")[1])
    number = results.index(shares.result)
    type_ = node.type.items[number]
    parameters = Parameters(memory.buffer_of)
    left = parameters.temporary(shares.left, type_.dtype)
    target = result(plan, number, type_, parameters, memory)
    count = product(type_.shape[len(type_.shape) - len(shares.result.sizes) :])
    size = parameters.size(count)
    lines = [
        *shares.lines(parameters),
        "for r in range(lo, hi):",
        f"    item = floordiv_i64(r, {size})",
        f"    first = {left} + item * (shares - 1) * {size}",
        "    total = first[r]",
        "    for share in range(1, shares):",
        f"        total = total + first[r + share * {size}]",
        f"    {target}[r] = total",
    ]
    elements = shares.items * count
    return Loops(
        parameters.function(f"{name}_shares", "\n".join(lines)),
        tuple(parameters.args),
        elements * shares.are_several,
        4096,
        bytes=elements * shares.are_several * type_.dtype.itemsize * 2,
        flops=elements * shares.are_several * 4,
        reads=tuple(parameters.reads),
        writes=tuple(parameters.writes),
    )


def _flat(batch: Sequence[Size], parameters: Parameters) -> str:
    """The number of the batch item whose index is in x0, x1, ..."""
    text = "i64(0)"
    for d, size in enumerate(batch):
        if size != 1:
            text = f"({text}) * {parameters.size(size)} + x{d}"
    return text


def _operand(
    array: Array, node: Node, rank: int, parameters: Parameters, memory: Memory
) -> list[str]:
    """Statements that make an operand's pointer and strides."""
    places = spread(node, memory.stored)
    if places is None or places.is_merged:
        raise AssertionError(f"{node} isn't in memory as an operand of a tiled op has to be")
    strides: list[Size] = [dim[0][1] if dim else 0 for dim in places.dims]
    core = len(strides) - len(array.sizes)
    offset = parameters.size(places.offset)
    for d, stride in enumerate(strides[:core], rank - core):
        if stride != 0:
            offset += f" + x{d} * {parameters.size(stride)}"
    lines = [f"{array.name} = {parameters.pointer(places.base, node.dtype)} + ({offset})"]
    lines += [f"{array.name}_{d} = {parameters.size(s)}" for d, s in enumerate(strides[core:])]
    return lines


def _scratch(
    declared: str, sizes: Mapping[str, Size], first: str, lines: list[str], parameters: Parameters
) -> Size:
    """Adds statements that divide scratch memory; how much of it they take."""
    taken: Size = 0
    for array in arrays(declared):
        dtype = array.dtype or first
        lines.append(f"{array.name} = ptr_{dtype}(scratch + {parameters.size(taken)})")
        count = product(sizes[s] for s in array.sizes)
        taken = taken + ceil_div(count * ITEM_SIZES[dtype], 64) * 64
    return taken
