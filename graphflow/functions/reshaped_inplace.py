"""Methods with a trailing underscore that give the handle another shape over the same memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflow.compiler.trace import current_trace
from graphflow.errors import GradientError, TraceError
from graphflow.functions import shape
from graphflow.functions.registry import error, public
from graphflow.memory import advance_epoch, retains_still
from graphflow.tensor import Tensor, is_grad_enabled


def _become(self: Tensor, name: str, view: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
    """Lets the handle see its memory as the view of it does."""
    instead = f"use x = x.{name[:-1]}()"
    if current_trace() is not None:
        raise error(TraceError, name, f"can't change a shape inside a compiled function; {instead}")
    if self._requires_grad and self._leaf and is_grad_enabled():
        message = "a leaf Variable that requires grad is being used in an in-place operation"
        raise error(GradientError, name, f"{message}; {instead}")
    if self._requires_grad and not self._leaf and not is_grad_enabled():
        raise error(GradientError, name, f"a gradient flows through this tensor; {instead}")
    flows = self._requires_grad and not self._leaf
    made = view(self if flows or not self._requires_grad else self.detach(), *args, **kwargs)
    if made is self:
        return self
    others = [v for v in self._storage.views() if v._alias is not None and v._alias.owner is self]
    if self._alias is None and any(v is not made for v in others):
        _owned_by_another(self, others)
    self._alias = made._alias if made._alias is not None and made._alias.owner is not self else None
    self._array = made._array
    if made._node is not None:
        retains_still(self, self._node, made._node)
    self._node, self._node_version = (made._node, made._node_version) if flows else (None, -1)
    advance_epoch()
    return self


def _owned_by_another(self: Tensor, views: list[Tensor]) -> None:
    """Lets another handle own the memory: the views of `self` know the way from the shape it has now."""
    assert self._array is not None
    owner = Tensor.holding(self._array, self._storage)
    owner._node, owner._node_version = self._node, self._node_version
    owner._requires_grad, owner._leaf = self._requires_grad, self._leaf
    for view in views:
        assert view._alias is not None
        view._alias.owner = owner
    self._storage.add_view(self)


def _in_place(name: str, view: Callable[..., Tensor]) -> None:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return _become(self, name, view, args, kwargs)

    method.__doc__ = f"`{name[:-1]}` in place: the same memory in another shape; not in compiled functions."
    method.__module__ = __name__
    method.__name__ = name
    public(name, function=False)(method)


_VIEWS: dict[str, Callable[..., Tensor]] = {
    "t_": shape.t_, "transpose_": shape.transpose, "swapaxes_": shape.swapaxes, "swapdims_": shape.transpose,
    "squeeze_": shape.squeeze, "unsqueeze_": shape.unsqueeze,
}  # fmt: skip
for _name, _view in _VIEWS.items():
    _in_place(_name, _view)


@public(function=False)
def detach_(self: Tensor) -> Tensor:
    """Cuts the tensor off from what made it, in place."""
    if current_trace() is not None:
        raise error(TraceError, "detach_", "inside a compiled function use x = x.detach()")
    if self._alias is not None and self._requires_grad:
        raise error(GradientError, "detach_", "a view can't be detached in place; use x = x.detach()")
    self._requires_grad, self._leaf = False, True
    self._node, self._node_version = None, -1
    advance_epoch()
    return self
