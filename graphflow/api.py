"""``compile``, ``trace``, ``export`` and ``load_graph``: from a Python function to a
program, and to a file and back.
"""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar, overload
from weakref import WeakKeyDictionary

import numpy as np

from graphflow import artifact, pytree
from graphflow.compiler.ir import Graph
from graphflow.compiler.trace import current_trace
from graphflow.dims import Dim
from graphflow.engine import Engine, compile_graph
from graphflow.errors import FormatError, TraceError
from graphflow.explain import Explanation
from graphflow.specs import TensorSpec, as_array, bind, default_specs, static_key
from graphflow.tensor import Tensor, is_grad_enabled
from graphflow.variant import Arguments, Traced, Variant, trace_function

F = TypeVar("F", bound=Callable[..., Any])
_SCALARS = (bool, int, float, str)


class CompiledFunction:
    """A function that is traced and compiled when it is first called, once for every kind of arguments.

    ``variants`` lists the compiled variants with the reason each exists; a new batch size is no reason.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        signature: Sequence[TensorSpec] | None = None,
        max_variants: int | None = None,
        keep: int = 32,
    ):
        functools.update_wrapper(self, function)
        self._function = function
        self._signature = list(signature) if signature is not None else None
        self._max_variants = max_variants
        self._keep = keep
        self._variants: dict[Hashable, list[Variant]] = {}
        self._order: list[Variant] = []
        self._lock = threading.RLock()
        self._reads = _captured_scalars(function)
        self._name = getattr(function, "__name__", type(function).__name__)

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The compiled variants, oldest first; ``str`` of one tells its arguments and why it was made."""
        return tuple(self._order)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """Makes a compiled function usable as a method."""
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the compiled function. Inside another compiled function it becomes part of that one."""
        if current_trace() is not None:
            return self._function(*args, **kwargs)
        leaves, spec = pytree.flatten((args, kwargs))
        key: list[Hashable] = [spec, is_grad_enabled()]
        arrays: list[np.ndarray] = []
        dynamic: list[int] = []
        for position, leaf in enumerate(leaves):
            array = as_array(leaf)
            if array is None:
                if isinstance(leaf, Tensor):
                    leaf._leaked()
                key.append(static_key(leaf))
            else:
                wants = leaf._requires_grad if type(leaf) is Tensor or isinstance(leaf, Tensor) else None
                key.append((array.dtype, array.ndim, wants))
                arrays.append(array)
                dynamic.append(position)
        for read in self._reads:
            key.append(read())
        found = self._find(tuple(key), leaves, spec, dynamic, arrays)
        return found.run(leaves, dynamic, arrays)

    def _find(
        self,
        key: Hashable,
        leaves: list[Any],
        spec: pytree.Spec,
        dynamic: list[int],
        arrays: list[np.ndarray],
    ) -> Variant:
        reasons = []
        for variant in self._variants.get(key, ()):
            reason = variant.mismatch(arrays)
            if reason is None:
                return variant
            reasons.append(reason)
        with self._lock:
            for variant in self._variants.get(key, ()):
                if variant.mismatch(arrays) is None:
                    return variant
            return self._add(key, leaves, spec, dynamic, arrays, reasons)

    def _add(
        self,
        key: Hashable,
        leaves: list[Any],
        spec: pytree.Spec,
        dynamic: list[int],
        arrays: list[np.ndarray],
        reasons: list[str],
    ) -> Variant:
        reason = reasons[-1] if reasons else "the first call" if not self._order else self._new_kind(key)
        if self._max_variants is not None and len(self._order) >= self._max_variants:
            raise TraceError(
                f"{self._name} would need more than max_variants={self._max_variants} compiled variants: "
                f"{reason}"
            )
        names = self._argument_names(spec, dynamic)
        arguments = Arguments(leaves, spec, dynamic, arrays, names)
        if self._signature is not None:
            if len(self._signature) != len(arrays):
                raise TraceError(
                    f"the signature has {len(self._signature)} arguments, the call {len(arrays)}"
                )
            specs = self._signature
        else:
            specs = default_specs(arrays, names)
        hints = bind(specs, arrays, names)
        traced = trace_function(self._function, self._name, arguments, specs, hints)
        if traced.pinned and not reasons:
            fixed = ", ".join(f"{s} = {v}" for s, v in traced.pinned.items())
            reason = f"{reason}, with {fixed} fixed by the program"
        variant = Variant(
            traced,
            compile_graph(traced.graph),
            reason,
            (key, [leaf for i, leaf in enumerate(leaves) if i not in set(dynamic)]),
        )
        self._variants.setdefault(key, []).insert(0, variant)
        self._order.append(variant)
        if len(self._order) > self._keep:
            self._forget(self._order.pop(0))
        return variant

    def _forget(self, variant: Variant) -> None:
        for key, found in list(self._variants.items()):
            if variant in found:
                found.remove(variant)
                if not found:
                    del self._variants[key]

    def _new_kind(self, key: Any) -> str:
        """What distinguishes this call's arguments from those of the last variant."""
        last: Any = self._order[-1].key[0]  # type: ignore[index]
        if key[0] != last[0]:
            return "another nesting or number of arguments"
        if key[1] != last[1]:
            return f"gradients are {'enabled' if key[1] else 'disabled'} now"
        for number, (old, new) in enumerate(zip(last[2:], key[2:], strict=False)):
            if old != new:
                return f"argument {number}: {_describe_key(old)} became {_describe_key(new)}"
        return "other arguments"

    def _argument_names(self, spec: pytree.Spec, dynamic: list[int]) -> list[str]:
        """Names for the dynamic leaves: parameter names where they are leaves themselves."""
        positional, keyword = spec[1]
        try:
            parameters = list(inspect.signature(self._function).parameters.values())
        except (TypeError, ValueError):
            parameters = []
        names: list[str] = []
        for i, part in enumerate(positional[1]):
            plain = i < len(parameters) and parameters[i].kind is not inspect.Parameter.VAR_POSITIONAL
            base = parameters[i].name if plain else f"arg{i}"
            names += _leaf_names(base, part)
        for name, part in zip(keyword[1], keyword[2], strict=True):
            names += _leaf_names(str(name), part)
        taken: dict[str, int] = {}
        unique = []
        for position in dynamic:
            name = names[position]
            taken[name] = taken.get(name, 0) + 1
            unique.append(name if taken[name] == 1 else f"{name}_{taken[name]}")
        return unique

    def explain(self) -> Explanation:
        """Every stage of the variant compiled last: graphs, kernels with their source
        and lines, memory, work.
        """
        if not self._order:
            raise TraceError(f"{self._name} hasn't been compiled yet; call it once, or use graphflow.trace")
        return Explanation(
            self._order[-1].engine.compiled, self._order[-1].engine.executor, list(map(str, self._order))
        )

    def __repr__(self) -> str:
        return f"<compiled {self._name}, {len(self._order)} variants>"


