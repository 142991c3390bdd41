"""What it takes from starting a process to the end of the first training step, and where the time goes.

usage: start.py [-w a,b] [-r ROUNDS] [--threads N] [--parts]
Every workload is started with an empty kernel cache and then once more with what the first process left
there, in `ROUNDS` rounds of which the quickest counts. Bytecode of all modules is there from the beginning,
as it is after an installation. Prints wall-clock and CPU seconds (of all threads; what to read on a busy
machine); --parts adds a table of CPU milliseconds by part.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PYTHON = os.environ.get("GRAPHFLOW_PYTHON", sys.executable)
WORKLOADS = "twolayer,mlp,lenet,cnn,gpt,lstm,chain,norm,dispatch"


class Parts:
    """CPU seconds by name; time in a watched function that another calls counts for the inner one only."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]

    def add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def call(self, name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a function on the clock. One thread does so: `_inner` is a stack of what runs in what."""
        before = time.process_time()
        self._inner.append(0.0)
        try:
            return function(*args, **kwargs)
        finally:
            whole = time.process_time() - before
            self.add(name, whole - self._inner.pop())
            self._inner[-1] += whole

    def watch(self, owner: Any, attribute: str, name: str) -> None:
        """Puts a function or method of graphflow on the clock, whoever calls it."""
        function = getattr(owner, attribute)

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            return self.call(name, function, *args, **kwargs)

        setattr(owner, attribute, timed)


def watch_all(parts: Parts) -> None:
    """Puts everything from the trace to the first run on the clock."""
    named = functools.partial(importlib.import_module, package="graphflow")
    api, pipeline, matmul = named(".api"), named(".compiler.pipeline"), named(".compiler.codegen.matmul")
    llvm, cache, native = named(".compiler.codegen.llvm"), named(".runtime.cache"), named(".runtime.native")
    executor, loader = named(".runtime.executor"), named(".runtime.loader")
    timed, front = pipeline._timed, pipeline._front

    def pass_on_the_clock(name: str, seconds: Any, function: Any, *args: Any) -> Any:
        kind = {"memory": "memory plan, kernel text", "emit": "commands"}.get(name, f"pass {name}")
        return timed(name, seconds, functools.partial(parts.call, kind, function), *args)

    def front_on_the_clock() -> Any:
        if "numba" not in sys.modules:
            module = parts.call("import numba", front)
            parts.watch(module, "lower", "Numba front end")
        return front()

    pipeline._timed, pipeline._front = pass_on_the_clock, front_on_the_clock
    parts.watch(api, "trace_function", "trace")
    parts.watch(matmul, "text", "matrix core's text")
    parts.watch(llvm, "_module", "LLVM parse")
    parts.watch(llvm, "_optimise", "LLVM optimise")
    parts.watch(llvm, "_emitted", "LLVM emit")
    parts.watch(loader, "load", "load")
    parts.watch(native, "_load", "executor's loop")
    parts.watch(named(".plans"), "place", "digest of the graph")
    parts.watch(named(".plans").Place, "find", "read the plan")
    parts.watch(named(".plans").Place, "keep", "write the plan")
    parts.watch(cache.Cache, "get", "read the cache")
    parts.watch(cache.Cache, "put", "write the cache")
    parts.watch(executor.Executor, "run", "first run")


def child(workload: str, begun: float, parts_wanted: bool) -> dict[str, Any]:
    """One process: seconds until everything is imported, and until the first step is done."""
    parts = Parts()
    parts.add("interpreter", time.process_time())
    before = time.perf_counter()
    for name in ("numpy", "llvmlite.binding", "graphflow"):
        parts.call(f"import {name.split('.')[0]}", importlib.import_module, name)
    imported = time.perf_counter()
    workloads = importlib.import_module("peers_graphflow")
    if parts_wanted:
        watch_all(parts)
    step = parts.call("model and data", workloads.ALL[workload])
    parts.call("rest of the call", step)
    done = time.perf_counter()
    cache = importlib.import_module("graphflow.runtime.cache")
    return {
        "import": imported - before,
        "ready": done - before,
        "process": time.monotonic() - begun,
        "cpu": time.process_time(),
        "kernels": cache.compile_count(),
        "parts": parts.seconds,
    }


def start(workload: str, cache: str, bytecode: str, threads: int | None, parts: bool) -> dict[str, Any]:
    """Runs `child` in a process of its own."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"GRAPHFLOW_CACHE": cache, "PYTHONPYCACHEPREFIX": bytecode}
    if threads:
        environment["GRAPHFLOW_NUM_THREADS"] = str(threads)
    line = [PYTHON, __file__, "--child", workload, str(time.monotonic()), *(["--parts"] if parts else [])]
    out = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(out.stdout)
    return told


def pair(workload: str, bytecode: str, threads: int | None, parts: bool) -> tuple[dict[str, Any], ...]:
    """A first process with an empty cache, and a second one."""
    with tempfile.TemporaryDirectory() as cache:
        first = start(workload, cache, bytecode, threads, parts)
        return first, start(workload, cache, bytecode, threads, parts)


def table(title: str, columns: dict[str, dict[str, float]]) -> None:
    """Milliseconds by part (rows) and workload (columns)."""
    names = dict.fromkeys(name for column in columns.values() for name in column)
    print(f"\n{title:28s}" + "".join(f"{w:>10s}" for w in columns))
    for name in names:
        print(f"{name:28s}" + "".join(f"{c.get(name, 0) * 1e3:10.0f}" for c in columns.values()))
    print(f"{'all':28s}" + "".join(f"{sum(c.values()) * 1e3:10.0f}" for c in columns.values()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-w", default=WORKLOADS)
    parser.add_argument("-r", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--child", nargs=2)
    a = parser.parse_args()
    if a.child:
        print(json.dumps(child(a.child[0], float(a.child[1]), a.parts)))
        return
    workloads = a.w.split(",")
    with tempfile.TemporaryDirectory() as bytecode:
        pair("dispatch", bytecode, None, False)  # leaves the bytecode
        print("seconds     import   empty cache, process (CPU)   second process, from import (CPU)  compiled")
        for w in workloads:
            rounds = [pair(w, bytecode, a.threads, False) for _ in range(a.r)]
            cold, cold_cpu = (min(first[k] for first, _ in rounds) for k in ("process", "cpu"))
            warm, warm_cpu = (min(second[k] for _, second in rounds) for k in ("ready", "cpu"))
            imported = min(second["import"] for _, second in rounds)
            told = f"{w:9s} {imported:8.2f} {cold:21.2f} ({cold_cpu:.2f}) {warm:28.2f} ({warm_cpu:.2f})"
            print(f"{told} {rounds[0][0]['kernels']:9d}", flush=True)
        if a.parts:
            seen = {w: pair(w, bytecode, 1, True) for w in workloads}
            table("CPU ms, empty cache", {w: first["parts"] for w, (first, _) in seen.items()})
            table("CPU ms, second process", {w: second["parts"] for w, (_, second) in seen.items()})


sys.path.insert(0, str(HERE))
main()
