"""What one call of a compiled function costs beside its kernels.

usage: dispatch.py [-n CALLS] [-r REPEATS]
For each kind of call, microseconds of one thread's time, the least of the repeats: the whole call, and what
it is made of. `call` is Python's part in calling an object, `guard` the look at arguments and surroundings,
`make` locks, memory and tensors, `run` the kernels; `python` is the same call when it takes the way through
Python. Where PyTorch is there, its time for the same in eager mode comes last.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import graphflow as gf
from graphflow import nn, optim
from graphflow.runtime import words

try:
    import torch
except ImportError:
    torch = None


def main() -> None:
    """Prints a line for each kind of call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-n", type=int, default=10_000, help="calls in a repeat")
    parser.add_argument("-r", type=int, default=20, help="repeats")
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    gf.set_num_threads(1)
    line("", ["all", "call", "guard", "make", "run", "python", "torch"])
    for name, function, args, peer in kinds():
        show(name, function, args, peer, options.n, options.r)


def kinds() -> list[tuple[str, Any, tuple[Any, ...], Callable[[], Any] | None]]:
    """Name, compiled function, arguments, and what PyTorch would do."""
    gf.manual_seed(0)
    w, b, x = gf.randn(16, 16), gf.randn(16), gf.randn(4, 16)
    layer = gf.compile(lambda x: gf.relu(x @ w + b))
    four = gf.compile(lambda x, y, z, k: x * y + z * k)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    for p in model.parameters():
        p.requires_grad_(False)
    pair = gf.compile(lambda x: (x + 1, x * 2))
    scaled = gf.compile(lambda x, rate: x * rate)
    target = gf.randn(4, 4)
    return [
        ("one Tensor", layer, (x,), _peer(x, lambda x, w, b: torch.relu(x @ w + b), w, b)),
        ("one NumPy array", layer, (x.numpy(),), None),
        ("four Tensors", four, (x, x, x, x), _peer(x, lambda x, y, z, k: x * y + z * k, x, x, x)),
        ("a Tensor and a float", scaled, (x, 0.5), _peer(x, lambda x: x * 0.5)),
        ("two results", pair, (x,), _peer(x, lambda x: (x + 1, x * 2))),
        ("a Module, forward", gf.compile(model), (x,), None),
        ("a training step, SGD, momentum", _training(optim.SGD, momentum=0.9), (x, target), None),
        ("a training step, Adam", _training(optim.Adam), (x, target), None),
        ("arguments that require gradients", layer, (gf.randn(4, 16).requires_grad_(),), None),
    ]


def _peer(x: gf.Tensor, function: Callable[..., Any], *others: gf.Tensor) -> Callable[[], Any] | None:
    if torch is None:
        return None
    torch.set_num_threads(1)
    args = [torch.from_numpy(t.numpy().copy()) for t in (x, *others)]
    return lambda: function(*args)


def _training(kind: Any, **options: Any) -> Any:
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 4))
    optimizer = kind(model.parameters(), lr=1e-4, **options)

    @gf.compile
    def step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        loss = ((model(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def show(
    name: str, function: Any, args: tuple[Any, ...], peer: Callable[[], Any] | None, calls: int, repeats: int
) -> None:
    """Times one kind of call and prints its line."""
    for _ in range(3):
        function(*args)
    timed: dict[str, Callable[[], Any]] = {
        "all": lambda: function(*args),
        "python": lambda: function._call(args, {}),
    }
    if peer is not None:
        timed["torch"] = peer
    direct = function._direct.ready[0] if function._direct.ready else None
    if direct is not None and direct(*args) is NotImplemented:
        direct = None
    if direct is not None:
        timed["direct"] = lambda: direct(*args)
    least = dict.fromkeys(timed, np.inf)
    for _ in range(repeats):
        for key, call in timed.items():
            least[key] = min(least[key], seconds(call, calls))
    parts = [""] * 4
    if direct is not None:
        instance = function._direct._made[0]._instance
        with instance.lock:  # it is declined after everything has been looked at
            guard = min(seconds(timed["direct"], calls) for _ in range(repeats))
        plan = instance._plan.values
        count, plan[words.COMMAND_COUNT] = int(plan[words.COMMAND_COUNT]), 0
        try:
            bare = min(seconds(timed["direct"], calls) for _ in range(repeats))
        finally:
            plan[words.COMMAND_COUNT] = count
        whole, alone = least["all"], least["direct"]
        parts = [told(t) for t in (whole - alone, guard, bare - guard, alone - bare)]
    line(name, [told(least["all"]), *parts, told(least["python"]), told(least.get("torch"))])


def told(duration: float | None) -> str:
    """Seconds as microseconds, in words."""
    return "" if duration is None else f"{1e6 * duration:.2f}"


def line(name: str, columns: list[str]) -> None:
    """Prints a line of the table."""
    print(f"{name:34}" + "".join(f"{column:>8}" for column in columns), flush=True)


def seconds(call: Callable[[], Any], calls: int) -> float:
    """This thread's time for one call."""
    begin = time.thread_time()
    for _ in range(calls):
        call()
    return (time.thread_time() - begin) / calls


if __name__ == "__main__":
    main()
