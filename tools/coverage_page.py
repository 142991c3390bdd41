"""Writes docs/coverage.md: every public name, and whether it works eagerly, compiled, with gradients.

Run ``python tools/coverage_page.py`` to write the page, with ``--check`` to compare it with the one that is
there.

Nothing here is declared: each name is called. A function gets the first of a few usual argument lists that it
takes (coverage_arguments.py has them, and RECIPES for functions that take none), and the same call is then
compiled and compared, and differentiated once and twice. A name that nothing calls is an error of this tool.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from coverage_arguments import RECIPES, Arguments, inputs, makers, usual

import graphflow as gf
import graphflow.nn.functional as F
from graphflow.errors import GradientError, GraphflowError

PAGE = Path(__file__).parent.parent / "docs" / "coverage.md"
HEAD = """# Coverage

Every public name, made by `python tools/coverage_page.py`, which calls each one: all work eagerly.
*compiled*: gives the same inside `@graphflow.compile`; *gradient*, *second*: the first and second derivative
exist. A dash: there is nothing to have one of (the results aren't floats, or the function makes tensors
instead of taking them).
"""

YES, NO, NONE = "yes", "no", "-"
# What functions say to arguments that don't fit.
ERRORS = (GraphflowError, TypeError, ValueError, IndexError, RuntimeError, AttributeError, KeyError)

# ---------------------------------------------------------------------------------------------- trying


def attempt(function: Callable[..., Any], name: str) -> Arguments | None:
    """The first argument list that the function takes and answers with something."""
    if name in RECIPES:
        return RECIPES[name]()
    for args, kwargs in usual():
        try:
            if function(*map(copied, args), **kwargs) is not None:
                return args, kwargs
        except ERRORS:
            continue
    return None


def built(kind: type[gf.nn.Module]) -> tuple[gf.nn.Module, tuple[gf.Tensor, ...]] | None:
    """A layer or loss of this kind, and inputs that it takes."""
    if kind.__name__.startswith("MaxUnpool"):
        return kind(2), RECIPES[f"F.max_unpool{kind.__name__[-2]}d"]()[0][:2]
    for arguments in makers():
        try:
            module = kind(*arguments).double()
        except ERRORS:
            continue
        for given in inputs():
            try:
                if tensors(module(*given)):
                    return module, given
            except ERRORS:
                continue
    return None


def copied(value: Any) -> Any:
    """The argument again, for functions that change theirs."""
    if isinstance(value, gf.Tensor):
        return value.clone()
    return [copied(v) for v in value] if isinstance(value, list) else value


def tensors(value: Any) -> list[gf.Tensor]:
    """All tensors in a result."""
    if isinstance(value, gf.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in tensors(v)]
    return []


def compiled(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> str:
    """Whether the call gives the same inside ``compile``."""
    gf.manual_seed(0)
    expected = tensors(function(*map(copied, args), **kwargs))
    if not expected:
        return NONE
    places = [i for i, a in enumerate(args) if isinstance(a, gf.Tensor)]

    def body(*given: gf.Tensor) -> Any:
        full = [copied(a) for a in args]
        for place, tensor in zip(places, given, strict=True):
            full[place] = tensor.clone()
        return tuple(tensors(function(*full, **kwargs)))

    gf.manual_seed(0)
    try:
        results = gf.compile(body)(*(args[i] for i in places))
    except GraphflowError:
        return NO
    for want, have in zip(expected, results, strict=True):
        if not gf.allclose(want.to(gf.float64), have.to(gf.float64), rtol=1e-6, atol=1e-9, equal_nan=True):
            raise AssertionError(f"eager and compiled differ: {want} and {have}")
    return YES


def gradients(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[str, str]:
    """Whether there is a first and a second derivative by any of the arguments."""
    leaves: list[gf.Tensor] = []

    def leaf(value: Any) -> Any:
        if isinstance(value, gf.Tensor) and value.is_floating_point():
            leaves.append(value.clone().requires_grad_(True))
            return leaves[-1].clone()
        return [leaf(v) for v in value] if isinstance(value, list) else copied(value)

    gf.manual_seed(0)
    try:
        results = [t for t in tensors(function(*map(leaf, args), **kwargs)) if t.is_floating_point()]
    except GradientError:
        return NO, NO
    if not leaves or not results:
        return NONE, NONE
    attached = [(t.sin() * t).sum() for t in results if t.requires_grad]
    if not attached:
        return NO, NO
    total = attached[0]
    for part in attached[1:]:
        total = total + part
    try:
        found = gf.autograd.grad(total, leaves, create_graph=True, allow_unused=True)
    except GradientError:
        return NO, NO
    first = [g for g in found if g is not None]
    if not first:
        return NO, NO
    bent = [(g * g).sum() for g in first if g.requires_grad]
    if not bent:
        return YES, NO
    try:
        second = gf.autograd.grad(bent[0], leaves, allow_unused=True)
    except GraphflowError:
        return YES, NO
    return YES, YES if any(g is not None for g in second) else NO


def row(name: str, function: Callable[..., Any], given: Arguments) -> str:
    """A line of the table."""
    args, kwargs = given
    works = compiled(function, args, kwargs)
    first, second = gradients(function, args, kwargs)
    return f"| `{name}` | {works} | {first} | {second} |"


def table(title: str, rows: Sequence[str]) -> str:
    """A section of the page."""
    head = f"\n## {title}\n\n| name | compiled | gradient | second |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def names_only(title: str, names: Sequence[str]) -> str:
    """A section of things that aren't functions of tensors."""
    return f"\n## {title}\n\n{', '.join(f'`{n}`' for n in names)}\n"


