"""Where compiler and runtime meet: a graph compiled and ready to run."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Sequence

import numpy as np

from graphflow.compiler import pipeline
from graphflow.compiler.bounds import unproved
from graphflow.compiler.interpret import bind_symbols
from graphflow.compiler.ir import Graph
from graphflow.compiler.location import Asked
from graphflow.config import settings
from graphflow.dims import evaluate
from graphflow.runtime import cache, report, threads
from graphflow.runtime.executor import INSTANCES_KEPT, CommandTime, Executor, Profiled
from graphflow.runtime.locks import ForkLock

#: Told the engine and the result of every run; while there is one, runs are profiled.
observers: list[Callable[[Engine, Profiled], None]] = []


class Engine:
    """A compiled graph with its executor. ``compiled`` holds every stage for inspection, ``fastest`` what
    each command took at best in profiled runs, by the sizes they had.
    """

    def __init__(self, graph: Graph, join: bool = True):
        self.graph = graph
        compile_all = functools.partial(cache.compile_all, threads=threads.compile_threads())
        self.compiled = pipeline.compile_graph(graph, compile_all, join)
        changed = {number for number, _ in graph.updates}
        unwritten = [n for n in range(len(graph.states)) if n not in changed]
        self.executor = Executor(self.compiled.program, unwritten)
        self.status = np.zeros(2, np.int64)
        self.checks = self.compiled.layout.checks
        self._bounds = unproved(self.compiled.fused.graph)
        self._lock = ForkLock()
        self._proved: set[tuple[tuple[int, ...], ...]] = set()
        self.fastest: dict[tuple[tuple[str, int], ...], list[CommandTime]] = {}

    def call(self, args: Sequence[np.ndarray], states: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs the graph: outputs in fresh arrays, states updated in place.

        `states` are the graph's in order; pass the same tuple again for speed. IndexError for an index out of
        range.
        """
        if self._bounds:
            self._check_bounds(args, states)
        run = self._run_profiled if observers or settings().debug >= 2 else self.executor.run
        if not self.checks:
            return run(args, states)
        if not states or states[-1] is not self.status:
            states = (*states, self.status)
        with self._lock:  # the status belongs to one run at a time
            outputs = run(args, states)
            if self.status[0]:
                self.raise_index_error()
        return outputs

    def _check_bounds(self, args: Sequence[np.ndarray], states: Sequence[np.ndarray]) -> None:
        """Slices with symbolic bounds are checked once for every set of sizes: machine code doesn't look."""
        shapes = tuple(a.shape for a in args)
        if shapes not in self._proved:
            symbols = bind_symbols(self.graph.inputs, [*args, *states[: len(self.graph.states)]])
            for bound in self._bounds:
                bound.check(symbols)
            self._proved.add(shapes)

    def _run_profiled(self, args: Sequence[np.ndarray], states: Sequence[np.ndarray]) -> list[np.ndarray]:
        profiled = self.executor.profile(args, states)
        key = tuple(profiled.sizes.items())
        before = self.fastest.pop(key, profiled.times)
        self.fastest[key] = [min(a, b, key=_nanoseconds) for a, b in zip(before, profiled.times, strict=True)]
        while len(self.fastest) > INSTANCES_KEPT:
            del self.fastest[next(iter(self.fastest))]
        if settings().debug >= 2:
            print(f"graphflow: {self.graph.name}\n{report.table(profiled.times)}", file=sys.stderr)
        for observer in tuple(observers):
            observer(self, profiled)
        return profiled.outputs

    def raise_index_error(self) -> None:
        """Reports the index that a kernel found out of range, and forgets it."""
        code, value = (int(v) for v in self.status)
        self.status[:] = 0
        node = self.checks[code - 1]
        size = node.inputs[0].shape[node.attrs["dim"]] if node.op.kind == "gather" else node.attrs["size"]
        size = evaluate(size, self.executor.kept_assignments[-1])
        where = f"\n  at {node.loc.describe()}" if node.loc else ""
        asked = node.loc.asked if node.loc and node.loc.asked else Asked(node.op.name, False)
        raise IndexError(f"{asked.name}: {asked.told(value, int(size))}{where}")

    def run(self, inputs: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Outputs and new state values, as ``interpret.run_graph``; the given states stay as they are."""
        bind_symbols(self.graph.inputs, inputs)
        count = len(self.graph.args)
        states = tuple(np.array(s, order="C") for s in inputs[count:])
        outputs = self.call(inputs[:count], states)
        return outputs, [states[i] for i, _ in self.graph.updates]


_nanoseconds = operator.attrgetter("nanoseconds")


def compile_graph(graph: Graph, join: bool = True) -> Engine:
    """Compiles a graph for this machine.

    `join=False` gives each op a kernel of its own, to compare with.
    """
    return Engine(graph, join)
