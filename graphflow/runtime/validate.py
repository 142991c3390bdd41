"""What must hold of every Program before its machine code is run."""

from __future__ import annotations

from collections.abc import Iterable

from graphflow.dims import Dim
from graphflow.errors import VerifyError
from graphflow.runtime.program import Arg, BlockArg, BufferArg, FunctionArg, Program, SizeArg

_MAX_NESTING = 16


def validate(program: Program) -> None:
    """VerifyError when an index points nowhere, a role doesn't fit its list, or a symbol is unknown."""
    _check_lists(program)
    known = set(program.symbols)
    for buffer in program.buffers:
        _check_symbols(program, known, buffer.shape, f"buffer {buffer.name!r}")
    for number, command in enumerate(program.commands):
        what = f"command {number} ({command.label})"
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
        if buffer.role != "temp" and index not in listed:
            raise VerifyError(f"{program.name}: {buffer.role} buffer {index} ({buffer.name}) is in no list")


def _check_symbols(program: Program, known: set[str], sizes: Iterable[int | Dim], what: str) -> None:
    for size in sizes:
        unknown = size.symbols() - known if isinstance(size, Dim) else set()
        if unknown:
            raise VerifyError(f"{program.name}: {what} depends on the unknown symbol {min(unknown)!r}")


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
