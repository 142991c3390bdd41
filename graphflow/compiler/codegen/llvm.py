"""LLVM: the machine that code is made for, the optimisation pipeline, and object files.

Nothing here knows Numba or graphs. `emit` takes LLVM IR as text and gives back a relocatable object file.
Several threads may do so at once: every module has an LLVM context of its own, as LLVM asks for, and the
two calls that take the time don't hold llvmlite's lock.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import llvmlite
import llvmlite.binding as llvm
from llvmlite.binding import ffi

from graphflow.errors import CompileError

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()


@dataclass(frozen=True)
class Target:
    """A processor and how code is made for it.

    `features` is LLVM's comma-separated list; `vector_bits` the width of the widest vector registers in use.
    """

    triple: str
    cpu: str
    features: str
    vector_bits: int

    @property
    def description(self) -> str:
        """Everything here that decides what machine code comes out, as one line, for digests."""
        version = ".".join(map(str, llvm.llvm_version_info))
        return f"{self.triple} {self.cpu} {self.features} llvmlite-{llvmlite.__version__} llvm-{version}"

    def lanes(self, itemsize: int) -> int:
        """Elements of `itemsize` bytes that one vector register holds."""
        return self.vector_bits // (8 * itemsize)

    def machine(self) -> llvm.TargetMachine:
        """A new LLVM target machine (position-independent code, optimisation level 3)."""
        made = llvm.Target.from_triple(self.triple).create_target_machine(
            cpu=self.cpu, features=self.features, opt=3, reloc="pic", codemodel="default"
        )
        return made


def _vector_bits(features: dict[str, bool]) -> int:
    if features.get("avx512f"):
        return 512
    if features.get("avx"):
        return 256
    return 128


@functools.cache
def host() -> Target:
    """This machine's processor, with every feature it has and its full vector width.

    LLVM's cost model keeps to 256 bits on most processors that have AVX-512, because early ones lowered
    their clock for wider vectors; fused loops gain more from the width than they lose, so the preference
    is taken out.
    """
    features = dict(llvm.get_host_cpu_features())
    triple = llvm.get_process_triple()
    bits = _vector_bits(features)
    if features.get("avx512f"):
        features["prefer-256-bit"] = False
    flat = ",".join(("+" if on else "-") + name for name, on in sorted(features.items()))
    return Target(triple, llvm.get_host_cpu_name(), flat, bits)


@functools.cache
def data_layout(target: Target) -> str:
    """How `target` lays out types in memory, in LLVM's notation; IR text should state it."""
    return str(target.machine().target_data)


def _module(ir_texts: list[str], target: Target, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    context = llvm.create_context()
    try:
        module = llvm.parse_assembly(ir_texts[0], context)
        for text in ir_texts[1:]:
            module.link_in(llvm.parse_assembly(text, context))
        module.triple = target.triple
        module.data_layout = data_layout(target)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM rejected generated code; this is a bug in graphflow: {error}") from None
    return module


def _without_lock(name: str) -> Callable[..., Any]:
    """A function of llvmlite's library without the wrapper that lets only one thread into the library."""
    wrapped = getattr(ffi.lib, name)
    return getattr(wrapped, "_cfn", wrapped)  # type: ignore[no-any-return]


def _optimise(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> None:
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_interleaving = True
    options.loop_vectorization = True
    options.slp_vectorization = True
    options.loop_unrolling = True
    builder = llvm.create_pass_builder(machine, options)
    _without_lock("LLVMPY_RunNewModulePassManager")(builder.getModulePassManager(), module, builder)


def _emitted(module: llvm.ModuleRef, machine: llvm.TargetMachine) -> bytes:
    with ffi.OutputString() as reason:
        buffer = _without_lock("LLVMPY_TargetMachineEmitToMemory")(machine, module, True, reason)
        if not buffer:
            raise CompileError(f"LLVM can't emit generated code; this is a bug in graphflow: {reason}")
    try:
        start, size = ffi.lib.LLVMPY_GetBufferStart(buffer), ffi.lib.LLVMPY_GetBufferSize(buffer)
        return ctypes.string_at(start, size)
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


def _optimised(ir_texts: list[str], target: Target | None) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    target = target or host()
    machine = target.machine()
    module = _module(ir_texts, target, machine)
    _optimise(module, machine)
    return module, machine


def emit(ir_texts: list[str], target: Target | None = None) -> bytes:
    """Link IR texts into one module, optimise it at level 3, and return its object file.

    `target` defaults to this machine. Texts that LLVM can't parse, link or verify raise CompileError.
    """
    module, machine = _optimised(ir_texts, target)
    return _emitted(module, machine)


def optimised_ir(ir_texts: list[str], target: Target | None = None) -> str:
    """The IR that `emit` makes machine code from, to look at."""
    return str(_optimised(ir_texts, target)[0])


def assembly(ir_texts: list[str], target: Target | None = None) -> str:
    """The machine code that `emit` makes, as assembly text, to look at."""
    module, machine = _optimised(ir_texts, target)
    text: str = machine.emit_assembly(module)
    return text


def undefined_symbols(object_code: bytes) -> set[str]:
    """Names that an ELF object file refers to and doesn't define."""
    sections = llvm.ObjectFileRef.from_data(object_code).sections()
    data = {section.name(): section.data() for section in sections if section.name()}
    rows, names = data.get(b".symtab", b""), data.get(b".strtab", b"")
    found = set()
    for at in range(24, len(rows), 24):
        name = int.from_bytes(rows[at : at + 4], "little")
        section_index = int.from_bytes(rows[at + 6 : at + 8], "little")
        if section_index == 0 and name:
            found.add(names[name : names.index(b"\0", name)].decode())
    return found


class Loaded:
    """Object code in this process, for tests and tools; programs have the runtime's loader."""

    def __init__(self, object_code: bytes) -> None:
        """Load the object file and resolve what it refers to in this process."""
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), host().machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(object_code))
        self._engine.finalize_object()

    def address(self, symbol: str) -> int:
        """Where `symbol` is, while this object lives."""
        found: int = self._engine.get_function_address(symbol)
        return found
