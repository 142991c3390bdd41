"""gf.save and gf.load: what comes back, what is refused."""

from __future__ import annotations

import io
import json
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import nn, optim
from graphflow.errors import FormatError
from safetensors.numpy import load_file, save_file


def round_trip(value: Any) -> Any:
    buffer = io.BytesIO()
    gf.save(value, buffer)
    buffer.seek(0)
    return gf.load(buffer)


def test_a_training_run_goes_on_after_its_state_was_saved_and_loaded(tmp_path: Path) -> None:
    def made() -> tuple[nn.Module, optim.Optimizer, Any]:
        gf.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        optimizer = optim.Adam(model.parameters(), lr=0.1)
        return model, optimizer, optim.lr_scheduler.MultiStepLR(optimizer, [3, 7])

    def train(model: nn.Module, optimizer: optim.Optimizer, scheduler: Any, epochs: range) -> None:
        for epoch in epochs:
            x = gf.full((5, 3), 0.1 * (epoch % 4))
            optimizer.zero_grad()
            (model(x) - 1).square().mean().backward()
            optimizer.step()
            scheduler.step()

    whole, first, second = made(), made(), made()
    train(*whole, range(10))
    train(*first, range(5))
    path = tmp_path / "run.pt"
    names = ("model", "optimizer", "scheduler")
    gf.save({n: part.state_dict() for n, part in zip(names, first, strict=True)} | {"epoch": 5}, path)
    saved = gf.load(path, map_location="cpu", weights_only=True)
    for name, part in zip(names, second, strict=True):
        part.load_state_dict(saved[name])
    train(*second, range(saved["epoch"], 10))
    for a, b in zip(whole[0].parameters(), second[0].parameters(), strict=True):
        assert a.tolist() == b.tolist()
    assert list(tmp_path.iterdir()) == [path]


def test_every_value_comes_back_as_it_was() -> None:
    value = {
        "plain": [None, True, False, -3, 2**80, "ü", ""],
        "floats": (0.1, -0.0, math.inf, -math.inf, 1e-320),
        1: {(2, "a"): gf.Size((3, 4)), 2.5: [], None: ()},
        "dtype": gf.float16,
        "numbers": [np.float32(0.5), np.int64(7)],
    }
    found = round_trip(value)
    assert found == value and repr(found["floats"]) == repr(value["floats"])
    assert type(found["plain"][1]) is bool and type(found[1][(2, "a")]) is gf.Size
    assert math.isnan(round_trip(math.nan)) and round_trip(OrderedDict(b=1, a=2)) == {"b": 1, "a": 2}


@pytest.mark.parametrize(
    "dtype",
    [
        gf.bool,
        gf.uint8,
        gf.int8,
        gf.int16,
        gf.int32,
        gf.int64,
        gf.float16,
        gf.bfloat16,
        gf.float32,
        gf.float64,
    ],
)
def test_tensors_of_every_dtype_and_shape(dtype: gf.dtype) -> None:
    for shape in ((), (0, 3), (2, 3)):
        tensor = gf.ones(shape, dtype=dtype)
        found = round_trip(tensor)
        assert (found.dtype, tuple(found.shape), found.tolist()) == (dtype, shape, tensor.tolist())
    turned = round_trip([gf.arange(6).reshape(2, 3).t(), np.arange(3)[::-1]])
    assert turned[0].tolist() == [[0, 3], [1, 4], [2, 5]] and turned[1].tolist() == [2, 1, 0]
    assert isinstance(turned[1], np.ndarray)


def test_a_tensor_in_two_places_is_one_again_and_keeps_requires_grad() -> None:
    leaf = nn.Parameter(gf.ones(2))
    found = round_trip({"a": leaf, "b": [leaf], "a.c": gf.zeros(1)})
    assert found["a"] is found["b"][0] and found["a"].requires_grad
    clash = round_trip({"x": {"y": gf.zeros(1)}, "x.y": gf.ones(1)})
    assert (clash["x"]["y"].item(), clash["x.y"].item()) == (0.0, 1.0)


