"""What copies of frozen things are: themselves."""

from __future__ import annotations

from typing import Self


class Shared:
    """Base of what never changes, and is compared by identity: a copy of it is it."""

    __slots__ = ()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self
