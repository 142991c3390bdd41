"""Orders of samples as pure functions of integers, the same on every machine and NumPy version."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.random import randint

_MASK = 2**64 - 1


def permutation(count: int, seed: int, epoch: int) -> np.ndarray:
    """0 … count-1 in an order given by (seed, epoch): int64, shape (count,).

    Sorting by random keys: NumPy promises the stream of a bit generator, but not what its shuffle makes of
    it.
    """
    return np.argsort(_raw(count, seed, epoch), kind="stable").astype(np.int64, copy=False)


def uniforms(count: int, seed: int, epoch: int) -> np.ndarray:
    """Numbers in [0, 1) given by (seed, epoch): float64, shape (count,)."""
    return (_raw(count, seed, epoch) >> np.uint64(11)) * 2.0**-53


def _raw(count: int, seed: int, epoch: int) -> np.ndarray:
    key = np.array([seed & _MASK, epoch & _MASK], np.uint64)
    return np.asarray(np.random.Philox(key=key).random_raw(count))


def seed_of(seed: int | None, generator: Any) -> int:
    """The seed that was given: `seed` itself, the generator's, or for neither a draw from graphflow's
    generator.
    """
    if seed is not None and generator is not None:
        raise ValueError("give either seed or generator, not both")
    if seed is not None:
        return int(seed)
    if generator is not None:
        return int(generator.initial_seed())
    return int(randint(0, 2**31 - 1, ()).item())
