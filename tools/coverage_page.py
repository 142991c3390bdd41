"""Writes docs/coverage.md: every public name, and whether it works eagerly, compiled, with gradients.

Run ``python tools/coverage_page.py`` to write the page, with ``--check`` to compare it with the one that is
there.

Nothing here is declared: each name is called. A function gets the first of a few usual argument lists that it
takes (RECIPES has those of functions that take none of these), and the same call is then compiled and
compared, and differentiated once and twice. A name that nothing calls is an error of this tool's.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

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
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_rng = np.random.default_rng(0)


def floats(*shape: int) -> gf.Tensor:
    """Floats between 0.1 and 0.9, where nearly all functions are defined and smooth."""
    return gf.tensor(_rng.uniform(0.1, 0.9, shape), dtype=gf.float64)


def ints(*shape: int, high: int = 3) -> gf.Tensor:
    """Integers from 0 below `high`."""
    return gf.tensor(_rng.integers(0, high, shape), dtype=gf.int64)


def bools(*shape: int) -> gf.Tensor:
    """Half of them true."""
    return gf.tensor(_rng.random(shape) < 0.5)


def positive(size: int) -> gf.Tensor:
    """A symmetric matrix whose eigenvalues are positive."""
    root = floats(size, size)
    return root @ root.T + gf.eye(size, dtype=gf.float64)


def call(*args: Any, **kwargs: Any) -> Arguments:
    """An argument list."""
    return args, kwargs


def usual() -> Iterator[Arguments]:
    """Argument lists to try, one after another."""
    x, y, z = floats(4, 3), floats(4, 3), floats(4, 3)
    square, vector = floats(3, 3), floats(3)
    yield from (
        call(x),
        call(x, y),
        call(x, y, z),
        call(x, 0),
        call(x, 1, 0),
        call(x, 0.5),
        call(x, 0.2, 0.7),
    )
    yield from (call(x, (0, 1)), call(x, (4, 3)), call(x, 3, 1), call(square, square), call(square, vector))
    yield from (
        call(vector, vector),
        call(square),
        call(vector),
        call([x, y]),
        call([x, y], 0),
        call(x, x, 0.3),
    )
    yield from (
        call(ints(4, 3)),
        call(ints(4, 3), ints(4, 3)),
        call(bools(4, 3)),
        call(bools(4, 3), bools(4, 3)),
    )
    yield from (call(x, 0, ints(2)), call(x, 0, ints(4, 3)), call(x, ints(4, 3), 0), call(x, ints(4)))
    yield from (call(x, 0, ints(2), floats(2, 3)), call(x, 0, ints(4, 3), y), call(x, bools(4, 3), 0.5))
    yield from (
        call(vector, square, vector),
        call(x, square, floats(3, 3)),
        call(floats(2, 4, 3), floats(2, 3, 4)),
    )
    yield from (
        call(floats(2, 3, 4), floats(2, 3, 5), floats(2, 5, 4)),
        call((4, 3)),
        call(4),
        call(0, 5),
        call(),
    )
    yield from (call((4, 3), 1.5), call(0, 5, 4), call(0, 5, (4, 3)), call(x, gf.float32))
    yield from (
        call(floats(2, 4, 8)),
        call(floats(2, 4, 8), 2),
        call(floats(2, 4, 8, 8)),
        call(floats(2, 4, 8, 8), 2),
    )
    yield from (
        call(floats(2, 4, 6, 8, 8)),
        call(floats(2, 4, 8, 8, 8), 2),
        call(floats(2, 4, 8), floats(2, 8, 4)),
    )


def running(carry: gf.Tensor, item: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
    """A body for ``scan``."""
    carry = carry * item
    return carry, carry


# Argument lists of functions that take none of the usual ones, or that are undefined for them.
RECIPES: dict[str, Callable[[], Arguments]] = {
    "addbmm": lambda: call(floats(2, 4), floats(5, 2, 3), floats(5, 3, 4)),
    **{
        f"F.max_unpool{n}d": lambda n=n: call(  # type: ignore[misc]
            floats(1, 2, *[2] * n), gf.arange(2**n).expand(1, 2, -1).reshape(1, 2, *[2] * n).clone(), 2
        )
        for n in (1, 2, 3)
    },
    "addr": lambda: call(floats(4, 3), floats(4), floats(3)),
    "Tensor.addr_": lambda: call(floats(4, 3), floats(4), floats(3)),
    "cholesky_inverse": lambda: call(positive(3)),
    "cholesky_solve": lambda: call(floats(3, 2), positive(3)),
    "frombuffer": lambda: ((bytearray(8),), {"dtype": gf.float32}),
    "is_nonzero": lambda: call(floats(1)),
    "narrow_copy": lambda: call(floats(4, 3), 0, 1, 2),
    "split_with_sizes": lambda: call(floats(4, 3), (1, 3)),
    "histogram": lambda: call(floats(4, 3), 3),
    "nonzero_static": lambda: ((ints(4, 3),), {"size": 4}),
    "triangular_solve": lambda: call(floats(3, 2), positive(3)),
    "unravel_index": lambda: call(ints(4), (2, 3)),
    "Tensor.addbmm_": lambda: call(floats(2, 4), floats(5, 2, 3), floats(5, 3, 4)),
    "Tensor.apply_": lambda: call(floats(3), lambda v: v + 1),
    "Tensor.map_": lambda: call(floats(3), floats(3), lambda a, b: a + b),
    "Tensor.sum_to_size": lambda: call(floats(4, 3), 1, 3),
    "special.zeta": lambda: call(2.0, floats(4, 3)),
    "linalg.tensorinv": lambda: call(floats(2, 2, 4)),
    "linalg.tensorsolve": lambda: call(floats(2, 2, 4), floats(2, 2)),
    "addmm": lambda: call(floats(2, 4), floats(2, 3), floats(3, 4)),
    "Tensor.addmm_": lambda: call(floats(2, 4), floats(2, 3), floats(3, 4)),
    "bincount": lambda: call(ints(6)),
    "bucketize": lambda: call(floats(4, 3), gf.tensor([0.2, 0.5, 0.8], dtype=gf.float64)),
    "can_cast": lambda: call(gf.int64, gf.float32),
    "cholesky": lambda: call(positive(3)),
    "cond": lambda: call(gf.tensor(True), gf.sin, gf.cos, floats(3)),
    "fori_loop": lambda: call(0, 3, lambda i, x: x * 1.5, floats(3)),
    "from_dlpack": lambda: call(np.ones(3)),
    "from_numpy": lambda: call(np.ones(3)),
    "polygamma": lambda: call(2, floats(3)),
    "F.multi_head_attention_forward": lambda: call(
        *(floats(4, 2, 8) for _ in range(3)),
        8,
        2,
        floats(24, 8),
        floats(24),
        None,
        None,
        False,
        0.0,
        floats(8, 8),
        floats(8),
    ),
    "index_fill": lambda: call(floats(4, 3), 0, ints(2), 0.5),
    "diagonal_scatter": lambda: call(floats(4, 4), floats(4)),
    "index_reduce": lambda: call(floats(4, 3), 0, ints(2), floats(2, 3), "amax"),
    "select_scatter": lambda: call(floats(4, 3), floats(3), 0, 1),
    "slice_scatter": lambda: call(floats(4, 3), floats(2, 3), 0, 1, 3),
    "Tensor.diagonal_scatter": lambda: call(floats(4, 4), floats(4)),
    "Tensor.fill_diagonal_": lambda: call(floats(4, 4), 0.5),
    "Tensor.index_reduce": lambda: call(floats(4, 3), 0, ints(2), floats(2, 3), "amax"),
    "Tensor.index_reduce_": lambda: call(floats(4, 3), 0, ints(2), floats(2, 3), "amax"),
    "Tensor.put": lambda: call(floats(4, 3), ints(2), floats(2)),
    "Tensor.put_": lambda: call(floats(4, 3), ints(2), floats(2)),
    "Tensor.select_scatter": lambda: call(floats(4, 3), floats(3), 0, 1),
    "Tensor.slice_scatter": lambda: call(floats(4, 3), floats(2, 3), 0, 1, 3),
    "index_put": lambda: call(floats(4, 3), (ints(2),), floats(2, 3)),
    "masked_scatter": lambda: call(floats(4, 3), bools(4, 3), floats(4, 3)),
    "renorm": lambda: call(floats(4, 3), 2.0, 0, 0.5),
    "scatter_reduce": lambda: call(floats(4, 3), 0, ints(4, 3), floats(4, 3), "sum"),
    "Tensor.index_fill_": lambda: call(floats(4, 3), 0, ints(2), 0.5),
    "Tensor.index_put_": lambda: call(floats(4, 3), (ints(2),), floats(2, 3)),
    "Tensor.masked_scatter_": lambda: call(floats(4, 3), bools(4, 3), floats(4, 3)),
    "Tensor.renorm_": lambda: call(floats(4, 3), 2.0, 0, 0.5),
    "Tensor.scatter_reduce_": lambda: call(floats(4, 3), 0, ints(4, 3), floats(4, 3), "sum"),
    "linalg.cholesky": lambda: call(positive(3)),
    "linalg.multi_dot": lambda: call([floats(2, 3), floats(3, 4), floats(4, 2)]),
    "linalg.solve_triangular": lambda: call(positive(3), floats(3, 2), upper=True),
    "narrow": lambda: call(floats(4, 3), 0, 1, 2),
    "promote_types": lambda: call(gf.int64, gf.float32),
    "scan": lambda: call(running, floats(3), floats(4, 3)),
    "searchsorted": lambda: call(gf.tensor([0.2, 0.5, 0.8], dtype=gf.float64), floats(4, 3)),
    "unflatten": lambda: call(floats(4, 6), 1, (2, 3)),
    "where": lambda: call(bools(4, 3), floats(4, 3), floats(4, 3)),
    "while_loop": lambda: call(lambda x: x.sum() < 9, lambda x: x * 2, floats(3)),
    "Tensor.unfold": lambda: call(floats(4, 8), 1, 3, 2),
    "F.affine_grid": lambda: call(floats(2, 2, 3), (2, 1, 3, 4), False),
    "F.grid_sample": lambda: call(floats(2, 2, 4, 3), floats(2, 3, 2, 2), align_corners=False),
    "F.fold": lambda: call(floats(2, 12, 9), (4, 4), (2, 2)),
    "F.batch_norm": lambda: call(floats(4, 3), floats(3), floats(3), floats(3), floats(3), True),
    "F.bilinear": lambda: call(floats(4, 3), floats(4, 2), floats(5, 3, 2)),
    "F.cosine_embedding_loss": lambda: call(floats(4, 3), floats(4, 3), gf.tensor([1, -1, 1, 1])),
    "F.ctc_loss": lambda: call(*alignment()),
    "F.linear_cross_entropy": lambda: call(floats(4, 3), floats(5, 3), ints(4)),
    "F.lp_pool2d": lambda: call(floats(2, 4, 8, 8), 2.0, 2),
    "F.lp_pool3d": lambda: call(floats(2, 4, 8, 8, 8), 2.0, 2),
    **{f"F.conv{d}d": lambda d=d: call(floats(2, 4, *[8] * d), floats(3, 4, *[2] * d)) for d in (1, 2, 3)},
    **{
        f"F.conv_transpose{d}d": lambda d=d: call(floats(2, 4, *[4] * d), floats(4, 3, *[2] * d))
        for d in (1, 2, 3)
    },
}


def makers() -> Iterator[tuple[Any, ...]]:
    """Arguments of layers' constructors to try, one after another."""
    yield from (
        (),
        (3,),
        (2,),
        (4,),
        (3, 5),
        (4, 3, 2),
        (2, 4),
        ((2,),),
        (2.0, 2),
        (0.5, 1.0),
        (1, (3, 1)),
        (5, 3),
    )
    yield from ((3, 3, 4), (4, 2, 8), (8, 2), ((4, 4), (2, 2)))


