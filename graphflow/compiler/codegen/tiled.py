"""Tiled kernels: a procedure over tiles of matrices that calls the matrix core, for each batch item or part.

Operands are read through their strides, so that transposed and repeated ones aren't copied. Tiles live in
scratch memory, which is small enough to stay in the nearer caches.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from graphflow.compiler.codegen import matmul
from graphflow.compiler.codegen.kernel import Loops, Parameters, Size, suffix
from graphflow.compiler.codegen.loops import Loop, Plan, indent, unravel
from graphflow.compiler.codegen.routines import ITEM_SIZES, Array, arrays, result
from graphflow.compiler.codegen.scalar import Memory
from graphflow.compiler.indexing import numel
from graphflow.compiler.ir import Node, TupleType
from graphflow.compiler.spread import spread
from graphflow.dims import ceil_div, product


def emit_tiled(plan: Plan, memory: Memory, name: str) -> Loops:
    """The kernel of an op over tiles."""
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
    rows = [*unravel(loops, "r", parameters)]
    rows.append(f"item = {_flat(batch, parameters)}")
    for array, operand in zip(operands, node.inputs, strict=True):
        rows += _operand(array, operand, len(batch), parameters, memory)
    for number, (array, type_) in enumerate(zip(results, types, strict=True)):
        pointer = result(plan, number, type_, parameters, memory)
        rows.append(f"{array.name} = {pointer} + item * ({' * '.join(array.sizes)})")
    first = suffix(node.inputs[0].dtype)
    scratch = _scratch(tiled.scratch, {**sizes, **tiled.tiles}, first, lines, parameters)
    core = node.inputs[0].dtype
    lines.append(f"work = scratch + {parameters.size(scratch)}")
    depths = [{**sizes, **tiled.tiles}[depth] for depth in tiled.depths.split()]
    scratch = scratch + max(matmul.scratch_bound(core, depth) for depth in depths)
    body = textwrap.dedent(tiled.body(node)).strip("\n").replace("{t}", first).split("\n")
    text = "\n".join([*lines, "for r in range(lo, hi):", *indent([*rows, *body])])
    parameters.params.append(("core", "i64*"))
    moved: Size = 0
    for type_ in [*(i.type for i in node.inputs), *types]:
        moved = moved + numel(type_.shape) * type_.dtype.itemsize
    return Loops(
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
