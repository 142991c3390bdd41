"""Normalising layers, embeddings, bilinear maps and parameter containers against NumPy formulas."""

from __future__ import annotations

import copy

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.nn import functional as F

from compositions import check

RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def normalised(x: np.ndarray, axes: tuple[int, ...], eps: float) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


# ---------------------------------------------------------------------------------------------- normalisation


@pytest.mark.parametrize(("shape", "last"), [((5, 4), 1), ((5, 3, 4), 1), ((5, 3, 4), 2), ((5, 2, 3, 2), 3)])
def test_layer_norm(shape: tuple[int, ...], last: int) -> None:
    sizes, axes = shape[-last:], tuple(range(-last, 0))
    check(
        lambda x, w, b: F.layer_norm(x, sizes, w[0], b[0], 0.01),
        lambda x, w, b: normalised(x, axes, 0.01) * w[0] + b[0],
        draw(*shape), draw(5, *sizes), draw(5, *sizes), trained=(0, 1, 2),
    )  # fmt: skip
    check(lambda x: F.layer_norm(x, sizes), lambda x: normalised(x, axes, 1e-5), draw(*shape), sizes=(3,))


def test_rms_norm() -> None:
    def formula(x: np.ndarray, w: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x * x).mean((-2, -1), keepdims=True) + 0.1) * w

    x, w = draw(4, 3, 2), draw(3, 2)
    check(lambda x, w: F.rms_norm(x, (3, 2), w, 0.1), formula, x, w, trained=(0, 1))
    check(
        lambda x: F.rms_norm(x, (2,)), lambda x: x / np.sqrt((x * x).mean(-1, keepdims=True)), x, sizes=(2,)
    )


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("positions", [(), (3,), (2, 2)])
def test_group_norm(groups: int, positions: tuple[int, ...]) -> None:
    wide = (4, *(1,) * len(positions))

    def formula(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        split = normalised(x.reshape((len(x), groups, -1)), (-1,), 1e-5)
        return split.reshape(x.shape) * w.reshape(wide) + b.reshape(wide)

    arguments = draw(3, 4, *positions), draw(4), draw(4)
    check(lambda x, w, b: F.group_norm(x, groups, w, b), formula, *arguments, trained=(0, 1, 2))


@pytest.mark.parametrize("dtype", [gf.float16, gf.bfloat16])
def test_statistics_of_16_bits_are_taken_in_32(dtype: gf.dtype) -> None:
    x = gf.tensor(draw(4, 8) * 1000).to(dtype)
    wide = x.float()
    for function in (
        lambda t: F.layer_norm(t, (8,)),
        lambda t: F.rms_norm(t, (8,)),
        lambda t: F.group_norm(t, 2),
    ):
        wanted = function(wide).to(dtype)
        for run in (function, gf.compile(function)):
            found = run(x)
            assert found.dtype is dtype and found.tolist() == wanted.tolist()


def test_a_layer_norm_is_one_kernel_and_a_group_norm_too() -> None:
    for layer, shape in ((nn.LayerNorm(8), (4, 8)), (nn.GroupNorm(2, 6), (4, 6, 3, 3))):
        compiled = gf.compile(layer)
        compiled(gf.ones(*shape))
        assert len(compiled.explain().kernels) == 1


def test_normalising_layers_own_what_they_are_asked_to() -> None:
    layer = nn.LayerNorm((2, 3), bias=False)
    assert [(n, tuple(p.shape)) for n, p in layer.named_parameters()] == [("weight", (2, 3))]
    assert layer.bias is None and layer.weight.tolist() == [[1.0] * 3] * 2
    assert list(nn.LayerNorm(3, elementwise_affine=False).parameters()) == []
    assert list(nn.GroupNorm(2, 4, affine=False).parameters()) == []
    assert [n for n, _ in nn.GroupNorm(2, 4).named_parameters()] == ["weight", "bias"]
    assert [n for n, _ in nn.RMSNorm(4).named_parameters()] == ["weight"]
    assert repr(nn.LayerNorm(3)) == "LayerNorm((3,), eps=1e-05, elementwise_affine=True, bias=True)"
    assert repr(nn.RMSNorm((2, 3))) == "RMSNorm((2, 3), eps=None, elementwise_affine=True)"
    assert repr(nn.GroupNorm(2, 4)) == "GroupNorm(2, 4, eps=1e-05, affine=True, bias=True)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: F.layer_norm(x, (3,)),
            r"Given normalized_shape=\[3\], expected input with shape \[\*, 3\]",
        ),
        (lambda x: F.layer_norm(x, ()), "at least 1-dimensional"),
        (lambda x: F.layer_norm(x, (4,), gf.ones(3)), r"Expected weight to be of shape \[4\], but got \[3\]"),
        (lambda x: F.group_norm(x, 3), "divisible by num_groups"),
        (lambda x: F.group_norm(x[0], 2), "at least 2 dimensions"),
        (lambda x: nn.GroupNorm(3, 4), "must be divisible by num_groups"),
    ],
)
def test_normalisation_says_what_does_not_fit(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call(gf.ones(2, 4))


# ---------------------------------------------------------------------------------------------- embeddings

INDEX = np.array([[1, 2], [2, 0], [4, 4]])


def test_an_embedding_looks_up_rows_and_adds_into_their_gradients() -> None:
    check(lambda w, i: F.embedding(i, w), lambda w, i: w[i], draw(5, 3), INDEX)
    layer = nn.Embedding(5, 3, dtype=gf.float64)
    compiled = gf.compile(layer)
    for index in (INDEX, INDEX[:2]):
        assert compiled(gf.tensor(index)).tolist() == layer.weight.detach().numpy()[index].tolist()
    assert len(compiled.variants) == 1
    assert tuple(layer(gf.tensor(2)).shape) == (3,)
    assert tuple(layer(gf.zeros(0, 2, dtype=gf.int64)).shape) == (0, 2, 3)


def test_the_padding_row_is_zero_and_never_trained() -> None:
    layer = nn.Embedding(5, 3, padding_idx=-1)
    assert layer.padding_idx == 4 and layer.weight[4].tolist() == [0.0] * 3

    def gradient(index: gf.Tensor) -> gf.Tensor:
        return gf.autograd.grad(layer(index).sum(), layer.weight)[0]

    counts = np.bincount(INDEX.ravel(), minlength=5).astype(float)
    counts[4] = 0
    for run in (gradient, gf.compile(gradient)):
        assert run(gf.tensor(INDEX)).tolist() == np.tile(counts[:, None], 3).tolist()


def test_gradients_by_frequency() -> None:
    layer = nn.Embedding(5, 3, scale_grad_by_freq=True)
    layer(gf.tensor(INDEX)).sum().backward()
    assert layer.weight.grad[:, 0].tolist() == [1.0, 1.0, 1.0, 0.0, 1.0]


def test_max_norm_shortens_the_rows_that_are_read() -> None:
    rows = draw(5, 3) * 3
    layer = nn.Embedding.from_pretrained(gf.tensor(rows.copy()), max_norm=1.0)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    wanted = np.where(lengths > 1, rows / (lengths + 1e-7), rows)
    wanted[3] = rows[3]
    np.testing.assert_allclose(layer(gf.tensor(INDEX)).numpy(), wanted[INDEX])
    np.testing.assert_allclose(layer.weight.detach().numpy(), wanted)
    assert not layer.weight.requires_grad
    again = nn.Embedding.from_pretrained(gf.tensor(rows.copy()), freeze=False, max_norm=1.0)
    np.testing.assert_allclose(gf.compile(again)(gf.tensor(INDEX)).detach().numpy(), wanted[INDEX])
    np.testing.assert_allclose(again.weight.detach().numpy(), wanted)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Embedding(3, 2)(gf.tensor([3])), IndexError, "out of"),
        (lambda: nn.Embedding(3, 2)(gf.tensor([-1])), IndexError, "out of"),
        (lambda: gf.compile(nn.Embedding(3, 2))(gf.tensor([0, 3])), IndexError, "out of"),
        (lambda: nn.Embedding(3, 2)(gf.tensor([0.5])), TypeError, "integer dtype"),
        (lambda: nn.Embedding(3, 2, padding_idx=3), ValueError, "Padding_idx must be within"),
        (lambda: F.embedding(gf.tensor([0]), gf.ones(3)), ValueError, "must be 2-D"),
        (lambda: nn.Embedding(3, 2, _weight=gf.ones(2, 2)), ValueError, "does not match num_embeddings"),
    ],
)
def test_embeddings_say_what_does_not_fit(call, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        call()


def test_embeddings_print_what_is_not_the_default() -> None:
    assert repr(nn.Embedding(5, 3)) == "Embedding(5, 3)"
    assert repr(nn.Embedding(5, 3, 1, 2.0)) == "Embedding(5, 3, padding_idx=1, max_norm=2.0)"
    assert F.one_hot(gf.tensor([0, 2]), 3).tolist() == [[1, 0, 0], [0, 0, 1]]


# ---------------------------------------------------------------------------------------------- other layers


@pytest.mark.parametrize("lead", [(), (4,), (4, 2)])
def test_bilinear(lead: tuple[int, ...]) -> None:
    check(
        F.bilinear,
        lambda a, b, w, c: np.einsum("...i,oij,...j->...o", a, w, b) + c,
        draw(*lead, 3), draw(*lead, 2), draw(5, 3, 2), draw(5), trained=(0, 1, 2, 3),
    )  # fmt: skip


def test_bilinear_as_a_layer() -> None:
    layer = nn.Bilinear(4, 3, 2)
    assert layer.weight.abs().max().item() <= 0.5 and tuple(layer.bias.shape) == (2,)
    assert repr(layer) == "Bilinear(in1_features=4, in2_features=3, out_features=2, bias=True)"
    assert nn.Bilinear(4, 3, 2, bias=False).bias is None
    with pytest.raises(ValueError, match="input dimensions do not match"):
        layer(gf.ones(2, 4), gf.ones(3, 3))
    with pytest.raises(ValueError, match="don't fit a weight"):
        layer(gf.ones(2, 3), gf.ones(2, 3))
    with pytest.raises(ValueError, match="in1_features must be > 0"):
        nn.Bilinear(0, 3, 2)


def test_distances() -> None:
    x, y = draw(5, 4), draw(5, 4)
    check(
        nn.CosineSimilarity(),
        lambda x, y: (x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1)),
        x, y, trained=(0, 1), sizes=(3,),
    )  # fmt: skip
    check(
        nn.PairwiseDistance(3.0, keepdim=True),
        lambda x, y: (np.abs(x - y + 1e-6) ** 3).sum(1, keepdims=True) ** (1 / 3),
        x, y, trained=(0, 1), sizes=(3,),
    )  # fmt: skip
    check(F.normalize, lambda x: x / np.linalg.norm(x, axis=1, keepdims=True), x, sizes=(3,))
    assert F.normalize(gf.zeros(2, 3)).tolist() == [[0.0] * 3] * 2
    assert F.cosine_similarity(gf.zeros(2, 3), gf.ones(2, 3)).tolist() == [0.0, 0.0]


