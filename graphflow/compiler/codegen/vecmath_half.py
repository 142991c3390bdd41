"""Conversions between float32 and the 16-bit types, on vectors' lanes alike: no branch, no table.

Values of float16 and bfloat16 are 16-bit integers in kernels. Rounding is to the nearest, halves to even;
subnormal numbers, infinities and NaN are as IEEE 754 has them. Where the processor converts float16 itself
LLVM's instructions are used, elsewhere the same is done in integers.
"""

from __future__ import annotations

import llvmlite.ir as ll

from graphflow.compiler.codegen import llvm

_I16, _I32, _F32 = ll.IntType(16), ll.IntType(32), ll.FloatType()


def _word(number: int) -> ll.Constant:
    return ll.Constant(_I32, number)


def converts_itself(features: str, triple: str) -> bool:
    """Whether a processor has instructions from float16 to float32 and back."""
    return "+f16c" in features.split(",") or triple.startswith(("aarch64", "arm64"))


def widened(b: ll.IRBuilder, value: ll.Value, code: str, native: bool | None = None) -> ll.Value:
    """A float16 (`code` "f16") or bfloat16 ("bf16") as a float32, exactly."""
    if code == "bf16":
        return b.bitcast(b.shl(b.zext(value, _I32), _word(16)), _F32)
    if _native() if native is None else native:
        return _signed(b, b.fpext(b.bitcast(value, ll.HalfType()), _F32), value)
    bits = b.zext(value, _I32)
    # The exponent's bias differs by 112; all ones stay all ones, and subnormal numbers are counted in 2**-24.
    shifted = b.shl(b.and_(bits, _word(0x7FFF)), _word(13))
    exponent = b.and_(shifted, _word(0x7C00 << 13))
    normal = b.add(shifted, _word(112 << 23))
    special = b.add(shifted, _word(224 << 23))
    counted = b.fmul(b.sitofp(b.and_(bits, _word(0x3FF)), _F32), ll.Constant(_F32, 2.0**-24))
    found = b.select(b.icmp_signed("==", exponent, _word(0x7C00 << 13)), special, normal)
    found = b.select(b.icmp_signed("==", exponent, _word(0)), b.bitcast(counted, _I32), found)
    sign = b.shl(b.and_(bits, _word(0x8000)), _word(16))
    return b.bitcast(b.or_(found, sign), _F32)


def _signed(b: ll.IRBuilder, wide: ll.Value, value: ll.Value) -> ll.Value:
    """The float32 with the sign of the float16 that it was, which LLVM doesn't see is the sign it has: it
    would compare in float16, and make a maximum of a choice between the value and zero, which takes -0.0 for
    0.0.
    """
    sign = b.bitcast(b.shl(b.zext(value, _I32), _word(16)), _F32)
    copy = b.module.declare_intrinsic("llvm.copysign", (_F32,), ll.FunctionType(_F32, [_F32, _F32]))
    return b.call(copy, [wide, sign])


def narrowed(b: ll.IRBuilder, value: ll.Value, code: str, native: bool | None = None) -> ll.Value:
    """A float32 rounded to float16 (`code` "f16") or bfloat16 ("bf16")."""
    bits = b.bitcast(value, _I32)
    is_nan = b.fcmp_unordered("uno", value, value)
    if code == "bf16":
        quiet = b.or_(b.lshr(bits, _word(16)), _word(0x40))
        odd = b.and_(b.lshr(bits, _word(16)), _word(1))
        near = b.lshr(b.add(bits, b.add(odd, _word(0x7FFF))), _word(16))
        return b.trunc(b.select(is_nan, quiet, near), _I16)
    if _native() if native is None else native:
        # The sign goes by itself: LLVM looks for it behind conversions, and for one that comes from a float64
        # it would call a conversion from there to float16 that no library has.
        size = b.fptrunc(b.bitcast(b.and_(bits, _word(0x7FFFFFFF)), _F32), ll.HalfType())
        sign = b.and_(b.trunc(b.lshr(bits, _word(16)), _I16), ll.Constant(_I16, 0x8000))
        return b.or_(b.bitcast(size, _I16), sign)
    sign = b.and_(bits, _word(0x80000000))
    size = b.xor(bits, sign)
    odd = b.and_(b.lshr(size, _word(13)), _word(1))
    near = b.lshr(b.add(b.sub(size, _word(112 << 23)), b.add(odd, _word(0xFFF))), _word(13))
    # Adding 0.5 lets float32 arithmetic round to multiples of 2**-24, the unit of subnormal numbers.
    half = ll.Constant(_F32, 0.5)
    small = b.sub(b.bitcast(b.fadd(b.bitcast(size, _F32), half), _I32), _word(126 << 23))
    found = b.select(b.icmp_unsigned("<", size, _word(113 << 23)), small, near)
    found = b.select(b.icmp_unsigned(">=", size, _word(143 << 23)), _word(0x7C00), found)
    found = b.select(is_nan, _word(0x7E00), found)
    return b.trunc(b.or_(found, b.lshr(sign, _word(16))), _I16)


def _native() -> bool:
    host = llvm.host()
    return converts_itself(host.features, host.triple)
