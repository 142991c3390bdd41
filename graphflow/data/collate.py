"""Samples into a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphflow import functions as ops
from graphflow.tensor import Tensor


def default_collate(batch: Sequence[Any]) -> Any:
    """Joins samples along a new first dimension, as ``torch.utils.data.default_collate``.

    Tensors and arrays are stacked, ints, bools and floats become int64, bool and float64 tensors, strings and
    bytes a list; dictionaries, tuples and lists are taken apart and joined entry by entry (plain tuples give
    a list). TypeError for anything else, ValueError when samples don't match.
    """
    if not batch:
        raise ValueError("can't collate an empty batch")
    first = batch[0]
    if isinstance(first, Tensor):
        return ops.stack(list(batch), 0)
    if isinstance(first, (np.ndarray, np.generic)):
        return ops.from_numpy(np.stack(list(batch)))
    if isinstance(first, (bool, int, float)):
        return ops.from_numpy(np.array(batch))
    if isinstance(first, (str, bytes)):
        return list(batch)
    if isinstance(first, Mapping):
        return {key: default_collate([sample[key] for sample in batch]) for key in first}
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise ValueError("each element in list of batch should be of equal size")
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    raise TypeError(
        f"can't collate {type(first).__name__}: samples are tensors, NumPy arrays, numbers, strings, or "
        "dictionaries, tuples and lists of these; pass collate_fn= for anything else"
    )


def default_convert(sample: Any) -> Any:
    """NumPy arrays in a sample as tensors, everything else as it is: for loaders that don't make batches."""
    if isinstance(sample, (np.ndarray, np.generic)):
        return ops.from_numpy(np.asarray(sample))
    if isinstance(sample, Mapping):
        return {key: default_convert(value) for key, value in sample.items()}
    if isinstance(sample, tuple) and hasattr(sample, "_fields"):
        return type(sample)(*(default_convert(value) for value in sample))
    if isinstance(sample, (tuple, list)):
        return [default_convert(value) for value in sample]
    return sample
