"""Primitives of number theory, of the gamma, Bessel and error functions and of the floating-point formats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphflow.compiler.codegen import vecmath_gamma, vecmath_special
from graphflow.compiler.ir import BadSample, Node, Op, Sample, TensorType, register
from graphflow.compiler.ops import elementwise as el
from graphflow.compiler.ops.family import Elementwise, elementwise, require_kind
from graphflow.errors import DTypeError


def _over(value: Node, x: Node) -> Node:
    """i1(x) / x, or its like, which is 1/2 at 0."""
    zero = el.eq(x, 0.0)
    return el.where(zero, 0.5, value / el.where(zero, 1.0, x))


def _trigamma(x: Node) -> Node:
    """The derivative of digamma; negative operands are reflected (Abramowitz and Stegun 6.4.7)."""
    negative = el.lt(x, 0.0)
    size = el.where(negative, 1.0 - x, x)
    value = zeta(size, s=2.0)
    sine = el.sin((x - el.round_(x)) * math.pi)
    safe = el.where(negative, sine, 1.0)
    return el.where(negative, (math.pi * math.pi) / (safe * safe) - value, value)


lgamma: Op = elementwise(
    "lgamma", vecmath_gamma.reference(vecmath_gamma.lgamma), "{t}(lgamma_f64(f64({0})))",
    lambda g, out, x: (g * digamma(x),), domain=(0.2, 9.0), cost=150, doc="log |gamma(x)|."
)
digamma: Op = elementwise(
    "digamma", vecmath_gamma.reference(vecmath_gamma.digamma), "{t}(digamma_f64(f64({0})))",
    lambda g, out, x: (g * _trigamma(x),), domain=(0.5, 9.0), cost=150, doc="The derivative of lgamma."
)


def _infer_zeta(q: TensorType, s: float) -> TensorType:
    require_kind(q.dtype, ("float",))
    return q


def _numpy_zeta(q: np.ndarray, s: float) -> Any:
    return vecmath_gamma.reference(vecmath_gamma.zeta)(np.asarray(q), np.full_like(q, s))


zeta: Op = register(Op(
    "zeta", "elementwise", _infer_zeta, _numpy_zeta,
    lambda g, out, q, s: (-g * s * zeta(q, s=s + 1.0),),
    lambda rng: [
        Sample((rng.uniform(0.5, 6.0, shape),), {"s": s})
        for shape, s in [((3, 4), 2.0), ((0, 3), 2.0), ((), 3.0), ((2, 1, 5), 1.5)]
    ],
    lambda rng: [BadSample((np.ones(3, int),), {"s": 2.0}, DTypeError, "needs a dtype of kind")],
    Elementwise({"float": "{t}(zeta_f64(f64({0}), f64({s!r})))"}, 500), 1,
    "Hurwitz's zeta function: the sum of (q + k)^-s over k = 0, 1, ...",
))  # fmt: skip
i0: Op = elementwise(
    "i0", vecmath_gamma.reference(vecmath_special.i0), "{t}(i0_f64(f64({0})))",
    lambda g, out, x: (g * i1(x),), cost=80, doc="The modified Bessel function of order 0."
)
i0e: Op = elementwise(
    "i0e", vecmath_gamma.reference(vecmath_special.i0e), "{t}(i0e_f64(f64({0})))",
    lambda g, out, x: (g * (i1e(x) - el.sign(x) * out),), cost=70, smooth=False, doc="exp(-|x|) i0(x)."
)
i1: Op = elementwise(
    "i1", vecmath_gamma.reference(vecmath_special.i1), "{t}(i1_f64(f64({0})))",
    lambda g, out, x: (g * (i0(x) - _over(out, x)),), cost=80,
    doc="The modified Bessel function of order 1."
)
i1e: Op = elementwise(
    "i1e", vecmath_gamma.reference(vecmath_special.i1e), "{t}(i1e_f64(f64({0})))",
    lambda g, out, x: (g * (i0e(x) - _over(out, x) - el.sign(x) * out),), cost=70, smooth=False,
    doc="exp(-|x|) i1(x)."
)
erfcx: Op = elementwise(
    "erfcx", vecmath_gamma.reference(vecmath_special.erfcx), "{t}(erfcx_f64(f64({0})))",
    lambda g, out, x: (g * (2.0 * x * out - 2 / math.sqrt(math.pi)),), domain=(-2.0, 3.0), cost=60,
    doc="exp(x**2) erfc(x)."
)
erfinv: Op = elementwise(
    "erfinv", vecmath_gamma.reference(vecmath_special.erfinv), "{t}(erfinv_f64(f64({0})))",
    lambda g, out, y: (g * (math.sqrt(math.pi) / 2) * el.exp(out * out),), domain=(-0.95, 0.95), cost=90,
    doc="The inverse of erf."
)
ndtri: Op = elementwise(
    "ndtri", vecmath_gamma.reference(vecmath_special.ndtri), "{t}(ndtri_f64(f64({0})))",
    lambda g, out, p: (g * math.sqrt(2 * math.pi) * el.exp(out * out * 0.5),), domain=(0.03, 0.97), cost=90,
    doc="The inverse of the normal distribution function."
)
gcd: Op = elementwise(
    "gcd", np.gcd, "gcd_{t}({0}, {1})", arity=2, kinds=("int",), cost=60,
    doc="The greatest common divisor, not negative; that of 0 and 0 is 0."
)
nextafter: Op = elementwise(
    "nextafter", np.nextafter, "nextafter_{t}({0}, {1})", arity=2, cost=8,
    doc="The next number after x in the direction of y."
)
