"""Every op in the registry: its reference, type rule, gradients and refusals, on the samples it carries."""

from __future__ import annotations

import sys
import zlib

import numpy as np
import pytest
from graphflow.compiler.interpret import concrete, evaluate, run_graph
from graphflow.compiler.ir import BadSample, Op, TensorType, at
from graphflow.compiler.location import at_frame
from graphflow.compiler.parser import parse
from graphflow.compiler.schema import attribute_kinds, check_attributes
from graphflow.compiler.verify import verify

from registry import ALL_OPS, Case, case_for, check_gradient, operands_for, samples_of

every_op = pytest.mark.parametrize("op", ALL_OPS, ids=lambda op: op.name)


def _rng(op: Op) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(op.name.encode()))


def _cases(op: Op) -> list[Case]:
    return [case_for(op, sample) for sample in samples_of(op)]


@every_op
def test_has_samples(op: Op) -> None:
    assert samples_of(op), f"{op.name} needs samples to be tested on"


@every_op
def test_attributes_are_declared(op: Op) -> None:
    attribute_kinds(op)
    for sample in samples_of(op):
        assert check_attributes(op, sample.attrs) is None


@every_op
def test_reference_gives_the_inferred_type(op: Op) -> None:
    for case in _cases(op):
        node = case.node
        operands = evaluate(node.inputs, dict(zip(case.graph.args, case.arrays, strict=True)))
        result = op.numpy(*operands, **{k: concrete(v, {}) for k, v in node.attrs.items()})
        several = not isinstance(node.type, TensorType)
        types = node.type.items if several else (node.type,)
        for value, type_ in zip(result if several else (result,), types, strict=True):
            assert np.asarray(value).dtype == type_.dtype.numpy
            assert np.shape(value) == type_.shape


@every_op
def test_reference_leaves_operands_alone(op: Op) -> None:
    for case in _cases(op):
        before = [a.copy() for a in case.arrays]
        run_graph(case.graph, case.arrays)
        for old, new in zip(before, case.arrays, strict=True):
            np.testing.assert_array_equal(old, new)


@every_op
def test_text_round_trip(op: Op) -> None:
    for case in _cases(op):
        text = str(verify(case.graph))
        again = parse(text)
        assert str(again) == text
        for a, b in zip(run_graph(case.graph, case.arrays)[0], run_graph(again, case.arrays)[0], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@every_op
def test_gradient(op: Op) -> None:
    if op.vjp is None:
        return
    rng, checked = _rng(op), 0
    smooth = [s for s in samples_of(op) if s.gradient]
    for sample in smooth:
        case = case_for(op, sample)
        if any(a.dtype == np.float32 for a in case.arrays):
            continue  # differences need float64; samples come in both
        check_gradient(case.graph, case.arrays, rng)
        checked += 1
    assert checked or not smooth, f"{op.name} needs float64 samples"


def _bad_samples() -> list[tuple[Op, BadSample]]:
    return [(op, bad) for op in ALL_OPS if op.bad_samples for bad in op.bad_samples(np.random.default_rng(1))]


@pytest.mark.parametrize(("op", "bad"), _bad_samples(), ids=lambda v: getattr(v, "name", ""))
def test_refusal_names_op_operands_and_line(op: Op, bad: BadSample) -> None:
    operands, _, _ = operands_for(bad.inputs)
    loc = at_frame(sys._getframe())
    with at(loc), pytest.raises(bad.error) as raised:
        op(*operands, **bad.attrs)
    message = str(raised.value)
    assert message.startswith(f"{op.name}: ")
    assert bad.message in message
    for node in operands:
        assert str(node.type) in message
    assert f"{__file__}:{loc.line}" in message
