"""Random programs of views, writes in place and writes from NumPy's side, beside NumPy doing the same.

At once every step has to agree. Compiled, the whole program is one function of a tensor that it changes; it
may be refused where strides decide what is shared, but what it computes has to be right.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import graphflow as gf
import numpy as np
from graphflow.errors import GradientError, TraceError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("GRAPHFLOW_FUZZ_EXAMPLES", "60"))
Array = np.ndarray


@dataclass(frozen=True)
class Step:
    """One statement: `kind` of it, the handle it is about, and what else it needs."""

    kind: str
    target: int
    extra: Any = None


# ---------------------------------------------------------------------------------------------- both worlds

# A view of a tensor and the same of an array.
VIEWS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "slice": (lambda t, key: t[key], lambda a, key: a[key]),
    "permute": (lambda t, dims: t.permute(*dims), lambda a, dims: a.transpose(dims)),
    "reshape": (lambda t, shape: t.reshape(shape), lambda a, shape: a.reshape(shape)),
    "unsqueeze": (lambda t, dim: t.unsqueeze(dim), lambda a, dim: np.expand_dims(a, dim)),
    "narrow": (
        lambda t, n: t.narrow(0, n[0], n[1]),
        lambda a, n: a[n[0] : n[0] + n[1]],
    ),
    "expand": (
        lambda t, count: t.expand(count, *t.shape),
        lambda a, n: a[None] if n == 1 else np.broadcast_to(a, (n, *a.shape)),
    ),
    "select": (
        lambda t, place: t.select(*place),
        lambda a, place: a[(slice(None),) * place[0] + (place[1], ...)],  # with ... never a NumPy scalar
    ),
    "detach": (lambda t, _: t.detach(), lambda a, _: a[...]),
}  # fmt: skip


def _copy(to: Array, source: Array) -> None:
    to[...] = np.broadcast_to(source.copy(), to.shape)


# A write into a tensor and the same into an array; `other` is a second handle or a number.
WRITES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "add_": (lambda t, other: t.add_(other), lambda a, other: _copy(a, a + other)),
    "mul_": (lambda t, other: t.mul_(other), lambda a, other: _copy(a, a * other)),
    "out=": (lambda t, other: gf.sub(t, other, out=t), lambda a, other: _copy(a, a - other)),
    "fill_": (lambda t, other: t.fill_(float(other)), lambda a, other: _copy(a, np.asarray(float(other)))),
    "clamp_": (lambda t, other: t.clamp_(-3.0, 3.0), lambda a, other: _copy(a, np.clip(a, -3, 3))),
    "zero_": (lambda t, other: t.zero_(), lambda a, other: _copy(a, np.zeros(()))),
    "mask": (lambda t, other: t.__setitem__(t > 1, 0.5), lambda a, other: a.__setitem__(a > 1, 0.5)),
    "first": (lambda t, other: t.__setitem__(0, 2.5), lambda a, other: a.__setitem__(0, 2.5)),
    "index": (
        lambda t, other: t.__setitem__(gf.tensor([0, -1]), 7.0),
        lambda a, other: a.__setitem__(np.array([0, -1]), 7.0),
    ),
    "+=": (lambda t, other: t.__iadd__(other), lambda a, other: _copy(a, a + other)),
}  # fmt: skip
NUMBERS_ONLY = {"fill_", "clamp_", "zero_", "mask", "first", "index"}
NEED_DIMS = {"first", "index"}


@st.composite
def programs(draw: st.DrawFn, numpy_writes: bool) -> tuple[tuple[int, ...], list[Step]]:
    """A shape to start from, and statements that are valid for it; shapes are kept on the side."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    shapes = [shape]
    steps: list[Step] = []
    for _ in range(draw(st.integers(2, 9))):
        target = draw(st.integers(0, len(shapes) - 1))
        now = shapes[target]
        if draw(st.booleans()) and len(now) < 5:
            kind, extra, made = _view(draw, now)
            shapes.append(made)
            steps.append(Step(kind, target, extra))
        elif numpy_writes and draw(st.integers(0, 4)) == 0:
            steps.append(Step("numpy", target, draw(st.integers(-4, 4))))
        else:
            kind = draw(st.sampled_from([k for k in WRITES if now or k not in NEED_DIMS]))
            others = [i for i, s in enumerate(shapes) if _broadcasts(s, now)]
            if kind in NUMBERS_ONLY or not others or draw(st.booleans()):
                steps.append(Step(kind, target, ("number", draw(st.integers(-3, 3)))))
            else:
                steps.append(Step(kind, target, ("handle", draw(st.sampled_from(others)))))
    return shape, steps


