"""Modules that hold parameters and nothing else."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graphflow.nn.module import Module
from graphflow.nn.parameter import Parameter
from graphflow.nn.printing import bracketed
from graphflow.tensor import Tensor

__all__ = ["ParameterDict", "ParameterList"]


class ParameterList(Module):
    """A list whose tensors are parameters of the owner; plain tensors put in become parameters."""

    def __init__(self, values: Iterable[Any] | None = None):
        super().__init__()
        self._size = 0
        self.extend(values or ())

    def _key(self, index: int) -> str:
        position = operator.index(index)
        if not -self._size <= position < self._size:
            raise IndexError(f"index {position} is out of range")
        return str(position % self._size)

    def __len__(self) -> int:
        self._observed()
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return iter([self[i] for i in range(len(self))])

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return type(self)([self[i] for i in range(len(self))[index]])
        return getattr(self, self._key(index))

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, self._key(index), _as_parameter(value))

    def __iadd__(self, values: Iterable[Any]) -> ParameterList:
        return self.extend(values)

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.isdigit()]

    def append(self, value: Any) -> ParameterList:
        """Adds a value at the end."""
        self._size += 1
        self[self._size - 1] = value
        return self

    def extend(self, values: Iterable[Any]) -> ParameterList:
        """Adds values at the end."""
        if isinstance(values, Tensor):
            raise TypeError("ParameterList.extend takes an iterable of tensors, got a Tensor; use append()")
        for value in list(values):
            self.append(value)
        return self

    def extra_repr(self) -> str:
        """One line for each value."""
        return "\n".join(f"({i}): {_described(value)}" for i, value in enumerate(self))

    def __repr__(self) -> str:
        return _printed(self)


class ParameterDict(Module):
    """A dictionary whose tensors are parameters of the owner; plain tensors put in become parameters."""

    def __init__(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]] | None = None):
        super().__init__()
        self._names: dict[str, None] = {}
        self.update(parameters or {})

    def __len__(self) -> int:
        self._observed()
        return len(self._names)

    def __iter__(self) -> Iterator[str]:
        self._observed()
        return iter(self._names)

    def __contains__(self, key: object) -> bool:
        self._observed()
        return key in self._names

    def __getitem__(self, key: str) -> Any:
        if key not in self._names:
            raise KeyError(key)
        self._observed()
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"a ParameterDict's keys are strings, got {type(key).__name__}")
        if key not in self._names and hasattr(self, key):
            raise KeyError(f"attribute '{key}' already exists")
        self._names = {**self._names, key: None}
        setattr(self, key, _as_parameter(value))

    def __delitem__(self, key: str) -> None:
        if key not in self._names:
            raise KeyError(key)
        self._names = {name: None for name in self._names if name != key}
        delattr(self, key)

    def keys(self) -> Iterable[str]:
        """The names."""
        self._observed()
        return self._names.keys()

    def values(self) -> Iterable[Any]:
        """The values."""
        self._observed()
        return [self[name] for name in self._names]

    def items(self) -> Iterable[tuple[str, Any]]:
        """(name, value) pairs."""
        self._observed()
        return [(name, self[name]) for name in self._names]

    def get(self, key: str, default: Any = None) -> Any:
        """The value under `key`, or `default`."""
        return self[key] if key in self._names else default

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The value under `key`, which becomes `default` when there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def pop(self, key: str) -> Any:
        """Takes a value out."""
        value = self[key]
        del self[key]
        return value

    def clear(self) -> None:
        """Takes every value out."""
        for key in list(self._names):
            del self[key]

    def update(self, parameters: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> None:
        """Adds or replaces values by name."""
        pairs = parameters.items() if isinstance(parameters, (Mapping, ParameterDict)) else parameters
        for key, value in pairs:
            self[key] = value

    def extra_repr(self) -> str:
        """One line for each value."""
        return "\n".join(f"({name}): {_described(value)}" for name, value in self.items())

    def __repr__(self) -> str:
        return _printed(self)


def _as_parameter(value: Any) -> Any:
    return Parameter(value) if isinstance(value, Tensor) and not isinstance(value, Parameter) else value


def _described(value: Any) -> str:
    if not isinstance(value, Tensor):
        return f"Object of type: {type(value).__name__}"
    kind = "Parameter" if isinstance(value, Parameter) else "Tensor"
    return f"{kind} containing: [{value.dtype!r} of size {'x'.join(map(str, value.shape))}]"


def _printed(module: Module) -> str:
    text = module.extra_repr()
    return bracketed(type(module).__name__, [], [f"  {line}" for line in text.split("\n")] if text else [])
