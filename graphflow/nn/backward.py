"""Functions that run when a gradient goes back through a module."""

from __future__ import annotations

from typing import Any

from graphflow.autograd import Function
from graphflow.errors import TraceError
from graphflow.nn.hooks import Hooks
from graphflow.tensor import Tensor, is_grad_enabled, where_called

Grads = tuple[Tensor | None, ...]


class Passage:
    """One call of a module whose backward hooks see what goes back through it.

    Inputs and outputs go through functions that give them as they are, and whose backward is where the hooks
    run.
    """

    def __init__(self, module: Any, before: Hooks, after: Hooks):
        self.module = module
        self.before, self.after = before, after
        self.count = 0
        self.waiting = False
        self.grad_outputs: Grads = ()

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The module's arguments as it gets them."""
        places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        tensors = [args[i] for i in places]
        if any(t.is_traced for t in tensors):
            raise TraceError(
                f"{type(self.module).__name__}: backward hooks of modules are Python, which a compiled "
                "function doesn't run; use register_hook on its tensors, or call the module outside"
                f"{where_called()}"
            )
        self.count = len(tensors)
        self.waiting = is_grad_enabled() and any(t.requires_grad for t in tensors)
        if not self.waiting:
            return args
        passed = list(args)
        for place, tensor in zip(places, _Entry.apply(self, *tensors), strict=True):
            passed[place] = tensor
        return tuple(passed)

    def outputs(self, result: Any) -> Any:
        """The module's result as its caller gets it."""
        several = isinstance(result, (tuple, list))
        listed = list(result) if several else [result]
        places = [i for i, r in enumerate(listed) if isinstance(r, Tensor) and r.requires_grad]
        if not places or not is_grad_enabled():
            return result
        for place, tensor in zip(places, _Exit.apply(self, *(listed[i] for i in places)), strict=True):
            listed[place] = tensor
        return type(result)(listed) if several else listed[0]

    def leaving(self, grads: Grads) -> Grads:
        """The gradients of the outputs, after the pre-hooks."""
        for hook in tuple(self.before.values()):
            grads = _changed(hook.function(self.module, grads), grads, "grad_output")
        self.grad_outputs = grads
        if not self.waiting:  # no input has a gradient
            self.entering((None,) * self.count)
        return grads

    def entering(self, grads: Grads) -> Grads:
        """The gradients of the inputs, after the hooks."""
        for hook in tuple(self.after.values()):
            grads = _changed(hook.function(self.module, grads, self.grad_outputs), grads, "grad_input")
        return grads


def _changed(found: Any, grads: Grads, what: str) -> Grads:
    if found is None:
        return grads
    if not isinstance(found, tuple):
        found = (found,)
    if len(found) != len(grads):
        raise RuntimeError(
            f"Backward hook returned an invalid number of {what}, got {len(found)}, but expected {len(grads)}"
        )
    changed: Grads = found
    return changed


class _Entry(Function):
    @staticmethod
    def forward(ctx: Any, passage: Passage, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The inputs as they are."""
        ctx.passage = passage
        return tuple(t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Runs the hooks."""
        needed = ctx.needs_input_grad[1:]
        told = tuple(g if n else None for g, n in zip(grads, needed, strict=True))
        return None, *ctx.passage.entering(told)


class _Exit(Function):
    @staticmethod
    def forward(ctx: Any, passage: Passage, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The outputs as they are."""
        ctx.passage = passage
        return tuple(t.view_as(t) for t in tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Runs the pre-hooks."""
        return None, *ctx.passage.leaving(grads)
