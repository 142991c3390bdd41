"""What functions with several results return: named tuples that print as PyTorch's do."""

from __future__ import annotations

from typing import NamedTuple

from graphflow.tensor import Tensor


class Extremes(NamedTuple):
    """Values and the positions where they were found."""

    values: Tensor
    indices: Tensor

    def __repr__(self) -> str:
        fields = ",\n".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"graphflow.return_types.{type(self).__name__}(\n{fields})"


class max(Extremes):
    """What ``graphflow.max`` gives along a dimension."""

    __slots__ = ()


class min(Extremes):
    """What ``graphflow.min`` gives along a dimension."""

    __slots__ = ()
