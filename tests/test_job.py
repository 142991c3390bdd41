"""Batch jobs: the description and its mistakes, a run from end to end, stopping and going on."""

from __future__ import annotations

import functools
import io
import json
import math
import signal
import sys
from pathlib import Path
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import FormatError, JobError
from graphflow.job import CHECKPOINT, METRICS, MODEL, Outcome, train
from graphflow.jobs import checkpoint
from graphflow.jobs.config import read
from graphflow.jobs.signals import Stopped
from rich.console import Console
from safetensors.numpy import save_file

CODE = """
import os
import signal
from pathlib import Path

import numpy as np

import graphflow as gf
from graphflow import nn
from graphflow.data import Dataset, random_split

STOP = Path(__file__).with_name("stop")


class Clouds(Dataset):
    "Two classes of points; reading sample N sends the signal that the file `stop` names with N."

    def __init__(self):
        rng = np.random.default_rng(0)
        self.y = rng.integers(0, 2, 101)
        self.x = (rng.standard_normal((101, 3)) + 1.5 * self.y[:, None]).astype(np.float32)
        self.reads = 0
        self.stop = [int(n) for n in STOP.read_text().split()] if STOP.exists() else []

    def __len__(self):
        return 101

    def __getitem__(self, index):
        self.reads += 1
        if self.stop and self.reads == self.stop[0]:
            signal.raise_signal(self.stop[1])
        return self.x[index], int(self.y[index])


def data():
    return random_split(Clouds(), [50, 25, 26], seed=1)


def regression():
    class Line(Clouds):
        def __getitem__(self, index):
            x, _ = super().__getitem__(index)
            return x, np.float32([x.sum()])

    return random_split(Line(), [50, 25, 26], seed=1)[:2] + [None]


def model():
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))


def line():
    return nn.Linear(3, 1)


def broken():
    return 1 / 0


def bare():
    return nn.ReLU()


def misfit():
    return nn.Linear(7, 2)


def nothing():
    return None
"""

