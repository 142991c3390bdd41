"""Averaged stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from graphflow import functions as ops
from graphflow.optim.arguments import Params, Rate, check_rate
from graphflow.optim.group import ParamGroup
from graphflow.optim.optimizer import Optimizer, cast
from graphflow.tensor import Tensor, concrete


class ASGD(Optimizer):
    """Gradient descent with a falling rate, which keeps the parameters' average under ``state[p]["ax"]``;
    Polyak & Juditsky, 1992.

    ``p *= 1 - lambd eta``, ``p -= eta g`` with ``eta = lr / (1 + lambd lr t)^alpha``; averaging begins after
    `t0` steps. As ``torch.optim.ASGD``: the rate of a step is settled by the one before.
    """

    switches: ClassVar[frozenset[str]] = frozenset({"weight_decay"})
    scalars: ClassVar[frozenset[str]] = frozenset({"eta", "mu"})

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ):
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        check_rate("learning rate", options["lr"])
        check_rate("weight_decay value", options["weight_decay"])

    def _initial(self, name: str, group: ParamGroup) -> float:
        with concrete():
            return {"eta": float(group["lr"]), "mu": 1.0}.get(name, 0.0)

    def _update(self, group: ParamGroup, params: Sequence[tuple[Tensor, Tensor]]) -> None:
        grads = dict(params)
        lr, lambd, alpha, t0 = (group.tensor(name) for name in ("lr", "lambd", "alpha", "t0"))
        for steps, members in self._advance(list(grads)):
            next_eta = lr / (1.0 + lambd * lr * steps) ** alpha
            next_mu = 1.0 / (steps - t0).clamp(min=1.0)
            for p in members:
                held_eta, held_mu = self._scalar(p, "eta"), self._scalar(p, "mu")
                eta, kept, mu = cast([held_eta, 1.0 - lambd * held_eta, held_mu], p.dtype)
                changed = p * kept - eta * self._decayed(group, p, grads[p])
                average = self._moment(p, "ax")
                average.copy_(ops.where(mu == 1.0, changed, average + (changed - average) * mu))
                p.copy_(changed)
                held_eta.copy_(next_eta)
                held_mu.copy_(next_mu)
