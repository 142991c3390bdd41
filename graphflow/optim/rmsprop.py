"""RMSprop and Rprop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from graphflow import functions as ops
from graphflow.optim.arguments import Params, Rate, check_rate
from graphflow.optim.group import ParamGroup
from graphflow.optim.optimizer import Optimizer, cast
from graphflow.tensor import Tensor, concrete


class RMSprop(Optimizer):
    """Gradients divided by the root of their squares' running mean; Tieleman & Hinton, lecture 6.5, 2012.

    ``v = alpha v + (1-alpha) g²``, ``p -= lr g / (sqrt(v) + eps)``. `centered` takes the square of the
    gradients' running mean off v (Graves, arXiv:1308.0850), `momentum` collects the quotients, `weight_decay`
    is added to the gradient, `maximize` ascends. Defaults and formulas are those of ``torch.optim.RMSprop``.
    """

    switches: ClassVar[frozenset[str]] = frozenset({"momentum", "weight_decay"})

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        check_rate("learning rate", options["lr"])
        check_rate("epsilon value", options["eps"])
        check_rate("momentum value", options["momentum"])
        check_rate("weight_decay value", options["weight_decay"])
        check_rate("alpha value", options["alpha"])

    def _update(self, group: ParamGroup, params: Sequence[tuple[Tensor, Tensor]]) -> None:
        lr, alpha, eps, momentum = (group.tensor(name) for name in ("lr", "alpha", "eps", "momentum"))
        scalars = [lr, alpha, 1.0 - alpha, eps, momentum]
        grads = dict(params)
        for _, members in self._advance(list(grads)):
            for p in members:
                self._step(group, p, self._decayed(group, p, grads[p]), cast(scalars, p.dtype))

    def _step(self, group: ParamGroup, p: Tensor, g: Tensor, scalars: list[Tensor]) -> None:
        lr, alpha, new, eps, momentum = scalars
        held = self._moment(p, "square_avg")
        square = alpha * held + new * (g * g)
        held.copy_(square)
        if group["centered"]:
            held_mean = self._moment(p, "grad_avg")
            mean = held_mean + new * (g - held_mean)
            held_mean.copy_(mean)
            square = square - mean * mean
        step = g / (square.sqrt() + eps)
        if group.is_active("momentum"):
            buffer = self._moment(p, "momentum_buffer")
            step = momentum * buffer + step
            buffer.copy_(step)
        p.sub_(lr * step)


class Rprop(Optimizer):
    """Steps by the gradient's sign alone, each element with a step size of its own; Riedmiller & Braun, 1993.

    While the sign stays, the size, `lr` at first, grows by `etas[1]`; when it turns, it shrinks by `etas[0]`
    and that element rests. Sizes stay within `step_sizes`. As ``torch.optim.Rprop``.
    """

    switches: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ):
        super().__init__(
            params,
            {
                "lr": lr,
                "etas": etas,
                "step_sizes": step_sizes,
                "foreach": foreach,
                "maximize": maximize,
                "differentiable": differentiable,
                "capturable": capturable,
            },
        )

    def _check_options(self, options: Mapping[str, Any]) -> None:
        check_rate("learning rate", options["lr"])
        low, high = options["etas"]
        if not 0.0 < float(low) < 1.0 < float(high):
            raise ValueError(f"Invalid eta values: {low}, {high}")

    def _initial(self, name: str, group: ParamGroup) -> float:
        if name != "step_size":
            return 0.0
        with concrete():
            return float(group["lr"])

    def _update(self, group: ParamGroup, params: Sequence[tuple[Tensor, Tensor]]) -> None:
        grads = dict(params)
        for _, members in self._advance(list(grads)):
            for p in members:
                shrink, grow, smallest, largest = cast(
                    [*group.tensor("etas"), *group.tensor("step_sizes")], p.dtype
                )
                g = -grads[p] if group["maximize"] else grads[p]
                before, held = self._moment(p, "prev"), self._moment(p, "step_size")
                agreement = g * before
                turned = agreement < 0
                factor = ops.where(turned, shrink, ops.where(agreement > 0, grow, 1.0))
                size = (held * factor).clamp(smallest, largest)
                g = ops.where(turned, 0.0, g)
                held.copy_(size)
                before.copy_(g)
                # A gradient that is NaN has no sign: its element rests, as PyTorch's.
                p.sub_(ops.where(g > 0, size, ops.where(g < 0, -size, 0.0)))
