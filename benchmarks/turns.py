"""What the benchmarks share in which contestants take turns within one process.

To be imported before NumPy is, which takes its number of threads from the environment then.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence

ROUNDS = 15
SECONDS = 0.02  # of one turn


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options of all, with the module's text as help."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--rounds", type=int, default=ROUNDS)
    return made


def hold(threads: int) -> None:
    """Gives every contestant so many threads, and the process as many CPUs."""
    libraries = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GRAPHFLOW_NUM_THREADS")
    os.environ.update(dict.fromkeys(libraries, str(threads)))
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def best(calls: Sequence[Callable[[], object]], threads: int = 1, rounds: int = ROUNDS) -> list[float]:
    """Seconds of one call of each at best: of CPU time for one thread, on the wall for more."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    counts, results = [], [float("inf")] * len(calls)
    for call in calls:
        call()
        start = clock()
        call()
        counts.append(max(1, int(SECONDS / max(clock() - start, 1e-6))))
    for _ in range(rounds):
        for i, (call, count) in enumerate(zip(calls, counts, strict=True)):
            start = clock()
            for _ in range(count):
                call()
            results[i] = min(results[i], (clock() - start) / count)
    return results


def head(threads: int, unit: str) -> None:
    """Prints the first lines of a table of graphflow's figures and PyTorch's."""
    print(f"float32, {threads} thread(s); ratio: PyTorch's time to graphflow's")
    print(f"{'':48s}{'graphflow':>20s}{'torch':>20s}")
    print(f"{'':48s}" + f"{'ms':>10s}{unit:>10s}" * 2 + f"{'ratio':>8s}")


def row(title: str, seconds: Sequence[float], work: float) -> float:
    """Prints a line of it, with `work` a second in billions; gives the ratio."""
    ratio = seconds[1] / seconds[0]
    figures = "".join(f"{1e3 * each:10.3f}{1e-9 * work / each:10.1f}" for each in seconds)
    print(f"{title:48s}{figures}{ratio:8.2f}", flush=True)
    return ratio
