"""Steps of random graphs that take any op of the registry, and the kinds of ops that fusion finds hard.

A step is a function of the generator and a value, and gives a new value or None. ``any_op`` goes by the
samples that ops carry, so that a new op takes part by itself; the others put windows, rows, matrices,
barriers and loops among a graph's own values.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from graphflow.compiler.ir import OPS, Graph, Node, Op, Shape, TensorType, constant, input_node
from graphflow.compiler.ops.control import items
from graphflow.compiler.passes.autodiff import vjp
from graphflow.compiler.passes.batch import batch_graph
from graphflow.compiler.subgraph import close, inline
from graphflow.dims import Dim
from graphflow.dtypes import DType, as_dtype, int64
from graphflow.errors import GradientError, TraceError

from registry import ALL_OPS, case_for, gradient_graph, samples_of

if TYPE_CHECKING:
    from random_graphs import Generator

N = Dim.symbol("n")


def everywhere(x: Node) -> tuple[int, ...]:
    """All dimensions of `x`."""
    return tuple(range(len(x.shape)))


def cast(x: Node, dtype: DType) -> Node:
    """`x` in that dtype."""
    return x if x.dtype is dtype else OPS["cast"](x, dtype=dtype)


def scalar(x: Node) -> Node:
    """The sum of a value, without dimensions."""
    return OPS["reshape"](OPS["sum"](x, dims=everywhere(x)), shape=()) if x.shape else x


def tame(x: Node) -> Node:
    """Between -1 and 1, and a number even where `x` is none: factorisations of NaN are nobody's promise."""
    return OPS["where"](OPS["isfinite"](x), OPS["tanh"](x), 0.25)


# ------------------------------------------------------------------------------------- any op on a sample


@functools.cache
def _samples(op: Op) -> list[tuple[Graph, list[np.ndarray], bool]]:
    """The graph of each sample, its arrays, and whether it has a gradient."""
    found = []
    for sample in samples_of(op):
        case = case_for(op, sample)
        try:
            gradient_graph(case.graph)
            smooth = True
        except GradientError:
            smooth = False
        found.append((case.graph, [np.asarray(a) for a in case.arrays], smooth))
    return found


def any_op(generator: Generator, x: Node) -> Node | None:
    """Any op at all on one of its samples, moved a little by the graph's values, perhaps in a batch of N."""
    op = generator.pick(ALL_OPS)
    graph, arrays, smooth = generator.pick(_samples(op))
    flags = [False] * len(arrays)
    if generator.chance(50) and arrays:
        wanted = [generator.chance(60) for _ in arrays]
        try:
            batched, _ = batch_graph(graph, N, wanted)
        except TraceError:
            pass  # random numbers have one place
        else:
            graph, flags = batched, wanted
    operands = [_operand(generator, op, a, f, x) for a, f in zip(arrays, flags, strict=True)]
    results = inline(graph, operands)
    if not smooth:
        results = [OPS["detach"](r) for r in results]
    if generator.chance(40):
        generator.others += results[:1]  # as it is: an output of another dtype
    whole = [r for r in results if r.dtype.kind != "float" or r.dtype is generator.dtype]
    made = generator.pick(whole or results)
    return cast(made, generator.dtype)


def _operand(generator: Generator, op: Op, array: np.ndarray, batched: bool, x: Node) -> Node:
    shape: Shape = (N, *array.shape) if batched else array.shape
    node = generator.input(shape, as_dtype(array.dtype), state=generator.chance(20))
    generator.given[node] = array
    if node.dtype.kind != "float" or generator.chance(30):
        return node
    # Rows that have to be sorted, matrices that have to be positive: all elements of one move alike.
    choices = [] if op.kind in ("routine", "control", "project") else generator.within(shape)
    move = generator.pick(choices) if choices else scalar(x)
    if not choices and batched and x.shape and x.shape[0] == N:
        rest = tuple(range(1, len(x.shape)))
        move = OPS["reshape"](OPS["sum"](x, dims=rest) if rest else x, shape=(N, *(1,) * array.ndim))
    return node + cast(tame(move) * 0.03, node.dtype)


# ------------------------------------------------------------------------------------------------- kinds


