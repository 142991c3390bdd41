"""Bodies of loops and branches in a trace: run once over symbols, closed into sub-graphs.

Tensors from outside that a body reads become operands. States that it changes (a random generator, a batch
norm's statistics) become carries of a loop and results of a branch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

from graphflow.compiler import ir
from graphflow.compiler.ir import OPS, Node, Size, TensorType, input_node
from graphflow.compiler.location import user_loc
from graphflow.compiler.ops.control import cond, items, scan, while_loop
from graphflow.compiler.subgraph import close, close_branches
from graphflow.compiler.trace import Scope, Trace, tracing
from graphflow.errors import TraceError
from graphflow.modes import is_grad_enabled
from graphflow.tensor import Tensor, leaves_of, where_called
from graphflow.variables import differentiating

Tensors = Sequence[Tensor]


@contextmanager
def _unchanged_states(trace: Trace) -> Iterator[None]:
    """Puts states back to what they were."""
    before = {key: state.current for key, state in trace.states.items()}
    try:
        yield
    finally:
        for key, state in trace.states.items():
            state.current = before.get(key, state.node)


def _handles(trace: Trace, nodes: Sequence[Node], wanting: Sequence[bool]) -> list[Tensor]:
    return [Tensor.of_node(node, trace, wants) for node, wants in zip(nodes, wanting, strict=True)]


def _results(trace: Trace, nodes: Sequence[Node], wanting: Sequence[bool]) -> list[Tensor]:
    """Handles on results; without history where gradients aren't recorded."""
    if not is_grad_enabled():
        return [Tensor.of_node(OPS["detach"](node), trace) for node in nodes]
    floats = [w and n.dtype.is_floating_point for w, n in zip(wanting, nodes, strict=True)]
    return _handles(trace, nodes, floats)


def _set_states(trace: Trace, keys: Sequence[Hashable], nodes: Sequence[Node]) -> None:
    for key, node in zip(keys, nodes, strict=True):
        handle = trace.states[key].handle
        trace.rebind(key, node)
        if handle._requires_grad and handle._leaf:
            leaves_of(trace)[node] = handle


class _Loop:
    """The body of a loop, traced until it is known what it carries.

    That is the carries given, states that the body changes, and for each whether it needs a gradient.
    """

    def __init__(
        self,
        trace: Trace,
        name: str,
        body: Callable[[Tensors, Tensors], tuple[Tensors, Tensors]],
        first: Tensors,
        elements: Sequence[tuple[TensorType, bool]],
    ):
        self.trace, self.name = trace, name
        self.first = [t._traced_node(trace) for t in first]
        self.wanting = [t._requires_grad for t in first]
        self.keys: list[Hashable] = []
        while not self._attempt(body, elements):
            pass

    def _attempt(
        self,
        body: Callable[[Tensors, Tensors], tuple[Tensors, Tensors]],
        elements: Sequence[tuple[TensorType, bool]],
    ) -> bool:
        """Whether the body carries nothing but what is known."""
        trace = self.trace
        self.carries = [input_node(f"carry{i}", n.type) for i, n in enumerate(self.first)]
        self.elements = [input_node(f"x{i}", type_) for i, (type_, _) in enumerate(elements)]
        with _unchanged_states(trace):
            scope = Scope(trace, self.name, self.keys)
            self.held = []
            for key in self.keys:
                state = trace.states[key]
                self.held.append(input_node(state.node.attrs["name"], state.node.type))
                state.current = self.held[-1]
            held = _handles(scope, self.carries, self.wanting)
            read = _handles(scope, self.elements, [wants for _, wants in elements])
            changed = [trace.states[key].handle for key in self.keys]
            inside = [t for t in (*held, *read, *changed) if t._requires_grad]
            with tracing(scope), ir.at(None), differentiating(inside):
                carried, emitted = body(held, read)
                self.new = [t._traced_node(scope) for t in carried]
                self.emitted = [t._traced_node(scope) for t in emitted]
            self.states = [trace.states[key].current for key in self.keys]
        self.emitting = [t._requires_grad for t in emitted]
        wanting = [a or b._requires_grad for a, b in zip(self.wanting, carried, strict=True)]
        found = [key for key in scope.rebound if key not in self.keys]
        settled = not found and wanting == self.wanting
        self.keys += found
        self.wanting = wanting
        return settled

    def inputs(self) -> list[Node]:
        """What the first round starts from: carries, then states."""
        return [*self.first, *(self.trace.state_node(key) for key in self.keys)]

    def finish(self, results: Sequence[Node]) -> tuple[list[Tensor], list[Tensor]]:
        """Handles on the loop's results: last carries, and what was emitted. States get theirs."""
        count, states = len(self.first), len(self.keys)
        _set_states(self.trace, self.keys, results[count : count + states])
        return (
            _results(self.trace, results[:count], self.wanting),
            _results(self.trace, results[count + states :], self.emitting),
        )


