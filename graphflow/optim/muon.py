"""Muon."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from graphflow.dtypes import float32
from graphflow.optim.arguments import Params, Rate
from graphflow.optim.group import ParamGroup
from graphflow.optim.optimizer import Optimizer, cast
from graphflow.tensor import Tensor

_ADJUSTMENTS = (None, "original", "match_rms_adamw")


class Muon(Optimizer):
    """Momentum of matrices whose step is made nearly orthogonal by `ns_steps` Newton-Schulz iterations;
    Jordan, 2024; Liu et al., arXiv:2502.16982.

    For parameters with two dimensions (ValueError for others); weight decay is decoupled. The rate is
    multiplied by ``sqrt(max(1, rows / columns))``, or with ``adjust_lr_fn="match_rms_adamw"`` by
    ``0.2 sqrt(max(rows, columns))``. As ``torch.optim.Muon``, but the iterations are made with the
    parameter's precision (float32 at least), not in bfloat16.
    """

    constants: ClassVar[frozenset[str]] = frozenset({"ns_coefficients", "ns_steps", "eps"})

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ):
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """ValueError for parameters that aren't matrices."""
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.ndim != 2:
                self.param_groups.pop()
                raise ValueError(
                    "Muon only supports 2D parameters whereas we found a parameter with size: "
                    f"{tuple(p.shape)}"
                )

    def _check_options(self, options: Mapping[str, Any]) -> None:
        for name, what in (
            ("lr", "Learning rate"),
            ("momentum", "momentum"),
            ("weight_decay", "weight decay"),
        ):
            if not float(options[name]) >= 0.0:
                raise ValueError(f"{what} should be >= 0 but is: {options[name]}")
        if options["adjust_lr_fn"] not in _ADJUSTMENTS:
            raise ValueError(f"Adjust learning rate function {options['adjust_lr_fn']} is not supported")
        if len(options["ns_coefficients"]) != 3:
            raise ValueError("Coefficients must be a tuple of exactly 3 values")
        if options["ns_steps"] >= 100:
            raise ValueError("Number of steps must be less than 100 for computational efficiency")

    def _update(self, group: ParamGroup, params: Sequence[tuple[Tensor, Tensor]]) -> None:
        rates = [group.tensor(name) for name in ("lr", "momentum", "weight_decay")]
        for p, g in params:
            lr, momentum, decay = cast(rates, p.dtype)
            held = self._moment(p, "momentum_buffer")
            average = held + (1.0 - momentum) * (g - held)
            held.copy_(average)
            along = g + momentum * (average - g) if group["nesterov"] else average
            step = _orthogonal(along, group["ns_coefficients"], group["ns_steps"], group["eps"])
            rate = lr * _adjustment(p, group["adjust_lr_fn"])
            p.copy_(p * (1.0 - lr * decay) - rate * step)


def _orthogonal(matrix: Tensor, coefficients: Sequence[float], steps: int, eps: float) -> Tensor:
    """A matrix with the same singular vectors and singular values near 1."""
    a, b, c = coefficients
    x = matrix.to(float32) if matrix.dtype.is_half else matrix
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / x.norm().clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    result: Tensor = x.T if tall else x
    return result


def _adjustment(p: Tensor, name: str | None) -> float:
    rows, columns = p.shape
    if name == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))
