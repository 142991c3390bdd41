"""What functional transforms are differentiating with respect to."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from graphflow.compiler.ir import Node
from graphflow.compiler.trace import Trace, current_trace
from graphflow.tensor import Tensor

# At the moment: see `autograd.gradients.fresh_alias`.
VARIABLES: weakref.WeakSet[Node] = weakref.WeakSet()


def node_in(tensor: Tensor, trace: Trace | None) -> Node:
    """A tensor's value as a node: of the trace, or of its history."""
    if trace is not None:
        return tensor._traced_node(trace)
    if tensor._array is None:
        tensor._leaked()
    return tensor._history()


@contextmanager
def differentiating(variables: Sequence[Tensor]) -> Iterator[None]:
    """Inside, results that depend on `variables` count as carrying a gradient."""
    trace = current_trace()
    nodes = {node_in(v, trace) for v in variables} - set(VARIABLES)
    VARIABLES.update(nodes)
    try:
        yield
    finally:
        VARIABLES.difference_update(nodes)
