"""Reads the text that ``printer`` writes. Text is data: nothing in it is evaluated as Python."""

from __future__ import annotations

import json
import re
from typing import NoReturn

from graphflow.compiler import ops  # noqa: F401  fills the registry
from graphflow.compiler.ir import OPS, Graph, Node, TensorType, TupleType, Type, at, input_node, make_node
from graphflow.compiler.location import Loc
from graphflow.compiler.printer import PLAIN_NAME, RESERVED
from graphflow.compiler.verify import MAX_NESTING, verify
from graphflow.dims import Dim
from graphflow.dims import parse as parse_size
from graphflow.dtypes import by_name
from graphflow.errors import DTypeError, FormatError, ShapeError, VerifyError

_STRING = r'"(?:[^"\\\n]|\\.)*"'
_TOKEN = re.compile(
    rf"""[ \t\r]*(?:
        (?P<name>%(?:\d+|[A-Za-z_][A-Za-z0-9_.]*|{_STRING})(?:\#\d+)?)
      | (?P<newline>\n)
      | (?P<comment>\#[^\n]*)
      | (?P<type>[a-z]\w*\[[^\]\n]*\])
      | (?P<word>[A-Za-z_][A-Za-z0-9_.]*)
      | (?P<number>\d+(?:\.\d+)?(?:e[-+]?\d+)?)
      | (?P<string>{_STRING})
      | (?P<dtype>@\w+)
      | (?P<mark>//|[-+*(){{}},=:])
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_INT = re.compile(r"-?\d+")
_FLOAT = re.compile(r"-?(?:\d+\.\d+(?:e[-+]?\d+)?|\d+e[-+]?\d+|inf|nan)")
_LOC = re.compile(r"# ?(.*):(\d+)")
_NAMED = {"true": True, "false": False, "none": None}
_MAX_SIZE_TEXT = 1000


def parse(text: str) -> Graph:
    """The graph that `text` describes; FormatError with the line's number when it describes none.

    The graph prints as the text did, if the text came from the printer. Its inputs are fresh nodes.
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str):
        self.kinds: list[str] = []
        self.texts: list[str] = []
        self.lines: list[int] = []
        self.position = 0
        self.comments: dict[int, str] = {}  # by the number of the token that follows
        self.types: dict[str, TensorType] = {}
        self._tokenize(text)

    # ------------------------------------------------------------------------------------ tokens

    def _tokenize(self, text: str) -> None:
        line, offset, own_line = 1, 0, True
        match_at = _TOKEN.match
        while True:
            match = match_at(text, offset)
            if match is None:
                rest = text[offset : offset + 20].lstrip(" ").partition("\n")[0]
                raise FormatError(f"line {line}: can't read {rest!r}")
            kind = match.lastgroup
            offset = match.end()
            if kind == "newline":
                line, own_line = line + 1, True
                continue
            if kind == "comment":
                if not own_line:  # else it is for people only
                    self.comments.setdefault(len(self.kinds), match.group(kind))
            else:
                self.kinds.append(str(kind))
                self.texts.append(match.group(match.lastgroup or 0))
                self.lines.append(line)
            own_line = False
            if kind == "end":
                return

    def fail(self, message: str, position: int | None = None) -> NoReturn:
        """Raises FormatError for the token at `position`, by default the next one."""
        raise FormatError(f"line {self.lines[self.position if position is None else position]}: {message}")

    def peek(self) -> str:
        """The next token's text; empty at the end."""
        return self.texts[self.position]

    def take(self, kind: str, what: str) -> str:
        """The next token, which has to be of a kind."""
        if self.kinds[self.position] != kind:
            self.fail(f"expected {what}, found {self._found()}")
        self.position += 1
        return self.texts[self.position - 1]

    def expect(self, text: str) -> None:
        """Steps over a token that has to be there."""
        if self.texts[self.position] != text or self.kinds[self.position] == "string":
            self.fail(f"expected {text!r}, found {self._found()}")
        self.position += 1

    def skip(self, text: str) -> bool:
        """Steps over the next token if it is `text`."""
        found = self.texts[self.position] == text
        self.position += found
        return found

    def _found(self) -> str:
        return "the end" if self.kinds[self.position] == "end" else repr(self.peek())

    # ------------------------------------------------------------------------------------ graphs

    def parse(self) -> Graph:
        """The whole text as one graph."""
        graph = self.graph(0)
        if self.kinds[self.position] != "end":
            self.fail(f"text after the graph: {self.peek()!r}")
        try:
            return verify(graph)
        except VerifyError as error:
            raise FormatError(f"the text describes no sound graph: {error}") from error

    def graph(self, depth: int) -> Graph:
        """``graph name(inputs) { nodes, return, updates }``."""
        if depth > MAX_NESTING:
            self.fail(f"sub-graphs are nested more than {MAX_NESTING} deep")
        self.expect("graph")
        name = self.word_or_string("the graph's name")
        nodes: dict[str, Node] = {}
        inputs: tuple[list[Node], list[Node]] = ([], [])
        self.expect("(")
        while not self.skip(")"):
            if nodes:
                self.expect(",")
                if self.skip(")"):
                    break
            self.input(nodes, inputs)
        self.expect("{")
        while self.kinds[self.position] == "name":
            self.node(nodes, depth)
        self.expect("return")
        outputs = []
        while self.kinds[self.position] == "name":
            outputs.append(self.operand(nodes))
            if not self.skip(","):
                break
        updates = []
        while self.skip("update"):
            state = self.operand(nodes)
            if state not in inputs[1]:
                self.fail(f"{self.texts[self.position - 1]} is no state", self.position - 1)
            self.expect("=")
            updates.append((inputs[1].index(state), self.operand(nodes)))
        self.expect("}")
        return Graph(name, tuple(inputs[0]), tuple(inputs[1]), tuple(outputs), tuple(updates))

    def input(self, nodes: dict[str, Node], inputs: tuple[list[Node], list[Node]]) -> None:
        """``%name: type`` or ``%name: type state``."""
        label = self.new_name(nodes)
        if label[1:].isdigit():
            self.fail("an input needs a name that isn't a number", self.position - 1)
        name = label[1:]
        if name.startswith('"'):
            end = name.rindex('"') + 1
            name = self.unquote(name[:end])
        else:
            name = name.split("#")[0]
        self.expect(":")
        type_ = self.tensor_type()
        nodes[label] = input_node(name, type_)
        is_state = self.skip("state")
        if inputs[1] and not is_state:
            self.fail("arguments come before states", self.position - 1)
        inputs[is_state].append(nodes[label])

    def node(self, nodes: dict[str, Node], depth: int) -> None:
        """``%n = op(operands, attributes) : type``, and a comment with the user's line."""
        start = self.position
        label = self.new_name(nodes)
        self.expect("=")
        name = self.take("word", "an op")
        op = OPS.get(name)
        if op is None or name == "input":
            self.fail(f"there is no op {name!r}", self.position - 1)
        self.expect("(")
        operands: list[Node] = []
        attrs: dict[str, object] = {}
        while not self.skip(")"):
            if operands or attrs:
                self.expect(",")
            if self.kinds[self.position] == "name":
                if attrs:
                    self.fail("operands come before attributes")
                operands.append(self.operand(nodes))
            else:
                key = self.take("word", "an operand or an attribute")
                if key in attrs:
                    self.fail(f"the attribute {key} is given twice", self.position - 1)
                self.expect("=")
                attrs[key] = self.value(depth, 0)
        self.expect(":")
        type_ = self.type()
        with at(self.loc()):
            try:
                node = make_node(op, tuple(operands), attrs)
            except (ShapeError, DTypeError, TypeError, ValueError, AttributeError, LookupError) as error:
                self.fail(str(error), start)
        if node.type != type_:
            self.fail(f"{name} gives {node.type}, the text says {type_}", start)
        nodes[label] = node

    def new_name(self, nodes: dict[str, Node]) -> str:
        """A name that isn't defined yet."""
        label = self.take("name", "a name")
        if label in nodes:
            self.fail(f"{label} is defined twice", self.position - 1)
        return label

    def operand(self, nodes: dict[str, Node]) -> Node:
        """A node by a name that is defined."""
        label = self.take("name", "a name")
        if label not in nodes:
            self.fail(f"{label} is not defined", self.position - 1)
        return nodes[label]

    def loc(self) -> Loc | None:
        """The user's line from a comment at the end of a line, if there is one."""
        match = _LOC.fullmatch(self.comments.get(self.position, ""))
        return Loc(match.group(1), int(match.group(2)), "") if match and len(match.group(2)) < 10 else None

    # ------------------------------------------------------------------------------------ types and values

    def type(self) -> Type:
        """``float32[…]`` or a tuple of such."""
        if not self.skip("("):
            return self.tensor_type()
        items: list[TensorType] = []
        while not self.skip(")"):
            if items:
                self.expect(",")
            items.append(self.tensor_type())
        return TupleType(tuple(items))

    def tensor_type(self) -> TensorType:
        """``float32[batch, 64]``."""
        text = self.take("type", "a type")
        found = self.types.get(text)
        if found is None:
            name, _, sizes = text[:-1].partition("[")
            try:
                shape = tuple(self.size(part) for part in sizes.split(",")) if sizes.strip() else ()
                found = self.types[text] = TensorType(by_name(name), shape)
            except DTypeError as error:
                self.fail(str(error), self.position - 1)
        return found

    def size(self, text: str) -> int | Dim:
        """An integer or an expression of symbols."""
        if len(text) > _MAX_SIZE_TEXT:
            self.fail("a size is too long", self.position - 1)
        try:
            return parse_size(text)
        except ValueError as error:
            self.fail(str(error), self.position - 1)

    def value(self, depth: int, nesting: int) -> object:
        """An attribute's value."""
        kind, text = self.kinds[self.position], self.peek()
        if kind == "string":
            self.position += 1
            return self.unquote(text)
        if kind == "dtype":
            self.position += 1
            try:
                return by_name(text[1:])
            except DTypeError as error:
                self.fail(str(error), self.position - 1)
        if kind == "word" and text == "graph":
            return self.graph(depth + 1)
        if text == "(" and self._is_tuple():
            if nesting > 16:
                self.fail("a tuple is nested too deeply")
            return self.tuple(depth, nesting + 1)
        return self.number()

    def tuple(self, depth: int, nesting: int) -> tuple[object, ...]:
        """``(a, b)``, ``(a,)`` or ``()``."""
        self.expect("(")
        values: list[object] = []
        while not self.skip(")"):
            values.append(self.value(depth, nesting))
            if not self.skip(","):
                self.expect(")")
                break
        return tuple(values)

    def _is_tuple(self) -> bool:
        """Whether the parenthesis here holds a comma of its own, or nothing."""
        depth = 0
        for position in range(self.position, len(self.texts)):
            text = self.texts[position]
            if text == "(":
                depth += 1
            elif text == ")":
                depth -= 1
                if depth == 0:
                    return position == self.position + 1
            elif (text == "," and depth == 1) or self.kinds[position] == "end":
                return text == ","
        return False

    def number(self) -> object:
        """A number, a named constant, or a size: everything up to the comma or parenthesis that ends it."""
        start, nested = self.position, 0
        while self.kinds[self.position] in ("word", "number", "mark"):
            text = self.peek()
            nested += (text == "(") - (text == ")")
            if nested < 0 or (nested == 0 and text == ","):
                break
            self.position += 1
        text = "".join(self.texts[start : self.position])
        if text in _NAMED:
            return _NAMED[text]
        try:
            if _INT.fullmatch(text):
                return int(text)
            if _FLOAT.fullmatch(text):
                return float(text)
        except ValueError as error:
            self.fail(str(error), start)
        if not text or text in RESERVED:
            self.fail(f"expected a value, found {self._found()}")
        return self.size(text)

    def word_or_string(self, what: str) -> str:
        """A name, bare or quoted."""
        if self.kinds[self.position] == "string":
            self.position += 1
            return self.unquote(self.texts[self.position - 1])
        name = self.take("word", what)
        if not PLAIN_NAME.fullmatch(name):
            self.fail(f"expected {what}, found {name!r}", self.position - 1)
        return name

    def unquote(self, text: str) -> str:
        """The string that a JSON literal spells."""
        try:
            value = json.loads(text)
        except ValueError as error:
            self.fail(f"not a string: {error}", self.position - 1)
        assert isinstance(value, str)
        return value
