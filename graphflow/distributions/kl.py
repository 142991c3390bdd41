"""Kullback-Leibler divergences, in closed form, after ``torch.distributions.kl``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflow import functions as ops
from graphflow.distributions.continuous import Exponential, Laplace, LogNormal, Normal, Uniform
from graphflow.distributions.discrete import Bernoulli, Binomial, Categorical, Geometric, Poisson
from graphflow.distributions.distribution import Distribution
from graphflow.distributions.independent import Independent
from graphflow.distributions.multivariate import MultivariateNormal, solved
from graphflow.nn.functional import softplus
from graphflow.tensor import Tensor

Rule = Callable[[Any, Any], Tensor]
_RULES: dict[tuple[type[Distribution], type[Distribution]], Rule] = {}


def register_kl(type_p: type[Distribution], type_q: type[Distribution]) -> Callable[[Rule], Rule]:
    """Decorates a function of two distributions of these classes that gives their divergence."""
    for kind in (type_p, type_q):
        if not (isinstance(kind, type) and issubclass(kind, Distribution)):
            raise TypeError(f"Expected type_p and type_q to be Distribution subclasses but got {kind!r}")

    def decorated(rule: Rule) -> Rule:
        _RULES[type_p, type_q] = rule
        return rule

    return decorated


def kl_divergence(p: Distribution, q: Distribution) -> Tensor:
    """``E_p[log p(x) - log q(x)]``, of the batch's shape. NotImplementedError for pairs without a rule."""
    for kind_p in type(p).__mro__:
        for kind_q in type(q).__mro__:
            rule = _RULES.get((kind_p, kind_q))
            if rule is not None:
                return rule(p, q)
    raise NotImplementedError(
        f"No KL(p || q) is implemented for p type {type(p).__name__} and q type {type(q).__name__}"
    )


@register_kl(Normal, Normal)
def _normal(p: Normal, q: Normal) -> Tensor:
    ratio = (p.scale / q.scale) ** 2
    distance = ((p.loc - q.loc) / q.scale) ** 2
    return 0.5 * (ratio + distance - 1 - ratio.log())


@register_kl(MultivariateNormal, MultivariateNormal)
def _multivariate(p: MultivariateNormal, q: MultivariateNormal) -> Tensor:
    if p.event_shape != q.event_shape:
        raise ValueError(
            "KL-divergence between two Multivariate Normals with different event shapes cannot be computed"
        )
    spread = (solved(q.scale_tril.unsqueeze(-3), p.scale_tril.mT) ** 2).sum(dim=-1).sum(dim=-1)
    distance = (solved(q.scale_tril, p.loc - q.loc) ** 2).sum(dim=-1)
    logs = [d.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1) for d in (p, q)]
    return logs[1] - logs[0] + 0.5 * (spread + distance - p.event_shape[0])


@register_kl(LogNormal, LogNormal)
def _log_normal(p: LogNormal, q: LogNormal) -> Tensor:
    return _normal(p.base_dist, q.base_dist)


@register_kl(Uniform, Uniform)
def _uniform(p: Uniform, q: Uniform) -> Tensor:
    found = ((q.high - q.low) / (p.high - p.low)).log()
    return found.masked_fill((q.low > p.low) | (q.high < p.high), float("inf"))


@register_kl(Exponential, Exponential)
def _exponential(p: Exponential, q: Exponential) -> Tensor:
    ratio = q.rate / p.rate
    return ratio - 1 - ratio.log()


@register_kl(Laplace, Laplace)
def _laplace(p: Laplace, q: Laplace) -> Tensor:
    ratio, distance = p.scale / q.scale, (p.loc - q.loc).abs()
    return -ratio.log() + distance / q.scale + ratio * (-distance / p.scale).exp() - 1


@register_kl(Bernoulli, Bernoulli)
def _bernoulli(p: Bernoulli, q: Bernoulli) -> Tensor:
    one = p.probs * (softplus(-q.logits) - softplus(-p.logits))
    zero = (1 - p.probs) * (softplus(q.logits) - softplus(p.logits))
    one, zero = one.masked_fill(p.probs == 0, 0), zero.masked_fill(p.probs == 1, 0)
    impossible = ((q.probs == 0) & (p.probs > 0)) | ((q.probs == 1) & (p.probs < 1))
    return (one + zero).masked_fill(impossible, float("inf"))


@register_kl(Geometric, Geometric)
def _geometric(p: Geometric, q: Geometric) -> Tensor:
    return -p.entropy() - ops.log1p(-q.probs) / p.probs - q.logits


@register_kl(Poisson, Poisson)
def _poisson(p: Poisson, q: Poisson) -> Tensor:
    return ops.xlogy(p.rate, p.rate) - ops.xlogy(p.rate, q.rate) - (p.rate - q.rate)


@register_kl(Binomial, Binomial)
def _binomial(p: Binomial, q: Binomial) -> Tensor:
    inside = p.total_count * (p.probs * (p.logits - q.logits) + ops.log1p(-p.probs) - ops.log1p(-q.probs))
    return inside.masked_fill(p.total_count > q.total_count, float("inf"))


@register_kl(Categorical, Categorical)
def _categorical(p: Categorical, q: Categorical) -> Tensor:
    shares = p.probs * (p.logits - q.logits)
    shares = shares.masked_fill(q.probs == 0, float("inf")).masked_fill(p.probs == 0, 0)
    return shares.sum(-1)


@register_kl(Independent, Independent)
def _independent(p: Independent, q: Independent) -> Tensor:
    if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
        raise NotImplementedError("the two have events of different numbers of dimensions")
    return p.summed(kl_divergence(p.base_dist, q.base_dist))


__all__ = ["kl_divergence", "register_kl"]
