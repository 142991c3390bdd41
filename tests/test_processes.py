"""What a second process finds: machine code from the first, or none where nothing may be kept."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

STEP = """
import numpy as np, graphflow as gf
import graphflow.nn.functional as F
from graphflow import nn, optim
from graphflow.runtime import cache
gf.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
optimizer = optim.SGD(model.parameters(), lr=0.1)

@gf.compile
def step(x, y):
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss

rng = np.random.default_rng(0)
losses = [step(rng.standard_normal((n, 6)).astype("f"), rng.integers(0, 3, n)).item() for n in (8, 3, 1)]
print(cache.compile_count(), losses)
"""


SMALL = """
import numpy as np, graphflow as gf
from graphflow.runtime import cache
f = gf.compile(lambda x: (x * 2).tanh().sum(1))
f(np.ones((2, 4)))
print(cache.compile_count(), f(np.ones((3, 4))).tolist())
"""


def run(tmp_path: Path, source: str, **environment: str) -> tuple[int, str]:
    """How many kernels a process compiled, and what it computed."""
    script = tmp_path / "script.py"
    script.write_text(source)
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GRAPHFLOW_")}
    out = subprocess.run(
        [sys.executable, str(script)], env={**kept, **environment}, capture_output=True, text=True, check=True
    )
    count, results = out.stdout.split(" ", 1)
    assert "Traceback" not in out.stderr
    return int(count), results


def test_the_second_process_compiles_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    count, losses = run(tmp_path, STEP, GRAPHFLOW_CACHE=str(folder))
    assert count > 0
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert run(tmp_path, STEP, GRAPHFLOW_CACHE=str(folder), GRAPHFLOW_NUM_THREADS="2") == (0, losses)


def test_numba_is_imported_only_to_compile(tmp_path: Path) -> None:
    told = STEP + "import sys; print('numba' in sys.modules, 'numba.core' in sys.modules)\n"
    first = run(tmp_path, told, GRAPHFLOW_CACHE=str(tmp_path / "cache"))[1]
    second = run(tmp_path, told, GRAPHFLOW_CACHE=str(tmp_path / "cache"))[1]
    assert first.endswith("True True\n") and second.endswith("False False\n")


def test_where_nothing_may_be_kept_every_process_compiles(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    places = ["off", "off", str(blocked / "below")]
    if os.geteuid() != 0:  # root may write anywhere
        readonly = tmp_path / "readonly"
        readonly.mkdir(mode=0o500)
        places.append(str(readonly))
    for place in places:
        count, results = run(tmp_path, SMALL, GRAPHFLOW_CACHE=place)
        assert count == 1
        assert results.startswith("[")
