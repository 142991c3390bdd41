"""State saved to a file and read again: tensors, and the plain values and containers around them.

A file is in the safetensors format, whose header holds the structure as JSON, so that other tools can read
the tensors by name, and reading a file runs nothing. Pickles, such as PyTorch's ``.pt`` files, are refused.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError

from graphflow.dtypes import DType, as_dtype
from graphflow.errors import FormatError
from graphflow.files import write_atomically
from graphflow.gradfn import Size
from graphflow.tensor import Tensor, where_called
from graphflow.tensorfile import from_bytes, to_bytes

_KEY = "graphflow.saved"
_VERSION = 1
_DEEPEST = 100  # levels of containers; a structure that holds itself has no end

Place = str | os.PathLike[str] | BinaryIO


def save(obj: Any, f: Place) -> None:
    """Writes state to `f`, a path or something with ``write``: ``gf.save(model.state_dict(), path)``.

    `obj` is made of tensors, NumPy arrays, numbers, strings, None, dtypes, and dictionaries, lists and tuples
    of these. A file at a path is replaced as a whole or not at all. TypeError for anything else, saying where
    it stands.
    """
    writer = _Writer()
    tree = writer.encode(obj, ())
    data = to_bytes(writer.arrays, {_KEY: json.dumps({"version": _VERSION, "value": tree}, allow_nan=False)})
    if isinstance(f, (str, os.PathLike)):
        write_atomically(f, data)
    else:
        f.write(data)


def load(f: Place, map_location: Any = None, *, weights_only: bool = True) -> Any:
    """What `save` wrote to the file `f`, a path or something with ``read``.

    Any other safetensors file gives a dictionary of its tensors. `map_location` is a device; `weights_only`
    is accepted and means nothing, because nothing but state can be read. FormatError for other files, and for
    pickles, which could run any code.
    """
    label = str(f) if isinstance(f, (str, os.PathLike)) else "the file"
    data = Path(f).read_bytes() if isinstance(f, (str, os.PathLike)) else f.read()
    _require_tensors(data, label)
    try:
        arrays = from_bytes(data)
    except SafetensorError as error:
        raise FormatError(f"{label}: is not a whole safetensors file: {error}") from None
    tensors = {name: Tensor.holding(array).to(device=map_location) for name, array in arrays.items()}
    text = _header(data).get("__metadata__", {}).get(_KEY)
    if text is None:
        return tensors
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{label}: its structure is not JSON: {error}") from None
    version = facts.get("version") if isinstance(facts, dict) else None
    if version != _VERSION:
        raise FormatError(f"{label}: has version {version!r}; this graphflow reads version {_VERSION}")
    return _Reader(tensors, label).decode(facts.get("value"))


def _header(data: bytes) -> dict[str, Any]:
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    return header


def _require_tensors(data: bytes, label: str) -> None:
    """FormatError, with what to do, for what isn't a safetensors file at all."""
    if data[8:9] == b"{":
        return
    zipped = zipfile.is_zipfile(io.BytesIO(data))
    if zipped:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if "manifest.json" in archive.namelist():
                raise FormatError(f"{label}: holds a graph; read it with gf.load_graph")
    if zipped or data[:1] == b"\x80":
        raise FormatError(
            f"{label}: is a pickle, as PyTorch writes them, and reading one can run any code. Where it was "
            "made, write it anew with safetensors.torch.save_file(model.state_dict(), 'model.safetensors'), "
            "which gf.load reads"
        )
    raise FormatError(f"{label}: is not a safetensors file")


class _Writer:
    """Turns a structure into JSON and arrays with names."""

    def __init__(self) -> None:
        self.arrays: dict[str, np.ndarray] = {}
        self._names: dict[int, str] = {}  # a tensor that stands in two places is written once

    def encode(self, value: Any, path: tuple[str, ...]) -> Any:
        """JSON for a value that stands at `path`."""
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (Tensor, np.ndarray)):
            return {"tensor" if isinstance(value, Tensor) else "array": self._named(value, path),
                    "requires_grad": bool(getattr(value, "requires_grad", False))}  # fmt: skip
        if isinstance(value, (int, np.integer)):
            return int(value)
        if isinstance(value, (float, np.floating)):
            return {"float": repr(float(value))}
        if isinstance(value, DType):
            return {"dtype": value.name}
        if len(path) > _DEEPEST:
            raise ValueError(f"save: more than {_DEEPEST} levels of containers at {_spelt(path[:3])}…")
        if isinstance(value, Mapping):
            pairs = [
                [self.encode(k, (*path, "key")), self.encode(v, (*path, str(k)))] for k, v in value.items()
            ]
            return {"dict": pairs}
        if isinstance(value, (list, tuple)):
            name = next(name for name, kind in _SEQUENCES.items() if isinstance(value, kind))
            return {name: [self.encode(v, (*path, str(i))) for i, v in enumerate(value)]}
        raise TypeError(
            f"save: can't write a {type(value).__name__}, which stands at {_spelt(path)}; state is tensors, "
            f"numbers, strings, None, and dictionaries, lists and tuples of these{_hint(value)}"
            + where_called()
        )

    def _named(self, value: Tensor | np.ndarray, path: tuple[str, ...]) -> str:
        if id(value) not in self._names:
            name = wanted = ".".join(path) or "tensor"
            count = 1
            while name in self.arrays:
                count += 1
                name = f"{wanted}#{count}"
            array = value.detach().numpy() if isinstance(value, Tensor) else value
            self.arrays[name] = np.array(array, order="C")
            self._names[id(value)] = name
        return self._names[id(value)]


_SEQUENCES: dict[str, type] = {"size": Size, "tuple": tuple, "list": list}


def _spelt(path: tuple[str, ...]) -> str:
    return "".join(f"[{part!r}]" for part in path) or "the top"


def _hint(value: Any) -> str:
    return "; save its .state_dict()" if hasattr(value, "state_dict") else ""


class _Reader:
    """The structure anew."""

    def __init__(self, tensors: dict[str, Tensor], label: str):
        self._tensors = tensors
        self._label = label

    def decode(self, tree: Any) -> Any:
        """The value that JSON stands for; FormatError for what `save` doesn't write."""
        if tree is None or isinstance(tree, (bool, int, str)):
            return tree
        kinds = [name for name in tree if name != "requires_grad"] if isinstance(tree, dict) else []
        if len(kinds) != 1:
            raise FormatError(f"{self._label}: its structure holds {str(tree)[:40]!r}")
        kind, content = kinds[0], tree[kinds[0]]
        try:
            return self._made(kind, content, tree.get("requires_grad", False))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(f"{self._label}: its structure holds a bad {kind}: {error}") from None

    def _made(self, kind: str, content: Any, requires_grad: bool) -> Any:
        if kind == "tensor":
            tensor = self._tensors[content]
            return tensor.requires_grad_() if requires_grad else tensor
        if kind == "array":
            return self._tensors[content].numpy()
        if kind == "float":
            return float(content)
        if kind == "dtype":
            return as_dtype(content)
        if kind == "dict":
            return {self.decode(k): self.decode(v) for k, v in content}
        if kind in _SEQUENCES:
            return _SEQUENCES[kind](self.decode(v) for v in content)
        raise ValueError("which this graphflow doesn't know")
