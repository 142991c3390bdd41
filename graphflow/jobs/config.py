"""job.toml: what a batch training job is, checked key by key."""

from __future__ import annotations

import difflib
import inspect
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphflow import optim
from graphflow.errors import JobError
from graphflow.optim.group import is_rate

_OPTIMIZERS = (
    optim.SGD, optim.Adam, optim.AdamW, optim.Adagrad, optim.Adadelta, optim.RMSprop, optim.Rprop,
    optim.Adamax, optim.NAdam, optim.RAdam, optim.ASGD,
)  # fmt: skip
OPTIMIZERS: dict[str, type[optim.Optimizer]] = {kind.__name__.lower(): kind for kind in _OPTIMIZERS}
LOSSES = ("cross_entropy", "mse")
_MAX_BYTES = 1 << 20  # of a job.toml


@dataclass(frozen=True)
class Entry:
    """A function in the user's own code, written ``file.py:function``, the file relative to the job.toml."""

    file: Path
    function: str


@dataclass(frozen=True)
class JobConfig:
    """A job as it was described.

    ``label_smoothing`` applies to training, not to evaluation. ``checkpoint_seconds`` is the longest time
    between two checkpoints within an epoch; every epoch ends with one.
    """

    path: Path
    name: str
    data: Entry
    model: Entry
    epochs: int
    output: Path
    batch_size: int = 32
    seed: int = 0
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    checkpoint_seconds: float = 300.0
    optimizer: str = "adam"
    options: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """What decides the course of training: a checkpoint goes on only under the same."""
        return {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "loss": self.loss,
            "label_smoothing": self.label_smoothing,
            "optimizer": {"name": self.optimizer, **self.options},
        }


def read(path: str | Path) -> JobConfig:
    """The job described in the TOML file at `path`. JobError names the file, the key and what it takes."""
    path = Path(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise JobError(f"{path}: can't be read: {error.strerror}") from None
    if len(text) > _MAX_BYTES:
        raise JobError(f"{path}: is too large for a job description ({len(text)} bytes)")
    try:
        table = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: is not TOML: {error}") from None
    return _Reader(path).job(table)


class _Reader:
    """Takes a parsed file apart; every method's error starts with the file and the key."""

    def __init__(self, path: Path):
        self.path = path

    def fail(self, key: str, problem: str) -> JobError:
        return JobError(f"{self.path}: {key}: {problem}")

    def job(self, table: Mapping[str, Any]) -> JobConfig:
        checks: dict[str, Callable[[str, Any], Any]] = {
            "name": self.name,
            "data": self.entry,
            "model": self.entry,
            "epochs": self.count,
            "batch_size": self.count,
            "seed": self.seed,
            "output": self.output,
            "loss": self.loss,
            "label_smoothing": self.smoothing,
            "checkpoint_seconds": self.seconds,
            "optimizer": self.optimizer,
        }
        self.only_known("", table, checks)
        for key in ("name", "data", "model", "epochs"):
            if key not in table:
                raise JobError(f"{self.path}: the key {key!r} is missing")
        values = {key: checks[key](key, value) for key, value in table.items()}
        if values.get("label_smoothing") and values.get("loss") == "mse":
            raise self.fail("label_smoothing", "goes with loss = 'cross_entropy' only")
        values.setdefault("output", Path("runs") / values["name"])
        values.update(values.pop("optimizer", {}))
        return JobConfig(path=self.path, **values)

    def only_known(self, prefix: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
        names = list(known)
        for key in table:
            if key not in names:
                close = difflib.get_close_matches(key, names, 1)
                hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(names)}"
                raise JobError(f"{self.path}: unknown key '{prefix}{key}'; {hint}")

    def text(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not value:
            raise self.fail(key, f"has to be a text, got {value!r}")
        return value

    def name(self, key: str, value: Any) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", self.text(key, value)):
            raise self.fail(key, f"names a folder: letters, digits, '.', '_' and '-' only, got {value!r}")
        return str(value)

    def entry(self, key: str, value: Any) -> Entry:
        file, colon, function = self.text(key, value).rpartition(":")
        if not colon or not file.endswith(".py") or not function.isidentifier():
            raise self.fail(key, f"names a function as 'file.py:function', got {value!r}")
        target = self.path.parent / file
        if not target.is_file():
            raise self.fail(key, f"there is no file {target}")
        return Entry(target, function)

    def count(self, key: str, value: Any) -> int:
        return self.whole(key, value, 1)

    def seed(self, key: str, value: Any) -> int:
        return self.whole(key, value, 0)

    def whole(self, key: str, value: Any, least: int) -> int:
        if type(value) is not int or not least <= value < 2**63:
            raise self.fail(key, f"has to be a whole number of at least {least}, got {value!r}")
        return value

    def seconds(self, key: str, value: Any) -> float:
        if type(value) not in (int, float) or not value > 0:
            raise self.fail(key, f"has to be a positive number of seconds, got {value!r}")
        return float(value)

    def smoothing(self, key: str, value: Any) -> float:
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise self.fail(key, f"has to be a number from 0 to 1, got {value!r}")
        return float(value)

    def output(self, key: str, value: Any) -> Path:
        return Path(self.text(key, value))

    def choice(self, key: str, value: Any, choices: Iterable[str]) -> str:
        names = list(choices)
        if value not in names:
            close = difflib.get_close_matches(str(value), names, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise self.fail(key, f"has to be one of {', '.join(names)}, got {value!r}{hint}")
        return str(value)

    def loss(self, key: str, value: Any) -> str:
        return self.choice(key, value, LOSSES)

    def optimizer(self, key: str, value: Any) -> dict[str, Any]:
        """The optimizer's name and options; the options, their kinds and defaults are its constructor's."""
        if not isinstance(value, dict):
            raise self.fail(key, f"has to be a table with the optimizer's name and options, got {value!r}")
        if "name" not in value:
            raise self.fail(key, f"the key 'name' is missing; there are {', '.join(OPTIMIZERS)}")
        name = self.choice("optimizer.name", value["name"], OPTIMIZERS)
        parameters = list(inspect.signature(OPTIMIZERS[name]).parameters.values())[1:]
        defaults = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD}
        given = {k: v for k, v in value.items() if k != "name"}
        self.only_known("optimizer.", given, defaults)
        options = {k: self.option(f"optimizer.{k}", v, defaults[k]) for k, v in given.items()}
        return {"optimizer": name, "options": options}

    def option(self, key: str, value: Any, default: Any) -> Any:
        if isinstance(default, tuple):
            if not (isinstance(value, list) and len(value) == len(default) and all(map(is_rate, value))):
                raise self.fail(key, f"has to be a list of {len(default)} numbers, got {value!r}")
            return [float(v) for v in value]
        if isinstance(default, bool):
            if not isinstance(value, bool):
                raise self.fail(key, f"has to be true or false, got {value!r}")
            return value
        if isinstance(value, (list, tuple)) or not is_rate(value):
            raise self.fail(key, f"has to be a number, got {value!r}")
        return float(value)
