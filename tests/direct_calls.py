"""For tests of direct calls: getting one, and asking it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np


def ready(function: Any) -> tuple[Callable[..., Any], ...]:
    found: tuple[Callable[..., Any], ...] = function._direct.ready
    return found


def warm(function: Any, *args: Any) -> Callable[..., Any]:
    """Calls a function until it takes such arguments directly."""
    for _ in range(2):
        function(*args)
    assert ready(function)
    return ready(function)[0]


def takes(run: Callable[..., Any], *args: Any) -> bool:
    return run(*args) is not NotImplemented


def numbers(*shape: int) -> gf.Tensor:
    return gf.tensor(np.random.default_rng(0).normal(size=shape).astype(np.float32))
