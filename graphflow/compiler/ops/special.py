"""Primitives of number theory, of the gamma function and of the floating-point formats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from graphflow.compiler.codegen import vecmath_gamma
from graphflow.compiler.ir import BadSample, Node, Op, Sample, TensorType, register
from graphflow.compiler.ops import elementwise as el
from graphflow.compiler.ops.family import Elementwise, elementwise, require_kind
from graphflow.errors import DTypeError


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
gcd: Op = elementwise(
    "gcd", np.gcd, "gcd_{t}({0}, {1})", arity=2, kinds=("int",), cost=60,
    doc="The greatest common divisor, not negative; that of 0 and 0 is 0."
)
nextafter: Op = elementwise(
    "nextafter", np.nextafter, "nextafter_{t}({0}, {1})", arity=2, cost=8,
    doc="The next number after x in the direction of y."
)
