"""How elements lie in memory, under PyTorch's names. They are accepted and change nothing: elements are in
row-major order unless a view says otherwise, and compiled functions choose for themselves.
"""

from __future__ import annotations


class layout:
    """A way of storing elements: ``strided``, the only one."""

    def __init__(self, name: str):
        self._name = name

    def __repr__(self) -> str:
        return f"graphflow.{self._name}"


class memory_format(layout):
    """An order of dimensions in memory, for the arguments of that name."""


strided = layout("strided")
contiguous_format = memory_format("contiguous_format")
preserve_format = memory_format("preserve_format")
channels_last = memory_format("channels_last")
channels_last_3d = memory_format("channels_last_3d")

__all__ = [
    "channels_last", "channels_last_3d", "contiguous_format", "layout", "memory_format", "preserve_format",
    "strided",
]  # fmt: skip
