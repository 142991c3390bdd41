"""Sequences of different lengths in one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from graphflow import functions as ops
from graphflow.errors import ShapeError
from graphflow.nn.utils.packed import PackedSequence, counted, invert_permutation
from graphflow.nn.utils.packed import tensor_of as _tensor
from graphflow.tensor import Tensor, where_called

Lengths = Tensor | Sequence[int]


def pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:  # fmt: skip
    """Tensors (L_i, *) filled up to the longest and stacked: (L, N, *), or with `batch_first` (N, L, *).

    TypeError unless `sequences` are tensors, ValueError for none, for sizes that differ after the first
    dimension, and for a `padding_side` other than left and right. Gradients flow through.
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f"pad_sequence: padding_side is 'left' or 'right', not {padding_side!r}")
    tensors = list(sequences)
    if not all(isinstance(t, Tensor) and t.ndim for t in tensors):
        raise TypeError("pad_sequence: expected tensors of at least one dimension")
    if not tensors:
        raise ValueError("pad_sequence: received an empty list of sequences")
    first = tensors[0]
    rest = first.shape[1:]
    for t in tensors:
        if t.shape[1:] != rest:
            raise ValueError(f"pad_sequence: sizes after the first differ: {t.shape} beside {first.shape}")
    longest = max(int(t.shape[0]) for t in tensors)
    padded = [_padded(t, longest, padding_value, padding_side == "left") for t in tensors]
    return ops.stack(padded, 0 if batch_first else 1)


def _padded(t: Tensor, length: int, value: float, left: bool) -> Tensor:
    missing = length - int(t.shape[0])
    if not missing:
        return t
    filler = ops.full((missing, *t.shape[1:]), value, dtype=t.dtype)
    return ops.cat((filler, t) if left else (t, filler), 0)


def unpad_sequence(padded_sequences: Tensor, lengths: Lengths, batch_first: bool = False) -> list[Tensor]:
    """What `pad_sequence` was given: the first ``lengths[i]`` elements of each sequence of (L, N, *), or with
    `batch_first` (N, L, *).

    ShapeError unless there is one length for each sequence. In a compiled function `lengths` is a list.
    """
    whole = _tensor(padded_sequences, "unpad_sequence", "padded_sequences", 2)
    counts = counted(lengths, "unpad_sequence")
    rows = whole if batch_first else whole.transpose(0, 1)
    if len(counts) != rows.shape[0]:
        raise ShapeError(
            f"unpad_sequence: {len(counts)} lengths for a batch of {rows.shape[0]} in "
            f"{whole.type_}{where_called()}"
        )
    return [rows[i, :count] for i, count in enumerate(counts)]


def pack_padded_sequence(
    input: Tensor, lengths: Lengths, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Sequences (L, N, *), or with `batch_first` (N, L, *), without what lies beyond their `lengths`.

    The longest has to come first, unless `enforce_sorted` is False: then they are sorted, and what unpacks
    brings them back in order. Gradients flow through. In a compiled function `lengths` is a list of ints,
    each other list a variant of its own. RuntimeError for lengths that aren't sorted, aren't positive or
    don't fit. As ``torch.nn.utils.rnn.pack_padded_sequence``.
    """
    name = "pack_padded_sequence"
    whole = _tensor(input, name, "input", 2)
    counts = counted(lengths, name)
    if batch_first:
        whole = whole.transpose(0, 1)
    longest, batch = (int(size) for size in whole.shape[:2])
    if not longest or not batch:
        raise ShapeError(f"{name}: cannot pack empty tensors, got {whole.type_}{where_called()}")
    if len(counts) != batch:
        raise ShapeError(
            f"{name}: expected `len(lengths)` to be equal to batch_size, but got {len(counts)} "
            f"(batch_size={batch}){where_called()}"
        )
    if min(counts) <= 0:
        raise ShapeError(
            f"{name}: length of all samples has to be greater than 0, but found an element in 'lengths' that "
            f"is <= 0: {list(counts)}{where_called()}"
        )
    if max(counts) > longest:
        raise ShapeError(
            f"{name}: 'lengths' has an element of {max(counts)}, but the sequences have {longest} "
            f"steps{where_called()}"
        )
    order = sorted(range(batch), key=lambda i: -counts[i])
    if enforce_sorted and any(a < b for a, b in pairwise(counts)):
        raise RuntimeError(
            f"{name}: `lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You "
            "can pass `enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this "
            f"requirement if you do not need ONNX exportability{where_called()}"
        )
    sizes = tuple(sum(count > step for count in counts) for step in range(max(counts)))
    rows = [step * batch + order[i] for step, size in enumerate(sizes) for i in range(size)]
    data = whole.reshape(longest * batch, *whole.shape[2:]).index_select(0, ops.tensor(rows))
    indices = None if enforce_sorted else ops.tensor(order)
    return PackedSequence.of(data, sizes, indices)


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Tensors (L_i, *) as a `PackedSequence`. See `pack_padded_sequence`."""
    lengths = [int(_tensor(s, "pack_sequence", "sequences", 1).shape[0]) for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(padded, lengths): (L, N, *), or with `batch_first` (N, L, *), in the order before they were sorted.

    L is the longest length, or `total_length` (ValueError if that is less). `padding_value` stands beyond the
    lengths. As ``torch.nn.utils.rnn.pad_packed_sequence``.
    """
    name = "pad_packed_sequence"
    if not isinstance(sequence, PackedSequence):
        raise TypeError(f"{name}: expected a PackedSequence, got {type(sequence).__name__}{where_called()}")
    steps = len(sequence.counts())
    if total_length is not None and total_length < steps:
        raise ValueError(
            f"{name}: expected total_length to be at least the length of the longest sequence in input, but "
            f"got total_length={total_length} and max sequence length being {steps}{where_called()}"
        )
    padded, present = sequence.padded(steps if total_length is None else total_length)
    if padding_value:
        padded = ops.where(present.reshape(*present.shape, *(1,) * (padded.ndim - 2)), padded, padding_value)
    lengths = present.sum(0)
    if sequence.unsorted_indices is not None:
        padded = padded.index_select(1, sequence.unsorted_indices)
        lengths = lengths.index_select(0, sequence.unsorted_indices)
    return padded.transpose(0, 1) if batch_first else padded, lengths


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The sequences (L_i, *) that `pack_sequence` was given."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    counts = packed_sequences.lengths()
    if packed_sequences.unsorted_indices is not None:
        counts = counted(lengths, "unpack_sequence")
    return unpad_sequence(padded, counts, batch_first=True)


__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]
