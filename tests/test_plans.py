"""Plans in the cache: what they are found by, what is in them, and whom to believe."""

from __future__ import annotations

import ast
import itertools
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import graphflow
import numpy as np
import pytest
from graphflow import compiler, plans
from graphflow.checking import CheckedEngine
from graphflow.compiler import ir, pipeline
from graphflow.compiler.codegen import llvm, matmul_blocking
from graphflow.compiler.ir import OPS, Graph, TensorType, input_node
from graphflow.compiler.location import Asked, Loc
from graphflow.compiler.ops.control import items, scan
from graphflow.compiler.plan import Plan, decode_plan, encode_plan, plan_of, without_sources
from graphflow.dims import Dim
from graphflow.dtypes import float32, float64, int64
from graphflow.engine import Engine
from graphflow.errors import FormatError, GraphflowError, VerifyError
from graphflow.runtime import cache
from graphflow.runtime.cache import Cache
from graphflow.runtime.validate import validate

import models
from random_graphs import random_case
from workloads import WORKLOADS, graph_of

N = Dim.symbol("n")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """An empty cache on disk, and plans in use as they are outside tests."""
    made = Cache(tmp_path / "cache")
    monkeypatch.setattr(cache, "_default", made)
    monkeypatch.setattr(pipeline, "always_verify", False)
    return made


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """The graphs that went through the passes."""
    seen: list[Graph] = []
    real = pipeline.compile_graph

    def counted(graph: Graph, *rest: Any) -> Any:
        seen.append(graph)
        return real(graph, *rest)

    monkeypatch.setattr(pipeline, "compile_graph", counted)
    return seen


def small(
    value: float = 0.5,
    size: Any = 6,
    dtype: Any = float32,
    op: str = "tanh",
    dim: int = 1,
    name: str = "x",
    state: str = "w",
    lines: tuple[int, int] = (3, 4),
) -> Graph:
    """One kernel over an argument and a state that is updated."""
    x = input_node(name, TensorType(dtype, (N, size)))
    w = input_node(state, TensorType(dtype, (size,)))
    with ir.at(Loc("model.py", lines[0], "f")):
        scaled = OPS[op](x) * value
    with ir.at(Loc("model.py", lines[1], "f")):
        total = OPS["sum"](scaled, dims=(dim,))
        half = OPS["div"](w, 2.0)
    return Graph("g", (x,), (w,), (total,), ((0, half),))


def lookup(index_line: int = 7) -> Graph:
    """An index that kernels look at, in a loop, and a slice that needs a look at the sizes."""
    table = input_node("table", TensorType(float32, (5,)))
    rows = input_node("rows", TensorType(int64, (3, 2)))
    carry, row, whole = (
        input_node("c", TensorType(float32, (2,))),
        input_node("r", TensorType(int64, (2,))),
        input_node("t", TensorType(float32, (5,))),
    )
    with ir.at(Loc("model.py", index_line, "f", Asked("take", True))):
        picked = OPS["gather"](whole, row, dim=0)
    body = Graph("b", (carry, row, whole), (), (carry + picked,))
    start = input_node("start", TensorType(float32, (2,)))
    loop = scan(start, rows, table, body=body, carries=1, sequences=1, length=3, reverse=False)
    long = input_node("long", TensorType(float32, (N,)))
    with ir.at(Loc("model.py", index_line + 1, "f")):
        part = OPS["slice"](long, starts=(5,), steps=(1,), sizes=(3,))
    return Graph("g", (start, rows, table, long), (), (items(loop)[0], OPS["exp"](part)))


def arrays_of(graph: Graph, n: int = 9) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    shapes = [tuple(n if isinstance(s, Dim) else s for s in node.shape) for node in graph.inputs]
    kinds = [node.dtype.numpy for node in graph.inputs]
    return [
        rng.uniform(-1, 1, s).astype(k) if k.kind == "f" else rng.integers(0, 2, s).astype(k)
        for s, k in zip(shapes, kinds, strict=True)
    ]


def bits(engine: Engine, arrays: list[np.ndarray]) -> list[bytes]:
    return [a.tobytes() for part in engine.run(arrays) for a in part]


