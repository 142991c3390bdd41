"""What the training steps of the benchmark need of memory: planned, allocated, and told by ``explain()``."""

from __future__ import annotations

import itertools
from math import prod

import graphflow as gf
import numpy as np
import pytest
from graphflow.engine import compile_graph
from graphflow.footprint import peak
from graphflow.runtime import arena, schedule, scratch
from graphflow.runtime.layout import evaluator

from models import mlp_adam
from workloads import WORKLOADS, first_call


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_predicted_peak_is_what_is_allocated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _, _ = first_call(name, monkeypatch)
    executor = engine.executor
    symbols = executor.program.symbols
    for batch in (1, 3, 17, 64) if symbols else (0,):
        sizes = dict.fromkeys(symbols, batch)
        expected = peak(engine.compiled, sizes)
        instance = executor.instance(sizes)
        assert expected.arena == instance.arena_bytes
        instance.share()
        assert expected.scratch == instance.held().scratch
        # aligned to cache lines, buffers take hardly more than those that are alive at the same time
        waste = expected.arena - expected.alive
        assert 0 <= waste <= expected.alive // 50 + 64 * len(expected.values)
        assert sum(value.bytes for value in expected.values) == expected.alive
    largest = executor.instance(dict.fromkeys(symbols, 64)).held().arena
    assert largest == max(i.arena_bytes for i in map(executor.instance, executor.kept_assignments))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", WORKLOADS)
def test_scratch_lies_where_nothing_lives(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, _, _ = first_call(name, monkeypatch)
    program = engine.executor.program
    intervals = arena.live_intervals(program)
    groups = arena.groups([command.barrier for command in program.commands])
    for batch in (1, 17, 64) if program.symbols else (0,):
        size = evaluator(dict.fromkeys(program.symbols, batch))
        buffers = program.buffers
        widths = {b: prod(map(size, buffers[b].shape)) * buffers[b].dtype.itemsize for b in intervals}
        offsets, end = arena.plan([intervals[b] for b in intervals], [widths[b] for b in intervals])
        places = dict(zip(intervals, offsets, strict=True))
        costs = [(max(size(c.extent), 0), size(c.grain), size(c.work)) for c in program.commands]
        cuts = schedule.cuts(costs, program.regions().values(), count)
        placed = scratch.plan(program, size, cuts, intervals, widths, places)
        taken: dict[tuple[int, int], list[tuple[int, int]]] = {}  # pieces of memory by group and thread
        for number, (command, cut, group) in enumerate(zip(program.commands, cuts, groups, strict=True)):
            need, limit = size(command.scratch), placed.own if placed.beside[number] else end
            for thread in range(cut.threads if need else 0):
                first = placed.offsets[number] - thread * placed.strides[number]
                assert first % 64 == 0 and first >= 0 and first + need <= limit
                taken.setdefault((group, thread), []).append((first, first + need))
                if not placed.beside[number]:
                    alive = [b for b, (start, stop) in intervals.items() if start <= group <= stop]
                    ends = {b: places[b] + widths[b] for b in alive}
                    assert not [b for b in alive if places[b] < first + need and first < ends[b]]
        for group in set(groups):
            pieces = [(t, piece) for (g, t), found in taken.items() if g == group for piece in found]
            for (t, (first, stop)), (u, (start, end_)) in itertools.combinations(pieces, 2):
                assert t == u or stop <= start or end_ <= first


def test_the_text_names_what_is_alive() -> None:
    step = gf.compile(lambda x, w: gf.relu(x @ w) @ w)
    step(gf.ones(8, 32), gf.ones(32, 32))
    explained = step.explain()
    (first,) = explained.memory.peaks
    assert first.sizes == {"batch": 8}
    assert [(v.bytes, v.ops, v.shape) for v in first.values] == [(8 * 32 * 4, ("relu",), (8, 32))]
    assert "1024 alive in" in str(
        explained
    ) and "1024 bytes: relu float32[8, 32] from test_footprint.py:" in str(explained)
    assert explained.peak(batch=5).arena == 5 * 32 * 4
    with pytest.raises(TypeError, match="batch"):
        explained.peak()


def test_what_an_instance_holds() -> None:
    engine = compile_graph(mlp_adam())
    shapes = [tuple(9 if not isinstance(s, int) else s for s in node.shape) for node in engine.graph.inputs]
    engine.run([np.ones(s, n.dtype.numpy) for s, n in zip(shapes, engine.graph.inputs, strict=True)])
    instance = engine.executor.instance({"n": 9})
    held = instance.held()
    assert held.arena == instance.arena_bytes > 0
    assert held.scratch == instance.scratch_bytes
    assert held.outputs == sum(int(np.prod(instance.shapes[b])) * 4 for b in engine.executor.program.outputs)


def test_a_plan_is_tried_in_several_orders() -> None:
    # by size, what lives long lies behind what lives at its beginning, and what lives at its end behind it
    spans, sizes = [(3, 3), (1, 1), (0, 3), (1, 1)], [384, 192, 192, 256]
    _, total = arena.plan(spans, sizes)
    assert total == arena.peak(spans, sizes) == 640
    assert arena.plan([], []) == ([], 0)
    assert arena.plan([(0, 0)], [0]) == ([0], 0)
