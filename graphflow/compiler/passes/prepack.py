"""Which operands of matrix products are kept packed: copied once, as the core packs them, for all readers.

A product packs an operand each time that it comes by: in every round of a loop, and for every item of a batch
that has one matrix in common, such as a convolution's weights; and every product packs for itself. Where a
copy serves several times, and packing isn't lost in the arithmetic, it becomes a step of its own, before the
outermost loop in which the operand stays what it is, and a buffer in the arena. Not a bit of a result depends
on who packs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from graphflow.compiler.codegen import llvm, matmul, matmul_gather, matmul_keep
from graphflow.compiler.codegen.matmul_arguments import PANELS, VECTORS
from graphflow.compiler.codegen.matmul_blocking import Blocking
from graphflow.compiler.codegen.matmul_units import FEW_COLUMNS
from graphflow.compiler.codegen.products import Operand, Packing, Product
from graphflow.compiler.indexing import Size, contiguous_strides
from graphflow.compiler.passes.control import Mark, Shared, Step
from graphflow.compiler.spread import Part
from graphflow.dims import product
from graphflow.dtypes import DType
from graphflow.runtime.program import Buffer, BufferArg

#: What a size of a batch that isn't known counts for, and a number of rounds.
MANY, ROUNDS = 8, 32
#: Times that count for one where the core doesn't pack B for itself, but reads it where it lies: few rows are
#: multiplied faster with one that is packed, too.
IN_PLACE = 4
#: Rows that are multiplied with what was packed until packing is a hundredth of the time, if it is a copy of
#: whole vectors; how much more it costs where vectors have to be turned, and where runs are shorter.
ROWS, TURNED, GATHERED = 1280, 2, 8
#: Bytes that a copy may take which serves fewer than `MANY` times.
SMALL = 1 << 20
#: Bytes of packing that aren't worth a step.
LITTLE = 1 << 18
#: A is packed by the core where it is deeper than this.
SHALLOW = 128

Axis = tuple[Part, ...]


@dataclass(frozen=True)
class Copy:
    """What a copy is made of, and how: the same for all products that can read it.

    `kept` as in a product, 0 for A; `batch` has the dimensions along which matrices differ; `rows` is the
    axis of A's rows or B's columns, of which there are `extent`.
    """

    kept: int
    dtype: DType
    buffer: BufferArg
    batch: tuple[tuple[Size, Axis], ...]
    rows: Axis
    depth: Axis
    extent: Size
    k: Size

    @property
    def shape(self) -> tuple[Size, ...]:
        """The shape of the buffer."""
        extent = matmul_keep.columns(self.dtype, self.extent) if self.kept else self.extent
        return (*(size for size, _ in self.batch), extent, self.k)

    def packing(self, into: int) -> Packing:
        """The step that makes it."""
        steps = contiguous_strides(self.shape)
        batch = [
            (size, axis[0][1] if axis else 0, step)
            for (size, axis), step in zip(self.batch, steps, strict=False)
        ]
        merged = any(len(axis) > 1 for axis in (self.rows, self.depth, *(axis for _, axis in self.batch)))
        strides = tuple(axis[0][1] if axis else 0 for axis in (self.depth, self.rows))
        packer = None
        if merged or not self.kept:
            items = tuple(part for _, axis in self.batch for part in axis)
            side = "b" if self.kept else "a"
            packer = matmul_gather.packer(self.dtype, side, self.buffer, items, self.rows, self.depth)
        source = Operand(self.buffer, (), (strides[0], strides[1]), packer)
        return Packing(self.dtype, self.kept, self.extent, self.k, tuple(batch), source, into)


def prepack(steps: Sequence[Step], shared: Shared) -> list[Step]:
    """The steps with those that pack operands before their products."""
    regions = _Regions(steps, shared)
    found: dict[object, list[tuple[int, int, int]]] = {}  # step of the product, where to pack, times
    for number, step in enumerate(steps):
        if isinstance(step.emitted, Product):
            for copy, times, worth in _copies(step.emitted):
                at, rounds = regions.outermost(copy.buffer.buffer, number)
                place = regions.place(copy.buffer.buffer, at)
                found.setdefault((copy, place), []).append((number, at, times * rounds // worth))
    result = list(steps)
    packings: dict[int, list[Step]] = {}
    for (copy, _), uses in found.items():  # type: ignore[misc]
        times = sum(count for _, _, count in uses)
        if not _is_worth(copy, times):
            continue
        into = shared.new_buffer(Buffer("temp", copy.dtype, copy.shape, "packed operand"))
        at = min(at for _, at, _ in uses)
        waits = regions.waits(copy.buffer.buffer, at)
        packing = Step(copy.packing(into), (), f"pack_{steps[uses[0][0]].name}", waits)
        packings.setdefault(at, []).append(packing)
        result[at] = replace(result[at], barrier=True)
        for number, _, _ in uses:
            step = result[number]
            result[number] = replace(step, emitted=_reading(step.emitted, copy, into))  # type: ignore[arg-type]
    return [s for number, step in enumerate(result) for s in (*packings.get(number, ()), step)]


def _is_worth(copy: Copy, times: int) -> bool:
    """Whether what isn't packed again is worth the memory of the copy, and a step."""
    size = product(copy.shape) * copy.dtype.itemsize
    if not isinstance(size, int):
        return times >= MANY
    return (times - 1) * 2 * size > LITTLE and (times >= MANY or size <= SMALL)


