"""Samplers: in which order, and how often, a DataLoader takes samples. As ``torch.utils.data``'s.

A sampler of graphflow's own gives the order as a pure function of (seed, epoch), which is what makes a
DataLoader resumable. Iterating over a sampler by itself gives another epoch's order each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np

from graphflow.data.dataset import stands_for
from graphflow.data.order import permutation, seed_of, uniforms


class Sampler:
    """Base class: a subclass defines ``__iter__``, giving indices, and ``__len__``.

    A subclass that defines ``order(seed, epoch)``, giving an int64 array, can be resumed exactly, whatever
    random numbers it uses.
    """

    def __init__(self, data_source: Any = None):
        pass

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} has to define __iter__()")

    def __class_getitem__(cls, item: Any) -> type[Self]:
        return cls


def order_of(sampler: Any) -> Callable[[int, int], np.ndarray] | None:
    """The sampler's order as a function of (seed, epoch), if it is one."""
    found: Callable[[int, int], np.ndarray] | None = stands_for(sampler, "order", "__iter__")
    return found


class _Ordered(Sampler):
    def __init__(self, generator: Any = None) -> None:
        self.seed: int | None = None if generator is None else seed_of(None, generator)
        self._epoch = 0

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The epoch's indices, int64."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        if self.seed is None:  # a DataLoader has its own
            self.seed = seed_of(None, None)
        epoch, self._epoch = self._epoch, self._epoch + 1
        return iter(self.order(self.seed, epoch).tolist())


