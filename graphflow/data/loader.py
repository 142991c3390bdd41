"""DataLoader: batches in an order that three integers describe."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from graphflow.data.collate import default_collate
from graphflow.data.order import permutation, seed_of

_AHEAD = 2  # batches in flight per worker


class DataLoader:
    """Iterates over a dataset in batches; each iteration is an epoch. As ``torch.utils.data.DataLoader``.

    The order is a pure function of (seed, epoch, index): ``state_dict()`` holds these three integers, and a
    loader with the same dataset and options goes on exactly from there after ``load_state_dict``. The seed is
    `seed`, or the generator's, or drawn from graphflow's generator when the loader is made. With
    `num_workers` threads, batches are prepared ahead; they arrive in the same order. `pin_memory` is accepted
    for compatibility and means nothing here.
    """

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool = False,
        *,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        generator: Any = None,
        seed: int | None = None,
    ):
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(
                f"batch_size should be a positive integer value, but got batch_size={batch_size}"
            )
        if num_workers < 0:
            raise ValueError(
                "num_workers option should be non-negative; use num_workers=0 to disable prefetching"
            )
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = bool(shuffle)
        self.num_workers = num_workers
        self.collate_fn = collate_fn
        self.drop_last = drop_last
        self.seed = seed_of(seed, generator) if self.shuffle or seed is not None else 0
        self._epoch = 0  # of the iteration that runs, or that comes next
        self._index = 0  # samples of it that were handed out
        self._started = False  # whether iterating again means another epoch

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        total = len(self.dataset)
        return total // self.batch_size if self.drop_last else -(-total // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if self._started:  # the last iteration was left early
            self._epoch, self._index = self._epoch + 1, 0
        self._started = True
        return self._batches(self._epoch, self._index)

    def _batches(self, epoch: int, start: int) -> Iterator[Any]:
        order = (
            permutation(len(self.dataset), self.seed, epoch) if self.shuffle else np.arange(len(self.dataset))
        )
        end = len(self) * self.batch_size if self.drop_last else len(order)
        starts = range(start, end, self.batch_size)
        pieces = (order[i : min(i + self.batch_size, end)] for i in starts)
        batches = self._prefetched(pieces) if self.num_workers else map(self._batch, pieces)
        for first, batch in zip(starts, batches, strict=True):
            if self._epoch == epoch:
                self._index = min(first + self.batch_size, end)
            yield batch
        if self._epoch == epoch:
            self._epoch, self._index, self._started = epoch + 1, 0, False

    def _batch(self, indices: np.ndarray) -> Any:
        if self.collate_fn is None and hasattr(self.dataset, "take_batch"):
            return self.dataset.take_batch(indices)
        return (self.collate_fn or default_collate)([self.dataset[i] for i in indices.tolist()])

    def _prefetched(self, pieces: Iterator[np.ndarray]) -> Iterator[Any]:
        """The batches in order, prepared by threads a few steps ahead."""
        waiting: deque[Future[Any]] = deque()
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="graphflow-data")
        try:
            for indices in pieces:
                waiting.append(pool.submit(self._batch, indices))
                if len(waiting) > _AHEAD * self.num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

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
        if epoch < 0 or not 0 <= index <= len(self.dataset):
            raise ValueError(
                f"a loader's state has epoch >= 0 and index in 0 … {len(self.dataset)}, got {epoch} and "
                f"{index}"
            )
        self.seed, self._epoch, self._index, self._started = seed, epoch, index, False