def _broadcasts(source: tuple[int, ...], to: tuple[int, ...]) -> bool:
    if len(source) > len(to):
        return False
    return all(a in (1, b) for a, b in zip(reversed(source), reversed(to), strict=False))


def _view(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[str, Any, tuple[int, ...]]:
    """A kind of view, what it needs, and the shape it gives."""
    kind = draw(st.sampled_from(sorted(VIEWS)))
    if not shape and kind in ("slice", "narrow", "select"):
        kind = "unsqueeze"
    extra: Any = None
    if kind == "slice":
        key = []
        for size in shape:
            start = draw(st.integers(0, size - 1))
            stop = draw(st.integers(start + 1, size))
            key.append(slice(start, stop, draw(st.sampled_from([1, 1, 2]))))
        extra = tuple(key)
    elif kind == "permute":
        extra = tuple(draw(st.permutations(range(len(shape)))))
    elif kind == "reshape":
        total = math.prod(shape)
        divisors = [d for d in range(1, total + 1) if total % d == 0]
        first = draw(st.sampled_from(divisors))
        extra = draw(st.sampled_from([(total,), (first, total // first), (*shape, 1)]))
    elif kind == "unsqueeze":
        extra = draw(st.integers(0, len(shape)))
    elif kind == "narrow":
        start = draw(st.integers(0, shape[0] - 1))
        extra = (start, draw(st.integers(1, shape[0] - start)))
    elif kind == "expand":
        extra = draw(st.integers(1, 3))
    elif kind == "select":
        dim = draw(st.integers(0, len(shape) - 1))
        extra = (dim, draw(st.integers(0, shape[dim] - 1)))
    return kind, extra, VIEWS[kind][1](np.zeros(shape), extra).shape


def _start(shape: tuple[int, ...], scale: float = 1.0) -> Array:
    return (np.arange(math.prod(shape), dtype=np.float64).reshape(shape) - 3) * scale


def _numpy_step(step: Step, arrays: list[Array]) -> bool:
    """Does a statement to arrays; False where the memory repeats elements and can't be written."""
    array = arrays[step.target]
    if step.kind in VIEWS:
        arrays.append(VIEWS[step.kind][1](array, step.extra))
        return True
    if not array.flags.writeable:
        return False
    if step.kind == "numpy":
        array[...] = array + step.extra
        return True
    form, value = step.extra
    WRITES[step.kind][1](array, arrays[value] if form == "handle" else value)
    return True


def _tensor_step(step: Step, tensors: list[gf.Tensor]) -> None:
    target = tensors[step.target]
    if step.kind in VIEWS:
        tensors.append(VIEWS[step.kind][0](target, step.extra))
    elif step.kind == "numpy":
        array = target.numpy()
        array[...] = array + step.extra
    else:
        form, value = step.extra
        WRITES[step.kind][0](target, tensors[value] if form == "handle" else value)


# --------------------------------------------------------------------------------------------- the properties


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(numpy_writes=True))
def test_at_once_every_step_agrees(program: tuple[tuple[int, ...], list[Step]]) -> None:
    shape, steps = program
    arrays, tensors = [_start(shape)], [gf.from_numpy(_start(shape))]
    for step in steps:
        if _numpy_step(step, arrays):
            _tensor_step(step, tensors)
        else:
            refused = False
            try:
                _tensor_step(step, tensors)
            except (GradientError, ValueError):
                refused = True
            assert refused, f"{step} writes into memory that repeats elements"
        for array, tensor in zip(arrays, tensors, strict=True):
            np.testing.assert_array_equal(tensor.numpy(), array)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs(numpy_writes=False), st.booleans())
def test_compiled_programs_agree_or_are_refused(
    program: tuple[tuple[int, ...], list[Step]], as_state: bool
) -> None:
    shape, steps = program
    state = gf.from_numpy(_start(shape))

    def whole(given: gf.Tensor) -> list[gf.Tensor]:
        tensors = [state if as_state else given]
        for step in steps:
            _tensor_step(step, tensors)
        return [t * 1.0 for t in tensors]

    compiled = gf.compile(whole)
    kept = _start(shape)
    for scale in (1.0, -2.0):
        given_array = _start(shape, scale)
        arrays = [kept if as_state else given_array.copy()]
        writable = all([_numpy_step(step, arrays) for step in steps])
        argument = gf.from_numpy(given_array.copy())
        try:
            results = compiled(argument)
        except GradientError as refused:
            assert not writable, refused
            return
        except TraceError as refused:
            assert "may or may not share" in str(refused)
            return
        assert writable, "memory that repeats elements was written"
        for array, result in zip(arrays, results, strict=True):
            np.testing.assert_array_equal(result.numpy(), array)
        np.testing.assert_array_equal((state if as_state else argument).numpy(), arrays[0])
