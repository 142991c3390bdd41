"""State saved to a file and read again: tensors, and the plain values and containers around them.

A file is in the safetensors format, whose header holds the structure as JSON, so that other tools can read
the tensors by name, and reading a file runs nothing. Pickles, such as PyTorch's ``.pt`` files, are refused.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError

from graphflow.dtypes import DType, as_dtype
from graphflow.errors import FormatError
from graphflow.files import write_atomically
from graphflow.gradfn import Size
from graphflow.runtime.device import Device
from graphflow.tensor import Tensor, where_called
from graphflow.tensorfile import from_bytes, from_map, to_bytes

_KEY = "graphflow.saved"
_VERSION = 1
_DEEPEST = 100  # levels of containers; a structure that holds itself has no end

Place = str | os.PathLike[str] | BinaryIO


def save(obj: Any, f: Place, pickle_module: Any = None, pickle_protocol: Any = None) -> None:
    """Writes state to `f`, a path or something with ``write``: ``gf.save(model.state_dict(), path)``.

    `obj` is made of tensors, NumPy arrays, numbers, strings, bytes, None, dtypes, devices, and dictionaries,
    lists, tuples and sets of these. A file at a path is replaced as a whole or not at all. TypeError for
    anything else, saying where it stands. Nothing is pickled: the last two arguments mean nothing.
    """
    _require_place(f, "save", "write")
    writer = _Writer()
    tree = writer.encode(obj, ())
    data = to_bytes(writer.arrays, {_KEY: json.dumps({"version": _VERSION, "value": tree}, allow_nan=False)})
    if isinstance(f, (str, os.PathLike)):
        write_atomically(f, data)
    else:
        f.write(data)


def load(
    f: Place,
    map_location: Any = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
) -> Any:
    """What `save` wrote to the file `f`, a path or something with ``read``.

    Any other safetensors file gives a dictionary of its tensors. `map_location` is a device, a dictionary
    from devices to devices, or a function that is called with each tensor and "cpu" and gives the tensor back
    (or None). With `mmap`, which takes a path, the file is mapped and read where tensors are used; writing to
    them doesn't change it. `pickle_module` and `weights_only` are accepted and mean nothing, because nothing
    but state can be read. FormatError for other files, and for pickles, which could run any code.
    """
    _require_place(f, "load", "read")
    path = Path(f) if isinstance(f, (str, os.PathLike)) else None
    label = "the file" if path is None else str(path)
    if mmap and path is None:
        raise ValueError("load: mmap=True maps a file; give its path")
    if path is not None and mmap and path.stat().st_size:
        data: Any = np.memmap(path, np.uint8, "c")
    else:
        data = path.read_bytes() if path is not None else f.read()  # type: ignore[union-attr]
        if not isinstance(data, bytes):
            raise TypeError(f"load: {label} gives {type(data).__name__}, not bytes; open it with mode 'rb'")
    _require_tensors(data, label)
    try:
        arrays = from_map(data) if mmap else from_bytes(data)
        header = _header(data)
    except FormatError as error:
        raise FormatError(f"{label}: {error}") from None
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise FormatError(f"{label}: is not a whole safetensors file: {error}") from None
    place = _mapped(map_location)
    tensors = {name: place(Tensor.holding(array)) for name, array in arrays.items()}
    text = header.get("__metadata__", {}).get(_KEY)
    if text is None:
        return tensors
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{label}: its structure is not JSON: {error}") from None
    version = facts.get("version") if isinstance(facts, dict) else None
    if version != _VERSION:
        raise FormatError(f"{label}: has version {version!r}; this graphflow reads version {_VERSION}")
    return _Reader(tensors, label).decode(facts.get("value"))


def _require_place(f: Any, name: str, method: str) -> None:
    if not (isinstance(f, (str, os.PathLike)) or hasattr(f, method)):
        raise TypeError(
            f"{name}: f is a path or something with {method}(), got {type(f).__name__}" + where_called()
        )


def _mapped(location: Any) -> Callable[[Tensor], Tensor]:
    """What `load` does with each tensor."""
    if isinstance(location, Mapping):
        location = location.get("cpu")
    if not isinstance(location, Callable):  # type: ignore[arg-type]
        return lambda tensor: tensor.to(device=location)

    def moved(tensor: Tensor) -> Tensor:
        found = location(tensor, "cpu")
        if found is not None and not isinstance(found, Tensor):
            raise TypeError(f"load: map_location gave {type(found).__name__}, not the tensor it was given")
        return tensor if found is None else found

    return moved


def _header(data: Any) -> dict[str, Any]:
    size = int.from_bytes(bytes(data[:8]), "little")
    header: dict[str, Any] = json.loads(bytes(data[8 : 8 + size]))
    return header


def _require_tensors(data: Any, label: str) -> None:
    """FormatError, with what to do, for what isn't a safetensors file at all."""
    if bytes(data[8:9]) == b"{":
        return
    data = bytes(data)
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
        # a tensor that stands in two places is written once; it is kept, so that no other has its id
        self._names: dict[int, tuple[str, Any]] = {}

    def encode(self, value: Any, path: tuple[str, ...]) -> Any:
        """JSON for a value that stands at `path`."""
        if value is None or isinstance(value, (bool, np.bool_)):
            return None if value is None else bool(value)
        if isinstance(value, str):
            return str(value)
        if isinstance(value, (Tensor, np.ndarray)):
            return {"tensor" if isinstance(value, Tensor) else "array": self._named(value, path),
                    "requires_grad": bool(getattr(value, "requires_grad", False))}  # fmt: skip
        if isinstance(value, (int, np.integer)):
            return int(value)
        if isinstance(value, (float, np.floating)):
            return {"float": repr(float(value))}
        if isinstance(value, (complex, np.complexfloating)):
            return {"complex": repr(complex(value))}
        if isinstance(value, DType):
            return {"dtype": value.name}
        if isinstance(value, Device):
            return {"device": str(value)}
        if isinstance(value, (bytes, bytearray)):
            return {"bytes": self._named(np.frombuffer(value, np.uint8), path)}
        if len(path) > _DEEPEST:
            raise ValueError(f"save: more than {_DEEPEST} levels of containers at {_spelt(path[:3])}…")
        if isinstance(value, Mapping):
            pairs = [
                [self.encode(k, (*path, "key")), self.encode(v, (*path, str(k)))] for k, v in value.items()
            ]
            return {"ordered" if isinstance(value, OrderedDict) else "dict": pairs}
        if isinstance(value, (list, tuple, set, frozenset)):
            name = next(name for name, kind in _SEQUENCES.items() if isinstance(value, kind))
            return {name: [self.encode(v, (*path, str(i))) for i, v in enumerate(value)]}
        raise TypeError(
            f"save: can't write a {type(value).__name__}, which stands at {_spelt(path)}; state is tensors, "
            f"numbers, strings, None, and dictionaries, lists, tuples and sets of these{_hint(value)}"
            + where_called()
        )

    def _named(self, value: Tensor | np.ndarray, path: tuple[str, ...]) -> str:
        if id(value) not in self._names:
            name = wanted = ".".join(path) or "tensor"
            count = 1
            while name in self.arrays or name == "__metadata__":  # which is the header's own
                count += 1
                name = f"{wanted}#{count}"
            array = value.detach().numpy() if isinstance(value, Tensor) else value
            self.arrays[name] = np.array(array, order="C")
            self._names[id(value)] = name, value
        return self._names[id(value)][0]


_SEQUENCES: dict[str, type] = {
    "size": Size, "tuple": tuple, "list": list, "set": set, "frozenset": frozenset,
}  # fmt: skip


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
        except (KeyError, TypeError, ValueError, RecursionError) as error:
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
        if kind == "complex":
            return complex(content)
        if kind == "device":
            return Device(content)
        if kind == "bytes":
            return self._tensors[content].numpy().tobytes()
        if kind in ("dict", "ordered"):
            pairs = [(self.decode(k), self.decode(v)) for k, v in content]
            return OrderedDict(pairs) if kind == "ordered" else dict(pairs)
        if kind in _SEQUENCES:
            return _SEQUENCES[kind](self.decode(v) for v in content)
        raise ValueError("which this graphflow doesn't know")
