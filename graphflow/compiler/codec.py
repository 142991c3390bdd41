"""Graphs as plain data (lists, dicts, strings, integers, booleans) for files, and back.

Decoding trusts nothing: every index, name, attribute and size is checked, every type is inferred anew and
compared with the stored one, and what the encoder wouldn't have written is refused. No code is stored or run.

A graph is ``{"name", "types", "locs", "args", "states", "nodes", "outputs", "updates"}``. ``args`` and
``states`` are ``[name, type]``; a node is ``[op, operands, attributes, type, loc]``. Types and locs are given
by their places in their tables, values by their place in ``args + states + nodes``. Attributes hold integers,
booleans, strings, null and lists (tuples) as they are; the rest is tagged: ``{"float": "0x1.8p+0"}``,
``{"dtype": "float32"}``, ``{"size": terms}``, ``{"graph": {…}}``. The terms of a symbolic size are
``[coefficient, factors]``; a factor is a symbol or ``[terms, divisor]`` for a floor division.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from graphflow.compiler import ops  # noqa: F401  fills the registry
from graphflow.compiler.ir import OPS, Graph, Node, TensorType, TupleType, Type, at, input_node, make_node
from graphflow.compiler.location import Asked, Loc
from graphflow.compiler.printer import Renumbering, attribute_order
from graphflow.compiler.schema import check_attributes
from graphflow.compiler.verify import MAX_NESTING, verify
from graphflow.dims import Atom, Choice, Dim, FloorDiv, product
from graphflow.dtypes import DType, by_name
from graphflow.errors import DTypeError, FormatError, GraphflowError

Data = Any  # what json.loads gives, without floats

MAX_INT = 2**63 - 1
MAX_RANK = 32
MAX_TERMS = 4096  # of a size, and of the product of a shape's sizes
MAX_FACTORS = 32
MAX_NAME = 1000
_OWN = dict(OPS)  # without what others register later
_KEYS = ("name", "types", "locs", "args", "states", "nodes", "outputs", "updates")


# ---------------------------------------------------------------------------------------------- encoding


def encode(graph: Graph) -> dict[str, Data]:
    """The graph as plain data; equal graphs give equal data in every process."""
    locs: dict[tuple[str, int, str], int] = {}

    def place(loc: Loc) -> int:
        return locs.setdefault((os.path.basename(loc.file), loc.line, loc.function), len(locs))

    data = _encode_graph(graph, place, encode)
    data["locs"] = [list(key) for key in locs]
    return data


def encode_apart(graph: Graph) -> tuple[dict[str, Data], list[Loc]]:
    """The graph as data that tell which nodes share a line and not which line it is, and the lines: data stay
    the same where the program's lines only move. Sub-graphs count theirs with the graph's.

    FormatError for ops that aren't graphflow's own: the data don't say what those do.
    """
    lines: dict[tuple[Loc, Asked | None], int] = {}

    def place(loc: Loc) -> int:
        return lines.setdefault((loc, loc.asked), len(lines))

    def encoded(part: Graph) -> dict[str, Data]:
        for node in part.nodes():
            if _OWN.get(node.op.name) is not node.op:
                raise FormatError(f"{node.op.name} is an op of this process alone")
        return _encode_graph(part, place, encoded)

    return encoded(graph), [loc for loc, _ in lines]


def _encode_graph(
    graph: Graph, place: Callable[[Loc], int], nested: Callable[[Graph], Data]
) -> dict[str, Data]:
    types: dict[Type, int] = {}
    index: dict[Node, int] = {}
    numbering = Renumbering()
    open_nodes = set(graph.inputs)
    rows = []
    for node in (*graph.inputs, *graph.nodes()):
        if node in index:
            continue
        index[node] = len(index)
        if node in open_nodes:
            continue
        line = None  # equal nodes that depend on no input are one node, whoever made it first
        if not open_nodes.isdisjoint(node.inputs):
            open_nodes.add(node)
            if node.loc is not None:
                line = place(node.loc)
        values = {}
        if node.attrs:
            attrs = numbering.apply(node)
            values = {key: _encode_value(attrs[key], nested) for key in attribute_order(node)}
        type_ = types.setdefault(node.type, len(types))
        rows.append([node.op.name, [index[source] for source in node.inputs], values, type_, line])
    args, states = (
        [[node.attrs["name"], types.setdefault(node.type, len(types))] for node in group]
        for group in (graph.args, graph.states)
    )
    return {
        "name": graph.name,
        "types": [_encode_type(t) for t in types],
        "locs": [],
        "args": args,
        "states": states,
        "nodes": rows,
        "outputs": [index[node] for node in graph.outputs],
        "updates": [[state, index[new]] for state, new in graph.updates],
    }


def _encode_type(type_: Type) -> Data:
    if isinstance(type_, TupleType):
        return {"tuple": [_encode_type(item) for item in type_.items]}
    return [type_.dtype.name, [_encode_value(size, encode) for size in type_.shape]]


def _encode_value(value: object, nested: Callable[[Graph], Data]) -> Data:
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_INT + 1:
            raise FormatError(f"the integer {value} has no room in a file: it needs more than 64 bits")
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if isinstance(value, DType):
        return {"dtype": value.name}
    if isinstance(value, Dim):
        return {"size": _encode_size(value)}
    if isinstance(value, tuple):
        return [_encode_value(v, nested) for v in value]
    if isinstance(value, Graph):
        return {"graph": nested(value)}
    raise FormatError(f"an attribute can't be {value!r}")


def _encode_size(size: Dim) -> Data:
    terms = sorted(size.terms.items(), key=lambda term: (-len(term[0]), str(term[0])))
    return [[coefficient, [_encode_factor(f) for f in factors]] for factors, coefficient in terms]


def _encode_factor(factor: Atom) -> Data:
    if isinstance(factor, Choice):
        raise FormatError(f"{factor} is no size of a shape")
    return factor if isinstance(factor, str) else [_encode_size(factor.numerator), factor.divisor]


# ---------------------------------------------------------------------------------------------- decoding


def decode(data: Data) -> Graph:
    """The graph that `data` describes, with fresh inputs; FormatError when it isn't what ``encode`` gives."""
    graph = _decode_graph(data, 0)
    try:
        verify(graph)
    except GraphflowError as error:
        raise FormatError(f"the data describe no sound graph: {error}") from error
    # Catches what is harmless but not ours: unused tables, unreachable nodes, sizes spelled otherwise.
    if encode(graph) != data:
        _fail("the graph isn't in the form that graphflow writes")
    return graph


