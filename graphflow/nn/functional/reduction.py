"""How losses are reduced."""

from __future__ import annotations

import warnings
from typing import Any

from graphflow.functions.registry import user_level
from graphflow.tensor import Tensor, where_called

REDUCTIONS = ("none", "mean", "sum")


def legacy(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """`reduction`, or what the older arguments `size_average` and `reduce` ask for, with a warning."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is not None and not reduce:
        wanted = "none"
    else:
        wanted = "mean" if size_average is None or size_average else "sum"
    warnings.warn(
        f"size_average and reduce are deprecated, use reduction={wanted!r} instead",
        UserWarning,
        stacklevel=user_level(),
    )
    return wanted


def check(reduction: str) -> None:
    """ValueError unless `reduction` is one of ``"none"``, ``"mean"``, ``"sum"``."""
    if reduction not in REDUCTIONS:
        raise ValueError(
            f"{reduction} is not a valid value for reduction; it takes 'none', 'mean' or 'sum'"
            + where_called()
        )


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """`loss` itself, its mean or its sum."""
    check(reduction)
    if reduction == "none":
        return loss
    total: Tensor = loss.mean() if reduction == "mean" else loss.sum()
    return total


def chosen(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction that a loss's arguments ask for, checked."""
    reduction = legacy(size_average, reduce, reduction)
    check(reduction)
    return reduction


def differ(a: Tensor, b: Tensor) -> bool:
    """Whether two shapes are known to differ; symbolic sizes are compared by the operations that need it."""
    return a.ndim != b.ndim or any(map(sizes_differ, a.shape, b.shape))


def sizes_differ(a: Any, b: Any) -> bool:
    """Whether two sizes are known to differ."""
    return isinstance(a, int) and isinstance(b, int) and a != b


def as_number(target: Tensor, input: Tensor) -> Tensor:
    """A target of booleans as numbers of the input's dtype, other targets as they are."""
    return target.to(input.dtype) if target.dtype.kind == "bool" else target


def warn_of_broadcasting(input: Tensor, target: Tensor) -> None:
    """Warns when input and target have different shapes: a result of their broadcasting is rarely meant."""
    if differ(input, target):
        warnings.warn(
            f"Using a target size ({tuple(target.shape)}) that is different to the input size "
            f"({tuple(input.shape)}). This will likely lead to incorrect results due to broadcasting. "
            "Please ensure they have the same size.",
            UserWarning,
            stacklevel=user_level(),
        )
