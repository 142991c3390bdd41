"""Hooks on gradients, and gradients kept for tensors that aren't leaves, after PyTorch's Tensor methods."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Container, Hashable
from typing import Any

import numpy as np

from graphflow.compiler import ir
from graphflow.compiler.ir import Node, Op
from graphflow.compiler.passes.autodiff import vjp
from graphflow.compiler.trace import Trace, current_trace, tracing
from graphflow.errors import DTypeError, GradientError
from graphflow.memory import RETAINED, SAVED, advance_epoch, leaves_of
from graphflow.modes import no_grad
from graphflow.replay import in_history
from graphflow.tensor import Tensor, where_called

Hook = Callable[[Tensor], Tensor | None]
Hooks = dict[int, Hook]

_NUMBERS = itertools.count()
# Hooks of tensors that operations made; those of leaves stand on the leaf, whose node changes with its value.
_HOOKS: weakref.WeakKeyDictionary[Node, Hooks] = weakref.WeakKeyDictionary()
_EVER: set[bool] = set()  # not empty once there was a hook


class HookHandle:
    """What registering a hook gives: ``remove()`` takes it off again."""

    def __init__(self, hooks: dict[int, Any], number: int):
        self._hooks, self._number = hooks, number

    def remove(self) -> None:
        """Takes the hook off; does nothing the second time."""
        self._hooks.pop(self._number, None)
        advance_epoch()

    def __enter__(self) -> HookHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


def _add(hooks: dict[int, Any], hook: Any, name: str) -> HookHandle:
    if not callable(hook):
        raise DTypeError(f"{name}: a hook is a function, got {type(hook).__name__}{where_called()}")
    number = next(_NUMBERS)
    _EVER.add(True)
    hooks[number] = hook
    advance_epoch()
    return HookHandle(hooks, number)


def _of_leaf(leaf: Tensor, name: str) -> dict[int, Any]:
    found: dict[int, Any] = leaf.__dict__.setdefault(name, {})
    return found


def register_hook(self: Tensor, hook: Hook) -> HookHandle:
    """Calls ``hook(grad)`` whenever the gradient with respect to this tensor is computed.

    What the hook returns, unless None, takes the gradient's place for everything before. Hooks run in the
    order they were registered in. GradientError for a tensor that doesn't require grad.
    """
    if not self._requires_grad:
        raise GradientError(
            f"cannot register a hook on a tensor that doesn't require gradient{where_called()}"
        )
    if self.is_leaf:
        return _add(_of_leaf(self, "_grad_hooks"), hook, "register_hook")
    trace = current_trace()
    node = self._traced_node(trace) if trace is not None else self._history()
    return _add(_HOOKS.setdefault(node, {}), hook, "register_hook")


def register_post_accumulate_grad_hook(self: Tensor, hook: Callable[[Tensor], None]) -> HookHandle:
    """Calls ``hook(tensor)`` after ``backward`` has put a gradient on this leaf."""
    if not self._requires_grad or not self.is_leaf:
        raise GradientError(
            "post accumulate grad hooks can only be registered on leaf tensors that require grad"
            f"{where_called()}"
        )
    return _add(_of_leaf(self, "_post_hooks"), hook, "register_post_accumulate_grad_hook")


def retain_grad(self: Tensor) -> None:
    """Lets ``backward`` put this tensor's gradient into its ``.grad`` although it isn't a leaf."""
    if not self._requires_grad:
        raise GradientError(f"can't retain_grad on a tensor that has requires_grad=False{where_called()}")
    if not self.is_leaf:
        trace = current_trace()
        node = self._traced_node(trace) if trace is not None else self._history()
        RETAINED[node] = weakref.ref(self)


def _retains_grad(self: Tensor) -> bool:
    found = RETAINED.get(self._node) if self._node is not None else None
    return found is not None and found() is self


for _method in (register_hook, register_post_accumulate_grad_hook, retain_grad):
    setattr(Tensor, _method.__name__, _method)
Tensor.retains_grad = property(_retains_grad)  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------- running them


def _leaf_of(node: Node, trace: Trace | None) -> Tensor | None:
    if trace is not None:
        return leaves_of(trace).get(node)
    saved = SAVED.get(node)
    return saved.leaf() if saved is not None and saved.leaf is not None else None


def facts(hooks: dict[int, Any]) -> Callable[[], Hashable]:
    """What a compiled function that ran these hooks depends on."""
    return lambda: tuple((f"gradient hook {number}", number) for number in hooks)


def adjuster() -> Callable[[Node, Node], Node] | None:
    """`hooked`, unless nobody has ever registered a hook and nobody has to be told of later ones."""
    return hooked if _EVER or current_trace() is not None else None


def watched() -> Container[Node]:
    """The results of operations whose gradients somebody wants to see."""
    return _HOOKS


def hooked(node: Node, g: Node) -> Node:
    """The cotangent of a node after its hooks."""
    trace = current_trace()
    leaf = _leaf_of(node, trace)
    hooks = _HOOKS.get(node, {})
    if leaf is not None:
        hooks = _of_leaf(leaf, "_grad_hooks") if trace is not None else leaf.__dict__.get("_grad_hooks", {})
        if trace is not None:
            trace.depends_on(hooks, facts(hooks))
    for hook in list(hooks.values()):
        g = _run_traced(hook, g, trace) if trace is not None else _event(hook, g)
    return g


def accumulated(leaf: Tensor) -> None:
    """Runs what waits for the leaf's ``.grad``."""
    for hook in list(leaf.__dict__.get("_post_hooks", {}).values()):
        hook(leaf)


def _checked(result: Any, given: Tensor) -> Tensor:
    if result is None:
        return given
    if not isinstance(result, Tensor) or result.type_ != given.type_:
        got = result.type_ if isinstance(result, Tensor) else type(result).__name__
        raise GradientError(
            f"a gradient hook has to return None or a gradient like the one it got, {given.type_}; "
            f"it gave {got}"
        )
    return result


def _run_traced(hook: Hook, g: Node, trace: Trace) -> Node:
    given = Tensor.of_node(g, trace)
    return _checked(hook(given), given)._traced_node(trace)


def _event(hook: Hook, g: Node) -> Node:
    """The hook as an operation that runs when the gradient's value is known."""

    def run(array: np.ndarray) -> Any:
        with tracing(None), no_grad():
            given = Tensor.holding(array)
            return _checked(hook(given), given)._array

    def inline(operands: Any) -> list[Node]:
        trace = current_trace()
        assert trace is not None
        return [_run_traced(hook, operands[0], trace)]

    def gradient(gg: Node, out: Node, x: Node) -> list[Node | None]:
        problem = "a gradient hook uses a tensor that requires grad, which a second derivative would need"
        placed = in_history("hook", [x], inline, problem)
        return vjp(placed, [gg], [x], stop=frozenset([x]))

    op = Op("hook", "hook", lambda x: x, run, gradient, lambda rng: [], lowering=inline, arity=1)
    return ir.unshared_node(op, (g,), {})


__all__ = ["RETAINED", "HookHandle", "accumulated", "adjuster", "hooked", "retain_grad"]
