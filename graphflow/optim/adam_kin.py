"""Adamax, NAdam and RAdam: what became of Adam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from graphflow import functions as ops
from graphflow.optim.arguments import Params, Rate, check_betas, check_rate
from graphflow.optim.group import ParamGroup
from graphflow.optim.optimizer import Optimizer, cast
from graphflow.tensor import Tensor


class _Kin(Optimizer):
    """The options they share, and the running means of gradients and their squares."""

    switches: ClassVar[frozenset[str]] = frozenset({"weight_decay"})

    def _check_options(self, options: Mapping[str, Any]) -> None:
        check_rate("learning rate", options["lr"])
        check_rate("epsilon value", options["eps"])
        check_betas(options["betas"])
        check_rate("weight_decay value", options["weight_decay"])

    def _started(self, group: ParamGroup, p: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """The parameter and the gradient after the decay has gone into one of them."""
        if not group["decoupled_weight_decay"]:
            return p, self._decayed(group, p, grad)
        start: Tensor = p
        if group.is_active("weight_decay"):
            start = p * (1.0 - group.tensor("lr") * group.tensor("weight_decay")).to(p.dtype)
        return start, -grad if group["maximize"] else grad

    def _first(self, p: Tensor, g: Tensor, new: Tensor) -> Tensor:
        held = self._moment(p, "exp_avg")
        average = held + new * (g - held)
        held.copy_(average)
        return average

    def _second(self, p: Tensor, g: Tensor, beta: Tensor, new: Tensor) -> Tensor:
        held = self._moment(p, "exp_avg_sq")
        average = beta * held + new * (g * g)
        held.copy_(average)
        return average


class Adamax(_Kin):
    """Adam with the largest gradient in place of the second moment; Kingma & Ba, arXiv:1412.6980, section 7.

    ``u = max(beta2 u, |g| + eps)``, ``p -= lr / (1 - beta1^t) * m / u``. As ``torch.optim.Adamax``.
    """

    def __init__(
        self,
        params: Params,
        lr: Rate = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _update(self, group: ParamGroup, params: Sequence[tuple[Tensor, Tensor]]) -> None:
        grads = dict(params)
        beta1, beta2 = group.tensor("betas")
        for steps, members in self._advance(list(grads)):
            rate = group.tensor("lr") / (1.0 - beta1**steps)
            for p in members:
                new1, beta, lr, eps = cast([1.0 - beta1, beta2, rate, group.tensor("eps")], p.dtype)
                g = self._decayed(group, p, grads[p])
                first = self._first(p, g, new1)
                held = self._moment(p, "exp_inf")
                largest = ops.maximum(beta * held, g.abs() + eps)
                held.copy_(largest)
                p.sub_(lr * first / largest)


class NAdam(_Kin):
    """Adam with Nesterov's momentum, whose weight grows over time; Dozat, ICLR workshop 2016.

    `momentum_decay` is the growth's pace; `decoupled_weight_decay` as in AdamW. As ``torch.optim.NAdam``.
    """

    scalars: ClassVar[frozenset[str]] = frozenset({"mu_product"})

    def __init__(
        self,
        params: Params,
        lr: Rate = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        super()._check_options(options)
        check_rate("momentum_decay value", options["momentum_decay"])

    def _initial(self, name: str, group: ParamGroup) -> float:
        return 1.0 if name == "mu_product" else 0.0

    def _update(self, group: ParamGroup, params: Sequence[tuple[Tensor, Tensor]]) -> None:
        grads = dict(params)
        (beta1, beta2), lr, pace = (group.tensor(name) for name in ("betas", "lr", "momentum_decay"))
        for steps, members in self._advance(list(grads)):
            mu = beta1 * (1.0 - 0.5 * 0.96 ** (steps * pace))
            after = beta1 * (1.0 - 0.5 * 0.96 ** ((steps + 1.0) * pace))
            rescale = 1.0 / (1.0 - beta2**steps).sqrt()
            for p in members:
                held = self._scalar(p, "mu_product")
                product = held * mu
                held.copy_(product)
                scalars = cast(
                    [
                        lr * (1.0 - mu) / (1.0 - product),
                        lr * after / (1.0 - product * after),
                        rescale,
                        group.tensor("eps"),
                        1.0 - beta1,
                        beta2,
                        1.0 - beta2,
                    ],
                    p.dtype,
                )
                self._step(group, p, grads[p], scalars)

    def _step(self, group: ParamGroup, p: Tensor, grad: Tensor, scalars: list[Tensor]) -> None:
        now, ahead, rescale, eps, new1, beta2, new2 = scalars
        start, g = self._started(group, p, grad)
        first, second = self._first(p, g, new1), self._second(p, g, beta2, new2)
        p.copy_(start - (now * g + ahead * first) / (second.sqrt() * rescale + eps))


class RAdam(_Kin):
    """Adam that starts as momentum and takes up the second moment as its variance becomes known; Liu et al.,
    ICLR 2020.

    `decoupled_weight_decay` as in AdamW. As ``torch.optim.RAdam``.
    """

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _update(self, group: ParamGroup, params: Sequence[tuple[Tensor, Tensor]]) -> None:
        grads = dict(params)
        (beta1, beta2), lr = group.tensor("betas"), group.tensor("lr")
        longest = 2.0 / (1.0 - beta2) - 1.0
        for steps, members in self._advance(list(grads)):
            rate, correction = lr / (1.0 - beta1**steps), 1.0 - beta2**steps
            length = longest - 2.0 * steps * beta2**steps / correction
            known = length > 5.0
            ratio = (length - 4.0) * (length - 2.0) * longest
            ratio = ratio / ((longest - 4.0) * (longest - 2.0) * length)
            rectified = (ops.where(known, ratio, 0.0) * correction).sqrt()
            scalars = [rate, rectified, group.tensor("eps"), 1.0 - beta1, beta2, 1.0 - beta2]
            for p in members:
                self._step(group, p, grads[p], known, cast(scalars, p.dtype))

    def _step(self, group: ParamGroup, p: Tensor, grad: Tensor, known: Tensor, scalars: list[Tensor]) -> None:
        rate, rectified, eps, new1, beta2, new2 = scalars
        start, g = self._started(group, p, grad)
        first, second = self._first(p, g, new1), self._second(p, g, beta2, new2)
        p.copy_(start - rate * first * ops.where(known, rectified / (second.sqrt() + eps), 1.0))
