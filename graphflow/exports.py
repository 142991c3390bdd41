"""What a package exports: what its modules list, so that the package needs no list of its own."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any


def names(package: Mapping[str, Any], *modules: str) -> list[str]:
    """The names that a package took from its modules, and those of its modules that are public themselves."""
    taken = {n for n, value in package.items() if not n.startswith("_") and not isinstance(value, ModuleType)}
    return sorted(taken | set(modules))
