"""Schedulers whose rates go up and down: cosines, one cycle, many cycles."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence

from graphflow.optim.group import ParamGroup
from graphflow.optim.lr_scheduler.base import LRScheduler, spread
from graphflow.optim.optimizer import Optimizer


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the initial rate to `eta_min` over `T_max` epochs, and back; Loshchilov & Hutter,
    ICLR 2017, without restarts.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1):
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rates at ``last_epoch``, from those before, so that other schedulers may have changed them."""
        epoch, period = self.last_epoch, self.T_max
        if epoch == 0:
            return self._rates()
        if self._step_count == 1:
            return self.closed_form()
        if (epoch - 1 - period) % (2 * period) == 0:
            rise = (1 - math.cos(math.pi / period)) / 2
            return [
                rate + (base - self.eta_min) * rise
                for rate, base in zip(self._rates(), self.base_lrs, strict=True)
            ]
        now, before = (1 + math.cos(math.pi * e / period) for e in (epoch, epoch - 1))
        return [now / before * (rate - self.eta_min) + self.eta_min for rate in self._rates()]

    def closed_form(self) -> list[float]:
        """The rates at ``last_epoch``, from the initial ones."""
        height = (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half a cosine from the initial rate to `eta_min` over `T_0` epochs, then anew, `T_mult` times as long;
    Loshchilov & Hutter, ICLR 2017. ``step`` takes fractions of epochs, too.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        T_0: int,
        T_mult: int = 1,
        eta_min: float = 0.0,
        last_epoch: int = -1,
    ):
        if T_0 <= 0 or not isinstance(T_0, int):
            raise ValueError(f"Expected positive integer T_0, but got {T_0}")
        if T_mult < 1 or not isinstance(T_mult, int):
            raise ValueError(f"Expected integer T_mult >= 1, but got {T_mult}")
        self.T_0 = T_0
        self.T_i = T_0
        self.T_mult = T_mult
        self.eta_min = eta_min
        self.T_cur: float = last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rates at ``T_cur`` of ``T_i`` epochs."""
        height = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * height for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Goes on by one epoch, or to `epoch`, which may be a fraction. ValueError below 0."""
        if epoch is not None and epoch < 0:
            raise ValueError(f"Expected non-negative epoch, but got {epoch}")
        self._count()
        if epoch is None and self.last_epoch >= 0:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur -= self.T_i
                self.T_i *= self.T_mult
        else:
            epoch = 0 if epoch is None else epoch
            self.T_cur, self.T_i = self._place(epoch)
        self.last_epoch = math.floor(epoch)
        self._apply(self.get_lr())

    def _place(self, epoch: float) -> tuple[float, int]:
        """How far into its period an epoch is, and how long that period."""
        if epoch < self.T_0:
            return epoch, self.T_0
        if self.T_mult == 1:
            return epoch % self.T_0, self.T_0
        start, length = 0, self.T_0
        while epoch >= start + length:
            start, length = start + length, length * self.T_mult
        return epoch - start, length


class _Momentum(LRScheduler):
    """A scheduler that moves momentum, too: a group's ``momentum``, or the first of its ``betas``."""

    def _require_momentum(self, optimizer: Optimizer) -> None:
        if "momentum" not in optimizer.defaults and "betas" not in optimizer.defaults:
            raise ValueError("optimizer must support momentum or beta1 with `cycle_momentum` option enabled")

    def _set_momentum(self, group: ParamGroup, value: float) -> None:
        if "betas" in group:
            group["betas"] = (value, *group["betas"][1:])
        else:
            group["momentum"] = value


