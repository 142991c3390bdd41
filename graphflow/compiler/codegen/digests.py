"""Digests of what machine code is made by: they go into the names under which it is kept."""

from __future__ import annotations

import hashlib
import pkgutil
from collections.abc import Iterable

from graphflow.compiler import codegen

MODULES = tuple(sorted(module.name for module in pkgutil.iter_modules(codegen.__path__)))


def beside(prefix: str) -> tuple[str, ...]:
    """The modules of this package whose names begin with `prefix`."""
    return tuple(name for name in MODULES if name.startswith(prefix))


def of_modules(names: Iterable[str], *others: object) -> str:
    """A digest of the text of modules of this package, and of the text of anything else."""
    made = hashlib.sha256(repr(others).encode())
    for name in names:
        made.update(pkgutil.get_data(codegen.__name__, f"{name}.py") or b"")
    return made.hexdigest()
