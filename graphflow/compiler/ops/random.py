"""Counter-based random bits: element i of a draw depends on (seed, offset + i) alone, never on who computes
it.

Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011). The
key is the 64-bit seed, the counter the 64-bit element number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow.compiler.indexing import Shape
from graphflow.compiler.ir import BadSample, Op, Sample, TensorType, register
from graphflow.dtypes import int64
from graphflow.errors import DTypeError, ShapeError

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_BLOCK = 1 << 13  # counters whose words stay in a processor's near caches


def philox(seed: int, counters: np.ndarray) -> list[np.ndarray]:
    """The four 32-bit words (in uint64 arrays) for every 64-bit counter."""
    flat = counters.astype(np.uint64).reshape(-1)
    words = np.empty((4, flat.size), np.uint64)
    for start in range(0, flat.size, _BLOCK):
        part = slice(start, start + _BLOCK)
        words[:, part] = _philox_block(seed, flat[part])
    return list(words.reshape(4, *counters.shape))


def _philox_block(seed: int, counters: np.ndarray) -> tuple[np.ndarray, ...]:
    c0, c1 = counters & _MASK, counters >> _SHIFT
    c2, c3 = np.zeros_like(counters), np.zeros_like(counters)
    p0, p1 = np.empty_like(counters), np.empty_like(counters)
    k0, k1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    m0, m1 = map(np.uint64, MULTIPLIERS)
    for _ in range(ROUNDS):
        np.multiply(c0, m0, out=p0)
        np.multiply(c2, m1, out=p1)
        for high, product, before, key in ((c0, p1, c1, k0), (c2, p0, c3, k1)):
            np.right_shift(product, _SHIFT, out=high)
            np.bitwise_xor(high, before, out=high)
            np.bitwise_xor(high, np.uint64(key), out=high)
            np.bitwise_and(product, _MASK, out=before)
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _infer(key: TensorType, shape: Shape, word: int) -> TensorType:
    if key.dtype is not int64:
        raise DTypeError(f"the key has to be int64, got {key.dtype}")
    if key.shape != (2,):
        raise ShapeError(f"the key has to be (seed, offset), shape (2,), got {key.shape}")
    if not 0 <= word < 4:
        raise ShapeError(f"there are four words for every counter, no word {word}")
    return TensorType(int64, shape)


def _reference(key: np.ndarray, shape: tuple[int, ...], word: int) -> Any:
    seed, offset = int(key[0]) & (2**64 - 1), int(key[1])
    counters = np.arange(int(np.prod(shape)), dtype=np.int64) + np.int64(offset)
    return philox(seed, counters.view(np.uint64))[word].astype(np.int64).reshape(shape)


random_bits: Op = register(Op(
    "random_bits", "generator", _infer, _reference, None,
    lambda rng: [
        Sample((np.array(k, np.int64),), {"shape": s, "word": w}, gradient=False)
        for k, s, w in [((0, 0), (5,), 0), ((123456789012345, 7), (3, 4), 1), ((-1, 2**40), (2, 0), 2),
                        ((1, -3), (), 3)]
    ],
    lambda rng: [
        BadSample((np.zeros(2),), {"shape": (3,), "word": 0}, DTypeError, "has to be int64"),
        BadSample((np.zeros(3, np.int64),), {"shape": (3,), "word": 0}, ShapeError, "shape (2,)"),
    ],
    arity=1,
    doc="32 random bits per element as an int64 in [0, 2**32); the key is (seed, offset).",
    batch="a stream of random numbers has one place; draw outside, or see vmap's randomness=",
))  # fmt: skip
