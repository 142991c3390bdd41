"""Object files made callable in this process.

Every group of objects that is loaded together gets one MCJIT engine. (Twenty small objects take 1 ms this
way, and 4 ms as ORC libraries.) An object that is already in memory is not loaded again. An engine, and with
it the code of its objects, goes when the last `Code` that came out of it goes.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
import struct
import sys
import weakref
from collections.abc import Iterable

from llvmlite import binding

from graphflow.errors import CompileError
from graphflow.runtime.locks import ForkLock

llvm_ready = False


def initialize_llvm() -> None:
    """Registers this machine's code generator; cheap to call again."""
    global llvm_ready
    if not llvm_ready:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        # kernels call it by name, and the interpreter may have it only in a scope of its own
        with contextlib.suppress(RuntimeError):
            binding.load_library_permanently("libm.so.6" if sys.platform == "linux" else "libm.dylib")
        llvm_ready = True


def host_target(level: int = 2) -> binding.TargetMachine:
    """A target machine for position independent code that any CPU of this architecture can run, optimised at
    a level from 0 to 3.
    """
    initialize_llvm()
    target = binding.Target.from_triple(binding.get_process_triple())
    return target.create_target_machine(opt=level, reloc="pic", codemodel="small")


_ELF_MACHINES = {"x86_64": 62, "amd64": 62, "aarch64": 183, "arm64": 183}


def looks_loadable(object_code: bytes) -> bool:
    """Whether bytes start like a 64-bit relocatable object of this machine, and aren't cut off.

    An ELF file has its table of sections at its end, so that a lost end is seen. Of Mach-O only the start is
    checked.
    """
    if sys.platform == "darwin":
        return object_code[:4] == b"\xcf\xfa\xed\xfe"
    # System V ABI, figure 4-3: type and machine; offset of the section headers; their size and number
    if len(object_code) < 64 or object_code[:6] != b"\x7fELF\x02\x01":
        return False
    kind, machine = struct.unpack_from("<HH", object_code, 16)
    (sections,) = struct.unpack_from("<Q", object_code, 40)
    size, count = struct.unpack_from("<HH", object_code, 58)
    expected = _ELF_MACHINES.get(platform.machine().lower(), machine)
    return bool(kind == 1 and machine == expected and 64 <= sections <= len(object_code) - size * count)


class _Group:
    """An engine and the objects in it."""

    def __init__(self) -> None:
        module = binding.parse_assembly("")
        # on ARM the sections of an object must lie near each other, which llvmlite's memory manager sees to
        near = platform.machine().lower() in ("aarch64", "arm64")
        self.engine = binding.create_mcjit_compiler(module, host_target(), near)
        self.symbols: set[str] = set()

    def add(self, symbol: str, object_code: bytes) -> int:
        # LLVM ends the process when it is given anything else
        if not looks_loadable(object_code):
            raise CompileError(f"the machine code of {symbol!r} is not a whole object file for this machine")
        self.engine.add_object_file(binding.ObjectFileRef.from_data(object_code))
        address = int(self.engine.get_function_address(symbol))
        if not address:
            raise CompileError(f"the object file for {symbol!r} does not define it")
        self.symbols.add(symbol)
        return address


class Code:
    """One loaded function. Its machine code stays in memory as long as this object does."""

    __slots__ = ("__weakref__", "_group", "address")

    def __init__(self, address: int, group: _Group):
        self.address, self._group = address, group


_loaded: weakref.WeakValueDictionary[tuple[str, str], Code] = weakref.WeakValueDictionary()
_lock = ForkLock()


def load(objects: Iterable[tuple[str, str, bytes]]) -> list[Code]:
    """Loads ``(digest, symbol, object code)`` triples; what is in memory under the same digest and symbol is
    shared.

    Each function's signature is ``void(int64* args, int64 lo, int64 hi, uint8* scratch)``. Symbols that an
    object doesn't define are looked up in this process (libm). CompileError when an object isn't one, or
    lacks its symbol.
    """
    groups: list[_Group] = []
    found: list[Code] = []
    with _lock:
        for digest, symbol, object_code in objects:
            code = _loaded.get((digest, symbol))
            if code is None:
                # an engine has one name space: two versions of one symbol need two engines
                group = next((g for g in groups if symbol not in g.symbols), None)
                if group is None:
                    group = _Group()
                    groups.append(group)
                code = Code(group.add(symbol, object_code), group)
                _loaded[(digest, symbol)] = code
            found.append(code)
    return found


def load_forever(object_code: bytes, symbols: Iterable[str]) -> dict[str, int]:
    """Loads an object whose code must never go (threads may be in it at exit); addresses by symbol."""
    group = _Group()
    addresses = {}
    first, *others = symbols
    addresses[first] = group.add(first, object_code)
    for symbol in others:
        addresses[symbol] = int(group.engine.get_function_address(symbol))
    # one reference too many: not even the clearing of modules at interpreter exit unmaps it
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
    return addresses


def loaded_count() -> int:
    """How many functions are in memory now."""
    return len(_loaded)
