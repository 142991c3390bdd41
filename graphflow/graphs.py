"""Graphs as functions: with values for their states they run, go to a file, and come back."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from graphflow import artifact, pytree
from graphflow.checking import engine_for
from graphflow.compiler.ir import Graph, Node
from graphflow.compiler.parser import parse
from graphflow.compiler.trace import current_trace
from graphflow.dims import Dim, evaluate
from graphflow.engine import Engine
from graphflow.errors import DTypeError, FormatError, ShapeError, TraceError
from graphflow.explain import Explanation
from graphflow.specs import as_array, misfit
from graphflow.tensor import Tensor, where_called
from graphflow.traced import Traced

# What was traced in this process: the handles behind a graph's states, and the nesting of its outputs.
_BINDINGS: WeakKeyDictionary[Graph, tuple[dict[str, Tensor], pytree.Spec]] = WeakKeyDictionary()


class CompiledGraph:
    """A graph with values for its states, ready to run; what ``load_graph`` gives.

    ``states`` maps names to Tensors; calls update them in place. ``graph`` is the graph itself.
    """

    def __init__(self, graph: Graph, states: dict[str, Tensor], spec: pytree.Spec, engine: Engine):
        self.graph = graph
        self.states = states
        self._spec = spec
        self._engine = engine
        self._names = [n.attrs["name"] for n in graph.states]
        self._arrays: tuple[np.ndarray, ...] = ()

    def __call__(self, *args: Any) -> Any:
        """Runs the graph on Tensors, arrays or numbers in the order of ``graph.args``."""
        if current_trace() is not None:
            raise TraceError(
                f"{self.graph.name} is a compiled graph and can't be part of a compiled function"
            )
        if len(args) != len(self.graph.args):
            names = ", ".join(f"{n.attrs['name']}: {n.type}" for n in self.graph.args)
            raise TypeError(f"{self.graph.name} takes ({names}), got {len(args)} arguments")
        arrays = []
        for node, value in zip(self.graph.args, args, strict=True):
            array = as_array(value)
            if array is None:
                if isinstance(value, Tensor):
                    value._leaked()
                array = _as_given(value, node)
            arrays.append(array)
        held = [self.states[name]._array for name in self._names]
        if len(held) != len(self._arrays) or any(a is not b for a, b in zip(held, self._arrays, strict=True)):
            self._arrays = tuple(held)  # type: ignore[arg-type]
        try:
            outputs = self._engine.call(arrays, self._arrays)
        except (ShapeError, DTypeError):
            self._check_arguments(arrays)
            raise
        for index, _ in self.graph.updates:
            self.states[self._names[index]]._storage.version += 1
        return pytree.unflatten(self._spec, [Tensor.holding(o) for o in outputs])

    def _check_arguments(self, arrays: Sequence[np.ndarray]) -> None:
        """DTypeError or ShapeError where an argument isn't what the graph takes."""
        sizes: dict[str, int] = {}
        for node, array in zip(self.graph.args, arrays, strict=True):
            fits = array.ndim == len(node.shape)
            for size, actual in zip(node.shape, array.shape, strict=True) if fits else ():
                expected = size
                if isinstance(size, Dim):
                    if str(size).isidentifier():
                        sizes.setdefault(str(size), actual)
                    expected = evaluate(size, sizes) if size.symbols() <= sizes.keys() else actual
                fits = fits and expected == actual
            if not fits or array.dtype != node.dtype.numpy:
                what = f"{self.graph.name}: argument {node.attrs['name']}"
                raise misfit(what, str(node.type), node.dtype, array, sizes)

    def __copy__(self) -> CompiledGraph:
        return CompiledGraph(self.graph, self.states, self._spec, self._engine)

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledGraph:
        """The same graph and machine code, with states of its own."""
        made = CompiledGraph(self.graph, copy.deepcopy(self.states, memo), self._spec, self._engine)
        memo[id(self)] = made
        return made

    def explain(self) -> Explanation:
        """Every stage of the graph's way to machine code."""
        return Explanation(self._engine, [])

    def __repr__(self) -> str:
        return f"<compiled graph {self.graph.name}({', '.join(str(n.type) for n in self.graph.args)})>"


def _as_given(value: Any, node: Node) -> np.ndarray:
    """Numbers that are no array, or nested sequences of them."""
    try:
        return np.asarray(value, node.dtype.numpy if isinstance(value, int) else None)
    except (ValueError, OverflowError) as error:
        name = node.attrs["name"]
        problem = f"argument {name} has to be {node.type}, a rectangular array of such numbers: {error}"
        kind = ShapeError if isinstance(error, ValueError) else DTypeError
        raise kind(f"{problem}{where_called()}") from None


def keep_binding(traced: Traced) -> Graph:
    """The traced graph, with its states' handles and the nesting of its results remembered."""
    graph = traced.graph
    names = [n.attrs["name"] for n in graph.states]
    count = len(graph.outputs)
    spec: pytree.Spec = traced.results.spec
    if pytree.count(spec) != count or any(n is None for n, _ in traced.results.returned):
        spec = ("tuple", (pytree.LEAF,) * count)
    _BINDINGS[graph] = dict(zip(names, traced.states, strict=True)), spec
    return graph


