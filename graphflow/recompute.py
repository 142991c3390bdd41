"""Memory for time: what a function computes on the way isn't kept for its gradient but computed again.

At once, the history keeps its nodes but lets their values go; the gradient finds them missing and evaluates
them. In a traced function the call is one operation whose gradient contains it a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphflow.autograd.gradients import differentiating
from graphflow.compiler import ir
from graphflow.compiler.ir import OPS, input_node
from graphflow.compiler.subgraph import close
from graphflow.compiler.trace import Trace, current_trace
from graphflow.errors import DTypeError
from graphflow.memory import Region, recompute
from graphflow.modes import is_grad_enabled
from graphflow.replay import escaping
from graphflow.tensor import Tensor, where_called
from graphflow.trees import flatten_tree


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """``function(*args, **kwargs)``, whose intermediate values aren't stored for the gradient.

    They are computed again, from the arguments and from what the function takes from around it, when the
    gradient is; random numbers are the same then. Results and gradients are those of the plain call, bit for
    bit. After ``torch.utils.checkpoint.checkpoint``, whose `use_reentrant` and `preserve_rng_state` are
    accepted: there is one way of doing it here, and random numbers are always preserved.
    """
    if not callable(function):
        raise DTypeError(
            f"checkpoint: the first argument is a function, got {type(function).__name__}{where_called()}"
        )
    if not is_grad_enabled():
        return function(*args, **kwargs)
    trace = current_trace()
    if trace is not None:
        return _traced(trace, function, args, kwargs)
    with Region() as region:
        result = function(*args, **kwargs)
    outputs = [t for t in flatten_tree(result)[0] if isinstance(t, Tensor) and t._requires_grad]
    kept = {t._node for t in outputs}
    for node in ir.toposort([t._history() for t in outputs]):
        if node not in kept and region.has(node):
            recompute(node)
    return result


def _traced(trace: Trace, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    leaves, build = flatten_tree((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    nodes = [leaves[i]._traced_node(trace) for i in places]
    stand_ins = [input_node("x", n.type) for n in nodes]
    held = list(leaves)
    for place, node in zip(places, stand_ins, strict=True):
        held[place] = Tensor.of_node(node, trace, leaves[place]._requires_grad)
    handles: list[Tensor] = [held[i] for i in places]
    own_args, own_kwargs = build(held)
    with escaping(trace, stand_ins) as escaped, differentiating([h for h in handles if h._requires_grad]):
        results, rebuild = flatten_tree(function(*own_args, **own_kwargs))
    made = [r for r in results if isinstance(r, Tensor)]
    changed = [i for i, h in enumerate(handles) if h._traced_node(trace) is not stand_ins[i]]
    roots = [t._traced_node(trace) for t in (*made, *(handles[i] for i in changed))]
    name = getattr(function, "__name__", type(function).__name__)
    body, captured = close(name, stand_ins, [*roots, *escaped.nodes], draws=True)
    call = OPS["checkpoint"](*nodes, *captured, body=body)
    items = [OPS["project"](call, index=i) for i in range(len(body.outputs))]
    escaped.rebind(items[len(roots) :])
    for i, item in zip(changed, items[len(made) :], strict=False):
        leaves[places[i]]._assign(Tensor.of_node(item, trace, handles[i]._requires_grad))
    outputs = iter(
        Tensor.of_node(item, trace, t._requires_grad) for item, t in zip(items, made, strict=False)
    )
    return rebuild([next(outputs) if isinstance(r, Tensor) else r for r in results])


def checkpoint_sequential(
    functions: Any,
    segments: int,
    input: Any,
    use_reentrant: bool | None = None,
    preserve_rng_state: bool = True,
) -> Any:
    """A chain of functions or modules in `segments` pieces, each but the last under `checkpoint`, after
    ``torch.utils.checkpoint.checkpoint_sequential``.
    """
    chain: Sequence[Callable[..., Any]] = list(functions)
    if segments < 1 or segments > max(len(chain), 1):
        raise DTypeError(
            f"checkpoint_sequential: can't make {segments} segments of {len(chain)} functions{where_called()}"
        )
    size = len(chain) // segments
    starts = [size * i for i in range(segments)]
    for start, end in zip(starts, [*starts[1:], len(chain)], strict=True):
        piece = _Piece(chain[start:end])
        input = piece(input) if end == len(chain) else checkpoint(piece, input)
    return input


class _Piece:
    """Some functions one after the other."""

    def __init__(self, functions: Sequence[Callable[..., Any]]):
        self._functions = functions
        self.__name__ = "segment"

    def __call__(self, value: Any) -> Any:
        for function in self._functions:
            value = function(value)
        return value


__all__ = ["checkpoint", "checkpoint_sequential"]
