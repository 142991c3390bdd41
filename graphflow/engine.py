"""Where compiler and runtime meet: a graph compiled and ready to run."""

from __future__ import annotations

import functools
import operator
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphflow import plans, tuning
from graphflow.compiler import pipeline
from graphflow.compiler.interpret import bind_symbols
from graphflow.compiler.ir import Graph
from graphflow.compiler.pipeline import Compiled
from graphflow.compiler.plan import plan_of
from graphflow.config import settings
from graphflow.runtime import cache, report, threads
from graphflow.runtime.executor import INSTANCES_KEPT, CommandTime, Executor, Profiled
from graphflow.runtime.instance import Instance
from graphflow.runtime.locks import ForkLock

Observer = Callable[["Engine", Profiled], None]

#: Told the engine and the result of every run; while there is one, runs are profiled.
observers: tuple[Observer, ...] = ()
_observing = ForkLock()


def observe(observer: Observer) -> None:
    """Has a function told of every run from now on, until `ignore`."""
    global observers
    with _observing:
        observers = (*observers, observer)


def ignore(observer: Observer) -> None:
    """Ends `observe`."""
    global observers
    with _observing:
        observers = tuple([o for o in observers if o != observer])


class Prepared(NamedTuple):
    """What a direct call of an engine needs: the instance, the states' addresses, a status of its own if
    kernels check, and what raises its error.
    """

    instance: Instance
    states: Sequence[int]
    status: np.ndarray | None
    fail: Callable[[], None]


class Engine:
    """A compiled graph with its executor. ``fastest`` holds what each command took at best in profiled runs,
    by the sizes they had.

    Where the cache has the plan of such a graph no pass runs, unless `inspected` says that the stages are
    going to be looked at anyway.
    """

    def __init__(self, graph: Graph, join: bool = True, inspected: bool = False):
        self.graph = graph
        self._join = join
        self._compiled: Compiled | None = None
        tuning.apply()
        kept = None if inspected else plans.place(graph, join)
        plan = kept.find() if kept else None
        if plan is None:
            compile_all = functools.partial(cache.compile_all, threads=threads.compile_threads())
            self._compiled = pipeline.compile_graph(graph, compile_all, join)
            plan = plan_of(self._compiled)
            if kept:
                kept.keep(plan)
        changed = {number for number, _ in graph.updates}
        unwritten = [n for n in range(len(graph.states)) if n not in changed]
        self.executor = Executor(plan.program, unwritten)
        self.status = np.zeros(2, np.int64)
        self.checks = plan.checks
        self._bounds = plan.bounds
        self._lock = ForkLock()
        self._proved: set[tuple[tuple[int, ...], ...]] = set()
        self.fastest: dict[tuple[tuple[str, int], ...], list[CommandTime]] = {}

    @property
    def compiled(self) -> Compiled:
        """Every stage for inspection; where the plan came out of the cache the passes run now."""
        if self._compiled is None:
            codes = {k.digest: (k.object_code, dict[str, Any]()) for k in self.executor.program.kernels}
            self._compiled = pipeline.compile_graph(
                self.graph,
                lambda wanted: [codes.get(digest) or cache.compile(digest, make) for digest, make in wanted],
                self._join,
            )
        return self._compiled

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
                self.raise_index_error(self.status, self.executor.kept_assignments[-1])
        return outputs

    def prepared(self, args: Sequence[np.ndarray], states: tuple[np.ndarray, ...]) -> Prepared | None:
        """For direct calls with arrays like those of a call that succeeded; None where `call` does more than
        run.
        """
        status = np.zeros_like(self.status)
        is_watched = observers or settings().debug >= 2
        found = None if is_watched else self.executor.prepared(args, states)
        if found is None:
            return None
        instance, addresses = found
        if self.checks:
            addresses = [*addresses[:-1], status.ctypes.data]
        fail = functools.partial(self.raise_index_error, status, instance.values)
        return Prepared(instance, addresses, status if self.checks else None, fail)

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
        for observer in observers:
            observer(self, profiled)
        return profiled.outputs

    def raise_index_error(self, status: np.ndarray, values: Mapping[str, int]) -> None:
        """Reports the index that a kernel found out of range, the symbols having these `values`, and forgets
        it.
        """
        code, value = (int(v) for v in status)
        status[:] = 0
        raise self.checks[code - 1].failed(value, values)

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
