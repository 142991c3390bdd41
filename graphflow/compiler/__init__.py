"""The compiler: from a traced graph to a Program. Its own names here are ``torch.compiler``'s."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from graphflow.compiler.location import user_loc
from graphflow.compiler.trace import current_trace
from graphflow.errors import TraceError


def is_compiling() -> bool:
    """Whether this runs because a function is being traced."""
    return current_trace() is not None


def is_exporting() -> bool:
    """Whether this runs because a function is being traced: what is exported is traced as ever."""
    return is_compiling()


def reset() -> None:
    """Nothing: compiled functions see what changed around them, and a new one starts empty."""


def cudagraph_mark_step_begin() -> None:
    """Nothing: every result has memory of its own."""


def list_backends() -> list[str]:
    """The names that ``compile(backend=...)`` takes for graphflow's compiler."""
    return ["inductor"]


def allow_in_graph(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`: every function is traced."""
    return fn


def disable(
    fn: Callable[..., Any] | None = None, recursive: bool = True, *, reason: str | None = None
) -> Any:
    """`fn`, which must not be called inside a compiled function: a TraceError tells when it is. With and
    without parentheses.
    """
    if fn is None:
        return functools.partial(disable, recursive=recursive, reason=reason)

    @functools.wraps(fn)
    def outside(*args: Any, **kwargs: Any) -> Any:
        if is_compiling():
            why = f" ({reason})" if reason else ""
            place = user_loc()
            raise TraceError(
                f"{fn.__name__} is not to be compiled{why}, and a compiled function is one graph, which "
                "can't be left on the way; call it before or after"
                + (f"\n  at {place.describe()}" if place else "")
            )
        return fn(*args, **kwargs)

    return outside


__all__ = [
    "allow_in_graph", "cudagraph_mark_step_begin", "disable", "is_compiling", "is_exporting", "list_backends",
    "reset",
]  # fmt: skip
