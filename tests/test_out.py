"""``out=``: results written into tensors that are there, at once and inside compiled functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphflow as gf
import numpy as np
import pytest
from graphflow.errors import DTypeError, GradientError, ShapeError, TraceError

X = np.random.default_rng(0).uniform(0.2, 0.9, (4, 4)).astype(np.float32)
UNARY = [
    "abs", "acos", "asin", "atan", "ceil", "cos", "cosh", "erf", "erfc", "exp", "exp2", "expm1",
    "floor", "frac", "log", "log10", "log1p", "log2", "logit", "neg", "reciprocal", "round", "rsqrt",
    "sigmoid", "sign", "sin", "sinh", "sqrt", "square", "tan", "tanh", "trunc", "deg2rad", "rad2deg",
    "bitwise_not", "logical_not", "nan_to_num", "tril", "triu",
]  # fmt: skip
BINARY = [
    "add", "sub", "mul", "div", "floor_divide", "remainder", "fmod", "pow", "atan2", "maximum",
    "minimum", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor", "matmul",
    "mm", "true_divide",
]  # fmt: skip
REDUCTIONS = [
    "sum", "mean", "prod", "amax", "amin", "argmax", "argmin", "any", "all", "var", "std", "logsumexp",
    "softmax", "log_softmax", "norm",
]  # fmt: skip
ALONG = [
    "cumsum", "cumprod", "softmax", "log_softmax", "logsumexp",
]  # fmt: skip

CALLS: dict[str, Callable[..., Any]] = {
    **{name: lambda x, name=name, **k: getattr(gf, name)(x, **k) for name in UNARY if name != "bitwise_not"},
    **{name: lambda x, name=name, **k: getattr(gf, name)(x, x + 0.5, **k) for name in BINARY},
    **{name: lambda x, name=name, **k: getattr(gf, name)(x, dim=1, **k) for name in REDUCTIONS},
    **{name: lambda x, name=name, **k: getattr(gf, name)(x, 0, **k) for name in ALONG},
    "bitwise_not": lambda x, **k: gf.bitwise_not(x > 0.5, **k),
    "cat": lambda x, **k: gf.cat([x, x + 1], 1, **k),
    "stack": lambda x, **k: gf.stack([x, x + 1], **k),
    "hstack": lambda x, **k: gf.hstack([x, x], **k),
    "where": lambda x, **k: gf.where(x > 0.5, x, 0.0, **k),
    "clamp": lambda x, **k: gf.clamp(x, 0.3, 0.6, **k),
    "lerp": lambda x, **k: gf.lerp(x, x + 1, 0.3, **k),
    "addcmul": lambda x, **k: gf.addcmul(x, x, x, value=2, **k),
    "addmm": lambda x, **k: gf.addmm(x, x, x, **k),
    "dot": lambda x, **k: gf.dot(x[0], x[1], **k),
    "outer": lambda x, **k: gf.outer(x[0], x[1], **k),
    "gather": lambda x, **k: gf.gather(x, 1, gf.argmax(x, 1, keepdim=True), **k),
    "index_select": lambda x, **k: gf.index_select(x, 0, gf.tensor([2, 0]), **k),
    "take": lambda x, **k: gf.take(x, gf.tensor([5, 0, 15]), **k),
    "sum of all": lambda x, **k: gf.sum(x, **k),
    "arange": lambda x, **k: gf.arange(7, **k),
    "linspace": lambda x, **k: gf.linspace(0, 1, 5, **k),
    "zeros": lambda x, **k: gf.zeros(2, 3, **k),
    "ones": lambda x, **k: gf.ones((2, 3), **k),
    "full": lambda x, **k: gf.full((2,), 4.0, **k),
    "eye": lambda x, **k: gf.eye(3, **k),
    "max": lambda x, **k: gf.max(x, 1, **k),
    "min": lambda x, **k: gf.min(x, 0, **k),
    "sort": lambda x, **k: gf.sort(x, **k),
    "topk": lambda x, **k: gf.topk(x, 2, **k),
    "cummax": lambda x, **k: gf.cummax(x, 0, **k),
}  # fmt: skip


def _tuple(value: Any) -> tuple[gf.Tensor, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)


def _same(found: Any, wanted: Any) -> None:
    for a, b in zip(_tuple(found), _tuple(wanted), strict=True):
        assert a.dtype is b.dtype
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=2e-6)


@pytest.mark.parametrize("name", CALLS)
def test_out_takes_the_result(name: str) -> None:
    call, x = CALLS[name], gf.tensor(X)
    wanted = call(x)
    several = isinstance(wanted, tuple)
    for empty in (False, True):
        outs = tuple(gf.empty(0 if empty else w.shape, dtype=w.dtype) for w in _tuple(wanted))
        result = call(x, out=outs if several else outs[0])
        assert all(a is b for a, b in zip(_tuple(result), outs, strict=True))
        assert type(result) is type(wanted)
        _same(outs, wanted)
    outs = tuple(gf.zeros(w.shape, dtype=w.dtype) for w in _tuple(wanted))
    addresses = [o.data_ptr() for o in outs]
    compiled = gf.compile(lambda x: call(x, out=outs if several else outs[0]))
    for scale in (1.0, 0.9):
        compiled(x * scale)
        _same(outs, call(x * scale))
    assert [o.data_ptr() for o in outs] == addresses


def test_out_may_be_an_operand_or_see_one() -> None:
    x = gf.tensor(X)
    wanted = x @ x
    gf.matmul(x, x, out=x)
    _same(x, wanted)
    row = gf.arange(6.0)
    gf.mul(row[:-1], 10.0, out=row[1:])
    assert row.tolist() == [0.0, 0.0, 10.0, 20.0, 30.0, 40.0]
    array = np.zeros(3, np.float32)
    gf.add(gf.ones(3), 1, out=gf.from_numpy(array))
    assert array.tolist() == [2, 2, 2]
    compiled = gf.compile(lambda t: gf.mul(t[:-1], 10.0, out=t[1:]))
    compiled(row)

    @gf.compile
    def local(t: gf.Tensor) -> tuple[gf.Tensor, gf.Tensor]:
        fresh, empty = gf.zeros(2, t.shape[0]), gf.empty(0)
        gf.add(t, 1, out=fresh[0])
        gf.mul(t, 2, out=empty)
        return fresh, empty

    fresh, empty = local(gf.arange(3.0))
    assert fresh.tolist() == [[1, 2, 3], [0, 0, 0]] and empty.tolist() == [0, 2, 4]


def test_dtypes() -> None:
    x = gf.tensor([1.5, 2.5])
    wide = gf.empty(2, dtype=gf.float64)
    assert gf.add(x, x, out=wide).tolist() == [3.0, 5.0]
    half = gf.empty(2, dtype=gf.float16)
    assert gf.add(x.double(), 0.1, out=half).dtype is gf.float16
    assert gf.gt(x, 2, out=gf.empty(2)).tolist() == [0.0, 1.0]
    # functions that can be told a dtype compute in that of out=
    assert gf.arange(3, out=gf.empty(0)).tolist() == [0.0, 1.0, 2.0]
    big = gf.full((3,), 1.0 + 2.0**-24, dtype=gf.float64)
    assert gf.sum(big.float(), out=gf.empty((), dtype=gf.float64)).item() == 3.0
    assert gf.sum(gf.tensor([200, 100], dtype=gf.uint8), out=gf.empty((), dtype=gf.int32)).item() == 300
    assert gf.randint(0, 9, (4,), out=gf.empty(4)).dtype is gf.float32
    for call in (
        lambda: gf.add(x, x, out=gf.empty(2, dtype=gf.int64)),
        lambda: gf.sum(x, out=gf.empty((), dtype=gf.int64)),
        lambda: gf.add(x.long(), 1, out=gf.empty(2, dtype=gf.bool)),
    ):
        with pytest.raises(DTypeError, match=r"result type \w+ can't be cast to the desired output type"):
            call()


def test_refusals_leave_out_as_it_was() -> None:
    x = gf.ones(2, 3)
    for shape in ((3, 2), (6,), (1, 2, 3), (2, 1)):
        out = gf.zeros(shape)
        with pytest.raises(ShapeError, match=r"out= has the shape .*the result \(2, 3\)"):
            gf.exp(x, out=out)
        assert not out.any()
    needs = gf.ones(2, 3, requires_grad=True)
    for call in (lambda: gf.exp(needs, out=gf.empty(2, 3)), lambda: gf.exp(x, out=needs)):
        with pytest.raises(GradientError, match="don't support automatic differentiation"):
            call()
    with gf.no_grad():
        assert gf.exp(needs, out=gf.empty(2, 3)).requires_grad is False
        gf.exp(x, out=needs)
    assert gf.argmax(needs, out=gf.empty((), dtype=gf.int64)).item() == 0
    values = gf.zeros(2)
    with pytest.raises(DTypeError, match="can't be cast"):
        gf.max(x, 1, out=(values, gf.empty(2, dtype=gf.bool)))
    assert not values.any()
    for bad in (
        lambda: gf.exp(x, out=np.empty((2, 3))),
        lambda: gf.max(x, 1, out=values),
        lambda: gf.transpose(x, 0, 1, out=gf.empty(3, 2)),
        lambda: gf.numel(x, out=values),
    ):
        with pytest.raises(DTypeError):
            bad()
    with pytest.raises(GradientError, match="clone"):
        gf.exp(x, out=gf.zeros(3).expand(2, 3))
    outside = gf.empty(0)
    with pytest.raises(TraceError, match="inside a compiled function"):
        gf.compile(lambda t: gf.exp(t, out=outside))(x)
    assert gf.exp(x, out=None).shape == (2, 3)


def test_random_draws_take_out() -> None:
    generator = gf.Generator()
    for call in (
        lambda **k: gf.rand(3, generator=generator, **k),
        lambda **k: gf.randperm(4, generator=generator, **k),
        lambda **k: gf.normal(0.0, 1.0, (3,), generator=generator, **k),
        lambda **k: gf.multinomial(gf.ones(5), 2, generator=generator, **k),
    ):  # fmt: skip
        wanted = (generator.manual_seed(1), call())[1]
        out = gf.empty_like(wanted)
        generator.manual_seed(1)
        assert call(out=out) is out and gf.equal(out, wanted)
