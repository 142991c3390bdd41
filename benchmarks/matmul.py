"""Matrix products of the core beside NumPy's (OpenBLAS) and, where it can be imported, PyTorch's (MKL).

Run ``python benchmarks/matmul.py [float64]``. One thread. The contestants take turns, so that a busy machine
hurts all alike; each figure is the best of its rounds, in GFLOP/s. A shape reads rows of A x depth x columns
of B; layouts say which operands are transposed in memory.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial

for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ[name] = "1"

import ctypes  # noqa: E402

import llvmlite.binding as binding  # noqa: E402
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

KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


def layers(batch: int, inputs: int, outputs: int) -> list[tuple[str, int, int, int, str]]:
    """The three products of a linear layer with a weight of shape (outputs, inputs)."""
    return [
        (f"linear {batch}x{inputs} -> {outputs}: x @ W.T", batch, inputs, outputs, "nt"),
        (f"linear {batch}x{inputs} -> {outputs}: dy @ W", batch, outputs, inputs, "nn"),
        (f"linear {batch}x{inputs} -> {outputs}: dy.T @ x", outputs, batch, inputs, "tn"),
    ]


SHAPES = [
    *((f"square {n}, {layout}", n, n, n, layout) for n, layout in ((256, "nn"), (512, "nn"), (1024, "nn"))),
    *((f"square 1024, {layout}", 1024, 1024, 1024, layout) for layout in ("nt", "tn", "tt")),
    *layers(64, 1000, 100),
    *layers(128, 784, 512),
    *layers(128, 512, 256),
    *layers(128, 256, 10),
    *layers(768, 128, 512),
    ("small 4x16x16", 4, 16, 16, "nn"),
    ("vector 1x1024x1024", 1, 1024, 1024, "nn"),
    ("vector 1x1024x1024, W.T", 1, 1024, 1024, "nt"),
]


def compiled(dtype: dtypes.DType) -> tuple[Callable[..., None], object]:
    """The core as a function, and what keeps its machine code alive."""
    start = time.perf_counter()
    symbol, code = matmul.object_code(dtype)
    print(f"core compiled in {time.perf_counter() - start:.2f} s, {len(code) >> 10} KiB")
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), llvm.host().machine())
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return KERNEL(engine.get_function_address(symbol)), engine


def ours(
    kernel: Callable[..., None], dtype: dtypes.DType, a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> Callable[[], None]:
    """A call of the core that computes ``c[...] = a @ b``."""
    (m, k), n = a.shape, b.shape[1]
    words = np.zeros(Word.BATCH, np.int64)
    strides = [s // dtype.itemsize for x in (a, b, c) for s in x.strides]
    words[: Word.PACK_A] = [a.ctypes.data, b.ctypes.data, c.ctypes.data, m, n, k, *strides]
    extent = evaluate(matmul.units(dtype, m, n), {})
    scratch = np.zeros(matmul.scratch_bytes(dtype, m, n, k) + 64, np.uint8)
    aligned = -(-scratch.ctypes.data // 64) * 64
    block = words.ctypes.data

    def call(keep: object = (a, b, c, words, scratch)) -> None:
        kernel(block, 0, extent, aligned)

    return call


def best(calls: list[Callable[[], object]], rounds: int = 7, seconds: float = 0.02) -> list[float]:
    """Seconds of one call of each, the best of interleaved rounds."""
    counts, results = [], [float("inf")] * len(calls)
    for call in calls:
        call()
        start = time.perf_counter()
        call()
        counts.append(max(1, int(seconds / (time.perf_counter() - start))))
    for _ in range(rounds):
        for i, (call, count) in enumerate(zip(calls, counts, strict=True)):
            start = time.perf_counter()
            for _ in range(count):
                call()
            results[i] = min(results[i], (time.perf_counter() - start) / count)
    return results


def operand(random: np.random.Generator, rows: int, columns: int, layout: str, dtype: np.dtype) -> np.ndarray:
    """A random matrix, transposed in memory where `layout` is "t"."""
    shape = (rows, columns) if layout == "n" else (columns, rows)
    values = random.standard_normal(shape).astype(dtype)
    return values if layout == "n" else values.T


def torch_call(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> Callable[[], object]:
    """A call of PyTorch's product of the same matrices."""
    x, y, z = torch.from_numpy(a), torch.from_numpy(b), torch.from_numpy(np.empty_like(c))
    return lambda: torch.mm(x, y, out=z)


def main() -> None:
    """Prints the table."""
    dtype = dtypes.by_name(sys.argv[1] if len(sys.argv) > 1 else "float32")
    kernel, _keep = compiled(dtype)
    random = np.random.default_rng(0)
    names = ["graphflow", "numpy"] + (["torch"] if torch else [])
    print(f"{dtype}, GFLOP/s, one thread; ratio: to the better one of the others")
    print(f"{'':36s}" + "".join(f"{name:>10s}" for name in [*names, "ratio"]))
    logs = []
    for title, m, k, n, layout in SHAPES:
        a = operand(random, m, k, layout[0], dtype.numpy)
        b = operand(random, k, n, layout[1], dtype.numpy)
        c, d = np.empty((m, n), dtype.numpy), np.empty((m, n), dtype.numpy)
        calls: list[Callable[[], object]] = [ours(kernel, dtype, a, b, c), partial(np.matmul, a, b, out=d)]
        if torch:
            calls.append(torch_call(a, b, c))
        seconds = best(calls)
        if not np.allclose(c, d, rtol=1e-3, atol=1e-3):
            raise AssertionError(f"{title}: the results differ")
        ratio = min(seconds[1:]) / seconds[0]
        logs.append(np.log(ratio))
        rates = "".join(f"{2e-9 * m * n * k / each:10.1f}" for each in seconds)
        print(f"{title:36s}{rates}{ratio:10.2f}", flush=True)
    print(f"geometric mean of the ratios: {np.exp(np.mean(logs)):.2f}")


if __name__ == "__main__":
    main()
