"""The arguments with which coverage_page.py calls functions and makes layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import graphflow as gf

Arguments = tuple[tuple[Any, ...], dict[str, Any]]

_rng = np.random.default_rng(0)


def floats(*shape: int) -> gf.Tensor:
    """Floats between 0.1 and 0.9, where nearly all functions are defined and smooth."""
    return gf.tensor(_rng.uniform(0.1, 0.9, shape), dtype=gf.float64)


def ints(*shape: int, high: int = 3) -> gf.Tensor:
    """Integers from 0 below `high`."""
    return gf.tensor(_rng.integers(0, high, shape), dtype=gf.int64)


def bools(*shape: int) -> gf.Tensor:
    """Half of them true."""
    return gf.tensor(_rng.random(shape) < 0.5)


def positive(size: int) -> gf.Tensor:
    """A symmetric matrix whose eigenvalues are positive."""
    root = floats(size, size)
    return root @ root.T + gf.eye(size, dtype=gf.float64)


def call(*args: Any, **kwargs: Any) -> Arguments:
    """An argument list."""
    return args, kwargs


def usual() -> Iterator[Arguments]:
    """Argument lists to try, one after another."""
    x, y, z = floats(4, 3), floats(4, 3), floats(4, 3)
    square, vector = floats(3, 3), floats(3)
    yield from (
        call(x),
        call(x, y),
        call(x, y, z),
        call(x, 0),
        call(x, 1, 0),
        call(x, 0.5),
        call(x, 0.2, 0.7),
    )
    yield from (call(x, (0, 1)), call(x, (4, 3)), call(x, 3, 1), call(square, square), call(square, vector))
    yield from (
        call(vector, vector),
        call(square),
        call(vector),
        call([x, y]),
        call([x, y], 0),
        call(x, x, 0.3),
    )
    yield from (
        call(ints(4, 3)),
        call(ints(4, 3), ints(4, 3)),
        call(bools(4, 3)),
        call(bools(4, 3), bools(4, 3)),
    )
    yield from (call(x, 0, ints(2)), call(x, 0, ints(4, 3)), call(x, ints(4, 3), 0), call(x, ints(4)))
    yield from (call(x, 0, ints(2), floats(2, 3)), call(x, 0, ints(4, 3), y), call(x, bools(4, 3), 0.5))
    yield from (
        call(vector, square, vector),
        call(x, square, floats(3, 3)),
        call(floats(2, 4, 3), floats(2, 3, 4)),
    )
    yield from (
        call(floats(2, 3, 4), floats(2, 3, 5), floats(2, 5, 4)),
        call((4, 3)),
        call(4),
        call(0, 5),
        call(),
    )
    yield from (call((4, 3), 1.5), call(0, 5, 4), call(0, 5, (4, 3)), call(x, gf.float32))
    yield from (
        call(floats(2, 4, 8)),
        call(floats(2, 4, 8), 2),
        call(floats(2, 4, 8, 8)),
        call(floats(2, 4, 8, 8), 2),
    )
    yield from (
        call(floats(2, 4, 6, 8, 8)),
        call(floats(2, 4, 8, 8, 8), 2),
        call(floats(2, 4, 8), floats(2, 8, 4)),
    )


def running(carry: gf.Tensor, item: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
    """A body for ``scan``."""
    carry = carry * item
    return carry, carry


# Argument lists of functions that take none of the usual ones, or that are undefined for them.
RECIPES: dict[str, Callable[[], Arguments]] = {
    "addbmm": lambda: call(floats(2, 4), floats(5, 2, 3), floats(5, 3, 4)),
    **{
        f"F.max_unpool{n}d": lambda n=n: call(  # type: ignore[misc]
            floats(1, 2, *[2] * n), gf.arange(2**n).expand(1, 2, -1).reshape(1, 2, *[2] * n).clone(), 2
        )
        for n in (1, 2, 3)
    },
    "addr": lambda: call(floats(4, 3), floats(4), floats(3)),
    "Tensor.addr_": lambda: call(floats(4, 3), floats(4), floats(3)),
    "cholesky_inverse": lambda: call(positive(3)),
    "cholesky_solve": lambda: call(floats(3, 2), positive(3)),
    "frombuffer": lambda: ((bytearray(8),), {"dtype": gf.float32}),
    "is_nonzero": lambda: call(floats(1)),
    "narrow_copy": lambda: call(floats(4, 3), 0, 1, 2),
    "split_with_sizes": lambda: call(floats(4, 3), (1, 3)),
    "histogram": lambda: call(floats(4, 3), 3),
    "nonzero_static": lambda: ((ints(4, 3),), {"size": 4}),
    "triangular_solve": lambda: call(floats(3, 2), positive(3)),
    "unravel_index": lambda: call(ints(4), (2, 3)),
    "Tensor.addbmm_": lambda: call(floats(2, 4), floats(5, 2, 3), floats(5, 3, 4)),
    "Tensor.apply_": lambda: call(floats(3), lambda v: v + 1),
    "Tensor.map_": lambda: call(floats(3), floats(3), lambda a, b: a + b),
    "Tensor.sum_to_size": lambda: call(floats(4, 3), 1, 3),
    "special.zeta": lambda: call(2.0, floats(4, 3)),
    "linalg.tensorinv": lambda: call(floats(2, 2, 4)),
    "linalg.tensorsolve": lambda: call(floats(2, 2, 4), floats(2, 2)),
    "addmm": lambda: call(floats(2, 4), floats(2, 3), floats(3, 4)),
    "Tensor.addmm_": lambda: call(floats(2, 4), floats(2, 3), floats(3, 4)),
    "bincount": lambda: call(ints(6)),
    "bucketize": lambda: call(floats(4, 3), gf.tensor([0.2, 0.5, 0.8], dtype=gf.float64)),
    "can_cast": lambda: call(gf.int64, gf.float32),
    "cholesky": lambda: call(positive(3)),
    "cond": lambda: call(gf.tensor(True), gf.sin, gf.cos, floats(3)),
    "fori_loop": lambda: call(0, 3, lambda i, x: x * 1.5, floats(3)),
    "from_dlpack": lambda: call(np.ones(3)),
    "from_numpy": lambda: call(np.ones(3)),
    "polygamma": lambda: call(2, floats(3)),
    "F.multi_head_attention_forward": lambda: call(
        *(floats(4, 2, 8) for _ in range(3)),
        8,
        2,
        floats(24, 8),
        floats(24),
        None,
        None,
        False,
        0.0,
        floats(8, 8),
        floats(8),
    ),
    "index_fill": lambda: call(floats(4, 3), 0, ints(2), 0.5),
    "diagonal_scatter": lambda: call(floats(4, 4), floats(4)),
    "index_reduce": lambda: call(floats(4, 3), 0, ints(2), floats(2, 3), "amax"),
    "select_scatter": lambda: call(floats(4, 3), floats(3), 0, 1),
    "slice_scatter": lambda: call(floats(4, 3), floats(2, 3), 0, 1, 3),
    "Tensor.diagonal_scatter": lambda: call(floats(4, 4), floats(4)),
    "Tensor.fill_diagonal_": lambda: call(floats(4, 4), 0.5),
    "Tensor.index_reduce": lambda: call(floats(4, 3), 0, ints(2), floats(2, 3), "amax"),
    "Tensor.index_reduce_": lambda: call(floats(4, 3), 0, ints(2), floats(2, 3), "amax"),
    "Tensor.put": lambda: call(floats(4, 3), ints(2), floats(2)),
    "Tensor.put_": lambda: call(floats(4, 3), ints(2), floats(2)),
    "Tensor.select_scatter": lambda: call(floats(4, 3), floats(3), 0, 1),
    "Tensor.slice_scatter": lambda: call(floats(4, 3), floats(2, 3), 0, 1, 3),
    "index_put": lambda: call(floats(4, 3), (ints(2),), floats(2, 3)),
    "masked_scatter": lambda: call(floats(4, 3), bools(4, 3), floats(4, 3)),
    "renorm": lambda: call(floats(4, 3), 2.0, 0, 0.5),
    "scatter_reduce": lambda: call(floats(4, 3), 0, ints(4, 3), floats(4, 3), "sum"),
    "Tensor.index_fill_": lambda: call(floats(4, 3), 0, ints(2), 0.5),
    "Tensor.index_put_": lambda: call(floats(4, 3), (ints(2),), floats(2, 3)),
    "Tensor.masked_scatter_": lambda: call(floats(4, 3), bools(4, 3), floats(4, 3)),
    "Tensor.renorm_": lambda: call(floats(4, 3), 2.0, 0, 0.5),
    "Tensor.scatter_reduce_": lambda: call(floats(4, 3), 0, ints(4, 3), floats(4, 3), "sum"),
    "linalg.cholesky": lambda: call(positive(3)),
    "linalg.multi_dot": lambda: call([floats(2, 3), floats(3, 4), floats(4, 2)]),
    "linalg.solve_triangular": lambda: call(positive(3), floats(3, 2), upper=True),
    "narrow": lambda: call(floats(4, 3), 0, 1, 2),
    "promote_types": lambda: call(gf.int64, gf.float32),
    "scan": lambda: call(running, floats(3), floats(4, 3)),
    "searchsorted": lambda: call(gf.tensor([0.2, 0.5, 0.8], dtype=gf.float64), floats(4, 3)),
    "unflatten": lambda: call(floats(4, 6), 1, (2, 3)),
    "where": lambda: call(bools(4, 3), floats(4, 3), floats(4, 3)),
    "while_loop": lambda: call(lambda x: x.sum() < 9, lambda x: x * 2, floats(3)),
    "Tensor.unfold": lambda: call(floats(4, 8), 1, 3, 2),
    "F.affine_grid": lambda: call(floats(2, 2, 3), (2, 1, 3, 4), False),
    "F.grid_sample": lambda: call(floats(2, 2, 4, 3), floats(2, 3, 2, 2), align_corners=False),
    "F.fold": lambda: call(floats(2, 12, 9), (4, 4), (2, 2)),
    "F.batch_norm": lambda: call(floats(4, 3), floats(3), floats(3), floats(3), floats(3), True),
    "F.bilinear": lambda: call(floats(4, 3), floats(4, 2), floats(5, 3, 2)),
    "F.cosine_embedding_loss": lambda: call(floats(4, 3), floats(4, 3), gf.tensor([1, -1, 1, 1])),
    "F.ctc_loss": lambda: call(*alignment()),
    "F.linear_cross_entropy": lambda: call(floats(4, 3), floats(5, 3), ints(4)),
    "F.lp_pool2d": lambda: call(floats(2, 4, 8, 8), 2.0, 2),
    "F.lp_pool3d": lambda: call(floats(2, 4, 8, 8, 8), 2.0, 2),
    **{f"F.conv{d}d": lambda d=d: call(floats(2, 4, *[8] * d), floats(3, 4, *[2] * d)) for d in (1, 2, 3)},
    **{
        f"F.conv_transpose{d}d": lambda d=d: call(floats(2, 4, *[4] * d), floats(4, 3, *[2] * d))
        for d in (1, 2, 3)
    },
}


def makers() -> Iterator[tuple[Any, ...]]:
    """Arguments of layers' constructors to try, one after another."""
    yield from (
        (),
        (3,),
        (2,),
        (4,),
        (3, 5),
        (4, 3, 2),
        (2, 4),
        ((2,),),
        (2.0, 2),
        (0.5, 1.0),
        (1, (3, 1)),
        (5, 3),
    )
    yield from ((3, 3, 4), (4, 2, 8), (8, 2), ((4, 4), (2, 2)))


