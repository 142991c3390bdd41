"""The front end: what bodies mean, what comes out of them, and what is said when one is wrong."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graphflow.compiler.codegen import llvm, vecmath
from graphflow.compiler.codegen.function import PARTS, Function, symbol
from graphflow.compiler.codegen.numba_front import compile_function, lower
from graphflow.errors import CompileError

CODES = {
    "f32": np.float32, "f64": np.float64, "i64": np.int64, "i32": np.int32, "i16": np.int16, "i8": np.int8,
    "u8": np.uint8, "b8": np.bool_,
}  # fmt: skip


def run(body: str, lo: int = 0, hi: int = 0, scratch: Any = None, **operands: Any) -> None:
    """Compile `body` over arrays (pointers) and ints (words) and call it on [lo, hi)."""
    codes = {np.dtype(t): c for c, t in CODES.items()}
    params = tuple(
        (n, codes[v.dtype] + "*" if isinstance(v, np.ndarray) else "i64") for n, v in operands.items()
    )
    load(Function("k_test", params, body=body))(operands.values(), lo, hi, scratch)


def load(function: Function) -> Callable[..., None]:
    symbol, object_code = compile_function(function)
    loaded = llvm.Loaded(object_code)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)

    def call(values: Any, lo: int, hi: int, scratch: Any = None, keep: Any = loaded) -> None:
        words = [v.ctypes.data if isinstance(v, np.ndarray) else v for v in values]
        block = np.array(words, np.int64)
        kind(loaded.address(symbol))(
            block.ctypes.data, lo, hi, None if scratch is None else scratch.ctypes.data
        )

    return call


def body_of(text: str) -> str:
    return text[text.index("@body(") :]


MAP = Function(
    "k_scale",
    (("x", "f32*"), ("y", "f32*"), ("n", "i64")),
    body="""
        for i in range(lo, hi):
            for j in range(0, n):
                y[i*n + j] = x[i*n + j] * f32(2.0) + f32(1.0)
    """,
)
SUM = Function(
    "k_sum",
    (("x", "f32*"), ("y", "f32*"), ("n", "i64")),
    body="""
        for i in range(lo, hi):
            s = f32(0.0)
            for j in range(n):
                s = acc_add_f32(s, x[i*n + j] * x[i*n + j])
            y[i] = s
    """,
)


def test_map_over_rows() -> None:
    x = np.random.default_rng(0).normal(size=(5, 103)).astype(np.float32)
    y = np.zeros_like(x)
    load(MAP)([x, y, 103], 1, 4)
    assert np.array_equal(y[1:4], x[1:4] * np.float32(2) + np.float32(1))
    assert not y[0].any() and not y[4].any()


def test_sum_over_rows() -> None:
    x = np.random.default_rng(0).normal(size=(4, 1003)).astype(np.float32)
    y = np.zeros(4, np.float32)
    load(SUM)([x, y, 1003], 0, 4)
    np.testing.assert_allclose(y, (x.astype(np.float64) ** 2).sum(1), rtol=1e-6)


@pytest.mark.parametrize("code", ["f32", "f64"])
@pytest.mark.parametrize("which", ["max", "min"])
def test_extremes_keep_nan(code: str, which: str) -> None:
    start = "-inf" if which == "max" else "inf"
    x = np.random.default_rng(0).normal(size=(3, 200)).astype(CODES[code])
    x[1, 77] = np.nan
    y = np.zeros(3, x.dtype)
    body = f"""
        for i in range(lo, hi):
            m = {code}({start})
            for j in range(n):
                m = acc_{which}_{code}(m, x[i*n + j])
            y[i] = m
    """
    run(body, 0, 3, x=x, y=y, n=200)
    assert np.array_equal(y, getattr(x, which)(1), equal_nan=True)


ALIAS_CHECKS = ("memcheck", "diff.check", "bound0")  # how LLVM names run-time overlap checks


def vectors(function: Function) -> str:
    return body_of(llvm.optimised_ir([lower(function)]))


def test_loops_run_at_full_width_without_alias_checks() -> None:
    full = f"<{llvm.host().lanes(4)} x float>"
    for function in (MAP, SUM):
        text = vectors(function)
        assert full in text
        assert not any(check in text for check in ALIAS_CHECKS)
    assert f"fadd reassoc contract {full}" in vectors(SUM)
    assert vectors(SUM).count(f"phi {full}") >= 2  # several sums run side by side


def test_aliasing_pointers_are_checked() -> None:
    rows = """
        for i in range(lo, hi):
            p = offset(x, i*n)
            q = offset(y, i*n)
            for j in range(n):
                q[j] = p[j] * f32(2)
    """
    apart = Function(MAP.name, MAP.params, body=rows, noalias=False)
    assert "noalias" not in lower(apart)
    assert any(check in vectors(apart) for check in ALIAS_CHECKS)
    assert f"<{llvm.host().lanes(4)} x float>" in vectors(apart)
    x = np.arange(40, dtype=np.float32)
    shifted = Function(
        "k_shift",
        (("x", "f32*"), ("y", "f32*")),
        body="for i in range(lo, hi):\n    y[i] = x[i]",
        noalias=False,
    )
    load(shifted)([x, x[1:]], 0, 39)
    assert not x.any()  # element by element, each store is seen by the next load


def test_full_width_of_the_processor() -> None:
    target = llvm.host()
    wide = "+avx512f" in target.features
    assert target.vector_bits == (512 if wide else target.vector_bits)
    assert not wide or "-prefer-256-bit" in target.features
    assert llvm.llvmlite.__version__ in target.description and target.cpu in target.description


def test_the_object_is_closed() -> None:
    for function in (MAP, SUM):
        assert llvm.undefined_symbols(compile_function(function)[1]) == set()
    remainder = Function("k", (("x", "f64*"),), body="x[0] = fmod_f64(x[1], x[2])")
    assert llvm.undefined_symbols(compile_function(remainder)[1]) == {"fmod"}


def test_symbols_name_their_content() -> None:
    assert symbol(MAP).startswith("k_scale_")
    assert symbol(MAP) == compile_function(MAP)[0]
    others = [
        Function(MAP.name, MAP.params, body=MAP.body + "\n"),
        Function(MAP.name, MAP.params, body=MAP.body.replace("2.0", "3.0")),
        Function(MAP.name, MAP.params, body=MAP.body, noalias=False),
        Function(MAP.name, (("x", "f64*"), *MAP.params[1:]), body=MAP.body),
    ]
    assert [symbol(f) == symbol(MAP) for f in others] == [True, False, False, False]
    assert lower(MAP) == lower(MAP)
    assert compile_function(MAP) == compile_function(MAP)


def test_threads_that_compile_at_once_make_the_same_code() -> None:
    texts = [lower(Function(f"k{n}", MAP.params, body=MAP.body.replace("2.0", f"{n}.0"))) for n in range(12)]
    alone = [llvm.emit([text]) for text in texts]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda text: llvm.emit([text]), texts)) == alone


def test_several_kernels_in_one_object() -> None:
    object_code = llvm.emit([lower(MAP), lower(SUM)])
    loaded = llvm.Loaded(object_code)
    assert loaded.address(symbol(MAP)) and loaded.address(symbol(SUM))


def test_another_trailing_signature() -> None:
    function = Function(
        "k_tile", (("bias", "f32*"),), (("tile", "f32*"), ("rows", "i64"), ("first", "i64")),
        "for i in range(rows):\n    tile[i] = tile[i] + bias[first + i]",
    )  # fmt: skip
    symbol, object_code = compile_function(function)
    loaded = llvm.Loaded(object_code)
    pointer = ctypes.c_void_p
    entry = ctypes.CFUNCTYPE(None, pointer, pointer, ctypes.c_int64, ctypes.c_int64)(loaded.address(symbol))
    bias, tile = np.arange(9, dtype=np.float32), np.ones(3, np.float32)
    entry(np.array([bias.ctypes.data]).ctypes.data, tile.ctypes.data, 3, 5)
    assert tile.tolist() == [6, 7, 8]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("y[0] = nowhere(x[0])", "nowhere"),
        ("y[0] = x", "setitem doesn't take"),
        ("y[0] = x[0] & x[0]", "and_ doesn't take (f32, f32)"),
        ("y[0] = exp_f32(x[0], x[0])", "exp_f32 doesn't take"),
        ("z = stack_f32(lo)\ny[0] = z[0]", "stack_f32 doesn't take (i64)"),
        ("raise ValueError('no')", "k_wrong"),
        ("y[0] = u64(x[0]) + lo", "add doesn't take (u64, i64)"),
        ("y[0] = (", "SyntaxError"),
        ("for a in x:\n    y[0] = a", "only range"),
    ],
)
def test_a_wrong_body_is_a_bug_of_ours(body: str, complaint: str) -> None:
    function = Function("k_wrong", (("x", "f32*"), ("y", "f32*")), body=body)
    with pytest.raises(CompileError) as caught:
        compile_function(function)
    message = str(caught.value)
    assert "bug in graphflow" in message and "k_wrong" in message and body.splitlines()[0] in message
    assert complaint in message
    assert "Traceback" not in message and caught.value.__cause__ is None


def test_bad_ir_is_a_compile_error() -> None:
    with pytest.raises(CompileError, match="bug in graphflow"):
        llvm.emit(["define void @f() { ret i32 0 }"])


@pytest.mark.parametrize("code", ["i8", "i16", "i32", "i64", "u8"])
def test_integers_wrap_and_divide_as_numpy(code: str) -> None:
    dtype = CODES[code]
    info = np.iinfo(dtype)
    values = np.unique(
        np.array(
            [info.min, info.min + 1, -7 if info.min else 7, 0, 1, 2, 3, 5, info.max - 1, info.max], dtype
        )
    )
    values = np.append(values, dtype(-1) if info.min else dtype(9))
    a, b = np.repeat(values, values.size), np.tile(values, values.size)
    outs = {n: np.zeros_like(a) for n in ("plus", "minus", "times", "floor", "rest", "most", "least")}
    body = f"""
        for i in range(lo, hi):
            plus[i] = a[i] + b[i]
            minus[i] = a[i] - b[i]
            times[i] = a[i] * b[i]
            floor[i] = floordiv_{code}(a[i], b[i])
            rest[i] = a[i] % b[i]
            most[i] = maximum_{code}(a[i], b[i])
            least[i] = minimum_{code}(a[i], b[i])
    """
    run(body, 0, a.size, a=a, b=b, **outs)
    with np.errstate(all="ignore"):
        want = (a + b, a - b, a * b, a // b, a % b, np.maximum(a, b), np.minimum(a, b))
    for got, expected in zip(outs.values(), want, strict=True):
        assert np.array_equal(got, expected)


@pytest.mark.parametrize("source", CODES)
@pytest.mark.parametrize("to", CODES)
def test_conversions(source: str, to: str) -> None:
    x = np.array([0, 1, 2, 3, 100, 127, 0, 1], CODES[source])
    if source[0] in "fi":
        x[-2:] = -5 if to[0] != "u" else 5
    if source[0] == "f":
        x = x + CODES[source](0.75)
    y = np.zeros(x.size, CODES[to])
    run(f"for i in range(lo, hi):\n    y[i] = {to}(x[i])", 0, x.size, x=x, y=y)
    assert np.array_equal(y, x.astype(CODES[to]))


@pytest.mark.parametrize("to", ["i8", "i16", "i32", "i64", "u8"])
@pytest.mark.parametrize("source", ["f32", "f64"])
def test_floats_out_of_range_saturate(source: str, to: str) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30], CODES[source])
    y = np.zeros(x.size, CODES[to])
    run(f"for i in range(lo, hi):\n    y[i] = {to}(x[i])", 0, x.size, x=x, y=y)
    info = np.iinfo(CODES[to])
    assert y.tolist() == [0, info.max, info.min, info.max, info.min]


def test_bools() -> None:
    x = np.array([1.0, -1.0, 0.0, np.nan], np.float32)
    flag, count = np.array([True, False, True, True]), np.zeros(4, np.int64)
    out = np.zeros(4, np.bool_)
    body = """
        for i in range(lo, hi):
            c = flag[i] & (x[i] > f32(0)) | ~flag[i]
            out[i] = c
            count[i] = i64(flag[i]) + 1 if not c else -1
    """
    run(body, 0, 4, x=x, flag=flag, out=out, count=count)
    assert out.tolist() == [True, True, False, False]
    assert count.tolist() == [-1, -1, 2, 2]


def test_control_flow_and_scratch() -> None:
    x = np.arange(10, dtype=np.float64)
    y = np.zeros(4)
    scratch = np.zeros(64, np.uint8)
    body = """
        mine = ptr_f64(scratch)
        small = stack_f64(4)
        for i in range(3, -1, -1):
            small[i] = x[2*i]
        j = 0
        while True:
            if j >= 4:
                break
            mine[j] = select(j < 2, small[j], -small[j])
            j += 1
        rest = offset(mine, 2)
        for j in range(0, 4, 2):
            y[j] = rest[j - 2]
        y[1] = mine[3]
        y[3] = f64(5 // 2) + f64(-5 % 3)
        if lo == hi:
            return
        y[3] = nan
    """
    run(body, 7, 7, scratch, x=x, y=y)
    assert y.tolist() == [0, -6, -4, 3]


def test_shifts_and_random_bits() -> None:
    x = np.array([1, -1, 0x12345678, -0x80000000, 0x7FFFFFFF], np.int32)
    outs = {n: np.zeros(5, np.int64) for n in ("left", "right", "logical", "high", "bits")}
    body = """
        for i in range(lo, hi):
            left[i] = i64(x[i] << 3)
            right[i] = i64(x[i] >> 40)
            logical[i] = i64(u32(x[i]) >> 28)
            high[i] = i64(mulhi_u32(u32(x[i]), u32(3528531795)) ^ mullo_u32(u32(x[i]), 7))
            bits[i] = i64(bits_u32(f32(x[i])))
    """
    run(body, 0, 5, x=x, **outs)
    u = x.astype(np.uint32).astype(np.uint64)
    assert np.array_equal(outs["left"], (x << 3).astype(np.int64))
    assert outs["right"].tolist() == [0, -1, 0, -1, 0]
    assert np.array_equal(outs["logical"], (u >> np.uint64(28)).astype(np.int64))
    assert np.array_equal(outs["high"], ((u * 3528531795 >> 32) ^ (u * 7 & 0xFFFFFFFF)).astype(np.int64))
    assert np.array_equal(outs["bits"], x.astype(np.float32).view(np.uint32).astype(np.int64))


def test_reductions_of_integers_and_products() -> None:
    x = np.arange(1, 301, dtype=np.int64)
    f = np.linspace(0.99, 1.01, 300)
    total, product = np.zeros(3, np.int64), np.zeros(1)
    body = """
        s = i64(0)
        m = i64(0)
        p = f64(1)
        for j in range(n):
            s = acc_add_i64(s, x[j])
            m = acc_max_i64(m, x[j])
            p = acc_mul_f64(p, f[j])
        total[0] = s
        total[1] = m
        total[2] = abs_i64(-s)
        product[0] = p
    """
    run(body, x=x, f=f, total=total, product=product, n=300)
    assert total.tolist() == [45150, 300, 45150]
    assert product[0] == pytest.approx(np.prod(f), rel=1e-13)


def test_user_arithmetic_is_not_reassociated() -> None:
    x = np.array([1e8, 1.0, -1e8, np.inf], np.float32)
    y = np.zeros(2, np.float32)
    run("y[0] = (x[0] + x[1]) + x[2]\ny[1] = x[3] - x[3]", x=x, y=y)
    assert y[0] == 0 and np.isnan(y[1])


def test_values_of_a_loop_that_never_runs() -> None:
    y = np.full(2, 7.0)
    run("for j in range(n, 0):\n    y[0] = f64(j)\nfor j in range(5, 0, -2):\n    y[1] = f64(j)", y=y, n=3)
    assert y.tolist() == [7, 1]


def test_kernels_compile_from_several_threads() -> None:
    functions = [Function(f"k{i}", MAP.params, body=MAP.body.replace("2.0", f"{i}.0")) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(compile_function, functions))
    assert made == [compile_function(f) for f in functions]


def test_every_module_that_makes_functions_is_part_of_the_fingerprint() -> None:
    """Or machine code of an older formula would be taken from the cache."""
    used = {n.rpartition(".")[2] for n in sys.modules if n.startswith("graphflow.compiler.codegen.vecmath")}
    assert used and used == set(vecmath.SOURCES)
    read = {
        name
        for source in vecmath.SOURCES
        for name in re.findall(
            r"^from graphflow\.compiler\.codegen\.(\w+) import",
            Path(vecmath.__file__).with_name(f"{source}.py").read_text(),
            re.MULTILINE,
        )
    }
    assert "matmul_arguments" in read and read <= set(PARTS)


@pytest.mark.parametrize("turns", [3, 32, 33, 100, 767, 768])
def test_long_loops_are_not_written_out_whole(turns: int) -> None:
    body = f"""
        for i in range(lo, hi):
            s = f32(0.0)
            for j in range(0, {turns}):
                s = acc_add_f32(s, x[i * {turns} + j])
            for j in range(0, {turns}):
                y[i * {turns} + j] = x[i * {turns} + j] - s
    """
    x = np.random.default_rng(0).standard_normal((5, turns)).astype(np.float32)
    y = np.zeros_like(x)
    run(body, 0, 5, x=x, y=y)
    np.testing.assert_allclose(y, x - x.sum(1, keepdims=True), rtol=1e-4, atol=1e-4)
    text = body_of(llvm.optimised_ir([lower(Function("k", (("x", "f32*"), ("y", "f32*")), body=body))]))
    assert text.count("store ") <= 64


def test_loops_around_others_are_not_written_out() -> None:
    nested = "for i in range(0, 40):\n    for j in range(0, 768):\n        x[i * 768 + j] = f32(1.0)"
    x = np.zeros((40, 768), np.float32)
    run(nested, x=x)
    assert (x == 1).all()
    inner = "for j in range(0, 768):\n    x[j] = f32(1.0)"
    one, both = (llvm.optimised_ir([lower(Function("k", (("x", "f32*"),), body=b))]) for b in (inner, nested))
    assert body_of(both).count("store ") <= body_of(one).count("store ")
