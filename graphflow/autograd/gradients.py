"""Gradients of tensors that carry history, after ``torch.autograd``: ``backward``, ``grad``, and what
transforms need.

The rules are the compiler's (``compiler.passes.autodiff``). While a function is traced the gradient is more
graph; outside, its nodes are evaluated at once from the values that were saved on the way forward.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphflow.autograd.hooks import RETAINED, accumulated, adjuster, watched
from graphflow.compiler import interpret, ir
from graphflow.compiler.ir import OPS, Node
from graphflow.compiler.location import user_loc
from graphflow.compiler.passes.autodiff import Cotangent, is_differentiable, vjp, with_zeros
from graphflow.compiler.trace import Trace, current_trace
from graphflow.dtypes import holds_floats
from graphflow.errors import DTypeError, GradientError
from graphflow.functions.common import is_one
from graphflow.memory import RECORDING, is_kept, is_released, release, save
from graphflow.modes import MODE, enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from graphflow.tensor import SAVED, Saved, Storage, Tensor, apply, constant, leaves_of, record, where_called
from graphflow.variables import VARIABLES, differentiating, node_in

_UIDS = itertools.count(1)
# Operations whose gradients are part of a history: a function made of several, such as x**3, is passed
# through once more by the second derivative, which doesn't use up the first one.
_DIFFERENTIATED_AGAIN: weakref.WeakSet[Node] = weakref.WeakSet()


def _backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulates d(self)/d(leaf), times `gradient` for non-scalars, into ``.grad`` of every leaf that wants
    it, or of `inputs` alone.

    Afterwards the values kept for it are let go, unless `retain_graph` (by default `create_graph`) is set: a
    second backward through an operation that needs some is an error. While tracing there is nothing to keep.
    """
    backward([self], [gradient], retain_graph, create_graph, inputs)


_backward.__name__, _backward.__qualname__ = "backward", "Tensor.backward"  # as help() titles it
Tensor.backward = _backward  # type: ignore[assignment,method-assign]


def _seed(output: Tensor, gradient: Tensor | None) -> Tensor:
    """The cotangent to start from."""
    if not output._requires_grad:
        raise GradientError("this tensor does not require grad and does not have a grad_fn" + where_called())
    if gradient is None:
        if not all(is_one(s, "backward() without a gradient") for s in output.type_.shape):
            raise GradientError(
                "grad can be implicitly created only for scalar outputs, this one has shape "
                f"{tuple(output.shape)}; "
                "pass backward(gradient) of that shape" + where_called()
            )
        one = constant(1.0, output.dtype)
        return apply(OPS["reshape"], one, shape=output.type_.shape) if output.ndim else one
    if not isinstance(gradient, Tensor):
        raise DTypeError(
            "backward: argument 'gradient' has to be a tensor of the output's dtype and shape, "
            f"{output.type_}, or None, not {type(gradient).__name__}{where_called()}"
        )
    if gradient.type_ != output.type_:
        raise GradientError(
            f"the gradient needs the output's dtype and shape, {output.type_}; got {gradient.type_}"
            + where_called()
        )
    return gradient


def _reachable_leaves(outputs: Sequence[Tensor], trace: Trace | None) -> list[tuple[Node, Tensor]]:
    """(node, handle) of every leaf that requires grad and that the outputs may depend on."""
    found = []
    known = leaves_of(trace) if trace is not None else {}
    for node in ir.toposort([node_in(t, trace) for t in outputs]):
        if trace is not None:
            leaf = known.get(node)
        else:
            saved = SAVED.get(node)
            leaf = saved.leaf() if saved is not None and saved.leaf is not None else None
        if leaf is None and node in RETAINED:
            leaf = RETAINED[node]()
        if leaf is not None and leaf._requires_grad:
            found.append((node, leaf))
    return found


