from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from graphflow import config
from graphflow.runtime import instance, schedule, threads
from graphflow.runtime.executor import Executor
from graphflow.runtime.program import Buffer, BufferArg, Command, SizeArg
from hypothesis import given
from hypothesis import strategies as st

from runtime_kernels import I64, program

BIG = 10_000_000


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    before = threads.get_num_threads()
    yield
    threads.set_num_threads(before)
    monkeypatch.undo()
    config.reload()


def marks(extent: int, grain: int, work: int = BIG):
    """A program that counts, for each item, how often it was done and how often a piece started there."""
    return program(
        ["mark"],
        [Buffer("state", I64, (extent,), "seen"), Buffer("state", I64, (extent,), "starts")],
        [Command(0, (BufferArg(0), BufferArg(1)), extent, grain, False, "mark", work=work)],
    )


def counters(steps: int, length: int = 300):
    """A program that adds 0, 1, 2, ... to all items, with barriers, one command in three on one thread."""
    commands = [
        Command(0, (BufferArg(0), SizeArg(i)), length, 7, True, f"c{i}", work=0 if i % 3 == 1 else BIG)
        for i in range(steps)
    ]
    return program(["increase"], [Buffer("state", I64, (length,), "s")], commands)


@pytest.mark.parametrize("count", [1, 2, 4, 7])
@pytest.mark.parametrize(
    ("extent", "grain"), [(1, 1), (5, 1), (1000, 1), (1000, 16), (1003, 64), (63, 64), (130, 65)]
)
def test_every_item_is_done_once_in_pieces_of_whole_grains(count, extent, grain):
    threads.set_num_threads(count)
    executor = Executor(marks(extent, grain))
    seen, starts = np.zeros(extent, np.int64), np.zeros(extent, np.int64)
    for _ in range(5):
        executor.run([], (seen, starts))
    assert (seen == 5).all()
    assert (np.flatnonzero(starts) % grain == 0).all()
    assert starts.sum() >= 5


@pytest.mark.parametrize("count", [2, 5])
def test_barriers_over_many_runs(count):
    threads.set_num_threads(count)
    steps, runs = 30, 60
    executor = Executor(counters(steps))
    state = np.zeros(300, np.int64)
    for _ in range(runs):
        executor.run([], (state,))
    assert (state == runs * sum(range(steps))).all()
    assert threads.pool.size == count


def test_workers_that_sleep_wake_up():
    threads.set_num_threads(2)
    executor = Executor(counters(3))
    state = np.zeros(300, np.int64)
    for _ in range(5):
        executor.run([], (state,))
        threading.Event().wait(0.01)  # far longer than a worker spins
    assert (state == 5 * 3).all()


def test_callers_share_one_pool():
    threads.set_num_threads(3)
    failures = []

    def call():
        executor = Executor(counters(10))
        state = np.zeros(300, np.int64)
        for _ in range(100):
            executor.run([], (state,))
        if not (state == 100 * 45).all():
            failures.append(state)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for number in (1, 2, 3, 2, 3):
        threads.set_num_threads(number)
        threading.Event().wait(0.005)
    for caller in callers:
        caller.join()
    assert not failures


def test_a_taken_pool_is_not_waited_for():
    threads.set_num_threads(2)
    executor = Executor(marks(1000, 1))
    seen, starts = np.zeros(1000, np.int64), np.zeros(1000, np.int64)
    taken, done = threading.Event(), threading.Event()

    def hold():
        assert threads.pool.lend(2)
        taken.set()
        done.wait()
        threads.pool.give_back()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    executor.run([], (seen, starts))
    done.set()
    holder.join()
    assert (seen == 1).all() and starts.sum() == 1  # in one piece: on the caller's thread


