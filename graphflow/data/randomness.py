"""Random numbers of samples: a function of (seed, epoch, place in it), whichever worker prepares them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from graphflow.data.order import seed_of
from graphflow.random import Generator, lent

_MASK = 2**64 - 1

# What the numbers of a place are for. Streams of different uses have nothing in common.
SAMPLE, BATCH, WORKER = 1, 2, 3


class _Current(threading.local):
    key: tuple[int, int, int, int] | None = None
    arrays: np.random.Generator | None = None
    tensors: Generator | None = None


_current = _Current()


@contextmanager
def sample(seed: int, epoch: int, place: int, use: int = SAMPLE) -> Iterator[None]:
    """While the epoch's sample at `place`, or what else `use` says, is prepared on this thread.

    Draws of `sample_generator` and of graphflow's own functions (``gf.rand()``) are then functions of these
    four numbers.
    """
    outer = _current.key, _current.arrays, _current.tensors
    _current.key, _current.arrays, _current.tensors = (seed, epoch, place, use), None, None
    try:
        with lent(_tensor_generator):
            yield
    finally:
        _current.key, _current.arrays, _current.tensors = outer


def sample_generator() -> np.random.Generator:
    """The NumPy generator for random decisions about a sample: what random transforms draw from.

    Inside a DataLoader it starts anew for every sample from the loader's seed, the epoch and the sample's
    place in it, so that neither the number of workers nor their order matters, and a resumed epoch draws the
    same numbers. Elsewhere it is seeded by graphflow's own generator at every call.
    """
    if _current.key is None:
        return np.random.Generator(np.random.Philox(seed_of(None, None)))
    if _current.arrays is None:
        seed, epoch, place, use = _current.key
        key = np.array([seed & _MASK, epoch & _MASK], np.uint64)
        # the counter's upper words: no two samples share a stretch of the stream
        counter = np.array([0, 0, place & _MASK, use], np.uint64)
        _current.arrays = np.random.Generator(np.random.Philox(key=key, counter=counter))
    return _current.arrays


def _tensor_generator() -> Generator:
    if _current.tensors is None:
        text = repr((_current.key, "tensors")).encode()
        seed = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 1
        _current.tensors = Generator().manual_seed(seed)
    return _current.tensors
