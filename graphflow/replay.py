"""Graphs run again on tensors: operation by operation, at once or into the current trace.

A function is traced with whatever it reaches as states, its graph is transformed, and the result is run on
the tensors behind those states. So what transforms do to graphs serves eager tensors, with their history.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from graphflow import several
from graphflow.compiler import ir
from graphflow.compiler.ir import OPS, Node, TensorType, TupleType
from graphflow.compiler.passes.autodiff import is_differentiable
from graphflow.compiler.trace import Trace, current_trace, tracing
from graphflow.errors import GradientError, TraceError
from graphflow.memory import grad_table
from graphflow.several import apply_several
from graphflow.tensor import Tensor, apply, constant, no_grad


class ReplayedTrace(Trace):
    """A trace whose graph runs on the very tensors it found: handles without history are cut off."""

    def __init__(self, name: str):
        super().__init__(name, {})

    def node_of(self, key: Hashable, handle: Any, type_: TensorType, name: str | None) -> Node:
        """The node of a concrete handle; two handles on the same memory may differ in their history."""
        node = super().node_of(key, handle, type_, name)
        state = self.states[key]
        if handle._requires_grad and not state.handle._requires_grad:
            state.handle = handle
        if not handle._requires_grad and type_.dtype.is_floating_point and node is state.node:
            return OPS["detach"](node)
        return node


class Escaped:
    """Changes of states that depend on the arguments of a function being traced for a sub-graph."""

    def __init__(self, trace: Trace):
        self._trace = trace
        self._keys: list[Hashable] = []
        self.nodes: list[Node] = []

    def add(self, key: Hashable, node: Node) -> None:
        """Notes the value that the function gave a state."""
        self._keys.append(key)
        self.nodes.append(node)

    def rebind(self, nodes: Sequence[Node]) -> None:
        """Puts those values, now results of the sub-graph's call, where they belong."""
        for key, node in zip(self._keys, nodes, strict=True):
            self._trace.rebind(key, node)


@contextmanager
def escaping(trace: Trace, stand_ins: Sequence[Node]) -> Iterator[Escaped]:
    """Inside, a function runs on stand-ins for its arguments; tells which states it changed by them."""
    before = {key: state.current for key, state in trace.states.items()}
    trace.elements.update(stand_ins)
    found = Escaped(trace)
    yield found
    inside = set(stand_ins)
    for key, state in trace.states.items():
        changed = state.current is not before.get(key, state.node)
        if changed and not inside.isdisjoint(ir.toposort([state.current], stop=inside)):
            found.add(key, state.current)


def eagerly(name: str, run: Callable[[], Sequence[Tensor]]) -> list[Tensor]:
    """What `run` gives, traced first and then computed from the tensors it reached.

    Tensors that it changes in place are changed afterwards.
    """
    tracer = ReplayedTrace(name)
    with tracing(tracer):
        nodes = [t._traced_node(tracer) for t in run()]
        graph = tracer.graph(tuple(nodes))
    for target, grad in grad_table(tracer).current.values():
        if not target.is_traced and grad is not target._grad:
            raise TraceError(f"{name}: backward() inside has nowhere to leave gradients; use graphflow.grad")
    states = list(tracer.states.values())
    changed = {states[index].node for index, _ in graph.updates}
    known = {s.node: _kept(s.handle) if s.node in changed else s.handle for s in states}
    results = replay(graph.roots, known)
    for (index, _), value in zip(graph.updates, results[len(nodes) :], strict=True):
        with no_grad():
            states[index].handle._assign(value)
    return results[: len(nodes)]


def in_history(
    name: str,
    operands: Sequence[Node],
    run: Callable[[list[Node]], list[Node]],
    problem: str,
) -> list[Node]:
    """What `run` makes of operands in a trace, as nodes on eager ones; `problem` is told where it reads a
    tensor that requires grad, whose share of a derivative would be lost.
    """
    tracer = ReplayedTrace(name)
    with tracing(tracer):
        stand_ins = [tracer.add_arg(f"x{i}", n.type) for i, n in enumerate(operands)]
        results = run(stand_ins)
    mapping = dict(zip(stand_ins, operands, strict=True))
    states = list(tracer.states.values())
    flowing = {s.node for s in states if s.handle._requires_grad}
    for node in ir.toposort(results):
        passes = node.op.name != "detach" and is_differentiable(node)
        if passes and any(i in flowing for i in node.inputs):
            flowing.add(node)
    if any(r in flowing for r in results):
        raise GradientError(problem)
    mapping |= {s.node: s.handle._history() for s in states}
    return ir.substitute(results, mapping)


def _kept(handle: Tensor) -> Tensor:
    """A tensor that is about to be changed, for a backward that runs a loop again from where it started."""
    return handle if handle._requires_grad else apply(OPS["cast"], handle, dtype=handle.dtype)


def replay(roots: Sequence[Node], known: Mapping[Node, Tensor]) -> list[Tensor]:
    """`roots` computed from the tensors of some nodes, through the operations that users' own would take."""
    found: dict[Node, Any] = dict(known)
    order = ir.toposort(roots, stop=set(known))
    left = {node: 0 for node in order}
    for node in order:
        for source in node.inputs if node not in known else ():
            left[source] = left.get(source, 0) + 1
    wanted = set(roots)
    for node in order:
        if node in found:
            continue
        with ir.at(node.loc):
            found[node] = _apply(node, [found[i] for i in node.inputs])
        for source in node.inputs:  # nothing is kept that only waited for this
            left[source] -= 1
            if not left[source] and source not in wanted:
                found.pop(source, None)
    return [found[r] for r in roots]


def _apply(node: Node, operands: Sequence[Any]) -> Any:
    """One operation: a Tensor, or a list of them."""
    if node.op.name == "const":
        return constant(node.attrs["value"], node.dtype)
    if node.op.name == "project":
        return operands[0][node.attrs["index"]]
    if node.op.kind == "input":
        raise TraceError(f"a value of another function is used here: {node.attrs['name']}")
    if isinstance(node.type, TupleType):
        return _apply_several(node, operands)
    trace = current_trace()
    if trace is not None and OPS.get(node.op.name) is not node.op:
        (result,) = node.op.lowering([t._traced_node(trace) for t in operands])
        return Tensor.of_node(result, trace, any(t._requires_grad for t in operands))
    return apply(node.op, *operands, **node.attrs)


def _apply_several(node: Node, operands: Sequence[Tensor]) -> list[Tensor]:
    """An operation with several results."""
    trace = current_trace()
    if trace is None or OPS.get(node.op.name) is node.op:
        return apply_several(node.op, *operands, **node.attrs)
    # the call of a compiled function, or of the user's own, becomes part of this one
    parts = node.op.lowering([t._traced_node(trace) for t in operands])
    return several.projected(parts, trace, operands)


__all__ = ["ReplayedTrace", "eagerly", "replay"]
