"""Plans of temporary memory, and random programs that live by them on any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from graphflow.runtime import arena, threads
from graphflow.runtime.executor import Executor
from graphflow.runtime.program import (
    Buffer,
    BufferArg,
    Command,
    SizeArg,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime_kernels import F32, program, size

N = size("n")
BIG = 10_000_000  # nanoseconds: enough for any number of threads

@pytest.fixture(autouse=True)
def _threads():
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)


intervals = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(0, 5000)).map(
        lambda t: (min(t[:2]), max(t[:2]), t[2])
    ),
    max_size=25,
)


@given(intervals)
@settings(max_examples=200, deadline=None)
def test_arena_plan(rows):
    spans, sizes = [(a, b) for a, b, _ in rows], [s for _, _, s in rows]
    offsets, total = arena.plan(spans, sizes)
    assert (offsets, total) == arena.plan(spans, sizes)
    padded = [-(-s // 64) * 64 for s in sizes]
    for i, offset in enumerate(offsets):
        assert offset % 64 == 0 and offset >= 0 and offset + sizes[i] <= max(total, 0)
        for j in range(i):
            alive = spans[i][0] <= spans[j][1] and spans[j][0] <= spans[i][1]
            if alive and sizes[i] and sizes[j]:
                assert offset + sizes[i] <= offsets[j] or offsets[j] + sizes[j] <= offset
    busiest = max(
        (sum(p for p, (a, b) in zip(padded, spans, strict=True) if a <= t <= b) for t in range(13)), default=0
    )
    assert busiest <= total <= sum(padded)


def test_lives_are_extended_to_barrier_groups():
    buffers = [
        Buffer("temp", F32, (8,), f"t{i}", first, last)
        for i, (first, last) in enumerate([(0, 1), (2, 3), (3, 4)])
    ]
    commands = [
        Command(0, (BufferArg(0),), 8, 1, barrier, "c") for barrier in (False, False, True, False, True)
    ]
    # the first buffer says (0, 1) and is used by all five commands
    assert arena.live_intervals(program(["add"], buffers, commands)) == {0: (0, 2), 1: (1, 1), 2: (1, 2)}
    shared = [
        Command(0, (BufferArg(i),), 8, 1, b, "c") for i, b in ((0, False), (0, False), (1, False), (1, False))
    ]
    assert arena.live_intervals(program(["add"], buffers[:2], shared)) == {0: (0, 0), 1: (0, 0)}


@st.composite
def random_steps(draw):
    """Commands (kernel, sources a and b); each writes a buffer of its own. Sources 0 and 1 are inputs."""
    count = draw(st.integers(1, 14))
    return [
        (draw(st.sampled_from(["add", "mirror"])), draw(st.integers(0, 1 + i)), draw(st.integers(0, 1 + i)))
        for i in range(count)
    ]


@given(random_steps(), st.integers(1, 200), st.data())
@settings(max_examples=40, deadline=None)
def test_random_programs(steps, length, data):
    last_use = {2 + i: i for i in range(len(steps))}
    for i, (_, a, b) in enumerate(steps):
        last_use |= {a: i, b: i}
    final = 1 + len(steps)
    buffers = [Buffer("input", F32, (N,), "a"), Buffer("input", F32, (N,), "b")]
    buffers += [Buffer("temp", F32, (N,), f"t{i}", i, last_use[2 + i]) for i in range(len(steps) - 1)]
    buffers += [Buffer("output", F32, (N,), "y")]
    written: set[int] = set()
    commands = []
    for i, (name, a, b) in enumerate(steps):
        barrier = bool({a, b} & written) or data.draw(st.booleans())
        written = {2 + i} if barrier else written | {2 + i}
        args = (BufferArg(a), BufferArg(b), BufferArg(2 + i)) + ((SizeArg(N),) if name == "mirror" else ())
        work = data.draw(st.sampled_from([0, 30_000, BIG]))
        commands.append(Command(["add", "mirror"].index(name), args, N, 3, barrier, f"c{i}", work=work))
    executor = Executor(program(["add", "mirror"], buffers, commands, ["n"]))
    generator = np.random.default_rng(0)
    values = [generator.standard_normal(length).astype(np.float32) for _ in range(2)]
    inputs = values[:2]
    for name, a, b in steps:
        left = values[a] if name == "add" else values[a][::-1] * np.float32(0.5)
        values.append(left + values[b])
    for count in (1, 2, 4, 7):
        threads.set_num_threads(count)
        for _ in range(3):
            np.testing.assert_array_equal(executor.run(inputs)[0], values[final])
