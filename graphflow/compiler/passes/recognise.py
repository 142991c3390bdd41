"""Attention that is written out in products and a softmax, found again.

``softmax(mask(q @ kᵀ * scale)) @ v`` becomes the op `attention`, which has no matrix of weights in memory.
Scores may be scaled by a constant, then filled where a mask says so or added to, and grouped anew in between.
The same is found at two times: differentiation asks for it before the rules of the parts would have asked for
the weights (`written_out`), and the pass replaces it in the whole graph. Where anything else uses what is in
between (a result, a hook, another operation), or where something such as dropout stands there, it stays as it
was written. What a mask of constants hides as `causal` does isn't computed, not even to see that it is NaN.

A finite number that takes the place of hidden scores is taken for lower than all others from `LOW` on. A
query that sees no key has all the same scores then; logarithms of their sum couldn't tell how many. So such a
query is set to 0 and sees all keys.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from graphflow.compiler import interpret
from graphflow.compiler.ir import (
    OPS,
    Graph,
    Node,
    Shape,
    TensorType,
    at,
    make_node,
    substitute,
    toposort,
    users,
)
from graphflow.dims import Dim
from graphflow.dtypes import FLOATS, bool_

LOW = -1e8  # numbers up to this are lower than scores
EXACT = {"float32": 8.0, "float64": 1e4}  # numbers up to this size keep the logarithm that is added to them
MOST_ELEMENTS = 1 << 24  # of a mask of constants that is looked at
MOST_NODES = 64  # operations that make such a mask


@dataclass(frozen=True)
class WrittenOut:
    """An attention that is written out: its last product, what takes its place, of which operands of the
    graph that is made (`bias` among them), and all that needn't be computed then.
    """

    product: Node
    value: Node
    attention: Node
    sources: tuple[Node, ...]
    bias: Node | None
    between: frozenset[Node]
    shift: Node
    total: Node


def recognise(graph: Graph) -> Graph:
    """The same function with attention as one op, in sub-graphs too."""
    order = toposort(graph.roots)
    found = [f for node in order if (f := _match(node)) is not None]
    if found:
        alone, others = _apart(found, order, frozenset(graph.roots))
        restored = _restored(others, set(order))
        if restored:
            graph = graph.with_roots(substitute(graph.roots, restored))
            order = toposort(graph.roots)
        found = alone
    return _replaced(graph, order, {f.product: f for f in found})


def written_out(
    order: Sequence[Node], needed: Container[Node], kept: Collection[Node], watched: Container[Node]
) -> dict[Node, WrittenOut]:
    """Those among the nodes of which nothing in between is kept or watched, by their last products.

    None with a bias. One that has a gradient is as large as the weights. Any other may put all scores of a
    query far away (-1e9 for every key that it could see), and from the logarithm of their sum, which is lost
    beside such a number, the weights couldn't be made again.
    """
    found = [f for node in order if node in needed and (f := _match(node)) is not None]
    if not found:
        return {}
    alone, _ = _apart(found, order, frozenset(kept))
    return {f.product: f for f in alone if f.bias is None and not any(n in watched for n in f.between)}


def _apart(
    found: Sequence[WrittenOut], order: Sequence[Node], kept: frozenset[Node]
) -> tuple[list[WrittenOut], list[WrittenOut]]:
    """Those whose inner nodes nothing else uses, and the others."""
    readers = users(order)
    alone: list[WrittenOut] = []
    others: list[WrittenOut] = []
    for f in found:
        own = f.between | {f.product}
        is_alone = not (f.between & kept) and all(r in own for n in f.between for r in readers[n])
        (alone if is_alone else others).append(f)
    return alone, others


def _restored(found: Iterable[WrittenOut], there: Container[Node]) -> dict[Node, Node]:
    """What gradients use of attention that is computed as it is written after all: the means, and the
    logarithms, which come from the parts of the softmax.
    """
    mapping: dict[Node, Node] = {}
    for f in found:
        mean, logs = (OPS["project"](f.attention, index=i) for i in range(2))
        if mean in there or logs in there:
            with at(f.product.loc):
                mapping[mean] = _reshaped(f.product, mean.shape)
                made = f.shift + OPS["log"](f.total)
                mapping[logs] = _reshaped(made, logs.shape)
    return mapping


def _replaced(graph: Graph, order: Sequence[Node], found: Mapping[Node, WrittenOut]) -> Graph:
    if not found and not any(isinstance(v, Graph) for node in order for v in node.attrs.values()):
        return graph
    done: dict[Node, Node] = {}
    for node in order:
        with at(node.loc):
            if node in found:
                f = found[node]
                (done[node],) = substitute([f.value], {source: done[source] for source in f.sources})
                continue
            inputs = tuple(done[i] for i in node.inputs)
            attrs = {k: recognise(v) if isinstance(v, Graph) else v for k, v in node.attrs.items()}
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            if same and all(attrs[k] is v for k, v in node.attrs.items()):
                done[node] = node
            else:
                done[node] = make_node(node.op, inputs, attrs)
    if all(done[root] is root for root in graph.roots):
        return graph
    return graph.with_roots([done[root] for root in graph.roots])


# ---------------------------------------------------------------------------------------------- the pattern


@dataclass
class _Scores:
    """What is known of scores, on the way from the softmax down to their product."""

    shape: Shape  # where masks stand
    exact: float
    between: list[Node] = field(default_factory=list)
    conditions: list[Node] = field(default_factory=list)  # as they are written
    mask: Node | None = None
    is_triangle: bool = False  # `mask` is what `causal` is
    fill: float | None = None
    bias: Node | None = None
    causal: bool = False
    scale: float = 1.0
    is_grouped: bool = False  # above a reshape there are other groups than in `shape`
    batch: Shape | None = None  # the groups above a reshape below the masks
    is_inner: bool = False  # below a scale or a reshape, where no mask may stand

    @property
    def is_untouched(self) -> bool:
        """Whether neither a mask nor a scale was met."""
        return not (self.conditions or self.causal or self.is_inner) and self.bias is None

    def leave_out(self, there: Node, fill: float) -> bool:
        """Takes a mask, True where scores stay; whether that can be said."""
        kind = _constant_kind(there, self.shape)
        if kind == "all":
            return True
        if kind == "causal" and fill == -math.inf:
            return self.hide_later()
        if self.bias is not None or (self.mask is not None and fill != self.fill):
            return False
        if fill > LOW and abs(fill) > self.exact:
            return False
        self.is_triangle = kind == "causal" and self.mask is None
        self.mask = there if self.mask is None else OPS["bitwise_and"](self.mask, there)
        self.fill = fill
        return True

    def hide_later(self) -> bool:
        """Takes what hides later keys; whether that can be said: a number that a mask writes over what is
        hidden brings them back.
        """
        self.causal = self.fill in (None, -math.inf)
        return self.causal

    def add(self, bias: Node) -> bool:
        """Takes numbers that are added; whether that can be said."""
        kind = _constant_kind(bias, self.shape)
        if kind == "all":
            return True
        if kind == "causal":
            return self.hide_later()
        if self.bias is not None or self.mask is not None:
            return False
        self.bias = bias
        return True


def _match(product: Node) -> WrittenOut | None:
    """What a product is the last one of."""
    if product.op.name != "matmul" or product.dtype not in FLOATS:
        return None
    weights, values = product.inputs
    between: list[Node] = []
    inner = _bare(weights, between)
    is_grouped = inner.op.name == "reshape" and _keeps_matrix(inner)
    if is_grouped:
        between.append(inner)
        inner = _bare(inner.inputs[0], between)
    softmax = _softmax(inner, between)
    if softmax is None:
        return None
    scores, shift, total = softmax
    state = _Scores(scores.shape, EXACT[scores.dtype.name], between, is_grouped=is_grouped)
    base = _descend(scores, state)
    if base is None:
        return None
    queries, keys = base.inputs
    sources = (queries, keys, values, *state.conditions, *([] if state.bias is None else [state.bias]))
    if not set(between).isdisjoint(sources):
        return None
    if state.batch is not None and not queries.shape[:-2] == keys.shape[:-2] == base.shape[:-2]:
        return None
    if state.is_grouped and values.shape[:-2] != weights.shape[:-2]:
        return None
    with at(product.loc):
        q, k, v = queries, keys, values
        if state.batch is not None:
            q = _reshaped(q, (*state.batch, *q.shape[-2:]))
            k = _reshaped(k, (*state.batch, *k.shape[-2:]))
        if state.is_grouped:
            v = _reshaped(v, (*state.shape[:-2], *v.shape[-2:]))
        last = len(k.shape) - 1
        k = OPS["permute"](k, dims=(*range(last - 1), last, last - 1))
        mask, fill, causal = state.bias, None if state.bias is None else -math.inf, state.causal
        if state.mask is not None:
            mask, fill = state.mask, state.fill
        if mask is not None and len(mask.shape) < 2:
            mask = _reshaped(mask, (1,) * (2 - len(mask.shape)) + mask.shape)
        if fill is not None and math.isfinite(fill) and fill <= LOW:
            assert mask is not None
            if state.is_triangle and not causal:
                mask, fill, causal = None, None, True
            else:
                (q, mask), fill = _never_blind(q, mask, state.shape if causal else None), -math.inf
        masks = [] if mask is None else [mask]
        attention = OPS["attention"](q, k, v, *masks, scale=state.scale, causal=causal, fill=fill)
        value = _reshaped(OPS["project"](attention, index=0), product.shape)
    return WrittenOut(
        product, value, attention, sources, state.bias, frozenset(between), shift, total
    )


def _never_blind(q: Node, mask: Node, causal: Shape | None) -> tuple[Node, Node]:
    """Queries and a mask for which queries that saw no key are 0 and see all. With `causal`, the shape of the
    scores, they see what comes later in no case.
    """
    seen = mask
    if causal is not None:
        numbers = [OPS["iota"](size=size) for size in causal[-2:]]
        before = OPS["ge"](_reshaped(numbers[0], (causal[-2], 1)), _reshaped(numbers[1], (1, causal[-1])))
        seen = OPS["bitwise_and"](mask, before)
    blind = OPS["bitwise_not"](OPS["any"](seen, dims=(len(seen.shape) - 1,)))
    return OPS["where"](blind, 0.0, q), OPS["bitwise_or"](mask, blind)


def _softmax(node: Node, between: list[Node]) -> tuple[Node, Node, Node] | None:
    """The operand of a softmax over the last dimension, what it is shifted by and divided by."""
    if node.op.name != "div":
        return None
    powers, total = node.inputs
    last = (len(node.shape) - 1,)
    if powers.op.name != "exp" or total.op.name != "sum" or total.inputs[0] is not powers:
        return None
    moved = powers.inputs[0]
    if total.attrs["dims"] != last or moved.op.name != "sub":
        return None
    scores, shift = moved.inputs
    largest = shift.inputs[0] if shift.op.name == "detach" else shift
    if largest.op.name != "max" or largest.inputs[0] is not scores or largest.attrs["dims"] != last:
        return None
    between += [node, powers, total, moved, shift, largest]
    return scores, shift, total


def _descend(node: Node, state: _Scores) -> Node | None:
    """The product that scores come from; `state` learns what is done with it on the way."""
    while True:
        node = _bare(node, state.between)
        state.between.append(node)
        name = node.op.name
        if node.shape[-2:] != state.shape[-2:]:
            return None
        if name == "matmul":
            return node
        scaled = _scaled(node)
        if scaled is not None:
            node, factor = scaled
            state.scale *= factor
            state.is_inner = True
        elif name == "reshape" and _keeps_matrix(node) and state.batch is None:
            if state.is_untouched:
                state.shape, state.is_grouped = node.inputs[0].shape, True
            else:
                state.batch, state.is_inner = node.shape[:-2], True
            node = node.inputs[0]
        elif name == "where" and not state.is_inner:
            condition, x, y = node.inputs
            left_out = _number(x)
            rest, there = (y, _negated(condition)) if left_out is not None else (x, condition)
            left_out = _number(y) if left_out is None else left_out
            if left_out is None or not state.leave_out(there, left_out):
                return None
            state.conditions.append(condition)
            node = rest
        elif name == "add" and not state.is_inner:
            x, y = node.inputs
            rest, bias = (x, y) if _has_product(x) else (y, x)
            if not state.add(bias):
                return None
            node = rest
        else:
            return None


def _bare(node: Node, between: list[Node]) -> Node:
    """A node without the reshapes and permutations around it that do nothing; they are noted."""
    while True:
        dims = node.attrs.get("dims") if node.op.name == "permute" else None
        still = dims is not None and dims == tuple(range(len(dims)))
        if not still and not (node.op.name == "reshape" and node.inputs[0].shape == node.shape):
            return node
        between.append(node)
        node = node.inputs[0]


def _keeps_matrix(reshape: Node) -> bool:
    """Whether a reshape only groups matrices anew."""
    before, after = reshape.inputs[0].shape, reshape.shape
    return len(before) > 1 and len(after) > 1 and before[-2:] == after[-2:]


def _scaled(node: Node) -> tuple[Node, float] | None:
    """What is multiplied by a constant, and the constant."""
    if node.op.name not in ("mul", "div"):
        return None
    x, y = node.inputs
    factor = _number(y)
    if factor is None and node.op.name == "mul":
        x, factor = y, _number(x)
    if factor is None or not math.isfinite(factor) or factor == 0:
        return None
    return x, factor if node.op.name == "mul" else 1 / factor


def _number(node: Node) -> float | None:
    """The one number that a node is made of, if it isn't NaN."""
    while node.op.name in ("expand", "reshape"):
        node = node.inputs[0]
    value = node.attrs["value"] if node.op.name == "const" else None
    if value is None or isinstance(value, Dim) or value != value:
        return None
    return float(value)


