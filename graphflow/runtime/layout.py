"""Argument blocks: from the arguments of a program's commands to words in memory.

What doesn't depend on the sizes is worked out once per program: which word of which block holds what. An
instance then only evaluates the sizes and adds addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphflow.dims import Dim, evaluate
from graphflow.runtime.arena import live_intervals
from graphflow.runtime.program import Arg, BlockArg, BufferArg, FunctionArg, Program, SizeArg

# Each command's block starts on a cache line, so that threads reading it touch no line that is written to.
_LINE_WORDS = 8


class Layout:
    """The argument blocks of all commands, one after another in one array of words.

    ``blocks[i]`` is the word at which command i's block starts; ``intervals`` are the lives of the temp
    buffers (see `live_intervals`), which don't depend on sizes either. ``advances`` has for every loop the
    words that its rounds move on: (word, elements, bytes of an element).
    """

    def __init__(self, program: Program, functions: Sequence[int]):
        self._functions = functions
        self._words: list[int] = []
        self._inner: list[tuple[int, int]] = []  # word, word whose address it holds
        self._sizes: list[tuple[int, Dim]] = []
        self._buffers: list[tuple[int, int, int | Dim]] = []  # word, buffer, offset in elements
        self._program = program
        self.advances: dict[int, list[tuple[int, int | Dim, int]]] = {}
        self.blocks = tuple(self._place(command.args) for command in program.commands)
        self.intervals = live_intervals(program)
        self._itemsize = [buffer.dtype.itemsize for buffer in program.buffers]

    def _place(self, args: tuple[Arg, ...]) -> int:
        """Lays out one block and, behind it, the blocks in it; the word at which it starts."""
        start = -(-len(self._words) // _LINE_WORDS) * _LINE_WORDS
        self._words.extend([0] * (start + len(args) - len(self._words)))
        for word, arg in enumerate(args, start):
            if isinstance(arg, BufferArg):
                buffer = self._program.buffers[arg.buffer]
                if buffer.part is None:
                    self._buffers.append((word, arg.buffer, arg.offset))
                    continue
                self._buffers.append((word, buffer.part.buffer, buffer.part.start + arg.offset))
                for loop, step in buffer.part.steps:
                    self.advances.setdefault(loop, []).append((word, step, buffer.dtype.itemsize))
            elif isinstance(arg, SizeArg):
                if isinstance(arg.value, int):
                    self._words[word] = arg.value
                else:
                    self._sizes.append((word, arg.value))
            elif isinstance(arg, FunctionArg):
                self._words[word] = self._functions[arg.kernel]
            elif isinstance(arg, BlockArg):
                self._inner.append((word, self._place(arg.args)))
            else:
                raise TypeError(f"{arg!r} is not an argument of a command")
        return start

    @property
    def count(self) -> int:
        """How many words the blocks take together."""
        return len(self._words)

    def fill(
        self, words: np.ndarray, base: int, size: Callable[[int | Dim], int], address: Mapping[int, int]
    ) -> list[tuple[int, int, int]]:
        """Writes the blocks into `words` (int64, `count` of them, the first at address `base`).

        `address` has the addresses of the buffers that are known already. What is left comes back as
        (word, buffer, offset in bytes).
        """
        words[:] = self._words
        for word, target in self._inner:
            words[word] = base + 8 * target
        for word, value in self._sizes:
            words[word] = size(value)
        left = []
        for word, buffer, offset in self._buffers:
            shift = size(offset) * self._itemsize[buffer]
            known = address.get(buffer)
            if known is None:
                left.append((word, buffer, shift))
            else:
                words[word] = known + shift
        return left


def evaluator(values: Mapping[str, int]) -> Callable[[int | Dim], int]:
    """A function from sizes to numbers under an assignment of the symbols, which evaluates each Dim once."""
    known: dict[Dim, int] = {}

    def size(value: int | Dim) -> int:
        if isinstance(value, int):
            return value
        number = known.get(value)
        if number is None:
            number = known[value] = evaluate(value, values)
        return number

    return size
