"""Why a call needs another compiled variant, in words, and what its arguments are called."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphflow import pytree
from graphflow.snapshots import shown


def names_within(base: str, spec: pytree.Spec) -> list[str]:
    """Names for the leaves of one argument, made of its own."""
    if spec[0] == "leaf":
        return [base]
    names = []
    for key, part in zip(pytree.keys(spec), spec[-1], strict=True):
        label = str(key) if str(key).isidentifier() or isinstance(key, int) else "item"
        names += names_within(f"{base}_{label}", part)
    return names


def unique(names: list[str]) -> list[str]:
    """The names, with numbers behind those that are there already."""
    taken: set[str] = set()
    found = []
    for name in names:
        label, count = name, 1
        while label in taken:
            count += 1
            label = f"{name}_{count}"
        taken.add(label)
        found.append(label)
    return found


def difference(old: Any, new: Any, names: list[str]) -> str:
    """What distinguishes a call from those that another variant takes."""
    if old[0] != new[0]:
        return "another nesting or number of arguments"
    if old[1] != new[1]:
        if old[1][1] != new[1][1]:
            return f"the default dtype is {new[1][1]} now"
        if old[1][2] != new[1][2]:
            return f"autocast is {'on' if new[1][2] else 'off'} now"
        return f"gradients are {'enabled' if new[1][0] else 'disabled'} now"
    for name, before, now in zip(names, old[2], new[2], strict=True):
        if before != now:
            return _kind_difference(name, before, now)
    known = dict(old[3])
    for label, value in new[3]:
        if label not in known or known[label] != value:
            return f"{label}: {_became(shown(known.get(label, 'nothing')), shown(value))}"
    return "other values around the function"


def _kind_difference(name: str, before: Any, now: Any) -> str:
    if len(before) == len(now) == 3 and before[:2] == now[:2] and isinstance(before[2], tuple):
        known = dict(before[2])
        for label, value in now[2]:
            if label not in known or known[label] != value:
                return f"{label}: {_became(shown(known.get(label, 'nothing')), shown(value))}"
    return f"{name}: {_became(_described(before), _described(now))}"


def _became(old: str, new: str) -> str:
    return f"{old} became {new if new != old else new.replace('a ', 'another ', 1)}"


def _described(kind: Any) -> str:
    if len(kind) == 2:
        return repr(kind[1])
    if isinstance(kind[0], np.dtype):
        return f"{kind[0]} with {kind[1]} dimensions" + (" requiring grad" if kind[2] else "")
    return shown(kind[1])
