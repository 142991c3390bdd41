"""What a function takes from around it: globals, closure cells and attributes, compared at every call.

A trace turns the plain Python values it meets into constants, so a function whose surroundings changed has to
be traced again. The names are read from the code of the function and of the functions it calls. A value that
code reads by a constant name (``config.rate``) is compared as such. An object that code does anything else
with (hands to a function, iterates over, looks into with ``getattr``) is compared by those of its attributes
whose names occur anywhere in the code, and so are the objects that it holds; by all of its attributes where
code can read some whose names aren't in it. So are the defaults of arguments, and the code itself.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from graphflow.contents import Read
from graphflow.runtime import direct
from graphflow.snapshots import LIMIT, PLAIN, additions, comparable, form, reached
from graphflow.watches import Place, Reading, Watch

_Key = tuple[tuple[str, Hashable], ...]


class Captures:
    """The values that one function depends on besides its arguments.

    With `bound`, a parameter's name and a value, it is those that it takes from this argument; `names` are
    those of attributes that its code mentions.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        bound: tuple[str, Any] | None = None,
        names: frozenset[str] | None = frozenset(),
    ):
        self._function = function
        self._bound = bound
        self._watches: list[Watch] | None = None
        self._values: tuple[Any, ...] = ()
        self._key: _Key = ()
        self._mutable: list[tuple[int, list[tuple[str, Hashable]]]] = []
        self._own: dict[Place, frozenset[int]] = {}
        self._names = self._known_names = names
        self._arguments: dict[tuple[str, int], Captures] = {}
        self._parameters: tuple[list[str], str] | None = None
        self.networks: tuple[Any, ...] = ()
        self._arrays: dict[int, Read] = {}

    def key(self) -> _Key:
        """(label, stand-in) of every value as it is now."""
        watches = self._watches
        if watches is None:
            return self._look_again()
        if not watches:
            return self._key
        values = tuple([watch.read() for watch in watches])
        if all(map(operator.is_, values, self._values)):
            if all(self._entries(watches[i], values[i]) == held for i, held in self._mutable):
                return self._key
        elif not all(a is b or _is_plain(a, b) for a, b in zip(values, self._values, strict=True)):
            return self._look_again()
        key = self._key_of(watches, values)
        if not _differ_in_numbers(key, self._key):
            return self._look_again()
        self._values, self._key = values, key
        return key

    def _look_again(self) -> _Key:
        """Reads the code anew: what is held now may be other functions."""
        reading = Reading(self._function, self._bound, self._known_names)
        self._arguments.clear()
        self._parameters = None
        self._names, self.networks = reading.all_names(), tuple(reading.networks.values())
        self._arrays = reading.arrays
        self._watches = watches = list(reading.watches.values())
        self._values = values = tuple([watch.read() for watch in watches])
        self._key = self._key_of(watches, values)
        return self._key

    def _key_of(self, watches: list[Watch], values: tuple[Any, ...]) -> _Key:
        parts = [self._entries(w, v) for w, v in zip(watches, values, strict=True)]
        self._mutable = [(i, p) for i, p in enumerate(parts) if _is_mutable(watches[i], values[i])]
        return tuple([entry for part in parts for entry in part])

    def _entries(self, watch: Watch, value: Any) -> list[tuple[str, Hashable]]:
        """What a key holds of one value: a stand-in, and those of what objects in it hold."""
        found = [(watch.label, value)]
        if watch.deep and type(value) not in PLAIN:
            found += reached(watch.label, value, self._names)
        own, place = self._own, watch.place
        if own:
            return [(n, comparable(v, own.get((place, n), ()))) for n, v in found]
        return [(label, comparable(held)) for label, held in found]

    def arrays(self) -> list[Read]:
        """NumPy's arrays among the values, which may hold something else at the next call."""
        found = dict(self._arrays)
        for watch in self._watches or []:
            met: list[tuple[str, Any]] = []
            if watch.deep:
                reached(watch.label, watch.read(), self._names, met)
            for label, value in met:
                if isinstance(value, np.ndarray):
                    found.setdefault(id(value), Read(label, value))
        return list(found.values())

    def settle(self, before: _Key) -> _Key:
        """The key that was `before` a trace, without what the trace added to containers and objects.

        A function that appends to a list does so while it is traced only, and needn't be traced again for it.
        One that counts in a dictionary or an attribute does: the next number makes another trace. So does one
        that appends plain values to a list that it also reads.
        """
        watches = self._watches or []
        values = tuple([watch.read() for watch in watches])
        if not all(a is b or _is_plain(a, b) for a, b in zip(values, self._values, strict=True)):
            return before
        self._values = values
        after = set(self._key_of(watches, values))
        changed, earlier = after - set(before), dict(before)
        for watch, value in zip(watches, self._values, strict=True):
            if _is_mutable(watch, value):
                held = reached(watch.label, value, self._names) if watch.deep else []
                for label, part in [(watch.label, value), *held]:
                    stand_in = comparable(part)
                    added = additions(earlier.get(label), part) if (label, stand_in) in changed else None
                    reads = watch.deep and part is value and id(part) in (added or ())
                    if added is not None and not (reads and any(type(item) in PLAIN for item in part)):
                        self._own[watch.place, label] = self._own.get((watch.place, label), added) | added
        self._key = self._key_of(watches, values)
        was = {label: stand_in for label, stand_in in before if (label, stand_in) not in after}
        own = {label for _, label in self._own}
        return tuple([(label, now if label in own else was.get(label, now)) for label, now in self._key])

    def direct_watch(self, key: _Key) -> direct.Watch | None:
        """The same with one watch for everything, by way of Python."""
        now = self.key()
        return direct.Watch("result", self.key, None, now) if now == key else None

    @property
    def parameters(self) -> tuple[list[str], str]:
        """The names of parameters that take positional arguments, and of the one that takes the rest."""
        if self._parameters is None:
            try:
                found = list(inspect.signature(self._function).parameters.values())
            except (TypeError, ValueError):
                found = []
            own = [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
            self._parameters = own, next((p.name for p in found if p.kind is p.VAR_POSITIONAL), "arg")
        return self._parameters

    def of_argument(self, name: str, value: Any) -> Captures:
        """What the function takes from an argument, or from a part of it, that is an object."""
        found = self._arguments.get((name, id(value)))
        if found is None:
            if self._watches is None:
                self._look_again()
            if len(self._arguments) >= LIMIT:
                self._arguments.clear()
            found = self._arguments[name, id(value)] = Captures(self._function, (name, value), self._names)
        return found

    def direct_watches(self, key: _Key) -> list[direct.Watch] | None:
        """What has to be the very same for `key` to be this one; None where it isn't any more."""
        found, parts = [], []
        watches = self._watches or []
        for watch in watches:
            value = watch.read()
            parts += self._entries(watch, value)
            if watch.source is not None and not _is_mutable(watch, value):
                found.append(direct.Watch(*watch.source, value))
        if len(found) < len(watches):
            whole = self.direct_watch(key)
            return None if whole is None else [whole]
        return found if tuple(parts) == key else None


def _is_plain(old: Any, new: Any) -> bool:
    return isinstance(old, PLAIN) and isinstance(new, PLAIN)


def _is_mutable(watch: Watch, value: Any) -> bool:
    """Whether a value may hold something else and yet be the same object."""
    if type(value) is tuple and all([form(type(item)) == "whole" for item in value]):
        return False
    return (watch.deep or form(type(value)) in ("items", "mapping")) and form(type(value)) != "whole"


def _differ_in_numbers(a: _Key, b: _Key) -> bool:
    """Whether keys differ in plain values only, so that no other function can have come in."""
    return len(a) == len(b) and all(
        x == y or (x[0] == y[0] and _is_number(x[1]) and _is_number(y[1])) for x, y in zip(a, b, strict=True)
    )


def _is_number(stand_in: Hashable) -> bool:
    return isinstance(stand_in, tuple) and not isinstance(stand_in[1], tuple)
