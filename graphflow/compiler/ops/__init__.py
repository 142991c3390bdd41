"""The primitives, by family. Importing this package fills the registry ``ir.OPS``."""

from graphflow.compiler.ops import (
    attention,
    call,
    contract,
    control,
    convolve,
    cumulative,
    elementwise,
    family,
    index,
    linalg,
    movement,
    order,
    random,
    reduce,
    special,
    window,
)

__all__ = [
    "attention", "call", "contract", "control", "convolve", "cumulative", "elementwise", "family", "index",
    "linalg", "movement", "order", "random", "reduce", "special", "window",
]  # fmt: skip
