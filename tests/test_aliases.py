"""Who shares memory with whom around a compiled call: outputs with nobody, arguments as without compiling."""

from __future__ import annotations

from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.errors import GradientError, TraceError


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape)


def test_values_that_a_function_computes_alias_nothing() -> None:
    w = gf.ones(4).double()
    f = gf.compile(lambda x: (x.clone(), x * 2, w * 1, gf.ones(3)))
    x = ones(4)
    results = [r.numpy() for _ in range(3) for r in f(x)]
    for i, a in enumerate(results):
        assert not np.shares_memory(a, x)
        assert not np.shares_memory(a, w.numpy())
        for b in results[:i]:
            assert not np.shares_memory(a, b)
    expected = [a.copy() for a in results]
    results[0][:] = 7
    f(x * 5)
    for a, b in zip(results[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(a, b)
    assert w.tolist() == [1.0] * 4


def test_what_two_calls_give_of_an_array_is_not_shared() -> None:
    f = gf.compile(lambda x: (x, x.reshape(-1), x[1:3] if x.shape[0] == 4 else x))
    x = ones(4)
    calls = [[r.numpy() for r in f(x)] for _ in range(3)]
    for i, results in enumerate(calls):
        for a in results:
            assert not np.shares_memory(a, x)
            for b in (b for others in calls[:i] for b in others):
                assert not np.shares_memory(a, b)
    calls[0][0][:] = 7
    f(x * 5)
    assert calls[1][0].tolist() == [1] * 4


def test_outputs_that_are_kept_stay_as_they_are() -> None:
    f = gf.compile(lambda x: x * 2)
    kept = [f(ones(3) * i) for i in range(20)]
    assert [k[0].item() for k in kept] == [2.0 * i for i in range(20)]


def test_results_of_all_kinds() -> None:
    w = nn.Parameter(gf.ones(2))
    inside: Any = gf.compile(
        lambda x: {"w": w, "x": x, "c": 3, "n": None, "k": gf.tensor([1.0]), "a": ones(2)}
    )
    out = inside(gf.zeros(2))
    assert out["w"].requires_grad
    out["w"].sum().backward()
    assert w.grad.tolist() == [1.0, 1.0]
    assert (out["c"], out["n"]) == (3, None)
    assert out["k"].tolist() == [1.0]
    assert out["a"].tolist() == [1.0, 1.0]
    assert gf.compile(lambda x: None)(ones(1)) is None
    assert gf.compile(lambda: gf.arange(3))().tolist() == [0, 1, 2]
    assert gf.compile(lambda x: x)(2.5).item() == 2.5
    assert gf.compile(lambda x: [])(ones(1)) == []


def test_arguments_are_left_alone() -> None:
    @gf.compile
    def f(x: Any, y: Any) -> Any:
        z = x * 2
        z.add_(y)
        z[0] = 5.0
        return z

    x, y = gf.ones(3), gf.ones(3)
    assert f(x, y).tolist() == [5.0, 3.0, 3.0]
    assert x.tolist() == y.tolist() == [1.0] * 3


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.add_(1),
        lambda x: x[0].mul_(3),
        lambda x: x.T[1].fill_(9),
        lambda x: x.__setitem__(0, 7.0),
        lambda x: x.reshape(-1)[::2].zero_(),
        lambda x: x.copy_(x * x + 1).sub_(0.5),
        lambda x: x.detach().mul_(2),
    ],
)
def test_arguments_changed_in_place_change_as_without_compiling(change: Any) -> None:
    def f(x: Any) -> Any:
        change(x)
        return x.sum()

    compiled = gf.compile(f)
    for rows in (3, 1, 4):
        ours, theirs = gf.arange(rows * 2.0).reshape(rows, 2), gf.arange(rows * 2.0).reshape(rows, 2)
        address = ours.data_ptr()
        assert compiled(ours).item() == f(theirs).item()
        assert ours.tolist() == theirs.tolist()
        assert ours.data_ptr() == address


def test_strided_and_numpy_arguments_change_in_place() -> None:
    f = gf.compile(lambda x: x.add_(1))
    base = np.zeros((4, 4), np.float32)
    out = f(base[::2, 1::2])
    assert out.tolist() == [[1.0, 1.0]] * 2
    assert base.sum() == 4.0
    f(np.zeros((0, 2), np.float32))
    view = gf.zeros(3, 3)
    f(view.T[1:])
    assert view.sum().item() == 6.0


