"""Datasets: indexed collections of samples, and parts of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from graphflow import functions as ops
from graphflow.data.order import permutation, seed_of
from graphflow.tensor import Tensor


class Dataset:
    """Base class: a subclass defines ``__getitem__(index)`` and ``__len__()``. As
    ``torch.utils.data.Dataset``.

    A subclass may define ``take_batch(indices)`` as well, giving the collated batch for an int64 array of
    indices; a DataLoader then uses it instead of collating samples.
    """

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has to define __getitem__(index)")

    def __len__(self) -> int:
        raise NotImplementedError(f"{type(self).__name__} has to define __len__()")

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))


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

    def take_batch(self, indices: np.ndarray) -> list[Tensor]:
        """The batch of these rows, one tensor per tensor."""
        return [ops.from_numpy(np.take(tensor.detach().numpy(), indices, axis=0)) for tensor in self.tensors]


class Subset(Dataset):
    """The samples of `dataset` at `indices`, in that order."""

    def __init__(self, dataset: Any, indices: Sequence[int]):
        self.dataset = dataset
        self.indices = indices
        if hasattr(dataset, "take_batch"):
            self._positions = np.asarray(indices, np.int64)
            self.take_batch = self._take_batch

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)

    def _take_batch(self, indices: np.ndarray) -> Any:
        return self.dataset.take_batch(self._positions[indices])


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