def test_nobody_waits_for_a_worker_that_does_not_come(monkeypatch):
    threads.set_num_threads(2)
    empty = threads.Pool()
    empty._start(1)  # ready, without workers
    absent = SimpleNamespace(lend=lambda count: empty._address, give_back=lambda: None)
    monkeypatch.setattr(instance, "pool", absent)
    executor = Executor(marks(1000, 1))
    seen, starts = np.zeros(1000, np.int64), np.zeros(1000, np.int64)
    executor.run([], (seen, starts))
    assert (seen == 1).all()
    # of its own share most and then the rest, of the other one, which nobody has begun, all at once
    np.testing.assert_array_equal(np.flatnonzero(starts), [0, 375, 500])
    barriers, state = Executor(counters(30)), np.zeros(300, np.int64)
    for _ in range(3):
        barriers.run([], (state,))
    assert (state == 3 * sum(range(30))).all()


def test_stop_and_start_again():
    threads.set_num_threads(3)
    executor = Executor(counters(4))
    state = np.zeros(300, np.int64)
    executor.run([], (state,))
    assert threads.pool.size == 3
    assert threads.pool.stop()
    assert threads.pool.size == 1
    executor.run([], (state,))
    threads.set_num_threads(2)
    assert threads.pool.size == 1
    executor.run([], (state,))
    assert threads.pool.size == 2 and (state == 18).all()


def test_set_num_threads_checks():
    for bad in (0, -1, 1025, 2.0, True, "2"):
        with pytest.raises(ValueError, match="whole number from 1 to 1024"):
            threads.set_num_threads(bad)


def test_physical_cores(tmp_path):
    for cpu, siblings in enumerate(["0,4", "1,5", "2,6", "3,7"] * 2):
        (tmp_path / f"cpu{cpu}" / "topology").mkdir(parents=True)
        (tmp_path / f"cpu{cpu}" / "topology" / "thread_siblings_list").write_text(siblings + "\n")
    assert threads.physical_cores(set(range(8)), tmp_path) == 4
    assert threads.physical_cores({0, 4, 1}, tmp_path) == 2
    assert threads.physical_cores({8, 9}, tmp_path) == 2  # no sysfs entry: each counts
    assert threads.physical_cores(set(), tmp_path) == 1


def test_quota(tmp_path):
    assert threads.quota_cores(tmp_path) is None
    for text, cores in (
        ("max 100000", None),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("x", None),
        ("1 0", None),
    ):
        (tmp_path / "cpu.max").write_text(text)
        assert threads.quota_cores(tmp_path) == cores


def test_default_threads(monkeypatch):
    monkeypatch.setenv("GRAPHFLOW_NUM_THREADS", "3")
    config.reload()
    assert threads.default_threads() == 3
    monkeypatch.delenv("GRAPHFLOW_NUM_THREADS")
    config.reload()
    assert 1 <= threads.default_threads() <= threads.available_cpus()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRAPHFLOW_NUM_THREADS", "0"),
        ("GRAPHFLOW_NUM_THREADS", "two"),
        ("GRAPHFLOW_NUM_THREADS", "1_0"),
        ("GRAPHFLOW_DEBUG", "5"),
        ("GRAPHFLOW_CACHE", "relative/path"),
        ("GRAPHFLOW_CACHE_BYTES", "10T"),
        ("GRAPHFLOW_CACHE_BYTES", "-1"),
    ],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(config.ConfigError, match=f"{name}='{value}'"):
        config.parse({name: value})


def test_settings():
    assert config.parse({}).cache_directory is None
    found = config.parse({"HOME": "/home/u", "GRAPHFLOW_DEBUG": "2", "GRAPHFLOW_CACHE_BYTES": "2m"})
    assert (found.debug, found.threads, found.cache_bytes) == (2, None, 2 << 20)
    assert found.cache_directory == Path("/home/u/.cache/graphflow")
    assert config.parse({"HOME": "/h", "XDG_CACHE_HOME": "/x"}).cache_directory == Path("/x/graphflow")
    assert config.parse({"HOME": "/h", "XDG_CACHE_HOME": "x"}).cache_directory == Path("/h/.cache/graphflow")
    assert config.parse({"HOME": "/h", "GRAPHFLOW_CACHE": "~/c"}).cache_directory == Path("/h/c")
    assert config.parse({"HOME": "/h", "GRAPHFLOW_CACHE": "Off"}).cache_directory is None


