"""The derivative of something computed, as linear functions that can be called again and again.

``pull`` takes cotangents of the results back to the variables, ``push`` takes tangents of the variables
forward to the results. Both work wherever they are called: at once, inside a compiled function, inside vmap.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphflow.autograd.gradients import carrying, require_unchanged
from graphflow.compiler import ir
from graphflow.compiler.ir import OPS, Node, input_node
from graphflow.compiler.passes.autodiff import vjp, zeros
from graphflow.compiler.trace import current_trace
from graphflow.memory import SAVED
from graphflow.replay import replay
from graphflow.tensor import Tensor, is_grad_enabled
from graphflow.variables import node_in


class Linear:
    """The derivative of `outputs` with respect to `variables` at the values they have."""

    def __init__(self, outputs: Sequence[Tensor], variables: Sequence[Tensor]):
        self.outputs = list(outputs)
        self.variables = list(variables)
        self._trace = current_trace()
        self._wrt = [node_in(v, self._trace) for v in variables]
        self._made = [node_in(o, self._trace) if o._requires_grad else None for o in outputs]
        self._built: dict[tuple[str, tuple[bool, ...]], tuple[list[Node], list[Node | None]]] = {}

    def pull(self, cotangents: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Cotangents of the variables; None for one that the outputs with a cotangent don't depend on."""
        return self._run("pull", cotangents)

    def push(self, tangents: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Tangents of the outputs; None for one that doesn't depend on the variables with a tangent."""
        return self._run("push", tangents)

    def _build_pull(self, given: Sequence[bool]) -> tuple[list[Node], list[Node | None]]:
        seeds = [input_node(f"cotangent{i}", o.type_) for i, o in enumerate(self.outputs)]
        chosen = [s if g else None for s, g in zip(seeds, given, strict=True)]
        return seeds, self._pulled(chosen)

    def _pulled(self, cotangents: Sequence[Node | None]) -> list[Node | None]:
        pairs = [(o, c) for o, c in zip(self._made, cotangents, strict=True) if o is not None]
        watched = None if self._trace is None else ()
        return vjp([o for o, _ in pairs], [c for _, c in pairs], self._wrt, watched=watched)

    def _build_push(self, given: Sequence[bool]) -> tuple[list[Node], list[Node | None]]:
        """The transpose of the transpose: what `pull` does is linear in the cotangents, so its own gradient
        with respect to them is the derivative itself. Nothing of `pull` is computed for it.
        """
        cotangents = [
            OPS["alias"](input_node(f"cotangent{i}", o.type_), uid=-1) for i, o in enumerate(self.outputs)
        ]
        seeds = [input_node(f"tangent{i}", v.type_) for i, v in enumerate(self.variables)]
        pairs = [
            (p, s if g else None)
            for p, s, g in zip(self._pulled(cotangents), seeds, given, strict=True)
            if p is not None
        ]
        pushed = vjp([p for p, _ in pairs], [s for _, s in pairs], cotangents)
        clear = {c.inputs[0]: zeros(c.type) for c in cotangents}
        found = iter(ir.substitute([p for p in pushed if p is not None], clear))
        return seeds, [None if p is None else next(found) for p in pushed]

    def _run(self, way: str, values: Sequence[Tensor | None]) -> list[Tensor | None]:
        key = way, tuple(v is not None for v in values)
        if key not in self._built:
            self._built[key] = (self._build_pull if way == "pull" else self._build_push)(key[1])
        seeds, results = self._built[key]
        tensors = {s: v for s, v in zip(seeds, values, strict=True) if v is not None}
        roots = [r for r in results if r is not None]
        found = iter(self._traced(roots, tensors) if self._trace is not None else _concrete(roots, tensors))
        return [None if r is None else next(found) for r in results]

    def _traced(self, roots: Sequence[Node], tensors: dict[Node, Tensor]) -> list[Tensor]:
        trace = current_trace()
        if trace is not self._trace or trace is None:
            self.outputs[0]._leaked()
        assert trace is not None
        nodes = ir.substitute(roots, {s: t._traced_node(trace) for s, t in tensors.items()})
        flows = carrying(nodes, trace) if is_grad_enabled() else [False] * len(nodes)
        return [
            Tensor.of_node(n if f else OPS["detach"](n), trace, f) for n, f in zip(nodes, flows, strict=True)
        ]


def _concrete(roots: Sequence[Node], tensors: dict[Node, Tensor]) -> list[Tensor]:
    """From the values that were saved on the way forward, with the history those have."""
    saved = [n for n in ir.toposort(roots, stop={n for n in ir.toposort(roots) if n in SAVED}) if n in SAVED]
    known = dict(tensors)
    for node, carries in zip(saved, carrying(saved, None), strict=True):
        value = SAVED[node]
        require_unchanged(node, value)
        leaf = value.leaf() if value.leaf is not None else None
        if leaf is not None:
            known[node] = leaf
            continue
        handle = known[node] = Tensor.holding(value.array, value.storage)
        if carries:
            handle._node, handle._node_version = node, value.version
            handle._requires_grad, handle._leaf = True, False
    return replay(roots, known)


__all__ = ["Linear"]
