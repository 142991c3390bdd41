"""Plans in the cache: a process that traces what another has compiled runs no pass.

A plan's name is a digest of the traced graph and of all else that its passes read: the text of the compiler's
modules, the versions of what it is built on, the processor, and how products are cut. What was written for
anything else has another name. An entry is read with distrust all the same: one that isn't in the form that
is written, that doesn't fit the graph, or whose machine code is gone, is as good as none, and is written
anew.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType

import numpy as np

import graphflow
from graphflow import compiler, runtime
from graphflow.compiler import codec, codegen, ops, passes, pipeline
from graphflow.compiler.codegen import function, llvm, matmul
from graphflow.compiler.ir import Graph
from graphflow.compiler.location import Loc
from graphflow.compiler.plan import Plan, check_signature, decode_plan, encode_plan, without_sources
from graphflow.config import settings
from graphflow.errors import FormatError, VerifyError
from graphflow.runtime import cache
from graphflow.runtime.validate import validate

#: Packages whose modules make a program, and modules beside them that these import.
PACKAGES: tuple[ModuleType, ...] = (compiler, ops, passes, codegen)
BESIDE: tuple[tuple[ModuleType, str], ...] = (
    (graphflow, "config"),
    (graphflow, "dims"),
    (graphflow, "dtypes"),
    (graphflow, "errors"),
    (graphflow, "plans"),
    (runtime, "program"),
)

_ITEMSIZES = (4, 8)  # of the elements that the matrix core takes


@dataclass(frozen=True)
class Place:
    """Where the plan of a graph is in the cache; `lines` are those that the graph's nodes come from."""

    graph: Graph
    lines: tuple[Loc, ...]
    digest: str

    def find(self) -> Plan | None:
        """The plan that is there."""
        entry = cache.default().peek(self.digest)
        data = entry[1].get("plan") if entry else None
        if data is None:
            return None
        try:
            plan = decode_plan(data, self.lines, _code)
            validate(plan.program)
            check_signature(plan, self.graph)
        except (FormatError, VerifyError):
            return None
        return plan

    def keep(self, plan: Plan) -> None:
        """Puts a plan there, if it reads back as it is."""
        codes = {k.digest: k.object_code for k in plan.program.kernels}
        try:
            data = encode_plan(plan, self.lines)
            again = decode_plan(data, self.lines, lambda digest, symbol: codes[digest])
            check_signature(again, self.graph)
        except FormatError:
            return
        if again == Plan(without_sources(plan.program), plan.checks, plan.bounds):
            cache.put(self.digest, b"", {"plan": data})


def place(graph: Graph, join: bool) -> Place | None:
    """The place for what becomes of a graph; None where passes have to run, to be checked or to be told of,
    and for graphs that data can't describe.
    """
    if pipeline.always_verify or settings().debug:
        return None
    try:
        data, lines = codec.encode_apart(graph)
    except FormatError:
        return None
    cuts = [matmul.blocking(itemsize, llvm.host()) for itemsize in _ITEMSIZES]
    made = hashlib.sha256(f"plan {_maker()} {cuts} {join} ".encode())
    made.update(json.dumps(data, separators=(",", ":")).encode())
    return Place(graph, tuple(lines), made.hexdigest())


def _code(digest: str, symbol: str) -> bytes:
    try:
        entry = cache.get(digest)
    except ValueError as error:
        raise FormatError(str(error)) from error
    if entry is None or entry[1].get("symbol") != symbol:
        raise FormatError(f"the machine code of {symbol} is gone")
    return entry[0]


@functools.cache
def _maker() -> str:
    """A digest of what plans are made by."""
    made = hashlib.sha256(repr((*function.versions(), np.__version__)).encode())
    for package, name in (*_modules(), *BESIDE):
        made.update(pkgutil.get_data(package.__name__, f"{name}.py") or b"")
    return made.hexdigest()


def _modules() -> Iterator[tuple[ModuleType, str]]:
    for package in PACKAGES:
        for module in sorted(pkgutil.iter_modules(package.__path__)):
            if not module.ispkg:
                yield package, module.name


__all__ = ["Place", "place"]
