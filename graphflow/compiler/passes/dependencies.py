"""Which of a growing set of things need which others, directly or through others: an acyclic relation, kept
closed.

Questions are answered by bit sets, one bit for everything ever added; adding a need costs what it changes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Dependencies(Generic[T]):
    """The relation "needs". Callers keep it free of circles by asking before they add."""

    def __init__(self) -> None:
        self.direct: dict[T, set[T]] = {}
        self._followers: dict[T, set[T]] = {}
        self._mask: dict[T, int] = {}  # its own bit, and the bits of what was merged into it
        self._above: dict[T, int] = {}  # the bits of all that it needs
        self._count = 0

    def add(self, item: T) -> None:
        """A new item that needs nothing yet."""
        self.direct[item], self._followers[item] = set(), set()
        self._mask[item], self._above[item] = 1 << self._count, 0
        self._count += 1

    def need(self, item: T, others: Iterable[T]) -> None:
        """Lets `item` need `others`, and all that need it too."""
        bits = 0
        for other in others:
            if other is not item:
                self.direct[item].add(other)
                self._followers[other].add(item)
                bits |= self._above[other] | self._mask[other]
        self._spread(item, bits)

    def _spread(self, item: T, bits: int) -> None:
        stack = [item]
        while stack:
            current = stack.pop()
            above = self._above[current]
            if bits & ~above:
                self._above[current] = above | bits
                stack.extend(self._followers[current])

    def needs(self, item: T, other: T) -> bool:
        """Whether `item` needs `other`, directly or not."""
        return self._above[item] & self._mask[other] != 0

    def weight(self, item: T) -> int:
        """How many things the item needs, directly or not."""
        return self._above[item].bit_count()

    def covers(self, items: Iterable[T], other: T) -> bool:
        """Whether all that `other` needs is among `items` or needed by them."""
        bits = 0
        for item in items:
            bits |= self._above[item] | self._mask[item]
        return self._above[other] & ~bits == 0

    def apart(self, a: T, b: T) -> bool:
        """Whether something stands between the two: needed by one, needing the other."""
        return any(self.needs(middle, b) for middle in self.direct[a] if middle is not b) or any(
            self.needs(middle, a) for middle in self.direct[b] if middle is not a
        )

    def merge(self, item: T, other: T) -> None:
        """Makes `other` a part of `item`; nothing may stand between them."""
        bits = self._above.pop(other) | self._above[item]
        mask = self._mask.pop(other) | self._mask[item]
        self._mask[item] = mask
        for source in self.direct.pop(other):
            self._followers[source].discard(other)
            if source is not item:
                self.direct[item].add(source)
                self._followers[source].add(item)
        for follower in self._followers.pop(other):
            self.direct[follower].discard(other)
            if follower is not item:
                self.direct[follower].add(item)
                self._followers[item].add(follower)
        self.direct[item].discard(item)
        self._above[item] = bits & ~mask
        for follower in self._followers[item]:
            self._spread(follower, self._above[item] | mask)

    def sorted(self, rank: Callable[[T], tuple[int, ...]]) -> list[T]:
        """Everything after what it needs; of what is ready, the lowest rank first (ranks have to differ)."""
        waiting = {item: len(sources) for item, sources in self.direct.items()}
        ready = [(rank(item), number, item) for number, item in enumerate(waiting) if waiting[item] == 0]
        heapq.heapify(ready)
        order = []
        while ready:
            _, _, item = heapq.heappop(ready)
            order.append(item)
            for follower in self._followers[item]:
                waiting[follower] -= 1
                if waiting[follower] == 0:
                    heapq.heappush(ready, (rank(follower), -1, follower))
        if len(order) != len(waiting):
            raise AssertionError("units depend on each other in a circle")
        return order
