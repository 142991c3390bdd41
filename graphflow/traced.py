"""From a user's function to its graph, and to what ties the graph to the user's handles."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphflow import pytree
from graphflow.compiler.ir import Graph, Node, Size, toposort
from graphflow.compiler.trace import Trace, trace
from graphflow.dims import Dim
from graphflow.errors import TraceError
from graphflow.shared import Shared, shared_results
from graphflow.sizes import SymbolicSize
from graphflow.snapshots import form, reached
from graphflow.specs import TensorSpec
from graphflow.tensor import Storage, Tensor, grad_table, leaves_of


@dataclass(slots=True, eq=False)
class Arguments:
    """One call's arguments, taken apart: all leaves, which of them are dynamic, and the arrays of those."""

    leaves: list[Any]
    spec: pytree.Spec
    dynamic: list[int]
    arrays: list[np.ndarray]

    def held_by(self, holder: Tensor | int) -> Any:
        """A handle itself, or the argument of that number."""
        return self.leaves[self.dynamic[holder]] if isinstance(holder, int) else holder


@dataclass(frozen=True)
class GradRead:
    """A ``.grad`` that the trace looked at: whose, whether it was there, and the state it was if used."""

    holder: Tensor | int
    present: bool
    state: int | None


@dataclass(frozen=True)
class Results:
    """What the traced function leaves behind, besides its graph.

    ``returned`` has for every leaf of the result an output's number, or the constant itself (a Dim stands for
    its value at the call), and ``shared`` by position what it shares with others; ``differentiable`` are the
    numbers of outputs of their own that require grad. ``grads`` are (handle or argument number, output
    number, or the handle that stays, or None).
    """

    spec: pytree.Spec
    returned: tuple[tuple[int | None, Any], ...]
    shared: dict[int, Shared]
    grads: tuple[tuple[Tensor | int, int | Tensor | None], ...]
    argument_updates: tuple[tuple[int, int], ...]
    differentiable: frozenset[int]


@dataclass(frozen=True)
class Traced:
    """A traced function: the graph and everything that ties it to handles.

    ``renewed`` are the states that results can be differentiated by although the function changes them, by
    their numbers, with their new values.
    """

    graph: Graph
    results: Results
    states: tuple[Tensor, ...]
    specs: Sequence[TensorSpec]
    pinned: dict[str, int]
    grad_reads: tuple[GradRead, ...]
    static_reads: tuple[tuple[Callable[[], Hashable], Hashable], ...]
    needs: tuple[tuple[Size, Exception], ...]
    guards: tuple[Dim, ...]
    not_one: tuple[Dim, ...]
    in_rows: tuple[tuple[Tensor | int, bool], ...]
    renewed: tuple[tuple[int, Node], ...]

    def sizes(self, arrays: Sequence[np.ndarray]) -> dict[str, int]:
        """The symbols' values for a call's arrays."""
        values = dict(self.pinned)
        for spec, array in zip(self.specs, arrays, strict=True):
            values.update((s, n) for s, n in zip(spec.shape, array.shape, strict=True) if isinstance(s, str))
        return values


def trace_function(
    function: Callable[..., Any],
    name: str,
    arguments: Arguments,
    labels: Sequence[str],
    specs: Sequence[TensorSpec],
    hints: Mapping[str, int] | None,
    networks: Sequence[Any] = (),
) -> Traced:
    """Runs `function` over symbols and writes down its graph.

    It depends on the Python values of its arguments that are Modules, and of `networks`, whatever it reads.
    """
    handles: list[Tensor] = []

    def run(tracer: Trace, pinned: Mapping[str, int]) -> tuple[tuple[Node, ...], Results]:
        leaves = list(arguments.leaves)
        since = next(Storage.count)
        handles.clear()
        for position, spec, label in zip(arguments.dynamic, specs, labels, strict=True):
            node = tracer.add_arg(label, spec.type_(pinned))
            given = leaves[position]
            wants = isinstance(given, Tensor) and given._requires_grad
            handles.append(Tensor.of_node(node, tracer, requires_grad=wants, leaf=True))
            if type(given) is float:
                tracer.weak[node] = True
            if isinstance(given, Tensor):
                handles[-1]._grad = given._grad
            held = given._array if isinstance(given, Tensor) else given
            tracer.in_rows[id(handles[-1])] = not isinstance(held, np.ndarray) or held.flags.c_contiguous
            leaves[position] = handles[-1]
        for leaf in arguments.leaves:
            if hasattr(type(leaf), "_static_facts"):  # a Module, whose methods may be what is compiled
                tracer.depends_on(leaf, leaf._static_facts)
                tracer.depends_on(leaf._mode, leaf._mode.read)
        for network in networks:  # those that are handed on
            for part in network.modules():
                tracer.depends_on(part, part._static_facts)
        args, kwargs = pytree.unflatten(arguments.spec, leaves)
        return _collect(function(*args, **kwargs), tracer, handles, since)

    graph, tracer, pinned, results = trace(name, hints, run)
    states = tuple(s.handle for s in tracer.states.values())
    clash = overlap(graph, [s._array for s in states])
    if clash is not None:
        raise TraceError(clash)
    numbers = {id(h): i for i, h in enumerate(handles)}
    return Traced(
        graph,
        results,
        states,
        specs,
        pinned,
        _grad_reads(tracer, handles),
        tuple(tracer.static_reads.values()),
        tuple(tracer.needs.items()),
        tuple(tracer.guards),
        tuple(tracer.not_one),
        tuple((numbers.get(key, handle), rows) for key, (handle, rows) in tracer.relied.items()),
        _renewed(graph, tracer, results),
    )


