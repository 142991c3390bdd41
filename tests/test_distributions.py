"""``graphflow.distributions`` beside SciPy: densities, moments, entropies, samples, divergences, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow import distributions as D
from scipy import stats


def t(*values: float) -> gf.Tensor:
    return gf.tensor(values, dtype=gf.float64)


# name: what makes it of two parameters, those, SciPy's, and values to look at
Case = tuple[Callable[..., D.Distribution], tuple[list[float], ...], Callable[..., Any], list[float]]
CASES: dict[str, Case] = {
    "Normal": (D.Normal, ([0.5, -1.0], [1.0, 2.5]), stats.norm, [-0.3, 2.0]),
    "LogNormal": (
        D.LogNormal, ([0.5, -1.0], [0.5, 0.8]), lambda m, s: stats.lognorm(s, scale=np.exp(m)), [0.3, 2.0]
    ),
    "Uniform": (D.Uniform, ([0.0, -1.0], [1.0, 2.5]), lambda a, b: stats.uniform(a, b - a), [0.3, 2.0]),
    "Exponential": (D.Exponential, ([0.5, 2.0],), lambda r: stats.expon(scale=1 / r), [0.3, 2.0]),
    "Laplace": (D.Laplace, ([0.5, -1.0], [1.0, 2.5]), stats.laplace, [-0.3, 2.0]),
    "Bernoulli": (D.Bernoulli, ([0.3, 0.8],), stats.bernoulli, [0, 1]),
    "Geometric": (D.Geometric, ([0.3, 0.8],), lambda p: stats.geom(p, loc=-1), [4, 1]),
    "Poisson": (D.Poisson, ([0.7, 14.0],), stats.poisson, [2, 9]),
    "Binomial": (D.Binomial, ([8.0, 60.0], [0.3, 0.6]), stats.binom, [2, 30]),
}  # fmt: skip
WITHOUT_ENTROPY = ("Poisson", "Binomial")


@pytest.mark.parametrize("name", CASES)
def test_densities_and_moments(name: str) -> None:
    make, parameters, scipy, values = CASES[name]

    def facts(*given: gf.Tensor) -> list[gf.Tensor]:
        d = make(*given[:-1])
        found = [d.log_prob(given[-1]), d.mean, d.variance, d.stddev]
        return found if name in WITHOUT_ENTROPY else [*found, d.entropy()]

    other = scipy(*map(np.array, parameters))
    density = other.logpmf if hasattr(other.dist, "pmf") else other.logpdf
    wanted = [density(values), other.mean(), other.var(), other.std(), other.entropy()]
    for f in (facts, gf.compile(facts)):
        for found, expected in zip(f(*(t(*p) for p in parameters), t(*values)), wanted, strict=False):
            np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("name", list(CASES)[:5])
def test_continuous_samples_and_their_gradients(name: str) -> None:
    make, parameters, scipy, values = CASES[name]
    given = [t(*p).requires_grad_() for p in parameters]
    d = make(*given)
    gf.manual_seed(3)
    drawn = d.sample((4000,))
    assert drawn.shape == (4000, 2) and not drawn.requires_grad
    for column in range(2):
        cdf = scipy(*(p[column] for p in parameters)).cdf
        assert stats.kstest(drawn[:, column].numpy(), cdf).pvalue > 1e-3
    below = scipy(*map(np.array, parameters)).cdf(values)
    np.testing.assert_allclose(d.cdf(t(*values)).detach().numpy(), below)

    def total(*moved: gf.Tensor) -> gf.Tensor:
        gf.manual_seed(5)
        return (make(*moved).rsample((3,)) ** 2).sum()

    for f in (total, gf.compile(total)):
        found = gf.grad(f, tuple(range(len(given))))(*given)
        for place, gradient in enumerate(found):
            step = [1e-6 * (i == place) for i in range(len(given))]
            moved = [[g.detach() + s * h for g, h in zip(given, step, strict=True)] for s in (1, -1)]
            up, down = (total(*m) for m in moved)
            assert gradient.sum().item() == pytest.approx((up - down).item() / 2e-6, rel=1e-5)


@pytest.mark.parametrize("name", ["Bernoulli", "Geometric", "Poisson", "Binomial"])
def test_discrete_samples(name: str) -> None:
    make, parameters, scipy, _ = CASES[name]
    gf.manual_seed(1)
    drawn = make(*(t(*p) for p in parameters)).sample((8000,)).numpy()
    for column in range(2):
        other = scipy(*(p[column] for p in parameters))
        numbers = np.arange(int(other.ppf(1e-3)), int(other.ppf(0.999)) + 1)
        expected = other.pmf(numbers) * 8000
        counts = np.array([(drawn[:, column] == n).sum() for n in numbers])
        likely = expected > 5
        share = counts[likely].sum() / expected[likely].sum()
        assert stats.chisquare(counts[likely], expected[likely] * share).pvalue > 1e-3


def test_categories() -> None:
    weights = np.array([[1.0, 2.0, 3.0], [2.0, 0.0, 2.0]])
    shares = weights / weights.sum(-1, keepdims=True)
    d = D.Categorical(gf.tensor(weights))
    np.testing.assert_allclose(d.probs.numpy(), shares)
    np.testing.assert_allclose(d.log_prob(gf.tensor([1, 2])).numpy(), np.log([1 / 3, 1 / 2]), rtol=1e-9)
    column = d.log_prob(gf.tensor([[1], [0]])).exp().numpy()[:, 0]
    np.testing.assert_allclose(column, [1 / 3, 1 / 6], rtol=1e-9)
    np.testing.assert_allclose(d.entropy().numpy(), stats.entropy(shares, axis=-1), rtol=1e-9)
    assert d.mode[0].item() == 2 and d.batch_shape == (2,) and d.event_shape == ()
    logits = gf.tensor([0.5, -1.0, 2.0], dtype=gf.float64)
    e = D.Categorical(logits=logits)
    np.testing.assert_allclose(e.probs.numpy(), logits.softmax(0).numpy())
    gf.manual_seed(2)
    drawn = d.sample((3000,))
    assert drawn.shape == (3000, 2) and drawn.dtype is gf.int64
    np.testing.assert_allclose(np.bincount(drawn[:, 0].numpy(), minlength=3) / 3000, shares[0], atol=0.03)
    assert not (drawn[:, 1] == 1).any()
    many = D.Multinomial(6, gf.tensor(shares[0]))
    np.testing.assert_allclose(
        many.log_prob(t(1, 2, 3)).item(), stats.multinomial(6, shares[0]).logpmf([1, 2, 3]), rtol=1e-9
    )
    counts = many.sample((500,))
    assert counts.shape == (500, 3) and (counts.sum(-1) == 6).all()
    np.testing.assert_allclose(counts.mean(0).numpy(), 6 * shares[0], atol=0.2)


def test_divergences() -> None:
    pairs: list[tuple[D.Distribution, D.Distribution]] = [
        (D.Normal(0.3, 1.0), D.Normal(1.0, 2.0)),
        (D.LogNormal(0.3, 0.5), D.LogNormal(0.1, 0.7)),
        (D.Uniform(0.0, 1.0), D.Uniform(-1.0, 2.0)),
        (D.Exponential(0.7), D.Exponential(1.5)),
        (D.Laplace(0.2, 1.0), D.Laplace(1.0, 2.0)),
    ]
    x = gf.linspace(-40, 60, 400_001, dtype=gf.float64)
    for p, q in pairs:
        inside = x[p.support.check(x)]
        p_log, q_log = p.log_prob(inside), q.log_prob(inside)
        wanted = gf.where(p_log > -700, p_log.exp() * (p_log - q_log), 0.0).sum().item() * 2.5e-4
        assert D.kl_divergence(p, q).item() == pytest.approx(wanted, rel=1e-3)
    n = gf.arange(200.0, dtype=gf.float64)
    whole: list[tuple[D.Distribution, D.Distribution, int]] = [
        (D.Bernoulli(t(0.3)), D.Bernoulli(t(0.6)), 2),
        (D.Poisson(t(3.0)), D.Poisson(t(4.0)), 100),
        (D.Geometric(t(0.3)), D.Geometric(t(0.6)), 150),
        (D.Binomial(7, t(0.3)), D.Binomial(7, t(0.6)), 8),
    ]
    for p, q, count in whole:
        p_log, q_log = p.log_prob(n[:count]), q.log_prob(n[:count])
        wanted = (p_log.exp() * (p_log - q_log)).sum().item()
        assert D.kl_divergence(p, q).item() == pytest.approx(wanted, rel=1e-9)
    a, b = D.Categorical(t(0.0, 0.4, 0.6)), D.Categorical(t(0.2, 0.5, 0.3))
    assert D.kl_divergence(a, b).item() == pytest.approx(0.4 * np.log(0.8) + 0.6 * np.log(2))
    assert D.kl_divergence(b, a).item() == np.inf
    grid = D.Independent(D.Normal(gf.zeros(3, 2), gf.ones(3, 2)), 1)
    assert grid.batch_shape == (3,) and grid.event_shape == (2,) and grid.sample((4,)).shape == (4, 3, 2)
    assert grid.log_prob(gf.zeros(3, 2)).shape == (3,)
    np.testing.assert_allclose(D.kl_divergence(grid, grid).numpy(), np.zeros(3))
    with pytest.raises(NotImplementedError, match="Normal and q type Poisson"):
        D.kl_divergence(D.Normal(0.0, 1.0), D.Poisson(1.0))


def test_policies_and_latents_train_compiled() -> None:
    @gf.compile
    def loss(logits: gf.Tensor, mean: gf.Tensor) -> gf.Tensor:
        policy, latent = D.Categorical(logits=logits), D.Normal(mean, 0.5)
        action, z = policy.sample(), latent.rsample()
        gain = (policy.log_prob(action) * action).mean() - (z * z).mean()
        return gain - D.kl_divergence(latent, D.Normal(0.0, 1.0)).mean()

    for n in (4, 7):
        logits, mean = gf.randn(n, 3, requires_grad=True), gf.randn(n, requires_grad=True)
        state = gf.get_rng_state()
        loss(logits, mean).backward()
        found = logits.grad, mean.grad
        logits.grad = mean.grad = None
        gf.set_rng_state(state)
        loss.__wrapped__(logits, mean).backward()
        for one, other in zip(found, (logits.grad, mean.grad), strict=True):
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)
    assert len(loss.variants) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: D.Normal(0.0, -1.0), "parameter scale .* GreaterThan"),
        (lambda: D.Normal(float("nan"), 1.0), "parameter loc"),
        (lambda: D.Normal("a", 1.0), "numbers or tensors"),
        (lambda: D.Normal(0.0, 1.0).log_prob(2.0), "must be a Tensor"),
        (lambda: D.Uniform(1.0, 0.0), "low < high"),
        (lambda: D.Uniform(0.0, 1.0).log_prob(gf.tensor(2.0)), "support"),
        (lambda: D.Bernoulli(), "either `probs` or `logits`"),
        (lambda: D.Bernoulli(1.5), "parameter probs"),
        (lambda: D.Bernoulli(0.5).log_prob(gf.tensor(0.5)), "Boolean"),
        (lambda: D.Geometric(0.0), "parameter probs"),
        (lambda: D.Categorical(gf.tensor(0.5)), "at least one-dimensional"),
        (lambda: D.Categorical(gf.tensor([-1.0, 2.0])), "parameter probs"),
        (lambda: D.Categorical(gf.ones(2)).log_prob(gf.tensor(2)), "support"),
        (lambda: D.Multinomial(2, gf.ones(2)).log_prob(gf.tensor([2.0, 1.0])), "support"),
        (lambda: D.Independent(D.Normal(0.0, 1.0), 1), "reinterpreted_batch_ndims"),
    ],
)
def test_bad_arguments(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_checks_may_be_left_out() -> None:
    assert D.Uniform(0.0, 1.0, validate_args=False).log_prob(gf.tensor(2.0)).item() == -np.inf
    D.Distribution.set_default_validate_args(False)
    try:
        D.Normal(0.0, -1.0)
    finally:
        D.Distribution.set_default_validate_args(True)
    assert repr(D.Normal(gf.zeros(2), gf.ones(2))) == "Normal(loc: (2,), scale: (2,))"


def test_normal_vectors() -> None:
    rng = np.random.default_rng(8)
    root = rng.standard_normal((2, 3, 3))
    covariance = root @ root.swapaxes(1, 2) + 0.5 * np.eye(3)
    loc, values = rng.standard_normal(3), rng.standard_normal((4, 2, 3))
    other = [stats.multivariate_normal(loc, c) for c in covariance]
    wanted = np.stack([o.logpdf(values[:, i]) for i, o in enumerate(other)], 1)
    forms = {
        "covariance_matrix": covariance,
        "precision_matrix": np.linalg.inv(covariance),
        "scale_tril": np.linalg.cholesky(covariance),
    }
    for name, matrix in forms.items():

        def facts(at: gf.Tensor, matrix: gf.Tensor, value: gf.Tensor, name: str = name) -> list[gf.Tensor]:
            d, single = (D.MultivariateNormal(at, **{name: m}) for m in (matrix, matrix[0]))
            matrices = [d.covariance_matrix, d.precision_matrix, d.scale_tril]
            kl = D.kl_divergence(d, D.MultivariateNormal(at + 1, gf.eye(3, dtype=gf.float64)))
            return [*matrices, d.log_prob(value), d.entropy(), d.variance, kl, single.log_prob(value[:, 0])]

        ahead = np.array([0.5 * (np.trace(c) + 3 - 3 - np.linalg.slogdet(c)[1]) for c in covariance])
        expected = [*forms.values(), wanted, [o.entropy() for o in other], covariance.diagonal(0, 1, 2)]
        for f in (facts, gf.compile(facts)):
            found = f(gf.tensor(loc), gf.tensor(matrix), gf.tensor(values))
            for a, b in zip(found, [*expected, ahead, wanted[:, 0]], strict=True):
                np.testing.assert_allclose(a.numpy(), b, rtol=1e-8, atol=1e-10)
    center = gf.tensor(loc, requires_grad=True)
    d = D.MultivariateNormal(center, gf.tensor(covariance[0]))
    gf.manual_seed(1)
    drawn = d.rsample((20000,))
    np.testing.assert_allclose(np.cov(drawn.detach().numpy().T), covariance[0], atol=0.3)
    drawn.sum().backward()
    np.testing.assert_allclose(center.grad, 20000)
    assert not d.sample().requires_grad and d.sample((2, 5)).shape == (2, 5, 3)
    for bad in (gf.ones(3, 3), -gf.eye(3), gf.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 1]])):
        with pytest.raises(ValueError, match="to satisfy the constraint PositiveDefinite"):
            D.MultivariateNormal(gf.zeros(3), bad)
    with pytest.raises(ValueError, match="LowerCholesky"):
        D.MultivariateNormal(gf.zeros(3), scale_tril=gf.ones(3, 3))
    with pytest.raises(ValueError, match="Exactly one"):
        D.MultivariateNormal(gf.zeros(3))
    with pytest.raises(ValueError, match="at least two-dimensional"):
        D.MultivariateNormal(gf.zeros(3), gf.ones(3))
    with pytest.raises(ValueError, match="for this loc"):
        D.MultivariateNormal(gf.zeros(3), gf.eye(2))
    with pytest.raises(ValueError, match="right-most size"):
        d.log_prob(gf.zeros(2, dtype=gf.float64))
