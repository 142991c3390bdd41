"""Nested tuples, lists and dicts of tensors, as transforms of functions take and give them."""

from __future__ import annotations

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
            parts = {key: strip(node[key]) for key in node}
            return lambda values: type(node)((key, build(values)) for key, build in parts.items())
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


def map_tree(function: Callable[[Any], Any], tree: Any) -> Any:
    """The tree with `function` applied to every leaf."""
    leaves, build = flatten_tree(tree)
    return build([function(leaf) for leaf in leaves])
