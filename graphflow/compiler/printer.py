"""The text of a graph: typed, one node a line, with the user's lines. ``parser.parse`` reads it back.

::

    graph step(%x: float32[batch, 64], %w: float32[64, 8] state) {
      %0 = matmul(%x, %w) : float32[batch, 8]  # model.py:10
      %1 = const(value=0.5, dtype=@float32) : float32[]
      %2 = mul(%0, %1) : float32[batch, 8]  # model.py:11
      return %2
      update %w = %w
    }

Nodes are numbered in dependency order, inputs go by their names. A name that isn't made of letters, digits,
dots and underscores is quoted as in JSON; a second input of the same name gets ``#2`` after it. Attributes
stand in the order of the op's type rule; what they can hold is told apart by its spelling: ``1``, ``1.0``,
``true``, ``none``, ``"text"``, ``@float32``, ``(1, 2)``, ``batch+1``, ``graph …``. Nodes that depend on no
input carry no line, as equal ones made by unrelated code are one node.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from graphflow.compiler import ir
from graphflow.compiler.ir import Graph, Node, TupleType
from graphflow.compiler.schema import attribute_kinds
from graphflow.dims import Dim
from graphflow.dtypes import DType

PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
RESERVED = frozenset({"true", "false", "none", "inf", "nan", "-inf", "graph"})  # no bare spelling of a size
LINE_WIDTH = 110


def print_graph(graph: Graph) -> str:
    """The graph's text, without a newline at the end."""
    return "\n".join(_lines(graph, ""))


def spell_name(name: str) -> str:
    """A name as it stands in the text: bare where that can be read back, else quoted."""
    return name if PLAIN_NAME.fullmatch(name) else json.dumps(name)


def _lines(graph: Graph, indent: str) -> list[str]:
    names = _input_names(graph)
    lines = _header(graph, names, indent)
    numbering = Renumbering()
    open_nodes = set(graph.inputs)
    for node in graph.nodes():
        if node in names:
            continue
        operands = [names[source] for source in node.inputs]
        attrs = numbering.apply(node)
        values = [
            (f"{key}={spell_value(attrs[key], indent + '    ')}", attrs[key]) for key in attribute_order(node)
        ]
        names[node] = f"%{len(names) - len(graph.inputs)}"
        where = ""
        if any(source in open_nodes for source in node.inputs):
            open_nodes.add(node)
            where = f"  # {spell_loc(str(node.loc))}" if node.loc else ""
        text = _join(operands, values, f"\n{indent}    ")
        lines.append(f"{indent}  {names[node]} = {node.op.name}({text}) : {node.type}{where}")
    lines.append(f"{indent}  return {', '.join(names[node] for node in graph.outputs)}".rstrip())
    for state, new in graph.updates:
        lines.append(f"{indent}  update {names[graph.states[state]]} = {names[new]}")
    lines.append(indent + "}")
    return lines


def _join(operands: list[str], values: list[tuple[str, Any]], line_break: str) -> str:
    """Operands and attributes with commas; a sub-graph and what follows it start on lines of their own."""
    text = ", ".join(operands)
    after_block = False
    for spelled, value in values:
        block = isinstance(value, Graph)
        separator = "," if text else ""
        text += separator + (line_break if block or after_block else " " if text else "") + spelled
        after_block = block
    return text


def _header(graph: Graph, names: Mapping[Node, str], indent: str) -> list[str]:
    inputs = [f"{names[node]}: {node.type}" for node in graph.args]
    inputs += [f"{names[node]}: {node.type} state" for node in graph.states]
    start = f"graph {spell_name(graph.name)}("
    line = f"{start}{', '.join(inputs)}) {{"
    if len(indent) + len(line) <= LINE_WIDTH:
        return [line]
    return [start, *(f"{indent}  {text}," for text in inputs), f"{indent}) {{"]


def _input_names(graph: Graph) -> dict[Node, str]:
    names: dict[Node, str] = {}
    seen: dict[str, int] = {}
    for node in graph.inputs:
        name = node.attrs["name"]
        seen[name] = seen.get(name, 0) + 1
        names[node] = f"%{spell_name(name)}" + (f"#{seen[name]}" if seen[name] > 1 else "")
    return names


class Renumbering:
    """Replaces the process-wide numbers that keep nodes apart (``uid``) by their order in a graph."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def apply(self, node: Node) -> Mapping[str, Any]:
        """The node's attributes with a ``uid`` that any process would give it."""
        if "uid" not in node.attrs:
            return node.attrs
        return {**node.attrs, "uid": self._seen.setdefault(node.attrs["uid"], len(self._seen))}


def attribute_order(node: Node) -> Iterable[str]:
    """The node's attributes as the type rule orders them, and any it doesn't know after those."""
    if len(node.attrs) == 1:
        return node.attrs
    known = attribute_kinds(node.op)
    return [k for k in known if k in node.attrs] + sorted(k for k in node.attrs if k not in known)


def spell_loc(loc: str) -> str:
    """A source line's name on one line of text."""
    return "".join(c if c.isprintable() else "?" for c in loc)


def spell_value(value: object, indent: str = "") -> str:
    """One attribute; ``indent`` is that of the lines of a sub-graph inside."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, DType):
        return f"@{value.name}"
    if isinstance(value, Dim):
        text = str(value)
        return f"({text})" if text in RESERVED else text
    if isinstance(value, tuple):
        inside = ", ".join(spell_value(v, indent) for v in value)
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, Graph):
        return "\n".join(_lines(value, indent))
    raise TypeError(f"an attribute can't be {value!r}")


def describe_node(node: Node) -> str:
    """One node with the types of its operands, and the user's line, for messages."""
    operands = ", ".join(str(source.type) for source in node.inputs)
    if node.op.name == "input":
        operands = spell_name(str(node.attrs.get("name")))
    where = f"\n  at {node.loc.describe()}" if node.loc else ""
    result = str(node.type) if not isinstance(node.type, TupleType) or len(node.type.items) < 9 else "(…)"
    return f"{node.op.name}({operands}) : {result}{where}"


ir.GRAPH_PRINTER = print_graph
