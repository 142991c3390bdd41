"""One compiled variant of a user's function: its program, and what ties it to the user's handles."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphflow import pytree
from graphflow.calls import call_op, project
from graphflow.compiler.ir import Graph, Node
from graphflow.compiler.trace import Trace, current_trace, trace
from graphflow.engine import Engine
from graphflow.errors import TraceError
from graphflow.specs import TensorSpec
from graphflow.tensor import Storage, Tensor, epoch, grad_table, name_grad_fn, record


@dataclass(frozen=True)
class Arguments:
    """One call's arguments, taken apart: all leaves, which of them are dynamic, their arrays and names."""

    leaves: list[Any]
    spec: pytree.Spec
    dynamic: list[int]
    arrays: list[np.ndarray]
    names: list[str]


@dataclass(frozen=True)
class Results:
    """What the traced function leaves behind, besides its graph.

    ``returned`` has for every leaf of the result an output's number, or the constant itself;
    ``differentiable`` are the numbers of outputs that require grad. ``grads`` are (handle or argument number,
    output number, or the handle that stays, or None).
    """

    spec: pytree.Spec
    returned: tuple[tuple[int | None, Any], ...]
    grads: tuple[tuple[Tensor | int, int | Tensor | None], ...]
    argument_updates: tuple[tuple[int, int], ...]
    differentiable: frozenset[int]


@dataclass
class Traced:
    """A traced function: the graph and everything that ties it to handles."""

    graph: Graph
    results: Results
    states: tuple[Tensor, ...]
    specs: list[TensorSpec]
    pinned: dict[str, int]
    grad_reads: tuple[tuple[Tensor, Tensor | None], ...]
    static_reads: tuple[tuple[Callable[[], Hashable], Hashable], ...]


def trace_function(
    function: Callable[..., Any],
    name: str,
    arguments: Arguments,
    specs: list[TensorSpec],
    hints: Mapping[str, int] | None,
) -> Traced:
    """Runs `function` over symbols and writes down its graph."""

    def run(tracer: Trace, pinned: Mapping[str, int]) -> tuple[tuple[Node, ...], Results]:
        leaves = list(arguments.leaves)
        handles = []
        for position, spec, label in zip(arguments.dynamic, specs, arguments.names, strict=True):
            node = tracer.add_arg(label, spec.type_(pinned))
            given = leaves[position]
            wants = isinstance(given, Tensor) and given._requires_grad
            handles.append(Tensor.of_node(node, tracer, requires_grad=wants, leaf=True))
            leaves[position] = handles[-1]
        args, kwargs = pytree.unflatten(arguments.spec, leaves)
        return _collect(function(*args, **kwargs), tracer, handles)

    graph, tracer, pinned, results = trace(name, hints, run)
    table = grad_table(tracer)
    handles = tuple(s.handle for s in tracer.states.values())
    _refuse_overlaps(graph, handles)
    return Traced(
        graph,
        results,
        handles,
        specs,
        pinned,
        tuple((t, g) for t, g in table.initial.values() if not t.is_traced),
        tuple(tracer.static_reads.values()),
    )


def _collect(result: Any, tracer: Trace, handles: list[Tensor]) -> tuple[tuple[Node, ...], Results]:
    """Output nodes: results, gradients that stay on handles, new values of arguments changed in place."""
    leaves, spec = pytree.flatten(result)
    nodes: list[Node] = []
    returned: list[tuple[int | None, Any]] = []
    differentiable = set()
    for leaf in leaves:
        if isinstance(leaf, np.ndarray):
            leaf = Tensor(leaf)
        if isinstance(leaf, Tensor):
            if leaf._requires_grad:
                differentiable.add(len(nodes))
            nodes.append(leaf._traced_node(tracer))
            returned.append((len(nodes) - 1, None))
        else:
            returned.append((None, leaf))
    numbers = {id(h): i for i, h in enumerate(handles)}
    grads: list[tuple[Tensor | int, int | Tensor | None]] = []
    table = grad_table(tracer)
    for key, (target, value) in table.current.items():
        if target.is_traced and id(target) not in numbers:
            continue  # the gradient of something that only lived inside
        if key in table.initial and table.initial[key][1] is value:
            continue
        holder: Tensor | int = numbers.get(id(target), target)
        if value is None or not value.is_traced:
            grads.append((holder, value))
        else:
            nodes.append(value._traced_node(tracer))
            grads.append((holder, len(nodes) - 1))
    updates = []
    for number, (handle, node) in enumerate(zip(handles, tracer.args, strict=True)):
        if handle._node is not node:
            nodes.append(handle._traced_node(tracer))
            updates.append((number, len(nodes) - 1))
    return tuple(nodes), Results(
        spec, tuple(returned), tuple(grads), tuple(updates), frozenset(differentiable)
    )


def _refuse_overlaps(graph: Graph, handles: Sequence[Tensor]) -> None:
    """States that share memory in part can't be updated independently."""
    updated = {i for i, _ in graph.updates}
    by_storage: dict[int, list[int]] = {}
    for number, handle in enumerate(handles):
        by_storage.setdefault(id(handle._storage), []).append(number)
    for numbers in by_storage.values():
        if len(numbers) > 1 and updated & set(numbers):
            arrays = [handles[i]._array for i in numbers]
            for i, a in enumerate(arrays):
                for b in arrays[i + 1 :]:
                    if np.may_share_memory(a, b):
                        raise TraceError(
                            "the compiled function changes a tensor in place and also uses another view of "
                            f"its memory, shapes {a.shape} and {b.shape}; use one of them only"  # type: ignore[union-attr]
                        )


@dataclass
class Variant:
    """A traced function compiled, and the conditions under which it may be called."""

    traced: Traced
    engine: Engine
    reason: str
    key: Hashable = None
    _epoch: int = -1
    _shapes: set[tuple[tuple[int, ...], ...]] = field(default_factory=set)
    _flags: tuple[bool, ...] = ()
    _records: bool = False
    _changing: frozenset[int] = frozenset()
    _states: tuple[np.ndarray, ...] = ()
    _updated: tuple[Storage, ...] = ()
    _updated_ids: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        traced = self.traced
        self._flags = tuple(t._requires_grad for t in traced.states)
        self._changing = frozenset(i for i, _ in traced.graph.updates)
        # A function that changes what it would be differentiated by (a training step) returns plain values.
        trains = any(traced.states[i]._requires_grad for i in self._changing)
        self._records = bool(traced.results.differentiable) and not trains
        self._bind()

    @property
    def symbols(self) -> dict[str, int | str]:
        """The symbols of the arguments, and those fixed to numbers."""
        free: dict[str, int | str] = {s: "any" for s in self.traced.graph.symbols()}
        return {**free, **self.traced.pinned}

    @property
    def specs(self) -> list[TensorSpec]:
        """What the arguments have to be."""
        pinned = self.traced.pinned
        return [
            TensorSpec([pinned.get(s, s) if isinstance(s, str) else s for s in spec.shape], spec.dtype)
            for spec in self.traced.specs
        ]

    def __str__(self) -> str:
        types = ", ".join(map(str, self.specs))
        return f"({types}): {self.reason}"

    def __repr__(self) -> str:
        return f"<variant {self}>"

    def _bind(self) -> None:
        """Takes the states' arrays as they are now."""
        states = self.traced.states
        self._states = tuple(t._array for t in states)  # type: ignore[misc]
        self._updated = tuple(dict.fromkeys(states[i]._storage for i, _ in self.traced.graph.updates))
        arrays = [self._states[i] for i, _ in self.traced.graph.updates]
        self._updated_ids = frozenset(id(a) for a in arrays) | frozenset(
            id(a.base) for a in arrays if a.base is not None
        )
        if self.engine.checks:
            self._states = (*self._states, self.engine.status)
        self._epoch = epoch()

    def mismatch(self, arrays: Sequence[np.ndarray]) -> str | None:
        """Why the variant can't take these arguments now, or None if it can."""
        shapes = tuple([a.shape for a in arrays])
        if shapes not in self._shapes:
            why = self._shape_mismatch(arrays)
            if why is not None:
                return why
            if len(self._shapes) > 256:
                self._shapes.clear()
            self._shapes.add(shapes)
        if self._epoch != epoch():
            for read, value in self.traced.static_reads:
                now = read()
                if now != value:
                    return f"Python values it depends on changed: {_difference(value, now)}"
            for tensor, flag in zip(self.traced.states, self._flags, strict=True):
                if tensor._requires_grad != flag:
                    return f"requires_grad of {tensor.name or 'a tensor'} changed from {flag} to {not flag}"
            for tensor, node in zip(self.traced.states, self.traced.graph.states, strict=True):
                if tensor.type_ != node.type:
                    return f"{node.attrs['name']} changed from {node.type} to {tensor.type_}"
            self._bind()
        for tensor, grad in self.traced.grad_reads:
            if tensor._grad is not grad:
                return f"the .grad of {tensor.name or 'a tensor'} was replaced"
        return None

    def _shape_mismatch(self, arrays: Sequence[np.ndarray]) -> str | None:
        values: dict[str, int] = dict(self.traced.pinned)
        for spec, array, number in zip(self.traced.specs, arrays, range(len(arrays)), strict=True):
            for size, actual in zip(spec.shape, array.shape, strict=True):
                expected = values.setdefault(size, actual) if isinstance(size, str) else size
                if expected != actual:
                    name = self.traced.graph.args[number].attrs["name"]
                    return f"{name}: {spec} with {size} = {expected} doesn't take shape {array.shape}"
        return None

    def run(self, leaves: list[Any], dynamic: list[int], arrays: list[np.ndarray]) -> Any:
        """One call: outputs in the function's own nesting, gradients put on their handles."""
        if self._updated_ids:
            for i, array in enumerate(arrays):
                if id(array) in self._updated_ids or (
                    array.base is not None and id(array.base) in self._updated_ids
                ):
                    # an argument that shares memory with a state keeps its old value
                    arrays[i] = array.copy()
        operands = self._operands(leaves, dynamic, arrays) if self._records else []
        outputs = self.engine.call(arrays, self._states)
        for storage in self._updated:
            storage.version += 1
        results = self.traced.results
        for holder, value in results.grads:
            target = leaves[dynamic[holder]] if isinstance(holder, int) else holder
            if isinstance(target, Tensor):
                target._grad = Tensor(outputs[value]) if isinstance(value, int) else value
        for number, output in results.argument_updates:
            self._write_argument(leaves[dynamic[number]], outputs[output])
        if self._records:
            return self._recorded(operands, outputs)
        if results.spec is pytree.LEAF and results.returned[0][0] is not None:
            return Tensor(outputs[results.returned[0][0]])
        found = [Tensor(outputs[n]) if n is not None else constant for n, constant in results.returned]
        return pytree.unflatten(results.spec, found)

    def _operands(self, leaves: list[Any], dynamic: list[int], arrays: list[np.ndarray]) -> list[Tensor]:
        """The inputs as backward will see them; states that this call changes keep
        their old values in copies.
        """
        given = [leaves[i] for i in dynamic]
        operands = [g if isinstance(g, Tensor) else Tensor(a) for g, a in zip(given, arrays, strict=True)]
        for number, state in enumerate(self.traced.states):
            operands.append(Tensor(state._array.copy()) if number in self._changing else state)  # type: ignore[union-attr]
        return operands

    def _recorded(self, operands: list[Tensor], outputs: list[np.ndarray]) -> Any:
        """The results with the call as their history."""
        results = self.traced.results
        call = call_op(self.traced.graph)(*(t._history() for t in operands))
        found = []
        for number, constant in results.returned:
            if number is None:
                found.append(constant)
                continue
            tensor = Tensor(outputs[number])
            if number in results.differentiable:
                record(tensor, project(call, number))
                name_grad_fn(tensor, "CompiledFunctionBackward")
            found.append(tensor)
        return pytree.unflatten(results.spec, found)

    @staticmethod
    def _write_argument(argument: Any, value: np.ndarray) -> None:
        """An argument the function changed in place gets its new value."""
        array = argument._array if isinstance(argument, Tensor) else argument
        if not isinstance(array, np.ndarray) or not array.flags.writeable:
            raise TraceError(
                "the compiled function changes an argument in place that can't be written to; .clone() it"
            )
        np.copyto(array, value)
        if isinstance(argument, Tensor):
            argument._storage.version += 1


def _difference(old: Hashable, new: Hashable) -> str:
    if isinstance(old, tuple) and isinstance(new, tuple):
        changed = [f"{a} is now {b}" for a, b in zip(old, new, strict=False) if a != b]
        if changed:
            return "; ".join(changed[:3])
    return f"{old} is now {new}"


__all__ = ["Arguments", "Variant", "current_trace", "trace_function"]
