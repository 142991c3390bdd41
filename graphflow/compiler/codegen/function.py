"""A kernel's function in Python text, and the digest under which its machine code is kept.

Nothing here needs Numba: a program whose kernels are in the cache is ready without importing it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import sys
import textwrap
from dataclasses import dataclass

from graphflow.compiler.codegen import digests, llvm, vecmath

KERNEL_TRAILING = (("lo", "i64"), ("hi", "i64"), ("scratch", "u8*"))


@dataclass(frozen=True)
class Function:
    """A kernel in Python text.

    `params` are (name, type) pairs, in order in the argument block, one 64-bit word each; `trailing` follows
    the block in the C signature. Types are ``i64`` and pointers such as ``f32*`` (see `vecmath_scalars`; a
    bool is a byte). With `noalias`, no two pointer params overlap.
    """

    name: str
    params: tuple[tuple[str, str], ...]
    trailing: tuple[tuple[str, str], ...] = KERNEL_TRAILING
    body: str = ""
    noalias: bool = True

    @property
    def source(self) -> str:
        """The Python function whose text Numba reads."""
        names = ", ".join(name for name, _ in (*self.params, *self.trailing))
        body = textwrap.dedent(self.body).strip("\n") or "pass"
        return f"def {self.name}({names}):\n{textwrap.indent(body, '    ')}\n"


#: Modules that take part in making a kernel's machine code; kernels that call the matrix core fill its block.
PARTS = ("function", *digests.beside("numba"), "llvm", "matmul_arguments", *vecmath.SOURCES)


def versions() -> tuple[str | None, str, str]:
    """Those of what reads and translates kernels, and the processor."""
    numba = importlib.metadata.version("numba")  # not asked of Numba itself, which takes long to import
    return sys.implementation.cache_tag, numba, llvm.host().description


@functools.cache
def fingerprint() -> str:
    """A digest of everything but the kernel that decides what machine code comes out.

    That is the versions of what reads and translates it, the processor, and the modules that take part, the
    core's argument block among them, which kernels that call the core fill in.
    """
    return digests.of_modules(PARTS, *versions())


def symbol(function: Function) -> str:
    """The name that `function` is exported under: its own and a digest of all that decides its code."""
    fields = (function.params, function.trailing, function.source, function.noalias, fingerprint())
    return f"{function.name}_{hashlib.sha256(repr(fields).encode()).hexdigest()[:16]}"
