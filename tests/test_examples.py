"""Every example runs, at a reduced size, and reaches what such a run has to reach."""

from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
# modules that other examples import
SHARED = {"clicks", "recommend"}

# name: arguments of its main, and what must be true of the number it returns
REDUCED: dict[str, tuple[dict[str, Any], Callable[[float], bool]]] = {
    "linear_regression": ({"samples": 200, "steps": 200}, lambda error: error < 0.01),
    "quadratic_regression": ({"samples": 100, "steps": 200}, lambda error: error < 0.05),
    "logistic_regression": ({"steps": 60}, lambda accuracy: accuracy > 0.93),
    "adaline": ({"epochs": 5}, lambda accuracy: accuracy > 0.97),
    "mlp": ({"epochs": 5}, lambda accuracy: accuracy > 0.9),
    "lenet": ({"epochs": 1}, lambda accuracy: accuracy > 0.7),
    "resnet": ({"epochs": 3, "channels": (8, 16)}, lambda accuracy: accuracy > 0.5),
    "lstm_classifier": ({"epochs": 3, "hidden": 32}, lambda accuracy: accuracy > 0.5),
    "gpt": (
        {"steps": 50, "modules": 3, "tokens": 16, "width": 32, "layers": 1},
        lambda loss: loss < 3.9,  # chance is 4.5
    ),
    "factorization_machine": ({"samples": 20_000, "epochs": 3}, lambda auc: auc > 0.55),
    "wide_deep": ({"samples": 20_000, "epochs": 2}, lambda auc: auc > 0.55),
    "deepfm": ({"samples": 20_000, "epochs": 2}, lambda auc: auc > 0.55),
}


def scripts() -> list[str]:
    """All examples that are one file."""
    return sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in SHARED)


def test_every_example_is_run() -> None:
    assert scripts() == sorted(REDUCED)


@pytest.mark.parametrize("name", sorted(REDUCED))
def test_an_example_runs(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    arguments, good = REDUCED[name]
    result = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"](**arguments)
    assert good(result)
    assert capsys.readouterr().out


@pytest.mark.parametrize("name", scripts())
def test_an_example_is_short(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines()) < 150


def test_an_example_is_a_command() -> None:
    script = EXAMPLES / "quadratic_regression.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "largest error" in done.stdout
