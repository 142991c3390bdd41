"""Python values made comparable: what stands for one in a variant's key, and what objects hold of them."""

from __future__ import annotations

import argparse
import collections
import enum
import functools
import itertools
import sys
import types
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from typing import Any

import numpy as np

from graphflow.dtypes import DType
from graphflow.tensor import Tensor

PLAIN = (bool, int, float, complex, str, bytes, type(None), DType, type(Ellipsis))
MISSING = object()
LIMIT = 200  # items of a container, objects looked into, functions looked through
_DEPTH = 8  # steps from a value to what it holds
_MAPPINGS = (dict, types.MappingProxyType)
_SEQUENCES = (list, tuple, set, frozenset, collections.deque)
LIBRARY = sys.stdlib_module_names - {"__main__"}
_OPEN = (types.SimpleNamespace, argparse.Namespace, collections.UserDict, collections.UserList)
_HIDDEN = frozenset(("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__"))


class Same:
    """An object compared by identity. Holding it keeps its address from being used for another one."""

    __slots__ = ("value",)

    def __init__(self, value: object):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)

    def __repr__(self) -> str:
        named = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
        name = self.value.__name__ if isinstance(self.value, named) else None
        return f"{type(self.value).__name__} {name}" if name else f"a {type(self.value).__name__}"


def root(module: Any) -> str:
    """The package that a module's name begins with."""
    return module.split(".")[0] if isinstance(module, str) else ""


def _form(kind: type) -> str:
    """How values of a class are looked into.

    Their "items", the values of a "mapping", what a "partial" holds, the attributes of an "object" or of a
    "class", or not at all: those are "whole".
    """
    if issubclass(kind, (*PLAIN, Tensor, np.ndarray, np.generic, enum.Enum)):
        return "whole"
    if issubclass(kind, type):
        return "class"
    if any(root(c.__module__) == "graphflow" for c in kind.__mro__):
        return "whole"  # networks, optimizers, ...: their own facts are what a trace depends on
    if issubclass(kind, _MAPPINGS):
        return "mapping"
    if issubclass(kind, _SEQUENCES):
        return "items"
    if issubclass(kind, functools.partial):
        return "partial"
    closed = root(kind.__module__) in LIBRARY or root(kind.__module__) == "numpy"
    return "whole" if closed and not issubclass(kind, _OPEN) else "object"


form: Callable[[type], str] = functools.lru_cache(maxsize=4096)(_form)


def _users_classes(kind: type) -> tuple[type, ...]:
    """A class and its bases that somebody wrote: not Python's, NumPy's or graphflow's."""
    return tuple([c for c in kind.__mro__ if root(c.__module__) not in LIBRARY | {"numpy", "graphflow"}])


users_classes: Callable[[type], tuple[type, ...]] = functools.lru_cache(maxsize=4096)(_users_classes)


def dictionary(value: Any) -> Mapping[str, Any]:
    """An object's own attributes, without asking its ``__getattr__``, which may answer anything."""
    try:
        return object.__getattribute__(value, "__dict__")  # type: ignore[no-any-return]
    except AttributeError:
        return {}


def comparable(value: Any, growing: Collection[int] = ()) -> Hashable:
    """A stand-in that is equal where a trace would be the same.

    Plain values go by value, small containers by what they hold, `_DEPTH` deep, everything else by identity,
    also containers whose ``id()`` is in `growing`, because a trace appends to them.
    """
    return _stand_in(value, growing, 0, itertools.count())


def _stand_in(value: Any, growing: Collection[int], depth: int, containers: Iterator[int]) -> Hashable:
    if isinstance(value, Tensor):
        return "a value left behind by a trace" if value.is_traced else Same(value)
    if isinstance(value, float):
        return "float", value.hex()
    if isinstance(value, PLAIN):
        return type(value).__name__, value
    if isinstance(value, slice):
        return "slice", (value.start, value.stop, value.step)
    kind = form(type(value))
    if (
        kind in ("items", "mapping")
        and len(value) <= LIMIT
        and depth < _DEPTH
        and id(value) not in growing
        and next(containers) < LIMIT
    ):
        below = functools.partial(_stand_in, growing=growing, depth=depth + 1, containers=containers)
        if kind == "mapping":
            return type(value).__name__, tuple([("pair", (below(k), below(v))) for k, v in value.items()])
        return type(value).__name__, tuple([below(item) for item in value])
    return "nothing" if value is MISSING else Same(value)