# --------------------------------------------------------------------------------------- what a product packs


def _copies(given: Product) -> Iterator[tuple[Copy, int, int]]:
    """The copies that would save a product something, how often it would read each, and how many of these
    times count for one.
    """
    dtype, (a, b) = given.node.dtype, (given.a, given.b)
    plan = matmul.blocking(dtype.itemsize, llvm.host())
    if not given.indirect and _is_exchanged(given, plan):
        return
    if not given.indirect or b.packer is None or b.strides[1] == 0:
        *batch, depth, columns = b.dims
        if _pays(given.m, columns, depth, plan):
            kept = VECTORS if given.indirect else PANELS
            worth = 1 if given.indirect or _packs_b(given, plan) else IN_PLACE
            yield (*_copy(given, kept, b, batch, columns, depth, given.n), worth)
    if _packs_a(given, plan):
        *batch, rows, depth = a.dims
        if given.indirect or _pays(given.n, depth, rows, plan):
            yield (*_copy(given, 0, a, batch, rows, depth, given.m), 1)


def _copy(
    given: Product, kept: int, operand: Operand, dims: Sequence[Axis], rows: Axis, depth: Axis, extent: Size
) -> tuple[Copy, int]:
    batch, times = [], 1
    for size, axis in zip(given.batch, dims, strict=True):
        if any(stride != 0 for _, stride in axis):
            batch.append((size, axis))
        else:
            times *= size if isinstance(size, int) else MANY
    return Copy(kept, given.node.dtype, operand.buffer, tuple(batch), rows, depth, extent, given.k), times


def _is_exchanged(given: Product, plan: Blocking) -> bool:
    """Whether the plain core exchanges the operands, see `matmul_units`, or may."""
    few = isinstance(given.n, int) and given.n <= max(FEW_COLUMNS, plan.lanes - 1)
    row, column = given.c.strides if given.c is not None else (0, 1)
    return few or (row == 1 and column != 1)


def _packs_b(given: Product, plan: Blocking) -> bool:
    """Whether the plain core packs B, instead of reading it where it lies."""
    b = given.b
    if b.packer is not None or not isinstance(given.m, int):
        return True
    return given.m > (plan.rows * 2 if b.strides[1] == 1 else plan.turn[-1])


def _packs_a(given: Product, plan: Blocking) -> bool:
    """Whether a core packs A; or, where it reads scattered elements, would rather have them in rows."""
    a = given.a
    if given.indirect:
        return a.packer is not None and not a.overlaps
    if a.packer is not None:
        return True
    deep = not isinstance(given.k, int) or given.k > SHALLOW
    several = not isinstance(given.n, int) or given.n > plan.panel
    return a.strides[1] != 1 and deep and several


