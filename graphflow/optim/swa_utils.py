"""Averages of a network's weights over training: PyTorch's ``torch.optim.swa_utils``."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphflow import functions as ops
from graphflow.dtypes import DType
from graphflow.nn.batch import BatchNorm1d, BatchNorm2d, BatchNorm3d
from graphflow.nn.module import Module
from graphflow.optim.lr_scheduler.base import LRScheduler, spread
from graphflow.optim.optimizer import Optimizer
from graphflow.tensor import Tensor, no_grad

__all__ = [
    "SWALR",
    "AveragedModel",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]

Average = Callable[[Tensor, Tensor, Any], Tensor]
MultiAverage = Callable[[Sequence[Tensor], Sequence[Tensor], Any], None]


def get_swa_avg_fn() -> Average:
    """``average(averaged, current, count)``: the mean of all so far (stochastic weight averaging)."""

    @no_grad()
    def average(averaged: Tensor, current: Tensor, count: Any) -> Tensor:
        mean: Tensor = averaged + (current - averaged) / (count + 1)
        return mean

    return average


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """``average(averaged, current, count)``: ``decay * averaged + (1 - decay) * current``.

    ValueError unless `decay` is in [0, 1].
    """
    if not 0.0 <= decay <= 1.0:
        raise ValueError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")

    @no_grad()
    def average(averaged: Tensor, current: Tensor, count: Any) -> Tensor:
        return decay * averaged + (1 - decay) * current

    return average


def get_swa_multi_avg_fn() -> MultiAverage:
    """`get_swa_avg_fn` for lists of tensors, in place."""
    return _for_lists(get_swa_avg_fn())


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverage:
    """`get_ema_avg_fn` for lists of tensors, in place."""
    return _for_lists(get_ema_avg_fn(decay))


def _for_lists(average: Average) -> MultiAverage:
    @no_grad()
    def average_all(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Any) -> None:
        for mean, value in zip(averaged, current, strict=True):
            mean.copy_(average(mean, value, count))

    return average_all


class AveragedModel(Module):
    """A copy of a network that holds an average of its weights; Izmailov et al., UAI 2018.

    `update_parameters` takes the weights in: the first time as they are, then by `avg_fn(averaged, current,
    count)`, which gives the new average, or `multi_avg_fn`, which changes lists of them in place; by default
    the plain mean. Buffers are averaged with `use_buffers`, else taken over. Forward is the copy's. As
    ``torch.optim.swa_utils.AveragedModel``; updates may be part of a compiled step.
    """

    n_averaged: Tensor

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Average | None = None,
        multi_avg_fn: MultiAverage | None = None,
        use_buffers: bool = False,
    ):
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ValueError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module.to(device)
        self.register_buffer("n_averaged", ops.tensor(0))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged network gives."""
        return self.module(*args, **kwargs)

    @no_grad()
    def update_parameters(self, model: Module) -> None:
        """Takes the weights of `model` into the average."""
        pairs = [(mean.detach(), value.detach()) for mean, value in self._pairs(model)]
        first = self.n_averaged == 0
        decided = not first.is_traced  # while being compiled, the first time and the others are one graph
        if not decided or not bool(first):
            self._average(pairs)
            if not decided:
                for mean, value in pairs:
                    mean.copy_(ops.where(first, value, mean))
        else:
            for mean, value in pairs:
                mean.copy_(value)
        if not self.use_buffers:
            for held, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
                held.copy_(buffer)
        self.n_averaged.add_(1)

    def _pairs(self, model: Module) -> Iterable[tuple[Tensor, Tensor]]:
        mine: Iterable[Tensor] = self.module.parameters()
        theirs: Iterable[Tensor] = model.parameters()
        if self.use_buffers:
            mine = itertools.chain(mine, self.module.buffers())
            theirs = itertools.chain(theirs, model.buffers())
        return zip(mine, theirs, strict=True)

    def _average(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
        if self.multi_avg_fn is None:
            average = get_swa_avg_fn() if self.avg_fn is None else self.avg_fn
            for mean, value in pairs:
                mean.copy_(average(mean, value, self.n_averaged))
            return
        alike: dict[DType, list[tuple[Tensor, Tensor]]] = {}
        for pair in pairs:
            alike.setdefault(pair[0].dtype, []).append(pair)
        for group in alike.values():
            self.multi_avg_fn([mean for mean, _ in group], [value for _, value in group], self.n_averaged)


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Computes the running statistics of `model`'s batch normalisation anew: means over a pass of `loader`.

    Batches are tensors, or lists and tuples that begin with the input. As
    ``torch.optim.swa_utils.update_bn``.
    """
    norms = [m for m in model.modules() if isinstance(m, (BatchNorm1d, BatchNorm2d, BatchNorm3d))]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    model.train()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    for batch in loader:
        given = batch[0] if isinstance(batch, (list, tuple)) else batch
        model(given if device is None else given.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """From the rate as it is to `swa_lr` in `anneal_epochs` epochs, along a cosine or with
    ``anneal_strategy="linear"`` a line. As ``torch.optim.swa_utils.SWALR``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | Sequence[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ):
        for rate, group in zip(spread("swa_lr", optimizer, swa_lr), optimizer.param_groups, strict=True):
            group["swa_lr"] = rate
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            )
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        self.anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        """The rates at ``last_epoch``, from those before, so that other schedulers may have changed them."""
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = self._share(step - 1), self._share(step)
        rates = []
        for group, rate in zip(self._groups, self._rates(), strict=True):
            start = group["swa_lr"] if before == 1 else (rate - before * group["swa_lr"]) / (1 - before)
            rates.append(group["swa_lr"] * now + start * (1 - now))
        return rates

    def _share(self, step: int) -> float:
        """How much of the way is gone."""
        passed = max(0.0, min(1.0, step / max(1, self.anneal_epochs)))
        return passed if self.anneal_strategy == "linear" else (1 - math.cos(math.pi * passed)) / 2
