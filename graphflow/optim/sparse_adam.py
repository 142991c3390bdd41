"""SparseAdam."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graphflow.optim.arguments import Params, Rate, check_betas
from graphflow.optim.group import ParamGroup
from graphflow.optim.optimizer import Optimizer
from graphflow.tensor import Tensor


class SparseAdam(Optimizer):
    """Adam that leaves alone what a sparse gradient doesn't mention. As ``torch.optim.SparseAdam``.

    Gradients are dense here, those of embeddings too, and PyTorch's doesn't take dense gradients either: a
    step is a RuntimeError that names the remedy, `Adam`.
    """

    def __init__(
        self,
        params: Params,
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})

    def _check_options(self, options: Mapping[str, Any]) -> None:
        for name, what in (("lr", "learning rate"), ("eps", "epsilon value")):
            if not float(options[name]) > 0.0:
                raise ValueError(f"Invalid {what}: {options[name]}")
        check_betas(options["betas"])

    def _update(self, group: ParamGroup, params: Sequence[tuple[Tensor, Tensor]]) -> None:
        raise RuntimeError(
            "SparseAdam does not support dense gradients, please consider Adam instead: graphflow has no "
            "sparse gradients, Embedding(sparse=True) gives dense ones, too"
        )