def window(generator: Generator, x: Node) -> Node | None:
    """Pooling, convolution with one filter, or unfolding along one dimension."""
    if not x.shape:
        return None
    rank, d = len(x.shape), generator.random.randrange(len(x.shape))
    taps, stride, dilation = generator.pick([1, 2, 3]), generator.pick([1, 1, 2]), generator.pick([1, 1, 2])
    room = tuple(s + (taps * dilation if i == d else 0) for i, s in enumerate(x.shape))
    padded = OPS["pad"](x, shape=room, starts=tuple(int(i == d) for i in range(rank)), steps=(1,) * rank)
    attrs = {"dims": (d,), "taps": (rank,), "strides": (stride,), "dilations": (dilation,)}
    wide = OPS["expand"](OPS["reshape"](padded, shape=(*room, 1)), shape=(*room, taps))
    windows = OPS["slide"](wide, **attrs)
    kind = generator.random.randrange(4)
    if kind == 0:
        pooled = OPS["peak"](windows, dims=(rank,))
        return OPS["reshape"](pooled, shape=windows.shape[:-1])
    if kind == 1:
        return OPS["matmul"](windows, generator.input((taps, 2), generator.dtype, state=True))
    if kind == 2:
        back = OPS["unslide"](OPS["sin"](windows), **attrs, sizes=(room[d],))
        return OPS["reshape"](OPS["sum"](back, dims=(rank,)), shape=room)
    return OPS["reshape"](OPS["sum"](windows * 0.5, dims=(rank,)), shape=windows.shape[:-1])


def row(generator: Generator, x: Node) -> Node | None:
    """A routine along one dimension: running totals, sorting, searching."""
    if not x.shape:
        return None
    rank, d = len(x.shape), generator.random.randrange(len(x.shape))
    if x.shape[d] == 0:
        return None
    order = (*(i for i in range(rank) if i != d), d)
    moved = OPS["permute"](x, dims=order)
    back = tuple(int(i) for i in np.argsort(order))
    return OPS["permute"](_ROWS[generator.random.randrange(len(_ROWS))](generator, moved), dims=back)


def _sorted(generator: Generator, x: Node) -> Node:
    places = OPS["argsort"](OPS["round"](x * 4.0), descending=generator.chance(50))
    return OPS["gather"](x, places, dim=len(x.shape) - 1)


def _running(generator: Generator, x: Node) -> Node:
    places = OPS[generator.pick(["cummax_places", "cummin_places"])](OPS["round"](x * 4.0))
    return OPS["gather"](x, places, dim=len(x.shape) - 1)


def _searched(generator: Generator, x: Node) -> Node:
    row = OPS["cumsum"](OPS["round"](OPS["abs"](tame(x)) * 4.0), reverse=False)
    values = OPS["round"](tame(x) * 9.0) + 0.5
    found = OPS["searchsorted"](row, values, right=generator.chance(50))
    return cast(found, x.dtype) * 0.1 + x


def _written(generator: Generator, x: Node) -> Node:
    """x with values written at positions, the last of several writes to one place staying."""
    d, size = len(x.shape) - 1, x.shape[-1]
    index = generator.index((3,), size)
    wrapped = OPS["where"](OPS["lt"](index, 0), index + constant(size, int64), index)
    last = OPS["last_places"](wrapped, size=size)
    values = generator.input((*x.shape[:-1], 3), x.dtype)
    taken = OPS["take"](values, OPS["maximum"](last, 0), dim=d)
    return OPS["where"](OPS["ge"](last, 0), taken, x)


_ROWS: list[Callable[[Generator, Node], Node]] = [
    lambda generator, x: OPS["cumsum"](x, reverse=generator.chance(40)),
    lambda generator, x: OPS["recurrence"](tame(x), x, reverse=generator.chance(40)),
    lambda generator, x: OPS["logcumsumexp"](x),
    _sorted,
    _running,
    _searched,
    _written,
]


