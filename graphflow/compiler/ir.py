"""The intermediate representation: typed, located, interned nodes; ops declared once; graphs.

A ``Node`` applies an ``Op`` to input nodes under attributes and has one result type. Nodes are frozen and
interned: building the same application twice gives the same object, so equal subexpressions are one node and
identity is equality. A ``Graph`` names the inputs and results of a piece of that web.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from graphflow.compiler.location import Loc, user_loc
from graphflow.compiler.reference import widened
from graphflow.compiler.shared import Shared
from graphflow.dims import Dim
from graphflow.dtypes import DType
from graphflow.errors import DTypeError, GradientError, GraphflowError, ShapeError, TraceError

Size = int | Dim
Shape = tuple[Size, ...]
Attrs = Mapping[str, Any]


@dataclass(frozen=True)
class TensorType:
    """Element type and shape of one array; sizes may be symbolic."""

    dtype: DType
    shape: Shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class TupleType:
    """The type of the few ops with several results; ``project`` nodes pick one."""

    items: tuple[TensorType, ...]

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


Type = TensorType | TupleType


@dataclass(frozen=True)
class Sample:
    """Inputs on which tests run an op: arrays in operand order, attributes, and whether gradients are
    checked.

    A tuple of arrays stands for an operand of a tuple type.
    """

    inputs: tuple[Any, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    gradient: bool = True

    def __post_init__(self) -> None:
        arrays = (v if isinstance(v, tuple) else np.asarray(v) for v in self.inputs)
        object.__setattr__(self, "inputs", tuple(arrays))


@dataclass(frozen=True)
class BadSample:
    """Operands an op must refuse, with a fragment of the message it must give."""

    inputs: tuple[Any, ...]
    attrs: dict[str, Any]
    error: type[GraphflowError]
    message: str


@dataclass(frozen=True, eq=False)
class Op:
    """Everything graphflow knows about one primitive, declared in one place.

    ``infer(*types, **attrs)`` is the type rule and raises ShapeError or DTypeError; ``numpy(*arrays,
    **attrs)`` is the reference that defines the op's meaning; ``vjp(g, out, *inputs, **attrs)`` gives one
    cotangent node (or None) per input, written in ops; ``batch(out, size, batched, *inputs, **attrs)`` is the
    op over a leading batch dimension of some inputs (see ``passes/batch.py``), or the reason why there is no
    such thing. ``kind`` tells the compiler how it iterates;
    ``lowering`` holds what that kind needs (an element expression, a combine rule, an index map), see the
    family module that made the op.
    """

    name: str
    kind: str
    infer: Callable[..., Type]
    numpy: Callable[..., Any]
    vjp: Callable[..., Sequence[Node | None]] | None
    samples: Callable[[np.random.Generator], list[Sample]]
    bad_samples: Callable[[np.random.Generator], list[BadSample]] | None = None
    lowering: Any = None
    arity: int | None = None  # None: any number of operands
    doc: str = ""
    batch: Callable[..., Any] | str | None = None  # None: what the kind has

    def __call__(self, *inputs: Node | int | float | bool, **attrs: Any) -> Node:
        """A node that applies this op; Python scalars become constants of the first node operand's dtype."""
        return make_node(self, lift(inputs), attrs)

    def __repr__(self) -> str:
        return f"<op {self.name}>"


OPS: dict[str, Op] = {}


# Kinds of ops that only move elements or hold whole graphs.
_MOVING = {"view", "reshape", "cat", "pad", "gather", "input", "const", "control", "call", "project"}


def computes(op: Op) -> bool:
    """Whether the op does arithmetic, which for elements of 16 bits is done in float32 and rounded once."""
    return op.kind not in _MOVING and op.name not in ("cast", "detach", "alias", "iota", "random_bits")


def register(op: Op) -> Op:
    """Adds `op` to the registry, the only list of ops there is."""
    if op.name in OPS:
        raise GraphflowError(f"the op {op.name!r} is declared twice")
    if computes(op):
        op = replace(op, numpy=widened(op.numpy))
    OPS[op.name] = op
    return op