def place(graph: Graph, join: bool = True) -> plans.Place:
    found = plans.place(graph, join)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("make", "join"),
    [(small, True), (small, False), (lookup, True), (models.softmax_regression, True)],
)
def test_the_second_runs_no_pass(
    make: Callable[[], Graph], join: bool, store: Cache, passes: list[Graph]
) -> None:
    first = Engine(make(), join)
    arrays = arrays_of(first.graph)
    compiled = store.status().compiled
    again = Engine(make(), join)
    assert len(passes) == 1 and store.status().compiled == compiled
    assert bits(again, arrays) == bits(first, arrays)
    assert again.executor.program == without_sources(first.executor.program)
    # whoever wants the stages has them, of the graph's own nodes, and nothing is compiled for that
    assert again.compiled.program == first.executor.program and again.compiled.graph is again.graph
    assert again.compiled is again.compiled and len(passes) == 2 and store.status().compiled == compiled


@pytest.mark.parametrize("name", WORKLOADS)
def test_plans_of_the_workloads_read_back(name: str, monkeypatch: pytest.MonkeyPatch, store: Cache) -> None:
    read_back(lambda: graph_of(name, monkeypatch))


@pytest.mark.parametrize("seed", range(60))
def test_plans_of_random_graphs_read_back(seed: int, store: Cache) -> None:
    read_back(lambda: random_case(random.Random(seed)).graph)


def read_back(make: Callable[[], Graph]) -> None:
    """Encodes the plan of a graph, without machine code, and compares what is decoded with it."""
    graph = make()
    found = place(graph)
    compiled = pipeline.compile_graph(graph, lambda jobs: [(b"", {}) for _ in jobs])
    plan = plan_of(compiled)
    data = json.loads(json.dumps(encode_plan(plan, found.lines)))
    again = decode_plan(data, found.lines, lambda digest, symbol: b"")
    assert again == Plan(without_sources(plan.program), plan.checks, plan.bounds)
    assert [c.loc.asked for c in again.checks if c.loc] == [c.loc.asked for c in plan.checks if c.loc]
    validate(again.program)
    plans.check_signature(again, graph)
    assert place(make()).digest == found.digest  # whatever was made in between


# ---------------------------------------------------------------------------------------------- digests


def test_whatever_matters_has_another_digest(store: Cache) -> None:
    graphs = [
        small(), small(0.25), small(0.0), small(-0.0), small(size=7), small(size=N), small(dtype=float64),
        small(op="sin"), small(dim=0), small(name="y"), small(state="v"), small(lines=(3, 3)), lookup(),
    ]  # fmt: skip
    graph = small()
    graphs += [
        Graph("h", graph.args, graph.states, graph.outputs, graph.updates),
        Graph("g", graph.args, graph.states, graph.outputs * 2, graph.updates),
        Graph("g", graph.args, graph.states, graph.outputs),
        Graph("g", graph.inputs, (), graph.roots),
    ]
    digests = [place(g, join).digest for g in graphs for join in (True, False)]
    assert len(set(digests)) == len(digests)
    assert place(small()).digest == place(small(lines=(30, 34))).digest == digests[0]


def test_how_products_are_cut_matters(store: Cache) -> None:
    name, other = list(matmul_blocking.candidates(4, llvm.host()))[:2]
    found = set()
    for chosen in (name, other):
        try:
            matmul_blocking.choose(4, llvm.host(), chosen)
            found.add(place(small()).digest)
        finally:
            matmul_blocking.choose(4, llvm.host(), None)
    assert len(found) == 2


