"""Direct calls: builtin functions that take a compiled function's arguments and give its result, without
Python in between.

`make` writes a record of one kind of call, described by a `Call`, and wraps it with the machine code of
``direct_native`` as a builtin function. It gives NotImplemented for every call that isn't of that kind. Where
the interpreter's objects aren't laid out as that code expects, there are no direct calls.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import llvmlite
import numpy as np
from llvmlite import binding

from graphflow.runtime import cache, direct_native, loader, native
from graphflow.runtime import direct_words as dw
from graphflow.runtime.buffers import OutputPool, WordArray
from graphflow.runtime.instance import Instance
from graphflow.runtime.locks import ForkLock

# A run that is estimated to take less (ns) keeps the global interpreter lock: others wait for it no longer
# than for a few lines of Python.
SHORT_NS = 20_000
# Outputs of so many bytes are taken from NumPy, which keeps small pieces at hand; larger ones from a pool.
_SMALL_BYTES = 1024
_FASTCALL = 0x80 | 0x2  # METH_FASTCALL | METH_KEYWORDS in methodobject.h
_NEW = 65  # Py_tp_new in typeslots.h
_FUNCTIONS = (
    "Py_IncRef", "Py_DecRef", "PyDict_GetItemWithError", "PyErr_Occurred", "PyErr_Fetch", "PyErr_Restore",
    "PyObject_GetAttr", "PyObject_CallNoArgs", "PyObject_CallOneArg", "PyTuple_GetItem", "PyList_New",
    "PyList_SetItem", "PyNumber_Add", "PyIter_Next", "PyLong_FromVoidPtr", "PyEval_SaveThread",
    "PyEval_RestoreThread",
)  # fmt: skip
_NEW_ARRAY = 94  # PyArray_NewFromDescr in NumPy's C API, whose numbers never change


@dataclass(frozen=True)
class Watch:
    """Something that has to be as it was, the very object: ``there``.

    The content of a ``cell``, an ``item`` of a dictionary, an ``attribute`` of an object, the attribute
    behind a ``slot``, a ``member`` of a function, such as its code, or the ``result`` of calling an object.
    ``place`` is the key or name, if there is one.
    """

    kind: str
    of: Any
    place: Any
    there: object


@dataclass(frozen=True)
class Argument:
    """An argument of a call: what was passed, and its array, if it has one, with its number among the inputs;
    of a tensor also whether it requires a gradient.
    """

    given: Any
    array: np.ndarray | None = None
    number: int | None = None
    flag: bool = False


@dataclass(frozen=True)
class Handles:
    """The tensors that calls make: a ``fresh`` one on an ``array``, whose ``storage`` counts its ``births``.

    The last three are names of attributes, the others of objects.
    """

    fresh: Any
    births: Any
    array: str
    storage: str
    requires_grad: str
    version: str
    born: str


@dataclass(frozen=True)
class Call:
    """One kind of call: ``arguments``, of which the last ones have these ``names``.

    ``states`` are addresses in ``memory``, which has to stay while a call runs, whatever becomes of the
    states meanwhile, and ``changing`` the C-contiguous arrays among them that the run writes;
    ``locks`` are taken around it, besides the instance's. ``versions`` are storages. ``finish`` makes the
    result of the list of outputs and arguments; None where it is the only output as a tensor. ``fail``
    raises the error that ``status`` tells of. ``calls`` counts calls, ``used`` gets the number of the last.
    The watches hold for `threads` threads.
    """

    instance: Instance
    arguments: Sequence[Argument]
    names: tuple[str, ...]
    watches: Sequence[Watch]
    states: Sequence[int]
    memory: Sequence[np.ndarray]
    changing: Sequence[np.ndarray]
    locks: Sequence[ForkLock]
    versions: Sequence[object]
    finish: Callable[[list[np.ndarray]], Any] | None
    status: np.ndarray | None
    fail: Callable[[], Any]
    calls: ctypes.c_int64
    used: ctypes.c_int64
    threads: int


class _Method(ctypes.Structure):
    """PyMethodDef of methodobject.h."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


