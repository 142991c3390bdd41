"""Random graphs, compiled and compared with the evaluator, until stopped.

``python tools/fuzz.py [seed] [count] [size]`` prints the seed of every failure; ``python tools/fuzz.py
SEED 1`` runs that one alone. `size` bounds the steps that a graph is made in (30).
"""

from __future__ import annotations

import random
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from random_graphs import random_case
from test_random_graphs import check_case

from graphflow.compiler import pipeline


def main(first: int, count: int | None, largest: int = 30) -> int:
    """Runs seeds from `first`; the number of failures."""
    pipeline.always_verify = True
    failures, start, seed = 0, time.perf_counter(), first
    while count is None or seed < first + count:
        source = random.Random(seed)
        try:
            check_case(random_case(source, largest), variant=seed % 4)
        except KeyboardInterrupt:
            break
        except Exception:
            failures += 1
            print(f"seed {seed}:\n{traceback.format_exc(limit=-4)}", flush=True)
        seed += 1
        if (seed - first) % 100 == 0:
            rate = (seed - first) / (time.perf_counter() - start)
            print(
                f"{seed - first} graphs from seed {first}, {failures} failures, {rate:.1f} a second",
                flush=True,
            )
    return failures


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    begin = numbers[0] if numbers else int(time.time())
    print(f"first seed {begin}", flush=True)
    failed = main(begin, *(numbers[1:2] or [None]), *numbers[2:])
    sys.exit(1 if failed else 0)