def matrix(generator: Generator, x: Node) -> Node | None:
    """Linear algebra on well-conditioned matrices made of the values."""
    wide = generator.dtype if not generator.dtype.is_half else as_dtype("float32")
    if not x.shape or not isinstance(x.shape[-1], int) or not 0 < x.shape[-1] <= 5:
        return None
    batch, size = x.shape[:-1], x.shape[-1]
    v = cast(tame(x), wide)
    outer = OPS["reshape"](v, shape=(*batch, size, 1)) * OPS["reshape"](v, shape=(*batch, 1, size))
    places = OPS["iota"](size=size)
    column, line = (OPS["reshape"](places, shape=s) for s in ((1, size), (size, 1)))
    # The diagonal is 3, 6, 9, …, so that eigenvalues and singular values stay apart.
    diagonal = OPS["where"](OPS["eq"](column, line), (cast(places, wide) + 1.0) * 3.0, constant(0.0, wide))
    positive = outer * 0.3 + diagonal
    general = OPS["where"](OPS["lt"](column, line), positive * 0.5, positive)
    side = OPS["reshape"](OPS["sin"](v * 2.0), shape=(*batch, size, 1))
    made = [
        lambda: OPS["solve"](general, side),
        lambda: OPS["solve_triangular"](general, side, upper=generator.chance(50), unit=False),
        lambda: OPS["tanh"](OPS["det"](general) * 1e-3),
        lambda: generator.pick(items(OPS["slogdet"](general))),
        lambda: OPS["cholesky"](positive),
        lambda: generator.pick(items(OPS["qr"](general, complete=False))),
        lambda: generator.pick(items(OPS["eigh"](positive))),
        lambda: generator.pick(items(OPS["svd"](general))),
    ]
    return cast(generator.pick(made)(), generator.dtype)


def call(generator: Generator, x: Node) -> Node:
    """A checkpoint, or a function with a gradient of its own."""
    (arg,), last = generator.inside(x)
    body, captured = close("body", [arg], [last, arg * 0.5])
    if generator.chance(60):
        return generator.pick(items(OPS["checkpoint"](x, *captured, body=body)))
    cotangents = [input_node(f"g{i}", o.type) for i, o in enumerate(body.outputs)]
    made = [input_node(f"y{i}", o.type) for i, o in enumerate(body.outputs)]
    (share,) = vjp(body.outputs, cotangents, body.args[:1])
    gradient = share if share is not None else body.args[0] * 0.0
    backward = Graph("backward", (*body.args, *made, *cotangents), (), (gradient + made[1] * 0.25,))
    attrs: dict[str, Any] = {"body": body, "backward": backward, "results": 2, "owners": (0,)}
    return generator.pick(items(OPS["custom"](x, *captured, **attrs)))


def repeat(generator: Generator, x: Node) -> Node:
    """A while loop of a few rounds, as many as an input says."""
    (carry,), last = generator.inside(x)
    count = input_node("count", TensorType(int64, ()))
    limit = generator.input((), int64)
    generator.given[limit] = np.asarray(generator.random.randrange(4))
    new = OPS["tanh"](carry * 0.5 + scalar(last) * 0.1)
    body, captured = close("body", [carry, count], [new, count + 1])
    bound = input_node("limit", limit.type)
    args = (*body.args, bound)
    body = Graph("body", args, (), body.outputs)
    condition_args = tuple(input_node(f"c{i}", a.type) for i, a in enumerate(args))
    condition = Graph("while", condition_args, (), (OPS["lt"](condition_args[1], condition_args[-1]),))
    operands = [OPS["detach"](v) for v in (x, *captured)]
    start = constant(0, int64)
    node = OPS["while_loop"](
        operands[0], start, *operands[1:], limit, condition=condition, body=body, carries=2
    )
    return items(node)[0]


def wait(generator: Generator, x: Node) -> Node:
    """A value behind a barrier, beside the same thing before it."""
    after = OPS["barrier"](x, generator.value())
    return OPS["sin"](x) + OPS["sin"](after) if generator.chance(50) else after


OP_STEPS: dict[Callable[..., Node | None], int] = {window: 2, row: 3, matrix: 2, wait: 1, any_op: 9}
CALL_STEPS: dict[Callable[..., Node | None], int] = {call: 2, repeat: 1}


def ops_in(graphs: Sequence[Graph]) -> set[str]:
    """Names of all ops in the graphs and in the graphs they hold."""
    found: set[str] = set()
    waiting = list(graphs)
    while waiting:
        for node in waiting.pop().nodes():
            found.add(node.op.name)
            waiting += [v for v in node.attrs.values() if isinstance(v, Graph)]
    return found
