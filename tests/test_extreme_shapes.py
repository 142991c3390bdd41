"""Every public function on 0-d, empty, size-1, 8-d, strided and expanded tensors: what it gives at once and
traced, also with symbolic sizes, is the same, and so is what it refuses.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import pytree
from graphflow.errors import GraphflowError, TraceError

from argument_lists import Arguments, Function, answers, copied, is_random, public_functions
from lives import traced

FUNCTIONS = {n: f for n, f in public_functions().items() if not is_random(n)}

RNG = np.random.default_rng(3)
EIGHT = (2, 1, 2, 1, 1, 2, 1, 2)
SHAPES = [(), (0,), (1,), (3, 0), (1, 3), (2, 0, 3), (0, 2, 4, 4), EIGHT]


def argument_lists(shape: tuple[int, ...]) -> Iterator[Arguments]:
    """Arguments on tensors of a shape: alone and with others, with dimensions, with numbers."""
    x, y = (gf.tensor(RNG.uniform(0.1, 0.9, shape)) for _ in range(2))
    yield from ((x,), (x, y), (x, 0), (x, -1), (x, (0, -1)), ([x, y],), ([x, y], -1))
    if shape in ((2, 0, 3), EIGHT):
        strided, repeated = x.mT.contiguous().mT, x[:1].expand(*shape)
        yield from ((strided,), (strided, 0), (strided, repeated), (repeated,), (repeated, -1))
    i = gf.tensor(RNG.integers(0, 2, shape))
    b = gf.tensor(RNG.random(shape) < 0.5)
    one = gf.tensor(RNG.uniform(0.1, 0.9, shape[-1:]))
    yield from (
        (x, y, x),
        (x, 0.5),
        (x, 2),
        (x, 1, 0),
        (x, 0, i),
        (x, i, 0),
        (x, 0, i, y),
        (b, x, y),
        (x, b, 0.5),
    )
    yield from (
        (i,),
        (i, i),
        (b,),
        (b, b),
        (x, one),
        (x, gf.tensor(0.5, dtype=gf.float64)),
        (x, ()),
        (x, 0, True),
    )
    yield from ((i, 0), (b, 0), (x, i), (x, shape), (x, x.unsqueeze(0)))


def of_tensors(function: Function, args: Arguments) -> tuple[Function, list[np.ndarray]]:
    """A function of just the tensors among `args`, and their arrays."""
    leaves, tree = pytree.flatten(args)
    places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, gf.Tensor)]

    def body(*tensors: gf.Tensor) -> Any:
        full = list(leaves)
        for place, tensor in zip(places, tensors, strict=True):
            full[place] = tensor.clone()
        return function(*pytree.unflatten(tree, full))

    return body, [leaves[k].numpy() for k in places]


def same(name: str, args: Arguments, got: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert len(got) == len(wanted), (name, args)
    for a, b in zip(got, wanted, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), (name, args)
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7, err_msg=f"{name} {args}")


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_at_once_and_traced_are_the_same(name: str) -> None:
    function = FUNCTIONS[name]
    for shape in SHAPES:
        for args in argument_lists(shape):
            if not answers(function, args):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                results = pytree.flatten(function(*map(copied, args)))[0]
                if not results or not all(isinstance(r, gf.Tensor) for r in results):
                    continue
                wanted = [r.numpy() for r in results]
                body, arrays = of_tensors(function, args)
                for symbolic in (False, True):
                    try:
                        got = traced(body, *arrays, symbolic=symbolic)
                    except TraceError:  # a result whose shape depends on values
                        continue
                    same(name, args, got, wanted)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_what_is_refused_at_once_is_refused_traced(name: str) -> None:
    function = FUNCTIONS[name]
    for shape in [(), (3, 0), (2, 0, 3)]:
        for args in argument_lists(shape):
            leaves = pytree.flatten(args)[0]
            if name.endswith("one_hot"):  # its values, not its shapes, are refused
                continue
            if answers(function, args) or not any(isinstance(v, gf.Tensor) for v in leaves):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    function(*map(copied, args))
                except IndexError as error:
                    if "index " in str(error):  # values, not shapes: known when it runs
                        continue
                except (GraphflowError, TypeError, ValueError, RuntimeError, ZeroDivisionError):
                    pass
                body, arrays = of_tensors(function, args)
                try:
                    traced(body, *arrays)
                except (GraphflowError, TypeError, ValueError, RuntimeError, ZeroDivisionError):
                    continue
                raise AssertionError(f"{name}{args} is refused at once and not traced")


@pytest.mark.parametrize("name", ["add_", "mul_", "eq_", "lt_", "logical_xor_"])
def test_nothing_is_written_into_a_smaller_tensor(name: str) -> None:
    small, large = gf.ones(3), gf.ones(2, 3)
    with pytest.raises(gf.errors.ShapeError, match=rf"{name}: output with shape \(3\)"):
        getattr(small, name)(large)
    assert small.tolist() == [1.0, 1.0, 1.0]
