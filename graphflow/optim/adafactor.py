"""Adafactor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from graphflow import functions as ops
from graphflow.dtypes import finfo
from graphflow.optim.arguments import Params, Rate
from graphflow.optim.group import ParamGroup
from graphflow.optim.optimizer import Optimizer, cast
from graphflow.tensor import Tensor


class Adafactor(Optimizer):
    """Adam without the first moment, and with the second moment of a matrix kept as one row and one column;
    Shazeer & Stern, arXiv:1804.04235.

    A step is ``max(eps[1], rms(p)) * min(lr, 1/sqrt(t))`` long, along the gradient divided by the root of the
    second moment, whose decay is ``1 - t**beta2_decay``; where its root mean square is above `d`, it is
    scaled down to that. `eps[0]`, the dtype's epsilon for None, keeps the division from blowing up.
    `weight_decay` is decoupled. Of a parameter with more than two dimensions the last two are the matrix. As
    ``torch.optim.Adafactor``.
    """

    switches: ClassVar[frozenset[str]] = frozenset({"weight_decay"})

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        low, high = options["eps"]
        for name, holds, value in (
            ("Learning rate should be >= 0", float(options["lr"]) >= 0, options["lr"]),
            ("beta2_decay should be <= 0", options["beta2_decay"] <= 0, options["beta2_decay"]),
            ("epsilon1 should be >= 0", low is None or low >= 0, low),
            ("epsilon2 should be >= 0", high >= 0, high),
            ("Clipping threshold d should be >= 1", options["d"] >= 1, options["d"]),
            ("weight_decay should be >= 0", float(options["weight_decay"]) >= 0, options["weight_decay"]),
        ):
            if not holds:
                raise ValueError(f"{name} but is: {value}")

    def _state_shape(self, parameter: Tensor, name: str) -> Sequence[int]:
        shape = tuple(parameter.shape)
        if name == "row_var":
            return *shape[:-1], 1
        return (*shape[:-2], 1, shape[-1]) if name == "col_var" else shape

    def _update(self, group: ParamGroup, params: Sequence[tuple[Tensor, Tensor]]) -> None:
        grads = dict(params)
        lr = group.tensor("lr")
        for steps, members in self._advance(list(grads)):
            new = steps ** group.tensor("beta2_decay")
            length = ops.minimum(lr, steps**-0.5)
            kept = 1.0 - lr * group.tensor("weight_decay")
            for p in members:
                g = -grads[p] if group["maximize"] else grads[p]
                self._step(group, p, g, cast([new, length, kept, group.tensor("d")], p.dtype))

    def _step(self, group: ParamGroup, p: Tensor, g: Tensor, scalars: list[Tensor]) -> None:
        new, length, kept, d = scalars
        low, high = group["eps"]
        low = finfo(p.dtype).eps if low is None else low
        size = _at_least(_rms(p), high) * length
        start = p * kept if group.is_active("weight_decay") else p
        spread = self._spread(p, g, new, low)
        update = g * spread.clamp(min=low * low).rsqrt()
        p.copy_(start - size / _at_least(_rms(update) / d, 1.0) * update)

    def _spread(self, p: Tensor, g: Tensor, new: Tensor, low: float) -> Tensor:
        """The second moment."""
        square = g * g
        if p.ndim < 2:
            return self._mean(p, "variance", square, new)
        rows = self._mean(p, "row_var", square.mean(-1, keepdim=True), new)
        columns = self._mean(p, "col_var", square.mean(-2, keepdim=True), new)
        spread: Tensor = rows * columns / rows.mean(-2, keepdim=True).clamp(min=low)
        return spread

    def _mean(self, p: Tensor, name: str, value: Tensor, new: Tensor) -> Tensor:
        held = self._state(p, name, self._state_shape(p, name), p.dtype)
        mean = held + new * (value - held)
        held.copy_(mean)
        return mean


def _at_least(x: Tensor, low: float) -> Tensor:
    """`x`, or `low` where that is larger or x is NaN, so that one bad element doesn't spoil the others."""
    return ops.where(x > low, x, low)


def _rms(x: Tensor) -> Tensor:
    """The root of the mean of squares."""
    root: Tensor = (x * x).mean().sqrt()
    return root
