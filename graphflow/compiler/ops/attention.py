"""Attention: means of values, weighted by a softmax of how well queries and keys agree.

Of (…, n, d) queries, (…, m, d) keys and (…, m, e) values `attention` gives the (…, n, e) means and the (…, n)
logarithms of the sums that the weights were divided by, from which the gradient makes the weights again. So
none of the (n, m) matrices has to be in memory. A mask, which broadcasts to (…, n, m), is bool, True where a
key takes part, or numbers that are added to scores. With `causal` query i sees keys 0 to i. A query that a
mask leaves no key gets zeros, and an infinite logarithm. With a `fill` that number is the score of what a
bool mask leaves out, and a query all of whose scores are -inf gets NaN: that is what a softmax of scores
gives that were masked by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.compiler.batching import aligned
from graphflow.compiler.ir import (
    OPS,
    BadSample,
    Node,
    Op,
    Sample,
    Size,
    TensorType,
    TupleType,
    broadcast_shapes,
    equal_size,
    register,
)
from graphflow.compiler.ops import attention_numpy as reference
from graphflow.compiler.ops import attention_text as text
from graphflow.compiler.ops import elementwise as el
from graphflow.compiler.ops.contract import matmul, transpose
from graphflow.compiler.ops.family import Tiled, require_same
from graphflow.compiler.ops.index import iota_along
from graphflow.compiler.ops.movement import expand, reshape
from graphflow.compiler.ops.reduce import max_, sum_
from graphflow.dtypes import bool_
from graphflow.errors import DTypeError, ShapeError

Cotangents = dict[int, Node]

#: Queries and keys of one tile.
TILES = {"R": 128, "C": 128}

#: Matrices of weights up to this size are made in memory, see `_compose`, where they are no larger than the
#: queries or keys anyway: the gradient, which then needn't make the weights again, is a quarter faster that
#: way, by measurement.
SHORT = 128 * 128

def _compare(q: TensorType, k: TensorType, v: TensorType, mask: tuple[TensorType, ...]) -> None:
    """Complains where dtypes or sizes don't fit."""
    dtype = require_same((q, k, v))
    if dtype.kind != "float" or dtype.is_half:
        raise DTypeError(f"needs float32 or float64, got {dtype}; convert with .to(dtype)")
    if min(q.ndim, k.ndim, v.ndim) < 2:
        raise ShapeError("needs operands of at least two dimensions")
    equal_size(q.shape[-1], k.shape[-1])
    equal_size(k.shape[-2], v.shape[-2])
    for added in mask:
        if added.dtype not in (bool_, dtype):
            raise DTypeError(f"a mask is bool or {dtype}, not {added.dtype}; convert with .to(dtype)")
        if added.ndim < 2:
            raise ShapeError("a mask needs at least two dimensions")
        for size, wanted in zip(added.shape[-2:], (q.shape[-2], k.shape[-2]), strict=True):
            if size != 1:
                equal_size(size, wanted)


