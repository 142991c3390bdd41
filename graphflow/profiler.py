"""Where a step's time goes, kernel by kernel, after ``torch.profiler``.

``with graphflow.profiler.profile() as p:`` around some calls of compiled functions, then
``print(p.key_averages().table())``; `explain()` of the functions tells from then on how near each kernel came
to what the machine can do. Threads meet around every kernel of a profiled run, so steps with many small ones
take longer than they do otherwise. Operations outside compiled functions aren't seen.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from graphflow import absent, engine
from graphflow.engine import Engine
from graphflow.runtime.executor import CommandTime, Profiled

__all__ = ["KernelAverage", "KernelAverages", "ProfilerActivity", "profile"]


class ProfilerActivity(enum.Enum):
    """What is observed."""

    CPU = "cpu"


@dataclass
class KernelAverage:
    """All runs of one kernel of one function: times in microseconds, as ``torch.profiler`` has them.

    ``flops`` and ``bytes`` are sums over the runs, by the compiler's estimate.
    """

    key: str
    count: int = 0
    cpu_time_total: float = 0.0
    flops: int = 0
    bytes: int = 0

    @property
    def cpu_time(self) -> float:
        """Microseconds of a run."""
        return self.cpu_time_total / max(self.count, 1)

    def add(self, time: CommandTime) -> None:
        """Counts what one run of the program told."""
        self.count += time.runs
        self.cpu_time_total += time.nanoseconds / 1e3
        self.flops += time.flops
        self.bytes += time.bytes


class KernelAverages(list[KernelAverage]):
    """The kernels that ran, in the order in which they ran first."""

    def table(self, sort_by: str | None = "cpu_time_total", row_limit: int = 100) -> str:
        """One line a kernel, by `sort_by` ("cpu_time_total", "cpu_time", "count", "flops", "bytes" or None:
        as they ran), at most `row_limit` of them (-1: all). ValueError for another order.
        """
        known = ("cpu_time_total", "cpu_time", "count", "flops", "bytes")
        name = sort_by.removeprefix("self_") if sort_by else None
        if name is not None and name not in known:
            raise ValueError(f"sort_by is one of {', '.join(known)} or None, not {sort_by!r}")
        rows = list(self) if name is None else sorted(self, key=lambda k: -getattr(k, name))
        total = max(self.total_microseconds, 1e-9)
        width = max((len(k.key) for k in rows), default=6)
        lines = [
            f"{'kernel':{width}}  {'total us':>12} {'%':>6} {'runs':>8} {'us a run':>10} {'GB/s':>8}"
            f" {'GFLOP/s':>8}"
        ]
        for k in rows if row_limit < 0 else rows[:row_limit]:
            # per microsecond: megabytes and MFLOP a second
            speed, rate = (
                n / k.cpu_time_total / 1e3 if k.cpu_time_total else 0.0 for n in (k.bytes, k.flops)
            )
            lines.append(
                f"{k.key:{width}}  {k.cpu_time_total:12.1f} {100 * k.cpu_time_total / total:6.1f} {k.count:8}"
                f" {k.cpu_time:10.2f} {speed:8.1f} {rate:8.1f}"
            )
        lines.append(f"{'total':{width}}  {self.total_microseconds:12.1f}")
        return "\n".join(lines)

    @property
    def total_microseconds(self) -> float:
        """The sum over all kernels."""
        return sum(k.cpu_time_total for k in self)


class profile:
    """A context manager that observes every compiled function called inside, in all threads.

    `activities` may hold `ProfilerActivity.CPU` only (ValueError for others). `step`, which marks steps in
    PyTorch, may be called and does nothing.
    """

    def __init__(self, *, activities: Iterable[ProfilerActivity] | None = None):
        for activity in activities or ():
            if activity is not ProfilerActivity.CPU:
                raise ValueError(f"activities holds ProfilerActivity.CPU, not {activity!r}")
        self._found: dict[tuple[Engine, int], KernelAverage] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> profile:
        engine.observe(self._observe)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        engine.ignore(self._observe)

    def step(self) -> None:
        """Nothing: every call counts."""

    def key_averages(self) -> KernelAverages:
        """What was seen so far, by kernel."""
        with self._lock:
            return KernelAverages(k for k in self._found.values() if k.count)

    def __iter__(self) -> Iterator[KernelAverage]:
        return iter(self.key_averages())

    def _observe(self, source: Engine, profiled: Profiled) -> None:
        with self._lock:
            for number, time in enumerate(profiled.times):
                if time.kernel not in ("loop", "end", "branch", "jump"):
                    key = f"{source.graph.name}: {time.label}"
                    self._found.setdefault((source, number), KernelAverage(key)).add(time)


def __getattr__(name: str) -> Any:
    raise AttributeError(absent.message("graphflow.profiler", name, __all__, {}))
