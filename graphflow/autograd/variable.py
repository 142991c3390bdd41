"""``Variable``, which has been another name for tensors since PyTorch 0.4."""

from __future__ import annotations

from graphflow.tensor import Tensor


def Variable(data: Tensor, requires_grad: bool = False) -> Tensor:
    """A tensor on the memory of `data`, without its history; TypeError unless `data` is a tensor."""
    if not isinstance(data, Tensor):
        raise TypeError(f"Variable: data has to be a Tensor, not {type(data).__name__}")
    return data.detach().requires_grad_(requires_grad)
