"""Tracing: what a function does to handles, written down as a graph.

A ``Trace`` knows nothing of Tensors. It maps *handles* (any objects) to nodes: arguments get input nodes,
concrete values that the function reaches become states the first time they are touched, and a handle that
ends on another node than it began with is an update.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from graphflow.compiler.bounds import is_natural
from graphflow.compiler.ir import (
    Constraints,
    Graph,
    Node,
    Size,
    TensorType,
    constrained_by,
    input_node,
    toposort,
)
from graphflow.compiler.location import Loc, raised_at
from graphflow.compiler.unrolling import Rounds
from graphflow.dims import Dim, evaluate
from graphflow.errors import GraphflowError, ShapeError, TraceError


class Pin(BaseException):
    """A symbol has to be a number after all; the trace starts again with it fixed.

    Not an Exception, so that user code with a broad ``except`` can't swallow it.
    """

    def __init__(self, symbol: str, value: int, reason: str):
        super().__init__(f"{symbol} = {value}: {reason}")
        self.symbol, self.value, self.reason = symbol, value, reason


@dataclass
class State:
    """A concrete value the traced function reached: its handle, its input node, and the node it holds now."""

    handle: Any
    node: Node
    current: Node


class Trace(Constraints):
    """One run of the user's function over symbols.

    `hints` are the sizes the symbols had at the call that caused the trace; without them (``gf.trace``) a
    symbol can only be pinned where the program forces a number.
    """

    def __init__(self, name: str, hints: Mapping[str, int] | None):
        self.name = name
        self.hints = hints
        self.args: list[Node] = []
        self.states: dict[Hashable, State] = {}
        self.names: set[str] = set()  # of arguments and states
        self.weak: dict[Node, bool] = {}
        self.guards: set[Dim] = set()
        self.not_one: set[Dim] = set()
        self.needs: dict[Size, Exception] = {}
        self.static_reads: dict[int, tuple[Callable[[], Hashable], Hashable]] = {}
        self.levels: list[Any] = []  # every vmap that the function is inside of, outermost first
        # Whether an argument's memory is row-major, by the id of its handle; where the trace depends on it.
        self.in_rows: dict[int, bool] = {}
        self.born: dict[int, Any] = {}  # handles that the function made of numbers, by id
        self.relied: dict[int, tuple[Any, bool]] = {}
        # What differentiation keeps for the outermost trace: handles by their nodes, and their gradients.
        # These refer to the trace: kept anywhere but here, they would keep it.
        self.leaves: dict[Node, Any] = {}
        self.grads: Any = None
        self.parent: Trace | None = None  # the trace around, for bodies of loops and branches
        self._rounds = Rounds()
        self.elements: set[Node] = set()  # stand-ins for arguments of functions traced within

    def add_arg(self, name: str, type_: TensorType) -> Node:
        """An input node for the next argument."""
        node = input_node(name, type_)
        self.args.append(node)
        self.names.add(name)
        return node

    def node_of(self, key: Hashable, handle: Any, type_: TensorType, name: str | None) -> Node:
        """The node that a concrete handle stands for now; it becomes a state when first seen."""
        state = self.states.get(key)
        if state is None:
            node = input_node(self._state_name(name), type_)
            self.states[key] = State(handle, node, node)
        return self.state_node(key)

    def state_node(self, key: Hashable) -> Node:
        """The node that a state holds now."""
        return self.states[key].current

    def read(self, node: Node, owner: Trace | None) -> Node | None:
        """A traced value of `owner`, as this trace sees it; None where it can't."""
        return node if owner is self else None

    def located(self) -> Loc | None:
        """The user's line, which asks for an operation now; warns where a long loop is being unrolled."""
        return self._rounds.user_loc()

    @property
    def root(self) -> Trace:
        """The outermost trace around this one."""
        trace: Trace = self
        while trace.parent is not None:
            trace = trace.parent
        return trace

    def _state_name(self, name: str | None) -> str:
        base = name or f"s{len(self.states)}"
        candidate, count = base, 1
        while candidate in self.names:
            count += 1
            candidate = f"{base}_{count}"
        self.names.add(candidate)
        return candidate

    def rebind(self, key: Hashable, node: Node) -> None:
        """Lets a state hold another node from here on."""
        self.states[key].current = node

    def depends_on(self, owner: object, read: Callable[[], Hashable]) -> None:
        """Notes that the trace took Python values from `owner`; a later call compares them."""
        if id(owner) not in self.static_reads:
            self.static_reads[id(owner)] = read, read()

    def is_weak(self, node: Node) -> bool:
        """Whether a value was a Python float outside the trace, or is made of such and of constants alone.

        Like Python numbers, such values don't decide the dtype of what they are combined with.
        """
        if not self.weak:
            return False
        for part in toposort([node], stop=set(self.weak)):
            if part not in self.weak:
                sources = [i for i in part.inputs if i.op.name != "const"]
                simple = part.op.kind == "elementwise" and part.op.name != "cast"
                self.weak[part] = simple and bool(sources) and all(self.weak[i] for i in sources)
        return self.weak[node]

    def need_elements(self, size: Dim, problem: Exception) -> None:
        """Raises `problem` if the size is 0 at this call, and at every later one where it is."""
        if self.hints is not None and evaluate(size, self.hints) == 0:
            raise problem
        self.needs.setdefault(size, problem)

    def is_natural(self, size: Dim) -> bool:
        """Whether the size is 0 or more at this call; the graph is good for calls where that is as now.

        Without numbers it is taken to be; sizes are checked before a run.
        """
        if self.hints is None or is_natural(size):
            return True
        found = evaluate(size, self.hints) >= 0
        guard = size if found else -1 - size
        if isinstance(guard, Dim):
            self.guards.add(guard)
        return found

    def is_one(self, size: Dim, reason: str) -> bool:
        """Whether the size is 1 at this call: its symbols are fixed then, else the graph is good for calls
        where it isn't 1 either. Without numbers a symbol isn't taken for 1.
        """
        if self.hints is None:
            return False
        if evaluate(size, self.hints) == 1:
            raise self._pinning(size, reason)
        self.not_one.add(size)
        return False

    # Constraints

    def require_equal(self, a: Size, b: Size) -> Size:
        """Pins a symbol where the sizes are equal, or one broadcasts, at this call; ShapeError otherwise."""
        if self.hints is None:
            size, number = (a, b) if isinstance(b, int) else (b, a)
            if isinstance(size, Dim) and isinstance(number, int):
                symbol, value = _solve(size, number)
                if symbol is not None:
                    raise Pin(symbol, value, f"an operation needs {size} == {number}")
            raise ShapeError(f"sizes {a} and {b} differ")
        now = [s if isinstance(s, int) else evaluate(s, self.hints) for s in (a, b)]
        if now[0] == now[1]:
            raise self._pinning(a if isinstance(a, Dim) else b, f"an operation needs {a} == {b}")
        for size, value in zip((a, b), now, strict=True):
            if value == 1 and isinstance(size, Dim):  # what broadcasts at this call is 1 in this variant
                raise self._pinning(size, f"an operation broadcasts {size}")
        raise ShapeError(f"sizes {a} and {b} differ")

    def _pinning(self, size: Size, reason: str) -> Pin:
        """What fixes the first symbol of a size to its value at this call."""
        assert isinstance(size, Dim) and self.hints is not None
        symbol = min(size.symbols())
        return Pin(symbol, self.hints[symbol], reason)

    def told(self, text: str) -> str:
        """The values at this call of the symbols that a text speaks of."""
        found = [f"{s} = {v}" for s, v in (self.hints or {}).items() if re.search(rf"\b{s}\b", text)]
        return f"\n  with {', '.join(found)} at this call" if found else ""

    def pin(self, size: Size, reason: str) -> int:
        """The number that `size` is; a symbolic one restarts the trace with its symbols fixed."""
        if isinstance(size, int):
            return size
        if self.hints is None:
            instead = "give a number in the TensorSpec"
            raise TraceError(f"{reason} needs the number behind the symbolic size {size}; {instead}")
        raise self._pinning(size, reason)

    def graph(self, outputs: tuple[Node, ...]) -> Graph:
        """The finished graph; states that only were read have no update."""
        states = tuple(s.node for s in self.states.values())
        updates = tuple((i, s.current) for i, s in enumerate(self.states.values()) if s.current is not s.node)
        self._require_whole((*outputs, *(node for _, node in updates)))
        return Graph(self.name, tuple(self.args), states, outputs, updates)

    def _require_whole(self, roots: tuple[Node, ...]) -> None:
        """TraceError where what vmap computes for one element was kept outside of it."""
        for node in toposort(roots) if self.elements else ():
            if node in self.elements:
                where = f"\n  at {node.loc.describe()}" if node.loc else ""
                raise TraceError(
                    "a value computed inside a function given to vmap, checkpoint or a custom Function was "
                    f"stored outside of it; return it from the function instead{where}"
                )


