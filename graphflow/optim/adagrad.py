"""Adagrad and Adadelta: rates by the gradients' squares so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from graphflow.optim.arguments import Params, Rate, check_rate
from graphflow.optim.group import ParamGroup
from graphflow.optim.optimizer import Optimizer, cast
from graphflow.tensor import Tensor, concrete


class Adagrad(Optimizer):
    """``sum += g²``, ``p -= lr / (1 + (t-1) lr_decay) * g / (sqrt(sum) + eps)``; Duchi et al., JMLR 2011.

    `sum` starts at `initial_accumulator_value`, `weight_decay` is added to the gradient, `maximize` ascends.
    Defaults and formulas are those of ``torch.optim.Adagrad``.
    """

    switches: ClassVar[frozenset[str]] = frozenset({"weight_decay"})

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        check_rate("learning rate", options["lr"])
        check_rate("lr_decay value", options["lr_decay"])
        check_rate("weight_decay value", options["weight_decay"])
        check_rate("initial_accumulator_value value", options["initial_accumulator_value"])
        check_rate("epsilon value", options["eps"])

    def _initial(self, name: str, group: ParamGroup) -> float:
        with concrete():
            return float(group["initial_accumulator_value"])

    def _update(self, group: ParamGroup, params: Sequence[tuple[Tensor, Tensor]]) -> None:
        grads = dict(params)
        for steps, members in self._advance(list(grads)):
            rate = group.tensor("lr") / (1.0 + (steps - 1.0) * group.tensor("lr_decay"))
            for p in members:
                lr, eps = cast([rate, group.tensor("eps")], p.dtype)
                g = self._decayed(group, p, grads[p])
                held = self._moment(p, "sum")
                total = held + g * g
                held.copy_(total)
                p.sub_(lr * g / (total.sqrt() + eps))


class Adadelta(Optimizer):
    """Steps in the ratio of the root mean squares of past steps and gradients; Zeiler, arXiv:1212.5701.

    ``v = rho v + (1-rho) g²``, ``d = sqrt(u + eps) / sqrt(v + eps) * g``, ``u = rho u + (1-rho) d²``,
    ``p -= lr d``. `weight_decay` is added to the gradient, `maximize` ascends. As ``torch.optim.Adadelta``.
    """

    switches: ClassVar[frozenset[str]] = frozenset({"weight_decay"})

    def __init__(
        self,
        params: Params,
        lr: Rate = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        check_rate("learning rate", options["lr"])
        if not 0.0 <= float(options["rho"]) <= 1.0:
            raise ValueError(f"Invalid rho value: {options['rho']}")
        check_rate("epsilon value", options["eps"])
        check_rate("weight_decay value", options["weight_decay"])

    def _update(self, group: ParamGroup, params: Sequence[tuple[Tensor, Tensor]]) -> None:
        lr, rho, eps = (group.tensor(name) for name in ("lr", "rho", "eps"))
        grads = dict(params)
        for _, members in self._advance(list(grads)):
            for p in members:
                self._step(p, self._decayed(group, p, grads[p]), cast([lr, rho, 1.0 - rho, eps], p.dtype))

    def _step(self, p: Tensor, g: Tensor, scalars: list[Tensor]) -> None:
        lr, rho, new, eps = scalars
        held, steps = self._moment(p, "square_avg"), self._moment(p, "acc_delta")
        average = rho * held + new * (g * g)
        delta = (steps + eps).sqrt() / (average + eps).sqrt() * g
        held.copy_(average)
        steps.copy_(rho * steps + new * (delta * delta))
        p.sub_(lr * delta)
