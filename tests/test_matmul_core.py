"""The matrix-product core against NumPy in float64: sizes, strides, batches, functions, cuts, processors."""

from __future__ import annotations

import ctypes
import functools
import itertools
from collections.abc import Callable

import llvmlite.binding as binding
import numpy as np
import pytest
from graphflow import dtypes
from graphflow.compiler.codegen import llvm, matmul
from graphflow.compiler.codegen.matmul import Word
from graphflow.dims import Dim, evaluate
from graphflow.runtime.program import BlockArg, BufferArg, FunctionArg, SizeArg

P, N = ctypes.c_void_p, ctypes.c_int64
KERNEL = ctypes.CFUNCTYPE(None, P, N, N, P)
PACK = ctypes.CFUNCTYPE(None, P, N, N, N, N, N, P, N)
EPILOGUE = ctypes.CFUNCTYPE(None, P, N, N, N, N, N, P, N)
CTYPES = {"float32": ctypes.c_float, "float64": ctypes.c_double}
GUARD = 4096
SIZES = [1, 2, 3, 5, 7, 8, 9, 13, 16, 17, 31, 32, 48, 49, 64, 97, 100, 131]
DEPTHS = [0, 1, 2, 3, 7, 8, 15, 16, 17, 33, 64, 100, 256, 257, 511, 512, 513, 1030]


def targets() -> dict[str, llvm.Target]:
    """The processors that code can be made for here and run here."""
    host = llvm.host()
    found = {"host": host}
    features = binding.get_host_cpu_features()
    if host.triple.startswith("x86_64"):
        found["generic"] = llvm.Target(host.triple, "x86-64", "", 128)
        if features.get("avx512f") and features.get("avx2") and features.get("fma"):
            found["avx2"] = llvm.Target(host.triple, "haswell", "", 256)
    return found


TARGETS = targets()
VARIANTS = pytest.mark.parametrize("variant", TARGETS)
DTYPES = pytest.mark.parametrize("dtype", [dtypes.float32, dtypes.float64], ids=str)


@functools.cache
def load(dtype: dtypes.DType, variant: str, indirect: bool = False) -> tuple[Callable[..., None], object]:
    """The core for one processor, ready to call, and what keeps its machine code alive."""
    symbol, code = matmul.object_code(dtype, TARGETS[variant], indirect)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), llvm.host().machine())
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return KERNEL(engine.get_function_address(symbol)), engine


