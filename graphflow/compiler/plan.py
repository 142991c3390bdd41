"""Plan: all that running a compiled graph needs, and its form as plain data for the cache.

A plan has the program, what a failed check of an index says, and the bounds to look at before a run. Its data
name machine code by digest and the user's lines by their places in the list that ``codec.encode_apart``
gives, so that they hold wherever in a file the same program stands. The stages of compiling aren't in it, nor
are the kernels' texts: whoever wants those compiles again.

The data are ``{"name", "symbols", "kernels", "buffers", "commands", "inputs", "states", "outputs", "status",
"checks", "bounds"}``. A size is an integer, or text that ``dims.parse`` reads. Rows are in the order of the
fields of what they stand for. An argument of a command is a size, ``[buffer, offset]``, ``{"function":
kernel}`` or ``{"block": arguments}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn, get_args

from graphflow.compiler.bounds import Bound, unproved
from graphflow.compiler.ir import Graph, Node
from graphflow.compiler.location import Asked, Loc
from graphflow.compiler.pipeline import Compiled
from graphflow.dims import Dim, evaluate, parse
from graphflow.dtypes import DType, by_name
from graphflow.errors import DTypeError, FormatError
from graphflow.runtime.program import (
    Arg,
    BlockArg,
    Buffer,
    BufferArg,
    Command,
    Control,
    FunctionArg,
    Kernel,
    Part,
    Program,
    Role,
    Size,
    SizeArg,
)

Data = Any  # what json.loads gives, without floats

_ROLES = get_args(Role)
_CONTROLS = ("loop", "end", "branch", "jump")
_MAX_NESTING = 16
_MAX_INT = 2**63 - 1


@dataclass(frozen=True)
class Check:
    """An index that kernels look at: the op's name, the dimension's size, and the user's line."""

    name: str
    size: Size
    loc: Loc | None

    def failed(self, value: int, values: Mapping[str, int]) -> IndexError:
        """What to raise for an index `value`, the symbols having these `values`."""
        where = f"\n  at {self.loc.describe()}" if self.loc else ""
        asked = self.loc.asked if self.loc and self.loc.asked else Asked(self.name, False)
        return IndexError(f"{asked.name}: {asked.told(value, evaluate(self.size, values))}{where}")


@dataclass(frozen=True)
class Plan:
    """What running a compiled graph needs."""

    program: Program
    checks: tuple[Check, ...]
    bounds: tuple[Bound, ...]


def plan_of(compiled: Compiled) -> Plan:
    """The plan of a graph that went through all passes."""
    checks = tuple(_check(node) for node in compiled.layout.checks)
    return Plan(compiled.program, checks, unproved(compiled.fused.graph))


def _check(node: Node) -> Check:
    gathers = node.op.kind == "gather"
    size = node.inputs[0].shape[node.attrs["dim"]] if gathers else node.attrs["size"]
    return Check(node.op.name, size, node.loc)


def without_sources(program: Program) -> Program:
    """The program as it comes from its data: kernels don't have their texts."""
    return replace(program, kernels=tuple(replace(k, source="") for k in program.kernels))


# ---------------------------------------------------------------------------------------------- encoding


def encode_plan(plan: Plan, lines: Sequence[Loc]) -> dict[str, Data]:
    """The plan as plain data. FormatError where a check's or bound's line isn't among `lines`."""
    program = plan.program
    places = {(loc, loc.asked): number for number, loc in enumerate(lines)}

    def line(loc: Loc | None) -> int | None:
        number = None if loc is None else places.get((loc, loc.asked))
        if loc is not None and number is None:
            raise FormatError(f"{loc} is no line of the traced program")
        return number

    return {
        "name": program.name,
        "symbols": list(program.symbols),
        "kernels": [[k.name, k.symbol, k.digest] for k in program.kernels],
        "buffers": [_encode_buffer(b) for b in program.buffers],
        "commands": [_encode_command(c) for c in program.commands],
        "inputs": list(program.inputs),
        "states": list(program.states),
        "outputs": list(program.outputs),
        "status": program.status,
        "checks": [[c.name, _encode_size(c.size), line(c.loc)] for c in plan.checks],
        "bounds": [
            [*map(_encode_size, (b.first, b.last, b.count, b.size)), b.name, line(b.loc)] for b in plan.bounds
        ],
    }


