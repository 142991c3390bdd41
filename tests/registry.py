"""Graphs out of the samples that ops carry, and derivatives by finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import graphflow.compiler.ops
import numpy as np
from graphflow.compiler.interpret import run_graph
from graphflow.compiler.ir import OPS, Graph, Node, Op, Sample, TensorType, TupleType, constant, input_node
from graphflow.compiler.ops.control import cond, items
from graphflow.compiler.passes.autodiff import vjp
from graphflow.dtypes import as_dtype, bool_


def type_of(array: np.ndarray) -> TensorType:
    """The type whose values look like `array`."""
    return TensorType(as_dtype(array.dtype), array.shape)


def inputs_for(arrays: Sequence[np.ndarray], prefix: str = "x") -> tuple[Node, ...]:
    """One input node for each array."""
    return tuple(input_node(f"{prefix}{i}", type_of(a)) for i, a in enumerate(arrays))


def make_tuple(nodes: Sequence[Node]) -> Node:
    """A tuple-typed node with the values of `nodes`."""
    args = tuple(input_node(f"item{i}", node.type) for i, node in enumerate(nodes))
    same = Graph("same", args, (), args)
    return cond(constant(True, bool_), *nodes, then=same, otherwise=same)


@dataclass
class Case:
    """One op applied to inputs made from a sample, and the arrays for those inputs."""

    node: Node
    graph: Graph
    arrays: list[np.ndarray]


def operands_for(sample_inputs: Sequence[Any]) -> tuple[list[Node], list[Node], list[np.ndarray]]:
    """Operand nodes, the input nodes they are made of, and arrays for those."""
    operands: list[Node] = []
    leaves: list[Node] = []
    arrays: list[np.ndarray] = []
    for value in sample_inputs:
        several = isinstance(value, tuple)
        group = [np.asarray(v) for v in value] if several else [np.asarray(value)]
        nodes = [input_node(f"x{len(leaves) + i}", type_of(a)) for i, a in enumerate(group)]
        operands.append(make_tuple(nodes) if several else nodes[0])
        leaves += nodes
        arrays += group
    return operands, leaves, arrays


def case_for(op: Op, sample: Sample) -> Case:
    """The graph of `op` on a sample's inputs."""
    operands, leaves, arrays = operands_for(sample.inputs)
    node = op(*operands, **sample.attrs)
    outputs = items(node) if isinstance(node.type, TupleType) else (node,)
    return Case(node, Graph(op.name, tuple(leaves), (), outputs), arrays)


def samples_of(op: Op) -> list[Sample]:
    """The op's samples, the same ones on every call."""
    return op.samples(np.random.default_rng(20240229))


def gradient_graph(graph: Graph) -> tuple[Graph, list[int]]:
    """Cotangents of the float arguments as a function of arguments and outputs' cotangents; which arguments
    they are of.

    Every float output gets a cotangent argument, in order, after the graph's own.
    """
    received = [
        input_node(f"g{k}", out.type) if out.dtype.is_floating_point else None
        for k, out in enumerate(graph.outputs)
    ]
    found = vjp(graph.outputs, received, graph.args)
    owners = [i for i, g in enumerate(found) if g is not None]
    args = (*graph.args, *(g for g in received if g is not None))
    return Graph(f"{graph.name}_vjp", args, (), tuple(g for g in found if g is not None)), owners


def draw_weights(graph: Graph, arrays: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Standard normal arrays with the types and sizes that the graph's float outputs have on `arrays`."""
    outputs, _ = run_graph(graph, arrays)
    return [np.asarray(rng.standard_normal(out.shape), out.dtype) for out in outputs if out.dtype.kind == "f"]


def projected(graph: Graph, weights: Sequence[np.ndarray]) -> Callable[[Sequence[np.ndarray]], float]:
    """The sum of the graph's float outputs times `weights`, as a function of the argument arrays."""
    floats = [k for k, out in enumerate(graph.outputs) if out.dtype.is_floating_point]

    def value(arrays: Sequence[np.ndarray]) -> float:
        outputs, _ = run_graph(graph, arrays)
        return float(sum(np.sum(outputs[k] * w) for k, w in zip(floats, weights, strict=True)))

    return value


def numeric_gradient(
    function: Callable[[Sequence[np.ndarray]], float],
    arrays: Sequence[np.ndarray],
    wrt: int,
    eps: float = 1e-6,
) -> np.ndarray:
    """Central differences of `function` in every element of one of its arrays."""
    found = np.zeros(arrays[wrt].shape)
    for index in np.ndindex(found.shape):
        ends = []
        for step in (eps, -eps):
            moved = [a.copy() for a in arrays]
            moved[wrt][index] += step
            ends.append(function(moved))
        found[index] = (ends[0] - ends[1]) / (2 * eps)
    return found


def numeric_slope(
    function: Callable[[Sequence[np.ndarray]], float],
    arrays: Sequence[np.ndarray],
    directions: Sequence[np.ndarray | None],
    eps: float = 1e-6,
) -> float:
    """The central difference of `function` along one direction in all arrays at once."""
    ends = [
        function([a if d is None else a + step * d for a, d in zip(arrays, directions, strict=True)])
        for step in (eps, -eps)
    ]
    return (ends[0] - ends[1]) / (2 * eps)


def check_gradient(graph: Graph, arrays: Sequence[np.ndarray], rng: np.random.Generator) -> None:
    """Compares the gradient with differences in every element, its own gradient along a direction."""
    pulled, owners = gradient_graph(graph)
    weights = draw_weights(graph, arrays, rng)
    gradients, _ = run_graph(pulled, [*arrays, *weights])
    value = projected(graph, weights)
    for i, arg in enumerate(graph.args):
        if not arg.dtype.is_floating_point:
            assert i not in owners, f"the integer argument {i} got a gradient"
            continue
        expected = numeric_gradient(value, arrays, i)
        actual = gradients[owners.index(i)] if i in owners else np.zeros(expected.shape)
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=1e-3, err_msg=f"gradient of operand {i}")
    if owners:
        _check_second(pulled, [*arrays, *weights], rng)


def _check_second(pulled: Graph, arrays: Sequence[np.ndarray], rng: np.random.Generator) -> None:
    weights = draw_weights(pulled, arrays, rng)
    second, owners = gradient_graph(pulled)
    found, _ = run_graph(second, [*arrays, *weights])
    directions = [rng.standard_normal(a.shape) if a.dtype.kind == "f" else None for a in arrays]
    slope = sum(float(np.sum(g * directions[i])) for i, g in zip(owners, found, strict=True))
    expected = numeric_slope(projected(pulled, weights), arrays, directions)
    np.testing.assert_allclose(slope, expected, atol=1e-5, rtol=1e-3, err_msg="second derivative")


ALL_OPS = [op for op in OPS.values() if op.name != "input"]
assert graphflow.compiler.ops  # imported because it fills the registry
