"""What may be changed in place while gradients are recorded: the gradient is right, or there is an error."""

from __future__ import annotations

from collections.abc import Callable

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import GradientError

Function = Callable[[gf.Tensor], gf.Tensor]
MODIFIED = "one of the variables needed for gradient computation has been modified by an inplace operation"
LEAF = "a leaf Variable that requires grad is being used in an in-place operation"
VALUES = [0.5, 1.5, 3.0]


def _written(y: gf.Tensor, key: object, value: object) -> gf.Tensor:
    y[key] = value
    return y


def _chain(x: gf.Tensor) -> gf.Tensor:
    y = x * 2
    y += x
    y *= y
    return y


def _through_views(x: gf.Tensor) -> gf.Tensor:
    y = x.clone()
    v = y[0:2]
    v[1:].mul_(10)
    return v * y[1:]


def _buffer(x: gf.Tensor) -> gf.Tensor:
    y = gf.zeros(3, dtype=x.dtype)
    y[1:] = x[1:] * 2
    return y * y


def _kept(x: gf.Tensor) -> gf.Tensor:
    y = x * 2
    z = y * y
    y.add_(1)
    return z


# In place, and the same without.
RIGHT: dict[str, tuple[Function, Function]] = {
    "result of exp": (lambda x: x.exp().add_(1), lambda x: x.exp() + 1),
    "result of sigmoid": (lambda x: x.sigmoid().mul_(2), lambda x: x.sigmoid() * 2),
    "result of relu": (lambda x: gf.relu(x - 1).mul_(3), lambda x: gf.relu(x - 1) * 3),
    "chain of functions": (lambda x: x.clone().sqrt_().exp_(), lambda x: x.sqrt().exp()),
    "operators": (_chain, lambda x: (3 * x) * (3 * x)),
    "used before": (_kept, lambda x: 4 * x * x),
    "one element": (
        lambda x: _written(x * 2, 0, 7.0).square(), lambda x: gf.cat([x[:1] * 0 + 49, 4 * x[1:] ** 2])
    ),
    "views of views": (_through_views, lambda x: gf.stack([x[0] * 10 * x[1], 10 * x[1] * x[2]])),
    "buffer": (_buffer, lambda x: gf.cat([x[:1] * 0, 4 * x[1:] ** 2])),
    "copied into": (lambda x: gf.zeros(3, dtype=x.dtype).copy_(x).square(), lambda x: x * x),
    "zeroed": (lambda x: x.clone().zero_() * x, lambda x: x * 0),
    "clamped": (lambda x: (x * 2).clamp_(0, 2.5) * x, lambda x: (x * 2).clamp(0, 2.5) * x),
    "masked": (lambda x: _written(x * 1, x > 1, 0.0) * x, lambda x: gf.where(x > 1, 0.0, x) * x),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_gradients_through_changes_in_place(name: str) -> None:
    function, plain = RIGHT[name]
    wanted = gf.grad(lambda x: plain(x).sum())(gf.tensor(VALUES, dtype=gf.float64)).numpy()
    x = gf.tensor(VALUES, dtype=gf.float64, requires_grad=True)
    result = function(x)
    np.testing.assert_allclose(result.detach().numpy(), plain(x.detach()).numpy(), rtol=1e-12)
    result.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), wanted, rtol=1e-12)
    compiled = gf.compile(gf.grad(lambda x: function(x).sum()))
    np.testing.assert_allclose(compiled(x.detach()).numpy(), wanted, rtol=1e-12)


def _view_of_needed(x: gf.Tensor) -> gf.Tensor:
    y = x * 2
    z = y * y
    y[:2].mul_(3)
    return z


def _weight(x: gf.Tensor) -> gf.Tensor:
    w = gf.ones(3)
    z = x * w
    w.zero_()
    return z


def _detached(x: gf.Tensor) -> gf.Tensor:
    y = x * 2
    z = y * y
    y.detach().zero_()
    return z


def _data(x: gf.Tensor) -> gf.Tensor:
    y = x * 2
    z = y * y
    y.data.zero_()
    return z


def _unrecorded(x: gf.Tensor) -> gf.Tensor:
    y = x * 2
    z = y * y
    with gf.no_grad():
        y.add_(1)
    return z


def _leaf_itself(x: gf.Tensor) -> gf.Tensor:
    z = x * x
    with gf.no_grad():
        x.add_(1)
    return z


def _out(x: gf.Tensor) -> gf.Tensor:
    w = gf.ones(3)
    z = x * w
    gf.add(w, 1, out=w)
    return z


NEEDED = [_view_of_needed, _weight, _detached, _data, _unrecorded, _leaf_itself, _out]


@pytest.mark.parametrize("function", NEEDED)
def test_values_that_backward_needs(function: Function) -> None:
    x = gf.tensor(VALUES, requires_grad=True)
    with pytest.raises(RuntimeError, match=MODIFIED) as raised:
        function(x).sum().backward()
    assert isinstance(raised.value, GradientError)
    assert "is at version" in str(raised.value)


def test_what_backward_doesnt_need_may_change() -> None:
    x, w = gf.tensor(VALUES, requires_grad=True), gf.ones(3)
    z = x + w
    w.zero_()
    z.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0, 1.0]
    with gf.no_grad():
        x.sub_(x.grad)
    assert x.tolist() == [-0.5, 0.5, 2.0]
    x.grad.zero_()
    assert x.grad.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("compiled", [False, True])
def test_leaves_that_require_grad(compiled: bool) -> None:
    changes: list[Callable[[gf.Tensor], object]] = [
        lambda x: x.add_(1),
        lambda x: _written(x, 0, 5.0),
        lambda x: x.zero_(),
        lambda x: x.copy_(gf.ones(3)),
        lambda x: x.exponential_(),
        lambda x: _written(x, x > 1, 0.0),
        lambda x: x.exp_(),
    ]
    for change in changes:
        x = gf.tensor(VALUES, requires_grad=True)
        run = gf.compile(change) if compiled else change
        with pytest.raises(RuntimeError, match=LEAF):
            run(x)
        assert x.tolist() == VALUES
    x = gf.tensor(VALUES, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad is being used in an in-place"):
        x[:2].add_(1)
    assert x.tolist() == VALUES


@pytest.mark.parametrize("compiled", [False, True])
def test_memory_that_repeats_elements(compiled: bool) -> None:
    def change(x: gf.Tensor) -> gf.Tensor:
        return x.expand(2, 3).add_(1)

    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        (gf.compile(change) if compiled else change)(gf.ones(3))


def test_memory_that_is_read_only() -> None:
    array = np.ones(3)
    array.flags.writeable = False
    with pytest.raises(RuntimeError, match="read-only"):
        gf.from_numpy(array).add_(1)


def test_results_that_dont_fit_leave_everything_as_it_was() -> None:
    x = gf.ones(3)
    for change in (lambda: x.add_(gf.ones(2, 3)), lambda: x.mul_(gf.ones(4))):
        with pytest.raises(ValueError, match=r"doesn't match|broadcast"):
            change()
    whole = gf.ones(3, dtype=gf.int64)
    for change in (lambda: whole.add_(0.5), lambda: whole.div_(2), lambda: whole.mul_(gf.ones(3))):
        with pytest.raises(TypeError, match="can't be put into the int64 tensor"):
            change()
    assert x.tolist() == [1, 1, 1] == whole.tolist()


def test_shapes_change_in_place() -> None:
    x = gf.arange(6.0).reshape(2, 3)
    row = x[0]
    assert x.t_() is x
    assert x.shape == (3, 2)
    x[0].add_(10)
    assert row.tolist() == [10.0, 1.0, 2.0] and x[0].tolist() == [10.0, 13.0]
    assert x.unsqueeze_(0).shape == (1, 3, 2)
    assert x.squeeze_().transpose_(0, 1).shape == (2, 3)
    leaf = gf.ones(2, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match=LEAF):
        leaf.t_()
    made = leaf * 2
    with gf.no_grad(), pytest.raises(GradientError, match=r"use x = x\.t\(\)"):
        made.t_()
    assert made.detach_().requires_grad is False and made.is_leaf
    with pytest.raises(gf.errors.TraceError, match="inside a compiled function"):
        gf.compile(lambda t: t.t_())(x)


def test_shapes_change_in_place_and_gradients_follow() -> None:
    x = gf.arange(6.0).reshape(2, 3).clone().requires_grad_()
    weights = gf.arange(6.0).reshape(3, 2)
    y = x * 2
    row = y[0]  # of the shape that y has now
    assert y.t_() is y and y.shape == (3, 2)
    y.mul_(weights)
    assert row.tolist() == [0.0, 4.0, 16.0]
    (y.sum() + row.sum()).backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), [[0.0, 8.0, 16.0], [2.0, 6.0, 10.0]])
    x.grad = None
    y = x * 1
    view = y[:, 1]
    view.unsqueeze_(0).mul_(3.0)
    (y * y).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), 2 * x.detach().numpy() * np.array([1.0, 9.0, 1.0]))


def test_a_retained_gradient_is_that_of_what_the_tensor_holds_at_the_end() -> None:
    def f(x: gf.Tensor) -> gf.Tensor:
        y = x * 2
        y.retain_grad()
        y.mul_(3)
        y.sum().backward()
        assert y.grad is not None
        return y.grad

    for function in (f, gf.compile(f)):
        assert function(gf.ones(2, requires_grad=True)).tolist() == [1.0, 1.0]
    y = gf.ones(2, 3, requires_grad=True) * 2
    y.retain_grad()
    (y.t_() * 3).sum().backward()
    assert y.grad is not None and y.grad.tolist() == [[3.0, 3.0]] * 3


def test_views_of_another_shape_than_their_owner_has_now() -> None:
    for turn in (lambda base, part: part.t_(), lambda base, part: base.t_()):
        base, w = gf.ones(3, 4), gf.full((1, 4), 3.0, requires_grad=True)
        part = base[:2]
        turn(base, part)
        wide = w if base.shape == (3, 4) else w.t()
        base.mul_(wide)
        found = part if part.shape == (2, 4) else part.t()
        (found * found * gf.arange(8.0).reshape(2, 4)).sum().backward()
        assert w.grad is not None
        assert w.grad.tolist() == [[24.0, 36.0, 48.0, 60.0]]


def test_what_is_read_only_says_so_at_the_line_that_changes_it() -> None:
    frozen = np.ones((2, 3))
    frozen.flags.writeable = False
    row = gf.ones(3)
    for state, why in ((gf.as_tensor(frozen), "read-only"), (row.expand(2, 3), "single memory location")):
        reading = gf.compile(lambda x, state=state: x + state)
        for _ in range(2):
            row.add_(1)
            assert reading(gf.ones(2, 3)).tolist() == (1 + state.numpy()).tolist()

        def change(x: gf.Tensor, state: gf.Tensor = state) -> gf.Tensor:
            state.add_(x)
            return state * 1

        with pytest.raises(GradientError, match=rf"(?s){why}.*state\.add_\(x\)"):
            gf.compile(change)(gf.ones(2, 3))


def test_results_of_functions_that_copy_never_share() -> None:
    functional = gf.nn.functional
    image = gf.arange(4.0).reshape(1, 1, 2, 2)
    forms = [
        lambda t: functional.pad(t, (0, 0)),
        lambda t: functional.pad(t, (-1, 0)),
        lambda t: functional.pad(t, (0, 0), mode="replicate"),
        lambda t: functional.pad(t, (0, 0, 0, 0), mode="circular"),
        lambda t: functional.pixel_shuffle(t, 1),
        lambda t: functional.pixel_unshuffle(t, 1),
        lambda t: functional.channel_shuffle(t, 1),
        lambda t: gf.linalg.matrix_power(t, 1),
        lambda t: t[0, 0].diag(),
    ]
    for number, form in enumerate(forms):
        given = (image[0] if number == 2 else image).clone()
        kept = given.tolist()
        form(given).zero_()
        assert given.tolist() == kept
        gf.compile(lambda t, form=form: form(t).add_(1))(given)
        assert given.tolist() == kept


@pytest.mark.parametrize("same", ["expand", "expand_as", "broadcast_to"])
def test_an_expansion_that_changes_nothing_carries_no_gradient_under_no_grad(same: str) -> None:
    def f(x: gf.Tensor) -> gf.Tensor:
        with gf.no_grad():
            seen = x.expand_as(x) if same == "expand_as" else getattr(x, same)((2, 3))
        return (x * seen).sum()

    for function in (f, gf.compile(f)):
        x = gf.full((2, 3), 5.0, requires_grad=True)
        function(x).backward()
        assert x.grad is not None and x.grad.tolist() == [[5.0] * 3] * 2


def test_every_form_in_place() -> None:
    x, y = gf.tensor([[0.25, 0.5], [0.75, 0.125]]), gf.ones(2, 2)
    calls: dict[str, tuple[object, ...]] = {
        "absolute": (), "negative": (), "sgn": (), "deg2rad": (), "arcsin": (), "asinh": (), "atanh": (),
        "atan2": (y,), "logit": (), "tril": (), "triu": (1,), "addmm": (y, y), "not_equal": (0.5,),
        "greater": (0.3,), "true_divide": (2.0,),
    }  # fmt: skip
    for name, args in calls.items():
        wanted = getattr(x, name)(*args)

        def change(t: gf.Tensor, name: str = name, args: tuple[object, ...] = args) -> None:
            getattr(t, name + "_")(*args)

        for run in (change, gf.compile(change)):
            t = x.clone()
            run(t)
            np.testing.assert_allclose(t.numpy(), wanted.float().numpy(), rtol=1e-6)
    bits = gf.tensor([1, 2])
    bits <<= 2
    bits >>= 1
    assert bits.tolist() == [2, 4]
