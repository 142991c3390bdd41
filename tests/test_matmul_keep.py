"""Operands packed before their products: the bits of products that pack for themselves."""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from graphflow import dtypes
from graphflow.compiler.codegen import llvm, matmul, matmul_keep
from graphflow.compiler.codegen.matmul import Word
from graphflow.compiler.codegen.matmul_arguments import PANELS, VECTORS
from graphflow.compiler.codegen.matmul_gather import Axis, locator, packer
from graphflow.dims import evaluate

from test_gather import positions
from test_matmul_core import DTYPES, GUARD, INPUTS, KERNEL, TARGETS, VARIANTS, Core, P, laid_out
from test_matmul_indirect import START, Function, memory


@functools.cache
def load(dtype: dtypes.DType, variant: str) -> tuple[Callable[..., None], object]:
    """The kernel that packs, for one processor, and what keeps its machine code alive."""
    symbol, code = matmul_keep.object_code(dtype, TARGETS[variant])
    loaded = llvm.Loaded(code)
    return KERNEL(loaded.address(symbol)), loaded


def words_of(core: Core, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> list[int]:
    """The block of a product; operands have the batch dimensions that they differ along, or of stride 0."""
    size = core.dtype.itemsize
    words = [0] * (Word.BATCH + 4 * (c.ndim - 2))
    words[Word.A : Word.A_ROW] = [*(x.ctypes.data for x in (a, b, c)), c.shape[-2], c.shape[-1], a.shape[-1]]
    words[Word.A_ROW : Word.PACK_A] = [s // size for x in (a, b, c) for s in x.strides[-2:]]
    words[Word.BATCH_DIMS] = c.ndim - 2
    for d, extent in enumerate(c.shape[:-2]):
        first = Word.BATCH + 4 * d
        words[first : first + 4] = [extent, *(x.strides[d] // size for x in (a, b, c))]
    return words


def fill(words: list[int], functions: dict[Word, object]) -> None:
    """Puts functions and their blocks into a block."""
    for word, function in functions.items():
        words[word] = ctypes.cast(function, P).value or 0  # type: ignore[arg-type]


def call(
    kernel: Callable[..., None], words: list[int], extent: int, scratch: int, cuts: tuple[float, ...]
) -> None:
    """Runs a kernel in pieces, with scratch of exactly the promised size."""
    block = np.array(words, np.int64)
    space = np.full(scratch + 2 * GUARD + 64, 0xFF, np.uint8)
    start = (-(space.ctypes.data + GUARD)) % 64 + GUARD
    edges = [0, *sorted(int(cut * extent) for cut in cuts), extent]
    for low, high in itertools.pairwise(edges):
        kernel(block.ctypes.data, low, high, space.ctypes.data + start)
    assert (space[:start] == 0xFF).all() and (space[start + scratch :] == 0xFF).all()


def kept(
    core: Core, variant: str, words: list[int], n: int, k: int, count: int, how: int, cuts: tuple[float, ...]
) -> np.ndarray:
    """The copy of each of `count` B, with a fence behind; `words` are of a product whose C is the copy."""
    size = evaluate(matmul_keep.columns(core.dtype, n, core.target), {}) * k
    copy = np.full(size * count + 64, np.nan, core.dtype.numpy)
    words = [*words]
    words[Word.C], words[Word.KEPT] = copy.ctypes.data, how
    words[Word.BATCH_DIMS] = int(count > 1)
    if count > 1:
        words[Word.BATCH + 3] = size
    extent = evaluate(matmul_keep.units(core.dtype, n, how, core.target), {}) * count
    call(load(core.dtype, variant)[0], words, extent, 0, cuts)
    assert np.isnan(copy[size * count :]).all() and not np.isnan(copy[: size * count]).any()
    return copy


def check(
    dtype: dtypes.DType, variant: str, sizes: tuple[int, int, int], layout: str = "rows", items: int = 1,
    same: bool = True, cuts: tuple[float, ...] = (),
) -> None:  # fmt: skip
    """A product with a kept B has the bits of the same product without; `same`: one B for all items."""
    m, n, k = sizes
    core = Core(dtype, variant)
    a = core.array((items, m, k), 1)
    matrices = [laid_out(core.array((k, n), 2 + i), layout) for i in range(1 if same else items)]
    b = np.stack(matrices) if len(matrices) > 1 else matrices[0][None]
    shape = (items, m, n)
    expected, result = (np.full(shape, np.nan, dtype.numpy) for _ in range(2))
    core(a, b, expected)
    wide = np.broadcast_to(b, (items, k, n))
    words = words_of(core, a, wide, result)
    count = 1 if same else items
    copy = kept(core, variant, words, n, k, count, PANELS, cuts)
    words[Word.B], words[Word.KEPT] = copy.ctypes.data, PANELS
    words[Word.BATCH + 2] = 0 if same else (copy.size - 64) // items
    extent = evaluate(matmul.units(dtype, m, n, (items,), core.target), {})
    scratch = evaluate(matmul.scratch_bytes(dtype, words, core.target), {})
    call(core.kernel, words, extent, scratch, cuts)
    np.testing.assert_array_equal(result, expected)


@VARIANTS
@DTYPES
@pytest.mark.parametrize("k", [0, 1, 3, 16, 64, 257, 513, 1100])
def test_depths(dtype: dtypes.DType, variant: str, k: int) -> None:
    for m, n in ((1, 20), (9, 100), (33, 7)):
        check(dtype, variant, (m, n, k))


@VARIANTS
@DTYPES
@pytest.mark.parametrize("layout", INPUTS)
def test_layouts(dtype: dtypes.DType, variant: str, layout: str) -> None:
    for n in (1, 5, 17, 96, 130, 200, 330):
        check(dtype, variant, (19, n, 40), layout, cuts=(0.3, 0.7))
    check(dtype, variant, (270, 65, 530), layout)


@VARIANTS
@DTYPES
@pytest.mark.parametrize("same", [True, False])
def test_batches(dtype: dtypes.DType, variant: str, same: bool) -> None:
    for cuts in ((), (0.5,), (0.1, 0.35, 0.8)):
        check(dtype, variant, (40, 150, 33), "columns", 3, same, cuts)
    check(dtype, variant, (0, 150, 33), "columns", 3, same)


# Batch, rows or columns, depth: (size, stride) from the slowest to the fastest.
WINDOWS: dict[str, tuple[Axis, Axis, Axis]] = {
    "image": (((2, 1500),), ((3, 34), (32, 1)), ((5, 300), (3, 34), (3, 1))),
    "ragged": (((3, 900),), ((5, 40), (7, 1)), ((60, 11), (3, 40), (3, 1))),
}


@VARIANTS
@DTYPES
@pytest.mark.parametrize("axes", WINDOWS)
@pytest.mark.parametrize("columns", [1, 16, 37, 130])
def test_the_indirect_core_takes_vectors(dtype: dtypes.DType, variant: str, axes: str, columns: int) -> None:
    core = Core(dtype, variant, indirect=True)
    batch, rows, depth = WINDOWS[axes]
    items, m, k = (positions(axis).size for axis in (batch, rows, depth))
    located = Function(locator, variant, dtype, "a", WINDOWS[axes]).words("a")
    b = laid_out(core.array((k, columns), 3), "columns")
    expected, result = (np.full((items, m, columns), np.nan, dtype.numpy) for _ in range(2))
    nothing = np.broadcast_to(memory(dtype)[:1], (items, m, k))
    for target, how in ((expected, 0), (result, VECTORS)):
        words = words_of(core, nothing, np.broadcast_to(b, (items, k, columns)), target)
        fill(words, located)
        if how:
            copy = kept(core, variant, words, columns, k, 1, how, (0.4,))
            words[Word.B], words[Word.KEPT] = copy.ctypes.data, how
        extent = evaluate(matmul.units(dtype, m, columns, (items,), core.target), {})
        scratch = evaluate(matmul.scratch_bytes(dtype, words, core.target, indirect=True), {})
        call(core.kernel, words, extent, scratch, (0.3, 0.6))
    np.testing.assert_array_equal(result, expected)


@VARIANTS
@DTYPES
def test_a_becomes_rows(dtype: dtypes.DType, variant: str) -> None:
    core = Core(dtype, variant)
    axes: tuple[Axis, Axis, Axis] = ((), ((70, 27),), ((9, 2000), (3, -3), (3, -1)))
    _, rows, depth = (positions(axis) for axis in axes)
    m, k = rows.size, depth.size
    given = Function(packer, variant, dtype, "a", axes).words("a")
    copy = np.full((m + 1, k), np.nan, dtype.numpy)
    words = words_of(core, copy, copy, copy[:m])
    fill(words, given)
    words[Word.M : Word.A_ROW] = [m, 1, k]
    extent = evaluate(matmul_keep.units(dtype, m, 0, core.target), {})
    call(load(dtype, variant)[0], words, extent, 0, (0.5,))
    np.testing.assert_array_equal(copy[:m], memory(dtype)[START + rows[:, None] + depth])
    assert np.isnan(copy[m]).all()
