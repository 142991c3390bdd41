"""Where the scratch memory of kernels lies: in the arena where nothing lives at that time, or beside it.

Kernels need scratch only while they run, and the arena is rarely full. What doesn't fit into it shares one
piece of memory of its own, which all smaller ones have, too: it is still in the caches from the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphflow.runtime import arena, schedule
from graphflow.runtime.buffers import ALIGNMENT
from graphflow.runtime.program import Program, Size

# Where all of it is less than one part in so many of the arena, it has memory of its own: memory that a value
# has just been in is further away.
_LITTLE = 32


@dataclass(frozen=True)
class Scratch:
    """``own`` is how many bytes lie beside the arena.

    For every command, ``offsets`` says where thread 0's scratch is, in the arena or (``beside``) in that
    memory of its own; thread t's is ``t * strides[command]`` bytes before it.
    """

    own: int
    offsets: tuple[int, ...]
    beside: tuple[bool, ...]
    strides: tuple[int, ...]


def plan(
    program: Program,
    size: Callable[[Size], int],
    cuts: Sequence[schedule.Cut],
    intervals: Mapping[int, tuple[int, int]],
    widths: Mapping[int, int],
    offsets: Mapping[int, int],
) -> Scratch:
    """Places the scratch of a program's commands among its temp buffers, all by number.

    `intervals` are the buffers' lives in barrier groups, `widths` their bytes, `offsets` their places. What
    one thread runs in one group it runs in turn, in the same memory.
    """
    groups = arena.groups([command.barrier for command in program.commands])
    count = groups[-1] + 1 if groups else 0
    first, further, others = [0] * count, [0] * count, [0] * count
    for command, cut, group in zip(program.commands, cuts, groups, strict=True):
        need = -(-size(command.scratch) // ALIGNMENT) * ALIGNMENT
        first[group] = max(first[group], need)
        if cut.threads > 1 and need:
            further[group] = max(further[group], need)
            others[group] = max(others[group], cut.threads - 1)
    total = [a + b * c for a, b, c in zip(first, further, others, strict=True)]
    places = _places(total, intervals, widths, offsets)
    own = max((need for group, need in enumerate(total) if group not in places), default=0)
    starts = [places.get(group, 0) + further[group] * others[group] for group in range(count)]
    return Scratch(
        own,
        tuple(starts[group] for group in groups),
        tuple(group not in places for group in groups),
        tuple(further[group] for group in groups),
    )


def _places(
    total: Sequence[int],
    intervals: Mapping[int, tuple[int, int]],
    widths: Mapping[int, int],
    offsets: Mapping[int, int],
) -> dict[int, int]:
    """Where in the arena the scratch of a group lies, for those that lie there: the largest ones, until one
    doesn't fit.
    """
    buffers = [buffer for buffer in intervals if widths[buffer]]
    starts = np.array([offsets[buffer] for buffer in buffers], np.int64)
    ends = starts + np.array([-(-widths[b] // ALIGNMENT) * ALIGNMENT for b in buffers], np.int64)
    lives = np.array([intervals[buffer] for buffer in buffers], np.int64).reshape(-1, 2)
    end = int(ends.max(initial=0))
    order = sorted(range(len(total)), key=lambda group: (-total[group], group))
    places: dict[int, int] = {}
    if not order or total[order[0]] * _LITTLE <= end:
        return places
    for group in order:
        alive = np.flatnonzero((lives[:, 0] <= group) & (lives[:, 1] >= group))
        alive = alive[np.argsort(starts[alive], kind="stable")]
        place = arena.best_gap(starts[alive], ends[alive], total[group])
        if not total[group] or place + total[group] > end:
            break
        places[group] = place
    return places
