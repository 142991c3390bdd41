"""float16 and bfloat16: stored in 16 bits, computed in float32, every result rounded once, in both lives."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphflow as gf
import llvmlite.ir as ll
import numpy as np
import pytest
from graphflow import nn, optim
from graphflow.compiler.codegen import llvm, vecmath_half
from graphflow.dtypes import HALVES, DType, is_half
from graphflow.errors import DTypeError

halves = pytest.mark.parametrize("dtype", HALVES, ids=str)


def _round(value: np.ndarray, dtype: DType) -> np.ndarray:
    """Numbers rounded to a half dtype and back, by definition: the nearest multiple of the last place."""
    digits, least, largest = (11, -14, 65504.0) if dtype is gf.float16 else (8, -126, gf.finfo(dtype).max)
    with np.errstate(invalid="ignore"):
        value = np.asarray(value, np.float64)
    _, exponent = np.frexp(value)
    unit = np.ldexp(1.0, np.maximum(exponent - 1, least) - (digits - 1))
    with np.errstate(all="ignore"):
        found = np.round(value / unit) * unit
        return np.where(np.abs(found) > largest, np.sign(value) * np.inf, found)


def _draw(dtype: DType, *shape: int, seed: int = 0) -> gf.Tensor:
    return gf.tensor(np.random.default_rng(seed).standard_normal(shape), dtype=gf.float32).to(dtype)


def _double(t: gf.Tensor) -> np.ndarray:
    return t.detach().double().numpy()


# ---------------------------------------------------------------------------------------------- conversions


def _convert(code: str, native: bool, widen: bool) -> Callable[[np.ndarray], np.ndarray]:
    """A conversion as machine code over arrays."""
    module = ll.Module("half", context=ll.Context())
    source, to = (ll.IntType(16), ll.FloatType()) if widen else (ll.FloatType(), ll.IntType(16))
    kind = ll.FunctionType(ll.VoidType(), [source.as_pointer(), to.as_pointer(), ll.IntType(64)])
    function = ll.Function(module, kind, "convert_all")
    start, loop, leave = (function.append_basic_block(n) for n in ("start", "loop", "leave"))
    b = ll.IRBuilder(start)
    b.branch(loop)
    b.position_at_end(loop)
    i = b.phi(ll.IntType(64))
    value = b.load(b.gep(function.args[0], [i]))
    convert = vecmath_half.widened if widen else vecmath_half.narrowed
    b.store(convert(b, value, code, native), b.gep(function.args[1], [i]))
    after = b.add(i, ll.Constant(ll.IntType(64), 1))
    i.add_incoming(ll.Constant(ll.IntType(64), 0), start)
    i.add_incoming(after, loop)
    b.cbranch(b.icmp_signed("<", after, function.args[2]), loop, leave)
    b.position_at_end(leave)
    b.ret_void()
    loaded = llvm.Loaded(llvm.emit([str(module)]))
    address = loaded.address("convert_all")

    def run(values: np.ndarray) -> np.ndarray:
        found = np.empty(values.shape, np.float32 if widen else np.uint16)
        prototype(address)(values.ctypes.data, found.ctypes.data, values.size)
        assert loaded
        return found

    return run


def prototype(address: int) -> Any:
    """The C function at an address."""
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)


PATHS = [("bf16", False), ("f16", False)]
if vecmath_half.converts_itself(llvm.host().features, llvm.host().triple):
    PATHS.append(("f16", True))


@pytest.mark.parametrize(("code", "native"), PATHS)
def test_machine_code_converts_every_pattern(code: str, native: bool) -> None:
    dtype = gf.float16 if code == "f16" else gf.bfloat16
    patterns = np.arange(2**16, dtype=np.uint16)
    exact = patterns.view(dtype.numpy).astype(np.float32)
    wide = _convert(code, native, True)(patterns)
    np.testing.assert_array_equal(wide, exact)
    numbers = ~np.isnan(exact)
    assert np.array_equal(np.signbit(wide)[numbers], np.signbit(exact)[numbers])
    # All floats near the middles between neighbours, where rounding is decided, and some anywhere.
    rng = np.random.default_rng(1)
    anywhere = rng.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    finite = np.sort(exact[np.isfinite(exact)].astype(np.float64))
    middles = ((finite[1:] + finite[:-1]) / 2).astype(np.float32)
    values = np.concatenate(
        [anywhere, middles, np.nextafter(middles, np.float32(9e9)), np.nextafter(middles, np.float32(-9e9))]
    )
    found = _convert(code, native, False)(values).view(dtype.numpy).astype(np.float64)
    np.testing.assert_array_equal(found, _round(values, dtype))


@halves
def test_conversions_by_hand(dtype: DType) -> None:
    values = [0.1, -0.0, 1.0, 1 / 3, 65519.0, 65520.0, 1e-7, 3e-8, 1e39, -np.inf, np.nan]
    with np.errstate(over="ignore"):
        single = np.array(values).astype(np.float32)
    t = gf.tensor(values).to(dtype)
    assert t.dtype is dtype
    np.testing.assert_array_equal(_double(t), _round(single, dtype))
    assert np.signbit(_double(t)[1])
    np.testing.assert_array_equal(_double(gf.tensor(values, dtype=dtype)), _round(single, dtype))
    compiled = gf.compile(lambda x: (x.to(dtype), x.double().to(dtype), x.to(dtype).double()))
    for got in compiled(gf.tensor(values)):
        np.testing.assert_array_equal(_double(got), _round(single, dtype))
    whole = gf.tensor([0, 1, -3, 255, 2049, 100_000])
    assert whole.to(dtype).long().tolist() == gf.compile(lambda x: x.to(dtype).long())(whole).tolist()
    assert gf.tensor([0.0, 2.0, float("nan")]).to(dtype).bool().tolist() == [False, True, True]


def test_names_and_facts() -> None:
    x = gf.zeros(2)
    assert x.half().dtype is gf.float16 is gf.half
    assert x.bfloat16().dtype is gf.bfloat16
    assert x.half().type() == "graphflow.HalfTensor"
    assert x.type("graphflow.BFloat16Tensor").dtype is gf.bfloat16
    assert gf.finfo(gf.float16).max == 65504 and gf.finfo(gf.bfloat16).eps == 2.0**-7
    assert gf.finfo(gf.float16).bits == gf.finfo(gf.bfloat16).bits == 16
    assert gf.finfo("bfloat16").dtype == "bfloat16"
    assert gf.float16.itemsize == gf.bfloat16.itemsize == 2
    assert gf.bfloat16.is_floating_point
    with pytest.raises(DTypeError, match="no floating point"):
        gf.finfo(gf.int32)
    with pytest.raises(DTypeError, match="no integer"):
        gf.iinfo(gf.float16)
    assert (gf.iinfo(gf.uint8).min, gf.iinfo(gf.uint8).max, gf.iinfo(gf.int16).bits) == (0, 255, 16)


def test_promotion() -> None:
    h, b = gf.ones(2, dtype=gf.float16), gf.ones(2, dtype=gf.bfloat16)
    assert (h + b).dtype is gf.float32
    assert gf.promote_types(gf.float16, gf.bfloat16) is gf.float32
    for t in (h, b):
        assert (t + 1).dtype is t.dtype and (t * 0.5).dtype is t.dtype and (t + True).dtype is t.dtype
        assert (t + gf.ones(2, dtype=gf.int64)).dtype is t.dtype
        assert (t + gf.ones(2, dtype=gf.bool)).dtype is t.dtype
        assert (t + gf.ones(2)).dtype is gf.float32
        assert (t + gf.ones((), dtype=gf.float64)).dtype is t.dtype
        assert (t > 0).dtype is gf.bool
        assert t.sum().dtype is t.dtype and t.mean().dtype is t.dtype


def test_printing() -> None:
    assert repr(gf.tensor([1.5, -2.25]).half()) == "tensor([ 1.5000, -2.2500], dtype=graphflow.float16)"
    assert repr(gf.tensor([1.0, 3.0]).bfloat16()) == "tensor([1., 3.], dtype=graphflow.bfloat16)"
    assert gf.tensor(0.1, dtype=gf.bfloat16).item() == 0.10009765625


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    fresh = DType("bfloat16", "float", 2, 7)
    with pytest.raises(DTypeError, match=r"graphflow\[bfloat16\]"):
        assert fresh.numpy


# ---------------------------------------------------------------------------------------------- arithmetic

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "arithmetic": lambda x, y: x * y + x / 3.0 - 0.1 * y,
    "alpha": lambda x, y: gf.add(x, y, alpha=0.3),
    "logic": lambda x, y: (x > y, x == y, gf.isnan(x), gf.where(x > 0, x, y)),
    "movement": lambda x, y: (x.t(), gf.cat([x, x]), x[:, 1:5], gf.stack([x, x + y]), x.flip(0)),
    "rounding": lambda x, y: (x.floor(), x.round(), x % 0.3, x // 0.25, x.clamp(-0.5, 0.5), -x, x.abs()),
    "reductions": lambda x, y: (x.sum(), x.sum(0), x.amax(1), x.argmin(0), x.mean(1), x.max(1).values),
    "products": lambda x, y: (x @ y, x @ x.t(), gf.relu(x @ x.t() + 1.0)),
    "chains": lambda x, y: (x + y) * (x - y) * (x + 1.0) / (y * y + 2.0),
    "indexing": lambda x, y: (x[[0, 2]], x.gather(1, x.argmax(1, keepdim=True)), gf.zeros_like(x)),
}  # fmt: skip


@halves
@pytest.mark.parametrize("name", FUNCTIONS)
def test_compiled_is_eager_bit_for_bit(name: str, dtype: DType) -> None:
    function = FUNCTIONS[name]
    x, y = _draw(dtype, 37, 21), _draw(dtype, 21, seed=1)
    eager = function(x, y)
    compiled = gf.compile(function)(x, y)
    pairs = [(eager, compiled)] if isinstance(eager, gf.Tensor) else zip(eager, compiled, strict=True)
    for a, b in pairs:
        assert a.dtype is b.dtype
        np.testing.assert_array_equal(_double(a), _double(b))


@halves
def test_every_op_rounds_once(dtype: DType) -> None:
    x, y = _draw(dtype, 50), _draw(dtype, 50, seed=1)
    a, b = _double(x).astype(np.float32), _double(y).astype(np.float32)
    np.testing.assert_array_equal(_double(x * y), _round(a * b, dtype))
    product = _round(a * b, dtype).astype(np.float32)
    np.testing.assert_array_equal(_double(x * y + x), _round(product + a, dtype))
    np.testing.assert_array_equal(_double(x * 0.1), _round(a * np.float32(0.1), dtype))
    np.testing.assert_array_equal(_double(x * gf.tensor(0.1)), _round(a * np.float32(0.1), dtype))
    np.testing.assert_array_equal(_double(gf.exp(x)), _round(np.exp(a), dtype))
    big = gf.full((100_000,), 1.0, dtype=dtype)  # more than float16 holds, and where bfloat16 stops counting
    assert big.mean().item() == 1.0 == gf.compile(lambda t: t.mean())(big).item()
    assert (big[:40_000] * 0.5).sum().item() == _round(np.array(20_000.0), dtype)
    wide = gf.tensor([200.0, 200.0, 100.0]).to(dtype)
    np.testing.assert_allclose(_double(wide.norm()), 300.0, rtol=2.0**-8)
    deviations = _double(wide.std()), np.std([200.0, 200.0, 100.0], ddof=1)
    np.testing.assert_allclose(*deviations, rtol=2.0**-8)


@halves
def test_composed_functions_round_once(dtype: DType) -> None:
    x = _draw(dtype, 6, 40)
    single = x.float()
    for function in (
        lambda t: gf.softmax(t, 1), lambda t: gf.log_softmax(t, 1), lambda t: gf.logsumexp(t, 0),
        lambda t: t.var(1), lambda t: t.std(), lambda t: t.mean(0), lambda t: t.norm(dim=1),
        lambda t: gf.lerp(t, t * 2, 0.3), lambda t: gf.addcmul(t, t, t, value=0.3),
    ):  # fmt: skip
        wanted = function(single).to(dtype)
        np.testing.assert_array_equal(_double(function(x)), _double(wanted))
        assert function(x).dtype is dtype


@halves
def test_gradients(dtype: DType) -> None:
    x, w = _draw(dtype, 5, 4).requires_grad_(), _draw(dtype, 3, 4, seed=2).requires_grad_()

    def loss(x: gf.Tensor, w: gf.Tensor) -> gf.Tensor:
        return gf.softmax(gf.tanh(x @ w.t()), 1).square().mean()

    loss(x, w).backward()
    assert x.grad.dtype is w.grad.dtype is dtype
    gx, gw = gf.compile(gf.grad(loss, argnums=(0, 1)))(x.detach(), w.detach())
    np.testing.assert_allclose(_double(gx), _double(x.grad), rtol=0.05, atol=2e-3)
    np.testing.assert_allclose(_double(gw), _double(w.grad), rtol=0.05, atol=2e-3)
    exact = x.detach().double().requires_grad_(), w.detach().double().requires_grad_()
    loss(*exact).backward()
    np.testing.assert_allclose(_double(x.grad), exact[0].grad.numpy(), rtol=0.05, atol=2e-3)


@halves
@pytest.mark.parametrize("compiled", [False, True])
def test_training_half_parameters(dtype: DType, compiled: bool) -> None:
    gf.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1)).to(dtype)
    optimizer = optim.Adam(model.parameters(), lr=0.02, eps=1e-4)
    x, y = _draw(dtype, 32, 6), _draw(dtype, 32, 1, seed=5)

    def step(x: gf.Tensor, y: gf.Tensor) -> gf.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = gf.compile(step) if compiled else step
    losses = [run(x, y).item() for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.dtype is dtype for p in model.parameters())


# ---------------------------------------------------------------------------------------------- other worlds


@halves
def test_numpy_and_files(dtype: DType, tmp_path: Path) -> None:
    array = np.arange(6).astype(dtype.numpy)
    t = gf.from_numpy(array)
    assert t.dtype is dtype
    t.mul_(2)
    assert array.astype(float).tolist() == [0, 2, 4, 6, 8, 10]
    assert is_half(t.numpy()) and t.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert (t + dtype.numpy.type(1)).dtype is dtype
    weight = gf.tensor([1.5, 2.5, 3.5], dtype=dtype)

    def scaled(x: gf.Tensor) -> gf.Tensor:
        weight.add_(1)
        return x * weight

    path = tmp_path / "half.gfz"
    compiled = gf.compile(scaled)
    assert compiled(gf.ones(3, dtype=dtype)).tolist() == [2.5, 3.5, 4.5]
    gf.export(compiled, path)
    loaded = gf.load_graph(path)
    assert loaded(gf.ones(3, dtype=dtype)).tolist() == [3.5, 4.5, 5.5]


def test_dlpack_of_float16() -> None:
    t = gf.tensor([1.0, 2.0], dtype=gf.float16)
    back = np.from_dlpack(t)
    assert back.dtype == np.float16
    assert gf.from_dlpack(back).data_ptr() == t.data_ptr()


@halves
def test_random_numbers(dtype: DType) -> None:
    gf.manual_seed(1)
    eager = gf.rand(500, dtype=dtype), gf.randn(500, dtype=dtype)
    gf.manual_seed(1)
    compiled = gf.compile(lambda: (gf.rand(500, dtype=dtype), gf.randn(500, dtype=dtype)))()
    for a, b in zip(eager, compiled, strict=True):
        assert a.dtype is b.dtype is dtype
        np.testing.assert_allclose(_double(a), _double(b), rtol=2.0**-7)
    assert _double(eager[0]).min() >= 0 and _double(eager[0]).max() < 1
    assert abs(_double(eager[0]).mean() - 0.5) < 0.06


@halves
def test_checked_runs_accept_halves(dtype: DType) -> None:
    function = gf.compile(lambda x: gf.softmax(x @ x.t(), 1).sum(0), check=True, check_nan=True)
    assert function(_draw(dtype, 9, 5)).dtype is dtype


F = nn.functional
LAYERS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "convolution": (lambda x, w: F.conv2d(x, w, padding=1), ((2, 3, 6, 6), (4, 3, 3, 3))),
    "pooling": (lambda x: F.max_pool2d(x, 2), ((2, 3, 6, 6),)),
    "layer norm": (lambda x: F.layer_norm(x, (8,)), ((5, 8),)),
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), ((2, 5, 8),)),
    "cross-entropy": (lambda x: F.cross_entropy(x, gf.tensor([1, 2, 0])), ((3, 8),)),
    "gelu": (lambda x: F.gelu(x), ((5, 8),)),
    "running": (lambda x: (x.cumsum(1), x.cumprod(0), gf.sort(x, 1).values), ((5, 8),)),
    "einsum": (lambda x: gf.einsum("ij,kj->ik", x, x), ((5, 8),)),
    "scan": (
        lambda x, w: gf.scan(lambda h, xi: (gf.tanh(h @ w + xi), h.sum()), gf.zeros(4, dtype=x.dtype), x)[0],
        ((6, 4), (4, 4)),
    ),
}


@halves
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str, dtype: DType) -> None:
    function, shapes = LAYERS[name]
    args = [_draw(dtype, *shape, seed=i) for i, shape in enumerate(shapes)]
    results = [function(*args), gf.compile(function)(*args), function(*(a.double() for a in args))]
    parts = [r if isinstance(r, tuple) else (r,) for r in results]
    for eager, compiled, exact in zip(*parts, strict=True):
        assert eager.dtype is compiled.dtype is dtype
        unit = gf.finfo(dtype).eps * np.abs(exact.numpy()).max()
        np.testing.assert_allclose(_double(compiled), _double(eager), atol=unit, rtol=0)
        np.testing.assert_allclose(_double(eager), exact.numpy(), atol=3 * unit, rtol=0)


@halves
def test_loops_and_symbolic_sizes(dtype: DType) -> None:
    function = gf.compile(lambda x: (x * 2 + x.sum(0)).mean(1))
    for n in (3, 8, 1):
        x = _draw(dtype, n, 7, seed=n)
        np.testing.assert_array_equal(_double(function(x)), _double((x * 2 + x.sum(0)).mean(1)))


@halves
def test_signs_that_come_from_wider_types(dtype: DType) -> None:
    # LLVM moves signs past conversions; they must not end in a conversion that no library has.
    x = gf.tensor([1.2345, -0.75, -0.0, float("nan"), -float("inf"), -7e-8], dtype=gf.float64)
    for wide in (lambda v: v, lambda v: v.float(), lambda v: v + 0.25):
        for name in ("tanh", "sinh", "asinh", "atan", "sin", "erf", "relu"):
            function = gf.compile(lambda v, wide=wide, name=name: getattr(wide(v).to(dtype), name)())
            for v in (x, x[1]):
                found, expected = _double(function(v)), _double(getattr(wide(v).to(dtype), name)())
                np.testing.assert_allclose(found, expected, rtol=2.0**-7)
                np.testing.assert_array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.parametrize("to", [gf.float16, gf.bfloat16, gf.float32, gf.float64], ids=str)
@pytest.mark.parametrize("dtype", [gf.float16, gf.bfloat16, gf.float32, gf.float64], ids=str)
def test_a_choice_between_zero_and_a_conversion_keeps_the_sign(dtype: DType, to: DType) -> None:
    x = gf.tensor([1.25, -0.75, -0.0, 0.0, float("nan"), -float("inf")], dtype=dtype)
    zero = gf.zeros((), dtype=to)

    def choices(v: gf.Tensor) -> list[gf.Tensor]:
        wide, mirrored = v.to(to), v.flip(0).to(to)
        return [
            wide.relu(), wide.clamp(min=0.0), wide.clamp(max=0.0),
            gf.maximum(wide, zero), gf.minimum(zero, wide),
            gf.where(v < 0, zero, wide), gf.where(v > 0, zero, wide), gf.where(v <= 0, wide, zero),
            gf.where(v > v.flip(0), mirrored, wide), gf.where(v >= v.flip(0), wide, mirrored),
        ]  # fmt: skip

    for found, expected in zip(gf.compile(choices)(x), choices(x), strict=True):
        numbers = ~np.isnan(_double(expected))
        np.testing.assert_array_equal(_double(found), _double(expected))
        np.testing.assert_array_equal(
            np.signbit(_double(found))[numbers], np.signbit(_double(expected))[numbers]
        )