def _negated(condition: Node) -> Node:
    return condition.inputs[0] if condition.op.name == "bitwise_not" else OPS["bitwise_not"](condition)


def _has_product(node: Node) -> bool:
    """Whether a product is what something was done with on the way to a node, rather than a mask."""
    while True:
        if node.op.name in ("reshape", "permute"):
            node = node.inputs[0]
        elif node.op.name == "where" and None in (_number(node.inputs[1]), _number(node.inputs[2])):
            node = node.inputs[2] if _number(node.inputs[2]) is None else node.inputs[1]
        elif (scaled := _scaled(node)) is not None:
            node = scaled[0]
        else:
            return node.op.name == "matmul" or node.op.name == "add"


def _reshaped(node: Node, shape: Shape) -> Node:
    return node if node.shape == shape else OPS["reshape"](node, shape=shape)


# ---------------------------------------------------------------------------------------------- constants

_KINDS: WeakKeyDictionary[Node, str] = WeakKeyDictionary()


def _constant_kind(mask: Node, shape: Shape) -> str:
    """What a mask made of constants says about matrices of a shape: "causal" where it lets every row see up
    to its own number, "all" where it hides nothing; "" for others. Bool ones are True, numbers 0 for what
    stays.
    """
    wanted = tuple(shape[-2:])
    sizes = (1,) * (2 - len(mask.shape)) + mask.shape[-2:]
    if any(s != 1 for s in mask.shape[:-2]) or any(isinstance(s, Dim) for s in wanted):
        return ""
    if not _is_constant(mask):
        return ""
    kind = _KINDS.get(mask)
    if kind is None:
        (value,) = interpret.evaluate([mask], {})
        value = value.reshape(sizes)
        stays = value if mask.dtype is bool_ else value == 0
        kind = "all" if stays.all() else ""
        if np.array_equal(stays, np.tri(*stays.shape, dtype=bool)):
            kind = "causal" if mask.dtype is bool_ or np.isneginf(value[~stays]).all() else ""
        _KINDS[mask] = kind
    return kind if kind != "causal" or sizes == wanted else ""


def _is_constant(node: Node) -> bool:
    """Whether a value is made of few operations on constants alone, and isn't large."""
    stack, seen = [node], {node}
    while stack:
        current = stack.pop()
        if current.op.kind not in _PLAIN or not isinstance(current.type, TensorType):
            return False
        if len(seen) > MOST_NODES:
            return False
        elements = 1
        for size in current.shape:
            if not isinstance(size, int):
                return False
            elements *= size
        if elements > MOST_ELEMENTS or any(isinstance(v, Dim) for v in current.attrs.values()):
            return False
        for source in current.inputs:
            if source not in seen:
                seen.add(source)
                stack.append(source)
    return True


_PLAIN = frozenset(["const", "generator", "elementwise", "view", "reshape"])