class _Machine:
    """The loaded code, for one kind of handles, and what every record holds."""

    def __init__(self, handles: Handles):
        storage = getattr(handles.fresh, handles.storage)
        self._handle = self._class_of(handles.fresh, (handles.array, handles.storage))
        self._storage = self._class_of(storage, (handles.born,))
        self.tensor: type = type(handles.fresh)
        self.births = handles.births
        offset = _offset
        at = dw.Offsets(
            offset(self.tensor, handles.array),
            offset(self.tensor, handles.storage),
            offset(self.tensor, handles.requires_grad),
            offset(type(storage), handles.version),
            offset(type(storage), handles.born),
            offset(ForkLock, "acquire"),
            offset(ForkLock, "release"),
        )
        doc = b"One kind of call of a compiled function; NotImplemented for others."
        self._method = _Method(b"direct_call", _load(at), _FASTCALL, doc)
        wrapped = (ctypes.POINTER(_Method), ctypes.py_object, ctypes.c_void_p)
        self._wrap = _python("PyCFunction_NewEx", ctypes.py_object, *wrapped)

    @staticmethod
    def _class_of(sample: Any, others: Sequence[str]) -> tuple[WordArray, list[Any]]:
        """Words that say how to make an object like `sample`, without the attributes `others`."""
        kind = type(sample)
        names = [n for c in kind.__mro__ for n in c.__dict__.get("__slots__", ()) if not n.startswith("__")]
        pairs = [(_offset(kind, n), getattr(sample, n)) for n in names if n not in others]
        rows = WordArray(len(pairs), 2)
        for row, (at, value) in zip(rows.values, pairs, strict=True):
            row[:] = at, id(value)
        words = WordArray(dw.CLASS_WORDS)
        new = _python("PyType_GetSlot", ctypes.c_void_p, ctypes.py_object, ctypes.c_int)(kind, _NEW)
        words.values[:] = id(kind), new, id(()), len(pairs), rows.address
        return words, [kind, (), rows, words, *(value for _, value in pairs)]

    def wrap(self, call: Call) -> Callable[..., Any]:
        """The builtin function of a record."""
        record = _Record(self, call)
        keep = (record.words.values, record.kept)
        return self._wrap(ctypes.byref(self._method), keep, None)  # type: ignore[no-any-return]


