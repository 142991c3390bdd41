"""Errors speak of the function that the user called, whatever it consists of, and of the user's line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import graphflow as gf
import graphflow.linalg as linalg
import graphflow.nn.functional as F
import pytest
from graphflow import nn
from graphflow.errors import DeviceError, DTypeError, GradientError, GraphflowError, ShapeError, TraceError
from graphflow.functions.registry import FUNCTIONS

pytestmark = pytest.mark.filterwarnings("ignore")

x, y, v, i = gf.ones(2, 3), gf.ones(4, 5), gf.ones(7), gf.tensor([1, 2])
affine, rnn, norm = nn.Linear(5, 2), nn.RNN(4, 2), nn.BatchNorm1d(3)
layers = nn.Sequential(nn.ReLU(), affine)
image, wide = gf.ones(1, 2, 8, 8), gf.ones(2, 3, dtype=gf.float64)

COMPOSITIONS: list[tuple[str, Callable[[], Any]]] = [
    ("linear", lambda: F.linear(x, y)),
    ("linear", lambda: F.linear(wide, gf.ones(4, 3))),
    ("linear", lambda: F.linear(x, gf.ones(4, 3), v)),
    ("linear", lambda: affine(x)),
    ("mse_loss", lambda: F.mse_loss(x, y)),
    ("mse_loss", lambda: nn.MSELoss()(x, y)),
    ("l1_loss", lambda: F.l1_loss(x, y)),
    ("smooth_l1_loss", lambda: F.smooth_l1_loss(x, y)),
    ("huber_loss", lambda: F.huber_loss(x, y)),
    ("kl_div", lambda: F.kl_div(x, y)),
    ("poisson_nll_loss", lambda: F.poisson_nll_loss(x, y)),
    ("hinge_embedding_loss", lambda: F.hinge_embedding_loss(x, y)),
    ("soft_margin_loss", lambda: F.soft_margin_loss(x, y)),
    ("triplet_margin_loss", lambda: F.triplet_margin_loss(x, x, y)),
    ("cosine_embedding_loss", lambda: F.cosine_embedding_loss(x, y, v)),
    ("cosine_similarity", lambda: F.cosine_similarity(x, y)),
    ("pairwise_distance", lambda: F.pairwise_distance(x, y)),
    ("normalize", lambda: F.normalize(x, dim=4)),
    ("softmin", lambda: F.softmin(x, dim=4)),
    ("upsample", lambda: F.upsample(x, size=4)),
    ("layer_norm", lambda: F.layer_norm(x, (3,), v)),
    ("conv2d", lambda: F.conv2d(image, gf.ones(3, 4, 3, 3))),
    ("scaled_dot_product_attention", lambda: F.scaled_dot_product_attention(x, y, y)),
    ("view", lambda: x.view(5)),
    ("view_as", lambda: x.view_as(y)),
    ("reshape_as", lambda: x.reshape_as(y)),
    ("unflatten", lambda: x.unflatten(1, (9, 9))),
    ("tensordot", lambda: gf.tensordot(x, y)),
    ("inner", lambda: gf.inner(x, y)),
    ("addmm", lambda: gf.addmm(v, x, y)),
    ("linalg.inv", lambda: linalg.inv(x)),
    ("linalg.norm", lambda: linalg.norm(x, dim=5)),
    ("linalg.multi_dot", lambda: linalg.multi_dot([x, y, y])),
    ("var", lambda: x.var(dim=4)),
    ("std", lambda: gf.std(x, dim=(0, 4))),
    ("norm", lambda: x.norm(dim=4)),
    ("vstack", lambda: gf.vstack([x, y])),
    ("hstack", lambda: gf.hstack([x, y])),
    ("stack", lambda: gf.stack([x, y])),
    ("take_along_dim", lambda: gf.take_along_dim(x, gf.ones(9, 9, dtype=gf.int64), 0)),
    ("xlogy", lambda: gf.special.xlogy(x, y)),
    ("lerp", lambda: gf.lerp(x, y, 0.5)),
    ("add_", lambda: gf.ones(2).add_(v)),
    ("addcmul_", lambda: gf.ones(2).addcmul_(v, v)),
    ("matmul", lambda: x @ y),
    ("add", lambda: x + y),
    ("div", lambda: x / y),
    ("lt", lambda: x < y),
    ("RNN", lambda: rnn(x)),
    ("Flatten", lambda: nn.Flatten(3)(x)),
    ("Unflatten", lambda: nn.Unflatten(1, (9, 9))(x)),
    ("linear", lambda: layers(x)),
]  # fmt: skip


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("name", "function"), COMPOSITIONS, ids=[f"{n}{k}" for k, (n, _) in enumerate(COMPOSITIONS)]
)
def test_compositions_name_themselves(name: str, function: Callable[[], Any], compiled: bool) -> None:
    line = function.__code__.co_firstlineno
    with pytest.raises((ValueError, TypeError, NotImplementedError)) as raised:
        (gf.compile(function) if compiled else function)()
    text = str(raised.value)
    assert re.match(rf"{re.escape(name)}: [^:]", text), text
    assert f"at {__file__}:{line} in <lambda>: " in text
    assert text.count("\n  at ") == 1 and text.count("\n  arguments: ") <= 1
    assert "\n  operands: " not in text or "\n  arguments: " not in text


def test_the_arguments_are_told_as_they_were_given() -> None:
    with pytest.raises(
        ShapeError, match=r"\n  arguments: input float32\[2, 3\], target float32\[4, 5\]\n  at"
    ):
        F.smooth_l1_loss(x, y)
    with pytest.raises(ShapeError, match=r"\n  arguments: self float32\[2, 3\], 5\n  at"):
        x.view(5)
    with pytest.raises(
        ShapeError, match=r"\n  arguments: tensors \[float32\[2, 3\], float32\[4, 5\]\]\n  at"
    ):
        gf.vstack([x, y])
    with pytest.raises(
        ShapeError, match=r"linear: input of shape .2, 3. has 3 features .* weight of shape .4, 5. takes 5"
    ):
        F.linear(x, y)


@pytest.mark.parametrize("compiled", [False, True])
def test_calls_that_do_not_fit_a_signature(compiled: bool) -> None:
    for function, said in [
        (lambda: gf.eq(x), r"eq: missing a required argument: 'other'; it takes \(input, other\)"),
        (lambda: gf.exp(x, dim=1), "exp: got an unexpected keyword argument 'dim'; it takes "),
        (
            lambda: F.conv2d(image),
            r"conv2d: missing a required argument: 'weight'; it takes \(input, weight, ",
        ),
        (lambda: F.relu_(gf.ones(2), 3), "relu_: too many positional arguments"),
        (lambda: affine(x, y), r"Linear: too many positional arguments; it takes \(input\)"),
        (lambda: norm(None), "BatchNorm1d: argument 'input' must be a Tensor, not NoneType"),
    ]:
        with pytest.raises(TypeError, match=rf"^{said}(.|\n)*at .*test_error_names.py:\d+ in <lambda>"):
            (gf.compile(function) if compiled else function)()


# -------------------------------------------------------------------------------------------- the user's code


def wrong(value: Any) -> Any:
    """What functions that call it must not put their own name on."""
    return value + y[:, :3]  # wrong


class _Wrong(nn.Module):
    def forward(self, value: Any) -> Any:
        return wrong(value)


class _WrongFunction(gf.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Any) -> Any:
        return wrong(value)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> Any:
        return gradient


def _hooked() -> Any:
    leaf = gf.ones(2, 3, requires_grad=True)
    leaf.register_hook(wrong)
    leaf.sum().backward()


def _layer_with_a_hook() -> Any:
    layer = nn.Linear(3, 3)
    layer.register_forward_hook(lambda module, args, result: wrong(result))
    return layer(x)


CALLERS: list[Callable[[], Any]] = [
    lambda: gf.vmap(wrong)(gf.ones(5, 2, 3)),
    lambda: gf.scan(lambda carry, _: (wrong(carry), carry), x, gf.ones(4)),
    lambda: gf.fori_loop(0, 3, lambda k, value: wrong(value), x),
    lambda: gf.while_loop(lambda value: value.sum() < 100, wrong, x),
    lambda: gf.cond(x.sum() > 0, wrong, lambda value: value, x),
    lambda: gf.grad(lambda value: wrong(value).sum())(x),
    lambda: gf.jacobian(wrong)(x),
    lambda: gf.checkpoint(wrong, x),
    lambda: gf.compile(wrong)(x),
    lambda: _WrongFunction.apply(x),
    lambda: nn.Sequential(nn.Linear(3, 3), _Wrong(), nn.Linear(3, 3))(x),
    lambda: F.triplet_margin_with_distance_loss(x, x, x, distance_function=lambda a, b: wrong(a)),
    _hooked,
    _layer_with_a_hook,
]


@pytest.mark.parametrize("function", CALLERS)
def test_the_users_own_code_keeps_its_errors(function: Callable[[], Any]) -> None:
    with pytest.raises(
        ShapeError, match=rf"^add: (.|\n)*at {re.escape(__file__)}:\d+ in wrong: return value \+ y"
    ):
        function()


def test_a_users_own_exception_is_left_alone() -> None:
    def fails(value: Any) -> Any:
        raise ValueError("mine: my own words\n  at home")

    mixed = nn.Sequential(nn.ReLU())
    mixed.append(type("Mine", (nn.Module,), {"forward": lambda self, value: fails(value)})())
    for call in (lambda: mixed(x), lambda: gf.vmap(fails)(x), lambda: gf.checkpoint(fails, x)):
        with pytest.raises(ValueError, match=r"^mine: my own words\n  at home$"):
            call()


# ---------------------------------------------------------------------------------------------- everything


def _public() -> Iterator[tuple[str, Callable[..., Any]]]:
    yield from ((n, f) for n, f in FUNCTIONS.items() if n not in ("save", "load"))
    yield from ((n, getattr(F, n)) for n in F.__all__)
    yield from ((n, getattr(linalg, n)) for n in linalg.__all__ if n != "LinAlgError")
    yield from ((n, getattr(gf.special, n)) for n in gf.special.__all__)


BAD: list[tuple[Any, ...]] = [
    (x,), (x, y), (x, y, v), (v,), (gf.tensor(1.0),), (gf.ones(0, 3),), (x, 7), (x, -9, 4), (x, "a"), ("a",),
    (None,), (x, object()), (gf.tensor([True]), gf.tensor([True])), (x, 5, i), ([x, y],), (x, (5, 9)), (x, i),
    (image, gf.ones(4, 5, 3, 3)), (x, wide), (),
]  # fmt: skip
OWN = ("ShapeError", "DTypeError", "IndexRangeError", "LinAlgError")


@pytest.mark.parametrize("arguments", BAD, ids=range(len(BAD)))
def test_no_function_speaks_of_its_insides(arguments: tuple[Any, ...]) -> None:
    gf.manual_seed(0)
    found = []
    for name, function in _public():
        try:
            function(*arguments)
        except GraphflowError as problem:
            text = str(problem)
            own = text.startswith((f"{name}: ", f"{function.__name__}: ")) and __file__ in text
            if type(problem).__name__ in OWN and not own:
                found.append((name, text))
            elif not isinstance(problem, (ShapeError, DTypeError, DeviceError, GradientError, TraceError)):
                found.append((name, repr(problem)))
        except (TypeError, ValueError, IndexError, NotImplementedError) as problem:
            assert type(problem).__module__ == "builtins"
        except Exception as problem:
            found.append((name, repr(problem)))
    assert not found


LAYERS: dict[str, tuple[Any, ...]] = {
    "Linear": (3, 4), "Bilinear": (3, 4, 5), "Conv1d": (3, 4, 3), "Conv2d": (3, 4, 3), "Conv3d": (3, 4, 3),
    "ConvTranspose2d": (3, 4, 3), "BatchNorm1d": (3,), "BatchNorm2d": (3,), "InstanceNorm1d": (3,),
    "LayerNorm": (3,), "GroupNorm": (1, 3), "RNN": (3, 4), "LSTM": (3, 4), "GRU": (3, 4), "LSTMCell": (3, 4),
    "GRUCell": (3, 4), "Embedding": (3, 4), "EmbeddingBag": (3, 4), "MultiheadAttention": (8, 2),
    "TransformerEncoderLayer": (8, 2), "Transformer": (8, 2), "MaxPool1d": (3,), "MaxPool2d": (3,),
    "AvgPool2d": (3,), "AdaptiveAvgPool2d": (3,), "Dropout": (), "ReLU": (), "PReLU": (7,), "GLU": (),
    "Softmax": (5,), "LogSoftmax": (5,), "Flatten": (4,), "Unflatten": (1, (9, 9)), "PixelShuffle": (2,),
    "Upsample": (), "Fold": ((4, 4), 2), "ReflectionPad1d": (20,), "ZeroPad2d": (2,), "CosineSimilarity": (),
    "L1Loss": (), "MSELoss": (), "CrossEntropyLoss": (), "NLLLoss": (), "BCELoss": (),
    "BCEWithLogitsLoss": (), "KLDivLoss": (), "CTCLoss": (), "MarginRankingLoss": (), "TripletMarginLoss": (),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_say_what_is_wrong(kind: str) -> None:
    layer = getattr(nn, kind)(*LAYERS[kind])
    for arguments in BAD:
        try:
            layer(*arguments)
        except (TypeError, ValueError, IndexError, NotImplementedError) as problem:
            text = str(problem)
            name = text.partition(":")[0]
            assert name in F.__all__ or name == kind or getattr(nn, name, None), text
            assert __file__ in text


def test_requires_grad_takes_a_bool() -> None:
    with pytest.raises(
        TypeError, match=r"^requires_grad_: takes True or False, not str\n  at .*test_error_names"
    ):
        gf.ones(2).requires_grad_("no")
    with pytest.raises(TypeError, match=r"^linalg.matrix_norm: argument 'ord' must be a number or a string"):
        linalg.matrix_norm(x, y)
