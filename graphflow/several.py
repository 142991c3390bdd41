"""Primitives with several results, on tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflow.compiler import interpret, ir
from graphflow.compiler.ir import OPS, Node, Op
from graphflow.compiler.location import user_loc
from graphflow.compiler.trace import Trace, current_trace
from graphflow.memory import RECORDING
from graphflow.tensor import Tensor, is_grad_enabled, record, where_called


def apply_several(op: Op, *tensors: Tensor, **attrs: Any) -> list[Tensor]:
    """The results of one primitive: computed now, or added to the current trace."""
    trace = current_trace()
    with ir.at(ir.current_loc() or user_loc()):
        if trace is not None:
            whole = op(*(t._traced_node(trace) for t in tensors), **attrs)
            parts = [OPS["project"](whole, index=i) for i in range(len(whole.type.items))]
            return projected(parts, trace, tensors)
        event = ir.unshared_node(op, tuple(t._history() for t in tensors), attrs)
        try:
            values = interpret.apply(event, [t._array for t in tensors], {})
        except IndexError as error:
            raise IndexError(f"{op.name}: {error}{where_called()}") from None
        results = [Tensor.holding(v) for v in values]
        wants_grad = is_grad_enabled() and any(t._requires_grad for t in tensors)
        if wants_grad:
            with RECORDING:
                for tensor in tensors:
                    tensor._history()  # is there again if a backward let it go meanwhile
                for i, result in enumerate(results):
                    if result.dtype.is_floating_point:
                        record(result, ir.unshared_node(OPS["project"], (event,), {"index": i}))
        return results


def projected(parts: Sequence[Node], trace: Trace, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Handles on what was traced of the tensors; gradients flow to where they are wanted."""
    wants_grad = is_grad_enabled() and any(t._requires_grad for t in tensors)
    flows = [wants_grad and p.dtype.is_floating_point for p in parts]
    return [
        Tensor.of_node(p if f or not p.dtype.is_floating_point else OPS["detach"](p), trace, f)
        for p, f in zip(parts, flows, strict=True)
    ]
