"""Which slices need a look at the sizes before a run."""

from __future__ import annotations

from typing import Any

import pytest
from graphflow.compiler import ir
from graphflow.compiler.bounds import unproved
from graphflow.compiler.ir import OPS, Graph, Node, TensorType, input_node
from graphflow.compiler.location import Loc
from graphflow.compiler.ops.control import items, scan
from graphflow.dims import Dim
from graphflow.dtypes import float32
from graphflow.errors import ShapeError

N = Dim.symbol("n")


def sliced(size: Any, start: Any, step: int, count: Any) -> Graph:
    x = input_node("x", TensorType(float32, (size,)))
    with ir.at(Loc("model.py", 4, "f")):
        return Graph("g", (x,), (), (OPS["slice"](x, starts=(start,), steps=(step,), sizes=(count,)),))


@pytest.mark.parametrize(
    ("size", "start", "step", "count"),
    [(N, 0, 1, N), (N + 1, 1, 1, N), (N + 3, 2, 1, N), (N, N - 1, -1, N), (2 * N, 0, 2, N), (2 * N, N, 1, N),
     (N, 0, 1, 0), (5, 1, 1, 3), (N + 4, 1, 1, 3)],
)  # fmt: skip
def test_bounds_that_always_hold(size: Any, start: Any, step: int, count: Any) -> None:
    assert unproved(sliced(size, start, step, count)) == ()


@pytest.mark.parametrize(
    ("graph", "good", "bad"),
    [
        (sliced(N, 5, 1, 3), [8, 9, 100], [0, 5, 7]),
        (sliced(N, 0, 1, N - 2), [2, 3, 9], [0, 1]),
        (sliced(N, N - 3, 1, 3), [3, 4], [0, 2]),
        (sliced(N, 4, 1, N), [0], [1, 5]),
        (sliced(N, 3, -1, 4), [4, 5], [0, 3]),
        (sliced(N, 0, 2, N // 2), [0, 1, 2, 5, 8], []),
        (sliced(10, N, 1, 1), [0, 9], [10]),
    ],
)
def test_bounds_that_hold_for_some_sizes(graph: Graph, good: list[int], bad: list[int]) -> None:
    (bound,) = unproved(graph)
    for n in good:
        bound.check({"n": n})
    for n in bad:
        with pytest.raises(ShapeError, match=r"slice: .* don't fit a dimension of size .*n = ") as raised:
            bound.check({"n": n})
        assert "model.py:4" in str(raised.value)


def test_pads_and_sub_graphs_count() -> None:
    x = input_node("x", TensorType(float32, (2,)))
    padded = OPS["pad"](x, shape=(N,), starts=(3,), steps=(1,))
    back = OPS["slice"](padded, starts=(3,), steps=(1,), sizes=(2,))
    y = input_node("y", TensorType(float32, (2,)))
    z: Node = input_node("z", TensorType(float32, (N,)))
    loop = scan(y, body=Graph("b", (x,), (), (back,)), carries=1, sequences=0, length=2, reverse=False)
    (bound,) = unproved(Graph("g", (y, z), (), items(loop)))
    bound.check({"n": 5})
    with pytest.raises(ShapeError, match="pad: 2 elements from 3 to 4 don't fit"):
        bound.check({"n": 4})