class _Record:
    """The words of one call, and everything that they name."""

    def __init__(self, machine: _Machine, call: Call):
        # not the arguments, which may be all the memory there is: what is named of them is kept one by one
        self.kept: list[Any] = [replace(call, arguments=()), machine]
        self.words = WordArray(dw.RECORD_WORDS)
        instance, values = call.instance, self.words.values
        inputs, states = instance.input_count, len(call.states)
        outputs = instance.outputs
        self._fill(dw.ARGUMENT_COUNT, [self._argument(machine, a) for a in call.arguments], dw.ARGUMENT_WORDS)
        values[dw.POSITIONAL] = len(call.arguments) - len(call.names)
        values[dw.NAMES] = self._id(tuple(map(sys.intern, call.names))) if call.names else 0
        self._fill(dw.WATCH_COUNT, [self._watch(w) for w in call.watches], dw.WATCH_WORDS)
        ranges = [(a.ctypes.data, a.ctypes.data + a.nbytes) for a in call.changing if a.size]
        self._fill(dw.RANGE_COUNT, ranges, dw.RANGE_WORDS)
        self._fill(dw.LOCK_COUNT, [[self._id(lock)] for lock in (*call.locks, instance.lock)], 1)
        rows = [self._output(pool, inputs + states + i) for i, pool in enumerate(outputs)]
        self._fill(dw.OUTPUT_COUNT, rows, dw.OUTPUT_WORDS)
        self._fill(dw.VERSION_COUNT, [[self._id(storage)] for storage in call.versions], 1)
        pointers = [*[0] * inputs, *call.states, *[0] * len(outputs)]
        self._fill(dw.POINTER_COUNT, [[p] for p in pointers], 1)
        if call.status is not None:
            values[dw.FAILED], values[dw.FAIL] = call.status.ctypes.data, self._id(call.fail)
        values[dw.RUN_PLAN], values[dw.EXECUTE] = instance.plan_address, self._id(instance.execute)
        values[dw.IS_SHORT] = instance.work < SHORT_NS
        # of loops no number is right: `execute` takes them, which raises what Ctrl-C raised in one
        values[dw.THREADS] = call.threads if instance.work < math.inf else 0
        values[dw.FINISH] = self._id(call.finish) if call.finish is not None else 0
        values[dw.HANDLE], values[dw.STORAGE] = machine._handle[0].address, machine._storage[0].address
        values[dw.BIRTHS], values[dw.ARRAY_CLASS] = self._id(machine.births), self._id(np.ndarray)
        values[dw.CALLS], values[dw.USED] = ctypes.addressof(call.calls), ctypes.addressof(call.used)
        constants = {dw.DECLINED: NotImplemented, dw.FALSE: False, dw.TRUE: True, dw.ONE: 1}
        for word, constant in constants.items():
            values[word] = self._id(constant)

    def _id(self, value: object) -> int:
        """An object's address; the record keeps the object."""
        self.kept.append(value)
        return id(value)

    def _fill(self, word: int, rows: Sequence[Sequence[int]], width: int) -> None:
        """Writes rows, their number and, in the word behind, their address."""
        array = WordArray(len(rows), width)
        for place, row in zip(array.values, rows, strict=True):
            place[:] = row
        self.kept.append(array)
        self.words.values[word : word + 2] = len(rows), array.address

    def _sizes(self, shape: tuple[int, ...]) -> int:
        array = WordArray(len(shape))
        array.values[: len(shape)] = shape
        self.kept.append(array)
        return array.address

    def _argument(self, machine: _Machine, argument: Argument) -> list[int]:
        given, array = argument.given, argument.array
        kind, expected = dw.ARRAY, 0
        if array is None or argument.number is None:
            return [dw.VALUE, self._id(type(given)), self._id(given), 0, 0, 0, 0, 0]
        if type(given) is float:
            return [dw.NUMBER, self._id(float), 0, 0, 0, 0, 0, argument.number]
        if type(given) is machine.tensor:
            kind, expected = dw.TENSOR, self._id(argument.flag)
        sizes = self._sizes(array.shape)
        layout = [self._id(array.dtype), array.ndim, sizes, array.nbytes, argument.number]
        return [kind, self._id(type(given)), expected, *layout]

    def _watch(self, watch: Watch) -> list[int]:
        there = self._id(watch.there)
        if watch.kind == "cell":
            return [dw.SLOT, self._id(watch.of), dw.CELL_CONTENT, there]
        if watch.kind == "slot":
            return [dw.SLOT, self._id(watch.of), _offset(type(watch.of), watch.place), there]
        if watch.kind == "member":
            nothing = watch.there is None  # which functions have as a null
            return [dw.SLOT, self._id(watch.of), _members()[watch.place], 0 if nothing else there]
        if watch.kind == "result":
            return [dw.RESULT, self._id(watch.of), 0, there]
        kinds = {"item": dw.ITEM, "attribute": dw.ATTRIBUTE}
        return [kinds[watch.kind], self._id(watch.of), self._id(sys.intern(watch.place)), there]

    def _output(self, pool: OutputPool, to: int) -> list[int]:
        shape, dtype = pool.shape, pool.dtype
        small = prod(shape) * dtype.itemsize <= _SMALL_BYTES
        take = 0 if small else self._id(pool.take)
        return [self._id(dtype), len(shape), self._sizes(shape), take, to]


def is_plain(array: np.ndarray) -> bool:
    """Whether kernels can read an array where it is."""
    return type(array) is np.ndarray and bool(array.flags.c_contiguous and array.flags.aligned)


def _python(name: str, result: Any, *arguments: Any) -> Any:
    """A function of Python's C API."""
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


class _Member(ctypes.Structure):
    """PyMemberDescrObject of descrobject.h, up to its PyMemberDef's address."""

    _fields_ = (
        ("head", ctypes.c_void_p * 2),
        ("common", ctypes.c_void_p * 3),
        ("member", ctypes.POINTER(ctypes.c_void_p * 3)),
    )


def _offset(kind: type, name: str) -> int:
    """Where objects of a class with ``__slots__`` have one of them, in bytes."""
    descriptor = getattr(kind, name)
    if not isinstance(descriptor, types.MemberDescriptorType):
        raise TypeError(f"{name} is no slot of {kind.__name__}")
    # PyMemberDef: name, type, offset
    return int(_Member.from_address(id(descriptor)).member.contents[2] or 0)