def _leaf_names(base: str, spec: pytree.Spec) -> list[str]:
    if spec is pytree.LEAF or spec[0] == "leaf":
        return [base]
    keys = spec[1] if spec[0] == "dict" else range(len(spec[-1]))
    names = []
    for key, part in zip(keys, spec[-1], strict=True):
        label = str(key) if str(key).isidentifier() or isinstance(key, int) else "item"
        names += _leaf_names(f"{base}_{label}", part)
    return names


def _describe_key(key: Any) -> str:
    if isinstance(key, tuple) and len(key) == 3:
        return f"{key[0]} with {key[1]} dimensions" + (" requiring grad" if key[2] else "")
    if isinstance(key, tuple) and len(key) == 2:
        return repr(key[1]) if isinstance(key[1], (*_SCALARS, type(None))) else key[0].__name__
    return repr(key)


def _captured_scalars(function: Callable[..., Any]) -> list[Callable[[], Hashable]]:
    """Readers of the plain numbers and strings a function takes from around it: another
    value is another variant.
    """
    code = getattr(function, "__code__", None)
    readers: list[Callable[[], Hashable]] = []
    if code is None:
        return readers
    for cell in getattr(function, "__closure__", None) or ():
        readers.append(functools.partial(_read_cell, cell))
    space = function.__globals__
    for name in code.co_names:
        if isinstance(space.get(name), _SCALARS):
            readers.append(functools.partial(_read_global, space, name))
    return readers


