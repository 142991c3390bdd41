"""Methods with a trailing underscore that give the handle another shape over the same memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflow.compiler.trace import current_trace
from graphflow.errors import GradientError, TraceError
from graphflow.functions import shape
from graphflow.functions.registry import error, public
from graphflow.memory import advance_epoch
from graphflow.tensor import Tensor, is_grad_enabled


def _become(self: Tensor, name: str, view: Callable[..., Tensor], args: Any, kwargs: Any) -> Tensor:
    """Lets the handle see its memory as the view of it does."""
    instead = f"use x = x.{name[:-1]}()"
    if current_trace() is not None:
        raise error(TraceError, name, f"can't change a shape inside a compiled function; {instead}")
    if self._requires_grad and not self._leaf:
        raise error(GradientError, name, f"a gradient flows through this tensor; {instead}")
    if self._requires_grad and is_grad_enabled():
        message = "a leaf Variable that requires grad is being used in an in-place operation"
        raise error(GradientError, name, f"{message}; {instead}")
    made = view(self.detach(), *args, **kwargs)
    self._array = made._array
    self._node, self._node_version = None, -1
    advance_epoch()
    return self


def _in_place(name: str, view: Callable[..., Tensor]) -> None:
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return _become(self, name, view, args, kwargs)

    method.__doc__ = f"`{name[:-1]}` in place; not of tensors through which a gradient flows."
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