@functools.cache
def _members() -> dict[str, int]:
    """Where functions have what can be replaced of them, in bytes, found by looking at one."""

    def sample(a: int = 1, *, b: int = 2) -> int:
        return a + b

    words = (ctypes.c_size_t * (types.FunctionType.__basicsize__ // 8)).from_address(id(sample))
    places = {word: 8 * number for number, word in enumerate(words)}
    held = {name: id(getattr(sample, name)) for name in ("__code__", "__defaults__", "__kwdefaults__")}
    return {name: places[value] for name, value in held.items() if value in places}


def _load(at: dw.Offsets) -> int:
    """The address of ``gf_call``."""
    loader.initialize_llvm()
    for name in _FUNCTIONS:
        binding.add_symbol(name, _address(getattr(ctypes.pythonapi, name)))
    binding.add_symbol("gf_run_plan", _address(native.native().run))
    binding.add_symbol("gf_new_array", _numpy_function(_NEW_ARRAY))
    text = direct_native.source(at)
    identity = "\n".join(("direct", llvmlite.__version__, binding.get_process_triple(), text))
    digest = hashlib.sha256(identity.encode()).hexdigest()
    # its time goes into what it calls: passes take 60 ms and save 3 %
    emit = functools.partial(native.emit, text, quickly=True)
    code, _ = cache.compile(digest, lambda: (emit(), {"kind": "native"}), counted=False)
    return loader.load_forever(code, ("gf_call",))["gf_call"]


def _address(function: Any) -> int:
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


def _numpy_function(number: int) -> int:
    """The address of a function of NumPy's C API."""
    get = _python("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
    names = ("numpy._core._multiarray_umath", "numpy.core._multiarray_umath")  # the latter before NumPy 2
    module: Any = next(sys.modules[name] for name in names if name in sys.modules)
    table = get(module._ARRAY_API, None)
    return int(ctypes.c_void_p.from_address(table + 8 * number).value or 0)


def _is_laid_out() -> bool:
    """Whether objects are as `direct_words` has it: probes each field that is read."""
    if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    if hasattr(sys, "gettotalrefcount") or not getattr(sys, "_is_gil_enabled", lambda: True)():
        return False  # debug builds and those without the lock have longer headers
    array = np.zeros((3, 5), np.float32)
    cell, number, pair, dtype = types.CellType(array), 0.625, (array, 1), array.dtype
    word, short = ctypes.c_int64.from_address, ctypes.c_int32.from_address
    sizes = word(id(array) + dw.ARRAY_SIZES).value
    if sizes == 0:
        return False
    flags = short(id(array) + dw.FLAGS).value
    return (
        word(id(array) + dw.CLASS_OF).value == id(np.ndarray)
        and word(id(pair) + dw.TUPLE_ITEMS).value == id(array)
        and word(id(pair) + dw.TUPLE_SIZE).value == 2
        and word(id(cell) + dw.CELL_CONTENT).value == id(array)
        and ctypes.c_double.from_address(id(number) + dw.FLOAT_VALUE).value == number
        and word(id(array) + dw.DATA).value == array.ctypes.data
        and short(id(array) + dw.ARRAY_RANK).value == 2
        and (word(sizes).value, word(sizes + 8).value) == (3, 5)
        and word(id(array) + dw.ARRAY_DTYPE).value == id(dtype)
        and flags & dw.IN_PLACE == dw.IN_PLACE
        and len(_members()) == 3
    )


_machines: dict[type, _Machine | None] = {}
_lock = ForkLock()


def make(handles: Handles, call: Call) -> Callable[..., Any] | None:
    """A builtin function for calls of one kind; None where there can't be one.

    The caller answers for it that such a call needs nothing but what `call` says.
    """
    kind = type(handles.fresh)
    with _lock:
        if kind not in _machines:
            _machines[kind] = _Machine(handles) if _is_laid_out() else None
        machine = _machines[kind]
    return None if machine is None else machine.wrap(call)


__all__ = ["Argument", "Call", "Handles", "Watch", "is_plain", "make"]
