"""Instance: a program at one assignment of its symbolic sizes, laid out in memory and ready to run."""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from graphflow.errors import ShapeError, VerifyError
from graphflow.runtime import arena, native, native_signals, schedule, scratch, words
from graphflow.runtime.buffers import ALIGNMENT, OutputPool, WordArray, aligned_bytes, array_at
from graphflow.runtime.layout import Layout, evaluator
from graphflow.runtime.loader import Code
from graphflow.runtime.locks import ForkLock
from graphflow.runtime.program import Command, Program
from graphflow.runtime.regions import Regions
from graphflow.runtime.threads import get_num_threads, pool

Callback = Callable[[int, Command, Callable[[int], np.ndarray]], None]

_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


class Slab:
    """Memory for temporary buffers, shared by instances of one program that don't run at the same time.

    Whoever runs an instance holds the lock of its slab.
    """

    __slots__ = ("address", "lock", "memory", "size")

    def __init__(self, size: int):
        self.size = size
        self.memory, self.address = aligned_bytes(max(size, 1))
        self.lock = ForkLock()


@dataclass(frozen=True)
class Held:
    """Bytes that an Instance has allocated for values: ``arena`` for temporary buffers, ``scratch`` of all
    threads together beside that, ``outputs`` with those kept to be handed out again.
    """

    arena: int
    scratch: int
    outputs: int


