"""How matrix products are cut for this machine's registers and caches, measured where the rule may be wrong.

A rule chooses from the processor's features and the sizes of its caches. `graphflow tune` measures it against
a few alternatives, which all give the same bits, and keeps the fastest in the cache directory; processes find
it there when they compile their first graph. Nothing is measured unasked, as a measurement beside other work
is worth nothing, and a program's first step shouldn't wait for one. `GRAPHFLOW_TUNE=off` has the rule decide.

What is kept holds for one processor with all its features, sizes of caches, version of LLVM and text of the
matrix core; anything else under its name isn't used, and measured again when asked for.
"""

from __future__ import annotations

import ctypes
import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphflow import dtypes
from graphflow.compiler.codegen import digests, llvm, matmul, matmul_blocking
from graphflow.compiler.codegen.matmul import Blocking, Word
from graphflow.config import settings
from graphflow.dims import evaluate
from graphflow.dtypes import DType
from graphflow.errors import GraphflowError
from graphflow.runtime import cache

DTYPES = (dtypes.float32, dtypes.float64)

#: Seconds that measuring a dtype may take. On a machine that does nothing else it takes a dozen.
BUDGET = 60.0
#: How much faster than the rule's choice another one has to be, or the rule's stays.
WORTH = 1.03
#: Products that are timed: rows, depth, columns, and which operands are transposed in memory.
PRODUCTS = (
    (512, 512, 512, "nn"), (1024, 1024, 1024, "nt"), (1024, 1024, 1024, "tn"), (128, 784, 512, "nt"),
    (512, 128, 784, "tn"), (768, 512, 128, "nn"), (64, 1000, 100, "nt"),
)  # fmt: skip

_ROUNDS = 11
_SECONDS = 0.004  # of calls in a round
_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)


@dataclass(frozen=True)
class Measured:
    """The chosen blocking's name, the speed of each relative to the rule's, and whether time sufficed."""

    name: str
    speeds: dict[str, float]
    complete: bool


class TuneError(GraphflowError):
    """There is no place where a measurement could be kept."""


_applied = False


def apply() -> None:
    """Has products compiled from now on be cut as was measured, if it was; costs something once a process."""
    global _applied
    if _applied:
        return
    _applied = True
    names = kept() if settings().tune else None
    for dtype in DTYPES:
        name = names[str(dtype)] if names else None
        matmul_blocking.choose(dtype.itemsize, llvm.host(), name)


def forget() -> None:
    """The next `apply` looks again."""
    global _applied
    _applied = False


def kept() -> dict[str, str] | None:
    """The kept name for each dtype; None where nothing was kept, or something that can't be used."""
    entry = cache.default().peek(_digest())
    names = entry[1].get("blocking") if entry else None
    if not isinstance(names, dict) or set(names) != {str(dtype) for dtype in DTYPES}:
        return None
    for dtype in DTYPES:
        if names[str(dtype)] not in matmul_blocking.candidates(dtype.itemsize, llvm.host()):
            return None
    return names


def keep(names: dict[str, str]) -> None:
    """Keeps a name for each dtype. TuneError where the cache isn't on disk."""
    cache.put(_digest(), b"", {"blocking": names})
    status = cache.status()
    if status.directory is None:
        raise TuneError(f"what was measured can't be kept: {status.reason}")
    forget()


def _digest() -> str:
    rules = [matmul_blocking.candidates(dtype.itemsize, llvm.host()) for dtype in DTYPES]
    core = digests.of_modules(("llvm", *digests.beside("matmul")), llvm.host().description, rules)
    return hashlib.sha256(f"tuning {core}".encode()).hexdigest()


def measure(dtype: DType, seconds: float = BUDGET) -> Measured:
    """Times the candidates in turns on one thread, in CPU time, within `seconds`.

    Where they don't suffice, the rule's is chosen.
    """
    deadline = time.monotonic() + seconds
    plans = matmul_blocking.candidates(dtype.itemsize, llvm.host())
    rule = next(iter(plans))
    contestants: dict[str, _Core] = {}
    for name, plan in plans.items():
        if time.monotonic() > deadline:
            return Measured(rule, {}, False)
        contestants[name] = _Core(dtype, plan)
    logs = dict.fromkeys(plans, 0.0)
    for shape in PRODUCTS:
        calls = {name: core.product(*shape) for name, core in contestants.items()}
        best = dict.fromkeys(plans, math.inf)
        for _ in range(_ROUNDS):
            if time.monotonic() > deadline:
                return Measured(rule, {}, False)
            for name, call in calls.items():
                best[name] = min(best[name], call.seconds())
        for name in plans:
            logs[name] += math.log(best[rule] / best[name]) / len(PRODUCTS)
    speeds = {name: math.exp(log) for name, log in logs.items()}
    fastest = max(speeds, key=lambda name: speeds[name])
    return Measured(fastest if speeds[fastest] > WORTH else rule, speeds, True)


class _Core:
    """A core with a blocking of its own."""

    def __init__(self, dtype: DType, plan: Blocking):
        symbol, code = matmul.object_code(dtype, plan=plan)
        self.dtype, self.plan = dtype, plan
        self.loaded = llvm.Loaded(code)
        self.kernel = _KERNEL(self.loaded.address(symbol))

    def product(self, m: int, k: int, n: int, layout: str) -> _Call:
        """A product of matrices of ones."""
        a, b, c = (np.ones(shape, self.dtype.numpy) for shape in ((m, k), (k, n), (m, n)))
        a_strides = (1, m) if layout[0] == "t" else (k, 1)
        b_strides = (1, k) if layout[1] == "t" else (n, 1)
        words = np.zeros(Word.BATCH, np.int64)
        words[: Word.A_ROW] = a.ctypes.data, b.ctypes.data, c.ctypes.data, m, n, k
        words[Word.A_ROW : Word.PACK_A] = *a_strides, *b_strides, n, 1
        extent = evaluate(matmul.units(self.dtype, m, n, plan=self.plan), {})
        size = evaluate(matmul.scratch_bytes(self.dtype, words.tolist(), plan=self.plan), {})
        scratch = np.zeros(size + 64, np.uint8)
        return _Call(self.kernel, words, extent, scratch, (a, b, c))


class _Call:
    """A product that can be timed."""

    def __init__(
        self,
        kernel: Callable[[int, int, int, int], None],
        words: np.ndarray,
        extent: int,
        scratch: np.ndarray,
        operands: tuple[np.ndarray, ...],
    ):
        self._kernel, self._alive = kernel, (words, scratch, operands)
        self._args = (words.ctypes.data, 0, extent, -(-scratch.ctypes.data // 64) * 64)
        self._count = 1
        self._count = max(1, int(_SECONDS / max(self.seconds(), 1e-9)))

    def seconds(self) -> float:
        """CPU time of one call."""
        start = time.thread_time()
        for _ in range(self._count):
            self._kernel(*self._args)
        return (time.thread_time() - start) / self._count
