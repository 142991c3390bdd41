"""The argument block of the matrix-product core: its words, and how the compiler fills it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from graphflow.dims import Dim
from graphflow.runtime.program import Arg, BlockArg, BufferArg, FunctionArg, SizeArg

#: Most batch dimensions a block has room for.
MAX_BATCH_DIMS = 6

#: How an operand lies that was packed before the product: as the plain core's panels, or for the indirect one
#: each vector of columns by itself. See ``codegen.matmul_keep``.
PANELS, VECTORS = 1, 2

Function = tuple[FunctionArg, BlockArg]


class Word(IntEnum):
    """Index of each 64-bit word. Strides count elements, of any sign; addresses may be 0 where said."""

    A = 0  # address of A[0, 0, 0]; 0 if pack_a reads elsewhere
    B = 1  # address of B[0, 0, 0]; 0 if pack_b reads elsewhere
    C = 2  # address of C[0, 0, 0]; 0 if the epilogue stores
    M = 3
    N = 4
    K = 5
    A_ROW = 6  # stride of A along m
    A_DEPTH = 7  # stride of A along k
    B_DEPTH = 8  # stride of B along k
    B_COLUMN = 9  # stride of B along n
    C_ROW = 10  # stride of C along m
    C_COLUMN = 11  # stride of C along n
    PACK_A = 12  # function, 0: A is read through its strides
    PACK_A_ARGS = 13
    PACK_B = 14  # function, 0: B is read through its strides
    PACK_B_ARGS = 15
    EPILOGUE = 16  # function, 0: sums are stored into C through its strides
    EPILOGUE_ARGS = 17
    KEPT = 18  # whether B is packed already, and how: 0, PANELS or VECTORS
    ADDEND = 19  # address of what is added to the sums, for [0, 0]; 0: nothing. See `arguments`
    ADDEND_ROW = 20  # its stride along m
    ADDEND_COLUMN = 21  # its stride along n
    BATCH_DIMS = 22  # 0 to MAX_BATCH_DIMS
    BATCH = 23  # outermost dimension first, four words each: size, stride of A, of B, of C


def arguments(
    *,
    m: int | Dim,
    n: int | Dim,
    k: int | Dim,
    a: BufferArg | None = None,
    b: BufferArg | None = None,
    c: BufferArg | None = None,
    a_strides: tuple[int | Dim, int | Dim] = (0, 0),
    b_strides: tuple[int | Dim, int | Dim] = (0, 0),
    c_strides: tuple[int | Dim, int | Dim] = (0, 0),
    batch: Sequence[tuple[int | Dim, int | Dim, int | Dim, int | Dim]] = (),
    pack_a: Function | None = None,
    pack_b: Function | None = None,
    epilogue: Function | None = None,
    addend: tuple[BufferArg, int | Dim, int | Dim] | None = None,
    kept: int = 0,
) -> tuple[Arg, ...]:
    """The block of one product ``C[..., m, n] = epilogue(sum over k of A[..., m, k] * B[..., k, n])``.

    `a_strides` are A's along (m, k), `b_strides` B's along (k, n), `c_strides` C's along (m, n), in elements.
    `batch` has one (size, stride of A, stride of B, stride of C) per batch dimension, outermost first. An
    operand is left out where its function takes its place; `pack_a`, `pack_b` and `epilogue` are (function,
    its own block). `addend` is what complete sums are added to: a buffer, and its strides along m and n. It
    goes with neither an epilogue nor a batch, and not with the indirect core. `kept` says that `b` is packed
    already: its strides along the batch are those of what was packed. ValueError when there are more
    than six batch dimensions or an operand has neither buffer nor function.
    """
    if len(batch) > MAX_BATCH_DIMS:
        raise ValueError(f"a matrix product has at most {MAX_BATCH_DIMS} batch dimensions, not {len(batch)}")
    for name, operand, function in (("A", a, pack_a), ("B", b, pack_b), ("C", c, epilogue)):
        if operand is None and function is None:
            raise ValueError(f"matrix product: {name} has neither a buffer nor a function")
    zero = SizeArg(0)
    sizes = (m, n, k, *a_strides, *b_strides, *c_strides)
    words: list[Arg] = [operand or zero for operand in (a, b, c)]
    words += [SizeArg(size) for size in sizes]
    for function in (pack_a, pack_b, epilogue):
        words += function or (zero, zero)
    words.append(SizeArg(kept))
    words += (zero, zero, zero) if addend is None else (addend[0], *map(SizeArg, addend[1:]))
    words.append(SizeArg(len(batch)))
    words += [SizeArg(word) for dimension in batch for word in dimension]
    return tuple(words)
