"""Layers and module trees against NumPy formulas in float64 and PyTorch's messages."""

from __future__ import annotations

import copy
import math

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.nn import functional as F

RNG = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def check(result: gf.Tensor, expected: object, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(result.detach().numpy(), expected, rtol=tolerance, atol=tolerance)


def log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    top = x.max(axis, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(axis, keepdims=True))


# ---------------------------------------------------------------------------------------------- module trees


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.scale = nn.Parameter(gf.ones(2))
        self.register_buffer("count", gf.zeros(1))
        self.register_buffer("hidden", gf.zeros(2), persistent=False)

    def forward(self, x: gf.Tensor) -> gf.Tensor:
        return self.first(x)


def test_a_module_knows_its_parameters_buffers_and_children() -> None:
    block = Block()
    assert [n for n, _ in block.named_parameters()] == ["scale", "first.weight", "first.bias"]
    assert [n for n, _ in block.named_parameters(prefix="b", recurse=False)] == ["b.scale"]
    assert [n for n, _ in block.named_buffers()] == ["count", "hidden"]
    assert [n for n, _ in block.named_modules()] == ["", "first"]
    assert list(block.children()) == [block.first]
    assert block.get_submodule("first") is block.first
    assert block.get_parameter("first.bias") is block.first.bias
    assert block.get_buffer("count") is block.count
    assert list(block.state_dict()) == ["scale", "count", "first.weight", "first.bias"]
    assert block.first.weight.name == "first.weight"
    with pytest.raises(AttributeError, match="has no attribute `second`"):
        block.get_submodule("second")


def test_shared_members_count_once() -> None:
    layer = nn.Linear(2, 2)
    both = nn.Sequential(layer, layer)
    assert len(list(both.parameters())) == 2
    assert len(list(both.modules())) == 2
    assert list(both.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert len(list(both.named_parameters(remove_duplicate=False))) == 4


def test_attributes_move_between_the_tables() -> None:
    block = Block()
    block.first = None
    assert list(block.state_dict()) == ["scale", "count"]
    del block.scale
    assert not list(block.parameters())
    block.extra = 3
    block.extra = nn.Parameter(gf.ones(1))
    assert [n for n, _ in block.named_parameters()] == ["extra"]
    block.count = gf.ones(3)
    assert tuple(block.state_dict()["count"].shape) == (3,)
    assert "extra" in dir(block)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda m: setattr(m, "weight", gf.ones(1)), TypeError, "as parameter 'weight'"),
        (lambda m: m.register_buffer("a.b", None), KeyError, "t contain"),
        (lambda m: m.register_buffer("", None), KeyError, "t be empty"),
        (lambda m: m.register_buffer("weight", None), KeyError, "'weight' already exists"),
        (lambda m: m.register_buffer("q", 3), TypeError, "to buffer 'q'"),
        (lambda m: m.register_parameter("forward", None), KeyError, "'forward' already exists"),
        (lambda m: m.register_parameter("z", gf.ones(1)), TypeError, "nn.Parameter or None required"),
        (lambda m: m.add_module("x", 3), TypeError, "int is not a Module subclass"),
        (lambda m: m.missing, AttributeError, "'Linear' object has no attribute 'missing'"),
        (lambda m: m.train(1), ValueError, "expected to be boolean"),
        (lambda m: m.to(gf.int64), TypeError, "only accepts floating point"),
        (lambda m: nn.Module()(1), NotImplementedError, 'missing the required "forward"'),
        (lambda m: nn.Parameter(3), TypeError, "made from a Tensor, got int"),
    ],
)
def test_mistakes_are_told_as_pytorch_tells_them(act, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message.replace("(", r"\(")):
        act(nn.Linear(2, 3))


def test_assigning_before_init_is_an_error() -> None:
    class Hasty(nn.Module):
        def __init__(self) -> None:
            self.layer = nn.Linear(1, 1)

    with pytest.raises(AttributeError, match=r"before Module\.__init__"):
        Hasty()


def test_printing_is_pytorchs() -> None:
    model = nn.Sequential(
        nn.Linear(3, 4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.GELU("tanh"),
        nn.Linear(4, 4, bias=False), nn.ReLU(True), nn.Softmax(dim=-1), nn.Identity(3), nn.CrossEntropyLoss(),
    )  # fmt: skip
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Linear(in_features=3, out_features=4, bias=True)\n"
        "  (1): ReLU()\n"
        "  (2): Dropout(p=0.3, inplace=False)\n"
        "  (3): Flatten(start_dim=1, end_dim=-1)\n"
        "  (4): GELU(approximate='tanh')\n"
        "  (5): Linear(in_features=4, out_features=4, bias=False)\n"
        "  (6): ReLU(inplace=True)\n"
        "  (7): Softmax(dim=-1)\n"
        "  (8): Identity()\n"
        "  (9): CrossEntropyLoss()\n"
        ")"
    )
    listed = nn.ModuleList([*(nn.Sequential(nn.Tanh()) for _ in range(2)), nn.Sigmoid()])
    assert repr(listed) == (
        "ModuleList(\n  (0-1): 2 x Sequential(\n    (0): Tanh()\n  )\n  (2): Sigmoid()\n)"
    )
    assert repr(nn.ModuleDict({"a": nn.ReLU()})) == "ModuleDict(\n  (a): ReLU()\n)"
    assert (repr(nn.Module()), repr(nn.ModuleList())) == ("Module()", "ModuleList()")