@given(st.integers(0, 5000), st.integers(1, 70), st.integers(0, 2_000_000), st.integers(1, 9))
def test_cut(extent, grain, work, count):
    cut = schedule.cut(extent, grain, work, count)
    assert 1 <= cut.threads <= count
    if cut.threads == 1:
        return
    assert work >= schedule.SERIAL_NS and extent > grain
    assert cut.share % grain == 0 and cut.chunk % grain == 0 and 0 < cut.chunk <= cut.share
    assert cut.threads * cut.share >= extent


def test_small_commands_are_shared_where_threads_meet_anyway():
    small, big, tiny = (640, 1, 12_000), (640, 1, 90_000), (640, 1, 900)
    costs = [small, big, small, tiny, small, small, tiny]
    # a loop with a big command, in it one without, and behind them a loop of small ones
    counts = [c.threads for c in schedule.cuts(costs, [(3, 5), (1, 6), (6, 7)], 2)]
    assert counts == [1, 2, 2, 1, 1, 2, 1]
    assert [c.threads for c in schedule.cuts(costs, [(1, 6)], 1)] == [1] * 7


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([1, 1, 2, 4])), max_size=12))
def test_meetings(rows):
    barriers, counts = [b for b, _ in rows], [c for _, c in rows]
    met = schedule.meetings(barriers, counts)
    needed = 0
    for j in range(len(rows)):
        for i in range(j):
            ordered = any(barriers[i + 1 : j + 1]) and (counts[i] > 1 or counts[j] > 1)
            assert not ordered or any(met[i + 1 : j + 1])
            needed += ordered
    assert not (sum(met) and not needed)
    if set(counts) <= {1}:
        assert not any(met)


def run_script(text: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in a new process that can import what these tests do."""
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here.parent), str(here), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(text)],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


SETUP = """
import os, signal, sys, threading, time
import numpy as np
from test_threads import BIG, I64, Buffer, BufferArg, Command, Executor, SizeArg, counters, program, threads
threads.set_num_threads(3)
executor = Executor(counters(10))
state = np.zeros(300, np.int64)
executor.run([], (state,))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_a_pool_of_its_own():
    script = """
    def busy():
        mine = np.zeros(300, np.int64)
        while True:
            executor.run([], (mine,))

    for _ in range(2):
        threading.Thread(target=busy, daemon=True).start()
    for _ in range(10):
        child = os.fork()
        if child == 0:
            for _ in range(20):
                executor.run([], (state,))
            os._exit(0 if (state == 45 * 21).all() and threads.pool.size == 3 else 1)
        assert os.waitpid(child, 0)[1] == 0
    for _ in range(20):
        executor.run([], (state,))
    assert (state == 45 * 21).all()
    print("fine")
    """
    # Python 3.12 and later warn of any fork in a process with threads
    done = run_script(SETUP + textwrap.dedent(script), "-W", "ignore")
    assert done.stdout == "fine\n" and done.returncode == 0, done.stderr


def test_exit_with_threads_in_the_middle_of_runs():
    script = """
    def busy():
        mine = np.zeros(300, np.int64)
        while True:
            executor.run([], (mine,))

    for _ in range(3):
        threading.Thread(target=busy, daemon=True).start()
    time.sleep(0.05)
    print("fine")
    """
    done = run_script(SETUP + textwrap.dedent(script))
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")


def test_interrupt_between_runs():
    # by a timer of the system's: a Python thread may wait for the GIL for ever beside such a loop
    script = """
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        while True:
            executor.run([], (state,))
    except KeyboardInterrupt:
        state[:] = 0
        executor.run([], (state,))
        assert (state == 45).all()
        assert threads.pool.lend(3)
        print("fine")
    """
    done = run_script(SETUP + textwrap.dedent(script))
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")
