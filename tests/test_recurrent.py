"""Recurrent layers beside their formulas, step by step in NumPy."""

from __future__ import annotations

from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn
from graphflow.errors import DTypeError, ShapeError

RNG = np.random.default_rng(0)
KINDS = [nn.RNN, nn.LSTM, nn.GRU]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numpy_step(
    kind: str, x: np.ndarray, h: np.ndarray, c: np.ndarray, w: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """One step, with the parameters of one layer and direction."""
    a = x @ w["weight_ih"].T + w.get("bias_ih", 0)
    b = h @ w["weight_hh"].T + w.get("bias_hh", 0)
    size = w["weight_hh"].shape[0] // {"RNN": 1, "LSTM": 4, "GRU": 3}[kind]
    part = [slice(k * size, (k + 1) * size) for k in range(4)]
    if kind == "RNN":
        return np.tanh(a + b), c
    if kind == "LSTM":
        i, f, g, o = (a[..., p] + b[..., p] for p in part)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        return (h @ w["weight_hr"].T if "weight_hr" in w else h), c
    r, z = (sigmoid(a[..., p] + b[..., p]) for p in part[:2])
    n = np.tanh(a[..., part[2]] + r * b[..., part[2]])
    return (1 - z) * n + z * h, c


def numpy_layers(layer: Any, x: np.ndarray, h0: np.ndarray, c0: np.ndarray) -> tuple[np.ndarray, ...]:
    kind = type(layer).__name__
    weights = {name: p.detach().numpy() for name, p in layer.named_parameters()}
    last_h, last_c = [], []
    for number in range(layer.num_layers):
        outputs = []
        for suffix in [f"_l{number}", f"_l{number}_reverse"][: 2 if layer.bidirectional else 1]:
            own = {n.removesuffix(suffix): w for n, w in weights.items() if n.endswith(suffix)}
            h, c = h0[len(last_h)], c0[len(last_h)]
            steps = np.zeros((len(x), *h.shape))
            for t in reversed(range(len(x))) if suffix.endswith("reverse") else range(len(x)):
                h, c = numpy_step(kind, x[t], h, c, own)
                steps[t] = h
            outputs.append(steps)
            last_h.append(h)
            last_c.append(c)
        x = np.concatenate(outputs, -1)
    return x, np.stack(last_h), np.stack(last_c)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True, "batch_first": True},
        {"bias": False, "bidirectional": True},
    ],
    ids=["plain", "deep", "no bias"],
)
def test_layers(kind: type[Any], options: dict[str, Any]) -> None:
    layer = kind(3, 4, dtype=gf.float64, **options)
    compiled = gf.compile(lambda x, hx=None: layer(x, hx))
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    for steps, batch in ((5, 2), (1, 2), (7, 2)):
        x = RNG.standard_normal((steps, batch, 3))
        given = gf.tensor(np.ascontiguousarray(x.transpose(1, 0, 2)) if layer.batch_first else x)
        for start in (None, RNG.standard_normal((2, count, batch, 4))):
            h0, c0 = np.zeros((2, count, batch, 4)) if start is None else start
            expected, h, c = numpy_layers(layer, x, h0, c0)
            if layer.batch_first:
                expected = expected.transpose(1, 0, 2)
            hx: Any = None if start is None else gf.tensor(h0)
            if kind is nn.LSTM and start is not None:
                hx = (gf.tensor(h0), gf.tensor(c0))
            for function in (layer, compiled):
                output, last = function(given, hx)
                np.testing.assert_allclose(output.detach().numpy(), expected, rtol=1e-10, atol=1e-12)
                parts = last if kind is nn.LSTM else (last,)
                for part, value in zip(parts, (h, c), strict=False):
                    np.testing.assert_allclose(part.detach().numpy(), value, rtol=1e-10, atol=1e-12)
    if not layer.batch_first:
        assert len(compiled.variants) == 2  # without hx and with it, for any number of steps


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_gradients(kind: type[Any]) -> None:
    layer = kind(2, 3, num_layers=2, bidirectional=True, dtype=gf.float64)
    x = gf.tensor(RNG.standard_normal((4, 2, 2)))

    def loss() -> gf.Tensor:
        output, last = layer(x)
        return (output * output).sum() + sum(
            (part**3).sum() for part in (last if kind is nn.LSTM else [last])
        )

    def step() -> gf.Tensor:
        layer.zero_grad()
        value = loss()
        value.backward()
        return value

    for run in (step, gf.compile(step)):
        run()
        for parameter in layer.parameters():
            direction = gf.tensor(RNG.standard_normal(parameter.shape))
            values = []
            for s in (1e-5, -1e-5):
                with gf.no_grad():
                    parameter.add_(s * direction)
                    values.append(loss().item())
                    parameter.sub_(s * direction)
            numeric = (values[0] - values[1]) / 2e-5
            assert (parameter.grad * direction).sum().item() == pytest.approx(numeric, rel=2e-6, abs=1e-8)


