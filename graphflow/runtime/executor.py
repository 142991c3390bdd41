"""Executor: a Program made ready to run, and what checks and passes on a caller's arrays.

An Executor loads the machine code. An Instance (see there) has what depends on sizes. A run is one native
call on an Instance, without Python and without the GIL.
"""

from __future__ import annotations

import ctypes
import operator
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from graphflow.dims import Dim
from graphflow.errors import DTypeError, ShapeError
from graphflow.runtime import loader
from graphflow.runtime.buffers import address_of
from graphflow.runtime.instance import Callback, Instance, Slab
from graphflow.runtime.layout import Layout, evaluator
from graphflow.runtime.locks import ForkLock
from graphflow.runtime.program import Program
from graphflow.runtime.validate import validate

# Assignments of the symbols whose instances are kept, and shapes of inputs that are remembered with theirs.
INSTANCES_KEPT = 16
_SHAPES_KEPT = 64

_from_buffer: Callable[[np.ndarray], ctypes.c_char] = ctypes.c_char.from_buffer  # type: ignore[assignment]
_addressof = ctypes.addressof


@dataclass(frozen=True)
class CommandTime:
    """What one command took in one run of its program, in which it ran `runs` times (a loop's body more than
    once), and the bytes and FLOPs of all of these by the compiler's estimate.
    """

    label: str
    kernel: str
    nanoseconds: int
    bytes: int
    flops: int
    runs: int = 1
    threads: int = 1


class Profiled(NamedTuple):
    """The outputs of a profiled run, what its commands took, and the sizes it had."""

    outputs: list[np.ndarray]
    times: list[CommandTime]
    sizes: dict[str, int]


@dataclass(frozen=True, eq=False)
class _Kept:
    """What is kept for one assignment of the symbols.

    An instance, and another one for each caller that came while all were running; and by input, what the fast
    path compares: dtype, shape, and the address bits that must be zero.
    """

    key: tuple[int, ...]
    values: dict[str, int]
    inputs: list[tuple[np.dtype, tuple[int, ...], int]]
    states: list[tuple[int, ...]]
    instances: list[Instance] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _States:
    """State arrays that were checked, their addresses, and of those that need copying the original, the copy
    and whether it is written.
    """

    arrays: tuple[np.ndarray, ...]
    addresses: list[int]
    copies: list[tuple[np.ndarray, np.ndarray, bool]]