def test_unflatten_undoes_flatten() -> None:
    x = gf.arange(24).reshape(2, 12)
    layer = nn.Unflatten(1, (3, -1))
    assert nn.Flatten()(layer(x)).tolist() == x.tolist() and tuple(layer(x).shape) == (2, 3, 4)
    assert repr(layer) == "Unflatten(dim=1, unflattened_size=(3, -1))"
    for bad in (("a", (2, 3)), (1, 3), (1, ("a",))):
        with pytest.raises(TypeError, match="unflattened_size"):
            nn.Unflatten(*bad)


# --------------------------------------------------------------------------------------- parameter containers


def test_a_parameter_list_is_a_list() -> None:
    values = nn.ParameterList([gf.zeros(2), nn.Parameter(gf.ones(1))])
    assert [n for n, _ in values.named_parameters()] == ["0", "1"]
    assert isinstance(values[0], nn.Parameter) and values[-1].item() == 1.0
    values += [gf.full((1,), 2.0)]
    values.append(gf.full((1,), 3.0))
    values[0] = gf.ones(3)
    assert [tuple(v.shape) for v in values] == [(3,), (1,), (1,), (1,)] and len(values) == 4
    assert [v.item() for v in values[2:]] == [2.0, 3.0] and isinstance(values[2:], nn.ParameterList)
    assert "0" not in dir(values)
    assert list(copy.deepcopy(values).state_dict()) == ["0", "1", "2", "3"]
    with pytest.raises(IndexError, match="index 4 is out of range"):
        values[4]
    with pytest.raises(TypeError, match="use append"):
        values.extend(gf.ones(2))
    assert repr(values[2:3]) == (
        "ParameterList(\n    (0): Parameter containing: [graphflow.float32 of size 1]\n)"
    )