class OneCycleLR(_Momentum):
    """From ``max_lr / div_factor`` up to `max_lr` and down to a `final_div_factor`-th of the start, in
    `total_steps` steps, or `epochs` times `steps_per_epoch`; Smith & Topin, arXiv:1708.07120.

    The first `pct_start` of the steps go up. `anneal_strategy` is "cos" or "linear". With `three_phase` it
    goes down to the start first. Momentum goes the other way, between `max_momentum` and `base_momentum`,
    with `cycle_momentum`. ValueError for stepping further than the last.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.85,
        max_momentum: float | Sequence[float] = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ):
        self.total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
        if not isinstance(pct_start, float) or not 0 <= pct_start <= 1:
            raise ValueError(f"Expected float between 0 and 1 pct_start, but got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            )
        self.anneal_strategy = anneal_strategy
        self.cycle_momentum = cycle_momentum
        rise = pct_start * self.total_steps
        # (the phase's last step, rates and momentums between which it goes)
        self._phases: list[tuple[float, str, str, str, str]] = [
            (rise - 1.0, "initial_lr", "max_lr", "max_momentum", "base_momentum")
        ]
        if three_phase:
            self._phases += [
                (2 * rise - 2.0, "max_lr", "initial_lr", "base_momentum", "max_momentum"),
                (self.total_steps - 1.0, "initial_lr", "min_lr", "max_momentum", "max_momentum"),
            ]
        else:
            self._phases += [(self.total_steps - 1.0, "max_lr", "min_lr", "base_momentum", "max_momentum")]
        if last_epoch == -1:
            for group, top in zip(optimizer.param_groups, spread("max_lr", optimizer, max_lr), strict=True):
                start = top / div_factor
                group.update({"max_lr": top, "min_lr": start / final_div_factor, "initial_lr": start})
        if cycle_momentum:
            self._require_momentum(optimizer)
            limits = (
                spread(n, optimizer, v)
                for n, v in (("base_momentum", base_momentum), ("max_momentum", max_momentum))
            )
            if last_epoch == -1:
                for group, low, high in zip(optimizer.param_groups, *limits, strict=True):
                    group.update({"base_momentum": low, "max_momentum": high})
                    self._set_momentum(group, high)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rates at step ``last_epoch``; sets momentums."""
        if self.last_epoch > self.total_steps:
            raise ValueError(
                f"Tried to step {self.last_epoch} times. The specified number of total steps is "
                f"{self.total_steps}"
            )
        ends = [phase[0] for phase in self._phases]
        number = min(bisect_left(ends, self.last_epoch), len(ends) - 1)
        start = ends[number - 1] if number else 0.0
        end, low, high, first, last = self._phases[number]
        passed = (self.last_epoch - start) / (end - start)
        if self.cycle_momentum:
            for group in self._groups:
                self._set_momentum(group, self._between(group[first], group[last], passed))
        return [self._between(group[low], group[high], passed) for group in self._groups]

    def _between(self, start: float, end: float, passed: float) -> float:
        if self.anneal_strategy == "linear":
            return (end - start) * passed + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * passed) + 1)


def _total_steps(total_steps: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    if total_steps is None and (epochs is None or steps_per_epoch is None):
        raise ValueError("You must define either total_steps OR (epochs AND steps_per_epoch)")
    given = {"total_steps": total_steps}
    if total_steps is None:
        given = {"epochs": epochs, "steps_per_epoch": steps_per_epoch}
    for name, value in given.items():
        if not isinstance(value, int) or value <= 0:
            raise ValueError(f"Expected positive integer {name}, but got {value}")
    return math.prod(value for value in given.values() if value is not None)


class CyclicLR(_Momentum):
    """Between `base_lr` and `max_lr`, up in `step_size_up` steps and down in `step_size_down`; Smith, WACV
    2017.

    `mode` is "triangular", "triangular2" (half the height each cycle) or "exp_range" (times ``gamma**step``);
    or `scale_fn` gives the height by the cycle's number or, with ``scale_mode="iterations"``, the step's.
    Momentum goes the other way with `cycle_momentum`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | Sequence[float],
        max_lr: float | Sequence[float],
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: float | Sequence[float] = 0.8,
        max_momentum: float | Sequence[float] = 0.9,
        last_epoch: int = -1,
    ):
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ValueError("mode is invalid and scale_fn is None")
        lows = spread("base_lr", optimizer, base_lr)
        self.max_lrs = spread("max_lr", optimizer, max_lr)
        self.total_size = float(step_size_up + (step_size_up if step_size_down is None else step_size_down))
        self.step_ratio = step_size_up / self.total_size
        self.mode = mode
        self.gamma = gamma
        self._scale_fn = scale_fn
        self.scale_mode = scale_mode if scale_fn is not None else _SCALE_MODES[mode]
        self.cycle_momentum = cycle_momentum
        if last_epoch == -1:
            for group, low in zip(optimizer.param_groups, lows, strict=True):
                group["lr"] = low
        if cycle_momentum:
            self._require_momentum(optimizer)
            self.base_momentums = spread("base_momentum", optimizer, base_momentum)
            self.max_momentums = spread("max_momentum", optimizer, max_momentum)
            for group, low, high in zip(
                optimizer.param_groups, self.base_momentums, self.max_momentums, strict=True
            ):
                group.update({"base_momentum": low, "max_momentum": high})
                self._set_momentum(group, high)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lows

    _unsaved = ("optimizer", "_scale_fn")

    def scale_fn(self, x: float) -> float:
        """The height of cycle or step `x`, as a share of the first one's."""
        if self._scale_fn is not None:
            return self._scale_fn(x)
        if self.mode == "triangular2":
            return float(1 / 2.0 ** (x - 1))
        return float(self.gamma**x) if self.mode == "exp_range" else 1.0

    def get_lr(self) -> list[float]:
        """The rates at step ``last_epoch``; sets momentums."""
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        place = 1.0 + self.last_epoch / self.total_size - cycle
        rising = place <= self.step_ratio
        height = place / self.step_ratio if rising else (place - 1) / (self.step_ratio - 1)
        height *= self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            for group, low, high in zip(self._groups, self.base_momentums, self.max_momentums, strict=True):
                self._set_momentum(group, high - (high - low) * height)
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]


_SCALE_MODES = {"triangular": "cycle", "triangular2": "cycle", "exp_range": "iterations"}