class Core:
    """Runs products through the core, with scratch of exactly the promised size, full of NaN, and guarded."""

    def __init__(self, dtype: dtypes.DType, variant: str, indirect: bool = False):
        self.dtype, self.target, self.indirect = dtype, TARGETS[variant], indirect
        self.kernel = load(dtype, variant, indirect)[0]

    def __call__(
        self,
        a: np.ndarray,
        b: np.ndarray,
        c: np.ndarray,
        functions: dict[Word, object] | None = None,
        cuts: tuple[float, ...] = (),
        addend: np.ndarray | None = None,
    ) -> None:
        """``c[...] = a @ b + addend``, leading dimensions broadcast; `cuts` are fractions of the range."""
        (m, k), n = a.shape[-2:], b.shape[-1]
        batch = c.shape[:-2]
        a = np.broadcast_to(a, batch + a.shape[-2:])
        b = np.broadcast_to(b, batch + b.shape[-2:])
        strides = [[s // self.dtype.itemsize for s in x.strides] for x in (a, b, c)]
        words = [0] * (Word.BATCH + 4 * len(batch))
        words[Word.A : Word.M] = [x.ctypes.data for x in (a, b, c)]
        words[Word.M : Word.A_ROW] = [m, n, k]
        words[Word.A_ROW : Word.PACK_A] = [s for each in strides for s in each[-2:]]
        if addend is not None:
            steps = [s // self.dtype.itemsize for s in addend.strides]
            words[Word.ADDEND : Word.BATCH_DIMS] = [addend.ctypes.data, *steps]
        words[Word.BATCH_DIMS] = len(batch)
        words[Word.BATCH :] = [
            word for i, size in enumerate(batch) for word in (size, *(each[i] for each in strides))
        ]
        for word, function in (functions or {}).items():
            words[word] = ctypes.cast(function, P).value or 0  # type: ignore[arg-type]
        block = np.array(words, np.int64)
        extent = evaluate(matmul.units(self.dtype, m, n, batch, self.target), {})
        size = evaluate(matmul.scratch_bytes(self.dtype, words, self.target, self.indirect), {})
        memory = np.full(size + 2 * GUARD + 64, 0xFF, np.uint8)
        start = (-(memory.ctypes.data + GUARD)) % 64 + GUARD
        edges = [0, *sorted(int(cut * extent) for cut in cuts), extent]
        for low, high in itertools.pairwise(edges):
            self.kernel(block.ctypes.data, low, high, memory.ctypes.data + start)
        assert (memory[:start] == 0xFF).all(), "scratch written before its start"
        assert (memory[start + size :] == 0xFF).all(), "scratch written past its end"

    def array(self, shape: tuple[int, ...], seed: int) -> np.ndarray:
        return np.random.default_rng(seed).standard_normal(shape).astype(self.dtype.numpy)


def laid_out(values: np.ndarray, kind: str) -> np.ndarray:
    """An array with `values` (or, broadcast, some of them) whose strides are of the given kind."""
    if kind == "rows":
        return np.ascontiguousarray(values)
    if kind == "columns":
        return np.ascontiguousarray(values.T).T
    if kind == "both reversed":
        return np.ascontiguousarray(values[::-1, ::-1])[::-1, ::-1]
    if kind == "columns reversed":
        return np.ascontiguousarray(values[:, ::-1])[:, ::-1]
    if kind == "scattered":
        wide = np.full((values.shape[0] * 3, values.shape[1] * 2), np.nan, values.dtype)
        wide[::3, ::2] = values
        return wide[::3, ::2]
    if kind == "one row":
        return np.broadcast_to(values[:1], values.shape)
    assert kind == "one column"
    return np.broadcast_to(values[:, :1], values.shape)


INPUTS = ["rows", "columns", "both reversed", "columns reversed", "scattered", "one row", "one column"]
OUTPUTS = ["rows", "columns", "both reversed", "columns reversed", "scattered"]


def fenced(shape: tuple[int, int], kind: str, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """A view for results with strides of the given kind, amid memory full of 7, and all that memory."""
    m, n = shape
    rows, columns = (n, m) if kind == "columns" else (m, n)
    step = 2 if kind == "scattered" else 1
    whole = np.full((rows * step + 4, columns * step + 37), 7, dtype)
    view = whole[2 : 2 + rows * step : step, 19 : 19 + columns * step : step]
    if kind == "columns":
        view = view.T
    if kind == "both reversed":
        view = view[::-1, ::-1]
    if kind == "columns reversed":
        view = view[:, ::-1]
    return view, whole


def close(result: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """Asserts that `result` is ``a @ b`` within k roundings of the sum of absolute products."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    bound = np.finfo(result.dtype).eps * (abs(a) @ abs(b)) * (a.shape[-1] + 2)
    error = abs(result - a @ b)
    assert (error <= bound).all(), f"largest error {error.max()}"


@VARIANTS
@DTYPES
@pytest.mark.parametrize("seed", range(60))
def test_random_products(variant: str, dtype: dtypes.DType, seed: int) -> None:
    core, pick = Core(dtype, variant), np.random.default_rng(seed)
    m, n, k = (int(pick.choice(sizes)) for sizes in (SIZES, SIZES, DEPTHS))
    a = laid_out(core.array((m, k), seed), str(pick.choice(INPUTS)))
    b = laid_out(core.array((k, n), seed + 1), str(pick.choice(INPUTS)))
    c, whole = fenced((m, n), str(pick.choice(OUTPUTS)), dtype.numpy)
    core(a, b, c, cuts=tuple(pick.random(2)))
    close(c, a, b)
    c[...] = 7
    assert (whole == 7).all(), "memory outside C was written"


@VARIANTS
@DTYPES
@pytest.mark.parametrize("b_kind", INPUTS)
@pytest.mark.parametrize("a_kind", INPUTS)
def test_strides(variant: str, dtype: dtypes.DType, a_kind: str, b_kind: str) -> None:
    core = Core(dtype, variant)
    a, b = laid_out(core.array((37, 41), 1), a_kind), laid_out(core.array((41, 103), 2), b_kind)
    for kind in OUTPUTS:
        c, whole = fenced((37, 103), kind, dtype.numpy)
        core(a, b, c)
        close(c, a, b)
        c[...] = 7
        assert (whole == 7).all()


@VARIANTS
@DTYPES
@pytest.mark.parametrize(
    "shape", [(0, 5, 7), (5, 0, 7), (5, 7, 0), (0, 0, 0), (1, 1, 1), (1, 200, 300), (200, 1, 1)]
)
def test_empty_and_single(variant: str, dtype: dtypes.DType, shape: tuple[int, int, int]) -> None:
    core, (m, n, k) = Core(dtype, variant), shape
    a, b = core.array((m, k), 1), core.array((k, n), 2)
    c, whole = fenced((m, n), "rows", dtype.numpy)
    core(a, b, c)
    close(c, a, b)
    c[...] = 7
    assert (whole == 7).all()


@DTYPES
@pytest.mark.parametrize(
    ("m", "n", "k", "kind"),
    [(300, 1500, 700, "rows"), (9, 2600, 1100, "columns"), (1100, 40, 600, "scattered")],
)
def test_several_cache_blocks(dtype: dtypes.DType, m: int, n: int, k: int, kind: str) -> None:
    core = Core(dtype, "host")
    a, b = core.array((m, k), 1), core.array((n, k), 2).T
    c, whole = fenced((m, n), kind, dtype.numpy)
    core(a, b, c)
    close(c, a, b)
    c[...] = 7
    assert (whole == 7).all()


@VARIANTS
@DTYPES
@pytest.mark.parametrize("k", [16, 17, 40, 600])
def test_few_rows_kept_in_a_tile(variant: str, dtype: dtypes.DType, k: int) -> None:
    """The tile of sums lies behind all memory that the kernels of few rows need for themselves."""
    core = Core(dtype, variant)
    for m, n, kind in itertools.product((1, 2, 3, 4), (5, 17, 40), ("rows", "columns")):
        a, b = core.array((m, k), 1), laid_out(core.array((k, n), 2), kind)
        c, _ = fenced((m, n), "scattered", dtype.numpy)
        core(a, b, c)
        close(c, a, b)


@VARIANTS
@DTYPES
@pytest.mark.parametrize("seed", range(6))
def test_addends_have_the_bits_of_an_addition(variant: str, dtype: dtypes.DType, seed: int) -> None:
    """Matrices, rows, columns, numbers; also where few rows, or several runs of k, go other ways."""
    core, rng = Core(dtype, variant), np.random.default_rng(seed)
    for case in range(24):
        m, n, k = (int(rng.choice(sizes)) for sizes in (SIZES, SIZES, DEPTHS))
        a = laid_out(core.array((m, k), case), str(rng.choice(INPUTS[:5])))
        b = laid_out(core.array((k, n), case + 1), str(rng.choice(INPUTS[:5])))
        addend = laid_out(core.array((m, n), case + 2), str(rng.choice(INPUTS)))
        kind, cuts = str(rng.choice(["rows", *OUTPUTS])), tuple(rng.random(2))
        plain, (c, whole) = np.empty((m, n), dtype.numpy), fenced((m, n), kind, dtype.numpy)
        core(a, b, plain)
        core(a, b, c, cuts=cuts, addend=addend)
        np.testing.assert_array_equal(c, plain + addend)
        c[...] = 7
        assert (whole == 7).all()
        c[...] = addend
        core(a, b, c, cuts=cuts, addend=c)  # in place
        np.testing.assert_array_equal(c, plain + addend)


@VARIANTS
@DTYPES
def test_batches(variant: str, dtype: dtypes.DType) -> None:
    core = Core(dtype, variant)
    a, b = core.array((2, 1, 3, 19, 23), 1), core.array((5, 3, 23, 29), 2)
    c = np.zeros((2, 5, 3, 19, 29), dtype.numpy)
    core(a, b, c)
    close(c, a, b)
    a = core.array((2, 1, 2, 1, 2, 1, 4, 5), 3)
    b = core.array((3, 1, 2, 1, 2, 5, 6), 4)
    c = np.zeros((2, 3, 2, 2, 2, 2, 4, 6), dtype.numpy)
    core(a, b, c, cuts=(0.3, 0.7))
    close(c, a, b)
    c = np.zeros((2, 0, 3, 4), dtype.numpy)
    core(np.zeros((2, 0, 3, 5), dtype.numpy), np.zeros((5, 4), dtype.numpy), c)


@VARIANTS
@DTYPES
@pytest.mark.parametrize(("m", "n", "k"), [(200, 300, 90), (70, 250, 1030), (33, 97, 513)])
def test_bits_depend_on_nothing_but_the_operands(
    variant: str, dtype: dtypes.DType, m: int, n: int, k: int
) -> None:
    core = Core(dtype, variant)
    a, b = core.array((m, k), 1), core.array((k, n), 2)
    whole = np.zeros((m, n), dtype.numpy)
    core(a, b, whole)
    for cuts in [(0.5,), (0.1, 0.2, 0.9), tuple(np.linspace(0, 1, 40))]:
        part = np.zeros((m, n), dtype.numpy)
        core(a, b, part, cuts=cuts)
        assert (part == whole).all(), "the cut of the range showed"
    for rows in (1, 3, 17):
        part = np.zeros((rows, n), dtype.numpy)
        core(a[:rows], b, part)
        assert (part == whole[:rows]).all(), "the number of rows showed"
    part = np.zeros((m, 5), dtype.numpy)
    core(a, b[:, 40:45], part)
    assert (part == whole[:, 40:45]).all(), "the number of columns showed"
    for kind in INPUTS[1:5]:
        part = np.zeros((n, m), dtype.numpy).T
        core(laid_out(a, kind), laid_out(b, kind), part)
        assert (part == whole).all(), "the layout showed"


@VARIANTS
@DTYPES
@pytest.mark.parametrize("k", [1, 7, 16, 37, 512, 1030])
@pytest.mark.parametrize("few", [1, 2, 3, 4, 5])
def test_few_rows_and_few_columns_have_the_bits_of_many(
    variant: str, dtype: dtypes.DType, few: int, k: int
) -> None:
    core = Core(dtype, variant)
    a, b = core.array((70, k), 1), core.array((k, 133), 2)
    whole = np.zeros((70, 133), dtype.numpy)
    core(a, b, whole)
    for kind in INPUTS[:5]:
        for output in OUTPUTS:
            for rows, columns in ((few, 133), (70, few)):
                c, around = fenced((rows, columns), output, dtype.numpy)
                core(laid_out(a[:rows], "rows"), laid_out(b[:, :columns], kind), c, cuts=(0.3, 0.5))
                assert (c == whole[:rows, :columns]).all()
                c[...] = 0
                core(laid_out(a[:rows], kind), laid_out(b[:, :columns], "columns"), c)
                assert (c == whole[:rows, :columns]).all()
                c[...] = 7
                assert (around == 7).all()


@VARIANTS
@DTYPES
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_rows_times_more_columns_than_stream_together(
    variant: str, dtype: dtypes.DType, rows: int
) -> None:
    core = Core(dtype, variant)
    a, b = core.array((rows, 1030), 1), core.array((1030, 2500), 2)
    plain = np.zeros((20, 2500), dtype.numpy)
    core(np.concatenate([a, core.array((20 - rows, 1030), 3)]), b, plain)
    for kind in ("rows", "columns"):
        c, around = fenced((rows, 2500), "rows", dtype.numpy)
        core(a, laid_out(b, kind), c, cuts=(0.6,))
        assert (c == plain[:rows]).all()
        c[...] = 7
        assert (around == 7).all()


@VARIANTS
@DTYPES
@pytest.mark.parametrize(("m", "n"), [(1, 150), (2, 33), (4, 150), (150, 1), (33, 2), (150, 4), (1, 1)])
@pytest.mark.parametrize("kind", ["rows", "columns", "scattered"])
def test_epilogue_of_few_rows_or_columns(
    variant: str, dtype: dtypes.DType, m: int, n: int, kind: str
) -> None:
    core, k = Core(dtype, variant), 600
    a, b = laid_out(core.array((m, k), 1), kind), laid_out(core.array((k, n), 2), kind)
    plain, c, seen = np.zeros((m, n), dtype.numpy), np.zeros((m, n), dtype.numpy), np.zeros((m, n), int)

    def epilogue(args: int, batch: int, m0: int, m1: int, n0: int, n1: int, tile: int, ld: int) -> None:
        values = view(tile, (m1 - m0, ld), dtype)[:, : n1 - n0]
        c[m0:m1, n0:n1] = 2 * values + 1
        seen[m0:m1, n0:n1] += 1

    core(a, b, plain)
    core(a, b, np.broadcast_to(c, c.shape), {Word.EPILOGUE: EPILOGUE(epilogue)}, cuts=(0.4,))
    assert (seen == 1).all()
    assert (c == 2 * plain + 1).all()


@VARIANTS
@DTYPES
def test_special_values_stay_in_their_rows_and_columns(variant: str, dtype: dtypes.DType) -> None:
    core = Core(dtype, variant)
    for m, n, k in [(7, 21, 20), (50, 101, 33)]:
        a, b = core.array((m, k), 1), core.array((k, n), 2)
        a[3, 4], a[m - 1, 2], b[1, n - 1], b[k - 1, 5] = np.inf, np.nan, -np.inf, np.nan
        for left in ("rows", "columns"):
            for right in ("rows", "columns"):
                c = np.zeros((m, n), dtype.numpy)
                core(laid_out(a, left), laid_out(b, right), c)
                with np.errstate(invalid="ignore"):
                    expected = a.astype(np.float64) @ b.astype(np.float64)
                assert (np.isnan(c) == np.isnan(expected)).all()
                assert (np.isposinf(c) == np.isposinf(expected)).all()
                assert (np.isneginf(c) == np.isneginf(expected)).all()


def view(address: int, shape: tuple[int, ...], dtype: dtypes.DType) -> np.ndarray:
    """Memory as an array."""
    pointer = ctypes.cast(address, ctypes.POINTER(CTYPES[dtype.name]))
    return np.ctypeslib.as_array(pointer, shape)


@VARIANTS
@DTYPES
@pytest.mark.parametrize(("m", "n", "k"), [(37, 150, 23), (100, 70, 1100), (3, 1, 1), (5, 9, 0)])
def test_functions(variant: str, dtype: dtypes.DType, m: int, n: int, k: int) -> None:
    core = Core(dtype, variant)
    a, b = core.array((2, m, k), 1), core.array((2, k, n), 2)
    c = np.full((2, m, n), 7, dtype.numpy)
    seen = np.zeros((2, m, n), int)

    def pack_a(
        args: int, batch: int, row0: int, rows: int, k0: int, depth: int, panel: int, width: int
    ) -> None:
        assert view(args, (1,), dtypes.float64).view(np.int64)[0] == 11 and rows > 0 and width >= depth
        if depth:
            out = view(panel, (rows, width), dtype)
            out[:, :depth] = a[batch, row0 : row0 + rows, k0 : k0 + depth]

    def pack_b(
        args: int, batch: int, column0: int, columns: int, k0: int, depth: int, panel: int, width: int
    ) -> None:
        assert view(args, (1,), dtypes.float64).view(np.int64)[0] == 22 and 0 < columns <= width
        if depth:
            out = view(panel, (depth, width), dtype)
            out[:, :columns] = b[batch, k0 : k0 + depth, column0 : column0 + columns]
            out[:, columns:] = np.nan

    def epilogue(args: int, batch: int, m0: int, m1: int, n0: int, n1: int, tile: int, ld: int) -> None:
        assert view(args, (1,), dtypes.float64).view(np.int64)[0] == 33
        values = view(tile, (m1 - m0, ld), dtype)[:, : n1 - n0]
        c[batch, m0:m1, n0:n1] = 2 * values + 1
        seen[batch, m0:m1, n0:n1] += 1

    blocks = [np.array([i], np.int64) for i in (11, 22, 33)]
    functions: dict[Word, object] = {
        Word.PACK_A: PACK(pack_a),
        Word.PACK_B: PACK(pack_b),
        Word.EPILOGUE: EPILOGUE(epilogue),
    }
    words = (Word.PACK_A_ARGS, Word.PACK_B_ARGS, Word.EPILOGUE_ARGS)
    own = {word: P(block.ctypes.data) for word, block in zip(words, blocks, strict=True)}
    plain = np.zeros((2, m, n), dtype.numpy)
    core(a, b, plain)
    core(a, b, np.broadcast_to(c, c.shape), {**functions, **own}, cuts=(0.4,))
    assert (seen == 1).all()
    assert (c == 2 * plain + 1).all()
    for word, address in ((Word.PACK_A, Word.PACK_A_ARGS), (Word.PACK_B, Word.PACK_B_ARGS)):
        again = np.zeros((2, m, n), dtype.numpy)
        core(a, b, again, {word: functions[word], address: own[address]})
        assert (again == plain).all()


def test_argument_block() -> None:
    m = Dim.symbol("m")
    block = matmul.arguments(
        m=m, n=5, k=6, a=BufferArg(0), b=BufferArg(1, 3), a_strides=(6, 1), b_strides=(1, 6),
        batch=[(4, m * 6, 0, m * 5)], epilogue=(FunctionArg(2), BlockArg((BufferArg(2), SizeArg(5)))),
    )  # fmt: skip
    assert len(block) == Word.BATCH + 4
    assert block[Word.A] == BufferArg(0) and block[Word.B] == BufferArg(1, 3) and block[Word.C] == SizeArg(0)
    assert block[Word.M] == SizeArg(m) and block[Word.B_COLUMN] == SizeArg(6)
    assert block[Word.PACK_A] == SizeArg(0) and block[Word.EPILOGUE] == FunctionArg(2)
    assert block[Word.BATCH_DIMS] == SizeArg(1) and block[Word.BATCH + 1] == SizeArg(m * 6)
    with pytest.raises(ValueError, match="C has neither"):
        matmul.arguments(m=1, n=1, k=1, a=BufferArg(0), b=BufferArg(1))
    with pytest.raises(ValueError, match="at most 6"):
        matmul.arguments(m=1, n=1, k=1, batch=[(1, 0, 0, 0)] * 7)


@DTYPES
def test_symbolic_sizes(dtype: dtypes.DType) -> None:
    m, n, k = (Dim.symbol(name) for name in "mnk")
    extent = matmul.units(dtype, m, n, (m, 3))
    assert evaluate(extent, {"m": 129, "n": 500}) == matmul.units(dtype, 129, 500, (129, 3))
    strides = [(k, 1, n, 1, n, 1), (1, m, 1, k, n, 1), (k, 1, n, 1, 1, m), (m, 2, 1, n, 0, 0)]
    for row, (functions, target) in itertools.product(strides, itertools.product(range(8), TARGETS.values())):
        words = [1, 1, 1, m, n, k, *row, *(functions >> f & 1 for f in (0, 0, 1, 1, 2, 2)), *[0] * 4]
        symbolic = [matmul.scratch_bytes(dtype, words, target, indirect) for indirect in (False, True)]
        for numbers in [(1, 1, 1), (9999, 9999, 9999), (7, 9999, 100), (300, 20, 4000), (500, 3, 1)]:
            values = dict(zip("mnk", numbers, strict=True))
            known = [evaluate(word, values) for word in words]
            for indirect, size in enumerate(symbolic):
                exact = matmul.scratch_bytes(dtype, known, target, bool(indirect))
                assert exact <= evaluate(size, values)
                bound = matmul.scratch_bound(dtype, values["k"])
                assert indirect or functions or target != llvm.host() or exact <= bound


def test_little_scratch_where_little_is_used() -> None:
    plan, target = matmul.blocking(4, TARGETS["generic"]), TARGETS["generic"]

    def scratch(m: int, n: int, k: int, strides: tuple[int, ...], *functions: Word) -> int:
        words = [1, 1, 1, m, n, k, *strides, *[0] * (Word.BATCH - Word.PACK_A)]
        for word in functions:
            words[word] = 1
        return evaluate(matmul.scratch_bytes(dtypes.float32, words, target), {})

    assert scratch(4, 16, 16, (16, 1, 16, 1, 16, 1)) == 0  # both operands where they lie, sums into C
    assert scratch(4, 16, 16, (16, 1, 16, 1, 0, 0), Word.EPILOGUE) == 4 * 4 * 16  # a tile
    # copied rows, and one panel of columns that are copied
    rows = -(-6 // plan.rows) * plan.rows
    taken = scratch(6, 196, 400, (0, 0, 0, 0, 196, 1), Word.PACK_A, Word.PACK_B)
    assert taken == 4 * 400 * (rows + plan.panel)


@VARIANTS
@DTYPES
def test_object_code_stands_alone(variant: str, dtype: dtypes.DType) -> None:
    symbol, code = matmul.object_code(dtype, TARGETS[variant])
    assert llvm.undefined_symbols(code) <= {"memset", "memcpy"}
    assert symbol == matmul.symbol(dtype, TARGETS[variant])