def _read_cell(cell: Any) -> Hashable:
    try:
        value = cell.cell_contents
    except ValueError:
        return None
    return (type(value), value) if isinstance(value, _SCALARS) else id(value)


def _read_global(space: dict[str, Any], name: str) -> Hashable:
    value = space.get(name)
    return (type(value), value) if isinstance(value, _SCALARS) else id(value)


# ---------------------------------------------------------------------------------------- graphs as functions


class CompiledGraph:
    """A graph with values for its states, ready to run; what ``load_graph`` gives.

    ``states`` maps names to Tensors; calls update them in place. ``graph`` is the graph itself.
    """

    def __init__(self, graph: Graph, states: dict[str, Tensor], spec: pytree.Spec):
        self.graph = graph
        self.states = states
        self._spec = spec
        self._engine = Engine(graph)
        self._arrays: tuple[Any, ...] = tuple(states[n.attrs["name"]]._array for n in graph.states)

    def __call__(self, *args: Any) -> Any:
        """Runs the graph on Tensors, arrays or floats in the order of ``graph.args``."""
        if len(args) != len(self.graph.args):
            names = ", ".join(f"{n.attrs['name']}: {n.type}" for n in self.graph.args)
            raise TypeError(f"{self.graph.name} takes ({names}), got {len(args)} arguments")
        arrays = []
        for value in args:
            array = as_array(value)
            arrays.append(np.asarray(value) if array is None else array)
        outputs = self._engine.call(arrays, self._arrays)
        for index, _ in self.graph.updates:
            self.states[self.graph.states[index].attrs["name"]]._storage.version += 1
        return pytree.unflatten(self._spec, [Tensor(o) for o in outputs])

    def explain(self) -> Explanation:
        """Every stage of the graph's way to machine code."""
        return Explanation(self._engine.compiled, self._engine.executor, [])

    def __repr__(self) -> str:
        return f"<compiled graph {self.graph.name}({', '.join(str(n.type) for n in self.graph.args)})>"


_BINDINGS: WeakKeyDictionary[Graph, tuple[dict[str, Tensor], pytree.Spec]] = WeakKeyDictionary()


def trace(function: Callable[..., Any], *specs: TensorSpec) -> Graph:
    """The graph of `function` for arguments of the given specs, without running or compiling anything.

    The graph prints as text, and ``graphflow.compile`` makes it callable.
    """
    target = function._function if isinstance(function, CompiledFunction) else function
    for spec in specs:
        if not isinstance(spec, TensorSpec):
            raise TypeError(f"trace takes TensorSpecs after the function, not {type(spec).__name__}")
    name = getattr(target, "__name__", type(target).__name__)
    try:
        known = [p.name for p in inspect.signature(target).parameters.values()]
    except (TypeError, ValueError):
        known = []
    names = [s.name or (known[i] if i < len(known) else f"arg{i}") for i, s in enumerate(specs)]
    leaf_specs = ("tuple", (("tuple", tuple(pytree.LEAF for _ in specs)), ("dict", (), ())))
    arguments = Arguments([None] * len(specs), leaf_specs, list(range(len(specs))), [], names)
    traced = trace_function(target, name, arguments, list(specs), None)
    _BINDINGS[traced.graph] = _binding(traced)
    return traced.graph


def _binding(traced: Traced) -> tuple[dict[str, Tensor], pytree.Spec]:
    names = [n.attrs["name"] for n in traced.graph.states]
    count = len(traced.graph.outputs)
    spec: pytree.Spec = traced.results.spec
    if pytree.count(spec) != count or any(n is None for n, _ in traced.results.returned):
        spec = ("tuple", (pytree.LEAF,) * count)
    return dict(zip(names, traced.states, strict=True)), spec


@overload
def compile(function: F, /) -> CompiledFunction: ...
@overload
def compile(function: Graph, /, *, states: dict[str, Any] | None = None) -> CompiledGraph: ...
@overload
def compile(
    function: None = None,
    /,
    *,
    signature: Sequence[TensorSpec] | None = None,
    max_variants: int | None = None,
) -> Callable[[F], CompiledFunction]: ...