JOB = {
    "name": "tiny",
    "data": "code.py:data",
    "model": "code.py:model",
    "epochs": 3,
    "batch_size": 8,
    "optimizer": {"name": "adam", "lr": 0.01},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code.py").write_text(CODE)
    return tmp_path


def write(place: Path, **changes: Any) -> Path:
    """job.toml with the tiny job; None takes a key out, a dictionary is a table."""
    job = {k: v for k, v in {**JOB, **changes}.items() if v is not None}
    lines = [f"{k} = {json.dumps(v)}" for k, v in job.items() if not isinstance(v, dict)]
    for name, table in job.items():
        if isinstance(table, dict):
            lines += [f"[{name}]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    (place / "job.toml").write_text("\n".join(lines))
    return place / "job.toml"


def quietly(path: Path, resume: bool = False) -> tuple[Outcome, str]:
    console = Console(file=io.StringIO())
    outcome = train(path, resume=resume, console=console)
    return outcome, console.file.getvalue()  # type: ignore[attr-defined]


def stop_at(place: Path, reads: int, number: int = signal.SIGINT) -> None:
    (place / "stop").write_text(f"{reads} {int(number)}")


# ---------------------------------------------------------------------------------------------- a whole run


def test_a_run_leaves_metrics_a_checkpoint_and_a_model(place: Path) -> None:
    outcome, said = quietly(write(place))
    assert outcome.output == Path("runs/tiny")
    assert sorted(p.name for p in (place / "runs/tiny").iterdir()) == sorted([CHECKPOINT, METRICS, MODEL])
    rows = [json.loads(line) for line in (place / "runs/tiny" / METRICS).read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [7, 14, 21]
    assert all(set(r) == {"epoch", "step", "train_loss", "val_loss", "val_accuracy"} for r in rows)
    assert rows[-1]["val_loss"] < rows[0]["val_loss"]
    assert outcome.test is not None and outcome.test.samples == 26
    assert f"test accuracy {outcome.test.accuracy:.4f} (26 samples)" in said


def test_the_exported_model_computes_what_was_trained(place: Path) -> None:
    quietly(write(place))
    saved = checkpoint.load(place / "runs/tiny" / CHECKPOINT).arrays
    x = np.random.default_rng(5).standard_normal((4, 3)).astype(np.float32)
    hidden = np.maximum(x @ saved["model.0.weight"].T + saved["model.0.bias"], 0)
    expected = hidden @ saved["model.3.weight"].T + saved["model.3.bias"]
    model = gf.load_graph(place / "runs/tiny" / MODEL)
    np.testing.assert_allclose(model(gf.tensor(x)).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_ragged_last_batch_needs_no_variant(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphflow.job.gf.compile", functools.partial(gf.compile, max_variants=1))
    quietly(write(place))


def test_a_regression_has_losses_and_no_accuracy(place: Path) -> None:
    path = write(
        place,
        data="code.py:regression",
        model="code.py:line",
        loss="mse",
        epochs=20,
        optimizer={"name": "sgd", "lr": 0.05},
    )
    outcome, said = quietly(path)
    assert outcome.test is None and "test" not in said
    rows = [json.loads(line) for line in (place / "runs/tiny" / METRICS).read_text().splitlines()]
    assert rows[-1]["val_accuracy"] is None and rows[-1]["val_loss"] < 1e-3


def test_runs_repeat_bit_for_bit_and_earlier_ones_are_kept(place: Path) -> None:
    folder = place / "runs/tiny"
    quietly(write(place))
    first = (folder / METRICS).read_bytes(), (folder / CHECKPOINT).read_bytes(), (folder / MODEL).read_bytes()
    _, said = quietly(write(place))
    assert (
        (folder / METRICS).read_bytes(),
        (folder / CHECKPOINT).read_bytes(),
        (folder / MODEL).read_bytes(),
    ) == first
    assert "kept as *.previous.*" in said
    assert (folder / "metrics.previous.jsonl").read_bytes() == first[0]
    quietly(write(place, seed=1))
    assert (folder / METRICS).read_bytes() != first[0]


# -------------------------------------------------------------------------------- stopping and resuming

# Samples read: an epoch takes 50 for training and 25 for validation, the test 26 more.
MIDDLE, LAST_OF_EPOCH, VALIDATING, LATER, TESTING = 12, 50, 60, 75 + 33, 3 * 75 + 5


@pytest.mark.parametrize("reads", [1, MIDDLE, LAST_OF_EPOCH, VALIDATING, LATER, TESTING])
def test_a_stopped_run_goes_on_bit_for_bit(place: Path, reads: int) -> None:
    path = write(place, optimizer={"name": "sgd", "lr": 0.01, "momentum": 0.9, "dampening": 0.1})
    quietly(path)
    folder = place / "runs/tiny"
    whole = (folder / METRICS).read_bytes(), (folder / CHECKPOINT).read_bytes()
    stop_at(place, reads, signal.SIGTERM)
    with pytest.raises(Stopped, match=r"stopped by SIGTERM after step .* --resume goes on") as caught:
        quietly(path)
    assert caught.value.exit_code == 143
    (place / "stop").unlink()
    _, said = quietly(path, resume=True)
    assert "resuming" in said
    assert ((folder / METRICS).read_bytes(), (folder / CHECKPOINT).read_bytes()) == whole


def test_the_handlers_of_signals_are_put_back(place: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stop_at(place, MIDDLE)
    with pytest.raises(Stopped):
        quietly(write(place))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_metrics_beyond_the_checkpoint_are_cut(place: Path) -> None:
    path = write(place)
    quietly(path)
    folder = place / "runs/tiny"
    whole = (folder / METRICS).read_bytes()
    stop_at(place, LATER)
    with pytest.raises(Stopped):
        quietly(path)
    with open(folder / METRICS, "a") as file:  # what a process writes that dies before its checkpoint
        file.write('{"epoch": 2, "step": 14}\n{"epo')
    (place / "stop").unlink()
    quietly(path, resume=True)
    assert (folder / METRICS).read_bytes() == whole


def test_more_epochs_may_be_added(place: Path) -> None:
    quietly(write(place, epochs=5))
    whole = (place / "runs/tiny" / METRICS).read_bytes()
    quietly(write(place, epochs=2))
    quietly(write(place, epochs=5), resume=True)
    assert (place / "runs/tiny" / METRICS).read_bytes() == whole


def test_resuming_nothing_starts_from_the_beginning(place: Path) -> None:
    _, said = quietly(write(place, epochs=1), resume=True)
    assert "starting from the beginning" in said


def test_checkpoints_come_by_the_clock_too(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = []
    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *args: (count.append(1), save(*args)))
    quietly(write(place, epochs=1, checkpoint_seconds=1e-9))
    assert len(count) == 7 + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 4}, r"batch_size: is 4, but the run in .* has 8"),
        ({"optimizer": {"name": "adam", "lr": 0.02}}, "optimizer: is .*0.02.* has .*0.01"),
        ({"model": "code.py:line"}, "doesn't fit this job"),
    ],
)
def test_a_checkpoint_of_another_job_is_refused(place: Path, changes: dict[str, Any], message: str) -> None:
    quietly(write(place, epochs=1))
    with pytest.raises(JobError, match=message):
        quietly(write(place, **changes), resume=True)


@pytest.mark.parametrize("damage", ["truncated", "empty", "other", "version", "facts"])
def test_a_damaged_checkpoint_is_told(place: Path, damage: str) -> None:
    path = write(place, epochs=1)
    quietly(path)
    file = place / "runs/tiny" / CHECKPOINT
    data = file.read_bytes()
    arrays = checkpoint.load(file).arrays
    if damage == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "other":
        save_file(arrays, file)
    elif damage == "version":
        checkpoint.save(file, arrays, {"version": 99})
    else:
        checkpoint.save(file, arrays, {"job": read(path).settings(), "position": {"epoch": 0}})
    with pytest.raises(FormatError, match=str(CHECKPOINT)):
        quietly(path, resume=True)


# ---------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'?"),
        ({"zzz": 3}, "unknown key 'zzz'; it takes name, data"),
        ({"epochs": None}, "the key 'epochs' is missing"),
        ({"epochs": "ten"}, "epochs: has to be a whole number of at least 1, got 'ten'"),
        ({"epochs": 0}, "epochs: has to be a whole number of at least 1, got 0"),
        ({"epochs": True}, "epochs: has to be a whole number"),
        ({"seed": -1}, "seed: has to be a whole number of at least 0"),
        ({"name": "../up"}, "name: names a folder"),
        ({"name": ""}, "name: has to be a text"),
        ({"data": "code.py"}, "data: names a function as 'file.py:function', got 'code.py'"),
        ({"model": "other.py:model"}, "model: there is no file"),
        ({"model": "code.py:nobody"}, "has no function 'nobody'"),
        (
            {"loss": "cross_entropi"},
            "loss: has to be one of cross_entropy, mse, got 'cross_entropi'; did you mean",
        ),
        ({"loss": "mse", "label_smoothing": 0.1}, "label_smoothing: goes with"),
        ({"label_smoothing": 2}, "label_smoothing: has to be a number from 0 to 1"),
        ({"checkpoint_seconds": 0}, "checkpoint_seconds: has to be a positive number"),
        ({"optimizer": 3}, "optimizer: has to be a table"),
        ({"optimizer": {"lr": 1.0}}, "optimizer: the key 'name' is missing; there are sgd, adam, adamw"),
        ({"optimizer": {"name": "adamm"}}, "did you mean 'adam'?"),
        ({"optimizer": {"name": "sgd", "lrr": 1.0}}, "unknown key 'optimizer.lrr'; did you mean 'lr'?"),
        ({"optimizer": {"name": "sgd", "lr": "x"}}, "optimizer.lr: has to be a number, got 'x'"),
        ({"optimizer": {"name": "sgd", "nesterov": 1}}, "optimizer.nesterov: has to be true or false"),
        ({"optimizer": {"name": "adam", "betas": [0.9]}}, "optimizer.betas: has to be a list of 2 numbers"),
        ({"optimizer": {"name": "sgd", "lr": -1.0}}, "optimizer: Invalid learning rate: -1.0"),
        ({"model": "code.py:broken"}, "model: code.py:57 in broken: ZeroDivisionError: division by zero"),
        ({"model": "code.py:bare"}, "code.py:bare: the module has no parameters to train"),
        ({"model": "code.py:nothing"}, "code.py:nothing: has to return an nn.Module, got NoneType"),
        ({"data": "code.py:nothing"}, "has to return (training, validation, test) datasets, got NoneType"),
        ({"model": "code.py:misfit"}, "features in its last dimension"),
        ({"output": "code.py/x"}, "output: can't make the folder"),
    ],
)
def test_mistakes_are_told_with_file_and_key(place: Path, changes: dict[str, Any], message: str) -> None:
    path = write(place, **changes)
    with pytest.raises(JobError) as caught:
        quietly(path)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert message in text


