"""Graph files: exact both ways, written whole or not at all, and refused when anything about them is off."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphflow import artifact
from graphflow.artifact import ENTRIES, GRAPH, MANIFEST, WEIGHTS, read_artifact, write_artifact
from graphflow.compiler.interpret import run_graph
from graphflow.compiler.ir import OPS, Graph, TensorType, input_node
from graphflow.dims import Dim
from graphflow.dtypes import ALL, bool_, float32, float64, int64
from graphflow.errors import DTypeError, FormatError, ShapeError, VerifyError

N = Dim.symbol("n")


def model() -> tuple[Graph, dict[str, np.ndarray]]:
    x = input_node("x", TensorType(float32, (N, 3)))
    w = input_node("layer.weight", TensorType(float32, (3, 2)))
    steps = input_node("steps", TensorType(int64, ()))
    y = OPS["matmul"](x, w) * 0.1
    graph = Graph("model", (x,), (w, steps), (y,), ((1, steps + 1), (0, w * 0.5)))
    return graph, {"layer.weight": np.arange(6, dtype=np.float32).reshape(3, 2), "steps": np.asarray(7)}


META = {"structure": ["a", {"b": None}], "rate": 0.1, "epochs": 3, "shuffle": True}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "model.gfz"
    write_artifact(file, *model(), META)
    return file


def same(found: tuple[Graph, dict[str, np.ndarray], dict[str, Any]]) -> bool:
    graph, states = model()
    return (
        str(found[0]) == str(graph)
        and list(found[1]) == list(states)
        and all(
            a.dtype == b.dtype and np.array_equal(a, b)
            for a, b in zip(found[1].values(), states.values(), strict=True)
        )
        and found[2] == META
    )


# -------------------------------------------------------------------------------- writing and reading


def test_round_trip(path: Path) -> None:
    found = read_artifact(path)
    assert same(found)
    graph, states, _ = found
    x = np.ones((2, 3), np.float32)
    (y,), (steps, _) = run_graph(graph, [x, *states.values()])
    np.testing.assert_allclose(y, [[0.6, 0.9]] * 2, rtol=1e-6)
    assert steps == 8


def test_read_states_can_be_written_to(path: Path) -> None:
    read_artifact(path)[1]["layer.weight"] += 1


def test_the_same_graph_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    write_artifact(tmp_path / "again.gfz", *model(), META)
    assert (tmp_path / "again.gfz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (1, 0, 4)], ids=str)
def test_every_dtype_and_layout(dtype: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    w = input_node("w", TensorType(dtype, shape))
    values = (np.random.default_rng(0).standard_normal(shape[::-1]) * 50).astype(dtype.numpy).T
    write_artifact(tmp_path / "w.gfz", Graph("g", (), (w,), (w,)), {"w": values}, {})
    found = read_artifact(tmp_path / "w.gfz")[1]["w"]
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


def test_special_floats(tmp_path: Path) -> None:
    w = input_node("w", TensorType(float64, (5,)))
    values = np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324])
    write_artifact(tmp_path / "w.gfz", Graph("g", (), (w,), ()), {"w": values}, {})
    assert read_artifact(tmp_path / "w.gfz")[1]["w"].tobytes() == values.tobytes()


def test_a_graph_without_states(tmp_path: Path) -> None:
    x = input_node("x", TensorType(bool_, ()))
    write_artifact(tmp_path / "g.gfz", Graph("g", (x,), (), (x,)), {}, {})
    assert read_artifact(tmp_path / "g.gfz")[1:] == ({}, {})


def test_writing_replaces_and_leaves_nothing_behind(path: Path) -> None:
    write_artifact(path, *model(), {"other": 1})
    assert read_artifact(path)[2] == {"other": 1}
    assert os.listdir(path.parent) == [path.name]


def test_writing_into_a_missing_folder(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "g.gfz"
    with pytest.raises(FileNotFoundError) as raised:
        write_artifact(path, *model(), {})
    assert raised.value.filename == str(path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda s: s.pop("steps"), FormatError, r"missing \['steps'\]"),
        (lambda s: s.update(extra=np.zeros(1)), FormatError, r"not in the graph \['extra'\]"),
        (lambda s: s.update(steps=np.float32(1)), DTypeError, r"the state steps is int64\[\]"),
        (
            lambda s: s.update(steps=np.zeros(1, np.int64)),
            ShapeError,
            r"steps has to be int64\[\], got shape \(1,\)",
        ),
    ],
)
def test_states_have_to_fit(change: Callable[[Any], Any], error: type, message: str, tmp_path: Path) -> None:
    graph, states = model()
    change(states)
    with pytest.raises(error, match=message):
        write_artifact(tmp_path / "g.gfz", graph, states, {})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "meta", [{"a": (1, 2)}, {1: 2}, {"a": float("nan")}, {"a": object()}, [1], {"a": {"b": {3}}}]
)
def test_meta_has_to_survive_json(meta: Any, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="meta"):
        write_artifact(tmp_path / "g.gfz", *model(), meta)


def test_unsound_graphs_and_double_names_are_not_written(tmp_path: Path) -> None:
    x, y = (input_node("w", TensorType(float32, ())) for _ in range(2))
    with pytest.raises(VerifyError):
        write_artifact(tmp_path / "g.gfz", Graph("g", (x,), (), (y,)), {}, {})
    with pytest.raises(FormatError, match="same name"):
        write_artifact(tmp_path / "g.gfz", Graph("g", (), (x, y), ()), {"w": np.float32(1)}, {})


# -------------------------------------------------------------------------------- damage


def test_any_byte_altered_is_noticed(path: Path) -> None:
    original = path.read_bytes()
    for position in range(len(original)):
        for mask in (1 << position % 8, 0xFF)[: 2 if position % 8 == 0 else 1]:
            path.write_bytes(
                original[:position] + bytes([original[position] ^ mask]) + original[position + 1 :]
            )
            with pytest.raises(FormatError) as raised:
                read_artifact(path)
            assert str(path) in str(raised.value)


@pytest.mark.parametrize("change", [lambda d: b"#!/bin/sh\n" + d, lambda d: d + b"\n", lambda d: d * 2])
def test_bytes_around_the_archive_are_noticed(change: Callable[[bytes], bytes], path: Path) -> None:
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(FormatError):
        read_artifact(path)


def test_any_truncation_is_noticed(path: Path) -> None:
    original = path.read_bytes()
    for length in range(0, len(original), 7):
        path.write_bytes(original[:length])
        with pytest.raises(FormatError):
            read_artifact(path)


def test_any_block_left_out_or_zeroed_is_noticed(path: Path) -> None:
    original = path.read_bytes()
    for start in range(0, len(original), 64):
        for middle in (b"", bytes(64)):
            path.write_bytes(original[:start] + middle + original[start + 64 :])
            with pytest.raises(FormatError):
                read_artifact(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK", b"not a zip", b"\x80\x04K\x01.", b"PK\x05\x06" + bytes(18)], ids=repr
)
def test_other_files_are_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(FormatError):
        read_artifact(path)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_artifact(tmp_path / "none.gfz")


# -------------------------------------------------------------------------------- forgery


def unpacked(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def forge(path: Path, entries: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)


def resign(contents: dict[str, bytes], **changes: Any) -> list[tuple[str, bytes]]:
    """The entries with a manifest that is right about them, but for the changes."""
    manifest = json.loads(contents[MANIFEST])
    for name in (GRAPH, WEIGHTS):
        manifest["entries"][name] = {"size": len(contents[name]), "sha256": artifact._digest(contents[name])}
    manifest.update(changes)
    return [(MANIFEST, json.dumps(manifest).encode()), *((name, contents[name]) for name in (GRAPH, WEIGHTS))]


def refused(path: Path, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_artifact(path)


def test_a_faithful_copy_is_read(path: Path) -> None:
    forge(path, resign(unpacked(path)))
    assert same(read_artifact(path))


@pytest.mark.parametrize("version", [0, 2, 99, "1", None, 1.0, True])
def test_other_versions_say_so(version: Any, path: Path) -> None:
    forge(path, resign(unpacked(path), format=version, graphflow="9.9"))
    refused(
        path, r"written in version .* of the format \(by graphflow '9.9'\); this graphflow reads version 1"
    )


@pytest.mark.parametrize(
    "name", ["../evil.py", "/etc/evil", "C:\\evil", "graph.json/../x", "graphflow/__init__.py", "a\x00b"]
)
def test_other_names_are_refused_and_nothing_is_written(name: str, path: Path) -> None:
    forge(path, [*unpacked(path).items(), (name, b"evil")])
    before = sorted(path.parent.parent.rglob("*"))
    refused(path, "the archive has to hold")
    assert sorted(path.parent.parent.rglob("*")) == before


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_and_missing_entries_are_refused(path: Path) -> None:
    entries = unpacked(path)
    for extra in ENTRIES:
        forge(path, [*entries.items(), (extra, entries[extra])])
        refused(path, "each once")
        forge(path, [(name, data) for name, data in entries.items() if name != extra])
        refused(path, "each once")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_entries_are_refused(method: int, path: Path) -> None:
    forge(path, list(unpacked(path).items()), method)
    refused(path, "is compressed")


def test_a_bomb_is_refused_before_it_is_unpacked(path: Path) -> None:
    entries = unpacked(path)
    forge(
        path, [*((n, entries[n]) for n in (MANIFEST, GRAPH)), (WEIGHTS, bytes(1 << 26))], zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 1 << 17
    refused(path, "is compressed")


def test_overlapping_entries_are_refused(path: Path) -> None:
    """Every directory record points at one large entry: stored, but claiming more than the file holds."""
    data = bytearray(path.read_bytes())
    records = [i for i in range(len(data)) if data[i : i + 4] == b"PK\x01\x02"]
    for record in records:
        data[record + 20 : record + 28] = struct.pack("<II", len(data), len(data))
        data[record + 42 : record + 46] = struct.pack("<I", 0)
    path.write_bytes(data)
    refused(path, "larger than the file|damaged")


def test_an_encrypted_entry_is_refused(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    refused(path, "is encrypted")


HUGE = b'{"steps":{"dtype":"I64","shape":[4611686018427387904],"data_offsets":[0,8]}}'


def weights(**tensors: np.ndarray) -> bytes:
    return artifact.tensorfile.to_bytes(tensors)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (weights(steps=np.asarray(7)), r"missing \['layer.weight'\]"),
        (weights(**{"layer.weight": np.zeros((3, 2)), "steps": np.asarray(7)}), "has dtype float64"),
        (weights(**{"layer.weight": np.zeros((2, 3), np.float32), "steps": np.asarray(7)}), "got shape"),
        (b"", "the weights can't be read"),
        (b"\xff" * 100, "the weights can't be read"),
        (struct.pack("<Q", 2**62) + b"{}", "the weights can't be read"),
        (struct.pack("<Q", 2) + b"{}" + b"more", "the weights can't be read"),
        (struct.pack("<Q", len(HUGE)) + HUGE + bytes(8), "the weights can't be read"),
    ],
)  # fmt: skip
def test_weights_have_to_fit_the_graph(data: bytes, message: str, path: Path) -> None:
    forge(path, resign({**unpacked(path), WEIGHTS: data}))
    refused(path, message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "graph.json is not JSON"),
        (b"[" * 100_000, "graph.json is not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "graph.json is not JSON"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": 1, "a": 2}', "a key twice"),
        (b"9" * 10_000, "graph.json is not JSON"),
        ("{\"é\": 1}".encode(), "graph.json is not JSON"),
        (b"null", "a graph has to be a table"),
    ],
    ids=range(8),
)  # fmt: skip
def test_graph_text_is_checked(text: bytes, message: str, path: Path) -> None:
    forge(path, resign({**unpacked(path), GRAPH: text}))
    refused(path, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"args": ["y"]}, "different arguments or states"),
        ({"states": []}, "different arguments or states"),
        ({"entries": {}}, "the file was altered"),
        ({"meta": []}, "doesn't have the parts"),
        ({"run": "os.system"}, "doesn't have the parts"),
    ],
)
def test_the_manifest_is_checked(changes: dict[str, Any], message: str, path: Path) -> None:
    forge(path, resign(unpacked(path), **changes))
    refused(path, message)


def test_a_manifest_that_is_no_table(path: Path) -> None:
    forge(path, [(MANIFEST, b"[]"), *list(unpacked(path).items())[1:]])
    refused(path, "names no version")


def test_json_beyond_the_limit_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "MAX_JSON_BYTES", 100)
    refused(path, "larger than 100 bytes")


def test_reading_does_not_unpickle(path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(path.parent / "pwned"),))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Evil()], dtype=object), allow_pickle=True)
    forge(path, resign({**unpacked(path), WEIGHTS: buffer.getvalue()}))
    refused(path, "the weights can't be read")
    assert not (path.parent / "pwned").exists()
