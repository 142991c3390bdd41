"""Checks every invariant of a graph. Passes are checked with it in tests, files when they are read."""

from __future__ import annotations

from collections.abc import Iterable, Set

from graphflow.compiler.ir import OPS, Graph, Node, TensorType, TupleType, infer, toposort
from graphflow.compiler.printer import describe_node
from graphflow.compiler.schema import check_attributes
from graphflow.dims import Dim
from graphflow.dtypes import DType
from graphflow.errors import DTypeError, ShapeError, VerifyError

MAX_NESTING = 64  # sub-graphs inside sub-graphs


def verify(graph: Graph) -> Graph:
    """The graph itself if it is sound; VerifyError naming the node, its operands and the user's line if not.

    Sound means: inputs are ``input`` nodes, each once, and no other input is reachable; sizes name only
    symbols that are a whole dimension of some input; every node is an application of a registered op with
    attributes of the declared kinds, of the type that the op's rule gives; results are tensors; an update has
    its state's type, and no state has two; sub-graphs are sound functions of their arguments.
    """
    plain = (
        str(size) for node in graph.inputs if _is_tensor(node) for size in node.shape if isinstance(size, Dim)
    )
    _verify(graph, {name for name in plain if name.isidentifier()}, 0)
    return graph


def _is_tensor(node: Node) -> bool:
    return isinstance(node.type, TensorType)


def _fail(what: str, node: Node) -> VerifyError:
    return VerifyError(f"{what}\n  in {describe_node(node)}")


def _verify(graph: Graph, symbols: Set[str], depth: int) -> None:
    if depth > MAX_NESTING:
        raise VerifyError(f"the graph {graph.name} is nested more than {MAX_NESTING} deep")
    inputs = set(graph.inputs)
    if len(inputs) != len(graph.inputs):
        twice = next(node for node in graph.inputs if graph.inputs.count(node) > 1)
        raise _fail(f"an input of the graph {graph.name} is listed twice", twice)
    for node in graph.inputs:
        if node.op is not OPS["input"]:
            raise _fail(f"an input of the graph {graph.name} is no input node", node)
    checked: set[Node] = set()
    known_types: set[int] = set()
    for node in toposort((*graph.inputs, *graph.roots)):
        if any(source not in checked for source in node.inputs):
            raise _fail("the node depends on itself", node)
        if node.op is OPS["input"] and node not in inputs:
            raise _fail(f"the graph {graph.name} reads an input that isn't its own", node)
        _verify_node(node)
        if id(node.type) not in known_types:
            _verify_sizes(node, symbols)
            known_types.add(id(node.type))
        _verify_attributes(node, symbols, depth)
        checked.add(node)
    _verify_results(graph)


def _verify_node(node: Node) -> None:
    op = node.op
    if OPS.get(op.name) is not op:
        raise _fail(f"the op {op.name} isn't in the registry", node)
    wrong = check_attributes(op, node.attrs)
    if wrong:
        raise _fail(wrong, node)
    try:
        type_ = infer(op, tuple(source.type for source in node.inputs), node.attrs)
    except (ShapeError, DTypeError) as error:
        raise _fail(f"the node is ill-typed: {error}", node) from error
    if type_ != node.type:
        raise _fail(f"the type rule gives {type_}", node)


def _verify_sizes(node: Node, symbols: Set[str]) -> None:
    for type_ in node.type.items if isinstance(node.type, TupleType) else (node.type,):
        for size in type_.shape:
            if isinstance(size, Dim):
                _require_known((size,), symbols, node)
            elif size < 0:
                raise _fail(f"a size can't be {size}", node)


def _require_known(sizes: Iterable[Dim], symbols: Set[str], node: Node) -> None:
    for size in sizes:
        unknown = size.symbols() - symbols
        if unknown:
            raise _fail(
                f"the size {size} has symbols that no input has as a dimension: {', '.join(sorted(unknown))}",
                node,
            )


def _verify_attributes(node: Node, symbols: Set[str], depth: int) -> None:
    for key, value in node.attrs.items():
        if type(value) in (int, bool, str, float, DType):
            continue
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Dim):
                _require_known((part,), symbols, node)
            elif isinstance(part, Graph):
                if part.states or part.updates:
                    raise _fail(f"the sub-graph {key} has state", node)
                try:
                    _verify(part, symbols, depth + 1)
                except VerifyError as error:
                    raise VerifyError(f"{error}\n  in the sub-graph {key} of {describe_node(node)}") from None


def _verify_results(graph: Graph) -> None:
    for node in graph.roots:
        if not _is_tensor(node):
            raise _fail(f"a result of the graph {graph.name} is a tuple", node)
    updated: set[int] = set()
    for index, new in graph.updates:
        if not 0 <= index < len(graph.states):
            raise _fail(f"an update is for state {index} of {len(graph.states)}", new)
        if index in updated:
            raise _fail(f"the state {graph.states[index].attrs['name']} is updated twice", new)
        updated.add(index)
        if new.type != graph.states[index].type:
            state = graph.states[index]
            raise _fail(
                f"the state {state.attrs['name']} is {state.type} and can't be updated with this", new
            )
