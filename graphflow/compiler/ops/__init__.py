"""The primitives, by family. Importing this package fills the registry ``ir.OPS``."""

from graphflow.compiler.ops import (
    call,
    contract,
    control,
    elementwise,
    family,
    index,
    movement,
    random,
    reduce,
    window,
)

__all__ = [
    "call", "contract", "control", "elementwise", "family", "index", "movement", "random", "reduce", "window",
]  # fmt: skip
