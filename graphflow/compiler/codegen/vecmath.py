"""graphflow's own mathematical functions for kernels: float32 and float64, branch-free, vectorising.

The makers in `vecmath_exp` and `vecmath_trig` write each function once for both formats; here they get the
names that bodies use (``exp_f32``), and `link` adds the definitions that a kernel's IR refers to. They are
always inlined, so loops over them run at the full vector width. `docs/vecmath.md` has their measured errors.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable

import llvmlite.ir as ll

from graphflow.compiler import codegen
from graphflow.compiler.codegen import (
    digests,
    vecmath_exp,
    vecmath_gamma,
    vecmath_scalars,
    vecmath_special,
    vecmath_trig,
)
from graphflow.compiler.codegen.vecmath_text import F32, F64, Code, Format, Maker, Value

# The modules whose text decides what comes out, for digests: this one and all that are named after it.
SOURCES = digests.beside("vecmath")
for _name in SOURCES:  # some only declare functions that bodies may use
    importlib.import_module(f"{codegen.__name__}.{_name}")

_LLVM = {
    "floor": "floor",
    "ceil": "ceil",
    "trunc": "trunc",
    "round": "roundeven",
    "sqrt": "sqrt",
    "abs": "fabs",
}

UNARY: dict[str, Maker] = {
    "exp": vecmath_exp.exp,
    "exp2": vecmath_exp.exp2,
    "expm1": vecmath_exp.expm1,
    "log": vecmath_exp.log,
    "log1p": vecmath_exp.log1p,
    "log2": vecmath_exp.log2,
    "log10": vecmath_exp.log10,
    "sigmoid": vecmath_exp.sigmoid,
    "tanh": vecmath_exp.tanh,
    "sinh": vecmath_exp.sinh,
    "cosh": vecmath_exp.cosh,
    "asinh": vecmath_exp.asinh,
    "acosh": vecmath_exp.acosh,
    "atanh": vecmath_exp.atanh,
    "erf": vecmath_exp.erf,
    "erfc": vecmath_exp.erfc,
    "sin": vecmath_trig.sin,
    "cos": vecmath_trig.cos,
    "tan": vecmath_trig.tan,
    "asin": vecmath_trig.asin,
    "acos": vecmath_trig.acos,
    "atan": vecmath_trig.atan,
    "sign": vecmath_trig.sign,
    "rsqrt": vecmath_trig.rsqrt,
}
BINARY: dict[str, Maker] = {
    "pow": vecmath_exp.pow,
    "atan2": vecmath_trig.atan2,
    "fmod": vecmath_trig.fmod,
    "mod": vecmath_trig.mod,
}


class _InKernels:
    """The functions that the formulas of `vecmath_gamma` are made of (and of
    `vecmath_special`), written into a kernel function.
    """

    def __init__(self, c: Code) -> None:
        self.code = c
        self.select, self.abs = c.select, c.abs

    def round(self, x: Value) -> Value:
        """The nearest whole number."""
        return self.code.intrinsic("roundeven", x)

    def equal(self, x: Value, y: Value | float) -> Value:
        """Whether the two are the same number."""
        return x.equals(y)

    def log(self, x: Value) -> Value:
        """Natural logarithm."""
        return vecmath_exp.log(self.code, x)

    def log1p(self, x: Value) -> Value:
        """log(1 + x)."""
        return vecmath_exp.log1p(self.code, x)

    def exp(self, x: Value) -> Value:
        """e to the power of x."""
        return vecmath_exp.exp(self.code, x)

    def sqrt(self, x: Value) -> Value:
        """Square root."""
        return self.code.intrinsic("sqrt", x)

    def sin(self, x: Value) -> Value:
        """Sine."""
        return vecmath_trig.sin(self.code, x)

    def cos(self, x: Value) -> Value:
        """Cosine."""
        return vecmath_trig.cos(self.code, x)

    def pow(self, x: Value, y: Value) -> Value:
        """x to the power of y."""
        return vecmath_exp.pow(self.code, x, y)


def _formula(formula: Callable[..., Value]) -> Callable[..., Value]:
    return lambda c, *args: formula(_InKernels(c), *args)


# For float64 alone; float32 is converted there and back.
DOUBLE_UNARY = {
    "lgamma": _formula(vecmath_gamma.lgamma),
    "digamma": _formula(vecmath_gamma.digamma),
    "i0": _formula(vecmath_special.i0),
    "i0e": _formula(vecmath_special.i0e),
    "i1": _formula(vecmath_special.i1),
    "i1e": _formula(vecmath_special.i1e),
    "erfcx": _formula(vecmath_special.erfcx),
    "erfinv": _formula(vecmath_special.erfinv),
    "ndtri": _formula(vecmath_special.ndtri),
}
DOUBLE_BINARY = {"zeta": _formula(vecmath_gamma.zeta)}

_FORMATS = {"f32": F32, "f64": F64}
_CALLED = re.compile(r"@\"?gf\.(\w+)\.(f32|f64)\"?\(")
_DECLARED = re.compile(r"^declare .*@\"?(gf\.\w+\.f(?:32|64)|llvm\.[\w.]+)\"?\(.*\n", re.MULTILINE)


@functools.cache
def _definition(name: str, code: str) -> tuple[str, tuple[tuple[str, str], ...], tuple[str, ...]]:
    """One function's text, the declarations of what it calls, and its constant tables."""
    form: Format = _FORMATS[code]
    count = 2 if name in BINARY or name in DOUBLE_BINARY else 1
    made = Code(f"gf.{name}.{code}", [form.llvm] * count, form.llvm)
    result = {**UNARY, **BINARY, **DOUBLE_UNARY, **DOUBLE_BINARY}[name](made, *made.args)
    return made.text(result), tuple(made.calls.items()), tuple(made.data.values())


