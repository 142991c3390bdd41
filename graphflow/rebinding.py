"""Changing values in place while a function is traced: handles get other nodes, and so do those that share
their memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflow import aliasing, histories
from graphflow.aliasing import Alias
from graphflow.compiler import ir
from graphflow.compiler.ir import OPS, Node
from graphflow.compiler.location import where_called
from graphflow.compiler.trace import Trace
from graphflow.errors import GradientError, TraceError
from graphflow.memory import Storage, leaves_of, retains_still
from graphflow.modes import MODE

if TYPE_CHECKING:
    from graphflow.tensor import Tensor


def assign(self: Tensor, value: Tensor, trace: Trace, cut: bool = False) -> None:
    """Lets a handle hold `value`; `cut` where no gradient flows, as under ``no_grad``."""
    cut = cut or not MODE.grad_enabled
    node = value._traced_node(trace)
    if self._array is not None and id(self) in trace.root.born:
        _become_traced(self, trace)
    if self._array is not None:
        _assign_state(self, value, node, trace, cut)
        return
    if self._trace is not trace:
        self._leaked()
    if cut and self._requires_grad and not self._leaf:
        raise GradientError(
            "a value that carries a gradient is being changed in place where gradients aren't recorded, "
            "under no_grad() or through detach(), which would cut its history off; .clone() it first"
            + where_called()
        )
    ends = self._requires_grad and not cut and not value._requires_grad
    before = self._traced_node(trace) if ends else None
    if self._alias is not None:
        _assign_through(self, self._alias, value, node, trace)
    held, self._node = self._node, _cut_off(self, node) if cut else node
    if cut and self._requires_grad:
        leaves_of(trace)[self._node] = self
    elif value._requires_grad and not cut:
        self._requires_grad, self._leaf = True, False
    elif before is not None:
        self._node = OPS["where"](*histories.ended(before, node))
    retains_still(self, held, self._node)


def _assign_state(self: Tensor, value: Tensor, node: Node, trace: Trace, cut: bool) -> None:
    """`assign` to a tensor that was there before the trace, and will be afterwards."""
    self._traced_node(trace)
    if self._array is not None and not self._array.flags.writeable:
        raise GradientError(aliasing.unwritable(self._array) + where_called())
    if value._requires_grad and not cut:
        raise GradientError(
            "a value that carries a gradient is written into a tensor that outlives the compiled function; "
            ".detach() it first" + where_called()
        )
    node = _cut_off(self, node)
    trace.rebind(self._key(), node)
    if self._requires_grad and self._leaf:
        leaves_of(trace)[node] = self


def _become_traced(self: Tensor, trace: Trace) -> None:
    """A tensor that the traced function made of numbers is made anew at every call: what is written into it
    must not stay.
    """
    assert self._array is not None
    node, key = self._traced_node(trace), self._key()
    trace.states[key].handle = self.holding(self._array, self._storage)
    self._array, self._storage, self._node, self._trace = None, Storage(), node, trace


def _cut_off(self: Tensor, node: Node) -> Node:
    """`node` as a value of its own without history: a leaf's gradient must not be that of what was put into
    it.
    """
    return ir.unshared_node(OPS["detach"], (node,), {}) if self.dtype.is_floating_point else node


def _assign_through(self: Tensor, alias: Alias, value: Tensor, node: Node, trace: Trace) -> None:
    """Changes the memory that a view sees."""
    self._refresh(alias, trace)
    owner = alias.owner
    try:
        alias.require_certain()
    except TraceError:
        if owner._array is not None or id(owner) in trace.root.in_rows or owner._trace is not trace:
            raise
        # Shared or not makes no difference as long as nobody reads the other one.
        self._alias, owner._storage.doubtful = None, aliasing.UNCERTAIN + where_called()
        return
    whole = aliasing.written_through(owner._traced_node(trace), alias.steps, node)
    flows = not alias.detached and (value._requires_grad or (owner._requires_grad and not owner._leaf))
    if alias.detached:
        assign(owner, self.of_node(whole, trace), trace, cut=True)
    else:
        owner._assign(self.of_node(whole, trace, flows))
    alias.seen = owner._traced_node(trace)


__all__ = ["assign"]
