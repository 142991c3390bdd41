"""The borders between packages, held by reading every module's imports."""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "graphflow"
MAX_LINES = 500

PUBLIC_API_ONLY = tuple(f"graphflow.{name}" for name in ("nn", "optim", "data", "metrics", "distributions"))

# Who must not import what: (importing package, forbidden prefix, exceptions to it).
BASE = tuple(f"graphflow.{name}" for name in ("errors", "dtypes", "dims", "config"))  # what anyone may import
BORDERS = [
    ("graphflow.runtime", "graphflow.", BASE),
    ("graphflow.compiler", "graphflow.", (*BASE, "graphflow.runtime.program")),
    ("graphflow.compiler.codegen", "graphflow.compiler.passes", ()),
    *(
        (user, inner, ())
        for user in PUBLIC_API_ONLY
        for inner in ("graphflow.compiler", "graphflow.runtime")
    ),
    *((base, "graphflow.", BASE) for base in (*BASE, "graphflow.files")),
]

# Distributions whose import name isn't their own name with underscores.
IMPORT_NAMES = {
    "scikit-learn": "sklearn",
    "numba-cuda": "numba.cuda",
    "nvmath-python": "nvmath",
    "pillow": "PIL",
}
TOOLS = {"test", "dev"}  # extras for working on graphflow, which it never imports


def module_name(path: Path) -> str:
    """``graphflow.compiler.ir`` for its file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(node: ast.AST, module: str, is_package: bool) -> Iterator[str]:
    """The modules (and names in modules) that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            anchor = module.split(".")[: len(module.split(".")) - node.level + is_package]
            base = ".".join([*anchor, *([base] if base else [])])
        yield from (f"{base}.{alias.name}" for alias in node.names)


def inside(name: str, package: str) -> bool:
    """Whether a dotted name is a package or something in it."""
    return name == package.rstrip(".") or name.startswith(package.rstrip(".") + ".")


@functools.cache
def optional_imports() -> set[str]:
    """Import names of everything that only an extra of pyproject.toml installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {})
    names = (
        re.split(r"[^\w.-]", line)[0].lower() for key in extras if key not in TOOLS for line in extras[key]
    )
    return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}


SOURCES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
every_source = pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))


@functools.cache
def imports_of(path: Path) -> list[tuple[int, str]]:
    """Line and name of everything a file imports, wherever in the file."""
    module, is_package = module_name(path), path.name == "__init__.py"
    return [
        (node.lineno, name)
        for node in ast.walk(TREES[path])
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in imported(node, module, is_package)
    ]


@every_source
def test_borders(path: Path) -> None:
    module = module_name(path)
    for importer, forbidden, exceptions in BORDERS:
        if not inside(module, importer):
            continue
        for line, name in imports_of(path):
            allowed = any(inside(name, e) for e in exceptions) or inside(name, importer)
            assert allowed or not inside(name, forbidden), (
                f"{module}:{line} imports {name}; {importer} must not"
            )


@every_source
def test_no_imports_inside_functions(path: Path) -> None:
    optional = optional_imports()
    for function in ast.walk(TREES[path]):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        for node in ast.walk(function):
            if not isinstance(node, (ast.Import, ast.ImportFrom)):
                continue
            for name in imported(node, module_name(path), path.name == "__init__.py"):
                extra = any(inside(name, package) for package in optional)
                assert extra, (
                    f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)} imports {name} inside a function"
                )


LAZY = ("graphflow.compiler.codegen.numba_front", "numba")  # too slow to import where nothing is compiled


@every_source
def test_what_is_slow_to_import_is_imported_by_its_loader_only(path: Path) -> None:
    if module_name(path) != LAZY[0]:
        for line, name in imports_of(path):
            assert not any(inside(name, lazy) for lazy in LAZY), f"{path.relative_to(ROOT)}:{line} {name}"


@every_source
def test_no_pickle_and_no_evaluation(path: Path) -> None:
    for line, name in imports_of(path):
        assert name.split(".")[0] not in {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}, (
            line
        )
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert ast.unparse(node.value) == "False", node.value.lineno


FOLDERS = ("graphflow", "tests", "tools", "examples")
SHORT = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.parametrize("path", SHORT, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, "split it along a real seam"


def test_the_reader_sees_every_kind_of_import() -> None:
    tree = ast.parse(
        "import a.b\nfrom a import c\nfrom . import d\nfrom ..x import e\ndef f():\n    import g"
    )
    nodes = [n for n in ast.walk(tree) if isinstance(n, (ast.Import, ast.ImportFrom))]
    found = [name for node in nodes for name in imported(node, "p.q.r", False)]
    assert sorted(found) == ["a.b", "a.c", "g", "p.q.d", "p.x.e"]
    assert list(imported(ast.parse("from . import d").body[0], "p.q", True)) == ["p.q.d"]


def test_borders_name_packages_that_exist() -> None:
    for importer, forbidden, exceptions in BORDERS:
        for name in (importer, forbidden.rstrip("."), *exceptions):
            path = ROOT.joinpath(*name.split("."))
            assert path.is_dir() or path.with_suffix(".py").exists(), f"{name} is gone; update the border"
