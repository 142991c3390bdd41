"""The relation that fusion and the memory plan ask who needs whom."""

from __future__ import annotations

import pytest
from graphflow.compiler.passes.dependencies import Dependencies


def _relation(needs: dict[str, str]) -> Dependencies[str]:
    relation: Dependencies[str] = Dependencies()
    for item in needs:
        relation.add(item)
    for item, others in needs.items():
        relation.need(item, others)
    return relation


def test_dependencies_are_closed_and_sorted() -> None:
    relation = _relation({"a": "", "b": "a", "c": "b", "d": "", "e": "cd"})
    assert relation.needs("e", "a")
    assert not relation.needs("d", "a")
    assert relation.apart("a", "c")
    assert not relation.apart("a", "b")
    relation.need("a", "d")  # comes late, and reaches all that need a
    assert relation.needs("c", "d")
    assert relation.sorted(lambda item: (-ord(item),)) == ["d", "a", "b", "c", "e"]
    assert relation.covers(["c"], "b")
    assert not relation.covers(["d"], "c")


def test_merged_dependencies_are_one() -> None:
    relation = _relation({"a": "", "b": "a", "c": "", "d": "b", "e": "c"})
    relation.merge("b", "c")
    assert relation.needs("e", "a")
    assert relation.needs("e", "b")
    assert relation.sorted(lambda item: (ord(item),)) == ["a", "b", "d", "e"]


def test_a_circle_is_an_error() -> None:
    relation = _relation({"a": "", "b": "a"})
    relation.need("a", "b")
    with pytest.raises(AssertionError, match="circle"):
        relation.sorted(lambda item: (ord(item),))
