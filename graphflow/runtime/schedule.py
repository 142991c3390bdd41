"""How many threads each command gets, how its range is cut, and where threads have to meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# A command that takes less than this on one core (ns) stays on one thread: where another process holds the
# other core, meeting at a barrier costs far more than the microsecond it takes on a free one. With more
# threads each gets at least half.
SERIAL_NS = 40_000
# The same in a loop or branch whose threads meet for other commands: they wait for this one all the same.
AMONG_SHARED_NS = 10_000
# A thread's share of a command is cut into at most so many chunks, of at least so many nanoseconds each, so
# that threads that are done early can help the others. Smaller ones cost more than they help: a product packs
# an operand again for each.
MAX_CHUNKS = 4
CHUNK_NS = 40_000


@dataclass(frozen=True)
class Cut:
    """How threads share a range: thread t has `share` items from ``t * share`` on, `chunk` at a time."""

    threads: int
    share: int
    chunk: int


def cuts(
    costs: Sequence[tuple[int, int, int]], regions: Iterable[tuple[int, int]], threads: int
) -> list[Cut]:
    """The Cuts of commands, given extent, grain and nanoseconds of each, and the regions of the program."""
    found = [cut(*cost, threads) for cost in costs]
    own = set(range(len(found)))
    for start, leave in sorted(regions, key=lambda r: r[1] - r[0]):  # inner ones first
        inside = own.intersection(range(start, leave))  # of this region itself
        own -= inside
        if any(found[i].threads > 1 for i in inside):
            for i in inside:
                found[i] = cut(*costs[i], threads, AMONG_SHARED_NS)
    return found


def cut(extent: int, grain: int, work: int, threads: int, least: int = SERIAL_NS) -> Cut:
    """The Cut of a command of `work` nanoseconds for up to `threads` threads, at multiples of `grain`.

    It is for one thread if it takes less than `least` nanoseconds.
    """
    grain = max(grain, 1)
    units = -(-extent // grain)
    count = 1 if work < least else min(threads, units, max(work // (least // 2), 1))
    if count <= 1:
        return Cut(1, extent, extent)
    share = -(-units // count)
    chunks = max(1, min(MAX_CHUNKS, work // count // CHUNK_NS))
    return Cut(count, share * grain, -(-share // chunks) * grain)


PLAIN, QUIET, QUIET_START, MEET = range(4)


def roles(regions: Iterable[tuple[int, int]], threads: Sequence[int], control: Sequence[bool]) -> list[int]:
    """What each command means for meetings.

    A region without commands on several threads belongs to one thread, which walks it QUIETly; the others go
    around it. In other regions all threads MEET wherever one decides for all.
    """
    found = [MEET if c else PLAIN for c in control]
    for start, leave in sorted(regions, key=lambda r: r[1] - r[0]):  # inner ones first
        if max(threads[start:leave]) == 1:
            found[start:leave] = [QUIET_START, *(QUIET for _ in range(start + 1, leave))]
    return found


def meetings(
    barriers: Sequence[bool], threads: Sequence[int], roles: Sequence[int] | None = None
) -> list[bool]:
    """Before which commands the threads have to meet, when `barriers` say before which all earlier ones must
    be done.

    Commands on one thread all run on the same one, in order; a barrier between two of them needs no meeting.
    It is put off until a command comes that another thread could start too early, or too late. A quiet region
    is one such command.
    """
    met = []
    # commands since the last meeting, before and after the latest barrier: were there any, were there shared
    # ones
    any_before = shared_before = any_since = shared_since = False
    for barrier, count, role in zip(barriers, threads, roles or [PLAIN] * len(barriers), strict=True):
        if role == QUIET:
            met.append(False)
            continue
        if role == MEET:  # on both sides
            any_before = shared_before = any_since = shared_since = False
            met.append(True)
            continue
        if barrier:
            any_before, shared_before = any_before or any_since, shared_before or shared_since
            any_since = shared_since = False
        shared = count > 1
        meet = any_before if shared else shared_before
        if meet:
            any_before = shared_before = any_since = shared_since = False
        any_since, shared_since = True, shared_since or shared
        met.append(meet)
    return met