def trace_scan(
    trace: Trace,
    body: Callable[[Tensors, Tensors], tuple[Tensors, Tensors]],
    first: Tensors,
    sequences: Tensors,
    length: Size,
    reverse: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Last carries and stacked results of ``body(carries, elements) -> (carries, emitted)``."""
    elements = [(TensorType(t.dtype, t.type_.shape[1:]), t._requires_grad) for t in sequences]
    with ir.at(user_loc()):
        loop = _Loop(trace, "scan", body, first, elements)
        carries = [*loop.carries, *loop.held]
        graph, captured = close(
            "scan_body", [*carries, *loop.elements], [*loop.new, *loop.states, *loop.emitted]
        )
        node = scan(
            *loop.inputs(),
            *(t._traced_node(trace) for t in sequences),
            *captured,
            body=graph,
            carries=len(carries),
            sequences=len(sequences),
            length=length,
            reverse=reverse,
        )
        return loop.finish(items(node))


def trace_while(
    trace: Trace, condition: Callable[[Tensors], Tensor], body: Callable[[Tensors], Tensors], first: Tensors
) -> list[Tensor]:
    """Last carries of ``while condition(carries): carries = body(carries)``."""
    with ir.at(user_loc()):
        loop = _Loop(trace, "while_loop", lambda carried, _: (body(carried), ()), first, ())
        carries = [*loop.carries, *loop.held]
        with _unchanged_states(trace):
            scope = Scope(trace, "while_loop", loop.keys)
            for key, node in zip(loop.keys, loop.held, strict=True):
                trace.states[key].current = node
            with tracing(scope), ir.at(None):
                go_on = condition(_handles(scope, loop.carries, loop.wanting))._traced_node(scope)
            if any(trace.states[k].current is not n for k, n in zip(loop.keys, loop.held, strict=True)) or (
                len(scope.rebound) > len(loop.keys)
            ):
                raise TraceError(
                    "while_loop: the condition changes a tensor from outside (or draws random numbers); do "
                    f"that in the body and carry what the condition needs{where_called()}"
                )
        # One list of captured nodes for both, because both get the same operands.
        both, captured = close("while", carries, [go_on, *loop.new, *loop.states])
        parts = [ir.Graph(n, both.args, (), o) for n, o in _split(both.outputs)]
        node = while_loop(
            *loop.inputs(), *captured, condition=parts[0], body=parts[1], carries=len(carries)
        )
        return loop.finish(items(node))[0]


def _split(outputs: tuple[Node, ...]) -> tuple[tuple[str, tuple[Node, ...]], ...]:
    return (("condition", outputs[:1]), ("while_body", outputs[1:]))


def trace_cond(
    trace: Trace,
    predicate: Tensor,
    branches: Sequence[Callable[[], Tensors]],
    check: Callable[[Tensors], None],
) -> list[Tensor]:
    """The results of the first branch where the predicate holds, else of the second.

    `check` is given the results of the second, to compare with those of the first.
    """
    with ir.at(user_loc()):
        results: list[list[Node]] = []
        changed: list[dict[Hashable, Node]] = []
        captured: dict[Node, None] = {}
        wanting: list[bool] = []
        for branch in branches:
            with _unchanged_states(trace):
                scope = Scope(trace, "cond")
                with tracing(scope), ir.at(None):
                    found = branch()
                    results.append([t._traced_node(scope) for t in found])
                changed.append({key: trace.states[key].current for key in scope.rebound})
            captured |= scope.captured
            flags = [t._requires_grad for t in found]
            if wanting:
                check(found)
                wanting = [a or b for a, b in zip(wanting, flags, strict=True)]
            else:
                wanting = flags
        keys = list(dict.fromkeys([*changed[0], *changed[1]]))
        before = {key: trace.state_node(key) for key in keys}
        captured |= dict.fromkeys(before.values())
        outputs = [
            [*nodes, *(new.get(key, before[key]) for key in keys)]
            for nodes, new in zip(results, changed, strict=True)
        ]
        graphs, operands = close_branches("branch", tuple(captured), outputs)
        flag = predicate._traced_node(trace)
        if not outputs[0]:
            return []
        made = items(cond(flag, *operands, then=graphs[0], otherwise=graphs[1]))
        _set_states(trace, keys, made[len(results[0]) :])
        return _results(trace, made[: len(results[0])], wanting)


def abstract_emitted(
    body: Callable[[Tensors, Tensors], tuple[Tensors, Tensors]], first: Tensors, sequences: Tensors
) -> list[TensorType]:
    """The types of what a scan's body emits, found without running it; nothing is changed."""
    trace = Trace("scan", None)
    with tracing(trace):
        carried = _handles(trace, [input_node("carry", t.type_) for t in first], [False] * len(first))
        elements = [input_node("x", TensorType(t.dtype, t.type_.shape[1:])) for t in sequences]
        return [t.type_ for t in body(carried, _handles(trace, elements, [False] * len(elements)))[1]]


__all__ = ["abstract_emitted", "trace_cond", "trace_scan", "trace_while"]
