"""Control flow: loops and branches over sub-graphs, which see their arguments and nothing else.

An op here has several results, so its type is a tuple, of which ``project`` picks items. Sizes inside a
sub-graph are expressions of the outer graph's symbols.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.compiler.interpret import Closure
from graphflow.compiler.ir import (
    BadSample,
    Graph,
    Node,
    Op,
    Sample,
    Size,
    TensorType,
    TupleType,
    current_loc,
    input_node,
    register,
)
from graphflow.compiler.ops import control_batch
from graphflow.compiler.ops import elementwise as el
from graphflow.compiler.ops.contract import matmul
from graphflow.compiler.ops.movement import cat, reshape
from graphflow.compiler.ops.reduce import sum_
from graphflow.compiler.ops.scan_vjp import scan_vjp
from graphflow.compiler.passes.autodiff import zeros
from graphflow.compiler.subgraph import pull_back
from graphflow.dtypes import DType, bool_, float64, int64
from graphflow.errors import DTypeError, GradientError, ShapeError


def items(node: Node) -> tuple[Node, ...]:
    """All results of a node that has several."""
    return tuple(project(node, index=i) for i in range(len(node.type.items)))


# ---------------------------------------------------------------------------------------------- type rules


def _require_function(role: str, graph: Graph) -> None:
    if graph.states or graph.updates:
        raise DTypeError(f"the {role} has state; a sub-graph is a function of its arguments alone")


def _require_tensors(types: Sequence[object]) -> None:
    for number, type_ in enumerate(types):
        if not isinstance(type_, TensorType):
            raise DTypeError(f"operand {number} is a tuple; use its items")


def _require_type(what: str, expected: TensorType, given: TensorType) -> None:
    if expected.dtype is not given.dtype:
        raise DTypeError(f"{what} has to be {expected}, got {given}")
    if expected.shape != given.shape:
        raise ShapeError(f"{what} has to be {expected}, got {given}")


def _require_call(role: str, graph: Graph, types: Sequence[TensorType]) -> None:
    """Checks operands (as the sub-graph is to see them) against its arguments."""
    _require_function(role, graph)
    if len(types) != len(graph.args):
        raise ShapeError(f"the {role} takes {len(graph.args)} arguments, got {len(types)}")
    for arg, type_ in zip(graph.args, types, strict=True):
        _require_type(f"the {role}'s argument {arg.attrs['name']!r}", arg.type, type_)


def _require_count(what: str, count: int, available: int) -> None:
    if not 0 <= count <= available:
        raise ShapeError(f"{count} {what} asked for, but only {available} are there")


def _require_carries(body: Graph, carries: int) -> None:
    _require_count("carries", carries, len(body.outputs))
    for arg, new in zip(body.args[:carries], body.outputs, strict=False):
        _require_type(f"the new value of the carry {arg.attrs['name']!r}", arg.type, new.type)


# ---------------------------------------------------------------------------------------------- project


def _infer_project(source: TupleType, index: int) -> TensorType:
    if not isinstance(source, TupleType):
        raise DTypeError("the operand is one tensor, not a tuple of tensors")
    if not 0 <= index < len(source.items):
        raise ShapeError(f"there is no item {index} among {len(source.items)}")
    return source.items[index]


def _project_vjp(g: Node, out: Node, source: Node, index: int) -> Any:
    return ({index: g},)


project: Op = register(
    Op(
        "project",
        "project",
        _infer_project,
        lambda source, index: source[index],
        _project_vjp,
        lambda rng: [
            Sample(((rng.standard_normal((2, 3)), rng.integers(0, 9, 4)),), {"index": i}, gradient=i == 0)
            for i in (0, 1)
        ],
        lambda rng: [
            BadSample(((np.ones(2), np.ones(3)),), {"index": 2}, ShapeError, "no item 2 among 2"),
            BadSample((np.ones(2),), {"index": 0}, DTypeError, "not a tuple"),
        ],
        None,
        1,
        "One result of an op that has several.",
    )
)


# ---------------------------------------------------------------------------------------------- scan


def _infer_scan(
    *types: TensorType, body: Graph, carries: int, sequences: int, length: Size, reverse: bool
) -> TupleType:
    _require_tensors(types)
    _require_count("carries and sequences", carries, len(types))
    _require_count("carries and sequences", carries + sequences, len(types))
    elements = []
    for number, type_ in enumerate(types[carries : carries + sequences]):
        if not type_.shape or type_.shape[0] != length:
            raise ShapeError(f"the sequence {number} needs {length} elements along dimension 0, got {type_}")
        elements.append(TensorType(type_.dtype, type_.shape[1:]))
    _require_call("body", body, (*types[:carries], *elements, *types[carries + sequences :]))
    _require_carries(body, carries)
    stacked = (TensorType(y.dtype, (length, *y.shape)) for y in body.outputs[carries:])
    return TupleType((*types[:carries], *stacked))


def _numpy_scan(
    *arrays: np.ndarray, body: Closure, carries: int, sequences: int, length: int, reverse: bool
) -> tuple[np.ndarray, ...]:
    state = list(arrays[:carries])
    xs, consts = arrays[carries : carries + sequences], arrays[carries + sequences :]
    stacked = [body.empty(k, length) for k in range(carries, len(body.graph.outputs))]
    for step in reversed(range(length)) if reverse else range(length):
        results = body(*state, *(x[step] for x in xs), *consts)
        state = results[:carries]
        for all_steps, value in zip(stacked, results[carries:], strict=True):
            all_steps[step] = value
    return (*state, *stacked)


def _arguments(*types: tuple[str, DType, tuple[int, ...]]) -> tuple[Node, ...]:
    return tuple(input_node(name, TensorType(dtype, shape)) for name, dtype, shape in types)


def _cell(hidden: int, features: int, emit: bool) -> Graph:
    """A recurrent cell that also counts its steps; `emit` says whether it gives its state out as well."""
    h, count, x, w = args = _arguments(
        ("h", float64, (hidden,)),
        ("count", int64, ()),
        ("x", float64, (features,)),
        ("w", float64, (hidden + features, hidden)),
    )
    row = reshape(cat(h, x, dim=0), shape=(1, hidden + features))
    new = reshape(el.tanh(matmul(row, w)), shape=(hidden,))
    emitted = (new,) if emit else (new * h, el.cast(count, dtype=float64))
    return Graph("cell", args, (), (new, count + 1, *emitted))


def _total(size: int) -> Graph:
    """Adds up; no results but the sum."""
    total, x = args = _arguments(("total", float64, (size,)), ("x", float64, (size,)))
    return Graph("total", args, (), (total + el.sin(x),))


def _scan_samples(rng: np.random.Generator) -> list[Sample]:
    def recurrent(length: int, emit: bool, reverse: bool) -> Sample:
        arrays = (
            rng.standard_normal(3),
            np.int64(5),
            rng.standard_normal((length, 2)),
            rng.standard_normal((5, 3)) * 0.7,
        )
        return Sample(
            arrays,
            {"body": _cell(3, 2, emit), "carries": 2, "sequences": 1, "length": length, "reverse": reverse},
        )

    square = _arguments(("x", float64, (2,)))[0]
    mapped = Graph("square", (square,), (), (square * square,))
    return [
        recurrent(4, True, False),
        recurrent(4, False, True),
        recurrent(3, True, True),
        recurrent(0, True, False),
        Sample(
            (rng.standard_normal(3), rng.standard_normal((4, 3))),
            {"body": _total(3), "carries": 1, "sequences": 1, "length": 4, "reverse": False},
        ),
        Sample(
            (rng.standard_normal((4, 2)),),
            {"body": mapped, "carries": 0, "sequences": 1, "length": 4, "reverse": False},
        ),
    ]


def _scan_bad(rng: np.random.Generator) -> list[BadSample]:
    attrs = {"body": _total(3), "carries": 1, "sequences": 1, "length": 4, "reverse": False}
    h, x = _arguments(("h", float64, ()), ("x", float64, ()))
    drifting = {**attrs, "body": Graph("drift", (h, x), (), (el.eq(h, x),))}
    return [
        BadSample((np.ones(3), np.ones((5, 3))), attrs, ShapeError, "needs 4 elements"),
        BadSample((np.ones(2), np.ones((4, 3))), attrs, ShapeError, "argument 'total' has to be float64[3]"),
        BadSample(
            (np.ones(3), np.ones((4, 3), np.float32)), attrs, DTypeError, "argument 'x' has to be float64[3]"
        ),
        BadSample((np.ones(3), np.ones((4, 3)), np.ones(2)), attrs, ShapeError, "takes 2 arguments, got 3"),
        BadSample((np.float64(1), np.ones(4)), drifting, DTypeError, "new value of the carry 'h'"),
    ]


scan: Op = register(
    Op(
        "scan",
        "control",
        _infer_scan,
        _numpy_scan,
        scan_vjp,
        _scan_samples,
        _scan_bad,
        doc="Operands: first carries, sequences, constants. The body maps (carries, one element of each "
        "sequence, constants) to (new carries, emitted values); it runs `length` times, from the last one "
        "when `reverse`. Results: last carries, then emitted values stacked along a new dimension 0.",
        batch=control_batch.scan,
    )
)


# ---------------------------------------------------------------------------------------------- cond


def _infer_cond(predicate: TensorType, *types: TensorType, then: Graph, otherwise: Graph) -> TupleType:
    _require_tensors((predicate, *types))
    _require_type("the predicate", TensorType(bool_, ()), predicate)
    for role, branch in (("then branch", then), ("otherwise branch", otherwise)):
        _require_call(role, branch, types)
    if len(then.outputs) != len(otherwise.outputs):
        raise ShapeError(f"one branch gives {len(then.outputs)} results, the other {len(otherwise.outputs)}")
    for number, (a, b) in enumerate(zip(then.outputs, otherwise.outputs, strict=True)):
        _require_type(f"the otherwise branch's result {number}", a.type, b.type)
    return TupleType(tuple(node.type for node in then.outputs))


def _numpy_cond(
    predicate: np.ndarray, *arrays: np.ndarray, then: Closure, otherwise: Closure
) -> list[np.ndarray]:
    return then(*arrays) if predicate else otherwise(*arrays)


def _cond_vjp(
    g: Mapping[int, Node], out: Node, predicate: Node, *operands: Node, then: Graph, otherwise: Graph
) -> list[Node | None]:
    received = {k: input_node(f"g{k}", g[k].type) for k in g}
    both = [(branch, pull_back(branch, received)) for branch in (then, otherwise)]
    owners = [i for i in range(len(operands)) if any(shares[i] for _, shares in both)]
    gradients = [
        Graph(
            f"{branch.name}_vjp",
            (*branch.args, *received.values()),
            (),
            tuple(shares[i] or zeros(branch.args[i].type) for i in owners),
        )
        for branch, shares in both
    ]
    backward = cond(predicate, *operands, *g.values(), then=gradients[0], otherwise=gradients[1])
    return [
        None,
        *(project(backward, index=owners.index(i)) if i in owners else None for i in range(len(operands))),
    ]


def _branches() -> dict[str, Any]:
    x, y, n = args = _arguments(("x", float64, (3,)), ("y", float64, (3,)), ("n", int64, ()))
    a, _, m = others = _arguments(("a", float64, (3,)), ("b", float64, (3,)), ("m", int64, ()))
    return {
        "then": Graph("then", args, (), (el.sin(x) * y, sum_(x, dims=(0,)), n)),
        "otherwise": Graph("otherwise", others, (), (el.exp(a), sum_(a * a, dims=(0,)), m + 1)),
    }


cond: Op = register(
    Op(
        "cond",
        "control",
        _infer_cond,
        _numpy_cond,
        _cond_vjp,
        lambda rng: [
            Sample((np.bool_(p), rng.standard_normal(3), rng.standard_normal(3), np.int64(4)), _branches())
            for p in (True, False)
        ],
        lambda rng: [
            BadSample(
                (np.float64(1), np.ones(3), np.ones(3), np.int64(1)),
                _branches(),
                DTypeError,
                "the predicate has to be bool[]",
            ),
            BadSample(
                (np.bool_(1), np.ones(3), np.ones(4), np.int64(1)),
                _branches(),
                ShapeError,
                "argument 'y' has to be",
            ),
            BadSample(
                (np.bool_(1), np.ones(3), np.ones(3)),
                {**_branches(), "then": _total(3)},
                ShapeError,
                "takes 3 arguments, got 2",
            ),
        ],
        doc="Runs `then` or `otherwise` on the operands after the 0-d predicate. Both give results of "
        "the same types.",
        batch=control_batch.cond,
    )
)


# ---------------------------------------------------------------------------------------------- while_loop


def _infer_while(*types: TensorType, condition: Graph, body: Graph, carries: int) -> TupleType:
    _require_tensors(types)
    _require_count("carries", carries, len(types))
    _require_call("condition", condition, types)
    _require_call("body", body, types)
    if len(condition.outputs) != 1:
        raise ShapeError(f"the condition gives {len(condition.outputs)} results, needs one")
    _require_type("the condition's result", TensorType(bool_, ()), condition.outputs[0].type)
    if len(body.outputs) != carries:
        raise ShapeError(f"the body gives {len(body.outputs)} results for {carries} carries")
    _require_carries(body, carries)
    return TupleType(types[:carries])


def _numpy_while(*arrays: np.ndarray, condition: Closure, body: Closure, carries: int) -> list[np.ndarray]:
    state, consts = list(arrays[:carries]), arrays[carries:]
    while condition(*state, *consts)[0]:
        state = body(*state, *consts)
    return state


def _while_vjp(g: Mapping[int, Node], out: Node, *operands: Node, **attrs: Any) -> list[Node | None]:
    loc = current_loc()
    raise GradientError(
        "while_loop has no gradient: the number of its steps, so the memory a gradient needs, isn't known "
        "beforehand"
        + (f"\n  at {loc.describe()}" if loc else "")
        + "\n  give it max_steps=, use scan with a fixed number of steps, or "
        ".detach() on its operands if no gradient is wanted"
    )


def _halving() -> dict[str, Any]:
    x, steps, limit = args = _arguments(("x", float64, (2,)), ("steps", int64, ()), ("limit", float64, ()))
    total = reshape(sum_(el.abs_(x), dims=(0,)), shape=())
    return {
        "condition": Graph("condition", args, (), (el.gt(total, limit),)),
        "body": Graph("body", args, (), (x * 0.5, steps + 1)),
        "carries": 2,
    }


while_loop: Op = register(
    Op(
        "while_loop",
        "control",
        _infer_while,
        _numpy_while,
        _while_vjp,
        lambda rng: [
            Sample((rng.standard_normal(2) * 10, np.int64(0), np.float64(limit)), _halving(), gradient=False)
            for limit in (0.1, 1e9)
        ],
        lambda rng: [
            BadSample(
                (np.ones(2), np.int64(0), np.float32(1)),
                _halving(),
                DTypeError,
                "argument 'limit' has to be float64[]",
            ),
            BadSample(
                (np.ones(2), np.int64(0), np.float64(1)),
                {**_halving(), "carries": 1},
                ShapeError,
                "2 results for 1 carries",
            ),
            BadSample(
                (np.ones(3), np.ones(3)),
                {"condition": _total(3), "body": _total(3), "carries": 1},
                DTypeError,
                "the condition's result has to be bool[]",
            ),
        ],
        doc="Operands: first carries, constants. While the condition of (carries, constants) holds, the body "
        "maps them to new carries. Results: last carries.",
        batch=control_batch.while_loop,
    )
)
