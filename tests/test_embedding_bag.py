"""Bags of embeddings against NumPy, eagerly and compiled."""

from __future__ import annotations

from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.nn import functional as F

from compositions import check

RNG = np.random.default_rng(0)
TABLE = RNG.standard_normal((6, 3))
FLAT, STARTS = RNG.integers(0, 6, 9), np.array([0, 2, 2, 7])
REDUCE: dict[str, Any] = {"sum": np.sum, "mean": np.mean, "max": np.max}


def bags(mode: str, table: np.ndarray, parts: list[np.ndarray], padding: int | None) -> np.ndarray:
    rows = [table[part[part != padding]] for part in parts]
    return np.stack([REDUCE[mode](r, 0) if len(r) else np.zeros(table.shape[1]) for r in rows])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 2])
def test_bags_and_their_gradients(mode: str, padding: int | None) -> None:
    def frozen(table: np.ndarray, parts: list[np.ndarray]) -> np.ndarray:
        # The padding row counts nowhere, so its slopes are 0 by themselves.
        return bags(mode, table, parts, padding)

    square = RNG.integers(0, 6, (4, 5))
    square[1] = 2
    check(
        lambda w, i: F.embedding_bag(i, w, mode=mode, padding_idx=padding),
        lambda w, i: frozen(w, list(i)), TABLE, square,
    )  # fmt: skip
    check(
        lambda w, i, o: F.embedding_bag(i, w, o, mode=mode, padding_idx=padding),
        lambda w, i, o: frozen(w, np.split(i, o[1:])), TABLE, FLAT, STARTS,
    )  # fmt: skip


def test_weights_of_entries_and_the_last_offset() -> None:
    weights = RNG.standard_normal(9)

    def formula(table: np.ndarray, scale: np.ndarray) -> np.ndarray:
        rows = table[FLAT] * scale[:, None]
        return np.stack([part.sum(0) for part in np.split(rows, STARTS[1:])])

    offsets = gf.tensor([*STARTS, 9])
    check(
        lambda w, s: F.embedding_bag(
            gf.tensor(FLAT), w, offsets, mode="sum", per_sample_weights=s, include_last_offset=True
        ),
        formula, TABLE, weights, trained=(0, 1),
    )  # fmt: skip


def test_one_compiled_function_takes_any_number_of_bags() -> None:
    layer = nn.EmbeddingBag(6, 3, dtype=gf.float64)
    compiled = gf.compile(layer)
    for count, starts in ((9, [0, 2, 7]), (5, [0, 1]), (6, [0, 1, 3, 3])):
        index, offsets = gf.tensor(RNG.integers(0, 6, count)), gf.tensor(starts)
        np.testing.assert_allclose(
            compiled(index, offsets).detach().numpy(), layer(index, offsets).detach().numpy(), rtol=1e-12
        )
    assert len(compiled.variants) == 1
    assert list(layer.state_dict()) == ["weight"] and repr(layer) == "EmbeddingBag(6, 3, mode='mean')"
    options = nn.EmbeddingBag(6, 3, 1.0, 1, True, "sum", True, padding_idx=2)
    assert repr(options) == (
        "EmbeddingBag(6, 3, max_norm=1.0, norm_type=1, scale_grad_by_freq=True, mode='sum', padding_idx=2)"
    )
    assert nn.EmbeddingBag(6, 3, padding_idx=-1).weight[5].tolist() == [0.0] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda i, w: F.embedding_bag(i, w, mode="x"), "mode has to be one of sum, mean or max"),
        (lambda i, w: nn.EmbeddingBag(2, 2, mode="x"), "mode has to be one of sum, mean or max"),
        (lambda i, w: F.embedding_bag(i, w), "offsets has to be a 1D Tensor"),
        (lambda i, w: F.embedding_bag(i.reshape(1, 3), w, i), "if input is 2D, then offsets has to be None"),
        (lambda i, w: F.embedding_bag(i.reshape(1, 1, 3), w), "1D or 2D Tensor"),
        (lambda i, w: F.embedding_bag(i, w, i, per_sample_weights=i), "only supported for mode='sum'"),
        (
            lambda i, w: F.embedding_bag(i, w, i, mode="sum", per_sample_weights=gf.ones(2)),
            "per_sample_weights of shape",
        ),
    ],
)
def test_bags_say_what_does_not_fit(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call(gf.tensor([0, 1, 2]), gf.ones(3, 2))