def test_files_that_are_no_toml_are_told(place: Path) -> None:
    with pytest.raises(JobError, match=r"nothing\.toml: can't be read: No such file"):
        train(place / "nothing.toml")
    (place / "bad.toml").write_text("name = ")
    with pytest.raises(JobError, match=r"bad\.toml: is not TOML: .*"):
        train(place / "bad.toml")


def test_options_reach_the_optimizer_as_they_are_written(place: Path) -> None:
    config = read(write(place, optimizer={"name": "adamw", "betas": [0.8, 0.9], "amsgrad": True, "lr": 1}))
    assert (config.optimizer, config.options) == ("adamw", {"betas": [0.8, 0.9], "amsgrad": True, "lr": 1.0})
    assert config.output == Path("runs/tiny")
    assert read(write(place, output="elsewhere")).output == Path("elsewhere")


def test_a_loss_that_is_no_number_is_written_as_null(place: Path) -> None:
    quietly(write(place, epochs=2, optimizer={"name": "sgd", "lr": 1e30}))
    rows = [json.loads(line) for line in (place / "runs/tiny" / METRICS).read_text().splitlines()]
    assert rows[-1]["val_loss"] is None
    assert all(v is None or math.isfinite(v) for row in rows for v in row.values())


# ---------------------------------------------------------------------------------------------- the example


def test_the_digits_are_read_well(place: Path) -> None:
    pytest.importorskip("sklearn")
    example = Path(__file__).parents[1] / "examples/digits/job.toml"
    outcome, _ = quietly(example)
    assert outcome.output == Path("runs/digits")
    assert outcome.test is not None and outcome.test.accuracy is not None
    assert outcome.test.accuracy >= 0.97


def test_without_scikit_learn_the_example_names_the_extra(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    example = Path(__file__).parents[1] / "examples/digits/job.toml"
    with pytest.raises(JobError, match=r"pip install 'graphflow\[examples\]'"):
        quietly(example)
