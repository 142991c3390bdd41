"""Peak memory of a training step, graphflow beside PyTorch eager, one process each.

Run ``PEERS_PYTHON=venv-with-torch/bin/python GRAPHFLOW_PYTHON=venv/bin/python python benchmarks/memory.py
[-w mlp,cnn] [--threads N]``. For every workload of ``peers_*.py`` it prints two comparisons.

*Values*: bytes of what a step computes beyond what stays from step to step (parameters, optimizer state,
the batch). graphflow: what the executor has allocated, which is the arena of temporary values, the outputs,
and the scratch memory of every thread, in which matrices are packed. PyTorch: the highest level of its CPU
allocator during one step, by the profiler's record of every allocation and release, above the lowest level
in that step, which is where nothing of the step is alive. What MKL and oneDNN allocate inside their calls,
the panels of matrix products among it, isn't in that record; so the ratio is printed with and without our
scratch.

*Process*: growth of resident memory from before the first step to its peak (VmHWM) in ten steps, and the
peak of the whole process with its libraries. This includes everything: compiling (graphflow's second
process is measured, with what the first one compiled in the cache), libraries loaded late, memory of
threads.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
WORKLOADS = ["twolayer", "mlp", "lenet", "cnn", "gpt", "lstm", "chain", "norm", "dispatch"]
STEPS = 10
MB = 1e6


def resident(field: str) -> int:
    """Bytes of this process: ``VmRSS`` now, ``VmHWM`` at most since the last `start_afresh`."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError(f"/proc/self/status doesn't tell {field}")
    return int(found[1]) * 1024


def start_afresh() -> None:
    """Gives free memory back to the system, and sets ``VmHWM`` to what is resident then."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def graphflow_values() -> dict[str, int]:
    """What the executors of all compiled functions have allocated."""
    from graphflow import CompiledFunction

    total = {"arena": 0, "outputs": 0, "scratch": 0}
    for function in [o for o in gc.get_objects() if isinstance(o, CompiledFunction)]:
        for variant in function.variants:
            executor = variant.engine.executor
            for values in executor.kept_assignments:
                held = executor.instance(values).held()
                total["arena"] = max(total["arena"], held.arena)
                total["outputs"] += held.outputs
                total["scratch"] += held.scratch
    return total


def torch_values(step: Callable[[], object]) -> dict[str, int]:
    """The highest level of the allocator above the lowest during a step."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    events = [e for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = lowest = highest = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        level += event.nbytes()
        lowest, highest = min(lowest, level), max(highest, level)
    return {"total": highest - lowest}


def child(framework: str, workload: str, threads: int) -> None:
    """Runs one workload in this process and prints its figures as JSON."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if framework == "torch":
        importlib.import_module("torch").set_num_threads(threads)
    workloads = importlib.import_module(f"peers_{framework}")
    step = workloads.ALL[workload]()
    start_afresh()
    before = resident("VmRSS")
    for _ in range(STEPS):
        step()
    peak = resident("VmHWM")
    values = graphflow_values() if framework == "graphflow" else torch_values(step)
    print(json.dumps({"growth": peak - before, "peak": peak, **values}))


def measured(framework: str, workload: str, threads: int) -> dict[str, Any]:
    """The figures of one workload in a process of its own."""
    variable = "GRAPHFLOW_PYTHON" if framework == "graphflow" else "PEERS_PYTHON"
    python = os.environ.get(variable, sys.executable)
    count = str(threads)
    env = {**os.environ, "OMP_NUM_THREADS": count, "GRAPHFLOW_NUM_THREADS": count}
    command = [python, str(HERE), "--child", framework, workload, "--threads", count]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{framework}, {workload}: {done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """One line for every workload."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-w", default=",".join(WORKLOADS), help="workloads, with commas between")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child, options.threads)
        return
    print(f"MB, {options.threads} thread(s){'':9}values of a step{'':33}process: growth (whole)")
    print(
        f"{'workload':9}{'arena':>9}{'outputs':>9}{'scratch':>9}{'torch':>9}"
        f"{'/torch':>8}{'no scr.':>8}{'graphflow':>19}{'torch':>19}{'/torch':>8}"
    )
    for workload in options.w.split(","):
        measured("graphflow", workload, options.threads)
        own = measured("graphflow", workload, options.threads)
        torch = measured("torch", workload, options.threads)
        values = own["arena"] + own["outputs"]
        processes = [f"{f['growth'] / MB:9.1f} ({f['peak'] / MB:7.1f})" for f in (own, torch)]
        print(
            f"{workload:9}{own['arena'] / MB:9.3f}{own['outputs'] / MB:9.3f}{own['scratch'] / MB:9.3f}"
            f"{torch['total'] / MB:9.3f}{(values + own['scratch']) / torch['total']:8.2f}"
            f"{values / torch['total']:8.2f}{processes[0]:>19}{processes[1]:>19}"
            f"{own['growth'] / torch['growth']:8.2f}",
            flush=True,
        )


main()
