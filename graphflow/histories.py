"""Gradient histories of views outside a trace.

A view's handle knows the handle that owns the memory and the steps from there, as in a trace. Writing through
a view gives the owner a history that contains what was written, and every view of the owner takes its history
from there when it is next read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow import aliasing
from graphflow.aliasing import Alias
from graphflow.compiler import ir
from graphflow.compiler.ir import OPS, Node, Op
from graphflow.dtypes import bool_
from graphflow.errors import GradientError
from graphflow.memory import SAVED, Storage, retains_still, save
from graphflow.modes import MODE

if TYPE_CHECKING:
    from graphflow.tensor import Tensor


def ended(before: Node, value: Node) -> tuple[Node, Node, Node]:
    """Operands of the ``where`` that is `value` in the place of `before`, whose gradient is zeros then."""
    return ir.constant(False, bool_), before, value


def see(view: Tensor, source: Tensor, op: Op, attrs: Mapping[str, Any], cut: bool) -> None:
    """Notes that `view` is ``op(source)`` in the same memory; `cut` where no gradient flows between them."""
    if op.name in ("detach", "alias"):
        return
    outer = source._alias
    owner, steps = (source, ()) if outer is None else (outer.owner, outer.steps)
    certain = not cut and (outer is None or outer.certain)
    view._alias = Alias(owner, (*steps, (op, attrs)), None, certain)
    if certain:
        view._storage.add_view(view)


def overwrite(self: Tensor, value: Tensor, where: Callable[[], str]) -> None:
    """Puts the elements of `value` into the memory of `self`, and their history where those are recorded."""
    assert self._array is not None and value._array is not None
    records = MODE.grad_enabled and (value._requires_grad or self._requires_grad)
    alias, before, node = self._alias, None, None
    if records and alias is not None:
        require_recordable(alias, value, where)
        if alias.certain:
            before = alias.owner._history()
    if before is not None or (records and value._requires_grad):
        node = value._history()
    elif records:  # what is written has no history: the gradient ends here, as zeros
        node = ir.unshared_node(OPS["where"], ended(self._history(), value._history()), {})
    if records and value._requires_grad and self._node is not None and self._node in SAVED:
        # The new value's history may need the old one, which is about to be overwritten.
        saved = SAVED[self._node]
        if saved.version == saved.storage.version:
            saved.put(self._array.copy(), Storage())
    np.copyto(self._array, value._array)
    self._storage.version += 1
    if alias is not None and before is not None and node is not None:
        whole = aliasing.written_through(before, alias.steps, node)
        hold(alias.owner, ir.unshared_node(whole.op, whole.inputs, dict(whole.attrs)))
    elif node is not None:
        hold(self, node)
    elif self._requires_grad and self._leaf:
        self._node_version = -1


def hold(owner: Tensor, node: Node) -> None:
    """Gives a handle whose memory was just changed the history of what it holds now."""
    assert owner._array is not None
    retains_still(owner, owner._node, node)
    owner._node, owner._node_version = node, owner._storage.version
    owner._requires_grad, owner._leaf = True, False
    save(node, owner._array, owner._storage)
    views_follow(owner)


def require_recordable(alias: Alias, value: Tensor, where: Callable[[], str]) -> None:
    """GradientError if a gradient would be lost when `value` is written through a view."""
    owner = alias.owner
    if not alias.certain and value._requires_grad:
        raise GradientError(
            "a value that carries a gradient is written through a view that was made under no_grad(), whose "
            f"memory belongs to a tensor that requires grad; make the view with gradients enabled{where()}"
        )
    if alias.certain and owner._requires_grad and owner._leaf:
        raise GradientError(
            "a view of a leaf Variable that requires grad is being used in an in-place operation; do it "
            f"under no_grad(){where()}"
        )


def changed(tensor: Tensor) -> Node:
    """The history of a tensor whose memory was changed where that isn't recorded: a gradient goes on to what
    made the tensor as if nothing had happened, and what is computed from now on uses the new value.
    """
    assert tensor._array is not None and tensor._node is not None
    node = ir.unshared_node(OPS["alias"], (tensor._node,), {"uid": tensor._storage.version})
    save(node, tensor._array, tensor._storage)
    return node


def taken_again(view: Tensor) -> Node:
    """The history of a view whose memory has changed, from its owner's."""
    alias = view._alias
    assert alias is not None and view._array is not None
    node: Node = alias.owner._history()
    for op, attrs in alias.steps:
        node = ir.unshared_node(op, (node,), dict(attrs))
    save(node, view._array, view._storage)
    return node


def views_follow(owner: Tensor) -> None:
    """After a change of `owner`: its views require grad if it does."""
    for view in owner._storage.views():
        if view._alias is not None and view._alias.owner is owner:
            view._requires_grad, view._leaf = owner._requires_grad, not owner._requires_grad
