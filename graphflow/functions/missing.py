"""Statistics without NaN, and small relatives of functions elsewhere."""

from __future__ import annotations

from typing import Any

from graphflow.dtypes import float64, get_default_dtype
from graphflow.functions.choose import where
from graphflow.functions.common import Dims, as_dtype, cast, require_float, scalar, tensor_arg
from graphflow.functions.create import linspace
from graphflow.functions.elementwise import div, pow_, sub
from graphflow.functions.index import nonzero
from graphflow.functions.logic import isnan, logical_not
from graphflow.functions.norms import norm
from graphflow.functions.reduce import sum_
from graphflow.functions.registry import public
from graphflow.tensor import Tensor


@public()
def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The sum over `dim` of the elements that aren't NaN."""
    t = tensor_arg(input, "nansum")
    return sum_(where(isnan(t), scalar(0, t.dtype), t), dim, keepdim, dtype=dtype)


@public()
def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The mean over `dim` of the elements that aren't NaN; NaN where all are."""
    t = require_float(tensor_arg(input, "nanmean"), "nanmean")
    present = logical_not(isnan(t))
    return div(nansum(t, dim, keepdim, dtype=dtype), sum_(present, dim, keepdim).to(dtype or t.dtype))


@public()
def argwhere(input: Tensor) -> Tensor:
    """Positions of the elements that aren't 0, int64[n, ndim]; see `nonzero`."""
    return nonzero(tensor_arg(input, "argwhere"))  # type: ignore[no-any-return]


@public()
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of ``input - other``."""
    return norm(sub(tensor_arg(input, "dist"), tensor_arg(other, "dist", "other")), p)


@public(method=False)
def logspace(
    start: float, end: float, steps: int, base: float = 10.0, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """`steps` powers of `base`, from ``base**start`` to ``base**end``, exponents evenly spaced."""
    wanted = get_default_dtype() if dtype is None else as_dtype(dtype)
    if wanted.kind == "int":
        start, end = int(start), int(end)
    made = cast(pow_(base, linspace(start, end, steps, dtype=float64, device=device)), wanted)
    return made.requires_grad_() if requires_grad else made
