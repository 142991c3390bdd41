"""Engines that look at every run: kernels beside the reference evaluator, and where NaNs come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.compiler import interpret
from graphflow.compiler.ir import Graph, Node, toposort
from graphflow.dtypes import finfo, holds_floats
from graphflow.engine import Engine, Prepared
from graphflow.errors import CheckError, NaNError
from graphflow.runtime.program import Command

UPDATE = "_update"  # in the labels of commands that only copy values into their states
_RELATIVE = {"float16": 1e-3, "bfloat16": 1e-2, "float32": 1e-5, "float64": 1e-12}
_ROUNDING = 4  # inputs are shaken by so many units in the last place
_ALLOWED = 16.0  # a kernel may differ by so many times what the shaking changes


class CheckedEngine(Engine):
    """An Engine whose runs are checked, at many times the cost. States change only if nothing was found."""

    def __init__(self, graph: Graph, check: bool, check_nan: bool):
        super().__init__(graph, inspected=True)
        self._check, self._check_nan = check, check_nan

    def call(self, args: Sequence[np.ndarray], states: Sequence[np.ndarray]) -> list[np.ndarray]:
        """`Engine.call`; CheckError for a kernel that computes the wrong thing, NaNError for a NaN."""
        own = list(states[: len(self.graph.states)])
        changed = [np.array(s, order="C") for s in own]
        outputs = super().call(args, changed)
        if self._check:
            self._compare(args, own, [*outputs, *changed])
        if self._check_nan:
            new = [changed[i] for i, _ in self.graph.updates]
            _refuse_nan(self.graph, [*args, *own], [*outputs, *new])
        for state, value in zip(own, changed, strict=True):
            np.copyto(state, value)
        return outputs

    def prepared(self, args: Sequence[np.ndarray], states: tuple[np.ndarray, ...]) -> Prepared | None:
        """None: every run is looked at."""
        return None

    def _compare(
        self, args: Sequence[np.ndarray], states: Sequence[np.ndarray], results: Sequence[np.ndarray]
    ) -> None:
        again = [np.array(s, order="C") for s in states]
        bench = _Bench(self, interpret.bind_symbols(self.graph.inputs, [*args, *states]))
        status = [np.zeros_like(self.status)] if self.checks else []
        outputs = self.executor.run_stepwise(args, [*again, *status], before=bench.before, after=bench.after)
        for a, b in zip(results, [*outputs, *again], strict=True):
            if not np.array_equal(a, b, equal_nan=holds_floats(a)):
                raise CheckError(
                    f"{self.graph.name}: kernels that run at the same time give other results than one after "
                    "another; this is a mistake in graphflow"
                )


class _Bench:
    """One run, command by command: what they store beside what the evaluator makes of what they read."""

    def __init__(self, engine: Engine, symbols: Mapping[str, int]):
        compiled = engine.compiled
        self.symbols, self.places = symbols, compiled.layout.places
        self.program, self.nodes = compiled.program, compiled.command_nodes
        self.expected: dict[Node, tuple[np.ndarray, np.ndarray]] = {}
        self.rng = np.random.default_rng(0)
        # A value may take several commands; it is there after the last of them.
        self.first: dict[Node, int] = {}
        self.last: dict[Node, int] = {}
        for index, (command, nodes) in enumerate(zip(self.program.commands, self.nodes, strict=True)):
            if UPDATE in command.label:
                continue  # copies values that are stored already
            for node in nodes:
                if node in self.places:
                    self.first.setdefault(node, index)
                    self.last[node] = index

    def before(self, index: int, command: Command, array: Callable[[int], np.ndarray]) -> None:
        """Evaluates what the command is going to compute, before it overwrites what it reads."""
        own = set(self.nodes[index])
        targets = [n for n in self.nodes[index] if self.first.get(n) == index]
        if not targets:
            return
        known: dict[Node, np.ndarray] = {}
        for node in toposort(targets, stop={n for n in self.places if n not in own}):
            if node in self.places and node not in own:
                known[node] = np.array(array(self.places[node])).reshape(self._shape(node))
        runs = [self._evaluate(targets, known)]
        for shaken in self._shaken(known):
            runs.append(self._evaluate(targets, shaken))
        for node, value, *others in zip(targets, *runs, strict=True):
            self.expected[node] = value, _spread(value, others)

    def _evaluate(self, targets: Sequence[Node], known: Mapping[Node, np.ndarray]) -> list[Any]:
        with np.errstate(all="ignore"):
            return interpret.evaluate(targets, known, self.symbols)

    def _shape(self, node: Node) -> tuple[int, ...]:
        return tuple(interpret.concrete(node.shape, self.symbols))

    def _shaken(self, known: Mapping[Node, np.ndarray]) -> list[dict[Node, np.ndarray]]:
        """The values read, moved by a rounding error: up, down, and anyhow."""
        signs = {n: self.rng.choice([-1.0, 1.0], (2, *a.shape)) for n, a in known.items() if holds_floats(a)}
        found = []
        with np.errstate(all="ignore"):
            for factor, row in ((1.0, 0), (-1.0, 0), (1.0, 1)):
                moved = dict(known)
                for node, sign in signs.items():
                    step = factor * _ROUNDING * finfo(known[node].dtype).eps
                    moved[node] = (known[node] * (1 + step * sign[row])).astype(known[node].dtype)
                found.append(moved)
        return found

    def after(self, index: int, command: Command, array: Callable[[int], np.ndarray]) -> None:
        """Compares what is there now with what was expected."""
        for node in self.nodes[index]:
            if self.last.get(node) != index:
                continue
            expected, allowed = self.expected.pop(node)
            got = np.array(array(self.places[node])).reshape(expected.shape)
            wrong = _differs(got, expected, allowed)
            if wrong.any():
                first = tuple(int(i) for i in np.argwhere(wrong)[0])
                kernel = self.program.kernels[command.kernel]
                places = dict.fromkeys(n.loc.describe() for n in self.nodes[index] if n.loc is not None)
                lines = "".join(f"\n  at {place}" for place in places)
                raise CheckError(
                    f"the kernel {command.label} differs from the evaluator: {node.op.name}, {node.type}, is "
                    f"{got[first]} instead of {expected[first]} at {first}; {int(wrong.sum())} of "
                    f"{wrong.size} elements differ{lines}\n{kernel.source}"
                )


def _spread(value: np.ndarray, others: Sequence[np.ndarray]) -> np.ndarray:
    """How far an element may be off: by what rounding of the inputs does to it, and to all in the mean."""
    if not holds_floats(value):
        return np.asarray(np.any([other != value for other in others], axis=0))
    with np.errstate(all="ignore"):
        moved = np.max(
            [np.abs(other.astype(np.float64) - value.astype(np.float64)) for other in others], axis=0
        )
        moved = np.where(np.isfinite(moved), moved, 0.0)
        mean = np.sqrt(np.mean(moved**2)) if moved.size else 0.0
        relative = _RELATIVE[value.dtype.name] * np.abs(value.astype(np.float64))
        smallest = finfo(value.dtype).smallest_normal
        allowed = np.where(np.isfinite(relative), relative, 0.0) + _ALLOWED * (moved + mean) + smallest
        return np.asarray(allowed)


def _differs(got: np.ndarray, expected: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    if not holds_floats(got):
        return np.asarray((got != expected) & ~allowed)
    with np.errstate(all="ignore"):
        apart = np.abs(got.astype(np.float64) - expected.astype(np.float64)) > allowed
        same = (got == expected) | (np.isnan(got) & np.isnan(expected))
        return np.asarray(~same & (apart | ~np.isfinite(got) | ~np.isfinite(expected)))


# ---------------------------------------------------------------------------------------------- NaNs


def _has_nan(value: Any) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return any(holds_floats(p) and bool(np.isnan(p).any()) for p in parts)


def _refuse_nan(graph: Graph, inputs: Sequence[np.ndarray], results: Sequence[np.ndarray]) -> None:
    """NaNError naming what made the NaN of a result: found by evaluating the graph as it was traced."""
    if not any(map(_has_nan, results)):
        return
    values: dict[Node, Any] = dict(zip(graph.inputs, inputs, strict=True))
    symbols = interpret.bind_symbols(graph.inputs, inputs)
    with np.errstate(all="ignore"):
        interpret.evaluate(graph.roots, values.copy(), symbols, values.__setitem__)
    wanted = {root for root, value in zip(graph.roots, results, strict=True) if _has_nan(value)}
    makers = []
    for node in reversed(toposort(wanted)):
        if node not in wanted or node not in values or not _has_nan(values[node]):
            continue
        sources = [i for i in node.inputs if _has_nan(values[i])]
        wanted.update(sources)
        if not sources:
            makers.append(node)
    if not makers:
        raise NaNError(
            f"{graph.name}: kernels give a NaN where the evaluator doesn't; compile(check=True) finds which"
        )
    maker = makers[-1]
    if maker.op.kind == "input":
        kind = "argument" if maker in graph.args else "state"
        raise NaNError(f"{graph.name}: the {kind} {maker.attrs['name']} held a NaN before the call")
    where = f"\n  at {maker.loc.describe()}" if maker.loc else ""
    raise NaNError(
        f"{graph.name}: {maker.op.name} makes a NaN{_operands_there(maker, values)}; the result is "
        f"{maker.type}{where}"
    )


def _operands_there(node: Node, values: Mapping[Node, Any]) -> str:
    """The operands' elements that gave the first NaN, where elements correspond."""
    value = values[node]
    operands = [values[i] for i in node.inputs]
    if isinstance(value, tuple) or any(isinstance(o, tuple) for o in operands):
        return ""
    first = tuple(np.argwhere(np.isnan(value))[0])
    try:
        found = [np.broadcast_to(o, value.shape)[first] for o in operands]
    except ValueError:
        return ""
    return f" of {', '.join(map(str, found))}"


def engine_for(graph: Graph, check: bool, check_nan: bool) -> Engine:
    """The engine with the checks asked for."""
    return CheckedEngine(graph, check, check_nan) if check or check_nan else Engine(graph)


__all__ = ["CheckedEngine", "engine_for"]
