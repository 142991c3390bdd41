"""When a program needs most memory, and for what."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from graphflow.compiler.ir import Node
from graphflow.compiler.pipeline import Compiled
from graphflow.runtime import arena
from graphflow.runtime.layout import evaluator

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
        return f"{self.bytes} bytes: {ops or 'partial results'} {self.dtype}{list(self.shape)}" + (
            f" from {lines}" if lines else ""
        )


@dataclass(frozen=True)
class Peak:
    """The temporary memory of a program at some sizes: ``arena`` bytes are allocated, ``alive`` bytes of them
    are in use while ``kernels`` run, by ``values``, the largest first.
    """

    sizes: dict[str, int]
    arena: int
    alive: int
    kernels: tuple[str, ...]
    values: tuple[LiveValue, ...]

    def __str__(self) -> str:
        told = ", ".join(f"{k}={v}" for k, v in self.sizes.items()) or "all sizes"
        lines = [f"arena for {told}: {self.arena} bytes"]
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
    _, total = arena.plan(lives, list(widths.values()))
    groups = arena.groups([command.barrier for command in program.commands])
    alive = [0] * (groups[-1] + 1 if groups else 0)
    for (first, last), width in zip(lives, widths.values(), strict=True):
        for group in range(first, last + 1):
            alive[group] += width
    most = max(alive, default=0)
    if not most:
        return Peak(dict(sizes), total, 0, (), ())
    time = alive.index(most)
    within: dict[int, list[Node]] = {}
    for node, buffer in compiled.layout.places.items():
        within.setdefault(buffer, []).append(node)
    values = []
    for b, (first, last) in intervals.items():
        if first <= time <= last and widths[b]:
            nodes = within.get(b, [])
            lines = dict.fromkeys(str(n.loc) for n in nodes if n.loc is not None)
            ops = dict.fromkeys(n.op.name for n in nodes)
            dtype = program.buffers[b].dtype.name
            values.append(LiveValue(widths[b], dtype, shapes[b], tuple(ops), tuple(lines)))
    values.sort(key=lambda v: -v.bytes)
    running = tuple(c.label for c, group in zip(program.commands, groups, strict=True) if group == time)
    return Peak(dict(sizes), total, most, running, tuple(values))


__all__ = ["LiveValue", "Peak", "peak"]