def test_one_graph_for_any_number_of_steps_and_any_batch() -> None:
    gru = nn.GRU(3, 4, bidirectional=True, dtype=gf.float64)

    def loss(x: gf.Tensor) -> tuple[gf.Tensor, ...]:
        output, last = gru(x)
        value = (output * output).mean() + last.sum()
        return (value, *gf.autograd.grad(value, list(gru.parameters())))

    compiled = gf.compile(gf.trace(loss, gf.TensorSpec(("t", "n", 3), gf.float64)))
    for steps, batch in ((5, 2), (1, 7), (9, 1)):
        x = gf.tensor(RNG.standard_normal((steps, batch, 3)))
        for ours, eager in zip(compiled(x), loss(x), strict=True):
            np.testing.assert_allclose(ours.numpy(), eager.detach().numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_cells_are_one_step(name: str) -> None:
    layer = getattr(nn, name)(3, 4, dtype=gf.float64)
    cell = getattr(nn, f"{name}Cell")(3, 4, dtype=gf.float64)
    cell.load_state_dict({key.removesuffix("_l0"): value for key, value in layer.state_dict().items()})
    x = gf.tensor(RNG.standard_normal((5, 2, 3)))
    _, last = layer(x)
    state = None
    for step in x:
        state = cell(step, state)
    pairs = zip(last, state, strict=True) if name == "LSTM" else [(last, state)]
    for a, b in pairs:
        np.testing.assert_allclose(a[0].detach().numpy(), b.detach().numpy(), rtol=1e-12)
    single = cell(x[0, 0])
    single = single[0] if name == "LSTM" else single
    first = cell(x[0])
    np.testing.assert_allclose(
        single.detach().numpy(), (first[0] if name == "LSTM" else first)[0].detach().numpy(), rtol=1e-12
    )


def test_projection_relu_and_inputs_without_a_batch() -> None:
    lstm = nn.LSTM(3, 4, proj_size=2, num_layers=2, dtype=gf.float64)
    x = RNG.standard_normal((5, 2, 3))
    expected, _, _ = numpy_layers(lstm, x, np.zeros((2, 2, 2)), np.zeros((2, 2, 4)))
    output, (h, c) = lstm(gf.tensor(x))
    np.testing.assert_allclose(output.detach().numpy(), expected, rtol=1e-10)
    assert (h.shape, c.shape) == ((2, 2, 2), (2, 2, 4))
    alone, (h, c) = lstm(gf.tensor(x[:, 0]))
    np.testing.assert_allclose(alone.detach().numpy(), expected[:, 0], rtol=1e-10)
    assert (h.shape, c.shape) == ((2, 2), (2, 4))
    relu = nn.RNN(3, 4, nonlinearity="relu", dtype=gf.float64)
    assert (relu(gf.tensor(x))[0].detach().numpy() >= 0).all()


def test_parameters_start_and_print_as_in_pytorch() -> None:
    gru = nn.GRU(10, 16, num_layers=2, bidirectional=True, dropout=0.5, batch_first=True)
    names = [f"{k}_{s}_l0" for k in ("weight", "bias") for s in ("ih", "hh")]
    assert list(gru.state_dict())[:4] == names
    assert list(gru.state_dict())[4:8] == [f"{n}_reverse" for n in names]
    assert gru.weight_ih_l1.shape == (48, 32)
    values = np.concatenate([p.detach().numpy().ravel() for p in gru.parameters()])
    assert np.abs(values).max() <= 0.25 and np.abs(values).max() > 0.24
    assert repr(gru) == "GRU(10, 16, num_layers=2, batch_first=True, dropout=0.5, bidirectional=True)"
    assert (
        repr(nn.RNNCell(3, 4, bias=False, nonlinearity="relu"))
        == "RNNCell(3, 4, bias=False, nonlinearity=relu)"
    )
    assert len(gru.all_weights) == 4 and len(gru.all_weights[0]) == 4


def test_dropout_between_layers_while_training() -> None:
    layer = nn.RNN(3, 8, num_layers=2, dropout=0.5)
    x = gf.ones(4, 2, 3)
    run = gf.compile(lambda x: layer(x)[0].detach())
    assert not np.array_equal(run(x).numpy(), run(x).numpy())
    layer.eval()
    np.testing.assert_array_equal(run(x).numpy(), run(x).numpy())
    with pytest.warns(UserWarning, match="all but last recurrent layer"):
        nn.LSTM(3, 4, dropout=0.5)


def test_an_lstm_learns_to_remember() -> None:
    gf.manual_seed(0)
    lstm, head = nn.LSTM(1, 8), nn.Linear(8, 1)
    optimizer = gf.optim.Adam([*lstm.parameters(), *head.parameters()], lr=0.03)
    x = gf.tensor(np.sign(RNG.standard_normal((6, 32, 1))).astype(np.float32))

    @gf.compile
    def step(x: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        output, _ = lstm(x)
        loss = ((head(output[-1]) - x[0]) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(x).item() for _ in range(80)]
    assert losses[-1] < 0.1 * losses[0]


def test_mistakes() -> None:
    layer = nn.LSTM(3, 4)
    for call, kind, told in (
        (lambda: layer(gf.ones(5, 2, 2)), ShapeError, "last dimension of input has to be 3"),
        (lambda: layer(gf.ones(3)), ShapeError, "expected input to be 2D or 3D"),
        (lambda: layer(np.ones((5, 2, 3))), DTypeError, "must be a Tensor"),
        (lambda: layer(gf.ones(5, 2, 3), gf.zeros(1, 2, 4)), DTypeError, r"\(h_0, c_0\)"),
        (lambda: layer(gf.ones(5, 2, 3), (gf.zeros(1, 3, 4),) * 2), ShapeError, r"h_0 to be \(1, 2, 4\)"),
        (lambda: nn.RNN(3, 0), ValueError, "hidden_size must be greater than zero"),
        (lambda: nn.RNN(3, 4.0), TypeError, "hidden_size should be of type int"),
        (lambda: nn.RNN(3, 4, nonlinearity="exp"), ValueError, "Unknown nonlinearity 'exp'"),
        (lambda: nn.GRU(3, 4, dropout=2), ValueError, "number in range"),
        (lambda: nn.LSTM(3, 4, proj_size=4), ValueError, "smaller than hidden_size"),
        (lambda: nn.GRUCell(3, 4)(gf.ones(2, 3), gf.ones(3, 4)), ShapeError, "differ in their batch"),
    ):
        with pytest.raises(kind, match=told):
            call()


def test_what_pytorch_refuses_is_refused() -> None:
    for kind in (nn.RNN, nn.GRU):
        with pytest.raises(ValueError, match="only supported for LSTM"):
            kind(3, 4, proj_size=2)
        with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
            kind(3, 4, size=2)
    for layer in (nn.RNN(3, 4), nn.LSTM(3, 4, bidirectional=True), nn.GRU(3, 4)):
        for shape in ((0, 2, 3), (0, 3)):
            with pytest.raises(ShapeError, match="sequence length to be larger than 0"):
                layer(gf.zeros(shape))
        assert tuple(layer(gf.zeros(5, 0, 3))[0].shape)[:2] == (5, 0)
