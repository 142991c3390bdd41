"""Values and gradients where formulas break off: zeros, ties, fractional bounds of integers, 0-d tensors.

What is expected is PyTorch's convention, written out by hand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import graphflow as gf
import numpy as np
import pytest

Fn = Callable[[gf.Tensor], gf.Tensor]


def _gradients(fn: Fn, x: Sequence[object]) -> list[np.ndarray]:
    """The gradient of the sum, at once and compiled."""
    values = np.array(x, np.float64)

    def total(t: gf.Tensor) -> gf.Tensor:
        return fn(t).sum()

    leaf = gf.tensor(values, requires_grad=True)
    total(leaf).backward()
    assert leaf.grad is not None
    return [leaf.grad.numpy(), gf.compile(gf.grad(total))(gf.tensor(values)).numpy()]


GRADIENTS: dict[str, tuple[Fn, Sequence[object], Sequence[object]]] = {
    "std of equal elements": (lambda x: x.std(), [5, 5, 5], [0, 0, 0]),
    "std of one element": (lambda x: x.std(unbiased=False), [5], [0]),
    "std of rows": (lambda x: x.std(1), [[1, 1], [1, 3]], [[0, 0], [-math.sqrt(0.5), math.sqrt(0.5)]]),
    "norm 0": (lambda x: gf.norm(x, 0), [1, -2, 0], [0, 0, 0]),
    "norm 0.5": (lambda x: gf.norm(x, 0.5), [1, -4, 0], [3, -1.5, 0]),
    "norm 0.5 of zeros": (lambda x: gf.norm(x, 0.5), [0, 0], [0, 0]),
    "norm -1": (lambda x: gf.norm(x, -1.0), [1, 1], [0.25, 0.25]),
    "norm -1 with a zero": (lambda x: gf.norm(x, -1.0), [1, 0], [0, 0]),
    "norm 2 of zeros": (lambda x: gf.norm(x), [0, 0], [0, 0]),
    "norm inf": (lambda x: gf.norm(x, math.inf), [3, -3, 1], [0.5, -0.5, 0]),
    "nuclear norm": (lambda x: gf.norm(x, "nuc"), [[2, 0], [0, 3]], [[1, 0], [0, 1]]),
    "division, floor": (lambda x: gf.div(x, 2.0, rounding_mode="floor"), [5, -5], [0, 0]),
    "division, trunc": (lambda x: gf.div(x, 2.0, rounding_mode="trunc"), [5, -5], [0, 0]),
    "atan2 at the origin": (lambda x: gf.atan2(x, x.detach()), [0, 1], [0, 0.5]),
    "median of equals": (lambda x: x.median(), [2, 1, 2, 3], [0.5, 0, 0.5, 0]),
    "nanmedian of equals": (lambda x: x.nanmedian(), [2, 1, 2, 3], [0.5, 0, 0.5, 0]),
    "median of a NaN": (lambda x: x.median(), [1, math.nan, 3], [0, 1, 0]),
    "matrix to the power 0": (lambda x: gf.matrix_power(x, 0), [[1, 2], [3, 4]], [[0, 0], [0, 0]]),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_at_edges(name: str) -> None:
    fn, x, expected = GRADIENTS[name]
    for found in _gradients(fn, x):
        np.testing.assert_allclose(found, np.array(expected, np.float64), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("order", [0.0, 0.5, -0.5, -1.0, 1.0, 3.0, math.inf, -math.inf])
@pytest.mark.parametrize("x", [[1.0, -2.0, 3.0], [0.0, 4.0, 0.0], [math.nan, 1.0, 0.0]])
def test_norms_of_zeros_and_nans(order: float, x: list[float]) -> None:
    with np.errstate(all="ignore"):
        expected = np.linalg.norm(np.array(x), order)
    np.testing.assert_allclose(gf.norm(gf.tensor(x, dtype=gf.float64), order).item(), expected)


@pytest.mark.parametrize("order", ["fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (2, 0, 3)])
def test_matrix_norms_of_nothing(order: object, shape: tuple[int, ...]) -> None:
    """0, where the norm of nothing is one; the least of nothing is none."""
    t = gf.zeros(*shape)
    reduced = {-1: shape[-1], -math.inf: shape[-2], -2: min(shape[-2:])}
    if isinstance(order, (int, float)) and reduced.get(order, 1) == 0:
        with pytest.raises(IndexError, match="has no elements"):
            gf.linalg.matrix_norm(t, order)
    else:
        assert gf.linalg.matrix_norm(t, order).tolist() == np.zeros(shape[:-2]).tolist()


def test_norm_names_what_it_takes() -> None:
    with pytest.raises(ValueError, match="expects a matrix, got float32\\[3\\]"):
        gf.norm(gf.ones(3), "nuc")
    with pytest.raises(ValueError, match="p is a number, 'fro' or 'nuc', not 'inf'"):
        gf.norm(gf.ones(3), "inf")


# ---------------------------------------------------------------------------------------- ranges of integers


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((3.1,), [0, 1, 2]),
        ((0.1, -7.9, -4.0), [0, -4]),
        ((2.1, -2.9, -1.0), [2, 1, 0, -1]),
        ((-0.9, 2.1, 2.0), [0]),
        ((1, 8, 2.9), [1, 3, 5, 7]),
    ],
)
def test_arange_of_an_integer_dtype_takes_whole_parts(
    arguments: tuple[float, ...], expected: list[int]
) -> None:
    assert gf.arange(*arguments, dtype=gf.int64).tolist() == expected


def test_arange_without_an_end() -> None:
    for arguments in ((math.inf,), (math.nan,), (0, 1, math.inf)):
        with pytest.raises(ValueError, match="unsupported range"):
            gf.arange(*arguments)
    with pytest.raises(ValueError, match="step must be nonzero"):
        gf.arange(0, 64, 0.5, dtype=gf.int64)
    with pytest.raises(ValueError, match="can't be reached"):
        gf.arange(0, 0.1, -1, dtype=gf.int64)


def test_spaces_of_integers() -> None:
    assert gf.linspace(4.3, -3, 8, dtype=gf.int64).tolist() == [4, 3, 2, 1, 0, -1, -2, -3]
    assert gf.logspace(0, 4.3, 5, 3.0, dtype=gf.int64).tolist() == [1, 3, 9, 27, 81]


# ---------------------------------------------------------------------------------------------- 0-d tensors


def test_a_0d_tensor_counts_as_a_vector_of_one() -> None:
    x, v = gf.tensor(3.0), gf.tensor([1.0, 2.0, 3.0])
    zero, one, none = gf.tensor([0]), gf.tensor(1), gf.zeros(2, 0, dtype=gf.int64)
    assert x.gather(0, zero).shape == (1,)
    assert x.gather(0, gf.tensor([0, 0])).tolist() == [3.0, 3.0]
    assert v.gather(0, one).tolist() == 2.0
    assert v.gather(0, none).shape == (2, 0)
    assert x.scatter(0, zero, 5.0).tolist() == 5.0
    assert x.scatter(0, zero, gf.tensor([7.0])).tolist() == 7.0
    assert v.scatter(0, one, x).tolist() == [1.0, 3.0, 3.0]
    assert v.scatter_add(0, one, x).tolist() == [1.0, 5.0, 3.0]
    assert x.scatter_add(0, gf.tensor(0), gf.tensor([1.0])).tolist() == 4.0
    assert x.scatter_reduce(0, zero, gf.tensor([2.0]), "sum").tolist() == 5.0
    assert x.index_fill(0, zero, 2.0).tolist() == 2.0
    assert x.index_copy(0, zero, gf.tensor(4.0)).tolist() == 4.0
    assert x.unfold(0, 1, 1).tolist() == [3.0]
    with pytest.raises(IndexError, match="0-d"):
        x.roll(1, 0)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: x.gather(0, gf.tensor([0, 0])),
        lambda x: x.scatter(0, gf.tensor([0]), x.reshape(1) * 2.0),
        lambda x: x.index_copy(0, gf.tensor([0]), x * 3.0),
        lambda x: x.scatter_add(0, gf.tensor([0]), x.reshape(1)),
    ],
)
def test_0d_tensors_compile_and_have_gradients(fn: Fn) -> None:
    at_once, compiled = _gradients(fn, 2.0)  # type: ignore[arg-type]
    assert at_once == compiled
    assert at_once > 0


# ------------------------------------------------------------------------------------------- small meanings


def test_sums_and_products_of_bools_as_bools() -> None:
    t = gf.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert t.sum(1, dtype=gf.bool).tolist() == [True, False]
    assert (t + 1).prod(0, dtype=gf.bool).tolist() == [True, True]
    assert t.prod(dtype=gf.bool).item() is False
    bits = gf.tensor([True, False])
    assert gf.outer(bits, bits).tolist() == [[True, False], [False, False]]
    assert gf.outer(gf.tensor([1, 2]), gf.tensor([0.5])).tolist() == [[0.5], [1.0]]


def test_isclose_refuses_negative_tolerances() -> None:
    for name in ("rtol", "atol"):
        with pytest.raises(ValueError, match=f"{name} must be greater than or equal to zero"):
            gf.isclose(gf.ones(2), gf.ones(2), **{name: -0.4})


def test_item_of_several_elements_names_the_line() -> None:
    with pytest.raises(RuntimeError, match="one element converts to a number") as raised:
        gf.ones(3).item()
    assert "test_edges.py" in str(raised.value)
    assert isinstance(raised.value, ValueError)


# --------------------------------------------------------------------------- nothing, in compiled functions


def _write(x: gf.Tensor, index: gf.Tensor) -> gf.Tensor:
    y = x * 1.0
    y[:, index] = 7.0
    return y


WRITES: dict[str, Callable[[gf.Tensor, gf.Tensor], gf.Tensor]] = {
    "setitem": _write,
    "index_fill": lambda x, i: x.index_fill(1, i, 2.0),
    "index_copy": lambda x, i: x.index_copy(1, i, x[:, i] + 1.0),
    "scatter": lambda x, i: x[0].scatter(0, i, 5.0),
    "scatter_reduce": lambda x, i: x[0].scatter_reduce(0, i, x[1, i], "amax"),
}


@pytest.mark.parametrize("name", WRITES)
def test_writing_nowhere_in_a_compiled_function(name: str) -> None:
    fn = WRITES[name]
    compiled = gf.compile(fn)
    slope = gf.compile(gf.grad(lambda x, i: fn(x, i).sum()))
    x = gf.arange(8.0).reshape(2, 4)
    for index in (gf.tensor([2, 0]), gf.zeros(0, dtype=gf.int64), gf.tensor([1])):
        assert compiled(x, index).tolist() == fn(x, index).tolist()
        leaf = x.clone().requires_grad_()
        fn(leaf, index).sum().backward()
        assert leaf.grad is not None
        assert slope(x, index).tolist() == leaf.grad.tolist()


def test_an_empty_vector_joins_with_anything_in_a_compiled_function() -> None:
    join = gf.compile(lambda a, b: gf.cat([a, b], dim=0))
    assert join(gf.ones(0), gf.ones(2, 3)).tolist() == gf.ones(2, 3).tolist()
    with pytest.raises(ValueError, match="ranks"):
        join(gf.ones(2), gf.ones(2, 3))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: gf.stack([gf.ones(2), gf.ones(3)]), ValueError, "stack: expects tensors of equal size"),
        (lambda: gf.narrow(gf.ones(3), 0, gf.tensor(True), 1), TypeError, "'start' must be an integer"),
        (lambda: gf.tensor(1.0).unbind(), IndexError, "unbind: can't take a 0-d tensor apart"),
        (lambda: gf.ones(2).scatter(0, gf.tensor([2]), 1.0), IndexError, "scatter: index 2 is out of range"),
        (
            lambda: gf.ones(3).index_add(0, gf.tensor([0, 1]), gf.ones(3)),
            ValueError,
            "dimension 0 of source needs the size of the index int64\\[2\\], got float32\\[3\\]",
        ),
        (
            lambda: gf.nn.functional.mse_loss(gf.ones(2), gf.ones(2), reduction="abc"),
            ValueError,
            "abc is not a valid value for reduction.*\n  at .*test_edges.py",
        ),
    ],
)
def test_messages_name_what_was_called(
    call: Callable[[], object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        call()