class Executor:
    """Runs a Program. Any number of Python threads may use one Executor, or several, at the same time.

    `unwritten` are the positions of states that no kernel writes; those may be read-only.
    """

    def __init__(self, program: Program, unwritten: Collection[int] = ()):
        validate(program)
        self.program = program
        self._unwritten = frozenset(unwritten)
        self._codes = loader.load((k.digest, k.symbol, k.object_code) for k in program.kernels)
        self._layout = Layout(program, [code.address for code in self._codes])
        self._kept: OrderedDict[tuple[int, ...], _Kept] = OrderedDict()
        self._by_shapes: dict[tuple[tuple[int, ...], ...], _Kept] = {}
        self._latest: _Kept | None = None
        self._slabs: list[Slab] = []
        self._states: _States | None = None
        self._symbolic_states = any(
            isinstance(size, Dim) for index in program.states for size in program.buffers[index].shape
        )
        self._lock = ForkLock()

    @property
    def kept_assignments(self) -> list[dict[str, int]]:
        """The assignments of the symbols that have an Instance now, the one used last at the end."""
        return [kept.values for kept in self._kept.values()]

    def instance(self, values: Mapping[str, int]) -> Instance:
        """The Instance for an assignment of all symbols; those of the last 16 assignments are kept.

        ShapeError when a symbol has no value, or a buffer's size would be negative. The Executor must stay
        alive as long as the Instance is used: it holds the machine code.
        """
        return self._keep(values).instances[0]

    def run(
        self,
        inputs: Sequence[np.ndarray],
        states: Sequence[np.ndarray] = (),
        symbols: Mapping[str, int] | None = None,
    ) -> list[np.ndarray]:
        """One run: the outputs, in fresh arrays. States are updated in place.

        Inputs and states must have the dtypes and shapes that the program says (DTypeError, ShapeError, which
        name the argument). Inputs may be strided, misaligned or read-only; what kernels can't read directly
        is copied. States must be writable; strided ones are copied in and back. `symbols` may be left out
        where every symbol is a whole dimension of an input or state. States are checked once where the same
        tuple is passed again.
        """
        kept, pointers, bound, _alive = self._arguments(inputs, states, symbols)
        instance = self._claim(kept)
        try:
            results = instance.start(pointers, bound.addresses)
            instance.execute()
        finally:
            instance.lock.release()
        if bound.copies:
            _copy_back(bound)
        return results

    def prepared(
        self, inputs: Sequence[np.ndarray], states: tuple[np.ndarray, ...]
    ) -> tuple[Instance, list[int]] | None:
        """The instance for arrays like these, and the states' addresses; None where an array needs a copy."""
        kept, _, bound, used = self._arguments(inputs, states, None)
        if bound.copies or any(a is not b for a, b in zip(inputs, used, strict=True)):
            return None
        instance = self._claim(kept)
        try:
            instance.share()
        finally:
            instance.lock.release()
        return (instance, bound.addresses) if instance in kept.instances else None

    def profile(
        self,
        inputs: Sequence[np.ndarray],
        states: Sequence[np.ndarray] = (),
        symbols: Mapping[str, int] | None = None,
    ) -> Profiled:
        """`run`, with what each command took.

        Commands don't overlap here, so that their sum may exceed the time of a plain run.
        """
        kept, pointers, bound, _alive = self._arguments(inputs, states, symbols)
        instance = self._claim(kept)
        try:
            results = instance.start(pointers, bound.addresses)
            taken = instance.execute_profiled().tolist()
            threads = instance.command_threads
        finally:
            instance.lock.release()
        _copy_back(bound)
        size = evaluator(kept.values)
        name = self.program.kernel_name
        times = [
            CommandTime(c.label, name(c), t, size(c.bytes) * runs, size(c.flops) * runs, runs, n)
            for c, (t, runs), n in zip(self.program.commands, taken, threads, strict=True)
        ]
        return Profiled(results, times, kept.values)

    def run_stepwise(
        self,
        inputs: Sequence[np.ndarray],
        states: Sequence[np.ndarray] = (),
        symbols: Mapping[str, int] | None = None,
        *,
        before: Callback | None = None,
        after: Callback | None = None,
    ) -> list[np.ndarray]:
        """`run`, one command at a time on the calling thread, with callbacks before and after each.

        A callback gets the command's index, the Command, and a function from a buffer's index to an array
        over its memory. A temp buffer's array has a meaning only from its first to its last command: its
        memory is shared.
        """
        kept, pointers, bound, _alive = self._arguments(inputs, states, symbols)
        # an instance of its own: this lasts long, and a callback may run this very Executor
        instance = Instance(self.program, self._layout, self._codes, kept.values, Slab)
        results = instance.start(pointers, bound.addresses)
        instance.execute_stepwise(before, after)
        _copy_back(bound)
        return results

    def _arguments(
        self, inputs: Sequence[np.ndarray], states: Sequence[np.ndarray], symbols: Mapping[str, int] | None
    ) -> tuple[_Kept, list[int], _States, Sequence[np.ndarray]]:
        """Checked: what is kept for these sizes, input addresses, states, and what must outlive the run."""
        bound = self._states
        if bound is None or bound.arrays is not states:
            bound = self._bind_states(states)
        if self._symbolic_states:
            return self._arguments_slowly(inputs, bound, symbols)
        try:
            if symbols is None:
                kept = self._by_shapes[tuple([array.shape for array in inputs])]
                if kept is not self._latest:
                    self._touch(kept)
            else:
                kept = self._keep(symbols)
            pointers = []
            for array, (dtype, shape, mask) in zip(inputs, kept.inputs, strict=True):
                address = _addressof(_from_buffer(array))
                if array.dtype is not dtype or array.shape != shape or address & mask:
                    break
                pointers.append(address)
            else:
                return kept, pointers, bound, inputs
        except (KeyError, TypeError, ValueError, BufferError, AttributeError):
            # KeyError: new shapes; the others: an array that is empty, read-only or strided, or isn't one
            pass
        return self._arguments_slowly(inputs, bound, symbols)

    def _arguments_slowly(
        self, inputs: Sequence[np.ndarray], bound: _States, symbols: Mapping[str, int] | None
    ) -> tuple[_Kept, list[int], _States, Sequence[np.ndarray]]:
        program = self.program
        if len(inputs) != len(program.inputs):
            raise TypeError(f"{program.name} takes {len(program.inputs)} input(s), not {len(inputs)}")
        usable = []
        for array, index in zip(inputs, program.inputs, strict=True):
            _check_array(program, index, array)
            usable.append(array if _is_usable(array) else np.array(array, order="C"))
        kept = self._keep(self._infer(inputs, bound.arrays) if symbols is None else symbols)
        self._check_shapes(program.inputs, [shape for _, shape, _ in kept.inputs], inputs, kept)
        self._check_shapes(program.states, kept.states, bound.arrays, kept)
        if symbols is None and not self._symbolic_states:
            if len(self._by_shapes) >= _SHAPES_KEPT:
                self._by_shapes.clear()
            self._by_shapes[tuple([array.shape for array in inputs])] = kept
        return kept, [address_of(array) for array in usable], bound, usable

    def _check_shapes(
        self,
        buffers: Sequence[int],
        expected: Sequence[tuple[int, ...]],
        arrays: Sequence[np.ndarray],
        kept: _Kept,
    ) -> None:
        for index, shape, array in zip(buffers, expected, arrays, strict=True):
            if array.shape != shape:
                buffer = self.program.buffers[index]
                symbolic = f"({', '.join(map(str, buffer.shape))})"
                told = ", ".join(f"{name}={value}" for name, value in kept.values.items())
                where = f", which is {symbolic} with {told}" if told else ""
                raise ShapeError(
                    f"{self.program.name}: {buffer.role} {buffer.name!r} has the shape {array.shape}; "
                    f"it must have {shape}{where}"
                )

    def _infer(self, inputs: Sequence[np.ndarray], states: Sequence[np.ndarray]) -> dict[str, int]:
        """The symbols' values by the dimensions that are plain symbols. Ranks were checked."""
        program = self.program
        values: dict[str, int] = {}
        for index, array in zip((*program.inputs, *program.states), (*inputs, *states), strict=True):
            for dim, size in zip(program.buffers[index].shape, array.shape, strict=True):
                if isinstance(dim, Dim) and str(dim) in program.symbols:
                    values.setdefault(str(dim), size)
        return values

    def _bind_states(self, states: Sequence[np.ndarray]) -> _States:
        """Checks everything about states, but for the shapes of those with symbolic dimensions."""
        program = self.program
        last = self._states
        arrays = states if type(states) is tuple else tuple(states)
        if len(arrays) != len(program.states):
            raise TypeError(f"{program.name} takes {len(program.states)} state(s), not {len(arrays)}")
        if last is not None and all(map(operator.is_, arrays, last.arrays)):
            # the same list of addresses: instances know by it that they have these pointers already
            bound = _States(arrays, last.addresses, [])
            self._states = bound
            return bound
        addresses = []
        copies = []
        for number, (array, index) in enumerate(zip(arrays, program.states, strict=True)):
            _check_array(program, index, array)
            buffer = program.buffers[index]
            written = number not in self._unwritten
            if written and not array.flags.writeable:
                raise ValueError(f"{program.name}: state {buffer.name!r} is read-only")
            if array.shape != buffer.shape and not self._symbolic_states:
                problem = f"has the shape {array.shape}; it must have {buffer.shape}"
                raise ShapeError(f"{program.name}: state {buffer.name!r} {problem}")
            if not _is_usable(array):
                copy = np.array(array, order="C")
                copies.append((array, copy, written))
                array = copy
            addresses.append(address_of(array))
        bound = _States(arrays, addresses, copies)
        if not copies:
            self._states = bound
        return bound

    def _keep(self, values: Mapping[str, int]) -> _Kept:
        """What is kept for an assignment of the symbols, made when new; it becomes the one used last."""
        try:
            key = tuple([values[name] for name in self.program.symbols])
        except KeyError as error:
            message = f"no dimension of an input is {error.args[0]!r}; pass its value in symbols="
            raise ShapeError(f"{self.program.name}: {message}") from None
        with self._lock:
            kept = self._kept.get(key)
            if kept is not None:
                self._latest = kept
                self._kept.move_to_end(key)
                return kept
            program = self.program
            numbers = dict(zip(program.symbols, (operator.index(v) for v in key), strict=True))
            size = evaluator(numbers)
            shapes = [tuple(size(s) for s in buffer.shape) for buffer in program.buffers]
            inputs = []
            for index in program.inputs:
                dtype = program.buffers[index].dtype.numpy
                inputs.append((dtype, shapes[index], dtype.alignment - 1))
            kept = _Kept(key, numbers, inputs, [shapes[i] for i in program.states])
            kept.instances.append(self._make(numbers, 0))
            self._kept[key] = self._latest = kept
            while len(self._kept) > INSTANCES_KEPT:
                self._forget(next(iter(self._kept)))
            return kept

    def _touch(self, kept: _Kept) -> None:
        """Makes an assignment of the symbols the one used last."""
        with self._lock:
            if kept.key in self._kept:
                self._kept.move_to_end(kept.key)
                self._latest = kept

    def _make(self, values: dict[str, int], number: int) -> Instance:
        """An instance on the slab of this number, which grows where needed; the caller holds the lock."""

        def slab(size: int) -> Slab:
            if number == len(self._slabs):
                self._slabs.append(Slab(size))
            elif self._slabs[number].size < size:
                # what lies on the smaller slab is dropped with it: two would take more memory than their
                # program
                self._slabs[number] = Slab(size)
                for key in list(self._kept):
                    self._forget(key)
            return self._slabs[number]

        return Instance(self.program, self._layout, self._codes, values, slab)

    def _forget(self, key: tuple[int, ...]) -> None:
        kept = self._kept.pop(key)
        for instance in kept.instances:
            instance.dropped = True
        for shapes in [s for s, k in self._by_shapes.items() if k is kept]:
            del self._by_shapes[shapes]

    def _claim(self, kept: _Kept) -> Instance:
        """An instance whose lock this caller now holds: one that isn't running, or another one."""
        for instance in kept.instances:
            if instance.lock.acquire(False):
                return instance
        with self._lock:
            instance = self._make(kept.values, len(kept.instances))
            if not instance.lock.acquire(False):
                # other sizes' callers have that slab too
                instance = Instance(self.program, self._layout, self._codes, kept.values, Slab)
                instance.lock.acquire()
            else:
                kept.instances.append(instance)
        return instance


def _check_array(program: Program, index: int, array: np.ndarray) -> None:
    """Whether an argument is an array of its buffer's dtype and rank."""
    buffer = program.buffers[index]
    what = f"{program.name}: {buffer.role} {buffer.name!r}"
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{what} must be a numpy.ndarray, not {type(array).__name__}")
    if array.dtype != buffer.dtype.numpy:
        raise DTypeError(f"{what} has the dtype {array.dtype}; it must have {buffer.dtype}")
    if array.ndim != len(buffer.shape):
        raise ShapeError(f"{what} has the shape {array.shape}; it must have {len(buffer.shape)} dimension(s)")


def _is_usable(array: np.ndarray) -> bool:
    """Whether kernels can work on an array where it is: C-contiguous, and elements aligned to their size."""
    return bool(array.flags.c_contiguous and array.flags.aligned)


def _copy_back(bound: _States) -> None:
    for original, copy, written in bound.copies:
        if written:
            original[...] = copy