class Scope(Trace):
    """The body of a loop or branch inside `parent`: what is computed in it must not leave it.

    ``captured`` are the nodes from outside that it read, ``rebound`` the keys of states that it changed.
    """

    def __init__(self, parent: Trace, name: str, rebound: Iterable[Hashable] = ()):
        super().__init__(name, parent.hints)
        self.parent: Trace = parent
        self.args, self.states, self.names = parent.args, parent.states, parent.names
        self.weak = parent.weak
        self.guards, self.needs, self.static_reads = parent.guards, parent.needs, parent.static_reads
        self.not_one = parent.not_one
        self.levels, self.elements, self._rounds = parent.levels, parent.elements, parent._rounds
        self.captured: dict[Node, None] = {}
        self.rebound: dict[Hashable, None] = dict.fromkeys(rebound)

    def state_node(self, key: Hashable) -> Node:
        """`Trace.state_node`; one from outside is captured."""
        if key in self.rebound:
            return self.states[key].current
        node = self.parent.state_node(key)
        self.captured[node] = None
        return node

    def rebind(self, key: Hashable, node: Node) -> None:
        """`Trace.rebind`, until whoever opened the scope puts states back."""
        self.rebound[key] = None
        super().rebind(key, node)

    def read(self, node: Node, owner: Trace | None) -> Node | None:
        """`Trace.read`; one from outside is captured."""
        if owner is self:
            return node
        found = self.parent.read(node, owner)
        if found is not None:
            self.captured[found] = None
        return found


