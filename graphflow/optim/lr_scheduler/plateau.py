"""Lowering the rate when a metric stops getting better."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphflow.optim.lr_scheduler.base import LRScheduler, spread
from graphflow.optim.optimizer import Optimizer


class ReduceLROnPlateau(LRScheduler):
    """Times `factor` after more than `patience` epochs without a better metric, then rests for `cooldown`.

    `mode` "min" or "max" says what better means, by at least `threshold`: a share of the best with
    `threshold_mode` "rel", a difference with "abs". Rates stay at or above `min_lr`; changes up to `eps` are
    left out. ``step`` takes the metric.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0,
        eps: float = 1e-8,
    ):
        if factor >= 1.0:
            raise ValueError("Factor should be < 1.0.")
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        if mode not in ("min", "max"):
            raise ValueError(f"mode {mode} is unknown!")
        if threshold_mode not in ("rel", "abs"):
            raise ValueError(f"threshold mode {threshold_mode} is unknown!")
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        self.min_lrs = spread("min_lr", optimizer, min_lr)
        self.eps = eps
        self.last_epoch = 0
        self.best = self._worst()
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self._last_lr = self._rates()

    def _worst(self) -> float:
        return math.inf if self.mode == "min" else -math.inf

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Takes the epoch's metric, a number or 0-d tensor."""
        self._require_eager()
        value = float(metrics)
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        if self.is_better(value, self.best):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.in_cooldown:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0
        self._last_lr = self._rates()

    def _reduce(self) -> None:
        for group, least in zip(self._groups, self.min_lrs, strict=True):
            rate = float(group["lr"])
            lower = max(rate * self.factor, least)
            if rate - lower > self.eps:
                group["lr"] = lower

    @property
    def in_cooldown(self) -> bool:
        """Whether bad epochs don't count now."""
        return self.cooldown_counter > 0

    def is_better(self, a: float, best: float) -> bool:
        """Whether a metric counts as better than the best one so far."""
        if self.threshold_mode == "rel":
            sign = -1.0 if self.mode == "min" else 1.0
            margin = best * (1.0 + sign * self.threshold)
        else:
            margin = best - self.threshold if self.mode == "min" else best + self.threshold
        return a < margin if self.mode == "min" else a > margin