def inputs() -> Iterator[tuple[gf.Tensor, ...]]:
    """Inputs of layers and losses to try, one after another."""
    x, y = floats(4, 3), floats(4, 3)
    signs = gf.tensor([1.0, -1.0, 1.0, 1.0], dtype=gf.float64)
    yield from (
        (x,),
        (x, y),
        (x, ints(4)),
        (x, y, floats(4, 3)),
        (x, y, signs),
        (floats(4), floats(4), signs),
    )
    yield from (
        (floats(2, 4, 8),),
        (floats(2, 4, 8, 8),),
        (floats(2, 4, 8, 8, 8),),
        (ints(2, 5),),
        (floats(2, 12, 9),),
    )
    yield from ((floats(2, 4, 8), floats(2, 4, 8)), (floats(2, 4, 8), floats(2, 4, 8), floats(2, 4, 8)))
    yield from ((x, ints(4, 3, high=2)), (floats(4, 3), floats(4, 3)), alignment())


def alignment() -> tuple[gf.Tensor, ...]:
    """What `ctc_loss` takes: scores over time, labels, and the lengths of both."""
    return floats(5, 2, 3).log_softmax(-1), gf.tensor([[1, 2], [2, 2]]), gf.tensor([5, 4]), gf.tensor([2, 1])


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
