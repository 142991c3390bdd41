"""The command line: exit codes, messages, and signals to a real process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import graphflow as gf
import pytest
from graphflow import config, nn
from graphflow.cli import main
from graphflow.job import CHECKPOINT, METRICS
from graphflow.jobs import checkpoint

CODE = """
import time
from pathlib import Path

import numpy as np

from graphflow import nn
from graphflow.data import Dataset


class Slow(Dataset):
    def __init__(self, size, delay):
        self.size, self.delay = size, delay

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        time.sleep(self.delay)
        return np.float32([index % 7, 1.0]), index % 2


def data():
    delay = 0.005 if Path(__file__).with_name("slow").exists() else 0.0
    return Slow(60, delay), Slow(10, 0.0), None


def model():
    return nn.Linear(2, 2)
"""
JOB = 'name = "slow"\ndata = "code.py:data"\nmodel = "code.py:model"\nepochs = 4\nbatch_size = 7\n'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "code.py").write_text(CODE)
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path


def start(place: Path) -> subprocess.Popen[str]:
    """The job as a process of its own that takes a while."""
    (place / "slow").touch()
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "graphflow.cli", "train", "job.toml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)]
)
def test_a_signal_leaves_a_checkpoint_that_goes_on(
    place: Path, capfd: pytest.CaptureFixture[str], number: signal.Signals, code: int
) -> None:
    process = start(place)
    wait_for(place / "runs/slow" / CHECKPOINT, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    if code > 0:
        assert err.startswith(f"graphflow: stopped by {number.name} after step ") and err.count("\n") == 1
    position = checkpoint.load(place / "runs/slow" / CHECKPOINT).facts["position"]
    assert 1 <= position["epoch"] < 4
    (place / "slow").unlink()
    assert main(["train", "job.toml", "--resume"]) == 0
    resumed = (place / "runs/slow" / METRICS).read_bytes()
    assert main(["train", "job.toml"]) == 0
    assert (place / "runs/slow" / METRICS).read_bytes() == resumed
    assert "resuming runs/slow after" in capfd.readouterr().out


def test_training_goes_on_when_nobody_reads_its_output(place: Path) -> None:
    process = start(place)
    assert process.stdout is not None
    process.stdout.close()
    with process:
        assert process.stderr is not None
        err = process.stderr.read()
    assert process.returncode == 0
    assert err == "graphflow: nobody reads the output any more; training goes on without it\n"
    assert (place / "runs/slow/model.gfz").exists()
    assert len((place / "runs/slow" / METRICS).read_text().splitlines()) == 4


def test_a_mistake_is_one_line_and_code_2(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "job.toml").write_text(JOB.replace("epochs", "epoch"))
    assert main(["train", "job.toml"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "graphflow: error: job.toml: unknown key 'epoch'; did you mean 'epochs'?\n"


def test_a_mistake_of_the_model_names_no_line_of_the_command(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (place / "code.py").write_text(CODE.replace("Linear(2, 2)", "Linear(3, 2)"))
    assert main(["train", "job.toml"]) == 2
    err = capfd.readouterr().err
    assert "linear: input of shape (batch, 2) has 2 features in its last dimension" in err
    assert "weight of shape (2, 3) takes 3" in err
    assert "\n  at " not in err


def test_a_setting_with_a_bad_value_is_told_before_anything_begins(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRAPHFLOW_NUM_THREADS", "abc")
    monkeypatch.setattr(config, "_current", None)
    assert main(["train", "job.toml"]) == 2
    assert capfd.readouterr().err.startswith("graphflow: error: GRAPHFLOW_NUM_THREADS='abc': it takes")
    assert not (place / "runs").exists()


def test_arguments_are_checked(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["fly"], ["train"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capfd.readouterr().out.startswith("graphflow ")


def test_inspect_tells_what_a_file_holds(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    layer = nn.Linear(3, 2)
    optimizer = gf.optim.SGD(layer.parameters(), lr=0.1)

    @gf.compile
    def step(x: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = layer(x).sum()
        loss.backward()
        optimizer.step()
        return loss.detach()

    step(gf.ones(4, 3))
    gf.export(step, place / "step.gfz")
    assert main(["inspect", "step.gfz"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("step.gfz: step, ") and lines[0].endswith("changes 2 of its states")
    assert "  takes x: float32[batch, 3]" in lines
    assert "  gives float32[]" in lines
    assert any(line.split() == ["weight", "float32", "2", "x", "3", "6", "yes"] for line in lines)
    assert any(line.split() == ["lr", "float64", "scalar", "1"] for line in lines)


def test_inspect_refuses_other_files(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "job.toml"]) == 2
    assert main(["inspect", "missing.gfz"]) == 2
    err = capfd.readouterr().err.splitlines()
    assert err[0].startswith("graphflow: error: job.toml: ")
    assert err[1] == "graphflow: error: missing.gfz: No such file or directory"
