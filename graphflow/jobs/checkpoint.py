"""A training run on disk: one safetensors file, whose header holds the facts that aren't tensors as JSON.

It is written under another name, flushed, and moved into place, so that whenever a process dies there is a
whole checkpoint: the old one or the new one. Loading reads numbers and text and runs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from graphflow.errors import FormatError
from graphflow.files import write_atomically
from graphflow.tensorfile import from_bytes, to_bytes

_KEY = "graphflow.checkpoint"
_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """Arrays by name, and facts that JSON can hold."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def save(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    """Writes a checkpoint to `path`."""
    plain = {name: np.array(array, order="C") for name, array in arrays.items()}
    text = json.dumps({"version": _VERSION, **facts})
    write_atomically(path, to_bytes(plain, metadata={_KEY: text}))


def load(path: Path) -> Checkpoint:
    """The checkpoint at `path`; FormatError when it isn't one, or isn't whole."""
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_KEY)
        arrays = from_bytes(path.read_bytes())
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path}: is not a whole checkpoint: {error}") from None
    if text is None:
        raise FormatError(f"{path}: is a safetensors file, but not a checkpoint of graphflow")
    try:
        facts = json.loads(text)
    except ValueError as error:
        raise FormatError(f"{path}: its facts are not JSON: {error}") from None
    if not isinstance(facts, dict) or facts.get("version") != _VERSION:
        found = facts.get("version") if isinstance(facts, dict) else facts
        raise FormatError(
            f"{path}: is a checkpoint of version {found!r}; this graphflow reads version {_VERSION}"
        )
    return Checkpoint(arrays, facts)
