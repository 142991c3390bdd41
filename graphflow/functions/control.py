"""Loops and branches that depend on values: ``scan``, ``cond``, ``while_loop`` and ``fori_loop``, after JAX.

Outside ``compile`` they are the Python loops and branches that they stand for. In a compiled function each is
one operation: its body is traced and compiled once, whatever the number of rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphflow.compiler.ir import TensorType, equal_size
from graphflow.compiler.trace import current_trace
from graphflow.dtypes import bool_, float32, int64
from graphflow.errors import DTypeError, ShapeError
from graphflow.functions.arrange import stack
from graphflow.functions.common import (
    Extent,
    at_least,
    copied,
    is_one,
    logical,
    operand,
    reshaped,
    scalar,
    tensor_arg,
)
from graphflow.functions.create import zeros
from graphflow.functions.registry import error, public
from graphflow.memory import Storage
from graphflow.scopes import abstract_emitted, trace_cond, trace_scan, trace_while
from graphflow.sizes import SymbolicSize, is_same_type
from graphflow.tensor import Tensor
from graphflow.trees import flatten_tree, leaves_like

__all__ = ["cond", "fori_loop", "scan", "while_loop"]

Build = Callable[[Sequence[Any]], Any]


def _paths(tree: Any, path: str) -> list[str]:
    """What to call each leaf: ``carry[0]['h']``."""
    if tree is None:
        return []
    if isinstance(tree, dict):
        return [p for key in tree for p in _paths(tree[key], f"{path}[{key!r}]")]
    if isinstance(tree, (tuple, list)):
        return [p for i, part in enumerate(tree) for p in _paths(part, f"{path}[{i}]")]
    return [path]


def _tensor(leaf: Any, name: str, path: str) -> Tensor:
    value = operand(leaf, name, path)
    if isinstance(value, Tensor):
        return value
    if isinstance(value, SymbolicSize):
        return scalar(value, int64)
    return scalar(value, bool_ if isinstance(value, bool) else int64 if isinstance(value, int) else float32)


def _leaves(tree: Any, name: str, path: str) -> tuple[list[Tensor], Build, list[str]]:
    leaves, build = flatten_tree(tree)
    paths = _paths(tree, path)
    return [_tensor(leaf, name, p) for leaf, p in zip(leaves, paths, strict=True)], build, paths


def _same_type(name: str, path: str, before: TensorType, after: TensorType, told: str) -> None:
    """An error that says which leaf changed its type, from what to what."""
    if before.dtype is not after.dtype:
        raise error(DTypeError, name, f"{path} {told.format(before, after)}; convert with .to()")
    if not is_same_type(before, after):
        raise error(ShapeError, name, f"{path} {told.format(before, after)}")


_CARRIED = "goes in as {} and comes out as {}: what is carried keeps its dtype and shape"


def _carried(
    tree: Any, name: str, like: Any, types: Sequence[TensorType], paths: Sequence[str]
) -> list[Tensor]:
    """The leaves of a new carry, which has to be like the old one."""
    ordered = leaves_like(tree, like)
    if ordered is None:
        found = _leaves(tree, name, "carry")[2]
        raise error(
            DTypeError, name,
            f"the carry goes in as {', '.join(paths) or 'nothing'} and comes out as "
            f"{', '.join(found) or 'nothing'}: the body has to return a carry of the same structure",
        )  # fmt: skip
    leaves = [_tensor(leaf, name, path) for leaf, path in zip(ordered, paths, strict=True)]
    for path, type_, leaf in zip(paths, types, leaves, strict=True):
        _same_type(name, path, type_, leaf.type_, _CARRIED)
    return leaves


def _callable(value: Any, name: str, argument: str) -> None:
    if not callable(value):
        raise error(DTypeError, name, f"argument {argument!r} must be a function, not {type(value).__name__}")


def _whole(value: Any, name: str, argument: str) -> Extent:
    if isinstance(value, bool) or not (isinstance(value, SymbolicSize) or hasattr(value, "__index__")):
        raise error(DTypeError, name, f"argument {argument!r} must be an integer, not {type(value).__name__}")
    return value.size if isinstance(value, SymbolicSize) else int(value.__index__())


# ---------------------------------------------------------------------------------------------- scan


def _length(sequences: Sequence[Tensor], paths: Sequence[str], length: Any) -> Extent:
    known: Extent | None = None if length is None else _whole(length, "scan", "length")
    origin = "length"
    for leaf, path in zip(sequences, paths, strict=True):
        if not leaf.ndim:
            raise error(ShapeError, "scan", f"{path} is {leaf.type_}; it needs a dimension to go along")
        size = leaf.type_.shape[0]
        if known is None:
            known, origin = size, path
        elif known != size:
            try:
                equal_size(known, size)
            except ShapeError:
                raise error(
                    ShapeError, "scan", f"{origin} has {known} steps, but {path} is {leaf.type_}"
                ) from None
    if known is None:
        raise error(DTypeError, "scan", "without sequences (xs=None) it needs the argument 'length'")
    if isinstance(known, int) and known < 0:
        raise error(ShapeError, "scan", f"argument 'length' can't be negative, got {known}")
    return known


@public(method=False)
def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Runs ``carry, y = f(carry, x)`` for every element `x` of `xs` along dimension 0, as ``jax.lax.scan``.

    Gives the last carry and all `y`, stacked along a new dimension 0. `init`, `xs` and `y` are tensors or
    nested tuples, lists and dicts of them (None holds nothing); without `xs`, `length` says how many rounds
    there are. With `reverse` it starts at the last element; results stand where their elements do. In a
    compiled function the body is compiled once, and gradients flow through it.

    DTypeError or ShapeError when `f` returns a carry of another structure, dtype or shape than it got.
    """
    _callable(f, "scan", "f")
    first, build, paths = _leaves(init, "scan", "carry")
    sequences, build_x, x_paths = _leaves(xs, "scan", "xs")
    count = _length(sequences, x_paths, length)
    types = [t.type_ for t in first]
    form: list[tuple[Build, list[str]]] = []

    def body(carried: Sequence[Tensor], elements: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        result = f(build(carried), build_x(elements))
        if not isinstance(result, tuple) or len(result) != 2:
            raise error(
                DTypeError, "scan", f"the function has to return (carry, y), not {type(result).__name__}"
            )
        new = _carried(result[0], "scan", init, types, paths)
        emitted, build_y, y_paths = _leaves(result[1], "scan", "y")
        if form and form[0][1] != y_paths:
            raise error(DTypeError, "scan", "the function returns a y of another structure in every round")
        form[:] = [(build_y, y_paths)]
        return new, emitted

    trace = current_trace()
    if trace is not None:
        last, stacked = trace_scan(trace, body, first, sequences, count, bool(reverse))
    else:
        assert isinstance(count, int)
        last, stacked = _run_scan(body, first, sequences, count, reverse)
    return build(last), form[0][0](stacked)


def _run_scan(
    body: Callable[[Sequence[Tensor], Sequence[Tensor]], tuple[list[Tensor], list[Tensor]]],
    first: list[Tensor],
    sequences: list[Tensor],
    count: int,
    reverse: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    if count == 0:
        types = abstract_emitted(body, first, sequences)
        return [copied(t) for t in first], [zeros((0, *t.shape), dtype=t.dtype) for t in types]
    rounds: list[list[Tensor]] = [[] for _ in range(count)]
    started = next(Storage.count)
    carried, own = [copied(t) for t in first], [copied(s) for s in sequences]
    for step in reversed(range(count)) if reverse else range(count):
        begun = next(Storage.count)
        new, emitted = body(carried, [s[step] for s in own])
        carried = _apart(new, started)
        rounds[step] = _apart(emitted, begun, carried)
    return carried, [stack(column) for column in zip(*rounds, strict=True)]


def _apart(values: Sequence[Tensor], since: int, others: Sequence[Tensor] = ()) -> list[Tensor]:
    """Values as a compiled function gives them: none shares memory with another one, with `others`, or with
    a tensor that is older than `since`, so that no change in place reaches two.
    """
    taken = {id(t._storage) for t in others}
    found = []
    for value in values:
        if value._storage.born < since or id(value._storage) in taken:
            value = copied(value)
        taken.add(id(value._storage))
        found.append(value)
    return found


# ---------------------------------------------------------------------------------------------- cond


def _predicate(pred: Any, name: str) -> Tensor:
    found = tensor_arg(pred, name, "pred")
    if not all(is_one(size, f"the predicate of {name}") for size in found.type_.shape):
        raise error(
            ShapeError, name, f"the predicate has to be one value, got {found.type_}; use .any() or .all()"
        )
    return logical(reshaped(found, ()) if found.ndim else found)


@public(method=False)
def cond(
    pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *args: Any, operands: Any = ()
) -> Any:
    """``true_fn(*operands)`` where `pred` holds, else ``false_fn(*operands)``, as ``torch.cond``.

    `pred` is a tensor of one element, or a Python bool. `operands` is a tuple or list, or the operands follow
    one by one, as in ``jax.lax.cond``. In a compiled function only the chosen branch runs;
    both have to give results of the same structure, dtypes and shapes (DTypeError, ShapeError). Tensors that
    the functions use without being given them are operands, too.
    """
    _callable(true_fn, "cond", "true_fn")
    _callable(false_fn, "cond", "false_fn")
    if args:
        operands = args[0] if len(args) == 1 and isinstance(args[0], (tuple, list)) else args
    if not isinstance(operands, (tuple, list)):
        raise error(DTypeError, "cond", f"operands is a tuple or list, not {type(operands).__name__}")
    if isinstance(pred, bool):
        return (true_fn if pred else false_fn)(*operands)
    flag = _predicate(pred, "cond")
    trace = current_trace()
    if trace is None:
        begun = next(Storage.count)
        found, build, _ = _leaves((true_fn if flag.item() else false_fn)(*operands), "cond", "result")
        return build(_apart(found, begun))
    trees: list[Any] = []
    results: list[tuple[list[Tensor], Build, list[str]]] = []

    def branch(function: Callable[..., Any]) -> Callable[[], list[Tensor]]:
        def run() -> list[Tensor]:
            tree = function(*operands)
            if trees:  # the second branch's dicts in the order of the first's
                ordered = leaves_like(tree, trees[0])
                tree = tree if ordered is None else flatten_tree(trees[0])[1](ordered)
            trees.append(tree)
            results.append(_leaves(tree, "cond", "result"))
            return results[-1][0]

        return run

    def check(_: Sequence[Tensor]) -> None:
        (first, _build, paths), (second, _other, others) = results
        if paths != others:
            raise error(
                DTypeError, "cond",
                f"the branches have to return the same structure, got {', '.join(paths) or 'nothing'} and "
                f"{', '.join(others) or 'nothing'}",
            )  # fmt: skip
        told = "is {} in one branch and {} in the other"
        for path, a, b in zip(paths, first, second, strict=True):
            _same_type("cond", path, a.type_, b.type_, told)

    made = trace_cond(trace, flag, [branch(true_fn), branch(false_fn)], check)
    return results[0][1](made)


# ---------------------------------------------------------------------------------------------- while


@public(method=False)
def while_loop(
    cond_fn: Callable[[Any], Any], body_fn: Callable[[Any], Any], init: Any, max_steps: int | None = None
) -> Any:
    """``while cond_fn(carry): carry = body_fn(carry)``, as ``jax.lax.while_loop``; gives the last carry.

    `init` is a tensor or nested tuples, lists and dicts of them; `cond_fn` gives one value. With `max_steps`
    it ends after that many rounds at the latest, and has a gradient in compiled functions; without, asking
    for one there is a GradientError, and a loop that never ends can't be interrupted. DTypeError or
    ShapeError when the carry changes its structure, dtype or shape.
    """
    _callable(cond_fn, "while_loop", "cond_fn")
    _callable(body_fn, "while_loop", "body_fn")
    first, build, paths = _leaves(init, "while_loop", "carry")
    types = [t.type_ for t in first]

    def condition(carried: Sequence[Tensor]) -> Tensor:
        return _predicate(_tensor(cond_fn(build(carried)), "while_loop", "condition"), "while_loop")

    def body(carried: Sequence[Tensor]) -> list[Tensor]:
        return _carried(body_fn(build(carried)), "while_loop", init, types, paths)

    most = None if max_steps is None else _whole(max_steps, "while_loop", "max_steps")
    trace = current_trace()
    if trace is not None and most is None:
        return build(trace_while(trace, condition, body, first))
    if trace is not None:
        return build(_bounded(condition, body, first, most))
    started = next(Storage.count)
    carried, rounds = [copied(t) for t in first], 0
    while (most is None or at_least(most, rounds + 1)) and condition(carried).item():
        carried, rounds = _apart(body(carried), started), rounds + 1
    return build(carried)


def _bounded(
    condition: Callable[[Sequence[Tensor]], Tensor],
    body: Callable[[Sequence[Tensor]], list[Tensor]],
    first: list[Tensor],
    most: Extent | None,
) -> list[Tensor]:
    """A while loop as so many rounds, of which those after the last do nothing."""

    def step(carry: tuple[list[Tensor], Tensor], _: None) -> tuple[tuple[list[Tensor], Tensor], None]:
        carried, going = carry
        going = cond(going, lambda: condition(carried), lambda: scalar(False, bool_))
        return (cond(going, lambda: body(carried), lambda: carried), going), None

    started = (first, _tensor(True, "while_loop", "condition"))
    (last, _), _ = scan(step, started, None, length=most)  # type: ignore[arg-type]
    return last  # type: ignore[no-any-return]


@public(method=False)
def fori_loop(lower: Any, upper: Any, body_fn: Callable[[Tensor, Any], Any], init: Any) -> Any:
    """``for i in range(lower, upper): carry = body_fn(i, carry)``, as ``jax.lax.fori_loop``; the last carry.

    `i` is a 0-d int64 tensor. With bounds that are Python integers or sizes the loop has a gradient; in
    compiled functions they may also be 0-d integer tensors, without one.
    """
    _callable(body_fn, "fori_loop", "body_fn")
    bounds = [_bound(value, argument) for value, argument in ((lower, "lower"), (upper, "upper"))]
    low, high = bounds
    if not isinstance(low, Tensor) and not isinstance(high, Tensor):
        rounds = high - low if at_least(high, low) else 0

        def step(carry: tuple[Tensor, Any], _: None) -> tuple[tuple[Tensor, Any], None]:
            i, value = carry
            return (i + 1, body_fn(i, value)), None

        (_, last), _ = scan(step, (_tensor(_size(low), "fori_loop", "lower"), init), None, _size(rounds))
        return last
    first, end = (_tensor(b, "fori_loop", "bound") for b in bounds)
    _, last = while_loop(lambda c: c[0] < end, lambda c: (c[0] + 1, body_fn(c[0], c[1])), (first, init))
    return last


def _size(size: Extent) -> Any:
    """A size as users have it."""
    return size if isinstance(size, int) else SymbolicSize(size, current_trace())


def _bound(value: Any, argument: str) -> Extent | Tensor:
    if not isinstance(value, Tensor):
        return _whole(value, "fori_loop", argument)
    if value.dtype.kind != "int" or value.ndim:
        raise error(
            DTypeError, "fori_loop", f"argument {argument!r} must be a 0-d integer tensor, got {value.type_}"
        )
    return value.to(int64) if current_trace() is not None else int(value.item())
