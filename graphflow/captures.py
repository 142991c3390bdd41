"""What a function takes from around it: globals, closure cells and attributes, compared at every call.

A trace turns the plain Python values it meets into constants, so a function whose surroundings changed has to
be traced again. The names are read from the code of the function and of the functions it calls.
"""

from __future__ import annotations

import dis
import functools
import operator
import types
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from graphflow.dtypes import DType
from graphflow.tensor import Tensor

PLAIN = (bool, int, float, complex, str, bytes, type(None), DType, type(Ellipsis))
_LIMIT = 200  # functions looked through, and items of a container compared one by one
_MISSING = object()
_CONTAINERS = (list, dict, set)
_DESCRIPTORS = (property, staticmethod, classmethod, functools.cached_property)
_FIXED = (types.ModuleType, types.BuiltinFunctionType, type)
_LOADS = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_DEREF")


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
        name = getattr(self.value, "__name__", None)
        return f"{type(self.value).__name__} {name}" if name else f"a {type(self.value).__name__}"


def comparable(value: Any, depth: int = 0) -> Hashable:
    """A stand-in that is equal where a trace would be the same.

    Plain values go by value, small containers by what they hold, everything else by identity.
    """
    if isinstance(value, float):
        return "float", value.hex()
    if isinstance(value, PLAIN):
        return type(value).__name__, value
    if isinstance(value, slice):
        return "slice", (value.start, value.stop, value.step)
    if isinstance(value, Tensor) and value.is_traced:
        return "a value left behind by a trace"
    if type(value) in (list, tuple, dict, set, frozenset) and len(value) <= _LIMIT and depth < 4:
        items = value.items() if type(value) is dict else value
        return type(value).__name__, tuple([comparable(v, depth + 1) for v in items])
    return "nothing" if value is _MISSING else Same(value)


def shown(stand_in: Hashable) -> str:
    """A stand-in as messages print it."""
    if isinstance(stand_in, tuple) and len(stand_in) == 2:
        kind, value = stand_in
        if kind == "float":
            return repr(float.fromhex(str(value)))
        if isinstance(value, tuple) and kind != "str":
            return f"{kind}({', '.join(map(shown, value))})"
        return repr(value)
    return str(stand_in)


@dataclass(frozen=True)
class Watch:
    """One value from around the function: what to call it, and how to read it now."""

    label: str
    read: Callable[[], Any]
    place: Hashable


class Captures:
    """The values that one function depends on besides its arguments."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function
        self._watches: list[Watch] | None = None
        self._values: tuple[Any, ...] = ()
        self._key: Hashable = ()
        self._mutable = False
        self._own: set[Hashable] = set()
        self._paths: tuple[tuple[str, ...], ...] = ()

    def key(self) -> Hashable:
        """(label, stand-in) of every value as it is now."""
        watches = self._watches
        if watches is None:
            return self._look_again()
        if not watches:
            return self._key
        values = tuple([watch.read() for watch in watches])
        if all(map(operator.is_, values, self._values)):
            return self._key_of(watches, values) if self._mutable else self._key
        if all(a is b or _is_plain(a, b) for a, b in zip(values, self._values, strict=True)):
            self._values, self._key = values, self._key_of(watches, values)
            return self._key
        return self._look_again()

    def _look_again(self) -> Hashable:
        """Reads the code anew: what is held now may be other functions."""
        watches = list({(w.place, w.label): w for w in _watches(self._function)}.values())
        values = tuple([watch.read() for watch in watches])
        self._mutable = any(type(v) in _CONTAINERS for v in values)
        self._paths = tuple(_argument_paths(self._function))
        key = self._key_of(watches, values)
        self._key, self._values, self._watches = key, values, watches
        return key

    def _key_of(self, watches: list[Watch], values: tuple[Any, ...]) -> Hashable:
        own = self._own
        return tuple(
            [
                (w.label, Same(v) if (w.place, w.label) in own else comparable(v))
                for w, v in zip(watches, values, strict=True)
            ]
        )

    def settle(self, before: Any) -> Hashable:
        """The key that was `before` a trace, without the contents of containers that the trace changed.

        A function that appends to a list does so while it is traced only, and needn't be traced again for it.
        """
        watches, after = self._watches or [], self.key()
        if watches is not self._watches or len(before) != len(watches):
            return before  # type: ignore[no-any-return]
        settled = list(before)
        for number, (watch, value) in enumerate(zip(watches, self._values, strict=True)):
            if before[number] != after[number] and type(value) in _CONTAINERS:  # type: ignore[index]
                self._own.add((watch.place, watch.label))
                settled[number] = (watch.label, Same(value))
        return tuple(settled)

    def attributes(self, argument: Any) -> Hashable:
        """The attributes that the function's own code takes from an argument that is a plain object."""
        if self._watches is None:
            self._look_again()
        return tuple([(".".join(path), comparable(_follow(argument, path))) for path in self._paths])


