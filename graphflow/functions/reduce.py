"""Reductions, and the normalisations that stand on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, overload

from graphflow import return_types
from graphflow.compiler.ir import OPS
from graphflow.compiler.trace import current_trace
from graphflow.dims import Dim, product
from graphflow.dtypes import bool_, get_default_dtype, int64, uint8
from graphflow.errors import DTypeError, IndexRangeError, ShapeError
from graphflow.functions.choose import maximum, minimum
from graphflow.functions.common import (
    Dims,
    Extent,
    as_dtype,
    at_least,
    cast,
    copied,
    dim_arg,
    dims_arg,
    logical,
    of_size,
    require_float,
    reshaped,
    rounded_once,
    scalar,
    tensor_arg,
    without,
)
from graphflow.functions.logic import eq, isclose
from graphflow.functions.registry import error, public
from graphflow.return_types import Extremes
from graphflow.tensor import Tensor, apply

__all__ = [
    "allclose", "amax", "amin", "aminmax", "argmax", "argmin", "count_nonzero", "equal", "log_softmax",
    "logsumexp", "mean", "prod", "softmax", "std", "std_mean", "var", "var_mean",
]  # fmt: skip


def reduced(op: str, t: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    """A primitive reduction; without `keepdim` the reduced dimensions are dropped."""
    if not dims:
        return apply(OPS["cast"], t, dtype=int64 if op.startswith("arg") else t.dtype)
    result = apply(OPS[op], t, dims=dims)
    return result if keepdim else reshaped(result, without(t.type_.shape, dims))


def _dropped(kept: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    return kept if keepdim or not dims else reshaped(kept, without(kept.type_.shape, dims))


def _count(t: Tensor, dims: tuple[int, ...]) -> Extent:
    return product(t.type_.shape[d] for d in dims)


# ---------------------------------------------------------------------------------------------- sums


def _by_dim(name: str, whole: int = 0) -> Callable[..., str]:
    """PyTorch numbers the overloads for all elements and for some dimensions."""
    return lambda input, dim=None, *_, **__: f"{name}Backward{whole if dim is None else 1 - whole}"


def _totalled(op: str, t: Tensor, dims: tuple[int, ...], keepdim: bool, dtype: Any) -> Tensor:
    """A sum or product in `dtype`; of bools, whether any or all hold."""
    wanted = as_dtype(dtype) if dtype is not None else t.dtype if t.dtype.kind == "float" else int64
    if wanted is bool_:
        return reduced("any" if op == "sum" else "all", logical(t), dims, keepdim)
    return reduced(op, cast(t, wanted), dims, keepdim)


@public(name="sum", backward=_by_dim("Sum"))
def sum_(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over `dim` (all dimensions by default); integers and bools add up as int64."""
    t = tensor_arg(input, "sum")
    dims = dims_arg(dim, t.ndim, "sum")
    return _totalled("sum", t, dims, keepdim, dtype)


@public(backward=_by_dim("Mean"))
def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The arithmetic mean over `dim`; DTypeError on integers unless `dtype` is a floating point type."""
    t = tensor_arg(input, "mean")
    t = t if dtype is None else cast(t, as_dtype(dtype))
    if t.dtype.kind != "float":
        raise error(
            DTypeError, "mean",
            "could not infer output dtype. Input dtype must be a floating point dtype. Got: "
            f"{t.dtype}; convert with .float() or pass dtype=",
        )  # fmt: skip
    return _mean(t, dims_arg(dim, t.ndim, "mean"), keepdim)


@rounded_once
def _mean(t: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    return apply(OPS["div"], reduced("sum", t, dims, keepdim), of_size(_count(t, dims), t.dtype))


@public(backward=_by_dim("Prod"))
def prod(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product over `dim`; integers and bools multiply as int64."""
    t = tensor_arg(input, "prod")
    dims = dims_arg(dim, t.ndim, "prod")
    return _totalled("prod", t, dims, keepdim, dtype)


def _correction(unbiased: bool | None, correction: float | None) -> float:
    if correction is not None:
        return correction
    return 1 if unbiased is None or unbiased else 0