def test_arguments_that_cannot_change_are_told_before_anything_happens() -> None:
    total = gf.zeros(2).double()

    @gf.compile
    def f(x: Any, y: Any) -> Any:
        total.add_(1)
        x.add_(y)
        return x

    frozen = ones(2)
    frozen.flags.writeable = False
    x = ones(4)
    for args, message in [
        ((frozen, ones(2)), "argument x in place, which is read-only; pass a copy"),
        ((np.broadcast_to(np.ones(1), (2,)), ones(2)), "read-only"),
        ((ones(2).astype(">f8"), ones(2)), "read-only"),
        ((x[:2], x[1:3]), "shares memory with the argument y"),
        ((total, ones(2)), "shares memory with"),
        ((2.0, 1.0), "float can't be changed"),
        ((np.float64(2.0), 1.0), "float64 can't be changed"),
    ]:
        with pytest.raises(TraceError, match=message):
            f(*args)
        assert total.tolist() == [0.0, 0.0]
    f(x[:2], x[2:])
    assert x.tolist() == [2.0, 2.0, 1.0, 1.0]
    assert total.tolist() == [1.0, 1.0]


def test_leaves_that_require_grad_are_refused_in_place_as_without_compiling() -> None:
    x = gf.ones(2, requires_grad=True)
    with pytest.raises(GradientError, match="leaf"):
        gf.compile(lambda x: x.add_(1))(x)
    with pytest.raises(TraceError, match="carries a gradient is written into the argument y"):
        gf.compile(lambda x, y: y.add_(x).sum())(x, gf.ones(2))

    @gf.compile
    def shrink(x: Any) -> None:
        with gf.no_grad():
            x.mul_(0.5)

    shrink(x)
    assert x.tolist() == [0.5, 0.5]
    assert x.requires_grad


def test_an_argument_that_is_a_state_keeps_its_value_inside() -> None:
    state = gf.tensor([1.0, 2.0, 3.0])

    @gf.compile
    def f(x: Any) -> Any:
        state.mul_(2)
        return x * 10

    assert f(state).tolist() == [10.0, 20.0, 30.0]
    assert state.tolist() == [2.0, 4.0, 6.0]
    assert f(state[:2]).tolist() == [20.0, 40.0]
    assert f(state.numpy()[::-1]).tolist() == [120.0, 80.0, 40.0]
    assert f(state.numpy().reshape(3, 1)[1:, 0]).tolist() == [160.0, 240.0]


def test_views_of_states() -> None:
    base = gf.zeros(4)
    first, last = base[:2], base[2:]

    @gf.compile
    def f(x: Any) -> Any:
        first.add_(x)
        return last + 1

    f(gf.ones(2))
    assert base.tolist() == [1.0, 1.0, 0.0, 0.0]

    @gf.compile
    def g(x: Any) -> Any:
        base.add_(1)
        return first + x

    with pytest.raises(
        TraceError, match=r"changes a tensor in place and also uses another view of its memory"
    ):
        g(gf.ones(2))
    assert base.tolist() == [1.0, 1.0, 0.0, 0.0]
    shared = np.zeros(2)
    a, b = gf.from_numpy(shared), gf.from_numpy(shared)

    @gf.compile
    def h(x: Any) -> Any:
        a.add_(x)
        return b * 2

    with pytest.raises(TraceError, match="another view"):
        h(ones(2))


def test_states_on_strided_memory() -> None:
    base = np.zeros((3, 4))
    column = gf.from_numpy(base)[:, 1]

    @gf.compile
    def f(x: Any) -> Any:
        column.add_(x)
        return column * 2

    for _ in range(2):
        out = f(ones(3))
    assert out.tolist() == [4.0] * 3
    np.testing.assert_array_equal(base[:, 1], 2.0)
    assert base.sum() == 6.0


def test_changes_are_seen_by_gradients_recorded_before() -> None:
    w = gf.ones(2, requires_grad=True)
    y = (w * w).sum()

    @gf.compile
    def change() -> None:
        with gf.no_grad():
            w.mul_(2)

    change()
    with pytest.raises(GradientError, match="modified by an inplace operation"):
        y.backward()
    f = gf.compile(lambda x: (x * w).sum())
    loss = f(gf.ones(2))
    change()
    with pytest.raises(GradientError, match="inplace operation"):
        loss.backward()


@pytest.mark.parametrize(
    "change",
    [
        lambda x, p, q: p[0].zero_(),
        lambda x, p, q: p.copy_(q),
        lambda x, p, q: (p.copy_(x), q.copy_(x)),
        lambda x, p, q: p.data.copy_(q.data),
        lambda x, p, q: (x.mul_(2), p.mul_(0.5)),
        lambda x, p, q: x.copy_(q),
        lambda x, p, q: x.__setitem__(0, 5.0),
        lambda x, p, q: x.detach()[1:].mul_(3),
    ],
)
def test_leaves_changed_under_no_grad_keep_gradients_of_their_own(change: Any) -> None:
    found = []
    for wrap in (lambda f: f, gf.compile):
        x, p, q = [gf.tensor([1.0 + i, 2.0 + i, 3.0 + i], requires_grad=True) for i in range(3)]

        def step(x: gf.Tensor, p: gf.Tensor, q: gf.Tensor) -> None:
            with gf.no_grad():
                change(x, p, q)
            (x * x * 3 + p * q + p * p * p).sum().backward()

        wrapped: Any = wrap(lambda x, p=p, q=q: step(x, p, q))
        wrapped(x)
        found.append([(t.tolist(), t.grad.tolist()) for t in (x, p, q)])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.mul_(2),
        lambda h: h[0].zero_(),
        lambda h: h.detach().add_(1),
    ],
)
def test_a_history_is_not_cut_off_silently(change: Any) -> None:
    @gf.compile
    def f(x: gf.Tensor) -> gf.Tensor:
        h = x * 1.0
        with gf.no_grad():
            change(h)
        return (h * h).sum()

    with pytest.raises(GradientError, match=r"under no_grad\(\) or through detach\(\)"):
        f(gf.ones(3, requires_grad=True))


