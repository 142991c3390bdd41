"""Schedulers of schedulers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from graphflow.optim.lr_scheduler.base import LRScheduler
from graphflow.optim.lr_scheduler.plateau import ReduceLROnPlateau
from graphflow.optim.optimizer import Optimizer


class SequentialLR(LRScheduler):
    """One scheduler after the other: the next one starts, at its epoch 0, at each of the `milestones`.

    ValueError unless there is one milestone less than schedulers and all have this optimizer.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int],
        last_epoch: int = -1,
    ):
        schedulers = list(schedulers)
        if not schedulers:
            raise ValueError("SequentialLR expects at least one scheduler to be chained, but got none")
        _require_one_optimizer("SequentialLR", schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                "Sequential Schedulers expects number of schedulers provided to be one more than the number "
                f"of milestone points, but got number of schedulers {len(schedulers)} and the number of "
                f"milestones to be equal to {len(milestones)}"
            )
        self._schedulers = schedulers
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        self.optimizer = optimizer
        # All of them took their first step when they were made; only the first one's is meant.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"]
        for scheduler in _simple(schedulers):
            scheduler.last_epoch -= 1
        schedulers[0]._start()
        self._last_lr = schedulers[0].get_last_lr()

    def _start(self) -> None:
        self.last_epoch += 1
        self._schedulers[0]._start()

    def step(self, epoch: int | None = None) -> None:
        """Goes on by one epoch."""
        if epoch is not None:
            raise ValueError("SequentialLR goes epoch by epoch; step() takes no epoch here")
        self._require_eager()
        self.last_epoch += 1
        number = bisect_right(self._milestones, self.last_epoch)
        scheduler = self._schedulers[number]
        if number > 0 and self._milestones[number - 1] == self.last_epoch:
            scheduler.step(0)
        else:
            scheduler.step()
        self._last_lr = scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Its own state and that of all schedulers."""
        return _with_parts(super().state_dict(), self._schedulers)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        super().load_state_dict(_load_parts(state_dict, self._schedulers))


class ChainedScheduler(LRScheduler):
    """Several schedulers at once, each going on from what the one before made of the rates."""

    def __init__(self, schedulers: Sequence[LRScheduler], optimizer: Optimizer | None = None):
        schedulers = list(schedulers)
        if not schedulers:
            raise ValueError("ChainedScheduler expects at least one scheduler to be chained, but got none")
        self.optimizer = schedulers[0].optimizer if optimizer is None else optimizer
        _require_one_optimizer("ChainedScheduler", schedulers, self.optimizer)
        self._schedulers = schedulers
        self._last_lr = self._rates()

    def _start(self) -> None:
        for scheduler in self._schedulers:
            scheduler._start()
        self._last_lr = self._rates()

    def step(self, epoch: int | None = None) -> None:
        """Goes on by one epoch with all."""
        if epoch is not None:
            raise ValueError("ChainedScheduler goes epoch by epoch; step() takes no epoch here")
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._rates()

    def state_dict(self) -> dict[str, Any]:
        """The state of all schedulers."""
        return _with_parts(super().state_dict(), self._schedulers)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        super().load_state_dict(_load_parts(state_dict, self._schedulers))


def _simple(schedulers: Sequence[LRScheduler]) -> Iterator[LRScheduler]:
    """Those that aren't made of schedulers, in these and within these."""
    waiting = list(schedulers)
    while waiting:
        scheduler = waiting.pop(0)
        parts = getattr(scheduler, "_schedulers", None)
        if parts is None:
            yield scheduler
        else:
            waiting += parts


def _require_one_optimizer(name: str, schedulers: list[LRScheduler], optimizer: Optimizer) -> None:
    for i, scheduler in enumerate(schedulers):
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ValueError(f"{name} can't hold ReduceLROnPlateau, whose step() needs a metric")
        if scheduler.optimizer is not optimizer:
            raise ValueError(
                f"{name} expects all schedulers to belong to the same optimizer, but the scheduler at index "
                f"{i} belongs to another one"
            )


def _with_parts(state: dict[str, Any], schedulers: list[LRScheduler]) -> dict[str, Any]:
    return {**state, "_schedulers": [scheduler.state_dict() for scheduler in schedulers]}


def _load_parts(state_dict: Mapping[str, Any], schedulers: list[LRScheduler]) -> dict[str, Any]:
    for scheduler, saved in zip(schedulers, state_dict["_schedulers"], strict=True):
        scheduler.load_state_dict(saved)
    return {name: value for name, value in state_dict.items() if name != "_schedulers"}
