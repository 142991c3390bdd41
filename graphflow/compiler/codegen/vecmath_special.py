"""Modified Bessel functions, and the inverse and the scaled complement of the error function.

Formulas for NumPy and for kernels, as in `vecmath_gamma`, all computed in float64. Bessel functions and the
scaled complement are Chebyshev series, computed with 40 digits for this purpose; the inverses are Wichura's
rational functions (algorithm AS 241, Applied Statistics 37, 1988), right to about 16 digits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphflow.compiler.codegen.vecmath_gamma import Functions

# fmt: off
# exp(-x) I0(x) and exp(-x) I1(x) / x for x = 4 (1 + t); sqrt(x) exp(-x) I0(x) and I1(x) for x = 16 / (1 + t)
I0_NEAR = (
    0.33839763720473803, -0.3046826723431984, 0.17162090152220877, -0.09490109704804764,
    0.04930528423967071, -0.02373741480589947, 0.010546460394594998, -0.004324309995050576,
    0.0016394756169413357, -0.0005763755745385824, 0.00018850288509584165, -5.754195010082104e-05,
    1.6448448070728896e-05, -4.4167383584587505e-06, 1.1173875391201037e-06, -2.670793853940612e-07,
    6.046995022541919e-08, -1.300025009986248e-08, 2.6598237246823866e-09, -5.189795601635263e-10,
    9.675809035373237e-11, -1.726826291441556e-11, 2.95505266312964e-12, -4.856446783111929e-13,
    7.676185498604936e-14, -1.1685332877993451e-14, 1.715391285555133e-15, -2.431279846547955e-16,
    3.3307945188222384e-17, -4.4153416464793395e-18,
)
I1_NEAR = (
    0.12629359322181682, -0.17641651835783406, 0.1026436586898471, -0.05294598120809499,
    0.024726449030626516, -0.010564084894626197, 0.004156422944312888, -0.0015135724506312532,
    0.0005122859561685758, -0.00016176081582589674, 4.781565107550054e-05, -1.3273163656039436e-05,
    3.4702513081376785e-06, -8.568720264695455e-07, 2.0032947535521353e-07, -4.445059128796328e-08,
    9.381537386495773e-09, -1.8872497517228294e-09, 3.625590281552117e-10, -6.663489723502027e-11,
    1.1736186298890901e-11, -1.9839743977649436e-12, 3.223793365945575e-13, -5.042185504727912e-14,
    7.600684294735408e-15, -1.1055969477353862e-15, 1.5536319577362005e-16, -2.111421214358166e-17,
    2.7779141127610464e-18,
)
I0_FAR = (
    0.4022452055070544, 0.0033691164782556943, 6.889758346916825e-05, 2.8913705208347567e-06,
    2.0489185894690638e-07, 2.266668990498178e-08, 3.3962320257083865e-09, 4.94060238822497e-10,
    1.1889147107846439e-11, -3.1499165279632416e-11, -1.3215811840447713e-11, -1.7941785315068062e-12,
    7.180124451383666e-13, 3.8527783827421426e-13, 1.54008621752141e-14, -4.150569347287222e-14,
    -9.554846698828307e-15, 3.8116806693526224e-15, 1.7725601330565263e-15, -3.425485619677219e-16,
    -2.8276239805165836e-16, 3.461222867697461e-17, 4.46562142029676e-17, -4.830504485944182e-18,
    -7.233180487874754e-18,
)
I1_FAR = (
    0.38928811750914005, -0.009761097491361469, -0.00011058893876262371, -3.882564808877691e-06,
    -2.512236237870209e-07, -2.6314688468895196e-08, -3.835380385964237e-09, -5.589743462196584e-10,
    -1.8974958123505413e-11, 3.2526035830154884e-11, 1.4125807436613782e-11, 2.0356285441470896e-12,
    -7.198551776245908e-13, -4.0835511110921974e-13, -2.1015418427726643e-14, 4.272440016711951e-14,
    1.0420276984128802e-14, -3.8144030724370075e-15, -1.8803547755107825e-15, 3.3082023109209285e-16,
    2.96262899764595e-16, -3.209525921993424e-17, -4.6503053684893586e-17, 4.414348323071708e-18,
    7.517296310842105e-18,
)
# (1 + 2 x) exp(x^2) erfc(x) for t = (x - 3.75) / (x + 3.75)
ERFCX = (
    1.1775789345674017, -0.004590054580646478, -0.08424913336651792, 0.05920993999819189,
    -0.026658668435305753, 0.009074997670705265, -0.002413163540417608, 0.0004907758365258086,
    -6.916973302501207e-05, 4.13902798607301e-06, 7.74038306619849e-07, -2.1886401049234397e-07,
    1.076499946567091e-08, 4.521959811218287e-09, -7.754400208831351e-10, -6.318088340886684e-11,
    2.86879501093067e-11, 1.9455868545777347e-13, -9.65469674843344e-13, 3.25254814814874e-14,
    3.3478119482868056e-14, -1.864562880419313e-15, -1.2507950530688648e-15, 7.418235256624044e-17,
    5.068148904796111e-17,
)

# numerators and denominators: about one half, further out, and in the far tails
CENTRAL = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
     3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)
MIDDLE = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2,
     7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
     1.05075007164441684324e-9),
)
FAR = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5,
     2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
     2.04426310338993978564e-15),
)
# fmt: on


def _series(t: Any, coefficients: Sequence[float]) -> Any:
    """A sum of Chebyshev polynomials, by Clenshaw's recurrence."""
    twice = t + t
    here, before = t * 0.0, t * 0.0
    for c in reversed(coefficients[1:]):
        here, before = twice * here - before + c, here
    return t * here - before + coefficients[0]


