"""Concatenations without copies: what is computed only to be concatenated is written to its place there."""

from __future__ import annotations

from collections.abc import Container, Mapping

from graphflow.compiler.access import strip_reshapes
from graphflow.compiler.codegen.scalar import Inside
from graphflow.compiler.ir import Node, Size, users
from graphflow.compiler.passes.unit import Fused

_STRIDED = frozenset(["map", "contract"])  # kinds of units whose results may have any strides


def embed(fused: Fused, placed: Container[Node]) -> dict[Node, Inside]:
    """The stored values that are nothing but parts of one concatenation; none of those `placed` already.

    A state's new value isn't made of such parts: its kernels would run before the state's last readers.
    """
    found: dict[Node, Inside] = {}
    updated = {strip_reshapes(root) for _, root in fused.graph.updates}
    readers: Mapping[Node, list[Node]] = {}
    for unit in fused.units:
        whole = unit.nodes[0]
        if unit.kind != "cat" or whole in updated:
            continue
        readers = readers or users(fused.graph.nodes())
        start: Size = 0
        dim = whole.attrs["dim"]
        for part in whole.inputs:
            if part not in placed and _is_only_part(part, whole, readers[part], fused):
                found[part] = Inside(whole, dim, start)
            start = start + part.shape[dim]
    return found


def _is_only_part(part: Node, whole: Node, readers: list[Node], fused: Fused) -> bool:
    """Whether nobody else reads the part, but in the kernel that computes it."""
    home = fused.unit_of.get(part)
    if home is None or home.kind not in _STRIDED or part not in fused.stored:
        return False
    return readers.count(whole) == 1 and all(
        reader is whole or fused.unit_of.get(reader) is home for reader in readers
    )


__all__ = ["embed"]
