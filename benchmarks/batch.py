"""What a smaller batch costs, compared with its share of the work.

usage: batch.py [-w mlp,twolayer,lenet,cnn,gpt,lstm] [-n 17] [--threads N] [-r REPEATS]
Trains with the workload's own batch and with its first `n` examples (n / 128 of a batch that is small
itself), in turn in one process. Prints the time of both steps, the first call at the new size, and the
ratio of the times divided by the ratio of the work, which is 1.00 where a small batch is as efficient as a
large one. Work is the FLOPs and bytes of all kernels, added up: weights and their update are work, too,
that doesn't shrink with the batch. Beside it the same by the compiler's own estimate of nanoseconds. The
least time of all repeats counts: CPU time with one thread (the default), else wall-clock time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import peers_graphflow

import graphflow as gf
from graphflow.dims import evaluate
from graphflow.nn import Module
from graphflow.optim import Optimizer

Step = Callable[..., gf.Tensor]


Batch = tuple[gf.Tensor, ...]


def train(model: Module, loss_of: Step, batch: Batch, optimizer: Optimizer) -> tuple[Step, Any]:
    """In place of `peers_graphflow._train`: the compiled step itself, and its batch."""

    @gf.compile
    def train_step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return train_step, batch


def least(step: Step, batch: Batch, clock: Callable[[], float], least_seconds: float) -> float:
    """Seconds of one step, from as many as take `least_seconds` together."""
    count, begin = 0, clock()
    while clock() - begin < least_seconds or count < 2:
        step(*batch)
        count += 1
    return (clock() - begin) / count


def work(step: Step, sizes: dict[str, int]) -> tuple[int, int]:
    """FLOPs and bytes together, and the compiler's estimate of nanoseconds, at the given sizes."""
    told = step.explain()  # type: ignore[attr-defined]
    commands = told._compiled.program.commands
    flops_and_bytes = evaluate(told.flops, sizes) + evaluate(told.bytes, sizes)
    return flops_and_bytes, sum(evaluate(command.work, sizes) for command in commands)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("-w", default="mlp")
    parser.add_argument("-n", type=int, default=17)
    parser.add_argument("-r", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    a = parser.parse_args()
    gf.set_num_threads(a.threads)
    clock = time.thread_time if a.threads == 1 else time.perf_counter
    peers_graphflow._train = train
    for name in a.w.split(","):
        step, whole = peers_graphflow.ALL[name]()
        size = whole[0].shape[0]
        n = a.n if size >= 2 * a.n else max(1, size * a.n // 128)
        part = tuple(gf.tensor(x.numpy()[:n].copy()) for x in whole)
        step(*whole)
        begin = clock()
        step(*part)
        first = clock() - begin
        arenas = step.explain().memory.arenas  # one for each size, the latest at the end
        (of_whole, ns_whole), (of_part, ns_part) = (work(step, sizes) for sizes, _ in arenas)
        times = [[least(step, x, clock, 0.02) for x in (whole, part)] for _ in range(a.r)]
        full, small = (min(t[i] for t in times) for i in (0, 1))
        cost = small / full
        print(
            f"{name:9s} batch {size}: {full * 1e6:.0f} us, batch {n}: {small * 1e6:.0f} us "
            f"(first call {first * 1e6:.0f} us), times {cost:.3f}, work {of_part / of_whole:.3f}, "
            f"cost / share of work {cost / (of_part / of_whole):.2f} "
            f"(by estimated time {cost / (ns_part / ns_whole):.2f})",
            flush=True,
        )


main()
