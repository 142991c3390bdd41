"""Simplification: identities that hold for every IEEE value, constants folded, broadcasts and reshapes
removed.

``x + 0`` is not among them (it turns -0 into 0), nor is ``x * 0`` (NaN) or ``x - x``.
"""

from __future__ import annotations

from graphflow.compiler import interpret
from graphflow.compiler.indexing import numel
from graphflow.compiler.ir import OPS, Graph, Node, broadcast_shapes, constant
from graphflow.compiler.passes.expand import expand
from graphflow.compiler.passes.hoist import hoist_products, read_sequence
from graphflow.compiler.passes.merge import merge_scans
from graphflow.compiler.rewrite import RuleSet
from graphflow.dims import Dim
from graphflow.dtypes import int64

RULES = RuleSet()
rule = RULES.rule
rule("scan")(hoist_products)
rule("project")(read_sequence)


def simplify(graph: Graph) -> Graph:
    """The same function with less in it, and without calls."""
    return RULES.apply(merge_scans(expand(graph)))


def _const(node: Node) -> object:
    """The value of a 0-d constant, or None."""
    return node.attrs["value"] if node.op.name == "const" else None


def _is_number(node: Node, number: float) -> bool:
    value = _const(node)
    return value is not None and not isinstance(value, Dim) and value == number


def _same_type(kept: Node, node: Node) -> Node | None:
    """`kept` in place of `node`, broadcast if it is smaller."""
    if kept.type == node.type:
        return kept
    return OPS["expand"](kept, shape=node.shape)


@rule("alias", "detach", "once")
def drop_marker(node: Node) -> Node:
    """Markers have done their work once gradients are built."""
    return node.inputs[0]


_KEPT = ("alias", "detach", "once", "checked_index")  # a bad index is told when the graph runs


@rule()
def fold_constants(node: Node) -> Node | None:
    """An elementwise op on constants is a constant."""
    if node.op.kind != "elementwise" or node.op.name in _KEPT or not node.inputs:
        return None
    values = [_const(i) for i in node.inputs]
    if any(v is None or isinstance(v, Dim) for v in values):
        return None
    arrays = [interpret.apply(i, [], {}) for i in node.inputs]
    return constant(interpret.apply(node, arrays, {}).item(), node.dtype)


@rule("mul", "div")
def multiply_by_one(node: Node) -> Node | None:
    """x * 1, 1 * x, x / 1."""
    x, y = node.inputs
    if _is_number(y, 1):
        return _same_type(x, node)
    if node.op.name == "mul" and _is_number(x, 1):
        return _same_type(y, node)
    return None


@rule("mul")
def multiply_by_minus_one(node: Node) -> Node | None:
    """x * -1 is -x."""
    x, y = node.inputs
    if x.dtype.kind != "float":
        return None
    if _is_number(y, -1):
        return _same_type(-x, node)
    return _same_type(-y, node) if _is_number(x, -1) else None


@rule("neg")
def double_negation(node: Node) -> Node | None:
    """-(-x)."""
    return node.inputs[0].inputs[0] if node.inputs[0].op.name == "neg" else None


@rule("pow")
def small_powers(node: Node) -> Node | None:
    """x**1, x**2, x**3, x**0.5 and x**-1 without the general power."""
    x, y = node.inputs
    if x.dtype.kind != "float" or not isinstance(_const(y), (int, float)):
        return None
    exponent = float(_const(y))  # type: ignore[arg-type]
    if exponent == 1:
        return _same_type(x, node)
    if exponent == 2:
        return x * x
    if exponent == 3:
        return x * x * x
    return 1.0 / x if exponent == -1 else None


@rule("cast")
def drop_cast(node: Node) -> Node | None:
    """A cast to the dtype it has, there and back through a wider one, or a constant's."""
    x = node.inputs[0]
    if x.dtype is node.dtype:
        return x
    if x.op.name == "cast" and x.inputs[0].dtype is node.dtype and node.dtype.is_half:
        return x.inputs[0] if x.dtype.kind == "float" and not x.dtype.is_half else None
    if x.op.name == "cast" and x.dtype is int64 and x.inputs[0].dtype.name == "bool":
        return OPS["cast"](x.inputs[0], dtype=node.dtype)
    return None


@rule("where")
def constant_condition(node: Node) -> Node | None:
    """A condition known now, or two equal branches."""
    condition, x, y = node.inputs
    if x is y:
        return _same_type(x, node)
    value = _const(condition)
    return None if value is None else _same_type(x if value else y, node)


@rule("reshape")
def merge_reshapes(node: Node) -> Node | None:
    """A reshape of a reshape, to the same shape, or of a constant."""
    x = node.inputs[0]
    if x.shape == node.shape:
        return x
    if x.op.name == "reshape":
        return OPS["reshape"](x.inputs[0], shape=node.shape)
    if x.op.name == "expand" and numel(x.inputs[0].shape) == 1:
        scalar = x.inputs[0]
        scalar = scalar if scalar.shape == () else OPS["reshape"](scalar, shape=())
        return OPS["expand"](scalar, shape=node.shape)
    if x.op.name == "const":
        return OPS["expand"](x, shape=node.shape)
    return None


@rule("expand")
def merge_expands(node: Node) -> Node | None:
    """An expand of an expand, or to the same shape."""
    x = node.inputs[0]
    if x.shape == node.shape:
        return x
    if x.op.name == "expand":
        return OPS["expand"](x.inputs[0], shape=node.shape)
    return None