def additions(old: Hashable, value: Any) -> frozenset[int] | None:
    """The identities of the lists, sets and queues within `value` that hold more than `old`, its former
    stand-in, says; None where a plain value has become another one or is new in a mapping.
    """
    found = set()
    waiting = [(old, comparable(value), value)]
    while waiting:
        old, new, value = waiting.pop()
        if old == new or not (isinstance(old, tuple) and isinstance(new, tuple)):
            continue
        (kind, was), (other, now) = old, new
        if kind != other or form(type(value)) not in ("mapping", "items"):
            return None
        if form(type(value)) == "mapping":
            held = {key: (part, inner) for (_, (key, part)), inner in zip(now, value.values(), strict=False)}
            if any(key not in held for _, (key, _) in was):
                return None
            waiting += [(part, *held.pop(key)) for _, (key, part) in was]
            if any(type(inner) in PLAIN for _, inner in held.values()):
                return None
            continue
        ordered = not isinstance(value, (set, frozenset))
        if not (len(was) <= len(now) if ordered else set(was) <= set(now)):
            return None
        if len(was) < len(now):
            found.add(id(value))
        if ordered:
            waiting += zip(was, now, value, strict=False)
    return frozenset(found)


def shown(stand_in: Hashable) -> str:
    """A stand-in as messages print it."""
    if isinstance(stand_in, tuple) and len(stand_in) == 2:
        kind, value = stand_in
        if kind == "float":
            return repr(float.fromhex(str(value)))
        if isinstance(value, tuple) and kind == "pair":
            return ": ".join(map(shown, value))
        if isinstance(value, tuple) and kind != "str":
            return f"{kind}({', '.join(map(shown, value))})"
        return repr(value)
    return str(stand_in)


def reached(
    label: str, value: Any, names: Collection[str] | None, met: list[tuple[str, Any]] | None = None
) -> list[tuple[str, Any]]:
    """(label, value) of the attributes of all objects that a value holds, in any nesting.

    Attributes are those in `names`, or all. What lies deeper than `_DEPTH`, in containers of more than
    `LIMIT` items, or beyond `LIMIT` objects is left out. Whatever was come across is added to `met`.
    """
    found: list[tuple[str, Any]] = []
    waiting = [(label, value, 0)]
    seen: set[int] = set()
    while waiting:
        label, value, depth = waiting.pop()
        if met is not None:
            met.append((label, value))
        kind = form(type(value))
        if kind == "whole" or depth > _DEPTH or len(seen) >= LIMIT or id(value) in seen:
            continue
        seen.add(id(value))
        if kind == "partial":
            waiting += [(label, part, depth + 1) for part in (value.args, value.keywords, value.func)]
            continue
        if kind in ("mapping", "items"):
            if len(value) <= LIMIT:
                items = value.items() if kind == "mapping" else enumerate(value)
                waiting += [
                    (f"{label}[{key!r}]" if isinstance(key, (str, int)) else f"{label}[...]", item, depth + 1)
                    for key, item in items
                    if met is not None or form(type(item)) != "whole"
                ]
            if not users_classes(type(value)):  # Python's own containers have no attributes
                continue
        for name, attribute in _attributes(value, names):
            found.append((f"{label}.{name}", attribute))
            if met is not None or form(type(attribute)) != "whole":
                waiting.append((f"{label}.{name}", attribute, depth + 1))
    return found


def _attributes(value: Any, names: Collection[str] | None) -> Iterator[tuple[str, Any]]:
    """An object's attributes, and those of its class; properties aren't run."""
    for owner in users_classes(value if isinstance(value, type) else type(value)):
        for name, attribute in list(owner.__dict__.items()):
            if name in _HIDDEN if names is None else name not in names:
                continue
            if isinstance(attribute, types.MemberDescriptorType) and not isinstance(value, type):
                attribute = getattr(value, name, MISSING)
            yield name, attribute
    held = {} if isinstance(value, type) else dictionary(value)
    if isinstance(held, dict):
        yield from [(n, v) for n, v in held.items() if names is None or n in names]
