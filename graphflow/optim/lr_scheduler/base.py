"""What all schedulers share: counting, setting the rates, saving and loading."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from graphflow.errors import TraceError
from graphflow.optim.group import ParamGroup
from graphflow.optim.optimizer import Optimizer
from graphflow.tensor import where_called


class LRScheduler:
    """Base class: sets the groups' learning rates at every ``step()``. As
    ``torch.optim.lr_scheduler.LRScheduler``.

    A subclass defines ``get_lr``, the rates at ``last_epoch``, usually from those of the epoch before, so
    that schedulers can be combined; and ``closed_form`` if they follow from ``last_epoch`` alone. Rates are
    state of compiled steps, so a scheduler never causes a recompile. ``step()`` is called outside of compiled
    functions, because it counts in Python; TraceError inside.

    `last_epoch` other than -1 goes on from there and needs ``"initial_lr"`` in every group (KeyError).
    """

    _unsaved: tuple[str, ...] = ("optimizer",)

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        if last_epoch == -1:
            for group in self._groups:
                group.setdefault("initial_lr", float(group["lr"]))
        for i, group in enumerate(self._groups):
            if "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming an optimizer"
                )
        self.base_lrs: list[float] = [group["initial_lr"] for group in self._groups]
        self.last_epoch = last_epoch
        self._start()

    @property
    def _groups(self) -> list[ParamGroup]:
        return self.optimizer.param_groups

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self._groups]

    def _start(self) -> None:
        """The first step, which sets the rates of epoch 0."""
        self._step_count = 0
        self.step()

    def get_last_lr(self) -> list[float]:
        """The rates as the last step left them, one for each group."""
        return self._last_lr

    def get_lr(self) -> list[float]:
        """The rates at ``last_epoch``, one for each group."""
        raise NotImplementedError(f"{type(self).__name__} has no get_lr")

    def closed_form(self) -> list[float] | None:
        """The rates at ``last_epoch`` whatever they are now, or None where only `get_lr` knows."""
        return None

    def step(self, epoch: int | None = None) -> None:
        """Goes on by one epoch, or to `epoch`."""
        self._count()
        if epoch is None:
            self.last_epoch += 1
            values = self.get_lr()
        else:
            self.last_epoch = epoch
            known = self.closed_form()
            values = self.get_lr() if known is None else known
        self._apply(values)

    def _count(self) -> None:
        self._require_eager()
        if self._step_count == 1 and not self.optimizer.has_stepped:
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. Call them in the opposite "
                "order: `optimizer.step()` before `lr_scheduler.step()`; otherwise the first value of the "
                "learning rate schedule is skipped.",
                UserWarning,
                stacklevel=3,
            )
        self._step_count += 1

    def _require_eager(self) -> None:
        rate = self._groups[0].tensor("lr")
        try:
            rate.item()
        except TraceError:
            raise TraceError(
                "a scheduler counts its steps in Python, which a compiled function would do only once; call "
                "scheduler.step() outside: the compiled step takes up the new rate without recompiling"
                + where_called()
            ) from None

    def _apply(self, values: Sequence[float]) -> None:
        for group, value in zip(self._groups, values, strict=True):
            group["lr"] = value
        self._last_lr = self._rates()

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimizer."""
        return {name: value for name, value in self.__dict__.items() if name not in self._unsaved}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave. The rates themselves are part of the optimizer's state."""
        self.__dict__.update(state_dict)


def spread(name: str, optimizer: Optimizer, value: float | Sequence[float]) -> list[float]:
    """One number for each group; ValueError when there are as many as neither one nor the groups."""
    count = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [float(value)] * count  # type: ignore[arg-type]
    if len(value) != count:
        raise ValueError(f"expected {count} values for {name}, got {len(value)}")
    return [float(v) for v in value]
