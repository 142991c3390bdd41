"""Sequences of different lengths, one step of all of them after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from graphflow import functions as ops
from graphflow.errors import DTypeError, ShapeError, TraceError
from graphflow.tensor import Tensor, where_called


def tensor_of(value: Any, name: str, argument: str, least: int = 0) -> Tensor:
    """A tensor of at least so many dimensions; DTypeError, ShapeError."""
    if not isinstance(value, Tensor):
        given = type(value).__name__
        raise DTypeError(f"{name}: argument {argument!r} must be a Tensor, not {given}{where_called()}")
    if value.ndim < least:
        raise ShapeError(
            f"{name}: argument {argument!r} needs at least {least} dimensions, got {value.type_}"
            f"{where_called()}"
        )
    return value


def counted(lengths: Any, name: str) -> tuple[int, ...]:
    """Lengths as numbers, which decide sizes: in a compiled function they aren't known of a tensor."""
    if isinstance(lengths, Tensor):
        if lengths.ndim != 1 or lengths.dtype.kind != "int":
            raise ShapeError(
                f"{name}: 'lengths' should be a 1D CPU int64 tensor, got {lengths.type_}{where_called()}"
            )
        if lengths.is_traced:
            raise TraceError(
                f"{name}: lengths decide how large the result is, so a compiled function needs them as a "
                "list of ints (each list is a variant of its own); or keep the padding, and mask what lies "
                f"beyond the lengths{where_called()}"
            )
        lengths = lengths.tolist()
    if isinstance(lengths, np.ndarray):
        lengths = lengths.tolist()
    if not isinstance(lengths, (list, tuple)) or any(
        isinstance(n, bool) or not hasattr(n, "__index__") for n in lengths
    ):
        raise DTypeError(f"{name}: 'lengths' must be a tensor or a list of integers{where_called()}")
    return tuple(n.__index__() for n in lengths)


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The indices that undo a permutation given by indices; None for None."""
    return None if permutation is None else ops.argsort(permutation)


class _Packed(NamedTuple):
    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


class _Steps(_Packed):
    """What a packed sequence is made of, and how it is laid out; see `PackedSequence`."""

    _counts: tuple[int, ...] | None

    def __new__(
        cls,
        data: Tensor,
        batch_sizes: Tensor | None = None,
        sorted_indices: Tensor | None = None,
        unsorted_indices: Tensor | None = None,
    ) -> Self:
        """DTypeError for what isn't a tensor, ValueError without `batch_sizes`."""
        if batch_sizes is None:
            raise ValueError(f"PackedSequence: argument 'batch_sizes' is needed{where_called()}")
        tensor_of(data, "PackedSequence", "data", 1)
        tensor_of(batch_sizes, "PackedSequence", "batch_sizes", 1)
        if unsorted_indices is None:
            unsorted_indices = invert_permutation(sorted_indices)
        made = super().__new__(cls, data, batch_sizes, sorted_indices, unsorted_indices)
        made._counts = None
        return made

    @classmethod
    def of(cls, data: Tensor, counts: Sequence[int], sorted_indices: Tensor | None) -> Self:
        """One whose batch sizes are known as numbers."""
        made = cls(data, ops.tensor(list(counts)), sorted_indices)
        made._counts = tuple(counts)
        return made

    def like(self, data: Tensor) -> Self:
        """Other elements at the same places."""
        made = type(self)(data, self.batch_sizes, self.sorted_indices, self.unsorted_indices)
        made._counts = self._counts
        return made

    def counts(self) -> tuple[int, ...]:
        """`batch_sizes` as numbers; TraceError in a compiled function that got them as a tensor."""
        if self._counts is None:
            if self.batch_sizes.is_traced:
                raise TraceError(
                    "PackedSequence: its batch_sizes decide how often a loop runs, so a compiled function "
                    "can't be given a packed sequence: pack inside of it, with lengths as a list of ints, or "
                    f"keep the padding{where_called()}"
                )
            counts = counted(self.batch_sizes, "PackedSequence")
            if sum(counts) != self.data.shape[0]:
                raise ShapeError(
                    f"PackedSequence: batch_sizes add up to {sum(counts)}, data is {self.data.type_}"
                    f"{where_called()}"
                )
            self._counts = counts
        return self._counts

    def lengths(self) -> tuple[int, ...]:
        """How long each sequence is, longest first."""
        counts = self.counts()
        return tuple(sum(n > i for n in counts) for i in range(counts[0]))

    def padded(self, length: int) -> tuple[Tensor, Tensor]:
        """The sequences as (length, batch, *), longest first, 0 beyond their ends; and (length, batch),
        whether there is an element.
        """
        counts = self.counts()
        batch = counts[0]
        places = np.zeros((length, batch), np.int64)
        present = np.zeros((length, batch), np.bool_)
        start = 0
        for step, count in enumerate(counts):
            places[step, :count] = np.arange(start, start + count)
            present[step, :count] = True
            start += count
        inner = self.data.shape[1:]
        rows = self.data.index_select(0, ops.tensor(places.ravel())).reshape(length, batch, *inner)
        flags = ops.tensor(present)
        if present.all():
            return rows, flags
        beside = flags.reshape(length, batch, *(1,) * len(inner))
        return ops.where(beside, rows, ops.zeros((), dtype=rows.dtype)), flags

    def packed(self, rows: Tensor) -> Self:
        """What stands in (length, batch, *) at this one's places, as a packed sequence like it."""
        counts = self.counts()
        batch = counts[0]
        places = [step * batch + i for step, count in enumerate(counts) for i in range(count)]
        flat = rows.reshape(rows.shape[0] * batch, *rows.shape[2:])
        return self.like(flat.index_select(0, ops.tensor(places)))


class PackedSequence(_Steps):
    """Sequences of different lengths without padding, as ``torch.nn.utils.rnn.PackedSequence``.

    `data` (sum of lengths, *) holds the first elements of all sequences, the longest sequence first, then
    the second elements, and so on; `batch_sizes` (longest length,) says how many there are of each.
    `sorted_indices` is the order that the sequences were brought into, `unsorted_indices` its inverse; both
    are None for sequences that came in order. Made by `pack_padded_sequence` and `pack_sequence`.
    """

    @property
    def is_cuda(self) -> bool:
        """Whether the elements are on a GPU."""
        return bool(self.data.is_cuda)

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """The elements moved or converted as ``Tensor.to`` does it."""
        data = self.data.to(*args, **kwargs)
        return self if data is self.data else self.like(data)

    def cpu(self) -> Self:
        """On the CPU."""
        return self.to(device="cpu")

    def cuda(self, *args: Any, **kwargs: Any) -> Self:
        """On a GPU; DeviceError where there is none."""
        return self.like(self.data.cuda(*args, **kwargs))

    def double(self) -> Self:
        """In float64."""
        return self.to(dtype="float64")

    def float(self) -> Self:
        """In float32."""
        return self.to(dtype="float32")

    def half(self) -> Self:
        """In float16."""
        return self.to(dtype="float16")

    def long(self) -> Self:
        """In int64."""
        return self.to(dtype="int64")

    def int(self) -> Self:
        """In int32."""
        return self.to(dtype="int32")