class SequentialSampler(Sampler):
    """0, 1, 2, …"""

    def __init__(self, data_source: Any):
        self.data_source = data_source

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The indices, int64."""
        return np.arange(len(self.data_source))

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(_Ordered):
    """All indices in random order; or `num_samples` of them, drawn with `replacement` or in as many rounds as
    it takes.
    """

    def __init__(
        self,
        data_source: Any,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Any = None,
    ):
        self.data_source = data_source
        self.replacement = bool(replacement)
        self._samples = None if num_samples is None else _count("RandomSampler", num_samples)
        super().__init__(generator)

    @property
    def num_samples(self) -> int:
        """How many indices an epoch has."""
        return len(self.data_source) if self._samples is None else self._samples

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The epoch's indices, int64."""
        total, wanted = len(self.data_source), self.num_samples
        if total == 0:
            return np.zeros(0, np.int64)
        if self.replacement:
            return np.minimum((uniforms(wanted, seed, epoch) * total).astype(np.int64), total - 1)
        if wanted == total:
            return permutation(total, seed, epoch)
        # sorting rounds of random keys one after another: all indices once, then all again
        keys = uniforms(-(-wanted // total) * total, seed, epoch).reshape(-1, total)
        return np.argsort(keys, axis=1, kind="stable").reshape(-1)[:wanted].astype(np.int64)

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(_Ordered):
    """The given indices in random order."""

    def __init__(self, indices: Sequence[int], generator: Any = None):
        self.indices = indices
        super().__init__(generator)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The epoch's indices, int64."""
        picked: np.ndarray = np.asarray(self.indices, np.int64)[permutation(len(self.indices), seed, epoch)]
        return picked

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(_Ordered):
    """`num_samples` indices, each drawn with a probability in proportion to its weight.

    Without `replacement` an index comes at most once: exponential waiting times with the weights as rates,
    the shortest first (P. S. Efraimidis, P. G. Spirakis: Weighted random sampling with a reservoir. 2006).
    ValueError for weights that are negative, not finite, or too few that aren't 0.
    """

    def __init__(
        self, weights: Sequence[float], num_samples: int, replacement: bool = True, generator: Any = None
    ):
        self.weights = np.asarray(weights, np.float64)
        self.num_samples = _count("WeightedRandomSampler", num_samples)
        self.replacement = bool(replacement)
        if self.weights.ndim != 1:
            raise ValueError(f"WeightedRandomSampler: weights are a sequence, got shape {self.weights.shape}")
        if not np.all(np.isfinite(self.weights)) or np.any(self.weights < 0):
            raise ValueError("WeightedRandomSampler: weights are finite numbers that aren't negative")
        least = 1 if self.replacement else self.num_samples
        if np.count_nonzero(self.weights) < least:
            raise ValueError(
                f"WeightedRandomSampler: {np.count_nonzero(self.weights)} weights aren't 0, it takes {least}"
            )
        super().__init__(generator)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """The epoch's indices, int64."""
        if self.replacement:
            ends = np.cumsum(self.weights)
            places = np.searchsorted(ends, uniforms(self.num_samples, seed, epoch) * ends[-1], side="right")
            # rounding can lead past the last index with a weight
            drawn: np.ndarray = np.minimum(places, np.flatnonzero(self.weights)[-1])
            return drawn.astype(np.int64)
        with np.errstate(divide="ignore", invalid="ignore"):
            waiting = -np.log1p(-uniforms(len(self.weights), seed, epoch)) / self.weights
        waiting[self.weights == 0] = np.inf
        picked: np.ndarray = np.argsort(waiting, kind="stable")[: self.num_samples]
        return picked.astype(np.int64)

    def __len__(self) -> int:
        return self.num_samples


class DistributedSampler(_Ordered):
    """The part of process `rank` among `num_replicas`: every `num_replicas`-th index of one common order.

    The parts are equally long: some indices come twice, or, with `drop_last`, some are left out. The order is
    that of the loader's epoch, or the one given to ``set_epoch``.
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int,
        rank: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ):
        if num_replicas < 1 or not 0 <= rank < num_replicas:
            raise ValueError(f"DistributedSampler: rank {rank} isn't one of {num_replicas} processes")
        super().__init__()
        self.dataset, self.num_replicas, self.rank = dataset, num_replicas, rank
        self.shuffle, self.seed, self.drop_last = bool(shuffle), int(seed), bool(drop_last)
        self.epoch: int | None = None

    def set_epoch(self, epoch: int) -> None:
        """The order is that of this epoch from now on, whatever the loader counts."""
        self.epoch = int(epoch)

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """This process's indices, int64."""
        total = len(self.dataset)
        epoch = epoch if self.epoch is None else self.epoch
        indices = permutation(total, seed, epoch) if self.shuffle else np.arange(total)
        if total:
            indices = np.resize(indices, len(self) * self.num_replicas)
        part: np.ndarray = indices[self.rank :: self.num_replicas]
        return part

    def __len__(self) -> int:
        share = len(self.dataset) / self.num_replicas
        return math.floor(share) if self.drop_last else math.ceil(share)


class BatchSampler(Sampler):
    """Lists of `batch_size` indices of `sampler`; the last one is shorter, or left out with `drop_last`."""

    def __init__(self, sampler: Iterable[Any], batch_size: int, drop_last: bool = False):
        self.sampler = sampler
        self.batch_size = _count("BatchSampler", batch_size)
        self.drop_last = bool(drop_last)

    @property
    def seed(self) -> int | None:
        """The sampler's."""
        found: int | None = getattr(self.sampler, "seed", None)
        return found

    def batches(self, seed: int, epoch: int) -> Iterator[list[Any]]:
        """The epoch's lists; a function of (seed, epoch) if the sampler's order is."""
        order = order_of(self.sampler)
        return self._grouped(self.sampler if order is None else order(seed, epoch).tolist())

    def __iter__(self) -> Iterator[list[Any]]:
        return self._grouped(self.sampler)

    def _grouped(self, indices: Iterable[Any]) -> Iterator[list[Any]]:
        batch: list[Any] = []
        for index in indices:
            batch.append(index)
            if len(batch) == self.batch_size:
                yield batch
                batch = []
        if batch and not self.drop_last:
            yield batch

    def __len__(self) -> int:
        total = len(self.sampler)  # type: ignore[arg-type]
        return total // self.batch_size if self.drop_last else -(-total // self.batch_size)


def _count(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name}: takes a whole number above 0, got {value!r}")
    return int(value)
