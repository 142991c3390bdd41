"""When a program needs most memory, and for what."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from graphflow.compiler.ir import Node
from graphflow.compiler.pipeline import Compiled
from graphflow.runtime import arena, schedule, scratch
from graphflow.runtime.layout import evaluator
from graphflow.runtime.threads import get_num_threads

LARGEST = 8  # values that are named in a text


@dataclass(frozen=True)
class LiveValue:
    """A value in temporary memory at the peak: ``ops`` are those whose results lie there one after another,
    in place; ``lines`` are the user's.
    """

    bytes: int
    dtype: str
    shape: tuple[int, ...]
    ops: tuple[str, ...]
    lines: tuple[str, ...]

    def __str__(self) -> str:
        ops, lines = ", ".join(self.ops), ", ".join(self.lines)
        return f"{self.bytes} bytes: {ops} {self.dtype}{list(self.shape)}" + (
            f" from {lines}" if lines else ""
        )


@dataclass(frozen=True)
class Peak:
    """The temporary memory of a program at some sizes: ``arena`` bytes are allocated, ``alive`` bytes of them
    are in use while ``kernels`` run, by ``values``, the largest first. ``scratch`` bytes are allocated beside
    the arena, for all threads that there are now.
    """

    sizes: dict[str, int]
    arena: int
    scratch: int
    alive: int
    kernels: tuple[str, ...]
    values: tuple[LiveValue, ...]

    def __str__(self) -> str:
        told = ", ".join(f"{k}={v}" for k, v in self.sizes.items()) or "all sizes"
        lines = [f"arena for {told}: {self.arena} bytes, and {self.scratch} of scratch memory"]
        if self.kernels:
            lines.append(f"  {self.alive} alive in {', '.join(self.kernels)}; the largest:")
        lines += [f"    {value}" for value in self.values[:LARGEST]]
        return "\n".join(lines)


def peak(compiled: Compiled, sizes: dict[str, int]) -> Peak:
    """The plan of temporary memory for an assignment of the symbols, without running anything."""
    program, size = compiled.program, evaluator(sizes)
    intervals = arena.live_intervals(program)
    shapes = {b: tuple(size(s) for s in program.buffers[b].shape) for b in intervals}
    widths = {b: prod(shape) * program.buffers[b].dtype.itemsize for b, shape in shapes.items()}
    lives = list(intervals.values())
    offsets, total = arena.plan(lives, list(widths.values()))
    costs = [(max(size(c.extent), 0), size(c.grain), size(c.work)) for c in program.commands]
    cuts = schedule.cuts(costs, program.regions().values(), get_num_threads())
    places = dict(zip(intervals, offsets, strict=True))
    own = scratch.plan(program, size, cuts, intervals, widths, places).own
    groups = arena.groups([command.barrier for command in program.commands])
    alive = [0] * (groups[-1] + 1 if groups else 0)
    for (first, last), width in zip(lives, widths.values(), strict=True):
        for group in range(first, last + 1):
            alive[group] += width
    most = max(alive, default=0)
    if not most:
        return Peak(dict(sizes), total, own, 0, (), ())
    time = alive.index(most)
    within: dict[int, list[Node]] = {}
    for node, buffer in compiled.layout.places.items():
        within.setdefault(buffer, []).append(node)
    values = []
    for b, (first, last) in intervals.items():
        if first <= time <= last and widths[b]:
            nodes = within.get(b, [])
            lines = dict.fromkeys(str(n.loc) for n in nodes if n.loc is not None)
            ops = dict.fromkeys(n.op.name for n in nodes) or (program.buffers[b].name,)
            dtype = program.buffers[b].dtype.name
            values.append(LiveValue(widths[b], dtype, shapes[b], tuple(ops), tuple(lines)))
    values.sort(key=lambda v: -v.bytes)
    running = tuple(c.label for c, group in zip(program.commands, groups, strict=True) if group == time)
    return Peak(dict(sizes), total, own, most, running, tuple(values))


__all__ = ["LiveValue", "Peak", "peak"]
