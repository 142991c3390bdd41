"""DataLoader: batches in an order that three integers describe."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from graphflow.data.collate import default_collate, default_convert
from graphflow.data.dataset import IterableDataset, batches_of, stands_for
from graphflow.data.order import seed_of
from graphflow.data.randomness import BATCH, WORKER, sample
from graphflow.data.samplers import BatchSampler, RandomSampler, SequentialSampler, order_of
from graphflow.data.workers import Job, Workers, prefetched
from graphflow.random import initial_seed

_AHEAD = 2  # batches in flight per worker
_END = object()


class DataLoader:
    """Iterates over a dataset in batches; each iteration is an epoch. As ``torch.utils.data.DataLoader``.

    The order is a pure function of (seed, epoch, index): ``state_dict()`` holds these three integers, and a
    loader with the same dataset and options goes on exactly from there after ``load_state_dict``. (With a
    sampler that has no ``order(seed, epoch)`` this holds as far as the sampler gives the same indices again.)
    The seed is `seed`, or the sampler's, or the generator's, or drawn from graphflow's generator when the
    loader is made.

    With `num_workers`, batches are prepared ahead, `prefetch_factor` for each worker, and arrive in the same
    order. Workers are threads: they share the dataset instead of copying it, and reading, decoding and
    NumPy's work run beside the training step, which doesn't hold Python's lock. An error in a worker is
    raised where the batch is asked for; RuntimeError after `timeout` seconds without a batch.

    Random transforms and graphflow's own draws (``gf.rand()``) in the dataset and in `collate_fn` give the
    same numbers whatever the number of workers: each sample has a stream of its own. Python's ``random`` and
    ``np.random.rand()`` are one stream for all threads, from which no number comes twice, but who gets which
    is up to chance; `sample_generator` gives NumPy's generator of the sample.

    With ``batch_size=None`` samples come one by one. `pin_memory`, `pin_memory_device`,
    `multiprocessing_context`, `persistent_workers` and `in_order` are accepted for compatibility and mean
    nothing here.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Sequence[Any]] | None = None,
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
        pin_memory_device: str = "",
        in_order: bool = True,
        seed: int | None = None,
    ):
        _check_sizes(batch_size, num_workers, timeout, prefetch_factor)
        if num_workers == 0 and (persistent_workers or multiprocessing_context is not None):
            option = "persistent_workers" if persistent_workers else "multiprocessing_context"
            raise ValueError(f"{option} option needs num_workers > 0")
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
        self.num_workers = num_workers
        self.collate_fn = collate_fn
        self.pin_memory = bool(pin_memory)
        self.drop_last = drop_last
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.generator = generator
        self.prefetch_factor = prefetch_factor or (_AHEAD if num_workers else None)
        self.persistent_workers = bool(persistent_workers)
        if sampler is None and not self._iterable:
            sampler = RandomSampler(dataset) if self.shuffle else SequentialSampler(dataset)
        self.sampler = sampler
        if batch_sampler is None and sampler is not None and batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_sampler = batch_sampler
        self.seed = self._first_seed(seed)
        self._epoch = 0  # of the iteration that runs, or that comes next
        self._index = 0  # samples of it that were handed out
        self._started = False  # whether iterating again means another epoch

    def _first_seed(self, seed: int | None) -> int:
        if seed is None and self.generator is None:
            seed = getattr(self.sampler if self.batch_sampler is None else self.batch_sampler, "seed", None)
        if seed is not None or self.generator is not None:
            return seed_of(seed, self.generator)
        # an order that draws nothing leaves graphflow's generator as it is
        return seed_of(None, None) if self._drawn() else initial_seed()

    def _drawn(self) -> bool:
        """Whether the order takes random numbers."""
        source = self.sampler
        if isinstance(self.batch_sampler, BatchSampler):
            source = self.batch_sampler.sampler
        plain = isinstance(source, SequentialSampler) or (source is not None and order_of(source) is None)
        return self._iterable or not plain

    def __class_getitem__(cls, item: Any) -> type[Self]:
        return cls

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
        for end, batch in self._prefetched(jobs, epoch) if self.num_workers else self._here(jobs):
            if batch is _END:
                break
            if self._epoch == epoch:
                self._index = end
            yield batch
        if self._epoch == epoch:
            self._epoch, self._index, self._started = epoch + 1, 0, False

    def _here(self, jobs: Iterator[Job]) -> Iterator[tuple[int, Any]]:
        return ((end, job()) for end, job in jobs)

    def _prefetched(self, jobs: Iterator[Job], epoch: int) -> Iterator[tuple[int, Any]]:
        def start(number: int) -> None:
            if self.worker_init_fn is not None:
                with sample(self.seed, epoch, number, WORKER):
                    self.worker_init_fn(number)

        count = 1 if self._iterable else self.num_workers
        workers = Workers(count, self.seed, self.dataset, start)
        return prefetched(jobs, workers, (self.prefetch_factor or _AHEAD) * count, self.timeout)

    # -------------------------------------------------------------------------------------- what to prepare

    def _picks(self, epoch: int, start: int) -> Iterator[Job]:
        """The epoch's batches after the first `start` samples, of a dataset with indices."""
        place = 0
        for indices in self._groups(epoch):
            end = place + len(indices)
            if end > start:
                # a state between two batches' ends belongs to a loader with another batch size
                kept, first = indices[max(start - place, 0) :], max(start, place)
                yield end, lambda kept=kept, first=first: self._batch(kept, epoch, first)  # type: ignore[misc]
            place = end

    def _groups(self, epoch: int) -> Iterator[Sequence[Any]]:
        """The epoch's batches as indices, or whatever a sampler of the user's gives."""
        if self.batch_sampler is not None:
            batches = stands_for(self.batch_sampler, "batches", "__iter__")
            for batch in self.batch_sampler if batches is None else batches(self.seed, epoch):
                yield list(batch)
            return
        order = order_of(self.sampler)
        indices = self.sampler if order is None else order(self.seed, epoch).tolist()
        for index in indices or ():
            yield [index]

    def _batch(self, indices: Sequence[Any], epoch: int, first: int) -> Any:
        single = self.batch_sampler is None
        with sample(self.seed, epoch, first, BATCH):
            if not single and self.collate_fn is None:
                whole = self._whole_batch(indices)
                if whole is not NotImplemented:
                    return whole
            samples = self._samples(indices, epoch, first, single)
            if single:
                return (self.collate_fn or default_convert)(samples[0])
            return (self.collate_fn or default_collate)(samples)

    def _whole_batch(self, indices: Sequence[Any]) -> Any:
        take = batches_of(self.dataset)
        if take is None:
            return NotImplemented
        places = np.asarray(indices)
        if places.dtype.kind not in "iu" or places.ndim != 1:
            return NotImplemented
        return take(places.astype(np.int64, copy=False))

    def _samples(self, indices: Sequence[Any], epoch: int, first: int, single: bool) -> list[Any]:
        several = None if single else stands_for(self.dataset, "__getitems__", "__getitem__")
        if several is not None:
            return list(several(list(indices)))
        samples = []
        for place, index in enumerate(indices, first):
            with sample(self.seed, epoch, place):
                try:
                    samples.append(self.dataset[index])
                except Exception as error:
                    error.add_note(f"This was sample {index} of the {type(self.dataset).__name__}.")
                    raise
        return samples

    def _stream(self, epoch: int, start: int) -> Iterator[Job]:
        """The batches of a stream, without end: the last job gives _END."""
        source = iter(self.dataset)
        size = self.batch_size or 1
        place = 0  # samples that were taken

        def draw(count: int) -> list[Any]:
            nonlocal place
            samples: list[Any] = []
            while len(samples) < count:
                with sample(self.seed, epoch, place):
                    found = next(source, _END)
                if found is _END:
                    break
                place += 1
                samples.append(found)
            return samples

        def take() -> Any:
            if place < start:
                draw(start)
            samples = draw(size)
            if not samples or (self.drop_last and len(samples) < size):
                return _END
            with sample(self.seed, epoch, place, BATCH):
                if self.batch_size is None:
                    return (self.collate_fn or default_convert)(samples[0])
                return (self.collate_fn or default_collate)(samples)

        return ((start + (i + 1) * size, take) for i in itertools.count())

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
        source = self.batch_sampler.sampler if isinstance(self.batch_sampler, BatchSampler) else None
        most = len(source) if hasattr(source, "__len__") else None  # type: ignore[arg-type]
        if epoch < 0 or index < 0 or (most is not None and index > most):
            raise ValueError(
                f"a loader's state has epoch >= 0 and index in 0 … {'' if most is None else most}, "
                f"got {epoch} and {index}"
            )
        self.seed, self._epoch, self._index, self._started = seed, epoch, index, False


def _check_sizes(
    batch_size: int | None, num_workers: int, timeout: float, prefetch_factor: int | None
) -> None:
    if batch_size is not None and (not _is_whole(batch_size) or batch_size < 1):
        raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size!r}")
    if not _is_whole(num_workers):
        raise TypeError(f"num_workers option should be an integer, but got {num_workers!r}")
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


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