def test_containers_behave_as_lists_and_dictionaries() -> None:
    a, b, c = nn.ReLU(), nn.Tanh(), nn.Sigmoid()
    row = nn.Sequential(a, b)
    row.append(c).insert(0, nn.Identity())
    assert list(row)[1:] == [a, b, c]
    assert row[-1] is c
    assert list(row[1:3]) == [a, b]
    del row[0]
    assert list(row._modules) == ["0", "1", "2"]
    row[1] = nn.Identity()
    assert len(row) == 3
    with pytest.raises(IndexError, match="index 4 is out of range"):
        row[4]
    with pytest.raises(TypeError, match="int is not a Module subclass"):
        nn.Sequential(3)
    items = nn.ModuleList([a]) + [b]  # noqa: RUF005  # its own +
    items += [c]
    assert items.pop(0) is a
    assert list(items) == [b, c]
    named = nn.ModuleDict({"a": a})
    named["b"] = b
    named.update({"c": c})
    assert list(named) == ["a", "b", "c"]
    assert "b" in named
    assert named.pop("b") is b
    assert list(dict(named.items())) == ["a", "c"]


def test_state_dict_round_trip_keeps_identity_and_copies_values() -> None:
    one, two = Block(), Block()
    held = two.first.weight
    assert str(two.load_state_dict(one.state_dict())) == "<All keys matched successfully>"
    assert two.first.weight is held
    check(two.first.weight, one.first.weight.detach().numpy())
    with gf.no_grad():
        one.first.weight.add_(1.0)
    assert not np.allclose(two.first.weight.detach().numpy(), one.first.weight.detach().numpy())
    arrays = {name: tensor.numpy() for name, tensor in one.state_dict().items()}
    two.load_state_dict(arrays)
    check(two.first.weight, one.first.weight.detach().numpy())


def test_a_state_dict_that_does_not_fit_changes_nothing_and_is_told_in_full() -> None:
    layer = nn.Linear(2, 3)
    before = layer.weight.detach().numpy().copy()
    with pytest.raises(RuntimeError) as caught:
        layer.load_state_dict({"weight": gf.ones(2, 2), "x": gf.ones(1), "y": 1})
    assert str(caught.value) == (
        "Error(s) in loading state_dict for Linear:\n"
        '\tMissing key(s) in state_dict: "bias". \n'
        '\tUnexpected key(s) in state_dict: "x", "y". \n'
        "\tsize mismatch for weight: copying a param with shape [2, 2] from checkpoint, the shape in current "
        "model is "
        "[3, 2]."
    )
    found = layer.load_state_dict({"x": gf.ones(1)}, strict=False)
    assert (found.missing_keys, found.unexpected_keys) == (["weight", "bias"], ["x"])
    with pytest.raises(TypeError, match="Expected state_dict to be dict-like"):
        layer.load_state_dict([1])  # type: ignore[arg-type]
    check(layer.weight, before)


def test_modes_gradients_and_dtypes_reach_the_whole_tree() -> None:
    block = Block().eval()
    assert not block.training and not block.first.training
    assert block.train().first.training
    block.first(gf.ones(1, 3)).sum().backward()
    assert block.first.weight.grad is not None
    block.zero_grad(set_to_none=False)
    check(block.first.weight.grad, np.zeros((4, 3)))
    weight = block.first.weight
    block.double()
    assert block.first.weight is weight
    assert {t.dtype for t in (*block.parameters(), *block.buffers(), weight.grad)} == {gf.float64}
    block.to("cpu", gf.float32)
    assert weight.dtype is gf.float32
    block.zero_grad()
    assert weight.grad is None
    block.requires_grad_(False)
    assert not any(p.requires_grad for p in block.parameters())
    seen: list[str] = []
    block.apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "Block"]


def test_hooks_see_and_replace_arguments_and_results() -> None:
    layer = nn.Identity()
    before = layer.register_forward_pre_hook(lambda m, args: (args[0] + 1,))
    after = layer.register_forward_hook(lambda m, args, out: out * 10)
    check(layer(gf.tensor(1.0)), 20.0)
    before.remove()
    check(layer(gf.tensor(1.0)), 10.0)
    after.remove()
    with layer.register_forward_pre_hook(lambda m, args, kw: (args, {}), with_kwargs=True):
        check(layer(gf.tensor(1.0)), 1.0)
    assert not layer._forward_hooks and not layer._forward_pre_hooks