class Node(Shared):
    """One op applied. Create nodes by calling an Op; compare them with ``is``."""

    __slots__ = ("__weakref__", "attrs", "inputs", "loc", "op", "type")

    op: Op
    inputs: tuple[Node, ...]
    attrs: Attrs
    type: Any  # Type; `Any` because nearly all uses know which of the two they hold
    loc: Loc | None

    def __init__(self, op: Op, inputs: tuple[Node, ...], attrs: Attrs, type: Type, loc: Loc | None):
        set_slot = object.__setattr__
        set_slot(self, "op", op)
        set_slot(self, "inputs", inputs)
        set_slot(self, "attrs", attrs)
        set_slot(self, "type", type)
        set_slot(self, "loc", loc)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("nodes are frozen")

    def __repr__(self) -> str:
        return f"<{self.op.name}: {self.type}>"

    @property
    def shape(self) -> Shape:
        """Shape of the result."""
        return self.type.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> DType:
        """Element type of the result."""
        return self.type.dtype  # type: ignore[no-any-return]

    # Arithmetic, so that gradient rules read like mathematics.
    def __add__(self, other: Node | float) -> Node:
        return OPS["add"](self, other)

    def __radd__(self, other: float) -> Node:
        return OPS["add"](other, self)

    def __sub__(self, other: Node | float) -> Node:
        return OPS["sub"](self, other)

    def __rsub__(self, other: float) -> Node:
        return OPS["sub"](other, self)

    def __mul__(self, other: Node | float) -> Node:
        return OPS["mul"](self, other)

    def __rmul__(self, other: float) -> Node:
        return OPS["mul"](other, self)

    def __truediv__(self, other: Node | float) -> Node:
        return OPS["div"](self, other)

    def __rtruediv__(self, other: float) -> Node:
        return OPS["div"](other, self)

    def __neg__(self) -> Node:
        return OPS["neg"](self)


# --------------------------------------------------------------------------------------------- building nodes

_INTERNED: WeakValueDictionary[tuple[Any, ...], Node] = WeakValueDictionary()
_INTERN_LOCK = threading.Lock()
_LOCAL = threading.local()
_UIDS = itertools.count()


def current_loc() -> Loc | None:
    """The user's line that nodes made now are attributed to."""
    return getattr(_LOCAL, "loc", None)


class at:
    """Attributes the nodes made inside to `loc`. A class, as it is entered for every node of every pass."""

    __slots__ = ("_loc", "_outer")

    def __init__(self, loc: Loc | None):
        self._loc = loc

    def __enter__(self) -> None:
        self._outer, _LOCAL.loc = current_loc(), self._loc

    def __exit__(self, *_: object) -> None:
        _LOCAL.loc = self._outer


def _attr_key(value: Any) -> Any:
    """A hashable stand-in that keeps apart what Python calls equal: 1, 1.0 and True; 0.0 and -0.0."""
    if type(value) is int:
        return ("int", value)
    if isinstance(value, float):
        return ("f", value.hex())
    if isinstance(value, (bool, int)):
        return (type(value).__name__, int(value))
    if isinstance(value, tuple):
        return tuple([_attr_key(v) for v in value])
    return value


def make_node(op: Op, inputs: tuple[Node, ...], attrs: dict[str, Any]) -> Node:
    """The interned node for an application; ShapeError/DTypeError with operands and the
    user's line if it's ill-typed.
    """
    key = (op.name, tuple(map(id, inputs)), tuple([(k, _attr_key(v)) for k, v in sorted(attrs.items())]))
    node = _INTERNED.get(key)
    if node is not None:
        return node
    type_ = infer(op, tuple(n.type for n in inputs), attrs)
    with _INTERN_LOCK:
        node = _INTERNED.get(key)
        if node is None:
            node = Node(op, inputs, attrs, type_, current_loc())
            _INTERNED[key] = node
    return node


def unshared_node(op: Op, inputs: tuple[Node, ...], attrs: dict[str, Any]) -> Node:
    """A node outside the intern table: one event of eager execution, whose value is its
    own and may be overwritten.
    """
    return Node(op, inputs, attrs, infer(op, tuple(n.type for n in inputs), attrs), current_loc())


