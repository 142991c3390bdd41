"""Random programs of writes, at once and compiled, beside NumPy; gradients beside finite differences."""

from __future__ import annotations

import random
from collections.abc import Callable

import graphflow as gf
import numpy as np
import pytest

Array = np.ndarray
SHAPE = (3, 4)
MASK = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 0, 1]], dtype=bool)
PLACES = np.array([0, 5, 5, -1])
ROWS, COLUMNS = np.array([0, 2, 2]), np.array([1, 1, 1])
VALUES = np.array([0.5, -1.0, 2.0, 1.5])
WEIGHTS = np.linspace(-1.0, 2.0, 12).reshape(SHAPE)


def _put(a: Array) -> None:
    np.add.at(a.reshape(-1), PLACES, VALUES)


def _diagonal(a: Array, new: Array) -> Array:
    out = a.copy()
    np.fill_diagonal(out, new)
    return out


def _replaced(a: Array, key: object, new: Array) -> Array:
    out = a.copy()
    out[key] = new  # type: ignore[index]
    return out


def _squared(t: gf.Tensor, mask: gf.Tensor) -> None:
    t[mask] = t[mask] * t[mask] + 1


def _mask() -> gf.Tensor:
    return gf.tensor(MASK)


def _values(count: int) -> gf.Tensor:
    return gf.tensor(VALUES[:count])


# A statement for tensors and the same for arrays: what it gives back, if anything, follows its operand.
Both = tuple[Callable[[gf.Tensor], gf.Tensor | None], Callable[[Array], Array | None]]
STATEMENTS: dict[str, Both] = {
    "mask written": (lambda t: t.__setitem__(_mask(), 0.5), lambda a: a.__setitem__(MASK, 0.5)),
    "mask of what is there": (
        lambda t: _squared(t, _mask()),
        lambda a: a.__setitem__(MASK, a[MASK] * a[MASK] + 1),
    ),
    "mask from an element": (
        lambda t: t.__setitem__(_mask(), t[1, 2] * 2),
        lambda a: a.__setitem__(MASK, a[1, 2] * 2),
    ),
    "mask of rows": (
        lambda t: t.__setitem__(gf.tensor(MASK[:, 0]), t[1] * 3),
        lambda a: a.__setitem__(MASK[:, 0], a[1] * 3),
    ),
    "select_scatter": (
        lambda t: t.select_scatter(t[0] * t[2], 0, 1),
        lambda a: _replaced(a, 1, a[0] * a[2]),
    ),
    "slice_scatter": (
        lambda t: t.slice_scatter(t[:, :2] * 2, 1, 1, None, 2),
        lambda a: _replaced(a, (slice(None), slice(1, None, 2)), a[:, :2] * 2),
    ),
    "diagonal_scatter": (
        lambda t: t.diagonal_scatter(t[1, :3] * 2),
        lambda a: _diagonal(a, a[1, :3] * 2),
    ),
    "put_": (lambda t: void(t.put_(gf.tensor(PLACES), _values(4), accumulate=True)), _put),
    "put_ over": (
        lambda t: void(t.put_(gf.tensor([3, 7]), t[2, :2] * 2)),
        lambda a: a.reshape(-1).__setitem__([3, 7], a[2, :2] * 2),
    ),
    "index_put_": (
        lambda t: void(t.index_put_((gf.tensor(ROWS), gf.tensor(COLUMNS)), t[0, :3] * 1, accumulate=True)),
        lambda a: np.add.at(a, (ROWS, COLUMNS), a[0, :3].copy()),
    ),
    "fill_diagonal_": (lambda t: void(t.fill_diagonal_(1.5)), lambda a: np.fill_diagonal(a, 1.5)),
    "a view of a view": (
        lambda t: void(t.t()[1:].mul_(t[0, 0] * 2)),
        lambda a: a.T.__setitem__(slice(1, None), a.T[1:] * (a[0, 0] * 2)),
    ),
    "a row from a row": (lambda t: t.__setitem__(0, t[2]), lambda a: a.__setitem__(0, a[2])),
    "masked_fill_": (
        lambda t: void(t[1:].masked_fill_(gf.tensor(MASK[1:]), -0.5)),
        lambda a: a[1:].__setitem__(MASK[1:], -0.5),
    ),
    "shifted": (
        lambda t: t.__setitem__((slice(None), slice(1, None)), t[:, :-1] * 1),
        lambda a: a.__setitem__((slice(None), slice(1, None)), a[:, :-1].copy()),
    ),
}  # fmt: skip


def void(_: object) -> None:
    """Nothing, of what a method gives back."""


def _in_arrays(names: list[str], start: Array) -> Array:
    now = start.copy()
    for name in names:
        made = STATEMENTS[name][1](now)
        now = now if made is None else made
    return now


def _loss(names: list[str], start: Array) -> float:
    return float((_in_arrays(names, start) ** 2 * WEIGHTS).sum())


def _differences(names: list[str], start: Array, step: float = 1e-6) -> Array:
    out = np.zeros(SHAPE)
    for place in np.ndindex(*SHAPE):
        moved = np.zeros(SHAPE)
        moved[place] = step
        out[place] = (_loss(names, start + moved) - _loss(names, start - moved)) / (2 * step)
    return out


def _program(names: list[str]) -> Callable[[gf.Tensor], gf.Tensor]:
    def run(x: gf.Tensor) -> gf.Tensor:
        now = x * 1
        for name in names:
            made = STATEMENTS[name][0](now)
            now = now if made is None else made
        return now

    return run


def _check(names: list[str], run: Callable[[gf.Tensor], gf.Tensor], start: Array) -> None:
    x = gf.tensor(start, requires_grad=True)
    found = run(x)
    np.testing.assert_allclose(found.detach().numpy(), _in_arrays(names, start), rtol=1e-12)
    (found * found * gf.tensor(WEIGHTS)).sum().backward()
    expected = _differences(names, start)
    got = np.zeros(SHAPE) if x.grad is None else x.grad.numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * max(1.0, abs(expected).max()))


def _names(seed: int) -> list[str]:
    return random.Random(seed).choices(sorted(STATEMENTS), k=4)


@pytest.mark.parametrize("seed", range(40))
def test_at_once(seed: int) -> None:
    _check(_names(seed), _program(_names(seed)), np.random.default_rng(seed).uniform(-1, 1, SHAPE))


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_each_statement(name: str) -> None:
    _check([name], _program([name]), np.random.default_rng(0).uniform(-1, 1, SHAPE))


@pytest.mark.parametrize("seed", range(100, 112))
def test_compiled(seed: int) -> None:
    names = _names(seed)
    run = gf.compile(_program(names))
    for draw in range(2):
        _check(names, run, np.random.default_rng((seed, draw)).uniform(-1, 1, SHAPE))
