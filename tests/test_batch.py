"""Batching rules: every op over a batch is the op on every element."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from graphflow.compiler.interpret import evaluate
from graphflow.compiler.ir import Node, Op, TensorType, TupleType, input_node
from graphflow.compiler.ops.control import items
from graphflow.compiler.passes.batch import batch, rule_of
from graphflow.compiler.verify import verify

from registry import ALL_OPS, type_of

every_op = pytest.mark.parametrize("op", ALL_OPS, ids=lambda op: op.name)
BATCH = 3


def _ready(op: Op) -> bool:
    return callable(rule_of(op))


@every_op
def test_has_a_rule_or_a_reason(op: Op) -> None:
    if op.arity == 0 or op.name == "project":
        return  # never meets a batch; handled where batches are followed
    rule = rule_of(op)
    assert rule, f"{op.name} needs a batching rule (batch=), or the reason why it can't have one"


def _draws(op: Op) -> list[list[Any]]:
    """For each of the op's samples, the sample drawn anew for every element of a batch."""
    return list(zip(*(op.samples(np.random.default_rng(90 + i)) for i in range(BATCH)), strict=True))


def _choices(count: int) -> list[tuple[bool, ...]]:
    """Which operands to batch: all, and each alone; for two or three, every choice."""
    if count > 3:
        alone = [tuple(i == k for i in range(count)) for k in range(count)]
        return [(True,) * count, *alone]
    return [c for c in itertools.product((True, False), repeat=count) if any(c)]


@every_op
def test_is_the_op_on_every_element(op: Op) -> None:
    if not _ready(op):
        return
    for draws in _draws(op):
        arrays = [[np.asarray(a) for a in draw.inputs] for draw in draws]
        attrs = draws[0].attrs
        nodes = [input_node(f"x{i}", type_of(a)) for i, a in enumerate(arrays[0])]
        out = op(*nodes, **attrs)
        outputs = list(items(out)) if isinstance(out.type, TupleType) else [out]
        for choice in _choices(len(nodes)):
            _check(op, nodes, outputs, arrays, choice)


def _check(
    op: Op, nodes: list[Node], outputs: list[Node], arrays: list[list[np.ndarray]], choice: tuple[bool, ...]
) -> None:
    given: dict[Node, Node] = {}
    values: dict[Node, np.ndarray] = {}
    for i, (node, is_batched) in enumerate(zip(nodes, choice, strict=True)):
        if is_batched:
            type_ = TensorType(node.dtype, (BATCH, *node.shape))
            given[node] = input_node(f"b{i}", type_)
            values[given[node]] = np.stack([element[i] for element in arrays])
        else:
            values[node] = arrays[0][i]
    found, flags = batch(outputs, given, BATCH)
    results = evaluate(found, values)
    for element in range(BATCH):
        single = {
            node: arrays[element if is_batched else 0][i]
            for i, (node, is_batched) in enumerate(zip(nodes, choice, strict=True))
        }
        for expected, result, flag in zip(evaluate(outputs, single), results, flags, strict=True):
            actual = result[element] if flag else result
            assert actual.dtype == expected.dtype and actual.shape == expected.shape
            np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-7, err_msg=f"{op.name} {choice}")


assert verify
