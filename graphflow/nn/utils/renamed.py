"""Weight and spectral normalisation under their older names and parameters' names."""

from __future__ import annotations

from typing import Any, TypeVar

from graphflow.nn.hooks import RemovableHandle
from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.nn.utils.parametrizations import norm_except
from graphflow.nn.utils.parametrize import computed, plain_again
from graphflow.nn.utils.power import PowerIteration, default_dim
from graphflow.tensor import Tensor, no_grad

M = TypeVar("M", bound=Module)


def _weight_of(module: Module, name: str, function: str) -> Parameter:
    weight = module._parameters.get(name) if isinstance(module, Module) else None
    if weight is None:
        raise ValueError(f"{function}: {module!r} has no parameter {name!r}")
    return weight


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """As `parametrizations.weight_norm`, with the parameters ``weight_g`` (norms) and ``weight_v``
    (directions).

    ValueError for a parameter that the module doesn't have. As ``torch.nn.utils.weight_norm``.
    """
    weight = _weight_of(module, name, "weight_norm")
    kept = None if dim == -1 else dim
    with no_grad():
        norms = norm_except(weight, kept)
    delattr(module, name)
    module.register_parameter(f"{name}_g", Parameter(norms))
    module.register_parameter(f"{name}_v", Parameter(weight.detach().clone()))

    def read(self: Any) -> Tensor:
        direction = getattr(self, f"{name}_v")
        result: Tensor = direction * (getattr(self, f"{name}_g") / norm_except(direction, kept))
        return result

    computed(module, name, property(read), "")
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Undoes `weight_norm`: the weight keeps its value. ValueError where there was none."""
    if not {f"{name}_g", f"{name}_v"} <= set(module._parameters):
        raise ValueError(f"weight_norm of '{name}' not found in {module}")
    _restore(module, name, (f"{name}_g", f"{name}_v"))
    return module


def _restore(module: Module, name: str, parts: tuple[str, ...]) -> None:
    with no_grad():
        value = getattr(module, name).detach().clone()
    plain_again(module, name)
    for part in parts:
        delattr(module, part)
    module.register_parameter(name, Parameter(value))


_MOVES = "_moves_of_spectral_norm"


def spectral_norm(
    module: M, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> M:
    """As `parametrizations.spectral_norm`, with the parameter ``weight_orig`` and the buffers ``weight_u``
    and ``weight_v``, which move at every call while training.

    ValueError for a parameter that the module doesn't have. As ``torch.nn.utils.spectral_norm``.
    """
    weight = _weight_of(module, name, "spectral_norm")
    if n_power_iterations <= 0:
        raise ValueError(
            f"Expected n_power_iterations to be positive, but got n_power_iterations={n_power_iterations}"
        )
    power = PowerIteration(default_dim(module) if dim is None else dim, eps)
    delattr(module, name)
    module.register_parameter(f"{name}_orig", weight)
    for letter, vector in zip("uv", power.start(weight), strict=True):
        module.register_buffer(f"{name}_{letter}", vector)

    def read(self: Any) -> Tensor:
        original, u, v = (getattr(self, f"{name}_{part}") for part in ("orig", "u", "v"))
        result: Tensor = original / power.norm(original, u.clone(), v.clone())
        return result

    def move(self: Any, args: Any) -> None:
        if self.training:
            original, u, v = (getattr(self, f"{name}_{part}") for part in ("orig", "u", "v"))
            with no_grad():
                matrix = power.matrix(original.detach())
                for _ in range(n_power_iterations):
                    power.half(matrix.t(), u, v)
                    power.half(matrix, v, u)

    computed(module, name, property(read), "")
    handles: dict[str, RemovableHandle] = module.__dict__.setdefault(_MOVES, {})
    handles[name] = module.register_forward_pre_hook(move)
    return module


def remove_spectral_norm(module: M, name: str = "weight") -> M:
    """Undoes `spectral_norm`: the weight keeps its value. ValueError where there was none."""
    handles: dict[str, RemovableHandle] = module.__dict__.get(_MOVES, {})
    if name not in handles:
        raise ValueError(f"spectral_norm of '{name}' not found in {module}")
    handles.pop(name).remove()
    _restore(module, name, (f"{name}_orig", f"{name}_u", f"{name}_v"))
    return module
