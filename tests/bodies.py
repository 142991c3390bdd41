"""Running functions with loops and branches in them at once and compiled, and checking their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np

RNG = np.random.default_rng(0)

def both(function: Callable[..., Any], *args: Any) -> list[np.ndarray]:
    """The results of a function, eagerly and compiled, which have to be the same."""
    results = []
    for f in (function, gf.compile(function)):
        leaves = f(*args)
        leaves = leaves if isinstance(leaves, (tuple, list)) else (leaves,)
        results.append([np.array(leaf.detach().numpy()) for leaf in leaves])
    for eager, compiled in zip(*results, strict=True):
        assert eager.dtype == compiled.dtype
        np.testing.assert_allclose(eager, compiled, rtol=1e-12, atol=1e-12)
    return results[0]


def tensor(*shape: int) -> gf.Tensor:
    return gf.tensor(RNG.standard_normal(shape))


def check_gradients(function: Callable[..., gf.Tensor], *args: gf.Tensor) -> None:
    """First and second derivatives, eagerly and compiled, beside finite differences."""
    first = gf.grad(function, argnums=tuple(range(len(args))))
    second = gf.grad(lambda *a: sum((g * g).sum() for g in first(*a)), argnums=tuple(range(len(args))))
    for f, df in ((function, first), (lambda *a: sum((g * g).sum() for g in first(*a)), second)):
        found = both(df, *args)
        for number, arg in enumerate(args):
            direction = RNG.standard_normal(arg.shape)
            step = 1e-5

            def at(s: float, number: int = number, direction: np.ndarray = direction, f: Any = f) -> float:
                moved = [a + s * gf.tensor(direction) if i == number else a for i, a in enumerate(args)]
                return f(*moved).item()

            numeric = (at(step) - at(-step)) / (2 * step)
            np.testing.assert_allclose((found[number] * direction).sum(), numeric, rtol=2e-5, atol=1e-7)
