"""Transforms of which chance decides whether, which and in which order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphflow.data.randomness import sample_generator
from graphflow.data.transforms.convert import Compose
from graphflow.data.transforms.image import probability


class RandomApply:
    """All of `transforms`, or, with probability 1 - `p`, none."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: float = 0.5):
        self.transforms = Compose(transforms)
        self.p = probability("RandomApply", p)

    def __call__(self, image: Any) -> Any:
        """The transformed image."""
        return self.transforms(image) if sample_generator().random() < self.p else image

    def __repr__(self) -> str:
        return f"RandomApply(p={self.p}, {self.transforms})"


class RandomChoice:
    """One of `transforms`, chosen with the probabilities `p` (weights; equal ones by default)."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]], p: Sequence[float] | None = None):
        self.transforms = list(transforms)
        weights = np.ones(len(self.transforms)) if p is None else np.asarray(p, np.float64)
        if not self.transforms or weights.shape != (len(self.transforms),):
            raise ValueError(f"RandomChoice: {len(self.transforms)} transforms and {weights.size} weights")
        self.p = (weights / weights.sum()).tolist()

    def __call__(self, image: Any) -> Any:
        """The transformed image."""
        return self.transforms[int(sample_generator().choice(len(self.transforms), p=self.p))](image)

    def __repr__(self) -> str:
        return f"RandomChoice(p={self.p}, {self.transforms})"


class RandomOrder:
    """All of `transforms`, in random order."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]):
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> Any:
        """The transformed image."""
        for place in sample_generator().permutation(len(self.transforms)).tolist():
            image = self.transforms[place](image)
        return image

    def __repr__(self) -> str:
        return f"RandomOrder({self.transforms})"