@rule("permute")
def merge_permutes(node: Node) -> Node | None:
    """A permute of a permute, one that moves nothing, or of an expanded scalar."""
    x, dims = node.inputs[0], node.attrs["dims"]
    if dims == tuple(range(len(dims))):
        return x
    if x.op.name == "permute":
        inner = x.attrs["dims"]
        return OPS["permute"](x.inputs[0], dims=tuple(inner[d] for d in dims))
    if x.op.name == "expand" and x.inputs[0].shape == ():
        return OPS["expand"](x.inputs[0], shape=node.shape)
    return None


@rule("pad")
def pad_before_permute(node: Node) -> Node | None:
    """Zeros around permuted dimensions are put there first: a convolution's gradient sees the image with
    other dimensions in front, and the padded image is there already.
    """
    x = node.inputs[0]
    if x.op.name != "permute":
        return None
    dims = x.attrs["dims"]
    place = [dims.index(d) for d in range(len(dims))]
    attrs = {name: tuple(node.attrs[name][d] for d in place) for name in ("shape", "starts", "steps")}
    return OPS["permute"](OPS["pad"](x.inputs[0], **attrs), dims=dims)


@rule("permute")
def transpose_product(node: Node) -> Node | None:
    """(A B)ᵀ is Bᵀ Aᵀ: products read their operands by strides, so the transpose costs nothing there.

    The gradient of a weight that was used transposed comes out this way in the weight's own layout.
    """
    x, dims = node.inputs[0], node.attrs["dims"]
    last = len(dims) - 1
    if x.op.name != "matmul" or dims != (*range(last - 1), last, last - 1):
        return None
    left, right = x.inputs
    return OPS["matmul"](_transposed(right), _transposed(left))


def _transposed(x: Node) -> Node:
    last = len(x.shape) - 1
    return OPS["permute"](x, dims=(*range(last - 1), last, last - 1))


@rule("slice")
def slice_of_scalar(node: Node) -> Node | None:
    """A slice that takes everything, or of an expanded scalar."""
    x = node.inputs[0]
    if (
        x.shape == node.shape
        and all(s == 1 for s in node.attrs["steps"])
        and all(s == 0 for s in node.attrs["starts"])
    ):
        return x
    if x.op.name == "expand" and x.inputs[0].shape == ():
        return OPS["expand"](x.inputs[0], shape=node.shape)
    return None


@rule()
def push_expand_down(node: Node) -> Node | None:
    """Elementwise ops broadcast by themselves: expanding an operand first does nothing, or can wait."""
    if node.op.kind != "elementwise" or not any(i.op.name == "expand" for i in node.inputs):
        return None
    sources = tuple(i.inputs[0] if i.op.name == "expand" else i for i in node.inputs)
    shape = broadcast_shapes(*(s.shape for s in sources))
    smaller = node.op(*sources, **node.attrs)
    return smaller if shape == node.shape else OPS["expand"](smaller, shape=node.shape)


@rule("sum")
def sum_of_broadcast(node: Node) -> Node | None:
    """Nothing to sum; or copies of one value, which is a product with their number."""
    x, dims = node.inputs[0], node.attrs["dims"]
    if all(x.shape[d] == 1 for d in dims):
        return x
    if x.op.name != "expand":
        return None
    source = x.inputs[0]
    shift = len(x.shape) - len(source.shape)
    repeated = tuple(d for d in dims if d < shift or (source.shape[d - shift] == 1 and x.shape[d] != 1))
    if not repeated:
        return None
    count = numel(tuple(x.shape[d] for d in repeated))
    if not isinstance(count, int) or count == 0:
        return None  # no copies of an infinity sum to 0, their product with 0 is NaN
    times = source * count
    target = tuple(1 if d in repeated else s for d, s in enumerate(x.shape))
    rest = OPS["expand"](times, shape=target) if times.shape != target else times
    left = tuple(d for d in dims if d not in repeated)
    return OPS["sum"](rest, dims=left) if left else rest


@rule("max", "peak", "min", "any", "all", "prod")
def reduce_nothing(node: Node) -> Node | None:
    """A reduction over dimensions of size 1."""
    x = node.inputs[0]
    return x if all(x.shape[d] == 1 for d in node.attrs["dims"]) else None


@rule("argmax", "argmin")
def only_one_place(node: Node) -> Node | None:
    """The winner among one element."""
    x = node.inputs[0]
    if all(x.shape[d] == 1 for d in node.attrs["dims"]):
        return _same_type(constant(0, int64), node)
    return None


def split_reductions(graph: Graph) -> Graph:
    """Every reduction over one run of neighbouring dimensions, and none over a whole array of several.

    Rows first, then what is left: more accurate than one running sum, parallel over rows, and the shape that
    row kernels take.
    """
    return _SPLIT.apply(graph)


_SPLIT = RuleSet()


@_SPLIT.rule("sum", "prod", "max", "peak", "min", "any", "all")
def _split(node: Node) -> Node | None:
    x = node.inputs[0]
    dims = tuple(d for d in sorted(node.attrs["dims"]) if x.shape[d] != 1)
    wide = [d for d, s in enumerate(x.shape) if s != 1]
    if len(dims) <= 1:
        return None
    positions = [wide.index(d) for d in dims]
    run = [dims[-1]]
    if positions[-1] == len(wide) - 1 and len(dims) == len(wide):
        pass  # everything is reduced: the last dimension by itself, so that rows remain
    else:
        for d, position in zip(reversed(dims[:-1]), reversed(positions[:-1]), strict=True):
            if position != wide.index(run[0]) - 1:
                break
            run.insert(0, d)
    if len(run) == len(dims):
        return None
    first = node.op(x, dims=tuple(run))
    return node.op(first, dims=tuple(d for d in dims if d not in run))