def test_a_parameter_dict_is_a_dictionary() -> None:
    values = nn.ParameterDict({"a": gf.zeros(2), "b": gf.ones(1)})
    assert list(values) == ["a", "b"] == list(values.keys()) and len(values) == 2
    assert [n for n, _ in values.named_parameters()] == ["a", "b"]
    assert "a" in values and values["b"].item() == 1.0 and values.get("c") is None
    assert values.setdefault("c", gf.ones(2)).tolist() == [1.0, 1.0]
    assert values.pop("a").tolist() == [0.0, 0.0] and list(values) == ["b", "c"]
    values.update([("d", gf.zeros(1))])
    assert [name for name, _ in values.items()] == ["b", "c", "d"] and len(list(values.values())) == 3
    del values["d"]
    with pytest.raises(KeyError):
        values["d"]
    with pytest.raises(KeyError, match="already exists"):
        values["train"] = gf.ones(1)
    with pytest.raises(TypeError, match="keys are strings"):
        values[3] = gf.ones(1)
    values.clear()
    assert list(values.parameters()) == [] and repr(values) == "ParameterDict()"


def test_compiled_functions_see_what_a_parameter_list_holds() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scales = nn.ParameterList([gf.full((1,), 2.0)])

        def forward(self, x: gf.Tensor) -> gf.Tensor:
            for scale in self.scales:
                x = x * scale
            return x

    net = Net()
    compiled = gf.compile(net)
    assert compiled(gf.ones(1)).item() == 2.0
    net.scales.append(gf.full((1,), 3.0))
    assert compiled(gf.ones(1)).item() == 6.0


