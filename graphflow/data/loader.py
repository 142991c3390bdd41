"""DataLoader: batches in an order that three integers describe."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphflow.data.collate import default_collate, default_convert
from graphflow.data.dataset import IterableDataset
from graphflow.data.order import seed_of
from graphflow.data.randomness import sample
from graphflow.data.samplers import RandomSampler, SequentialSampler

_AHEAD = 2  # batches in flight per worker
_END = object()

# A batch to prepare: how many samples have been handed out after it, and what prepares it.
_Job = tuple[int, Callable[[], Any]]


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


class DataLoader:
    """Iterates over a dataset in batches; each iteration is an epoch. As ``torch.utils.data.DataLoader``.

    The order is a pure function of (seed, epoch, index): ``state_dict()`` holds these three integers, and a
    loader with the same dataset and options goes on exactly from there after ``load_state_dict``. (With a
    sampler that has no ``order(seed, epoch)`` this holds as far as the sampler gives the same indices again.)
    The seed is `seed`, or the sampler's, or the generator's, or drawn from graphflow's generator when the
    loader is made.

    With `num_workers`, batches are prepared ahead, `prefetch_factor` for each worker, and arrive in the same
    order. Workers are threads: they share the dataset instead of copying it, and reading, decoding and
    NumPy's work run beside the training step, which doesn't hold Python's lock. Random transforms draw the
    same numbers whatever the number of workers. An error in a worker is raised where the batch is asked for;
    RuntimeError after `timeout` seconds without a batch.

    With ``batch_size=None`` samples come one by one. `pin_memory`, `multiprocessing_context`,
    `persistent_workers` and `in_order` are accepted for compatibility and mean nothing here.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[Sequence[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        in_order: bool = True,
        seed: int | None = None,
    ):
        _check_sizes(batch_size, num_workers, timeout, prefetch_factor)
        self._iterable = isinstance(dataset, IterableDataset)
        if self._iterable and (shuffle or sampler is not None or batch_sampler is not None):
            raise ValueError(
                "DataLoader with IterableDataset: a stream has its own order; leave out shuffle, sampler and "
                "batch_sampler"
            )
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and "
                    "drop_last"
                )
            batch_size = None
        if batch_size is None and drop_last:
            raise ValueError(
                "batch_size=None option disables auto-batching and is mutually exclusive with drop_last"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = bool(shuffle)
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.collate_fn = collate_fn
        self.drop_last = drop_last
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.prefetch_factor = prefetch_factor or _AHEAD
        self.sampler = sampler
        random = self.shuffle or hasattr(sampler, "order") or self._iterable
        given = getattr(sampler, "seed", None) if seed is None and generator is None else seed
        self.seed = seed_of(given, generator) if random or given is not None else 0
        if sampler is None and not self._iterable:
            self.sampler = RandomSampler(dataset) if self.shuffle else SequentialSampler(dataset)
        self._epoch = 0  # of the iteration that runs, or that comes next
        self._index = 0  # samples of it that were handed out
        self._started = False  # whether iterating again means another epoch

    def __len__(self) -> int:
        """Number of batches in an epoch; TypeError for a stream without a length."""
        if self.batch_sampler is not None:
            return len(self.batch_sampler)  # type: ignore[arg-type]
        total = len(self.dataset if self._iterable else self.sampler)  # type: ignore[arg-type]
        if self.batch_size is None:
            return total
        return total // self.batch_size if self.drop_last else -(-total // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if self._started:  # the last iteration was left early
            self._epoch, self._index = self._epoch + 1, 0
        self._started = True
        return self._batches(self._epoch, self._index)

    def _batches(self, epoch: int, start: int) -> Iterator[Any]:
        jobs = self._stream(epoch, start) if self._iterable else self._picks(epoch, start)
        prepared = self._prefetched(jobs) if self.num_workers else ((end, job()) for end, job in jobs)
        for end, batch in prepared:
            if batch is _END:
                break
            if self._epoch == epoch:
                self._index = end
            yield batch
        if self._epoch == epoch:
            self._epoch, self._index, self._started = epoch + 1, 0, False

    # ------------------------------------------------------------------------------------------ what to
    # prepare

    def _picks(self, epoch: int, start: int) -> Iterator[_Job]:
        """The epoch's batches after the first `start` samples, of a dataset with indices."""
        place = 0
        for indices in self._groups(epoch):
            end = place + len(indices)
            if end > start:
                # a state between two batches' ends belongs to a loader with another batch size
                kept, first = indices[max(start - place, 0) :], max(start, place)
                yield end, lambda kept=kept, first=first: self._batch(kept, epoch, first)  # type: ignore[misc]
            place = end

    def _groups(self, epoch: int) -> Iterator[np.ndarray]:
        if self.batch_sampler is not None:
            for batch in self.batch_sampler:
                yield np.asarray(batch, np.int64)
            return
        order = self._order(epoch)
        size = self.batch_size or 1
        end = len(order) // size * size if self.drop_last else len(order)
        for i in range(0, end, size):
            yield order[i : min(i + size, end)]

    def _order(self, epoch: int) -> np.ndarray:
        if self.sampler is None:
            raise TypeError("a stream has no order")
        if hasattr(self.sampler, "order"):
            return np.asarray(self.sampler.order(self.seed, epoch))
        return np.fromiter(self.sampler, np.int64)

    def _batch(self, indices: np.ndarray, epoch: int, first: int) -> Any:
        single = self.batch_size is None and self.batch_sampler is None
        if not single and self.collate_fn is None and hasattr(self.dataset, "take_batch"):
            return self.dataset.take_batch(indices)
        samples = []
        for place, index in enumerate(indices.tolist(), first):
            with sample(self.seed, epoch, place):
                try:
                    samples.append(self.dataset[index])
                except Exception as error:
                    error.add_note(f"This was sample {index} of the {type(self.dataset).__name__}.")
                    raise
        if single:
            return (self.collate_fn or default_convert)(samples[0])
        return (self.collate_fn or default_collate)(samples)

    def _stream(self, epoch: int, start: int) -> Iterator[_Job]:
        """The batches of a stream, without end: the last job gives _END."""
        source = enumerate(iter(self.dataset))
        size = self.batch_size or 1
        skipped = False

        def take() -> Any:
            nonlocal skipped
            if not skipped:
                skipped = True
                for _ in itertools.islice(source, start):
                    pass
            samples: list[Any] = []
            while len(samples) < size:
                with sample(self.seed, epoch, start + len(samples)):
                    found = next(source, None)
                if found is None:
                    break
                samples.append(found[1])
            if not samples or (self.drop_last and len(samples) < size):
                return _END
            if self.batch_size is None:
                return (self.collate_fn or default_convert)(samples[0])
            return (self.collate_fn or default_collate)(samples)

        return ((start + (i + 1) * size, take) for i in itertools.count())

    # ------------------------------------------------------------------------------------------ workers

    def _prefetched(self, jobs: Iterator[_Job]) -> Iterator[tuple[int, Any]]:
        """The batches in order, prepared by threads a few steps ahead."""
        count = 1 if self._iterable else self.num_workers
        waiting: deque[tuple[int, Future[Any]]] = deque()
        pool = ThreadPoolExecutor(count, thread_name_prefix="graphflow-data")
        numbers = itertools.count()
        try:
            for end, job in jobs:
                waiting.append((end, pool.submit(self._work, job, numbers, count)))
                if len(waiting) > self.prefetch_factor * count:
                    yield self._result(*waiting.popleft())
            while waiting:
                yield self._result(*waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _work(self, job: Callable[[], Any], numbers: Iterator[int], count: int) -> Any:
        if _worker.info is None:
            _worker.info = WorkerInfo(next(numbers), count, self.seed, self.dataset)
            if self.worker_init_fn is not None:
                self.worker_init_fn(_worker.info.id)
        return job()

    def _result(self, end: int, future: Future[Any]) -> tuple[int, Any]:
        try:
            return end, future.result(self.timeout or None)
        except TimeoutError:
            if future.done():
                raise  # the dataset's own
            raise RuntimeError(f"DataLoader timed out after {self.timeout} seconds") from None

    # ------------------------------------------------------------------------------------------ resuming

    def state_dict(self) -> dict[str, int]:
        """``{"seed", "epoch", "index"}``: the next batch starts with sample `index` of that epoch's order."""
        return {"seed": self.seed, "epoch": self._epoch, "index": self._index}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """The next iteration goes on from there. ValueError for anything but three whole numbers."""
        names = ("seed", "epoch", "index")
        values = [state_dict.get(name) for name in names]
        if set(state_dict) != set(names) or not all(type(v) is int for v in values):
            raise ValueError(
                f"a loader's state holds the integers seed, epoch and index, got {dict(state_dict)}"
            )
        seed, epoch, index = (int(state_dict[name]) for name in names)
        known = self.batch_sampler is None and not self._iterable
        most = len(self.sampler) if known else None  # type: ignore[arg-type]
        if epoch < 0 or index < 0 or (most is not None and index > most):
            raise ValueError(
                f"a loader's state has epoch >= 0 and index in 0 … {'' if most is None else most}, "
                f"got {epoch} and {index}"
            )
        self.seed, self._epoch, self._index, self._started = seed, epoch, index, False


def _check_sizes(
    batch_size: int | None, num_workers: int, timeout: float, prefetch_factor: int | None
) -> None:
    if batch_size is not None and (
        isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1
    ):
        raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
    if num_workers < 0:
        raise ValueError(
            "num_workers option should be non-negative; use num_workers=0 to disable prefetching"
        )
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if prefetch_factor is not None and (num_workers == 0 or prefetch_factor < 1):
        raise ValueError(
            "prefetch_factor option could only be specified with num_workers > 0, and is a positive integer"
        )