# ---------------------------------------------------------------------------------------------- the page


def page() -> str:
    """The whole page. SystemExit with the names that nothing calls."""
    warnings.simplefilter("ignore")
    uncalled: list[str] = []
    parts = [HEAD]

    def functions(title: str, place: Any, names: Sequence[str], prefix: str = "") -> None:
        rows = []
        for name in names:
            function = getattr(place, name)
            given = attempt(function, prefix + name)
            if given is None:
                uncalled.append(prefix + name)
                continue
            rows.append(row(name, function, given))
        parts.append(table(title, rows))

    functions("Functions, also as methods where PyTorch has them", gf, sorted(gf.functions.__all__))
    functions("Methods only", gf.Tensor, methods(), "Tensor.")
    functions("`nn.functional`", F, sorted(set(F.__all__) - set(gf.functions.__all__)), "F.")
    functions("`linalg`", gf.linalg, sorted(gf.linalg.__all__), "linalg.")
    own = sorted(set(gf.special.__all__) - set(gf.functions.__all__))
    functions("`special`", gf.special, own, "special.")
    rows = []
    for name in sorted(gf.nn.__all__):
        kind = getattr(gf.nn, name)
        if not (inspect.isclass(kind) and issubclass(kind, gf.nn.Module)) or name in CONTAINERS:
            continue
        found = built(kind)
        if found is None:
            uncalled.append(f"nn.{name}")
        else:
            rows.append(row(name, found[0], (found[1], {})))
    parts.append(table("Layers and losses", rows))
    optimizing = ("optim", "optim.lr_scheduler", "optim.swa_utils")
    for title in ("nn.init", *optimizing, "autograd", "func", "data", "metrics", "distributions"):
        parts.append(names_only(f"`{title}`", listed(title)))
    parts.append(
        names_only("Everything else", sorted(set(gf.__all__) - set(gf.functions.__all__) - {"__version__"}))
    )
    if uncalled:
        raise SystemExit(f"no argument list fits: {', '.join(uncalled)}; add theirs")
    return "".join(parts)


def listed(path: str) -> list[str]:
    """The public names of a module inside graphflow."""
    module = importlib.import_module(f"graphflow.{path}")
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__]
    return sorted(getattr(module, "__all__", None) or [n for n in own if not n.startswith("_")])


# Modules that only hold others.
CONTAINERS = {
    "Module", "ModuleDict", "ModuleList", "ParameterDict", "ParameterList", "RNNBase", "RNNCellBase",
    "Sequential",
    "TransformerDecoder", "TransformerEncoder",
}  # fmt: skip


def methods() -> list[str]:
    """Methods of Tensor that aren't functions as well and compute something."""
    return sorted(
        name
        for name in dir(gf.Tensor)
        if not name.startswith("_")
        and name not in gf.functions.__all__
        and inspect.isfunction(getattr(gf.Tensor, name))
        and name not in NOT_COMPUTING
    )


# Methods that tell or change something about a tensor, rather than computing one.
NOT_COMPUTING = {
    "backward", "cuda", "data_ptr", "dim", "element_size", "is_contiguous", "item", "ndimension", "nelement",
    "holding", "numpy", "of_node", "requires_grad_", "size", "stride", "tolist", "register_hook",
    "get_device", "is_pinned", "is_shared", "new", "resize_", "resize_as_", "storage_offset",
    "untyped_storage",
    "retain_grad", "register_post_accumulate_grad_hook",
    "is_traced",
}  # fmt: skip


def main() -> int:
    """Writes or checks the page; 1 if it isn't current."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with docs/coverage.md instead of writing it"
    )
    options = parser.parse_args()
    text = page()
    if not options.check:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    current = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    sys.stdout.writelines(
        difflib.unified_diff(current.splitlines(True), text.splitlines(True), "docs/coverage.md", "now")
    )
    return int(text != current)


if __name__ == "__main__":
    raise SystemExit(main())