def _write_row(x: gf.Tensor) -> gf.Tensor:
    b = gf.zeros(2, 3, dtype=gf.float64)
    b[0].copy_(x)
    b[1][1:].add_(x[:2] * b[0, 1].clone())
    return (b * b).sum()


def _write_owner(x: gf.Tensor) -> gf.Tensor:
    v = gf.zeros(3, dtype=gf.float64)
    view = v[1:]
    v.add_(x)
    return (view * view).sum()


def _write_history(x: gf.Tensor) -> gf.Tensor:
    v = x * 1
    view, back = v[1:], v.flip(0)
    view.mul_(2)
    return (v * v * back).sum() + (view**3).sum()


def _write_twice(x: gf.Tensor) -> gf.Tensor:
    v = gf.ones(3, 3, dtype=gf.float64)
    t, row = v.t(), v[1]
    t[1].mul_(x)
    row.view(3, 1)[0].zero_()
    t[:, 1].add_(x.exp())
    return (v * t * row).sum()


def _write_the_same(x: gf.Tensor) -> gf.Tensor:
    b = gf.zeros(3, dtype=gf.float64)
    b.copy_(x)
    b.mul_(2)
    b[1:].copy_(b[:2].clone() * x[0])
    return (b * x).sum()


@pytest.mark.parametrize(
    "function", [_write_row, _write_owner, _write_history, _write_twice, _write_the_same]
)
def test_gradients_reach_everyone_who_sees_what_was_written(function: Any) -> None:
    x = np.array([0.5, -1.5, 2.0])
    found = []
    for f in (function, gf.compile(function)):
        leaf = gf.tensor(x, requires_grad=True)
        f(leaf).backward()
        assert leaf.grad is not None
        found.append(leaf.grad.numpy())
    steps = np.eye(3) * 1e-6
    expected = [(function(gf.tensor(x + s)).item() - function(gf.tensor(x - s)).item()) / 2e-6 for s in steps]
    np.testing.assert_allclose(found, [expected] * 2, rtol=1e-7, atol=1e-7)


def test_buffers_require_grad_once_something_was_written_through_a_view() -> None:
    x = gf.ones(3, requires_grad=True)
    b = gf.zeros(2, 3)
    row, other = b[0], b.view(6)
    row.copy_(x)
    assert b.requires_grad and row.requires_grad and other.requires_grad and not b.is_leaf
    assert b.grad_fn is not None and other.grad_fn is not None and other.grad_fn.name() == "ReshapeBackward0"
    with gf.no_grad():
        free = gf.zeros(2)
        free[:1].copy_(x[:1])
    assert not free.requires_grad


def test_gradients_that_a_view_cant_carry_are_told() -> None:
    x = gf.ones(3, requires_grad=True)
    with pytest.raises(GradientError, match="a view of a leaf Variable"):
        x[0].mul_(2)
    with gf.no_grad():
        x[0].mul_(2)
        view = x[1:]
    with pytest.raises(GradientError, match="made under no_grad"):
        view.copy_(x[:2] * 1)
    view.fill_(7)
    assert x.tolist() == [2, 7, 7]
    y = x * 1
    y.detach()[0].zero_()
    (y * y).sum().backward()  # through x * 1 as if nothing had happened, with the values that are there now
    assert x.grad.tolist() == [0, 14, 14]
    saved = x.exp()
    saved[1:].zero_()
    with pytest.raises(GradientError, match="modified by an inplace operation"):
        saved.sum().backward()


def test_captured_tensors_seen_otherwise() -> None:
    """Views of a state of the compiled function."""
    weight = gf.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)

    @gf.compile
    def loss(x: gf.Tensor) -> gf.Tensor:
        return (weight.view(-1) * x).sum()

    loss(gf.ones(4)).backward()
    assert weight.grad is not None and weight.grad.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    plain = gf.zeros(2, 2)

    @gf.compile
    def count() -> None:
        plain.view(-1).add_(1)

    count()
    assert plain.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_gradients_go_on_when_data_is_replaced() -> None:
    x = gf.ones(2, 3, requires_grad=True)
    view, product = x.unsqueeze(-1), x * 3
    view.data = view.data * 2
    (view * view).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[4.0] * 3] * 2
    with pytest.raises(GradientError, match=r"so \.data can't become"):
        product.data = gf.zeros(5)