def test_other_tools_read_the_tensors_by_name_and_their_files_are_read(tmp_path: Path) -> None:
    layer = nn.Linear(2, 3)
    gf.save(layer.state_dict(), tmp_path / "a.safetensors")
    found = load_file(tmp_path / "a.safetensors")
    assert sorted(found) == ["bias", "weight"] and found["weight"].tolist() == layer.weight.tolist()
    save_file({"weight": np.ones((3, 2), np.float32), "bias": np.zeros(3, np.float32)}, tmp_path / "b")
    layer.load_state_dict(gf.load(str(tmp_path / "b")))
    assert layer.weight.tolist() == [[1.0, 1.0]] * 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (nn.Linear(1, 1), r"can't write a Linear, which stands at the top; .* save its \.state_dict\(\)"),
        ({"a": [1, iter([])]}, r"can't write a list_iterator, which stands at \['a'\]\['1'\]"),
        ({object(): 1}, "can't write a object"),
    ],
)
def test_what_is_no_state_is_refused(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=message):
        gf.save(value, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_list_that_holds_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ValueError, match="levels of containers"):
        round_trip(endless)


class Evil:
    def __reduce__(self) -> Any:
        return (pytest.fail, ("a pickle was run",))


def test_pickles_are_refused_unread(tmp_path: Path) -> None:
    bare, zipped, graph, junk = (tmp_path / n for n in ("bare.pt", "zipped.pt", "graph.gfz", "junk"))
    bare.write_bytes(pickle.dumps(Evil()))
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Evil()))
    for path in (bare, zipped):
        with pytest.raises(FormatError, match=r"is a pickle.*safetensors\.torch\.save_file"):
            gf.load(path)
    with zipfile.ZipFile(graph, "w") as archive:
        archive.writestr("manifest.json", "{}")
    with pytest.raises(FormatError, match=r"holds a graph; read it with gf\.load_graph"):
        gf.load(graph)
    junk.write_bytes(b"PKnothing")
    for data in (b"PKnothing", b"", b"hello there", b"\x00" * 20):
        junk.write_bytes(data)
        with pytest.raises(FormatError, match="is not a safetensors file"):
            gf.load(junk)


def test_damaged_files_are_refused() -> None:
    buffer = io.BytesIO()
    gf.save({"a": gf.ones(3), "b": 1.5}, buffer)
    data = buffer.getvalue()
    with pytest.raises(FormatError, match="is not a whole safetensors file"):
        gf.load(io.BytesIO(data[:-4]))
    size = int.from_bytes(data[:8], "little")

    def altered(change: dict[str, Any]) -> io.BytesIO:
        header = json.loads(data[8 : 8 + size])
        header["__metadata__"] = change
        text = json.dumps(header).encode()
        return io.BytesIO(len(text).to_bytes(8, "little") + text + data[8 + size :])

    for text, message in (
        ("{", "its structure is not JSON"),
        ('{"version": 9}', "has version 9; this graphflow reads version 1"),
        ("[]", "has version None"),
        ('{"version": 1, "value": {"odd": 1}}', "a bad odd"),
        ('{"version": 1, "value": {"tensor": "x"}}', "a bad tensor: 'x'"),
        ('{"version": 1, "value": {"dict": [1]}}', "a bad dict"),
        ('{"version": 1, "value": 1.5}', "its structure holds"),
    ):
        with pytest.raises(FormatError, match=message):
            gf.load(altered({"graphflow.saved": text}))


def test_containers_and_values_of_every_kind() -> None:
    value = {
        "sets": [{1, "a"}, frozenset({(2, 3)})],
        "bytes": b"\x00\xff",
        "complex": complex(-0.0, math.inf),
        "device": gf.device("cpu"),
        "flag": np.bool_(True),
        "__metadata__": {"": 1},
    }
    found = round_trip(value)
    assert found == value and type(found["sets"][1]) is frozenset and found["flag"] is True
    assert repr(found["complex"]) == repr(value["complex"])
    assert round_trip({"__metadata__": gf.ones(2)})["__metadata__"].tolist() == [1, 1]
    assert list(round_trip(OrderedDict(b=1, a=2)).items()) == [("b", 1), ("a", 2)]
    assert type(round_trip(OrderedDict())) is OrderedDict


