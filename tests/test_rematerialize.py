"""Which values are stored for other kernels, and which are computed again there."""

from __future__ import annotations

import graphflow as gf
import graphflow.nn.functional as F
import numpy as np
import pytest
from graphflow import nn
from graphflow.compiler.ir import OPS, Graph, Node
from graphflow.compiler.passes import fuse as fusion
from graphflow.compiler.passes.autodiff import vjp
from graphflow.compiler.passes.fuse import fuse
from graphflow.compiler.passes.rematerialize import _Flow
from graphflow.dtypes import float32
from graphflow.engine import compile_graph

from models import N, arg, layer_norm

X = (N, 40)


def tanh_gelu(x: Node) -> Node:
    """The approximation that transformers use, as PyTorch writes it."""
    inner = OPS["tanh"](0.79788456 * (x + 0.044715 * x * x * x))
    return 0.5 * x * (1.0 + inner)


def values(graph: Graph) -> list[Node]:
    """The values that kernels hand to each other, as large as a batch."""
    roots = set(graph.roots)
    found = [n for unit in fuse(graph).units for n in unit.outputs]
    return [n for n in found if n not in roots and n.shape[-1] == 40]


def stored(graph: Graph) -> list[str]:
    """Their ops."""
    return sorted(n.op.name for n in values(graph))


