"""Graph files (``.gfz``): a graph, its states' values, and what the caller wants kept with them.

A file is a zip archive of three stored (not compressed) entries: ``manifest.json`` (versions, and every other
entry's size and SHA-256), ``graph.json`` (see ``compiler.codec``) and ``weights.safetensors``. A file is
data: reading one checks everything and never imports, unpickles, extracts or runs anything.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

import numpy as np
from safetensors import SafetensorError

from graphflow import tensorfile
from graphflow.compiler.codec import decode, encode
from graphflow.compiler.interpret import bind_symbols
from graphflow.compiler.ir import Graph
from graphflow.compiler.rewrite import interned
from graphflow.compiler.verify import verify
from graphflow.errors import DTypeError, FormatError, ShapeError
from graphflow.files import write_atomically

Date = tuple[int, int, int, int, int, int]  # as zip archives have it: year to second

FORMAT_VERSION = 1
MANIFEST, GRAPH, WEIGHTS = ENTRIES = ("manifest.json", "graph.json", "weights.safetensors")
MAX_JSON_BYTES = 1 << 28
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same graph gives the same bytes, whenever it is written
_MANIFEST_KEYS = {"format", "graphflow", "entries", "args", "states", "meta"}


def write_artifact(
    path: str | os.PathLike[str], graph: Graph, states: Mapping[str, np.ndarray], meta: Mapping[str, Any]
) -> None:
    """Writes a graph file. A reader sees the old file or the whole new one, never a part, whatever happens
    meanwhile.

    `states` maps the name of every state of the graph to its value, with the state's dtype and shape; `meta`
    is any table that survives JSON unchanged. FormatError, ShapeError or DTypeError when they don't fit;
    OSError as it comes.
    """
    verify(graph)
    _check_states(graph, states)
    meta = _check_meta(meta)
    body = {
        GRAPH: _to_json(encode(interned(graph))),
        WEIGHTS: tensorfile.to_bytes(
            {name: np.asarray(states[name], order="C") for name in _names(graph.states)}
        ),
    }
    manifest = {
        "format": FORMAT_VERSION,
        "graphflow": _own_version(),
        "entries": {name: {"size": len(data), "sha256": _digest(data)} for name, data in body.items()},
        "args": _names(graph.args),
        "states": _names(graph.states),
        "meta": meta,
    }
    write_atomically(path, _pack({MANIFEST: _to_json(manifest), **body}))


def read_artifact(path: str | os.PathLike[str]) -> tuple[Graph, dict[str, np.ndarray], dict[str, Any]]:
    """The graph, its states' values by name, and the `meta` of a file that ``write_artifact`` wrote.

    FormatError when the file is no graph file, is truncated or altered anywhere, was written in another
    version of the format, or holds something it shouldn't, were it a byte between the entries; OSError when
    it can't be read.
    """
    with open(path, "rb") as file:
        data = file.read()
    try:
        return _read(data)
    except FormatError as error:
        raise FormatError(f"{os.fspath(path)}: {error}") from error


def _read(data: bytes) -> tuple[Graph, dict[str, np.ndarray], dict[str, Any]]:
    entries = _unpack(data)
    manifest = _from_json(entries[MANIFEST], MANIFEST)
    _check_manifest(manifest, entries)
    graph = decode(_from_json(entries[GRAPH], GRAPH))
    if manifest["args"] != _names(graph.args) or manifest["states"] != _names(graph.states):
        _fail("the manifest and the graph name different arguments or states")
    try:
        states = tensorfile.from_bytes(entries[WEIGHTS])
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"the weights can't be read: {error}") from error
    try:
        _check_states(graph, states)
    except (ShapeError, DTypeError) as error:
        raise FormatError(f"the weights don't fit the graph: {error}") from error
    return graph, {name: states[name] for name in _names(graph.states)}, manifest["meta"]


# ---------------------------------------------------------------------------------------------- checks


def _fail(message: str) -> NoReturn:
    raise FormatError(message)


def _names(nodes: tuple[Any, ...]) -> list[str]:
    return [node.attrs["name"] for node in nodes]


def _own_version() -> str:
    try:
        return version("graphflow")
    except PackageNotFoundError:
        return "unknown"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_states(graph: Graph, states: Mapping[str, np.ndarray]) -> None:
    names = _names(graph.states)
    if len(set(names)) != len(names):
        _fail("two states have the same name")
    if set(names) != set(states):
        missing, extra = sorted(set(names) - set(states)), sorted(set(states) - set(names))
        _fail(f"the states' values don't match the graph: missing {missing}, not in the graph {extra}")
    for node in graph.states:
        value = np.asarray(states[node.attrs["name"]])
        if value.dtype != node.dtype.numpy:
            raise DTypeError(
                f"the state {node.attrs['name']} is {node.type}, its value has dtype {value.dtype}"
            )
    bind_symbols(graph.states, [np.asarray(states[name]) for name in names])


def _check_meta(meta: Mapping[str, Any]) -> dict[str, Any]:
    try:
        text = json.dumps(meta, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise FormatError(f"meta can't be kept as JSON: {error}") from error
    again = json.loads(text)
    if type(again) is not dict or again != meta:
        _fail("meta doesn't survive JSON: it has to be a table with strings for keys, of lists, not tuples")
    return again


def _check_manifest(manifest: Any, entries: Mapping[str, bytes]) -> None:
    if type(manifest) is not dict or "format" not in manifest:
        _fail("the manifest names no version of the format")
    if type(manifest["format"]) is not int or manifest["format"] != FORMAT_VERSION:
        _fail(
            f"the file is written in version {manifest['format']!r} of the format (by graphflow "
            f"{manifest.get('graphflow')!r}); this graphflow reads version {FORMAT_VERSION}"
        )
    if set(manifest) != _MANIFEST_KEYS or type(manifest["meta"]) is not dict:
        _fail("the manifest doesn't have the parts it should")
    actual = {
        name: {"size": len(entries[name]), "sha256": _digest(entries[name])} for name in (GRAPH, WEIGHTS)
    }
    if manifest["entries"] != actual:
        _fail("an entry isn't what the manifest says: the file was altered")


# ---------------------------------------------------------------------------------------------- JSON and zip


def _to_json(value: Any) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        _fail("a table has a key twice")
    return table


def _no_constant(name: str) -> NoReturn:
    _fail(f"{name} is not JSON")


def _from_json(data: bytes, name: str) -> Any:
    if len(data) > MAX_JSON_BYTES:
        _fail(f"{name} is larger than {MAX_JSON_BYTES} bytes")
    try:
        return json.loads(data.decode("ascii"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except FormatError:
        raise
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{name} is not JSON: {error}") from error


def _unpack(data: bytes) -> dict[str, bytes]:
    """The archive's entries, after checking that they are the three that belong there, stored as they are."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            names = [info.filename for info in infos]
            if sorted(names) != sorted(ENTRIES):
                _fail(f"the archive has to hold {', '.join(ENTRIES)}, each once, and holds {names[:10]}")
            for info in infos:
                if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
                    _fail(f"the entry {info.filename} is compressed; entries have to be stored")
                if info.flag_bits & 1:
                    _fail(f"the entry {info.filename} is encrypted")
            if sum(info.file_size for info in infos) > len(data):
                _fail("the entries claim to be larger than the file")
            entries = {info.filename: archive.read(info) for info in infos}
            # Checksums cover what the entries hold; this covers every byte around them.
            if _pack(entries, [info.date_time for info in infos]) != data:
                _fail("the archive around the entries isn't as it was written: the file was altered")
            return entries
    except FormatError:
        raise
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        EOFError,
        OSError,
        ValueError,
        NotImplementedError,
    ) as error:
        raise FormatError(f"not a graph file, or a damaged one: {error}") from error
    except (RuntimeError, LookupError, OverflowError, MemoryError) as error:
        raise FormatError(f"a damaged graph file: {error}") from error


def _pack(entries: Mapping[str, bytes], dates: Iterable[Date] = itertools.repeat(_EPOCH)) -> bytes:
    """The archive that holds these entries, which are of the given dates."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for (name, data), date in zip(entries.items(), dates, strict=False):
            archive.writestr(zipfile.ZipInfo(name, date), data)
    return buffer.getvalue()
