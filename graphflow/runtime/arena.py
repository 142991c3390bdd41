"""Where temporary buffers lie: one block of memory, shared by buffers that are not alive at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np

from graphflow.runtime.program import BlockArg, BufferArg, Command, Program

_TOLERATED = 64  # a plan that takes one part in so many more than the least isn't improved
_ROUNDS = 16  # of placing everything again, each as long as the first,
_PLACINGS = 1000  # of all buffers in all rounds: a new batch size shouldn't wait for the last per cent


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
    `alignment`. Buffers are placed one by one, each into the smallest gap that holds it among the placed
    ones it is alive with, at the lowest offset among equals: first the biggest ones (Pisarchyk and Lee,
    Efficient Memory Management for Deep Neural Net Inference, 2020); if that takes notably more bytes
    than are alive at one time, in other orders, and then for some rounds with what stuck out at the end
    placed first. The same input always gives the same plan. Buffers of no bytes get offset 0.
    """
    padded = [-(-size // alignment) * alignment for size in sizes]
    least = peak(intervals, padded)
    enough = least + least // _TOLERATED
    best: tuple[int, list[int], list[int]] | None = None  # bytes, order, offsets
    for order in _orders(intervals, padded):
        offsets, total = _placed(order, intervals, padded)
        if best is None or total < best[0]:
            best = total, order, offsets
        if total <= enough:
            return offsets, total
    if best is None:
        return [0] * len(sizes), 0
    lowest, order, offsets = best
    found = offsets
    total = lowest
    for _ in range(min(_ROUNDS, _PLACINGS // len(order))):
        highest = next(i for i in order if offsets[i] + padded[i] == total)
        order = [highest, *(i for i in order if i != highest)]
        offsets, total = _placed(order, intervals, padded)
        if total < lowest:
            found, lowest = offsets, total
        if lowest <= enough:
            break
    return found, lowest


def _orders(intervals: Sequence[tuple[int, int]], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Orders in which buffers of some bytes may be placed: by size; from the times when most is alive to
    those when least is, what lives longest first; by size times length of life.
    """
    length = [last - first + 1 for first, last in intervals]
    by_size = sorted((i for i, size in enumerate(sizes) if size), key=lambda i: (-sizes[i], intervals[i], i))
    if not by_size:
        return
    yield by_size
    alive = _alive(intervals, sizes)
    busiest = {}
    for rank, time in enumerate(sorted(range(len(alive)), key=lambda t: (-alive[t], t))):
        busiest[time] = rank
    soonest = {i: min(busiest[t] for t in range(intervals[i][0], intervals[i][1] + 1)) for i in by_size}
    yield sorted(by_size, key=lambda i: (soonest[i], -length[i]))
    yield sorted(by_size, key=lambda i: -sizes[i] * length[i])


def peak(intervals: Sequence[tuple[int, int]], sizes: Sequence[int]) -> int:
    """The most bytes that are alive at one time."""
    return max(_alive(intervals, sizes), default=0)


def _alive(intervals: Sequence[tuple[int, int]], sizes: Sequence[int]) -> list[int]:
    """The bytes that are alive at every time."""
    changes = [0] * (max((last for _, last in intervals), default=-1) + 2)
    for (first, last), size in zip(intervals, sizes, strict=True):
        changes[first] += size
        changes[last + 1] -= size
    return list(accumulate(changes))[:-1]


def _placed(
    order: Sequence[int], intervals: Sequence[tuple[int, int]], sizes: Sequence[int]
) -> tuple[list[int], int]:
    """Offsets of buffers placed in this order (0 for those that aren't in it), and the bytes they take."""
    offsets = [0] * len(sizes)
    # columns of what is placed so far, in the order of placing
    firsts, lasts, starts, ends = (np.zeros(len(order), np.int64) for _ in range(4))
    for placed, index in enumerate(order):
        first, last = intervals[index]
        alive = np.flatnonzero((firsts[:placed] <= last) & (lasts[:placed] >= first))
        rows = alive[np.argsort(starts[alive], kind="stable")]
        position = best_gap(starts[rows], ends[rows], sizes[index])
        offsets[index] = position
        firsts[placed], lasts[placed] = first, last
        starts[placed], ends[placed] = position, position + sizes[index]
    return offsets, int(ends.max(initial=0))


def best_gap(starts: np.ndarray, ends: np.ndarray, size: int) -> int:
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