def _differentiate(
    outputs: Sequence[Tensor],
    seeds: Sequence[Tensor],
    wrt: Sequence[Node],
    create_graph: bool,
    retain_graph: bool | None,
) -> list[Tensor | None]:
    trace = current_trace()
    nodes = [node_in(t, trace) for t in outputs]
    visited: dict[Node, bool] = {}

    def applied(node: Node, g: Cotangent, shares: Sequence[Cotangent | None]) -> None:
        if is_released(node):
            raise GradientError(
                "Trying to backward through the graph a second time: the values that the gradient of "
                f"{node.op.name} needs have been freed; use retain_graph=True the first time"
                + (f"\n  at {node.loc.describe()}" if node.loc else "")
            )
        visited[node] = _needs_values(node, g, shares)

    with ir.at(user_loc()):
        seeded = [node_in(s, trace) for s in seeds]
        if trace is None:
            found = vjp(nodes, seeded, wrt, adjust=adjuster(), applied=applied)
        else:
            found = vjp(nodes, seeded, wrt, adjust=adjuster(), watched=watched())
        grads = with_zeros(nodes, wrt, found)
    wanted = [g for g in grads if g is not None]
    flows = carrying(wanted, trace) if create_graph else [False] * len(wanted)
    if trace is not None:
        made = [
            Tensor.of_node(g if f else OPS["detach"](g), trace, f) for g, f in zip(wanted, flows, strict=True)
        ]
    else:
        values = _evaluate_saved(wanted, nodes, create_graph)
        made = [_eager_grad(*parts) for parts in zip(wanted, values, flows, strict=True)]
        if create_graph:
            _DIFFERENTIATED_AGAIN.update(visited)
        if not (create_graph if retain_graph is None else retain_graph):
            for node in visited.keys() - _DIFFERENTIATED_AGAIN:
                release(node, visited[node])
    results = iter(made)
    return [None if g is None else next(results) for g in grads]


def _needs_values(node: Node, g: Cotangent, shares: Sequence[Cotangent | None]) -> bool:
    """Whether a rule's result depends on values that were saved, and not on the cotangent and sizes alone."""
    given = g.values() if isinstance(g, Mapping) else (g,)
    values = {n for n in (node, *node.inputs) if n in SAVED and n.op.name != "const" and not is_kept(n)}
    asked: list[Node] = []
    for operand, share in zip(node.inputs, shares, strict=True):
        saved = SAVED.get(operand)
        if share is not None and (operand.inputs or (saved is not None and saved.leaf is not None)):
            asked += share.values() if isinstance(share, Mapping) else (share,)
    return any(n in values for n in ir.toposort(asked, stop=values.union(given)))


def _eager_grad(node: Node, value: np.ndarray, flows: bool) -> Tensor:
    tensor = Tensor.holding(value)
    if flows:
        record(tensor, node)
    return tensor


def carrying(roots: Sequence[Node], trace: Trace | None) -> list[bool]:
    """Whether a gradient can flow from each root to a leaf that requires grad, or to a transform's
    variable.
    """
    known = leaves_of(trace) if trace is not None else {}
    outer = {s.node for s in trace.states.values() if s.handle._requires_grad} if trace is not None else ()
    carries: dict[Node, bool] = {}
    for node in ir.toposort(roots):
        if trace is not None:
            leaf = known.get(node)
        else:
            saved = SAVED.get(node)
            leaf = saved.leaf() if saved is not None and saved.leaf is not None else None
        carries[node] = node in VARIABLES or node in outer or (leaf is not None and leaf._requires_grad)
        if not carries[node] and node.op.name != "detach" and is_differentiable(node):
            carries[node] = any(carries[i] for i in node.inputs)
    return [carries[r] for r in roots]


def settled(tensor: Tensor) -> Tensor:
    """`tensor` itself if a gradient can flow from it to something, else its value without history."""
    if not tensor._requires_grad or tensor.is_leaf:
        return tensor
    trace = current_trace()
    return tensor if is_grad_enabled() and carrying([node_in(tensor, trace)], trace)[0] else tensor.detach()


def _evaluate_saved(roots: Sequence[Node], forward: Sequence[Node], keep: bool) -> list[Any]:
    """Values of gradient nodes, with forward values taken from what was saved; `keep` saves the new
    ones too.
    """
    known: dict[Node, Any] = {}
    for node in ir.toposort(roots, stop=_saved_nodes(forward) | _saved_nodes(roots)):
        saved = SAVED.get(node)
        if saved is not None:
            require_unchanged(node, saved)
            known[node] = saved.array
    fresh: dict[Node, Any] = {}
    values = interpret.evaluate(roots, known, {}, _observer(fresh, keep))
    for node, value in fresh.items():
        if isinstance(value, np.ndarray):
            save(node, value, Storage())
    # Every gradient gets memory of its own: rules may hand out a saved value, a view, or one array twice.
    taken = {id(v) for v in known.values()}
    for i, value in enumerate(values):
        if id(value) in taken or value.base is not None or not value.flags.c_contiguous:
            values[i] = value = np.array(value, order="C")
        taken.add(id(value))
    return values


def _observer(fresh: dict[Node, Any], keep: bool) -> Callable[[Node, Any], None] | None:
    """What has to see every value of a gradient: the table that keeps them, a search for NaN."""
    if not MODE.anomalies:
        return fresh.__setitem__ if keep else None

    def look(node: Node, value: Any) -> None:
        if isinstance(value, np.ndarray) and holds_floats(value) and np.isnan(value).any():
            where = f"\n  at {node.loc.describe()}" if node.loc else ""
            raise GradientError(f"the gradient has nan values, first in {node.op.name}, {node.type}{where}")
        if keep:
            fresh[node] = value

    return look


