"""Counts drawn by trying until every element has been accepted: Poisson and binomial numbers.

Each element has a key of 64 random bits, from which it makes the numbers of all its rounds (SplitMix64, by
Steele, Lea and Flood, 2014). So a generator moves on by one number an element, however many rounds there are,
and elements of a batch try each for itself. All arithmetic has the same bits in NumPy and in kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from graphflow import sampling
from graphflow.compiler.ir import OPS
from graphflow.dtypes import float64, int64
from graphflow.functions.arrange import stack
from graphflow.functions.common import cast, expanded, scalar
from graphflow.functions.control import while_loop
from graphflow.functions.reduce import any_
from graphflow.sampling import add, div, minus, mul
from graphflow.tensor import Tensor, apply

# What has to be done for elements that aren't done: round, results so far, key -> results, which are done.
Attempt = Callable[[Tensor, Sequence[Tensor], Tensor], tuple[Sequence[Tensor], Tensor]]


def _less(a: Tensor, b: Tensor | float) -> Tensor:
    return apply(OPS["lt"], a, b if isinstance(b, Tensor) else scalar(b, a.dtype))


def _at_least(a: Tensor, b: Tensor | float) -> Tensor:
    return apply(OPS["ge"], a, b if isinstance(b, Tensor) else scalar(b, a.dtype))


def _both(a: Tensor, b: Tensor) -> Tensor:
    return apply(OPS["bitwise_and"], a, b)


def _chosen(condition: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
    first, second = (v if isinstance(v, Tensor) else scalar(v, float64) for v in (a, b))
    return apply(OPS["where"], condition, first, second)


def _bits(key: Tensor, place: Tensor) -> Tensor:
    """64 bits for each key: SplitMix64's output number `place`."""

    def mixed(z: Tensor, shift: int) -> Tensor:
        high = apply(OPS["right_shift"], z, scalar(shift, int64))
        return apply(OPS["bitwise_xor"], z, _both(high, scalar((1 << (64 - shift)) - 1, int64)))

    z = add(key, mul(place, 0x9E3779B97F4A7C15 - 2**64))
    z = mul(mixed(z, 30), 0xBF58476D1CE4E5B9 - 2**64)
    z = mul(mixed(z, 27), 0x94D049BB133111EB - 2**64)
    return mixed(z, 31)


def _words(key: Tensor, place: Tensor) -> list[Tensor]:
    """The same as two words of 32 bits."""
    bits = _bits(key, place)
    half = scalar(2**32 - 1, int64)
    return [_both(apply(OPS["right_shift"], bits, scalar(32, int64)), half), _both(bits, half)]


def _until_done(todo: Tensor, first: Sequence[Tensor], key: Tensor, attempt: Attempt) -> list[Tensor]:
    """Results of `attempt`, made again for the elements that aren't done until all are."""

    def body(carry: tuple[Tensor, Tensor, list[Tensor]]) -> tuple[Tensor, Tensor, list[Tensor]]:
        place, left, held = carry
        found, done = attempt(place, held, key)
        results = [_chosen(left, new, old) for new, old in zip(found, held, strict=True)]
        return add(place, 2), _both(left, apply(OPS["bitwise_not"], done)), results

    begin = [expanded(t, key.type_.shape) for t in (todo, *first)]
    carry = (scalar(1, int64), begin[0], begin[1:])
    return while_loop(lambda c: any_(c[1]), body, carry)[2]  # type: ignore[no-any-return]