def test_deep_copies_are_independent() -> None:
    block = Block()
    twin = copy.deepcopy(block)
    with gf.no_grad():
        twin.first.weight.zero_()
    twin.eval()
    assert block.training and not twin.training
    assert np.abs(block.first.weight.detach().numpy()).sum() > 0
    assert isinstance(twin.first.weight, nn.Parameter) and twin.first.weight.requires_grad


def test_parameters_share_memory_and_print() -> None:
    data = gf.ones(2)
    parameter = nn.Parameter(data)
    data.mul_(3.0)
    check(parameter, [3.0, 3.0])
    assert parameter.requires_grad and parameter.is_leaf
    assert not nn.Parameter(data, requires_grad=False).requires_grad
    assert repr(parameter).startswith("Parameter containing:\n")


# ---------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("shape", [(3,), (5, 3), (2, 5, 3), (0, 3)])
def test_linear_is_the_affine_map(shape: tuple[int, ...]) -> None:
    layer = nn.Linear(3, 4).double()
    x = draw(*shape)
    result = layer(gf.tensor(x))
    check(result, x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy())
    assert nn.Linear(3, 4, bias=False).bias is None
    result.sum().backward()
    check(layer.weight.grad, np.broadcast_to(x.reshape(-1, 3).sum(0), (4, 3)))
    check(layer.bias.grad, np.full(4, x.size / 3))


def test_linear_starts_in_pytorchs_range() -> None:
    layer = nn.Linear(400, 300)
    bound = 1 / math.sqrt(400)
    for values in (layer.weight.detach().numpy(), layer.bias.detach().numpy()):
        assert np.abs(values).max() <= bound
        assert abs(values.std() - bound / math.sqrt(3)) < 0.05 * bound


def test_activations_are_their_formulas() -> None:
    x = draw(4, 5)
    phi = 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    t = gf.tensor(x)
    check(nn.ReLU()(t), np.maximum(x, 0))
    check(nn.Tanh()(t), np.tanh(x))
    check(nn.Sigmoid()(t), 1 / (1 + np.exp(-x)))
    check(nn.GELU()(t), x * phi)
    check(nn.GELU("tanh")(t), 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))
    check(nn.Softmax(dim=0)(t), np.exp(log_softmax(x, 0)))
    check(nn.LogSoftmax(dim=1)(t), log_softmax(x, 1))
    check(nn.Flatten()(gf.tensor(draw(2, 3, 4))).sum(1).sum() * 0, 0)
    assert tuple(nn.Flatten(0, 1)(gf.zeros(2, 3, 4)).shape) == (6, 4)
    assert nn.Identity()(t) is t
    with pytest.raises(ValueError, match="either none or tanh"):
        F.gelu(t, approximate="x")
    with pytest.warns(FutureWarning, match="Implicit dimension choice for softmax"):
        check(F.softmax(t), np.exp(log_softmax(x, 1)))


def test_in_place_relu_changes_its_operand() -> None:
    x = gf.tensor([-1.0, 2.0])
    assert F.relu(x, inplace=True) is x
    check(x, [0.0, 2.0])


def test_log_softmax_is_stable_and_gives_nan_for_nothing_but_minus_infinity() -> None:
    big = gf.tensor([[1e4, 0.0], [-1e4, -1e4]], dtype=gf.float64)
    check(F.log_softmax(big, 1), [[0.0, -1e4], [-math.log(2), -math.log(2)]])
    masked = gf.tensor([[0.0, -math.inf], [-math.inf, -math.inf]])
    result = F.log_softmax(masked, 1).numpy()
    assert result[0].tolist() == [0.0, -math.inf]
    assert np.isnan(result[1]).all()


