"""The core that reads operands by addresses: the plain core's bits, for every axis and processor."""

from __future__ import annotations

import functools
import math
from typing import ClassVar

import graphflow as gf
import numpy as np
import pytest
from graphflow import dtypes
from graphflow.compiler.codegen.matmul import Word
from graphflow.compiler.codegen.matmul_gather import Axis, locator, packer
from graphflow.engine import compile_graph
from graphflow.runtime.program import BufferArg, SizeArg

from test_gather import load, positions
from test_matmul_core import DTYPES, EPILOGUE, TARGETS, VARIANTS, Core, P, fenced, view

# Batch, rows or columns, depth: (size, stride) from the slowest to the fastest. Columns run in whole vectors.
WINDOWS: dict[str, tuple[Axis, Axis, Axis]] = {
    "image": (((2, 1500),), ((3, 34), (32, 1)), ((5, 300), (3, 34), (3, 1))),
    "no batch": ((), ((16, 1),), ((7, 3), (2, 16))),
    "deep": (((2, 1), (2, 900)), ((4, 40), (16, 1)), ((70, 11), (3, 40), (3, 1))),
    "many columns": ((), ((40, 50), (48, 1)), ((6, 100), (2, 1))),
    "long table": ((), ((16, 1),), ((90, 3), (100, 1))),
    "turned": ((), ((2, 40), (16, 1)), ((4, 100), (3, -3), (3, -1))),
}
START = 8000  # where the first element is in memory, as strides may be negative


@functools.cache
def memory(dtype: dtypes.DType) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(30000).astype(dtype.numpy)


def matrix(dtype: dtypes.DType, axes: tuple[Axis, Axis, Axis]) -> np.ndarray:
    """The batch of matrices, rows by depth."""
    batch, rows, depth = (positions(axis) for axis in axes)
    at = START + batch.reshape(-1, 1, 1) + rows.reshape(-1, 1) + depth
    return memory(dtype)[at]


class Function:
    """A locator or packer of an operand, with its argument block, as words of a product."""

    kept: ClassVar[list[Function]] = []  # words are addresses of what has to stay

    def __init__(self, make: object, variant: str, dtype: dtypes.DType, side: str, axes: tuple[Axis, ...]):
        made = make(dtype, side, BufferArg(0), *axes, TARGETS[variant])  # type: ignore[operator]
        self.function, self.alive = load(made.symbol, made.text, variant)
        sizes = [arg.value for arg in made.args[1:] if isinstance(arg, SizeArg)]
        self.block = np.array([memory(dtype)[START:].ctypes.data, *sizes], np.int64)
        self.kept.append(self)

    def words(self, side: str) -> dict[Word, object]:
        pack, args = {"a": (Word.PACK_A, Word.PACK_A_ARGS), "b": (Word.PACK_B, Word.PACK_B_ARGS)}[side]
        return {pack: self.function, args: P(self.block.ctypes.data)}


@VARIANTS
@DTYPES
@pytest.mark.parametrize("rows", [1, 19])
@pytest.mark.parametrize("axes", WINDOWS, ids=lambda name: name.replace(" ", "_"))
def test_columns_in_place(variant: str, dtype: dtypes.DType, axes: str, rows: int) -> None:
    b = matrix(dtype, WINDOWS[axes]).swapaxes(1, 2)
    items, k, n = b.shape
    a = np.random.default_rng(2).standard_normal((rows, k)).astype(dtype.numpy)
    wanted = np.zeros((items, rows, n), dtype.numpy)
    Core(dtype, variant)(a, b, wanted)
    words = Function(locator, variant, dtype, "b", WINDOWS[axes]).words("b")
    core = Core(dtype, variant, indirect=True)
    for kind in ("rows", "columns", "scattered"):
        for cuts in ((), (0.3, 0.8)):
            c, whole = zip(*(fenced((rows, n), kind, dtype.numpy) for _ in range(items)), strict=True)
            for item in range(items):
                one = Function(locator, variant, dtype, "b", (((1, 0),), *WINDOWS[axes][1:]))
                one.block[0] += positions(WINDOWS[axes][0]).reshape(-1)[item] * dtype.itemsize
                given = Word.B_COLUMN
                core(a, b[item], c[item], {**one.words("b"), given: P(1)}, cuts)
                assert (c[item] == wanted[item]).all()
                c[item][...] = 7
                assert (whole[item] == 7).all(), "memory outside C was written"
    c = np.zeros_like(wanted)
    core(a, b, c, {**words, Word.B_COLUMN: P(1)}, (0.5,))
    assert (c == wanted).all()