def require_unchanged(node: Node, saved: Saved) -> None:
    """GradientError if a saved value has been overwritten since."""
    if saved.version != saved.storage.version:
        raise GradientError(
            "one of the variables needed for gradient computation has been modified by an inplace operation: "
            f"{_made(node)}, {node.type}, is at version {saved.storage.version}; expected "
            f"version {saved.version} instead; .clone() it before changing it"
            + (f"\n  at {node.loc.describe()}" if node.loc else "")
        )


def _made(node: Node) -> str:
    return "a tensor that no operation made" if node.op.name == "input" else f"the result of {node.op.name}"


def _saved_nodes(roots: Sequence[Node]) -> set[Node]:
    return {n for n in ir.toposort(roots) if n in SAVED}


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """Gradients of `outputs` with respect to `inputs`, as ``torch.autograd.grad``; ``.grad`` stays
    untouched. `retain_graph` as for ``backward``.
    """
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    ins = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    given = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs or [None] * len(outs))
    trace = current_trace()
    for t in ins:
        if not t._requires_grad:
            raise GradientError("one of the inputs does not require grad" + where_called())
    seeds = [_seed(o, g) for o, g in zip(outs, given, strict=True)]
    found = _differentiate(outs, seeds, [node_in(t, trace) for t in ins], create_graph, retain_graph)
    if not allow_unused and any(g is None for g in found):
        raise GradientError(
            "one of the inputs was not used to compute the outputs; pass allow_unused=True to get None"
            + where_called()
        )
    return tuple(found)


def fresh_alias(tensor: Tensor) -> Tensor:
    """The same value as a node of its own, with respect to which derivatives can be taken."""
    trace = current_trace()
    with enable_grad():
        result = apply(OPS["alias"], tensor, uid=next(_UIDS))
    if not result._requires_grad:
        if trace is not None:
            result._requires_grad, result._leaf = True, False
        else:
            with ir.at(user_loc()), RECORDING:
                record(result, ir.make_node(OPS["alias"], (tensor._history(),), {"uid": next(_UIDS)}))
    return result


def _only(
    inputs: Sequence[Tensor], leaves: Sequence[tuple[Node, Tensor]], trace: Trace | None
) -> list[tuple[Node, Tensor]]:
    """What ``backward(inputs=...)`` has gradients of: of leaves, and of other tensors on the way."""
    if not inputs:
        raise GradientError("`inputs` argument to `backward()` cannot be empty" + where_called())
    if not all(isinstance(t, Tensor) and t._requires_grad for t in inputs):
        raise GradientError("one of the inputs of backward() does not require grad" + where_called())
    asked = {id(t): t for t in inputs}
    found = [(node, leaf) for node, leaf in leaves if asked.get(id(leaf)) is leaf]
    known = {id(leaf) for _, leaf in found}
    return [*found, *((node_in(t, trace), t) for key, t in asked.items() if key not in known)]


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | Sequence[Tensor] | None = None,
) -> None:
    """Accumulates the gradients of all `tensors` into the ``.grad`` of the leaves they were made from, or
    of `inputs` alone.
    """
    outputs = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if grad_tensors is None or isinstance(grad_tensors, Tensor):
        given: list[Tensor | None] = [grad_tensors] * len(outputs)
    else:
        given = list(grad_tensors)
    trace = current_trace()
    for output in outputs:
        if output._array is None and output._trace is not trace:
            output._leaked()
    seeds = [_seed(output, gradient) for output, gradient in zip(outputs, given, strict=True)]
    leaves = _reachable_leaves(outputs, trace)[::-1]  # from the end, so that little is held at a time
    if inputs is not None:
        leaves = _only([inputs] if isinstance(inputs, Tensor) else list(inputs), leaves, trace)
    grads = _differentiate(outputs, seeds, [n for n, _ in leaves], create_graph, retain_graph)
    with no_grad() if not create_graph else enable_grad():
        for (_, leaf), g in zip(leaves, grads, strict=True):
            if g is not None:
                held = leaf.grad
                if held is None:
                    leaf.grad = g
                elif create_graph:
                    leaf.grad = apply(OPS["add"], held, g)
                else:
                    held._assign(apply(OPS["add"], held, g))
                accumulated(leaf)


__all__ = [
    "backward",
    "differentiating",
    "enable_grad",
    "fresh_alias",
    "grad",
    "is_grad_enabled",
    "no_grad",
    "set_grad_enabled",
    "settled",
]