def _encode_size(size: Size) -> Data:
    return str(size) if isinstance(size, Dim) else int(size)


def _encode_buffer(buffer: Buffer) -> Data:
    part = buffer.part
    steps = None if part is None else [[loop, _encode_size(step)] for loop, step in part.steps]
    whole = None if part is None else [part.buffer, _encode_size(part.start), steps]
    shape = [_encode_size(s) for s in buffer.shape]
    return [buffer.role, buffer.dtype.name, shape, buffer.name, buffer.first, buffer.last, whole]


def _encode_command(command: Command) -> Data:
    c, control = command, command.control
    length = None if control is None or control.length is None else _encode_size(control.length)
    sizes = [_encode_size(s) for s in (c.scratch, c.work, c.bytes, c.flops)]
    decision = control and [control.kind, control.region, control.target, control.leave, length]
    args = [_encode_arg(a) for a in c.args]
    extent, grain = _encode_size(c.extent), _encode_size(c.grain)
    return [c.kernel, args, extent, grain, c.barrier, c.label, *sizes, decision]


def _encode_arg(arg: Arg) -> Data:
    if isinstance(arg, SizeArg):
        return _encode_size(arg.value)
    if isinstance(arg, BufferArg):
        return [arg.buffer, _encode_size(arg.offset)]
    if isinstance(arg, FunctionArg):
        return {"function": arg.kernel}
    return {"block": [_encode_arg(a) for a in arg.args]}


# ---------------------------------------------------------------------------------------------- decoding


def decode_plan(data: Data, lines: Sequence[Loc], code: Callable[[str, str], bytes]) -> Plan:
    """The plan that `data` describes; FormatError when they aren't in the form that `encode_plan` gives.

    `code` gives the machine code of a digest and a symbol. Whether indices point somewhere is left to
    ``runtime.validate``.
    """
    return _Decoder(lines, code).plan(data)


def check_signature(plan: Plan, graph: Graph) -> None:
    """FormatError for a plan whose inputs and outputs aren't those of the graph."""
    program, states = plan.program, plan.program.states
    if plan.checks:
        if not states or program.status != states[-1]:
            _fail("the state that tells of bad indices isn't the last")
        states = states[:-1]
    elif program.status is not None:
        _fail("there is a state that tells of bad indices and nothing to tell")
    found = [[program.buffers[i] for i in group] for group in (program.inputs, states, program.outputs)]
    for group, nodes in zip(found, (graph.args, graph.states, graph.outputs), strict=True):
        if [(b.dtype, b.shape) for b in group] != [(n.dtype, n.shape) for n in nodes]:
            _fail("inputs and outputs are of other types than the graph's")
    if program.symbols != graph.symbols():
        _fail("the symbols are others than the graph's")


def _fail(message: str) -> NoReturn:
    raise FormatError(f"a stored plan: {message}")


def _integer(value: Data) -> int:
    if type(value) is not int or not -_MAX_INT - 1 <= value <= _MAX_INT:
        _fail(f"{value!r} has to be an integer of 64 bits")
    return value


def _string(value: Data) -> str:
    if type(value) is not str:
        _fail(f"{value!r} has to be a string")
    return value


def _one_of(value: Data, known: Sequence[str]) -> Any:
    if value not in known:
        _fail(f"{value!r} has to be one of {', '.join(known)}")
    return value


def _list(value: Data, length: int | None = None) -> list[Data]:
    if type(value) is not list or (length is not None and len(value) != length):
        _fail(f"a list{'' if length is None else f' of {length}'} is missing")
    return value


