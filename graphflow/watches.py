"""What to watch of what is around a function: a walk over the code of it and of the functions it calls."""

from __future__ import annotations

import functools
import operator
import types
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from graphflow.bytecode import DYNAMIC, Load, loads, names_in
from graphflow.contents import Read, hands_on_elements, reads_elements
from graphflow.snapshots import LIBRARY, LIMIT, MISSING, dictionary, form, reached, root, users_classes

_DESCRIPTORS = (property, staticmethod, classmethod, functools.cached_property)
_UNCALLED = ("__init__", "__new__", "__post_init__", "__repr__")  # of an object that is there already
Place = tuple[Hashable, str]


@dataclass(frozen=True)
class Watch:
    """One value from around the function: what to call it, how to read it now, whether to look into it.

    ``source`` is what holds it, as a `direct.Watch` names that, unless it is an attribute of something.
    """

    label: str
    read: Callable[[], Any]
    place: Hashable
    deep: bool
    source: tuple[str, Any, str | None] | None = None


def _plain_function(value: Any) -> types.FunctionType | None:
    """The Python function behind a value, unless it is part of graphflow: that depends on nothing else."""
    for _ in range(4):
        if isinstance(value, types.FunctionType):
            return None if _is_own(value.__module__) else value
        if isinstance(value, functools.partial):
            value = value.func
        elif isinstance(value, property):
            value = value.fget
        elif isinstance(value, functools.cached_property):
            value = value.func
        elif isinstance(value, (types.MethodType, staticmethod, classmethod)):
            value = value.__func__
        else:
            value = dictionary(value).get("_function")  # a compiled function
    return None


def _is_own(module: str | None) -> bool:
    return root(module) in ("graphflow", "numpy", "builtins")


def _follow(value: Any, path: tuple[str, ...]) -> Any:
    """The attribute at the end of a path, read without running properties; `MISSING` where there is none."""
    for name in path:
        held = dictionary(value)
        if name in held or name in held.get("_modules", ()):
            value = held[name] if name in held else held["_modules"][name]
            continue
        for owner in type(value).__mro__:
            if name in owner.__dict__:
                found = owner.__dict__[name]
                value = getattr(value, name) if isinstance(found, types.MemberDescriptorType) else found
                break
        else:
            return MISSING
    return value


class _Used(NamedTuple):
    """A value that a function uses; `holder` is what a method found there will be called on."""

    value: Any
    label: str
    holder: Any = MISSING


