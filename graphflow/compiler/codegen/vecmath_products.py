"""Matrix products inside kernels: a call of the matrix core from the text of a body.

``multiply(core, work, a, a_row, a_k, b, b_k, b_column, c, c_row, m, n, k)`` stores the product of the
(m, k) matrix a and the (k, n) matrix b into c, whose rows are contiguous and overlap neither of them. `core`
points to three words: the core's address, and the rows and columns of its units. `work` is the core's scratch
memory.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ll

from graphflow.compiler.codegen.matmul_arguments import Word
from graphflow.compiler.codegen.vecmath_scalars import (
    FLOATS,
    FUNCTIONS,
    I64,
    SCALARS,
    Literal,
    Operation,
    Pointer,
    Type,
    convert,
)

_WORD, _BYTES = ll.IntType(64), ll.IntType(8).as_pointer()
_KERNEL = ll.FunctionType(ll.VoidType(), [_WORD.as_pointer(), _WORD, _WORD, _BYTES])
#: Where in the core's block the operands behind `core` and `work` go.
_PLACES: tuple[int, ...] = (
    Word.A, Word.A_ROW, Word.A_DEPTH, Word.B, Word.B_DEPTH, Word.B_COLUMN, Word.C, Word.C_ROW,
    Word.M, Word.N, Word.K,
)  # fmt: skip
_ADDRESSES = (Word.A, Word.B, Word.C)


def _resolve(args: tuple[Type, ...]) -> Type | None:
    if len(args) != len(_PLACES) + 2 or args[:2] != (Pointer(I64), Pointer(SCALARS["u8"])):
        return None
    matrices = {arg for arg, place in zip(args[2:], _PLACES, strict=True) if place in _ADDRESSES}
    sizes = [arg for arg, place in zip(args[2:], _PLACES, strict=True) if place not in _ADDRESSES]
    if len(matrices) != 1 or not matrices <= {Pointer(scalar) for scalar in FLOATS}:
        return None
    return I64 if all(arg == I64 or isinstance(arg, Literal) for arg in sizes) else None


def _emit(b: ll.IRBuilder, types: tuple[Any, ...], values: list[ll.Value]) -> ll.Value:
    one, none = ll.Constant(_WORD, 1), ll.Constant(_WORD, 0)
    words: dict[int, ll.Value] = dict.fromkeys(range(Word.BATCH), none)
    words[Word.C_COLUMN] = one
    for place, type_, value in zip(_PLACES, types[2:], values[2:], strict=True):
        words[place] = b.ptrtoint(value, _WORD) if place in _ADDRESSES else convert(b, value, type_, I64)
    with b.goto_entry_block():
        block = b.alloca(_WORD, Word.BATCH)
    for number, word in words.items():
        b.store(word, b.gep(block, [ll.Constant(_WORD, number)], inbounds=True))
    core, rows, columns = (b.load(b.gep(values[0], [ll.Constant(_WORD, at)])) for at in range(3))
    units = [
        b.udiv(b.sub(b.add(size, unit), one), unit)
        for size, unit in ((words[Word.M], rows), (words[Word.N], columns))
    ]
    b.call(b.inttoptr(core, _KERNEL.as_pointer()), [block, none, b.mul(*units), values[1]])
    return none


FUNCTIONS["multiply"] = Operation("multiply", _resolve, _emit)
