"""What tensors show of themselves beside their numbers: shapes as ``Size``, history as ``GradFn``."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, NamedTuple

from graphflow.compiler.ir import Node
from graphflow.compiler.passes.autodiff import is_differentiable
from graphflow.memory import SAVED

if TYPE_CHECKING:
    from graphflow.tensor import Tensor


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
    """What ``Tensor.grad_fn`` shows: the operation, and the operations before it.

    Its class is called as PyTorch calls the operation's: ``MulBackward0``.
    """

    def __new__(cls, node: Node) -> GradFn:
        """An object of the operation's own class."""
        title = _title(node)
        kind = _KINDS.get(title)
        if kind is None:
            kind = _KINDS.setdefault(title, type(title, (GradFn,), {"__module__": __name__}))
        return object.__new__(kind)

    def __init__(self, node: Node):
        self._node = node

    @property
    def next_functions(self) -> tuple[tuple[GradFn | None, int], ...]:
        """What made the operands, as PyTorch gives it: ``AccumulateGrad`` for a leaf that gets a gradient,
        None for what gets none. A function made of several operations is one.
        """
        named = GRAD_FN_NAMES.get(self._node)
        before = named.operands if named is not None and named.operands else None
        if before is None:
            before = tuple(n for n in self._node.inputs if n.op.name != "const")
        return tuple((_before(n), 0) for n in before)

    def name(self) -> str:
        """PyTorch's name for the operation: ``MulBackward0``."""
        return type(self).__name__

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GradFn) and self._node is other._node

    def __hash__(self) -> int:
        return hash(self._node)


class AccumulateGrad(GradFn):
    """Where a backward ends: it leaves a gradient with a tensor."""

    @property
    def variable(self) -> Tensor | None:
        """That tensor; None if nobody holds it any more."""
        leaf = SAVED[self._node].leaf
        return None if leaf is None else leaf()


_KINDS: dict[str, type[GradFn]] = {"AccumulateGrad": AccumulateGrad}


class Named(NamedTuple):
    """What a public function is called and was given: the nodes of tensors that get a gradient, None for
    others.
    """

    title: str
    operands: tuple[Node | None, ...] = ()


# What the public function that a node is the last step of wants to be called: MeanBackward0, not
# DivBackward0.
GRAD_FN_NAMES: weakref.WeakKeyDictionary[Node, Named] = weakref.WeakKeyDictionary()


def _title(node: Node) -> str:
    if not node.inputs and node in SAVED:
        return "AccumulateGrad"
    named = GRAD_FN_NAMES.get(node)
    return f"{_camel(node.op.name)}Backward0" if named is None else named.title


def _before(node: Node | None) -> GradFn | None:
    if node is None or node.op.name == "detach" or not is_differentiable(node):
        return None
    saved = SAVED.get(node)
    is_leaf = saved is not None and saved.leaf is not None
    return GradFn(node) if node.inputs or is_leaf else None


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