@pytest.mark.parametrize("kind", ["list", "dict", "tied"])
def test_compiled_functions_notice_changes_of_modules_that_are_never_called(kind: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleDict() if kind == "dict" else nn.ModuleList()
            self.table = nn.Embedding.from_pretrained(gf.ones(1, 1))

        def forward(self, x: gf.Tensor) -> gf.Tensor:
            for part in self.parts.values() if kind == "dict" else self.parts:
                x = part(x)
            return F.linear(x, self.table.weight)

    net = Net()
    compiled = gf.compile(net)
    x = -gf.ones(1, 1)
    assert compiled(x).item() == -1.0
    if kind == "tied":
        net.table.weight = nn.Parameter(gf.full((1, 1), 5.0))
    elif kind == "dict":
        net.parts["relu"] = nn.ReLU()
    else:
        net.parts.append(nn.ReLU())
    assert compiled(x).item() == net(x).item() == (-5.0 if kind == "tied" else 0.0)


def test_short_vectors_keep_the_slope_of_their_length() -> None:
    a, b = np.array([0.1, 0.2]), np.array([3.0, -1.0])
    x = gf.tensor(a[None], requires_grad=True)
    nn.CosineSimilarity(eps=0.5)(x, gf.tensor(b[None])).sum().backward()
    held, other = 0.5, np.linalg.norm(b)
    wanted = b / (held * other) - (a @ b) / (held**2 * other) * a / np.linalg.norm(a)
    np.testing.assert_allclose(x.grad[0].numpy(), wanted, rtol=1e-12)
