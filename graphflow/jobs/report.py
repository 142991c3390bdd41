"""What a running job shows: a live bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_SECONDS = 3.0
_LIVE_SECONDS = 0.05


class Report:
    """Progress of one run over `steps` steps of `epochs` epochs, on `console`."""

    def __init__(self, console: Console, epochs: int, steps: int):
        self._console = console
        self._epochs = epochs
        self._steps = steps
        self._next = 0.0
        self._outcome = ""
        self._live: Progress | None = None
        if console.is_terminal:
            self._live = Progress(
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(bar_width=12),
                MofNCompleteColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._live.add_task("training", total=steps, epoch=f"0/{epochs}", facts="")

    def __enter__(self) -> Report:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def step(self, epoch: int, step: int, loss: float) -> None:
        """One training step is done; `epoch` counts from 1."""
        now = time.monotonic()
        if now < self._next:
            return
        if self._live is not None:
            self._next = now + _LIVE_SECONDS
            facts = f"loss {loss:.4f}{self._outcome}"
            self._live.update(self._task, completed=step, epoch=f"{epoch}/{self._epochs}", facts=facts)
        else:
            if self._next:  # the first line comes after a few seconds: short runs need none
                self.say(
                    f"epoch {epoch}/{self._epochs}  step {step}/{self._steps}  loss {loss:.4f}{self._outcome}"
                )
            self._next = now + _PLAIN_SECONDS

    def epoch(self, metrics: dict[str, Any]) -> None:
        """An epoch is done; the last one is told in a line that stays."""
        known = [name for name in ("val_accuracy", "val_loss") if metrics[name] is not None]
        self._outcome = f"  {known[0]} {metrics[known[0]]:.4f}"
        facts = f"loss {metrics['train_loss']:.4f}{self._outcome}"
        epoch, step = metrics["epoch"], metrics["step"]
        if self._live is not None:
            self._live.update(self._task, completed=step, epoch=f"{epoch}/{self._epochs}", facts=facts)
        if epoch == self._epochs:
            self.say(f"trained {epoch} epochs, {step} steps  {facts}")

    def say(self, text: str) -> None:
        """A line of plain text: no wrapping, no highlighting, no [markup] in what users named their files."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