def inputs() -> Iterator[tuple[gf.Tensor, ...]]:
    """Inputs of layers and losses to try, one after another."""
    x, y = floats(4, 3), floats(4, 3)
    signs = gf.tensor([1.0, -1.0, 1.0, 1.0], dtype=gf.float64)
    yield from (
        (x,),
        (x, y),
        (x, ints(4)),
        (x, y, floats(4, 3)),
        (x, y, signs),
        (floats(4), floats(4), signs),
    )
    yield from (
        (floats(2, 4, 8),),
        (floats(2, 4, 8, 8),),
        (floats(2, 4, 8, 8, 8),),
        (ints(2, 5),),
        (floats(2, 12, 9),),
    )
    yield from ((floats(2, 4, 8), floats(2, 4, 8)), (floats(2, 4, 8), floats(2, 4, 8), floats(2, 4, 8)))
    yield from ((x, ints(4, 3, high=2)), (floats(4, 3), floats(4, 3)), alignment())


def alignment() -> tuple[gf.Tensor, ...]:
    """What `ctc_loss` takes: scores over time, labels, and the lengths of both."""
    return floats(5, 2, 3).log_softmax(-1), gf.tensor([[1, 2], [2, 2]]), gf.tensor([5, 4]), gf.tensor([2, 1])
