"""Random tensors: bits of the counters, streams, and what distributions look like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
import scipy.stats
from graphflow import sampling
from graphflow.compiler.ops.random import philox

from lives import traced


def words(seed: int, first: int, count: int) -> list[np.ndarray]:
    return [w.astype(np.int64) for w in philox(seed, np.arange(first, first + count))]


def test_uniform_numbers_are_the_bits_of_the_counters() -> None:
    gf.manual_seed(11)
    w = words(11, 0, 6)
    np.testing.assert_array_equal(
        gf.rand(2, 3).numpy().reshape(-1), ((w[0] >> 8) * 2.0**-24).astype(np.float32)
    )
    w = words(11, 6, 4)
    fraction = ((w[0] >> 5) * 2.0**26 + (w[1] >> 6)) * 2.0**-53
    np.testing.assert_array_equal(gf.rand(4, dtype=gf.float64).numpy(), fraction)


def test_normal_numbers_are_box_mullers() -> None:
    gf.manual_seed(5)
    w = words(5, 0, 1000)
    radius = np.sqrt(-2 * np.log((w[0] + 1) * 2.0**-32))
    quarter = (((w[1] & (2**31 - 1)) >> 7) + 1) * 2.0**-24
    wanted = np.where(w[1] < 2**31, 1, -1) * radius * np.sin(np.pi / 2 * quarter)
    np.testing.assert_allclose(gf.randn(1000).numpy(), wanted, rtol=1e-6, atol=1e-6)
    w = words(5, 1000, 1000)
    radius = np.sqrt(-2 * np.log(((w[0] >> 5) * 2.0**26 + (w[1] >> 6) + 1) * 2.0**-53))
    quarter = (((w[2] & (2**31 - 1)) >> 5) * 2.0**26 + (w[3] >> 6) + 1) * 2.0**-52
    wanted = np.where(w[2] < 2**31, 1, -1) * radius * np.sin(np.pi / 2 * quarter)
    found = gf.randn(1000, dtype=gf.float64).numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-13, atol=1e-13)


def test_a_draw_doesnt_depend_on_how_it_is_cut() -> None:
    for draw in (gf.rand, gf.randn):
        gf.manual_seed(3)
        whole = draw(7).tolist()
        gf.manual_seed(3)
        assert draw(3).tolist() + draw(2, 2).reshape(-1).tolist() == whole


def test_seeds_and_states_start_streams() -> None:
    gf.manual_seed(1)
    a = gf.rand(3)
    state = gf.get_rng_state()
    b = gf.rand(3)
    gf.set_rng_state(state)
    assert gf.equal(gf.rand(3), b) and not gf.equal(a, b)
    gf.manual_seed(2)
    assert not gf.equal(gf.rand(3), a)
    gf.manual_seed(-1)
    assert gf.initial_seed() == 2**64 - 1
    with pytest.raises(ValueError, match="to 2\\*\\*64 - 1"):
        gf.manual_seed(2**64)
    for wrong in ("a", 1.5, True):
        with pytest.raises(gf.errors.DTypeError, match="'seed' must be an integer"):
            gf.manual_seed(wrong)
    gf.manual_seed(1)
    with gf.random.fork_rng():
        gf.rand(7)
    assert gf.equal(gf.rand(3), a)
    assert gf.seed() == gf.initial_seed()


def test_generators_have_streams_of_their_own() -> None:
    one, two = gf.Generator().manual_seed(9), gf.Generator().manual_seed(9)
    gf.manual_seed(0)
    before = gf.get_rng_state().tolist()
    assert gf.equal(gf.rand(4, generator=one), gf.rand(4, generator=two))
    assert gf.equal(gf.randn(4, generator=one), gf.randn(4, generator=two))
    assert gf.get_rng_state().tolist() == before
    two.set_state(one.get_state())
    assert gf.equal(gf.randperm(5, generator=one), gf.randperm(5, generator=two))
    three = one.clone_state()
    assert gf.equal(gf.rand(2, generator=one), gf.rand(2, generator=three)) and three.device.type == "cpu"
    with pytest.raises(TypeError, match=r"int64\[2\]"):
        one.set_state(gf.zeros(3))


def test_distributions_look_right() -> None:
    gf.manual_seed(0)
    n = 100_000
    uniform, normal = gf.rand(n).numpy(), gf.randn(n, dtype=gf.float64).numpy()
    assert uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 5e-3 and abs(uniform.var() - 1 / 12) < 2e-3
    assert abs(normal.mean()) < 1e-2 and abs(normal.var() - 1) < 2e-2
    assert abs((normal**4).mean() - 3) < 0.1
    counts = np.bincount(gf.randint(7, (n,)).numpy(), minlength=7)
    assert counts.size == 7 and np.abs(counts / n - 1 / 7).max() < 5e-3
    assert abs(gf.bernoulli(gf.full((n,), 0.3)).mean().item() - 0.3) < 5e-3
    assert sorted(gf.randperm(50).tolist()) == list(range(50))
    shifted = gf.normal(2.0, 3.0, (n,)).numpy()
    assert abs(shifted.mean() - 2) < 5e-2 and abs(shifted.std() - 3) < 5e-2


def test_integers_stay_in_their_range() -> None:
    low, high = -(2**40), 2**41
    x = gf.randint(low, high, (1000,)).numpy()
    assert low <= x.min() < 0 < x.max() < high
    assert gf.randint(3, 4, (5,)).tolist() == [3] * 5
    assert gf.randint(0, 255, (4,), dtype=gf.uint8).dtype is gf.uint8
    assert gf.randint_like(gf.zeros(2, 3), 5).dtype is gf.float32
    for low, high in ((-(2**63), 2**63 - 1), (0, 2**63), (-(2**63), 5), (-(2**62), 2**62 + 2**61)):
        gf.manual_seed(7)
        wide = gf.randint(low, high, (4000,))
        parts = np.floor((wide.numpy().astype(object) - low) / (high - low) * 4).astype(int)
        assert low <= wide.min().item() and wide.max().item() < high and set(parts) == {0, 1, 2, 3}
        gf.manual_seed(7)
        assert gf.equal(gf.compile(gf.randint)(low, high, (4000,)), wide)
    with pytest.raises(TypeError, match="'high' must be an integer"):
        gf.randint(0, 2.5, (2,))
    for bad in (lambda: gf.randint(3, 3, (2,)), lambda: gf.randint(3)):
        with pytest.raises(gf.errors.ShapeError):
            bad()
    with pytest.raises(gf.errors.DTypeError, match="floating point"):
        gf.rand(3, dtype=gf.int64)


def test_half_precision_fills_stay_below_the_end() -> None:
    for dtype in (gf.float16, gf.bfloat16):
        x = gf.empty(20_000, dtype=dtype).uniform_(0, 1)
        assert x.min().item() >= 0 and x.max().item() < 1


def test_integers_up_to_what_fits() -> None:
    assert gf.zeros(300, dtype=gf.uint8).random_(250, None).unique().tolist() == [*range(250, 256)]
    assert gf.zeros(9, dtype=gf.int64).random_(2**62, None).min().item() >= 2**62
    with pytest.raises(ValueError, match="low < high"):
        gf.zeros(3).random_(0)


def test_tensors_are_filled_in_place() -> None:
    gf.manual_seed(4)
    x = gf.empty(1000)
    assert x.uniform_(-2, 3) is x and -2 <= x.min().item() < -1.9 and 2.9 < x.max().item() < 3
    assert abs(x.normal_(5, 0.1).mean().item() - 5) < 0.02
    assert set(x.bernoulli_(0.5).tolist()) == {0.0, 1.0}
    assert set(gf.empty(100, dtype=gf.int64).random_(3).tolist()) == {0, 1, 2}
    leaf = gf.empty(3, requires_grad=True)
    with pytest.raises(gf.errors.GradientError, match="no_grad"):
        leaf.uniform_()
    with gf.no_grad():
        leaf.uniform_()


def test_a_traced_draw_is_the_eager_one_and_moves_the_generator() -> None:
    generator = gf.Generator().manual_seed(6)
    eager = [gf.rand(2, 3, generator=generator).numpy(), gf.randn(4, generator=generator).numpy()]
    generator.manual_seed(6)
    got = traced(
        lambda: (gf.rand(2, 3, generator=generator), gf.randn(4, generator=generator), generator.state)
    )
    np.testing.assert_array_equal(got[0], eager[0])
    np.testing.assert_array_equal(got[1], eager[1])
    assert got[2].tolist() == [6, 10]
    assert generator.get_state().tolist() == [6, 0]  # tracing drew nothing


def test_a_compiled_function_draws_anew_at_every_call() -> None:
    @gf.compile
    def noisy(x: gf.Tensor) -> gf.Tensor:
        return x + gf.rand_like(x)

    gf.manual_seed(8)
    x = gf.zeros(5)
    first, second = noisy(x), noisy(x)
    gf.manual_seed(8)
    assert gf.equal(first, gf.rand(5)) and gf.equal(second, gf.rand(5))
    gf.manual_seed(8)
    assert gf.equal(noisy(x), first)


@pytest.mark.parametrize("dtype", [gf.float32, gf.float64])
@pytest.mark.parametrize("threads", [1, 2])
def test_normal_numbers_have_the_same_bits_eager_and_compiled(dtype: gf.DType, threads: int) -> None:
    before = gf.get_num_threads()
    gf.set_num_threads(threads)
    try:
        compiled = gf.compile(
            lambda like: (gf.randn_like(like), gf.normal(1.7, 3.3, like.shape, dtype=dtype), like.normal_())
        )
        for size in (1, 2, 7, 100, 1001, 100_000):
            like = gf.empty(size, dtype=dtype)
            gf.manual_seed(size)
            found = compiled(like)
            gf.manual_seed(size)
            wanted = (gf.randn_like(like), gf.normal(1.7, 3.3, (size,), dtype=dtype), gf.randn_like(like))
            for a, b in zip(found, wanted, strict=True):
                assert a.dtype is b.dtype is dtype
                assert a.numpy().tobytes() == b.numpy().tobytes()
    finally:
        gf.set_num_threads(before)


@pytest.mark.parametrize("dtype", [gf.float32, gf.float64])
def test_normal_numbers_are_normal(dtype: gf.DType) -> None:
    gf.manual_seed(12)
    x = np.sort(gf.randn(200_000, dtype=dtype).numpy().astype(np.float64))
    n = x.size
    assert scipy.stats.kstest(x, "norm").pvalue > 0.01
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)]:
        assert abs((x**power).mean() - moment) < 4 * np.sqrt(variance / n)
    for limit in (3.0, 3.5):
        chance = 2 * scipy.stats.norm.sf(limit)
        assert abs((np.abs(x) > limit).mean() - chance) < 4 * np.sqrt(chance / n)


@pytest.mark.parametrize("dtype", [gf.float32, gf.float64])
def test_normal_numbers_are_exact_to_the_ends_of_the_words_range(dtype: gf.DType) -> None:
    high = np.concatenate([2 ** np.arange(33) - 1, 2**32 - 2 ** np.arange(32), np.arange(40)])
    corners = np.stack(np.meshgrid(high, high[::7])).reshape(2, -1)
    words = [corners[0], corners[0][::-1].copy(), corners[1], corners[1][::-1].copy()]
    if dtype is gf.float32:
        words = [words[0], words[2]]
        # 24 of the 32 bits count, from the first one that is set
        u = (words[0] + 1).astype(np.float32).astype(np.float64) * 2.0**-32
        low, bits = (words[1] % 2**31 >> 7) + 1, 24
    else:
        u = (((words[0] >> 5) << 26) + (words[1] >> 6) + 1) * 2.0**-53
        low, bits = ((words[2] % 2**31 >> 5) << 26) + (words[3] >> 6) + 1, 52
    wanted = np.sqrt(-2 * np.log(np.minimum(u, 1 - 2.0**-53))) * np.sin(np.pi / 2 * low * 2.0**-bits)
    wanted = np.where(words[len(words) // 2] < 2**31, wanted, -wanted)
    tensors = [gf.tensor(w) for w in words]
    found = sampling.normal(tensors, dtype)
    eps = np.finfo(found.numpy().dtype).eps
    np.testing.assert_allclose(found.numpy(), wanted, rtol=4 * eps, atol=2.0 ** (-15 if bits == 24 else -25))
    assert np.abs(wanted).max() > (6.6 if dtype is gf.float32 else 8.5)
    compiled = gf.compile(lambda *words: sampling.normal(words, dtype))(*tensors)
    assert compiled.numpy().tobytes() == found.numpy().tobytes()


def test_compiled_functions_and_eager_draws_share_one_stream() -> None:
    def run(wrap: Callable[..., Any]) -> list[np.ndarray]:
        own = gf.Generator().manual_seed(4)
        gf.manual_seed(5)
        noisy = wrap(lambda x: x + gf.randn_like(x))
        dropped = wrap(lambda x: gf.nn.functional.dropout(x, 0.5) * gf.rand(3))
        other = wrap(lambda x: x * gf.randn(3, generator=own))
        drawn = []
        for turn in range(3):
            drawn += [noisy(gf.zeros(4)), gf.randn(2), dropped(gf.ones(3)), gf.randperm(7), other(gf.ones(3))]
            drawn += [gf.rand(2, generator=own), noisy(gf.zeros(6)), dropped(gf.ones(2, 3))]
            if turn == 1:
                gf.manual_seed(3)
        state = gf.get_rng_state()
        drawn.append(noisy(gf.zeros(3)))
        gf.set_rng_state(state)
        again = noisy(gf.zeros(3))
        assert gf.equal(again, drawn[-1])
        return [t.numpy() for t in drawn]

    for eager, compiled in zip(run(lambda f: f), run(gf.compile), strict=True):
        np.testing.assert_array_equal(eager, compiled)


def test_a_step_that_failed_leaves_everything_as_it_was() -> None:
    gf.manual_seed(0)
    w = gf.nn.Parameter(gf.ones(4, 2))
    optimizer = gf.optim.SGD([w], lr=0.1, momentum=0.9, dampening=0.5)
    seen = gf.zeros(2)
    fails = True

    @gf.compile
    def step(x: gf.Tensor, index: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        y = gf.nn.functional.dropout(x @ w, 0.5)
        seen.add_(y.sum(0).detach())
        loss = (y[index] ** 2).mean()
        loss.backward()
        optimizer.step()
        if fails:
            raise ValueError("a mistake")
        return loss

    def state() -> list[Any]:
        moments = [v for s in optimizer.state_dict()["state"].values() for v in s.values()]
        held = [w, seen, gf.get_rng_state(), *([] if w.grad is None else [w.grad]), *moments]
        return [t.tolist() for t in held]

    x, index = gf.ones(3, 4), gf.tensor([0, 1])
    with pytest.raises(ValueError, match="a mistake"):
        step(x, index)
    assert w.grad is None and w.tolist() == [[1, 1]] * 4 and gf.get_rng_state().tolist() == [0, 0]
    fails = False
    step(x, index)
    assert w.grad is not None  # the first step takes the whole gradient, dampened or not
    np.testing.assert_allclose(w.detach().numpy(), 1 - 0.1 * w.grad.numpy(), rtol=1e-6)
    before = state()
    for bad in ([0, 7], [-9, 0]):
        with pytest.raises(IndexError):
            step(x, gf.tensor(bad))
        assert state() == before
    with pytest.raises(gf.errors.ShapeError):
        step(gf.ones(3, 5), index)
    assert state() == before
    step(x, index)
    assert state() != before


def test_shuffled_batches_and_compiled_steps_repeat_with_the_seed() -> None:
    def run(wrap: Callable[..., Any], workers: int = 0) -> tuple[list[Any], list[float]]:
        gf.manual_seed(3)
        items = gf.data.TensorDataset(gf.arange(20.0).reshape(10, 2), gf.arange(10))
        w = gf.nn.Parameter(gf.ones(2))
        optimizer = gf.optim.SGD([w], lr=1e-3, momentum=0.9)

        @wrap
        def step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
            optimizer.zero_grad()
            loss = ((gf.nn.functional.dropout(x, 0.3) @ w - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        order, losses = [], []
        for _ in range(2):
            for x, y in gf.data.DataLoader(items, batch_size=3, shuffle=True, num_workers=workers):
                order.append(y.tolist())
                losses.append(step(x, y).item())
        return order, losses

    compiled = run(gf.compile)
    assert compiled == run(gf.compile) == run(gf.compile, workers=2)
    eager = run(lambda f: f)
    assert eager[0] == compiled[0]
    np.testing.assert_allclose(eager[1], compiled[1], rtol=1e-5)