class Reading:
    """What to watch: walks from a function to the functions, networks and objects it uses."""

    def __init__(
        self, function: Callable[..., Any], bound: tuple[str, Any] | None, names: frozenset[str] | None
    ):
        self.watches: dict[Place, Watch] = {}
        self.arrays: dict[int, Read] = {}  # those that code reads by name
        self.networks: dict[int, Any] = {}  # those that code does more with than to call them
        self._names = set(names or ())
        self._all = names is None
        self._places: dict[str, list[Hashable]] = {}  # of values with the same label
        self._seen: set[Any] = set()
        self._waiting: deque[_Used] = deque()
        if bound is not None:
            self._begin_at(function, *bound)
        else:
            name = type(function).__name__
            holder = getattr(function, "__self__", MISSING)
            self._use(_Used(function, name if holder is MISSING else type(holder).__name__, holder))
            self._use(_Used(type(function).__dict__.get("__call__"), name, function))
        while self._waiting or self._look_into_objects():
            if len(self._seen) >= LIMIT:
                self._all = True
                break
            self._read(self._waiting.popleft())

    def all_names(self) -> frozenset[str] | None:
        """The names of attributes that objects are compared by; None for all."""
        return None if self._all or self._names & DYNAMIC else frozenset(self._names)

    def _begin_at(self, function: Any, name: str, value: Any) -> None:
        """Starts from what a function's code does with one of its parameters."""
        if _is_network(function):
            function = _forward_of(function)
        plain = _plain_function(function) or _plain_function(type(function).__dict__.get("__call__"))
        known = plain is not None and name in plain.__code__.co_varnames
        if plain is None or not known or isinstance(function, functools.partial):
            self._all = plain is None
            self._watch(Watch(name, lambda: value, id(value), True))
        if plain is not None:
            self._seen.add((plain.__code__, id(value)))
            self._names |= names_in(plain.__code__)
            for load in dict.fromkeys(loads(plain.__code__)):
                if known and load.name == name and load.kind != "global":
                    self._along_self(name, value, plain, load)

    def _use(self, used: _Used) -> None:
        """Puts a function, or the functions that a network will run, on the list to be read."""
        value, label, holder = used
        if isinstance(value, (operator.attrgetter, operator.methodcaller)):
            self._all = True
        if isinstance(value, types.MethodType) and holder is MISSING:
            holder = value.__self__
        inside = dictionary(value).get("_function")
        if _is_network(inside):  # a compiled one
            value = inside
        if _is_network(value):
            for path, part in value.named_modules():
                self._use(_Used(_forward_of(part), f"{label}.{path}".strip("."), part))
        plain = _plain_function(value)
        if plain is not None and (plain.__code__, id(holder)) not in self._seen:
            self._seen.add((plain.__code__, id(holder)))
            self._waiting.append(_Used(plain, label, holder))

    def _watch(self, watch: Watch) -> None:
        known = self.watches.get((watch.place, watch.label))
        if known is None or (watch.deep and not known.deep):
            places = self._places.setdefault(watch.label, [])  # several of two lambdas, for example
            if watch.place not in places:
                places.append(watch.place)
            number = places.index(watch.place) + 1
            label = f"{watch.label} ({number})" if number > 1 else watch.label
            self.watches[watch.place, watch.label] = replace(watch, label=label)

    def _read(self, used: _Used) -> None:
        plain, label, holder = used
        code = plain.__code__
        cells = dict(zip(code.co_freevars, plain.__closure__ or (), strict=True))
        own = code.co_varnames[0] if code.co_argcount and holder is not MISSING else None
        if root(plain.__module__) not in LIBRARY:
            self._names |= names_in(code)
            self._watch_definition(plain)
        if own is not None and "super" in code.co_names:
            self._use_bases(label, holder, code)
        for load in dict.fromkeys(loads(code)):
            if load.name == own and load.kind != "global" and own not in cells:
                self._along_self(label, holder, plain, load)
                continue
            read = _reader(load.kind, load.name, plain.__globals__, cells)
            if read is not None:
                place = id(plain.__globals__) if load.kind == "global" else id(cells[load.name])
                in_cell = ("cell", cells.get(load.name), None)
                source = ("item", plain.__globals__, load.name) if load.kind == "global" else in_cell
                for watch in self._along(load.name, read, place, load, source=source):
                    self._watch(watch)

    def _watch_definition(self, plain: types.FunctionType) -> None:
        """Watches what can be replaced of a function: its code, and defaults if arguments may have them."""
        code, name = plain.__code__, plain.__qualname__.rpartition("<locals>.")[2]
        for attribute, counts in (
            ("__code__", 1),
            ("__defaults__", code.co_argcount),
            ("__kwdefaults__", code.co_kwonlyargcount),
        ):
            if counts:
                read = functools.partial(getattr, plain, attribute)
                source = ("member", plain, attribute)
                self._watch(Watch(f"{name}.{attribute}", read, id(plain), attribute != "__code__", source))

    def _use_bases(self, label: str, holder: Any, code: types.CodeType) -> None:
        """What ``super()`` may call: the methods of all bases whose names are in the code."""
        for owner in type(holder).__mro__:
            for name in code.co_names:
                if isinstance(owner.__dict__.get(name), types.FunctionType):
                    self._use(_Used(owner.__dict__[name], label, holder))

    def _along_self(self, label: str, holder: Any, method: types.FunctionType, load: Load) -> None:
        """The values on the way to ``self.path`` in a method of `holder`, which itself is what it is."""
        called = _is_network(holder) and _plain_function(_forward_of(holder)) is method
        for watch in self._along(label, lambda: holder, id(holder), load, first=1 if load.path else 0):
            # A network that is called is compared by the trace, with the parts it has.
            deep = watch.label.count(".") > label.count(".") + 1
            if not called or deep or not _is_network(watch.read()):
                self._watch(watch)

    def _along(
        self, name: str, read: Callable[[], Any], place: int, load: Load, first: int = 0, source: Any = None
    ) -> Iterator[Watch]:
        """The values on the way to ``name.path``; functions among them are put on the list. What `read` reads
        is in `source`, if that is known.
        """
        path = load.path
        above: Any = None
        for length in range(first, len(path) + 1):
            part = path[:length]
            found = _follow(read(), part)
            in_module = length > first and isinstance(above, types.ModuleType)
            label = ".".join((name, *part))
            if found is MISSING:
                if length:  # something like __getattr__ finds it
                    above = part[:-1]
                    yield Watch(".".join((name, *above)), _path_reader(read, above), place, True)
                return
            is_method = isinstance(found, (types.FunctionType, *_DESCRIPTORS))
            on_class = length > 0 and is_method and not in_module
            is_compiled = length > 0 and "_function" in dictionary(found)
            if isinstance(found, staticmethod):
                self._use(_Used(found, label))
            elif on_class or is_compiled:
                self._use(_Used(found, ".".join((name, *part[:-1])), _follow(read(), part[:-1])))
            else:
                self._use(_Used(found, label))
            ended = length == len(path) and load.ended
            if isinstance(found, np.ndarray) and not on_class:
                self._note_array(label, found, ended, path[length:])
            is_module = isinstance(found, types.ModuleType)
            own = is_module and _is_own(found.__name__)
            is_fixed = own or isinstance(found, types.BuiltinFunctionType)
            if not on_class and not is_fixed and (ended or not isinstance(found, type)):
                deep = ended and form(type(found)) != "whole" and not is_module
                if part:
                    is_there = in_module and part[-1] in vars(above)
                    source = ("item", vars(above), part[-1]) if is_there else None
                yield Watch(label, _path_reader(read, part), place, deep, source)
            if ended and _is_network(found):
                self.networks[id(found)] = found
            if on_class or own:
                return
            above = found

    def _note_array(self, label: str, array: np.ndarray, ended: bool, rest: tuple[str, ...]) -> None:
        """Notes an array of which code may read elements: it does where it asks for more than its sizes."""
        after = [name for name in rest if not hands_on_elements(name)]
        surely = bool(after) and reads_elements(after[0])
        if surely or (not after and (ended or rest)):
            surely = surely or (id(array) in self.arrays and self.arrays[id(array)].surely)
            self.arrays[id(array)] = Read(label, array, surely)

    def _look_into_objects(self) -> bool:
        """Puts the functions on the list that objects hold, and those of their classes that may be called."""
        names = self.all_names()
        for watch in list(self.watches.values()):
            if not watch.deep:
                continue
            met: list[tuple[str, Any]] = []
            reached(watch.label, watch.read(), names, met)
            for label, value in met:
                if _is_network(value):
                    self.networks[id(value)] = value
                if form(type(value)) == "whole":
                    self._use(_Used(value, label))
                    continue
                skipped = _UNCALLED[3:] if isinstance(value, type) else _UNCALLED
                for owner in users_classes(value if isinstance(value, type) else type(value)):
                    for name, member in owner.__dict__.items():
                        special = name.startswith("__") and name.endswith("__") and name not in skipped
                        if special or names is None or name in names:
                            self._use(_Used(member, label))
        for network in list(self.networks.values()):
            self._look_into_network(network, names)
        return bool(self._waiting)

    def _look_into_network(self, network: Any, names: frozenset[str] | None) -> None:
        """Watches what changes unseen in a network that is handed on: the containers and objects it holds."""
        for path, part in network.named_modules():
            if _is_own(type(part).__module__):
                continue
            for name, value in part.__dict__.items():
                counts = not name.startswith("_") and (names is None or name in names)
                if counts and form(type(value)) in ("items", "mapping", "object"):
                    label = ".".join(filter(None, (type(network).__name__, path, name)))
                    self._watch(Watch(label, _path_reader(_constantly(part), (name,)), id(part), True))


def _forward_of(network: Any) -> Any:
    return network.__dict__.get("forward", getattr(type(network), "forward", None))


def _is_network(value: Any) -> bool:
    """Whether a value is a Module, whose ``forward`` and those of its parts will run."""
    return not isinstance(value, type) and hasattr(type(value), "forward") and hasattr(type(value), "modules")


def _reader(kind: str, name: str, space: dict[str, Any], cells: dict[str, Any]) -> Callable[[], Any] | None:
    if kind == "global":
        return (lambda: space.get(name, MISSING)) if name in space else None
    cell = cells.get(name)
    return None if cell is None else lambda: _content(cell)


def _path_reader(read: Callable[[], Any], path: tuple[str, ...]) -> Callable[[], Any]:
    return (lambda: _follow(read(), path)) if path else read


def _constantly(value: Any) -> Callable[[], Any]:
    return lambda: value


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


__all__ = ["Place", "Reading", "Watch"]
