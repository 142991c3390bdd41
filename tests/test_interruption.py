"""Ctrl-C during loops that run without Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import signal, sys
import graphflow as gf

signal.signal(signal.SIGALRM, signal.default_int_handler)
threads, kind = int(sys.argv[1]), sys.argv[2]
gf.set_num_threads(threads)
calls, table = gf.zeros(()), gf.arange(5.0)
wide = gf.ones(1 << 18)


@gf.compile
def last(x, limit):
    calls.add_(1)
    if kind == "scan":
        return gf.fori_loop(0, 10**12 if x.shape[0] == 2 else 3, lambda i, c: c + 1.0, x)
    def step(held):
        c, w = held
        if kind == "checked":  # a bad index is told by the same word
            return c + 1 + table[(c[0] * 0).long()], w
        return c + 1, w * 1.0
    return gf.while_loop(lambda held: (held[0] < limit).all(), step, (x, wide if kind == "wide" else x))[0]


short, endless = gf.zeros(3), gf.zeros(2)
for calls_before in (1, 4):  # of the last one the next is direct
    for x in (short, endless) if kind != "scan" else (short,):
        for _ in range(calls_before):
            assert last(x, 3.0).tolist()[:2] == [3, 3]
    made = calls.item()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        last(endless, float("inf"))
        raise AssertionError("it ended")
    except KeyboardInterrupt:
        print("interrupted")
    assert last(short, 3.0).tolist() == [3, 3, 3]
    assert calls.item() == made + 1  # what was interrupted changed no state
"""


@pytest.mark.parametrize(("kind", "threads"), [("while", 1), ("scan", 2), ("checked", 1), ("wide", 2)])
def test_an_endless_loop_is_interrupted_and_can_be_run_again(kind: str, threads: int, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    command = [sys.executable, str(path), str(threads), kind]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    assert done.stdout == "interrupted\n" * 2
