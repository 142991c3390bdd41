"""Modules as functions of their parameters, after ``torch.func.functional_call``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from graphflow.functions import stack
from graphflow.nn.batch import _BatchNorm
from graphflow.nn.module import Module
from graphflow.tensor import Tensor

Place = tuple[Module, str, str]  # module, table, name in it


def _places(module: Module) -> dict[str, Place]:
    """Where each parameter and buffer is, by its full name; shared ones under each of their names."""
    found: dict[str, Place] = {}
    for path, owner in module.named_modules(remove_duplicate=False):
        for table in ("_parameters", "_buffers"):
            for name in getattr(owner, table):
                found[f"{path}.{name}" if path else name] = (owner, table, name)
    return found


@contextmanager
def _holding(module: Module, values: Mapping[str, Tensor], tie_weights: bool, strict: bool) -> Iterator[None]:
    """Inside, the module has `values` instead of its own tensors."""
    places = _places(module)
    unknown = [name for name in values if name not in places]
    missing = [name for name in places if name not in values] if strict else []
    if unknown or missing:
        told = [f"no parameter or buffer is called {n!r}" for n in unknown]
        told += [f"{n!r} is missing" for n in missing]
        raise RuntimeError(f"functional_call: {type(module).__name__}: {'; '.join(told)}")
    chosen: dict[str, Tensor] = dict(values)
    originals = {name: getattr(owner, table)[key] for name, (owner, table, key) in places.items()}
    if tie_weights:
        by_original = {id(originals[name]): value for name, value in values.items()}
        for name, original in originals.items():
            if original is not None and id(original) in by_original:
                tied = by_original[id(original)]
                if chosen.setdefault(name, tied) is not tied:
                    raise ValueError(f"functional_call: {name!r} is tied to a tensor given another value")
    for name, value in chosen.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"functional_call: {name!r} has to be a tensor, got {type(value).__name__}")
    for owner in module.modules():
        owner._observed()  # as it is, not as it is for the moment
    try:
        for name, value in chosen.items():
            owner, table, key = places[name]
            getattr(owner, table)[key] = value
        yield
    finally:
        for name in chosen:
            owner, table, key = places[name]
            getattr(owner, table)[key] = originals[name]


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: Mapping[str, Tensor] | Sequence[Mapping[str, Tensor]],
    args: Any = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """``module(*args, **kwargs)`` with other tensors for its parameters and buffers, given by name.

    So a module is a function that ``grad`` and ``vmap`` can transform. Names that aren't given keep the
    module's own tensors, unless `strict`. With `tie_weights`, a parameter under several names is replaced
    under all of them. RuntimeError for a name that the module doesn't have; ValueError for one given twice.
    """
    if isinstance(parameter_and_buffer_dicts, Mapping):
        values = dict(parameter_and_buffer_dicts)
    else:
        values = {}
        for part in parameter_and_buffer_dicts:
            twice = [name for name in part if name in values]
            if twice:
                raise ValueError(f"functional_call: {twice[0]!r} appears in several dictionaries")
            values.update(part)
    given = () if args is None else args if isinstance(args, tuple) else (args,)
    with _holding(module, values, tie_weights, strict):
        return module(*given, **(kwargs or {}))


def replace_all_batch_norm_modules_(root: Module) -> Module:
    """Makes every batch norm in `root` use its batch's statistics alone, as ``vmap`` over a module in
    training needs, since running ones have no room for a value per element. Changes `root` and returns it.
    """
    for module in root.modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            module.running_mean = module.running_var = module.num_batches_tracked = None
            module.track_running_stats = False
    return root


def stack_module_state(models: Sequence[Module]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters and buffers of modules of one kind, stacked along a new dimension 0, for ``vmap``.

    The stacked parameters are leaves that require grad.
    """
    if not models:
        raise RuntimeError("stack_module_state: expected at least one model")
    first = models[0]
    if any(type(m) is not type(first) or m.training != first.training for m in models):
        raise RuntimeError("stack_module_state: the models have to be of one class and all in one mode")
    parameters = {
        name: stack([dict(m.named_parameters())[name].detach() for m in models]).requires_grad_(
            p.requires_grad
        )
        for name, p in first.named_parameters()
    }
    buffers = {
        name: stack([dict(m.named_buffers())[name].detach() for m in models])
        for name, _ in first.named_buffers()
    }
    return parameters, buffers


__all__ = ["functional_call", "replace_all_batch_norm_modules_", "stack_module_state"]
