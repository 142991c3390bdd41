"""Checking a composition of operations against an independent formula in NumPy: values, gradients, and that
one compiled function does the same for every batch size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import graphflow as gf
import numpy as np

Function = Callable[..., gf.Tensor]
Formula = Callable[..., Any]


def cotangent(shape: Sequence[int]) -> np.ndarray:
    """A fixed weight for each element of a result, no two alike."""
    return np.cos(np.arange(int(np.prod(shape)))).reshape(tuple(shape))


def slopes(formula: Formula, arrays: Sequence[np.ndarray], number: int) -> np.ndarray:
    """Central differences of the weighted sum of the formula's result by one argument."""

    def total(changed: np.ndarray) -> float:
        values = np.asarray(formula(*arrays[:number], changed, *arrays[number + 1 :]))
        return float((values * cotangent(values.shape)).sum())

    at, found, step = arrays[number], np.zeros_like(arrays[number]), 1e-6
    for index in np.ndindex(*at.shape):
        up, down = at.copy(), at.copy()
        up[index] += step
        down[index] -= step
        found[index] = (total(up) - total(down)) / (2 * step)
    return found


def with_gradients(function: Function, trained: Sequence[int]) -> Callable[..., tuple[gf.Tensor, ...]]:
    """The function's value, and the gradients of its weighted sum by the arguments numbered in `trained`."""

    def both(weights: gf.Tensor, *args: gf.Tensor) -> tuple[gf.Tensor, ...]:
        leaves = [a.detach().requires_grad_() if i in trained else a for i, a in enumerate(args)]
        result = function(*leaves)
        total = (result * weights).sum()
        return result.detach(), *gf.autograd.grad(total, [leaves[i] for i in trained])

    return both


def check(
    function: Function,
    formula: Formula,
    *arrays: np.ndarray,
    trained: Sequence[int] = (0,),
    sizes: Sequence[int] = (),
    tolerance: float = 1e-10,
) -> None:
    """Asserts that the function is the formula, eagerly and compiled, and its gradients the formula's slopes.

    `sizes` are the leading sizes to which all arguments are cut for further calls of the one compiled
    function.
    """
    both = with_gradients(function, trained)
    compiled = gf.compile(both)
    for size in (None, *sizes):
        given = arrays if size is None else tuple(a[:size] for a in arrays)
        wanted = np.asarray(formula(*given))
        weights = gf.tensor(cotangent(wanted.shape))
        for run in (both, compiled):
            value, *gradients = run(weights, *map(gf.tensor, given))
            assert tuple(value.shape) == wanted.shape
            np.testing.assert_allclose(value.numpy(), wanted, rtol=tolerance, atol=tolerance)
            for number, gradient in zip(trained, gradients, strict=True):
                np.testing.assert_allclose(
                    gradient.numpy(), slopes(formula, given, number), rtol=1e-6, atol=1e-7
                )
    if sizes:
        assert len(compiled.variants) == 1
