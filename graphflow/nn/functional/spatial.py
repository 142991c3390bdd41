"""What functions on images, signals and volumes share: arguments given once or for each dimension, shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.dims import Dim, divide
from graphflow.dtypes import DType
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.common import pinned, tensor_arg
from graphflow.functions.registry import error
from graphflow.tensor import Tensor

Ints = tuple[int, ...]
Extent = int | Dim


def ints(value: Any, n: int, name: str, argument: str, least: int = 0) -> Ints:
    """An integer, or a sequence of one or `n` of them, as `n` integers of at least `least`."""
    given = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    if any(isinstance(v, bool) or not hasattr(v, "__index__") for v in given):
        raise error(DTypeError, name, f"{argument} takes integers, got {value!r}")
    found = tuple(v.__index__() for v in given)
    if len(found) not in (1, n):
        raise error(ShapeError, name, f"{argument} takes 1 or {n} integers, got {value!r}")
    if any(v < least for v in found):
        kind = "non-negative" if least == 0 else "greater than zero"
        raise error(ShapeError, name, f"{argument} must be {kind}, but got {value!r}")
    return found if len(found) == n else found * n


def batched(input: Any, n: int, name: str) -> tuple[Tensor, bool]:
    """The input (N, C, ...) with `n` dimensions after the channels, and whether it had a batch."""
    t = tensor_arg(input, name)
    if t.ndim not in (n + 1, n + 2):
        raise error(
            ShapeError, name,
            f"expected {n + 1}D (unbatched) or {n + 2}D (batched) input, but got input of size: "
            f"{sizes_text(t.type_.shape)}",
        )  # fmt: skip
    return (t, True) if t.ndim == n + 2 else (t.unsqueeze(0), False)


def sizes_text(shape: Sequence[Extent]) -> str:
    """A shape as PyTorch's messages print it."""
    return f"[{', '.join(map(str, shape))}]"


def same_dtype(name: str, input: Tensor, **others: Tensor | None) -> DType:
    """The operands' one dtype, which has to be floating point."""
    if input.dtype.kind != "float":
        raise error(
            DTypeError, name, f"needs a floating point input, got {input.type_}; convert with .float()"
        )
    for argument, other in others.items():
        if other is not None and other.dtype is not input.dtype:
            raise error(
                DTypeError, name,
                f"input type ({input.dtype}) and {argument} type ({other.dtype}) should be the same",
            )  # fmt: skip
    return input.dtype


def in_single(t: Tensor) -> Tensor:
    """A tensor of half precision as float32, in which sums neither overflow nor lose their digits."""
    result: Tensor = t.float() if t.dtype.itemsize == 2 else t
    return result


def quotient(size: Extent, factor: int, why: str) -> Extent | None:
    """``size / factor``, None if that isn't whole; where a symbol leaves it open, the symbol is fixed."""
    exact = divide(size, factor)
    return divide(pinned(size, why), factor) if exact is None else exact