def _var_arguments(
    name: str, dim: Any, unbiased: bool | None, correction: float | None
) -> tuple[Dims, float]:
    """PyTorch's overload ``var(input, unbiased)`` told apart from ``var(input, dim)``."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise error(ShapeError, name, "takes unbiased= or correction=, not both")
    return dim, _correction(unbiased, correction)


@rounded_once
def _var_mean(t: Tensor, dims: tuple[int, ...], correction: float, keepdim: bool) -> tuple[Tensor, Tensor]:
    mean_kept = _mean(t, dims, True)
    difference = apply(OPS["sub"], t, mean_kept)
    squares = reduced("sum", apply(OPS["mul"], difference, difference), dims, keepdim)
    return apply(OPS["div"], squares, _freedom(t, dims, correction)), mean_kept


def _freedom(t: Tensor, dims: tuple[int, ...], correction: float) -> Tensor:
    count = _count(t, dims)
    if not isinstance(count, Dim):
        return scalar(max(count - correction, 0), t.dtype)
    left = apply(OPS["sub"], of_size(count, t.dtype), scalar(correction, t.dtype))
    return apply(OPS["maximum"], left, scalar(0, t.dtype))


@public()
def var(
    input: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The variance over `dim`: squared distances from the mean, divided by the count less `correction`
    (default 1).
    """
    dim, correction = _var_arguments("var", dim, unbiased, correction)
    t = require_float(tensor_arg(input, "var"), "var")
    return _var_mean(t, dims_arg(dim, t.ndim, "var"), correction, keepdim)[0]


def safe_root(total: Tensor, root: Callable[[Tensor], Tensor]) -> Tensor:
    """``root(total)`` whose gradient where the total is 0 is 0 instead of infinite, as in PyTorch."""
    is_zero = apply(OPS["eq"], total, scalar(0, total.dtype))
    inside = apply(OPS["where"], is_zero, scalar(1, total.dtype), total)
    return apply(OPS["where"], is_zero, total, root(inside))