def test_dropout_scales_what_it_keeps() -> None:
    gf.manual_seed(1)
    x = gf.ones(200, 100)
    out = nn.Dropout(0.25)(x).numpy()
    assert set(np.unique(out)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((out == 0).mean() - 0.25) < 0.02
    gf.manual_seed(1)
    again = nn.Dropout(0.25)(x).numpy()
    assert np.array_equal(out, again)
    assert not np.array_equal(again, nn.Dropout(0.25)(x).numpy())


def test_dropout_at_its_edges() -> None:
    x = gf.tensor([1.0, 2.0], requires_grad=True)
    assert nn.Dropout(0.5).eval()(x) is x
    assert nn.Dropout(0.0)(x) is x
    gone = nn.Dropout(1.0)(x)
    check(gone, [0.0, 0.0])
    gone.sum().backward()
    check(x.grad, [0.0, 0.0])
    for p in (-0.1, 1.1):
        with pytest.raises(ValueError, match="has to be between 0 and 1"):
            nn.Dropout(p)
        with pytest.raises(ValueError, match="has to be between 0 and 1"):
            F.dropout(x, p)
    y = gf.ones(50)
    F.dropout(y, 0.5, inplace=True)
    assert set(y.tolist()) == {0.0, 2.0}


# ---------------------------------------------------------------------------------------------- init


def test_init_draws_what_it_says() -> None:
    gf.manual_seed(3)
    w = gf.empty(300, 200)
    for fill, std in [
        (lambda t: nn.init.uniform_(t, -1.0, 1.0), 1 / math.sqrt(3)),
        (lambda t: nn.init.normal_(t, 0.0, 0.3), 0.3),
        (nn.init.xavier_uniform_, math.sqrt(2 / 500)),
        (lambda t: nn.init.xavier_normal_(t, gain=2.0), 2 * math.sqrt(2 / 500)),
        (lambda t: nn.init.kaiming_uniform_(t, nonlinearity="relu"), math.sqrt(2 / 200)),
        (lambda t: nn.init.kaiming_normal_(t, mode="fan_out", nonlinearity="tanh"), 5 / 3 / math.sqrt(300)),
    ]:
        assert fill(w) is w
        values = w.numpy()
        assert abs(values.mean()) < 0.02 * std
        assert abs(values.std() / std - 1) < 0.02
    assert nn.init.constant_(w, 4.0).numpy().max() == 4
    assert nn.init.zeros_(w).numpy().max() == 0
    assert nn.init.ones_(w).numpy().min() == 1
    assert np.array_equal(nn.init.eye_(gf.empty(2, 3)).numpy(), np.eye(2, 3))
    assert nn.init.calculate_gain("leaky_relu", 0.2) == pytest.approx(math.sqrt(2 / 1.04))
    with pytest.raises(ValueError, match="fewer than 2 dimensions"):
        nn.init.kaiming_uniform_(gf.empty(3))
    with pytest.raises(ValueError, match="Mode x not supported"):
        nn.init.kaiming_uniform_(w, mode="x")
    with pytest.raises(ValueError, match="Unsupported nonlinearity x"):
        nn.init.calculate_gain("x")


def test_init_leaves_no_history() -> None:
    parameter = nn.Parameter(gf.empty(3, 3))
    nn.init.xavier_uniform_(parameter)
    assert parameter.is_leaf and parameter.grad_fn is None


# ---------------------------------------------------------------------------------------------- compiled


def test_compiled_modules_follow_their_mode_and_attributes() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = 2.0
            self.sizes = [1, 2]
            self.drop = nn.Dropout(0.5)

        def forward(self, x: gf.Tensor) -> gf.Tensor:
            return self.drop(x) * self.factor * len(self.sizes)

    model = Scaled().eval()
    f = gf.compile(lambda x: model(x))
    x = gf.ones(64)
    check(f(x), np.full(64, 4.0))
    model.factor = 3.0
    check(f(x), np.full(64, 6.0))
    model.sizes = [1]
    check(f(x), np.full(64, 3.0))
    model.train()
    assert set(f(x).tolist()) == {0.0, 6.0}
    model.eval()
    count = len(f.variants)
    check(f(x), np.full(64, 3.0))
    model.train()
    model.eval()
    check(f(x), np.full(64, 3.0))
    assert len(f.variants) == count


def test_replaced_members_and_hooks_are_noticed() -> None:
    model = nn.Sequential(nn.Identity())
    f = gf.compile(lambda x: model(x))
    x = gf.tensor([-1.0, 2.0])
    check(f(x), [-1.0, 2.0])
    model[0] = nn.ReLU()
    check(f(x), [0.0, 2.0])
    handle = model.register_forward_hook(lambda m, args, out: out + 1)
    check(f(x), [1.0, 3.0])
    handle.remove()
    check(f(x), [0.0, 2.0])


def test_a_function_that_sets_the_mode_itself_needs_one_variant() -> None:
    model = nn.Dropout(0.5)

    @gf.compile
    def evaluate(x: gf.Tensor) -> gf.Tensor:
        model.eval()
        return model(x)

    for _ in range(3):
        model.train()
        check(evaluate(gf.ones(3)), np.ones(3))
    assert len(evaluate.variants) == 1


def test_compiled_dropout_draws_what_eager_dropout_draws() -> None:
    layer = nn.Dropout(0.3)
    f = gf.compile(lambda x: layer(x))
    x = gf.ones(40, 3)
    gf.manual_seed(9)
    expected = [layer(x).tolist() for _ in range(3)]
    gf.manual_seed(9)
    assert [f(x).tolist() for _ in range(3)] == expected
