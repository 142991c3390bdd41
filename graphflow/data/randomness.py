"""Random numbers of samples: a function of (seed, epoch, place in it), whichever worker prepares them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from graphflow.data.order import seed_of

_MASK = 2**64 - 1


class _Current(threading.local):
    key: tuple[int, int, int] | None = None
    generator: np.random.Generator | None = None


_current = _Current()


@contextmanager
def sample(seed: int, epoch: int, place: int) -> Iterator[None]:
    """While the epoch's sample at `place` is prepared on this thread."""
    outer = _current.key, _current.generator
    _current.key, _current.generator = (seed, epoch, place), None
    try:
        yield
    finally:
        _current.key, _current.generator = outer


def sample_generator() -> np.random.Generator:
    """The NumPy generator for random decisions about a sample: what random transforms draw from.

    Inside a DataLoader it starts anew for every sample from the loader's seed, the epoch and the sample's
    place in it, so that neither the number of workers nor their order matters, and a resumed epoch draws the
    same numbers. Elsewhere it is seeded by graphflow's own generator at every call.
    """
    if _current.key is None:
        return np.random.Generator(np.random.Philox(seed_of(None, None)))
    if _current.generator is None:
        seed, epoch, place = _current.key
        key = np.array([seed & _MASK, epoch & _MASK], np.uint64)
        # the counter's upper words: no two samples share a stretch of the stream
        counter = np.array([0, 0, place & _MASK, 1], np.uint64)
        _current.generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return _current.generator
