"""Batch training jobs: ``graphflow train job.toml``, from Python ``graphflow.job.train("job.toml")``.

A run leaves in its output folder ``metrics.jsonl`` (one JSON object per epoch), ``checkpoint.safetensors``
(everything that decides how training goes on) and ``model.gfz`` (the compiled prediction). A run that was
stopped and resumed gives the same numbers, bit for bit, as one that wasn't.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from rich.console import Console

import graphflow as gf
from graphflow.data import DataLoader
from graphflow.errors import FormatError, GraphflowError, JobError
from graphflow.files import write_atomically
from graphflow.jobs import checkpoint
from graphflow.jobs.config import OPTIMIZERS, JobConfig, read
from graphflow.jobs.entry import UserCode
from graphflow.jobs.output import standard_output
from graphflow.jobs.report import Report
from graphflow.jobs.signals import Stopped, StopWish
from graphflow.nn import functional as F
from graphflow.nn.module import Module
from graphflow.optim import Optimizer

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"
MODEL = "model.gfz"
_UNREAD = "nobody reads the output any more; training goes on without it"


@dataclass
class Position:
    """How far a run has come: completed epochs, steps in all, and the running epoch's loss so far."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    samples: int = 0


@dataclass(frozen=True)
class Evaluation:
    """Mean loss and, for classes, accuracy over `samples` samples."""

    loss: float
    accuracy: float | None
    samples: int


@dataclass(frozen=True)
class Outcome:
    """What a finished run gives: where its files are, and the test set's evaluation (None without a test
    set).
    """

    output: Path
    test: Evaluation | None


def train(path: str | Path, *, resume: bool = False, console: Console | None = None) -> Outcome:
    """Runs the job described in the file at `path` to its end.

    With `resume` it goes on from the output folder's checkpoint, if there is one. JobError when the
    description, the user's code or the data can't be used; Stopped, after a checkpoint was written, on SIGINT
    or SIGTERM. Where nobody reads standard output any more, training goes on without it.
    """
    config = read(path)
    with StopWish() as wish:
        run = _Run(config, console or Console(file=standard_output(_UNREAD)), wish)
        run.prepare(resume)
        return run.to_the_end()