def test_versions_processor_and_the_compiler_matter(store: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    real = plans.pkgutil.get_data
    changes: tuple[tuple[Any, str, Any], ...] = (
        (plans.np, "__version__", "0.1"),
        (plans.function, "versions", lambda: ("another Python", "Numba, LLVM or processor")),
        (plans.pkgutil, "get_data", lambda p, f: real(p, f) + (b"#" if f == "fuse.py" else b"")),
        (plans.pkgutil, "get_data", lambda p, f: real(p, f) + (b"#" if f == "program.py" else b"")),
    )
    found = {place(small()).digest}
    try:
        for change in changes:
            with monkeypatch.context() as patch:
                patch.setattr(*change)
                plans._maker.cache_clear()
                found.add(place(small()).digest)
    finally:
        plans._maker.cache_clear()
    assert len(found) == 5


def test_all_that_the_compiler_imports_is_in_the_digest() -> None:
    covered = {f"{package.__name__}.{name}" for package, name in (*plans._modules(), *plans.BESIDE)}
    used: set[str] = set()
    files = list(Path(compiler.__path__[0]).rglob("*.py"))
    assert len(files) > 80
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                used.add(node.module)
                used.update(f"{node.module}.{alias.name}" for alias in node.names)
    modules = {name for name in used if name.startswith("graphflow.") and is_module(name)}
    assert "graphflow.dims" in modules and modules <= covered


def is_module(name: str) -> bool:
    path = Path(graphflow.__path__[0]).parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists()


def test_ops_of_this_process_alone_have_no_plan(store: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ir.replace(OPS["tanh"])
    x = input_node("x", TensorType(float32, (3,)))
    graph = Graph("g", (x,), (), (ir.make_node(own, (x,), {}),))
    assert plans.place(graph, True) is None
    monkeypatch.setitem(OPS, "tanh", own)
    assert plans.place(graph, True) is None
    body = Graph("b", (x,), (), (OPS["exp"](OPS["tanh"](x)),))
    loop = scan(x, body=body, carries=1, sequences=0, length=2, reverse=False)
    assert plans.place(Graph("g", (x,), (), tuple(items(loop))), True) is None


def test_debugging_and_checking_run_the_passes(
    store: Cache, passes: list[Graph], monkeypatch: pytest.MonkeyPatch
) -> None:
    Engine(small())
    CheckedEngine(small(), True, False)
    assert len(passes) == 2
    monkeypatch.setattr(plans, "settings", lambda: type("Settings", (), {"debug": 1}))
    Engine(small())
    assert len(passes) == 3


# ---------------------------------------------------------------------------------------------- damage


def leaves(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in data with every key in it."""
    stack = [data]
    while stack:
        container = stack.pop()
        for key in list(container) if isinstance(container, dict) else range(len(container)):
            yield container, key
            if isinstance(container[key], (list, dict)):
                stack.append(container[key])


@pytest.mark.parametrize("make", [small, lookup], ids=lambda m: m.__name__)
def test_no_altered_plan_does_more_than_not_to_count(make: Callable[[], Graph], store: Cache) -> None:
    graph = make()
    Engine(graph)
    where = place(graph)
    (_, metadata) = store.get(where.digest) or (b"", {})
    data = metadata["plan"]
    read = 0
    for (container, key), wrong in itertools.product(
        leaves(data), (None, True, -1, 2**70, 1.5, "n/", "", [], {}, [[]], {"function": 99}, {"block": 1})
    ):
        kept, container[key] = container[key], wrong
        try:
            plan = decode_plan(data, where.lines, plans._code)
            validate(plan.program)
            plans.check_signature(plan, graph)
            read += 1
        except (FormatError, VerifyError):
            pass
        container[key] = kept
    assert read  # a name or an estimate may be anything
    for key in data:
        store.put(where.digest, b"", {"plan": {k: v for k, v in data.items() if k != key}})
        assert where.find() is None
    for other in ({}, {"plan": []}, {"plan": 3}, {"blocking": {}}):
        store.put(where.digest, b"", other)
        assert where.find() is None


def test_damaged_files_and_those_of_others_are_made_anew(store: Cache, passes: list[Graph]) -> None:
    graph = small()
    arrays = arrays_of(graph)
    expected = bits(Engine(graph), arrays)
    where = place(graph)
    file = store.status().directory / f"{where.digest}.gfc"  # type: ignore[operator]
    good = file.read_bytes()
    other = place(small(size=8))
    Engine(other.graph)
    runs = 2
    foreign = (file.parent / f"{other.digest}.gfc").read_bytes()
    for content in (b"", good[:-1], good[:100], good[:200] + b"#" + good[201:], b"x" * 500, foreign):
        file.write_bytes(content)
        assert bits(Engine(small()), arrays) == expected
        runs += 1
        assert len(passes) == runs and file.read_bytes() == good
    file.unlink()
    file.mkdir()
    assert bits(Engine(small()), arrays) == expected


def test_a_plan_without_its_machine_code_is_made_anew(store: Cache, passes: list[Graph]) -> None:
    first = Engine(small())
    arrays = arrays_of(first.graph)
    for kernel in first.executor.program.kernels:
        (store.status().directory / f"{kernel.digest}.gfc").unlink()  # type: ignore[operator]
        assert bits(Engine(small()), arrays) == bits(first, arrays)
    assert len(passes) == 1 + len(first.executor.program.kernels)


@pytest.mark.parametrize("directory", [None, "unwritable"])
def test_without_a_directory_plans_stay_in_memory(
    directory: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Cache, passes: list[Graph]
) -> None:
    if directory is not None:

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(cache.tempfile, "mkstemp", refuse)
    monkeypatch.setattr(cache, "_default", Cache(directory and tmp_path / directory))
    first, again = Engine(small()), Engine(small())
    assert len(passes) == 1
    assert bits(first, arrays_of(first.graph)) == bits(again, arrays_of(first.graph))


# ---------------------------------------------------------------------------------------------- lines


def test_lines_are_those_of_this_trace(store: Cache, passes: list[Graph]) -> None:
    Engine(lookup(7))
    again = Engine(lookup(70))
    assert len(passes) == 1
    start, rows, table, long = arrays_of(again.graph)
    with pytest.raises(IndexError, match=r"take: index 5 is out of range for a dimension of size 5") as bad:
        again.call([start, rows + 5, table, long], ())
    assert "model.py:70 in f" in str(bad.value)
    with pytest.raises(GraphflowError, match="slice: 3 elements from 5 to 7") as bounds:
        again.call([start, rows, table, long[:6]], ())
    assert "model.py:71 in f" in str(bounds.value)
    assert bits(again, [start, rows, table, long])


# ---------------------------------------------------------------------------------------------- processes

PROGRAM = """
import sys
import numpy as np
import graphflow as gf
from graphflow import nn, optim
from graphflow.compiler import pipeline
from graphflow.runtime import cache

real, runs = pipeline.compile_graph, []

def counted(*args):
    runs.append(args)
    return real(*args)

pipeline.compile_graph = counted
gf.manual_seed(0)
model = nn.Embedding(7, 6)
optimizer = optim.SGD(model.parameters(), lr=0.1)

@gf.compile
def step(x, y):
    loss = (model(x) - y).tanh().square().sum()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss

x, y = gf.randint(0, 7, (5,)), gf.randn(5, 6)
for n in (5, 3, 5):
    loss = step(x[:n], y[:n])
words = [float(loss).hex(), *(p.detach().numpy().tobytes().hex() for p in model.parameters())]
count, compiled = len(runs), cache.compile_count()
try:
    step(x + 7, y)
except IndexError as error:
    message = str(error)
text = str(step.explain())
assert cache.compile_count() == compiled
print(count, compiled, "".join(words), message.split(" at ")[-1], sep="\\n")
print([line for line in text.splitlines() if "from " in line and " flops;" in line])
"""


def run(script: Path, directory: str | Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "GRAPHFLOW_CACHE": str(directory), "PYTHONHASHSEED": "random"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=pipe, stderr=pipe, text=True
    )


def told(process: subprocess.Popen[str]) -> list[str]:
    out, errors = process.communicate()
    assert process.returncode == 0, errors
    return out.splitlines()


def test_processes_share_plans(tmp_path: Path) -> None:
    script, moved = tmp_path / "program.py", tmp_path / "moved.py"
    script.write_text(PROGRAM)
    moved.write_text("# a line\n# and another\n" + PROGRAM)
    both = [run(script, tmp_path / "cache") for _ in range(2)]
    first, second = (told(process) for process in both)
    third, fourth = told(run(script, tmp_path / "cache")), told(run(moved, tmp_path / "cache"))
    assert third[:2] == fourth[:2] == ["0", "0"]
    assert first[2] == second[2] == third[2] == fourth[2]
    assert first[3:] == second[3:] == third[3:] and "program.py:22" in third[3]
    assert "moved.py:24" in fourth[3] and "moved.py:24" in fourth[-1]
    assert not [name for name in os.listdir(tmp_path / "cache") if not name.endswith(".gfc")]
