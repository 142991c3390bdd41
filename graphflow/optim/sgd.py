"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from graphflow import functions as ops
from graphflow.optim.arguments import Params, Rate, check_rate
from graphflow.optim.group import ParamGroup
from graphflow.optim.optimizer import Optimizer, cast
from graphflow.tensor import Tensor


class SGD(Optimizer):
    """``buf = momentum * buf + (1 - dampening) * g``, ``p -= lr * buf``, with ``g = grad + weight_decay *
    p``.

    The first step's ``buf`` is ``g``; with `nesterov` the step is along ``g + momentum * buf``; `maximize`
    ascends. Defaults and formulas are those of ``torch.optim.SGD``.
    """

    switches: ClassVar[frozenset[str]] = frozenset({"momentum", "dampening", "weight_decay"})

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        check_rate("learning rate", options["lr"])
        check_rate("momentum value", options["momentum"])
        check_rate("weight_decay value", options["weight_decay"])
        if options["nesterov"] and (float(options["momentum"]) <= 0 or float(options["dampening"]) != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")

    def _update(self, group: ParamGroup, params: Sequence[tuple[Tensor, Tensor]]) -> None:
        lr, momentum, dampening = group.tensor("lr"), group.tensor("momentum"), group.tensor("dampening")
        grads = dict(params)
        batches: list[tuple[Tensor | float | None, list[Tensor]]]
        if not group.is_active("momentum"):
            batches = [(None, list(grads))]
        elif not group.is_active("dampening"):
            batches = [(1.0, list(grads))]
        else:
            batches = [
                (ops.where(n == 1.0, 1.0, 1.0 - dampening), ps) for n, ps in self._advance(list(grads))
            ]
        for share, members in batches:
            for p in members:
                self._step(group, p, grads[p], [lr, momentum], share)

    def _step(
        self, group: ParamGroup, p: Tensor, grad: Tensor, rates: list[Tensor], share: Tensor | float | None
    ) -> None:
        """One parameter; `share` of the gradient enters the momentum, None stands for no momentum."""
        lr, momentum = cast(rates, p.dtype)
        direction = self._decayed(group, p, grad)
        if share is not None:
            held = self._moment(p, "momentum_buffer")
            added = direction * cast([share], p.dtype)[0] if isinstance(share, Tensor) else direction
            average = momentum * held + added
            held.copy_(average)
            direction = direction + momentum * average if group["nesterov"] else average
        p.sub_(lr * direction)