def _fail(message: str) -> NoReturn:
    raise FormatError(message)


def _list(value: Data, what: str, length: int | None = None) -> list[Data]:
    if type(value) is not list or (length is not None and len(value) != length):
        _fail(f"{what} has to be a list{'' if length is None else f' of {length}'}")
    return value


def _string(value: Data, what: str) -> str:
    if type(value) is not str or len(value) > MAX_NAME:
        _fail(f"{what} has to be a string of at most {MAX_NAME} characters")
    return value


def _integer(value: Data, what: str) -> int:
    if type(value) is not int or not -MAX_INT - 1 <= value <= MAX_INT:
        _fail(f"{what} has to be an integer of 64 bits")
    return value


def _pick(table: Sequence[Any], place: Data, what: str) -> Any:
    if type(place) is not int or not 0 <= place < len(table):
        _fail(f"{what} {place!r} is out of range: there are {len(table)}")
    return table[place]


def _decode_graph(data: Data, depth: int) -> Graph:
    if depth > MAX_NESTING:
        _fail(f"sub-graphs are nested more than {MAX_NESTING} deep")
    if type(data) is not dict or set(data) != set(_KEYS):
        _fail(f"a graph has to be a table with {', '.join(_KEYS)}")
    name = _string(data["name"], "the graph's name")
    types = [_decode_type(t) for t in _list(data["types"], "types")]
    locs = [_decode_loc(loc) for loc in _list(data["locs"], "locs")]
    args = [_decode_input(row, types) for row in _list(data["args"], "args")]
    states = [_decode_input(row, types) for row in _list(data["states"], "states")]
    values = args + states
    for number, row in enumerate(_list(data["nodes"], "nodes")):
        try:
            values.append(_decode_node(row, values, types, locs, depth))
        except FormatError as error:
            raise FormatError(f"node {number} of {name}: {error}") from error
    outputs = [_pick(values, place, "the output") for place in _list(data["outputs"], "outputs")]
    updates = []
    for row in _list(data["updates"], "updates"):
        state, new = _list(row, "an update", 2)
        _pick(states, state, "the state")
        updates.append((state, _pick(values, new, "the new value")))
    return Graph(name, tuple(args), tuple(states), tuple(outputs), tuple(updates))


def _decode_input(row: Data, types: Sequence[Type]) -> Node:
    name, type_ = _list(row, "an input", 2)
    found = _pick(types, type_, "the type")
    if not isinstance(found, TensorType):
        _fail("an input can't be a tuple")
    return input_node(_string(name, "an input's name"), found)


def _decode_loc(row: Data) -> Loc:
    file, line, function = _list(row, "a line", 3)
    return Loc(_string(file, "a file"), _integer(line, "a line's number"), _string(function, "a function"))


