"""The matrix-product core: one kernel per element type and processor, for every product and convolution.

``C[batch, m, n] = epilogue(sum over k of A[batch, m, k] * B[batch, k, n])`` for any sizes, strides and up to
six batch dimensions, all of them words of the argument block (`Word`, `arguments`), so that the machine code
is made once per machine. The scheme is Goto and van de Geijn's, "Anatomy of High-Performance Matrix
Multiplication" (2008): a block of B is packed into panels that stay in the second-level cache, and
micro-kernels keep tiles of C in registers. Here a strip of A is usually read where it lies, and edges have
micro-kernels of their own size.

The kernel has the usual signature ``void kernel(int64* args, int64 lo, int64 hi, uint8* scratch)``; `units`
is the extent of its range and `scratch_bytes` its scratch. Every element of C is summed in an order that
depends on K alone: in runs of equal length of at most `DEPTH` words of four bytes, each run from its first k
to its last, and the runs one after another. So a result depends neither on how a range is cut, nor on the
batch size, nor on neighbours.

Two kinds of functions can take part, by address, with an argument block of their own:

``void pack(int64* args, int64 batch, int64 row0, int64 rows, int64 k0, int64 depth, T* panel, int64 width)``
    Where an operand comes from, rows of B's panels being columns of B. For A: fills ``panel[r * width + k]``
    with element (row0 + r, k0 + k), for r < rows and k < depth; called once per unit of rows and run of k.
    For B: fills ``panel[k * width + r]`` with element (k0 + k, row0 + r), where rows <= width; called once
    per panel and run of k, with `width` a multiple of the vector length (`Blocking.lanes`), at most
    `Blocking.panel`. Elements of B's panel with rows <= r < width are never seen in a result, but what is
    left in memory may be denormal numbers, which are slow, so they should be set to 0.
    `codegen.matmul_gather` makes packers for operands that several dimensions are merged in.

``void epilogue(int64* args, int64 batch, int64 m0, int64 m1, int64 n0, int64 n1, T* tile, int64 ld)``
    What becomes of a finished tile. ``tile[(m - m0) * ld + (n - n0)]`` holds the complete sum for m0 <= m <
    m1 and n0 <= n < n1. It may overwrite the tile. Each element of C is in exactly one call's tile. A tile
    has the full width of what the thread computes together, some hundreds of columns, and at least as many
    rows as the register tile.

`batch` counts batch items in row-major order. Both are called by the threads that share the range, each on
its part.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import llvmlite.ir as ll

from graphflow.compiler.codegen import (
    digests,
    llvm,
    matmul_driver,
    matmul_indirect,
    matmul_micro,
    matmul_pack,
    matmul_scratch,
    matmul_thin,
)
from graphflow.compiler.codegen.matmul_arguments import MAX_BATCH_DIMS, Word, arguments
from graphflow.compiler.codegen.matmul_blocking import DEPTH, Blocking, blocking
from graphflow.compiler.codegen.matmul_ir import SCALARS
from graphflow.dims import Dim, ceil_div, product
from graphflow.dtypes import DType
from graphflow.runtime.program import Arg, SizeArg

__all__ = [
    "DEPTH",
    "MAX_BATCH_DIMS",
    "Blocking",
    "Word",
    "arguments",
    "blocking",
    "object_code",
    "scratch_bound",
    "scratch_bytes",
    "sizes",
    "symbol",
    "text",
    "units",
]


def symbol(
    dtype: DType, target: llvm.Target | None = None, indirect: bool = False, plan: Blocking | None = None
) -> str:
    """The name of the kernel for float32 or float64 on `target` (default: this machine).

    `indirect` is the kernel of `codegen.matmul_indirect`, `plan` its blocking (default: `blocking`). The name
    ends in a digest of all that decides the kernel's code; the code, which takes long to write, isn't needed.
    KeyError for other dtypes.
    """
    target = target or llvm.host()
    scalar = SCALARS[dtype.name]
    digest = _digest(target, scalar.name, plan or blocking(scalar.size, target))
    return f"gf_{'indirect' if indirect else 'matmul'}_{scalar.name}_{digest[:16]}"


@functools.cache
def _digest(target: llvm.Target, name: str, plan: Blocking) -> str:
    return digests.of_modules(("llvm", *digests.beside("matmul")), target.description, name, plan)


def text(
    dtype: DType, target: llvm.Target | None = None, indirect: bool = False, plan: Blocking | None = None
) -> str:
    """The kernel's LLVM IR."""
    target = target or llvm.host()
    scalar = SCALARS[dtype.name]
    plan = plan or blocking(scalar.size, target)
    module = ll.Module(name="matmul", context=ll.Context())
    name = symbol(dtype, target, indirect, plan)
    pack_b = matmul_pack.define_wide(module, scalar, plan)
    if indirect:
        matmul_indirect.define(module, name, scalar, plan, pack_b)
        return str(module)
    parts = matmul_driver.Parts(
        micro=matmul_micro.define_all(module, scalar, plan),
        pack_a=matmul_pack.define_narrow(module, scalar, plan),
        pack_b=pack_b,
        stream=matmul_thin.define_streams(module, scalar, plan),
        turn=matmul_thin.define_turns(module, scalar, plan),
    )
    matmul_driver.define(module, name, scalar, plan, parts)
    return str(module)


def object_code(
    dtype: DType, target: llvm.Target | None = None, indirect: bool = False, plan: Blocking | None = None
) -> tuple[str, bytes]:
    """The kernel's symbol and its object file. Takes about a second; callers cache it under the symbol."""
    target = target or llvm.host()
    code = llvm.emit([text(dtype, target, indirect, plan)], target)
    return symbol(dtype, target, indirect, plan), code


def units(
    dtype: DType,
    m: int | Dim,
    n: int | Dim,
    batch: tuple[int | Dim, ...] = (),
    target: llvm.Target | None = None,
    plan: Blocking | None = None,
) -> int | Dim:
    """Extent of the kernel's range: how many pieces of C can be computed apart. It may be cut anywhere."""
    plan = plan or blocking(dtype.itemsize, target or llvm.host())
    return product(batch) * ceil_div(m, plan.unit_rows) * ceil_div(n, plan.unit_columns)


def scratch_bytes(
    dtype: DType,
    words: Sequence[int | Dim],
    target: llvm.Target | None = None,
    indirect: bool = False,
    plan: Blocking | None = None,
) -> int | Dim:
    """Bytes of scratch that each thread needs for the product of an argument block.

    Instead of addresses `words` may have any number, but 0 where there is none.
    """
    plan = plan or blocking(dtype.itemsize, target or llvm.host())
    if indirect:
        return matmul_scratch.indirect_bytes(plan, dtype.itemsize, words)
    return dtype.itemsize * matmul_scratch.scratch_elements(plan, words)


def scratch_bound(dtype: DType, depth: int | Dim) -> int:
    """Bytes of scratch that are enough for every product of contiguous matrices up to so deep."""
    return dtype.itemsize * matmul_scratch.scratch_bound(blocking(dtype.itemsize, llvm.host()), depth)


def sizes(block: Sequence[Arg]) -> tuple[int | Dim, ...]:
    """The words of a block for `scratch_bytes`, before addresses are known."""
    return tuple(arg.value if isinstance(arg, SizeArg) else 1 for arg in block)
