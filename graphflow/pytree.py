"""Nested tuples, lists and dicts as flat lists of leaves, and back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

Spec = tuple[Any, ...]
LEAF: Spec = ("leaf",)
NONE: Spec = ("none", ())  # stands for None, and holds no leaf


def flatten(value: Any) -> tuple[list[Any], Spec]:
    """The leaves in order, and a hashable description of the nesting."""
    leaves: list[Any] = []
    return leaves, _flatten(value, leaves)


def _flatten(value: Any, leaves: list[Any]) -> Spec:
    kind = type(value)
    if kind is tuple or kind is list:
        return (kind.__name__, tuple([_flatten(v, leaves) for v in value]))
    if kind is dict:
        return ("dict", tuple(value), tuple([_flatten(v, leaves) for v in value.values()]))
    if isinstance(value, tuple):
        form = "namedtuple" if hasattr(value, "_fields") else "subclass"
        return (form, kind, tuple([_flatten(v, leaves) for v in value]))
    if kind is OrderedDict:
        return ("ordered", tuple(value), tuple([_flatten(v, leaves) for v in value.values()]))
    leaves.append(value)
    return LEAF


def unflatten(spec: Spec, leaves: Sequence[Any]) -> Any:
    """The nesting with `leaves` in it."""
    return _unflatten(spec, iter(leaves))


def _unflatten(spec: Spec, leaves: Any) -> Any:
    kind = spec[0]
    if kind == "leaf":
        return next(leaves)
    if kind == "none":
        return None
    if kind == "tuple":
        return tuple([_unflatten(s, leaves) for s in spec[1]])
    if kind == "list":
        return [_unflatten(s, leaves) for s in spec[1]]
    if kind in ("dict", "ordered"):
        items = {k: _unflatten(s, leaves) for k, s in zip(spec[1], spec[2], strict=True)}
        return OrderedDict(items) if kind == "ordered" else items
    if kind == "subclass":
        return spec[1]([_unflatten(s, leaves) for s in spec[2]])
    return spec[1](*[_unflatten(s, leaves) for s in spec[2]])


def graft(spec: Spec, parts: Iterator[Spec]) -> Spec:
    """The nesting with the next of `parts` in place of each leaf."""
    if spec[0] == "leaf":
        return next(parts)
    return (*spec[:-1], tuple([graft(s, parts) for s in spec[-1]]))


def to_json(spec: Spec) -> Any:
    """The nesting as JSON data; tuples of other types become tuples, dict keys have to be strings."""
    kind = spec[0]
    if kind == "leaf":
        return None
    if kind in ("dict", "ordered"):
        if not all(isinstance(k, str) for k in spec[1]):
            raise TypeError("only dicts with string keys can be written to a file")
        return {"dict": [[k, to_json(s)] for k, s in zip(spec[1], spec[2], strict=True)]}
    return {kind if kind in ("list", "none") else "tuple": [to_json(s) for s in spec[-1]]}


def from_json(data: Any, depth: int = 0) -> Spec:
    """What `to_json` wrote; ValueError for anything else."""
    if data is None:
        return LEAF
    if depth > 100 or not isinstance(data, dict) or len(data) != 1:
        raise ValueError("not a description of nested results")
    ((kind, items),) = data.items()
    if not isinstance(items, list):
        raise ValueError("not a description of nested results")
    if kind == "none" and not items:
        return NONE
    if kind in ("tuple", "list"):
        return (kind, tuple(from_json(i, depth + 1) for i in items))
    if kind == "dict" and all(isinstance(i, list) and len(i) == 2 and isinstance(i[0], str) for i in items):
        return ("dict", tuple(i[0] for i in items), tuple(from_json(i[1], depth + 1) for i in items))
    raise ValueError("not a description of nested results")


def keys(spec: Spec) -> Sequence[Any]:
    """The keys, names or positions of a nesting's parts."""
    if spec[0] in ("dict", "ordered"):
        return spec[1]  # type: ignore[no-any-return]
    return spec[1]._fields if spec[0] == "namedtuple" else range(len(spec[-1]))


def count(spec: Spec) -> int:
    """Number of leaves."""
    return 1 if spec[0] == "leaf" else sum(count(s) for s in spec[-1])
