"""What functional transforms are differentiating with respect to."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from graphflow.compiler.ir import Node
from graphflow.compiler.trace import Trace, current_trace
from graphflow.errors import GradientError
from graphflow.tensor import Tensor, where_called

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


class Untouched:
    """Notices in-place changes of `variables`: a derivative would be taken at what was put there instead."""

    def __init__(self, variables: Sequence[Tensor]):
        self._variables = variables
        self._nodes = [node_in(v, current_trace()) for v in variables]

    def check(self, name: str) -> None:
        """GradientError if one of them was changed since."""
        for variable, node in zip(self._variables, self._nodes, strict=True):
            now = node_in(variable, current_trace())
            if now is not node:
                place = f"\n  at {now.loc.describe()}" if now.loc else where_called()
                raise GradientError(
                    f"{name}: a leaf Variable that requires grad, an argument that is differentiated by, is "
                    f"being used in an in-place operation; .clone() it first{place}"
                )
