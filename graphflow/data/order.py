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
    keys = np.random.Philox(key=np.array([seed & _MASK, epoch & _MASK], np.uint64)).random_raw(count)
    return np.argsort(keys, kind="stable").astype(np.int64, copy=False)


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
