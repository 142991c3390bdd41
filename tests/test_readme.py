"""The README and other documents: their code runs, what they say of settings, files and commands is so."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphflow import config
from graphflow.compiler.ir import OPS, Graph, TensorType, input_node
from graphflow.compiler.ops import elementwise
from graphflow.dtypes import float64
from graphflow.engine import compile_graph
from graphflow.runtime import cache

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [
    "README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/coverage.md", "docs/performance.md",
    "docs/vecmath.md",
]  # fmt: skip


def blocks(name: str, language: str) -> list[tuple[int, str]]:
    """The document's code in that language, each block with the number of lines before it."""
    text = (ROOT / name).read_text(encoding="utf-8")
    found = re.finditer(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return [(text[: m.start(1)].count("\n"), m.group(1)) for m in found]


def run_blocks(name: str, space: dict[str, Any]) -> None:
    """Runs the document's Python blocks one after another, with the names that are in `space`."""
    for line, code in blocks(name, "python"):
        exec(compile("\n" * line + code, str(ROOT / name), "exec"), space)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that all Python blocks leave behind, run one after another, and what they printed."""
    found: dict[str, Any] = {"__name__": "readme"}
    folder, out = tmp_path_factory.mktemp("readme"), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out):
        run_blocks("README.md", found)
    found["printed"] = out.getvalue()
    return found


def test_one_program_takes_every_batch_size(space: dict[str, Any]) -> None:
    assert len(space["train_step"].variants) == 1
    told = re.search(r"print\(train_step\.variants\)\n# (.*)", README)
    assert told is not None
    assert told.group(1) in space["printed"]


def test_a_new_batch_size_compiles_nothing(space: dict[str, Any]) -> None:
    gf, before = space["gf"], cache.status().compiled
    for size in (2, 33):
        space["train_step"](gf.randn(size, 64), gf.randint(0, 10, (size,)))
    assert cache.status().compiled == before
    assert len(space["train_step"].variants) == 1


def test_the_file_goes_on_training(space: dict[str, Any]) -> None:
    pairs = re.findall(r"^tensor\((\S+)\) tensor\((\S+)\)$", space["printed"], re.MULTILINE)
    assert len(pairs) == 1
    assert pairs[0][0] == pairs[0][1]
    names = re.search(r"list\(step\.states\)\[:4\]\)  # (.*)", README)
    assert names is not None
    assert str(list(space["step"].states)[:4]) == names.group(1)
    x, y = space["x"], space["y"]
    first, later = space["step"](x, y).item(), [space["step"](x, y).item() for _ in range(10)][-1]
    assert later < first


def test_second_derivative(space: dict[str, Any]) -> None:
    told = re.search(r"print\(curvature\(.*\)\)  # (.*)", README)
    assert told is not None
    assert told.group(1) in space["printed"]


def test_every_kernel_names_lines_of_the_readme(space: dict[str, Any]) -> None:
    lines = [line for kernel in space["report"].kernels for line in kernel.lines]
    assert lines
    assert all("README.md:" in line for line in lines)


def test_graph_that_was_traced_can_be_called(space: dict[str, Any]) -> None:
    gf = space["gf"]
    total = space["softmax"](gf.randn(4, 10)).sum(1)
    assert gf.allclose(total, gf.ones(4))


def test_settings_are_all_there() -> None:
    source = Path(config.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r"`(GRAPHFLOW_\w+)`", README)) == set(re.findall(r"GRAPHFLOW_\w+", source))


def test_continuous_integration_runs_the_line_for_tests() -> None:
    (line,) = re.findall(r"^pip install .*&& pytest.*$", README, re.MULTILINE)
    assert f'"{line}"' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    document = ROOT / name
    for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), target


def test_the_op_of_the_guide_is_a_whole_op() -> None:
    assert "softplus" not in OPS
    try:
        run_blocks("CONTRIBUTING.md", dict(vars(elementwise)))
        x = input_node("x", TensorType(float64, (3,)))
        engine = compile_graph(Graph("guide", (x,), (), (OPS["softplus"](x),)))
    finally:
        OPS.pop("softplus", None)
    values = np.array([-800.0, 0.5, 800.0])
    np.testing.assert_allclose(engine.run([values])[0][0], np.logaddexp(0, values), rtol=1e-14)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_code_in_documents_runs(name: str) -> None:
    """Those two have tests of their own; elsewhere Python code has to run by itself."""
    if name not in ("README.md", "CONTRIBUTING.md"):
        run_blocks(name, {"__name__": "document"})
    commands = " ".join(code for _, code in blocks(name, "sh"))
    for file in re.findall(r"(?<!\S)[\w/]+\.(?:py|toml)\b", commands):
        assert (ROOT / file).exists(), file


def test_the_map_of_the_architecture_leads_through_the_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    places = {place for row in rows for place in re.findall(r"`([\w/]+(?:/|\.py))`", row)}
    for place in places:
        assert (ROOT / "graphflow" / place).exists(), place
    packages = {f"{init.parent.name}/" for init in (ROOT / "graphflow").glob("*/__init__.py")}
    assert packages <= places, packages - places
