"""Attention by tiles beside attention by matrices and, where it can be imported, PyTorch's.

Run ``python benchmarks/attention.py [TOKENS ...]``: `scaled_dot_product_attention` alone and with its
gradients, causal and not, of sequences of so many tokens. One thread, in CPU time; the contestants take
turns, each figure is the best of its rounds. *tiles* is the kernel that has no matrix of weights, *matrices*
what it is without that kernel (products and a softmax); which of the two a graph gets goes by sizes, and is
marked.

Memory is what one call with gradients adds to the highest resident memory of a process of its own, which has
made the call once on a short sequence.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import turns

turns.hold(1)

import numpy as np  # noqa: E402

import graphflow as gf  # noqa: E402
from graphflow.compiler import pipeline  # noqa: E402
from graphflow.compiler.ops import attention as declared  # noqa: E402
from graphflow.nn import functional as F  # noqa: E402

#: Heads of all batch items together, tokens, and numbers of a head.
SHAPES = ((48, 64, 32), (8, 128, 64), (8, 256, 64), (8, 512, 64), (4, 1024, 64), (2, 2048, 64))
MB = 1e6

pipeline.always_verify = True  # or the second contestant would take the first one's plan from the cache

Call = Callable[[], object]


def arrays(heads: int, tokens: int, size: int) -> list[np.ndarray]:
    """Queries, keys, values and the result's cotangent."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1, heads, tokens, size)).astype(np.float32) for _ in range(4)]


def graphflow_calls(operands: list[np.ndarray], causal: bool, matrices: bool) -> tuple[Call, Call]:
    """Attention and attention with gradients, compiled with `matrices` of weights or without."""

    def attend(q: gf.Tensor, k: gf.Tensor, v: gf.Tensor) -> gf.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal)

    def differentiate(q: gf.Tensor, k: gf.Tensor, v: gf.Tensor, g: gf.Tensor) -> Any:
        _, pull = gf.func.vjp(attend, q, k, v)
        return pull(g)

    forward, both = gf.compile(attend), gf.compile(differentiate)
    q, k, v, g = (gf.tensor(a) for a in operands)
    usual = declared._is_short
    declared._is_short = lambda node: matrices
    forward(q, k, v)
    both(q, k, v, g)
    declared._is_short = usual
    return lambda: forward(q, k, v), lambda: both(q, k, v, g)


def torch_calls(operands: list[np.ndarray], causal: bool) -> tuple[Call, Call]:
    """The same by PyTorch."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    attend = torch.nn.functional.scaled_dot_product_attention
    q, k, v, g = (torch.tensor(a) for a in operands)
    trained = [t.clone().requires_grad_() for t in (q, k, v)]
    return (
        lambda: attend(q, k, v, is_causal=causal),
        lambda: torch.autograd.grad(attend(*trained, is_causal=causal), trained, g),
    )


def calls_of(who: str, operands: list[np.ndarray], causal: bool) -> tuple[Call, Call]:
    """A contestant's two calls."""
    if who == "torch":
        return torch_calls(operands, causal)
    return graphflow_calls(operands, causal, who == "matrices")


def contestants() -> list[str]:
    """All, without those that can't be imported."""
    try:
        importlib.import_module("torch")
    except ImportError:
        return ["tiles", "matrices"]
    return ["tiles", "matrices", "torch"]


def resident(field: str) -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at most."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError(f"/proc/self/status doesn't tell {field}")
    return int(found[1]) * 1024


def measure_memory(who: str, shape: tuple[int, int, int], causal: bool) -> None:
    """Prints what a call with gradients adds to this process's memory at most."""
    calls_of(who, arrays(1, 8, shape[2]), causal)[1]()
    operands = arrays(*shape)
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    calls_of(who, operands, causal)[1]()
    print(json.dumps(resident("VmHWM") - before))


def memory(who: str, shape: tuple[int, int, int], causal: bool) -> float:
    """Megabytes, from a second process, which finds its kernels compiled."""
    command = [sys.executable, __file__, "--memory", who, *map(str, shape), str(int(causal))]
    for _ in range(2):
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(json.loads(found)) / MB


def main() -> None:
    """Prints one line for each shape and kind."""
    wanted = {int(word) for word in sys.argv[1:]}
    names = contestants()
    print("milliseconds, and megabytes of a call with gradients; * is what a graph gets")
    for shape in SHAPES:
        if wanted and shape[1] not in wanted:
            continue
        _, tokens, size = shape
        chosen = "matrices" if tokens**2 <= declared.SHORT and tokens <= size else "tiles"
        for causal in (False, True):
            calls = {who: calls_of(who, arrays(*shape), causal) for who in names}
            print(f"{shape[0]} heads x {shape[1]} tokens x {shape[2]}{', causal' * causal}", flush=True)
            for title, part in (("forward", 0), ("with gradients", 1)):
                times = turns.best([pair[part] for pair in calls.values()])
                pairs = zip(names, times, strict=True)
                cells = [f"{who}{'*' * (who == chosen)} {1e3 * seconds:8.3f}" for who, seconds in pairs]
                print(f"    {title:15}", "   ".join(cells), flush=True)
            cells = [f"{who}{'*' * (who == chosen)} {memory(who, shape, causal):8.1f}" for who in names]
            print(f"    {'memory':15}", "   ".join(cells), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        who, *sizes, causal = sys.argv[2:]
        measure_memory(who, (int(sizes[0]), int(sizes[1]), int(sizes[2])), causal == "1")
    else:
        main()
