"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from graphflow import functions as ops
from graphflow.dtypes import DType
from graphflow.optim.arguments import Params, Rate, check_betas, check_rate
from graphflow.optim.group import ParamGroup
from graphflow.optim.optimizer import Optimizer, cast
from graphflow.tensor import Tensor


class Adam(Optimizer):
    """Adaptive moments with bias correction; Kingma & Ba, arXiv:1412.6980.

    `weight_decay` is added to the gradient, or with `decoupled_weight_decay` taken off the parameter (AdamW).
    `amsgrad` divides by the largest second moment so far (Reddi et al., ICLR 2018). Defaults and formulas are
    those of ``torch.optim.Adam``; coefficients are computed in float64 whatever the parameters' dtype.
    """

    switches: ClassVar[frozenset[str]] = frozenset({"weight_decay"})

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        check_rate("learning rate", options["lr"])
        check_rate("epsilon value", options["eps"])
        check_rate("weight_decay value", options["weight_decay"])
        check_betas(options["betas"])

    def _update(self, group: ParamGroup, params: Sequence[tuple[Tensor, Tensor]]) -> None:
        grads = dict(params)
        (beta1, beta2), lr = group.tensor("betas"), group.tensor("lr")
        kept = 1.0 - lr * group.tensor("weight_decay")
        for steps, members in self._advance(list(grads)):
            # Everything that depends on the step alone is a scalar, so an element costs one root and one
            # division.
            rate = lr / (1.0 - beta1**steps)
            rescale = 1.0 / (1.0 - beta2**steps).sqrt()
            scalars = [1.0 - beta1, beta2, 1.0 - beta2, rate, rescale, group.tensor("eps"), kept]
            rounded: dict[DType, list[Tensor]] = {}
            for p in members:
                if p.dtype not in rounded:
                    rounded[p.dtype] = cast(scalars, p.dtype)
                self._step(group, p, grads[p], rounded[p.dtype])

    def _step(self, group: ParamGroup, p: Tensor, grad: Tensor, scalars: list[Tensor]) -> None:
        new1, beta2, new2, rate, rescale, eps, kept = scalars
        start: Tensor = p
        if not group["decoupled_weight_decay"]:
            grad = self._decayed(group, p, grad)
        else:
            grad = -grad if group["maximize"] else grad
            start = p * kept if group.is_active("weight_decay") else p
        held1, held2 = self._moment(p, "exp_avg"), self._moment(p, "exp_avg_sq")
        first = held1 + new1 * (grad - held1)
        second = beta2 * held2 + new2 * (grad * grad)
        held1.copy_(first)
        held2.copy_(second)
        if group["amsgrad"]:
            largest = self._moment(p, "max_exp_avg_sq")
            second = ops.maximum(largest, second)
            largest.copy_(second)
        p.copy_(start - rate * first / (second.sqrt() * rescale + eps))


class AdamW(Adam):
    """Adam with decoupled weight decay, ``p *= 1 - lr * weight_decay``; Loshchilov & Hutter,
    arXiv:1711.05101.
    """

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ):
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            maximize=maximize,
            decoupled_weight_decay=True,
            foreach=foreach,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
        )
