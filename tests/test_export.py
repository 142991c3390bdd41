"""Compiled functions in files: what comes back computes, trains and is written again to the same bits."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path
from typing import Any

import graphflow as gf
import graphflow.nn.functional as F
import numpy as np
import pytest
from graphflow import nn, optim
from graphflow.errors import DTypeError, FormatError, ShapeError, TraceError

FURTHER = """
import sys, numpy as np, graphflow as gf
assert not any("test_export" in name for name in sys.modules)
step = gf.load_graph(sys.argv[1])
data = np.load(sys.argv[2])
losses = [step(data[f"x{i}"], data[f"y{i}"])["loss"].item() for i in range(5, 10)]
np.savez(sys.argv[3], losses=losses, **{k.replace("/", "_"): v.numpy() for k, v in step.states.items()})
gf.export(step, sys.argv[4])
"""


def batches() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = {}
    for i in range(10):
        rows = (8, 5, 1)[i % 3]
        found[f"x{i}"] = rng.standard_normal((rows, 6)).astype(np.float32)
        found[f"y{i}"] = rng.integers(0, 3, rows)
    return found


def trained(steps: int) -> tuple[Any, Any, gf.CompiledFunction, list[float]]:
    gf.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 3))
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    @gf.compile
    def step(x: Any, y: Any) -> Any:
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": loss, "scores": model(x).detach()}

    data = batches()
    losses = [step(data[f"x{i}"], data[f"y{i}"])["loss"].item() for i in range(steps)]
    return model, optimizer, step, losses


def test_training_goes_on_in_a_process_that_never_saw_the_source(tmp_path: Path) -> None:
    _, _, step, _ = trained(5)
    gf.export(step, tmp_path / "step.gfz")
    data = batches()
    np.savez(tmp_path / "data.npz", **data)
    files = [str(tmp_path / name) for name in ("step.gfz", "data.npz", "out.npz", "again.gfz")]
    script = tmp_path / "further.py"
    script.write_text(FURTHER)
    subprocess.run([sys.executable, str(script), *files], check=True, cwd=tmp_path)
    there = np.load(tmp_path / "out.npz")
    losses = [step(data[f"x{i}"], data[f"y{i}"])["loss"].item() for i in range(5, 10)]
    assert there["losses"].tolist() == losses
    here = tmp_path / "here.gfz"
    gf.export(step, here)
    assert here.read_bytes() == (tmp_path / "again.gfz").read_bytes()
    states = gf.load_graph(here).states
    assert set(states) == set(there.files) - {"losses"}
    for name, tensor in states.items():
        np.testing.assert_array_equal(tensor.numpy(), there[name])


def test_a_loaded_step_is_the_step(tmp_path: Path) -> None:
    model, optimizer, step, _ = trained(3)
    path = tmp_path / "step.gfz"
    gf.export(step, path)
    first = path.read_bytes()
    gf.export(step, path)
    assert path.read_bytes() == first
    loaded = gf.load_graph(str(path))
    assert loaded.graph.name == "step"
    assert "step" in repr(loaded)
    assert {"0.weight", "0.bias", "3.weight", "rng"} <= set(loaded.states) or "weight" in loaded.states
    assert any("exp_avg" in name for name in loaded.states)
    addresses = {name: t.data_ptr() for name, t in loaded.states.items()}
    before = {name: t.numpy().copy() for name, t in loaded.states.items()}
    data = batches()
    for i in (0, 1, 2):
        out = loaded(gf.tensor(data[f"x{i}"]), data[f"y{i}"])
        assert set(out) == {"loss", "scores"}
        assert out["scores"].shape == (len(data[f"y{i}"]), 3)
    assert {name: t.data_ptr() for name, t in loaded.states.items()} == addresses
    changed = {name for name, t in loaded.states.items() if not np.array_equal(t.numpy(), before[name])}
    assert any("weight" in name for name in changed)
    assert "lr" not in changed
    loaded.states["lr"].fill_(0.0)
    weights = {name: t.numpy().copy() for name, t in loaded.states.items() if "weight" in name}
    loaded(data["x0"], data["y0"])
    for name, value in weights.items():
        if "exp" not in name and "decay" not in name:
            np.testing.assert_array_equal(loaded.states[name].numpy(), value)
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert model.training


def test_an_inference_function(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    Scores = namedtuple("Scores", "logits best")
    predict = gf.compile(lambda x: (Scores(model(x), model(x).argmax(1)), [gf.ones(2)]))
    x = gf.randn(5, 4)
    (logits, best), _ = predict(x)
    gf.export(predict, tmp_path / "p.gfz")
    loaded = gf.load_graph(tmp_path / "p.gfz")
    pair, ones = loaded(x)
    np.testing.assert_array_equal(pair[0].numpy(), logits.detach().numpy())
    np.testing.assert_array_equal(pair[1].numpy(), best.numpy())
    assert ones[0].tolist() == [1.0, 1.0]
    assert loaded(np.zeros((0, 4), np.float32))[0][0].shape == (0, 2)
    for bad, kind, told in (
        (
            np.zeros((2, 5), np.float32),
            ShapeError,
            r" with batch=2, got float32\[2, 5\]; pass one of that shape",
        ),
        (np.zeros((2, 4)), DTypeError, r", got float64\[2, 4\]; convert it with .to"),
        (np.zeros(4, np.float32), ShapeError, r", got float32\[4\]; pass one of that shape"),
    ):
        expected = (
            rf"argument x has to be float32\[batch, 4\]{told}.*\n  at .*test_export.py:\d+ in .*loaded\(bad\)"
        )
        with pytest.raises(kind, match=expected):
            loaded(bad)
    gf.export(gf.trace(lambda x: model(x), gf.TensorSpec(("n", 4))), tmp_path / "q.gfz")
    np.testing.assert_array_equal(gf.load_graph(tmp_path / "q.gfz")(x).numpy(), logits.detach().numpy())


def test_floats_are_arguments_in_files_too(tmp_path: Path) -> None:
    f = gf.compile(lambda x, scale: x * scale)
    f(np.ones(2), 2.0)
    gf.export(f, tmp_path / "f.gfz")
    loaded = gf.load_graph(tmp_path / "f.gfz")
    assert loaded(np.ones(3), 4.0).tolist() == [4.0] * 3
    assert loaded(np.ones(3), 4).tolist() == [4.0] * 3
    with pytest.raises(TypeError, match="takes \\(x: float64\\[batch\\], scale: float64\\[\\]\\), got 1"):
        loaded(np.ones(3))


def test_a_step_that_returns_nothing(tmp_path: Path) -> None:
    total = gf.zeros(2)
    total.name = "total"

    @gf.compile
    def add(x: Any) -> Any:
        total.add_(x)

    @gf.compile
    def both(x: Any) -> Any:
        total.add_(x)
        return None, {"x": x, "none": None}

    for function, expected in ((add, None), (both, (None, {"x": [2.0, 2.0], "none": None}))):
        assert function(gf.ones(2)) is None or function is both
        gf.export(function, tmp_path / "f.gfz")
        loaded = gf.load_graph(tmp_path / "f.gfz")
        before = loaded.states["total"].tolist()
        result = loaded(gf.full((2,), 2.0))
        assert loaded.states["total"].tolist() == [b + 2.0 for b in before]
        if expected is not None:
            result[1]["x"] = result[1]["x"].tolist()
        assert result == expected


def test_what_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "f.gfz"
    f = gf.compile(lambda x, n: x * n)
    with pytest.raises(TraceError, match="hasn't been compiled yet; call it once"):
        gf.export(f, path)
    f(np.ones(2), 2)
    f(np.ones(2), 3)
    with pytest.raises(TraceError, match=r"has several variants; .*\n.*the first call\n.*n: 2 became 3"):
        gf.export(f, path)
    g = gf.compile(lambda x: x.add_(1))
    g(np.ones(2))
    with pytest.raises(TraceError, match="changes its arguments in place"):
        gf.export(g, path)
    h = gf.compile(lambda x: (x, "text"))
    h(np.ones(2))
    with pytest.raises(TraceError, match="values that aren't tensors"):
        gf.export(h, path)
    k = gf.compile(lambda x: {1: x})
    k(np.ones(2))
    with pytest.raises(TypeError, match="string keys"):
        gf.export(k, path)
    w = nn.Parameter(gf.ones(2))
    accumulate = gf.compile(lambda x: (w * x).sum().backward())
    accumulate(gf.ones(2))
    with pytest.raises(TraceError, match=r"adds to gradients that earlier calls left"):
        gf.export(accumulate, path)
    with pytest.raises(TypeError, match="not function"):
        gf.export(lambda x: x, path)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError):
        gf.load_graph(path)


def rewritten(source: Path, target: Path, change: Any) -> Path:
    """A copy of an archive with its entries changed by ``change(entries)``."""
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries = change(entries) or entries
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return target


def newer(entries: dict[str, bytes]) -> None:
    manifest = json.loads(entries["manifest.json"])
    manifest["format"] = 99
    entries["manifest.json"] = json.dumps(manifest).encode()


def test_bad_files_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    f = gf.compile(lambda x: x * gf.ones(2))
    f(gf.ones(3, 2))
    good = tmp_path / "good.gfz"
    gf.export(f, good)
    data = good.read_bytes()
    bad = tmp_path / "bad.gfz"
    for content in (
        b"",
        b"PK",
        data[:-1],
        data[: len(data) // 2],
        data[100:],
        data.replace(b"float32", b"float64"),
    ):
        bad.write_bytes(content)
        with pytest.raises(FormatError, match=r"bad\.gfz"):
            gf.load_graph(bad)
    changes: list[Any] = [
        newer,
        lambda e: {**e, "../evil.py": b"print()"},
        lambda e: {"/" + name: value for name, value in e.items()},
        lambda e: {name: value for name, value in e.items() if name != "graph.json"},
        lambda e: {**e, "weights.safetensors": e["weights.safetensors"] + b"\0"},
        lambda e: {**e, "graph.json": b"[" * 10000},
    ]
    for change in changes:
        rewritten(good, bad, change)
        with pytest.raises(FormatError):
            gf.load_graph(bad)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.gfz", "good.gfz"]
    assert not (tmp_path.parent / "evil.py").exists()
    assert gf.load_graph(rewritten(good, bad, lambda e: None))(gf.ones(1, 2)).tolist() == [[1.0, 1.0]]


def test_copies_share_the_graph_and_have_states_of_their_own() -> None:
    weight = gf.ones(2)

    def count(x: gf.Tensor) -> gf.Tensor:
        weight.add_(x)
        return weight * 2

    graph = gf.trace(count, gf.TensorSpec((2,)))
    assert copy.deepcopy(graph) is graph is copy.copy(graph)
    assert copy.deepcopy(graph.outputs[0]) is graph.outputs[0]
    first = gf.compile(graph)
    first(gf.ones(2))
    second, alias = copy.deepcopy(first), copy.copy(first)
    assert second.graph is graph
    for _ in range(2):  # in turns, on one piece of machine code
        first(gf.ones(2))
        second(gf.full((2,), 10.0))
    alias(gf.ones(2))
    (name,) = first.states
    assert first.states[name].tolist() == weight.tolist() == [5.0, 5.0]
    assert second.states[name].tolist() == [22.0, 22.0]
    assert copy.deepcopy({"model": first})["model"](gf.ones(2)).tolist() == [12.0, 12.0]
    assert first(gf.ones(2)).tolist() == [12.0, 12.0]


def test_a_graphs_text_reads_back_and_trains_on() -> None:
    layer, x = nn.Linear(3, 2), gf.randn(4, 3)
    optimizer = optim.Adam(layer.parameters(), lr=0.1)

    def step(x: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = layer(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss

    graph = gf.trace(step, gf.TensorSpec(("batch", 3)))
    again = gf.parse_graph(str(graph))
    assert str(again) == str(graph)
    first = gf.compile(graph)
    initial = {name: state.detach() for name, state in first.states.items()}
    second = gf.compile(again, states={n: t.numpy().copy() for n, t in initial.items()})
    assert [first(x).item() for _ in range(3)] == [second(x).item() for _ in range(3)]
    with pytest.raises(FormatError, match="line 2"):
        gf.parse_graph("graph f(%x: float32[3]) {\n  nonsense\n}")
    with pytest.raises(TypeError, match="parse_graph takes a graph's text, not Graph"):
        gf.parse_graph(graph)  # type: ignore[arg-type]


def test_states_that_take_one_value_are_one_node_in_the_file(tmp_path: Path) -> None:
    a, b = gf.zeros(2), gf.zeros(2)

    @gf.compile
    def step(x: gf.Tensor) -> gf.Tensor:
        value = x.sum() * gf.ones(2)
        with gf.no_grad():
            a.copy_(value)
            b.copy_(value)
        return value

    step(gf.ones(3))
    gf.export(step, tmp_path / "step.gfz")
    assert gf.load_graph(tmp_path / "step.gfz")(gf.ones(5)).tolist() == [5.0, 5.0]