@VARIANTS
@DTYPES
@pytest.mark.parametrize("columns", [6, 64])
@pytest.mark.parametrize("axes", WINDOWS, ids=lambda name: name.replace(" ", "_"))
def test_rows_in_place(variant: str, dtype: dtypes.DType, axes: str, columns: int) -> None:
    a = matrix(dtype, WINDOWS[axes])
    items, m, k = a.shape
    words = Function(locator, variant, dtype, "a", WINDOWS[axes]).words("a")
    right = np.random.default_rng(2).standard_normal((columns, k)).astype(dtype.numpy)
    for b in (right.T, np.ascontiguousarray(right.T)):
        wanted = np.zeros((items, m, columns), dtype.numpy)
        Core(dtype, variant)(a, b, wanted)
        for cuts in ((), (0.3, 0.8)):
            for c in (np.zeros_like(wanted), np.zeros((items, columns, m), dtype.numpy).swapaxes(1, 2)):
                Core(dtype, variant, indirect=True)(a, b, c, words, cuts)
                assert (c == wanted).all()


@VARIANTS
@DTYPES
def test_both_in_place_and_a_packed_one(variant: str, dtype: dtypes.DType) -> None:
    left, right = WINDOWS["no batch"], ((), ((2, 40), (32, 1)), ((2, 100), (7, 20)))
    a, b = matrix(dtype, left)[0], matrix(dtype, right)[0].T
    wanted = np.zeros((16, 64), dtype.numpy)
    Core(dtype, variant)(a, b, wanted)
    words = Function(locator, variant, dtype, "a", left).words("a")
    for make, column in ((locator, 1), (packer, 0)):
        c = np.zeros_like(wanted)
        other = Function(make, variant, dtype, "b", right).words("b")
        given = {**words, **other, Word.B_COLUMN: P(column)}
        Core(dtype, variant, indirect=True)(a, b, c, given)
        assert (c == wanted).all()


@VARIANTS
@pytest.mark.parametrize("axes", ["image", "deep"])
def test_epilogue(variant: str, axes: str) -> None:
    dtype = dtypes.float32
    b = matrix(dtype, WINDOWS[axes]).swapaxes(1, 2)
    items, k, n = b.shape
    a = np.random.default_rng(2).standard_normal((1030, k)).astype(dtype.numpy)
    wanted, c = np.zeros((2, items, 1030, n), dtype.numpy)
    Core(dtype, variant)(a, b, wanted)

    def epilogue(args: int, batch: int, m0: int, m1: int, n0: int, n1: int, tile: int, ld: int) -> None:
        c[batch, m0:m1, n0:n1] += view(tile, (m1 - m0, ld), dtype)[:, : n1 - n0] + 1

    function = EPILOGUE(epilogue)
    words = Function(locator, variant, dtype, "b", WINDOWS[axes]).words("b")
    given = {**words, Word.B_COLUMN: P(1), Word.EPILOGUE: function}
    Core(dtype, variant, indirect=True)(a, b, c, given, (0.2, 0.7))
    assert (c == wanted + 1).all()