def infer(op: Op, types: tuple[Type, ...], attrs: Attrs) -> Type:
    """Applies the op's type rule; its complaint gets the op, the operands and the user's line added."""
    try:
        if op.arity is not None and len(types) != op.arity:
            raise DTypeError(f"takes {op.arity} operands, got {len(types)}")
        return op.infer(*types, **attrs)
    except (ShapeError, DTypeError) as error:
        operands = ", ".join(map(str, types)) or "none"
        loc = current_loc() or user_loc()
        where = f"\n  at {loc.describe()}" if loc else ""
        raise type(error)(f"{op.name}: {error}\n  operands: {operands}{where}") from None


def lift(values: Sequence[Node | int | float | bool]) -> tuple[Node, ...]:
    """Python scalars among operands as constants of the last node's dtype (the first of ``where`` is a bool).
    """
    if all(type(v) is Node for v in values):
        return tuple(values)  # type: ignore[arg-type]
    dtype = next(v.type.dtype for v in reversed(values) if isinstance(v, Node))
    return tuple(v if isinstance(v, Node) else constant(v, dtype) for v in values)


def constant(value: Size | float, dtype: DType) -> Node:
    """A 0-d constant; `value` is converted to `dtype` the way NumPy does. A symbolic size stays symbolic."""
    if dtype.is_half and not isinstance(value, Dim):
        with np.errstate(over="ignore"):
            value = float(dtype.numpy.type(np.float32(value)))
    elif not isinstance(value, Dim):
        value = dtype.numpy.type(value).item()
    return make_node(OPS["const"], (), {"value": value, "dtype": dtype})


def input_node(name: str, type_: TensorType, loc: Loc | None = None) -> Node:
    """A fresh graph input; two inputs are never the same node, whatever they are called."""
    with at(loc):
        return make_node(
            OPS["input"], (), {"name": name, "dtype": type_.dtype, "shape": type_.shape, "uid": next(_UIDS)}
        )


# ---------------------------------------------------------------------------------------------- graphs


@dataclass(frozen=True, eq=False)
class Graph(Shared):
    """A function as data.

    ``args`` and ``states`` are input nodes: what a caller passes, and what lives between calls. ``outputs``
    are the results. ``updates`` pairs a state's index with the node whose value it takes after a run.
    """

    name: str
    args: tuple[Node, ...]
    states: tuple[Node, ...]
    outputs: tuple[Node, ...]
    updates: tuple[tuple[int, Node], ...] = ()

    @property
    def inputs(self) -> tuple[Node, ...]:
        """Arguments, then states."""
        return self.args + self.states

    @property
    def roots(self) -> tuple[Node, ...]:
        """Every node whose value leaves the graph: outputs, then new values of states."""
        return self.outputs + tuple(node for _, node in self.updates)

    def with_roots(self, roots: Sequence[Node]) -> Graph:
        """The same graph with other result nodes, in the order of ``roots``."""
        n = len(self.outputs)
        updates = tuple((i, new) for (i, _), new in zip(self.updates, roots[n:], strict=True))
        return Graph(self.name, self.args, self.states, tuple(roots[:n]), updates)

    def nodes(self) -> list[Node]:
        """All nodes in dependency order, inputs that nothing uses included."""
        return toposort(self.inputs + self.roots)

    def symbols(self) -> tuple[str, ...]:
        """Names of the symbolic sizes in the inputs' shapes, in order of appearance."""
        found: dict[str, None] = {}
        for node in self.inputs:
            for size in node.shape:
                if isinstance(size, Dim):
                    found.update(dict.fromkeys(sorted(size.symbols())))
        return tuple(found)

    def __str__(self) -> str:
        return GRAPH_PRINTER(self)


def _no_printer(graph: Graph) -> str:
    return f"<graph {graph.name}>"


GRAPH_PRINTER: Callable[[Graph], str] = _no_printer  # printer.py puts itself here; ir knows no text format


