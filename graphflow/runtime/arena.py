"""Where temporary buffers lie: one block of memory, shared by buffers that are not alive at the same time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from graphflow.runtime.program import BlockArg, BufferArg, Command, Program


def groups(barriers: Sequence[bool]) -> list[int]:
    """The barrier group of every command: commands of one group may run at the same time."""
    return list(accumulate(int(b) for b in barriers))


def live_intervals(program: Program) -> dict[int, tuple[int, int]]:
    """For every temp buffer, the first and last barrier group in which it is alive.

    The interval spans what the buffer itself says and every command that mentions it, and the whole of every
    loop that it is used in if it is used outside, too: the next round wants it again. In groups rather than
    commands: two commands of one group may overlap in time, so their buffers must not share memory.
    """
    group = groups([command.barrier for command in program.commands])
    intervals: dict[int, tuple[int, int]] = {}
    last = max(len(group) - 1, 0)
    for index, buffer in enumerate(program.buffers):
        if buffer.role == "temp" and group:
            intervals[index] = (min(buffer.first, last), min(buffer.last, last))
    for number, command in enumerate(program.commands):
        for index in mentioned(command):
            part = program.buffers[index].part
            index = index if part is None else part.buffer
            if index in intervals:
                first, end = intervals[index]
                intervals[index] = (min(first, number), max(end, number))
    for start, leave in sorted(program.regions().values(), key=lambda r: r[1] - r[0]):  # inner ones first
        for index, (first, end) in intervals.items():
            if first < leave and end >= start and (first < start or end >= leave):
                intervals[index] = (min(first, start), max(end, leave - 1))
    return {index: (group[first], group[end]) for index, (first, end) in intervals.items()}


def mentioned(command: Command) -> set[int]:
    """The buffers whose addresses a command gets, in nested blocks too."""
    found: set[int] = set()
    blocks = [command.args]
    while blocks:
        for arg in blocks.pop():
            if isinstance(arg, BufferArg):
                found.add(arg.buffer)
            elif isinstance(arg, BlockArg):
                blocks.append(arg.args)
    return found


def plan(
    intervals: Sequence[tuple[int, int]], sizes: Sequence[int], alignment: int = 64
) -> tuple[list[int], int]:
    """Offsets for buffers of `sizes` bytes, and the bytes they need together.

    Buffers whose intervals (both ends inclusive) meet get disjoint ranges; every offset is a multiple of
    `alignment`. Greedy by size (Pisarchyk and Lee, Efficient Memory Management for Deep Neural Net Inference,
    2020): the biggest first, each into the smallest gap that holds it among the placed buffers it is alive
    with, at the lowest offset among equals. The same input always gives the same plan. Buffers of no bytes
    get offset 0.
    """
    count = len(sizes)
    padded = [-(-size // alignment) * alignment for size in sizes]
    order = sorted(range(count), key=lambda i: (-padded[i], intervals[i], i))
    offsets = [0] * count
    total = 0
    # columns of what is placed so far, in the order of placing
    firsts, lasts, starts, ends = (np.zeros(count, np.int64) for _ in range(4))
    for placed, index in enumerate(order):
        size = padded[index]
        if size == 0:
            break
        first, last = intervals[index]
        alive = np.flatnonzero((firsts[:placed] <= last) & (lasts[:placed] >= first))
        rows = alive[np.argsort(starts[alive], kind="stable")]
        position = _best_gap(starts[rows], ends[rows], size)
        offsets[index] = position
        firsts[placed], lasts[placed] = first, last
        starts[placed], ends[placed] = position, position + size
        total = max(total, position + size)
    return offsets, total


def _best_gap(starts: np.ndarray, ends: np.ndarray, size: int) -> int:
    """Start of the smallest gap of at least `size` bytes among ranges sorted by start, else their end."""
    if not len(starts):
        return 0
    reach = np.maximum.accumulate(ends)
    gap_starts = np.concatenate(([0], reach[:-1]))
    gaps = starts - gap_starts
    fitting = np.flatnonzero(gaps >= size)
    if not len(fitting):
        return int(reach[-1])
    return int(gap_starts[fitting[np.argmin(gaps[fitting])]])
