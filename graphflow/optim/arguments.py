"""What optimizers are given: parameters, rates, and arguments that choose among implementations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

from graphflow.tensor import Tensor

Params = Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[Mapping[str, Any]]
Rate = float | Tensor


class _Required:
    """A default that says that every group has to give the option."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _Required()


def named(given: Iterable[Any]) -> tuple[list[str], list[Tensor]]:
    """The names (none, if they were given without) and the tensors of a group's parameters."""
    names: list[str] = []
    tensors: list[Tensor] = []
    for item in given:
        tensor = item
        if isinstance(item, tuple) and len(item) == 2:
            names.append(item[0])
            tensor = item[1]
        if not isinstance(tensor, Tensor):
            raise TypeError(f"optimizer can only optimize Tensors, but one of the params is {type(tensor)}")
        if not tensor.is_leaf:
            raise ValueError("can't optimize a non-leaf Tensor")
        tensors.append(tensor)
    if names and len(names) != len(tensors):
        raise ValueError("all optimizer params should be with/without names. Some param names are missing")
    return names, tensors


def check_implementation(options: Mapping[str, Any]) -> None:
    """PyTorch's arguments `foreach`, `fused` and `capturable` choose among implementations of one formula.

    There is one here, fused over all parameters and part of compiled steps, so they change nothing.
    `differentiable` would change what a step means.
    """
    if options.get("differentiable"):
        raise ValueError(
            "differentiable=True isn't supported: no gradient flows through a step. Write the update as a "
            "function of the parameters and take that one's gradient"
        )
    if options.get("fused") and options.get("foreach"):
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")


def check_betas(betas: Sequence[Any]) -> None:
    """ValueError unless `betas` are two numbers in [0, 1)."""
    if not isinstance(betas, (tuple, list)):
        raise TypeError(f"betas has to be two numbers, got {type(betas).__name__}")
    if len(betas) != 2:
        raise ValueError(f"betas takes 2 numbers, got {len(betas)}")
    if isinstance(betas[0], Tensor) != isinstance(betas[1], Tensor):
        raise ValueError("betas must be either both floats or both Tensors")
    for i, beta in enumerate(betas):
        check_rate(f"beta parameter at index {i}", beta, below=1.0)


def check_rate(name: str, value: Any, below: float = float("inf")) -> None:
    """TypeError for what is no number, ValueError unless 0 <= value < below.

    `name` is in the message: ``Invalid learning rate``.
    """
    if not isinstance(value, (Real, Tensor)):
        raise TypeError(f"{name} has to be a number or a tensor with one element, got {type(value).__name__}")
    if not 0.0 <= float(value) < below:
        raise ValueError(f"Invalid {name}: {value}")
