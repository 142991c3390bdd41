"""What is said where the call of a module fails."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NoReturn

from graphflow.functions.arguments import told
from graphflow.nn import functional


def without_forward(module: Any) -> NoReturn:
    """Says that a class has no ``forward``."""
    raise NotImplementedError(f'Module [{type(module).__name__}] is missing the required "forward" function')


def complain(
    module: Any,
    forward: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    problem: Exception,
) -> None:
    """Raises a clearer error than `problem`, or lets it speak of graphflow's own layer; users' modules are
    their own affair.

    What a function of ``nn.functional`` says, or a layer inside, is left as it is.
    """
    if inspect.ismethod(forward) and forward.__module__.startswith("graphflow."):
        name = type(module).__name__
        better = told(name, forward.__func__, (module, *args), kwargs, problem, _is_of_nn)
        if better is not problem:
            raise better from problem


def _is_of_nn(name: str) -> bool:
    return hasattr(functional, name) or name[:1].isupper()