def same_bits(graph: Graph, rows: int = 7) -> None:
    """What is computed again has the bits of what would have been stored."""
    rng = np.random.default_rng(1)
    shapes = [tuple(rows if s == N else s for s in node.shape) for node in graph.inputs]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    ours, states = compile_graph(graph).run(arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fusion, "rematerialize", lambda *arguments: None)
        theirs, others = compile_graph(graph).run(arrays)
    for a, b in zip([*ours, *states], [*theirs, *others], strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_gradient_takes_what_it_needs_from_few_values() -> None:
    x, w, v, g = arg("x", *X), arg("w", 40, 40), arg("v", 40, 40), arg("g", *X)
    hidden = OPS["matmul"](x, w)
    out = OPS["matmul"](tanh_gelu(hidden), v)
    gradients = vjp([out], [g], [x, w, v])
    graph = Graph("g", (x, w, v, g), (), tuple(n for n in gradients if n is not None))
    assert len(stored(graph)) == 3  # the product, the second product's operand, one factor of the gradient
    same_bits(graph)


def test_a_layer_norm_leaves_statistics_not_rows() -> None:
    x, w, b, g, m = arg("x", *X), arg("w", 40), arg("b", 40), arg("g", *X), arg("m", 40, 40)
    out = OPS["matmul"](layer_norm(x, w, b), m)
    gradients = vjp([out], [g], [x, w, b])
    graph = Graph("g", (x, w, b, g, m), (), tuple(n for n in gradients if n is not None))
    assert "sub" not in stored(graph)  # it follows from the input and the mean
    same_bits(graph)


def used_twice(value: Node, x: Node, w: Node) -> Graph:
    """Of which the second kernel reads a value that the first one makes, too."""
    return Graph("g", (x, w), (), (OPS["matmul"](OPS["matmul"](value + x, w), w) * value,))


def test_expensive_values_are_stored() -> None:
    x, w = arg("x", *X), arg("w", 40, 40)
    graph = used_twice(OPS["erf"](x), x, w)
    assert "erf" in stored(graph)
    same_bits(graph)


def test_dear_values_are_computed_once_more_but_not_in_every_pass() -> None:
    x, w = arg("x", *X), arg("w", 40, 40)
    graph = used_twice(OPS["exp"](x), x, w)
    assert "exp" not in stored(graph)
    same_bits(graph)
    value = OPS["exp"](x)
    product = OPS["matmul"](OPS["matmul"](value + x, w), w)
    centred = value - OPS["sum"](product * value, dims=(1,))  # rows, in two passes
    graph = Graph("g", (x, w), (), (centred,))
    assert "exp" in stored(graph)
    same_bits(graph)
    column = OPS["exp"](OPS["sum"](x, dims=(1,)))  # one value for a whole row of what reads it
    graph = used_twice(column * x, x, w)
    assert not any(n.op.name == "exp" and n.shape == X for n in values(graph))
    same_bits(graph)


def test_a_dear_value_that_every_kernel_computes_for_itself_ends_no_search() -> None:
    graph = gf.parse_graph("""graph g(%w: float64[] state, %v: float16[3, 4] state) {
      %0 = cast(%v, dtype=@float32) : float32[3, 4]
      %1 = tanh(%w) : float64[]
      %2 = cast(%1, dtype=@float32) : float32[]
      %3 = cast(%2, dtype=@float16) : float16[]
      %4 = cast(%3, dtype=@float32) : float32[]
      %5 = add(%0, %4) : float32[3, 4]
      %6 = cast(%5, dtype=@float16) : float16[3, 4]
      %7 = cast(%6, dtype=@float32) : float32[3, 4]
      %8 = floor(%7) : float32[3, 4]
      return %8
    }""")
    compile_graph(graph)


def test_a_smaller_dtype_is_stored_instead_of_a_larger_one() -> None:
    x, w = arg("x", *X), arg("w", 40, 40)
    mask = OPS["gt"](OPS["exp"](x), 1.0)
    wide = OPS["cast"](mask, dtype=float32)
    graph = Graph("g", (x, w), (), (OPS["matmul"](x, w) * wide, OPS["sin"](OPS["matmul"](x * x, w)) * wide))
    assert "cast" not in stored(graph)
    same_bits(graph)


def test_a_state_that_was_overwritten_is_not_read_again() -> None:
    x, s, w = arg("x", *X), arg("s", 40), arg("w", 40, 40)
    before = s * 3.0
    hidden = OPS["matmul"](x * before, w)
    new = OPS["sum"](OPS["tanh"](hidden), dims=(0,))
    after = OPS["exp"](OPS["reshape"](new, shape=(40,)))
    late = OPS["matmul"](x, w) * (after + before)
    graph = Graph("g", (x, w), (s,), (late,), ((0, after),))
    same_bits(graph)


def test_a_mask_is_stored_where_what_it_follows_from_is_in_the_way() -> None:
    x, w, g = arg("x", *X), arg("w", 40, 40), arg("g", *X)
    hidden = OPS["maximum"](OPS["matmul"](x, w), 0.0)
    mask = OPS["gt"](hidden, 0.0)
    deep = OPS["tanh"](x * OPS["sum"](hidden, dims=(0,)))  # another kernel reads it, and then no other
    for _ in range(3):  # the largest values are alive between these, long after `hidden` was read
        wide = OPS["matmul"](OPS["cos"](deep), OPS["permute"](OPS["matmul"](w, w), dims=(1, 0)))
        deep = OPS["exp"](OPS["matmul"](OPS["sin"](wide), w))
    out = OPS["where"](mask, OPS["matmul"](deep, w) * OPS["matmul"](deep + 1.0, w), g)
    graph = Graph("g", (x, w, g), (), (out,))
    assert [n.op.name for n in values(graph) if n.dtype.name == "bool"] == ["gt"]
    same_bits(graph)


def test_the_cut_nearest_to_the_sink() -> None:
    flow = _Flow(4)
    for a, b, capacity in ((0, 1, 3), (1, 2, 2), (2, 3, 2)):
        flow.edge(a, b, capacity)
    flow.saturate(0, 3)
    assert flow.reaching(3) == {3}
    assert flow.left[0][1] == 1


class Residual(nn.Module):
    """A block that adds to the stream that runs through a deep network."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(16), nn.Linear(16, 16)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        """The stream with what this block makes of it."""
        return x + self.out(F.gelu(self.norm(x)))


def test_a_stream_is_not_added_up_from_the_start_by_every_layer() -> None:
    def compiled(depth: int) -> tuple[int, int]:
        blocks = [Residual() for _ in range(depth)]
        model = nn.Sequential(nn.Embedding(7, 16), *blocks, nn.LayerNorm(16), nn.Linear(16, 7))

        optimizer = gf.optim.SGD(model.parameters(), lr=0.1)

        @gf.compile
        def step(i: gf.Tensor) -> gf.Tensor:
            loss = F.cross_entropy(model(i).flatten(0, 1), i.flatten())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        step(gf.randint(0, 7, (4, 8)))
        sources = {report.source for report in step.explain().kernels}
        return len(sources), max(map(len, sources))

    assert compiled(4) == compiled(8)  # all layers share their kernels
