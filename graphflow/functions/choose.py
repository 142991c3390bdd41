"""Functions that choose among elements: limits, the larger of two, masks."""

from __future__ import annotations

from typing import Any

from graphflow.compiler.ir import OPS
from graphflow.dtypes import bool_
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.common import (
    Operand,
    as_float,
    cast,
    in_dtype,
    operand,
    promoted,
    result_dtype,
    scalar,
    tensor_arg,
)
from graphflow.functions.index import nonzero
from graphflow.functions.registry import error, public
from graphflow.tensor import Tensor, apply

__all__ = [
    "clamp", "clamp_max", "clamp_min", "clip", "fmax", "fmin", "logit", "masked_fill", "maximum",
    "minimum", "where",
]  # fmt: skip


def _clamp_backward(input: Any, min: Any = None, max: Any = None) -> str:
    return f"ClampBackward{0 if isinstance(min, Tensor) or isinstance(max, Tensor) else 1}"


@public(aliases=("clip",), backward=_clamp_backward)
def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """Elements limited to [min, max], bounds being numbers or tensors; NaN stays NaN, `max` wins over `min`.

    The gradient passes where the element is inside, bounds included.
    """
    if min is None and max is None:
        raise error(ShapeError, "clamp", "at least one of min and max has to be given")
    values = [tensor_arg(input, "clamp")]
    bounds = [operand(b, "clamp", "min/max") for b in (min, max) if b is not None]
    dtype = result_dtype(*values, *bounds)
    t = cast(values[0], dtype)
    if min is not None:
        low = in_dtype(bounds[0], dtype)
        t = apply(OPS["where"], apply(OPS["lt"], t, low), low, t)
    if max is not None:
        high = in_dtype(bounds[-1], dtype)
        t = apply(OPS["where"], apply(OPS["gt"], t, high), high, t)
    return t


@public()
def clamp_min(input: Tensor, min: Operand) -> Tensor:
    """Elements not below `min`."""
    return clamp(input, min=min)


@public()
def clamp_max(input: Tensor, max: Operand) -> Tensor:
    """Elements not above `max`."""
    return clamp(input, max=max)


@public()
def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger of corresponding elements, NaN if either is; equal elements share the gradient.

    Of zeros with different signs it is the first one.
    """
    return apply(OPS["maximum"], *promoted("maximum", input, other))


@public()
def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of corresponding elements, NaN if either is; equal elements share the gradient.

    Of zeros with different signs it is the first one.
    """
    return apply(OPS["minimum"], *promoted("minimum", input, other))


def _without_nan(name: str, op: str, input: Any, other: Any) -> Tensor:
    a, b = promoted(name, input, other)
    if a.dtype.kind != "float":
        return apply(OPS["maximum" if op == "ge" else "minimum"], a, b)
    first = apply(OPS["bitwise_or"], apply(OPS[op], a, b), apply(OPS["isnan"], b))
    return apply(OPS["where"], first, a, b)


@public()
def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The larger of corresponding elements, or the one that isn't NaN; of equal ones the first has the
    gradient.
    """
    return _without_nan("fmax", "ge", input, other)


@public()
def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of corresponding elements, or the one that isn't NaN; of equal ones the first has the
    gradient.
    """
    return _without_nan("fmin", "le", input, other)


@public(method=False)
def where(condition: Tensor, input: Operand | None = None, other: Operand | None = None) -> Tensor:
    """`input` where `condition` (bool) holds, else `other`; broadcasts all three. With a condition alone, the
    positions where it isn't zero: one index tensor for each dimension.
    """
    c = tensor_arg(condition, "where", "condition")
    if input is None and other is None:
        return nonzero(c, as_tuple=True)  # type: ignore[no-any-return]
    if input is None or other is None:
        raise error(DTypeError, "where", "takes both 'input' and 'other', or neither")
    if c.dtype is not bool_:
        raise error(
            DTypeError, "where", f"the condition has to be a bool tensor, got {c.type_}; compare it with != 0"
        )
    return apply(OPS["where"], c, *promoted("where", input, other))


def _where_method(self: Tensor, condition: Tensor, other: Operand) -> Tensor:
    """`self` where `condition` (bool) holds, else `other`."""
    return where(condition, self, other)


public("where", function=False)(_where_method)


@public()
def masked_fill(input: Tensor, mask: Tensor, value: Operand) -> Tensor:
    """`input` with `value`, in input's dtype, where `mask` (bool, broadcastable to input) holds."""
    t = tensor_arg(input, "masked_fill")
    m = tensor_arg(mask, "masked_fill", "mask")
    if m.dtype is not bool_:
        raise error(
            DTypeError,
            "masked_fill",
            f"the mask has to be a bool tensor, got {m.type_}; compare it with != 0",
        )
    filler = operand(value, "masked_fill", "value")
    if isinstance(filler, Tensor) and filler.ndim:
        raise error(ShapeError, "masked_fill", f"the value has to be a number or 0-d, got {filler.type_}")
    if not isinstance(filler, Tensor) and t.dtype.kind == "int":
        filler = int(filler)  # like PyTorch, a fraction is cut off
    return apply(OPS["where"], m, in_dtype(filler, t.dtype), t)


@public()
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """``log(p / (1 - p))``, with p first clamped to [eps, 1 - eps] if `eps` is given."""
    t = as_float(input, "logit")
    p = t if eps is None else clamp(t, eps, 1.0 - eps)
    return apply(OPS["log"], apply(OPS["div"], p, apply(OPS["sub"], scalar(1, t.dtype), p)))


# other names for the same
clip = clamp