def compile(
    function: Any = None,
    /,
    *,
    signature: Sequence[TensorSpec] | None = None,
    max_variants: int | None = None,
    states: dict[str, Any] | None = None,
) -> Any:
    """Compiles a function (as a decorator, with or without arguments), a Module, or a Graph.

    `signature` names symbolic sizes; without it every argument's leading size is symbolic, and sizes that
    agree at the first call are one. `max_variants` turns one variant too many into an error. For a Graph that
    wasn't traced in this process, `states` gives values by name.
    """
    if isinstance(function, Graph):
        return _compile_graph(function, states)
    if states is not None:
        raise TypeError("states= goes with a Graph")
    make = functools.partial(CompiledFunction, signature=signature, max_variants=max_variants)
    if function is None:
        return make
    if not callable(function):
        raise TypeError(f"compile takes a function, a Module or a Graph, not {type(function).__name__}")
    return make(function)


def _compile_graph(graph: Graph, states: dict[str, Any] | None) -> CompiledGraph:
    bound, spec = _BINDINGS.get(graph, ({}, ("tuple", (pytree.LEAF,) * len(graph.outputs))))
    values = dict(bound)
    for name, value in (states or {}).items():
        values[name] = value if isinstance(value, Tensor) else Tensor(np.array(value))
    missing = [n.attrs["name"] for n in graph.states if n.attrs["name"] not in values]
    if missing:
        raise TypeError(
            f"the graph has states without values: {', '.join(missing)}; pass states={{name: value}}"
        )
    for node in graph.states:
        if values[node.attrs["name"]].type_ != node.type:
            raise TypeError(
                f"state {node.attrs['name']} has to be {node.type}, got {values[node.attrs['name']].type_}"
            )
    return CompiledGraph(graph, values, spec)


# ---------------------------------------------------------------------------------------------- files


def export(function: CompiledFunction | CompiledGraph | Graph, path: str | os.PathLike[str]) -> None:
    """Writes a compiled function's graph with its states' values (parameters, optimizer moments) to a
    ``.gfz`` file.

    Of a CompiledFunction it takes the variant used for the first call's kind of arguments; call it once
    before.
    """
    if isinstance(function, CompiledFunction):
        if not function.variants:
            raise TraceError(f"{function._name} hasn't been compiled yet; call it once before exporting it")
        if len(function.variants) > 1:
            kinds = "\n  ".join(map(str, function.variants))
            raise TraceError(
                f"{function._name} has several variants; export graphflow.trace(...) of one:\n  {kinds}"
            )
        graph, states, spec = _exported(function.variants[0].traced)
    elif isinstance(function, CompiledGraph):
        graph, states, spec = function.graph, function.states, function._spec
    elif isinstance(function, Graph):
        compiled = _BINDINGS.get(function)
        if compiled is None and function.states:
            raise TypeError(
                "the graph's states have no values here; export graphflow.compile(graph, states=...)"
            )
        states, spec = compiled or ({}, ("tuple", (pytree.LEAF,) * len(function.outputs)))
        graph = function
    else:
        raise TypeError(f"export takes a compiled function or a graph, not {type(function).__name__}")
    arrays = {n.attrs["name"]: states[n.attrs["name"]]._array for n in graph.states}
    artifact.write_artifact(path, graph, arrays, {"outputs": pytree.to_json(spec)})  # type: ignore[arg-type]


def _exported(traced: Traced) -> tuple[Graph, dict[str, Tensor], pytree.Spec]:
    """The graph without the gradients that a call leaves on handles: a file has no handles."""
    results, graph = traced.results, traced.graph
    if results.argument_updates:
        raise TraceError(
            "the function changes its arguments in place, which a file can't do; return the new values"
        )
    if any(n is None for n, _ in results.returned):
        raise TraceError("the function returns values that aren't tensors, which a file can't hold")
    outputs = tuple(graph.outputs[n] for n, _ in results.returned if n is not None)
    kept = Graph(graph.name, graph.args, graph.states, outputs, graph.updates)
    names = [n.attrs["name"] for n in graph.states]
    return kept, dict(zip(names, traced.states, strict=True)), results.spec


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
        tensors[name] = Tensor(np.array(states[name]))
        tensors[name].name = name
    return CompiledGraph(graph, tensors, spec)


__all__ = [
    "CompiledFunction",
    "CompiledGraph",
    "Dim",
    "TensorSpec",
    "compile",
    "export",
    "load_graph",
    "trace",
]
