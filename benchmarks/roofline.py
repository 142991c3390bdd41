"""How near every kernel of the nine workloads comes to what this machine can do.

usage: roofline.py [-w a,b] [-n STEPS] [--threads N]
For each kernel: microseconds at best, share of the step, threads, GB/s and GFLOP/s, and the share of the
roofline (1 is as good as can be; more than that means that its data was nearer than the rest of the step's).
"""

import argparse
import os

import peers_graphflow

import graphflow as gf
from graphflow import engine
from graphflow.engine import Engine
from graphflow.explain import Explanation
from graphflow.runtime.executor import Profiled


def main() -> None:
    """Prints a table for each workload."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-w", default=",".join(peers_graphflow.ALL), help="workloads")
    parser.add_argument("-n", type=int, default=30, help="steps")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    gf.set_num_threads(options.threads)
    for name in options.w.split(","):
        table(name, options.n)


def table(name: str, steps: int) -> None:
    """Profiles one workload and prints its kernels."""
    step = peers_graphflow.ALL[name]()
    step()
    seen: dict[int, Engine] = {}

    def observer(source: Engine, _: Profiled) -> None:
        seen[id(source)] = source

    engine.observe(observer)
    for _ in range(steps):
        step()
    engine.ignore(observer)
    reports = [kernel for source in seen.values() for kernel in Explanation(source, []).kernels]
    rows = [(k.label, ", ".join(k.lines[-1:]), t) for k in reports for t in k.times]
    total = sum(t.nanoseconds for _, _, t in rows) or 1
    print(f"{name}: {total / 1e3:.1f} us in kernels")
    print(f"  {'us':>9} {'%':>5} {'threads':>7} {'GB/s':>7} {'GFLOP/s':>8} {'roofline':>8}  kernel")
    for label, line, t in sorted(rows, key=lambda r: -r[2].nanoseconds):
        rates = (
            f"{t.bytes / max(t.nanoseconds, 1):7.1f} {t.flops / max(t.nanoseconds, 1):8.1f} {t.roofline:8.0%}"
        )
        share = 100 * t.nanoseconds / total
        print(f"  {t.nanoseconds / 1e3:9.1f} {share:5.1f} {t.threads:7} {rates}  {label} ({line})")


if __name__ == "__main__":
    main()