@public()
def std(
    input: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The standard deviation over `dim`, the square root of `var`; its gradient is 0 where it is 0."""
    dim, correction = _var_arguments("std", dim, unbiased, correction)
    t = require_float(tensor_arg(input, "std"), "std")
    return _std_mean(t, dims_arg(dim, t.ndim, "std"), correction, keepdim)[0]


@rounded_once
def _std_mean(t: Tensor, dims: tuple[int, ...], correction: float, keepdim: bool) -> tuple[Tensor, Tensor]:
    variance, mean_kept = _var_mean(t, dims, correction, keepdim)
    return safe_root(variance, lambda x: apply(OPS["sqrt"], x)), mean_kept


@public()
def var_mean(
    input: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The variance and the mean over `dim`."""
    dim, correction = _var_arguments("var_mean", dim, unbiased, correction)
    t = require_float(tensor_arg(input, "var_mean"), "var_mean")
    dims = dims_arg(dim, t.ndim, "var_mean")
    variance, mean_kept = _var_mean(t, dims, correction, keepdim)
    return variance, _dropped(mean_kept, dims, keepdim)


@public()
def std_mean(
    input: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The standard deviation and the mean over `dim`."""
    dim, correction = _var_arguments("std_mean", dim, unbiased, correction)
    t = require_float(tensor_arg(input, "std_mean"), "std_mean")
    dims = dims_arg(dim, t.ndim, "std_mean")
    deviation, mean_kept = _std_mean(t, dims, correction, keepdim)
    return deviation, _dropped(mean_kept, dims, keepdim)


# ---------------------------------------------------------------------------------------------- extremes


def _extreme(op: str, t: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    if t.dtype is bool_:
        return reduced("any" if op == "max" else "all", t, dims, keepdim)
    return reduced(op, t, dims, keepdim)


def require_elements(name: str, t: Tensor, dims: tuple[int, ...]) -> None:
    """IndexRangeError where a reduction without a value for nothing has nothing to reduce."""
    problem = error(
        IndexRangeError,
        name,
        f"{t.type_} has no elements along the reduced dimension; {name} of nothing has no value",
    )
    trace = current_trace()
    for d in dims:
        size = t.type_.shape[d]
        if size == 0:
            raise problem
        if isinstance(size, Dim) and trace is not None:
            trace.need_elements(size, problem)


def _max_or_min(name: str, t: Tensor, dim: Any, keepdim: bool) -> Tensor | Extremes:
    if dim is None:
        dims = dims_arg(None, t.ndim, name)
        require_elements(name, t, dims)
        return _extreme(name, t, dims, False)
    axis = dim_arg(dim, t.ndim, name)
    result = return_types.max if name == "max" else return_types.min
    if not t.ndim:
        return result(copied(t), apply(OPS["cast"], apply(OPS["ne"], t, t), dtype=int64))
    require_elements(name, t, (axis,))
    indices = apply(OPS["arg" + name], cast(t, uint8) if t.dtype is bool_ else t, dims=(axis,))
    # The gradient goes to the element found; only without one is the plain reduction the same.
    values = (
        apply(OPS["gather"], t, indices, dim=axis) if t.requires_grad else _extreme(name, t, (axis,), True)
    )
    return result(_dropped(values, (axis,), keepdim), _dropped(indices, (axis,), keepdim))


@overload
def max_(input: Tensor) -> Tensor: ...
@overload
def max_(input: Tensor, dim: Tensor) -> Tensor: ...
@overload
def max_(input: Tensor, dim: int, keepdim: bool = False) -> Extremes: ...
@public(name="max", backward=_by_dim("Max", 1))
def max_(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None
) -> Tensor | Extremes:
    """The largest element; with `dim`, ``(values, indices)`` along it; with a tensor, the elementwise
    `maximum`.

    NaN counts as larger than every number.
    """
    if other is not None or isinstance(dim, Tensor):
        return maximum(input, dim if other is None else other)
    return _max_or_min("max", tensor_arg(input, "max"), dim, keepdim)


@overload
def min_(input: Tensor) -> Tensor: ...
@overload
def min_(input: Tensor, dim: Tensor) -> Tensor: ...
@overload
def min_(input: Tensor, dim: int, keepdim: bool = False) -> Extremes: ...
@public(name="min", backward=_by_dim("Min", 1))
def min_(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None
) -> Tensor | Extremes:
    """The smallest element; with `dim`, ``(values, indices)`` along it; with a tensor, the elementwise
    `minimum`.

    NaN counts as smaller than every number.
    """
    if other is not None or isinstance(dim, Tensor):
        return minimum(input, dim if other is None else other)
    return _max_or_min("min", tensor_arg(input, "min"), dim, keepdim)


@public()
def amax(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The largest elements over `dim`; equal ones share the gradient."""
    t = tensor_arg(input, "amax")
    dims = dims_arg(dim, t.ndim, "amax")
    require_elements("amax", t, dims)
    return _extreme("max", t, dims, keepdim)


@public()
def amin(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The smallest elements over `dim`; equal ones share the gradient."""
    t = tensor_arg(input, "amin")
    dims = dims_arg(dim, t.ndim, "amin")
    require_elements("amin", t, dims)
    return _extreme("min", t, dims, keepdim)


@public()
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """``(amin, amax)``."""
    return amin(input, dim, keepdim), amax(input, dim, keepdim)


def _arg(name: str, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    t = tensor_arg(input, name)
    if t.dtype is bool_:
        raise error(DTypeError, name, "does not support bool input; convert with .int()")
    if dim is None:
        require_elements(name, t, tuple(range(t.ndim)))
        found = reduced(name, reshaped(t, (product(t.type_.shape),)), (0,), False)
        return reshaped(found, (1,) * t.ndim) if keepdim and t.ndim else found
    axis = dim_arg(dim, t.ndim, name)
    if not t.ndim:
        return apply(OPS["cast"], apply(OPS["ne"], t, t), dtype=int64)
    require_elements(name, t, (axis,))
    return reduced(name, t, (axis,), keepdim)


@public()
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The int64 position of the first largest element along `dim`, or in the flattened tensor."""
    return _arg("argmax", input, dim, keepdim)


@public()
def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The int64 position of the first smallest element along `dim`, or in the flattened tensor."""
    return _arg("argmin", input, dim, keepdim)


# ---------------------------------------------------------------------------------------------- logic


@public(name="all")
def all_(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether every element over `dim` is nonzero, as a bool."""
    t = tensor_arg(input, "all")
    dims = () if dim == () else dims_arg(dim, t.ndim, "all")  # PyTorch's: here no dimension isn't every one
    return reduced("all", logical(t), dims, keepdim)


@public(name="any")
def any_(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether some element over `dim` is nonzero, as a bool."""
    t = tensor_arg(input, "any")
    return reduced("any", logical(t), () if dim == () else dims_arg(dim, t.ndim, "any"), keepdim)


@public()
def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """How many elements over `dim` are nonzero, as int64."""
    t = tensor_arg(input, "count_nonzero")
    dims = dims_arg(dim, t.ndim, "count_nonzero")
    return reduced("sum", cast(logical(t), int64), dims, False)


# --------------------------------------------------------------------------------------- exponential families


def _floating(input: Tensor, name: str, dtype: Any) -> Tensor:
    t = tensor_arg(input, name)
    return require_float(t if dtype is None else cast(t, as_dtype(dtype)), name)


def _shifted(t: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Elements less their largest, which changes no result but keeps exp from overflowing."""
    largest = apply(OPS["detach"], apply(OPS["max"], t, dims=dims))
    return apply(OPS["sub"], t, largest)


def _empty_along(t: Tensor, dims: tuple[int, ...]) -> bool:
    return not dims or any(not at_least(t.type_.shape[d], 1) for d in dims)


@public()
def softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """``exp(input) / sum(exp(input))`` along `dim`, in a form that doesn't overflow."""
    t = _floating(input, "softmax", dtype)
    dims = dims_arg(dim, t.ndim, "softmax")
    if _empty_along(t, dims):
        return apply(OPS["exp"], apply(OPS["sub"], t, t))
    return _softmax(t, dims)


@rounded_once
def _softmax(t: Tensor, dims: tuple[int, ...]) -> Tensor:
    powers = apply(OPS["exp"], _shifted(t, dims))
    return apply(OPS["div"], powers, apply(OPS["sum"], powers, dims=dims))


@public()
def log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """``log(softmax(input, dim))``, in a form that doesn't lose digits."""
    t = _floating(input, "log_softmax", dtype)
    dims = dims_arg(dim, t.ndim, "log_softmax")
    if _empty_along(t, dims):
        return apply(OPS["sub"], t, t)
    return _log_softmax(t, dims)


@rounded_once
def _log_softmax(t: Tensor, dims: tuple[int, ...]) -> Tensor:
    shifted = _shifted(t, dims)
    total = apply(OPS["sum"], apply(OPS["exp"], shifted), dims=dims)
    return apply(OPS["sub"], shifted, apply(OPS["log"], total))


@public()
def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """``log(sum(exp(input)))`` over `dim`, in a form that doesn't overflow; -inf for no elements."""
    t = tensor_arg(input, "logsumexp")
    t = t if t.dtype.kind == "float" else cast(t, get_default_dtype())
    return _logsumexp(t, dims_arg(dim, t.ndim, "logsumexp"), keepdim)


@rounded_once
def _logsumexp(t: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    if t.ndim == 0:
        return copied(t)
    if _empty_along(t, dims):
        return apply(OPS["log"], reduced("sum", apply(OPS["exp"], t), dims, keepdim))
    largest = apply(OPS["detach"], apply(OPS["max"], t, dims=dims))
    zero = scalar(0, t.dtype)
    shift = apply(OPS["where"], apply(OPS["isinf"], largest), zero, largest)
    total = apply(OPS["sum"], apply(OPS["exp"], apply(OPS["sub"], t, shift)), dims=dims)
    return _dropped(apply(OPS["add"], apply(OPS["log"], total), shift), dims, keepdim)


@public()
def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> bool:
    """Whether all elements are close; see `isclose`. A Python bool, so it can't be asked while tracing."""
    return bool(all_(isclose(input, other, rtol, atol, equal_nan)))


@public()
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether shapes and all elements are equal. A Python bool, so it can't be asked while tracing."""
    a, b = tensor_arg(input, "equal"), tensor_arg(other, "equal", "other")
    if a.type_.shape != b.type_.shape:
        return False
    return bool(all_(eq(a, b)))
