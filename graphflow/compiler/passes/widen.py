"""Widening: arithmetic on float16 and bfloat16 becomes arithmetic in float32 with every result rounded.

Kernels then only load and store these types and convert them from and to float32. An op's result is
rounded whether or not it is stored, so that fusion doesn't change a bit. Conversions from and to all other
types go by way of float32, as in PyTorch.
"""

from __future__ import annotations

from graphflow.compiler.ir import OPS, Graph, Node, TensorType, computes
from graphflow.compiler.rewrite import RuleSet
from graphflow.dtypes import DType, float32

_RULES = RuleSet()


def widen(graph: Graph) -> Graph:
    """The same function with arithmetic in float32 and float64 only."""
    return _RULES.apply(graph)


def _cast(x: Node, dtype: DType) -> Node:
    return x if x.dtype is dtype else OPS["cast"](x, dtype=dtype)


@_RULES.rule()
def in_single(node: Node) -> Node | None:
    """An op on such operands: the op on float32, its result rounded to the dtype it had."""
    if not computes(node.op) or not isinstance(node.type, TensorType):
        return None
    if not any(isinstance(i.type, TensorType) and i.dtype.is_half for i in node.inputs):
        return None
    wide = node.op(*(_cast(i, float32) if i.dtype.is_half else i for i in node.inputs), **node.attrs)
    return _cast(wide, node.dtype)


@_RULES.rule("cast")
def by_way_of_single(node: Node) -> Node | None:
    """A conversion between such a dtype and one that isn't float32."""
    x = node.inputs[0]
    pair = (x.dtype, node.dtype)
    if pair[0] is pair[1] or float32 in pair or not any(dtype.is_half for dtype in pair):
        return None
    return _cast(_cast(x, float32), node.dtype)
