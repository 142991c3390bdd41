"""Functions with a gradient of the user's own, after ``torch.autograd.Function``.

While tracing, forward and backward are each traced once and become one operation of the graph. Outside, the
forward runs at once, and the backward when a gradient is asked for; it is traced only to be differentiated
itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from graphflow.autograd.context import FunctionCtx
from graphflow.autograd.events import EagerCall
from graphflow.compiler import ir
from graphflow.compiler.ir import OPS, Graph, Node, TensorType, broadcast_shapes, input_node
from graphflow.compiler.passes.autodiff import zeros
from graphflow.compiler.subgraph import close
from graphflow.compiler.trace import Trace, current_trace
from graphflow.errors import DTypeError, GradientError, ShapeError
from graphflow.histories import views_follow
from graphflow.memory import RECORDING
from graphflow.modes import enable_grad, is_grad_enabled, no_grad
from graphflow.replay import escaping
from graphflow.tensor import Tensor, apply, record, where_called
from graphflow.trees import flatten_tree
from graphflow.variables import differentiating


class Function:
    """Subclass with static methods ``forward`` and ``backward``; call ``YourFunction.apply(...)``.

    ``forward(ctx, *args)`` computes the results, a tensor or a tuple; without `ctx` if there is
    ``setup_context(ctx, inputs, output)``. ``backward(ctx, *grads)`` gets a gradient for each result and
    gives one for each argument of the forward, None where there is none. Operations in both aren't recorded;
    gradients of the gradient come from the backward's own operations.
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The results."""
        raise NotImplementedError("a Function needs a static method forward")

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Any) -> None:
        """What the forward leaves in ctx, if it doesn't do that itself."""
        raise NotImplementedError("no setup_context")

    @staticmethod
    def backward(ctx: FunctionCtx, *grad_outputs: Any) -> Any:
        """The gradients of the forward's arguments."""
        raise NotImplementedError("a Function needs a static method backward")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """The function's results for these arguments."""
        call = _Call(cls, args)
        trace = current_trace()
        return call.eager() if trace is None else call.traced(trace)


