"""Transformations of functions: ``grad`` and ``value_and_grad`` give functions that compute derivatives.

They nest to any order, work on tensors at once as well as inside a compiled function, and don't touch
``.grad``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphflow.autograd.gradients import differentiating, fresh_alias, settled
from graphflow.autograd.gradients import grad as gradients_of
from graphflow.compiler.ir import format_shape
from graphflow.errors import DTypeError, GradientError
from graphflow.functions.create import as_tensor, zeros_like
from graphflow.tensor import Tensor, enable_grad, where_called
from graphflow.trees import flatten_tree, map_tree
from graphflow.variables import Untouched


def variable(leaf: Any, name: str) -> Tensor:
    """An argument's value as something of its own to differentiate with respect to."""
    if isinstance(leaf, float):
        leaf = as_tensor(leaf)
    if not isinstance(leaf, Tensor) or leaf.dtype.kind != "float":
        got = leaf.type_ if isinstance(leaf, Tensor) else type(leaf).__name__
        raise DTypeError(
            f"{name}: can differentiate with respect to floating point tensors (in tuples, lists and dicts), "
            "got "
            f"{got}; choose other argnums{where_called()}"
        )
    return fresh_alias(leaf)


def _scalar_output(output: Any, name: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise GradientError(
            f"{name}: the function has to return a tensor, it returned {type(output).__name__}; for "
            "auxiliary results "
            f"return (value, aux) and pass has_aux=True{where_called()}"
        )
    if any(s != 1 for s in output.type_.shape):
        raise GradientError(
            f"{name}: the function has to return a scalar, it returned shape "
            f"{format_shape(output.type_.shape)}; reduce it, "
            f"e.g. with .sum() or .mean(){where_called()}"
        )
    if output.dtype.kind != "float":
        raise GradientError(
            f"{name}: the function returned {output.type_}, which has no gradient{where_called()}"
        )
    return output


def value_and_grad(
    fn: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., tuple[Any, Any]]:
    """A function that gives ``(fn(...), gradient)``, the gradient with respect to positional arguments
    `argnums`.

    The gradient has the form of the argument: a tensor, or tuples, lists and dicts of tensors; for several
    `argnums` it is a tuple. An argument that the value doesn't depend on has a gradient of zeros. With
    `has_aux`, `fn` returns ``(value, aux)`` and so does the first result. GradientError unless the value is a
    scalar.
    """
    several = not isinstance(argnums, int)

    @functools.wraps(fn)
    def transformed(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        positions = positions_of("grad", argnums, len(args))
        leaves, build = flatten_tree(tuple(args[i] for i in positions))
        with enable_grad():
            variables = [variable(leaf, "grad") for leaf in leaves]
            called = list(args)
            for position, part in zip(positions, build(variables), strict=True):
                called[position] = part
            untouched = Untouched(variables)
            with differentiating(variables):
                result = fn(*called, **kwargs)
                untouched.check("grad")
                value, aux = with_aux("grad", result) if has_aux else (result, None)
                output = _scalar_output(value, "grad")
                grads = _gradients(output, variables)
        parts = build([finished_value(g) for g in grads])
        first = (finished_value(output), map_tree(finished_value, aux)) if has_aux else finished_value(output)
        return first, parts if several else parts[0]

    return transformed


def positions_of(name: str, argnums: int | Sequence[int], count: int) -> list[int]:
    """Numbers of positional arguments counted from the front, each once."""
    wanted = [argnums] if isinstance(argnums, int) else argnums
    if not isinstance(wanted, (tuple, list)) or not all(isinstance(i, int) for i in wanted) or not wanted:
        raise DTypeError(
            f"{name}: argnums must be an int or a non-empty tuple of ints, got {argnums!r}{where_called()}"
        )
    for index in wanted:
        if not -count <= index < count:
            raise GradientError(
                f"{name}: argnums={index}, but the function was called with {count} positional "
                f"arguments{where_called()}"
            )
    found = [index % count for index in wanted]
    if len(set(found)) < len(found):
        raise GradientError(f"{name}: argnums elements must be unique, got {tuple(wanted)}{where_called()}")
    return found


def with_aux(name: str, result: Any) -> tuple[Any, Any]:
    """What a function returns that has an auxiliary result."""
    if not (isinstance(result, tuple) and len(result) == 2):
        raise GradientError(
            f"{name}: with has_aux=True the function returns (output, aux), it returned "
            f"{type(result).__name__}{where_called()}"
        )
    return result


def _gradients(output: Tensor, variables: list[Tensor]) -> list[Tensor]:
    """d(output)/d(variable), zeros where there is no dependence."""
    if not output.requires_grad or not variables:
        return [zeros_like(v) for v in variables]
    found = gradients_of(output, variables, create_graph=True, allow_unused=True)
    return [zeros_like(v) if g is None else g for v, g in zip(variables, found, strict=True)]


def finished_value(value: Any) -> Any:
    """A result as the caller sees it: with history only where that leads to something outside."""
    return settled(value) if isinstance(value, Tensor) else value


def grad(
    fn: Callable[..., Any], argnums: int | Sequence[int] = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """A function that gives the gradient of the scalar ``fn(...)`` with respect to positional arguments
    `argnums`.

    See `value_and_grad` for the form of the result. With `has_aux`, gives ``(gradient, aux)``.
    """
    both = value_and_grad(fn, argnums, has_aux)

    @functools.wraps(fn)
    def transformed(*args: Any, **kwargs: Any) -> Any:
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return transformed


__all__ = ["grad", "value_and_grad"]
