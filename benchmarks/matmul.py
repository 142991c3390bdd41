"""Matrix products of the core beside NumPy's (OpenBLAS) and, where it can be imported, PyTorch's (MKL).

Run ``python benchmarks/matmul.py [float64] [WORD ...]``: every product of the benchmark's training steps,
large ones, and skinny ones; words keep the lines that have all of them in their title. One thread, in CPU
time. The contestants take turns, so that a busy machine hurts all alike; each figure is the best of its
rounds, in GFLOP/s. A shape reads rows of A x depth x columns of B; layouts say which operands are transposed
in memory.

Where the libraries' GEMM can be found it is called by machine code, as ours is, without Python's part, which
is longer than a small product. GEMV, which NumPy and PyTorch take for vectors, counts too: a library's figure
is that of its better way.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import turns

turns.hold(1)

import ctypes  # noqa: E402

import numpy as np  # noqa: E402

from graphflow import dtypes  # noqa: E402
from graphflow.compiler.codegen import llvm, matmul  # noqa: E402
from graphflow.compiler.codegen.matmul import Word  # noqa: E402
from graphflow.dims import evaluate  # noqa: E402

try:
    import torch
except ImportError:
    torch = None
else:
    torch.set_num_threads(1)

Shape = tuple[str, int, int, int, int, str]  # title, batch, m, k, n, layout
Call = Callable[[], object]


def layers(who: str, batch: int, inputs: int, outputs: int) -> list[Shape]:
    """The three products of a linear layer with a weight of shape (outputs, inputs)."""
    title = f"{who} {batch}x{inputs} -> {outputs}"
    return [
        (f"{title}: x @ W.T", 1, batch, inputs, outputs, "nt"),
        (f"{title}: dy @ W", 1, batch, outputs, inputs, "nn"),
        (f"{title}: dy.T @ x", 1, outputs, batch, inputs, "tn"),
    ]


def attention(who: str, items: int, time: int, size: int) -> list[Shape]:
    """The six products of attention with `items` heads of `size`."""
    return [
        (f"{who} {items}: q @ k.T", items, time, size, time, "nt"),
        (f"{who} {items}: p @ v", items, time, time, size, "nn"),
        (f"{who} {items}: dy @ v.T", items, time, size, time, "nt"),
        (f"{who} {items}: p.T @ dy", items, time, time, size, "tn"),
        (f"{who} {items}: ds @ k", items, time, time, size, "nn"),
        (f"{who} {items}: ds.T @ q", items, time, time, size, "tn"),
    ]


def skinny(rows: int) -> list[Shape]:
    """A few rows times a square."""
    return [
        (f"skinny {rows}x1024x1024", 1, rows, 1024, 1024, "nn"),
        (f"skinny {rows}x1024x1024, W.T", 1, rows, 1024, 1024, "nt"),
    ]


SHAPES = [
    *((f"square {n}, {layout}", 1, n, n, n, layout) for n, layout in ((256, "nn"), (512, "nn"))),
    *((f"square 1024, {layout}", 1, 1024, 1024, 1024, layout) for layout in ("nn", "nt", "tn", "tt")),
    *layers("twolayer", 64, 1000, 100),
    *layers("twolayer", 64, 100, 10),
    *layers("mlp", 128, 784, 512),
    *layers("mlp", 128, 512, 256),
    *layers("mlp", 128, 256, 10),
    *layers("lenet", 4, 400, 120),
    *layers("lenet", 4, 120, 84),
    *layers("lenet", 4, 84, 10),
    *layers("cnn", 64, 4096, 10),
    *layers("gpt", 768, 128, 384),
    *layers("gpt", 768, 128, 128),
    *layers("gpt", 768, 128, 512),
    *layers("gpt", 768, 512, 128),
    *layers("gpt", 768, 128, 65),
    *attention("gpt", 48, 64, 32),
    *layers("lstm, all steps", 2048, 64, 512),
    *layers("lstm, a step", 64, 64, 512),
    *layers("lstm, a step", 64, 128, 512),
    ("lstm, all steps: dy.T @ h", 1, 512, 2048, 128, "tn"),
    *layers("lstm", 64, 128, 10),
    ("dispatch", 1, 4, 16, 16, "nn"),
    *(shape for rows in (1, 2, 4, 8, 16) for shape in skinny(rows)),
    ("skinny 1x512x512", 1, 1, 512, 512, "nn"),
    ("skinny 1x512x512, W.T", 1, 1, 512, 512, "nt"),
    ("skinny 1024x1024x1", 1, 1024, 1024, 1, "nn"),
    ("skinny 1024x1024x1, A.T", 1, 1024, 1024, 1, "tn"),
    ("skinny 1024x1024x4", 1, 1024, 1024, 4, "nn"),
    ("skinny 1024x1024x10", 1, 1024, 1024, 10, "nn"),
]

#: ``repeat(function, pointers, count)`` calls a function of `{n}` pointers so many times, and ours likewise.
LOOP = """
define void @repeat{n}(ptr %function, ptr %pointers, i64 %count) {{
entry:
{loads}
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %head ]
  call void %function({arguments})
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %count
  br i1 %more, label %head, label %leave
leave:
  ret void
}}
"""


def repeater(count: int, integers: tuple[int, ...] = ()) -> Callable[..., None]:
    """Machine code that calls a function of `count` words many times; `integers` are those that aren't
    pointers.
    """
    kinds = ["i64" if i in integers else "ptr" for i in range(count)]
    loads = "\n".join(
        f"  %at{i} = getelementptr i64, ptr %pointers, i64 {i}\n  %v{i} = load {kind}, ptr %at{i}"
        for i, kind in enumerate(kinds)
    )
    arguments = ", ".join(f"{kind} %v{i}" for i, kind in enumerate(kinds))
    loaded = llvm.Loaded(llvm.emit([LOOP.format(n=count, loads=loads, arguments=arguments)]))
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    function = prototype(loaded.address(f"repeat{count}"))
    function.keep = loaded
    return function


class Timed:
    """Calls that can be repeated: `run(count)`."""

    def __init__(self, run: Callable[[int], object], keep: object = None):
        self.run, self.keep = run, keep


def python_call(call: Call) -> Timed:
    """A call from Python."""

    def run(count: int) -> None:
        for _ in range(count):
            call()

    return Timed(run)


def words_of(*values: int) -> np.ndarray:
    """Words that a repeater hands on."""
    return np.array(values, np.int64)


class Ours:
    """The core."""

    def __init__(self, dtype: dtypes.DType):
        start = time.thread_time()
        symbol, code = matmul.object_code(dtype)
        print(f"core compiled in {time.thread_time() - start:.2f} s, {len(code) >> 10} KiB")
        self.dtype, self.loaded = dtype, llvm.Loaded(code)
        self.address = self.loaded.address(symbol)
        self.repeat = repeater(4, (1, 2))

    def call(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Timed:
        """Computes ``c[...] = a @ b`` for each item of the batch."""
        (items, m, k), n = a.shape, b.shape[-1]
        words = np.zeros(Word.BATCH + 4, np.int64)
        strides = [[s // self.dtype.itemsize for s in x.strides] for x in (a, b, c)]
        words[: Word.A_ROW] = [a.ctypes.data, b.ctypes.data, c.ctypes.data, m, n, k]
        words[Word.A_ROW : Word.PACK_A] = [s for each in strides for s in each[1:]]
        if items > 1:
            words[Word.BATCH_DIMS] = 1
            words[Word.BATCH :] = [items, *(each[0] for each in strides)]
        extent = evaluate(matmul.units(self.dtype, m, n, (items,)), {})
        scratch = np.zeros(evaluate(matmul.scratch_bytes(self.dtype, words.tolist()), {}) + 64, np.uint8)
        given = words_of(words.ctypes.data, 0, extent, -(-scratch.ctypes.data // 64) * 64)
        return Timed(partial(self.repeat, self.address, given.ctypes.data), (a, b, c, words, scratch, given))


def gemm(library: Path, symbol: str) -> int:
    """The address of a Fortran GEMM with 64-bit integers, 0 where there is none."""
    try:
        return ctypes.cast(getattr(ctypes.CDLL(str(library)), symbol), ctypes.c_void_p).value or 0
    except (AttributeError, OSError):
        return 0


def libraries(dtype: dtypes.DType) -> dict[str, int]:
    """The libraries' GEMM functions."""
    letter = {"float32": "s", "float64": "d"}[dtype.name]
    found = {}
    for path in Path(np.__file__).parent.parent.glob("numpy.libs/libscipy_openblas64_*"):
        found["numpy"] = gemm(path, f"scipy_{letter}gemm_64_")
    if torch:
        found["torch"] = gemm(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so", f"{letter}gemm_64_")
    return {name: address for name, address in found.items() if address}


class Blas:
    """A library's GEMM, whose matrices are the transposes of ours."""

    def __init__(self, address: int):
        self.address, self.repeat = address, repeater(13)

    def call(self, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Timed:
        """Computes ``c[...] = a @ b`` of plain matrices, either operand transposed."""
        (m, k), n = a.shape, b.shape[-1]
        sizes = words_of(n, m, k, *(max(x.strides) // x.itemsize for x in (b, a, c)))
        flags = np.frombuffer(b"NT", np.uint8)
        scale = np.array([1, 0], a.dtype)
        size, flag, step = sizes.ctypes.data, flags.ctypes.data, a.itemsize
        given = words_of(
            flag + (b.strides[1] != step), flag + (a.strides[1] != step), size, size + 8, size + 16,
            scale.ctypes.data, b.ctypes.data, size + 24, a.ctypes.data, size + 32, scale.ctypes.data + step,
            c.ctypes.data, size + 40,
        )  # fmt: skip
        keep = (a, b, c, sizes, flags, scale, given)
        return Timed(partial(self.repeat, self.address, given.ctypes.data), keep)


def torch_call(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Call:
    """A call of PyTorch's product of the same matrices."""
    x, y, z = (torch.from_numpy(each) for each in (a, b, c))
    if len(a) > 1:
        return lambda: torch.bmm(x, y, out=z)
    if a.shape[1] == 1:
        return lambda: torch.mv(y[0].T, x[0, 0], out=z[0, 0])
    if b.shape[2] == 1:
        return lambda: torch.mv(x[0], y[0, :, 0], out=z[0, :, 0])
    return lambda: torch.mm(x[0], y[0], out=z[0])


def best(contestants: list[list[Timed]]) -> list[float]:
    """Seconds of one call of each contestant's better way, the best of interleaved rounds."""
    results = [math.inf] * len(contestants)
    counts = []
    for ways in contestants:
        for way in ways:
            way.run(1)
            start = time.thread_time()
            way.run(3)
            counts.append(max(1, int(turns.SECONDS * 3 / (time.thread_time() - start))))
    for _ in range(turns.ROUNDS):
        left = iter(counts)
        for i, ways in enumerate(contestants):
            for way in ways:
                count = next(left)
                start = time.thread_time()
                way.run(count)
                results[i] = min(results[i], (time.thread_time() - start) / count)
    return results


def operand(
    random: np.random.Generator, items: int, rows: int, columns: int, layout: str, dtype: np.dtype
) -> np.ndarray:
    """Random matrices, transposed in memory where `layout` is "t"."""
    shape = (items, rows, columns) if layout == "n" else (items, columns, rows)
    values = random.standard_normal(shape).astype(dtype)
    return values if layout == "n" else values.transpose(0, 2, 1)


def main() -> None:
    """Prints the table."""
    wanted = sys.argv[1:]
    dtype = dtypes.by_name(wanted.pop(0) if wanted and wanted[0].startswith("float") else "float32")
    core = Ours(dtype)
    found = {name: Blas(address) for name, address in libraries(dtype).items()}
    random = np.random.default_rng(0)
    names = ["numpy"] + (["torch"] if torch else [])
    for name in names:
        print(f"{name}: GEMM is called {'directly' if name in found else 'from Python'}")
    print(f"{dtype}, GFLOP/s, one thread, and what graphflow has of each of the others")
    titles = ["graphflow", *names, *(f"/{name}" for name in names)]
    print(f"{'':36s}" + "".join(f"{title:>10s}" for title in titles))
    logs = []
    for title, items, m, k, n, layout in SHAPES:
        if not all(word in title for word in wanted):
            continue
        a = operand(random, items, m, k, layout[0], dtype.numpy)
        b = operand(random, items, k, n, layout[1], dtype.numpy)
        results = [np.full((items, m, n), np.nan, dtype.numpy) for _ in range(1 + len(names))]
        contestants = [[core.call(a, b, results[0])]]
        for name, c in zip(names, results[1:], strict=True):
            call = partial(np.matmul, a, b, out=c) if name == "numpy" else torch_call(a, b, c)
            ways = [python_call(call)]
            if name in found and items == 1:
                ways.append(found[name].call(a[0], b[0], c[0]))
            contestants.append(ways)
        seconds = best(contestants)
        for other in results[1:]:
            if not np.allclose(results[0], other, rtol=1e-3, atol=1e-3 * math.sqrt(k)):
                raise AssertionError(f"{title}: the results differ")
        ratios = [each / seconds[0] for each in seconds[1:]]
        logs.append(np.log(ratios))
        rates = "".join(f"{2e-9 * items * m * n * k / each:10.1f}" for each in seconds)
        print(f"{title:36s}{rates}" + "".join(f"{ratio:10.2f}" for ratio in ratios), flush=True)
    means = np.exp(np.mean(logs, axis=0))
    print(f"{'geometric mean':{36 + 10 * len(seconds)}s}" + "".join(f"{mean:10.2f}" for mean in means))
    print(
        f"{'least':{36 + 10 * len(seconds)}s}"
        + "".join(f"{np.exp(low):10.2f}" for low in np.min(logs, axis=0))
    )


if __name__ == "__main__":
    main()