def _is_plain(old: Any, new: Any) -> bool:
    return isinstance(old, PLAIN) and isinstance(new, PLAIN)


# ---------------------------------------------------------------------------------------------- reading code


def _plain_function(value: Any) -> types.FunctionType | None:
    """The Python function behind a value, unless it is part of graphflow: that depends on nothing else."""
    for _ in range(4):
        if isinstance(value, types.FunctionType):
            return None if _is_own(value.__module__) else value
        if isinstance(value, functools.partial):
            value = value.func
        elif hasattr(value, "__func__"):  # methods, static methods
            value = value.__func__
        else:
            value = getattr(value, "__dict__", {}).get("_function")  # a compiled function
    return None


def _is_own(module: str | None) -> bool:
    return (module or "").split(".")[0] in ("graphflow", "numpy", "builtins")


def _loads(code: types.CodeType) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(kind, name, attributes) of every chain like ``config.rate`` in code and the functions inside it."""
    chain: tuple[str, str, tuple[str, ...]] | None = None
    for instruction in dis.get_instructions(code):
        name = instruction.opname
        if name in ("LOAD_ATTR", "LOAD_METHOD") and chain is not None:
            chain = (chain[0], chain[1], (*chain[2], instruction.argval))
            continue
        if chain is not None:
            yield chain
            chain = None
        if name in _LOADS or name.startswith("LOAD_FAST"):
            loaded = instruction.argval
            last = loaded[-1] if isinstance(loaded, tuple) else loaded
            kind = "global" if name in ("LOAD_GLOBAL", "LOAD_NAME") else "fast" if "FAST" in name else "cell"
            chain = (kind, str(last), ())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _loads(constant)


def _follow(value: Any, path: tuple[str, ...]) -> Any:
    """The attribute at the end of a path, read without running properties; `_MISSING` where there is none."""
    for name in path:
        held = getattr(value, "__dict__", None)
        if held is not None and name in held:
            value = held[name]
            continue
        if held is not None and name in held.get("_modules", ()):
            value = held["_modules"][name]
            continue
        for owner in type(value).__mro__:
            if name in owner.__dict__:
                found = owner.__dict__[name]
                value = getattr(value, name) if isinstance(found, types.MemberDescriptorType) else found
                break
        else:
            return _MISSING
    return value


def _argument_paths(function: Any) -> Iterator[tuple[str, ...]]:
    """The attributes that a function's code takes from its parameters, ``self.rate`` among them."""
    plain = _plain_function(function) or _plain_function(type(function).__dict__.get("__call__"))
    if plain is None:
        return
    code = plain.__code__
    parameters = set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    seen = {path for kind, name, path in _loads(code) if kind == "fast" and name in parameters and path}
    yield from sorted(seen)


class _Used(NamedTuple):
    """A value that a function uses; `holder` is what a method found there will be called on."""

    value: Any
    label: str
    holder: Any = _MISSING