def _renewed(graph: Graph, tracer: Trace, results: Results) -> tuple[tuple[int, Node], ...]:
    """The trained states that the function changes before it uses them, as an embedding that bounds its rows.

    None where the function trains by itself, or where a value in between was used: by that one, nothing can
    be differentiated from outside.
    """
    states = list(tracer.states.values())
    changed = [(i, root) for i, root in graph.updates if states[i].handle._requires_grad]
    leaves = leaves_of(tracer)
    used = {n for n in toposort([graph.outputs[i] for i in sorted(results.differentiable)]) if n in leaves}
    if results.grads or not any(root in used for _, root in changed):
        return ()
    known = {n for i, root in changed for n in (states[i].node, root)}
    keys = {states[i].handle._key() for i, _ in changed}
    between = any(n not in known for n in used if not leaves[n].is_traced and leaves[n]._key() in keys)
    return () if between else tuple(changed)


def _grad_reads(tracer: Trace, arguments: list[Tensor]) -> tuple[GradRead, ...]:
    """What the function depends on about gradients that were there before it."""
    numbers = {id(h): i for i, h in enumerate(arguments)}
    state_of = {key: i for i, key in enumerate(tracer.states)}
    reads = []
    for target, grad in grad_table(tracer).initial.values():
        if target.is_traced and id(target) not in numbers:
            continue  # something that only lived inside
        state = None if grad is None else state_of.get(grad._key())
        reads.append(GradRead(numbers.get(id(target), target), grad is not None, state))
    return tuple(reads)


def _collect(
    result: Any, tracer: Trace, handles: list[Tensor], since: int
) -> tuple[tuple[Node, ...], Results]:
    """Output nodes: results, gradients that stay on handles, new values of arguments changed in place."""
    leaves, spec = pytree.flatten(result)
    for leaf in leaves:
        _check_returned(leaf)
    nodes: list[Node] = []
    returned: list[tuple[int | None, Any]] = []
    differentiable = set()
    grads_read = {id(grad) for _, grad in grad_table(tracer).initial.values()}
    shared = shared_results(leaves, handles, grads_read, since)
    for position, leaf in enumerate(leaves):
        if isinstance(leaf, np.ndarray):
            leaf = Tensor.holding(leaf)
        if isinstance(leaf, Tensor):
            nodes.append(leaf._traced_node(tracer))
            if leaf._requires_grad and position not in shared:
                differentiable.add(len(nodes) - 1)
            returned.append((len(nodes) - 1, None))
        else:
            returned.append((None, leaf.size if isinstance(leaf, SymbolicSize) else leaf))
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
            if handle._requires_grad and not handle._leaf:
                raise TraceError(
                    f"a value that carries a gradient is written into the argument {node.attrs['name']}, "
                    "which outlives the compiled function; .detach() it first"
                )
            nodes.append(handle._traced_node(tracer))
            updates.append((number, len(nodes) - 1))
    if any(handles[number]._requires_grad for number, _ in updates):
        differentiable.clear()  # a function that changes what it would be differentiated by
    return tuple(nodes), Results(
        spec, tuple(returned), shared, tuple(grads), tuple(updates), frozenset(differentiable)
    )


def _check_returned(leaf: Any) -> None:
    """TraceError for a result out of which traced values would only come when it is too late."""
    kind = type(leaf).__name__
    if isinstance(leaf, Coroutine):
        leaf.close()
    if isinstance(leaf, (Iterator, Coroutine, AsyncGenerator)):
        raise TraceError(
            f"the compiled function returns a {kind}, whose code would run after the trace has ended; return "
            "a list or a tuple of the values"
        )
    if hasattr(leaf, "refused"):
        raise leaf.refused("return")
    if form(type(leaf)) == "whole":
        return
    met: list[tuple[str, Any]] = []
    reached("the result", leaf, None, met)
    for place, value in met:
        if isinstance(value, Tensor) and value.is_traced:
            raise TraceError(
                f"the compiled function returns a {kind} with a traced value in it ({place}); results may be "
                "tensors, and tuples, lists, dicts and named tuples of such"
            )


def overlap(graph: Graph, arrays: Sequence[Any]) -> str | None:
    """States that share memory can't be updated independently: says which, or None."""
    updated = {i for i, _ in graph.updates}
    if not updated:
        return None
    spans = sorted((*_byte_bounds(a), i) for i, a in enumerate(arrays) if a.size)
    reach: list[tuple[int, int]] = []
    for start, end, i in spans:
        reach = [(e, j) for e, j in reach if e > start]
        for _, j in reach:
            if (i in updated or j in updated) and share_memory(arrays[i], arrays[j]):
                names = [graph.states[k].attrs["name"] for k in (j, i)]
                return (
                    "the compiled function changes a tensor in place and also uses another view of its "
                    f"memory: {names[0]} of shape {arrays[j].shape} and {names[1]} of shape "
                    f"{arrays[i].shape}; use one of them only"
                )
        reach.append((end, i))
    return None


def _byte_bounds(array: np.ndarray) -> tuple[int, int]:
    """The first address of an array that isn't empty, and the one behind its last.

    NumPy's own function for that moved between its versions 1 and 2.
    """
    steps = [(size - 1) * stride for size, stride in zip(array.shape, array.strides, strict=True)]
    start = int(array.ctypes.data)
    return start + sum(min(s, 0) for s in steps), start + sum(max(s, 0) for s in steps) + array.itemsize


def share_memory(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have an element in common; True where that is too hard to tell."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=10000)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


__all__ = ["Arguments", "GradRead", "Results", "Traced", "overlap", "share_memory", "trace_function"]
