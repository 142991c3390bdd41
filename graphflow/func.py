"""Transformations of functions under the names of ``torch.func``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphflow.derivatives import hessian, jacfwd, jacrev, jvp, linearize, vjp
from graphflow.nn.stateless import (
    functional_call,
    replace_all_batch_norm_modules_,
    stack_module_state,
)
from graphflow.transforms import grad, value_and_grad
from graphflow.vmap import vmap


def grad_and_value(
    func: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """`value_and_grad` with the gradient first: ``(gradient, value)``, or ``(gradient, (value, aux))``."""
    both = value_and_grad(func, argnums, has_aux)

    @functools.wraps(func)
    def transformed(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return gradient, value

    return transformed


__all__ = [
    "functional_call",
    "grad",
    "grad_and_value",
    "hessian",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "replace_all_batch_norm_modules_",
    "stack_module_state",
    "vjp",
    "vmap",
]