def toposort(roots: Iterable[Node], stop: frozenset[Node] | set[Node] = frozenset()) -> list[Node]:
    """Every node the roots depend on, each after its inputs, without looking behind `stop`. Iterative."""
    order: list[Node] = []
    seen: set[Node] = set()
    for root in roots:
        if root in seen:
            continue
        stack: list[tuple[Node, int]] = [(root, 0)]
        seen.add(root)
        while stack:
            node, position = stack.pop()
            inputs = () if node in stop else node.inputs
            while position < len(inputs) and inputs[position] in seen:
                position += 1
            if position == len(inputs):
                order.append(node)
            else:
                child = inputs[position]
                stack.append((node, position + 1))
                seen.add(child)
                stack.append((child, 0))
    return order


def users(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """For every node among `nodes`, the nodes among them that read it (once per reading operand)."""
    found: dict[Node, list[Node]] = {}
    for node in nodes:
        found.setdefault(node, [])
        for source in node.inputs:
            found.setdefault(source, []).append(node)
    return found


def substitute(roots: Sequence[Node], mapping: Mapping[Node, Node]) -> list[Node]:
    """`roots` rebuilt with some nodes replaced; untouched parts stay the same objects."""
    done: dict[Node, Node] = dict(mapping)
    for node in toposort(roots, stop=set(mapping)):
        if node in done:
            continue
        inputs = tuple(done[i] for i in node.inputs)
        if all(a is b for a, b in zip(inputs, node.inputs, strict=True)):
            done[node] = node
        else:
            with at(node.loc):
                done[node] = make_node(node.op, inputs, dict(node.attrs))
    return [done[r] for r in roots]


# ------------------------------------------------------------------------------------------ symbolic equality


class Constraints:
    """Decides what happens when a type rule needs two different sizes to be equal.

    Tracing installs a subclass that may pin a symbol to a number; the default refuses.
    """

    def require_equal(self, a: Size, b: Size) -> Size:
        """The common size of `a` and `b`, or ShapeError."""
        raise ShapeError(f"sizes {a} and {b} differ")


def constraints() -> Constraints:
    """What decides about symbolic equality in this thread."""
    found = getattr(_LOCAL, "constraints", None)
    return found if found is not None else _DEFAULT_CONSTRAINTS


_DEFAULT_CONSTRAINTS = Constraints()


@contextmanager
def constrained_by(handler: Constraints) -> Iterator[None]:
    """Uses `handler` inside."""
    outer = getattr(_LOCAL, "constraints", None)
    _LOCAL.constraints = handler
    try:
        yield
    finally:
        _LOCAL.constraints = outer


def equal_size(a: Size, b: Size) -> Size:
    """`a` and `b` as one size; ShapeError when they can't be."""
    if a == b:
        return a
    if isinstance(a, int) and isinstance(b, int):
        raise ShapeError(f"sizes {a} and {b} differ")
    return constraints().require_equal(a, b)


def broadcast_shapes(*shapes: Shape) -> Shape:
    """NumPy's broadcasting over shapes with symbolic sizes. A symbol is not taken for 1
    unless the trace pins it.
    """
    result: list[Size] = [1] * max(map(len, shapes), default=0)
    for shape in shapes:
        shift = len(result) - len(shape)
        for axis, size in enumerate(shape, shift):
            if result[axis] == 1:
                result[axis] = size
            elif size != 1 and size != result[axis]:
                try:
                    result[axis] = equal_size(result[axis], size)
                except ShapeError:
                    raise ShapeError(
                        f"shapes {' and '.join(map(format_shape, shapes))} don't broadcast: "
                        f"{result[axis]} against {size} in dimension {axis - len(result)}"
                    ) from None
    return tuple(result)


def format_shape(shape: Sequence[Size]) -> str:
    """A shape the way messages print it."""
    return f"({', '.join(map(str, shape))})"


def normalize_dim(dim: int, ndim: int) -> int:
    """`dim` counted from the front; ShapeError when there is no such dimension."""
    if not -max(ndim, 1) <= dim < max(ndim, 1):
        raise ShapeError(f"dimension {dim} is out of range for {ndim} dimensions")
    return dim % max(ndim, 1)


__all__ = [
    "OPS", "BadSample", "Constraints", "GradientError", "Graph", "Node", "Op", "Sample", "TensorType",
    "TraceError", "TupleType",
]  # fmt: skip
