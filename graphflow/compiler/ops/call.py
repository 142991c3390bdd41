"""Functions applied within a graph whose gradient isn't simply that of their body: it is computed from values
recomputed, or by a rule of the user's own.

They are put in line before compiling; until then gradients and batches see them as one operation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.compiler.batching import all_batched
from graphflow.compiler.interpret import Closure
from graphflow.compiler.ir import (
    OPS,
    BadSample,
    Graph,
    Node,
    Op,
    Sample,
    Size,
    TensorType,
    TupleType,
    input_node,
    register,
)
from graphflow.compiler.ops import elementwise as el
from graphflow.compiler.ops.control import project
from graphflow.compiler.ops.family import Elementwise, by_kind
from graphflow.compiler.ops.movement import View
from graphflow.compiler.ops.reduce import sum_
from graphflow.compiler.passes.autodiff import zeros
from graphflow.compiler.passes.batch import Items, batch_graph
from graphflow.compiler.subgraph import inline, pull_back
from graphflow.dtypes import float64
from graphflow.errors import DTypeError, GradientError, ShapeError


def _require_arguments(role: str, graph: Graph, types: Sequence[TensorType]) -> None:
    if graph.states or graph.updates:
        raise DTypeError(f"the {role} has state; a sub-graph is a function of its arguments alone")
    if len(types) != len(graph.args):
        raise ShapeError(f"the {role} takes {len(graph.args)} arguments, got {len(types)}")
    for arg, type_ in zip(graph.args, types, strict=True):
        if arg.type != type_:
            kind = ShapeError if arg.dtype is getattr(type_, "dtype", None) else DTypeError
            raise kind(f"the {role}'s argument {arg.attrs['name']!r} has to be {arg.type}, got {type_}")


def _results(body: Graph) -> TupleType:
    return TupleType(tuple(o.type for o in body.outputs))


# ---------------------------------------------------------------------------------------------- barrier


def _infer_barrier(x: TensorType, *after: TensorType) -> TensorType:
    return x


barrier: Op = register(Op(
    "barrier", "view", _infer_barrier,
    lambda x, *after: x,
    lambda g, out, x, *after: (g, *(None for _ in after)),
    lambda rng: [Sample((rng.standard_normal((2, 3)),)), Sample((rng.standard_normal(4), np.ones((2, 2))))],
    None,
    View(lambda index, source, target: list(index)),
    doc="The first operand, but not before the others are there; what is computed from it isn't shared with "
    "what is computed from the operand itself.",
    batch=lambda out, size, batched, *operands: barrier(*all_batched(size, batched, operands)),
))  # fmt: skip


# ---------------------------------------------------------------------------------------------- checkpoint


def _infer_checkpoint(*types: TensorType, body: Graph) -> TupleType:
    _require_arguments("body", body, types)
    return _results(body)


def _checkpoint_vjp(g: Mapping[int, Node], out: Node, *operands: Node, body: Graph) -> list[Node | None]:
    """From the operands alone, once the cotangents are there: nothing in between has to wait for them."""
    after = [g[k] for k in sorted(g)]
    again = [barrier(x, *after) for x in operands]
    received = {k: input_node(f"g{k}", g[k].type) for k in g}
    shares = pull_back(body, received)
    owners = [i for i, share in enumerate(shares) if share is not None]
    backward = Graph("recomputed", (*body.args, *received.values()), (), tuple(s for s in shares if s))
    found = iter(inline(backward, [*again, *g.values()]))
    return [next(found) if i in owners else None for i in range(len(operands))]


def _batch_checkpoint(
    out: Node, size: Size, batched: Sequence[bool], /, *operands: Node, body: Graph
) -> Items:
    graph, flags = batch_graph(body, size, batched)
    node = checkpoint(*operands, body=graph)
    return [project(node, index=i) for i in range(len(flags))], flags


def _wave(dtype: Any = float64) -> Graph:
    x, w = (input_node(name, TensorType(dtype, shape)) for name, shape in (("x", (3,)), ("w", (2, 3))))
    return Graph("wave", (x, w), (), (el.sin(x * w) * x, el.exp(x)))


checkpoint: Op = register(Op(
    "checkpoint", "call", _infer_checkpoint,
    lambda *arrays, body: body(*arrays),
    _checkpoint_vjp,
    lambda rng: [Sample((rng.standard_normal(3), rng.standard_normal((2, 3))), {"body": _wave()})],
    lambda rng: [
        BadSample((np.ones(3),), {"body": _wave()}, ShapeError, "takes 2 arguments, got 1"),
        BadSample((np.ones(3), np.ones((2, 4))), {"body": _wave()}, ShapeError, "argument 'w' has to be"),
    ],
    doc="The body applied to the operands. Its gradient runs it again instead of keeping what it computes on "
    "the way.",
    batch=_batch_checkpoint,
))  # fmt: skip


# ----------------------------------------------------------------------------------------- custom gradient


def _infer_custom(
    *types: TensorType, body: Graph, backward: Graph, results: int, owners: tuple[int, ...]
) -> TupleType:
    _require_arguments("body", body, types)
    items = _results(body).items
    if not 0 <= results <= len(items):
        raise ShapeError(f"{results} results asked for, but the body gives {len(items)}")
    cotangents = tuple(t for t in items[:results] if t.dtype.is_floating_point)
    _require_arguments("backward", backward, (*types, *items, *cotangents))
    if len(owners) != len(backward.outputs):
        raise ShapeError(f"the backward gives {len(backward.outputs)} gradients for {len(owners)} operands")
    for owner, gradient in zip(owners, backward.outputs, strict=True):
        if not 0 <= owner < len(types) or gradient.type != types[owner]:
            raise ShapeError(f"the gradient of operand {owner} can't be {gradient.type}")
    return _results(body)


def _custom_vjp(
    g: Mapping[int, Node], out: Node, *operands: Node, body: Graph, backward: Graph, results: int,
    owners: tuple[int, ...],
) -> list[Node | None]:  # fmt: skip
    made = [project(out, index=k) for k in range(len(body.outputs))]
    cotangents = [g.get(k) or zeros(y.type) for k, y in enumerate(made[:results]) if _is_float(y)]
    shares: list[Node | None] = [None] * len(operands)
    if any(k < results for k in g):
        found = inline(backward, [*operands, *made, *cotangents])
        shares = [found[owners.index(i)] if i in owners else None for i in range(len(operands))]
    # What the backward saved may be differentiated in turn, and then the body's own gradient is its.
    kept = {k: input_node(f"g{k}", g[k].type) for k in g if k >= results}
    for i, share in enumerate(pull_back(body, kept) if kept else ()):
        if share is not None:
            given = {**dict(zip(body.args, operands, strict=True)), **{n: g[k] for k, n in kept.items()}}
            (more,) = inline(Graph("kept", tuple(given), (), (share,)), list(given.values()))
            held = shares[i]
            shares[i] = more if held is None else held + more
    return shares


def _is_float(node: Node) -> bool:
    return node.dtype.is_floating_point


def _batch_custom(
    out: Node, size: Size, batched: Sequence[bool], /, *operands: Node, body: Graph, backward: Graph,
    results: int, owners: tuple[int, ...],
) -> Items:  # fmt: skip
    graph, flags = batch_graph(body, size, batched)
    received = [flag for flag, y in zip(flags[:results], body.outputs, strict=False) if _is_float(y)]
    pulled, several = batch_graph(
        backward, size, [*batched, *flags, *received], [batched[owner] for owner in owners]
    )
    gradients = [
        OPS["reshape"](sum_(g, dims=(0,)), shape=g.shape[1:]) if s and not batched[owner] else g
        for g, s, owner in zip(pulled.outputs, several, owners, strict=True)
    ]
    whole = Graph(backward.name, pulled.args, (), tuple(gradients))
    node = custom(*operands, body=graph, backward=whole, results=results, owners=owners)
    return [project(node, index=i) for i in range(len(flags))], flags


def _straight_through() -> dict[str, Any]:
    """x * w, given the gradient it has; sin(x) is saved on the way without use."""
    x, w = (input_node(name, TensorType(float64, shape)) for name, shape in (("x", (3,)), ("w", (2, 3))))
    y, kept = x * w, el.sin(x)
    saved = [input_node(name, n.type) for name, n in (("x", x), ("w", w), ("y", y), ("kept", kept), ("g", y))]
    by_x = OPS["reshape"](sum_(saved[4] * saved[1], dims=(0,)), shape=(3,))
    backward = Graph("scaled_backward", tuple(saved), (), (by_x, saved[4] * saved[0]))
    return {
        "body": Graph("scaled", (x, w), (), (y, kept)),
        "backward": backward,
        "results": 1,
        "owners": (0, 1),
    }


def _numpy_custom(
    *arrays: np.ndarray, body: Closure, backward: Closure, results: int, owners: tuple[int, ...]
) -> list[np.ndarray]:
    return body(*arrays)


custom: Op = register(Op(
    "custom", "call", _infer_custom, _numpy_custom, _custom_vjp,
    lambda rng: [Sample((rng.standard_normal(3), rng.standard_normal((2, 3))), _straight_through())],
    lambda rng: [
        BadSample((np.ones(3),), _straight_through(), ShapeError, "takes 2 arguments, got 1"),
        BadSample((np.ones(3), np.ones((2, 3))), {**_straight_through(), "owners": (0,)}, ShapeError,
                  "2 gradients for 1"),
        BadSample((np.ones(3), np.ones((2, 3))), {**_straight_through(), "owners": (1, 0)}, ShapeError,
                  "gradient of operand 1"),
        BadSample((np.ones(3), np.ones((2, 3))), {**_straight_through(), "results": 3}, ShapeError,
                  "3 results"),
    ],
    doc="The body applied to the operands: first `results` results, then what it saves for the backward, "
    "which maps operands, all of these, and cotangents of the floating point results to gradients of the "
    "operands numbered in `owners`.",
    batch=_batch_custom,
))  # fmt: skip


def _refuse(g: Node, out: Node, x: Node) -> Sequence[Node | None]:
    raise GradientError(
        "trying to differentiate twice a function that was marked with @once_differentiable"
        + (f"\n  at {out.loc.describe()}" if out.loc else "")
    )


once: Op = register(Op(
    "once", "elementwise", lambda x: x, lambda x: x, _refuse,
    lambda rng: [Sample((rng.standard_normal((2, 3)),), gradient=False)],
    None, Elementwise(by_kind("{0}"), 0), 1,
    "The same value, of which there is no further derivative.",
))  # fmt: skip