def _binding(graph: Graph) -> tuple[dict[str, Tensor], pytree.Spec]:
    """States' handles and the nesting of results; where none is known, one result is just that."""
    count = len(graph.outputs)
    return _BINDINGS.get(graph, ({}, pytree.LEAF if count == 1 else ("tuple", (pytree.LEAF,) * count)))


def compiled_graph(
    graph: Graph, states: dict[str, Any] | None, check: bool = False, check_nan: bool = False
) -> CompiledGraph:
    """A graph made callable; `states` gives values by name, over those of this process's trace."""
    bound, spec = _binding(graph)
    values = dict(bound)
    names = [n.attrs["name"] for n in graph.states]
    for name, value in (states or {}).items():
        if name not in names:
            raise TypeError(f"{graph.name} has no state {name!r}; it has {', '.join(names) or 'none'}")
        values[name] = value if isinstance(value, Tensor) else Tensor.holding(np.array(value))
    missing = [name for name in names if name not in values]
    if missing:
        raise TypeError(
            f"the graph has states without values: {', '.join(missing)}; pass states={{name: value}}"
        )
    for node in graph.states:
        value = values[node.attrs["name"]]
        if value.type_ != node.type:
            raise TypeError(f"state {node.attrs['name']} has to be {node.type}, got {value.type_}")
    return CompiledGraph(graph, values, spec, engine_for(graph, check, check_nan))


# ---------------------------------------------------------------------------------------------- files


def export_traced(traced: Traced, handles: Sequence[Tensor], path: str | os.PathLike[str]) -> None:
    """Writes a traced function with the values of its states' `handles`.

    The gradients that a call leaves behind are left out: a file has nothing to leave them on.
    """
    results, graph = traced.results, traced.graph
    if results.argument_updates:
        raise TraceError(
            "the function changes its arguments in place, which a file can't do; return the new values"
        )
    if any(n is None and value is not None for n, value in results.returned):
        raise TraceError("the function returns values that aren't tensors, which a file can't hold")
    left = {id(holder) for holder, value in results.grads if value is not None}
    if any(id(read.holder) in left for read in traced.grad_reads):
        raise TraceError(
            "the function adds to gradients that earlier calls left, which a file can't keep; call "
            "zero_grad() in it"
        )
    outputs = tuple(graph.outputs[n] for n, _ in results.returned if n is not None)
    spec = pytree.graft(
        results.spec, (pytree.NONE if n is None else pytree.LEAF for n, _ in results.returned)
    )
    kept = Graph(graph.name, graph.args, graph.states, outputs, graph.updates)
    names = [n.attrs["name"] for n in graph.states]
    _write(path, kept, dict(zip(names, handles, strict=True)), spec)


def export_graph(graph: CompiledGraph | Graph, path: str | os.PathLike[str]) -> None:
    """Writes a graph with its states' values."""
    if isinstance(graph, CompiledGraph):
        _write(path, graph.graph, graph.states, graph._spec)
        return
    states, spec = _binding(graph)
    if graph.states and not states:
        raise TypeError("the graph's states have no values here; export graphflow.compile(graph, states=...)")
    _write(path, graph, states, spec)


def _write(path: str | os.PathLike[str], graph: Graph, states: dict[str, Tensor], spec: pytree.Spec) -> None:
    arrays = {}
    for node in graph.states:
        array = states[node.attrs["name"]]._array
        assert array is not None
        arrays[node.attrs["name"]] = array
    artifact.write_artifact(path, graph, arrays, {"outputs": pytree.to_json(spec)})


def parse_graph(text: str) -> Graph:
    """The graph that a text describes, as ``str(graph)`` writes it; printed again it gives the same text.

    ``graphflow.compile(graph, states={name: value})`` makes it callable; it gives one result as it is,
    several as a tuple. FormatError with the line's number where the text describes no graph. Text is data:
    nothing in it is executed.
    """
    if not isinstance(text, str):
        raise TypeError(f"parse_graph takes a graph's text, not {type(text).__name__}{where_called()}")
    return parse(text)


def load_graph(path: str | os.PathLike[str]) -> CompiledGraph:
    """Reads a ``.gfz`` file: a callable that computes, and trains, as the exported function did.

    FormatError when the file is truncated, altered or of an unknown version; nothing of it is ever executed
    as code.
    """
    graph, states, meta = artifact.read_artifact(path)
    try:
        spec = pytree.from_json(meta.get("outputs"))
    except ValueError as error:
        raise FormatError(f"{os.fspath(path)}: {error}") from None
    if pytree.count(spec) != len(graph.outputs):
        raise FormatError(
            f"{os.fspath(path)}: describes {pytree.count(spec)} results, the graph has {len(graph.outputs)}"
        )
    tensors = {}
    for node in graph.states:
        name = node.attrs["name"]
        tensors[name] = Tensor.holding(np.array(states[name]))
        tensors[name].name = name
    return CompiledGraph(graph, tensors, spec, Engine(graph))


__all__ = [
    "CompiledGraph",
    "compiled_graph",
    "export_graph",
    "export_traced",
    "keep_binding",
    "load_graph",
    "parse_graph",
]
