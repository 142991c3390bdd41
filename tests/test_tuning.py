"""Measured blockings of the matrix core: what is kept, what isn't used, and that none shows in the bits."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from graphflow import cli, config, dtypes, tuning
from graphflow.compiler.codegen import llvm, matmul, matmul_blocking
from graphflow.compiler.codegen.matmul import Blocking, Word
from graphflow.dims import evaluate
from graphflow.runtime import cache

KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
TARGETS = {
    "host": llvm.host(),
    "avx2": llvm.Target(llvm.host().triple, "haswell", "", 256),
    "generic": llvm.Target(llvm.host().triple, "x86-64", "", 128),
}
BOTH = {str(dtype) for dtype in tuning.DTYPES}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache directory of one's own."""
    monkeypatch.setenv("GRAPHFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GRAPHFLOW_TUNE", raising=False)
    cache.reset()
    tuning.forget()
    yield tmp_path / "cache"
    monkeypatch.undo()
    cache.reset()
    for dtype in tuning.DTYPES:
        matmul_blocking.choose(dtype.itemsize, llvm.host(), None)
    tuning.forget()


def other(dtype: dtypes.DType) -> str:
    """A candidate that isn't the rule's."""
    return list(matmul_blocking.candidates(dtype.itemsize, llvm.host()))[-1]


