"""How losses are reduced."""

from __future__ import annotations

import warnings

from graphflow.tensor import Tensor

REDUCTIONS = ("none", "mean", "sum")


def legacy(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """`reduction`, or what the older arguments `size_average` and `reduce` ask for, with a warning."""
    if size_average is None and reduce is None:
        return reduction
    if reduce is False:
        chosen = "none"
    else:
        chosen = "sum" if size_average is False else "mean"
    warnings.warn(
        f"size_average and reduce are deprecated, use reduction={chosen!r} instead",
        FutureWarning,
        stacklevel=3,
    )
    return chosen


def check(reduction: str) -> None:
    """ValueError unless `reduction` is one of ``"none"``, ``"mean"``, ``"sum"``."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction; it takes 'none', 'mean' or 'sum'")


def reduced(loss: Tensor, reduction: str) -> Tensor:
    """`loss` itself, its mean or its sum."""
    check(reduction)
    if reduction == "none":
        return loss
    total: Tensor = loss.mean() if reduction == "mean" else loss.sum()
    return total
