"""What ``graphflow.profiler`` sees, and the roofline in ``explain()``. Nothing here asserts how fast anything
is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import ceilings, engine, nn, optim
from graphflow.explain import KernelReport


@pytest.fixture(autouse=True)
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ceilings, "LASTING", 10_000)
    monkeypatch.setattr(ceilings, "MOST", 1 << 20)
    yield
    ceilings._peak.cache_clear()
    ceilings._bandwidth.cache_clear()


def training() -> tuple[nn.Linear, gf.CompiledFunction]:
    gf.manual_seed(0)
    model = nn.Linear(6, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.5)

    @gf.compile
    def step(x: Any) -> Any:
        loss = (model(x) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return model, step


def test_a_profiled_step_computes_the_same() -> None:
    plain, step = training()
    watched, watched_step = training()
    x = gf.randn(8, 6)
    for _ in range(3):
        with gf.profiler.profile() as p:
            seen = watched_step(x)
        np.testing.assert_array_equal(seen.numpy(), step(x).numpy())
    np.testing.assert_array_equal(watched.weight.detach().numpy(), plain.weight.detach().numpy())
    assert all(k.count == 1 for k in p.key_averages())


def test_every_kernel_is_counted() -> None:
    _, step = training()
    x = gf.randn(8, 6)
    step(x)
    with gf.profiler.profile(activities=[gf.profiler.ProfilerActivity.CPU]) as p:
        for _ in range(4):
            step(x)
            p.step()
    assert not engine.observers
    step(x)  # not seen
    found = p.key_averages()
    reports = step.explain().kernels
    assert [k.key for k in found] == [f"step: {r.label}" for r in reports]
    assert all(k.count == 4 and k.cpu_time_total >= 0 for k in found)
    assert list(p) == found
    product = next(r for r in reports if "matmul" in r.ops)
    seen = next(k for k in found if k.key.endswith(product.label))
    assert seen.flops == 4 * gf.dims.evaluate(product.flops, {"batch": 8})
    text = found.table(sort_by="count", row_limit=1)
    assert text.count("\n") == 2 and "total" in text
    assert found.table(sort_by=None, row_limit=-1).count("\n") == len(found) + 1
    with pytest.raises(ValueError, match="sort_by is one of"):
        found.table(sort_by="colour")


def test_kernels_of_a_loop_run_more_than_once() -> None:
    @gf.compile
    def running(xs: Any) -> Any:
        return gf.scan(lambda c, x: (gf.tanh(c + x), c), gf.zeros(4), xs)

    xs = gf.randn(5, 4)
    running(xs)
    with gf.profiler.profile() as p:
        running(xs)
    found = p.key_averages()
    assert {k.count for k in found} >= {5}
    report, sizes = running.explain(), {"batch": 5}
    assert sum(k.flops for k in found) == gf.dims.evaluate(report.flops, sizes)  # type: ignore[arg-type]
    assert sum(k.bytes for k in found) == gf.dims.evaluate(report.bytes, sizes)  # type: ignore[arg-type]


def test_explain_tells_the_roofline_once_there_are_times() -> None:
    _, step = training()
    step(gf.randn(8, 6))
    assert not any(r.times for r in step.explain().kernels)
    with gf.profiler.profile():
        for rows in (8, 8, 3):
            step(gf.randn(rows, 6))

    def times(r: KernelReport) -> list[int]:
        return [t.sizes["batch"] for t in r.times]

    report = step.explain()
    assert all(times(r) == [8, 3] for r in report.kernels)
    for r in report.kernels:
        for t in r.times:
            assert t.roofline == t.ceilings.nanoseconds(t.flops, t.bytes) / max(t.nanoseconds, 1)
            assert t.flops == (
                gf.dims.evaluate(r.flops, t.sizes) if isinstance(r.flops, gf.dims.Dim) else r.flops
            )
    assert "of the roofline" in str(report)


def test_kernels_with_several_results_are_told() -> None:
    @gf.compile
    def attend(x: Any) -> Any:
        return nn.functional.scaled_dot_product_attention(x, x, x)

    x = gf.randn(1, 300, 8)
    attend(x)
    with gf.profiler.profile():
        attend(x)
    report = attend.explain()
    assert any(len(r.times) == 1 and "attention" in r.ops for r in report.kernels)
    assert "of the roofline" in str(report)


def test_an_error_inside_ends_the_observation() -> None:
    with pytest.raises(ZeroDivisionError), gf.profiler.profile():
        _ = 1 // 0
    assert not engine.observers


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(AttributeError, match="record_function"):
        _ = gf.profiler.record_function  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"ProfilerActivity\.CPU"):
        gf.profiler.profile(activities=["cuda"])  # type: ignore[list-item]


@pytest.mark.parametrize("itemsize", [4, 8])
@pytest.mark.parametrize("threads", [1, 2])
def test_ceilings(itemsize: int, threads: int) -> None:
    found = ceilings.ceilings(itemsize, 1 << 18, threads)
    assert found.flops > 0 and found.bytes > 0
    assert found.nanoseconds(1000, 0) == 1000 / found.flops
    assert found.nanoseconds(0, 1000) == 1000 / found.bytes
    assert ceilings.ceilings(itemsize, 1 << 18, threads) == found  # measured once
