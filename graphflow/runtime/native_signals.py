"""The machine code by which a loop hears of signals: Ctrl-C ends one that would never end by itself."""

from __future__ import annotations

import ctypes
import platform

from llvmlite import binding

from graphflow.runtime.words import word

#: In a run's status word: a signal's handler raised the exception whose address is in the word behind.
INTERRUPTED = -1
# Between two looks, about a tenth of a second: in nanoseconds, or in cycles where reading those is cheap.
_WAIT = 100_000_000
_CYCLES = 1 << 28
_FUNCTIONS = (
    "PyGILState_Ensure", "PyGILState_Release", "PyErr_CheckSignals", "PyErr_Fetch",
    "PyErr_NormalizeException", "Py_DecRef",
)  # fmt: skip


def signals_source() -> str:
    """The LLVM IR of ``listen(status, last)``, which the thread that called the run executes now and then.

    `last` is when it looked last, 0 for not yet. Where a handler raises, `status` says so, and the run ends
    as after a bad index. Python runs handlers in its main thread only.
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    clock, wait = ("@llvm.readcyclecounter", _CYCLES) if x86 else ("@now", _WAIT)
    return f"""
declare i64 @llvm.readcyclecounter()
declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare i32 @PyErr_CheckSignals()
declare void @PyErr_Fetch(ptr, ptr, ptr)
declare void @PyErr_NormalizeException(ptr, ptr, ptr)
declare void @Py_DecRef(ptr)

define internal void @listen(ptr %status, ptr %last) {{
entry:
  %now = call i64 {clock}()
  %before = load i64, ptr %last
  %first = icmp eq i64 %before, 0
  br i1 %first, label %note, label %later
note:
  store i64 %now, ptr %last
  ret void
later:
  %gap = sub i64 %now, %before
  %due = icmp ugt i64 %gap, {wait}
  br i1 %due, label %ask, label %done
ask:
  store i64 %now, ptr %last
  call void @ask(ptr %status)
  br label %done
done:
  ret void
}}

define internal void @ask(ptr %status) noinline {{
entry:
  %kind = alloca ptr
  %value = alloca ptr
  %trace = alloca ptr
  %state = call i32 @PyGILState_Ensure()
  %answer = call i32 @PyErr_CheckSignals()
  %fine = icmp eq i32 %answer, 0
  br i1 %fine, label %done, label %raised
raised:
  call void @PyErr_Fetch(ptr %kind, ptr %value, ptr %trace)
  call void @PyErr_NormalizeException(ptr %kind, ptr %value, ptr %trace)
  %had.kind = load ptr, ptr %kind
  %had.value = load ptr, ptr %value
  %had.trace = load ptr, ptr %trace
  call void @Py_DecRef(ptr %had.kind)
  call void @Py_DecRef(ptr %had.trace)
  {word("exception.at", "status", 1)}
  store ptr %had.value, ptr %exception.at
  store atomic i64 {INTERRUPTED}, ptr %status release, align 8
  br label %done
done:
  call void @PyGILState_Release(i32 %state)
  ret void
}}
"""


def provide() -> None:
    """Makes Python's functions known to the linker."""
    for name in _FUNCTIONS:
        function = getattr(ctypes.pythonapi, name)
        binding.add_symbol(name, int(ctypes.cast(function, ctypes.c_void_p).value or 0))


def raise_interruption(status: int) -> None:
    """Raises what a signal's handler raised during a run with a status word at this address, if one did."""
    words = (ctypes.c_int64 * 2).from_address(status)
    if words[0] == INTERRUPTED:
        exception = ctypes.cast(words[1], ctypes.py_object)
        words[0] = words[1] = 0
        raised: BaseException = exception.value
        ctypes.pythonapi.Py_DecRef(exception)
        raise raised


__all__ = ["INTERRUPTED", "provide", "raise_interruption", "signals_source"]