def _watches(function: Callable[..., Any]) -> Iterator[Watch]:
    """What to watch: walks from the function to the functions and networks it uses."""
    name = type(function).__name__
    holder = getattr(function, "__self__", _MISSING)
    waiting = [_Used(function, name if holder is _MISSING else type(holder).__name__, holder)]
    waiting.append(_Used(type(function).__dict__.get("__call__"), name, function))
    seen: set[Any] = set()
    while waiting and len(seen) < _LIMIT:
        value, label, holder = waiting.pop(0)
        inside = getattr(value, "__dict__", {}).get("_function")
        if _is_network(inside):  # a compiled one
            value = inside
        if _is_network(value):
            waiting += [
                _Used(_forward_of(part), f"{label}.{path}".strip("."), part)
                for path, part in value.named_modules()
            ]
        plain = _plain_function(value)
        if plain is None or (plain.__code__, id(holder)) in seen:
            continue
        seen.add((plain.__code__, id(holder)))
        cells = dict(zip(plain.__code__.co_freevars, plain.__closure__ or (), strict=True))
        own = plain.__code__.co_varnames[0] if plain.__code__.co_argcount and holder is not _MISSING else None
        for kind, name, path in dict.fromkeys(_loads(plain.__code__)):
            if kind == "fast" and name == own:
                yield from _along_self(label, holder, plain, path, waiting)
                continue
            read = _reader(kind, name, plain.__globals__, cells)
            if read is not None:
                place = id(plain.__globals__) if kind == "global" else id(cells[name])
                yield from _along(name, read, place, path, waiting)


def _along_self(
    label: str, holder: Any, method: types.FunctionType, path: tuple[str, ...], waiting: list[_Used]
) -> Iterator[Watch]:
    """The values on the way to ``self.path`` in a method of `holder`, which itself is what it is."""
    called = _is_network(holder) and _plain_function(_forward_of(holder)) is method
    for watch in _along(label, lambda: holder, id(holder), path, waiting, first=1):
        # A network that is called is compared by the trace, with the parts it has.
        if not called or watch.label.count(".") > label.count(".") + 1 or not _is_network(watch.read()):
            yield watch


def _forward_of(network: Any) -> Any:
    return network.__dict__.get("forward", getattr(type(network), "forward", None))


def _along(
    name: str,
    read: Callable[[], Any],
    place: int,
    path: tuple[str, ...],
    waiting: list[_Used],
    first: int = 0,
) -> Iterator[Watch]:
    """The values on the way to ``name.path``; functions among them are added to `waiting`."""
    for length in range(first, len(path) + 1):
        part = path[:length]
        found = _follow(read(), part)
        if found is _MISSING:
            return
        on_class = length > 0 and isinstance(found, (types.FunctionType, *_DESCRIPTORS))
        is_compiled = length > 0 and "_function" in getattr(found, "__dict__", {})
        if is_compiled or (on_class and isinstance(found, types.FunctionType)):
            waiting.append(_Used(found, ".".join((name, *part[:-1])), _follow(read(), part[:-1])))
        else:
            waiting.append(_Used(found, ".".join((name, *part))))
        if not on_class and not isinstance(found, _FIXED):
            yield Watch(".".join((name, *part)), _path_reader(read, part) if part else read, place)
        if on_class or (isinstance(found, types.ModuleType) and _is_own(found.__name__)):
            return


def _is_network(value: Any) -> bool:
    """Whether a value is a Module, whose ``forward`` and those of its parts will run."""
    return not isinstance(value, type) and hasattr(type(value), "forward") and hasattr(type(value), "modules")


def _reader(kind: str, name: str, space: dict[str, Any], cells: dict[str, Any]) -> Callable[[], Any] | None:
    if kind == "global":
        return (lambda: space.get(name, _MISSING)) if name in space else None
    cell = cells.get(name)
    return None if cell is None else lambda: _content(cell)


def _path_reader(read: Callable[[], Any], path: tuple[str, ...]) -> Callable[[], Any]:
    return lambda: _follow(read(), path)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING
