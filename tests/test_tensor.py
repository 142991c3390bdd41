"""The tensor handle: gradients, changes in place, and the errors that guard them."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import GradientError, TraceError

from lives import both, traced

RNG = np.random.default_rng(3)


def leaf(*values: float) -> gf.Tensor:
    return gf.tensor([float(v) for v in values], requires_grad=True)


def grad_of(x: gf.Tensor) -> gf.Tensor:
    assert x.grad is not None
    return x.grad


# ---------------------------------------------------------------------------------------------- backward


def test_backward_accumulates() -> None:
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    assert grad_of(x).tolist() == [2, 4]
    (3 * x).sum().backward()
    assert grad_of(x).tolist() == [5, 7]
    grad_of(x).zero_()
    x.sum().backward()
    assert grad_of(x).tolist() == [1, 1]
    x.grad = None
    x.exp().sum().backward()
    np.testing.assert_allclose(grad_of(x).numpy(), np.exp([1, 2]), rtol=1e-6)


def test_backward_of_a_vector_takes_a_vector() -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    with pytest.raises(GradientError, match="grad can be implicitly created only for scalar outputs"):
        y.backward()
    y.backward(gf.tensor([1.0, 10.0]))
    assert grad_of(x).tolist() == [2, 40]
    with pytest.raises(GradientError, match="output's dtype and shape"):
        y.backward(gf.ones(3))


def test_what_requires_grad() -> None:
    x = leaf(1.0)
    assert x.is_leaf and x.grad_fn is None
    y = x + 1
    assert y.requires_grad and not y.is_leaf and repr(y.grad_fn).startswith("<AddBackward0 object at 0x")
    assert not (gf.ones(1) + 1).requires_grad and gf.ones(1).is_leaf
    assert not (x > 0).requires_grad and not x.argmax().requires_grad and not x.long().requires_grad
    assert not x.detach().requires_grad and not x.data.requires_grad
    with gf.no_grad():
        z = x * 2
        assert not z.requires_grad and not gf.is_grad_enabled()
        with gf.enable_grad():
            assert (x * 2).requires_grad
    with gf.set_grad_enabled(False):
        assert not (x * 2).requires_grad

    @gf.no_grad()
    def plain(t: gf.Tensor) -> gf.Tensor:
        return t * 2

    assert not plain(x).requires_grad and (x * 2).requires_grad
    with pytest.raises(GradientError, match="does not require grad"):
        gf.ones(()).backward()
    with pytest.raises(GradientError, match="only floating point"):
        gf.tensor([1], requires_grad=True)
    with pytest.raises(GradientError, match="leaf"):
        y.requires_grad_(False)


def test_a_gradient_reaches_every_leaf_once_through_every_path() -> None:
    a, b = leaf(2.0), leaf(3.0)
    c = a * b
    d = c + a
    (c * d).sum().backward()
    assert grad_of(a).item() == 3 * (6 + 2) + 6 * (3 + 1) and grad_of(b).item() == 2 * (6 + 2) + 6 * 2


def test_detach_cuts() -> None:
    x = leaf(3.0)
    (x * x.detach()).sum().backward()
    assert grad_of(x).item() == 3


def test_autograd_grad_leaves_grads_alone() -> None:
    x, w = leaf(1.0, 2.0), leaf(1.0, 1.0)
    y = (x**3).sum()
    (first,) = gf.autograd.grad(y, x, create_graph=True)
    assert first.requires_grad and x.grad is None
    (second,) = gf.autograd.grad(first.sum(), x)
    assert second.tolist() == [6, 12] and not second.requires_grad
    with pytest.raises(GradientError, match="not used"):
        gf.autograd.grad(y, w)
    assert gf.autograd.grad(y, [x, w], allow_unused=True)[1] is None
    (linear,) = gf.autograd.grad((x * 2).sum(), x, create_graph=True)
    assert not linear.requires_grad  # nothing more to differentiate
    (g,) = gf.autograd.grad(x * 2, x, grad_outputs=gf.tensor([1.0, 3.0]))
    assert g.tolist() == [2, 6]


@pytest.mark.parametrize(
    ("function", "keeps"),
    [
        (lambda x: x.exp(), True), (lambda x: x * x, True), (lambda x: x @ gf.ones(2), True),
        (lambda x: x.relu(), True), (lambda x: x[[0, 1]], True), (lambda x: gf.where(x > 0, x, 1.0), True),
        (gf.compile(lambda x: x.sin()), True), (lambda x: x + 1, False), (lambda x: x[1:].mean(), False),
        (lambda x: 3 - x.reshape(2, 1), False), (lambda x: gf.cat([x, x]).cumsum(0), False),
    ],
)  # fmt: skip
def test_a_second_backward_needs_the_first_to_retain_the_graph(
    function: Callable[[gf.Tensor], gf.Tensor], keeps: bool
) -> None:
    x = leaf(1.0, 2.0)
    y = function(x).sum()
    y.backward(retain_graph=True)
    once = grad_of(x).clone()
    y.backward()
    assert grad_of(x).tolist() == (2 * once).tolist()
    if keeps:
        with pytest.raises(
            GradientError, match=r"backward through the graph a second time(.|\n)*at /"
        ):
            y.backward()
        with pytest.raises(GradientError, match="a second time"):
            gf.autograd.grad(y, x)
    else:
        y.backward()
    assert grad_of(x).tolist() == ((2 if keeps else 3) * once).tolist()


def test_graphs_that_overlap_share_what_they_keep() -> None:
    x = leaf(1.0, 2.0)
    y = x + 1
    one, two = (y * y).sum(), (y * y * 3).sum()
    one.backward()
    two.backward()
    assert grad_of(x).tolist() == [16, 24]
    z = x.exp()
    z.sum().backward()
    three = (z * z).sum()
    (g,) = gf.autograd.grad(three, z)  # stops before what is used up
    np.testing.assert_allclose(g.numpy(), 2 * np.exp([1, 2]))
    with pytest.raises(GradientError, match="gradient of exp needs"):
        (z * 2).sum().backward()
    a, b = leaf(2.0), leaf(3.0)
    product = a * b
    gf.autograd.backward([product * a, product * b])  # one walk
    assert (grad_of(a).item(), grad_of(b).item()) == (12 + 9, 4 + 12)


def test_a_backward_lets_go_of_what_the_graph_kept() -> None:
    x = leaf(*range(5))
    hidden = x.exp()
    kept = weakref.ref(hidden._array)
    batch = gf.ones(5).double()
    data = weakref.ref(batch._array)
    loss = (hidden * hidden * batch).sum()
    del hidden, batch
    loss.backward(retain_graph=True)
    assert kept() is not None and data() is not None
    loss.backward()
    assert kept() is None and data() is None and loss.grad_fn is not None


def test_backward_with_create_graph_goes_on() -> None:
    x = leaf(2.0)
    (x**3).sum().backward(create_graph=True)
    assert grad_of(x).requires_grad
    (g,) = gf.autograd.grad(grad_of(x).sum(), x)
    assert g.item() == 12


def test_gradients_have_memory_of_their_own() -> None:
    x, y = leaf(1.0), leaf(1.0)
    (x + y).sum().backward()
    grad_of(x).add_(5)
    assert grad_of(y).item() == 1


def test_a_gradient_has_its_tensors_type() -> None:
    x = leaf(1.0)
    with pytest.raises(GradientError, match="dtype and shape"):
        x.grad = gf.ones(2)


def test_gradients_are_pytorchs_at_the_edges() -> None:
    def gradient(function: Callable[[Any], Any], *values: float) -> list[float]:
        x = leaf(*values)
        function(x).sum().backward()
        return grad_of(x).tolist()  # type: ignore[no-any-return]

    assert gradient(gf.relu, -1, 0, 2) == [0, 0, 1]
    assert gradient(gf.abs, -1, 0, 2) == [-1, 0, 1]
    assert gradient(lambda x: x.clamp(0, 1), -1, 0, 0.5, 1, 2) == [0, 1, 1, 1, 0]
    assert gradient(lambda x: x.norm(), 0, 0) == [0, 0]
    assert gradient(lambda x: x**0, 0, 2) == [0, 0]
    assert gradient(lambda x: x.amax(), 1, 3, 3) == [0, 0.5, 0.5]
    assert gradient(lambda x: x.max(0).values, 1, 3, 3) == [0, 1, 0]
    assert gradient(lambda x: gf.maximum(x, gf.tensor([1.0, 2.0])), 1, 3) == [0.5, 1]
    assert gradient(lambda x: x.prod(), 0, 2, 3) == [6, 0, 0]


# ------------------------------------------------------------------------------------------- changes in place


def test_a_leaf_that_requires_grad_is_not_changed_in_place() -> None:
    x = leaf(1.0)
    with pytest.raises(GradientError, match=r"no_grad\(\)(.|\n)*test_tensor.py"):
        x.add_(1)
    with gf.no_grad():
        x.add_(1)
    assert x.item() == 2 and x.is_leaf
    (x * x).sum().backward()
    assert grad_of(x).item() == 4


def test_backward_notices_changes_of_what_it_needs() -> None:
    x, other = leaf(1.0, 2.0), gf.tensor([3.0, 4.0])
    y = x * other
    other.add_(1)
    with pytest.raises(GradientError, match="modified by an inplace operation"):
        y.sum().backward()
    z = x.exp()
    with gf.no_grad():
        z.mul_(2)
    with pytest.raises(GradientError, match="modified"):
        z.sum().backward()
    view = gf.zeros(2)
    product = x * view
    view[0] = 1
    with pytest.raises(GradientError, match="modified"):
        product.sum().backward()


def test_in_place_methods_carry_gradients() -> None:
    x = leaf(1.0, 2.0)
    y = gf.zeros(2)
    y.add_(x).mul_(x)
    assert y.requires_grad and not y.is_leaf
    y.sum().backward()
    assert grad_of(x).tolist() == [2, 4]
    z = gf.zeros(3)
    z[1:] = x * 2
    (z * z).sum().backward()
    assert grad_of(x).tolist() == [2 + 8, 4 + 16]
    x.grad = None
    e = x.exp()
    e.mul_(e).add_(1)
    e.sum().backward()
    np.testing.assert_allclose(grad_of(x).numpy(), 2 * np.exp([2, 4]), rtol=1e-6)
    e = x * 2
    e.zero_()
    assert e.requires_grad and (e + x).requires_grad


def test_in_place_methods_give_the_handle_back_and_keep_its_memory() -> None:
    array = np.array([1.0, -2.0, 3.0])
    x = gf.from_numpy(array)
    for method, arguments in (
        ("add_", (1,)), ("sub_", (1,)), ("mul_", (2,)), ("div_", (2,)), ("clamp_", (-1, 2)), ("neg_", ()),
        ("exp_", ()),
        ("sqrt_", ()), ("lerp_", (gf.zeros(3, dtype=gf.float64), 0.5)), ("addcmul_", (x.clone(), x.clone())),
        ("addcdiv_", (x.clone(), x.clone())), ("masked_fill_", (x > 5, 0)), ("relu_", ()), ("pow_", (2,)),
        ("copy_", (gf.ones(3),)), ("fill_", (3,)), ("zero_", ()),
    ):  # fmt: skip
        wanted = getattr(x, method[:-1])(*arguments).numpy() if hasattr(x, method[:-1]) else None
        assert getattr(x, method)(*arguments) is x
        if wanted is not None:
            np.testing.assert_allclose(array, wanted)
    assert array.tolist() == [0, 0, 0]


def test_augmented_operators_work_on_the_handle() -> None:
    x = gf.tensor([4.0, 9.0])
    y = x
    x += 1
    x -= 2
    x *= 3
    x /= 3
    x **= 2
    assert y is x and y.tolist() == [9, 64]
    i = gf.tensor([7])
    i //= 2
    i |= 4
    i &= 5
    assert i.tolist() == [5]


def test_steps_in_place_are_steps_of_the_trace() -> None:
    def function(x: gf.Tensor) -> Any:
        y = x.clone()
        y += 1
        y[0] = 0
        y[:, 1] *= 2
        y.clamp_(max=3)
        return y, x

    both(function, RNG.standard_normal((3, 4)))


# ---------------------------------------------------------------------------------------------- Python


def test_numbers_of_tensors() -> None:
    assert (gf.tensor(3).item(), float(gf.tensor(2.5)), int(gf.tensor([4])), bool(gf.tensor(0))) == (
        3,
        2.5,
        4,
        False,
    )
    assert [1, 2, 3][gf.tensor(1)] == 2 and list(range(gf.tensor(3))) == [0, 1, 2]
    assert [t.item() for t in gf.tensor([1, 2])] == [1, 2] and len(gf.ones(4, 2)) == 4
    for call in (lambda: bool(gf.ones(2)), lambda: gf.ones(2).item()):
        with pytest.raises(ValueError, match="shape"):
            call()
    for call in (lambda: len(gf.tensor(1)), lambda: iter(gf.tensor(1))):
        with pytest.raises(TypeError, match="0-d"):
            call()
    with pytest.raises(GradientError, match="detach"):
        leaf(1.0).numpy()


def test_shapes_are_tuples() -> None:
    x = gf.ones(2, 3)
    assert x.shape == (2, 3) and x.size() == (2, 3) and x.shape.numel() == 6 and x.ndim == 2
    assert repr(x.shape) == "graphflow.Size([2, 3])"


def test_tensors_are_hashed_by_identity_and_copied_deeply() -> None:
    x = leaf(1.0)
    assert {x: 1}[x] == 1 and x in {x}
    twin = copy.deepcopy(x)
    assert twin is not x and twin.requires_grad and twin.tolist() == x.tolist()
    assert not np.shares_memory(twin.detach().numpy(), x.detach().numpy())
    with pytest.raises(GradientError, match="leaf"):
        copy.deepcopy(x * 2)


def test_a_traced_value_has_no_numbers() -> None:
    kept: list[gf.Tensor] = []
    cases: list[tuple[Callable[[gf.Tensor], Any], str]] = [
        (lambda x: x if x.sum() > 0 else -x, r"gf\.where(.|\n)*test_tensor.py"),
        (lambda x: x * x.sum().item(), "return the tensor"),
        (lambda x: gf.tensor(np.sin(x)), "graphflow function"),
        (lambda x: x * float(x.sum()), "keep it a tensor"),
        (lambda x: gf.tensor([x[0, 0]]), r"gf\.stack"),
        (lambda x: gf.nonzero(x), r"gf\.where"),
    ]
    for function, message in cases:
        with pytest.raises(TraceError, match=message):
            traced(function, np.ones((2, 3)))
    traced(lambda x: kept.append(x) or x, np.ones(3))  # type: ignore[func-returns-value]
    with pytest.raises(TraceError, match="return it from the function instead of storing it"):
        kept[0] + 1


@pytest.mark.parametrize("compiled", [False, True])
def test_steps_have_zero_gradients(compiled: bool) -> None:
    def gradient(x: gf.Tensor) -> gf.Tensor:
        x = x.detach().requires_grad_(True)
        return gf.autograd.grad((x.floor() + x.round() + gf.sign(x)).sum(), [x])[0]

    x = gf.tensor([1.5, -2.5])
    assert (gf.compile(gradient) if compiled else gradient)(x).tolist() == [0.0, 0.0]
    leaf = x.clone().requires_grad_(True)
    other = gf.ones(2, requires_grad=True)
    (leaf.ceil() * other).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [0.0, 0.0]
    # what isn't reached at all still has none
    (leaf.detach() * other).sum().backward()
    assert gf.autograd.grad((leaf.detach() * other).sum(), [leaf], allow_unused=True) == (None,)
