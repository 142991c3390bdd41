"""What more threads bring to each of the nine workloads, and that they never cost anything.

usage: threads.py [-w a,b] [-t 1,2] [-r ROUNDS] [-b SECONDS]
Steps with each number of threads take turns in one process. Prints the median step in microseconds for each,
and the first one's time divided by it (the median of the rounds' ratios): below 0.95 more threads cost too
much.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import peers_graphflow

import graphflow as gf


def main() -> None:
    """Prints a line for each workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-w", default=",".join(peers_graphflow.ALL), help="workloads")
    parser.add_argument("-t", default=f"1,{max(2, os.cpu_count() or 2)}", help="numbers of threads")
    parser.add_argument("-r", type=int, default=9, help="rounds")
    parser.add_argument("-b", type=float, default=0.1, help="seconds of one turn")
    options = parser.parse_args()
    counts = [int(t) for t in options.t.split(",")]
    for name in options.w.split(","):
        step = peers_graphflow.ALL[name]()
        for count in counts:
            gf.set_num_threads(count)
            step()
        rounds = [[turn(step, count, options.b) for count in counts] for _ in range(options.r)]
        told = []
        for at, count in enumerate(counts):
            taken = statistics.median(r[at] for r in rounds)
            ratio = statistics.median(r[0] / r[at] for r in rounds)
            told.append(f"{count} thread{'s' if count > 1 else ''} {taken * 1e6:10.1f} us ({ratio:4.2f})")
        print(f"{name:9s} {'   '.join(told)}", flush=True)


def turn(step: Callable[[], object], threads: int, seconds: float) -> float:
    """The median time of a step with so many threads."""
    gf.set_num_threads(threads)
    for _ in range(3):
        step()
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


if __name__ == "__main__":
    main()