class Instance:
    """The arena plan, argument blocks, command array and pointer patches of `program` for the symbols'
    `values`.

    ``arena_bytes`` is the memory of all temporary buffers, ``scratch_bytes`` that of all threads' scratch
    beside it, as they were when the ranges were cut last, ``shapes`` the shape of every buffer. `run` may be
    called from any thread: the lock lets one in at a time.
    """

    def __init__(
        self,
        program: Program,
        layout: Layout,
        codes: Sequence[Code],
        values: Mapping[str, int],
        slab: Callable[[int], Slab],
    ):
        self._program, self._codes = program, codes
        self._size = size = evaluator(values)
        self.values = dict(values)
        self.shapes = [tuple(size(s) for s in buffer.shape) for buffer in program.buffers]
        for buffer, shape in zip(program.buffers, self.shapes, strict=True):
            if any(s < 0 for s in shape):
                what = f"{buffer.name!r} would have the shape {shape}"
                raise ShapeError(f"{program.name}: with {self._told()}, {what}")
        self._intervals = layout.intervals
        self.temp_offsets, self.arena_bytes = self._plan_arena(layout.intervals)
        self.slab = slab(self.arena_bytes)
        self.lock = self.slab.lock
        self._plan = WordArray(words.PLAN_WORDS)
        self._fill_blocks(layout)
        self._fill_commands(layout)
        self.scratch_bytes = 0
        self.outputs = [OutputPool(self.shapes[i], program.buffers[i].dtype.numpy) for i in program.outputs]
        inputs, states, outputs = len(program.inputs), len(program.states), len(program.outputs)
        self._pointers = WordArray(inputs + states + outputs)
        self._bound: list[int] | None = None
        self._pack_inputs = _packer(self._pointers, 0, inputs)
        self._pack_states = _packer(self._pointers, inputs, states)
        self._pack_outputs = _packer(self._pointers, inputs + states, outputs)
        self._threads = 0
        self._scratch = np.empty(0, np.uint8)
        self._run = native.native().run
        self.plan_address, self.input_count = self._plan.address, inputs
        # nanoseconds of one core, by the compiler's estimate; how often a loop goes round it doesn't say
        self._controls = any(command.control is not None for command in program.commands)
        self.work = math.inf if self._controls else sum(work for _, _, work in self._cost)
        self._status = WordArray(2)
        if self._controls and program.status is None:
            self._plan.values[words.STATUS] = self._status.address
        self.dropped = False

    def held(self) -> Held:
        """What is allocated now; scratch memory is from the first run on, as the threads are known then."""
        return Held(self.slab.size, self.scratch_bytes, sum(pool.bytes for pool in self.outputs))

    def _told(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.values.items()) or "no symbols"

    def _bytes(self, buffer: int) -> int:
        return prod(self.shapes[buffer]) * self._program.buffers[buffer].dtype.itemsize

    def _plan_arena(self, intervals: Mapping[int, tuple[int, int]]) -> tuple[dict[int, int], int]:
        temps = list(intervals)
        offsets, total = arena.plan([intervals[t] for t in temps], [self._bytes(t) for t in temps], ALIGNMENT)
        return dict(zip(temps, offsets, strict=True)), total

    def _fill_blocks(self, layout: Layout) -> None:
        program = self._program
        self._blocks = WordArray(layout.count)
        temps = {buffer: self.slab.address + offset for buffer, offset in self.temp_offsets.items()}
        left = layout.fill(self._blocks.values, self._blocks.address, self._size, temps)
        place = {b: i for i, b in enumerate((*program.inputs, *program.states, *program.outputs))}
        self._place = place
        rows = [(self._blocks.address + 8 * word, place[buffer], shift) for word, buffer, shift in left]
        if program.status is not None:
            rows.append((self._plan.address + 8 * words.STATUS, place[program.status], 0))
        self._patches = WordArray(len(rows), words.PATCH_WORDS)
        if rows:
            self._patches.values[...] = rows
        plan = self._plan.values
        plan[words.PATCHES], plan[words.PATCH_COUNT] = self._patches.address, len(rows)

    def _fill_commands(self, layout: Layout) -> None:
        program = self._program
        commands = program.commands
        self._commands = WordArray(len(commands), words.COMMAND_WORDS)
        self.regions = Regions(program, layout, self._blocks, self._size)
        self._cost = []
        for row, command, block in zip(self._commands.values, commands, layout.blocks, strict=True):
            extent, grain = self._size(command.extent), self._size(command.grain)
            if grain < 1 and extent > 0:
                what = f"{command.label} has the grain {grain}"
                raise VerifyError(f"{program.name}: with {self._told()}, {what}")
            self._cost.append((max(extent, 0), grain, self._size(command.work)))
            if command.control is None:
                row[words.KERNEL] = self._codes[command.kernel].address
            row[words.ARGS] = self._blocks.address + 8 * block
            row[words.EXTENT] = extent
        for index, decision in self.regions.decisions.items():
            self._commands.values[index, words.COUNTERS] = decision
        plan = self._plan.values
        plan[words.COMMANDS], plan[words.COMMAND_COUNT] = self._commands.address, len(commands)

    def share(self) -> None:
        """Has the ranges cut for the number of threads that there is now; the caller holds the lock."""
        threads = get_num_threads()
        if threads != self._threads:
            self._share(threads)

    def _share(self, threads: int) -> None:
        """Cuts the commands' ranges for at most `threads` threads."""
        cuts = schedule.cuts(self._cost, self.regions.spans.values(), threads)
        active = max((c.threads for c in cuts), default=1)
        commands = self._program.commands
        counts = [c.threads for c in cuts]
        parts = schedule.roles(self.regions.spans.values(), counts, [c.control is not None for c in commands])
        met = schedule.meetings([c.barrier for c in commands], counts, parts)
        # each command's counters start on a cache line of their own
        row = -(-active // 8) * 8
        shared = [i for i, c in enumerate(cuts) if c.threads > 1]
        self._counters = WordArray(len(shared), row)
        rows = self._commands.values
        for index, (c, meet, part) in enumerate(zip(cuts, met, parts, strict=True)):
            together = part == schedule.MEET  # decided for all threads
            rows[index, words.BARRIER] = meet
            rows[index, words.THREADS : words.CHUNK + 1] = 2 if together else c.threads, c.share, c.chunk
        self.regions.place_counters(self._counters.address, 8 * row, shared)
        for number, index in enumerate(shared):
            rows[index, words.COUNTERS] = self._counters.address + 8 * row * number
        self._place_scratch(cuts)
        plan = self._plan.values
        plan[words.ACTIVE], plan[words.CUT] = active, threads
        plan[words.COUNTER_AREA], plan[words.COUNTER_BYTES] = self._counters.address, 8 * row * len(shared)
        self._active, self._threads = active, threads

    def _place_scratch(self, cuts: Sequence[schedule.Cut]) -> None:
        widths = {buffer: self._bytes(buffer) for buffer in self._intervals}
        placed = scratch.plan(self._program, self._size, cuts, self._intervals, widths, self.temp_offsets)
        self.scratch_bytes = placed.own
        self._scratch, address = aligned_bytes(placed.own)
        rows = self._commands.values
        rows[:, words.SCRATCH] = placed.offsets
        rows[:, words.SCRATCH] += np.where(placed.beside, address, self.slab.address)
        rows[:, words.SCRATCH_STRIDE] = placed.strides

    def run(self, pointers: Sequence[int]) -> None:
        """One run. `pointers` are the addresses of the inputs, states and outputs, in the program's order.

        They must point to C-contiguous, aligned arrays of the right dtype and of the shapes in ``shapes``,
        which stay alive during the call: nothing is checked here but their number.
        """
        if len(pointers) != len(self._place):
            raise ValueError(f"{self._program.name} takes {len(self._place)} pointers, not {len(pointers)}")
        with self.lock:
            self._pointers.values[:] = pointers
            self._bound = None
            self.execute()

    def start(self, inputs: Sequence[int], states: list[int]) -> list[np.ndarray]:
        """Takes pointers, returns fresh outputs; the caller holds the lock and calls `execute` next."""
        self._pack_inputs(*inputs)
        if states is not self._bound:
            self._pack_states(*states)
            self._bound = states
        results = []
        addresses = []
        for output in self.outputs:
            array, address = output.take()
            results.append(array)
            addresses.append(address)
        self._pack_outputs(*addresses)
        return results

    def execute(self, pointers: int | None = None) -> None:
        """Runs all commands on what `start` was given, or on the pointers at an address; the caller holds the
        lock. Raises what a signal's handler raised during a loop.
        """
        if pointers is None:
            pointers = self._pointers.address
        self.share()
        if self._active > 1:
            lent = pool.lend(self._active)
            if lent:
                try:
                    self._run(self.plan_address, pointers, lent, None)
                finally:
                    pool.give_back()
                self._raise_interruption()
                return
        self._run(self.plan_address, pointers, None, None)
        self._raise_interruption()

    def _raise_interruption(self) -> None:
        if self._controls:
            native_signals.raise_interruption(int(self._plan.values[words.STATUS]))

    def execute_profiled(self) -> np.ndarray:
        """`execute` with all threads meeting around every command.

        Nanoseconds and runs of each, int64 of shape (commands, 2).
        """
        self.share()
        times = np.zeros((max(len(self._program.commands), 1), 2), np.int64)
        lent = pool.lend(self._active) if self._active > 1 else 0
        try:
            self._run(self._plan.address, self._pointers.address, lent or None, times.ctypes.data)
        finally:
            if lent:
                pool.give_back()
        self._raise_interruption()
        return times[: len(self._program.commands)]

    @property
    def command_threads(self) -> list[int]:
        """How many threads each command had in the latest run."""
        rows = self._commands.values
        return [
            int(n) if k else 1 for n, k in zip(rows[:, words.THREADS], rows[:, words.KERNEL], strict=True)
        ]

    def execute_stepwise(self, before: Callback | None, after: Callback | None) -> None:
        """`execute` on the calling thread, with callbacks around every command."""
        self._share(1)
        plan = self._plan.values
        count, plan[words.COMMAND_COUNT] = int(plan[words.COMMAND_COUNT]), 0
        try:
            # no commands: this only puts the pointers into the argument blocks
            self._run(self._plan.address, self._pointers.address, None, None)
        finally:
            plan[words.COMMAND_COUNT] = count
        index = 0
        while index < len(self._program.commands):
            command, row = self._program.commands[index], self._commands.values[index]
            if command.control is not None:
                flag = command.control.kind == "branch" and ctypes.c_bool.from_address(
                    int(ctypes.c_int64.from_address(int(row[words.ARGS])).value)
                )
                index = self.regions.decide(index, bool(flag and flag.value), self._failed())
                continue
            if before is not None:
                before(index, command, self.array)
            if row[words.EXTENT] > 0:
                kernel = _KERNEL(int(row[words.KERNEL]))
                kernel(int(row[words.ARGS]), 0, int(row[words.EXTENT]), int(row[words.SCRATCH]))
            if after is not None:
                after(index, command, self.array)
            index += 1

    def _failed(self) -> bool:
        status = self._program.status
        return status is not None and bool(self.array(status)[0])

    def array(self, buffer: int) -> np.ndarray:
        """An array over a buffer's memory in the current run.

        The caller holds the lock, and keeps inputs, states and outputs alive.
        """
        shape, dtype = self.shapes[buffer], self._program.buffers[buffer].dtype.numpy
        part = self._program.buffers[buffer].part
        if part is not None:
            start = self._size(part.start)
            start += sum(self._size(step) * self.regions.rounds(loop) for loop, step in part.steps)
            return self.array(part.buffer).reshape(-1)[start : start + prod(shape)].reshape(shape)
        if buffer in self.temp_offsets:
            return array_at(self.slab.memory, self.slab.address + self.temp_offsets[buffer], shape, dtype)
        size = prod(shape) * dtype.itemsize
        if size == 0 or buffer not in self._place:
            return np.empty(shape, dtype)
        address = int(self._pointers.values[self._place[buffer]])
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        return np.ndarray(shape, dtype, memory)


def _packer(words: WordArray, start: int, count: int) -> Callable[..., None]:
    """A function that stores `count` numbers from word `start` on."""
    pack = struct.Struct(f"{count}q").pack_into
    memory: Any = words.values
    offset = 8 * start
    return lambda *numbers: pack(memory, offset, *numbers)