def _two_fractions(key: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Uniform in [0, 1), and in (0, 1]."""
    second = sampling.fraction(_words(key, add(place, 1)), float64)
    return sampling.fraction(_words(key, place), float64), minus(1.0, second)


def _arrivals(rate: Tensor, todo: Tensor, key: Tensor) -> Tensor:
    """How many times, each exponential with mean 1, pass within `rate`."""

    def attempt(place: Tensor, held: Sequence[Tensor], key: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        count, time = held
        later = add(time, sampling.exponential(_words(key, place), float64))
        inside = apply(OPS["le"], later, rate)
        return (_chosen(inside, add(count, 1.0), count), later), apply(OPS["bitwise_not"], inside)

    zero = scalar(0.0, float64)
    return _until_done(todo, [zero, zero], key, attempt)[0]


# log(k!) - (k + 1/2) log(k + 1) + k + 1 - log(2 pi) / 2 for k up to 9
_TAILS = [
    math.lgamma(k + 1) - (k + 0.5) * math.log(k + 1) + k + 1 - 0.5 * math.log(2 * math.pi) for k in range(10)
]


def _tail(k: Tensor, table: Tensor) -> Tensor:
    """What Stirling's formula leaves of log(k!), whole k from 0 on."""
    small = apply(OPS["minimum"], k, scalar(9.0, float64))
    low = apply(OPS["take"], table, cast(small, int64), dim=0)
    n = add(k, 1.0)
    square = mul(n, n)
    high = div(minus(1 / 12, div(minus(1 / 360, div(1 / 1260, square)), square)), n)
    return _chosen(_less(k, 9.5), low, high)


def _tails() -> Tensor:
    return stack([scalar(t, float64) for t in _TAILS])


def _hat(a: Tensor, b: Tensor, center: Tensor, key: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A whole number under Hörmann's hat; how far it is from the hat's ends; the height to compare with."""
    u, v = _two_fractions(key, place)
    u = add(u, -0.5)
    edge = minus(0.5, apply(OPS["abs"], u))
    k = add(mul(add(div(mul(a, 2.0), edge), b), u), center)
    return apply(OPS["floor"], k), edge, v


def _large_poisson(rate: Tensor, todo: Tensor, key: Tensor) -> Tensor:
    """Hörmann's transformed rejection (PTRS, 1993), for rates from 10 on."""
    table, log_rate = _tails(), sampling.logarithm(rate)
    b = add(mul(apply(OPS["sqrt"], rate), 2.53), 0.931)
    a = add(mul(b, 0.02483), -0.059)
    scale = add(div(1.1328, add(b, -3.4)), 1.1239)
    sure = minus(0.9277, div(3.6224, add(b, -2.0)))

    def attempt(place: Tensor, held: Sequence[Tensor], key: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        k, edge, v = _hat(a, b, add(rate, 0.43), key, place)
        quick = _both(_at_least(edge, 0.07), apply(OPS["le"], v, sure))
        there = apply(OPS["maximum"], k, scalar(0.0, float64))
        n = add(there, 1.0)
        height = sampling.logarithm(div(mul(v, scale), add(div(a, mul(edge, edge)), b)))
        log_n = sampling.logarithm(n)
        rest = add(_tail(there, table), 0.5 * math.log(2 * math.pi))
        factorial = add(minus(mul(add(there, 0.5), log_n), n), rest)
        wanted = minus(minus(mul(there, log_rate), rate), factorial)
        slow = _both(_at_least(k, 0.0), apply(OPS["le"], height, wanted))
        return (k,), apply(OPS["bitwise_or"], quick, slow)

    return _until_done(todo, [scalar(0.0, float64)], key, attempt)[0]


def poisson(rate: Tensor, key: Tensor) -> Tensor:
    """Poisson numbers of float64 rates, NaN for those that aren't 0 or more."""
    large = _at_least(rate, 10.0)
    small = _both(_less(rate, 10.0), apply(OPS["gt"], rate, scalar(0.0, float64)))
    few = _arrivals(_chosen(large, 0.0, rate), small, key)
    many = _large_poisson(_chosen(large, rate, 10.0), large, key)
    return _chosen(_at_least(rate, 0.0), _chosen(large, many, few), math.nan)


def _waits(count: Tensor, chance: Tensor, todo: Tensor, key: Tensor) -> Tensor:
    """How many successes come within `count` trials, by the waits between them."""
    other = minus(1.0, chance)
    close = apply(OPS["eq"], other, scalar(1.0, float64))  # log(1 - p) for small p, after Kahan
    exact = div(mul(sampling.logarithm(other), chance), minus(1.0, other))
    rate = apply(OPS["neg"], _chosen(close, apply(OPS["neg"], chance), exact))

    def attempt(place: Tensor, held: Sequence[Tensor], key: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        found, trials = held
        wait = div(sampling.exponential(_words(key, place), float64), rate)
        later = add(add(trials, apply(OPS["floor"], wait)), 1.0)
        inside = apply(OPS["le"], later, count)
        return (_chosen(inside, add(found, 1.0), found), later), apply(OPS["bitwise_not"], inside)

    zero = scalar(0.0, float64)
    return _until_done(todo, [zero, zero], key, attempt)[0]


def _large_binomial(count: Tensor, chance: Tensor, todo: Tensor, key: Tensor) -> Tensor:
    """Hörmann's transformed rejection (BTRS, 1993), for ``count * chance`` from 10 on."""
    table, mean = _tails(), mul(count, chance)
    other = minus(1.0, chance)
    deviation = apply(OPS["sqrt"], mul(mean, other))
    b = add(mul(deviation, 2.53), 1.15)
    a = add(add(mul(b, 0.0248), -0.0873), mul(chance, 0.01))
    scale = mul(add(div(5.1, b), 2.83), deviation)
    sure = minus(0.92, div(4.2, b))
    odds = div(chance, other)
    mode = apply(OPS["floor"], mul(add(count, 1.0), chance))
    above = add(minus(count, mode), 1.0)
    at_mode = mul(add(mode, 0.5), sampling.logarithm(div(add(mode, 1.0), mul(odds, above))))
    fixed = add(at_mode, add(_tail(mode, table), _tail(minus(count, mode), table)))

    def attempt(place: Tensor, held: Sequence[Tensor], key: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        k, edge, v = _hat(a, b, add(mean, 0.5), key, place)
        inside = _both(_at_least(k, 0.0), apply(OPS["le"], k, count))
        quick = _both(_at_least(edge, 0.07), apply(OPS["le"], v, sure))
        there = apply(OPS["minimum"], apply(OPS["maximum"], k, scalar(0.0, float64)), count)
        height = sampling.logarithm(div(mul(v, scale), add(div(a, mul(edge, edge)), b)))
        rest = add(minus(count, there), 1.0)
        sides = mul(add(count, 1.0), sampling.logarithm(div(above, rest)))
        ratio = mul(add(there, 0.5), sampling.logarithm(div(mul(odds, rest), add(there, 1.0))))
        tails = add(_tail(there, table), _tail(minus(count, there), table))
        wanted = minus(add(fixed, add(sides, ratio)), tails)
        slow = _both(inside, apply(OPS["le"], height, wanted))
        return (there,), apply(OPS["bitwise_or"], _both(quick, inside), slow)

    return _until_done(todo, [scalar(0.0, float64)], key, attempt)[0]


def binomial(count: Tensor, chance: Tensor, key: Tensor) -> Tensor:
    """Binomial numbers, all float64: 0 for no trials or no chance, all for certainty, NaN where either is."""
    flipped = apply(OPS["gt"], chance, scalar(0.5, float64))
    rare = _chosen(flipped, minus(1.0, chance), chance)
    some = _both(apply(OPS["gt"], count, scalar(0.0, float64)), apply(OPS["gt"], rare, scalar(0.0, float64)))
    large = _both(some, _at_least(mul(count, rare), 10.0))
    small = _both(some, _less(mul(count, rare), 10.0))
    few = _waits(_chosen(small, count, 1.0), _chosen(small, rare, 0.5), small, key)
    many = _large_binomial(_chosen(large, count, 40.0), _chosen(large, rare, 0.5), large, key)
    found = _chosen(large, many, few)
    found = _chosen(some, _chosen(flipped, minus(count, found), found), _chosen(flipped, count, 0.0))
    found = _chosen(apply(OPS["gt"], count, scalar(0.0, float64)), found, 0.0)
    known = _both(apply(OPS["eq"], count, count), apply(OPS["eq"], chance, chance))
    return _chosen(known, found, math.nan)


__all__ = ["binomial", "poisson"]