def _split(types: tuple[Any, ...], count: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The operands that have to be there, and the mask, if there is one."""
    if not count <= len(types) <= count + 1:
        raise ShapeError(f"takes {count} operands and a mask, got {len(types)}")
    return types[:count], types[count:]


# ---------------------------------------------------------------------------------------------- forward


def _infer(*types: TensorType, scale: float, causal: bool, fill: float | None) -> TupleType:
    (q, k, v), mask = _split(types, 3)
    _compare(q, k, v, mask)
    batch, n = broadcast_shapes(*(t.shape[:-2] for t in types)), q.shape[-2]
    return TupleType((TensorType(q.dtype, (*batch, n, v.shape[-1])), TensorType(q.dtype, (*batch, n))))


def _rowsum(x: Node) -> Node:
    return reshape(sum_(x, dims=(len(x.shape) - 1,)), shape=x.shape[:-1])


def _column(x: Node) -> Node:
    return reshape(x, shape=(*x.shape, 1))


def _items(node: Node) -> list[Node]:
    return [OPS["project"](node, index=i) for i in range(len(node.type.items))]


def _zeros(type_: TensorType) -> Node:
    return expand(el.const(value=0.0, dtype=type_.dtype), shape=type_.shape)


def _vjp(
    g: Cotangents, out: Node, *inputs: Node, scale: float, causal: bool, fill: float | None
) -> tuple[Node | None, ...]:
    (q, k, v), mask = _split(inputs, 3)
    mean, logs = _items(out)
    of_mean = g[0] if 0 in g else _zeros(mean.type)
    weighted = _rowsum(of_mean * mean)
    if 1 in g:
        weighted = weighted - g[1]
    attrs = {"scale": scale, "causal": causal, "fill": fill}
    found = attention_gradient(q, k, v, of_mean, logs, weighted, *mask, **attrs)
    shares: list[Node | None] = list(_items(found))
    for added in mask:
        if added.dtype is bool_:
            shares.append(None)
            continue
        p = _weights(q, k, logs, mask, **attrs)
        shares.append(p * (matmul(of_mean, transpose(v)) - _column(weighted)))
    return tuple(shares)


def _weights(q: Node, k: Node, logs: Node, mask: tuple[Node, ...], **attrs: Any) -> Node:
    """The weights as a matrix, from the logarithms of what they were divided by."""
    return el.exp(_masked(q, k, mask, **attrs) - _column(logs))


def _masked(
    q: Node, k: Node, mask: tuple[Node, ...], scale: float, causal: bool, fill: float | None
) -> Node:
    """The scores as a matrix, -inf where a key takes no part."""
    s = matmul(q, transpose(k)) * scale
    for added in mask:
        s = el.where(added, s, reference.score_left_out(fill)) if added.dtype is bool_ else s + added
    if causal:
        rank = len(s.shape)
        sees = el.ge(iota_along(s.shape[-2], rank - 2, rank), iota_along(s.shape[-1], rank - 1, rank))
        s = el.where(sees, s, -np.inf)
    return s


def _seen(of_scores: Node, mask: tuple[Node, ...], fill: float | None) -> Node:
    """The part of the scores' cotangent that goes on to queries and keys: none where `fill` took their place.
    """
    if fill is None:
        return of_scores  # the weights are 0 there
    for added in mask:
        of_scores = el.where(added, of_scores, 0.0) if added.dtype is bool_ else of_scores
    return of_scores


# ---------------------------------------------------------------------------------------------- composition


def _is_short(node: Node) -> bool:
    (n, width), m = node.inputs[0].shape[-2:], node.inputs[1].shape[-2]
    if not isinstance(n, int) or not isinstance(m, int) or not isinstance(width, int):
        return False
    return 0 < n * m <= SHORT and min(n, m) <= width


def _compose(node: Node, inputs: Sequence[Node]) -> list[Node] | None:
    """Short sequences by way of their matrices, from which the gradient needs no second product."""
    if not _is_short(node):
        return None
    (q, k, v), mask = _split(tuple(inputs), 3)
    weights, logs = _softmax(q, k, mask, **node.attrs)
    return _whole(node, matmul(weights, v), logs)


def _softmax(
    q: Node, k: Node, mask: tuple[Node, ...], scale: float, causal: bool, fill: float | None
) -> tuple[Node, Node]:
    """The weights as a matrix, and the logarithms of what they were divided by."""
    s = _masked(q, k, mask, scale, causal, fill)
    last = (len(s.shape) - 1,)
    shift = max_(s, dims=last)
    if mask and fill is None:
        shift = el.where(el.eq(shift, -np.inf), 0.0, shift)
    powers = el.exp(s - shift)
    total = sum_(powers, dims=last)
    logs = shift + el.log(total)
    if mask and fill is None:
        empty = el.eq(total, 0.0)
        logs, total = el.where(empty, np.inf, logs), el.where(empty, 1.0, total)
    return powers / total, reshape(logs, shape=logs.shape[:-1])


def _compose_gradient(node: Node, inputs: Sequence[Node]) -> list[Node] | None:
    if not _is_short(node):
        return None
    (q, k, _, _, logs, _), mask = _split(tuple(inputs), 6)
    if _is_own(node):
        return _by_weights(node, inputs, _softmax(q, k, mask, **node.attrs)[0], True)
    return _by_weights(node, inputs, _weights(q, k, logs, mask, **node.attrs), False)


def _by_weights(node: Node, inputs: Sequence[Node], weights: Node, own: bool) -> list[Node]:
    """The gradients by way of matrices, of which the weights are there. `own`: see `_is_own`."""
    (q, k, v, g, _, weighted), mask = _split(tuple(inputs), 6)
    inner = matmul(g, transpose(v))
    mean = sum_(weights * inner, dims=(len(inner.shape) - 1,)) if own else _column(weighted)
    of_scores = _seen(weights * (inner - mean), mask, node.attrs["fill"]) * node.attrs["scale"]
    found = (matmul(of_scores, k), matmul(transpose(of_scores), q), matmul(transpose(weights), g))
    return _whole(node, *found)


def _is_own(node: Node) -> bool:
    """Whether the sums are those that the gradient of attention to the same operands has: then there are
    weights already, and a row of them is at hand when its mean is wanted.
    """
    g, logs, weighted = node.inputs[3:6]
    if logs.op.name != "project" or logs.inputs[0].op is not attention:
        return False
    made = logs.inputs[0]
    same = made.inputs == (*node.inputs[:3], *node.inputs[6:]) and made.attrs == node.attrs
    return same and weighted is _rowsum(g * _items(made)[0])


def _whole(node: Node, *found: Node) -> list[Node]:
    """The results with all of the batch dimensions, of which some operands may have had fewer."""
    wanted = (item.shape for item in node.type.items)
    return [x if x.shape == s else expand(x, shape=s) for x, s in zip(found, wanted, strict=True)]


# ---------------------------------------------------------------------------------------------- samples


def _batch(out: Node, size: Size, batched: tuple[bool, ...], *inputs: Node, **attrs: Any) -> Any:
    """One more of the batch dimensions, which operands may lack."""
    ndim = len(out.type.items[0].shape)
    vectors = (4, 5) if out.op is attention_gradient else ()
    operands = [
        aligned(x, ndim - (number in vectors)) if has else x
        for number, (x, has) in enumerate(zip(inputs, batched, strict=True))
    ]
    items = _items(out.op(*operands, **attrs))
    return items, [True] * len(items)


def _draw(
    rng: np.random.Generator, lead: tuple[int, ...], n: int, m: int, d: int, e: int
) -> list[np.ndarray]:
    return [rng.standard_normal((*lead, *shape)) for shape in ((n, d), (m, d), (m, e))]


def _masks(rng: np.random.Generator, lead: tuple[int, ...], n: int, m: int) -> list[np.ndarray]:
    sees = rng.random((*lead, n, m)) > 0.4
    sees[..., 0] = True
    return [sees, rng.standard_normal((n, m)), np.where(sees, rng.standard_normal((*lead, n, m)), -np.inf)]


_ATTRS = ({"scale": 0.5, "causal": False, "fill": None}, {"scale": -0.25, "causal": True, "fill": None})


def _samples(rng: np.random.Generator) -> list[Sample]:
    found = []
    for lead, *sizes in (
        ((), 3, 4, 2, 5), ((2,), 4, 3, 3, 2), ((2, 1), 1, 1, 1, 1), ((0,), 2, 2, 2, 2), ((2,), 2, 0, 3, 2),
        ((2,), 0, 3, 2, 2), ((), 70, 300, 4, 3), ((2,), 300, 70, 2, 2),
    ):  # fmt: skip
        for attrs in _ATTRS:
            operands = _draw(rng, lead, *sizes)
            found.append(Sample(tuple(operands), attrs, gradient=sizes[0] < 9 and sizes[1] > 0))
    q, k, v = _draw(rng, (2,), 3, 4, 2, 2)
    for mask in _masks(rng, (2,), 3, 4):
        found.append(Sample((q, k, v, mask), _ATTRS[0]))
        alone = np.array(mask)  # a query without a key has an infinite sum
        alone[..., :1, :] = False if mask.dtype == bool else -np.inf
        found.append(Sample((q, k, v, alone), _ATTRS[0], gradient=False))
        found.append(Sample((q, k, v, alone), {**_ATTRS[0], "fill": -3.0}, gradient=mask.dtype == bool))
        found.append(Sample((q, k, v, mask), {**_ATTRS[0], "fill": -np.inf}))
    found.append(Sample((q, k[0], v[:1], _masks(rng, (2,), 1, 4)[1]), _ATTRS[0]))
    narrow = [a.astype(np.float32) for a in _draw(rng, (2,), 150, 140, 8, 8)]
    found += [Sample(tuple(narrow), attrs, gradient=False) for attrs in _ATTRS]
    return found


def _bad_samples(rng: np.random.Generator) -> list[BadSample]:
    q, k, v = _draw(rng, (2,), 3, 4, 2, 2)
    half = [a.astype(np.float16) for a in (q, k, v)]
    attrs = _ATTRS[0]
    return [
        BadSample((q, k), attrs, ShapeError, "takes 3 operands"),
        BadSample((q, v[..., :1], v), attrs, ShapeError, "differ"),
        BadSample((q, k, v[:, :1]), attrs, ShapeError, "differ"),
        BadSample((q[0, 0], k, v), attrs, ShapeError, "at least two dimensions"),
        BadSample(tuple(half), attrs, DTypeError, "needs float32 or float64"),
        BadSample((q, k, v, np.ones((3, 4), int)), attrs, DTypeError, "a mask is bool or float64"),
        BadSample((q, k, v, np.ones((2, 4))), attrs, ShapeError, "differ"),
    ]


def _flops(products: int) -> Any:
    def count(sizes: Mapping[str, Size], node: Node) -> Size:
        work = sizes["n"] * sizes["m"] * (products * sizes["d"] + 2 * sizes["e"] + 24)
        return work // 2 if node.attrs["causal"] else work

    return count


attention: Op = register(Op(
    "attention", "tiled", _infer, reference.forward, _vjp, _samples, _bad_samples,
    Tiled(
        "q[n d] k[m d] v[m e] b[n m] -> o[n e] l[n]", text.forward,
        "s[R C] t[R e] top[R] total[R] factor[R] shift[R] new[R]", TILES,
        "d C", _flops(2), _compose, ("n", "R"),
    ),
    doc="Means of values weighted by a softmax over keys, and the logarithms of its sums.",
    batch=_batch,
))  # fmt: skip


# ---------------------------------------------------------------------------------------------- gradient


def _infer_gradient(*types: TensorType, scale: float, causal: bool, fill: float | None) -> TupleType:
    (q, k, v, g, logs, weighted), mask = _split(types, 6)
    _compare(q, k, v, mask)
    require_same((q, g, logs, weighted))
    if g.ndim < 2 or logs.ndim < 1 or weighted.ndim < 1:
        raise ShapeError("needs a cotangent of at least two dimensions, and sums of at least one")
    equal_size(g.shape[-1], v.shape[-1])
    for size in (g.shape[-2], logs.shape[-1], weighted.shape[-1]):
        equal_size(size, q.shape[-2])
    matrices = (t.shape[:-2] for t in (q, k, v, g, *mask))
    batch = broadcast_shapes(*matrices, logs.shape[:-1], weighted.shape[:-1])
    return TupleType(tuple(TensorType(t.dtype, (*batch, *t.shape[-2:])) for t in (q, k, v)))


def _total(*terms: Node | None) -> Node | None:
    found = None
    for term in terms:
        if term is not None:
            found = term if found is None else found + term
    return found


def _gradient_vjp(
    c: Cotangents, out: Node, *inputs: Node, scale: float, causal: bool, fill: float | None
) -> tuple[Node | None, ...]:
    """Written out in matrices: second derivatives are rare."""
    (q, k, v, g, logs, weighted), mask = _split(inputs, 6)
    p = _weights(q, k, logs, mask, scale=scale, causal=causal, fill=fill)
    inner = matmul(g, transpose(v)) - _column(weighted)
    of_scores = _seen(p * inner, mask, fill) * scale
    terms = []
    if 0 in c:
        terms.append(matmul(c[0], transpose(k)))
    if 1 in c:
        terms.append(matmul(q, transpose(c[1])))
    u = _total(*terms)
    u = None if u is None else _seen(u, mask, fill) * scale
    of_p = _total(None if u is None else u * inner, matmul(g, transpose(c[2])) if 2 in c else None)
    assert of_p is not None
    of_inner = None if u is None else u * p
    s = of_p * p
    scaled = _seen(s, mask, fill) * scale
    shares = [
        _total(matmul(scaled, k), matmul(of_scores, c[1]) if 1 in c else None),
        _total(matmul(transpose(scaled), q), matmul(transpose(of_scores), c[0]) if 0 in c else None),
        None if of_inner is None else matmul(transpose(of_inner), g),
        _total(None if of_inner is None else matmul(of_inner, v), matmul(p, c[2]) if 2 in c else None),
        -_rowsum(s),
        None if of_inner is None else -_rowsum(of_inner),
    ]
    return (*shares, *(None if added.dtype is bool_ else s for added in mask))


def _gradient_samples(rng: np.random.Generator) -> list[Sample]:
    found = []
    for sample in _samples(rng):
        q, k, v, *mask = sample.inputs
        mean, logs = reference.forward(q, k, v, *mask, **sample.attrs)
        g = rng.standard_normal(mean.shape).astype(q.dtype)
        others = (g, logs, (g * mean).sum(-1).astype(q.dtype))
        found.append(Sample((q, k, v, *others, *mask), sample.attrs, sample.gradient))
    return found


def _bad_gradient_samples(rng: np.random.Generator) -> list[BadSample]:
    q, k, v = _draw(rng, (2,), 3, 4, 2, 2)
    rows = np.ones((2, 3))
    return [
        BadSample((q, k, v), _ATTRS[0], ShapeError, "takes 6 operands"),
        BadSample((q, k, v, rows, rows, rows), _ATTRS[0], ShapeError, "differ"),
        BadSample((q, k, v, q, rows[:, :1], rows), _ATTRS[0], ShapeError, "differ"),
    ]


attention_gradient: Op = register(Op(
    "attention_gradient", "tiled", _infer_gradient, reference.gradient, _gradient_vjp, _gradient_samples,
    _bad_gradient_samples,
    Tiled(
        "q[n d] k[m d] v[m e] g[n e] l[n] w[n] b[n m] -> dq[n d] dk[m d] dv[m e]", text.gradient,
        "s[R C] u[R C] t[C d] z[C e]", TILES,
        "d e R C", _flops(6), _compose_gradient, shared=("m", "C", "dq"),
    ),
    doc="Gradients of queries, keys and values, given that of the means, the logarithms, and each query's "
    "mean of its weights' gradients.",
    batch=_batch,
))  # fmt: skip
