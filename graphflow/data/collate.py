"""Samples into a batch."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from copy import copy
from typing import Any

import numpy as np

from graphflow import functions as ops
from graphflow.dtypes import float64
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
        return _stacked(batch)
    if isinstance(first, float):
        return ops.tensor(list(batch), dtype=float64)
    if isinstance(first, (bool, int)):
        return ops.tensor(list(batch))
    if isinstance(first, (str, bytes)):
        return list(batch)
    if isinstance(first, Mapping):
        return _like(first, {key: default_collate([sample[key] for sample in batch]) for key in first})
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise ValueError("each element in list of batch should be of equal size")
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    raise TypeError(
        f"can't collate {type(first).__name__}: samples are tensors, NumPy arrays, numbers, strings, or "
        "dictionaries, tuples and lists of these; pass collate_fn= for anything else"
    )


def _stacked(batch: Sequence[Any]) -> Tensor:
    first = np.asarray(batch[0])
    if first.dtype.kind in "USOMmV":
        raise TypeError(f"can't collate arrays of dtype {first.dtype}, which no tensor holds")
    shapes = [np.shape(values) for values in batch]
    if any(shape != first.shape for shape in shapes):
        other = next(place for place, shape in enumerate(shapes) if shape != first.shape)
        raise ValueError(
            f"can't stack arrays of different shapes: {first.shape} in the batch's sample 0, {shapes[other]} "
            f"in its sample {other}; pass collate_fn= to pad or crop them"
        )
    result: Tensor = ops.from_numpy(np.stack(list(batch)))
    return result


def _like(pattern: Mapping[Any, Any], entries: dict[Any, Any]) -> Any:
    """The entries in a mapping of the pattern's own type, with what else it holds."""
    if type(pattern) is dict:
        return entries
    if isinstance(pattern, MutableMapping):
        result = copy(pattern)
        result.update(entries)
        return result
    return type(pattern)(entries)  # type: ignore[call-arg]


def default_convert(sample: Any) -> Any:
    """NumPy arrays in a sample as tensors, everything else as it is: for loaders that don't make batches."""
    if isinstance(sample, (np.ndarray, np.generic)):
        values = np.asarray(sample)
        return sample if values.dtype.kind in "USOMmV" else ops.from_numpy(values)
    if isinstance(sample, Mapping):
        return _like(sample, {key: default_convert(value) for key, value in sample.items()})
    if isinstance(sample, tuple) and hasattr(sample, "_fields"):
        return type(sample)(*(default_convert(value) for value in sample))
    if isinstance(sample, (tuple, list)):
        return [default_convert(value) for value in sample]
    return sample