def _solve(size: Dim, number: int) -> tuple[str | None, int]:
    """The symbol and its value for which a size linear in it equals `number`; (None, 0) if there is none."""
    symbols = size.symbols()
    if len(symbols) != 1:
        return None, 0
    (symbol,) = symbols
    at_zero, at_one = evaluate(size, {symbol: 0}), evaluate(size, {symbol: 1})
    slope = at_one - at_zero
    if slope == 0 or (number - at_zero) % slope:
        return None, 0
    value = (number - at_zero) // slope
    if value < 0 or evaluate(size, {symbol: value}) != number:
        return None, 0
    return symbol, value


class _Local(threading.local):
    trace: Trace | None = None


LOCAL = _Local()


def current_trace() -> Trace | None:
    """The trace that operations in this thread add nodes to, if any."""
    return LOCAL.trace


@contextmanager
def tracing(trace: Trace | None) -> Iterator[None]:
    """Operations inside add nodes to `trace`; with None they run at once on concrete values."""
    outer = current_trace()
    LOCAL.trace = trace
    try:
        if trace is None:
            yield
        else:
            with constrained_by(trace):
                yield
    finally:
        LOCAL.trace = outer


def trace(
    name: str,
    hints: Mapping[str, int] | None,
    run: Callable[[Trace, Mapping[str, int]], tuple[tuple[Node, ...], Any]],
) -> tuple[Graph, Trace, dict[str, int], Any]:
    """Runs ``run(trace, pinned)`` until no more symbols get pinned.

    `run` makes the arguments (with pinned symbols as numbers), calls the user's function, and gives the
    output nodes and whatever it wants handed through. Returns the graph, the trace, the pins and that.
    """
    pinned: dict[str, int] = {}
    while True:
        attempt = Trace(name, hints)
        try:
            with tracing(attempt):
                outputs, payload = run(attempt, pinned)
                return attempt.graph(outputs), attempt, pinned, payload
        except GraphflowError as problem:
            _complete(problem, attempt)
            raise
        except Pin as pin:
            if pin.symbol in pinned:
                raise TraceError(f"can't fix the symbol {pin.symbol} twice: {pin}") from None
            pinned[pin.symbol] = pin.value
        finally:
            attempt._rounds.end()


def _complete(problem: GraphflowError, attempt: Trace) -> None:
    """Adds to a message what every message has while tracing: the sizes at this call, and the user's line."""
    text = str(problem)
    told = attempt.told(text)
    loc = None if "\n  at " in text else raised_at(problem.__traceback__)
    problem.args = (f"{text}{told}" + (f"\n  at {loc.describe()}" if loc else ""), *problem.args[1:])


def leak(node: Node | None, owner: Trace | None) -> str:
    """What is wrong with a value of `owner` where it is used now."""
    made = f" made at {node.loc}" if node is not None and node.loc else ""
    name = owner.name if owner is not None else "a compiled function"
    trace = current_trace()
    if node is not None and trace is not None and trace.read(node, owner) is not None:
        return (
            f"a traced value of {name}{made} is changed in place inside the body of {trace.name}; make it a "
            "carry or an operand, and return its new value"
        )
    instead = (
        "return it from the function instead of storing it, or change what is stored already in place, as "
        "with .copy_()"
    )
    return f"a traced value of {name}{made} is used outside of it; {instead}"