class _Decoder:
    def __init__(self, lines: Sequence[Loc], code: Callable[[str, str], bytes]):
        self.lines, self.code = lines, code
        self.sizes: dict[str, Dim] = {}
        self.dtypes: dict[str, DType] = {}

    def plan(self, data: Data) -> Plan:
        if type(data) is not dict:
            _fail("a table is missing")
        try:
            program = Program(
                _string(data["name"]),
                tuple(_string(s) for s in _list(data["symbols"])),
                tuple(self.kernel(row) for row in _list(data["kernels"])),
                tuple(self.buffer(row) for row in _list(data["buffers"])),
                tuple(self.command(row) for row in _list(data["commands"])),
                tuple(_integer(i) for i in _list(data["inputs"])),
                tuple(_integer(i) for i in _list(data["states"])),
                tuple(_integer(i) for i in _list(data["outputs"])),
                None if data["status"] is None else _integer(data["status"]),
            )
            checks = tuple(self.check(row) for row in _list(data["checks"]))
            bounds = tuple(self.bound(row) for row in _list(data["bounds"]))
        except KeyError as error:
            _fail(f"{error} is missing")
        return Plan(program, checks, bounds)

    def size(self, data: Data) -> Size:
        if type(data) is not str:
            return _integer(data)
        found = self.sizes.get(data)
        if found is None:
            try:
                size = parse(data)
            except ValueError as error:
                raise FormatError(f"a stored plan: {error}") from error
            if not isinstance(size, Dim):
                _fail(f"{data!r} is spelled as a size with symbols")
            found = self.sizes[data] = size
        return found

    def dtype(self, data: Data) -> DType:
        found = self.dtypes.get(_string(data))
        if found is None:
            try:
                found = self.dtypes[data] = by_name(data)
            except DTypeError as error:
                raise FormatError(f"a stored plan: {error}") from error
        return found

    def line(self, data: Data) -> Loc | None:
        if data is None:
            return None
        if not 0 <= _integer(data) < len(self.lines):
            _fail(f"there is no line {data}")
        return self.lines[data]

    def kernel(self, row: Data) -> Kernel:
        name, symbol, digest = map(_string, _list(row, 3))
        return Kernel(name, symbol, digest, self.code(digest, symbol), "")

    def buffer(self, row: Data) -> Buffer:
        role, dtype, shape, name, first, last, whole = _list(row, 7)
        part = None
        if whole is not None:
            buffer, start, steps = _list(whole, 3)
            moves = (_list(step, 2) for step in _list(steps))
            moved = tuple((_integer(loop), self.size(step)) for loop, step in moves)
            part = Part(_integer(buffer), self.size(start), moved)
        sizes = tuple(self.size(s) for s in _list(shape))
        lives = _integer(first), _integer(last)
        return Buffer(_one_of(role, _ROLES), self.dtype(dtype), sizes, _string(name), *lives, part)

    def command(self, row: Data) -> Command:
        kernel, args, extent, grain, barrier, label, scratch, work, size, flops, decision = _list(row, 11)
        control = None
        if decision is not None:
            kind, region, target, leave, length = _list(decision, 5)
            numbers = _integer(region), _integer(target), _integer(leave)
            rounds = None if length is None else self.size(length)
            control = Control(_one_of(kind, _CONTROLS), *numbers, rounds)
        if type(barrier) is not bool:
            _fail(f"{barrier!r} has to be true or false")
        return Command(
            _integer(kernel),
            self.args(args, 0),
            self.size(extent),
            self.size(grain),
            barrier,
            _string(label),
            self.size(scratch),
            self.size(work),
            self.size(size),
            self.size(flops),
            control,
        )

    def args(self, data: Data, depth: int) -> tuple[Arg, ...]:
        if depth > _MAX_NESTING:
            _fail("argument blocks are nested too deeply")
        return tuple([self.arg(a, depth) for a in _list(data)])

    def arg(self, data: Data, depth: int) -> Arg:
        if type(data) is list:
            buffer, offset = _list(data, 2)
            return BufferArg(_integer(buffer), self.size(offset))
        if type(data) is not dict:
            return SizeArg(self.size(data))
        if data.keys() == {"function"}:
            return FunctionArg(_integer(data["function"]))
        if data.keys() == {"block"}:
            return BlockArg(self.args(data["block"], depth + 1))
        return _fail("an argument is of no known kind")

    def check(self, row: Data) -> Check:
        name, size, line = _list(row, 3)
        return Check(_string(name), self.size(size), self.line(line))

    def bound(self, row: Data) -> Bound:
        *sizes, name, line = _list(row, 6)
        first, last, count, size = (self.size(s) for s in sizes)
        return Bound(first, last, count, size, _string(name), self.line(line))


__all__ = ["Check", "Plan", "check_signature", "decode_plan", "encode_plan", "plan_of", "without_sources"]
