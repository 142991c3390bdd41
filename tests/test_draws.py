"""Random draws: the same bits eager, compiled and on any number of threads; the right distributions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import DTypeError, GradientError, ShapeError
from scipy import stats

Draw = Callable[[gf.Generator], gf.Tensor]
N = 20_000
WEIGHTS = [0.1, 0.0, 3.0, 0.5, 1.4]


def _filled(method: str, *args: float, dtype: gf.dtype = gf.float32, size: int = N) -> Draw:
    return lambda g: getattr(gf.empty(size, dtype=dtype), method)(*args, generator=g)


# Draws, and the distribution that each is of.
CONTINUOUS: dict[str, tuple[Draw, Callable[..., object]]] = {
    "rand": (lambda g: gf.rand(N, generator=g), stats.uniform.cdf),
    "rand64": (lambda g: gf.rand(N, generator=g, dtype=gf.float64), stats.uniform.cdf),
    "randn": (lambda g: gf.randn(N, generator=g), stats.norm.cdf),
    "randn64": (lambda g: gf.randn(N, generator=g, dtype=gf.float64), stats.norm.cdf),
    "normal": (lambda g: gf.normal(1.0, 2.0, (N,), generator=g), stats.norm(1, 2).cdf),
    "uniform_": (_filled("uniform_", -1.0, 3.0), stats.uniform(-1, 4).cdf),
    "normal_": (_filled("normal_", 2.0, 0.5), stats.norm(2, 0.5).cdf),
    "exponential_": (_filled("exponential_", 1.5), stats.expon(scale=1 / 1.5).cdf),
    "exponential64_": (_filled("exponential_", dtype=gf.float64), stats.expon.cdf),
    "cauchy_": (_filled("cauchy_", 1.0, 2.0), stats.cauchy(1, 2).cdf),
    "cauchy64_": (_filled("cauchy_", dtype=gf.float64), stats.cauchy.cdf),
    "log_normal_": (_filled("log_normal_", 0.5, 0.7), stats.lognorm(0.7, scale=np.exp(0.5)).cdf),
}
DISCRETE: dict[str, tuple[Draw, list[float]]] = {
    "randint": (lambda g: gf.randint(0, 7, (N,), generator=g), [1 / 7] * 7),
    "random_": (_filled("random_", 3, dtype=gf.int64), [1 / 3] * 3),
    "bernoulli": (lambda g: gf.bernoulli(gf.full((N,), 0.3), generator=g), [0.7, 0.3]),
    "bernoulli_p": (lambda g: gf.bernoulli(gf.zeros(N), 0.8, generator=g), [0.2, 0.8]),
    "bernoulli_": (_filled("bernoulli_", 0.25, dtype=gf.uint8), [0.75, 0.25]),
    "geometric_": (_filled("geometric_", 0.6), [0.0, *(0.6 * 0.4**k for k in range(12))]),
    "multinomial": (
        lambda g: gf.multinomial(gf.tensor(WEIGHTS), N, True, generator=g), [w / 5 for w in WEIGHTS]
    ),
    "multinomial1": (
        lambda g: gf.multinomial(gf.tensor(WEIGHTS).expand(N, 5), 1, generator=g).reshape(-1),
        [w / 5 for w in WEIGHTS],
    ),
    "poisson": (
        lambda g: gf.poisson(gf.full((N,), 3.5), generator=g), stats.poisson(3.5).pmf(np.arange(16)).tolist()
    ),
    "poisson_large": (
        lambda g: gf.poisson(gf.full((N,), 12.0), generator=g), stats.poisson(12).pmf(np.arange(40)).tolist()
    ),
    "binomial": (
        lambda g: gf.binomial(gf.full((N,), 12.0), gf.full((1,), 0.3), generator=g),
        stats.binom(12, 0.3).pmf(np.arange(13)).tolist(),
    ),
    "binomial_large": (
        lambda g: gf.binomial(gf.full((N,), 60.0), gf.full((N,), 0.7), generator=g),
        stats.binom(60, 0.7).pmf(np.arange(61)).tolist(),
    ),
}  # fmt: skip
OTHERS: dict[str, Draw] = {
    "randperm": lambda g: gf.randperm(501, generator=g),
    "without": lambda g: gf.multinomial(gf.arange(1.0, 31.0).expand(40, 30), 7, generator=g),
    "rows": lambda g: gf.multinomial(gf.arange(1.0, 31.0).reshape(6, 5), 50, True, generator=g),
    "halves": lambda g: gf.randn(999, dtype=gf.float16, generator=g),
    "normal of tensors": lambda g: gf.normal(gf.arange(3.0), gf.tensor([[1.0], [2.0]]), generator=g),
    "rates": lambda g: gf.poisson(10 ** gf.linspace(-3, 9, 200, dtype=gf.float64), generator=g),
    "trials": lambda g: gf.binomial(gf.arange(300.0), gf.linspace(0, 1, 11).unsqueeze(1), generator=g),
    "like": lambda g: gf.randint_like(gf.zeros(4, 5), 3, 9, generator=g),
}
ALL: dict[str, Draw] = {
    **{name: draw for name, (draw, _) in CONTINUOUS.items()},
    **{name: draw for name, (draw, _) in DISCRETE.items()},
    **OTHERS,
}


@pytest.mark.parametrize("name", ALL)
def test_eager_and_compiled_draws_have_the_same_bits(name: str) -> None:
    generator = gf.Generator().manual_seed(77)
    eager = [ALL[name](generator).numpy() for _ in range(2)]
    assert not np.array_equal(*eager)
    state = generator.get_state().tolist()
    compiled = gf.compile(lambda: ALL[name](generator))
    threads = gf.get_num_threads()
    for count in (1, 3):
        gf.set_num_threads(count)
        try:
            generator.manual_seed(77)
            for wanted in eager:
                np.testing.assert_array_equal(compiled().numpy(), wanted)
        finally:
            gf.set_num_threads(threads)
        assert generator.get_state().tolist() == state


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_distributions(name: str) -> None:
    draw, cdf = CONTINUOUS[name]
    values = draw(gf.Generator().manual_seed(2024)).double().numpy()
    assert np.isfinite(values).all()
    assert stats.kstest(values, cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete_distributions(name: str) -> None:
    draw, chances = DISCRETE[name]
    counts = np.bincount(draw(gf.Generator().manual_seed(2024)).long().numpy(), minlength=len(chances))
    expected = N * np.array(chances)
    assert not counts[: len(chances)][expected == 0].any()
    likely = expected > 5
    found, wanted = counts[: len(chances)][likely], expected[likely]
    assert stats.chisquare(found, wanted * found.sum() / wanted.sum()).pvalue > 1e-3
    assert counts.sum() - found.sum() < 60


def test_tails_and_independence_of_normals() -> None:
    x = gf.randn(1_000_000, generator=gf.Generator().manual_seed(5)).double().numpy()
    for limit in (2, 3, 4):
        expected = 2 * stats.norm.sf(limit) * x.size
        assert abs((np.abs(x) > limit).sum() - expected) < 4 * np.sqrt(expected)
    assert abs(np.mean(x**4) - 3) < 0.03
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 4e-3


def test_without_replacement_no_index_comes_twice() -> None:
    generator = gf.Generator().manual_seed(3)
    weights = gf.tensor([1.0, 2.0, 0.0, 5.0])
    drawn = gf.multinomial(weights.expand(5000, 4), 3, generator=generator).numpy()
    assert all(sorted(row) == [0, 1, 3] for row in drawn)
    first = np.bincount(drawn[:, 0], minlength=4) / 5000
    np.testing.assert_allclose(first, [0.125, 0.25, 0, 0.625], atol=0.03)
    second = np.mean(drawn[drawn[:, 0] == 3][:, 1] == 1)  # 2 of the 3 that are left
    assert abs(second - 2 / 3) < 0.03


def test_permutations_are_even() -> None:
    generator = gf.Generator().manual_seed(4)
    found = [tuple(gf.randperm(3, generator=generator).tolist()) for _ in range(1200)]
    counts = [found.count(p) for p in sorted(set(found))]
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 1e-3
    assert gf.randperm(0).shape == (0,)
    assert gf.randperm(5, dtype=gf.int32).dtype is gf.int32


def test_counts_at_the_ends() -> None:
    assert gf.poisson(gf.zeros(4)).tolist() == [0] * 4
    assert gf.poisson(gf.ones(3, dtype=gf.bfloat16)).dtype is gf.bfloat16
    assert gf.poisson(gf.zeros(0)).shape == (0,)
    trials, chance = gf.tensor([9.0, 9.0, 0.0, -2.0, 9.0]), gf.tensor([0.0, 1.0, 0.5, 0.5, 1e-30])
    assert gf.binomial(trials, chance).tolist() == [0, 9, 0, 0, 0]
    rates = gf.full((4000,), 1e10, dtype=gf.float64)
    many = gf.poisson(rates, generator=gf.Generator().manual_seed(3)).numpy()
    assert abs(many.mean() - 1e10) < 5e3 and abs(many.var() / 1e10 - 1) < 0.1
    compiled = gf.compile(gf.poisson)(gf.tensor([-1.0, float("nan"), 2.0])).isnan()
    assert compiled.tolist() == [True, True, False]


def test_counts_in_batches_loops_and_any_size() -> None:
    generator = gf.Generator()
    rates = gf.linspace(0, 30, 12).reshape(4, 3)
    generator.manual_seed(1)
    wanted = gf.poisson(rates, generator=generator)
    for run in (
        gf.vmap(lambda r: gf.poisson(r, generator=generator), randomness="different"),
        lambda x: gf.scan(lambda c, r: (c, gf.poisson(r, generator=generator)), 0, x)[1],
    ):
        compiled = gf.compile(run)
        for f in (run, compiled):
            generator.manual_seed(1)
            assert gf.equal(f(rates), wanted)
        generator.manual_seed(1)
        assert gf.equal(compiled(rates[:2]), wanted[:2]) and len(compiled.variants) == 1


def test_symbolic_sizes_share_one_variant() -> None:
    generator = gf.Generator()

    @gf.compile
    def shuffled(x: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
        order = gf.randperm(x.shape[0], generator=generator)
        return x[order], gf.multinomial(x.exp(), 2, True, generator=generator)

    for n in (5, 9, 2):
        x = gf.arange(float(n)).reshape(n, 1).expand(n, 3)
        generator.manual_seed(n)
        mixed, drawn = shuffled(x)
        generator.manual_seed(n)
        assert gf.equal(mixed, x[gf.randperm(n, generator=generator)])
        assert gf.equal(drawn, gf.multinomial(x.exp(), 2, True, generator=generator))
    assert len(shuffled.variants) == 1


def test_a_loaded_graph_goes_on_with_the_stream(tmp_path: Path) -> None:
    gf.manual_seed(12)
    step = gf.compile(lambda x: x + gf.randn(4))
    x = gf.zeros(4)
    step(x)
    gf.export(step, tmp_path / "step.gfz")
    loaded = gf.load_graph(tmp_path / "step.gfz")
    for _ in range(3):
        assert loaded(x).tolist() == step(x).tolist()


def test_gradients_dont_flow_through_draws() -> None:
    mean = gf.ones(3, requires_grad=True)
    assert not gf.normal(mean, 1.0).requires_grad
    assert not gf.multinomial(mean, 2).requires_grad
    with pytest.raises(GradientError, match="no_grad"):
        mean.exponential_()


def test_bad_arguments() -> None:
    ones = gf.ones(4)
    for call, message in (
        (lambda: gf.multinomial(ones, 5), "without replacement"),
        (lambda: gf.multinomial(ones, 0), "n_sample <= 0"),
        (lambda: gf.multinomial(gf.ones(2, 2, 2), 1), "one or two dimensions"),
        (lambda: gf.multinomial(-ones, 1), "negative"),
        (lambda: gf.multinomial(gf.tensor([1.0, float("nan")]), 1, True), "NaN"),
        (lambda: gf.multinomial(gf.zeros(3), 1), "positive weight"),
        (lambda: gf.multinomial(gf.tensor([0.0, 1.0]), 2), "2 positive weight"),
        (lambda: gf.normal(0.0, -1.0, (3,)), "std >= 0"),
        (lambda: ones.normal_(0, -1), "std >= 0"),
        (lambda: ones.uniform_(1, 0), "from <= to"),
        (lambda: ones.exponential_(0), "lambda > 0"),
        (lambda: ones.geometric_(1.0), r"\(0, 1\)"),
        (lambda: ones.cauchy_(0, 0), "sigma > 0"),
        (lambda: ones.log_normal_(0, 0), "std > 0"),
        (lambda: ones.bernoulli_(1.5), r"\[0, 1\]"),
        (lambda: gf.bernoulli(ones * 2), "between 0 and 1"),
        (lambda: gf.randint(0, 300, (2,), dtype=gf.uint8), "uint8 can't hold"),
        (lambda: gf.randperm(300, dtype=gf.int8), "int8 can't hold"),
        (lambda: gf.randperm(-1), "negative"),
        (lambda: gf.poisson(-ones), "0 or more"),
        (lambda: gf.normal(ones, -ones), "std >= 0"),
    ):
        with pytest.raises(ShapeError, match=message):
            call()
    for call in (
        lambda: gf.multinomial(gf.ones(3, dtype=gf.int64), 1),
        lambda: gf.multinomial(ones, 1.5),
        lambda: gf.bernoulli(gf.ones(3, dtype=gf.int64)),
        lambda: gf.ones(3, dtype=gf.int64).normal_(),
        lambda: gf.poisson(gf.ones(3, dtype=gf.int64)),
        lambda: gf.binomial(ones, ones.double()),
    ):
        with pytest.raises(DTypeError):
            call()


@pytest.mark.parametrize("replacement", [False, True])
def test_weights_that_cant_be_drawn_from_stop_a_compiled_run(replacement: bool) -> None:
    draw = gf.compile(lambda w: gf.multinomial(w, 2, replacement))
    draw(gf.ones(3, 4))
    for bad in (-1.0, float("nan"), float("inf")):
        weights = gf.ones(3, 4)
        weights[1, 2] = bad
        with pytest.raises(IndexError, match="out of range"):
            draw(weights)
    with pytest.raises(IndexError, match="out of range"):
        draw(gf.zeros(3, 4))
