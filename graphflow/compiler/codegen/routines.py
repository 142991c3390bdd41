"""Routine kernels: a procedure over one row or matrix, repeated over the leading dimensions.

Threads share the rows. Everything a row needs beyond its operands and results is scratch memory.
"""

from __future__ import annotations

import re
import textwrap
from typing import NamedTuple

from graphflow.compiler.access import strip_reshapes
from graphflow.compiler.codegen.kernel import SUFFIX, Loops, Parameters, Size, suffix
from graphflow.compiler.codegen.loops import Plan, indent
from graphflow.compiler.codegen.scalar import Memory
from graphflow.compiler.indexing import numel
from graphflow.compiler.ir import Node, TensorType, TupleType
from graphflow.dims import ceil_div, product
from graphflow.dtypes import ALL

ITEM_SIZES = {SUFFIX[dtype.name]: dtype.itemsize for dtype in ALL}
WORK = 8192  # instructions worth a share of their own


class Array(NamedTuple):
    """An operand, result or piece of scratch memory as a signature names it."""

    name: str
    dtype: str  # the suffix, or "" for the first operand's
    sizes: tuple[str, ...]


def arrays(text: str) -> list[Array]:
    """What is named in (a part of) a signature."""
    found = re.findall(r"(\w+)(?::(\w+))?\[([\w ]*)\]", text)
    return [Array(name, dtype, tuple(sizes.split())) for name, dtype, sizes in found]


def emit_routine(plan: Plan, memory: Memory, name: str) -> Loops:
    """The kernel of an op over whole rows or matrices."""
    node = plan.nodes[0]
    routine = node.op.lowering
    before, after = routine.signature.split("->")
    operands, results = arrays(before), arrays(after)
    types = node.type.items if isinstance(node.type, TupleType) else (node.type,)
    parameters = Parameters(memory.buffer_of)
    lines: list[str] = []
    sizes: dict[str, Size] = {}
    for array, type_ in zip([*operands, *results], [*(i.type for i in node.inputs), *types], strict=True):
        core = type_.shape[len(type_.shape) - len(array.sizes) :]
        sizes.update(zip(array.sizes, core, strict=True))
    lines += [f"{key} = i64({parameters.size(size)})" for key, size in sizes.items()]
    rows = ["for r in range(lo, hi):"]
    for array, operand in zip(operands, node.inputs, strict=True):
        pointer = parameters.pointer(strip_reshapes(operand), operand.dtype)
        rows.append(f"    {array.name} = {pointer} + r * {_step(array)}")
    for number, (array, type_) in enumerate(zip(results, types, strict=True)):
        rows.append(
            f"    {array.name} = {result(plan, number, type_, parameters, memory)} + r * {_step(array)}"
        )
    scratch: Size = 0
    first = suffix(node.inputs[0].dtype)
    for array in arrays(routine.scratch):
        dtype = array.dtype or first
        item = ITEM_SIZES[dtype]
        lines.append(f"{array.name} = ptr_{dtype}(scratch + {parameters.size(scratch)})")
        scratch = scratch + ceil_div(product(sizes[s] for s in array.sizes) * item, 64) * 64
    body = textwrap.dedent(routine.body(node)).strip("\n").replace("{t}", first)
    text = "\n".join([*lines, *rows, *indent(body.split("\n"))])
    largest = max(operands, key=lambda array: len(array.sizes))
    extents = [sizes[s] for s in largest.sizes]
    work = product(extents) * routine.cost(*extents)
    batch = types[0].shape[: len(types[0].shape) - len(results[0].sizes)]
    count = product(batch)
    moved: Size = 0
    for type_ in [*(i.type for i in node.inputs), *types]:
        moved = moved + numel(type_.shape) * type_.dtype.itemsize
    return Loops(
        parameters.function(name, text),
        tuple(parameters.args),
        count,
        max(1, WORK // work) if isinstance(work, int) and work > 0 else 1,
        scratch,
        moved,
        work * count,
        tuple(parameters.reads),
        tuple(parameters.writes),
    )


def _step(array: Array) -> str:
    return f"({' * '.join(array.sizes)})" if array.sizes else "1"


def result(plan: Plan, number: int, type_: TensorType, parameters: Parameters, memory: Memory) -> str:
    """The pointer to a result; one that nobody uses goes to memory of the kernel's own."""
    node = plan.nodes[0]
    wanted: dict[int, Node] = {n.attrs["index"]: n for n in plan.nodes[1:]}
    if not isinstance(node.type, TupleType):
        wanted = {0: node}
    if number in wanted:
        return parameters.pointer(wanted[number], type_.dtype, write=True)
    left = memory.temporary((node, number), type_.dtype, type_.shape)
    return parameters.temporary(left, type_.dtype, write=True)
