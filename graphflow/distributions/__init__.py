"""Probability distributions, after ``torch.distributions``: samples, log-probabilities, divergences.

They work at once and in compiled functions. Gradients flow through ``log_prob`` and ``rsample``.
"""

from graphflow.distributions import constraints, kl
from graphflow.distributions.continuous import Exponential, Laplace, LogNormal, Normal, Uniform
from graphflow.distributions.discrete import (
    Bernoulli,
    Binomial,
    Categorical,
    Geometric,
    Multinomial,
    Poisson,
)
from graphflow.distributions.distribution import Distribution
from graphflow.distributions.independent import Independent
from graphflow.distributions.kl import kl_divergence, register_kl
from graphflow.distributions.multivariate import MultivariateNormal

__all__ = [
    "Bernoulli",
    "Binomial",
    "Categorical",
    "Distribution",
    "Exponential",
    "Geometric",
    "Independent",
    "Laplace",
    "LogNormal",
    "Multinomial",
    "MultivariateNormal",
    "Normal",
    "Poisson",
    "Uniform",
    "constraints",
    "kl",
    "kl_divergence",
    "register_kl",
]
