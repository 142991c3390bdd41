"""``out=``: a function's result written into tensors that are there already."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow import dtypes
from graphflow.compiler.ir import OPS, Shape, equal_size, format_shape
from graphflow.compiler.trace import current_trace
from graphflow.dims import product
from graphflow.errors import DTypeError, GradientError, ShapeError, TraceError
from graphflow.memory import Storage, advance_epoch
from graphflow.modes import is_grad_enabled
from graphflow.tensor import Tensor, apply, where_called


def into(name: str, body: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    """``body(*args, **kwargs)`` with its tensors written into `out`, which is given back.

    The result is computed in the dtype of `out` where the function lets that be chosen, and converted if that
    keeps the category. An empty `out` gets the result's shape; any other has to have it.
    """
    if out is None:
        return body(*args, **kwargs)
    targets = tuple(out) if isinstance(out, (tuple, list)) else (out,)
    for target in targets:
        if not isinstance(target, Tensor):
            raise DTypeError(f"{name}: out= takes tensors, not {type(target).__name__}{where_called()}")
    result = body(*args, **_in_dtype_of(targets[0], body, args, kwargs))
    several = isinstance(result, tuple)
    parts: tuple[Any, ...] = tuple(result) if several else (result,)
    if not all(isinstance(part, Tensor) for part in parts) or any(_is_view(p, args) for p in parts):
        what = "a view" if all(isinstance(part, Tensor) for part in parts) else "no tensor"
        raise DTypeError(f"{name}: gives {what} and takes no out={where_called()}")
    if len(parts) != len(targets):
        raise DTypeError(f"{name}: gives {len(parts)} tensors, out= has {len(targets)}{where_called()}")
    for part, target in zip(parts, targets, strict=True):
        _check(name, part, target)
    for part, target in zip(parts, targets, strict=True):
        _put(name, part, target)
    if not several:
        return targets[0]
    return type(result)(*targets) if hasattr(result, "_fields") else targets


def _in_dtype_of(
    target: Tensor, body: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The keyword arguments with the target's dtype, for functions that can be told and haven't been."""
    if "dtype" in kwargs or "dtype" not in inspect.signature(body).parameters:
        return kwargs
    given = inspect.signature(body).bind_partial(*args, **kwargs).arguments
    tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)]
    if "dtype" in given or not all(dtypes.can_cast(t.dtype, target.dtype) for t in tensors):
        return kwargs
    return {**kwargs, "dtype": target.dtype}


def _is_view(result: Tensor, args: Sequence[Any]) -> bool:
    """Whether a result sees the memory of an argument."""
    tensors = [a for a in args if isinstance(a, Tensor)]
    if any(result is t for t in tensors):
        return True
    if result._array is not None:
        return any(t._storage is result._storage for t in tensors)
    owner = result._alias.owner if result._alias is not None else None
    return any(owner is (t if t._alias is None else t._alias.owner) for t in tensors)


def _check(name: str, result: Tensor, target: Tensor) -> None:
    """Raises what makes `target` unfit, before anything is written."""
    if is_grad_enabled() and (result._requires_grad or target._requires_grad):
        raise GradientError(
            f"{name}: functions with out=... arguments don't support automatic differentiation, but one of "
            f"the arguments requires grad{where_called()}"
        )
    if not dtypes.can_cast(result.dtype, target.dtype):
        raise DTypeError(
            f"{name}: result type {result.dtype} can't be cast to the desired output type "
            f"{target.dtype}{where_called()}"
        )
    if _fits(result, target):
        return
    if product(target.type_.shape) != 0:
        raise ShapeError(
            f"{name}: out= has the shape {format_shape(target.type_.shape)}, the result "
            f"{format_shape(result.type_.shape)}; give a tensor of that shape or an empty one{where_called()}"
        )
    if current_trace() is not None and (target._array is not None or target._alias is not None):
        raise TraceError(
            f"{name}: inside a compiled function out= has to have the result's shape "
            f"{format_shape(result.type_.shape)}; memory outside can't get another size{where_called()}"
        )


def same_shape(a: Shape, b: Shape) -> bool:
    """Whether shapes agree; where symbols decide, at this call, and a compiled variant is bound to it."""
    try:
        return len(a) == len(b) and all(x == equal_size(x, y) for x, y in zip(a, b, strict=True))
    except ShapeError:
        return False


def _fits(result: Tensor, target: Tensor) -> bool:
    return same_shape(target.type_.shape, result.type_.shape)


def _put(name: str, result: Tensor, target: Tensor) -> None:
    value = result.detach()
    if value.dtype is not target.dtype:
        value = apply(OPS["cast"], value, dtype=target.dtype)
    if _fits(value, target):
        target._assign(value)
    elif target._array is not None:
        assert value._array is not None
        target._array, target._storage = np.array(value._array, order="C"), Storage()
        target._node, target._node_version = None, -1
        advance_epoch()
    else:
        trace = current_trace()
        assert trace is not None
        target._node = value._traced_node(trace)