class Made(Mapping[str, gf.Tensor]):
    """Tensors that nobody holds: each is made when it is asked for."""

    def __getitem__(self, key: str) -> gf.Tensor:
        return gf.full((3,), float(key))

    def __iter__(self) -> Iterator[str]:
        return map(str, range(20))

    def __len__(self) -> int:
        return 20


def test_tensors_that_are_made_on_the_way_are_kept_apart() -> None:
    assert [t.tolist() for t in round_trip(Made()).values()] == [[float(i)] * 3 for i in range(20)]


@pytest.mark.parametrize("foreign", [False, True])
def test_a_mapped_file_is_not_written_to(tmp_path: Path, foreign: bool) -> None:
    path = tmp_path / "a.safetensors"
    value = {"a": np.arange(5), "b": np.ones((0, 3), np.float32), "c": np.array(2.5), "d": np.array([True])}
    if foreign:
        save_file(value, path)
    else:
        gf.save({name: gf.from_numpy(array) for name, array in value.items()}, path)
    found = gf.load(path, mmap=True)
    for name, array in value.items():
        assert found[name].numpy().dtype == array.dtype
        np.testing.assert_array_equal(found[name].numpy(), array)
    found["a"].add_(1)
    assert gf.load(path)["a"].tolist() == [0, 1, 2, 3, 4]
    whole = path.read_bytes()
    for damaged in (b"", whole[:12], whole[:-1], whole.replace(b"[5]", b"[6]")):
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match=r"a\.safetensors"):
            gf.load(path, mmap=True)
    with pytest.raises(ValueError, match="give its path"):
        gf.load(io.BytesIO(whole), mmap=True)


def test_places_to_load_to() -> None:
    def load(location: Any) -> Any:
        buffer = io.BytesIO()
        gf.save([gf.ones(1)], buffer)
        buffer.seek(0)
        return gf.load(buffer, location)

    for location in (None, "cpu", gf.device("cpu"), lambda storage, place: storage, {"cuda:0": "cpu"}):
        assert load(location)[0].tolist() == [1.0]
    with pytest.raises(TypeError, match="map_location gave int"):
        load(lambda storage, place: 1)
    with pytest.raises(gf.errors.DeviceError, match="not a device"):
        load(3)


def test_files_that_can_not_be_used(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.x\.pt"):
        gf.save({}, tmp_path / "none" / "x.pt")
    for act in (lambda: gf.save({}, 3), lambda: gf.load(3)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"a path or something with .*got int"):
            act()
    with pytest.raises(TypeError, match="open it with mode 'rb'"):
        gf.load(io.StringIO("text"))  # type: ignore[arg-type]


def test_structures_that_are_too_deep_or_too_large_are_refused() -> None:
    for text, tensors in (("[" * 10**5, {}), ("1", {"a": {"dtype": "F32", "shape": [0, 2**62]}})):
        header = {"__metadata__": {"graphflow.saved": text}}
        for name, facts in tensors.items():
            header[name] = {**facts, "data_offsets": [0, 0]}
        data = json.dumps(header).encode()
        with pytest.raises(FormatError):
            gf.load(io.BytesIO(len(data).to_bytes(8, "little") + data))


def test_the_file_that_a_link_leads_to_is_replaced_and_neighbours_are_left_alone(tmp_path: Path) -> None:
    target, link, other = tmp_path / "real.pt", tmp_path / "link.pt", tmp_path / "link.pt.tmp"
    target.write_bytes(b"old")
    other.write_bytes(b"somebody's")
    link.symlink_to(target)
    gf.save({"a": 1}, link)
    assert link.is_symlink() and gf.load(target) == {"a": 1} and other.read_bytes() == b"somebody's"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link.pt", "link.pt.tmp", "real.pt"]


def test_values_can_be_assigned() -> None:
    layer = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    layer[0].bias.requires_grad_(False)
    state = {name: gf.full_like(value, 2) for name, value in layer.state_dict().items()}
    layer.load_state_dict(state, assign=True)
    assert isinstance(layer[0].weight, nn.Parameter) and layer[0].weight.requires_grad
    assert not layer[0].bias.requires_grad
    state["0.weight"].zero_()
    assert layer[0].weight.tolist() == [[0.0, 0.0]]
    assert layer[1].num_batches_tracked is state["1.num_batches_tracked"]
