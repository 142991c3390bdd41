"""A module tree's state as a flat dictionary, and back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphflow.errors import GraphflowError
from graphflow.functions import as_tensor
from graphflow.nn.hooks import RemovableHandle
from graphflow.nn.parameter import Parameter, Uninitialized, is_lazy
from graphflow.tensor import Tensor, no_grad

if TYPE_CHECKING:
    from graphflow.nn.module import Module


# Under this name, after a module's own prefix, stands what its get_extra_state gave.
EXTRA_STATE = "_extra_state"


def kept_in_place(buffer: Tensor | None, value: Tensor | None) -> bool:
    """Whether a buffer took over what was assigned in its place.

    ``self.mean = 0.9 * self.mean + ...`` inside a compiled function has to outlive it: the value goes into
    the buffer's memory, where a value of the same type fits that carries no gradient.
    """
    if buffer is None or value is None or not value.is_traced or buffer.is_traced:
        return False
    if value.requires_grad or value.type_ != buffer.type_:
        return False
    with no_grad():
        buffer.copy_(value)
    return True


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


def _own_tensors(module: Module, prefix: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, parameter in module._parameters.items():
        if parameter is not None:
            found[prefix + name] = parameter
    for name, buffer in module._buffers.items():
        if buffer is not None and name not in module._non_persistent_buffers:
            found[prefix + name] = buffer
    return found


def collect(
    module: Module, destination: dict[str, Any] | None, prefix: str, keep_vars: bool
) -> dict[str, Any]:
    """Adds the module's state to `destination` (a fresh dictionary for None)."""
    target: dict[str, Any] = OrderedDict() if destination is None else destination
    for hook in _hooks(module, "before saving"):
        hook(module, prefix, keep_vars)
    for name, tensor in _own_tensors(module, prefix).items():
        target[name] = tensor if keep_vars or is_lazy(tensor) else tensor.data
    if _defines(module, "get_extra_state"):
        target[prefix + EXTRA_STATE] = module.get_extra_state()
    for name, child in module._modules.items():
        if child is not None:
            child.state_dict(destination=target, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
    for hook in _hooks(module, "after saving"):
        if hook(module, target, prefix, {"version": 1}) is not None:
            raise RuntimeError("state_dict post-hook must return None")
    return target


def _hooks(module: Module, when: str) -> tuple[Callable[..., Any], ...]:
    return tuple(module._state_hooks.get(when, {}).values())


def _defines(module: Module, method: str) -> bool:
    return getattr(type(module), method) is not getattr(Stored, method)


def _tree(module: Module, prefix: str = "") -> Iterator[tuple[str, Module]]:
    """Every module below and its prefix, as often as it is there."""
    yield prefix, module
    for name, child in module._modules.items():
        if child is not None:
            yield from _tree(child, f"{prefix}{name}.")


def load(module: Module, state_dict: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """Copies values into the module's own tensors, so that compiled functions go on with them; or, with
    `assign`, puts them in their place.

    Nothing is copied unless everything fits. StateDictError lists missing, unexpected and ill-shaped entries.
    """
    if not isinstance(state_dict, Mapping):
        raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
    tree = list(_tree(module))
    missing: list[str] = []
    unexpected: list[str] = []
    problems: list[str] = []
    values = OrderedDict(state_dict)
    for prefix, part in tree:
        for hook in _hooks(part, "before loading"):
            hook(part, values, prefix, {}, True, missing, unexpected, problems)
    own = {name: tensor for prefix, part in tree for name, tensor in _own_tensors(part, prefix).items()}
    extra = {prefix + EXTRA_STATE: part for prefix, part in tree if _defines(part, "set_extra_state")}
    missing += [name for name in (*own, *extra) if name not in values]
    unexpected += [name for name in values if name not in own and name not in extra]
    after = [(part, hook) for _, part in reversed(tree) for hook in _hooks(part, "after loading")]
    fitting = _fitting(own, values, problems)
    # Hooks that run afterwards may put the lists of names right.
    early = strict and not after
    _refuse(module, problems, missing if early else [], unexpected if early else [])
    with no_grad():
        for name, tensor, loaded in fitting:
            if assign:
                _assign(module, name, tensor, loaded)
            else:
                if isinstance(tensor, Uninitialized):
                    tensor.materialize(loaded.shape)
                tensor.copy_(loaded)
    for name, part in extra.items():
        if name in values:
            part.set_extra_state(values[name])
    keys = IncompatibleKeys(missing, unexpected)
    for part, hook in after:
        if hook(part, keys) is not None:
            raise RuntimeError("a hook that runs after loading returns None; it changes the keys in place")
    if strict:
        _refuse(module, [], missing, unexpected)
    return keys


def _fitting(
    own: Mapping[str, Tensor], values: Mapping[str, Any], problems: list[str]
) -> list[tuple[str, Tensor, Tensor]]:
    """(name, module's tensor, value for it); what doesn't fit is told in `problems`."""
    fitting = []
    for name, tensor in own.items():
        if name not in values:
            continue
        value = values[name]
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
    return fitting


def _refuse(module: Module, problems: list[str], missing: list[str], unexpected: list[str]) -> None:
    named = (("Missing", missing), ("Unexpected", unexpected))
    listed = [f"{kind} key(s) in state_dict: {_quoted(names)}. " for kind, names in named if names] + problems
    if listed:
        text = "\n\t".join(listed)
        raise StateDictError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t{text}")


def _assign(module: Module, name: str, old: Tensor, new: Tensor) -> None:
    path, _, last = name.rpartition(".")
    if isinstance(old, Parameter) and not isinstance(new, Parameter):
        new = Parameter(new, requires_grad=old.requires_grad)
    setattr(module.get_submodule(path), last, new)


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


class Stored:
    """What Module has of saving and loading its state."""

    _state_hooks: dict[str, OrderedDict[int, Any]]

    def state_dict(
        self: Any, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """Every parameter and persistent buffer by dotted name, sharing memory with the module."""
        return collect(self, destination, prefix, keep_vars)

    def load_state_dict(
        self: Any, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copies values (tensors or arrays) into this module; StateDictError lists everything that doesn't
        fit.

        With ``strict=False`` missing and unexpected names are returned instead. With `assign` the values
        themselves become the module's, in their dtypes; optimizers have to be made afterwards. Nothing is
        changed when it fails.
        """
        return load(self, state_dict, strict, assign)

    def get_extra_state(self) -> Any:
        """What ``state_dict`` holds of this module besides its tensors, as ``_extra_state``; a class that
        defines it defines `set_extra_state`, too.
        """
        raise RuntimeError(f"{type(self).__name__} doesn't define get_extra_state")

    def set_extra_state(self, state: Any) -> None:
        """Takes what `get_extra_state` gave; called by ``load_state_dict``."""
        raise RuntimeError(f"{type(self).__name__} doesn't define set_extra_state")

    def _on_state(self, when: str, hook: Callable[..., Any]) -> RemovableHandle:
        return RemovableHandle(self._state_hooks.setdefault(when, OrderedDict()), hook, False)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls ``hook(module, prefix, keep_vars)`` before the module's state is collected."""
        return self._on_state("before saving", hook)

    def register_state_dict_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Calls ``hook(module, state_dict, prefix, local_metadata)`` when the module's state and all below it
        is in `state_dict`, which it may change in place.
        """
        return self._on_state("after saving", hook)

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls ``hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
        error_msgs)`` before anything is loaded; it may change the dictionary (a copy) and the lists.
        """
        return self._on_state("before loading", hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., None]) -> RemovableHandle:
        """Calls ``hook(module, incompatible_keys)`` when everything is loaded; it may change the two lists,
        and what is left in them then makes a strict ``load_state_dict`` fail, after loading.
        """
        return self._on_state("after loading", hook)
