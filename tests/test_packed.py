"""Packed sequences: each sequence gets what it would get on its own, whatever stands beside it."""

from __future__ import annotations

import re
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.errors import TraceError
from graphflow.nn.utils.rnn import (
    PackedSequence,
    invert_permutation,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
    pad_sequence,
    unpack_sequence,
    unpad_sequence,
)

RNG = np.random.default_rng(0)
LENGTHS = [3, 1, 5, 3]


def sequences(*rest: int) -> list[gf.Tensor]:
    return [gf.tensor(RNG.standard_normal((n, *rest))) for n in LENGTHS]


def test_steps_stand_one_after_the_other_and_come_back() -> None:
    parts = sequences(2)
    packed = pack_sequence(parts, enforce_sorted=False)
    assert packed.sorted_indices.tolist() == [2, 0, 3, 1]
    assert packed.unsorted_indices.tolist() == [1, 3, 0, 2]
    assert packed.batch_sizes.tolist() == [4, 3, 3, 1, 1]
    rows = [parts[i][step].tolist() for step in range(5) for i in (2, 0, 3, 1) if step < LENGTHS[i]]
    assert packed.data.tolist() == rows
    for batch_first in (False, True):
        padded, lengths = pad_packed_sequence(packed, batch_first, padding_value=-1.0, total_length=6)
        wanted = pad_sequence([*parts, gf.zeros(6, 2, dtype=gf.float64)], batch_first, -1.0)
        assert padded.tolist() == (wanted[:4] if batch_first else wanted[:, :4]).tolist()
        assert lengths.tolist() == LENGTHS
        again = unpad_sequence(padded, lengths, batch_first)
        assert [t.tolist() for t in again] == [t.tolist() for t in parts]
    assert [t.tolist() for t in unpack_sequence(packed)] == [t.tolist() for t in parts]
    assert invert_permutation(None) is None
    assert (packed.float().data.dtype, packed.double(), packed.is_cuda) == (gf.float32, packed, False)


def test_packing_hands_gradients_back_to_the_elements_that_are_there() -> None:
    x = gf.ones(4, 5, 2, requires_grad=True)
    packed = pack_padded_sequence(x, gf.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    (pad_packed_sequence(packed)[0] * 3).sum().backward()
    assert x.grad[:, :, 0].tolist() == [[3.0] * n + [0.0] * (5 - n) for n in LENGTHS]


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}])
@pytest.mark.parametrize("start", [False, True])
def test_layers_take_each_sequence_for_itself(kind: Any, options: dict[str, Any], start: bool) -> None:
    layer = kind(2, 3, **options).double()
    count = 2 * 2 if options else 1
    states = [gf.tensor(RNG.standard_normal((count, 4, 3))) for _ in range(2 if kind is nn.LSTM else 1)]
    parts = sequences(2)

    def told(own: list[gf.Tensor]) -> Any:
        return (tuple(own) if kind is nn.LSTM else own[0]) if start else None

    def run(padded: gf.Tensor) -> Any:
        packed = pack_padded_sequence(padded, LENGTHS, batch_first=True, enforce_sorted=False)
        output, last = layer(packed, told(states))
        result = pad_packed_sequence(output, batch_first=True)[0]
        (result.square().sum() + sum(s.sum() for s in (last if kind is nn.LSTM else (last,)))).backward()
        grads = [p.grad for p in layer.parameters()]
        return result, last if kind is nn.LSTM else (last,), grads

    padded = pad_sequence(parts, batch_first=True, padding_value=7.0)
    output, last, grads = run(padded)
    layer.zero_grad()
    for i, part in enumerate(parts):
        alone, end = layer(part, told([s[:, i] for s in states]))
        end = end if kind is nn.LSTM else (end,)
        (alone.square().sum() + sum(s.sum() for s in end)).backward()
        np.testing.assert_allclose(output[i, : len(part)].detach().numpy(), alone.detach().numpy(), 1e-12)
        assert not output[i, len(part) :].any()
        for whole, own in zip(last, end, strict=True):
            np.testing.assert_allclose(whole[:, i].detach().numpy(), own.detach().numpy(), 1e-12)
    wanted = [p.grad.numpy() for p in layer.parameters()]
    layer.zero_grad()
    np.testing.assert_allclose([g.sum().item() for g in grads], [w.sum() for w in wanted], 1e-9)
    if options and start:
        quick = gf.compile(run)(padded)
        np.testing.assert_allclose(quick[0].detach().numpy(), output.detach().numpy(), 1e-9)
        for got, want in zip(quick[2], wanted, strict=True):
            np.testing.assert_allclose(got.numpy(), want, 1e-8, 1e-10)


def test_compiled_functions_need_lengths_as_numbers() -> None:
    layer = nn.GRU(2, 3)
    x = gf.ones(3, 2, 2)
    with pytest.raises(TraceError, match="needs them as a list of ints"):
        gf.compile(lambda x, n: layer(pack_padded_sequence(x, n))[1])(x, gf.tensor([3, 2]))
    with pytest.raises(TraceError, match="can't be given a packed sequence"):
        gf.compile(lambda p: layer(p)[1])(pack_padded_sequence(x, [3, 2]))


X = gf.ones(4, 3, 2)
WRONG = {
    "`lengths` array must be sorted in decreasing order": lambda: pack_padded_sequence(X, [1, 2, 3]),
    "'lengths' has an element of 5": lambda: pack_padded_sequence(X, [5, 2, 1]),
    "has to be greater than 0": lambda: pack_padded_sequence(X, [3, 2, 0]),
    "equal to batch_size, but got 2 (batch_size=3)": lambda: pack_padded_sequence(X, [3, 2]),
    "should be a 1D CPU int64 tensor": lambda: pack_padded_sequence(X, gf.ones(3)),
    "cannot pack empty": lambda: pack_padded_sequence(gf.ones(0, 1, 1), [0]),
    "at least the length of the longest": lambda: pad_packed_sequence(
        pack_padded_sequence(X, [4, 2, 1]), total_length=3
    ),
    "2 lengths for a batch of 4": lambda: unpad_sequence(X, [1, 2], batch_first=True),
    "the data of input has to be 5": lambda: nn.RNN(5, 2)(pack_padded_sequence(X, [4, 2, 1])),
    "batch_sizes add up to 2": lambda: nn.RNN(2, 2)(PackedSequence(X[0], gf.tensor([1, 1]))),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_does_not_fit(message: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=re.escape(message)):
        WRONG[message]()


@pytest.mark.parametrize(
    "call", [lambda: pack_padded_sequence(X, 3), lambda: pack_sequence([[1]]), lambda: pad_packed_sequence(X)]
)
def test_what_is_of_another_kind(call: Any) -> None:
    with pytest.raises(TypeError):
        call()
