"""Gradients of tensors that carry history, after ``torch.autograd``."""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.tensor import Tensor, enable_grad, grad, is_grad_enabled, no_grad, set_grad_enabled


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
) -> None:
    """Accumulates the gradients of all `tensors` into the ``.grad`` of the leaves they were made from."""
    outputs = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    seeds = [grad_tensors] * len(outputs) if grad_tensors is None or isinstance(grad_tensors, Tensor) else list(grad_tensors)
    for output, seed in zip(outputs, seeds, strict=True):
        output.backward(seed, retain_graph, create_graph)


__all__ = ["backward", "enable_grad", "grad", "is_grad_enabled", "no_grad", "set_grad_enabled"]
