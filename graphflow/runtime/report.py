"""What a profiled run took, as text."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.runtime.executor import CommandTime


def table(times: Sequence[CommandTime]) -> str:
    """One line a command: microseconds, share of all, rates by the compiler's estimates, kernel, label."""
    total = max(sum(t.nanoseconds for t in times), 1)
    lines = [f"{'us':>10} {'%':>6} {'GB/s':>8} {'GFLOP/s':>8}  kernel"]
    for t in times:
        # bytes per nanosecond are gigabytes per second
        rates = [f"{a / t.nanoseconds:8.1f}" if a and t.nanoseconds else " " * 8 for a in (t.bytes, t.flops)]
        name = t.kernel if t.label == t.kernel else f"{t.kernel}  {t.label}"
        lines.append(
            f"{t.nanoseconds / 1e3:10.2f} {100 * t.nanoseconds / total:6.1f} {' '.join(rates)}  {name}"
        )
    lines.append(
        f"{sum(t.nanoseconds for t in times) / 1e3:10.2f}  100.0 {'':17}  total of {len(times)} command(s)"
    )
    return "\n".join(lines)
