"""Modules that hold modules."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graphflow.nn.module import Module
from graphflow.nn.printing import bracketed, indented

__all__ = ["ModuleDict", "ModuleList", "Sequential"]


class Sequential(Module):
    """Modules called one after another. Made from modules, or from one ordered dictionary of named ones."""

    def __init__(self, *args: Any):
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            for i, module in enumerate(args):
                self.add_module(str(i), module)

    def forward(self, input: Any) -> Any:
        """The last module's result."""
        for module in self._modules.values():
            input = module(input)  # type: ignore[misc]  # None can't be called: the error says which
        return input

    def __len__(self) -> int:
        self._observed()
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        self._observed()
        return iter(self._modules.values())  # type: ignore[arg-type]

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(OrderedDict(list(self._modules.items())[index]))
        return self._modules[_key(self, index)]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, _key(self, index), module)

    def __delitem__(self, index: int | slice) -> None:
        _delete(self, index)

    def append(self, module: Module) -> Sequential:
        """Adds a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Sequential:
        """Adds modules at the end."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Sequential:
        """Puts a module before the one at `index`."""
        _refill(self, _inserted(list(self), index, module))
        return self


class ModuleList(Module):
    """A list of modules whose parameters count as the owner's."""

    def __init__(self, modules: Iterable[Module] | None = None):
        super().__init__()
        self.extend(modules or ())

    def __len__(self) -> int:
        self._observed()
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        self._observed()
        return iter(self._modules.values())  # type: ignore[arg-type]

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return self._modules[_key(self, index)]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, _key(self, index), module)

    def __delitem__(self, index: int | slice) -> None:
        _delete(self, index)

    def __iadd__(self, modules: Iterable[Module]) -> ModuleList:
        return self.extend(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        return ModuleList([*self, *other])

    def append(self, module: Module) -> ModuleList:
        """Adds a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Adds modules at the end."""
        if isinstance(modules, Module) and not isinstance(modules, (ModuleList, Sequential)):
            raise TypeError(f"ModuleList.extend takes an iterable of modules, got {type(modules).__name__}")
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> None:
        """Puts a module before the one at `index`."""
        _refill(self, _inserted(list(self), index, module))

    def pop(self, index: int = -1) -> Module:
        """Takes a module out."""
        module: Module = self[index]
        del self[index]
        return module

    def __repr__(self) -> str:
        """As PyTorch prints it: equal neighbours on one line."""
        groups: list[tuple[int, str]] = []  # (first index, printed module)
        for i, module in enumerate(self):
            text = repr(module)
            if not groups or groups[-1][1] != text:
                groups.append((i, text))
        starts = [*(first for first, _ in groups), len(self)]
        lines = []
        for (first, text), end in zip(groups, starts[1:], strict=True):
            count = end - first
            label = f"({first}): " if count == 1 else f"({first}-{end - 1}): {count} x "
            lines.append(indented(label + text))
        return bracketed(self._get_name(), [], lines)


class ModuleDict(Module):
    """A dictionary of modules whose parameters count as the owner's."""

    def __init__(self, modules: Mapping[str, Module] | None = None):
        super().__init__()
        self.update(modules or {})

    def __len__(self) -> int:
        self._observed()
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        self._observed()
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        self._observed()
        return key in self._modules

    def __getitem__(self, key: str) -> Any:
        self._observed()
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        delattr(self, key)

    def keys(self) -> Iterable[str]:
        """The names."""
        self._observed()
        return self._modules.keys()

    def values(self) -> Iterable[Module]:
        """The modules."""
        self._observed()
        return self._modules.values()  # type: ignore[return-value]

    def items(self) -> Iterable[tuple[str, Module]]:
        """(name, module) pairs."""
        self._observed()
        return self._modules.items()  # type: ignore[return-value]

    def pop(self, key: str) -> Module:
        """Takes a module out."""
        module: Module = self[key]
        del self[key]
        return module

    def clear(self) -> None:
        """Takes every module out."""
        for key in list(self._modules):
            del self[key]

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Adds or replaces modules by name."""
        for key, module in modules.items() if isinstance(modules, (Mapping, ModuleDict)) else modules:
            self[key] = module


def _key(container: Sequential | ModuleList, index: int) -> str:
    """The name of the module at `index`, which may count from the end; IndexError when there is none."""
    position, size = operator.index(index), len(container)
    if not -size <= position < size:
        raise IndexError(f"index {position} is out of range")
    return list(container._modules)[position]


def _delete(container: Sequential | ModuleList, index: int | slice) -> None:
    kept = list(container)
    del kept[index]
    _refill(container, kept)


def _inserted(modules: list[Module], index: int, module: Module) -> list[Module]:
    if not -len(modules) <= index <= len(modules):
        raise IndexError(f"index {index} is out of range")
    modules.insert(index, module)
    return modules


def _refill(container: Sequential | ModuleList, modules: list[Module]) -> None:
    """The container with exactly these modules, numbered from 0."""
    for name in list(container._modules):
        delattr(container, name)
    for i, module in enumerate(modules):
        container.add_module(str(i), module)