class _Call:
    """One application of a Function."""

    def __init__(self, function: type[Function], args: tuple[Any, ...]):
        self.function = function
        self.name = function.__name__
        self.args = args
        self.places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        self.tensors: list[Tensor] = [args[i] for i in self.places]
        needs = [isinstance(a, Tensor) and a._requires_grad for a in args]
        self.ctx = FunctionCtx(needs)
        self.records = any(needs) and is_grad_enabled()
        self.build: Callable[[Sequence[Any]], Any] = lambda outputs: None
        self.made: list[TensorType] = []

    def run_forward(self, args: Sequence[Any]) -> list[Any]:
        """The forward's results."""
        function, ctx = self.function, self.ctx
        with no_grad():
            if function.setup_context is not Function.setup_context:
                output = function.forward(*args)
                function.setup_context(ctx, tuple(args), output)
            else:
                output = function.forward(ctx, *args)
        if isinstance(output, (tuple, list)):
            self.build = tuple
            return list(output)
        self.build = lambda outputs: outputs[0]
        return [output]

    def with_tensors(self, tensors: Sequence[Tensor]) -> list[Any]:
        """The arguments with others in place of the tensors."""
        args = list(self.args)
        for place, tensor in zip(self.places, tensors, strict=True):
            args[place] = tensor
        return args

    def run_backward(self, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The backward's gradients for the tensor arguments, checked and in their shapes."""
        found = self.function.backward(self.ctx, *grads)
        if not isinstance(found, (tuple, list)):
            found = (found,)
        while len(found) > len(self.args) and found[-1] is None:  # for arguments left at their defaults
            found = found[:-1]
        if len(found) != len(self.args):
            raise GradientError(
                f"{self.name}.backward gave {len(found)} gradients, expected {len(self.args)}: one for each "
                f"argument of forward, None where there is none{where_called()}"
            )
        for i, gradient in enumerate(found):
            if i not in self.places and gradient is not None:
                raise GradientError(
                    f"{self.name}.backward gave a gradient for argument {i}, which is "
                    f"{type(self.args[i]).__name__} and not a tensor; give None{where_called()}"
                )
        return [self._fitted(i, found[i]) for i in self.places]

    def _fitted(self, place: int, gradient: Tensor | None) -> Tensor | None:
        wanted = self.args[place].type_
        if gradient is None or not self.ctx.needs_input_grad[place]:
            return None
        told = f"{self.name}.backward: the gradient of argument {place}"
        if not isinstance(gradient, Tensor):
            raise GradientError(f"{told} has to be a tensor, got {type(gradient).__name__}{where_called()}")
        try:
            fits = broadcast_shapes(gradient.type_.shape, wanted.shape) == gradient.type_.shape
        except ShapeError:
            fits = False
        if not fits:
            raise GradientError(
                f"{told} has to have its shape {wanted}, got {gradient.type_}{where_called()}"
            )
        if gradient.dtype is not wanted.dtype:
            gradient = apply(OPS["cast"], gradient, dtype=wanted.dtype)
        if gradient.type_.shape != wanted.shape:
            extra = gradient.ndim - len(wanted.shape)
            dims = tuple(
                d for d, s in enumerate(gradient.type_.shape)
                if d < extra or (wanted.shape[d - extra] == 1 and s != 1)
            )  # fmt: skip
            gradient = apply(OPS["reshape"], apply(OPS["sum"], gradient, dims=dims), shape=wanted.shape)
        return gradient

    # ------------------------------------------------------------------------------------------ at once

    def eager(self) -> Any:
        """Runs the forward; with gradients wanted, the call becomes one event of the history."""
        versions = [t._storage.version for t in self.tensors]
        histories = [t._history() for t in self.tensors] if self.records else []
        outputs = self.run_forward(self.args)
        self._require_marked([t._storage.version != v for t, v in zip(self.tensors, versions, strict=True)])
        if not self.records:
            return self.build(outputs)
        if any(t._alias is not None for t in self.ctx._dirty):
            raise GradientError(
                f"{self.name}.forward changes a view in place, and the gradient can't reach the tensor "
                f"that it is a view of; .clone() it first{where_called()}"
            )
        with RECORDING:
            for tensor, version in zip(self.tensors, versions, strict=True):
                if tensor._storage.version == version:
                    tensor._history()  # is there again if a backward let it go meanwhile
            return self.build(self._recorded(outputs, histories))

    def _recorded(self, outputs: Sequence[Any], histories: Sequence[Node]) -> list[Any]:
        """What the forward gave, with the call as its history."""
        made = [o for o in outputs if isinstance(o, Tensor)]
        event = EagerCall(self, made)
        node = ir.unshared_node(event.op, tuple(histories), {})
        results: list[Any] = []
        for output in outputs:
            if not isinstance(output, Tensor) or self.ctx._is_fixed(output):
                results.append(output)
                continue
            dirty = any(output is t for t in self.ctx._dirty)
            assert output._array is not None
            result = output if dirty else Tensor.holding(output._array, output._storage)
            index = next(i for i, o in enumerate(made) if o is output)
            record(result, ir.unshared_node(OPS["project"], (node,), {"index": index}))
            if dirty:
                views_follow(result)
            assert result._node is not None
            event.recorded[index] = result._node
            results.append(result)
        return results

    def _require_marked(self, changed: Sequence[bool]) -> None:
        for tensor, was_changed in zip(self.tensors, changed, strict=True):
            if was_changed and not any(tensor is t for t in self.ctx._dirty):
                raise GradientError(
                    f"{self.name}.forward changes an argument in place without ctx.mark_dirty(it)"
                    f"{where_called()}"
                )
            if was_changed and tensor._requires_grad and tensor._leaf and is_grad_enabled():
                raise GradientError(
                    f"{self.name}: a leaf tensor that requires grad is being changed in place{where_called()}"
                )

    # ------------------------------------------------------------------------------------------ traced

    def traced(self, trace: Trace) -> Any:
        """Traces forward and backward on stand-ins, and puts one operation into the graph."""
        args = [t._traced_node(trace) for t in self.tensors]
        stand_ins = [input_node("x", n.type) for n in args]
        handles = [Tensor.of_node(n, trace) for n in stand_ins]
        with escaping(trace, stand_ins) as escaped:
            outputs = self.run_forward(self.with_tensors(handles))
        changed = [h._traced_node(trace) is not s for h, s in zip(handles, stand_ins, strict=True)]
        dirty = [i for i, h in enumerate(handles) if any(h is t for t in self.ctx._dirty)]
        if any(c and i not in dirty for i, c in enumerate(changed)):
            raise GradientError(
                f"{self.name}.forward changes an argument in place without ctx.mark_dirty(it){where_called()}"
            )
        made = [o for o in outputs if isinstance(o, Tensor)]
        roots = [o._traced_node(trace) for o in made]
        saved = [None if t is None else t._traced_node(trace) for t in self.ctx._saved]
        kept = [n for n in dict.fromkeys(saved) if n is not None and n not in stand_ins and n not in roots]
        body, captured = close(self.name, stand_ins, [*roots, *kept, *escaped.nodes])
        self.made = [o.type_ for o in made]
        node = self._operation(trace, args, body, captured, saved, [*roots, *kept])
        items = [OPS["project"](node, index=i) for i in range(len(body.outputs))]
        escaped.rebind(items[len(roots) + len(kept) :])
        results: list[Any] = []
        for output in outputs:
            if not isinstance(output, Tensor):
                results.append(output)
                continue
            index = next(i for i, o in enumerate(made) if o is output)
            flows = self.records and not self.ctx._is_fixed(output)
            item = items[index] if flows or output.dtype.kind != "float" else OPS["detach"](items[index])
            result = Tensor.of_node(item, trace, flows)
            place = next((i for i in dirty if output is handles[i]), None)
            results.append(result if place is None else self.tensors[place]._assign(result))
        return self.build(results)

    def _operation(
        self,
        trace: Trace,
        args: list[Node],
        body: Graph,
        captured: Sequence[Node],
        saved: Sequence[Node | None],
        kept: Sequence[Node],
    ) -> Node:
        """Traces the backward too, and makes the node. What either takes from around, both get."""
        count = len(args)
        stand_ins = body.args[:count]
        seen = [input_node("saved", o.type) for o in body.outputs]
        made = self.made
        grads = [input_node("grad", t) if t.dtype.is_floating_point else None for t in made]
        received = [g for g in grads if g is not None]
        owners: list[int] = []
        pulled: list[Node] = []
        if self.records:
            shown = {**{s: s for s in stand_ins}, **dict(zip(kept, seen, strict=False))}
            self.ctx._shown = tuple(None if n is None else Tensor.of_node(shown[n], trace) for n in saved)
            given = [zeros(t) if g is None else g for g, t in zip(grads, made, strict=True)]
            inside = [*stand_ins, *seen, *received]
            flowing = differentiating([Tensor.of_node(n, trace) for n in inside])
            with enable_grad(), escaping(trace, inside) as escaped, flowing:
                found = self.run_backward([Tensor.of_node(g, trace) for g in given])
            self.ctx._shown = None
            if escaped.nodes:
                raise GradientError(f"{self.name}.backward changes a tensor in place{where_called()}")
            owners = [i for i, g in enumerate(found) if g is not None]
            pulled = [g._traced_node(trace) for g in found if g is not None]
        backward, more = close(f"{self.name}_backward", [*stand_ins, *seen, *received], pulled)
        own = backward.args[len(backward.args) - len(more) :]
        between = [input_node("captured", n.type) for n in captured]
        whole = Graph(
            backward.name,
            (*stand_ins, *between, *own, *seen, *received),
            (),
            backward.outputs,
        )
        forward = Graph(
            body.name, (*body.args, *(input_node("captured", n.type) for n in more)), (), body.outputs
        )
        return OPS["custom"](
            *args, *captured, *more, body=forward, backward=whole, results=len(made), owners=tuple(owners)
        )


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a backward that can't be differentiated itself: doing so is an error."""

    @functools.wraps(backward)
    def wrapped(ctx: FunctionCtx, *grads: Any) -> Any:
        found = backward(ctx, *grads)
        several = isinstance(found, (tuple, list))
        marked = [
            apply(OPS["once"], g) if isinstance(g, Tensor) else g for g in (found if several else (found,))
        ]
        return tuple(marked) if several else marked[0]

    return wrapped


def custom_function(
    forward: Callable[..., Any] | None = None, backward: Callable[..., Any] | None = None
) -> Callable[..., Any]:
    """A function with a gradient of its own: ``f = custom_function(forward, backward)``.

    ``forward(*args)`` returns ``(output, saved)``, where `saved` is any nesting of tensors and other values;
    ``backward(saved, *gradients)``, given a gradient for each result, gives the gradients of the arguments
    (one, or a tuple, None where there is none). ``@custom_function(backward=...)`` decorates the forward.
    """
    if backward is None:
        raise DTypeError(f"custom_function: needs a backward{where_called()}")
    if forward is None:
        return functools.partial(custom_function, backward=backward)
    run, pull = forward, backward

    class Custom(Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            result = run(*args)
            if not (isinstance(result, tuple) and len(result) == 2):
                raise GradientError(
                    f"{Custom.__name__}: a custom forward returns (output, saved), it returned "
                    f"{type(result).__name__}{where_called()}"
                )
            output, saved = result
            leaves, ctx.build = flatten_tree(saved)
            ctx.others = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            ctx.save_for_backward(*(leaf if isinstance(leaf, Tensor) else None for leaf in leaves))
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            pairs = zip(ctx.saved_tensors, ctx.others, strict=True)
            return pull(ctx.build([o if t is None else t for t, o in pairs]), *grads)

    Custom.__name__ = getattr(forward, "__name__", "custom")

    @functools.wraps(forward)
    def call(*args: Any) -> Any:
        return Custom.apply(*args)

    return call


__all__ = ["Function", "FunctionCtx", "custom_function", "once_differentiable"]