def _pays(others: Size, along: Axis, across: Axis, plan: Blocking) -> bool:
    """Whether packing is more than a hundredth of a product in which what is packed is multiplied with so
    many rows or columns. `along` is the axis whose neighbours are neighbours in the copy.
    """
    cost = 1 if _runs(along, plan) else TURNED if _runs(across, plan) else GATHERED
    return not isinstance(others, int) or others <= ROWS * cost


def _runs(axis: Axis, plan: Blocking) -> bool:
    """Whether neighbours on the axis lie in memory in runs of at least a vector."""
    if not axis or axis[-1][1] != 1:
        return False
    return not isinstance(axis[-1][0], int) or axis[-1][0] >= plan.lanes


def _reading(given: Product, copy: Copy, into: int) -> Product:
    """The product with the copy instead of its operand.

    The operand stays among what it reads: whoever looks into the run finds it in memory.
    """
    operand = given.b if copy.kept else given.a
    steps = iter(contiguous_strides(copy.shape)[: len(copy.batch)])
    batch = [
        next(steps) if any(stride != 0 for _, stride in axis) else 0
        for axis in operand.dims[: len(given.batch)]
    ]
    reads = (*given.reads, into)
    if copy.kept:
        return replace(given, b=Operand(BufferArg(into), tuple(batch), (0, 0)), kept=copy.kept, reads=reads)
    return replace(given, a=Operand(BufferArg(into), tuple(batch), (copy.k, 1)), reads=reads)


# ----------------------------------------------------------------------------------------------------- where


@dataclass
class _Regions:
    """The loops and branches around each step, and which steps write what."""

    steps: Sequence[Step]
    shared: Shared
    first: dict[int, int] = field(default_factory=dict)
    last: dict[int, int] = field(default_factory=dict)
    around: list[tuple[int, ...]] = field(default_factory=list)  # the regions of each step, outermost first,
    section: list[int] = field(default_factory=list)  # and how many marks of the innermost are before it
    writes: dict[int, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        marks = [step.emitted.region if isinstance(step.emitted, Mark) else None for step in self.steps]
        for number, (step, region) in enumerate(zip(self.steps, marks, strict=True)):
            if region is not None:
                self.first.setdefault(region, number)
                self.last[region] = number
            for buffer in step.emitted.writes:
                self.writes.setdefault(self.shared.memory_of(buffer), []).append(number)
        passed = dict.fromkeys(self.first, 0)
        inside: list[int] = []
        for number, region in enumerate(marks):
            if region is not None and number > self.first[region]:
                passed[region] += 1
            self.around.append(tuple(inside))
            self.section.append(passed[inside[-1]] if inside else 0)
            if region is not None and number == self.first[region]:
                inside.append(region)
            if region is not None and number == self.last[region]:
                inside.pop()

    def outermost(self, buffer: int, step: int) -> tuple[int, int]:
        """The step before which a copy for `step` can be made, out of as many loops as leave the buffer
        alone; and how many rounds those have.
        """
        part = self.shared.buffers[buffer].part
        moved_by = {region for region, _ in part.steps} if part is not None else set()
        at, rounds = step, 1
        for region in reversed(self.around[step]):
            start, stop = self.first[region], self.last[region]
            mark = self.steps[start].emitted
            if not isinstance(mark, Mark) or mark.kind != "loop" or region in moved_by:
                break
            if self._written(buffer, start) != self._written(buffer, stop):
                break
            at, rounds = start, rounds * (mark.length if isinstance(mark.length, int) else ROUNDS)
        return at, rounds

    def place(self, buffer: int, at: int) -> object:
        """The same for steps that see the same content of a buffer, one after the other in every run."""
        return self.around[at], self.section[at], self._written(buffer, at)

    def waits(self, buffer: int, at: int) -> bool:
        """Whether a step inserted before `at` has to wait: for the buffer's content, or for a decision."""
        if at == 0 or isinstance(self.steps[at - 1].emitted, Mark):
            return True
        start = at - 1
        while start > 0 and not self.steps[start].barrier:
            start -= 1
        return self._written(buffer, start) != self._written(buffer, at)

    def _written(self, buffer: int, step: int) -> int:
        """How many steps before this one write to the memory that a buffer is in."""
        return bisect_left(self.writes.get(self.shared.memory_of(buffer), []), step)
