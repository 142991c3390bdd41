"""Custom functions at once: a call and its backward are events of the history."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphflow.autograd.context import FunctionCtx
from graphflow.compiler import ir
from graphflow.compiler.ir import OPS, Node, Op, TupleType
from graphflow.compiler.passes.autodiff import vjp, zeros
from graphflow.compiler.trace import Trace, current_trace, tracing
from graphflow.errors import GradientError
from graphflow.functions.create import zeros_like
from graphflow.modes import enable_grad, no_grad
from graphflow.replay import in_history
from graphflow.tensor import Tensor
from graphflow.variables import differentiating

if TYPE_CHECKING:
    from graphflow.autograd.function import _Call


class EagerCall:
    """A call as an event of the history: an operation whose gradient runs the user's backward."""

    def __init__(self, call: _Call, made: Sequence[Tensor]):
        self.call = call
        self.made = list(made)
        self.recorded: weakref.WeakValueDictionary[int, Node] = weakref.WeakValueDictionary()
        types = TupleType(tuple(o.type_ for o in made))
        self.op = Op(
            call.name, "control", lambda *operands: types, self._again, self._gradient, lambda rng: [],
            lowering=self._inline,
        )  # fmt: skip

    def _again(self, *arrays: np.ndarray) -> list[Any]:
        with tracing(None):
            ctx, self.call.ctx = self.call.ctx, FunctionCtx(self.call.ctx.needs_input_grad)
            try:
                outputs = self.call.run_forward(self.call.with_tensors([Tensor.holding(a) for a in arrays]))
            finally:
                self.call.ctx = ctx
        return [o._array for o in outputs if isinstance(o, Tensor)]

    def _inline(self, operands: Sequence[Node]) -> list[Node]:
        trace = current_trace()
        assert trace is not None
        tensors = [Tensor.of_node(n, trace) for n in operands]
        call = type(self.call)(self.call.function, tuple(self.call.with_tensors(tensors)))
        call.ctx, call.records = FunctionCtx(self.call.ctx.needs_input_grad), True
        found = call.traced(trace)
        outputs = found if isinstance(found, tuple) else (found,)
        return [o._traced_node(trace) for o in outputs if isinstance(o, Tensor)]

    def _gradient(self, g: Mapping[int, Node], out: Node, *operands: Node) -> list[Node | None]:
        ctx = self.call.ctx
        used = [i for i, o in enumerate(self.made) if any(o is t for t in ctx._saved)]
        outputs = [self.recorded.get(i) or OPS["project"](out, index=i) for i in used]
        asked = [i for i in g if i < len(self.made)]
        back = EagerBackward(self, used, asked)
        inputs = [operands[i] for i in back.inputs]
        node = ir.unshared_node(back.op, (*inputs, *outputs, *(g[i] for i in asked)), {})
        shares: list[Node | None] = [None] * len(operands)
        for index, owner in enumerate(back.owners):
            shares[owner] = ir.unshared_node(OPS["project"], (node,), {"index": index})
        return shares


class EagerBackward:
    """A backward as an event: run when its value is needed, traced when it is differentiated itself.

    Its operands are those of the call's operands and results that were saved, and the gradients. Where
    something else was saved, too, it needs all operands to compute that again for its derivatives.
    """

    def __init__(self, event: EagerCall, used: Sequence[int], asked: Sequence[int]):
        self.event, self.call = event, event.call
        self.used, self.asked = list(used), list(asked)
        ctx, tensors = self.call.ctx, self.call.tensors
        known = [*tensors, *event.made]
        between = [s for s in ctx._saved if s is not None and not any(s is t for t in known)]
        self.needs_all = any(s.dtype.kind == "float" for s in between)
        self.inputs = [i for i, t in enumerate(tensors) if self.needs_all or any(t is s for s in ctx._saved)]
        places = self.call.places
        self.owners = [i for i, p in enumerate(places) if ctx.needs_input_grad[p]]
        types = TupleType(tuple(self.call.tensors[i].type_ for i in self.owners))
        self.op = Op(
            f"{self.call.name}_backward", "control", lambda *operands: types, self._run, self._gradient,
            lambda rng: [], lowering=self._inline,
        )  # fmt: skip

    def _grads(self, given: Sequence[Tensor]) -> list[Tensor | None]:
        """A gradient for each result: zeros, or None if so wanted, where nothing depends on one."""
        by_index = dict(zip(self.asked, given, strict=True))
        if not self.call.ctx._materialize:
            return [by_index.get(i) for i in range(len(self.event.made))]
        made = enumerate(self.event.made)
        return [by_index[i] if i in by_index else zeros_like(o.detach()) for i, o in made]

    def _run(self, *arrays: np.ndarray) -> list[np.ndarray]:
        with tracing(None), no_grad():
            given = [Tensor.holding(a) for a in arrays[len(arrays) - len(self.asked) :]]
            found = self.call.run_backward(self._grads(given))
        results: list[Any] = []
        for i in self.owners:
            gradient, like = found[i], self.call.tensors[i].type_
            results.append(np.zeros(like.shape, like.dtype.numpy) if gradient is None else gradient._array)
        return results

    def _inline(self, operands: Sequence[Node]) -> list[Node]:
        """The backward traced on nodes of the current trace."""
        trace = current_trace()
        assert trace is not None
        handles = [Tensor.of_node(n, trace) for n in operands]
        count = len(self.inputs)
        known = [*(self.call.tensors[i] for i in self.inputs), *(self.event.made[i] for i in self.used)]
        ctx = self.call.ctx
        places = [next((i for i, t in enumerate(known) if t is s), None) for s in ctx._saved]
        again = self._saved_again(trace, handles[:count]) if self.needs_all else ctx._saved
        ctx._shown = tuple(
            handles[p] if p is not None else new if new is not None and new.dtype.kind == "float" else old
            for old, p, new in zip(ctx._saved, places, again, strict=True)
        )
        try:
            with enable_grad(), differentiating(handles):
                found = self.call.run_backward(self._grads(handles[count + len(self.used) :]))
        finally:
            ctx._shown = None
        results: list[Node] = []
        for i in self.owners:
            gradient = found[i]
            like = self.call.tensors[i].type_
            results.append(zeros(like) if gradient is None else gradient._traced_node(trace))
        return results

    def _saved_again(self, trace: Trace, args: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """What the forward saves that is neither argument nor result, traced, so that it has derivatives.

        Where the forward draws random numbers or changes anything, it can't be done again.
        """
        before = {key: state.current for key, state in trace.states.items()}
        first, self.call.ctx = self.call.ctx, FunctionCtx(self.call.ctx.needs_input_grad)
        try:
            self.call.run_forward(self.call.with_tensors(args))
            again = self.call.ctx._saved
        finally:
            self.call.ctx = first
        for key, state in trace.states.items():
            if state.current is not before.get(key, state.node):
                raise GradientError(
                    f"{self.call.name}.forward draws random numbers or changes tensors, and saves what is "
                    "neither an argument nor a result of it; return that, too, to get higher derivatives"
                )
        return again

    def _gradient(self, g: Mapping[int, Node], out: Node, *operands: Node) -> list[Node | None]:
        problem = (
            f"{self.call.name}.backward uses a tensor that requires grad and wasn't saved; a second "
            "derivative needs it among the arguments or in save_for_backward"
        )
        placed = in_history(self.op.name, operands, self._inline, problem)
        cotangents = [g.get(k) for k in range(len(placed))]
        return vjp(placed, cotangents, operands, stop=frozenset(operands))
