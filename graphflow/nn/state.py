"""A module tree's state as a flat dictionary, and back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphflow.errors import GraphflowError
from graphflow.functions import as_tensor
from graphflow.nn.parameter import Parameter, Uninitialized, is_lazy
from graphflow.tensor import Tensor, no_grad

if TYPE_CHECKING:
    from graphflow.nn.module import Module


class StateDictError(GraphflowError, RuntimeError):
    """A state dictionary that doesn't fit the module; the message lists everything that differs."""


class IncompatibleKeys(NamedTuple):
    """What ``load_state_dict`` returns: names the dictionary lacked, and names the module doesn't have."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"

    def __str__(self) -> str:
        return repr(self)


def persistent_tensors(module: Module, prefix: str = "") -> dict[str, Tensor]:
    """Every parameter and persistent buffer below `module` under its full name, shared ones under each of
    theirs.
    """
    found: dict[str, Tensor] = {}
    for name, parameter in module._parameters.items():
        if parameter is not None:
            found[prefix + name] = parameter
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers:
            found[prefix + name] = buffer
    for name, child in module._modules.items():
        if child is not None:
            found.update(persistent_tensors(child, f"{prefix}{name}."))
    return found


def collect(
    module: Module, destination: dict[str, Any] | None, prefix: str, keep_vars: bool
) -> dict[str, Any]:
    """Adds the module's state to `destination` (a fresh dictionary for None)."""
    target: dict[str, Any] = OrderedDict() if destination is None else destination
    for name, tensor in persistent_tensors(module, prefix).items():
        target[name] = tensor if keep_vars or is_lazy(tensor) else tensor.data
    return target


def load(module: Module, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """Copies values into the module's own tensors, so that compiled functions go on with them; or, with
    `assign`, puts them in their place.

    Nothing is copied unless everything fits. StateDictError lists missing, unexpected and ill-shaped entries.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    own = persistent_tensors(module)
    missing = [name for name in own if name not in state_dict]
    unexpected = [name for name in state_dict if name not in own]
    problems = []
    if strict and missing:
        problems.append(f"Missing key(s) in state_dict: {_quoted(missing)}. ")
    if strict and unexpected:
        problems.append(f"Unexpected key(s) in state_dict: {_quoted(unexpected)}. ")
    fitting = []
    for name, tensor in own.items():
        if name not in state_dict:
            continue
        value = state_dict[name]
        if not isinstance(value, (Tensor, np.ndarray)):
            problems.append(
                f'While copying the parameter named "{name}", expected a Tensor or an array from checkpoint '
                f"but received {type(value)}"
            )
        elif is_lazy(value):
            if not is_lazy(tensor):
                problems.append(f"{name} is uninitialized in the checkpoint, but not in the current model.")
        elif not is_lazy(tensor) and tuple(value.shape) != tuple(tensor.shape):
            problems.append(
                f"size mismatch for {name}: copying a param with shape {list(value.shape)} from checkpoint, "
                f"the shape in current model is {list(tensor.shape)}."
            )
        else:
            fitting.append((name, tensor, value if isinstance(value, Tensor) else as_tensor(value)))
    if problems:
        listed = "\n\t".join(problems)
        raise StateDictError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t{listed}")
    with no_grad():
        for name, tensor, loaded in fitting:
            if assign:
                _assign(module, name, tensor, loaded)
            else:
                if isinstance(tensor, Uninitialized):
                    tensor.materialize(loaded.shape)
                tensor.copy_(loaded)
    return IncompatibleKeys(missing, unexpected)


def _assign(module: Module, name: str, old: Tensor, new: Tensor) -> None:
    path, _, last = name.rpartition(".")
    if isinstance(old, Parameter) and not isinstance(new, Parameter):
        new = Parameter(new, requires_grad=old.requires_grad)
    setattr(module.get_submodule(path), last, new)


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