def _quotient(x: Any, parts: tuple[Sequence[float], Sequence[float]]) -> Any:
    top, bottom = (x * 0.0 + p[-1] for p in parts)
    for a, b in zip(reversed(parts[0][:-1]), reversed(parts[1][:-1]), strict=True):
        top, bottom = top * x + a, bottom * x + b
    return top / bottom


def _bessel(m: Functions, size: Any, near: Sequence[float], far: Sequence[float]) -> tuple[Any, Any]:
    """The series for sizes below 8, and the one beyond."""
    w = m.select(size < 8.0, size * 0.0 + 8.0, size)
    return _series(size * 0.25 - 1.0, near), _series(16.0 / w - 1.0, far) / m.sqrt(w)


def i0e(m: Functions, x: Any) -> Any:
    """exp(-|x|) I0(x)."""
    size = m.abs(x)
    near, far = _bessel(m, size, I0_NEAR, I0_FAR)
    return m.select(size < 8.0, near, far)


def i1e(m: Functions, x: Any) -> Any:
    """exp(-|x|) I1(x)."""
    size = m.abs(x)
    near, far = _bessel(m, size, I1_NEAR, I1_FAR)
    return m.select(size < 8.0, near * x, m.select(x < 0.0, -far, far))


def i0(m: Functions, x: Any) -> Any:
    """I0(x), the modified Bessel function of the first kind of order 0."""
    half = m.exp(m.abs(x) * 0.5)  # exp(x) overflows before I0(x) does
    return m.select(m.equal(m.abs(x), math.inf), m.abs(x), i0e(m, x) * half * half)


def i1(m: Functions, x: Any) -> Any:
    """I1(x), the modified Bessel function of the first kind of order 1."""
    half = m.exp(m.abs(x) * 0.5)
    return m.select(m.equal(m.abs(x), math.inf), x, i1e(m, x) * half * half)


def erfcx(m: Functions, x: Any) -> Any:
    """exp(x^2) erfc(x)."""
    size = m.abs(x)
    value = _series(1.0 - 7.5 / (size + 3.75), ERFCX) / (size * 2.0 + 1.0)
    high = m.round(m.select(size < 32.0, size, size * 0.0 + 32.0) * 4096.0) / 4096.0  # squared exactly
    power = m.exp(high * high) * m.exp((size - high) * (size + high))
    return m.select(m.equal(x, -math.inf), size, m.select(x < 0.0, 2.0 * power - value, value))


def _normal_quantile(m: Functions, q: Any, tail: Any) -> Any:
    """Where the normal distribution reaches q + 1/2, if `tail` is the smaller probability of both sides."""
    central = m.abs(q) < 0.425
    middle = q * _quotient(0.180625 - q * q, CENTRAL)
    root = m.sqrt(-m.log(m.select(central, tail * 0.0 + 0.25, tail)))
    far = m.select(root < 5.0, _quotient(root - 1.6, MIDDLE), _quotient(root - 5.0, FAR))
    far = m.select(m.equal(tail, 0.0), tail + math.inf, far)
    return m.select(central, middle, m.select(q < 0.0, -far, far))


def ndtri(m: Functions, p: Any) -> Any:
    """Where the normal distribution reaches p: -inf for 0, inf for 1, NaN outside."""
    found = _normal_quantile(m, p - 0.5, m.select(p < 0.5, p, 1.0 - p))
    return m.select((p < 0.0) | (p > 1.0), p * math.nan, found)


def erfinv(m: Functions, y: Any) -> Any:
    """Where erf is y: infinite for -1 and 1, NaN outside."""
    size = m.abs(y)
    found = _normal_quantile(m, y * 0.5, (1.0 - size) * 0.5) * math.sqrt(0.5)
    return m.select(size > 1.0, y * math.nan, found)
