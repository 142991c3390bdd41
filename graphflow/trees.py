"""Nested tuples, lists and dicts of tensors, as transforms of functions take and give them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any


def flatten_tree(tree: Any) -> tuple[list[Any], Callable[[Sequence[Any]], Any]]:
    """The leaves of nested tuples, lists and dicts (None holds no leaf), and what puts others in their
    places.
    """
    leaves: list[Any] = []

    def strip(node: Any) -> Callable[[Sequence[Any]], Any]:
        if node is None:
            return lambda values: None
        if isinstance(node, dict):
            return filling(node, {key: strip(node[key]) for key in node})
        if isinstance(node, tuple) and hasattr(node, "_fields"):
            builds = [strip(item) for item in node]
            return lambda values: type(node)(*(build(values) for build in builds))
        if isinstance(node, (list, tuple)):
            builds = [strip(item) for item in node]
            return lambda values: type(node)(build(values) for build in builds)
        position = len(leaves)
        leaves.append(node)
        return lambda values: values[position]

    return leaves, strip(tree)


def filling(
    like: dict[Any, Any], parts: dict[Any, Callable[[Sequence[Any]], Any]]
) -> Callable[[Sequence[Any]], Any]:
    """What makes a dict like that one, of its class and with its default factory, out of the parts."""
    empty = copy.copy(like)
    empty.clear()

    def build(values: Sequence[Any]) -> Any:
        made = copy.copy(empty)
        for key, part in parts.items():
            made[key] = part(values)
        return made

    return build


def map_tree(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with `function` applied to every leaf."""
    leaves, build = flatten_tree(tree)
    return build([function(leaf) for leaf in leaves])


def leaves_like(tree: Any, like: Any) -> list[Any] | None:
    """The leaves of `tree` in the order that `like`, of the same structure, has them: keys of dicts may stand
    in another order, and lists for tuples. None where the structures differ.
    """
    if like is None or tree is None:
        return [] if like is tree else None
    if isinstance(like, dict):
        if not isinstance(tree, dict) or tree.keys() != like.keys():
            return None
        pairs = [(tree[key], like[key]) for key in like]
    elif isinstance(like, (list, tuple)):
        if not isinstance(tree, (list, tuple)) or len(tree) != len(like):
            return None
        pairs = list(zip(tree, like, strict=True))
    else:
        return None if isinstance(tree, (dict, list, tuple)) else [tree]
    found: list[Any] = []
    for part, wanted in pairs:
        leaves = leaves_like(part, wanted)
        if leaves is None:
            return None
        found += leaves
    return found
