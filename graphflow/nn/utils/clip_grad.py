"""Gradients kept within bounds."""

from __future__ import annotations

import math
from collections.abc import Iterable

from graphflow import functions as ops
from graphflow.errors import TraceError
from graphflow.tensor import Tensor, no_grad, where_called

Tensors = Tensor | Iterable[Tensor]


def _listed(tensors: Tensors) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _gradients(parameters: Tensors) -> list[Tensor]:
    return [p.grad for p in _listed(parameters) if p.grad is not None]


@no_grad()
def get_total_norm(
    tensors: Tensors,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The `norm_type`-norm of all elements of all tensors, 0-d; 0 for no tensors. `foreach` means nothing.

    RuntimeError for a norm that isn't finite, with `error_if_nonfinite` (TraceError in compiled functions).
    """
    listed = _listed(tensors)
    if not listed:
        return ops.tensor(0.0)
    norms = ops.stack([t.norm(float(norm_type)) for t in listed])
    total: Tensor = norms.norm(float(norm_type))
    if error_if_nonfinite and total.is_traced:
        raise TraceError(
            "error_if_nonfinite=True looks at the norm's value, which a compiled function can't; return the "
            f"norm and check it outside{where_called()}"
        )
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"The total norm of order {float(norm_type)} for gradients from `parameters` is non-finite, so "
            "it cannot be clipped. To disable this error and scale the gradients by the non-finite norm "
            "anyway, set `error_if_nonfinite=False`"
        )
    return total


@no_grad()
def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Multiplies the parameters' gradients by ``max_norm / total_norm`` in place, where that is below 1."""
    share = (max_norm / (total_norm + 1e-6)).clamp(max=1.0)
    for grad in _gradients(parameters):
        grad.mul_(share.to(grad.dtype))


@no_grad()
def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scales all gradients so that their common `norm_type`-norm is at most `max_norm`; gives the old norm.

    As ``torch.nn.utils.clip_grad_norm_``; inside a compiled step it is part of the step.
    """
    listed = _listed(parameters)
    total: Tensor = get_total_norm(_gradients(listed), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(listed, max_norm, total)
    return total


@no_grad()
def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Limits every element of the gradients to [-clip_value, clip_value] in place."""
    for grad in _gradients(parameters):
        grad.clamp_(min=-float(clip_value), max=float(clip_value))