def link(ir_text: str) -> str:
    """`ir_text` with the definitions of all functions of this module that it calls."""
    wanted = sorted(set(_CALLED.findall(ir_text)))
    if not wanted:
        return ir_text
    declared = {match.group(1) for match in _DECLARED.finditer(ir_text)}
    texts, declarations, tables = [], {}, {}
    for name, code in wanted:
        text, calls, data = _definition(name, code)
        texts.append(text)
        declarations.update({callee: line for callee, line in calls if callee not in declared})
        tables.update(dict.fromkeys(data))
    own = _DECLARED.sub(lambda match: "" if match.group(1).startswith("gf.") else match.group(0), ir_text)
    return "\n".join([own, *tables, *declarations.values(), *texts, ""])


def _call(name: str, result: ll.Type) -> Callable[..., ll.Value]:
    def emit(b: ll.IRBuilder, *values: ll.Value) -> ll.Value:
        kind = ll.FunctionType(result, [v.type for v in values])
        return b.call(b.module.globals.get(name) or ll.Function(b.module, kind, name), values)

    return emit


def _define_all() -> None:
    for scalar in vecmath_scalars.FLOATS:
        code, one, two = scalar.code, (scalar,), (scalar, scalar)
        for name in UNARY:
            vecmath_scalars.define(f"{name}_{code}", scalar, one, _call(f"gf.{name}.{code}", scalar.value))
        for name in BINARY:
            vecmath_scalars.define(f"{name}_{code}", scalar, two, _call(f"gf.{name}.{code}", scalar.value))
        for name in (*DOUBLE_UNARY, *DOUBLE_BINARY) if code == "f64" else ():
            operands = two if name in DOUBLE_BINARY else one
            emit = _call(f"gf.{name}.{code}", scalar.value)
            vecmath_scalars.define(f"{name}_{code}", scalar, operands, emit)
        for name, intrinsic in _LLVM.items():
            full = f"llvm.{intrinsic}.{code}"
            vecmath_scalars.define(f"{name}_{code}", scalar, one, _call(full, scalar.value))
        copysign = _call(f"llvm.copysign.{code}", scalar.value)
        vecmath_scalars.define(f"copysign_{code}", scalar, two, copysign)
        vecmath_scalars.define(f"nextafter_{code}", scalar, two, _next_after)
        _define_tests(scalar)


def _next_after(b: ll.IRBuilder, x: ll.Value, y: ll.Value) -> ll.Value:
    """The neighbour of x towards y: its bits as an integer, one more or less."""
    whole = ll.IntType(32 if x.type == ll.FloatType() else 64)
    zero, one = ll.Constant(x.type, 0.0), ll.Constant(whole, 1)
    bits = b.bitcast(x, whole)
    grows = b.icmp_unsigned("==", b.fcmp_ordered(">", y, x), b.fcmp_ordered(">", x, zero))
    moved = b.bitcast(b.select(grows, b.add(bits, one), b.sub(bits, one)), x.type)
    least = b.bitcast(one, x.type)
    tiny = b.select(b.fcmp_ordered(">", y, zero), least, b.fneg(least))
    result = b.select(b.fcmp_ordered("==", x, zero), tiny, moved)
    result = b.select(b.fcmp_ordered("==", x, y), y, result)
    return b.select(b.fcmp_unordered("uno", x, y), b.fadd(x, y), result)


def _define_tests(scalar: vecmath_scalars.Scalar) -> None:
    size = _call(f"llvm.fabs.{scalar.code}", scalar.value)
    infinity = ll.Constant(scalar.value, float("inf"))
    tests: dict[str, Callable[..., ll.Value]] = {
        "isnan": lambda b, x: b.fcmp_unordered("uno", x, x),
        "isinf": lambda b, x: b.fcmp_ordered("==", size(b, x), infinity),
        "isfinite": lambda b, x: b.fcmp_ordered("<", size(b, x), infinity),
    }
    for name, emit in tests.items():
        vecmath_scalars.define(f"{name}_{scalar.code}", vecmath_scalars.BOOL, (scalar,), emit)


_define_all()
