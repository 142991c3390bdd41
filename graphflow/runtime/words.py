"""The words that the machine code of a run reads and writes: the one description of their layout.

Everything is an array of 64-bit words; these are their numbers in it.
"""

from __future__ import annotations

# A command. RANGE_* are items of the parallel axis; COUNTERS is the address of one word per thread. SCRATCH
# is the address of thread 0's scratch memory, that of thread t is t times SCRATCH_STRIDE bytes before it.
# A command without a kernel is a decision: COUNTERS is the address of its words, and THREADS is 1 where its
# region belongs to one thread.
(
    KERNEL,
    ARGS,
    EXTENT,
    BARRIER,
    THREADS,
    SHARE,
    CHUNK,
    COUNTERS,
    SCRATCH,
    SCRATCH_STRIDE,
    COMMAND_WORDS,
) = range(11)
# A decision: its kind, where it leads, where its region ends, which command it chose, its region's words.
KIND, TARGET, LEAVE, NEXT, REGION, DECISION_WORDS = 0, 1, 2, 3, 4, 8
LOOP, END, BRANCH, JUMP = range(4)
# A region: rounds done and to do, the argument words that a round moves on (address and count of pairs: the
# word's address, bytes), and its commands' counters, cleared for every round.
DONE, LENGTH, ADVANCES, ADVANCE_COUNT, AREA, AREA_BYTES, REGION_WORDS = 0, 1, 2, 3, 4, 5, 8
# A patch: store pointers[POINTER] + BYTES at the address SLOT.
SLOT, POINTER, BYTES, PATCH_WORDS = range(4)
# A plan: addresses and counts of the two arrays above, threads of its widest command, the memory of all
# counters, cleared before each run on several threads, the address of the run's status word (0: none), and
# the number of threads that it was cut for.
(
    COMMANDS,
    COMMAND_COUNT,
    PATCHES,
    PATCH_COUNT,
    ACTIVE,
    COUNTER_AREA,
    COUNTER_BYTES,
    STATUS,
    CUT,
    PLAN_WORDS,
) = range(10)
# A pool. What different threads write lies on different cache lines (8 words). STAGE is odd while workers may
# take part, and goes up by one whenever that changes; PLAN, PROFILE and FIRST are what they take part in.
# INSIDE is how many are at it. Of both, how many threads sleep until it changes.
STAGE, INSIDE, STAGE_SLEEPERS, INSIDE_SLEEPERS, PLAN, PROFILE, FIRST, SPIN = 0, 8, 16, 24, 32, 33, 34, 35
# Big enough for every platform's pthread_mutex_t and pthread_cond_t.
MUTEX, STAGE_CONDITION, INSIDE_CONDITION, POOL_WORDS = 64, 80, 96, 112
# A worker's own words; SEEN is the STAGE word when it was started.
WORKER_POOL, WORKER_INDEX, WORKER_SEEN, WORKER_HANDLE, WORKER_WORDS = 0, 1, 2, 3, 8


def word(name: str, base: str, index: int | str) -> str:
    """IR that names the address of a word."""
    return f"%{name} = getelementptr i64, ptr %{base}, i64 {index}"


def read(name: str, base: str, index: int, kind: str = "i64") -> str:
    """IR that loads a word into a name."""
    return f"{word(name + '.at', base, index)}\n  %{name} = load {kind}, ptr %{name}.at"


def row(name: str, base: str, number: str, words: int) -> str:
    """IR that names the address of a row of so many words."""
    return f"%{name}.words = mul i64 %{number}, {words}\n  {word(name, base, f'%{name}.words')}"


def field(name: str, base: str, offset: int, kind: str = "ptr") -> str:
    """IR that loads a field of an object, at an offset in bytes."""
    place = f"%{name}.in = getelementptr i8, ptr %{base}, i64 {offset}"
    return f"{place}\n  %{name} = load {kind}, ptr %{name}.in"