def product(dtype: dtypes.DType, plan: Blocking, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``a @ b`` by a core of its own."""
    symbol, code = matmul.object_code(dtype, plan=plan)
    loaded = llvm.Loaded(code)
    results = []
    for x, y in ((a, b), (a[:3], b), (np.asfortranarray(a), np.asfortranarray(b))):
        (m, k), n = x.shape, y.shape[1]
        c = np.zeros((m, n), dtype.numpy)
        words = np.zeros(Word.BATCH, np.int64)
        words[: Word.A_ROW] = x.ctypes.data, y.ctypes.data, c.ctypes.data, m, n, k
        words[Word.A_ROW : Word.PACK_A] = [s // dtype.itemsize for z in (x, y, c) for s in z.strides]
        size = evaluate(matmul.scratch_bytes(dtype, words.tolist(), plan=plan), {})
        scratch = np.zeros(size + 64, np.uint8)
        extent = evaluate(matmul.units(dtype, m, n, plan=plan), {})
        aligned = -(-scratch.ctypes.data // 64) * 64
        KERNEL(loaded.address(symbol))(words.ctypes.data, 0, extent, aligned)
        results.append(c)
    assert (results[0] == results[2]).all() and (results[0][:3] == results[1]).all()
    return results[0]


def test_candidates_give_the_same_bits() -> None:
    random = np.random.default_rng(0)
    dtype = dtypes.float32
    a, b = (random.standard_normal(shape).astype(dtype.numpy) for shape in ((83, 1100), (1100, 411)))
    plans = matmul_blocking.candidates(dtype.itemsize, llvm.host())
    results = [product(dtype, plan, a, b) for plan in plans.values()]
    assert np.allclose(results[0], a.astype(float) @ b, rtol=1e-4, atol=1e-3)
    for name, result in zip(plans, results, strict=True):
        assert (result == results[0]).all(), name


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", tuning.DTYPES, ids=str)
def test_candidates_differ_in_nothing_that_shows(target: str, dtype: dtypes.DType) -> None:
    plans = matmul_blocking.candidates(dtype.itemsize, TARGETS[target])
    first = next(iter(plans.values()))
    assert len(plans) == len(set(plans.values())) > 1
    assert matmul_blocking.by_rule(dtype.itemsize, TARGETS[target]) == first
    for plan in plans.values():
        assert plan.depth * dtype.itemsize == matmul.DEPTH * 4
        assert (plan.lanes, plan.masks) == (first.lanes, first.masks)
        assert plan.unit_rows % plan.rows == 0 and plan.columns % plan.unit_columns == 0


def test_kept_and_applied(place: Path) -> None:
    assert tuning.kept() is None
    names = {str(dtype): other(dtype) for dtype in tuning.DTYPES}
    before = matmul.symbol(dtypes.float32)
    tuning.keep(names)
    assert len(list(place.iterdir())) == 1
    cache.reset()
    assert tuning.kept() == names
    tuning.apply()
    for dtype in tuning.DTYPES:
        chosen = matmul_blocking.candidates(dtype.itemsize, llvm.host())[names[str(dtype)]]
        assert matmul_blocking.blocking(dtype.itemsize, llvm.host()) == chosen
    assert matmul.symbol(dtypes.float32) != before


def test_switched_off(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning.keep({str(dtype): other(dtype) for dtype in tuning.DTYPES})
    monkeypatch.setenv("GRAPHFLOW_TUNE", "off")
    cache.reset()
    tuning.apply()
    for dtype in tuning.DTYPES:
        rule = matmul_blocking.by_rule(dtype.itemsize, llvm.host())
        assert matmul_blocking.blocking(dtype.itemsize, llvm.host()) == rule
    monkeypatch.setenv("GRAPHFLOW_TUNE", "perhaps")
    with pytest.raises(config.ConfigError, match="GRAPHFLOW_TUNE='perhaps'"):
        config.reload()


@pytest.mark.parametrize("damage", ["cut", "other bytes", "other name", "other keys"])
def test_what_cant_be_used_isnt(place: Path, damage: str) -> None:
    tuning.keep({str(dtype): other(dtype) for dtype in tuning.DTYPES})
    (file,) = place.iterdir()
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-5])
    elif damage == "other bytes":
        file.write_bytes(content.replace(b"float32", b"float23"))
    elif damage == "other name":
        tuning.keep(dict.fromkeys(BOTH, "9x9"))
    else:
        tuning.keep({"float32": other(dtypes.float32)})
    cache.reset()
    assert tuning.kept() is None
    tuning.apply()
    rule = matmul_blocking.by_rule(4, llvm.host())
    assert matmul_blocking.blocking(4, llvm.host()) == rule


def test_nowhere_to_keep_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHFLOW_CACHE", "off")
    cache.reset()
    with pytest.raises(tuning.TuneError, match="GRAPHFLOW_CACHE=off"):
        tuning.keep({str(dtype): other(dtype) for dtype in tuning.DTYPES})


def test_no_time_to_measure() -> None:
    measured = tuning.measure(dtypes.float32, seconds=0)
    rule = next(iter(matmul_blocking.candidates(4, llvm.host())))
    assert measured == tuning.Measured(rule, {}, complete=False)


def test_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = dict(list(matmul_blocking.candidates(4, llvm.host()).items())[:2])
    monkeypatch.setattr(matmul_blocking, "candidates", lambda itemsize, target: plans)
    monkeypatch.setattr(tuning, "PRODUCTS", ((40, 50, 60, "nt"), (40, 50, 60, "tn")))
    measured = tuning.measure(dtypes.float32)
    assert measured.complete and set(measured.speeds) == set(plans)
    assert measured.speeds[next(iter(plans))] == 1 and measured.name in plans


def test_command(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []

    def measure(dtype: dtypes.DType) -> tuning.Measured:
        asked.append(str(dtype))
        return tuning.Measured(other(dtype), {other(dtype): 1.25}, complete=True)

    monkeypatch.setattr(tuning, "measure", measure)
    assert cli.main(["tune"]) == 0
    assert set(asked) == BOTH and "1.250" in capsys.readouterr().out
    assert tuning.kept() == {str(dtype): other(dtype) for dtype in tuning.DTYPES}
    assert cli.main(["tune"]) == 0
    assert len(asked) == 2 and "measured before" in capsys.readouterr().out
    assert cli.main(["tune", "--again"]) == 0
    assert len(asked) == 4
    monkeypatch.setattr(tuning, "measure", lambda dtype: tuning.Measured("", {}, complete=False))
    assert cli.main(["tune", "--again"]) == 2
    assert "time was up" in capsys.readouterr().err