@VARIANTS
@pytest.mark.parametrize("columns", [3, 16, 70])
@pytest.mark.parametrize("axes", ["image", "deep", "many columns"])
def test_epilogue_of_what_is_turned(variant: str, axes: str, columns: int) -> None:
    dtype = dtypes.float32
    a = matrix(dtype, WINDOWS[axes])
    items, m, k = a.shape
    b = np.random.default_rng(2).standard_normal((k, columns)).astype(dtype.numpy)
    wanted = np.zeros((items, m, columns), dtype.numpy)
    Core(dtype, variant)(a, b, wanted)
    c = np.zeros((items, columns, m), dtype.numpy)

    def epilogue(args: int, batch: int, n0: int, n1: int, m0: int, m1: int, tile: int, ld: int) -> None:
        c[batch, n0:n1, m0:m1] += view(tile, (n1 - n0, ld), dtype)[:, : m1 - m0] + 1

    function = EPILOGUE(epilogue)
    words = {**Function(locator, variant, dtype, "a", WINDOWS[axes]).words("a"), Word.EPILOGUE: function}
    Core(dtype, variant, indirect=True)(a, b, c.swapaxes(1, 2), words, (0.2, 0.7))
    assert (c.swapaxes(1, 2) == wanted + 1).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("image", "window", "how"),
    [
        ((2, 3, 16, 32), (5, 3, 3, 3), {"padding": 1}),
        ((3, 4, 18, 34), (8, 4, 3, 3), {}),
        ((2, 20, 9, 17), (40, 20, 2, 2), {}),
        ((2, 4, 20, 36), (6, 2, 5, 5), {"groups": 2}),
        ((2, 3, 20, 36), (6, 3, 3, 3), {"dilation": 2}),
        ((2, 3, 33, 33), (6, 3, 3, 3), {"stride": 2}),
        ((1, 1, 16, 16), (1, 1, 3, 3), {"padding": 1}),
        ((2, 60, 17, 16), (3, 60, 3, 1), {}),
        ((2, 3, 9, 14), (17, 3, 3, 3), {"padding": 1}),
        ((3, 5, 21, 23), (32, 5, 3, 3), {"stride": 2, "padding": 1}),
        ((2, 70, 8, 8), (20, 70, 3, 3), {"padding": 1}),
        ((2, 36, 13, 17), (40, 18, 3, 3), {"groups": 2}),
        ((2, 3, 13, 16), (5, 3, 2, 2), {"stride": 3}),
        ((2, 3, 12, 17), (4, 3, 1, 1), {"stride": 2}),
        ((2, 3, 11, 12), (4, 3, 5, 4), {"stride": 2, "padding": 3}),
    ],
    ids=str,
)
def test_convolutions(
    dtype: str, image: tuple[int, ...], window: tuple[int, ...], how: dict[str, int]
) -> None:
    """Results and both gradients are those of the evaluator, and in place where that is the rule."""
    random = np.random.default_rng(3)
    x, w = (gf.tensor(random.standard_normal(shape), dtype=getattr(gf, dtype)) for shape in (image, window))

    bias = gf.tensor(random.standard_normal(window[0]), dtype=getattr(gf, dtype))

    def everything(x: gf.Tensor, w: gf.Tensor) -> tuple[gf.Tensor, ...]:
        found, pull = gf.vjp(lambda x, w: gf.nn.functional.conv2d(x, w, **how), x, w)
        followed = gf.relu(gf.nn.functional.conv2d(x * 2, w, bias, **how))
        return (found, followed, *pull(gf.sin(found)))

    compiled = gf.compile(everything)
    for one, other in zip(compiled(x, w), everything(x, w), strict=True):
        bound = 10 * np.finfo(dtype).eps * math.sqrt(w.numel()) * abs(other.numpy()).max()
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=bound)


def test_overlapping_windows_are_read_in_place() -> None:
    def everything(x: gf.Tensor, w: gf.Tensor) -> tuple[gf.Tensor, ...]:
        found, pull = gf.vjp(lambda x, w: gf.nn.functional.conv2d(x, w, padding=1), x, w)
        return (found, *pull(found))

    both = ["indirect_matmul_float32", "matmul_float32"]
    for width, names in ((32, both[:1]), (30, both)):
        graph = gf.trace(everything, gf.TensorSpec(("n", 2, 9, width)), gf.TensorSpec((4, 2, 3, 3)))
        kernels = compile_graph(graph).executor.program.kernels
        assert sorted(k.name for k in kernels if "matmul_float32" in k.name) == names