class _Run:
    """One run of a job: the objects that training is made of, and its place on disk."""

    def __init__(self, config: JobConfig, console: Console, wish: StopWish):
        self.config, self.console, self.wish = config, console, wish
        self.code = UserCode(config)
        self.position = Position()
        gf.manual_seed(config.seed)
        train_set, self.validation_set, self.test_set = self._datasets()
        self.loader = DataLoader(train_set, config.batch_size, shuffle=True, seed=config.seed)
        gf.manual_seed(config.seed)
        self.model = self._model()
        try:
            self.optimizer = OPTIMIZERS[config.optimizer](self.model.parameters(), **config.options)
        except ValueError as error:
            raise JobError(f"{config.path}: optimizer: {error}") from None
        self.train_step, self.evaluate, self.predict = _compiled(self.model, self.optimizer, config)
        self.saved_at = time.monotonic()

    def _datasets(self) -> tuple[Any, Any, Any]:
        made = self.code.call("data", self.config.data)
        if not isinstance(made, (tuple, list)) or len(made) != 3:
            raise self._bad(
                "data", f"has to return (training, validation, test) datasets, got {type(made).__name__}"
            )
        for name, dataset in zip(("training", "validation", "test"), made, strict=True):
            if dataset is None and name == "test":
                continue
            if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
                raise self._bad("data", f"the {name} set has to be a Dataset, got {type(dataset).__name__}")
            if len(dataset) == 0:
                raise self._bad("data", f"the {name} set is empty")
        return made[0], made[1], made[2]

    def _model(self) -> Module:
        made = self.code.call("model", self.config.model)
        if not isinstance(made, Module):
            raise self._bad("model", f"has to return an nn.Module, got {type(made).__name__}")
        if not list(made.parameters()):
            raise self._bad("model", "the module has no parameters to train")
        return made

    def _bad(self, key: str, problem: str) -> JobError:
        entry = getattr(self.config, key)
        return JobError(f"{self.config.path}: {key}: {entry.file.name}:{entry.function}: {problem}")

    # -------------------------------------------------------------------------------- the course of a run

    def prepare(self, resume: bool) -> None:
        """Goes on from the output folder's checkpoint, or sets aside what an earlier run left there."""
        output = self.config.output
        try:
            output.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise JobError(
                f"{self.config.path}: output: can't make the folder {output}: {error.strerror}"
            ) from None
        if resume and (output / CHECKPOINT).exists():
            self._restore(output / CHECKPOINT)
            self._cut_metrics()
            self._say(f"resuming {output} after {self.position.epoch} epochs, {self.position.step} steps")
            return
        if resume:
            self._say(f"there is no {output / CHECKPOINT} to resume: starting from the beginning")
        elif (output / CHECKPOINT).exists():
            self._say(f"starting over: what {output} held is kept as *.previous.*")
            os.replace(output / CHECKPOINT, output / _previous(CHECKPOINT))
        if (output / METRICS).exists():
            os.replace(output / METRICS, output / _previous(METRICS))

    def to_the_end(self) -> Outcome:
        """Trains the epochs that are left, evaluates on the test set, exports the prediction."""
        epochs = self.config.epochs
        with Report(self.console, epochs, epochs * len(self.loader)) as report:
            while self.position.epoch < epochs:
                # A run stopped during validation has its epoch's training behind it already.
                if self.loader.state_dict()["epoch"] == self.position.epoch:
                    self._train_epoch(report)
                self._finish_epoch(report)
        test = None
        if self.test_set is not None:
            try:
                test = self._evaluate(self.test_set)
            except _Asked:
                self._stop()
            name, value = ("loss", test.loss) if test.accuracy is None else ("accuracy", test.accuracy)
            self._say(f"test {name} {value:.4f} ({test.samples} samples)")
        self._export()
        return Outcome(self.config.output, test)

    def _train_epoch(self, report: Report) -> None:
        self.model.train()
        position = self.position
        for batch in self.loader:
            x, y = self._pair(batch)
            loss = float(self._user(self.train_step, x, y).item())
            count = int(x.shape[0])
            position.step += 1
            position.loss_sum += loss * count
            position.samples += count
            report.step(position.epoch + 1, position.step, loss)
            if self.wish.signal is not None:
                self._stop()
            if time.monotonic() - self.saved_at >= self.config.checkpoint_seconds:
                self._save()

    def _finish_epoch(self, report: Report) -> None:
        """Validates, writes the epoch's metrics, then a checkpoint: metrics beyond it are cut off on
        resuming.
        """
        random = gf.get_rng_state()
        try:
            validation = self._evaluate(self.validation_set)
        except _Asked:
            gf.set_rng_state(random)
            self._stop()
        position = self.position
        train_loss = position.loss_sum / position.samples if position.samples else math.nan
        self.position = Position(position.epoch + 1, position.step)
        metrics = {
            "epoch": self.position.epoch,
            "step": position.step,
            "train_loss": train_loss,
            "val_loss": validation.loss,
            "val_accuracy": validation.accuracy,
        }
        self._append_metrics(metrics)
        self._save()
        report.epoch(metrics)

    def _evaluate(self, dataset: Any) -> Evaluation:
        self.model.eval()
        total, correct, samples = 0.0, 0, 0
        for batch in DataLoader(dataset, self.config.batch_size):
            if self.wish.signal is not None:
                raise _Asked
            x, y = self._pair(batch)
            loss, right = self._user(self.evaluate, x, y)
            total += float(loss.item())
            correct += int(right.item())
            samples += int(x.shape[0])
        accuracy = correct / samples if self.config.loss == "cross_entropy" else None
        return Evaluation(total / samples, accuracy, samples)

    def _pair(self, batch: Any) -> tuple[gf.Tensor, gf.Tensor]:
        if not (
            isinstance(batch, (tuple, list))
            and len(batch) == 2
            and all(isinstance(t, gf.Tensor) for t in batch)
        ):
            raise self._bad("data", "samples have to be (input, target) pairs of tensors, arrays or numbers")
        return batch[0], batch[1]

    def _user(self, function: Callable[..., Any], *args: gf.Tensor) -> Any:
        """Calls a function that runs the user's forward; what goes wrong there is blamed on it."""
        try:
            return function(*args)
        except Exception as error:
            raise self.code.blame("model", self.config.model, error) from error

    def _stop(self) -> NoReturn:
        number = self.wish.signal
        assert number is not None
        self._save()
        folder, step = self.config.output, self.position.step
        raise Stopped(
            number,
            f"stopped by {number.name} after step {step}; {folder / CHECKPOINT} is written, --resume goes on",
        )

    def _export(self) -> None:
        self.model.eval()
        (x, _) = self._pair(next(iter(DataLoader(self.validation_set, self.config.batch_size))))
        path = self.config.output / MODEL
        self._user(self.predict, x)
        gf.export(self.predict, path)
        self._say(f"wrote {path}")

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    # -------------------------------------------------------------------------------- on disk

    def _save(self) -> None:
        arrays = {f"model.{name}": tensor.numpy() for name, tensor in self.model.state_dict().items()}
        state = self.optimizer.state_dict()
        for number, entries in state["state"].items():
            arrays.update({f"optimizer.{number}.{name}": tensor.numpy() for name, tensor in entries.items()})
        facts = {
            "job": self.config.settings(),
            "position": asdict(self.position),
            "loader": self.loader.state_dict(),
            "random": gf.get_rng_state().tolist(),
            "optimizer": state["param_groups"],
        }
        try:
            checkpoint.save(self.config.output / CHECKPOINT, arrays, facts)
        except OSError as error:
            raise JobError(f"{self.config.output / CHECKPOINT}: can't be written: {error.strerror}") from None
        self.saved_at = time.monotonic()

    def _restore(self, path: Path) -> None:
        """Takes over a checkpoint; FormatError or JobError when it's damaged or of another job."""
        found = checkpoint.load(path)
        try:
            self._check_settings(path, found.facts["job"])
            position = Position(**found.facts["position"])
            self.model.load_state_dict(_below("model.", found.arrays))
            state: dict[int, dict[str, gf.Tensor]] = {}
            for name, array in _below("optimizer.", found.arrays).items():
                number, _, entry = name.partition(".")
                state.setdefault(int(number), {})[entry] = gf.from_numpy(array)
            self.optimizer.load_state_dict({"state": state, "param_groups": found.facts["optimizer"]})
            self.loader.load_state_dict(found.facts["loader"])
            gf.set_rng_state(gf.tensor(found.facts["random"], dtype=gf.get_rng_state().dtype))
        except JobError:
            raise
        except GraphflowError as error:
            raise JobError(f"{path}: doesn't fit this job: {error}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"{path}: is not a whole checkpoint: {error!r}") from None
        self.position = position

    def _check_settings(self, path: Path, saved: dict[str, Any]) -> None:
        for key, value in self.config.settings().items():
            if saved.get(key) != value:
                raise JobError(
                    f"{self.config.path}: {key}: is {value!r}, but the run in {path} has {saved.get(key)!r}; "
                    "set it back, or start over without --resume"
                )

    def _append_metrics(self, metrics: dict[str, Any]) -> None:
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in metrics.items()}
        try:
            with open(self.config.output / METRICS, "a") as file:
                file.write(json.dumps(finite) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise JobError(f"{self.config.output / METRICS}: can't be written: {error.strerror}") from None

    def _cut_metrics(self) -> None:
        """Takes out what was written after the checkpoint: those epochs will come again."""
        path = self.config.output / METRICS
        if path.exists():
            kept = [line for line in _whole_lines(path) if json.loads(line)["epoch"] <= self.position.epoch]
            write_atomically(path, "".join(kept).encode())


class _Asked(Exception):
    """A signal arrived while something ran that is better done again than half."""


def _compiled(model: Module, optimizer: Optimizer, config: JobConfig) -> tuple[Any, Any, Any]:
    """The compiled training step, evaluation (loss summed over samples, number of right answers) and
    prediction.
    """
    classes = config.loss == "cross_entropy"

    def loss_of(result: gf.Tensor, y: gf.Tensor, label_smoothing: float = 0.0) -> gf.Tensor:
        return (
            F.cross_entropy(result, y, label_smoothing=label_smoothing) if classes else F.mse_loss(result, y)
        )

    @gf.compile
    def train_step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model(x), y, config.label_smoothing)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()  # gradients that nobody can see afterwards need not be written to memory
        return loss.detach()

    @gf.compile
    def evaluate(x: gf.Tensor, y: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
        with gf.no_grad():
            result = model(x)
            loss = loss_of(result, y)
            right = (result.argmax(1) == y).sum() if classes else gf.zeros((), dtype=gf.int64)
            return loss * x.shape[0], right

    @gf.compile
    def predict(x: gf.Tensor) -> gf.Tensor:
        with gf.no_grad():
            return model(x)  # type: ignore[no-any-return]

    return train_step, evaluate, predict


def _previous(name: str) -> str:
    stem, _, suffix = name.rpartition(".")
    return f"{stem}.previous.{suffix}"


def _below(prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _whole_lines(path: Path) -> Iterator[str]:
    """The lines that hold a metrics object; a killed process may leave half a line at the end."""
    for line in path.read_text().splitlines(keepends=True):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("epoch"), int):
            yield line
