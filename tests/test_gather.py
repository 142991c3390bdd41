"""Operands that several dimensions are merged in: where their elements are, and the packers made for them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import graphflow as gf
import llvmlite.binding as binding
import numpy as np
import pytest
from graphflow import dtypes
from graphflow.compiler.codegen import llvm
from graphflow.compiler.codegen.matmul_blocking import blocking
from graphflow.compiler.codegen.matmul_gather import Axis, packer
from graphflow.compiler.ir import OPS, Node, TensorType, input_node
from graphflow.compiler.spread import spread
from graphflow.dims import Dim, evaluate
from graphflow.runtime.program import BufferArg, SizeArg

from test_matmul_core import DTYPES, PACK, TARGETS, VARIANTS

N = Dim.symbol("n")

# What A's rows or B's columns, and the depth, run over: (size, stride) from the slowest to the fastest.
AXES: dict[str, tuple[Axis, Axis]] = {
    "windows by rows": (((5, 40), (7, 1)), ((3, 400), (2, 40), (3, 1))),
    "windows by depth": (((3, 400), (2, 40), (3, 7)), ((5, 40), (37, 1))),
    "depth in runs, rows apart": (((50, 211),), ((2, 77), (37, 1))),
    "strided windows": (((5, 80), (9, 2)), ((3, 400), (3, 40), (3, 1))),
    "nothing runs": (((6, 50), (4, 7)), ((3, 400), (5, 11))),
    "one row": ((), ((3, 400), (9, 1))),
    "symbolic": (((N, 1000), (11, 20)), ((4, 100), (20, 1))),
    "symbolic rows": (((N, 100), (6, 1)), ((3, 31), (N, 7))),
    "long table": (((10, 1),), ((90, 100), (100, 1))),
}


def positions(axis: Axis) -> np.ndarray:
    """The offset of every place on an axis."""
    parts = [np.arange(evaluate(size, {"n": 3})) * evaluate(stride, {"n": 3}) for size, stride in axis]
    total = np.zeros((), int)
    for part in parts:
        total = np.add.outer(total, part)
    return total.reshape(-1)


def load(symbol: str, text: str, variant: str) -> tuple[Callable[..., None], object]:
    code = llvm.emit([text], TARGETS[variant])
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), llvm.host().machine())
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    return PACK(engine.get_function_address(symbol)), engine


@VARIANTS
@DTYPES
@pytest.mark.parametrize("side", ["a", "b"])
@pytest.mark.parametrize("axes", AXES, ids=lambda name: name.replace(" ", "_"))
def test_packers(variant: str, dtype: dtypes.DType, side: str, axes: str) -> None:
    rows, depth = AXES[axes]
    batch: Axis = ((2, 50000), (3, 10000))
    target = TARGETS[variant]
    made = packer(dtype, side, BufferArg(0), batch, rows, depth, target)
    function, _alive = load(made.symbol, made.text, variant)
    assert made.args[0] == BufferArg(0)
    memory = np.random.default_rng(1).standard_normal(150000).astype(dtype.numpy)
    sizes = [evaluate(arg.value, {"n": 3}) for arg in made.args[1:] if isinstance(arg, SizeArg)]
    words = np.array([memory.ctypes.data, *sizes], np.int64)
    row_at, k_at = positions(rows), positions(depth)
    lanes = blocking(dtype.itemsize, target).lanes
    ranges = [
        (0, len(row_at), 0, len(k_at)),
        (1, 3, 2, 7),
        (len(row_at) - 1, 1, 1, 5),
        (3, 20, 0, 20),
        (0, 2, 3, 0),
    ]
    for item, (row0, count, k0, deep) in itertools.product((0, 4), ranges):
        count, deep = min(count, len(row_at) - row0), min(deep, len(k_at) - k0)
        if count <= 0:
            continue
        start = positions(batch)[item]
        wanted = memory[start + row_at[row0 : row0 + count, None] + k_at[None, k0 : k0 + deep]]
        width = deep + 5 if side == "a" else -(-count // lanes) * lanes
        shape = (count, width) if side == "a" else (deep, width)
        fence = np.full(shape[0] * shape[1] + 64, 7, dtype.numpy)
        panel = fence[32 : 32 + shape[0] * shape[1]].reshape(shape)
        function(words.ctypes.data, item, row0, count, k0, deep, panel.ctypes.data, width)
        if side == "a":
            np.testing.assert_array_equal(panel[:, :deep], wanted)
            assert (panel[:, deep:] == 7).all()
        else:
            np.testing.assert_array_equal(panel[:, :count], wanted.T)
            beyond = panel[:, count:]  # never seen, but no denormal numbers
            assert ((beyond == 0) | (beyond == panel[:, count - 1 : count])).all()
        assert (fence[:32] == 7).all() and (fence[32 + panel.size :] == 7).all()


def test_a_packer_has_one_name_for_one_code() -> None:
    axes = AXES["windows by rows"]
    one, same = (packer(dtypes.float32, "b", BufferArg(i), (), *axes) for i in (0, 1))
    other = packer(dtypes.float32, "a", BufferArg(0), (), *axes)
    assert one.symbol == same.symbol != other.symbol and one.text == same.text


# ---------------------------------------------------------------------------------------------- spread


def image(*shape: int | Dim) -> Node:
    return input_node("x", TensorType(dtypes.float32, shape))


def test_windows_are_spread_over_the_image() -> None:
    b = Dim.symbol("b")
    x = image(b, 2, 8)
    apart = OPS["reshape"](x, shape=(b, 2, 1, 8))
    found = OPS["slide"](
        OPS["expand"](apart, shape=(b, 2, 3, 8)), dims=(3,), taps=(2,), strides=(1,), dilations=(2,)
    )
    columns = OPS["reshape"](found, shape=(b, 6, 4))
    places = spread(columns)
    assert places is not None and places.base is x and places.is_merged and places.reshapes == (columns,)
    assert places.dims == (((b, 16),), ((2, 8), (3, 2)), ((4, 1),))
    assert [places.run(d) for d in range(3)] == [1, 1, 4]
    assert places.turned.dims == (((b, 16),), ((4, 1),), ((2, 8), (3, 2)))
    # memory of its own has strides again
    assert spread(columns, {found}) == (found, 0, (((b, 24),), ((6, 4),), ((4, 1),)), ())


def test_a_reshape_of_memory_is_not_merged() -> None:
    x = image(4, 3, 5)
    places = spread(OPS["reshape"](x, shape=(12, 5)))
    assert places is not None and not places.is_merged and places.dims == (((12, 5),), ((5, 1),))
    heads = OPS["permute"](x, dims=(1, 0, 2))
    places = spread(OPS["reshape"](heads, shape=(3, 20)))
    assert places is not None and places.dims == (((3, 5),), ((4, 15), (5, 1)))


def test_parts_of_merged_dimensions_are_refused() -> None:
    heads = OPS["permute"](image(4, 3, 5), dims=(1, 0, 2))
    flat = OPS["reshape"](heads, shape=(3, 20))
    part = OPS["slice"](flat, starts=(0, 3), steps=(1, 1), sizes=(3, 11))
    assert spread(part) is None


def test_no_window_is_written() -> None:
    """A convolution and its gradients read images and cotangents where they are."""

    @gf.compile
    def gradients(x: gf.Tensor, w: gf.Tensor) -> tuple[gf.Tensor, ...]:
        found, pull = gf.vjp(gf.nn.functional.conv2d, x, w)
        return pull(found)

    gradients(gf.randn(3, 2, 9, 8), gf.randn(4, 2, 3, 2))
    text = str(gradients.explain())
    assert "slide" in text
    kernels = [line for line in text.splitlines() if line.startswith("  k0")]
    assert sum("matmul" in line for line in kernels) == 3
    assert not any("slide" in line or "reshape" in line for line in kernels), kernels
