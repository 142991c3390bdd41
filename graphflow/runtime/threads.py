"""The thread pool: native threads that walk a command array beside the caller.

There is one pool in a process. It starts a worker when a run first needs it; workers are native threads
(pthreads) that never touch Python, spin for a moment after a job and then sleep. One run at a time has the
pool: a caller that finds it taken runs on its own thread, which gives the same bits. A forked child starts a
pool of its own.
"""

from __future__ import annotations

import atexit
import ctypes
import math
import os
import signal
from pathlib import Path

import numpy as np

from graphflow import config
from graphflow.runtime import native, words
from graphflow.runtime.locks import ForkLock

# How long (ns) a thread that waits for others spins before it sleeps.
SPIN_NS = 100_000

_CPUS = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


def physical_cores(affinity: set[int], cpus: Path = _CPUS) -> int:
    """How many physical cores the CPUs in `affinity` belong to, by sysfs; without it each CPU counts."""
    cores = set()
    for number in affinity:
        try:
            cores.add((cpus / f"cpu{number}" / "topology" / "thread_siblings_list").read_text().strip())
        except OSError:
            cores.add(f"cpu{number}")
    return max(1, len(cores))


def quota_cores(cgroup: Path = _CGROUP) -> int | None:
    """How many CPUs' time this process's control group (version 2) may use, rounded up; None: no limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def default_threads() -> int:
    """GRAPHFLOW_NUM_THREADS, or as many threads as there are physical cores that this process may use."""
    chosen = config.settings().threads
    if chosen is not None:
        return chosen
    cores = physical_cores(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else available_cpus()
    return min(cores, quota_cores() or cores)


def compile_threads() -> int:
    """GRAPHFLOW_NUM_THREADS, or as many threads as there are logical CPUs for this process, and at most 16.

    A compiler waits for memory most of the time, so that it gains from a core's second thread.
    """
    cpus = available_cpus()
    return config.settings().threads or min(cpus, quota_cores() or cpus, 16)


def available_cpus() -> int:
    """How many logical CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_threads: int | None = None


def get_num_threads() -> int:
    """How many threads a step may use, as ``torch.get_num_threads``."""
    global _threads
    if _threads is None:
        _threads = default_threads()
    return _threads


def set_num_threads(count: int) -> None:
    """Sets how many threads a step may use, from the next step on, as ``torch.set_num_threads``.

    Results don't depend on it. ValueError unless `count` is from 1 to 1024.
    """
    global _threads
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= config.MAX_THREADS:
        most = config.MAX_THREADS
        raise ValueError(f"the number of threads is a whole number from 1 to {most}, not {count!r}")
    _threads = count
    # threads that nothing will use any more would still wake up for every job
    if pool.size > count:
        pool.stop(timeout=1.0)


class Pool:
    """Native worker threads. `lend` and `give_back` go around a run; `stop` ends all workers."""

    def __init__(self) -> None:
        # reentrant, so that Ctrl-C between taking and giving back doesn't lose it for its thread
        self._lock = ForkLock(reentrant=True)
        self._forget()

    def _forget(self) -> None:
        self._state = np.zeros(words.POOL_WORDS + 8, np.int64)
        address = int(self._state.ctypes.data)
        self._address = -(-address // 64) * 64
        self._workers: list[np.ndarray] = []
        self._ready = False

    @property
    def size(self) -> int:
        """Threads that a job can have now without starting another: the workers and the caller."""
        return len(self._workers) + 1

    def lend(self, threads: int) -> int:
        """The pool's address, for a job of `threads` threads, or 0 when another caller has it."""
        if not self._lock.acquire(False):
            return 0
        if self.size < threads:
            try:
                self._start(threads)
            except BaseException:
                self._lock.release()
                raise
            if self.size < threads:
                self._lock.release()
                return 0
        return self._address

    def give_back(self) -> None:
        """Ends a loan."""
        self._lock.release()

    def stop(self, timeout: float | None = None) -> bool:
        """Ends all workers once no caller has the pool; False when one has it for `timeout` seconds."""
        if not self._lock.acquire(True, -1 if timeout is None else timeout):
            return False
        try:
            if self._workers:
                native.native().stop(self._address)
                join = ctypes.CDLL(None).pthread_join
                for worker in self._workers:
                    join(ctypes.c_void_p(int(worker[words.WORKER_HANDLE])), None)
            self._forget()
        finally:
            self._lock.release()
        return True

    def _start(self, threads: int) -> None:
        process = ctypes.CDLL(None)
        if not self._ready:
            process.pthread_mutex_init(ctypes.c_void_p(self._address + 8 * words.MUTEX), None)
            for condition in (words.STAGE_CONDITION, words.INSIDE_CONDITION):
                process.pthread_cond_init(ctypes.c_void_p(self._address + 8 * condition), None)
            self._ready = True
        # a thread that spins where there are more threads than CPUs keeps the one it waits for from running
        spin = SPIN_NS if threads <= available_cpus() else 0
        ctypes.c_int64.from_address(self._address + 8 * words.SPIN).value = spin
        entry = ctypes.c_void_p(native.native().worker)
        stage = int(ctypes.c_int64.from_address(self._address + 8 * words.STAGE).value)
        # workers inherit the mask, so signals go to threads that can handle them
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            while self.size < threads:
                worker = np.zeros(words.WORKER_WORDS, np.int64)
                worker[words.WORKER_POOL] = self._address
                worker[words.WORKER_INDEX] = self.size
                worker[words.WORKER_SEEN] = stage
                address = int(worker.ctypes.data)
                handle = ctypes.c_void_p(address + 8 * words.WORKER_HANDLE)
                if process.pthread_create(handle, None, entry, ctypes.c_void_p(address)) != 0:
                    break  # the system allows no more threads; runs that need them use one
                self._workers.append(worker)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


pool = Pool()


def _at_exit() -> None:
    # a daemon thread in the middle of a long run keeps the pool; its workers end with the process
    pool.stop(timeout=1.0)


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool._forget)
