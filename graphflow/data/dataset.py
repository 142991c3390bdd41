"""Datasets: indexed collections of samples, and parts of them."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np

from graphflow import functions as ops
from graphflow.data.order import permutation, seed_of
from graphflow.tensor import Tensor


class Dataset:
    """Base class: a subclass defines ``__getitem__(index)`` and, unless its length is never asked for,
    ``__len__()``. As ``torch.utils.data.Dataset``.

    A subclass may define more, which a DataLoader then uses: ``__getitems__(indices)``, giving the list of
    samples for a list of indices; or ``take_batch(indices)``, giving the collated batch for an int64 array of
    indices, or NotImplemented where samples are to be collated after all.
    """

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has to define __getitem__(index)")

    def __iter__(self) -> Iterator[Any]:
        if not hasattr(self, "__len__"):
            return iter(_Indexed(self))
        return (self[i] for i in range(len(self)))

    def __add__(self, other: Any) -> ConcatDataset:
        return ConcatDataset([self, other])

    def __class_getitem__(cls, item: Any) -> type[Self]:
        return cls


class _Indexed:
    """What Python makes an iterator of: indices from 0 until there is an IndexError."""

    def __init__(self, dataset: Dataset):
        self._dataset = dataset

    def __getitem__(self, index: int) -> Any:
        return self._dataset[index]


class IterableDataset(Dataset):
    """Base class of streams: a subclass defines ``__iter__()``. As ``torch.utils.data.IterableDataset``.

    One worker at most reads it, so that a sample never comes twice.
    """

    def __getitem__(self, index: Any) -> Any:
        raise TypeError(f"{type(self).__name__} is a stream of samples: iterate over it")

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError(f"{type(self).__name__} has to define __iter__()")

    def __add__(self, other: Any) -> ChainDataset:  # type: ignore[override]
        return ChainDataset([self, other])


def stands_for(owner: Any, shortcut: str, *methods: str) -> Any:
    """The method `shortcut` of `owner`; None if there is none, or where a subclass has redefined one of
    `methods`, whose meaning it was to have.
    """
    for kind in type(owner).__mro__:
        if shortcut in vars(kind):
            return getattr(owner, shortcut)
        if any(method in vars(kind) for method in methods):
            return None
    return None


def batches_of(dataset: Any) -> Callable[[np.ndarray], Any] | None:
    """The dataset's way to give whole batches, if it has one."""
    found: Callable[[np.ndarray], Any] | None = stands_for(
        dataset, "take_batch", "__getitem__", "__getitems__"
    )
    return found


class TensorDataset(Dataset):
    """Samples are tuples of the tensors' rows. ValueError when the tensors differ in their first size."""

    def __init__(self, *tensors: Tensor):
        if not tensors:
            raise ValueError("TensorDataset needs at least one tensor")
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"TensorDataset takes tensors, got {type(tensor).__name__}")
            if tensor.ndim == 0:
                raise ValueError("TensorDataset needs tensors with at least one dimension")
        sizes = [int(tensor.shape[0]) for tensor in tensors]
        if len(set(sizes)) != 1:
            raise ValueError(f"Size mismatch between tensors: first sizes are {', '.join(map(str, sizes))}")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(tensor[index] for tensor in self.tensors)

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])

    def take_batch(self, indices: np.ndarray) -> Any:
        """The batch of these rows, one tensor per tensor."""
        if any(tensor.requires_grad for tensor in self.tensors):
            return NotImplemented
        return [ops.from_numpy(np.take(tensor.detach().numpy(), indices, axis=0)) for tensor in self.tensors]


class ConcatDataset(Dataset):
    """The samples of several datasets, one dataset after another."""

    def __init__(self, datasets: Iterable[Any]):
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("datasets should not be an empty iterable")
        if any(isinstance(dataset, IterableDataset) for dataset in self.datasets):
            raise TypeError("ConcatDataset does not support IterableDataset: use ChainDataset")
        self.cumulative_sizes = np.cumsum([len(dataset) for dataset in self.datasets]).tolist()

    def __getitem__(self, index: int) -> Any:
        index = _position(index, len(self))
        part = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[part][index - (self.cumulative_sizes[part - 1] if part else 0)]

    def __len__(self) -> int:
        return int(self.cumulative_sizes[-1])


class ChainDataset(IterableDataset):
    """The samples of several streams, one stream after another."""

    def __init__(self, datasets: Iterable[Any]):
        self.datasets = datasets

    def __iter__(self) -> Iterator[Any]:
        return itertools.chain.from_iterable(self.datasets)

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self.datasets)


class StackDataset(Dataset):
    """Samples put together of one sample each of several datasets: a tuple, or, of keywords, a dictionary."""

    def __init__(self, *datasets: Any, **named: Any):
        if bool(datasets) == bool(named):
            raise ValueError("StackDataset takes either datasets or keyword datasets, and at least one")
        self.datasets: tuple[Any, ...] | dict[str, Any] = datasets or named
        sizes = [len(dataset) for dataset in datasets or named.values()]
        if len(set(sizes)) != 1:
            raise ValueError(f"Size mismatch between datasets: {', '.join(map(str, sizes))}")
        self._size = sizes[0]

    def __getitem__(self, index: int) -> Any:
        if isinstance(self.datasets, dict):
            return {name: dataset[index] for name, dataset in self.datasets.items()}
        return tuple(dataset[index] for dataset in self.datasets)

    def __len__(self) -> int:
        return self._size


def _position(index: int, size: int) -> int:
    if not -size <= index < size:
        raise IndexError(f"index {index} is out of range for {size} samples")
    return index % size


class Subset(Dataset):
    """The samples of `dataset` at `indices`, in that order."""

    def __init__(self, dataset: Any, indices: Sequence[int]):
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)

    def take_batch(self, indices: np.ndarray) -> Any:
        """The batch of the dataset's samples at these of the subset's places."""
        take = batches_of(self.dataset)
        if take is None:
            return NotImplemented
        return take(np.array([int(self.indices[i]) for i in indices.tolist()], np.int64))


def random_split(
    dataset: Any, lengths: Sequence[int | float], generator: Any = None, *, seed: int | None = None
) -> list[Subset]:
    """Non-overlapping random parts of `dataset`, given by their lengths or, when they sum to 1, by fractions.

    What fractions leave over goes to the first parts, one sample each. The split is a pure function of the
    seed: `seed`, or the generator's, or graphflow's own. ValueError when the lengths don't add up.
    """
    total = len(dataset)
    if any(isinstance(n, float) for n in lengths):
        counts = _from_fractions([float(n) for n in lengths], total)
    else:
        counts = [int(n) for n in lengths]
        if min(counts, default=0) < 0 or sum(counts) != total:
            raise ValueError(
                f"Sum of input lengths does not equal the length of the input dataset: {counts} for {total} "
                "samples"
            )
    order = permutation(total, seed_of(seed, generator), 0)
    ends = np.cumsum(counts)
    return [Subset(dataset, order[end - n : end].tolist()) for n, end in zip(counts, ends, strict=True)]


def _from_fractions(fractions: Sequence[float], total: int) -> list[int]:
    if min(fractions) < 0 or not math.isclose(sum(fractions), 1.0, abs_tol=1e-9):
        raise ValueError(f"fractions have to be between 0 and 1 and sum to 1, got {list(fractions)}")
    counts = [math.floor(f * total) for f in fractions]
    for i in range(total - sum(counts)):
        counts[i % len(counts)] += 1
    return counts
