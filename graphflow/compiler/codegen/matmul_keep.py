"""Packs a whole operand before the products that read it, so that none of them packs it again.

A kept B is what the core would pack for itself, for any cut of its range: each unit's columns are dealt
evenly to panels, and the panel of columns [start, start + width) has its element (k, n) at ``start * K + k *
width + n - start``, where `width` is a multiple of the vector length; for the indirect core each vector of
columns is a panel. A kept A is the matrix itself, row by row, which both cores read as it lies.

The kernel has the usual signature, and the argument block of a product (`matmul_arguments`) with the copy as
C and its strides along the batch. B is packed if the word KEPT says how, else A, through its function.
"""

from __future__ import annotations

import functools

import llvmlite.ir as ll

from graphflow.compiler.codegen import digests, llvm, matmul_driver, matmul_pack
from graphflow.compiler.codegen.matmul_arguments import PANELS, Word
from graphflow.compiler.codegen.matmul_blocking import Blocking, blocking
from graphflow.compiler.codegen.matmul_driver import PACK
from graphflow.compiler.codegen.matmul_ir import SCALARS, Body, Scalar, const
from graphflow.compiler.codegen.matmul_units import KERNEL, address_of, dealt, word_of
from graphflow.dims import Dim, ceil_div
from graphflow.dtypes import DType

__all__ = ["columns", "object_code", "symbol", "units"]

#: Rows of A that are one unit of the kernel's range.
ROWS = 32


def symbol(dtype: DType, target: llvm.Target | None = None) -> str:
    """The name of the kernel for float32 or float64 on `target` (default: this machine)."""
    target = target or llvm.host()
    scalar = SCALARS[dtype.name]
    return f"gf_keep_{scalar.name}_{_digest(target, scalar.name, blocking(scalar.size, target))[:16]}"


@functools.cache
def _digest(target: llvm.Target, name: str, plan: Blocking) -> str:
    return digests.of_modules(("llvm", *digests.beside("matmul")), target.description, name, plan)


def object_code(dtype: DType, target: llvm.Target | None = None) -> tuple[str, bytes]:
    """The kernel's symbol and its object file."""
    target = target or llvm.host()
    scalar = SCALARS[dtype.name]
    plan = blocking(scalar.size, target)
    module = ll.Module(name="keep", context=ll.Context())
    pack_b = matmul_pack.define_wide(module, scalar, plan)
    _define(module, symbol(dtype, target), scalar, plan, matmul_driver.Parts({}, pack_b, pack_b))
    return symbol(dtype, target), llvm.emit([str(module)], target)


def columns(dtype: DType, n: int | Dim, target: llvm.Target | None = None) -> int | Dim:
    """Columns of a kept B of `n` columns: a whole number of vectors."""
    lanes = blocking(dtype.itemsize, target or llvm.host()).lanes
    return ceil_div(n, lanes) * lanes


def units(dtype: DType, n: int | Dim, kept: int, target: llvm.Target | None = None) -> int | Dim:
    """Extent of the kernel's range for each batch item: `n` columns of B, or rows of A if `kept` is 0."""
    plan = blocking(dtype.itemsize, target or llvm.host())
    return ceil_div(n, {0: ROWS, PANELS: plan.unit_columns}.get(kept, plan.lanes))


def _define(
    module: ll.Module, name: str, scalar: Scalar, blocking: Blocking, parts: matmul_driver.Parts
) -> None:
    function = ll.Function(module, KERNEL, name=name)
    function.attributes.add("nounwind")
    b = Body(function, scalar)
    args, low, high, _ = function.args
    m, n, k, kept = (word_of(b, args, word) for word in (Word.M, Word.N, Word.K, Word.KEPT))
    of_a = b.icmp_signed("==", kept, const(0))
    panels = b.icmp_signed("==", kept, const(PANELS))
    in_n = b.ceil_div(n, b.select(panels, const(blocking.unit_columns), const(blocking.lanes)))
    per_batch = b.max(const(1), b.select(of_a, b.ceil_div(m, const(ROWS)), in_n))
    group = b.select(panels, dealt(b, blocking, n), const(1))
    with b.loop(low, high, const(1)) as unit:
        batch, within = b.udiv(unit.index, per_batch), b.urem(unit.index, per_batch)
        a, right, copy = matmul_driver.batch_item(b, args, batch)
        with b.if_else(of_a) as (then, otherwise):
            with then:
                row = b.mul(within, const(ROWS))
                rows = b.min(const(ROWS), b.sub(m, row))
                own, pack = address_of(b, args, Word.PACK_A_ARGS), address_of(b, args, Word.PACK_A, PACK)
                b.call(pack, [own, batch, row, rows, const(0), k, b.at(copy, b.mul(row, k)), k])
            with otherwise:
                width = b.mul(group, const(blocking.lanes))
                n0 = b.min(n, b.mul(within, width))
                n1 = b.min(n, b.add(n0, width))
                zero, no = const(0), ll.Constant(ll.IntType(1), 0)
                block = matmul_driver.Block(
                    b, blocking, parts, args, batch, zero, m, n0, n1, a, right, copy, no, no, no, group
                )
                run = matmul_driver.Run(zero, m, zero, k, k, copy, zero, copy)
                with matmul_driver.each_panel(block) as bounds:
                    panel = b.at(copy, b.mul(b.add(n0, bounds[0]), k))
                    matmul_driver.pack_panel(block, run, bounds, panel)
    b.ret_void()
