"""Program: what the compiler hands to the runtime. Frozen plain data; nothing here runs anything.

A Program is a command buffer. Nearly every command names a kernel (machine code with the uniform signature
``void kernel(int64* args, int64 lo, int64 hi, uint8* scratch)``), the words of its argument block, and the
range ``[0, extent)`` that may be cut anywhere at multiples of ``grain`` and shared among threads. The others
are `Control`: they say which command is next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graphflow.dims import Dim
from graphflow.dtypes import DType

Size = int | Dim
Role = Literal["input", "state", "output", "temp", "part"]


@dataclass(frozen=True)
class Part:
    """A place in another buffer: from element ``start`` on, further by so many elements (``steps``) in every
    round of a loop, which is named by its region's number.
    """

    buffer: int
    start: Size
    steps: tuple[tuple[int, Size], ...]


@dataclass(frozen=True)
class Buffer:
    """Storage of one contiguous row-major array.

    ``input`` and ``state`` come from the caller, ``output`` is handed to the caller fresh on every run,
    ``temp`` lives in the arena from command ``first`` to command ``last``, both inclusive. A ``part`` has no
    memory of its own: it is a run of elements of another buffer, such as the element of a sequence that a
    loop is at.
    """

    role: Role
    dtype: DType
    shape: tuple[int | Dim, ...]
    name: str
    first: int = 0
    last: int = 0
    part: Part | None = None


@dataclass(frozen=True)
class BufferArg:
    """The address of a buffer's element ``offset`` (counted in elements of the buffer's dtype)."""

    buffer: int
    offset: int | Dim = 0


@dataclass(frozen=True)
class SizeArg:
    """A size, stride or count."""

    value: int | Dim


@dataclass(frozen=True)
class FunctionArg:
    """The address of another kernel's machine code (pack and epilogue functions of a contraction)."""

    kernel: int


@dataclass(frozen=True)
class BlockArg:
    """The address of a nested argument block."""

    args: tuple[Arg, ...]


Arg = BufferArg | SizeArg | FunctionArg | BlockArg


@dataclass(frozen=True)
class Kernel:
    """Machine code of one function: an object file that defines ``symbol``, and what it was made from."""

    name: str
    symbol: str
    digest: str
    object_code: bytes
    source: str


@dataclass(frozen=True)
class Control:
    """What a command does that runs no kernel. ``target`` and ``leave`` are indices of commands.

    ``loop`` starts a loop of ``length`` rounds (None: until a branch leaves it) and goes to ``target`` when
    there are none. ``end`` ends a round: it moves the parts of its region on and goes to ``target``, or on
    after the last round. ``branch`` goes to ``target`` when the bool that is its command's argument is False,
    ``jump`` always. A ``region`` is a loop or a pair of branches with all in it; ``leave`` is the first
    command behind.
    """

    kind: Literal["loop", "end", "branch", "jump"]
    region: int
    target: int
    leave: int
    length: Size | None = None


@dataclass(frozen=True)
class Command:
    """One kernel over one range, or (with ``control``, and -1 for the kernel) a decision.

    ``barrier`` means that all earlier commands must be complete before this one starts. ``scratch`` is the
    number of bytes of per-thread scratch memory (64-byte aligned) the kernel needs. ``work`` estimates the
    whole range in nanoseconds of one core, so that the executor can keep small commands on one thread.
    """

    kernel: int
    args: tuple[Arg, ...]
    extent: int | Dim
    grain: int | Dim
    barrier: bool
    label: str
    scratch: int | Dim = 0
    work: int | Dim = 0
    bytes: int | Dim = 0
    flops: int | Dim = 0
    control: Control | None = None


@dataclass(frozen=True)
class Program:
    """Everything the executor needs: kernels, buffers and the commands in order.

    ``inputs``, ``states`` and ``outputs`` are indices into ``buffers`` in calling order. ``status`` is the
    state whose first word a kernel sets to something other than 0 when it can't go on; the commands after it
    don't run.
    """

    name: str
    symbols: tuple[str, ...]
    kernels: tuple[Kernel, ...]
    buffers: tuple[Buffer, ...]
    commands: tuple[Command, ...]
    inputs: tuple[int, ...]
    states: tuple[int, ...]
    outputs: tuple[int, ...]
    status: int | None = None

    def kernel_name(self, command: Command) -> str:
        """The name of the command's kernel, or of what it decides."""
        return command.control.kind if command.control else self.kernels[command.kernel].name

    def repeats(self) -> list[Size]:
        """How often each command runs at least: the rounds of the loops it is in, once where nobody can tell.
        """
        found: list[Size] = [1] * len(self.commands)
        for number, command in enumerate(self.commands):
            control = command.control
            if control is not None and control.kind == "loop" and control.length is not None:
                for inside in range(number + 1, control.leave):
                    found[inside] = found[inside] * control.length
        return found

    def regions(self) -> dict[int, tuple[int, int]]:
        """The loops and branches by number: the first command of each, and the first behind it."""
        found: dict[int, tuple[int, int]] = {}
        for number, command in enumerate(self.commands):
            if command.control:
                found.setdefault(command.control.region, (number, command.control.leave))
        return found
