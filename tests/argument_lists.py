"""Argument lists that functions take: found by trying, so that every public function has some."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import graphflow as gf
import graphflow.nn.functional as F
import numpy as np
from graphflow.errors import GraphflowError
from graphflow.functions.registry import FUNCTIONS

Arguments = tuple[Any, ...]
Function = Callable[..., Any]

# Of other things than tensors: functions, arrays, dtypes; or of sizes only, with a result that isn't defined.
OTHER = {
    "as_tensor", "asarray", "can_cast", "cond", "empty", "empty_like", "fori_loop", "from_dlpack",
    "from_numpy", "is_tensor", "promote_types", "scan", "tensor", "while_loop", "broadcast_shapes",
}  # fmt: skip
RANDOM = {
    "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "bernoulli",
    "multinomial", "normal", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
    "feature_alpha_dropout", "rrelu", "rrelu_", "gumbel_softmax", "poisson",
}  # fmt: skip


def public_functions() -> dict[str, Function]:
    """Every public function of tensors by its name: graphflow's, ``F.``, ``linalg.`` and methods."""
    found: dict[str, Function] = {n: f for n, f in FUNCTIONS.items() if n not in OTHER}
    found |= {f"F.{n}": getattr(F, n) for n in F.__all__ if getattr(F, n) not in FUNCTIONS.values()}
    found |= {f"linalg.{n}": getattr(gf.linalg, n) for n in gf.linalg.__all__ if n != "LinAlgError"}
    return found


def is_random(name: str) -> bool:
    return name.rpartition(".")[2] in RANDOM


_rng = np.random.default_rng(0)


def floats(*shape: int) -> gf.Tensor:
    """Floats between 0.1 and 0.9, where nearly all functions are defined."""
    return gf.tensor(_rng.uniform(0.1, 0.9, shape), dtype=gf.float64)


def ints(*shape: int, high: int = 3) -> gf.Tensor:
    """Integers from 0 below `high`."""
    return gf.tensor(_rng.integers(0, high, shape), dtype=gf.int64)


def bools(*shape: int) -> gf.Tensor:
    """Half of them true."""
    return gf.tensor(_rng.random(shape) < 0.5)


def candidates() -> Iterator[Arguments]:
    """Argument lists to try, one after another."""
    x, y, square, vector = floats(4, 3), floats(4, 3), floats(3, 3), floats(3)
    yield from ((x,), (x, y), (x, y, floats(4, 3)), (x, 0), (x, 1, 0), (x, 0.5), (x, 0.2, 0.7))
    yield from ((x, (0, 1)), (x, (4, 3)), (x, 3, 1), (x, 0, 1, 2), (square, square), (square, vector))
    yield from (
        (vector, vector),
        (square,),
        (vector,),
        ([x, y],),
        ([x, y], 0),
        (x, x, 0.3),
        ([square, square],),
    )
    yield from (
        (ints(4, 3),),
        (ints(4, 3), ints(4, 3)),
        (bools(4, 3),),
        (bools(4, 3), bools(4, 3)),
        (ints(6),),
    )
    yield from ((x, 0, ints(2)), (x, 0, ints(4, 3)), (x, ints(4, 3), 0), (x, ints(4)), (bools(4, 3), x, y))
    yield from ((x, 0, ints(2), floats(2, 3)), (x, 0, ints(4, 3), y), (x, bools(4, 3), 0.5))
    yield from (
        (x, bools(4, 3), x),
        (floats(4, 6), 1, (2, 3)),
        ("ij,kj->ik", x, y),
        (x, (ints(2),), floats(2, 3)),
    )
    yield from ((vector, square, vector), (x, square, square), (floats(2, 4), floats(2, 3), floats(3, 4)))
    yield from ((floats(2, 4, 3), floats(2, 3, 4)), (floats(2, 3, 4), floats(2, 3, 5), floats(2, 5, 4)))
    yield from (((4, 3),), (4,), (0, 5), ((4, 3), 1.5), (0, 5, 4), (0, 5, (4, 3)), (4, 4), (x, gf.float32))
    yield from ((x, floats(4, 3), gf.tensor([1, -1, 1, 1])), (vector, x), (x, floats(4, 2), floats(5, 3, 2)))
    yield from ((floats(2, 4, 8),), (floats(2, 4, 8), 2), (floats(2, 4, 8, 8),), (floats(2, 4, 8, 8), 2))
    yield from ((floats(2, 4, 6, 8, 8),), (floats(2, 4, 8, 8, 8), 2), (floats(2, 4, 8), 2.0, 2), (ints(4), x))
    yield from (
        (floats(2, 4, 8, 8), 2.0, 2),
        (floats(2, 4, 8, 8, 8), 2.0, 2),
        (floats(2, 12, 9), (4, 4), (2, 2)),
    )
    yield x, floats(5, 3), ints(4)
    yield floats(5, 2, 3).log(), gf.tensor([[1, 2], [2, 2]]), gf.tensor([5, 4]), gf.tensor([2, 1])
    for d in (1, 2, 3):
        yield floats(2, 4, *[8] * d), floats(3, 4, *[2] * d)
        yield floats(2, 4, *[4] * d), floats(4, 3, *[2] * d)
    yield (*(floats(4, 2, 8) for _ in range(3)), 8, 2, floats(24, 8), floats(24), None, None, False, 0.0,
           floats(8, 8), floats(8))  # fmt: skip


CANDIDATES = list(candidates())


def copied(value: Any) -> Any:
    """The argument again, for functions that change theirs."""
    if isinstance(value, gf.Tensor):
        return value.clone()
    return type(value)(copied(v) for v in value) if isinstance(value, (list, tuple)) else value


@functools.cache
def taken(name: str, count: int = 3) -> tuple[Arguments, ...]:
    """The first argument lists that the function answers with something."""
    function = public_functions()[name]
    return tuple(itertools.islice((args for args in CANDIDATES if answers(function, args)), count))


def answers(function: Function, args: Arguments) -> bool:
    """Whether a function takes these arguments."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*map(copied, args)) is not None
    except (GraphflowError, TypeError, ValueError, RuntimeError, ZeroDivisionError):
        return False
