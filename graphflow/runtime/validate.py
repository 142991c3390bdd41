"""What must hold of every Program before its machine code is run."""

from __future__ import annotations

from collections.abc import Iterable

from graphflow.dims import Dim
from graphflow.dtypes import bool_
from graphflow.errors import VerifyError
from graphflow.runtime.program import (
    Arg,
    BlockArg,
    Buffer,
    BufferArg,
    Command,
    FunctionArg,
    Part,
    Program,
    SizeArg,
)

_MAX_NESTING = 16


def validate(program: Program) -> None:
    """VerifyError when an index points nowhere, a role doesn't fit its list, or a symbol is unknown."""
    _check_lists(program)
    known = set(program.symbols)
    for buffer in program.buffers:
        _check_symbols(program, known, buffer.shape, f"buffer {buffer.name!r}")
        if (buffer.role == "part") != (buffer.part is not None):
            raise VerifyError(f"{program.name}: {buffer.role} buffer {buffer.name!r} has {buffer.part}")
        if buffer.part is not None:
            _check_part(program, known, buffer, buffer.part)
    _check_regions(program)
    for number, command in enumerate(program.commands):
        what = f"command {number} ({command.label})"
        if command.control:
            _check_control(program, known, number, command, what)
            continue
        if not 0 <= command.kernel < len(program.kernels):
            raise VerifyError(f"{program.name}: {what} names kernel {command.kernel}, which isn't there")
        sizes = (command.extent, command.grain, command.scratch, command.work, command.bytes, command.flops)
        _check_symbols(program, known, sizes, what)
        _check_args(program, known, command.args, what, 0)


def _check_lists(program: Program) -> None:
    listed: set[int] = set()
    for role, indices in (("input", program.inputs), ("state", program.states), ("output", program.outputs)):
        for index in indices:
            if not 0 <= index < len(program.buffers):
                raise VerifyError(f"{program.name}: {role} buffer {index} isn't there")
            if program.buffers[index].role != role:
                raise VerifyError(
                    f"{program.name}: buffer {index} is listed as {role} and is {program.buffers[index].role}"
                )
            if index in listed:
                raise VerifyError(f"{program.name}: {role} buffer {index} is listed twice")
            listed.add(index)
    if program.status is not None and program.status not in program.states:
        raise VerifyError(f"{program.name}: the status buffer {program.status} is no state")
    for index, buffer in enumerate(program.buffers):
        if buffer.role not in ("temp", "part") and index not in listed:
            raise VerifyError(f"{program.name}: {buffer.role} buffer {index} ({buffer.name}) is in no list")


def _check_part(program: Program, known: set[str], buffer: Buffer, part: Part) -> None:
    what = f"buffer {buffer.name!r}"
    base = program.buffers[part.buffer] if 0 <= part.buffer < len(program.buffers) else None
    if base is None or base.part is not None or base.dtype is not buffer.dtype:
        raise VerifyError(f"{program.name}: {what} is a part of buffer {part.buffer}, which it can't be")
    loops = {c.control.region for c in program.commands if c.control and c.control.kind == "loop"}
    for loop, _ in part.steps:
        if loop not in loops:
            raise VerifyError(f"{program.name}: {what} moves with loop {loop}, which isn't there")
    _check_symbols(program, known, (part.start, *(step for _, step in part.steps)), what)


def _check_regions(program: Program) -> None:
    """Regions lie within each other or apart, and every decision stays in its own."""
    regions = program.regions()
    open_until: list[int] = []
    for number, (start, leave) in regions.items():
        while open_until and open_until[-1] <= start:
            open_until.pop()
        if not start < leave <= (open_until[-1] if open_until else len(program.commands)):
            raise VerifyError(f"{program.name}: region {number}, from {start} to {leave}, overlaps another")
        open_until.append(leave)
    for number, command in enumerate(program.commands):
        if command.control is None:
            continue
        control = command.control
        start, leave = regions[control.region]
        backward = control.kind == "end"
        if (
            control.leave != leave
            or not start <= number < leave
            or not (start < control.target <= number if backward else number < control.target <= leave)
            or (control.kind == "loop") > (number == start)
            or (backward and (number != leave - 1 or _kind(program, start) != "loop"))
        ):
            raise VerifyError(f"{program.name}: command {number} ({command.label}) leads out of its region")


def _kind(program: Program, number: int) -> str | None:
    control = program.commands[number].control
    return control.kind if control else None


def _check_control(program: Program, known: set[str], number: int, command: Command, what: str) -> None:
    control = command.control
    assert control is not None
    if control.kind not in ("loop", "end", "branch", "jump") or not command.barrier:
        raise VerifyError(f"{program.name}: {what} is no decision that all threads can take")
    _check_symbols(program, known, () if control.length is None else (control.length,), what)
    if control.kind == "branch":
        flag = command.args[0] if len(command.args) == 1 else None
        if not isinstance(flag, BufferArg) or not 0 <= flag.buffer < len(program.buffers):
            raise VerifyError(f"{program.name}: {what} needs a bool to decide by")
        if program.buffers[flag.buffer].dtype is not bool_:
            raise VerifyError(f"{program.name}: {what} decides by {program.buffers[flag.buffer].dtype}")


def _check_symbols(program: Program, known: set[str], sizes: Iterable[int | Dim], what: str) -> None:
    for size in sizes:
        if isinstance(size, Dim) and not size.symbols() <= known:
            unknown = min(size.symbols() - known)
            raise VerifyError(f"{program.name}: {what} depends on the unknown symbol {unknown!r}")


def _check_args(program: Program, known: set[str], args: tuple[Arg, ...], what: str, depth: int) -> None:
    if depth > _MAX_NESTING:
        raise VerifyError(f"{program.name}: the argument blocks of {what} are nested too deeply")
    for arg in args:
        if isinstance(arg, BufferArg):
            if not 0 <= arg.buffer < len(program.buffers):
                raise VerifyError(f"{program.name}: {what} uses buffer {arg.buffer}, which isn't there")
            _check_symbols(program, known, (arg.offset,), what)
        elif isinstance(arg, SizeArg):
            _check_symbols(program, known, (arg.value,), what)
        elif isinstance(arg, FunctionArg):
            if not 0 <= arg.kernel < len(program.kernels):
                raise VerifyError(f"{program.name}: {what} uses kernel {arg.kernel}, which isn't there")
        elif isinstance(arg, BlockArg):
            _check_args(program, known, arg.args, what, depth + 1)
        else:
            raise VerifyError(f"{program.name}: {what} has the argument {arg!r}, which is of no known kind")
