"""Workers of a data loader: threads that prepare batches ahead."""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

# A batch to prepare: how many samples have been handed out after it, and what prepares it.
Job = tuple[int, Callable[[], Any]]


@dataclass(frozen=True)
class WorkerInfo:
    """Which worker this is, of how many, the loader's seed, and the dataset they share."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


class _Worker(threading.local):
    info: WorkerInfo | None = None


_worker = _Worker()


def get_worker_info() -> WorkerInfo | None:
    """What the worker that runs this is; None outside of workers. As ``torch.utils.data.get_worker_info``."""
    return _worker.info


class Workers:
    """`count` threads, which run jobs in the order they are given.

    They are daemons: one that hangs doesn't keep the process from ending.
    """

    def __init__(self, count: int, seed: int, dataset: Any, start: Callable[[int], None]):
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._closed = False
        self._threads = [
            threading.Thread(
                target=_work,
                args=(self._tasks, WorkerInfo(i, count, seed, dataset), start),
                name=f"graphflow-data-{i}",
                daemon=True,
            )
            for i in range(count)
        ]
        for thread in self._threads:
            thread.start()
        _open.add(self)

    def submit(self, job: Callable[[], Any]) -> Future[Any]:
        """The job's result to come."""
        future: Future[Any] = Future()
        self._tasks.put((future, job))
        return future

    def close(self, wait: bool) -> None:
        """Ends the threads after the jobs they are at; jobs that haven't begun are dropped."""
        if self._closed:
            return
        self._closed = True
        while True:
            try:
                task = self._tasks.get_nowait()
            except queue.Empty:
                break
            if task is not None:
                task[0].cancel()
        for _ in self._threads:
            self._tasks.put(None)
        if wait:
            for thread in self._threads:
                thread.join()


_open: weakref.WeakSet[Workers] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """An iterator that is still open when the process ends must not wait for threads that are gone."""
    for workers in list(_open):
        workers.close(wait=False)


def _work(
    tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None],
    info: WorkerInfo,
    start: Callable[[int], None],
) -> None:
    _worker.info = info
    fault: BaseException | None = None
    try:
        start(info.id)
    except BaseException as error:
        fault = error
    while (task := tasks.get()) is not None:
        future, job = task
        if not future.set_running_or_notify_cancel():
            continue
        if fault is not None:
            future.set_exception(fault)
            continue
        try:
            result = job()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        del task, future, job  # a batch that nobody holds any more must not stay here
        result = None


def prefetched(
    jobs: Iterator[Job], workers: Workers, ahead: int, timeout: float
) -> Iterator[tuple[int, Any]]:
    """The jobs' results in order, prepared up to `ahead` jobs before they are asked for."""
    waiting: deque[tuple[int, Future[Any]]] = deque()
    try:
        for end, job in jobs:
            waiting.append((end, workers.submit(job)))
            if len(waiting) > ahead:
                yield _result(*waiting.popleft(), workers, timeout)
        while waiting:
            yield _result(*waiting.popleft(), workers, timeout)
    finally:
        workers.close(wait=True)


def _result(end: int, future: Future[Any], workers: Workers, timeout: float) -> tuple[int, Any]:
    # whoever interrupts, or has waited long enough, doesn't want to wait for the jobs that still run
    try:
        return end, future.result(timeout or None)
    except KeyboardInterrupt:
        workers.close(wait=False)
        raise
    except TimeoutError:
        if future.done():
            raise  # the dataset's own
        workers.close(wait=False)
        raise RuntimeError(f"DataLoader timed out after {timeout} seconds") from None
