"""What tensors show of themselves beside their numbers: shapes as ``Size``, history as ``GradFn``."""

from __future__ import annotations

import weakref

from graphflow.compiler.ir import Node


class Size(tuple):  # type: ignore[type-arg]
    """A shape: a tuple with PyTorch's ``numel``."""

    def numel(self) -> int:
        """Number of elements."""
        total = 1
        for size in self:
            total = total * size
        return total

    def __add__(self, other: tuple[object, ...]) -> Size:
        return Size(tuple.__add__(self, other)) if isinstance(other, tuple) else NotImplemented

    def __repr__(self) -> str:
        return f"graphflow.Size({list(self)})"


class GradFn:
    """What ``Tensor.grad_fn`` shows: the operation, and the operations before it."""

    def __init__(self, node: Node):
        self._node = node

    @property
    def next_functions(self) -> tuple[tuple[GradFn | None, int], ...]:
        """The operations that made the operands, as PyTorch gives them."""
        return tuple((GradFn(n) if n.inputs else None, 0) for n in self._node.inputs if n.op.name != "const")

    def name(self) -> str:
        """PyTorch's name for the operation: ``MulBackward0``."""
        return GRAD_FN_NAMES.get(self._node) or f"{_camel(self._node.op.name)}Backward0"

    def __repr__(self) -> str:
        return f"<{self.name()}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GradFn) and self._node is other._node

    def __hash__(self) -> int:
        return hash(self._node)


# What the public function that a node is the last step of wants to be called: MeanBackward0, not
# DivBackward0.
GRAD_FN_NAMES: weakref.WeakKeyDictionary[Node, str] = weakref.WeakKeyDictionary()


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