def _decode_node(
    row: Data, values: list[Node], types: Sequence[Type], locs: Sequence[Loc], depth: int
) -> Node:
    op_name, places, attributes, type_place, loc_place = _list(row, "a node", 5)
    op = OPS.get(_string(op_name, "an op"))
    if op is None or op.name == "input":
        _fail(f"there is no op {op_name!r}; a newer graphflow may have it")
    operands = tuple(_pick(values, place, "the operand") for place in _list(places, "operands"))
    if type(attributes) is not dict:
        _fail("attributes have to be a table")
    attrs = {key: _decode_value(value, depth, 0) for key, value in attributes.items()}
    wrong = check_attributes(op, attrs)
    if wrong:
        _fail(wrong)
    expected = _pick(types, type_place, "the type")
    with at(None if loc_place is None else _pick(locs, loc_place, "the line")):
        try:
            node = make_node(op, operands, attrs)
        except (GraphflowError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise FormatError(str(error)) from error
    if node.type != expected:
        _fail(f"{op.name} gives {node.type}, but {expected} is stored")
    return node


def _decode_type(data: Data) -> Type:
    if type(data) is dict:
        if set(data) != {"tuple"}:
            _fail("a type has to be a list or a table with tuple")
        items = [_decode_type(item) for item in _list(data["tuple"], "a tuple type") if type(item) is list]
        if len(items) != len(data["tuple"]):
            _fail("a tuple can't hold tuples")
        return TupleType(tuple(items))  # type: ignore[arg-type]
    name, sizes = _list(data, "a type", 2)
    if len(_list(sizes, "a shape")) > MAX_RANK:
        _fail(f"a shape has more than {MAX_RANK} dimensions")
    shape = tuple(_decode_size(size) for size in sizes)
    dtype = _decode_dtype(name)
    _require_small_product(shape)
    if math.prod(size for size in shape if isinstance(size, int)) * dtype.itemsize > MAX_INT:
        _fail("an array is larger than any memory")
    return TensorType(dtype, shape)


def _decode_size(data: Data) -> int | Dim:
    value = _decode_value(data, 0, 0) if type(data) is dict else _integer(data, "a size")
    if not isinstance(value, Dim) and (type(value) is not int or value < 0):
        _fail("a size has to be an integer of 64 bits, not negative, or symbolic")
    return value


def _decode_dtype(name: Data) -> DType:
    try:
        return by_name(_string(name, "a dtype"))
    except DTypeError as error:
        raise FormatError(str(error)) from error


def _decode_value(data: Data, depth: int, nesting: int) -> Any:
    if data is None or type(data) in (bool, str):
        return data
    if type(data) is int:
        return _integer(data, "an attribute")
    if type(data) is list:
        if nesting > 4 or len(data) > MAX_TERMS:
            _fail("a tuple is too deep or too long")
        value = tuple(_decode_value(item, depth, nesting + 1) for item in data)
        _require_small_product(value)
        return value
    if type(data) is not dict or len(data) != 1:
        _fail("an attribute is of no known kind")
    ((tag, inside),) = data.items()
    if tag == "float":
        try:
            return float.fromhex(_string(inside, "a float"))
        except (ValueError, OverflowError):
            _fail(f"{inside!r} is no float")
    if tag == "dtype":
        return _decode_dtype(inside)
    if tag == "size":
        size = _decode_terms(inside, 0)
        return size if isinstance(size, Dim) else _fail("a size with a symbol turned out to be a number")
    if tag == "graph":
        return _decode_graph(inside, depth + 1)
    return _fail("an attribute is of no known kind")


def _decode_terms(data: Data, nesting: int) -> int | Dim:
    if nesting > 8 or len(_list(data, "a size")) > MAX_TERMS:
        _fail("a size is too deep or too long")
    total: int | Dim = 0
    for row in data:
        coefficient, factors = _list(row, "a term", 2)
        if len(_list(factors, "factors")) > MAX_FACTORS:
            _fail(f"a term has more than {MAX_FACTORS} factors")
        # Each factor is a single term, and so is their product: nothing outgrows what the file spells out.
        total = total + product(_decode_factor(f, nesting) for f in factors) * _integer(
            coefficient, "a coefficient"
        )
    return total


def _decode_factor(data: Data, nesting: int) -> Dim:
    if type(data) is str:
        if not data.isidentifier() or len(data) > MAX_NAME:
            _fail(f"{data[:50]!r} is no name of a size")
        return Dim.symbol(data)
    terms, divisor = _list(data, "a factor", 2)
    numerator = _decode_terms(terms, nesting + 1)
    if not isinstance(numerator, Dim) or _integer(divisor, "a divisor") < 1:
        _fail("a floor division needs a symbolic numerator and a positive divisor")
    quotient = Dim({(FloorDiv(numerator, divisor),): 1})
    if numerator // divisor != quotient:
        _fail("a floor division is exact and has to be spelled without it")
    return quotient


def _require_small_product(values: tuple[Any, ...]) -> None:
    """Type rules multiply a shape's sizes; this bounds how many terms that can give."""
    if math.prod(len(v.terms) for v in values if isinstance(v, Dim)) > MAX_TERMS:
        _fail("a shape's symbolic sizes are too complicated")
